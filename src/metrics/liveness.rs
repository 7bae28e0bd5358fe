//! Liveness and readiness, judged by when the last turns ended.

use std::time::{Duration, Instant};

use super::Turns;

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

#[cfg(test)]
mod tests {
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
}
