//! From settings to a running role: builds the edges, and turns until the process is asked to stop.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::log::{debug, info, warn};

use crate::aws::{self, Aws, Created, GroupSource, KeptTable, Regions, SlotTable};
use crate::cli::{Args, Mode, Role};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::consul::{self, ServiceSource};
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::exporter::Exporter;
use crate::haproxy::Runtime;
use crate::haproxy::socket::{Limits as SocketLimits, Socket};
use crate::log::{self, Episode};
use crate::marker::Moment;
use crate::metrics::Metrics;
use crate::ports::{Haproxy, Source, Subject, TableReader, TurnError};
use crate::server::{Limits, Server};
use crate::settings::{self, ClientSettings, Common, ServerSettings, SourceSettings};
use crate::shutdown::Shutdown;

/// How often a server looks around between two turns that are further apart: a leader has to show that it lives.
const PULSE: Duration = Duration::from_secs(1);
/// How often a client looks whether a HAProxy that was down is back: an empty HAProxy serves nobody.
const KNOCK: Duration = Duration::from_millis(5);
/// How often `--once` looks whether the server that has the lease lives, or whether AWS is ready.
const LOOK: Duration = Duration::from_millis(250);
/// How long a start waits for what the first moments of a machine or of an access key bring: an unknown key ends it
/// only then, and a mode with one turn gives up only then. IAM's changes are known everywhere within seconds.
const EARLY: Duration = Duration::from_secs(10);
/// A mode with one turn ends by then, whatever it meets: with its calls of AWS, and altogether.
const ONE_TURN: [Duration; 2] = [Duration::from_secs(18), Duration::from_secs(20)];

/// Does what the command line asks for, with the settings of `env` and of the configuration file.
///
/// # Errors
/// The configuration, something at start that only a person can mend, or a failed turn of a mode with one turn.
pub fn run(args: &Args, env: &Environment) -> Result<ExitCode, Error> {
    let begun = Instant::now();
    // Before anything that may wait, reading the configuration included: process 1 of a container must end on SIGTERM.
    let shutdown = Shutdown::install()?;
    if matches!(args.mode, Mode::Once | Mode::DryRun) {
        let what = format!("the turn is not over after {} s: it was given up where it stood", ONE_TURN[1].as_secs());
        shutdown.end_after(ONE_TURN[1], what)?;
    }
    let ended = match (args.mode, args.role) {
        (Mode::CreateTable, _) | (_, None) => create_table(args, env, &shutdown),
        (_, Some(Role::Server)) => run_server(args, env, shutdown.clone(), begun),
        (_, Some(Role::Client)) => run_client(args, env, shutdown.clone(), begun),
    };
    // Whoever asked for the end does not wait for what was still tried.
    if shutdown.requested() { Ok(ExitCode::from(exit::DONE)) } else { ended }
}

/// AWS for a role that began then: a mode with one turn has an end.
fn aws(
    args: &Args,
    regions: Regions<'_>,
    env: &Environment,
    metrics: &Arc<Metrics>,
    begun: Instant,
) -> Result<Arc<Aws>, Error> {
    let end = matches!(args.mode, Mode::Once | Mode::DryRun).then(|| begun + ONE_TURN[0]);
    Ok(Aws::until(end, regions, env, Arc::clone(metrics) as _)?)
}

/// The same attempt until it brings something, or an error other than the first moments do, or those are over.
fn patiently<T>(shutdown: &Shutdown, mut attempt: impl FnMut() -> Result<T, TurnError>) -> Result<T, TurnError> {
    let begun = Instant::now();
    let mut episode = Episode::new("AWS");
    loop {
        match attempt() {
            Err(error) if error.is_early && begun.elapsed() < EARLY => {
                episode.report(Some((&error.key, &error.text)));
                if shutdown.wait(LOOK) {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}

fn create_table(args: &Args, env: &Environment, shutdown: &Shutdown) -> Result<ExitCode, Error> {
    let common = settings::load_common(args.config.as_deref(), env)?;
    start_log(args, &common);
    let aws = Aws::new(regions(&common, true), env, Metrics::new("create-table"))?;
    let mut table = SlotTable::new(aws, &common.table);
    match patiently(shutdown, || Ok(table.create()?))? {
        Created::Created => print(&format!("table {} created, and active\n", common.table)),
        Created::Existed => print(&format!("table {} exists already, and is left as it is\n", common.table)),
    }
    Ok(ExitCode::from(exit::DONE))
}

fn run_server(args: &Args, env: &Environment, shutdown: Shutdown, begun: Instant) -> Result<ExitCode, Error> {
    let settings = settings::load_server(args.config.as_deref(), env)?;
    let ServerSettings { common, source, ramp, removal_guard } = settings;
    let role = Start::new("server", args, &common, shutdown, begun)?;
    let only_table = matches!(source, SourceSettings::Consul { .. });
    let aws = aws(args, regions(&common, only_table), env, &role.metrics, begun)?;
    let (source, groups): (Box<dyn Source>, _) = match source {
        SourceSettings::Aws { groups } => (Box::new(GroupSource::new(Arc::clone(&aws), groups.clone())), groups),
        SourceSettings::Consul { api, services } => {
            let metrics = Arc::clone(&role.metrics) as _;
            (Box::new(ServiceSource::new(api, services.clone(), env, metrics)?), services)
        }
    };
    let table = SlotTable::new(aws, &common.table);
    let mut schema = Some(table.twin());
    let limits = Limits {
        size: common.list_size,
        groups,
        min: ramp.min,
        max: ramp.max,
        step: ramp.step,
        interval: ramp.interval,
        removal_guard,
    };
    let server = Server::new(source, table, limits, Arc::clone(&role.metrics) as _, process_name());
    if args.mode == Mode::DryRun {
        let mut server = server;
        let preview = patiently(&role.shutdown, || {
            check_schema(&mut schema)?;
            server.dry_run(Timestamp::now())
        })?;
        print(&format!("{preview}\n"));
        return Ok(ExitCode::from(exit::DONE));
    }
    let mut runner = ServerRunner { server, schema };
    let ended = match args.mode {
        Mode::Once => role.once(&mut runner, |runner| looked_after(&runner.server, begun + ONE_TURN[0])),
        _ => role.turns(&mut runner),
    };
    if let Err(error) = runner.server.release() {
        warn!("cannot give the lease of the table back, so the next server waits until it runs out: {error}");
    }
    ended
}

/// Whether the table is looked after: by this server, or by another one that is alive. Until one of the two is known, a
/// single turn has to look again, at the latest at `end`.
fn looked_after(server: &Server<Box<dyn Source>, SlotTable>, end: Instant) -> Result<bool, Error> {
    if server.leads() {
        return Ok(true);
    }
    if server.sees_a_leader() {
        info!("another server leads the table, and looks after it: nothing was done");
        return Ok(true);
    }
    if Instant::now() + LOOK < end {
        return Ok(false);
    }
    let text = "the lease of the table is neither free nor held by a server whose heartbeat changes";
    Err(TurnError::new(Subject::Turn, text.to_owned()).into())
}

/// A name for this process that no other has, now or later: where it runs, for people, and a random part.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| !c.is_control()).take(64).collect();
    let random = RandomState::new().build_hasher().finish();
    format!("{}/{}/{random:016x}", if host.is_empty() { "unknown" } else { &host }, std::process::id())
}

/// Checks once that the table can hold slots. A role that may not describe tables, as the Python version's need not,
/// goes on without: the first reading tells what is wrong, only less clearly.
fn check_schema(unchecked: &mut Option<SlotTable>) -> Result<(), TurnError> {
    if let Some(table) = unchecked {
        match table.check_schema() {
            Err(error) if error.is_access_denied() => debug!("the table's schema is not checked: {error}"),
            result => result?,
        }
        *unchecked = None;
    }
    Ok(())
}

fn run_client(args: &Args, env: &Environment, shutdown: Shutdown, begun: Instant) -> Result<ExitCode, Error> {
    let settings: ClientSettings = settings::load_client(args.config.as_deref(), env)?;
    let common = &settings.common;
    let role = Start::new("client", args, common, shutdown, begun)?;
    let aws = aws(args, regions(common, true), env, &role.metrics, begun)?;
    // A dry run changes nothing, that file neither.
    let state_file = settings.state_file.clone().filter(|_| args.mode != Mode::DryRun);
    let region = common.table_region.as_deref().or(common.region.as_deref());
    let table = KeptTable::new(SlotTable::new(aws, &common.table), state_file, region).map_err(|error| {
        Error::Start(format!("no thread to write CLIENT_STATE_FILE: {error}: check the limits of the process"))
    })?;
    let backends = settings.backends.len() + usize::from(settings.fallback.is_some());
    let limits = SocketLimits::of(backends, common.list_size as usize);
    let runtime = Runtime::new(Socket::new(settings.socket.clone(), limits));
    let mut client = Client::new(&settings, table, runtime, Arc::clone(&role.metrics));
    if args.mode == Mode::DryRun {
        let commands = patiently(&role.shutdown, || client.dry_run(Instant::now()))?;
        print(&format!("{}\n", if commands.is_empty() { "nothing to send".to_owned() } else { commands.join("\n") }));
        return Ok(ExitCode::from(exit::DONE));
    }
    match args.mode {
        Mode::Once => role.once(&mut client, |client| all_open(client.has_unopened(), begun + ONE_TURN[0])),
        _ => role.turns(&mut client),
    }
}

/// Whether every slot that should be is open. One whose server before is still being checked has to wait for the end of that
/// check, at the latest until `end`.
fn all_open(has_unopened: bool, end: Instant) -> Result<bool, Error> {
    if has_unopened && Instant::now() + LOOK >= end {
        let text = "a check of the server before is still under way, so a new one is not open yet: run it again";
        return Err(TurnError::new(Subject::Turn, text.to_owned()).into());
    }
    Ok(!has_unopened)
}

/// A role, as it is driven.
trait Runner {
    /// One turn; gives what failed, and nothing for a success.
    fn turn(&mut self) -> Vec<TurnError>;
    /// Whether the role goes on in spite of this failure, whatever it is.
    fn survives(&self, _failure: &TurnError) -> bool {
        false
    }
    /// How often to call [`Runner::pulse`] between two turns.
    fn pace(&self) -> Duration;
    /// Between two turns that are further apart than the pace. True asks for the next turn at once.
    fn pulse(&mut self) -> bool;
}

struct ServerRunner {
    server: Server<Box<dyn Source>, SlotTable>,
    /// The table whose schema is still to be checked.
    schema: Option<SlotTable>,
}

impl Runner for ServerRunner {
    fn turn(&mut self) -> Vec<TurnError> {
        let turn = check_schema(&mut self.schema).and_then(|()| self.server.turn(Moment::now()));
        turn.err().into_iter().collect()
    }

    fn pace(&self) -> Duration {
        PULSE
    }

    fn pulse(&mut self) -> bool {
        self.server.pulse(Moment::now())
    }
}

impl<T: TableReader, H: Haproxy> Runner for Client<T, H> {
    fn turn(&mut self) -> Vec<TurnError> {
        Client::turn(self, Instant::now())
    }

    /// With a table at hand, HAProxy is kept in step whatever AWS says.
    fn survives(&self, failure: &TurnError) -> bool {
        failure.subject == Subject::Aws && self.has_table()
    }

    fn pace(&self) -> Duration {
        if self.awaits_haproxy() { KNOCK } else { Duration::MAX }
    }

    fn pulse(&mut self) -> bool {
        self.haproxy_answers()
    }
}

/// Writes to standard output. A reader that has gone, as `head` does, is no fault of ours.
pub fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The regions to call; `only_table` says that no groups are asked about.
fn regions(common: &Common, only_table: bool) -> Regions<'_> {
    Regions { named: common.region.as_deref(), table: common.table_region.as_deref(), only_table }
}

/// Starts the log, with what is to be said of the configuration.
fn start_log(args: &Args, common: &Common) {
    log::init(args.debug || common.debug);
    for note in &common.notes {
        warn!("{note}");
    }
}

/// What both roles need before their first turn, and while they turn.
struct Start {
    interval: Duration,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    begun: Instant,
}

impl Start {
    /// Sets up the log, the signals and, for a process that stays, the exporter.
    fn new(
        role: &'static str,
        args: &Args,
        common: &Common,
        shutdown: Shutdown,
        begun: Instant,
    ) -> Result<Self, Error> {
        start_log(args, common);
        let metrics = Metrics::new(role);
        if let (Mode::Loop, Some(address)) = (args.mode, common.exporter) {
            Exporter::bind(address)?.serve(Arc::clone(&metrics), common.interval);
        }
        info!("hsdo {} starts as {role}, table {}", env!("CARGO_PKG_VERSION"), common.table);
        Ok(Start { interval: common.interval, metrics, shutdown, begun })
    }

    /// Turns until asked to stop.
    ///
    /// A fault that only a person can mend ends the process as long as no turn has succeeded. After that, nothing does.
    /// What the first moments bring is waited for.
    fn turns(self, runner: &mut impl Runner) -> Result<ExitCode, Error> {
        let mut episodes = Episodes::new();
        let mut started = false;
        while !self.shutdown.requested() {
            let begun = Instant::now();
            let failures = runner.turn();
            self.metrics.turn(failures.is_empty(), begun.elapsed());
            started |= failures.is_empty();
            let early = self.is_early(&failures);
            let failures = if started { failures } else { no_fatal(failures, early, runner)? };
            episodes.report(&failures);
            let next = begun + if early { self.interval.min(PULSE) } else { self.interval };
            self.pause(next, runner);
        }
        info!("stopped");
        Ok(ExitCode::from(exit::DONE))
    }

    /// One turn, which is tried again while it fails of what the first moments bring, and repeated until it `is_done`.
    fn once<R: Runner>(
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
                let early = self.is_early(&failures);
                let mut failures = no_fatal(failures, early, runner)?;
                if !early {
                    return Err(failures.swap_remove(0).into());
                }
                episodes.report(&failures);
            }
            self.pause(Instant::now() + LOOK, runner);
        }
        info!("stopped");
        Ok(ExitCode::from(exit::DONE))
    }

    /// Whether a turn failed of what the first moments bring, and these last.
    fn is_early(&self, failures: &[TurnError]) -> bool {
        self.begun.elapsed() < EARLY && failures.iter().any(|failure| failure.is_early)
    }

    /// Waits for the `next` turn, or until there is reason to turn or to end at once.
    fn pause(&self, next: Instant, runner: &mut impl Runner) {
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let pace = runner.pace();
            if self.shutdown.wait(left.min(pace)) || left <= pace || runner.pulse() {
                return;
            }
        }
    }
}

/// The failures of a turn, or the first of them that only a person can mend; of an early turn, some pass by themselves.
fn no_fatal(mut failures: Vec<TurnError>, early: bool, runner: &impl Runner) -> Result<Vec<TurnError>, TurnError> {
    let is_fatal =
        |failure: &TurnError| failure.needs_a_person && !(early && failure.is_early) && !runner.survives(failure);
    match failures.iter().position(is_fatal) {
        Some(fatal) => Err(failures.swap_remove(fatal)),
        None => Ok(failures),
    }
}

/// What the log says of failures: when one begins, changes and ends.
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

    /// Reports the failures of one turn.
    fn report(&mut self, failures: &[TurnError]) {
        for (subject, episode) in &mut self.0 {
            let failure = failures.iter().find(|failure| failure.subject == *subject);
            // A turn that failed of something else did not get so far: what it was about may not be over.
            if failure.is_none() && *subject == Subject::Turn && !failures.is_empty() {
                continue;
            }
            episode.report(failure.map(|failure| (failure.key.as_str(), failure.text.as_str())));
        }
    }
}

impl aws::Observer for Metrics {
    fn request(&self, service: &'static str, operation: &'static str, result: &str) {
        self.aws_request(service, operation, result);
    }

    fn consumed(&self, operation: &'static str, units: f64) {
        Metrics::consumed(self, operation, units);
    }
}

impl consul::Observer for Metrics {
    fn request(&self, result: &'static str) {
        self.consul_request(result);
    }
}
