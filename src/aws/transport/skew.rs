//! How far this machine's clock is from AWS's, learnt from the `Date` of answers: signatures carry AWS's time.
//!
//! The rules are those of the SDKs' own test cases for clock skew, which `skew` is tested with, and one more: a date that
//! is not AWS's, such as that of a proxy whose clock is wrong, makes AWS refuse what was right before. Where dates say that
//! the time of a signature was right and AWS refuses it, the dates are not believed, and this machine's own clock signs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::aws::reading::dates;
use crate::clock::Timestamp;

/// A refused signature is blamed on the clock only where it was off by this much: AWS allows five minutes.
const NOTICED: Duration = Duration::from_secs(4 * 60);
/// A date that took longer than this to arrive says nothing.
const TRUSTED: Duration = Duration::from_secs(15 * 60);

/// AWS's clock, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Clock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// AWS's time less ours, in microseconds.
    ahead: i64,
    /// Dates are not believed: `ahead` is zero.
    own: bool,
}

/// What the date of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// AWS's time less ours by this date, in microseconds.
    ahead: i64,
    /// Whether the time in use was so far from it that AWS refuses signatures.
    pub(crate) far_off: bool,
}

impl Clock {
    /// AWS's time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Timestamp::now())
    }

    /// AWS's time when it is `local` here.
    pub(crate) fn at(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_micros(local.as_micros().saturating_add(self.lock().ahead))
    }

    /// Learns from an answer: when the request left and the answer came by this machine's clock, its `Date`, and
    /// whether it has an `Age` (a cache's answer has an old date). `None` where the answer tells nothing.
    pub(crate) fn learn(&self, sent: Timestamp, came: Timestamp, date: Option<&str>, aged: bool) -> Option<Seen> {
        let trip = came.since(sent).filter(|trip| *trip <= TRUSTED && !aged)?;
        let middle = sent.plus(trip / 2);
        let ahead = dates::header(date?)?.as_micros().saturating_sub(middle.as_micros());
        let mut state = self.lock();
        let seen = Seen { ahead, far_off: is_far(ahead, state.ahead) };
        if !state.own {
            state.ahead = ahead;
        }
        Some(seen)
    }

    /// AWS refused a signature, by an answer whose date said `seen`. Takes another time from now on, if there is one to
    /// try: that of the date, or this machine's own where the date agrees with what was signed. False: there is none.
    pub(crate) fn refused(&self, seen: Option<Seen>) -> bool {
        let Some(seen) = seen else { return false };
        let mut state = self.lock();
        if seen.far_off {
            *state = State { ahead: seen.ahead, own: false };
            return true;
        }
        let corrected = is_far(state.ahead, 0);
        if corrected {
            *state = State { ahead: 0, own: true };
        }
        corrected
    }

    /// Whether dates are not believed.
    pub(crate) fn is_own(&self) -> bool {
        self.lock().own
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_far(one: i64, other: i64) -> bool {
    u128::from(one.abs_diff(other)) >= NOTICED.as_micros()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// The facts of the SDKs' test cases: per request when it was sent and answered here, the answer's date and age,
    /// and what must be signed, learnt and concluded.
    #[derive(Deserialize)]
    struct Case {
        about: String,
        #[serde(default)]
        ahead_before: i64,
        requests: Vec<Request>,
    }

    #[derive(Deserialize)]
    struct Request {
        sent: String,
        came: String,
        signed: String,
        date: Option<String>,
        #[serde(default)]
        aged: bool,
        ahead_after: i64,
        far_off: Option<bool>,
    }

    fn moment(text: &str) -> Timestamp {
        dates::document(text).expect("a moment")
    }

    #[test]
    fn the_clock_is_corrected_as_the_sdks_do() {
        let text = include_str!("../../../tests/data/aws-config/clock-skew.json");
        let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let clock = Clock(Mutex::new(State { ahead: case.ahead_before * 1_000_000, own: false }));
            for request in case.requests {
                let (sent, came) = (moment(&request.sent), moment(&request.came));
                assert_eq!(clock.at(sent), moment(&request.signed), "{}", case.about);
                let seen = clock.learn(sent, came, request.date.as_deref(), request.aged);
                assert_eq!(seen.map(|seen| seen.far_off), request.far_off, "{}", case.about);
                assert_eq!(clock.lock().ahead, request.ahead_after * 1_000_000, "{}", case.about);
            }
        }
    }

    /// An answer to a call that was signed now, of an AWS or a proxy whose clock is `ahead` seconds before ours: whether
    /// AWS, whose clock is `truth` before ours, accepts it, and if not whether another time is to be tried.
    fn call(clock: &Clock, truth: i64, dates: Option<i64>) -> Result<(), bool> {
        let now = moment("2026-01-01T00:00:00Z");
        let signed = clock.at(now).as_micros() - now.as_micros();
        let date = dates.map(|ahead| header(now.as_micros() + ahead * 1_000_000));
        let seen = clock.learn(now, now, date.as_deref(), false);
        if (signed - truth * 1_000_000).abs() <= 300_000_000 { Ok(()) } else { Err(clock.refused(seen)) }
    }

    /// Midnight of 2026's first day, some whole hours or minutes later, as a `Date` has it.
    fn header(micros: i64) -> String {
        let text = Timestamp::from_micros(micros).to_string();
        let (day, weekday) =
            if text.starts_with("2026-01-01") { ("01 Jan 2026", "Thu") } else { ("31 Dec 2025", "Wed") };
        format!("{weekday}, {day} {} GMT", &text[11..19])
    }

    #[test]
    fn a_date_that_made_things_worse_is_forgotten() {
        const HOUR: i64 = 3_600;
        for wrong in [HOUR, -HOUR] {
            let clock = Clock::default();
            // A proxy's date, on good answers and on refusals alike.
            assert_eq!(call(&clock, 0, Some(wrong)), Ok(()), "signed before any date was seen");
            assert_eq!(call(&clock, 0, Some(wrong)), Err(true), "signed by the proxy's date");
            for _ in 0..3 {
                assert_eq!(call(&clock, 0, Some(wrong)), Ok(()), "signed by the own clock, whatever the date");
                assert!(clock.is_own());
            }
            // The machine's clock goes wrong, and the proxy is mended: AWS's dates are believed again.
            assert_eq!(call(&clock, wrong / 3, Some(wrong / 3)), Err(true));
            assert_eq!(call(&clock, wrong / 3, Some(wrong / 3)), Ok(()));
            assert!(!clock.is_own());
        }
    }

    #[test]
    fn where_no_time_helps_the_two_are_tried_in_turns() {
        let clock = Clock::default();
        // Nothing can be signed well: a wrong secret, beside a wrong date. Each refusal tries the other time, and none
        // makes both look right.
        let refused = |clock: &Clock| {
            let now = moment("2026-01-01T00:00:00Z");
            clock.refused(clock.learn(now, now, Some(&header(now.as_micros() + 3_600_000_000)), false))
        };
        let tried: Vec<(bool, bool)> = (0..4).map(|_| (refused(&clock), clock.is_own())).collect();
        assert_eq!(tried, [(true, false), (true, true), (true, false), (true, true)]);
        // Where date and clock agree, and where there is no date, there is no other time to try.
        let clock = Clock::default();
        assert_eq!(call(&clock, 3_600, Some(0)), Err(false));
        assert_eq!(call(&clock, 3_600, None), Err(false));
    }
}
