//! Who leads the table, and whether it is alive, as one look tells.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::print::{Cell, Tone};
use crate::clock::Timestamp;
use crate::marker::Marker;
use crate::ports::SlotStore;
use crate::text::span;

/// How long to wait for the heartbeat to change: a leader changes it every second.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(150);

/// The lease on the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) marker: Marker,
    /// Whether the heartbeat changed while it was watched; none if nobody leads, or if it was not watched.
    pub(super) alive: Option<bool>,
    /// The heartbeat's age by the clocks of two machines.
    pub(super) age: Option<Duration>,
}

impl Lease {
    /// The lease as `marker` has it.
    pub(super) fn of(marker: Marker, now: Timestamp) -> Self {
        let written = marker.heartbeat.and_then(|beat| i64::try_from(beat).ok()).map(|beat| beat.saturating_mul(1_000));
        // A clock that is behind the leader's sees a heartbeat of the future.
        let age = written.map(|written| now.since(Timestamp::from_micros(written)).unwrap_or_default());
        Lease { marker, alive: None, age }
    }

    /// Watches the heartbeat, if somebody leads, until it changes or patience ends.
    pub(super) fn watched<S: SlotStore>(self, table: &mut S) -> Self {
        if self.marker.leader.is_none() || self.marker.heartbeat.is_none() {
            return self;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            thread::sleep(POLL);
            match table.read_marker() {
                // A read may be stale, but the heartbeat only rises.
                Ok(seen) if seen.marker.heartbeat > self.marker.heartbeat => {
                    return Lease { alive: Some(true), ..Lease::of(seen.marker, Timestamp::now()) };
                }
                Err(_) => return self,
                Ok(_) if Instant::now() > end => return Lease { alive: Some(false), ..self },
                Ok(_) => {}
            }
        }
    }

    /// In a few words.
    pub(super) fn cell(&self) -> Cell {
        let Some(leader) = &self.marker.leader else {
            let text = match self.marker.heartbeat {
                Some(_) => "no server leads: the last one stopped; start `hsdo --server`",
                None => "no server leads; start `hsdo --server`, unless the Python version writes this table",
            };
            return Cell::new(text, Tone::Warn);
        };
        let age = self.age.map_or_else(|| "no heartbeat".to_owned(), |age| format!("heartbeat {} old", span(age)));
        match self.alive {
            Some(true) if self.marker.blind => {
                let text = format!(
                    "{leader}, alive, but it cannot see its instances ({age}); look at its log, and whether others stand by"
                );
                Cell::new(text, Tone::Bad)
            }
            Some(true) => Cell::new(format!("{leader}, alive ({age})"), Tone::Good),
            Some(false) => {
                let text =
                    format!("{leader}, dead: its heartbeat does not change ({age}); is `hsdo --server` running?");
                Cell::new(text, Tone::Bad)
            }
            None => Cell::new(format!("{leader} ({age})"), Tone::Plain),
        }
    }

    /// The same as text.
    pub(super) fn text(&self) -> String {
        self.cell().into_text()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "leader": self.marker.leader,
            "alive": self.alive,
            "blind": self.marker.leader.as_ref().map(|_| self.marker.blind),
            "heartbeat_age_seconds": self.age.map(|age| age.as_secs_f64()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_in_words() {
        let now = Timestamp::from_micros(100_000_000);
        let lease = |leader: Option<&str>, heartbeat, alive| {
            let marker = Marker { version: Some(1), heartbeat, leader: leader.map(str::to_owned), blind: false };
            Lease { alive, ..Lease::of(marker, now) }
        };
        for (name, lease, text, tone) in [
            ("alive", lease(Some("a/1"), Some(98_500), Some(true)), "a/1, alive (heartbeat 1.5 s old)", Tone::Good),
            (
                "blind",
                {
                    let one = lease(Some("a/1"), Some(98_500), Some(true));
                    Lease { marker: Marker { blind: true, ..one.marker }, ..one }
                },
                "a/1, alive, but it cannot see its instances (heartbeat 1.5 s old); look at its log, and whether others stand by",
                Tone::Bad,
            ),
            ("its clock is ahead", lease(Some("a/1"), Some(990_000), None), "a/1 (heartbeat 0.0 s old)", Tone::Plain),
            (
                "dead",
                lease(Some("a/1"), Some(10_000), Some(false)),
                "a/1, dead: its heartbeat does not change (heartbeat 1 min 30 s old); is `hsdo --server` running?",
                Tone::Bad,
            ),
            (
                "stopped",
                lease(None, Some(10_000), None),
                "no server leads: the last one stopped; start `hsdo --server`",
                Tone::Warn,
            ),
            (
                "never",
                lease(None, None, None),
                "no server leads; start `hsdo --server`, unless the Python version writes this table",
                Tone::Warn,
            ),
            ("no heartbeat", lease(Some("a/1"), None, None), "a/1 (no heartbeat)", Tone::Plain),
        ] {
            assert_eq!(lease.cell(), Cell::new(text, tone), "{name}");
        }
    }
}
