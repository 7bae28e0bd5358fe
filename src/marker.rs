//! The change marker and the lease: what slot 1's item says about the table and its writer. Both roles share these types.
//!
//! Three types for three meanings: a [`Marker`] was read, a [`Claim`] takes the lease, a [`Stamp`] is written by the
//! leader. Numbers only ever rise, and no reader compares them with a clock: only that they change matters.

use std::time::Instant;

use crate::clock::Timestamp;

/// The marker as somebody read it. What is missing or cannot be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// Another number after every write of rows (`HsdoVersion`), 0 to [`MOST`].
    pub version: Option<u64>,
    /// Another number every second while a server leads (`HsdoHeartbeat`), 0 to [`MOST`].
    pub heartbeat: Option<u64>,
    /// The term of the server that may write (`HsdoLeader`).
    pub leader: Option<String>,
}

/// What a server writes to take the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its first version, 0 to [`MOST`].
    pub version: u64,
    /// Its first heartbeat, 0 to [`MOST`].
    pub heartbeat: u64,
    /// The name of its term.
    pub leader: String,
}

/// What a leader writes to the marker, with rows or alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The next version, 0 to [`MOST`]; `None` leaves the version as it is.
    pub version: Option<u64>,
    /// The next heartbeat, 0 to [`MOST`].
    pub heartbeat: u64,
    /// The name of its term, which the table must still bear.
    pub leader: String,
}

/// The highest number of a marker that is believed, and thousands of years in milliseconds: one above it was written
/// by another hand, and leaves no room to rise.
pub const MOST: u64 = 1_000_000_000_000_000;

/// One moment on both clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of day, for what is written.
    pub time: Timestamp,
    /// The monotonic clock, for how long something lasts.
    pub clock: Instant,
}

impl Moment {
    /// The present moment.
    pub fn now() -> Self {
        Moment { time: Timestamp::now(), clock: Instant::now() }
    }
}

/// The number that follows `last`: milliseconds since the epoch, so that it differs also from those of a marker that was
/// lost, but always above `last`, whatever the clock says.
pub fn next(last: Option<u64>, now: Timestamp) -> u64 {
    let clock = u64::try_from(now.as_micros() / 1_000).unwrap_or(0);
    clock.max(last.map_or(0, |last| last + 1)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_follows_the_clock_and_never_falls() {
        for (name, last, millis, expected) in [
            ("the first", None, 5_000, 5_000),
            ("the clock went on", Some(4_000), 5_000, 5_000),
            ("the clock stood still", Some(5_000), 5_000, 5_001),
            ("the clock went back, or another machine's is behind", Some(9_000), 5_000, 9_001),
            ("before the epoch", None, -5_000, 0),
            ("at the end", Some(MOST), 5_000, MOST),
        ] {
            assert_eq!(next(last, Timestamp::from_micros(millis * 1_000)), expected, "{name}");
        }
    }
}
