//! The wish to stop: a flag that SIGTERM and SIGINT set, and a wait that they cut short.
//!
//! It knows no role. A role asks between two writes and returns; a role that is stuck in a call is not waited for. What
//! else the first process of a container owes is done here too: it waits for the processes that are left to it.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::children;
use crate::error::{Error, exit};

/// How long after a signal the process may still take to end by itself: it has to be gone within one second.
const GRACE: Duration = Duration::from_millis(800);
/// How soon a second signal is seen.
const SECOND_LOOK: Duration = Duration::from_millis(10);
/// How often process 1 looks for processes that have ended and that nobody else waits for.
const REAP: Duration = Duration::from_secs(1);

/// Whether the process was asked to stop. A clone looks at the same flag.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Shutdown {
    /// Takes over SIGTERM and SIGINT, as process 1 of a container too (which the kernel's default action would not end).
    ///
    /// The first signal sets the flag and wakes whoever waits. If the process is still there 800 ms later (its
    /// main thread hangs in a call), or at a second signal, it ends with exit code 0 where it stands. That is safe: a write
    /// is one transaction, done or not done as a whole, or lines to HAProxy, which may be cut after any command.
    ///
    /// # Errors
    /// [`Error::Start`] if the system refuses a signal handler or a thread.
    pub fn install() -> Result<Self, Error> {
        Self::install_with(GRACE)
    }

    fn install_with(grace: Duration) -> Result<Self, Error> {
        let refused = |error| {
            Error::Start(format!("cannot listen for SIGTERM and SIGINT: {error}: check the limits of the process"))
        };
        let shutdown = Shutdown::default();
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
        let told = shutdown.clone();
        // This thread must not log: a main thread that hangs in a write to stderr holds its lock.
        let until_the_end = move || {
            while signals.wait().next().is_none() {}
            told.trigger();
            let last = Instant::now() + grace;
            while Instant::now() < last && signals.pending().next().is_none() {
                thread::sleep(SECOND_LOOK);
            }
            leave(exit::DONE);
        };
        thread::Builder::new().name("signals".to_owned()).spawn(until_the_end).map_err(refused)?;
        if std::process::id() == 1 {
            let for_ever = || {
                loop {
                    children::reap();
                    thread::sleep(REAP);
                }
            };
            thread::Builder::new().name("reaper".to_owned()).spawn(for_ever).map_err(|error| {
                Error::Start(format!(
                    "no thread to wait for orphans, as process 1 must: {error}: check the limits of the process"
                ))
            })?;
        }
        Ok(shutdown)
    }

    /// Ends the process with exit code 1 and this reason if it is still there after that time: as safe as a signal is.
    ///
    /// # Errors
    /// [`Error::Start`] if the system refuses a thread.
    pub fn end_after(&self, span: Duration, why: String) -> Result<(), Error> {
        let shutdown = self.clone();
        let until_the_end = move || {
            // Who is asked to stop ends by that.
            if !shutdown.wait(span) {
                let _ = std::io::stderr().write_all(format!("hsdo: {why}\n").as_bytes());
                leave(exit::FAILED);
            }
        };
        let started = thread::Builder::new().name("time limit".to_owned()).spawn(until_the_end);
        let refused = |error| Error::Start(format!("cannot watch the time: {error}: check the limits of the process"));
        started.map(drop).map_err(refused)
    }

    /// Whether the process was asked to stop.
    pub fn requested(&self) -> bool {
        *self.0.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `span`, or until the process is asked to stop: true then, and at once if it already was.
    pub fn wait(&self, span: Duration) -> bool {
        let requested = self.0.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(requested, span, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Asks to stop, as a signal does, but without its deadline: for tests.
    pub fn trigger(&self) {
        *self.0.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// Ends the process where it stands, and with it what it has started.
fn leave(code: u8) -> ! {
    children::kill_all();
    low_level::exit(code.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_wait_ends_by_itself_or_by_the_wish_to_stop() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.requested());
        assert!(!shutdown.wait(Duration::from_millis(1)));

        let other = shutdown.clone();
        let waiter = thread::spawn(move || other.wait(Duration::from_secs(60)));
        shutdown.trigger();
        assert!(waiter.join().expect("a waiter"));
        assert!(shutdown.requested());
        assert!(shutdown.wait(Duration::from_secs(60)), "a later wait does not wait");
    }

    /// Names the part that this test binary plays as a child of itself.
    const PART: &str = "HSDO_TEST_SHUTDOWN_PART";
    /// A grace that a test would not survive.
    const FOR_EVER: Duration = Duration::from_secs(60);

    /// The signals of a process are its own, so each part is played in a process of its own: this test, run again.
    #[test]
    fn signals_end_a_process() {
        if let Ok(part) = std::env::var(PART) {
            play(&part);
        }
        assert_eq!(watch("obeys").0, Some(7), "a signal wakes the waiting role, which ends as it likes");

        let (code, took) = watch("hangs");
        assert_eq!(code, Some(0));
        assert!(took >= GRACE, "a role has all of the grace: {took:?}");

        let (code, took) = watch("hangs, asked twice");
        assert_eq!(code, Some(0));
        assert!(took < FOR_EVER, "a second signal ends at once: {took:?}");
    }

    fn play(part: &str) -> ! {
        let grace = if part == "hangs" { GRACE } else { FOR_EVER };
        let shutdown = Shutdown::install_with(grace).expect("handlers");
        low_level::raise(SIGTERM).expect("a signal");
        match part {
            "obeys" => std::process::exit(if shutdown.wait(FOR_EVER) { 7 } else { 1 }),
            "hangs" => {}
            _ => low_level::raise(SIGINT).expect("a signal"),
        }
        // The parent holds the other end and writes nothing.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    }

    /// Has a part played: its exit code, and how long it took.
    fn watch(part: &str) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "shutdown::tests::signals_end_a_process", "--nocapture"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child");
        let held = child.stdin.take();
        let status = child.wait().expect("a status");
        drop(held);
        (status.code(), started.elapsed())
    }
}
