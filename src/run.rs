//! Builds the edges from the settings and runs a role until shutdown.

mod role_loop;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::log::{debug, info, warn};

use self::role_loop::{PULSE, RETRY, RoleLoop, Runner, STARTUP, start_log};

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
use crate::haproxy::Runtime;
use crate::haproxy::socket::{Socket, SocketLimits};
use crate::log::Episode;
use crate::marker::Moment;
use crate::metrics::Metrics;
use crate::ports::{Haproxy, Source, Subject, TableReader, TurnError};
use crate::server::{Departures, Server, SlotLimits};
use crate::settings::{self, ClientSettings, Common, ServerSettings, SourceSettings, ZoneNames};
use crate::shutdown::Shutdown;

/// How often a client tries to reach a HAProxy that is down: after a restart it has no servers.
const HAPROXY_POLL: Duration = Duration::from_millis(5);
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
    let role = RoleLoop::new("server", args, &common, None, host(), shutdown, started)?;
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
    if args.mode == Mode::Once {
        server.leave_live_leaders();
    }
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
    let role = RoleLoop::new("client", args, common, Some(settings.socket.to_string()), host(), shutdown, started)?;
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
