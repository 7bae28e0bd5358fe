//! The smallest schedule that still breaks a promise: entries are left out, many at once at first, then fewer (delta debugging).

use crate::DAY;
use crate::journal::{At, SECOND};
use crate::run::{Outcome, run};
use crate::schedule::{Entry, What};
use crate::world::Failure;

/// How much longer a smaller schedule may take to fail.
const LATER: At = 120 * SECOND;
/// When the first entry begins, at the earliest, milliseconds.
const FIRST: u64 = 60_000;
/// How much virtual time all runs together may take.
const MOST: At = 20 * DAY;

struct Shrinking {
    seed: u64,
    promise: &'static str,
    left: At,
    best: Option<(Vec<Entry>, Outcome)>,
}

impl Shrinking {
    /// Whether this schedule fails too; then it is the best one so far.
    fn fails(&mut self, schedule: &[Entry], end: At) -> bool {
        if self.left == 0 {
            return false;
        }
        let outcome = run(self.seed, schedule.to_vec(), end);
        self.left = self.left.saturating_sub(outcome.failure.as_ref().map_or(end, |failure| failure.at));
        let same = outcome.failure.as_ref().is_some_and(|failure| failure.promise == self.promise);
        if same {
            self.best = Some((schedule.to_vec(), outcome));
        }
        same
    }

    fn end(&self, before: At) -> At {
        self.best.as_ref().and_then(|(_, outcome)| outcome.failure.as_ref()).map_or(before, |failure| failure.at)
            + LATER
    }
}

/// Shrinks a schedule that fails; none if it does not.
pub(crate) fn shrink(seed: u64, schedule: &[Entry], failure: &Failure) -> Option<(Vec<Entry>, Outcome)> {
    let mut shrinking = Shrinking { seed, promise: failure.promise, left: MOST, best: None };
    if !shrinking.fails(schedule, failure.at) {
        return None;
    }
    let mut now = schedule.to_vec();
    // The end of it alone, moved to the beginning, saves most of the time.
    for count in [4, 8, 16, 64, 256] {
        let Some(from) = now.len().checked_sub(count) else { break };
        let pinned = now[..from].iter().filter(|entry| is_pinned(entry));
        let tail = moved(&pinned.chain(&now[from..]).copied().collect::<Vec<_>>());
        let end = tail.last().map_or(0, |entry| entry.at() + entry.1.lasts()) + LATER;
        if shrinking.fails(&tail, end) {
            now = tail;
            break;
        }
    }
    let mut size = now.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        let mut left_out = false;
        while from < now.len() {
            let mut fewer = now.clone();
            fewer.drain(from..(from + size).min(now.len()));
            let end = shrinking.end(failure.at);
            if shrinking.fails(&fewer, end) {
                now = fewer;
                left_out = true;
            } else {
                from += size;
            }
        }
        if size == 1 && !left_out {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    let early = moved(&now);
    let end = shrinking.end(failure.at);
    shrinking.fails(&early, end);
    shrinking.best
}

/// The same entries, the first of them early.
fn moved(entries: &[Entry]) -> Vec<Entry> {
    let first = entries.iter().find(|entry| !is_pinned(entry)).map_or(0, |entry| entry.0);
    let by = first.saturating_sub(FIRST);
    entries.iter().map(|entry| if is_pinned(entry) { *entry } else { Entry(entry.0 - by, entry.1) }).collect()
}

/// Whether an entry says what the run is like from its beginning.
fn is_pinned(entry: &Entry) -> bool {
    entry.1 == What::Reporting
}
