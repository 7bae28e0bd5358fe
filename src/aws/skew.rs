//! How far this machine's clock is from AWS's, learnt from the `Date` of answers: signatures carry AWS's time.
//!
//! The rules are those of the SDKs' own test cases for clock skew, which `skew` is tested with.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::dates;
use crate::clock::Timestamp;

/// A refused signature is blamed on the clock only where it was off by this much: AWS allows five minutes.
const NOTICED: Duration = Duration::from_secs(4 * 60);
/// A date that took longer than this to arrive says nothing.
const TRUSTED: Duration = Duration::from_secs(15 * 60);

/// AWS's clock, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// AWS's time less ours, in microseconds.
    ahead: AtomicI64,
}

impl Clock {
    /// AWS's time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Timestamp::now())
    }

    /// AWS's time when it is `local` here.
    pub(crate) fn at(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_micros(local.as_micros().saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// Learns from an answer: when the request left and the answer came by this machine's clock, its `Date`, and
    /// whether it has an `Age` (a cache's answer has an old date). Says whether the clock had been so far off that AWS
    /// refuses signatures; `None` where the answer tells nothing.
    pub(crate) fn learn(&self, sent: Timestamp, came: Timestamp, date: Option<&str>, aged: bool) -> Option<bool> {
        let trip = came.since(sent).filter(|trip| *trip <= TRUSTED && !aged)?;
        let middle = sent.plus(trip / 2);
        let ahead = dates::header(date?)?.as_micros().saturating_sub(middle.as_micros());
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        Some(ahead.abs_diff(before) >= u64::try_from(NOTICED.as_micros()).unwrap_or(u64::MAX))
    }
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
        let text = include_str!("../../tests/data/aws-config/clock-skew.json");
        let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let clock = Clock { ahead: AtomicI64::new(case.ahead_before * 1_000_000) };
            for request in case.requests {
                let (sent, came) = (moment(&request.sent), moment(&request.came));
                assert_eq!(clock.at(sent), moment(&request.signed), "{}", case.about);
                let far_off = clock.learn(sent, came, request.date.as_deref(), request.aged);
                assert_eq!(far_off, request.far_off, "{}", case.about);
                assert_eq!(clock.ahead.load(Ordering::Relaxed), request.ahead_after * 1_000_000, "{}", case.about);
            }
        }
    }
}
