//! Graceful shutdown: SIGTERM and SIGINT set a flag and wake waiters.
//!
//! A role checks the flag between writes; a role stuck in a call is not waited for. As PID 1 of a container, hsdo also reaps
//! orphans here.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::about::About;
use crate::children;
use crate::error::{Error, exit};
use crate::log;

/// How long the process may take to exit by itself after a signal; it has to be gone within one second.
const GRACE: Duration = Duration::from_millis(800);
/// How often to check for a second signal.
const SIGNAL_POLL: Duration = Duration::from_millis(10);
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// The shutdown flag, shared by clones.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Shutdown {
    /// Handles SIGTERM and SIGINT, also as PID 1, for which the kernel ignores them by default.
    ///
    /// The first signal sets the flag and wakes all waiters. If the process is still running 800 ms later (its main thread
    /// hangs in a call), or on a second signal, it exits with code 0. That is safe: a write is one transaction, or commands
    /// to HAProxy, which may be interrupted after any of them.
    ///
    /// # Errors
    /// [`Error::Start`] if the system refuses a signal handler or a thread.
    pub fn install() -> Result<Self, Error> {
        Self::install_with(GRACE)
    }

    fn install_with(grace: Duration) -> Result<Self, Error> {
        let refused =
            |error| Error::Start(format!("cannot handle SIGTERM and SIGINT: {error}: check the process limits"));
        let shutdown = Shutdown::default();
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
        let flag = shutdown.clone();
        // Must not log: a main thread hanging in a write to stderr holds its lock.
        let handle_signals = move || {
            while signals.wait().next().is_none() {}
            flag.trigger();
            let deadline = Instant::now() + grace;
            while Instant::now() < deadline && signals.pending().next().is_none() {
                thread::sleep(SIGNAL_POLL);
            }
            exit_now(exit::DONE);
        };
        thread::Builder::new().name("signals".to_owned()).spawn(handle_signals).map_err(refused)?;
        if std::process::id() == 1 {
            let reap_orphans = || {
                loop {
                    children::reap();
                    thread::sleep(REAP_INTERVAL);
                }
            };
            thread::Builder::new().name("reaper".to_owned()).spawn(reap_orphans).map_err(|error| {
                Error::Start(format!(
                    "cannot start a thread to reap orphans as PID 1: {error}: check the process limits"
                ))
            })?;
        }
        Ok(shutdown)
    }

    /// Exits with code 1 and `reason` if the process is still running after `timeout`. As safe as a signal.
    ///
    /// # Errors
    /// [`Error::Start`] if the system refuses a thread.
    pub fn exit_after(&self, timeout: Duration, reason: String) -> Result<(), Error> {
        let shutdown = self.clone();
        let enforce = move || {
            if !shutdown.wait(timeout) {
                let _ = std::io::stderr().write_all(log::last_line(&reason, &About::default()).as_bytes());
                exit_now(exit::FAILED);
            }
        };
        let started = thread::Builder::new().name("time limit".to_owned()).spawn(enforce);
        let refused = |error| {
            Error::Start(format!("cannot start a thread for the time limit: {error}: check the process limits"))
        };
        started.map(drop).map_err(refused)
    }

    /// Whether a shutdown was requested.
    pub fn requested(&self) -> bool {
        *self.0.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `span`. Returns true as soon as a shutdown is requested.
    pub fn wait(&self, span: Duration) -> bool {
        let requested = self.0.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(requested, span, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Requests a shutdown like a signal, but without its deadline. For tests.
    pub fn trigger(&self) {
        *self.0.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// Ends the process where it stands, and with it what it has started.
fn exit_now(code: u8) -> ! {
    children::kill_all();
    low_level::exit(code.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_wait_ends_after_its_span_or_on_shutdown() {
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

    /// The scenario that this test binary runs as a child of itself.
    const SCENARIO: &str = "HSDO_TEST_SHUTDOWN_SCENARIO";
    /// Longer than a test may take.
    const FOREVER: Duration = Duration::from_secs(60);

    /// Signals are per process, so each scenario runs this test again in a process of its own.
    #[test]
    fn signals_end_a_process() {
        if let Ok(scenario) = std::env::var(SCENARIO) {
            run_scenario(&scenario);
        }
        assert_eq!(run_child("obeys").0, Some(7), "a signal wakes the waiting role, which exits by itself");

        let (code, took) = run_child("hangs");
        assert_eq!(code, Some(0));
        assert!(took >= GRACE, "a role gets the full grace period: {took:?}");

        let (code, took) = run_child("hangs, two signals");
        assert_eq!(code, Some(0));
        assert!(took < FOREVER, "a second signal ends the process immediately: {took:?}");
    }

    fn run_scenario(scenario: &str) -> ! {
        let grace = if scenario == "hangs" { GRACE } else { FOREVER };
        let shutdown = Shutdown::install_with(grace).expect("handlers");
        low_level::raise(SIGTERM).expect("a signal");
        match scenario {
            "obeys" => std::process::exit(if shutdown.wait(FOREVER) { 7 } else { 1 }),
            "hangs" => {}
            _ => low_level::raise(SIGINT).expect("a signal"),
        }
        // The parent holds the other end and writes nothing.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    }

    /// Returns the exit code and how long the scenario took.
    fn run_child(scenario: &str) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "shutdown::tests::signals_end_a_process", "--nocapture"])
            .env(SCENARIO, scenario)
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
