//! The log as JSON: every line is an object, and what it is about stands in fields of its own.

use serde_json::{Value, json};

use super::fixture::{bed, ids, steady};
use crate::common::aws_proxy::Fault;
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Running, json_lines};

/// The fields of each line whose message begins so, without those that every line has.
#[track_caller]
fn fields(running: &Running, message: &str) -> Vec<Value> {
    let mut lines = json_lines(&running.log());
    lines.retain(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)));
    for line in &mut lines {
        let object = line.as_object_mut().expect("an object");
        object.retain(|field, _| !["time", "level", "target", "message"].contains(&field.as_str()));
    }
    lines
}

#[test]
fn each_line_of_a_json_log_has_what_it_is_about() {
    let bed = bed("json", &[("web", 3)]);
    let web = ids(&bed, "web");
    bed.serve_instances(&["web"]);
    let mut server = steady(&bed, 2).arg("--debug").env("LOG_FORMAT", "json").spawn();
    server.wait_metric("hsdo_unplaced_servers", |count| count == 1.0);
    let _haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 1)]);
    let file = bed.file("client.yaml", "LOG_FORMAT: json\nHAPROXY_BACKEND_SERVERS_LIST_SIZE: 2\n");
    let mut client = Hsdo::client(&bed).arg("--debug").arg("--config").arg(&file.display().to_string()).spawn();
    client.wait_metric("hsdo_haproxy_missing_slots", |count| count == 1.0);

    let slot =
        |slot: u32| json!({"slot": slot, "instance": web[slot as usize - 1], "group": "web", "zone": "eu-west-1a"});
    let because = |mut fields: Value, cause: &str| {
        fields["cause"] = json!(cause);
        fields
    };
    assert_eq!(fields(&server, "slot 1: added "), [because(slot(1), "serving")]);
    assert_eq!(fields(&server, "slot 2: added "), [because(slot(2), "serving")]);
    assert_eq!(fields(&server, "wrote slot 2: "), [slot(2)]);
    let waits = json!({"instance": web[2], "group": "web", "cause": "no-free-slot"});
    assert_eq!(fields(&server, "ready servers without a slot"), std::slice::from_ref(&waits));
    assert_eq!(fields(&server, "hsdo "), [json!({})]);
    let of = |slot: u32| json!({"slot": slot, "backend": "http-back", "server": format!("mywebapp{slot}")});
    assert_eq!(fields(&client, "http-back/mywebapp1: now "), [of(1)]);
    assert_eq!(fields(&client, "slots missing in HAProxy: "), [because(of(2), "beyond-template")]);

    // A fault of AWS, and the end of a condition.
    bed.aws().inject("DescribeAutoScalingGroups", Fault::Garbage);
    server.wait_log("AWS: ");
    bed.aws().heal();
    server.wait_log("AWS: recovered");
    bed.moto().terminate_in_group(&web[0], true);
    server.wait_metric("hsdo_unplaced_servers", |count| count == 0.0);
    server.wait_log("every ready server has a slot again");
    assert_eq!(fields(&server, "every ready server has a slot again"), [waits]);
    for running in [&mut server, &mut client] {
        assert_eq!(running.terminate().code(), Some(0));
        assert_eq!(fields(running, "stopped"), [json!({})]);
    }
}

#[test]
fn an_error_that_ends_the_process_is_json_too() {
    let bed = bed("json-end", &[("web", 1)]);
    let json = |hsdo: Hsdo| hsdo.env("LOG_FORMAT", "json");
    // HAProxy has no such backend.
    steady(&bed, 1).once().assert_code(0);
    let _haproxy = Haproxy::start(&bed, &[BackendConfig::new("other", "mywebapp", 1)]);
    let outcome = json(Hsdo::client(&bed)).run();
    outcome.assert_code(2);
    let lines = json_lines(&outcome.stderr);
    let last = lines.last().expect("a line");
    assert_eq!((&last["level"], &last["backend"]), (&json!("ERROR"), &json!("http-back")), "{outcome}");
    // A port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let outcome = json(Hsdo::server(&bed)).env("EXPORTER_PORT", &port).run();
    outcome.assert_code(2);
    let lines = json_lines(&outcome.stderr);
    assert!(lines.last().is_some_and(|line| line["message"].as_str().unwrap_or_default().contains(&port)), "{outcome}");
}
