//! The lease: one of several servers writes, and another takes over when it stops, dies, sleeps or cannot see the instances.

mod common;

use std::time::{Duration, Instant};

use common::aws_proxy::{AwsProxy, Fault};
use common::bed::Bed;
use common::hsdo::{Hsdo, Running};
use common::wait::{SOON, assert_stays, wait_for, wait_until};

const LEADER: &str = "hsdo_leader";
const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;
/// For a leader to be sure that it is blind, which takes 15 s, and for what follows.
const BLIND: Duration = Duration::from_secs(60);

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
    // No step of the newcomer's ramp is due, however busy the machine is.
    let slow = Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "3600");
    slow.arg("--dry-run").run().assert_code(0).assert_stdout("nothing to write");
    assert_eq!(leader(&bed), None, "a dry run takes nothing");
}

fn denied() -> Fault {
    Fault::autoscaling(403, "AccessDenied")
}

fn says_blind(bed: &Bed) -> bool {
    bed.moto().attribute(1, "HsdoBlind").is_some()
}

/// The source fails for one server alone, and DynamoDB works: its heartbeat goes on, so that its lease never expires.
#[test]
fn a_leader_that_cannot_see_its_instances_is_relieved_by_a_server_that_can() {
    let bed = bed("blind");
    let groups = AwsProxy::start(&bed.moto().url());
    let mut first = Hsdo::server(&bed).env("AWS_ENDPOINT_URL_AUTO_SCALING", &groups.url()).spawn();
    first.wait_metric(LEADER, |leads| leads == 1.0);
    let mut second = Hsdo::server(&bed).spawn();
    second.wait_log("standing by: ");
    second.wait_turn();
    let term = leader(&bed).expect("a leader");
    let [gone, stays] = [1, 2].map(|slot| name(&bed, slot).expect("a server"));

    groups.inject("DescribeAutoScalingGroups", denied());
    first.wait_metric(FAILED, |count| count > 0.0);
    bed.moto().terminate_in_group(&gone, true);
    wait_for("the row of the instance that ended to be freed", BLIND, || match name(&bed, 1) {
        Some(name) if name == "none" => Ok(()),
        other => Err(format!("{other:?}\n{}\n{}", first.log(), second.log())),
    });
    assert_eq!(name(&bed, 2), Some(stays));
    second.wait_metric(LEADER, |leads| leads == 1.0);
    let took_over = format!("took over from {term}, which cannot see its instances");
    assert_eq!(second.log().matches(&took_over).count(), 1, "{}", second.log());
    first.wait_log("lost the lease of the table: standing by");
    assert_eq!(first.log().matches("cannot see its instances").count(), 1, "{}", first.log());
    first.wait_metric(LEADER, |leads| leads == 0.0);
    wait_for("the first one to be ready, as one that stands by", SOON, || match first.get("/readyz") {
        Ok((200, text)) if text.contains("standby") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!says_blind(&bed));
    groups.heal();
    second.wait_turn();
    assert_eq!(second.metric(LEADER), Some(1.0), "nobody takes the lease back");
}

#[test]
fn a_leader_that_cannot_see_its_instances_leads_on_while_no_other_server_can() {
    let bed = bed("all-blind");
    let (mut first, mut second) = pair(&bed);
    second.wait_turn();
    for slot in [1, 2] {
        let weight = || bed.moto().attribute(slot, "Weight");
        wait_until("the end of a ramp", SOON, || weight().filter(|weight| weight == "10"));
    }
    let version = || bed.moto().attribute(1, "HsdoVersion");
    let (term, rows, before) = (leader(&bed), bed.moto().rows(), version());
    bed.aws().inject("DescribeAutoScalingGroups", denied());
    let failed = second.metric(FAILED).unwrap_or(0.0);
    wait_for("the standby to see that the leader is blind", BLIND, || match second.log() {
        log if log.contains("and neither can this server") => Ok(()),
        log => Err(log),
    });
    assert!(says_blind(&bed));
    let status = Hsdo::with_aws(&bed, "status").arg("status").run();
    status.assert_stdout("it cannot see its instances");
    assert_eq!((second.metric(FAILED), second.metric(LEADER)), (Some(failed), Some(0.0)), "{}", second.log());
    assert!(second.get("/readyz").is_ok_and(|(code, text)| code == 200 && text.contains("standby")));
    assert_eq!((leader(&bed), version(), bed.moto().rows()), (term.clone(), before, rows), "nothing for clients to do");

    bed.aws().heal();
    wait_until("the leader to see again", SOON, || (!says_blind(&bed)).then_some(()));
    first.wait_log("sees its instances again");
    assert_eq!((leader(&bed), first.metric(LEADER)), (term, Some(1.0)));
    assert_eq!(second.log().matches("neither can this server").count(), 1, "once: {}", second.log());
}
