//! A time to decide by: whether an order has lapsed, or an instance has waited for long enough.
//!
//! What follows cannot be taken back, and one wrong `Date`, of a proxy or of one machine of many, or a step of this machine's clock, must
//! not bring it about. So this clock runs by the monotonic one, and is set by dates only once they agree with each other for a while.

use std::time::{Duration, Instant};

use crate::clock::Timestamp;

/// Dates have whole seconds, and the way takes time.
const NEAR: Duration = Duration::from_secs(5);
/// For so long, dates must agree with each other before the clock is set by them.
const CONVINCING: Duration = Duration::from_secs(30);

/// The first date sets the clock, since there is nothing better yet.
#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    set: Option<Mark>,
    /// The first of the dates that agree with each other, but not with the clock.
    other: Option<Mark>,
}

/// A moment on the monotonic clock, and what time it was.
#[derive(Clone, Copy, Debug)]
struct Mark {
    moment: Instant,
    time: Timestamp,
}

impl Mark {
    fn at(self, now: Instant) -> Timestamp {
        self.time.plus(now.saturating_duration_since(self.moment))
    }

    fn is_near(self, other: Mark) -> bool {
        let apart = self.at(other.moment).as_micros().abs_diff(other.time.as_micros());
        u128::from(apart) <= NEAR.as_micros()
    }
}

impl SteadyClock {
    /// The time at `now`; `None` before the first date.
    pub(super) fn at(&self, now: Instant) -> Option<Timestamp> {
        self.set.map(|mark| mark.at(now))
    }

    /// AWS says that it is `time` at `now`.
    pub(super) fn hear(&mut self, time: Timestamp, now: Instant) {
        let heard = Mark { moment: now, time };
        let agrees = |mark: Option<Mark>| mark.filter(|mark| mark.is_near(heard));
        if self.set.is_none() || agrees(self.set).is_some() {
            *self = SteadyClock { set: Some(heard), other: None };
            return;
        }
        let first = agrees(self.other).unwrap_or(heard);
        self.other = Some(first);
        if now.saturating_duration_since(first.moment) >= CONVINCING {
            *self = SteadyClock { set: Some(heard), other: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_set_by_dates_that_go_on_saying_the_same() {
        const DAY: i64 = 86_400;
        /// Seconds of the monotonic clock, by how much the date is ahead of it, and by how much the clock is then.
        type Case<'a> = (&'a str, &'a [(u64, i64, i64)]);
        let cases: [Case<'_>; 7] = [
            ("the first date counts", &[(0, 7, 7), (1, 7, 7)]),
            ("whole seconds and slow ways", &[(0, 0, 0), (1, 1, 1), (2, -2, -2), (3, 3, 3)]),
            ("a wrong one", &[(0, 0, 0), (1, DAY, 0), (2, 0, 0), (40, DAY, 0), (41, 0, 0)]),
            (
                "wrong ones, again and again",
                &[(0, 0, 0), (10, DAY, 0), (20, 0, 0), (30, DAY, 0), (40, 0, 0), (50, DAY, 0)],
            ),
            ("it was wrong itself", &[(0, DAY, DAY), (1, 0, DAY), (30, 1, DAY), (31, 0, 0), (32, 0, 0)]),
            ("dates that disagree convince nobody", &[(0, 0, 0), (20, DAY, 0), (40, 2 * DAY, 0), (60, 3 * DAY, 0)]),
            ("after a suspension, for which the clock stood still", &[(0, 0, 0), (1, 600, 0), (31, 600, 600)]),
        ];
        let (start, epoch) = (Instant::now(), Timestamp::from_micros(1_767_225_600_000_000));
        for (name, steps) in cases {
            let mut clock = SteadyClock::default();
            assert_eq!(clock.at(start), None);
            for (second, date, expected) in steps {
                let now = start + Duration::from_secs(*second);
                let ahead = |seconds: i64| {
                    let passed = i64::try_from(*second).expect("small") + seconds;
                    Timestamp::from_micros(epoch.as_micros() + passed * 1_000_000)
                };
                clock.hear(ahead(*date), now);
                assert_eq!(clock.at(now), Some(ahead(*expected)), "{name}, at {second}");
            }
        }
    }
}
