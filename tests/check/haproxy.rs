//! Faults and surprises of HAProxy.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use crate::common::bed::Bed;
use crate::common::haproxy::Haproxy;
use crate::common::hsdo::Hsdo;
use crate::common::port::Port;
use crate::fixture::{Report, Site};

/// A backend for each surprise; `more` goes to the global section.
fn configuration(bed: &Bed, port: &Port, more: &str) -> String {
    let template = "server-template web 1-4 127.0.0.2:80";
    format!(
        "global\n    stats socket {admin} mode 600 level admin\n    stats socket {operator} mode 600 level operator\n    {more}\n\
         defaults\n    mode http\n    timeout connect 2s\n    timeout client 10s\n    timeout server 10s\n\
         frontend f\n    bind 127.0.0.1:{port}\n    default_backend good\n\
         backend good\n    {template} check disabled\n\
         backend unchecked\n    {template} disabled\n\
         backend enabled\n    {template} check\n\
         backend short\n    server-template web 1-3 127.0.0.2:80 check disabled\n\
         backend static\n    balance static-rr\n    {template} check disabled\n\
         backend never\n    balance static-rr\n    {template} check disabled weight 0\n\
         backend first\n    balance first\n    {template} check disabled\n\
         backend map\n    balance uri\n    {template} check disabled\n\
         backend ring\n    balance uri\n    hash-type consistent\n    {template} check disabled\n\
         backend agent\n    {template} check disabled agent-check agent-port 1 agent-inter 60s\n\
         backend state\n    load-server-state-from-file local\n    {template} check disabled\n\
         backend persist\n    option persist\n    {template} check disabled\n\
         backend track\n    {template} track good/web1 disabled\n\
         backend off\n    disabled\n    {template} check disabled\n",
        admin = bed.socket().display(),
        operator = bed.dir().join("operator.sock").display(),
        port = port.number(),
    )
}

fn start(bed: &Bed, more: &str) -> Haproxy {
    let port = Port::reserve();
    let text = configuration(bed, &port, more);
    Haproxy::start_with_config(bed, &text, BTreeMap::from([("good".to_owned(), port)]), &["-db"])
}

fn check(site: &Site, backend: &str) -> Hsdo {
    site.check("client").env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{backend}:web:80"))
}

#[test]
fn faults_and_surprises_of_haproxy_are_named() {
    let site = Site::of_server("check-haproxy");
    let haproxy = start(&site.bed, "stats timeout 5s");
    what_surprises_in_a_backend_is_named(&site);
    a_version_with_another_ring_is_named(&site, &haproxy);
    drop(haproxy);
    faults_of_the_socket_are_named(&site);
}

fn what_surprises_in_a_backend_is_named(site: &Site) {
    Report::of(check(site, "good")).assert_good();
    let cases = [
        ("nobody", "mend", "no such backend", "CLIENT_HAPROXY_BACKEND_LIST"),
        ("off", "mend", "`disabled`", "enable it"),
        ("short", "mend", "slots 4 to 4 get no traffic", "server-template web 1-4"),
        ("never", "mend", "nothing can ever be served", "remove `weight 0`"),
        ("unchecked", "warn", "4 of 4 servers have no `check`", "add `check`"),
        ("enabled", "warn", "without `disabled`", "add `disabled`"),
        ("static", "warn", "`balance static-rr` is static", "balance roundrobin"),
        ("first", "warn", "ignores weights", "roundrobin"),
        ("map", "warn", "`balance uri` is static", "hash-type consistent"),
        ("agent", "warn", "`agent-check`", "remove `agent-check`"),
        ("state", "warn", "load-server-state-from-file", "load-server-state-from-file none"),
        ("persist", "warn", "`option persist`", "remove `option persist`"),
        ("track", "warn", "inherit maintenance", "remove `track`"),
    ];
    for (backend, level, text, remedy) in cases {
        let report = Report::of(check(site, backend));
        let subject = format!("backend {backend}");
        report.assert_says(level, &subject, text, remedy);
        report.assert_only(&[&subject]);
    }
    let report = Report::of(check(site, "good").env("CLIENT_HAPROXY_BACKEND_LIST", "good:app:80"));
    report.assert_says("mend", "backend good", "no server app1; its servers: web1, web2", "base name");
    let report = Report::of(check(site, "good").env("CLIENT_HEALTH_GATE", "false"));
    report.assert_says("warn", "backend good", "before its first check", "CLIENT_HEALTH_GATE");
    let report = Report::of(check(site, "good").env("CLIENT_STATE_FILE", "/nowhere/table.json"));
    report.assert_says("mend", "CLIENT_STATE_FILE", "does not exist", "create the directory");
    site.assert_unchanged();
}

/// Which of the tested versions place keys elsewhere was measured: only 3.0.11.
fn a_version_with_another_ring_is_named(site: &Site, haproxy: &Haproxy) {
    let info = haproxy.command("show info");
    let differs = info.lines().any(|line| line.starts_with("Version: 3.0."));
    let report = Report::of(check(site, "ring"));
    if differs {
        report.assert_says("warn", "backend ring", "elsewhere than 2.x", "3.0.13, 3.1.10, 3.2.7");
        report.assert_only(&["backend ring"]);
    } else {
        report.assert_says("ok", "backend ring", "places keys as 2.x and later versions do", "");
        report.assert_good();
    }
}

fn faults_of_the_socket_are_named(site: &Site) {
    let haproxy = start(&site.bed, "stats timeout 200ms");
    let report = Report::of(check(site, "good"));
    report.assert_says("warn", "stats timeout", "within half a second", "stats timeout 10s");
    report.assert_only(&["stats timeout"]);
    let stale = site.bed.dir().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    let operator = site.bed.dir().join("operator.sock");
    let nowhere = site.bed.dir().join("nowhere.sock");
    for (socket, text, remedy) in [
        (&nowhere, "cannot reach HAProxy", "`stats socket`"),
        (&stale, "cannot reach HAProxy", "no HAProxy listens on it"),
        (&operator, "level operator", "level admin"),
    ] {
        let report = Report::of(check(site, "good").env("CLIENT_HAPROXY_SOCKET_PATH", &socket.to_string_lossy()));
        report.assert_says("mend", "HAProxy's socket", text, remedy);
        report.assert_only(&["HAProxy's socket"]);
    }
    let frozen = haproxy.freeze();
    Report::of(check(site, "good")).assert_says("mend", "HAProxy's socket", "in time", "stats maxconn");
    drop(frozen);
    site.assert_unchanged();
}
