//! The last events of a run, in words, for the report of a failure.

use std::collections::VecDeque;
use std::fmt;

/// How many events are kept.
const KEPT: usize = 100;

/// A point of virtual time: microseconds since the start of the run.
pub(crate) type At = u64;

pub(crate) const MILLI: At = 1_000;
pub(crate) const SECOND: At = 1_000_000;

/// Virtual time for a reader: days, hours, minutes, seconds.
pub(crate) fn time(at: At) -> String {
    let (seconds, millis) = (at / SECOND, at / MILLI % 1_000);
    format!(
        "{}d {:02}:{:02}:{:02}.{millis:03}",
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[derive(Debug, Default)]
pub(crate) struct Journal(VecDeque<(At, String)>);

impl Journal {
    pub(crate) fn note(&mut self, at: At, text: String) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at, text));
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(at, text)| writeln!(f, "  {}  {text}", time(*at)))
    }
}
