//! The turns of a role's loop: how many, how long, and whether the last ones ended in time.

use std::time::{Duration, Instant};

use super::Metrics;
use super::format::Text;
use crate::clock::Timestamp;

/// Upper bounds of the turn histogram, in seconds: a steady client turn takes about a millisecond, one that waits for AWS seconds.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// Turns per bucket of [`BUCKETS`], not cumulative; the last one counts anything longer.
    pub(super) buckets: [u64; BUCKETS.len() + 1],
    pub(super) seconds: f64,
    pub(super) last_success: Option<Timestamp>,
    pub(super) last_end: Option<Instant>,
    pub(super) last_ok_end: Option<Instant>,
    pub(super) last_failed: bool,
}

/// The result of `/healthz` (alive) and `/readyz` (ready).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// A turn ended, successfully or not, within the longer of ten intervals and 60 s.
    pub alive: bool,
    /// The last turn succeeded, within the longer of three intervals and 15 s.
    pub ready: bool,
    /// Why it is not ready (or not alive), in one line; otherwise `ok`.
    pub reason: String,
}

impl Turns {
    pub(super) fn liveness(&self, started: Instant, now: Instant, interval: Duration) -> Liveness {
        let age = |since: Instant| now.saturating_duration_since(since);
        let alive_for = interval.saturating_mul(10).max(Duration::from_secs(60));
        let ready_for = interval.saturating_mul(3).max(Duration::from_secs(15));
        let alive = age(self.last_end.unwrap_or(started)) <= alive_for;
        let (ready, reason) = match (self.last_end, self.last_ok_end) {
            (None, _) => (false, format!("no turn has ended yet, {} s after start", age(started).as_secs())),
            (Some(end), _) if !alive => (false, format!("the last turn ended {} s ago", age(end).as_secs())),
            (_, None) => (false, "no turn has succeeded yet: see the log".to_owned()),
            (_, Some(ok)) if self.last_failed => (
                false,
                format!("the last turn failed, the last successful one ended {} s ago: see the log", age(ok).as_secs()),
            ),
            (_, Some(ok)) if age(ok) > ready_for => (false, format!("the last turn ended {} s ago", age(ok).as_secs())),
            _ => (true, "ok".to_owned()),
        };
        Liveness { alive, ready, reason }
    }
}

impl Metrics {
    /// A turn just ended after `took`; `ok` if it did all of its work.
    pub fn turn(&self, ok: bool, took: Duration) {
        let (now, moment) = (Instant::now(), Timestamp::now());
        let turns = &mut self.values().turns;
        turns.last_end = Some(now);
        turns.last_failed = !ok;
        if ok {
            turns.ok += 1;
            turns.last_ok_end = Some(now);
            turns.last_success = Some(moment);
        } else {
            turns.failed += 1;
        }
        let seconds = took.as_secs_f64();
        turns.buckets[BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
        turns.seconds += seconds;
    }
}

pub(super) fn render(text: &mut Text, turns: &Turns) {
    let name = "hsdo_turns_total";
    text.family(name, "counter", "Turns of the role's loop, by result.");
    text.sample(name, &[("result", &"ok")], turns.ok);
    text.sample(name, &[("result", &"failed")], turns.failed);
    text.histogram("hsdo_turn_duration_seconds", "Duration of turns.", &BUCKETS, &turns.buckets, turns.seconds);
    text.gauge(
        "hsdo_last_success_timestamp_seconds",
        "When the last successful turn ended, in seconds since the epoch.",
        turns.last_success.map(Timestamp::as_secs_f64),
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn liveness_follows_the_turns() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let none = Turns::default();
        let good = Turns { last_end: Some(at(100)), last_ok_end: Some(at(100)), ..none.clone() };
        let never = Turns { last_end: Some(at(100)), last_failed: true, ..none.clone() };
        let failed = Turns { last_ok_end: Some(at(90)), ..never.clone() };
        let cases = [
            ("just started", &none, 5, 1, true, false, "no turn has ended yet, 5 s after start"),
            ("no turn", &none, 61, 1, false, false, "no turn has ended yet, 61 s after start"),
            ("no turn, long interval", &none, 61, 30, true, false, "no turn has ended yet, 61 s after start"),
            ("well", &good, 100, 1, true, true, "ok"),
            ("still recent", &good, 115, 1, true, true, "ok"),
            ("late", &good, 116, 1, true, false, "the last turn ended 16 s ago"),
            ("long interval", &good, 190, 30, true, true, "ok"),
            ("late for a long interval", &good, 191, 30, true, false, "the last turn ended 91 s ago"),
            ("hangs", &good, 161, 1, false, false, "the last turn ended 61 s ago"),
            ("no success yet", &never, 101, 1, true, false, "no turn has succeeded yet: see the log"),
            (
                "fails",
                &failed,
                102,
                1,
                true,
                false,
                "the last turn failed, the last successful one ended 12 s ago: see the log",
            ),
        ];
        for (name, turns, second, interval, alive, ready, reason) in cases {
            let liveness = turns.liveness(start, at(second), Duration::from_secs(interval));
            assert_eq!(liveness, Liveness { alive, ready, reason: reason.to_owned() }, "{name}");
        }
    }

    #[test]
    fn a_turn_counts_for_liveness_and_for_the_scrape() {
        let metrics = Metrics::new("server");
        let second = Duration::from_secs(1);
        assert!(!metrics.liveness(Instant::now(), second).ready);
        assert!(!metrics.render().contains("hsdo_last_success_timestamp_seconds"), "unknown before the first success");
        metrics.turn(true, Duration::from_millis(20));
        assert!(metrics.liveness(Instant::now(), second).ready);
        metrics.turn(false, second);
        assert!(!metrics.liveness(Instant::now(), second).ready);
        let text = metrics.render();
        assert!(text.contains("hsdo_turns_total{result=\"ok\"} 1\nhsdo_turns_total{result=\"failed\"} 1\n"), "{text}");
        assert!(text.contains("hsdo_turn_duration_seconds_count 2\n"), "{text}");
        assert!(text.contains("\nhsdo_last_success_timestamp_seconds "), "{text}");
    }

    proptest! {
        #[test]
        fn a_turn_is_counted_in_its_bucket(millis in 0u64..20_000) {
            let metrics = Metrics::new("client");
            metrics.turn(true, Duration::from_millis(millis));
            let buckets = metrics.values().turns.buckets;
            let index = buckets.iter().position(|count| *count == 1).expect("one bucket");
            let seconds = Duration::from_millis(millis).as_secs_f64();
            prop_assert!(index == BUCKETS.len() || seconds <= BUCKETS[index]);
            prop_assert!(index == 0 || seconds > BUCKETS[index - 1]);
        }
    }
}
