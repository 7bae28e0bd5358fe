//! Other spellings, limits and labels of HAProxy's Runtime API.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use serde_json::json;

use super::fixture::{BACK, Config, bed_with_table, client, is_version, ready, tapped};
use crate::common::bed::Bed;
use crate::common::haproxy::Haproxy;
use crate::common::port::Port;
use crate::common::traffic;
use crate::common::wait::wait_for;

const TEMPLATE: &str = "backend http-back\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";
const FILLED: [(&str, u32); 2] = [("web1", 10), ("web2", 10)];

/// Changes the weight of a row and waits for HAProxy to have it.
fn follows(bed: &Bed, haproxy: &Haproxy, weight: u32) {
    bed.moto().update_item(2, &json!({"Weight": {"N": weight.to_string()}}));
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", weight)]);
}

/// As in a messenger's proxy: a small buffer, checks once a minute, `observe`. 100 slots at once.
#[test]
fn a_small_buffer_takes_shorter_lines() {
    let bed = bed_with_table("bufsize", 0, 0);
    for id in 1..=100 {
        bed.moto().put_server(id, &format!("127.1.4.{id}"), &format!("i-{id}"), Some("web"), 5);
    }
    let config = Config {
        global: "    tune.bufsize 4096\n",
        sections: "backend http-back\n    default-server check inter 60000 observe layer4\n    \
                   server-template web 1-100 127.0.0.2:80 disabled\n",
        ..Config::default()
    };
    let haproxy = config.start(&bed, &[BACK]);
    let mut running = client(&bed, 100, "http-back:web:$WEB").spawn();
    // 2.2 hangs on a line that is too long, until the connection's deadline.
    wait_for("every slot to have its address and weight", Duration::from_secs(60), || {
        let servers = haproxy.servers(BACK);
        let full = servers.values().filter(|server| server.weight == 5 && server.addr.starts_with("127.1.4.")).count();
        if full == 100 { Ok(()) } else { Err(format!("{full}: {}", running.log())) }
    });
    running.wait_turn();
    assert_eq!(ready(&running), "ok");
    assert_eq!(running.metric(r#"hsdo_haproxy_commands_total{result="refused"}"#).unwrap_or(0.0), 0.0);
}

/// Tools enable severities to make replies readable.
#[test]
fn severities_before_the_messages() {
    for severity in ["number", "string"] {
        let bed = bed_with_table(severity, 3, 2);
        let socket = format!("severity-output {severity}");
        let haproxy = Config { socket: &socket, sections: TEMPLATE, ..Config::default() }.start(&bed, &[BACK]);
        let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
        haproxy.wait_weights(BACK, &FILLED);
        follows(&bed, &haproxy, 7);
        running.wait_turn();
        assert_eq!(ready(&running), "ok");
        assert_eq!(running.metric(r#"hsdo_haproxy_commands_total{result="refused"}"#).unwrap_or(0.0), 0.0);
        running.terminate();
        client(&bed, 3, "gone:web:$WEB").run().assert_code(2).assert_stderr("it has http-back");

        let low = Config { socket: &socket, sections: TEMPLATE, ..Config::default() };
        low.rewrite(&bed, &haproxy, &[BACK]);
    }
}

/// The level is recognised behind a severity.
#[test]
fn a_level_that_is_too_low_is_told_with_severities_too() {
    let bed = bed_with_table("low-level", 3, 2);
    let config = Config {
        global: "    stats socket $DIR/low.sock mode 600 level operator severity-output number\n",
        sections: TEMPLATE,
        ..Config::default()
    };
    let _haproxy = config.start(&bed, &[BACK]);
    client(&bed, 3, "http-back:web:$WEB")
        .env("CLIENT_HAPROXY_SOCKET_PATH", &bed.dir().join("low.sock").to_string_lossy())
        .run()
        .assert_code(2)
        .assert_stderr("has level operator, which cannot change servers; give it `level admin`");
}

/// HAProxy's spellings of socket addresses; a container's file has only the first.
#[test]
fn sockets_in_haproxys_own_spellings() {
    let bed = bed_with_table("spellings", 3, 2);
    let api = Port::reserve();
    let name = format!("hsdo-test-{}", api.number());
    let global = format!(
        "    stats socket ipv4@127.0.0.1:{} level admin\n    stats socket abns@{name} level admin\n",
        api.number()
    );
    let haproxy = Config { global: &global, sections: TEMPLATE, ..Config::default() }.start(&bed, &[BACK]);
    let places = [
        format!("ipv4@127.0.0.1:{}", api.number()),
        format!("abns@{name}"),
        format!("unix@{}", bed.socket().display()),
    ];
    for (place, weight) in places.iter().zip(7..) {
        let mut running = client(&bed, 3, "http-back:web:$WEB").env("CLIENT_HAPROXY_SOCKET_PATH", place).spawn();
        running.wait_turn();
        follows(&bed, &haproxy, weight);
        assert_eq!(ready(&running), "ok");
        assert!(running.terminate().success());
    }
    client(&bed, 3, "http-back:web:$WEB")
        .env("CLIENT_HAPROXY_SOCKET_PATH", &format!("ipv4@127.0.0.1:{}", Port::reserve().number()))
        .once()
        .assert_code(1)
        .assert_stderr("cannot reach HAProxy at ipv4@127.0.0.1:")
        .assert_stderr("is HAProxy running, with that `stats socket`?");
}

/// The master's socket (`-S`): commands reach the current worker, also after a reload.
#[test]
fn the_masters_socket() {
    let bed = bed_with_table("master", 3, 2);
    let master = bed.dir().join("master.sock").to_string_lossy().into_owned();
    let path: &'static str = String::leak(master.clone());
    let arguments: &'static [&'static str] = Vec::leak(vec!["-W", "-db", "-S", path]);
    let mut haproxy = Config { sections: TEMPLATE, arguments, ..Config::default() }.start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").env("CLIENT_HAPROXY_SOCKET_PATH", &master).spawn();
    haproxy.wait_weights(BACK, &FILLED);
    running.wait_turn();
    assert_eq!(ready(&running), "ok");
    for weight in [7, 8] {
        haproxy.reload();
        follows(&bed, &haproxy, weight);
        running.wait_turn();
        assert_eq!(ready(&running), "ok");
    }
    running.wait_log("another HAProxy answers");
    let tally = traffic::send(haproxy.frontend(BACK), 10);
    assert!(tally.failures.is_empty(), "{tally}");
    running.terminate();
    client(&bed, 3, "gone:web:$WEB")
        .env("CLIENT_HAPROXY_SOCKET_PATH", &master)
        .run()
        .assert_code(2)
        .assert_stderr("it has http-back");
}

/// The same from a file, so that a test sets the number of processes on every version.
fn info_with_processes(bed: &Bed, number: u32) -> std::path::PathBuf {
    let path = bed.dir().join("processes.sock");
    let listener = UnixListener::bind(&path).expect("the path is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let reply = match line.trim_end() {
                "show info" => {
                    format!("Name: HAProxy\nVersion: 2.2.9\nNbproc: {number}\nPid: 7\nUptime_sec: 5\n\n")
                }
                _ => "Unknown command. Please enter one of the following commands only :\n\n".to_owned(),
            };
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    path
}

/// `nbproc`, which 2.5 removed: any of the processes may answer.
#[test]
fn several_processes_behind_one_socket_are_refused() {
    let bed = bed_with_table("nbproc", 3, 2);
    let told = "HAProxy runs 4 processes behind this socket (`nbproc`)";
    if is_version("2.2") {
        let config =
            Config { global: "    nbproc 4\n", sections: TEMPLATE, arguments: &["-W", "-db"], ..Config::default() };
        let haproxy = config.start(&bed, &[BACK]);
        client(&bed, 3, "http-back:web:$WEB").run().assert_code(2).assert_stderr(told).assert_stderr("use `nbthread`");
        assert!(haproxy.servers(BACK).values().all(crate::common::haproxy::Server::in_maintenance));
    }
    let fake = info_with_processes(&bed, 4);
    client(&bed, 3, "http-back:web:$WEB")
        .env("CLIENT_HAPROXY_SOCKET_PATH", &fake.to_string_lossy())
        .run()
        .assert_code(2)
        .assert_stderr(told)
        .assert_stderr("use `nbthread`");
}

/// A steady turn is one line as elsewhere; 2.2 shows too little in it and is read again every turn.
#[test]
fn a_severity_costs_a_steady_turn_nothing() {
    let bed = bed_with_table("steady-severity", 3, 2);
    let config = Config { socket: "severity-output number", sections: TEMPLATE, ..Config::default() };
    let haproxy = config.start(&bed, &[BACK]);
    let (tap, running) = tapped(&bed, 3, "http-back:web:$WEB");
    let mut running = running.spawn();
    haproxy.wait_weights(BACK, &FILLED);
    wait_for("turns without a change", crate::common::wait::SOON, || {
        tap.forget();
        running.wait_turn();
        if tap.lines().iter().any(|line| line.contains("set server")) { Err("still changes") } else { Ok(()) }
    });
    let before = running.metric(super::fixture::OK).unwrap();
    tap.forget();
    running.wait_metric(super::fixture::OK, |now| now >= before + 5.0);
    let turns = running.metric(super::fixture::OK).unwrap() - before;
    let each = if is_version("2.2") { 3.0 } else { 1.0 };
    assert!(tap.connections() as f64 <= each * (turns + 2.0), "{} connections in {turns} turns", tap.connections());
    assert!(tap.changes().iter().all(|line| line == "set severity-output none"), "{:?}", tap.changes());
}
