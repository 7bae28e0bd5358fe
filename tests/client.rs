//! The client role on a real HAProxy: what it sends, what it leaves alone, and what it repairs.

mod common;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use common::aws_proxy::Fault;
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy, ask};
use common::hsdo::{Hsdo, Running};
use common::tap::{SocketFault, Tap};
use common::traffic;
use common::wait::{SOON, assert_stays, wait_for};

const BACK: &str = "http-back";
const BASE: &str = "mywebapp";

/// A bed with a table of `size` slots, the first `used` of them taken by instances with a web server.
fn bed_with_table(name: &str, size: u32, used: u32) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    for id in 1..=size {
        if id <= used {
            occupy(&bed, id, id, "web", 10);
        } else {
            bed.moto().put_free(id);
        }
    }
    bed
}

fn address(host: u32) -> String {
    format!("127.1.2.{host}")
}

/// Puts the instance `i-<host>` into a slot.
fn occupy(bed: &Bed, id: u32, host: u32, group: &str, weight: u16) {
    bed.web().serve(&format!("i-{host}"), address(host).parse().expect("an address"));
    bed.moto().put_server(id, &address(host), &format!("i-{host}"), Some(group), weight);
}

fn backend() -> BackendConfig {
    BackendConfig::new(BACK, BASE, 4)
}

fn sized(bed: &Bed, size: u32) -> Hsdo {
    Hsdo::client(bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &size.to_string())
}

/// A client that talks to HAProxy through a tap.
fn tapped(bed: &Bed, size: u32) -> (Tap, Hsdo) {
    let path = bed.dir().join("tap.sock");
    let tap = Tap::start(path.clone(), &bed.socket());
    (tap, sized(bed, size).env("CLIENT_HAPROXY_SOCKET_PATH", &path.to_string_lossy()))
}

#[track_caller]
fn wait_weights(haproxy: &Haproxy, backend: &str, wanted: &[(&str, u32)]) {
    haproxy.wait_weights(backend, wanted);
}

#[track_caller]
fn wait_maintenance(haproxy: &Haproxy, backend: &str, server: &str) {
    wait_for(&format!("{backend}/{server} to be in maintenance"), SOON, || {
        let state = haproxy.server(backend, server);
        if state.in_maintenance() { Ok(()) } else { Err(format!("{state:?}")) }
    });
}

/// Waits until the client has converged, then clears the recording.
fn settle(client: &mut Running, tap: &Tap) {
    client.wait_turn();
    wait_for("a turn without a change", SOON, || {
        tap.forget();
        client.wait_turn();
        if tap.changes().is_empty() { Ok(()) } else { Err(format!("{:?}", tap.changes())) }
    });
}

#[test]
fn slots_are_filled_and_a_steady_turn_only_reads() {
    let bed = bed_with_table("filled", 4, 2);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client.spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    let tally = traffic::send(haproxy.frontend(BACK), 20);
    assert_eq!((tally.of("i-1"), tally.of("i-2")), (10, 10), "{tally}");
    assert!(haproxy.server(BACK, "mywebapp3").in_maintenance());

    settle(&mut client, &tap);
    let turns = client.metric(r#"hsdo_turns_total{result="ok"}"#).unwrap();
    tap.forget();
    client.wait_metric(r#"hsdo_turns_total{result="ok"}"#, |now| now >= turns + 5.0);
    assert_eq!(tap.changes(), Vec::<String>::new());
    let turns = client.metric(r#"hsdo_turns_total{result="ok"}"#).unwrap() - turns;
    let connections = tap.connections() as f64;
    assert!(connections <= turns + 2.0, "{connections} connections in about {turns} turns");

    bed.moto().update_item(2, &json!({"Weight": {"N": "7"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 7)]);
    assert_eq!(tap.changes(), ["set server http-back/mywebapp2 weight 7"], "a weight is one command");
}

/// An eventually consistent read may be stale: it may signal that something changed, not what.
#[test]
fn what_is_sent_comes_from_a_consistent_reading() {
    let bed = bed_with_table("consistent", 2, 1);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let mut client = sized(&bed, 2).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    let scans = || {
        let calls = bed.aws().calls().into_iter().filter(|call| call.operation == "Scan");
        calls.map(|call| call.body.contains(r#""ConsistentRead":true"#)).collect::<Vec<_>>()
    };
    assert!(scans()[0], "the first reading");
    bed.aws().forget();
    client.wait_turn();
    assert!(!scans().contains(&true), "a steady turn reads at half the price");
    bed.moto().update_item(1, &json!({"Weight": {"N": "7"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 7)]);
    assert_eq!(scans().iter().filter(|consistent| **consistent).count(), 1);
}

#[test]
fn a_value_of_the_table_cannot_become_a_command() {
    let bed = bed_with_table("smuggle", 4, 2);
    let evil = |id: u32, attribute: &str, value: &str| {
        occupy(&bed, id, id, "web", 10);
        bed.moto().update_item(id, &json!({attribute: {"S": value}}));
    };
    evil(2, "IPAddress", "127.1.2.2; shutdown frontend http-back");
    evil(3, "IPAddress", "127.1.2.3 port 80\nshutdown frontend http-back");
    evil(4, "ServerName", "i-4\nset server http-back/mywebapp1 state maint");
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client.spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    client.wait_metric(r#"hsdo_slots{state="unreadable"}"#, |count| count == 3.0);
    client.wait_turn();
    let sent = tap.lines().join("\n");
    assert!(!sent.contains("shutdown") && !sent.contains("mywebapp1 state maint\n"), "{sent}");
    for id in [2, 3, 4] {
        assert!(!sent.contains(&format!("mywebapp{id} ")), "slot {id} is unknown, and not touched: {sent}");
        assert!(client.log().contains(&format!("slot {id}: ")), "{}", client.log());
    }
    assert!(client.log().lines().all(|line| line.starts_with("20")), "a line was smuggled in: {}", client.log());
    assert_eq!(traffic::send(haproxy.frontend(BACK), 3).of("i-1"), 3);
}

#[test]
fn dedicated_mode_clears_the_default_backend_when_a_slot_moves_or_empties() {
    let bed = bed_with_table("dedicated", 4, 0);
    occupy(&bed, 1, 1, "near", 10);
    occupy(&bed, 2, 2, "near", 10);
    occupy(&bed, 3, 3, "far", 10);
    let backends = [backend(), BackendConfig::new("api-back", "api", 4), BackendConfig::new("fallback", "fb", 4)];
    let haproxy = Haproxy::start(&bed, &backends);
    let port = bed.web().port();
    let client = |all: &str| {
        sized(&bed, 4)
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!(r#"{{"http-back": {{"baseName": "mywebapp", "serverPort": {port}}}, "api-back": {{"baseName": "api", "serverPort": {port}}}}}"#))
            .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &port.to_string())
            .env("CLIENT_DEDICATED_ASG", "true")
            .env("CLIENT_ASG_NAMES", "near")
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback")
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fb")
            .env("CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND", all)
    };
    let mut running = client("false").spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    wait_weights(&haproxy, "api-back", &[("api1", 10), ("api2", 10)]);
    wait_weights(&haproxy, "fallback", &[("fb3", 10)]);

    bed.moto().update_item(2, &json!({"ASG": {"S": "far"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    wait_weights(&haproxy, "api-back", &[("api1", 10)]);
    wait_weights(&haproxy, "fallback", &[("fb2", 10), ("fb3", 10)]);

    bed.moto().put_free(1);
    bed.moto().update_item(1, &json!({"HsdoLastASG": {"S": "near"}}));
    bed.moto().put_free(3);
    wait_weights(&haproxy, BACK, &[]);
    wait_weights(&haproxy, "api-back", &[]);
    wait_weights(&haproxy, "fallback", &[("fb2", 10)]);
    for (backend, server) in [(BACK, "mywebapp1"), (BACK, "mywebapp2"), ("api-back", "api1"), ("fallback", "fb3")] {
        wait_maintenance(&haproxy, backend, server);
    }
    occupy(&bed, 1, 1, "near", 10);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    running.terminate();

    let _running = client("true").spawn();
    wait_weights(&haproxy, "fallback", &[("fb1", 10), ("fb2", 10)]);
    assert_eq!(haproxy.active(BACK), ["mywebapp1"]);
}

/// While no row carries the own group, every server counts as one of the own; once one does, the others move. If every trace of it is
/// wiped later, as the original does it, they stay.
#[test]
fn servers_that_change_the_backend_serve_in_the_new_one_before_they_leave_the_old_one() {
    let bed = bed_with_table("moving", 4, 0);
    bed.moto().put_free(1);
    occupy(&bed, 2, 2, "far", 10);
    occupy(&bed, 3, 3, "far", 10);
    let haproxy = Haproxy::start(&bed, &[backend(), BackendConfig::new("fallback", "fb", 4)]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client
        .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &bed.web().port().to_string())
        .env("CLIENT_DEDICATED_ASG", "true")
        .env("CLIENT_ASG_NAMES", "near")
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback")
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fb")
        .spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp2", 10), ("mywebapp3", 10)]);
    wait_weights(&haproxy, "fallback", &[]);
    settle(&mut client, &tap);

    bed.moto().update_item(1, &json!({"HsdoLastASG": {"S": "near"}}));
    wait_weights(&haproxy, "fallback", &[("fb2", 10), ("fb3", 10)]);
    wait_weights(&haproxy, BACK, &[]);
    let sent = tap.changes();
    let enters = sent.iter().rposition(|line| line.contains("fallback/fb") && line.ends_with("state ready"));
    let leaves = sent.iter().position(|line| line.contains("http-back/"));
    assert!(enters.is_some() && enters < leaves, "{sent:#?}");
    settle(&mut client, &tap);

    bed.moto().put_free(1);
    client.wait_metric("hsdo_missing_groups", |n| n == 1.0);
    client.wait_turn();
    assert_eq!(tap.changes(), Vec::<String>::new());
    assert_eq!(haproxy.active("fallback"), ["fb2", "fb3"]);
}

/// Stray quotes, a renamed group: names that no row carries.
#[test]
fn own_groups_that_nobody_is_of_are_told_and_empty_no_backend() {
    let bed = bed_with_table("misspelt", 4, 0);
    occupy(&bed, 1, 1, "near", 10);
    occupy(&bed, 2, 2, "far", 10);
    let haproxy = Haproxy::start(&bed, &[backend(), BackendConfig::new("fallback", "fb", 4)]);
    let client = |names: &str| {
        sized(&bed, 4)
            .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &bed.web().port().to_string())
            .env("CLIENT_DEDICATED_ASG", "true")
            .env("CLIENT_ASG_NAMES", names)
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback")
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fb")
    };
    let ready = |client: &Running| client.get("/readyz").expect("an exporter").1;
    let mut some = client("near,nearer").spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    wait_weights(&haproxy, "fallback", &[("fb2", 10)]);
    assert_eq!(some.wait_metric("hsdo_missing_groups", |n| n == 1.0), 1.0);
    some.wait_turn();
    assert!(
        ready(&some).starts_with("ok, but CLIENT_ASG_NAMES: no row of the table carries \"nearer\""),
        "{}",
        ready(&some)
    );
    some.terminate();

    let mut none = client(r#""near""#).spawn();
    none.wait_metric("hsdo_missing_groups", |n| n == 1.0);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    wait_weights(&haproxy, "fallback", &[]);
    none.wait_turn();
    let told = r#"no row of the table carries "\"near\"", so no server can be assigned by group"#;
    assert!(ready(&none).contains(told), "{}", ready(&none));
    assert_eq!(none.log().matches(told).count(), 1, "{}", none.log());

    // Once an instance of that group appears, the split works again.
    occupy(&bed, 3, 3, r#""near""#, 10);
    wait_weights(&haproxy, BACK, &[("mywebapp3", 10)]);
    wait_weights(&haproxy, "fallback", &[("fb1", 10), ("fb2", 10)]);
    none.wait_metric("hsdo_missing_groups", |n| n == 0.0);
    none.wait_turn();
    assert_eq!(ready(&none).trim(), "ok");
}

#[test]
fn an_emptied_or_disabled_slot_goes_into_maintenance() {
    let bed = bed_with_table("emptied", 4, 4);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let _client = sized(&bed, 4).spawn();
    wait_for("all to serve", SOON, || if haproxy.active(BACK).len() == 4 { Ok(()) } else { Err("not yet") });
    bed.moto().put_free(2);
    bed.moto().update_item(3, &json!({"BackendServerStatus": {"S": "disabled"}}));
    bed.moto().update_item(4, &json!({"BackendServerStatus": {"S": "draining"}, "Weight": {"N": "0"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    wait_maintenance(&haproxy, BACK, "mywebapp2");
    wait_maintenance(&haproxy, BACK, "mywebapp3");
    let draining = haproxy.server(BACK, "mywebapp4");
    assert_eq!((draining.status.as_str(), draining.weight), ("UP", 0), "draining is weight 0, not maintenance");
    bed.moto().update_item(3, &json!({"BackendServerStatus": {"S": "enabled"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp3", 10)]);
}

#[test]
fn a_new_server_waits_for_its_check() {
    let bed = bed_with_table("gate", 4, 1);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let mut client = sized(&bed, 4).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);

    // In the table before its web server runs, like an instance that is still booting.
    bed.moto().put_server(2, &address(2), "i-2", Some("web"), 5);
    wait_for("the slot to be ready, down, with its weight", SOON, || {
        let server = haproxy.server(BACK, "mywebapp2");
        if server.status == "DOWN" && server.weight == 5 { Ok(()) } else { Err(format!("{server:?}")) }
    });
    client.wait_metric("hsdo_haproxy_waiting_slots", |waiting| waiting == 1.0);
    let tally = traffic::send(haproxy.frontend(BACK), 20);
    assert_eq!((tally.of("i-1"), tally.failures.len()), (20, 0), "{tally}");

    bed.web().serve("i-2", address(2).parse().unwrap());
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 5)]);
    client.wait_metric("hsdo_haproxy_waiting_slots", |waiting| waiting == 0.0);
}

#[test]
fn an_address_that_changes_waits_for_its_check_too() {
    let bed = bed_with_table("moved", 4, 2);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let _client = sized(&bed, 4).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    bed.moto().put_server(2, &address(9), "i-9", Some("web"), 5);
    wait_for("the slot to point to the new address", SOON, || {
        let server = haproxy.server(BACK, "mywebapp2");
        let moved = server.addr.starts_with(&address(9)) && server.status == "DOWN" && server.weight == 5;
        if moved { Ok(()) } else { Err(format!("{server:?}")) }
    });
    let tally = traffic::send(haproxy.frontend(BACK), 20);
    assert_eq!((tally.of("i-1"), tally.failures.len()), (20, 0), "{tally}");
    bed.web().serve("i-9", address(9).parse().unwrap());
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 5)]);
}

#[test]
fn the_gate_is_open_without_checks_without_others_and_by_setting() {
    let bed = bed_with_table("open", 4, 1);
    let backends = [backend().unchecked(), BackendConfig::new("checked", "c", 4).options("check inter 60s")];
    let haproxy = Haproxy::start(&bed, &backends);
    let port = bed.web().port();
    let client = sized(&bed, 4).env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACK}:{BASE}:{port},checked:c:{port}"));
    let mut client = client.spawn();
    // The first check may come a minute later: a backend with no other server does not wait for it.
    wait_weights(&haproxy, "checked", &[("c1", 10)]);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    occupy(&bed, 2, 2, "web", 5);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 5)]);
    client.wait_turn();
    let gated = haproxy.server("checked", "c2");
    assert!(!gated.in_maintenance() && gated.weight == 5, "{gated:?}");
    client.terminate();

    let haproxy_address = format!("{BACK}:{BASE}:{port},checked:c:{port}");
    occupy(&bed, 3, 3, "web", 6);
    let _client =
        sized(&bed, 4).env("CLIENT_HAPROXY_BACKEND_LIST", &haproxy_address).env("CLIENT_HEALTH_GATE", "no").spawn();
    wait_for("the gate to be off", SOON, || {
        let server = haproxy.server("checked", "c3");
        if server.status.starts_with("UP") && server.weight == 6 { Ok(()) } else { Err(format!("{server:?}")) }
    });
}

#[test]
fn an_operators_drain_and_maintenance_are_respected() {
    let bed = bed_with_table("held", 4, 3);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client.spawn();
    wait_for("all to serve", SOON, || if haproxy.active(BACK).len() == 3 { Ok(()) } else { Err("not yet") });
    // hsdo recognises a manual maintenance only if it saw the server serve.
    settle(&mut client, &tap);
    haproxy.command("set server http-back/mywebapp1 state drain;set server http-back/mywebapp2 state maint");
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 2.0);
    settle(&mut client, &tap);
    assert_eq!(haproxy.server(BACK, "mywebapp1").status, "DRAIN");
    assert_eq!(haproxy.server(BACK, "mywebapp2").status, "MAINT");
    assert!(client.log().contains("mywebapp[1-2]"), "{}", client.log());

    // The ramp continues while the operator holds the server.
    for id in [1, 2] {
        bed.moto().update_item(id, &json!({"Weight": {"N": "11"}}));
    }
    wait_for("the weights to follow", SOON, || {
        let servers = haproxy.servers(BACK);
        let weights = ["mywebapp1", "mywebapp2"].map(|name| servers[name].weight);
        if weights == [11, 11] { Ok(()) } else { Err(format!("{servers:?}")) }
    });
    assert_eq!(haproxy.active(BACK), ["mywebapp3"]);

    haproxy.command("set server http-back/mywebapp1 state ready");
    wait_weights(&haproxy, BACK, &[("mywebapp1", 11), ("mywebapp3", 10)]);
    // The hold was on the server, not on the slot: the next instance there is a new server.
    occupy(&bed, 2, 9, "web", 4);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 11), ("mywebapp2", 4), ("mywebapp3", 10)]);
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 0.0);
}

#[test]
fn a_hand_on_address_or_weight_is_set_back() {
    let bed = bed_with_table("drift", 2, 2);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let _client = sized(&bed, 2).spawn();
    let wanted = [("mywebapp1", 10), ("mywebapp2", 10)];
    wait_weights(&haproxy, BACK, &wanted);
    for drift in ["mywebapp1 weight 3", "mywebapp2 addr 127.1.2.99", "mywebapp2 addr 127.1.2.2 port 1"] {
        haproxy.command(&format!("set server http-back/{drift}"));
        wait_for(&format!("`{drift}` to be set back"), SOON, || {
            let servers = haproxy.servers(BACK);
            let right = |name: &str, host: u32| {
                let server = &servers[name];
                server.takes_traffic()
                    && server.weight == 10
                    && server.addr == format!("{}:{}", address(host), bed.web().port())
            };
            if right("mywebapp1", 1) && right("mywebapp2", 2) { Ok(()) } else { Err(format!("{servers:?}")) }
        });
    }
}

#[test]
fn haproxy_is_filled_again_after_a_kill_also_without_dynamodb() {
    let bed = bed_with_table("restart", 4, 3);
    let mut haproxy = Haproxy::start(&bed, &[backend()]);
    let mut client = sized(&bed, 4).spawn();
    let wanted = [("mywebapp1", 10), ("mywebapp2", 10), ("mywebapp3", 10)];
    wait_weights(&haproxy, BACK, &wanted);
    haproxy.kill();
    client.wait_metric("hsdo_haproxy_up", |up| up == 0.0);
    haproxy.restart();
    wait_weights(&haproxy, BACK, &wanted);
    client.wait_metric("hsdo_haproxy_up", |up| up == 1.0);
    assert_eq!(client.log().matches("HAProxy: cannot reach").count(), 1, "said once: {}", client.log());

    bed.aws().inject("*", Fault::Close);
    client.wait_log("AWS: ");
    haproxy.kill();
    haproxy.restart();
    wait_weights(&haproxy, BACK, &wanted);
    assert_eq!(traffic::send(haproxy.frontend(BACK), 9).failures, Vec::<String>::new());
    bed.aws().heal();
    bed.aws().inject("*", Fault::Hang);
    haproxy.kill();
    haproxy.restart();
    wait_weights(&haproxy, BACK, &wanted);
    bed.aws().heal();
    client.wait_log("AWS: recovered");
}

#[test]
fn a_haproxy_that_is_back_is_filled_before_aws_is_asked() {
    let bed = bed_with_table("back", 4, 3);
    let mut haproxy = Haproxy::start(&bed, &[backend()]);
    // Long enough that no turn is due between the fault and the probe that finds HAProxy back.
    let mut client = sized(&bed, 4).env("INTERVAL", "8").spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10), ("mywebapp3", 10)]);
    haproxy.kill();
    client.wait_metric("hsdo_haproxy_up", |up| up == 0.0);
    let socket = haproxy.socket().to_owned();
    let (asked, in_rotation) = std::sync::mpsc::channel();
    bed.aws().stub("GetItem", move |_| {
        let stat = ask(&socket, &format!("show stat {BACK} 4 -1")).unwrap_or_default();
        let _ = asked.send(stat.lines().filter(|row| row.starts_with(BACK) && !row.contains(",MAINT,")).count());
        (500, "{}".to_owned())
    });
    haproxy.restart();
    assert_eq!(in_rotation.recv_timeout(SOON), Ok(3), "servers in rotation when the marker is asked for");
}

#[test]
fn a_haproxy_that_comes_late_gets_what_the_table_holds_by_then() {
    let bed = bed_with_table("comes-late", 4, 1);
    let mut client = sized(&bed, 4).env("INTERVAL", "60").spawn();
    client.wait_log("HAProxy: cannot reach");
    occupy(&bed, 1, 5, "web", 10);
    // By then the client's last read is no longer fresh.
    std::thread::sleep(Duration::from_secs(6));
    let haproxy = Haproxy::start(&bed, &[backend()]);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    assert!(client.log().contains(&format!("now {} ", address(5))), "{}", client.log());
    assert!(!client.log().contains(&format!("now {} ", address(1))), "{}", client.log());
}

#[test]
fn a_reload_is_repaired() {
    let bed = bed_with_table("reload", 4, 2);
    let mut haproxy = Haproxy::start_master_worker(&bed, &[backend()]);
    let mut client = sized(&bed, 4).spawn();
    for _ in 0..3 {
        wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
        haproxy.reload();
    }
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    client.wait_log("another HAProxy answers");
}

#[test]
fn a_restart_under_the_same_process_id_is_no_operators_hand() {
    let bed = bed_with_table("onepid", 4, 3);
    let mut haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 4);
    tap.set_fault(SocketFault::OnePid);
    let mut client = client.spawn();
    let wanted = [("mywebapp1", 10), ("mywebapp2", 10), ("mywebapp3", 10)];
    haproxy.wait_weights(BACK, &wanted);
    settle(&mut client, &tap);
    haproxy.kill();
    haproxy.restart();
    haproxy.wait_weights(BACK, &wanted);

    haproxy.command("set server http-back/mywebapp2 state drain");
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    let young = ["Uptime_sec: 0", "Uptime_sec: 1", "Uptime_sec: 2"];
    wait_for("HAProxy to be 3 seconds old", SOON, || {
        let info = haproxy.command("show info");
        if info.lines().any(|line| young.contains(&line)) { Err("it is younger") } else { Ok(()) }
    });
    haproxy.kill();
    haproxy.restart();
    haproxy.wait_weights(BACK, &wanted);
    client.wait_log("another HAProxy answers: ");
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 0.0);
    assert_eq!(client.log().matches("set to drain or maintenance by an operator").count(), 1, "{}", client.log());
}

/// HAProxy 2.2 to 3.0 drop the rest of a line whose sender is gone.
#[test]
fn a_line_that_was_cut_anywhere_is_finished_by_the_next_client() {
    let bed = bed_with_table("cut", 4, 2);
    let haproxy = Haproxy::start(&bed, &[backend().unchecked()]);
    let wanted = [("mywebapp1", 10), ("mywebapp2", 10)];
    let converge = || {
        sized(&bed, 4).once().assert_code(0);
        wait_weights(&haproxy, BACK, &wanted);
    };
    converge();
    // Slot 1 gets another instance, and slot 2 is free for a while.
    for (slot, there, hosts) in [(1, true, [5, 1]), (2, false, [2, 2])] {
        let change = |host: Option<u32>| match host {
            Some(host) => occupy(&bed, slot, host, "web", 10),
            None => bed.moto().put_free(slot),
        };
        let mut cut = 0;
        loop {
            change(there.then_some(hosts[0]));
            let dry = sized(&bed, 4).arg("--dry-run").run();
            let commands: Vec<&str> = dry.assert_code(0).stdout.lines().collect();
            assert!(commands.iter().all(|command| command.contains(&format!("/mywebapp{slot} "))), "{commands:?}");
            if cut > commands.len() {
                break;
            }
            commands[..cut].iter().for_each(|command| drop(haproxy.command(command)));
            if !there {
                change(Some(hosts[0]));
            }
            converge();
            assert!(
                haproxy.server(BACK, &format!("mywebapp{slot}")).addr.starts_with(&format!("{}:", address(hosts[0])))
            );
            change(Some(hosts[1]));
            converge();
            cut += 1;
        }
        change(Some(hosts[1]));
        assert!(cut > 2, "it is cut at {cut} places only");
    }
}

#[test]
fn a_haproxy_that_was_stopped_is_no_other_one() {
    let bed = bed_with_table("stopped", 4, 2);
    let mut haproxy = Haproxy::start(&bed, &[backend()]);
    let mut client = sized(&bed, 4).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    occupy(&bed, 2, 2, "web", 0);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    client.wait_turn();
    haproxy.command("set server http-back/mywebapp2 state maint");
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    haproxy.pause(Duration::from_secs(3));
    occupy(&bed, 1, 1, "web", 11);
    occupy(&bed, 2, 2, "web", 10);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 11)]);
    client.wait_turn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 11)]);
    assert_eq!(client.metric("hsdo_haproxy_held_slots"), Some(1.0));
    assert!(!client.log().contains("another HAProxy answers"), "{}", client.log());
}

#[test]
fn a_table_that_loses_rows_disables_nothing() {
    let bed = bed_with_table("lost", 4, 3);
    let mut haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, BASE, 6)]);
    occupy(&bed, 6, 6, "web", 10);
    let mut client = sized(&bed, 4).spawn();
    let all = ["mywebapp1", "mywebapp2", "mywebapp3", "mywebapp6"];
    let wanted = all.map(|name| (name, 10));
    wait_weights(&haproxy, BACK, &wanted);
    bed.moto().delete_item(2);
    bed.moto().delete_item(6);
    client.wait_metric(r#"hsdo_slots{state="enabled"}"#, |count| count == 2.0);
    client.wait_turn();
    assert_eq!(haproxy.active(BACK), all, "rows that are gone are unknown, not empty");
    for id in [1, 3, 4] {
        bed.moto().delete_item(id);
    }
    client.wait_log("holds no row at all any more");
    assert_eq!(haproxy.active(BACK), all);
    // A restarted HAProxy is filled from the last table that was read.
    haproxy.kill();
    haproxy.restart();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp3", 10)]);
    bed.moto().put_free(2);
    wait_maintenance(&haproxy, BACK, "mywebapp2");
}

/// A client restarts beside a HAProxy that serves: the table has no row for any server.
#[test]
fn a_table_that_never_had_a_row_disables_nothing() {
    let bed = bed_with_table("blank", 0, 0);
    bed.web().serve("i-4", address(4).parse().unwrap());
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let port = bed.web().port();
    haproxy.command(&format!("set server http-back/mywebapp4 addr {} port {port}", address(4)));
    haproxy.command("set server http-back/mywebapp4 state ready");
    let (tap, client) = tapped(&bed, 2);
    let mut client = client.spawn();
    client.wait_log("holds no row at all");
    client.wait_turn();
    assert_eq!(tap.changes(), Vec::<String>::new());
    assert_eq!(haproxy.active(BACK), ["mywebapp4"]);
}

#[test]
fn a_static_algorithm_is_told_once_and_served() {
    let bed = bed_with_table("static", 4, 2);
    bed.moto().update_item(2, &json!({"Weight": {"N": "3"}}));
    let haproxy = Haproxy::start(&bed, &[backend().balance("uri").options("check inter 100ms weight 50")]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client.spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 50), ("mywebapp2", 50)]);
    settle(&mut client, &tap);
    assert_eq!(client.log().matches("hash-type consistent").count(), 1, "{}", client.log());
    bed.moto().update_item(2, &json!({"Weight": {"N": "0"}, "BackendServerStatus": {"S": "draining"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 50)]);
    bed.moto().update_item(2, &json!({"Weight": {"N": "1"}, "BackendServerStatus": {"S": "enabled"}}));
    wait_weights(&haproxy, BACK, &[("mywebapp1", 50), ("mywebapp2", 50)]);
    assert_eq!(client.metric(r#"hsdo_turns_total{result="failed"}"#), Some(0.0), "{}", client.log());
}

#[test]
fn slots_that_the_template_lacks_are_named_once() {
    let bed = bed_with_table("missing", 8, 6);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let mut client = sized(&bed, 8).spawn();
    wait_for(
        "the slots that are there",
        SOON,
        || if haproxy.active(BACK).len() == 4 { Ok(()) } else { Err("not yet") },
    );
    client.wait_metric("hsdo_haproxy_missing_slots", |count| count == 4.0);
    client.wait_turn();
    assert_eq!(client.log().matches("http-back/mywebapp[5-8]").count(), 1, "{}", client.log());
}

#[test]
fn servers_above_every_row_and_foreign_servers() {
    let bed = bed_with_table("foreign", 2, 2);
    let port = bed.web().port();
    let config = BackendConfig::new(BACK, BASE, 4)
        .line(&format!("server mywebapp-static 127.1.2.1:{port}"))
        .line(&format!("server mywebapp05 127.1.2.1:{port}"));
    let haproxy = Haproxy::start(&bed, &[config]);
    haproxy.command("set server http-back/mywebapp4 state ready");
    let _client = sized(&bed, 2).spawn();
    wait_maintenance(&haproxy, BACK, "mywebapp4");
    wait_for("the rest to serve", SOON, || match haproxy.active(BACK) {
        names if names == ["mywebapp-static", "mywebapp05", "mywebapp1", "mywebapp2"] => Ok(()),
        names => Err(format!("{names:?}")),
    });
}

/// Exchange for `show stat <name>`, HAProxy finds the frontend first, which has no servers. 3.3 and later reject two
/// proxies of one name; a `listen` section is both.
#[test]
fn a_frontend_may_have_the_backends_name() {
    let bed = bed_with_table("twins", 2, 1);
    let (socket, front) = (bed.socket(), common::port::Port::reserve());
    let bind = format!("bind 127.0.0.1:{}", front.number());
    let servers = "server-template mywebapp 1-2 127.0.0.2:80 check inter 100ms disabled";
    let whole = |lines: &str, sections: &str| {
        format!(
            "global\n  stats socket {} level admin\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  \
             timeout server 1s\n{lines}{sections}",
            socket.display(),
        )
    };
    let twins = format!("frontend http-back\n  {bind}\n  default_backend http-back\nbackend http-back\n  {servers}\n");
    let listen = format!("listen http-back\n  {bind}\n  {servers}\n");
    let refusal = Haproxy::config_errors(&bed, &whole("", &twins));
    assert!(refusal.iter().all(|refusal| refusal.contains("no longer supported as of 3.3")), "{refusal:?}");
    let text = |lines: &str| whole(lines, if refusal.is_none() { &twins } else { &listen });
    let no_ports = std::collections::BTreeMap::new;
    let mut haproxy = Haproxy::start_with_config(&bed, &text(""), no_ports(), &["-db"]);
    let mut client = sized(&bed, 2).spawn();
    let serves = |haproxy: &Haproxy| {
        wait_for("the slot to serve", SOON, || {
            let state = haproxy.command("show servers state http-back");
            let row = state.lines().find(|line| line.contains(" mywebapp1 ")).unwrap_or_default().to_owned();
            if row.contains(&address(1)) && row.split(' ').nth(7) == Some("10") { Ok(()) } else { Err(state) }
        });
        assert_eq!(traffic::send(front.number(), 2).of("i-1"), 2);
    };
    serves(&haproxy);
    // After a restart with another backend before it, the number that hsdo learnt is another backend's.
    haproxy.kill();
    drop(haproxy);
    haproxy =
        Haproxy::start_with_config(&bed, &text("backend first\n  server s1 127.0.0.2:80\n"), no_ports(), &["-db"]);
    serves(&haproxy);
    client.wait_turn();
    assert!(haproxy.command("show servers state first").contains("127.0.0.2"), "the other backend is not touched");
}

#[test]
fn ipv6_addresses_are_compared_as_addresses() {
    let bed = bed_with_table("ipv6", 2, 0);
    bed.web().serve("i-6", "::1".parse().unwrap());
    bed.moto().put_server(1, "0:0:0:0:0:0:0:1", "i-6", Some("web"), 10);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 2);
    let mut client = client.spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    settle(&mut client, &tap);
    assert_eq!(traffic::send(haproxy.frontend(BACK), 2).of("i-6"), 2);
}

#[test]
fn what_haproxy_lacks_ends_the_start() {
    let bed = bed_with_table("lacks", 2, 1);
    let haproxy = Haproxy::start(&bed, &[backend(), BackendConfig::new("api-back", "api", 2)]);
    let list = |text: &str| sized(&bed, 2).env("CLIENT_HAPROXY_BACKEND_LIST", text);
    list("web-back:mywebapp:80")
        .run()
        .assert_code(2)
        .assert_stderr("web-back")
        .assert_stderr("it has http-back, api-back");
    list("http-back:webapp:80")
        .run()
        .assert_code(2)
        .assert_stderr("no server webapp<number>")
        .assert_stderr("mywebapp");
    // One backend is enough to start with.
    let spare = list(&format!("http-back:mywebapp:{}", bed.web().port()))
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "spare")
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fb");
    let mut client = spare.spawn();
    client.wait_log("backend spare: HAProxy has no such backend; it has http-back, api-back");
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    client.wait_metric("hsdo_haproxy_missing_backends", |missing| missing == 1.0);
    client.wait_turn();
    let (status, text) = client.get("/readyz").expect("an exporter");
    assert!(status == 200 && text.starts_with("ok, but backend spare: "), "{status} {text}");
}

#[test]
fn a_socket_below_level_admin_ends_the_start() {
    let bed = bed_with_table("level", 2, 1);
    let text = format!(
        "global\n  stats socket {} level operator\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  \
         timeout server 1s\nbackend http-back\n  server-template mywebapp 1-2 127.0.0.2:80 disabled\n",
        bed.socket().display()
    );
    let _haproxy = Haproxy::start_with_config(&bed, &text, std::collections::BTreeMap::new(), &["-db"]);
    sized(&bed, 2).run().assert_code(2).assert_stderr("level operator").assert_stderr("level admin");
}

#[test]
fn haproxy_may_start_after_the_client() {
    let bed = bed_with_table("late", 2, 1);
    let mut client = sized(&bed, 2).spawn();
    client.wait_log("is HAProxy running");
    let haproxy = Haproxy::start(&bed, &[backend()]);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    assert_eq!(client.log().matches("is HAProxy running").count(), 1, "said once: {}", client.log());
    client.wait_log("HAProxy: recovered");
}

#[test]
fn a_table_that_is_not_there_or_not_allowed_ends_the_start() {
    let bed = Bed::new("no-table");
    let _haproxy = Haproxy::start(&bed, &[backend()]);
    sized(&bed, 2).run().assert_code(2).assert_stderr("hsdo").assert_stderr("--create-table");
    bed.aws().inject("*", Fault::dynamodb(400, "AccessDeniedException"));
    sized(&bed, 2).run().assert_code(2).assert_stderr("AccessDenied");
}

/// The only working server leaves while its successor is in the table but does not answer yet.
#[test]
fn the_last_server_serves_until_its_successor_does() {
    let bed = bed_with_table("handover", 4, 1);
    let haproxy = Haproxy::start(&bed, &[backend().line("retries 0")]);
    let mut client = sized(&bed, 4).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    let mut stream = traffic::Stream::start(haproxy.frontend(BACK), Duration::from_millis(5), 20_000);
    bed.moto().put_server(2, &address(2), "i-2", Some("web"), 1);
    bed.moto().update_item(1, &json!({"Weight": {"N": "0"}, "BackendServerStatus": {"S": "draining"}}));
    wait_for("the successor to wait for its check", SOON, || {
        let server = haproxy.server(BACK, "mywebapp2");
        if server.status == "DOWN" && server.weight == 1 { Ok(()) } else { Err(format!("{server:?}")) }
    });
    client.wait_turn();
    assert_eq!(haproxy.active(BACK), ["mywebapp1"]);
    bed.web().serve("i-2", address(2).parse().unwrap());
    wait_weights(&haproxy, BACK, &[("mywebapp2", 1)]);
    stream.stop();
    let tally = stream.so_far();
    assert!(tally.of("i-1") > 0 && tally.failures.is_empty(), "{tally}");
}

/// Every slot gets another instance at once, as when one group replaces another.
#[test]
fn a_backend_that_is_replaced_whole_goes_on_serving() {
    let bed = bed_with_table("replaced", 4, 4);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let _client = sized(&bed, 4).spawn();
    wait_weights(
        &haproxy,
        BACK,
        &[1, 2, 3, 4].map(|id| (["", "mywebapp1", "mywebapp2", "mywebapp3", "mywebapp4"][id], 10)),
    );
    let mut stream = traffic::Stream::start(haproxy.frontend(BACK), Duration::from_millis(2), 50_000);
    for round in 1..=5 {
        for id in 1..=4 {
            occupy(&bed, id, 10 * round + id, "web", 10);
        }
        wait_for("the new ones to serve", SOON, || {
            let servers = haproxy.servers(BACK);
            let new =
                |id: u32| servers[&format!("mywebapp{id}")].addr.starts_with(&format!("{}:", address(10 * round + id)));
            if (1..=4).all(new) && haproxy.active(BACK).len() == 4 { Ok(()) } else { Err(format!("{servers:?}")) }
        });
    }
    stream.stop();
    let tally = stream.so_far();
    assert!(tally.failures.is_empty(), "{tally}");
}

/// A slot emptied by another program, with address and weight left in place, and then used again is not held.
#[test]
fn a_slot_that_another_program_emptied_is_filled_again() {
    let bed = bed_with_table("emptied-before", 4, 1);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let port = bed.web().port();
    haproxy.command(&format!("set server http-back/mywebapp2 addr {} port {port}", address(2)));
    haproxy.command("set server http-back/mywebapp2 weight 5");
    let mut client = sized(&bed, 4).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    client.wait_turn();
    occupy(&bed, 2, 2, "web", 5);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 5)]);
    assert_eq!(client.metric("hsdo_haproxy_held_slots"), Some(0.0));
}

/// An operator holds a server that hsdo itself keeps at weight 0.
#[test]
fn a_hand_on_a_draining_server_is_respected_too() {
    let bed = bed_with_table("held-at-zero", 4, 2);
    bed.moto().update_item(2, &json!({"Weight": {"N": "0"}, "BackendServerStatus": {"S": "draining"}}));
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client.spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    settle(&mut client, &tap);
    haproxy.command("set server http-back/mywebapp2 state maint");
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    settle(&mut client, &tap);
    assert_eq!(haproxy.server(BACK, "mywebapp2").status, "MAINT");
}

#[test]
fn a_silent_or_broken_socket_fails_the_turn_only() {
    let bed = bed_with_table("silent", 4, 2);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let (tap, client) = tapped(&bed, 4);
    let mut client = client.spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    for way in [SocketFault::Closed, SocketFault::Cut(100), SocketFault::Silent] {
        client.wait_metric("hsdo_haproxy_up", |up| up == 1.0);
        tap.set_fault(way);
        client.wait_metric("hsdo_haproxy_up", |up| up == 0.0);
        assert_eq!(haproxy.active(BACK), ["mywebapp1", "mywebapp2"], "{way:?}");
        tap.set_fault(SocketFault::None);
    }
    client.wait_metric("hsdo_haproxy_up", |up| up == 1.0);
    bed.moto().put_free(2);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
}

#[test]
fn a_dry_run_prints_and_changes_nothing() {
    let bed = bed_with_table("dry", 4, 2);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let before = haproxy.servers(BACK);
    let (tap, client) = tapped(&bed, 4);
    client
        .arg("--dry-run")
        .run()
        .assert_code(0)
        .assert_stdout(&format!("set server http-back/mywebapp1 addr {} port {}", address(1), bed.web().port()))
        .assert_stdout("set server http-back/mywebapp2 state ready")
        .assert_stdout("set server http-back/mywebapp2 weight 10");
    assert_eq!(tap.changes(), Vec::<String>::new());
    let after = haproxy.servers(BACK);
    assert_eq!(before, after);

    sized(&bed, 4).once().assert_code(0);
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    sized(&bed, 4).arg("--dry-run").run().assert_code(0).assert_stdout("nothing to send");
    sized(&bed, 4)
        .env("CLIENT_HAPROXY_SOCKET_PATH", "/nowhere.sock")
        .once()
        .assert_code(1)
        .assert_stderr("/nowhere.sock");
}

#[test]
fn many_slots_go_in_few_lines() {
    let bed = bed_with_table("many", 0, 0);
    for id in 1..=200 {
        bed.moto().put_server(id, &format!("127.1.4.{id}"), &format!("i-{id}"), Some("web"), 5);
    }
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, BASE, 200)]);
    let (tap, client) = tapped(&bed, 200);
    let mut client = client.spawn();
    wait_for("every slot to have its weight", SOON, || {
        let full = haproxy.servers(BACK).values().filter(|server| server.weight == 5).count();
        if full == 200 { Ok(()) } else { Err(full.to_string()) }
    });
    assert!(tap.lines().iter().all(|line| line.len() < 8192), "a line is too long for HAProxy 2.2");
    assert_eq!(
        tap.changes().len(),
        5 * 200,
        "weight 0, address; address, ready, weight: they are in maintenance already"
    );
    let lines = tap.lines().iter().filter(|line| line.contains("set server")).count();
    assert!(lines <= 12, "{lines} lines");
    settle(&mut client, &tap);
}

#[test]
fn it_stops_within_a_second_while_aws_hangs() {
    let bed = bed_with_table("stop", 2, 1);
    let haproxy = Haproxy::start(&bed, &[backend()]);
    let mut client = sized(&bed, 2).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10)]);
    bed.aws().inject("*", Fault::Hang);
    bed.aws().forget();
    wait_for("a call that hangs", SOON, || if bed.aws().count("GetItem") > 0 { Ok(()) } else { Err("none yet") });
    assert!(client.terminate().success(), "{}", client.log());
    assert_stays("the server stays as it was", Duration::from_millis(200), || match haproxy.active(BACK) {
        names if names == ["mywebapp1"] => Ok(()),
        names => Err(format!("{names:?}")),
    });
}

/// People copy the example: it must be valid, and the command in its first lines must work.
#[test]
fn the_example_configuration_works() {
    let bed = bed_with_table("example", 10, 2);
    let example = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/haproxy.cfg")).unwrap();
    let replace = |text: String, from: &str, to: String| {
        assert!(text.contains(from), "conf/haproxy.cfg has no {from:?}");
        text.replace(from, &to)
    };
    let text = replace(example, "/var/run/haproxy/admin.sock", bed.socket().display().to_string());
    let text = replace(text, "    user haproxy\n    group haproxy\n", String::new());
    let (front, stats) = (common::port::Port::reserve(), common::port::Port::reserve());
    let text = replace(text, "bind :80", format!("bind 127.0.0.1:{}", front.number()));
    let text = replace(text, "127.0.0.1:8404", format!("127.0.0.1:{}", stats.number()));
    let ports = std::collections::BTreeMap::from([(BACK.to_owned(), front)]);
    let haproxy = Haproxy::start_with_config(&bed, &text, ports, &["-db"]);
    let _client = sized(&bed, 10).spawn();
    wait_weights(&haproxy, BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    assert_eq!(traffic::send(haproxy.frontend(BACK), 4).failures, Vec::<String>::new());
}
