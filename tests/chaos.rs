//! Everything at once, at random: instances come and go while AWS, HAProxy, its socket, the table and hsdo itself fail.
//!
//! Each round does a few things at once, heals the faults, and waits until HAProxy has exactly the ready instances at
//! full weight. All the while a watcher looks at HAProxy, and requests go through it. What must never happen:
//!
//! - a server that serves and whose instance nobody touched leaves the rotation;
//! - a request fails though HAProxy itself was well;
//! - a request that began after a round had settled is answered by an instance that is not ready;
//! - hsdo ends, grows, or fills its log.
//!
//! `HSDO_CHAOS_SECONDS` says how long (half a minute), `HSDO_CHAOS_SEED` which of the many runs it is. `make soak` runs
//! another one for long.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use common::aws_proxy::Fault;
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::moto::GroupInstance;
use common::tap::{Tap, Way};
use common::traffic::Stream;
use common::wait::wait_for;

const BACK: &str = "http-back";
const GROUPS: [&str; 2] = ["web-a", "web-b"];
const SLOTS: u32 = 14;
/// The longest that a round may take to settle, moto and a busy machine included.
const SETTLE: Duration = Duration::from_secs(60);

#[test]
fn nothing_harms_traffic() {
    let seconds = variable("HSDO_CHAOS_SECONDS").unwrap_or(30);
    let seed = variable("HSDO_CHAOS_SEED").unwrap_or(1);
    println!("chaos for {seconds} s; HSDO_CHAOS_SEED={seed} repeats it");
    let mut chaos = Chaos::start(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    chaos.settle("the start");
    let sizes = chaos.sizes();
    while Instant::now() < end {
        chaos.round();
    }
    chaos.finish(&sizes);
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Random numbers that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// What a round does besides changing instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Aws,
    Socket,
    KillServer,
    KillClient,
    SecondServer,
    KillHaproxy,
    ReloadHaproxy,
    StopHaproxy,
    LoseRow,
    SpoilRow,
    Descriptors,
}

const TROUBLES: [Trouble; 11] = [
    Trouble::Aws,
    Trouble::Socket,
    Trouble::KillServer,
    Trouble::KillClient,
    Trouble::SecondServer,
    Trouble::KillHaproxy,
    Trouble::ReloadHaproxy,
    Trouble::StopHaproxy,
    Trouble::LoseRow,
    Trouble::SpoilRow,
    Trouble::Descriptors,
];

struct Chaos {
    random: Random,
    done: BTreeMap<String, u64>,
    rounds: u64,
    settled_at: Instant,
    /// Spans in which HAProxy itself was away or not yet filled again.
    outages: Vec<(Instant, Instant)>,
    watcher: Watcher,
    stream: Stream,
    second: Option<Running>,
    server: Running,
    client: Running,
    /// Turns of processes that were killed.
    turns_before: f64,
    tap: Tap,
    haproxy: Haproxy,
    bed: Bed,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let bed = Bed::new("chaos");
        bed.moto().create_table();
        for (place, group) in GROUPS.iter().enumerate() {
            bed.moto().create_group(group, place, 3);
        }
        bed.serve_instances(&GROUPS);
        let backend = BackendConfig::new(BACK, "mywebapp", SLOTS as usize).options("check inter 200ms rise 2 fall 5");
        let backend = backend.line("option redispatch 1").line("retries 3");
        let haproxy = Haproxy::start_master_worker(&bed, &[backend]);
        let tap = Tap::start(bed.dir().join("tap.sock"), &bed.socket());
        let server = server(&bed).spawn();
        let client = client(&bed, &tap).spawn();
        let watcher = Watcher::start(bed.socket());
        let stream = Stream::start(haproxy.frontend(BACK), Duration::from_millis(20), usize::MAX / 4);
        let now = Instant::now();
        Chaos {
            random: Random(seed),
            done: BTreeMap::new(),
            rounds: 0,
            settled_at: now,
            outages: vec![(now, now)],
            watcher,
            stream,
            second: None,
            server,
            client,
            turns_before: 0.0,
            tap,
            haproxy,
            bed,
        }
    }

    fn instances(&self) -> Vec<GroupInstance> {
        GROUPS.iter().flat_map(|group| self.bed.moto().instances(group)).collect()
    }

    fn ready(&self) -> BTreeSet<IpAddr> {
        let ready = |i: &GroupInstance| i.lifecycle == "InService" && i.health.eq_ignore_ascii_case("healthy");
        self.instances().into_iter().filter(ready).map(|instance| instance.address).collect()
    }

    /// Waits until HAProxy has the ready instances and nothing else, and from then on protects them.
    fn settle(&mut self, what: &str) {
        let ready = self.ready();
        let settled = wait_for(&format!("HAProxy to settle after {what}"), SETTLE, || {
            self.client.process().assert_running();
            self.server.process().assert_running();
            let servers = self.haproxy.try_servers(BACK).map_err(|error| error.to_string())?;
            let mut active = BTreeSet::new();
            for server in servers.values().filter(|server| server.takes_traffic()) {
                let address = server.addr.rsplit_once(':').map_or("", |(address, _)| address);
                if server.weight != 10 || server.status != "UP" {
                    return Err(format!("{server:?} of {servers:#?}\n{}", self.server.log()));
                }
                active.insert(address.parse::<IpAddr>().map_err(|error| error.to_string())?);
            }
            // Who had a lost row is seated anew, perhaps elsewhere, when a server gets to it.
            let rows = self.bed.moto().items().len();
            if rows < SLOTS as usize {
                return Err(format!("only {rows} rows"));
            }
            if active == ready {
                Ok(Instant::now())
            } else {
                Err(format!("{active:?}, ready {ready:?}\n{servers:#?}\n{}", self.server.log()))
            }
        });
        self.settled_at = settled;
        if let Some(outage) = self.outages.last_mut().filter(|outage| outage.1 == outage.0) {
            outage.1 = settled;
        }
        self.watcher.protect(ready);
    }

    fn count(&mut self, what: &str) {
        *self.done.entry(what.to_owned()).or_default() += 1;
    }

    fn round(&mut self) {
        self.rounds += 1;
        let quiet_until = Instant::now() + self.random.millis(100, 400);
        while Instant::now() < quiet_until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.check_requests();
        let mut troubles = BTreeSet::new();
        for _ in 0..self.random.below(4) {
            troubles.insert(*self.random.pick(&TROUBLES));
        }
        let changes = self.random.below(3);
        let what = format!("round {}: {changes} changes, {troubles:?}", self.rounds);
        for _ in 0..changes {
            self.change();
        }
        for trouble in troubles {
            self.count(&format!("{trouble:?}"));
            self.make(trouble);
            std::thread::sleep(self.random.millis(20, 300));
        }
        self.heal();
        self.settle(&what);
    }

    /// Requests since the last round settled: all answered, and by ready instances only.
    fn check_requests(&mut self) {
        let ready: BTreeSet<String> = {
            let addresses = self.ready();
            self.instances().into_iter().filter(|i| addresses.contains(&i.address)).map(|i| i.id).collect()
        };
        let tally = self.stream.between(self.settled_at, Instant::now());
        for name in tally.names() {
            assert!(ready.contains(name), "round {}: {name} answered, but is not ready: {tally}", self.rounds);
        }
        self.check_watcher();
    }

    fn check_watcher(&self) {
        let violations = self.watcher.violations();
        assert!(violations.is_empty(), "round {}: {violations:#?}\n{}", self.rounds, self.client.log());
    }

    /// Changes an instance or a group, as AWS or an operator would.
    fn change(&mut self) {
        let group = *self.random.pick(&GROUPS);
        let instances = self.bed.moto().instances(group);
        let in_service: Vec<_> = instances.iter().filter(|i| i.lifecycle == "InService").cloned().collect();
        // The first group always keeps two, so that there is somebody to serve.
        let spare = in_service.len() > if group == GROUPS[0] { 2 } else { 0 };
        match self.random.below(6) {
            0 | 1 => {
                let size = if group == GROUPS[0] { 3 + self.random.below(3) } else { self.random.below(5) };
                self.count("scale");
                // moto chooses who leaves.
                self.watcher.unprotect(instances.iter().map(|i| i.address));
                self.bed.moto().set_desired(group, size as usize);
            }
            2 if spare => {
                let id = self.random.pick(&in_service).clone();
                self.count("replace");
                self.watcher.unprotect([id.address]);
                self.bed.moto().terminate_in_group(&id.id, false);
            }
            3 if spare && group == GROUPS[1] => {
                let id = self.random.pick(&in_service).clone();
                self.count("standby");
                self.watcher.unprotect([id.address]);
                self.bed.moto().enter_standby(group, &id.id);
            }
            4 if spare && group == GROUPS[1] => {
                let id = self.random.pick(&in_service).clone();
                self.count("unhealthy");
                self.watcher.unprotect([id.address]);
                self.bed.moto().set_instance_health(&id.id, "Unhealthy");
            }
            _ => {
                self.count("back");
                for instance in instances {
                    if instance.lifecycle == "Standby" {
                        self.bed.moto().exit_standby(group, &instance.id);
                    } else if instance.health.eq_ignore_ascii_case("unhealthy") {
                        self.bed.moto().set_instance_health(&instance.id, "Healthy");
                    }
                }
            }
        }
        // As long as a machine runs, what it was asked before it left still gets its answer.
        self.bed.serve_instances(&GROUPS);
    }

    fn make(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Aws => {
                for _ in 0..=self.random.below(2) {
                    let operations =
                        ["Scan", "DescribeAutoScalingGroups", "DescribeInstances", "TransactWriteItems", "*"];
                    let operation = *self.random.pick(&operations);
                    let faults = [
                        Fault::Delay(Duration::from_millis(700)),
                        Fault::Reply(500, String::new()),
                        Fault::Reply(200, "{}".to_owned()),
                        Fault::Reply(200, "<html>captive portal</html>".to_owned()),
                        Fault::dynamodb(400, "ProvisionedThroughputExceededException"),
                        Fault::ec2(503, "RequestLimitExceeded", "slow down"),
                        Fault::autoscaling(400, "Throttling"),
                        Fault::Close,
                        Fault::Lose,
                        Fault::Hang,
                        Fault::Garbage,
                        Fault::Empty,
                        Fault::Cut,
                    ];
                    let fault = self.random.pick(&faults).clone();
                    self.count(&format!("aws {operation} {fault:?}"));
                    self.bed.aws().spoil(operation, fault);
                }
                std::thread::sleep(self.random.millis(200, 1500));
            }
            Trouble::Socket => {
                let ways =
                    [Way::Closed, Way::Silent, Way::Slow(Duration::from_millis(300)), Way::Cut(200), Way::Cut(0)];
                let way = *self.random.pick(&ways);
                self.count(&format!("socket {way:?}"));
                self.tap.set_way(way);
                std::thread::sleep(self.random.millis(100, 800));
            }
            Trouble::KillServer => {
                self.turns_before += turns(&self.server);
                self.server.kill();
                self.server = server(&self.bed).spawn();
            }
            Trouble::KillClient => {
                self.turns_before += turns(&self.client);
                self.client.kill();
                self.client = client(&self.bed, &self.tap).spawn();
            }
            Trouble::SecondServer => {
                self.second = Some(server(&self.bed).spawn());
                std::thread::sleep(self.random.millis(100, 1500));
            }
            Trouble::KillHaproxy => {
                self.outage();
                self.haproxy.kill();
                std::thread::sleep(self.random.millis(0, 500));
                self.haproxy.start_again();
            }
            Trouble::ReloadHaproxy => {
                self.outage();
                self.haproxy.reload();
            }
            Trouble::StopHaproxy => {
                self.outage();
                self.haproxy.pause(self.random.millis(100, 1500));
            }
            Trouble::LoseRow | Trouble::SpoilRow => {
                // Whose row is lost may be seated in another slot: for a moment nobody is protected.
                self.watcher.protect(BTreeSet::new());
                let row = 1 + self.random.below(u64::from(SLOTS)) as u32;
                if trouble == Trouble::LoseRow {
                    self.bed.moto().delete_item(row);
                } else {
                    let evil = "127.1.0.9; shutdown frontend http-back";
                    self.bed.moto().update_item(row, &json!({"IPAddress": {"S": evil}}));
                }
                std::thread::sleep(self.random.millis(100, 500));
            }
            Trouble::Descriptors => {
                // Ten connections that say nothing are all that HAProxy's socket takes by default.
                let held: Vec<_> = (0..10).filter_map(|_| UnixStream::connect(self.bed.socket()).ok()).collect();
                std::thread::sleep(self.random.millis(100, 1000));
                drop(held);
            }
        }
    }

    fn outage(&mut self) {
        if self.outages.last().is_none_or(|outage| outage.1 != outage.0) {
            let now = Instant::now();
            self.outages.push((now, now));
        }
    }

    /// Ends the faults; an operator mends what was broken by hand.
    fn heal(&mut self) {
        self.bed.aws().heal();
        self.tap.set_way(Way::Open);
        self.second = None;
        for (id, item) in self.bed.moto().items() {
            let address = common::moto::text_of(&item, "IPAddress").unwrap_or_default();
            if address.contains(';') {
                self.bed.moto().delete_item(id);
            }
        }
    }

    /// Resident bytes and open descriptors of both roles.
    fn sizes(&self) -> [f64; 4] {
        let of = |running: &Running, name: &str| running.metric(name).expect("a number of the process");
        let (memory, files) = ("process_resident_memory_bytes", "process_open_fds");
        [of(&self.server, memory), of(&self.client, memory), of(&self.server, files), of(&self.client, files)]
    }

    fn finish(mut self, before: &[f64; 4]) {
        self.check_requests();
        let all = self.stream.so_far();
        let unexcused = self.stream.failures_outside(&self.outages);
        let (failed, excused) = (all.failures.len(), all.failures.len() - unexcused.len());
        let after = self.sizes();
        let turns = self.turns_before + turns(&self.server) + turns(&self.client);
        println!("{} rounds, {turns} turns, {} looks at HAProxy", self.rounds, self.watcher.looks());
        println!(
            "{} requests answered, {failed} failed, {excused} of them while HAProxy was away or empty",
            all.answered()
        );
        for (what, count) in &self.done {
            println!("{count:5} {what}");
        }
        for (name, index) in [("server", 0), ("client", 1)] {
            let (kib, files) = (after[index] / 1024.0, after[index + 2]);
            println!("{name}: {kib} KiB resident (at first {}), {files} descriptors", before[index] / 1024.0);
            assert!(after[index] < before[index] + 4.0 * 1024.0 * 1024.0, "the {name} grows");
            assert!(files <= before[index + 2] + 8.0, "the {name} keeps descriptors");
        }
        assert!(unexcused.is_empty(), "requests failed though HAProxy was well: {unexcused:#?}");
        for running in [&self.server, &self.client] {
            let lines = running.log().lines().count() as u64;
            assert!(lines < 200 + 60 * self.rounds, "{lines} lines of log in {} rounds", self.rounds);
        }
        assert!(self.client.terminate().success() && self.server.terminate().success());
    }
}

fn server(bed: &Bed) -> Hsdo {
    Hsdo::server(bed)
        .env("SERVER_ASG_NAMES", &GROUPS.join(","))
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "0.2")
}

fn client(bed: &Bed, tap: &Tap) -> Hsdo {
    Hsdo::client(bed)
        .env("CLIENT_HAPROXY_SOCKET_PATH", &tap.path().to_string_lossy())
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
}

fn turns(running: &Running) -> f64 {
    let metrics = running.get("/metrics").map(|answer| answer.1).unwrap_or_default();
    let of = |result: &str| common::hsdo::value_of(&metrics, &format!("hsdo_turns_total{{result=\"{result}\"}}"));
    of("ok").unwrap_or(0.0) + of("failed").unwrap_or(0.0)
}

/// Looks at HAProxy's rotation all the time, and notes each protected address that leaves it.
struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    protected: Mutex<BTreeSet<IpAddr>>,
    violations: Mutex<Vec<String>>,
    looks: AtomicU64,
    stop: AtomicBool,
}

impl Watcher {
    fn start(socket: PathBuf) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut before: Option<Look> = None;
            while !of_thread.stop.load(Ordering::SeqCst) {
                let first = of_thread.protected();
                let look = look(&socket);
                let second = of_thread.protected();
                if let (Some(before), Some(now)) = (&before, &look)
                    && before.pid == now.pid
                {
                    of_thread.looks.fetch_add(1, Ordering::Relaxed);
                    for address in first.intersection(&second) {
                        if before.rotation.contains(address) && !now.rotation.contains(address) {
                            let text = format!("{address} left the rotation: {}", now.text);
                            of_thread.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                        }
                    }
                }
                before = look.or(before);
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        Watcher { shared, thread: Some(thread) }
    }

    fn protect(&self, addresses: BTreeSet<IpAddr>) {
        *self.shared.protected.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn unprotect(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut protected = self.shared.protected.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            protected.remove(&address);
        }
    }

    fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn looks(&self) -> u64 {
        self.shared.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn protected(&self) -> BTreeSet<IpAddr> {
        self.protected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One look: the process, and the addresses that hsdo has in rotation. Health is HAProxy's own business.
struct Look {
    pid: String,
    rotation: BTreeSet<IpAddr>,
    text: String,
}

fn look(socket: &PathBuf) -> Option<Look> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("show info;show servers state {BACK}\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid: "))?.to_owned();
    let rows = text.lines().filter(|line| line.split(' ').nth(1) == Some(BACK));
    let in_rotation = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let admin: u32 = fields.get(6)?.parse().ok()?;
        // Ready is 4 for a server that the configuration disables: of the bits only maintenance and drain count.
        (admin & !4 == 0 && *fields.get(7)? != "0").then(|| fields[4].parse().ok())?
    };
    let text: String = rows.clone().collect::<Vec<_>>().join("\n");
    text.contains(BACK).then(|| Look { pid, rotation: rows.filter_map(in_rotation).collect(), text: text.clone() })
}
