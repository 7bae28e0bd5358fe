//! The lease: one of several servers writes, and another takes over when it stops, dies or sleeps.

mod common;

use std::time::{Duration, Instant};

use common::bed::Bed;
use common::hsdo::{Hsdo, Running};
use common::wait::{SOON, assert_stays, wait_for, wait_until};

const LEADER: &str = "hsdo_leader";

fn bed(name: &str) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    bed
}

/// A leader and a standby.
fn pair(bed: &Bed) -> (Running, Running) {
    let mut first = Hsdo::server(bed).spawn();
    first.wait_metric(LEADER, |leads| leads == 1.0);
    let mut second = Hsdo::server(bed).spawn();
    second.wait_log("standing by: ");
    second.wait_metric(LEADER, |leads| leads == 0.0);
    (first, second)
}

fn leader(bed: &Bed) -> Option<String> {
    bed.moto().attribute(1, "HsdoLeader")
}

fn name(bed: &Bed, slot: u32) -> Option<String> {
    bed.moto().attribute(slot, "ServerName")
}

#[test]
fn a_standby_is_ready_writes_nothing_and_follows_at_once_when_the_leader_stops() {
    let bed = bed("stop");
    let (mut first, mut second) = pair(&bed);
    let term = leader(&bed).expect("a leader");
    wait_for("the standby to be ready", SOON, || match second.get("/readyz") {
        Ok((200, text)) if text.contains("standby") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_stays("the first one leads", Duration::from_secs(2), || match leader(&bed) {
        Some(now) if now == term => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(second.metric("hsdo_heartbeat_age_seconds").is_some_and(|age| age < 3.0));

    let begun = Instant::now();
    assert_eq!(first.terminate().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(first.log().contains("released the lease of the table"), "{}", first.log());
    second.wait_metric(LEADER, |leads| leads == 1.0);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(second.get("/readyz").is_ok_and(|(_, text)| !text.contains("standby")));
    bed.moto().set_desired("web", 3);
    wait_until("the new one to work", SOON, || name(&bed, 3).filter(|name| name.starts_with("i-")));
}

#[test]
fn a_killed_leader_is_followed_within_ten_seconds() {
    let bed = bed("kill");
    let (mut first, mut second) = pair(&bed);
    first.kill();
    let begun = Instant::now();
    bed.moto().set_desired("web", 3);
    second.wait_metric(LEADER, |leads| leads == 1.0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(second.log().contains("took over from "), "{}", second.log());
    wait_until("the new one to work", SOON, || name(&bed, 3).filter(|name| name.starts_with("i-")));
}

/// Fencing: a leader that slept through its lease must not write its old decisions.
#[test]
fn a_leader_that_slept_cannot_write_over_its_successor() {
    let bed = bed("sleep");
    let (mut first, mut second) = pair(&bed);
    let mut names: Vec<Option<String>> = (1..=2).map(|slot| name(&bed, slot)).collect();
    first.process().signal("STOP");
    second.wait_metric(LEADER, |leads| leads == 1.0);
    let term = leader(&bed);
    bed.moto().set_desired("web", 3);
    names.push(Some(wait_until("the successor to work", SOON, || name(&bed, 3).filter(|name| name.starts_with("i-")))));
    first.process().signal("CONT");
    first.wait_log("lost the lease");
    first.wait_metric(LEADER, |leads| leads == 0.0);
    assert_eq!(leader(&bed), term, "the successor leads on");
    assert_eq!((1..=3).map(|slot| name(&bed, slot)).collect::<Vec<_>>(), names, "and every server is where it was");
    assert_eq!(first.metric("hsdo_slots{state=\"enabled\"}"), Some(0.0), "a standby shows no servers of its own");
}

#[test]
fn a_leader_beats_between_turns_that_are_far_apart() {
    let bed = bed("slow");
    let slow = || Hsdo::server(&bed).env("INTERVAL", "3600");
    let mut first = slow().spawn();
    first.wait_metric(LEADER, |leads| leads == 1.0);
    let mut second = slow().spawn();
    second.wait_log("standing by: ");
    let term = leader(&bed);
    assert_stays("the first one leads", Duration::from_secs(8), || match leader(&bed) {
        now if now == term => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(first.terminate().code(), Some(0));
    second.wait_metric(LEADER, |leads| leads == 1.0);
}

#[test]
fn one_turn_leaves_a_led_table_alone_and_looks_after_one_that_nobody_leads() {
    let bed = bed("once");
    Hsdo::server(&bed).once().assert_code(0).assert_stderr("released the lease of the table");
    assert_eq!(leader(&bed), None);
    Hsdo::server(&bed).once().assert_code(0).assert_stderr("leading the table as");

    let mut leading = Hsdo::server(&bed).spawn();
    leading.wait_metric(LEADER, |leads| leads == 1.0);
    Hsdo::server(&bed).once().assert_code(0).assert_stderr("another server leads the table");
    leading.kill();
    bed.moto().set_desired("web", 3);
    let begun = Instant::now();
    Hsdo::server(&bed).once().assert_code(0).assert_stderr("took over from");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(name(&bed, 3).is_some_and(|name| name.starts_with("i-")));
    assert_eq!(leader(&bed), None);
    Hsdo::server(&bed).arg("--dry-run").run().assert_code(0).assert_stdout("nothing to write");
    assert_eq!(leader(&bed), None, "a dry run takes nothing");
}
