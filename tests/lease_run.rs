//! Three servers and twenty clients on one table and one changing group, whose leaders are killed, stopped and paused
//! at random: no two ever write in the same term, and no server is lost or moved.
//!
//! `HSDO_LEASE_KILLS` is the number of leaders to remove: a few in `make test`, a hundred in `make lease-run`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::aws_memory::{AwsMemory, Instance, Item, Write};
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::http::lock;
use common::moto::text_of;
use common::random::Random;
use common::wait::{SOON, wait_for, wait_until};

const SLOTS: usize = 16;
const SERVERS: usize = 3;
const CLIENTS: usize = 20;

/// The group, and when each instance left it.
#[derive(Default)]
struct Group {
    members: Vec<Instance>,
    left: BTreeMap<String, Instant>,
    next: u32,
}

impl Group {
    /// Adds, removes or replaces an instance; about a dozen stay.
    fn churn(&mut self, random: &mut Random) {
        let choice = random.below(4);
        if choice != 0 && self.members.len() > 8 {
            let place = random.below(self.members.len() as u64) as usize;
            let gone = self.members.remove(place);
            self.left.insert(gone.id, Instant::now());
        }
        if choice != 1 && self.members.len() < SLOTS - 2 {
            self.next += 1;
            self.members.push(Instance::number(self.next));
        }
    }
}

/// A server process, and the number in its access key.
struct Server {
    running: Running,
}

fn start_server(bed: &Bed, aws: &AwsMemory, number: &mut u32) -> Server {
    *number += 1;
    let running = Hsdo::server(bed)
        .env("AWS_ENDPOINT_URL", &aws.url())
        .env("AWS_ACCESS_KEY_ID", &format!("SERVER{number}"))
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
        .env("INTERVAL", "0.2")
        .spawn();
    Server { running }
}

fn leader(aws: &AwsMemory) -> Option<String> {
    aws.items().get(&1).and_then(|item| text_of(item, "HsdoLeader"))
}

/// The process id in a term's name: host, pid, random part, number.
fn pid(term: &str) -> u32 {
    term.split('/').nth(1).and_then(|pid| pid.parse().ok()).expect("a term names its process")
}

#[test]
fn leaders_come_and_go_and_no_server_is_lost_or_moved() {
    let kills: u32 = std::env::var("HSDO_LEASE_KILLS").map_or(4, |text| text.parse().expect("a number"));
    let bed = Bed::new("lease-run");
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    let mut group = Group::default();
    for _ in 0..40 {
        group.churn(&mut random);
    }
    let aws = Arc::new(AwsMemory::start(group.members.clone()));
    aws.record_history();
    let backend = |number| BackendConfig::new(&format!("b{number}"), "web", SLOTS).unchecked();
    let haproxy = Haproxy::start(&bed, &(0..CLIENTS).map(backend).collect::<Vec<_>>());
    let mut number = 0;
    let mut servers: Vec<Server> = (0..SERVERS).map(|_| start_server(&bed, &aws, &mut number)).collect();
    let clients: Vec<Running> = (0..CLIENTS)
        .map(|number| {
            Hsdo::client(&bed)
                .env("AWS_ENDPOINT_URL", &aws.url())
                .env("AWS_ACCESS_KEY_ID", "CLIENT")
                .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("b{number}:web:80"))
                .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
                .env("INTERVAL", "0.5")
                .env("EXPORTER_PORT", "0")
                .spawn()
        })
        .collect();
    wait_until("a leader", SOON, || leader(&aws));

    let group = Arc::new(Mutex::new(group));
    let stop = Arc::new(AtomicBool::new(false));
    let churning = std::thread::spawn({
        let (aws, group, stop) = (Arc::clone(&aws), Arc::clone(&group), Arc::clone(&stop));
        move || {
            let mut random = Random::new(0x0123_4567_89AB_CDEF);
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50 + random.below(400)));
                let mut group = lock(&group);
                group.churn(&mut random);
                aws.set_instances(group.members.clone());
            }
        }
    });
    let mut gaps: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for kill in 1..=kills {
        std::thread::sleep(Duration::from_millis(random.below(1_500)));
        let term = wait_until("a leader", SOON, || leader(&aws));
        let place = servers.iter_mut().position(|server| server.running.process().id() == pid(&term));
        let place = place.expect("the leader is one of ours");
        let begun = Instant::now();
        let way = match (kill % 4, random.below(4)) {
            // Each way at least once, also in a short run.
            (1, _) | (_, 0) => "killed",
            (2, _) | (_, 1) => "asleep",
            (3, _) | (_, 2) => "stopped",
            _ => "killed",
        };
        match way {
            "killed" => servers[place].running.kill(),
            "asleep" => servers[place].running.process().signal("STOP"),
            _ => assert_eq!(servers[place].running.terminate().code(), Some(0)),
        }
        if way != "asleep" {
            servers[place] = start_server(&bed, &aws, &mut number);
        }
        wait_until("another leader", SOON, || leader(&aws).filter(|now| *now != term));
        gaps.entry(way).or_default().push(begun.elapsed());
        if way == "asleep" {
            servers[place].running.process().signal("CONT");
        }
    }
    stop.store(true, Ordering::SeqCst);
    churning.join().expect("it churns to the end");

    let group = lock(&group);
    let wanted: BTreeSet<String> = group.members.iter().map(|instance| format!("{}:80", instance.address)).collect();
    for (number, client) in clients.iter().enumerate() {
        wait_for(&format!("client {number} to have the group"), SOON, || {
            let servers = haproxy.servers(&format!("b{number}"));
            let active: BTreeSet<String> =
                servers.values().filter(|server| server.takes_traffic()).map(|server| server.addr.clone()).collect();
            if active == wanted { Ok(()) } else { Err(format!("{active:?}, not {wanted:?}\n{}", client.log())) }
        });
    }
    let history = aws.history();
    let found = judge(&history, &group.left);
    for (way, gaps) in &gaps {
        let longest = gaps.iter().max().expect("one at least");
        println!("{way} {} times; another one led after {:.1} s at the latest", gaps.len(), longest.as_secs_f64());
        assert!(*longest < Duration::from_secs(10), "{way}: {longest:?}");
    }
    println!("{found}; {} writes refused", aws.usage().refused);
}

/// Checks everything that was ever written.
fn judge(history: &[Write], left: &BTreeMap<String, Instant>) -> String {
    let number = |item: &Item, name: &str| item.get(name).and_then(|value| value["N"].as_str()?.parse::<u64>().ok());
    let mut writers: BTreeMap<String, String> = BTreeMap::new();
    let mut ended: BTreeSet<String> = BTreeSet::new();
    let mut current: Option<String> = None;
    let mut homes: BTreeMap<String, u32> = BTreeMap::new();
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    let (mut version, mut heartbeat, mut changes) = (0, 0, 0);
    for write in history {
        let (_, before, marked) = write.items.iter().find(|(id, _, _)| *id == 1).expect("every write has the marker");
        let before_term = before.as_ref().and_then(|item| text_of(item, "HsdoLeader"));
        let after_term = text_of(marked, "HsdoLeader");
        assert_eq!(before_term, current, "only hsdo changes the leader");
        if after_term != before_term {
            ended.extend(before_term.clone());
            current = after_term.clone();
        }
        // A term ends with a release and begins with a claim.
        let term = after_term.clone().or(before_term.clone()).expect("every write is in some term");
        assert!(after_term.is_none() || !ended.contains(&term), "{term} writes after its end");
        let known = writers.entry(term.clone()).or_insert_with(|| write.writer.clone());
        assert_eq!(*known, write.writer, "two writers in the term {term}");
        assert!(write.writer.starts_with("SERVER"), "{} writes", write.writer);

        let beat = number(marked, "HsdoHeartbeat").expect("a heartbeat");
        assert!(beat > heartbeat || after_term.is_none(), "the heartbeat falls from {heartbeat} to {beat}");
        heartbeat = beat;
        let rows: Vec<(u32, Option<String>)> = write
            .items
            .iter()
            .filter(|(_, before, after)| {
                before.as_ref().and_then(|item| text_of(item, "ServerName")) != text_of(after, "ServerName")
            })
            .map(|(id, _, after)| (*id, text_of(after, "ServerName").filter(|name| name != "none")))
            .collect();
        let raised = number(marked, "HsdoVersion").expect("a version");
        assert!(
            raised > version || (raised == version && rows.is_empty()),
            "the version stays at {version} over {rows:?}"
        );
        version = raised;
        for (id, name) in rows {
            changes += 1;
            if let Some(gone) = taken.remove(&id) {
                let went = left.get(&gone).unwrap_or_else(|| panic!("{gone} lost slot {id} and never left its group"));
                assert!(*went <= write.at, "{gone} lost slot {id} before it left its group");
            }
            if let Some(name) = name {
                let home = *homes.entry(name.clone()).or_insert(id);
                assert_eq!(home, id, "{name} was moved");
                assert!(!taken.values().any(|other| *other == name), "{name} is in two slots");
                taken.insert(id, name);
            }
        }
    }
    format!("{} writes in {} terms, {changes} changes of a slot, {} servers", history.len(), writers.len(), homes.len())
}
