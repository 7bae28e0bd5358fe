//! The change marker and the lease, both stored in slot 1's item.
//!
//! A [`Marker`] was read, a [`Claim`] takes the lease, a [`Stamp`] is written by the leader. The counters only ever rise.
//! Readers look for changes and never compare them with a clock.

use std::time::Instant;

use crate::clock::Timestamp;

/// The marker as read. Missing or unreadable attributes are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// Changes with every write of rows (`HsdoVersion`), 0 to [`MAX_COUNTER`].
    pub version: Option<u64>,
    /// Changes every second while a server leads (`HsdoHeartbeat`), 0 to [`MAX_COUNTER`].
    pub heartbeat: Option<u64>,
    /// The term of the server that may write (`HsdoLeader`).
    pub leader: Option<String>,
    /// Whether that server says that it cannot see the instances (`HsdoBlind`, whatever its value).
    pub blind: bool,
}

impl Marker {
    /// Whether nothing of it is left. A blindness means nothing without a leader.
    pub fn is_gone(&self) -> bool {
        matches!(self, Marker { version: None, heartbeat: None, leader: None, .. })
    }
}

/// What a server writes to take the lease. Whoever takes it sees the instances, so that it removes a blindness of the marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its first version, 0 to [`MAX_COUNTER`].
    pub version: u64,
    /// Its first heartbeat, 0 to [`MAX_COUNTER`].
    pub heartbeat: u64,
    /// The name of its term.
    pub leader: String,
}

/// What a leader writes to the marker, with rows or alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The next version, 0 to [`MAX_COUNTER`]; `None` leaves the version as it is.
    pub version: Option<u64>,
    /// The next heartbeat, 0 to [`MAX_COUNTER`].
    pub heartbeat: u64,
    /// The name of its term: the table must still name it.
    pub leader: String,
    /// Whether it cannot see the instances.
    pub blind: bool,
}

/// The highest valid counter: 31,000 years in milliseconds. hsdo never wrote a higher one, and could not rise above it.
pub const MAX_COUNTER: u64 = 1_000_000_000_000_000;

/// A moment on both of this machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of day, for timestamps in the table.
    pub time: Timestamp,
    /// The monotonic clock, for durations.
    pub clock: Instant,
}

impl Moment {
    /// The present moment.
    pub fn now() -> Self {
        Moment { time: Timestamp::now(), clock: Instant::now() }
    }
}

/// The counter that follows `last`: milliseconds since the epoch, so that it differs even from that of a lost marker, but
/// always above `last`, whatever the clock says.
pub fn next(last: Option<u64>, now: Timestamp) -> u64 {
    let clock = u64::try_from(now.as_micros() / 1_000).unwrap_or(0);
    clock.max(last.map_or(0, |last| last + 1)).min(MAX_COUNTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_follows_the_clock_and_never_falls() {
        for (name, last, millis, expected) in [
            ("the first", None, 5_000, 5_000),
            ("the clock advanced", Some(4_000), 5_000, 5_000),
            ("the clock stood still", Some(5_000), 5_000, 5_001),
            ("the clock went back, or another machine's is behind", Some(9_000), 5_000, 9_001),
            ("before the epoch", None, -5_000, 0),
            ("at the end", Some(MAX_COUNTER), 5_000, MAX_COUNTER),
        ] {
            assert_eq!(next(last, Timestamp::from_micros(millis * 1_000)), expected, "{name}");
        }
    }
}
