//! The exporter of the running program: metrics follow the table, health follows the turns, and the README lists every
//! metric.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use common::aws_proxy::Fault;
use common::bed::{Bed, package_dir};
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::wait::{SOON, wait_for};

fn bed(name: &str, instances: usize) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, instances);
    bed
}

fn weight(bed: &Bed, slot: usize, index: usize) -> String {
    let instance = &bed.moto().instances("web")[index];
    format!("hsdo_server_weight{{id=\"{slot}\",name=\"{}\",ip=\"{}\",asg=\"web\"}}", instance.id, instance.address)
}

/// The Python version set a weight once, when an address appeared, and kept the series of servers that were gone.
#[test]
fn the_servers_weights_follow_the_ramp_and_go_with_their_servers() {
    let bed = bed("weights", 2);
    let (first, second) = (weight(&bed, 1, 0), weight(&bed, 2, 1));
    let mut server = Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "1").spawn();
    for step in [1.0, 4.0, 7.0, 10.0] {
        server.wait_metric(&first, |value| value == step);
        server.wait_metric(&second, |value| value == step);
    }
    assert_eq!(server.metric(r#"hsdo_slots{state="enabled"}"#), Some(2.0));
    let instances = bed.moto().instances("web");
    bed.moto().terminate_in_group(&instances[0].id, true);
    wait_gone(&server, &first);
    assert_eq!(server.metric(&second), Some(10.0));
    bed.moto().set_desired("web", 0);
    wait_gone(&server, "hsdo_server_weight");
    assert_eq!(server.metric(r#"hsdo_slots{state="free"}"#), Some(10.0));
}

fn wait_gone(running: &Running, series: &str) {
    wait_for(&format!("{series} to go"), SOON, || {
        let metrics = running.metrics();
        if metrics.contains(series) { Err(metrics) } else { Ok(()) }
    });
}

#[test]
fn the_clients_weights_follow_the_table_and_go_with_their_servers() {
    let bed = Bed::new("client-weights");
    bed.moto().create_table();
    let _haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 2)]);
    let series = |slot: u32, group: &str| {
        format!("hsdo_server_weight{{id=\"{slot}\",name=\"i-{slot}\",ip=\"127.1.2.{slot}\",asg=\"{group}\"}}")
    };
    bed.moto().put_server(1, "127.1.2.1", "i-1", Some("web"), 1);
    bed.moto().put_server(2, "127.1.2.2", "i-2", None, 7);
    let mut client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "2").spawn();
    client.wait_metric(&series(1, "web"), |value| value == 1.0);
    client.wait_metric(&series(2, "none"), |value| value == 7.0);
    for step in [4, 10] {
        bed.moto().put_server(1, "127.1.2.1", "i-1", Some("web"), step);
        client.wait_metric(&series(1, "web"), |value| value == f64::from(step));
    }
    // A change of group replaces the series.
    bed.moto().put_server(1, "127.1.2.1", "i-1", Some("api"), 10);
    client.wait_metric(&series(1, "api"), |value| value == 10.0);
    wait_gone(&client, &series(1, "web"));
    bed.moto().put_free(1);
    wait_gone(&client, &series(1, "api"));
    assert_eq!(client.metric(&series(2, "none")), Some(7.0));
}

#[test]
fn health_follows_the_turns() {
    let bed = bed("health", 1);
    bed.aws().inject("DescribeAutoScalingGroups", Fault::Hang);
    let mut server = Hsdo::server(&bed).spawn();
    let page = |server: &Running, path: &str, status: u16, text: &str| {
        wait_for(&format!("{path} to answer {status} {text}"), SOON, || match server.get(path) {
            Ok((found, body)) if found == status && body.contains(text) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    page(&server, "/readyz", 503, "no turn has ended yet");
    page(&server, "/healthz", 200, "");
    bed.aws().heal();
    page(&server, "/readyz", 200, "ok");
    bed.aws().inject("Scan", Fault::Garbage);
    page(&server, "/readyz", 503, "the last turn failed");
    page(&server, "/healthz", 200, "");
    let last = server.metric("hsdo_last_success_timestamp_seconds").expect("a success");
    let failed = server.metric(r#"hsdo_turns_total{result="failed"}"#).expect("failures");
    server.wait_metric(r#"hsdo_turns_total{result="failed"}"#, |count| count > failed);
    assert_eq!(server.metric("hsdo_last_success_timestamp_seconds"), Some(last));
    bed.aws().heal();
    page(&server, "/readyz", 200, "ok");
    server.wait_metric("hsdo_last_success_timestamp_seconds", |now| now > last);
    assert_eq!(server.get("/nowhere").map(|(status, _)| status), Ok(404));
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let bed = bed("taken", 1);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for hsdo in [Hsdo::server(&bed), Hsdo::client(&bed)] {
        hsdo.env("EXPORTER_PORT", &port).run().assert_code(2).assert_stderr("EXPORTER_PORT").assert_stderr(&port);
    }
    Hsdo::server(&bed).env("EXPORTER_ADDRESS", "192.0.2.1").run().assert_code(2).assert_stderr("EXPORTER_ADDRESS");
    // `--once` opens no port, so that it can run beside a daemon; and 0 turns the exporter off.
    Hsdo::server(&bed).env("EXPORTER_PORT", &port).once().assert_code(0);
    let mut server = Hsdo::server(&bed).env("EXPORTER_PORT", "0").spawn();
    server.wait_log("starts as server");
    let before = bed.aws().count("Scan");
    wait_for("a turn without an exporter", SOON, || {
        if bed.aws().count("Scan") > before { Ok(()) } else { Err("no scan") }
    });
    assert!(server.get("/metrics").is_err());
    assert_eq!(server.terminate().code(), Some(0));
}

/// The metric families with their types, after the checks of a Prometheus parser.
fn families(metrics: &str) -> BTreeMap<String, String> {
    assert!(metrics.ends_with('\n'));
    let mut families = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut helped = BTreeSet::new();
    for line in metrics.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            let (name, help) = text.split_once(' ').expect("a name and a help");
            assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            let (name, kind) = text.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind) && helped.contains(name), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok() && samples.insert(series), "{line}");
            let name = series.split('{').next().unwrap_or_default();
            let of = ["", "_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| name.strip_suffix(suffix));
            assert!(of.into_iter().any(|family| families.contains_key(family)), "{line}: of no family");
        }
    }
    families
}

#[test]
fn the_readme_names_every_metric_of_either_role_and_no_other() {
    let bed = bed("readme", 1);
    bed.serve_instances(&["web"]);
    let mut server = Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10").spawn();
    server.wait_metric(&weight(&bed, 1, 0), |value| value == 10.0);
    let _haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 10)]);
    let mut client = Hsdo::client(&bed).spawn();
    client.wait_metric(&weight(&bed, 1, 0), |value| value == 10.0);
    // Shown once the client has seen it change.
    client.wait_metric("hsdo_heartbeat_age_seconds", |age| age >= 0.0);
    client.wait_turn();
    let shown = |running: &Running| -> BTreeSet<String> {
        let families = families(&running.metrics()).into_keys();
        families.filter(|name| !name.starts_with("process_")).collect()
    };
    let (of_server, of_client) = (shown(&server), shown(&client));

    let readme = fs::read_to_string(package_dir().join("README.md")).expect("the README");
    let rows = readme.lines().skip_while(|line| *line != "| metric | role | meaning |").skip(2);
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let roles: &[&str] = match cells[1] {
            "both" => &["server", "client"],
            "server" => &["server"],
            "client" => &["client"],
            other => panic!("no role: {other:?}"),
        };
        for name in cells[0].split('`').skip(1).step_by(2).map(|code| code.split('{').next().unwrap_or_default()) {
            // Shown in Consul mode only (tests/consul.rs), or with a report table and a lifecycle hook (tests/departures.rs).
            if name == "hsdo_consul_requests_total" || name == "hsdo_balancers" || name.starts_with("hsdo_drain_") {
                continue;
            }
            for role in roles.iter().filter(|_| !name.starts_with("process_")) {
                named.entry((*role).to_owned()).or_default().insert(name.to_owned());
            }
        }
    }
    assert_eq!(named.get("server"), Some(&of_server));
    assert_eq!(named.get("client"), Some(&of_client));
}

/// The metrics that an expression names, without the suffixes of a histogram's series.
fn metrics_of(expr: &str, known: &BTreeMap<String, String>) -> BTreeSet<String> {
    let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let names = words.filter(|word| word.starts_with("hsdo_") || word.starts_with("process_"));
    let family = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let base = base.filter(|base| known.get(*base).is_some_and(|kind| kind == "histogram"));
        base.unwrap_or(name).to_owned()
    };
    names.map(family).collect()
}

fn shipped(path: &str) -> String {
    fs::read_to_string(package_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What the program exports, by the file that its unit tests compare with.
fn known_families() -> BTreeMap<String, String> {
    families(&shipped("src/metrics/expected.metrics"))
}

fn dashboard() -> Value {
    serde_json::from_str(&shipped("conf/grafana/hsdo.json")).expect("JSON")
}

/// The expressions of the dashboard, by panel, and of its variables.
fn expressions(dashboard: &Value) -> Vec<String> {
    let texts = |list: &Value, path: &str| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|entry| Some(entry.pointer(path)?.as_str()?.to_owned())).collect()
    };
    let panels = dashboard["panels"].as_array().expect("panels");
    let of_panels = panels.iter().flat_map(|panel| texts(&panel["targets"], "/expr"));
    of_panels.chain(texts(&dashboard["templating"]["list"], "/query/query")).collect()
}

#[test]
fn the_dashboard_and_the_alerts_name_every_metric_and_no_other() {
    let known = known_families();
    let rules: Value = serde_yaml::from_str(&shipped("conf/prometheus/alerts.yaml")).expect("YAML");
    let rules = rules["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array().cloned());
    let alerts = rules.flatten().map(|rule| rule["expr"].as_str().expect("an expression").to_owned());
    let shown = expressions(&dashboard());
    assert!(shown.len() > 30, "{} expressions", shown.len());
    let mut named = BTreeSet::new();
    for expr in shown.into_iter().chain(alerts) {
        let metrics = metrics_of(&expr, &known);
        assert!(!metrics.is_empty(), "no metric in {expr:?}");
        let unknown: Vec<_> = metrics.iter().filter(|name| !known.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expr:?}");
        named.extend(metrics);
    }
    let forgotten: Vec<_> = known.keys().filter(|name| !named.contains(*name)).collect();
    assert!(forgotten.is_empty(), "neither on the dashboard nor in an alert: {forgotten:?}");
    let of = |expr: &str| metrics_of(expr, &known).into_iter().collect::<Vec<_>>();
    assert_eq!(of("rate(hsdo_turn_duration_seconds_bucket[1m])"), ["hsdo_turn_duration_seconds"]);
    assert_eq!(of("hsdo_leader + hsdo_leader_count"), ["hsdo_leader", "hsdo_leader_count"]);
}

/// What Grafana 9 to 12 need to import it anywhere.
#[test]
fn the_dashboard_can_be_imported_for_any_data_source() {
    let dashboard = dashboard();
    // Grafana 9.0 writes version 36; later ones convert it.
    assert_eq!(dashboard["schemaVersion"], 36);
    assert!(
        dashboard["id"].is_null() && dashboard["uid"].is_null(),
        "an id of its own could replace another dashboard"
    );
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let kinds: Vec<_> = variables.iter().map(|one| (one["name"].as_str(), one["type"].as_str())).collect();
    let (query, source) = (Some("query"), Some("datasource"));
    assert_eq!(kinds, [(source, source), (Some("job"), query), (Some("instance"), query)]);
    let mut taken = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let place =
            |name: &str| panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("{title}: no gridPos.{name}"));
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(x + w <= 24, "{title} is wider than the grid");
        for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
            if let Some(other) = taken.insert(cell, title) {
                panic!("{title} and {other} overlap at {cell:?}");
            }
        }
        if ["row", "text"].contains(&panel["type"].as_str().expect("a type")) {
            continue;
        }
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        for one in targets.iter().chain([panel]) {
            assert_eq!(one["datasource"]["uid"], "${datasource}", "{title}");
        }
        for expr in targets.iter().map(|target| target["expr"].as_str().unwrap_or_default()) {
            // Each selector follows the variables.
            let selectors = expr.matches('{').count();
            assert!(
                selectors > 0 && expr.matches(r#"job=~"$job",instance=~"$instance"}"#).count() == selectors,
                "{expr}"
            );
        }
        let panel_defaults = &panel["fieldConfig"]["defaults"];
        assert!(panel["type"] == "table" || panel_defaults["unit"].is_string(), "{title} has no unit");
    }
    assert!(ids.len() > 30, "{} panels", ids.len());
}
