//! Clock skew between this machine and AWS, learnt from the `Date` of responses: signatures carry AWS's time.
//!
//! The rules are those of the SDKs' own clock skew test cases, which this module is tested with, and one more: a `Date` that
//! is not AWS's, such as that of a proxy with a wrong clock, must not break signing for good. If AWS refuses a signature whose
//! time agrees with the `Date`, dates are ignored and this machine's own clock signs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::steady::SteadyClock;
use crate::aws::reading::dates;
use crate::clock::Timestamp;

/// The smallest skew that explains a refused signature: AWS allows five minutes.
const SIGNIFICANT: Duration = Duration::from_secs(4 * 60);
/// A response that took longer than this says nothing about the clock.
const MAX_TRIP: Duration = Duration::from_secs(15 * 60);

/// AWS's clock, as far as known.
#[derive(Debug, Default)]
pub(crate) struct AwsClock(Mutex<Skew>);

#[derive(Debug, Default)]
struct Skew {
    /// AWS's time less ours, in microseconds.
    ahead: i64,
    /// If set, `ahead` is zero.
    ignore_dates: bool,
    steady: SteadyClock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DateSample {
    /// AWS's time less ours, in microseconds.
    ahead: i64,
    /// Whether the clock in use was so far off that AWS refuses its signatures.
    pub(crate) far_off: bool,
}

impl AwsClock {
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Timestamp::now())
    }

    /// AWS's time for what cannot be taken back: one odd date does not move it. This machine's, before the first date and while dates
    /// are ignored.
    pub(crate) fn steady_now(&self) -> Timestamp {
        let skew = self.lock();
        let steady = skew.steady.at(Instant::now()).filter(|_| !skew.ignore_dates);
        steady.unwrap_or_else(Timestamp::now)
    }

    /// AWS's time at local time `local`.
    pub(crate) fn at(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_micros(local.as_micros().saturating_add(self.lock().ahead))
    }

    /// Learns from a response: when the request was `sent` and the response `came` by this machine's clock, its `Date`, and
    /// whether it has an `Age` (a cached response has an old date). `None` if it says nothing.
    pub(crate) fn learn(&self, sent: Timestamp, came: Timestamp, date: Option<&str>, aged: bool) -> Option<DateSample> {
        let trip = came.since(sent).filter(|trip| *trip <= MAX_TRIP && !aged)?;
        let middle = sent.plus(trip / 2);
        let date = dates::parse_http_date(date?)?;
        let ahead = date.as_micros().saturating_sub(middle.as_micros());
        let mut skew = self.lock();
        skew.steady.hear(date.plus(trip / 2), Instant::now());
        let sample = DateSample { ahead, far_off: is_significant(ahead, skew.ahead) };
        if !skew.ignore_dates {
            skew.ahead = ahead;
        }
        Some(sample)
    }

    /// AWS refused a signature; `sample` is from the date of that response. Switches to another time, if there is one: that
    /// of the date, or this machine's own if the date agrees with the signature. Returns whether it switched.
    pub(crate) fn refused(&self, sample: Option<DateSample>) -> bool {
        let Some(sample) = sample else { return false };
        let mut skew = self.lock();
        if sample.far_off {
            (skew.ahead, skew.ignore_dates) = (sample.ahead, false);
            return true;
        }
        let corrected = is_significant(skew.ahead, 0);
        if corrected {
            (skew.ahead, skew.ignore_dates) = (0, true);
        }
        corrected
    }

    pub(crate) fn ignores_dates(&self) -> bool {
        self.lock().ignore_dates
    }

    fn lock(&self) -> MutexGuard<'_, Skew> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_significant(one: i64, other: i64) -> bool {
    u128::from(one.abs_diff(other)) >= SIGNIFICANT.as_micros()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// An SDK test case: per request the local times, the date and age of the response, and what must be signed and learnt.
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
        dates::parse(text).expect("a moment")
    }

    #[test]
    fn the_skew_is_corrected_as_the_sdks_do() {
        let text = include_str!("../../../tests/data/aws-config/clock-skew.json");
        let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let clock = AwsClock(Mutex::new(Skew { ahead: case.ahead_before * 1_000_000, ..Skew::default() }));
            for request in case.requests {
                let (sent, came) = (moment(&request.sent), moment(&request.came));
                assert_eq!(clock.at(sent), moment(&request.signed), "{}", case.about);
                let seen = clock.learn(sent, came, request.date.as_deref(), request.aged);
                assert_eq!(seen.map(|seen| seen.far_off), request.far_off, "{}", case.about);
                assert_eq!(clock.lock().ahead, request.ahead_after * 1_000_000, "{}", case.about);
            }
        }
    }

    /// A call to an AWS whose clock is `truth` seconds ahead of ours, where responses are dated `dates` seconds ahead.
    /// The error says whether another time is worth trying.
    fn call(clock: &AwsClock, truth: i64, dates: Option<i64>) -> Result<(), bool> {
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
    fn a_date_that_made_things_worse_is_ignored() {
        const HOUR: i64 = 3_600;
        for wrong in [HOUR, -HOUR] {
            let clock = AwsClock::default();
            // A proxy's date, on good responses and refusals alike.
            assert_eq!(call(&clock, 0, Some(wrong)), Ok(()), "signed before any date was seen");
            assert_eq!(call(&clock, 0, Some(wrong)), Err(true), "signed by the proxy's date");
            for _ in 0..3 {
                assert_eq!(call(&clock, 0, Some(wrong)), Ok(()), "signed by the own clock, whatever the date");
                assert!(clock.ignores_dates());
            }
            // The machine's clock goes wrong, and the proxy is fixed: dates are used again.
            assert_eq!(call(&clock, wrong / 3, Some(wrong / 3)), Err(true));
            assert_eq!(call(&clock, wrong / 3, Some(wrong / 3)), Ok(()));
            assert!(!clock.ignores_dates());
        }
    }

    #[test]
    fn if_neither_clock_helps_they_alternate() {
        let clock = AwsClock::default();
        // A wrong secret and a wrong date: AWS refuses every signature.
        let refused = |clock: &AwsClock| {
            let now = moment("2026-01-01T00:00:00Z");
            clock.refused(clock.learn(now, now, Some(&header(now.as_micros() + 3_600_000_000)), false))
        };
        let tried: Vec<(bool, bool)> = (0..4).map(|_| (refused(&clock), clock.ignores_dates())).collect();
        assert_eq!(tried, [(true, false), (true, true), (true, false), (true, true)]);
        // If date and clock agree, or without a date, there is no other time to try.
        let clock = AwsClock::default();
        assert_eq!(call(&clock, 3_600, Some(0)), Err(false));
        assert_eq!(call(&clock, 3_600, None), Err(false));
    }
}
