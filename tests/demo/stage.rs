//! Everything that runs during the demo, and how the story observes it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::common::bed::{Bed, package_dir};
use super::common::haproxy::{Haproxy, Server};
use super::common::hsdo::{Hsdo, Running};
use super::common::moto::GroupInstance;
use super::common::port::Port;
use super::common::traffic::{Stream, Tally};
use super::common::wait::try_wait_for;
use super::report::Report;

/// The backend of conf/haproxy.cfg.
pub const BACKEND: &str = "http-back";
/// The prefix of its servers.
const BASE: &str = "mywebapp";
pub const GROUPS: [&str; 2] = ["web-a", "web-b"];
/// Empty until the scene with three zones.
pub const THIRD_GROUP: &str = "web-c";
/// The weight at the end of the ramp.
pub const FULL: u32 = 10;
/// Seconds between ramp steps: 1 to 10 takes nine.
const RAMP_STEP: &str = "0.5";
pub const INTERVAL: &str = "0.2";
/// How long the story waits for anything.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A request every 10 ms, for at most two minutes.
const PAUSE: Duration = Duration::from_millis(10);
const REQUESTS: usize = 12_000;

/// Everything that runs; fields drop in this order.
#[derive(Debug)]
pub struct Stage {
    pub report: Report,
    stream: Option<Stream>,
    client: Option<Running>,
    server: Option<Running>,
    pub haproxy: Haproxy,
    statistics: u16,
    /// When requests may fail, because HAProxy was away.
    outages: Vec<(Instant, Instant)>,
    stop: Arc<AtomicBool>,
    groups: Vec<&'static str>,
    bed: Bed,
    _ports: Vec<Port>,
}

impl Stage {
    /// Starts moto with two groups, their web servers, and HAProxy with the example configuration; the story starts
    /// hsdo.
    pub fn set(stop: &Arc<AtomicBool>) -> Self {
        println!("hsdo keeps HAProxy backends in step with Auto Scaling groups\n");
        let report = Report::new();
        let bed = Bed::new("demo");
        bed.moto().create_group(GROUPS[0], 0, 3);
        bed.moto().create_group(GROUPS[1], 1, 3);
        bed.moto().create_group(THIRD_GROUP, 2, 0);
        bed.serve_instances(&GROUPS);
        let (frontend, statistics) = (Port::reserve(), Port::reserve());
        let numbers = (frontend.number(), statistics.number());
        let ports = BTreeMap::from([(BACKEND.to_owned(), frontend)]);
        let haproxy = Haproxy::start_with_config(&bed, &configuration(&bed, numbers.0, numbers.1), ports, &["-db"]);
        report.say(format!("moto emulates AWS on {}", bed.moto().url()));
        report.say(format!("HAProxy runs conf/haproxy.cfg, with its frontend on 127.0.0.1:{}", numbers.0));
        report.say(format!(
            "groups {} and {} have three instances each, with a web server on each address",
            GROUPS[0], GROUPS[1]
        ));
        Stage {
            report,
            stream: None,
            client: None,
            server: None,
            haproxy,
            statistics: numbers.1,
            outages: Vec::new(),
            stop: Arc::clone(stop),
            groups: GROUPS.to_vec(),
            bed,
            _ports: vec![statistics],
        }
    }

    pub fn heading(&self, name: &str) {
        self.report.heading(name);
    }

    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Creates the table by `hsdo --create-table`.
    pub fn create_table(&self) {
        Hsdo::with_aws(&self.bed, "create-table").arg("--create-table").run().assert_code(0);
    }

    pub fn start_hsdo(&mut self) {
        let server = Hsdo::server(&self.bed)
            .env("SERVER_ASG_NAMES", &format!("{},{THIRD_GROUP}", GROUPS.join(",")))
            .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "1")
            .env("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", &FULL.to_string())
            .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "1")
            .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", RAMP_STEP)
            .env("INTERVAL", INTERVAL);
        self.server = Some(server.spawn());
        let client = Hsdo::client(&self.bed)
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACKEND}:{BASE}:{}", self.bed.web().port()))
            .env("INTERVAL", INTERVAL);
        self.client = Some(client.spawn());
    }

    pub fn start_traffic(&mut self) {
        self.stream = Some(Stream::start(self.haproxy.frontend(BACKEND), PAUSE, REQUESTS));
    }

    pub fn stop_traffic(&mut self) -> Tally {
        self.stream.as_mut().map(Stream::stop).unwrap_or_default()
    }

    pub fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("the requests begin in the first step")
    }

    /// Waits for `span`, and returns the requests that began and ended in it.
    pub fn watch(&self, span: Duration) -> Tally {
        let from = Instant::now();
        self.pause(span);
        self.stream().between(from, Instant::now())
    }

    /// Sleeps; exits if a signal arrived.
    pub fn pause(&self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.assert_not_stopped();
            std::thread::sleep(Duration::from_millis(10).min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// Waits for `probe`; panics with the last state.
    pub fn wait(&self, what: &str, probe: impl FnMut() -> Result<(), String>) {
        self.wait_up_to(TIMEOUT, what, probe);
    }

    /// The same for something that takes longer.
    pub fn wait_up_to(&self, timeout: Duration, what: &str, mut probe: impl FnMut() -> Result<(), String>) {
        let waited = try_wait_for(timeout, || {
            self.assert_not_stopped();
            probe()
        });
        if let Err(last) = waited {
            panic!("timed out after {timeout:?} waiting for {what}; last state: {last}\n{}", self.logs());
        }
    }

    fn assert_not_stopped(&self) {
        assert!(!self.stop.load(Ordering::SeqCst), "stopped by a signal");
    }

    fn logs(&self) -> String {
        let log = |running: &Option<Running>| running.as_ref().map(Running::log).unwrap_or_default();
        format!("--- server\n{}--- client\n{}", log(&self.server), log(&self.client))
    }

    /// Fills the third group, with web servers.
    pub fn fill_third_group(&mut self, count: usize) {
        self.bed.moto().set_desired(THIRD_GROUP, count);
        self.bed.serve_instances(&[THIRD_GROUP]);
        self.groups.push(THIRD_GROUP);
    }

    pub fn instances(&self) -> Vec<GroupInstance> {
        self.groups.iter().flat_map(|group| self.bed.moto().instances(group)).collect()
    }

    /// The instance and server of each slot of HAProxy that is not in maintenance.
    pub fn slots(&self) -> Result<BTreeMap<u32, (IpAddr, Server)>, String> {
        let servers = self.haproxy.try_servers(BACKEND).map_err(|error| error.to_string())?;
        let mut slots = BTreeMap::new();
        for (name, server) in servers.into_iter().filter(|(_, server)| !server.in_maintenance()) {
            let slot = name.strip_prefix(BASE).and_then(|number| number.parse().ok());
            let address = server.addr.rsplit_once(':').and_then(|(address, _)| address.parse().ok());
            let (Some(slot), Some(address)) = (slot, address) else { return Err(format!("{name}: {server:?}")) };
            slots.insert(slot, (address, server));
        }
        Ok(slots)
    }

    pub fn slot_of(&self, address: IpAddr) -> Option<u32> {
        self.slots().ok()?.into_iter().find(|(_, (held, _))| *held == address).map(|(slot, _)| slot)
    }

    /// Waits until exactly these addresses take traffic, at a weight that `wanted` accepts.
    pub fn wait_active(&self, addresses: &[IpAddr], wanted: impl Fn(u32) -> bool) {
        let mut expected = addresses.to_vec();
        expected.sort();
        self.wait("exactly the ready instances in HAProxy", || {
            let slots = self.slots()?;
            let mut active: Vec<IpAddr> =
                slots.values().filter(|(_, server)| server.takes_traffic()).map(|(address, _)| *address).collect();
            active.sort();
            let weights = slots.values().all(|(_, server)| wanted(server.weight));
            if active == expected && weights { Ok(()) } else { Err(format!("{slots:?}, wanted {expected:?}")) }
        });
    }

    /// Requests may fail between the two moments.
    pub fn excuse(&mut self, from: Instant, to: Instant) {
        self.outages.push((from, to));
    }

    /// Requests that failed outside the outages, so far.
    pub fn unexcused(&self) -> Vec<String> {
        self.stream().outside(&self.outages).failures
    }

    /// The addresses to look at while everything keeps running.
    pub fn print_addresses(&self) {
        let url = |running: &Option<Running>| running.as_ref().map(Running::url).unwrap_or_default();
        println!("\nEverything keeps running until Ctrl-C:");
        println!("  web                  http://127.0.0.1:{}/", self.haproxy.frontend(BACKEND));
        println!("  HAProxy statistics   http://127.0.0.1:{}/", self.statistics);
        println!("  metrics, server      {}/metrics", url(&self.server));
        println!("  metrics, client      {}/metrics", url(&self.client));
    }
}

/// conf/haproxy.cfg with the demo's socket, ports and check interval.
fn configuration(bed: &Bed, frontend: u16, statistics: u16) -> String {
    let path = package_dir().join("conf/haproxy.cfg");
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let socket = bed.socket();
    for (from, to) in [
        ("    log /dev/log local0\n", String::new()),
        ("    log global\n    option httplog\n", String::new()),
        ("    user haproxy\n    group haproxy\n", String::new()),
        ("/var/run/haproxy/admin.sock mode 660", format!("{} mode 600", socket.display())),
        ("bind :80\n", format!("bind 127.0.0.1:{frontend}\n")),
        ("bind 127.0.0.1:8404\n", format!("bind 127.0.0.1:{statistics}\n")),
        ("inter 1s", "inter 200ms".to_owned()),
    ] {
        assert!(text.contains(from), "conf/haproxy.cfg no longer has {from:?}: update the demo");
        text = text.replace(from, &to);
    }
    text
}
