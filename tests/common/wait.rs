//! Waiting for a condition with a deadline: the only place in the bed that sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// For a few turns or health checks; generous, since test machines are busy.
pub const SOON: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(15);

/// Polls `probe` until it gives `Some`; panics with `what` after `deadline`.
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    wait_for(what, deadline, || probe().ok_or("not so yet"))
}

/// Polls `probe` until it gives `Ok`; panics with `what` and the last state after `deadline`.
pub fn wait_for<T, S: Display>(what: &str, deadline: Duration, probe: impl FnMut() -> Result<T, S>) -> T {
    match try_wait_for(deadline, probe) {
        Ok(value) => value,
        Err(last) => panic!("timed out after {deadline:?} waiting for {what}; last state: {last}"),
    }
}

/// Polls `probe` until it gives `Ok`; returns its last `Err` after `deadline`.
pub fn try_wait_for<T, S>(deadline: Duration, mut probe: impl FnMut() -> Result<T, S>) -> Result<T, S> {
    let end = Instant::now() + deadline;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => return Err(last),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Polls `probe` for the whole of `span`, and panics with `what` on the first error: for what must *not* happen.
pub fn assert_stays<S: Display>(what: &str, span: Duration, mut probe: impl FnMut() -> Result<(), S>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(state) = probe() {
            panic!("{what}: no longer so: {state}");
        }
        std::thread::sleep(POLL);
    }
}
