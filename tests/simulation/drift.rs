//! A monotonic clock of a machine.

use crate::journal::At;

/// A monotonic clock that runs a little fast or slow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drift {
    /// Virtual time, and what the clock showed then.
    from: At,
    shown: At,
    parts_per_million: i64,
}

impl Drift {
    /// What it shows at `now`.
    pub(crate) fn shows(self, now: At) -> At {
        let passed = (now - self.from) as i64;
        (self.shown as i64 + passed + passed / 1_000_000 * self.parts_per_million) as At
    }

    /// From `now` on it runs so much fast.
    pub(crate) fn changed(self, now: At, parts_per_million: i64) -> Self {
        Drift { from: now, shown: self.shows(now), parts_per_million }
    }
}

#[test]
fn a_clock_that_runs_fast_gains_on_time_and_never_jumps() {
    let day = 86_400_000_000;
    let fast = Drift::default().changed(day, 500);
    assert_eq!(fast.shows(day), day);
    assert_eq!(fast.shows(2 * day), 2 * day + 43_200_000);
    assert_eq!(fast.changed(2 * day, -500).shows(3 * day), 3 * day);
}
