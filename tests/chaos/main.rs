//! Everything at once, at random: instances come and go while AWS, HAProxy, its socket, the table and hsdo itself fail.
//!
//! Two HAProxies, one with a backend for all groups, one with a backend for its own group and a fallback; a client for
//! each; one or two servers. Each round does a few things at once, ends the faults, and waits until both HAProxies are
//! what the fleet says. All the while watchers look at the rotation of every backend, and requests go through. What must
//! never happen:
//!
//! - a server that serves, and whose instance nobody touched, leaves a rotation, or moves to another slot;
//! - that holds too where its group calls its state a word that nobody knows, or where answers leave out so many at once
//!   that they cannot be true; and whoever drains is back in its slot;
//! - an address is in a rotation that is not, and was not since the last round, that of a ready instance; or such an
//!   instance answers a request;
//! - a request fails though HAProxy itself was well;
//! - when the faults have ended, more than two turns pass until everything is right;
//! - hsdo ends, grows, spins, or fills its log.
//!
//! `HSDO_CHAOS_SECONDS` says how long, `HSDO_CHAOS_SEED` which of the many runs it is. `make soak` runs another one for
//! long.

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod consul;
mod fleet;
mod hand;
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
use fleet::{Ec2, Fleet, GROUPS, Instance, Part, Scene, ip};
use hand::Edit;
use report::Report;
use role::Role;
use site::Site;

/// `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
const SLOTS: u32 = 14;
/// The base name of the servers.
const BASE: &str = "mywebapp";
/// `SERVER_REMOVAL_GUARD`: longer than any round.
const GUARD: &str = "300";
/// From this length on, one process of each role is never killed, so that it shows whether it grows.
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

/// Two of these at a time would only slow each other down.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    lock(&ALONE)
}

struct Chaos {
    random: Random,
    report: Report,
    /// Whether every process may be killed.
    all_mortal: bool,
    sites: Vec<Site>,
    /// The first one leads at the start; there may be a second one.
    servers: Vec<Role>,
    fleet: Fleet,
    /// How many instances there were.
    born: u64,
    /// Ids that may answer a request: ready when the last round settled, or at any moment since.
    legal: BTreeSet<String>,
    /// The same a round earlier, for requests that were under way.
    legal_before: BTreeSet<String>,
    /// Who drains since the last round settled, and since the one before: what persists goes there still.
    drains: [BTreeSet<String>; 2],
    /// The slots of the instances when the last round settled, and which of them were ready.
    seats: BTreeMap<String, u32>,
    ready_seats: BTreeSet<String>,
    /// Instances of this round whose slot may change: their row was edited, or their slot was freed in between.
    moved: BTreeSet<String>,
    /// Everybody is leaving, and serves as the last resort: whatever could make that untrue has to wait.
    all_leave: bool,
    /// What AWS tells in this round, or what the table holds, may be a mixture.
    blurred: bool,
    /// The instance that left its group in this round and runs on.
    detached: Option<String>,
    /// Instances that changed their group in this round: a mixture of old and new pages may show them in neither.
    regrouped: BTreeSet<String>,
    /// Instances of this round whose row a hand took away.
    unseated: BTreeSet<String>,
    /// Edits of the table that the hand takes back at the end of the round.
    edits: Vec<Edit>,
    /// Attributes that hsdo does not know, by their row.
    kept: BTreeMap<u32, String>,
    settled_at: Instant,
    /// Where the instances are registered, if that is not AWS.
    consul: Option<Consul>,
    bed: Bed,
}

impl Chaos {
    fn start(seed: u64, long: bool, bed: Bed, consul: Option<Consul>) -> Self {
        bed.moto().create_table();
        bed.aws().page_scans(5);
        let fleet = Fleet::behind(bed.aws());
        let sites = vec![Site::start(&bed, "all", false), Site::start(&bed, "zone", true)];
        let mut chaos = Chaos {
            random: Random::new(seed),
            report: Report::new(seed),
            all_mortal: !long,
            sites,
            servers: Vec::new(),
            fleet,
            born: 0,
            legal: BTreeSet::new(),
            legal_before: BTreeSet::new(),
            drains: Default::default(),
            seats: BTreeMap::new(),
            ready_seats: BTreeSet::new(),
            moved: BTreeSet::new(),
            unseated: BTreeSet::new(),
            all_leave: false,
            blurred: false,
            detached: None,
            regrouped: BTreeSet::new(),
            edits: Vec::new(),
            kept: BTreeMap::new(),
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
                None => server,
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

    /// Changes the fleet; nobody whom that concerns is protected any more when AWS tells of it.
    fn change_scene(&mut self, what: &str, change: impl FnOnce(&mut Self, &mut Scene)) {
        let before = self.fleet.scene();
        let mut after = before.clone();
        change(self, &mut after);
        self.say(what);
        let stays = |instance: &Instance| {
            let same = |other: &&Instance| other.address == instance.address && other.group == instance.group;
            let still = after.instances.get(&instance.id).filter(same);
            still.is_some_and(|still| matches!(after.part(still), Part::Ready | Part::Unknown))
        };
        let touched: Vec<&Instance> = before.instances.values().filter(|instance| !stays(instance)).collect();
        for site in &self.sites {
            for back in &site.backs {
                let leaving = touched.iter().filter(|instance| {
                    // Consul tells of one service after the other: it may be in neither for a moment.
                    let here = self.consul.is_none()
                        && after.instances.get(&instance.id).is_some_and(|still| {
                            // Only its group changed, and both groups stand in this backend.
                            still.address == instance.address && back.takes(still) && after.part(still) == Part::Ready
                        });
                    !here
                });
                back.watcher.release(&leaving.map(|instance| ip(instance)).collect());
                back.watcher.allow(&back.addresses(&after, Part::Ready));
            }
        }
        let loses_slot = |instance: &Instance| {
            let part = after.instances.get(&instance.id).map(|still| after.part(still));
            // A change of the group alone moves nobody, and nobody who drains loses its slot.
            self.consul.is_some() || matches!(part, None | Some(Part::Absent))
        };
        self.moved.extend(touched.iter().filter(|instance| loses_slot(instance)).map(|instance| instance.id.clone()));
        // An old answer of EC2, or one of a moment earlier than its group's, may have it stopped when it is back.
        for instance in before.instances.values().chain(after.instances.values()) {
            if instance.ec2 == Ec2::Stopped {
                self.moved.insert(instance.id.clone());
            }
        }
        let regrouped = |i: &&&Instance| after.instances.get(&i.id).is_some_and(|still| still.group != i.group);
        self.regrouped.extend(touched.iter().filter(regrouped).map(|i| i.id.clone()));
        self.legal.extend(after.of(Part::Ready).map(|instance| instance.id.clone()));
        for instance in after.instances.values() {
            self.bed.web().serve(&instance.id, ip(instance));
        }
        if let Some(consul) = &self.consul {
            consul::register(consul, &before, &after);
        }
        self.fleet.set(after);
        self.let_mixtures_hide();
    }

    /// An instance that changes its group may leave, and come back to another slot: AWS tells of one group a page, and the change
    /// may come between two pages, or old answers may be mixed with new ones. That it keeps its
    /// slot otherwise, the tables of the decision show.
    fn let_mixtures_hide(&mut self) {
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
                Some(trouble) => self.make(trouble),
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
        let faults = self.report.finish();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
