//! The scene with three zones and two load balancers: traffic stays in its zone, and a zone that fails gets help.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::common::bed::Bed;
use super::common::haproxy::{BackendConfig, Haproxy};
use super::common::hsdo::{Hsdo, Running};
use super::common::moto::GroupInstance;
use super::common::traffic::{Stream, Tally};
use super::report::bar;
use super::stage::{FULL, GROUPS, INTERVAL, Stage, THIRD_GROUP};

const BACKEND: &str = "zonal";
/// The backend with the servers of other zones, and the backup server that leads to it.
const OTHERS: &str = "others";
/// The zone that an order takes out, for so long.
const ORDERED: &str = "zone:eu-west-1a";
const ORDERED_FOR: &str = "10s";
const PAUSE: Duration = Duration::from_millis(10);
const REQUESTS: usize = 12_000;
/// Servers of other zones leave 30 s after the own ones are back.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A load balancer in a zone, with requests of its own.
struct Balancer {
    zone: &'static str,
    haproxy: Haproxy,
    _client: Running,
    stream: Stream,
}

impl Balancer {
    fn start(bed: &Bed, name: &str, zone: &'static str) -> Self {
        // As conf/README.md advises: a server that refuses a connection is down at once, the request is tried on another one, and while
        // no own one is left, a backup server leads to the others.
        let door = bed.dir().join(format!("{name}-others.sock"));
        let options = "check inter 100ms rise 2 fall 2 observe layer4 error-limit 1 on-error mark-down";
        let backend = BackendConfig::new(BACKEND, "z", 10)
            .options(options)
            .line("option redispatch 1")
            .line("retries 5")
            .line(&format!("server {OTHERS} unix@{} backup", door.display()));
        let others = BackendConfig::new(OTHERS, "o", 10).rule(&format!("bind unix@{}", door.display()));
        let haproxy = Haproxy::start_named(bed, name, &[backend, others]);
        let client = Hsdo::client(bed)
            .env("CLIENT_HAPROXY_SOCKET_PATH", &haproxy.socket().to_string_lossy())
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACKEND}:z:{}", bed.web().port()))
            .env("CLIENT_DEDICATED_ZONE", "true")
            .env("CLIENT_ZONE_NAMES", zone)
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", OTHERS)
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "o")
            .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &bed.web().port().to_string())
            .env("CLIENT_SPILL_BELOW", "70")
            .env("INTERVAL", INTERVAL)
            .spawn();
        let stream = Stream::start(haproxy.frontend(BACKEND), PAUSE, REQUESTS);
        Balancer { zone, haproxy, _client: client, stream }
    }

    fn wait_servers(&self, stage: &Stage, count: usize) {
        stage.wait_up_to(TIMEOUT, &format!("{count} servers in the HAProxy of {}", self.zone), || {
            let mut active = self.haproxy.active(BACKEND);
            active.retain(|name| name != OTHERS);
            if active.len() == count { Ok(()) } else { Err(format!("{active:?}")) }
        });
    }
}

pub fn zones(stage: &mut Stage) {
    stage.fill_third_group(3);
    let bed = stage.bed();
    let zones: BTreeMap<&str, Vec<GroupInstance>> = [("a", GROUPS[0]), ("b", GROUPS[1]), ("c", THIRD_GROUP)]
        .map(|(zone, group)| (zone, bed.moto().instances(group)))
        .into();
    let all: Vec<GroupInstance> = zones.values().flatten().cloned().collect();
    stage.wait_active(&all.iter().map(|one| one.address).collect::<Vec<_>>(), |weight| weight == FULL);
    stage.report.say("three groups in three zones; a load balancer that does not split spreads over all of them:");
    show(stage, &zones, &stage.watch(Duration::from_secs(1)));

    let started = Instant::now();
    let near = Balancer::start(bed, "zone-a", "eu-west-1a");
    let far = Balancer::start(bed, "zone-b", "eu-west-1b");
    near.wait_servers(stage, zones["a"].len());
    far.wait_servers(stage, zones["b"].len());
    let ready = Instant::now();
    let from = Instant::now();
    stage.pause(Duration::from_secs(1));
    stage.report.say("two more with CLIENT_DEDICATED_ZONE; the one in zone a:");
    let tally = near.stream.between(from, Instant::now());
    show(stage, &zones, &tally);
    assert_eq!(answered(&tally, &zones["a"]), tally.answered(), "traffic stays in its zone: {tally}");
    let tally = far.stream.between(from, Instant::now());
    assert_eq!(answered(&tally, &zones["b"]), tally.answered(), "traffic stays in its zone: {tally}");

    let lost = Instant::now();
    zones["a"].iter().for_each(|one| bed.web().stop(&one.id));
    stage.wait("the first answer of another zone", || {
        let tally = near.stream.between(lost, Instant::now());
        if tally.answered() > answered(&tally, &zones["a"]) { Ok(()) } else { Err(tally.to_string()) }
    });
    let took = lost.elapsed();
    near.wait_servers(stage, all.len() - zones["a"].len());
    stage.report.say(format!(
        "every server of zone a is gone; its load balancer had the first answer of another zone after {} ms:",
        took.as_millis()
    ));
    let from = Instant::now();
    stage.pause(Duration::from_secs(1));
    show(stage, &zones, &near.stream.between(from, Instant::now()));

    let back = Instant::now();
    zones["a"].iter().for_each(|one| bed.web().serve(&one.id, one.address));
    near.wait_servers(stage, all.len());
    stage.report.say("they are back, and serve at once; the others leave when that has held for 30 s");
    near.wait_servers(stage, zones["a"].len());
    stage.report.say(format!("they have left after {:.1} s", back.elapsed().as_secs_f64()));
    let from = Instant::now();
    stage.pause(Duration::from_secs(1));
    show(stage, &zones, &near.stream.between(from, Instant::now()));
    evacuate(stage, &zones, &near, all.len());
    let failures = [&near, &far].map(|one| one.stream.failures_outside(&[(started, ready)])).concat();
    assert!(failures.is_empty(), "no request may fail: {failures:?}");
    let count =
        near.stream.between(ready, Instant::now()).answered() + far.stream.between(ready, Instant::now()).answered();
    stage
        .report
        .say(format!("not one of {count} requests failed, neither when the zone was lost nor when it was taken out"));
}

/// One command takes the zone out on every load balancer, until the order lapses.
fn evacuate(stage: &Stage, zones: &BTreeMap<&str, Vec<GroupInstance>>, near: &Balancer, all: usize) {
    let words = ["drain", ORDERED, "--for", ORDERED_FOR, "--note", "flaky network"];
    stage.report.say(format!("$ hsdo {}", words.join(" ")));
    let given = words.into_iter().fold(Hsdo::with_aws(stage.bed(), "drain"), Hsdo::arg).run();
    given.assert_code(0);
    given.stdout.lines().for_each(|line| stage.report.more(line.to_owned()));
    near.wait_servers(stage, all - zones["a"].len());
    let from = Instant::now();
    stage.pause(Duration::from_secs(1));
    let tally = near.stream.between(from, Instant::now());
    show(stage, zones, &tally);
    assert_eq!(answered(&tally, &zones["a"]), 0, "the zone is out: {tally}");
    near.wait_servers(stage, all);
    stage.wait_active(&zones.values().flatten().map(|one| one.address).collect::<Vec<_>>(), |weight| weight == FULL);
    stage.report.say("the order has lapsed: its servers are back, by the ramp");
}

fn show(stage: &Stage, zones: &BTreeMap<&str, Vec<GroupInstance>>, tally: &Tally) {
    for (zone, instances) in zones {
        let share = super::story::share(tally.answered(), answered(tally, instances));
        stage.report.more(format!("zone {zone}  {}", bar(share)));
    }
}

fn answered(tally: &Tally, instances: &[GroupInstance]) -> u64 {
    instances.iter().map(|instance| tally.of(&instance.id)).sum()
}
