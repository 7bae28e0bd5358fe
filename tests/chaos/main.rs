//! Everything at once, at random: instances come and go while AWS, HAProxy, its socket, the table and hsdo itself fail.
//!
//! Three HAProxies with a client each, one filling a single backend, one with a backend for its own group and a fallback, and one
//! with the servers of its own zone, which those of others help out; one or two servers. Each round starts a few things at once, ends the faults, and waits until both HAProxies match
//! the fleet. Watchers poll the rotation of every backend, and requests go through all the time. What must never
//! happen:
//!
//! - a serving server whose instance was not touched leaves a rotation or changes slot, or a draining one loses its
//!   slot, even if its state is an unknown word, or a response leaves out implausibly many;
//! - an address is in rotation, or answers a request, that was not a ready instance since the last round;
//! - a request fails while HAProxy itself was well;
//! - everything takes more than two turns to be right after the faults have ended;
//! - an instance is let go that never waited for the terminating hook;
//! - hsdo exits, grows, spins or floods its log.
//!
//! `HSDO_CHAOS_SECONDS` sets the length, `HSDO_CHAOS_SEED` repeats a run. `make soak` runs it for long.

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod consul;
mod farewell;
mod fleet;
mod hand;
mod orders;
mod report;
mod role;
mod settle;
mod site;
mod troubles;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::bed::Bed;
use common::consul::Consul;
use common::hsdo::Hsdo;
use common::http::lock;
use common::random::Random;
use farewell::Farewell;
use fleet::{Ec2, Expected, Fleet, GROUPS, Instance, Scene, ip};
use hand::Edit;
use report::Report;
use role::Role;
use site::{Site, Split};

const SLOTS: u32 = 14;
const BASE: &str = "mywebapp";
/// `SERVER_REMOVAL_GUARD`: longer than any round.
const GUARD: &str = "300";
/// From this many seconds on, one process of each role is never killed, so that a leak would show.
const LONG: u64 = 600;

#[test]
fn nothing_harms_traffic() {
    let _alone = one_at_a_time();
    let seconds = variable("HSDO_CHAOS_SECONDS").unwrap_or(45);
    let seed = variable("HSDO_CHAOS_SEED").unwrap_or(1);
    println!("chaos for {seconds} s; HSDO_CHAOS_SEED={seed} repeats it");
    let mut chaos = Chaos::start(seed, seconds >= LONG, Bed::new("chaos"), None);
    let end = Instant::now() + Duration::from_secs(seconds);
    chaos.settle(0);
    while Instant::now() < end {
        chaos.round();
    }
    chaos.finish();
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Two at a time would only slow each other down.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    lock(&ALONE)
}

struct Chaos {
    random: Random,
    report: Report,
    may_kill_all: bool,
    sites: Vec<Site>,
    /// The first leads at the start; there may be a second.
    servers: Vec<Role>,
    fleet: Fleet,
    farewell: Farewell,
    launched: u64,
    /// Ids that may answer a request: ready when the last round settled, or at any moment since.
    allowed: BTreeSet<String>,
    /// The same a round earlier, for requests in flight.
    allowed_before: BTreeSet<String>,
    /// Draining since the last round settled, and since the one before: persistent requests still go there.
    drains: [BTreeSet<String>; 2],
    /// Slots when the last round settled, and the instances that were ready.
    seats: BTreeMap<String, u32>,
    ready_seats: BTreeSet<String>,
    /// Instances whose slot may change this round: their row was edited, or their slot was free for a moment.
    moved: BTreeSet<String>,
    /// All are leaving and serve as the last resort: nothing may happen that would change that.
    all_leave: bool,
    /// The servers of a group were replaced in this round: the old ones go in a later one, as AWS does not take them before the new ones
    /// have passed a check.
    group_replaced: bool,
    /// This round's responses, or the table, may mix old and new.
    mixed_views: bool,
    /// The instance that left its group this round and keeps running.
    detached: Option<String>,
    /// Instances that changed groups this round: a mix of old and new pages may show them in neither.
    regrouped: BTreeSet<String>,
    /// Instances whose row was deleted or edited away this round.
    unseated: BTreeSet<String>,
    /// The targets of orders that may stand.
    orders: BTreeSet<String>,
    /// Of those that must stand, with the second until which they do.
    given: BTreeMap<String, i64>,
    /// Edits to undo at the end of the round.
    edits: Vec<Edit>,
    /// Attributes that hsdo does not know, by row.
    unknown_attributes: BTreeMap<u32, String>,
    settled_at: Instant,
    consul: Option<Consul>,
    bed: Bed,
}

impl Chaos {
    fn start(seed: u64, long: bool, bed: Bed, consul: Option<Consul>) -> Self {
        Hsdo::with_aws(&bed, "create")
            .arg("--create-table")
            .env("DYNAMODB_REPORT_TABLE_NAME", farewell::REPORTS)
            .run()
            .assert_code(0);
        bed.aws().limit_scan_page(5);
        let (fleet, farewell) = (Fleet::behind(bed.aws()), Farewell::install(bed.aws()));
        let sites = vec![
            Site::start(&bed, "all", Split::Nothing),
            Site::start(&bed, "group", Split::Group),
            Site::start(&bed, "zone", Split::Zone),
        ];
        let mut chaos = Chaos {
            random: Random::new(seed),
            report: Report::new(seed),
            may_kill_all: !long,
            sites,
            servers: Vec::new(),
            fleet,
            farewell,
            launched: 0,
            allowed: BTreeSet::new(),
            allowed_before: BTreeSet::new(),
            drains: Default::default(),
            seats: BTreeMap::new(),
            ready_seats: BTreeSet::new(),
            moved: BTreeSet::new(),
            unseated: BTreeSet::new(),
            all_leave: false,
            group_replaced: false,
            mixed_views: false,
            detached: None,
            regrouped: BTreeSet::new(),
            orders: BTreeSet::new(),
            given: BTreeMap::new(),
            edits: Vec::new(),
            unknown_attributes: BTreeMap::new(),
            settled_at: Instant::now(),
            consul,
            bed,
        };
        chaos.change_scene("two groups of three", |chaos, scene| {
            for group in [0, 0, 0, 1, 1, 1] {
                chaos.launch(scene, group, "InService");
            }
        });
        let first = chaos.new_server("server");
        chaos.servers.push(first);
        chaos
    }

    fn new_server(&self, name: &'static str) -> Role {
        let (dir, url) = (self.bed.dir().to_owned(), self.bed.aws().url());
        let consul = self.consul.as_ref().map(Consul::url);
        Role::start(name, move || {
            let server = Hsdo::in_dir(&dir, &url, "server")
                .arg("--server")
                .env("SERVER_MODE", "aws")
                .env("SERVER_ASG_NAMES", &GROUPS.join(","))
                .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "3")
                .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "0.2")
                .env("SERVER_REMOVAL_GUARD", GUARD)
                .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
                .env("AWS_ACCESS_KEY_ID", "server");
            match &consul {
                None => server
                    .env("DYNAMODB_REPORT_TABLE_NAME", farewell::REPORTS)
                    .env("SERVER_LIFECYCLE_HOOK", farewell::HOOK)
                    .env("SERVER_DRAIN_SECONDS", "20"),
                Some(url) => consul::as_source(server, url),
            }
        })
    }

    fn say(&mut self, text: &str) {
        self.report.say(text);
    }

    fn count(&mut self, what: &str) {
        self.report.count(what, 1);
    }

    /// Changes the fleet. Instances that the change affects are unprotected before AWS reports it.
    fn change_scene(&mut self, what: &str, change: impl FnOnce(&mut Self, &mut Scene)) {
        let before = self.fleet.scene();
        let mut after = before.clone();
        change(self, &mut after);
        self.say(what);
        let stays = |instance: &Instance| {
            let same = |other: &&Instance| other.address == instance.address && other.group == instance.group;
            let still = after.instances.get(&instance.id).filter(same);
            still.is_some_and(|still| matches!(after.expected(still), Expected::Ready | Expected::Unknown))
        };
        let touched: Vec<&Instance> = before.instances.values().filter(|instance| !stays(instance)).collect();
        for site in &self.sites {
            for back in &site.backs {
                let leaving = touched.iter().filter(|instance| {
                    // Consul reports one service at a time: it may be in neither for a moment.
                    let here = self.consul.is_none()
                        && after.instances.get(&instance.id).is_some_and(|still| {
                            // Only its group changed, and this backend holds both groups.
                            still.address == instance.address
                                && back.takes(still)
                                && after.expected(still) == Expected::Ready
                        });
                    !here
                });
                back.watcher.release(&leaving.map(|instance| ip(instance)).collect());
                back.watcher.allow(&back.able(&after));
            }
        }
        let loses_slot = |instance: &Instance| {
            let part = after.instances.get(&instance.id).map(|still| after.expected(still));
            // A change of group alone moves no server, and a draining one keeps its slot.
            self.consul.is_some() || matches!(part, None | Some(Expected::Absent))
        };
        self.moved.extend(touched.iter().filter(|instance| loses_slot(instance)).map(|instance| instance.id.clone()));
        // A stale EC2 response, or one older than its group's, may show it stopped after it is back.
        for instance in before.instances.values().chain(after.instances.values()) {
            if instance.ec2 == Ec2::Stopped {
                self.moved.insert(instance.id.clone());
            }
        }
        let regrouped = |i: &&&Instance| after.instances.get(&i.id).is_some_and(|still| still.group != i.group);
        self.regrouped.extend(touched.iter().filter(regrouped).map(|i| i.id.clone()));
        self.allowed.extend(after.of(Expected::Ready).map(|instance| instance.id.clone()));
        for instance in after.instances.values() {
            self.bed.web().serve(&instance.id, ip(instance));
        }
        if let Some(consul) = &self.consul {
            consul::register(consul, &before, &after);
        }
        self.farewell.see(&after);
        self.fleet.set(after);
        self.allow_mixed_views();
    }

    /// An instance that changes groups may leave and come back to another slot: AWS returns one group per page, the
    /// change may fall between two pages, and stale responses may be mixed in. The unit tests of the decision show that
    /// it keeps its slot otherwise.
    fn allow_mixed_views(&mut self) {
        self.leave_rotations(&self.regrouped);
        self.moved.extend(self.regrouped.iter().cloned());
    }

    fn round(&mut self) {
        let begun = Instant::now();
        self.say(&format!("round {}", self.report.rounds() + 1));
        let quiet = self.random.millis(100, 400);
        std::thread::sleep(quiet);
        self.check_quiet();
        let mut steps = self.random_troubles();
        steps.extend((0..self.random.below(4)).map(|_| None));
        self.random.shuffle(&mut steps);
        for step in steps {
            match step {
                Some(trouble) => self.start_trouble(trouble),
                None => self.change(),
            }
            let pause = self.random.millis(20, 400);
            std::thread::sleep(pause);
        }
        self.heal();
        let healed = Instant::now();
        self.settle(self.report.rounds() + 1);
        self.report.round(begun.elapsed(), healed.elapsed());
    }

    fn finish(mut self) {
        self.check_quiet();
        let mut turns = 0.0;
        for site in std::mem::take(&mut self.sites) {
            self.report.looks += site.backs.iter().map(|back| back.watcher.looks()).sum::<u64>();
            turns += site.client.end();
        }
        for server in std::mem::take(&mut self.servers) {
            turns += server.end();
        }
        self.report.turns += turns;
        let mut faults = self.report.finish();
        let (waited, let_go, wrong) = self.farewell.outcome();
        println!("{waited} instances waited for the hook, {let_go} were let go");
        faults.extend(wrong);
        // Those that ended while they waited were not asked about, and faults may have filled a short run.
        assert!(self.consul.is_some() || let_go > 0 || waited < 3, "{waited} instances waited, and nobody was let go");
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
