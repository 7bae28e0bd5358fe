//! Builds the edges from the settings and runs a role until shutdown.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::log::{debug, info, warn};

use crate::aws::{
    self, Aws, Created, GroupSource, KeptTable, LifecycleHooks, Regions, ReportTable, ReportWriter, SlotTable,
    Whereabouts,
};
use crate::cli::{Args, Mode, Role};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::command_line::print;
use crate::consul::{self, ServiceSource};
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::exporter::Exporter;
use crate::haproxy::Runtime;
use crate::haproxy::socket::{Socket, SocketLimits};
use crate::log::{self, Episode};
use crate::marker::Moment;
use crate::metrics::Metrics;
use crate::ports::{Haproxy, Source, Subject, TableReader, TurnError};
use crate::server::{Departures, Server, SlotLimits};
use crate::settings::{self, ClientSettings, Common, ServerSettings, SourceSettings, ZoneNames};
use crate::shutdown::Shutdown;
use crate::status::{Facts, Status};

/// How often a server checks its lease between turns: a leader has to keep its heartbeat going.
const PULSE: Duration = Duration::from_secs(1);
/// How often a client tries to reach a HAProxy that is down: after a restart it has no servers.
const HAPROXY_POLL: Duration = Duration::from_millis(5);
/// Retry interval of `--once` and of startup errors.
const RETRY: Duration = Duration::from_millis(250);
/// How long to retry errors that are normal for a new machine or access key, such as an unknown key. IAM changes propagate
/// within seconds.
const STARTUP: Duration = Duration::from_secs(10);
/// How long to ask for the zone that the state file remembers: HAProxy is to be filled within two seconds.
const REMEMBERED_ZONE: Duration = Duration::from_millis(800);
/// Time limit of `--once` and `--dry-run`.
const ONE_TURN: Duration = Duration::from_secs(20);
/// Their deadline for AWS calls, early enough to report a failure.
const ONE_TURN_AWS: Duration = Duration::from_secs(18);

/// Runs the command line, with settings from `env` and the configuration file.
///
/// # Errors
/// A faulty configuration, a startup error that only a person can fix, or a failed turn of `--once` or `--dry-run`.
pub fn run(args: &Args, env: &Environment) -> Result<ExitCode, Error> {
    let started = Instant::now();
    // First of all, since even reading the configuration may block, and PID 1 of a container must end on SIGTERM.
    let shutdown = Shutdown::install()?;
    if matches!(args.mode, Mode::Once | Mode::DryRun) {
        let reason = format!("the turn did not finish within {} s and was aborted", ONE_TURN.as_secs());
        shutdown.exit_after(ONE_TURN, reason)?;
    }
    let result = match (args.mode, args.role) {
        (Mode::CreateTable, _) | (_, None) => create_table(args, env, &shutdown),
        (_, Some(Role::Server)) => run_server(args, env, shutdown.clone(), started),
        (_, Some(Role::Client)) => run_client(args, env, shutdown.clone(), started),
    };
    // A failure after a shutdown request does not matter.
    if shutdown.requested() { Ok(ExitCode::from(exit::DONE)) } else { result }
}

/// AWS, with a deadline in a mode with one turn.
fn aws(
    args: &Args,
    regions: Regions<'_>,
    env: &Environment,
    metrics: &Arc<Metrics>,
    started: Instant,
) -> Result<Arc<Aws>, Error> {
    let deadline = matches!(args.mode, Mode::Once | Mode::DryRun).then(|| started + ONE_TURN_AWS);
    Ok(Aws::with_deadline(deadline, regions, env, Arc::clone(metrics) as _)?)
}

/// Retries startup errors until the startup period ends.
fn retry_at_startup<T>(shutdown: &Shutdown, mut attempt: impl FnMut() -> Result<T, TurnError>) -> Result<T, TurnError> {
    let started = Instant::now();
    let mut episode = Episode::new("AWS");
    loop {
        match attempt() {
            Err(error) if error.is_startup_transient && started.elapsed() < STARTUP => {
                episode.report(Some((&error.key, &error.text)));
                if shutdown.wait(RETRY) {
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
    let table = SlotTable::new(Arc::clone(&aws), &common.table);
    match retry_at_startup(shutdown, || Ok(table.create()?))? {
        Created::Created => print(&format!("table {} created and active\n", common.table)),
        Created::Existed => print(&format!("table {} already exists, left unchanged\n", common.table)),
    }
    if let Some(name) = &common.report_table {
        let reports = ReportTable::new(aws, name);
        match retry_at_startup(shutdown, || Ok(reports.create()?))? {
            Created::Created => print(&format!("table {name} created and active, its items expire\n")),
            Created::Existed => print(&format!("table {name} already exists\n")),
        }
    }
    Ok(ExitCode::from(exit::DONE))
}

fn run_server(args: &Args, env: &Environment, shutdown: Shutdown, started: Instant) -> Result<ExitCode, Error> {
    let settings = settings::load_server(args.config.as_deref(), env)?;
    let limits = SlotLimits::of(&settings);
    let ServerSettings { common, source, hook, drain, .. } = settings;
    let role = RoleLoop::new("server", args, &common, None, shutdown, started)?;
    let only_table = matches!(source, SourceSettings::Consul { .. });
    let aws = aws(args, regions(&common, only_table), env, &role.metrics, started)?;
    let source: Box<dyn Source> = match source {
        SourceSettings::Aws { groups, reading } => Box::new(GroupSource::new(Arc::clone(&aws), groups, reading)),
        SourceSettings::Consul { api, services } => {
            Box::new(ServiceSource::new(api, services, env, Arc::clone(&role.metrics) as _)?)
        }
    };
    let departures = Departures {
        reports: common.report_table.as_ref().map(|name| Box::new(ReportTable::new(Arc::clone(&aws), name)) as _),
        hooks: hook.map(|hook| Box::new(LifecycleHooks::new(Arc::clone(&aws), hook)) as _),
        drain,
    };
    let table = SlotTable::new(aws, &common.table);
    let mut schema = Some(table.new_handle());
    let mut server = Server::new(source, table, limits, Arc::clone(&role.status) as _, process_name());
    if args.mode == Mode::DryRun {
        let preview = retry_at_startup(&role.shutdown, || {
            check_schema(&mut schema)?;
            server.dry_run(Timestamp::now())
        })?;
        print(&format!("{preview}\n"));
        return Ok(ExitCode::from(exit::DONE));
    }
    server.watch_departures(departures);
    let mut runner = ServerRunner { server, schema };
    let result = match args.mode {
        Mode::Once => role.once(&mut runner, |runner| has_leader(&runner.server, started + ONE_TURN_AWS)),
        _ => role.turns(&mut runner),
    };
    if let Err(error) = runner.server.release() {
        warn!("cannot release the table's lease, so the next server has to wait until it expires: {error}");
    }
    result
}

/// Whether this server leads the table or another live one does. Neither may be known yet; after `deadline` that is an
/// error.
fn has_leader(server: &Server<Box<dyn Source>, SlotTable>, deadline: Instant) -> Result<bool, Error> {
    if server.leads() {
        return Ok(true);
    }
    if server.sees_leader() {
        info!("another server leads the table: nothing to do");
        return Ok(true);
    }
    if Instant::now() + RETRY < deadline {
        return Ok(false);
    }
    let text = "the table's lease is neither free nor held by a server with a live heartbeat";
    Err(TurnError::new(Subject::Turn, text.to_owned()).into())
}

/// A unique name for this process: host, pid and a random part.
fn process_name() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{}/{}/{random:016x}", host(), std::process::id())
}

fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| !c.is_control()).take(64).collect();
    if host.is_empty() { "unknown".to_owned() } else { host }
}

/// Checks once that the table can hold slots. Skipped without permission to describe tables, which the Python version does
/// not need either; the first read then fails with a less clear message.
fn check_schema(unchecked: &mut Option<SlotTable>) -> Result<(), TurnError> {
    if let Some(table) = unchecked {
        match table.check_schema() {
            Err(error) if error.is_access_denied() => debug!("cannot check the table's schema: {error}"),
            result => result?,
        }
        *unchecked = None;
    }
    Ok(())
}

fn run_client(args: &Args, env: &Environment, shutdown: Shutdown, started: Instant) -> Result<ExitCode, Error> {
    let mut settings: ClientSettings = settings::load_client(args.config.as_deref(), env)?;
    let common = &settings.common;
    let role = RoleLoop::new("client", args, common, Some(settings.socket.to_string()), shutdown, started)?;
    let aws = aws(args, regions(common, true), env, &role.metrics, started)?;
    // A dry run changes nothing, the state file included.
    let state_file = settings.state_file.clone().filter(|_| args.mode != Mode::DryRun);
    let (name, region) = (&common.table, common.region_of_table());
    let zone = match settings.zones {
        Some(ZoneNames::Auto) => {
            let remembered = settings.state_file.as_ref().and_then(|file| aws::remembered_zone(file, name, region));
            Some(own_zone(env, remembered.as_deref(), &role.shutdown)?)
        }
        _ => None,
    };
    let reports = common.report_table.as_ref().filter(|_| args.mode == Mode::Loop);
    let reports = reports.map(|name| start_reports(ReportTable::new(Arc::clone(&aws), name), &settings)).transpose()?;
    let table = KeptTable::new(SlotTable::new(aws, name), state_file, region, zone.clone()).map_err(|error| {
        Error::Start(format!(
            "cannot start the thread that writes CLIENT_STATE_FILE: {error}: check the process limits"
        ))
    })?;
    if let Some(zone) = zone {
        settings.zones = Some(ZoneNames::Named(vec![zone]));
    }
    let common = &settings.common;
    let backends = settings.backends.len() + usize::from(settings.fallback.is_some());
    let limits = SocketLimits::of(backends, common.list_size as usize);
    let runtime = Runtime::new(Socket::new(settings.socket.clone(), limits));
    let mut client = Client::new(&settings, table, runtime, Arc::clone(&role.metrics));
    if args.mode == Mode::Loop {
        client.show_on(Arc::clone(&role.status) as _);
    }
    if args.mode == Mode::DryRun {
        let commands = retry_at_startup(&role.shutdown, || client.dry_run(Instant::now()))?;
        print(&format!("{}\n", if commands.is_empty() { "nothing to send".to_owned() } else { commands.join("\n") }));
        return Ok(ExitCode::from(exit::DONE));
    }
    if let Some(reports) = &reports {
        client.report_to(Arc::clone(reports) as _);
    }
    let result = match args.mode {
        Mode::Once => role.once(&mut client, |client| all_open(client.has_unopened(), started + ONE_TURN_AWS)),
        _ => role.turns(&mut client),
    };
    if let Some(reports) = reports {
        reports.stop();
    }
    result
}

/// Starts to write the reports of this load balancer, named by its host and HAProxy's socket.
fn start_reports(table: ReportTable, settings: &ClientSettings) -> Result<Arc<ReportWriter>, Error> {
    let name = format!("{} {}", host(), settings.socket);
    let writer = ReportWriter::start(table, name, settings.common.interval).map_err(|error| {
        Error::Start(format!("cannot start the thread that writes reports: {error}: check the process limits"))
    })?;
    Ok(Arc::new(writer))
}

/// The zone that this machine runs in, for `CLIENT_ZONE_NAMES` auto. It is never guessed: the wrong one would split traffic wrongly.
/// `remembered` by the state file stands in for it, since a zone does not change.
fn own_zone(env: &Environment, remembered: Option<&str>, shutdown: &Shutdown) -> Result<String, Error> {
    let unknown = |why: &dyn fmt::Display| {
        Error::Start(format!(
            "CLIENT_ZONE_NAMES is auto, and the zone of this machine is not known: {why}; name it instead"
        ))
    };
    let here = Whereabouts::new(env).map_err(|error| unknown(&error))?;
    let patience = if remembered.is_some() { REMEMBERED_ZONE } else { STARTUP };
    let deadline = Instant::now() + patience;
    let mut episode = Episode::new("CLIENT_ZONE_NAMES");
    loop {
        let error = match here.zone(deadline) {
            Ok(zone) => {
                info!(zone; "this load balancer is in zone {zone}");
                return Ok(zone);
            }
            Err(error) => error,
        };
        let is_final = error.needs_operator() || Instant::now() + RETRY >= deadline;
        if let Some(zone) = remembered.filter(|_| is_final) {
            warn!(zone; "CLIENT_ZONE_NAMES: {error}; CLIENT_STATE_FILE remembers zone {zone}");
            return Ok(zone.to_owned());
        }
        if is_final {
            return Err(unknown(&error));
        }
        let text = error.to_string();
        episode.report(Some((&text, &text)));
        if shutdown.wait(RETRY) {
            return Err(unknown(&error));
        }
    }
}

/// Whether every filled slot is open. One may have to wait for an in-flight check of its previous server; after `deadline`
/// that is an error.
fn all_open(has_unopened: bool, deadline: Instant) -> Result<bool, Error> {
    if has_unopened && Instant::now() + RETRY >= deadline {
        let text = "a check of a previous server is still in flight, so a new server is not open yet: run again";
        return Err(TurnError::new(Subject::Turn, text.to_owned()).into());
    }
    Ok(!has_unopened)
}

/// A role's callbacks for [`RoleLoop`].
trait Runner {
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

struct ServerRunner {
    server: Server<Box<dyn Source>, SlotTable>,
    /// The table, until its schema has been checked.
    schema: Option<SlotTable>,
}

impl Runner for ServerRunner {
    fn turn(&mut self) -> Vec<TurnError> {
        let turn = check_schema(&mut self.schema).and_then(|()| self.server.turn(Moment::now()));
        turn.err().into_iter().collect()
    }

    fn pulse_interval(&self) -> Duration {
        PULSE
    }

    fn pulse(&mut self) -> bool {
        self.server.pulse(Moment::now())
    }
}

impl<T: TableReader, H: Haproxy> Runner for Client<T, H> {
    fn turn(&mut self) -> Vec<TurnError> {
        Client::turn(self, Instant::now)
    }

    /// With a table at hand, HAProxy is kept in step whatever AWS says.
    fn survives(&self, failure: &TurnError) -> bool {
        failure.subject == Subject::Aws && self.has_table()
    }

    fn pulse_interval(&self) -> Duration {
        if self.awaits_haproxy() { HAPROXY_POLL } else { Duration::MAX }
    }

    fn pulse(&mut self) -> bool {
        self.is_haproxy_listening()
    }
}

/// `only_table` if no Auto Scaling groups are queried.
fn regions(common: &Common, only_table: bool) -> Regions<'_> {
    Regions { named: common.region.as_deref(), table: common.table_region.as_deref(), only_table }
}

/// Starts the log and logs the configuration's warnings.
fn start_log(args: &Args, common: &Common) {
    log::init(args.debug || common.debug, common.log_format);
    for warning in &common.warnings {
        warn!("{warning}");
    }
}

/// Runs the turns of either role.
struct RoleLoop {
    interval: Duration,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    shutdown: Shutdown,
    started: Instant,
}

impl RoleLoop {
    /// Starts the log and, unless the mode has one turn, the exporter.
    fn new(
        role: &'static str,
        args: &Args,
        common: &Common,
        socket: Option<String>,
        shutdown: Shutdown,
        started: Instant,
    ) -> Result<Self, Error> {
        start_log(args, common);
        let metrics = Metrics::new(role);
        let facts = Facts {
            role,
            host: host(),
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
    fn turns(self, runner: &mut impl Runner) -> Result<ExitCode, Error> {
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

impl aws::Observer for Metrics {
    fn request(&self, service: &'static str, operation: &'static str, result: &str) {
        self.aws_request(service, operation, result);
    }

    fn consumed(&self, operation: &'static str, units: f64) {
        Metrics::consumed(self, operation, units);
    }
}

impl consul::ConsulObserver for Metrics {
    fn request(&self, result: &'static str) {
        self.consul_request(result);
    }
}
