//! The steps of the demo: each shows one promise, and panics if it does not hold.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::common::moto::GroupInstance;
use super::report::bar;
use super::stage::{BACKEND, FULL, GROUPS, Stage};

/// A promise, and the code that shows it.
pub type Step = (&'static str, fn(&mut Stage));

pub const STEPS: [Step; 9] = [
    ("Start: traffic reaches exactly the ready instances", start),
    ("Scale out: two new instances ramp up", scale_out),
    ("Scale in: two instances are terminated", scale_in),
    ("Replacement: a new instance takes over the slot of the old one", replace),
    ("Standby: an instance goes to standby and comes back", standby),
    ("Health: an instance becomes unhealthy", unhealthy),
    ("HAProxy is killed and restarted", restart),
    ("Zones: traffic stays in its zone, and a zone that fails gets help", super::zones::zones),
    ("Result", result),
];

const SECOND: Duration = Duration::from_secs(1);

fn start(stage: &mut Stage) {
    let mut instances = stage.instances();
    let sick = instances.pop().expect("six instances");
    stage.bed().moto().set_instance_health(&sick.id, "Unhealthy");
    stage.report.say(format!("{} is set to Unhealthy before hsdo starts, so five are ready", sick.id));
    stage.create_table();
    stage.report.say("hsdo --create-table has created the table");
    let from = Instant::now();
    stage.start_hsdo();
    stage.wait_active(&addresses(&instances), |_| true);
    let took = from.elapsed();
    stage.report.say(format!("hsdo --server and --client started; five servers are in HAProxy after {}", ms(took)));
    stage.wait_active(&addresses(&instances), |weight| weight == FULL);
    stage.report.say(format!("all have ramped up to weight {FULL}; from now on, about 100 requests a second"));
    stage.start_traffic();
    shares(stage, &instances);
    assert_eq!(stage.bed().web().requests()[&sick.id], 0, "{} was not ready", sick.id);
    stage.report.more(format!("{}  no slot     0 %  not ready", sick.id));
    // Not counted below.
    stage.bed().moto().terminate_in_group(&sick.id, true);
    stage.bed().web().stop(&sick.id);
}

fn scale_out(stage: &mut Stage) {
    let before = stage.instances();
    stage.bed().moto().set_desired(GROUPS[1], 4);
    stage.bed().serve_instances(&GROUPS);
    let from = Instant::now();
    let after = stage.instances();
    let new: Vec<GroupInstance> = after.iter().filter(|instance| !before.contains(instance)).cloned().collect();
    assert_eq!(new.len(), 2, "{new:?}");
    stage.report.say(format!("{} scales from 2 to 4; share of requests that the two new ones get:", GROUPS[1]));
    let mut last = 0.0;
    for _ in 0..5 {
        let tally = stage.watch(SECOND);
        let share = share(tally.answered(), new.iter().map(|instance| tally.of(&instance.id)).sum());
        stage.report.say(bar(share));
        assert!(share >= last - 0.05, "the share fell from {last} to {share}");
        last = share;
    }
    stage.wait_active(&addresses(&after), |weight| weight == FULL);
    stage.report.say(format!("full weight after {:.1} s", from.elapsed().as_secs_f64()));
    shares(stage, &after);
}

fn scale_in(stage: &mut Stage) {
    let before = stage.instances();
    let from = Instant::now();
    stage.bed().moto().set_desired(GROUPS[1], 2);
    let after = stage.instances();
    let gone: Vec<GroupInstance> = before.into_iter().filter(|instance| !after.contains(instance)).collect();
    stage.report.say(format!("{} scales from 4 to 2: {} are terminated", GROUPS[1], names(&gone)));
    let took = leave(stage, from, &gone, &after);
    stage
        .report
        .say(format!("out of HAProxy after {}; like real instances, they kept answering for another second", ms(took)));
    shares(stage, &after);
}

fn replace(stage: &mut Stage) {
    let before = stage.instances();
    let old = before[1].clone();
    let slot = stage.slot_of(old.address).expect("it is in HAProxy");
    let from = Instant::now();
    stage.bed().moto().terminate_in_group(&old.id, false);
    stage.bed().serve_instances(&GROUPS);
    let after = stage.instances();
    let new = after.iter().find(|instance| !before.contains(instance)).expect("the group replaces it").clone();
    stage.report.say(format!("{} in slot {slot} is terminated; its group launches {}", old.id, new.id));
    let took = leave(stage, from, &[old], &after);
    assert_eq!(stage.slot_of(new.address), Some(slot), "the new instance takes its predecessor's slot");
    stage.report.say(format!("{} is in slot {slot} at its first weight after {}", new.id, ms(took)));
    stage.wait_active(&addresses(&after), |weight| weight == FULL);
    stage.report.say("it has ramped up");
}

fn standby(stage: &mut Stage) {
    let all = stage.instances();
    let one = all[0].clone();
    let others: Vec<GroupInstance> = all[1..].to_vec();
    let from = Instant::now();
    stage.bed().moto().enter_standby(GROUPS[0], &one.id);
    stage.wait_active(&addresses(&others), |_| true);
    let took = from.elapsed();
    stage.report.say(format!("{} goes to standby: out of HAProxy after {}", one.id, ms(took)));
    let tally = stage.watch(SECOND);
    assert_eq!(tally.of(&one.id), 0, "{tally}");
    stage.report.say(format!("in the next second it got 0 of {} requests", tally.answered()));
    let from = Instant::now();
    stage.bed().moto().exit_standby(GROUPS[0], &one.id);
    stage.wait_active(&addresses(&all), |_| true);
    let took = from.elapsed();
    stage.report.say(format!("back in service: it takes traffic again after {}", ms(took)));
    stage.wait_active(&addresses(&all), |weight| weight == FULL);
}

fn unhealthy(stage: &mut Stage) {
    let all = stage.instances();
    let one = all[0].clone();
    let slot = stage.slot_of(one.address).expect("it is in HAProxy");
    let from = Instant::now();
    stage.bed().moto().set_instance_health(&one.id, "Unhealthy");
    stage.wait("its drain", || match stage.slots()?.get(&slot) {
        Some((address, server)) if *address == one.address && server.weight == 0 => Ok(()),
        state => Err(format!("{state:?}")),
    });
    let took = from.elapsed();
    stage.report.say(format!(
        "{} in slot {slot} is Unhealthy: at weight 0 after {}, in the same slot",
        one.id,
        ms(took)
    ));
    let tally = stage.watch(SECOND);
    assert_eq!(tally.of(&one.id), 0, "{tally}");
    stage.bed().moto().set_instance_health(&one.id, "Healthy");
    stage.wait_active(&addresses(&all), |weight| weight == FULL);
    stage.report.say("Healthy again: it has ramped up, still in the same slot");
    assert_eq!(stage.slot_of(one.address), Some(slot));
}

fn restart(stage: &mut Stage) {
    let before = stage.slots().expect("HAProxy answers");
    let killed = Instant::now();
    stage.haproxy.kill();
    stage.report.say("killed: every request fails");
    stage.pause(SECOND);
    stage.haproxy.restart();
    let started = Instant::now();
    let empty = stage.slots().expect("HAProxy answers");
    stage.report.say(format!("restarted: its state is lost, {} servers out of maintenance", empty.len()));
    stage.wait("the earlier servers", || {
        let same = |slot: &u32, address: &IpAddr, weight: u32| {
            before.get(slot).is_some_and(|(held, server)| held == address && server.weight == weight)
        };
        let now = stage.slots()?;
        let whole = now.len() == before.len()
            && now.iter().all(|(slot, (address, server))| server.takes_traffic() && same(slot, address, server.weight));
        if whole { Ok(()) } else { Err(format!("{now:?}, before {before:?}")) }
    });
    let repaired = Instant::now();
    stage.excuse(killed, repaired);
    stage.report.say(format!("repaired within {}: same slots, addresses and weights", ms(repaired - started)));
    let (down, empty) = (stage.stream().touching(killed, started), stage.stream().between(started, repaired));
    stage.report.more(format!(
        "failed requests: {} while it was down, {} before the repair",
        down.failures.len(),
        empty.failures.len()
    ));
    let instances = stage.instances();
    shares(stage, &instances);
}

fn result(stage: &mut Stage) {
    let tally = stage.stop_traffic();
    let unexcused = stage.unexcused();
    stage.report.say(format!(
        "{} requests: {} answered, {} failed while HAProxy was away, {} failed otherwise",
        tally.answered() + tally.failures.len() as u64,
        tally.answered(),
        tally.failures.len() - unexcused.len(),
        unexcused.len(),
    ));
    assert!(unexcused.is_empty(), "no request may fail while HAProxy runs: {unexcused:?}");
    let servers = stage.haproxy.active(BACKEND).len();
    stage.report.say(format!("HAProxy has {servers} active servers; every promise held"));
}

/// Waits until HAProxy has exactly `after`, and returns the time since `from`. Closes the servers of `gone` a second
/// later, as a terminating instance still answers for a while.
fn leave(stage: &Stage, from: Instant, gone: &[GroupInstance], after: &[GroupInstance]) -> Duration {
    stage.wait_active(&addresses(after), |_| true);
    let took = from.elapsed();
    let tally = stage.watch(SECOND);
    for instance in gone {
        assert_eq!(tally.of(&instance.id), 0, "{} has left: {tally}", instance.id);
        stage.bed().web().stop(&instance.id);
    }
    took
}

/// Watches requests for a second and prints each instance's share; exactly these instances must have answered.
fn shares(stage: &Stage, instances: &[GroupInstance]) {
    let tally = stage.watch(SECOND);
    for instance in instances {
        let slot = stage.slot_of(instance.address).map_or("-".to_owned(), |slot| slot.to_string());
        let share = share(tally.answered(), tally.of(&instance.id));
        stage.report.more(format!("{}  slot {slot:>2}  {}", instance.id, bar(share)));
    }
    let mut expected: Vec<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(tally.names(), expected, "exactly the ready instances answer");
}

fn addresses(instances: &[GroupInstance]) -> Vec<IpAddr> {
    instances.iter().map(|instance| instance.address).collect()
}

fn names(instances: &[GroupInstance]) -> String {
    instances.iter().map(|instance| instance.id.as_str()).collect::<Vec<_>>().join(" and ")
}

#[expect(clippy::cast_precision_loss, reason = "some hundreds of requests")]
pub fn share(all: u64, part: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

fn ms(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}
