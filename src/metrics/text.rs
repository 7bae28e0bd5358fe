//! Prometheus text format 0.0.4, as a pure function of the values.
//!
//! A family without samples is omitted, HELP and TYPE included.

use std::collections::BTreeMap;

use super::format::{Label, Text};
use super::process::ProcessStats;
use super::{Values, aws, departures, turns};

pub(super) fn render(role: &str, values: &Values, process: &ProcessStats) -> String {
    let mut text = Text::with_capacity(6144 + values.servers.len() * 120);
    turns::render(&mut text, &values.turns);
    table(&mut text, values);
    departures::render(&mut text, &values.departures);
    haproxy(&mut text, values);
    aws::render(&mut text, &values.aws);
    consul(&mut text, values);
    text.family("hsdo_build_info", "gauge", "The version and the role of this process; always 1.");
    text.sample("hsdo_build_info", &[("version", &env!("CARGO_PKG_VERSION")), ("role", &role)], 1);
    process_families(&mut text, process);
    text.into_string()
}

fn table(text: &mut Text, values: &Values) {
    if !values.servers.is_empty() {
        let name = "hsdo_server_weight";
        text.family(name, "gauge", "The weight of each server in the table.");
        for server in values.servers.iter() {
            let asg = server.asg.as_deref().unwrap_or("none");
            let labels: [Label<'_>; 4] =
                [("id", &server.id), ("name", &server.name), ("ip", &server.ip), ("asg", &asg)];
            text.sample(name, &labels, server.weight);
        }
    }
    // Without any zone there is nothing to tell apart.
    if values.servers.iter().any(|server| server.zone.is_some()) {
        let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
        for server in values.servers.iter() {
            let weight = if server.enabled { server.weight } else { 0 };
            *zones.entry(server.zone.as_deref().unwrap_or("unknown")).or_default() += u32::from(weight);
        }
        let name = "hsdo_zone_weight";
        text.family(name, "gauge", "The sum of the weights of the enabled servers in each zone.");
        for (zone, weight) in &zones {
            text.sample(name, &[("zone", zone)], weight);
        }
    }
    if !values.slots.is_empty() {
        let name = "hsdo_slots";
        text.family(name, "gauge", "Slots of the table, by state.");
        for (slot_state, count) in &values.slots {
            text.sample(name, &[("state", slot_state)], count);
        }
    }
    text.gauge("hsdo_unplaced_servers", "Ready instances that wait because every slot is taken.", values.unplaced);
    text.gauge(
        "hsdo_missing_groups",
        "Configured groups that the source (server) or the table (client) does not know.",
        values.missing_groups,
    );
    let leader = "Whether this server leads the table (1) or stands by (0).";
    text.gauge("hsdo_leader", leader, values.leads.map(u8::from));
    let age = "Seconds since the heartbeat of the leading server was last seen to change.";
    text.gauge("hsdo_heartbeat_age_seconds", age, values.heartbeat_age.map(|age| age.as_secs_f64()));
    let last_resort = "Servers that drain, or whose factor is 0, and that serve because no other can.";
    text.gauge("hsdo_last_resort_servers", last_resort, values.last_resort);
    let guarded = "Slots kept by SERVER_REMOVAL_GUARD because too many servers left every group at once.";
    text.gauge("hsdo_removal_guard_slots", guarded, values.guarded);
    let unseen = "Instances in service without a usable address.";
    text.gauge("hsdo_unseen_instances", unseen, values.unseen);
    let unknown_states = "Instances in a lifecycle or health state that this version of hsdo does not know.";
    text.gauge("hsdo_unknown_state_instances", unknown_states, values.unknown_states);
    if !values.orders.is_empty() {
        let name = "hsdo_orders";
        text.family(name, "gauge", "Orders in force, by kind of target; unreadable ones have no effect.");
        for (kind, count) in &values.orders {
            text.sample(name, &[("kind", kind)], count);
        }
    }
}

fn haproxy(text: &mut Text, values: &Values) {
    let up = "Whether HAProxy responded in the last turn (1) or not (0).";
    text.gauge("hsdo_haproxy_up", up, values.haproxy_up.map(u8::from));
    if !values.haproxy_commands.is_empty() {
        let name = "hsdo_haproxy_commands_total";
        text.family(name, "counter", "Commands sent to change HAProxy, by result.");
        for (result, count) in &values.haproxy_commands {
            text.sample(name, &[("result", result)], count);
        }
    }
    let missing = "Slots without a server in HAProxy, over all backends.";
    text.gauge("hsdo_haproxy_missing_slots", missing, values.missing_slots);
    let held = "Servers that an operator put in drain or maint.";
    text.gauge("hsdo_haproxy_held_slots", held, values.held_slots);
    let waiting = "New servers that have not passed their health check yet.";
    text.gauge("hsdo_haproxy_waiting_slots", waiting, values.waiting_slots);
    let blocked = "Servers kept out, or at another weight, by something that hsdo cannot override.";
    text.gauge("hsdo_haproxy_blocked_slots", blocked, values.blocked_slots);
    let absent = "Configured backends that are missing, or cannot be kept in step.";
    text.gauge("hsdo_haproxy_missing_backends", absent, values.missing_backends);
    if !values.spill.is_empty() {
        let name = "hsdo_spill_share";
        text.family(
            name,
            "gauge",
            "How much of the servers of other zones or groups a backend takes in (CLIENT_SPILL_BELOW).",
        );
        for (backend, share) in &values.spill {
            text.sample(name, &[("backend", backend)], share);
        }
        text.gauge("hsdo_spill_slots", "Servers of other zones or groups that backends take in.", values.spill_slots);
    }
}

fn consul(text: &mut Text, values: &Values) {
    if !values.consul_requests.is_empty() {
        let name = "hsdo_consul_requests_total";
        text.family(name, "counter", "Requests to Consul, by result.");
        for (result, count) in &values.consul_requests {
            text.sample(name, &[("result", result)], count);
        }
    }
}

/// The standard families of Prometheus client libraries, with their names and help texts.
fn process_families(text: &mut Text, process: &ProcessStats) {
    let cpu = "Total user and system CPU time spent in seconds.";
    text.single("process_cpu_seconds_total", "counter", cpu, process.cpu_seconds);
    text.gauge("process_open_fds", "Number of open file descriptors.", process.open_fds);
    text.gauge("process_max_fds", "Maximum number of open file descriptors.", process.max_fds);
    text.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes);
    text.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes);
    let start = "Start time of the process since unix epoch in seconds.";
    text.gauge("process_start_time_seconds", start, process.start_seconds);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ServerSeries;
    use super::super::aws::Usage;
    use super::super::departures::{Departures, Drains};
    use super::super::format::escape;
    use super::super::turns::Turns;
    use super::*;
    use crate::clock::Timestamp;

    /// Every family, as `promtool check metrics` accepts it.
    const EXPECTED: &str = include_str!("expected.metrics");

    fn everything() -> Values {
        let mut turns = Turns { ok: 5, failed: 1, seconds: 12.3125, ..Turns::default() };
        (turns.buckets[0], turns.buckets[3], turns.buckets[13]) = (3, 2, 1);
        turns.last_success = Some(Timestamp::from_micros(1_767_323_045_678_000));
        Values {
            turns,
            servers: vec![
                ServerSeries {
                    id: 1,
                    name: "i-0a".to_owned(),
                    ip: [10, 0, 0, 1].into(),
                    asg: Some("web \"blue\"".to_owned()),
                    zone: Some("eu-west-1a".to_owned()),
                    enabled: true,
                    weight: 10,
                },
                ServerSeries {
                    id: 3,
                    name: "i-0b".to_owned(),
                    ip: [10, 0, 0, 2].into(),
                    asg: None,
                    zone: None,
                    enabled: false,
                    weight: 0,
                },
            ]
            .into(),
            slots: vec![("enabled", 1), ("draining", 1), ("disabled", 0), ("free", 8), ("unreadable", 0)],
            unplaced: Some(0),
            conditions: BTreeMap::new(),
            missing_groups: Some(1),
            last_resort: Some(0),
            guarded: Some(6),
            unseen: Some(1),
            unknown_states: Some(2),
            orders: vec![("slot", 0), ("zone", 1)],
            departures: Departures {
                balancers: Some([3, 1, 0]),
                sessions: Some(7),
                drains: Drains { buckets: [0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0], seconds: 130.5 },
            },
            leads: Some(true),
            heartbeat: None,
            heartbeat_age: Some(std::time::Duration::from_millis(250)),
            haproxy_up: Some(true),
            haproxy_commands: [("ok", 12), ("refused", 1), ("failed", 0)].into(),
            missing_slots: Some(2),
            held_slots: Some(1),
            waiting_slots: Some(2),
            blocked_slots: Some(0),
            missing_backends: Some(1),
            spill: vec![("http-back".to_owned(), 0.25)],
            spill_slots: Some(3),
            aws: Usage {
                requests: [
                    (("dynamodb", "Scan", "ok".to_owned()), 7),
                    (("dynamodb", "Scan", "timeout".to_owned()), 1),
                    (("ec2", "DescribeInstances", "RequestLimitExceeded".to_owned()), 1),
                ]
                .into(),
                consumed: [("Scan", 2.5), ("TransactWriteItems", 4.0)].into(),
            },
            consul_requests: [("ok", 4), ("timeout", 1)].into(),
        }
    }

    #[test]
    fn every_family_as_prometheus_reads_it() {
        let process = ProcessStats {
            cpu_seconds: Some(0.25),
            open_fds: Some(9),
            max_fds: Some(1024),
            virtual_bytes: Some(4_194_304),
            resident_bytes: Some(2_097_152),
            start_seconds: Some(1_767_323_000.5),
        };
        let text = render("server", &everything(), &process);
        let expected = EXPECTED.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        assert_eq!(text, expected);
    }

    #[test]
    fn what_was_never_set_is_absent() {
        let text = render("client", &Values::default(), &ProcessStats::default());
        let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(
            families,
            ["hsdo_turns_total counter", "hsdo_turn_duration_seconds histogram", "hsdo_build_info gauge"]
        );
    }

    #[test]
    fn label_values_are_escaped() {
        for (value, expected) in [
            ("plain", "plain"),
            (r"back\slash", r"back\\slash"),
            ("a \"quote\"", "a \\\"quote\\\""),
            ("two\nlines", r"two\nlines"),
            ("\\\"\n", "\\\\\\\"\\n"),
            ("{},=", "{},="),
        ] {
            assert_eq!(escape(value), expected);
        }
    }

    proptest! {
        #[test]
        fn no_name_can_break_out_of_its_label(name in "[\\\\\"\n{}=,a]{0,12}") {
            let server = ServerSeries {
                id: 1,
                name: name.clone(),
                ip: [10, 0, 0, 1].into(),
                asg: None,
                zone: None,
                enabled: true,
                weight: 1,
            };
            let plain = ServerSeries { name: "a".to_owned(), ..server.clone() };
            let text = |server| {
                let values = Values { servers: vec![server].into(), ..Values::default() };
                render("server", &values, &ProcessStats::default())
            };
            let (shown, plain) = (text(server), text(plain));
            prop_assert_eq!(shown.lines().count(), plain.lines().count());
            let line = shown.lines().find(|line| line.starts_with("hsdo_server_weight{")).expect("the series");
            let quoted = line.strip_prefix("hsdo_server_weight{id=\"1\",name=\"").expect("its start");
            let quoted = quoted.strip_suffix("\",ip=\"10.0.0.1\",asg=\"none\"} 1").expect("its end");
            let mut read = String::new();
            let mut characters = quoted.chars();
            while let Some(character) = characters.next() {
                prop_assert_ne!(character, '"');
                read.push(match character {
                    '\\' => match characters.next() { Some('n') => '\n', other => other.expect("an escaped character") },
                    plain => plain,
                });
            }
            prop_assert_eq!(read, name);
        }
    }
}
