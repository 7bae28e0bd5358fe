//! Decides by the small marker, which a client reads every turn, when to read the whole table. Pure.
//!
//! A version says something about the rows only while a server increments it with every change, so it is ignored unless that server's
//! heartbeat rises. A read belongs to the version seen *before* it, so a change in between shows as a new version in the next turn.
//! A scan is not a snapshot: it may see a transaction's marker before its rows, so after each new version the table is read once more.

use std::time::{Duration, Instant};

use crate::marker::Marker;

/// How long a version is trusted after the heartbeat last rose.
const FRESH: Duration = Duration::from_secs(5);
/// How long a transaction may take from its first visible item to its last.
const TRANSACTION: Duration = Duration::from_secs(1);
/// The longest time between two reads of the whole table, whatever the marker says.
const MAX_AGE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// An eventually consistent read, at half the price, to see whether the table is unchanged.
    Look,
    /// A strongly consistent read.
    Read,
}

/// Why the version is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerFault {
    Absent,
    Stale,
}

#[derive(Debug, Default)]
pub(super) struct MarkerWatch {
    version: Option<u64>,
    /// The highest heartbeat seen: a stale replica shows lower ones.
    heartbeat: Option<u64>,
    since: Option<Instant>,
    beat: Option<Instant>,
    last_read: Option<Instant>,
    recheck: Option<Instant>,
}

impl MarkerWatch {
    /// Records the marker, and returns what to read.
    pub(super) fn see(&mut self, marker: &Marker, now: Instant) -> Need {
        self.since.get_or_insert(now);
        let (Some(version), Some(heartbeat)) = (marker.version, marker.heartbeat) else {
            (self.version, self.heartbeat, self.beat) = (None, None, None);
            return Need::Look;
        };
        match self.heartbeat {
            // The first one may be left over from a server that is gone.
            None => self.heartbeat = Some(heartbeat),
            Some(last) if heartbeat > last => (self.heartbeat, self.beat) = (Some(heartbeat), Some(now)),
            Some(_) => {}
        }
        if self.version != Some(version) {
            return Need::Read;
        }
        let fresh = self.beat.is_some_and(|beat| now.saturating_duration_since(beat) <= FRESH);
        let recent = self.last_read.is_some_and(|last_read| now.saturating_duration_since(last_read) < MAX_AGE);
        let complete = self.recheck.is_none_or(|recheck| now < recheck);
        if fresh && recent && complete { Need::Nothing } else { Need::Look }
    }

    /// The whole table was read in the turn of `now`, and is unchanged.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.last_read = Some(now);
        self.recheck = self.recheck.filter(|recheck| now < *recheck);
    }

    /// The whole table was read in the turn of `now`, after `marker`, and has changed; the read ended at `end`. A slow one may have
    /// begun long after its turn.
    pub(super) fn read(&mut self, marker: &Marker, now: Instant, end: Instant) {
        self.last_read = Some(now);
        self.version = marker.version.filter(|_| marker.heartbeat.is_some());
        self.recheck = self.version.map(|_| end + TRANSACTION);
    }

    /// The version of the marker that was seen before the table was last read.
    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    pub(super) fn beat(&self) -> Option<Instant> {
        self.beat
    }

    /// Why the table is read every turn; `None` if it is not, or if it is too early to say.
    pub(super) fn fault(&self, now: Instant) -> Option<MarkerFault> {
        let since = self.beat.or(self.since)?;
        let over = now.saturating_duration_since(since) > FRESH;
        over.then_some(if self.heartbeat.is_some() { MarkerFault::Stale } else { MarkerFault::Absent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(text: &str) -> Marker {
        let numbers: Vec<Option<u64>> = text.split('/').map(|number| number.parse().ok()).collect();
        Marker { version: numbers[0], heartbeat: numbers[1], ..Marker::default() }
    }

    /// Replays markers, as `version/heartbeat` with `-` for none, at tenths of a second, with the reads they ask for. `!` before a need:
    /// the read finds a change.
    fn play(name: &str, steps: &[(u64, &str, &str)]) {
        let start = Instant::now();
        let mut watch = MarkerWatch::default();
        for (tenths, text, expected) in steps {
            let now = start + Duration::from_millis(tenths * 100);
            let need = watch.see(&marker(text), now);
            assert_eq!(format!("{need:?}").to_lowercase(), expected.trim_start_matches('!'), "{name}, at {tenths}");
            match need {
                Need::Nothing => {}
                Need::Look if !expected.starts_with('!') => watch.confirm(now),
                Need::Look | Need::Read => watch.read(&marker(text), now, now),
            }
        }
    }

    /// A turn whose calls are slow may read a transaction by halves when it is over a second old itself.
    #[test]
    fn a_slow_read_is_repeated_a_second_after_its_end() {
        let start = Instant::now();
        let after = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let mut watch = MarkerWatch::default();
        assert_eq!(watch.see(&marker("7/1"), after(0)), Need::Read);
        watch.read(&marker("7/1"), after(0), after(20));
        assert_eq!(watch.see(&marker("7/2"), after(20)), Need::Nothing);
        assert_eq!(watch.see(&marker("7/3"), after(29)), Need::Nothing);
        assert_eq!(watch.see(&marker("7/4"), after(30)), Need::Look);
        watch.confirm(after(30));
        assert_eq!(watch.see(&marker("7/5"), after(31)), Need::Nothing);
    }

    #[test]
    fn the_table_is_read_when_the_marker_says_so_or_says_nothing() {
        play(
            "a living server",
            &[
                (0, "7/1", "read"),
                (5, "7/1", "look"),
                (10, "7/2", "look"),
                (15, "7/2", "nothing"),
                (20, "7/3", "nothing"),
                (25, "8/4", "read"),
                (30, "8/4", "nothing"),
                (35, "8/5", "look"),
                (40, "8/5", "nothing"),
            ],
        );
        play(
            "its heartbeat stops and goes on",
            &[
                (0, "7/1", "read"),
                (10, "7/2", "look"),
                (15, "7/2", "nothing"),
                (60, "7/2", "nothing"),
                (61, "7/2", "look"),
                (70, "7/2", "look"),
                (71, "7/3", "nothing"),
                (80, "7/3", "nothing"),
            ],
        );
        play(
            "a marker from the days of another server",
            &[(0, "7/1", "read"), (10, "7/1", "look"), (20, "7/1", "!look"), (30, "7/1", "look"), (300, "7/1", "look")],
        );
        play(
            "no marker, then one, then none",
            &[
                (0, "-/-", "look"),
                (10, "-/-", "!look"),
                (20, "7/1", "read"),
                (30, "7/2", "look"),
                (32, "7/2", "nothing"),
                (40, "-/-", "look"),
                (50, "7/3", "read"),
                (52, "7/3", "look"),
                (60, "7/4", "look"),
                (62, "7/4", "nothing"),
            ],
        );
        play(
            "half a marker is none",
            &[
                (0, "7/-", "look"),
                (10, "-/5", "look"),
                (20, "7/5", "read"),
                (30, "7/6", "look"),
                (40, "7/7", "nothing"),
            ],
        );
        play(
            "whatever it says, every 30 seconds",
            &[
                (0, "7/1", "read"),
                (10, "7/2", "look"),
                (50, "7/3", "nothing"),
                (100, "7/4", "nothing"),
                (150, "7/5", "nothing"),
                (200, "7/6", "nothing"),
                (250, "7/7", "nothing"),
                (300, "7/8", "nothing"),
                (309, "7/9", "nothing"),
                (310, "7/9", "look"),
                (320, "7/10", "nothing"),
            ],
        );
        play(
            "a replica that is behind costs a reading and changes nothing",
            &[
                (0, "7/1", "read"),
                (10, "7/2", "look"),
                (20, "8/3", "read"),
                (22, "7/2", "read"),
                (24, "8/3", "read"),
                (40, "8/4", "look"),
                (42, "8/3", "nothing"),
            ],
        );
    }

    #[test]
    fn a_fault_is_reported_after_five_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = MarkerWatch::default();
        assert_eq!(watch.fault(start), None);
        watch.see(&marker("-/-"), start);
        assert_eq!((watch.fault(at(5)), watch.fault(at(6))), (None, Some(MarkerFault::Absent)));
        watch.see(&marker("7/1"), at(6));
        assert_eq!(watch.fault(at(6)), Some(MarkerFault::Stale));
        watch.see(&marker("7/2"), at(7));
        assert_eq!((watch.fault(at(12)), watch.fault(at(13))), (None, Some(MarkerFault::Stale)));
        assert_eq!(watch.beat(), Some(at(7)));
    }
}
