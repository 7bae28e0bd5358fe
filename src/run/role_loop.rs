//! The loop of either role: turns at the interval, pulses between them, the log of failures, and which of them end the process.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::log::{info, warn};

use crate::cli::{Args, Mode};
use crate::clock::Timestamp;
use crate::error::{Error, exit};
use crate::exporter::Exporter;
use crate::log::{self, Episode};
use crate::metrics::Metrics;
use crate::ports::{Subject, TurnError};
use crate::settings::Common;
use crate::shutdown::Shutdown;
use crate::status::{Facts, Status};

/// How often a server checks its lease between turns: a leader has to keep its heartbeat going.
pub(super) const PULSE: Duration = Duration::from_secs(1);
/// Retry interval of `--once` and of startup errors.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// How long to retry errors that are normal for a new machine or access key, such as an unknown key. IAM changes propagate
/// within seconds.
pub(super) const STARTUP: Duration = Duration::from_secs(10);

/// A role's callbacks for [`RoleLoop`].
pub(super) trait Runner {
    /// Runs one turn and returns its failures.
    fn turn(&mut self) -> Vec<TurnError>;
    /// Whether the role goes on despite this failure, even if only a person can fix it.
    fn survives(&self, _failure: &TurnError) -> bool {
        false
    }
    /// How often to call [`Runner::pulse`] between turns.
    fn pulse_interval(&self) -> Duration;
    /// True starts the next turn immediately.
    fn pulse(&mut self) -> bool;
}

/// Starts the log and logs the configuration's warnings.
pub(super) fn start_log(args: &Args, common: &Common) {
    log::init(args.debug || common.debug, common.log_format);
    for warning in &common.warnings {
        warn!("{warning}");
    }
}

/// Runs the turns of either role.
pub(super) struct RoleLoop {
    interval: Duration,
    pub(super) metrics: Arc<Metrics>,
    pub(super) status: Arc<Status>,
    pub(super) shutdown: Shutdown,
    started: Instant,
}

impl RoleLoop {
    /// Starts the log and, unless the mode has one turn, the exporter. `host` is the name of this machine.
    pub(super) fn new(
        role: &'static str,
        args: &Args,
        common: &Common,
        socket: Option<String>,
        host: String,
        shutdown: Shutdown,
        started: Instant,
    ) -> Result<Self, Error> {
        start_log(args, common);
        let metrics = Metrics::new(role);
        let facts = Facts {
            role,
            host,
            table: common.table.clone(),
            region: common.region_of_table().map(str::to_owned),
            interval: common.interval,
            size: common.list_size,
            socket,
            started: Timestamp::now(),
            start: started,
        };
        let status = Status::new(facts, Arc::clone(&metrics));
        if let (Mode::Loop, Some(address)) = (args.mode, common.exporter) {
            Exporter::bind(address)?.serve(Arc::clone(&status));
        }
        info!("hsdo {} starts as {role}, table {}", env!("CARGO_PKG_VERSION"), common.table);
        Ok(RoleLoop { interval: common.interval, metrics, status, shutdown, started })
    }

    /// Runs turns until shutdown.
    ///
    /// Until a turn has succeeded, a failure that only a person can fix ends the process, except for startup errors, which
    /// are retried first. After that, no failure does.
    pub(super) fn turns(self, runner: &mut impl Runner) -> Result<ExitCode, Error> {
        let mut episodes = Episodes::new();
        let mut succeeded = false;
        while !self.shutdown.requested() {
            let started = Instant::now();
            let failures = runner.turn();
            self.metrics.turn(failures.is_empty(), started.elapsed());
            self.status.turn(started.elapsed(), failures.iter().map(TurnError::to_string).collect());
            succeeded |= failures.is_empty();
            let early = self.is_startup_transient(&failures);
            let failures = if succeeded { failures } else { reject_fatal(failures, early, runner)? };
            episodes.report(&failures);
            let next = started + if early { self.interval.min(PULSE) } else { self.interval };
            self.pause(next, runner);
        }
        info!("stopped");
        Ok(ExitCode::from(exit::DONE))
    }

    /// Runs one turn: retries startup errors, and repeats it until `is_done`.
    pub(super) fn once<R: Runner>(
        self,
        runner: &mut R,
        mut is_done: impl FnMut(&R) -> Result<bool, Error>,
    ) -> Result<ExitCode, Error> {
        let mut episodes = Episodes::new();
        while !self.shutdown.requested() {
            let failures = runner.turn();
            if failures.is_empty() {
                if is_done(runner)? {
                    break;
                }
            } else {
                let early = self.is_startup_transient(&failures);
                let mut failures = reject_fatal(failures, early, runner)?;
                if !early {
                    return Err(failures.swap_remove(0).into());
                }
                episodes.report(&failures);
            }
            self.pause(Instant::now() + RETRY, runner);
        }
        info!("stopped");
        Ok(ExitCode::from(exit::DONE))
    }

    fn is_startup_transient(&self, failures: &[TurnError]) -> bool {
        self.started.elapsed() < STARTUP && failures.iter().any(|failure| failure.is_startup_transient)
    }

    /// Waits until `next`, a shutdown, or a pulse that starts the next turn.
    fn pause(&self, next: Instant, runner: &mut impl Runner) {
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let interval = runner.pulse_interval();
            if self.shutdown.wait(left.min(interval)) || left <= interval || runner.pulse() {
                return;
            }
        }
    }
}

/// Fails with the first failure that only a person can fix. In the startup period, startup errors do not count as such.
fn reject_fatal(mut failures: Vec<TurnError>, early: bool, runner: &impl Runner) -> Result<Vec<TurnError>, TurnError> {
    let is_fatal = |failure: &TurnError| {
        failure.needs_operator && !(early && failure.is_startup_transient) && !runner.survives(failure)
    };
    match failures.iter().position(is_fatal) {
        Some(fatal) => Err(failures.swap_remove(fatal)),
        None => Ok(failures),
    }
}

/// Logs each failure when it begins, changes and ends.
struct Episodes([(Subject, Episode); 4]);

impl Episodes {
    fn new() -> Self {
        let names = [
            (Subject::Aws, "AWS"),
            (Subject::Consul, "Consul"),
            (Subject::Haproxy, "HAProxy"),
            (Subject::Turn, "turn"),
        ];
        Episodes(names.map(|(subject, name)| (subject, Episode::new(name))))
    }

    fn report(&mut self, failures: &[TurnError]) {
        for (subject, episode) in &mut self.0 {
            let failure = failures.iter().find(|failure| failure.subject == *subject);
            // The turn failed earlier for another reason, so this fault may still persist.
            if failure.is_none() && *subject == Subject::Turn && !failures.is_empty() {
                continue;
            }
            let about = failure.map(|failure| failure.about.clone()).unwrap_or_default();
            episode.report_about(failure.map(|failure| (failure.key.as_str(), failure.text.as_str())), &about);
        }
    }
}
