//! Hostile names from AWS: in the table, on HAProxy's socket, in the log and in `/metrics` they stay names.

use std::sync::Arc;

use super::fixture::BACK;
use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Running, json_lines};
use crate::common::tap::Tap;
use crate::common::wait::{SOON, wait_for};

/// A valid group name, chosen by whoever may create groups.
const GROUP: &str = r#"we"b\ {x="1"} 9; shutdown frontend http-back <script>alert(1)</script>"#;

/// Ids that AWS would never give.
const IDS: [&str; 5] = [
    "i-good",
    "i-1\"} 9; shutdown frontend http-back",
    "<b>i-2</b>\\",
    "i-3\n2026-01-01T00:00:00.000Z INFO  server: slot 1: removed i-good",
    "i-4\u{85}\u{202e}",
];

fn escaped(text: &str) -> String {
    let mut xml = String::new();
    for char in text.chars() {
        xml.push_str(&format!("&#{};", u32::from(char)));
    }
    xml
}

fn groups() -> String {
    let members: String = IDS
        .iter()
        .map(|id| {
            format!(
                "<member><InstanceId>{}</InstanceId><LifecycleState>InService</LifecycleState>\
                 <HealthStatus>Healthy</HealthStatus></member>",
                escaped(id)
            )
        })
        .collect();
    format!(
        "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>\
         <AutoScalingGroupName>{}</AutoScalingGroupName><Instances>{members}</Instances></member></AutoScalingGroups>\
         </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>",
        escaped(GROUP)
    )
}

fn instances() -> String {
    let items: String = (1..)
        .zip(IDS)
        .map(|(host, id)| {
            format!(
                "<item><instancesSet><item><instanceId>{}</instanceId><instanceState><name>running</name></instanceState>\
                 <privateIpAddress>127.1.2.{host}</privateIpAddress></item></instancesSet></item>",
                escaped(id)
            )
        })
        .collect();
    format!("<DescribeInstancesResponse><reservationSet>{items}</reservationSet></DescribeInstancesResponse>")
}

/// Each line of log and metrics must be one that hsdo began.
fn assert_clean(running: &Running) {
    let log = running.log();
    assert!(log.lines().all(|line| line.starts_with("20") && !line.starts_with("2026-01-01T00:00:00.000Z")), "{log}");
    assert!(!log.chars().any(|char| char != '\n' && (char.is_control() || char == '\u{202e}')), "{log:?}");
    let metrics = running.metrics();
    for line in metrics.lines().filter(|line| line.starts_with("hsdo_server_weight")) {
        // The label quotes, and no unescaped quote between them.
        let bare = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(bare.matches('"').count(), 8, "{line}");
        assert!(line.ends_with("} 10"), "{line}");
    }
    assert!(metrics.lines().all(|line| ["# ", "hsdo_", "process_"].iter().any(|start| line.starts_with(start))));
}

#[test]
fn what_aws_says_stays_a_name() {
    let bed = Bed::new("hostile");
    bed.moto().create_table();
    bed.aws().inject("DescribeAutoScalingGroups", Fault::Answer(Arc::new(|_: &str| groups())));
    bed.aws().inject("DescribeInstances", Fault::Answer(Arc::new(|_: &str| instances())));
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 10).unchecked()]);
    let tap = Tap::start(bed.dir().join("tap.sock"), haproxy.socket());
    let mut server = Hsdo::server(&bed)
        .arg("--debug")
        .env("SERVER_ASG_NAMES", GROUP)
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
        .spawn();
    let path = tap.path().to_string_lossy().into_owned();
    let mut client = Hsdo::client(&bed).arg("--debug").env("CLIENT_HAPROXY_SOCKET_PATH", &path).spawn();
    wait_for("all of them to serve", SOON, || match haproxy.active(BACK).len() {
        5 => Ok(()),
        count => Err(format!("{count}\n{}\n{}", server.log(), client.log())),
    });
    server.wait_turn();
    client.wait_turn();
    assert_clean(&server);
    assert_clean(&client);
    assert_eq!(server.metric(r#"hsdo_slots{state="unreadable"}"#), Some(0.0), "{}", server.log());
    assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#), Some(0.0), "{}", server.log());
    for command in tap.commands() {
        let known = command.starts_with("show ") || command.starts_with(&format!("set server {BACK}/mywebapp"));
        assert!(known && !command.contains("i-") && !command.contains('<'), "{command}");
    }
}

#[test]
fn what_aws_says_stays_a_value_of_a_json_log() {
    let bed = Bed::new("hostile-json");
    bed.moto().create_table();
    bed.aws().inject("DescribeAutoScalingGroups", Fault::Answer(Arc::new(|_: &str| groups())));
    bed.aws().inject("DescribeInstances", Fault::Answer(Arc::new(|_: &str| instances())));
    let mut server = Hsdo::server(&bed)
        .arg("--debug")
        .env("LOG_FORMAT", "json")
        .env("SERVER_ASG_NAMES", &format!("{GROUP},no \"such\" group\\"))
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
        .spawn();
    server.wait_metric(r#"hsdo_slots{state="enabled"}"#, |count| count == 5.0);
    server.wait_turn();
    server.terminate();
    let log = server.log();
    assert!(!log.chars().any(|char| char != '\n' && (char.is_control() || char == '\u{202e}')), "{log:?}");
    let lines = json_lines(&log);
    let added: Vec<_> =
        lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(": added "))).collect();
    // A name is made safe for its row, where it loses its control characters.
    let names: Vec<String> = IDS.iter().map(|id| id.replace('\n', "\\n").replace('\u{85}', "\\u{85}")).collect();
    for (slot, name) in (1..).zip(&names) {
        let line = added.iter().find(|line| line["slot"] == slot).unwrap_or_else(|| panic!("no slot {slot}: {log}"));
        assert_eq!((&line["instance"], &line["group"]), (&name.as_str().into(), &GROUP.into()), "{log}");
    }
    assert_eq!(added.len(), IDS.len(), "{log}");
    let missing = lines.iter().find(|line| line["group"] == "no \"such\" group\\").unwrap_or_else(|| panic!("{log}"));
    assert_eq!(missing["level"], "WARN", "{log}");
}
