//! When a client must read the whole table, told from the small marker that it reads every turn. Pure.
//!
//! A version stands for the rows only while some server raises it with every change, so it counts for nothing unless that
//! server's heartbeat is seen to change. The version that goes with a reading is the one that was seen *before* it: a
//! change in between shows as another version in the next turn. And a scan is no snapshot: a transaction that is being
//! carried out may show its marker before its rows, so that after each new version the table is looked at once more.

use std::time::{Duration, Instant};

use crate::marker::Marker;

/// How long a version is believed after its heartbeat was last seen to change.
const FRESH: Duration = Duration::from_secs(5);
/// How long a transaction may take from its first visible item to its last.
const SETTLE: Duration = Duration::from_secs(1);
/// The longest time between two looks at the whole table, whatever the marker says.
const LONGEST: Duration = Duration::from_secs(30);

/// What a turn has to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: the table is as it was.
    Nothing,
    /// The whole table, to see whether it is as it was; at half the price, and maybe a moment old.
    Look,
    /// The whole table, strongly consistent.
    Read,
}

/// Why a version is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerFault {
    /// The table has no marker.
    Absent,
    /// Its heartbeat stands still.
    Stale,
}

/// What was seen of the marker.
#[derive(Debug, Default)]
pub(super) struct MarkerWatch {
    /// The version that goes with the table as it is known.
    version: Option<u64>,
    /// The highest heartbeat seen: a replica that is behind shows lower ones.
    heartbeat: Option<u64>,
    /// Since when the marker is watched.
    since: Option<Instant>,
    /// When the heartbeat was last seen to rise.
    beat: Option<Instant>,
    /// When the whole table was last seen.
    looked: Option<Instant>,
    /// From when on to look once more.
    settles: Option<Instant>,
}

impl MarkerWatch {
    /// Notes the marker, and tells what it asks for.
    pub(super) fn see(&mut self, marker: &Marker, now: Instant) -> Need {
        self.since.get_or_insert(now);
        let (Some(version), Some(heartbeat)) = (marker.version, marker.heartbeat) else {
            (self.version, self.heartbeat, self.beat) = (None, None, None);
            return Need::Look;
        };
        match self.heartbeat {
            // The first one seen may be of a server that is long gone.
            None => self.heartbeat = Some(heartbeat),
            Some(last) if heartbeat > last => (self.heartbeat, self.beat) = (Some(heartbeat), Some(now)),
            Some(_) => {}
        }
        if self.version != Some(version) {
            return Need::Read;
        }
        let fresh = self.beat.is_some_and(|beat| now.saturating_duration_since(beat) <= FRESH);
        let recent = self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LONGEST);
        let settled = self.settles.is_none_or(|settles| now < settles);
        if fresh && recent && settled { Need::Nothing } else { Need::Look }
    }

    /// The table was seen whole in the turn of `now`, and is as it was.
    pub(super) fn same(&mut self, now: Instant) {
        self.looked = Some(now);
        self.settles = self.settles.filter(|settles| now < *settles);
    }

    /// The table was read anew in the turn of `now`, after `marker` was seen.
    pub(super) fn read(&mut self, marker: &Marker, now: Instant) {
        self.looked = Some(now);
        self.version = marker.version.filter(|_| marker.heartbeat.is_some());
        self.settles = self.version.map(|_| now + SETTLE);
    }

    /// When the heartbeat was last seen to rise.
    pub(super) fn beat(&self) -> Option<Instant> {
        self.beat
    }

    /// Why the table is read every turn; `None` while it is not, or while it is too early to say.
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
        Marker { version: numbers[0], heartbeat: numbers[1], leader: None }
    }

    /// Plays markers, as `version/heartbeat` with `-` for none, at tenths of a second from a start, and every reading
    /// that they ask for. `!` before a need: what is looked at is found changed, and is read anew.
    fn play(name: &str, steps: &[(u64, &str, &str)]) {
        let start = Instant::now();
        let mut watch = MarkerWatch::default();
        for (tenths, text, expected) in steps {
            let now = start + Duration::from_millis(tenths * 100);
            let need = watch.see(&marker(text), now);
            assert_eq!(format!("{need:?}").to_lowercase(), expected.trim_start_matches('!'), "{name}, at {tenths}");
            match need {
                Need::Nothing => {}
                Need::Look if !expected.starts_with('!') => watch.same(now),
                Need::Look | Need::Read => watch.read(&marker(text), now),
            }
        }
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
    fn a_doubt_is_told_after_five_seconds_and_not_at_once() {
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
