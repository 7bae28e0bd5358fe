//! Consul as the source, on a real agent: each change reaches HAProxy through the table, and what Consul does not say
//! removes no server.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use common::bed::Bed;
use common::consul::{Consul, NODE, certificates};
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Outcome, Running};
use common::moto::text_of;
use common::port::Port;
use common::traffic::Stream;
use common::wait::{SOON, assert_stays, wait_for};

const BACK: &str = "http-back";
const BASE: &str = "mywebapp";
/// A blocking query is abandoned after 18.6 s, and ACLs are checked again when a query ends.
const HANG: Duration = Duration::from_secs(60);

/// The setup of a test: an agent, a table of four slots, HAProxy with as many, and both roles.
struct Stage {
    // Fields drop in this order.
    _client: Running,
    server: Running,
    haproxy: Haproxy,
    consul: Consul,
    bed: Bed,
}

/// A web server for the instance, for HAProxy's checks.
fn serve(bed: &Bed, name: &str, address: &str) {
    bed.web().serve(name, address.parse().expect("an address"));
}

fn address(host: u32) -> String {
    format!("127.2.0.{host}")
}

fn server(bed: &Bed, consul: &Consul, services: &str) -> Hsdo {
    Hsdo::server(bed)
        .env("SERVER_MODE", "consul")
        .env("SERVER_CONSUL_API_URL", &consul.url())
        .env("SERVER_CONSUL_SERVICE_NAME", services)
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")
}

fn client(bed: &Bed) -> Hsdo {
    Hsdo::client(bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")
}

impl Stage {
    /// Service `web` with these instances: `web-1` at 127.2.0.1, and so on.
    fn new(name: &str, instances: u32) -> Self {
        let bed = Bed::new(name);
        let consul = Consul::start(&bed);
        Self::with(bed, consul, instances)
    }

    fn with(bed: Bed, consul: Consul, instances: u32) -> Self {
        bed.moto().create_table();
        let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, BASE, 4)]);
        for host in 1..=instances {
            serve(&bed, &format!("web-{host}"), &address(host));
            consul.register("web", &format!("web-{host}"), &address(host));
        }
        let mut stage =
            Stage { _client: client(&bed).spawn(), server: server(&bed, &consul, "web").spawn(), haproxy, consul, bed };
        stage.server.wait_turn();
        stage
    }

    /// Waits until HAProxy has exactly these servers, as `slot address weight`: `1 127.2.0.1 10`.
    #[track_caller]
    fn wait_haproxy(&self, wanted: &[&str]) {
        wait_servers(&self.bed, &self.haproxy, BACK, BASE, wanted);
    }

    /// Makes a change, waits until HAProxy shows it, and reports the time it took.
    #[track_caller]
    fn timed(&self, what: &str, change: impl FnOnce(&Consul), wanted: &[&str]) {
        let from = Instant::now();
        change(&self.consul);
        // Ignoring weights: the full weight is up to the ramp.
        let servers = |list: &[String]| -> Vec<(String, bool)> {
            let split =
                |line: &String| line.rsplit_once(' ').map(|(server, weight)| (server.to_owned(), weight != "0"));
            list.iter().filter_map(split).collect()
        };
        let expected: Vec<String> = wanted.iter().map(|&line| line.to_owned()).collect();
        wait_for(what, SOON, || {
            let shown = shown(&self.haproxy, BACK, BASE, self.bed.web().port());
            if servers(&shown) == servers(&expected) { Ok(()) } else { Err(format!("{shown:?}")) }
        });
        println!("{what}: in HAProxy after {} ms", from.elapsed().as_millis());
        self.wait_haproxy(wanted);
    }

    /// The row of a slot: address, name, group, status, weight.
    fn row(&self, slot: u32) -> String {
        let attribute = |name: &str| self.bed.moto().attribute(slot, name).unwrap_or_default();
        ["IPAddress", "ServerName", "ASG", "BackendServerStatus", "Weight"].map(attribute).join(" ")
    }

    #[track_caller]
    fn wait_row(&self, slot: u32, wanted: &str) {
        wait_for(&format!("slot {slot} to be {wanted:?}"), SOON, || {
            let row = self.row(slot);
            if row == wanted { Ok(()) } else { Err(row) }
        });
    }

    /// How often the server's log has `text`.
    fn said(&self, text: &str) -> usize {
        self.server.log().matches(text).count()
    }

    /// Panics if HAProxy or a row changes within the span.
    #[track_caller]
    fn nothing_changes(&self, span: Duration) {
        let look =
            || (shown(&self.haproxy, BACK, BASE, self.bed.web().port()), [1, 2, 3, 4].map(|slot| self.row(slot)));
        let before = look();
        assert_stays("HAProxy and the table", span, || {
            let now = look();
            if now == before { Ok(()) } else { Err(format!("{before:?} became {now:?}")) }
        });
    }
}

/// The servers not in maintenance: slot, address, weight, and `down` if they take no traffic.
fn shown(haproxy: &Haproxy, backend: &str, base: &str, port: u16) -> Vec<String> {
    let servers = haproxy.servers(backend);
    let active = servers.iter().filter(|(_, server)| !server.in_maintenance());
    active
        .map(|(name, server)| {
            let slot = name.strip_prefix(base).unwrap_or(name);
            let address = server.addr.strip_suffix(&format!(":{port}")).unwrap_or(&server.addr);
            let down = if server.takes_traffic() || server.weight == 0 { "" } else { " down" };
            format!("{slot} {address} {}{down}", server.weight)
        })
        .collect()
}

#[track_caller]
fn wait_servers(bed: &Bed, haproxy: &Haproxy, backend: &str, base: &str, wanted: &[&str]) {
    wait_for(&format!("{backend} to have {wanted:?}"), SOON, || {
        let shown = shown(haproxy, backend, base, bed.web().port());
        if shown == wanted { Ok(()) } else { Err(format!("{shown:?}")) }
    });
}

#[test]
fn a_service_is_followed_from_its_registration_to_its_end() {
    let stage = Stage::new("followed", 0);
    serve(&stage.bed, "web-1", &address(1));
    serve(&stage.bed, "web-2", &address(2));
    stage.timed("register", |consul| consul.register("web", "web-1", &address(1)), &["1 127.2.0.1 10"]);
    stage.wait_row(1, &format!("127.2.0.1 {NODE} web enabled 10"));

    // A second instance on the node: the first keeps name, slot and weight.
    stage.timed(
        "register a second one",
        |consul| consul.register("web", "web-2", &address(2)),
        &["1 127.2.0.1 10", "2 127.2.0.2 10"],
    );
    assert_eq!(stage.row(1), format!("127.2.0.1 {NODE} web enabled 10"));
    assert_eq!(stage.row(2), format!("127.2.0.2 {NODE}/web-2 web enabled 10"));
    assert_eq!(stage.said("slot 1: added"), 1, "{}", stage.server.log());
    assert_eq!(stage.said("slot 1: removed") + stage.said("replaced"), 0, "{}", stage.server.log());

    stage.timed("fail a check", |consul| consul.set_check("web-2", "fail"), &["1 127.2.0.1 10"]);
    stage.timed("pass it again", |consul| consul.set_check("web-2", "pass"), &["1 127.2.0.1 10", "2 127.2.0.2 10"]);
    stage.timed("warn", |consul| consul.set_check("web-2", "warn"), &["1 127.2.0.1 10"]);
    stage.timed("pass it again", |consul| consul.set_check("web-2", "pass"), &["1 127.2.0.1 10", "2 127.2.0.2 10"]);

    stage.timed(
        "service maintenance",
        |consul| consul.set_maintenance("web-1", true),
        &["1 127.2.0.1 0", "2 127.2.0.2 10"],
    );
    stage.wait_row(1, &format!("127.2.0.1 {NODE} web draining 0"));
    // Restarting under maintenance keeps its slot.
    stage.consul.set_check("web-1", "fail");
    stage.nothing_changes(Duration::from_secs(1));
    stage.consul.set_check("web-1", "pass");
    stage.timed(
        "end of service maintenance",
        |consul| consul.set_maintenance("web-1", false),
        &["1 127.2.0.1 10", "2 127.2.0.2 10"],
    );
    // Added, full, drained, back, full.
    assert_eq!(stage.said("slot 1: "), 5, "{}", stage.server.log());

    // On another node, so that node maintenance leaves a serving instance; its address is the node's.
    serve(&stage.bed, "web-3", &address(3));
    stage.timed(
        "register on another node",
        |consul| consul.register_on_node("node-2", &address(3), "web", "web-3", ""),
        &["1 127.2.0.1 10", "2 127.2.0.2 10", "3 127.2.0.3 10"],
    );
    assert_eq!(stage.row(3), "127.2.0.3 node-2 web enabled 10");
    stage.timed(
        "node maintenance",
        |consul| consul.set_node_maintenance(true),
        &["1 127.2.0.1 0", "2 127.2.0.2 0", "3 127.2.0.3 10"],
    );
    stage.timed(
        "end of node maintenance",
        |consul| consul.set_node_maintenance(false),
        &["1 127.2.0.1 10", "2 127.2.0.2 10", "3 127.2.0.3 10"],
    );

    // Drained, then gone.
    stage.consul.set_maintenance("web-1", true);
    stage.wait_haproxy(&["1 127.2.0.1 0", "2 127.2.0.2 10", "3 127.2.0.3 10"]);
    stage.timed("deregister", |consul| consul.deregister("web-1"), &["2 127.2.0.2 10", "3 127.2.0.3 10"]);
    // Alone on its node again, under its other name: still the same server.
    assert_eq!(stage.row(2), format!("127.2.0.2 {NODE}/web-2 web enabled 10"));
    stage.timed("deregister a node", |consul| consul.deregister_node("node-2"), &["2 127.2.0.2 10"]);

    // No instance passes: a real zero, confirmed by a consistent read.
    stage.timed("fail the last check", |consul| consul.set_check("web-2", "fail"), &[]);
}

/// The Python version took a response without instances as the end of all servers.
#[test]
fn a_service_that_nobody_knows_keeps_its_servers() {
    let mut stage = Stage::new("unknown", 1);
    stage.wait_haproxy(&["1 127.2.0.1 10"]);
    stage.consul.deregister("web-1");
    assert_eq!(stage.server.wait_metric("hsdo_missing_groups", |n| n > 0.0), 1.0);
    stage.nothing_changes(Duration::from_secs(1));
    let line = "groups that do not exist: web: their servers stay until they are known to have ended; register these services in Consul";
    assert_eq!(stage.said(line), 1, "{}", stage.server.log());
    stage.consul.register("web", "web-1", &address(1));
    stage.server.wait_metric("hsdo_missing_groups", |n| n == 0.0);
    assert_eq!(stage.said("every configured group is known again"), 1);
    stage.nothing_changes(Duration::from_millis(500));
    assert_eq!(stage.said("slot 1: added"), 1, "{}", stage.server.log());
}

#[test]
fn the_agent_is_killed_and_started_again() {
    let mut stage = Stage::new("killed", 2);
    stage.wait_haproxy(&["1 127.2.0.1 10", "2 127.2.0.2 10"]);
    stage.consul.kill();
    stage.server.wait_log("cannot be reached: connection refused: check that the agent is running");
    stage.nothing_changes(Duration::from_secs(2));
    assert_eq!(stage.said("WARN"), 1, "one line when it begins: {}", stage.server.log());
    assert!(stage.server.metric(r#"hsdo_consul_requests_total{result="unreachable"}"#).is_some_and(|n| n >= 2.0));

    // An agent in dev mode forgets what was registered: its index starts anew, and it knows no service.
    stage.consul.restart();
    stage.server.wait_log("Consul: recovered after ");
    stage.server.wait_metric("hsdo_missing_groups", |n| n > 0.0);
    stage.nothing_changes(Duration::from_secs(1));
    stage.consul.register("web", "web-1", &address(1));
    stage.wait_haproxy(&["1 127.2.0.1 10"]);
    stage.timed(
        "register after a restart",
        |consul| consul.register("web", "web-2", &address(2)),
        &["1 127.2.0.1 10", "2 127.2.0.2 10"],
    );
    assert_eq!(stage.said("slot 1: "), 2, "added and full, once each: {}", stage.server.log());
}

#[test]
fn an_agent_without_a_leader_changes_nothing() {
    let mut stage = Stage::new("leaderless", 2);
    stage.wait_haproxy(&["1 127.2.0.1 10", "2 127.2.0.2 10"]);
    stage.consul.kill();
    stage.consul.start_without_quorum();
    stage.server.wait_log("has no cluster leader: check Consul's servers");
    stage.nothing_changes(Duration::from_secs(2));
    assert_eq!(stage.said("has no cluster leader"), 1, "{}", stage.server.log());
    assert!(stage.server.metric(r#"hsdo_turns_total{result="failed"}"#).is_some_and(|n| n > 10.0));

    stage.consul.kill();
    stage.consul.restart();
    stage.consul.register("web", "web-2", &address(2));
    let from = Instant::now();
    stage.wait_haproxy(&["2 127.2.0.2 10"]);
    println!("a leader again, with another catalog: in HAProxy after {} ms", from.elapsed().as_millis());
    assert_eq!(stage.said("Consul: recovered after "), 1, "{}", stage.server.log());
}

#[test]
fn an_agent_that_hangs_changes_nothing() {
    let mut stage = Stage::new("hangs", 2);
    stage.wait_haproxy(&["1 127.2.0.1 10", "2 127.2.0.2 10"]);
    let from = Instant::now();
    stage.consul.freeze();
    wait_for("the timeout to be logged", HANG, || {
        let log = stage.server.log();
        if log.contains("did not respond within") { Ok(()) } else { Err(log) }
    });
    println!("an agent that hangs: logged after {} ms", from.elapsed().as_millis());
    stage.nothing_changes(Duration::from_secs(1));
    // SIGTERM still works.
    let from = Instant::now();
    assert!(stage.server.terminate().success());
    assert!(from.elapsed() < Duration::from_secs(2));
    stage.server = server(&stage.bed, &stage.consul, "web").spawn();
    stage.server.wait_log("did not respond within");
    stage.consul.thaw();
    stage.server.wait_log("Consul: recovered after ");
    stage.server.wait_turn();
    stage.consul.set_check("web-2", "fail");
    stage.wait_haproxy(&["1 127.2.0.1 10"]);
    assert_eq!(stage.said("WARN"), 1, "{}", stage.server.log());
}

const MASTER: &str = "11111111-2222-3333-4444-555555555555";
const READER: &str = "22222222-2222-3333-4444-555555555555";
const UNKNOWN: &str = "33333333-2222-3333-4444-555555555555";

fn allow(consul: &Consul, rules: &str) {
    let policies = consul.call("GET", "/v1/acl/policies", "");
    let policies: serde_json::Value = serde_json::from_str(&policies).expect("policies");
    let known = policies.as_array().expect("a list").iter().find(|policy| policy["Name"] == "hsdo");
    let path = known.map_or("/v1/acl/policy".to_owned(), |policy| {
        format!("/v1/acl/policy/{}", policy["ID"].as_str().expect("an id"))
    });
    consul.call("PUT", &path, &json!({"Name": "hsdo", "Rules": rules}).to_string());
    if known.is_none() {
        let token = json!({"SecretID": READER, "Policies": [{"Name": "hsdo"}]});
        consul.call("PUT", "/v1/acl/token", &token.to_string());
    }
}

#[test]
fn a_token_that_may_not_read_keeps_the_servers() {
    const SERVICE: &str = r#"service "web" { policy = "read" }"#;
    const BOTH: &str = r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let bed = Bed::new("acl");
    let acl = json!({"enabled": true, "default_policy": "deny", "token_ttl": "1s", "policy_ttl": "1s",
                     "tokens": {"master": MASTER, "agent": MASTER}});
    let consul = Consul::start_with(&bed, &json!({ "acl": acl }), Some(MASTER));
    let mut stage = Stage::with(bed, consul, 1);
    stage.wait_haproxy(&[]);

    // Without a token: 200 and an empty list, which does not mean that there are no instances.
    stage.server.wait_metric("hsdo_missing_groups", |n| n == 1.0);
    assert_eq!(stage.said("or grant the token service:read and node:read"), 1, "{}", stage.server.log());

    allow(&stage.consul, BOTH);
    stage.server = server(&stage.bed, &stage.consul, "web").env("CONSUL_HTTP_TOKEN", READER).spawn();
    stage.wait_haproxy(&["1 127.2.0.1 10"]);
    allow(&stage.consul, SERVICE);
    wait_for("the contradiction to be logged", HANG, || {
        let log = stage.server.log();
        let told = "lists service \"web\" but shows none of its instances: grant the token node:read on its nodes";
        if log.contains(told) { Ok(()) } else { Err(log) }
    });
    stage.nothing_changes(Duration::from_secs(1));
    allow(&stage.consul, BOTH);
    stage.server.wait_log("Consul: recovered after ");
    assert_eq!(stage.said("slot 1: "), 2, "added and full, once each: {}", stage.server.log());

    // Without a token again, now that there are servers to lose.
    stage.server = server(&stage.bed, &stage.consul, "web").spawn();
    stage.server.wait_metric("hsdo_missing_groups", |n| n == 1.0);
    stage.nothing_changes(Duration::from_secs(1));

    // A token file that is rotated, wrongly and rightly.
    let file = stage.bed.file("token", &format!("{READER}\n"));
    stage.server =
        server(&stage.bed, &stage.consul, "web").env("CONSUL_HTTP_TOKEN_FILE", &file.to_string_lossy()).spawn();
    stage.server.wait_turn();
    stage.bed.file("token", UNKNOWN);
    stage.server.wait_log("denies access to service \"web\": ACL not found: give hsdo a token with service:read");
    stage.nothing_changes(Duration::from_secs(1));
    stage.bed.file("token", READER);
    stage.server.wait_log("Consul: recovered after ");
    stage.server.kill();

    // At start it needs a person. No log level shows a token.
    let denied = server(&stage.bed, &stage.consul, "web").env("CONSUL_HTTP_TOKEN", UNKNOWN).arg("--debug").run();
    denied
        .assert_code(2)
        .assert_stderr("denies access to service \"web\": ACL not found")
        .assert_stderr("service:read");
    assert!(!denied.stderr.contains(UNKNOWN), "{denied}");
    assert!(!stage.server.log().contains(READER) && !stage.server.log().contains(UNKNOWN));
}

#[test]
fn two_services_are_split_by_the_dedicated_mode() {
    let bed = Bed::new("dedicated");
    let mut consul = Consul::start(&bed);
    bed.moto().create_table();
    let backends = [BackendConfig::new(BACK, BASE, 4), BackendConfig::new("rest", "other", 4)];
    let haproxy = Haproxy::start(&bed, &backends);
    for (service, host) in [("web", 1), ("api", 2)] {
        serve(&bed, &format!("{service}-1"), &address(host));
        consul.register(service, &format!("{service}-1"), &address(host));
    }
    let mut roles = [
        server(&bed, &consul, "api,web").spawn(),
        client(&bed)
            .env("CLIENT_DEDICATED_ASG", "true")
            .env("CLIENT_ASG_NAMES", "web")
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "rest")
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "other")
            .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &bed.web().port().to_string())
            .spawn(),
    ];
    // `api` comes first in the configuration, so it is seated first.
    wait_servers(&bed, &haproxy, BACK, BASE, &["2 127.2.0.1 10"]);
    wait_servers(&bed, &haproxy, "rest", "other", &["1 127.2.0.2 10"]);

    // One service unknown, the other still followed.
    consul.deregister("api-1");
    serve(&bed, "web-2", &address(3));
    consul.register("web", "web-2", &address(3));
    wait_servers(&bed, &haproxy, BACK, BASE, &["2 127.2.0.1 10", "3 127.2.0.3 10"]);
    wait_servers(&bed, &haproxy, "rest", "other", &["1 127.2.0.2 10"]);

    // While the agent is away neither is known, and no server is removed.
    consul.kill();
    roles[0].wait_log("cannot be reached");
    wait_servers(&bed, &haproxy, BACK, BASE, &["2 127.2.0.1 10", "3 127.2.0.3 10"]);
    wait_servers(&bed, &haproxy, "rest", "other", &["1 127.2.0.2 10"]);
    for role in &mut roles {
        assert!(role.terminate().success());
    }
}

#[test]
fn the_weight_of_a_registration_multiplies_max() {
    let stage = Stage::new("weights", 1);
    stage.wait_haproxy(&["1 127.2.0.1 10"]);
    let weigh = |passing: u32| {
        let weights = json!({"Weights": {"Passing": passing, "Warning": 1}});
        stage.consul.register_with("web", "web-1", &address(1), &weights);
    };
    weigh(2);
    stage.wait_haproxy(&["1 127.2.0.1 20"]);
    assert_eq!(stage.said("reaches full weight 20"), 1, "{}", stage.server.log());
    weigh(1);
    stage.wait_haproxy(&["1 127.2.0.1 10"]);
    assert_eq!(stage.said("slot 1: added"), 1, "{}", stage.server.log());
}

#[test]
fn addresses_may_be_ipv6_and_host_names_remove_nobody() {
    let mut stage = Stage::new("addresses", 0);
    serve(&stage.bed, "web-6", "::1");
    serve(&stage.bed, "web-2", &address(2));
    stage.consul.register_on_node("node-2", "10.9.9.9", "web", "web-2", &address(2));
    stage.wait_haproxy(&["1 127.2.0.2 10"]);
    stage.consul.register_on_node("node-6", "::1", "web", "web-6", "");
    stage.wait_haproxy(&["1 127.2.0.2 10", "2 [::1] 10"]);

    stage.consul.register_on_node("node-2", "10.9.9.9", "web", "web-2", "web.example");
    stage.server.wait_log("instances without an IP address: \"web.example\" of service \"web\" on node \"node-2\"");
    stage.nothing_changes(Duration::from_secs(1));
    assert_eq!(stage.said("instances without an IP address"), 1, "{}", stage.server.log());
    stage.consul.register_on_node("node-2", "10.9.9.9", "web", "web-2", &address(2));
    stage.server.wait_log("Consul: recovered after ");
    stage.nothing_changes(Duration::from_millis(500));
    stage.consul.deregister_node("node-2");
    stage.wait_haproxy(&["2 [::1] 10"]);
}

#[test]
fn consul_is_asked_over_tls_and_over_a_socket() {
    let bed = Bed::new("tls");
    let [ca, certificate, key, ..] = certificates(bed.dir());
    let (https, socket) = (Port::reserve(), bed.dir().join("consul.sock"));
    let consul = Consul::start_with(
        &bed,
        &json!({
            "ports": {"https": https.number()},
            "addresses": {"http": format!("127.0.0.1 unix://{}", text(&socket)), "https": "127.0.0.1"},
            "ca_file": text(&ca), "cert_file": text(&certificate), "key_file": text(&key),
        }),
        None,
    );
    bed.moto().create_table();
    consul.register("web", "web-1", &address(1));
    let secure = format!("https://127.0.0.1:{}", https.number());
    let dry = |url: &str| server(&bed, &consul, "web").env("SERVER_CONSUL_API_URL", url).arg("--dry-run");
    let row = format!("slot 1: added {NODE} at 127.2.0.1 (group web), weight 1");

    dry(&secure).env("CONSUL_CACERT", &text(&ca)).run().assert_code(0).assert_stdout(&row);
    dry(&format!("unix://{}", text(&socket))).run().assert_code(0).assert_stdout(&row);
    dry(&secure).env("CONSUL_CACERT", &text(&ca)).env("CONSUL_DATACENTER", "dc1").run().assert_code(0);

    // An untrusted certificate is rejected.
    dry(&secure).run().assert_code(1).assert_stderr("its certificate is not accepted: ").assert_stderr("CONSUL_CACERT");
    dry(&secure)
        .env("CONSUL_CACERT", "/nowhere")
        .run()
        .assert_code(2)
        .assert_stderr("CONSUL_CACERT /nowhere: cannot read");
    dry("unix:///nowhere.sock").run().assert_code(1).assert_stderr("unix:///nowhere.sock cannot be reached: ");
    // Namespaces need Consul Enterprise; a datacenter may be unknown.
    let namespace = dry(&consul.url()).env("CONSUL_NAMESPACE", "team").run();
    namespace.assert_code(2).assert_stderr("returned 400").assert_stderr("Namespaces are a Consul Enterprise feature");
    dry(&consul.url()).env("CONSUL_DATACENTER", "dc9").run().assert_code(1).assert_stderr("No path to datacenter");
}

/// A directory with the certificates of one CA.
struct Certificates {
    ca: String,
    server: [String; 2],
    client: [String; 2],
}

impl Certificates {
    fn new(bed: &Bed, folder: &str) -> Self {
        let folder = bed.dir().join(folder);
        std::fs::create_dir(&folder).expect("a folder");
        let [ca, certificate, key, of_client, clients] = certificates(&folder).map(|path| text(&path));
        Certificates { ca, server: [certificate, key], client: [of_client, clients] }
    }

    /// Agent configuration that demands a client certificate over `https`.
    fn demanded(&self, https: &Port) -> serde_json::Value {
        let [certificate, key] = &self.server;
        json!({
            "ports": {"https": https.number()}, "addresses": {"https": "127.0.0.1"}, "verify_incoming": true,
            "ca_file": self.ca, "cert_file": certificate, "key_file": key,
        })
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn an_agent_may_demand_a_certificate() {
    let bed = Bed::new("mutual-tls");
    let made = Certificates::new(&bed, "made");
    let https = Port::reserve();
    let consul = Consul::start_with(&bed, &made.demanded(&https), None);
    bed.moto().create_table();
    consul.register("web", "web-1", &address(1));
    let secure = format!("https://127.0.0.1:{}", https.number());
    let dry = || server(&bed, &consul, "web").env("SERVER_CONSUL_API_URL", &secure).arg("--dry-run").arg("--debug");
    let [certificate, key] = &made.client;
    let ours = || dry().env("CONSUL_CLIENT_CERT", certificate).env("CONSUL_CLIENT_KEY", key);
    let row = format!("slot 1: added {NODE} at 127.2.0.1 (group web), weight 1");

    let known = || ours().env("CONSUL_CACERT", &made.ca);
    known().run().assert_code(0).assert_stdout(&row);
    known().env("CONSUL_HTTP_AUTH", "user:password").run().assert_code(0).assert_stdout(&row);
    let folder = bed.dir().join("authorities/below");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(&made.ca, folder.join("ca.pem")).expect("a copy");
    bed.file("authorities/README", "no certificate");
    ours().env("CONSUL_CAPATH", &text(&bed.dir().join("authorities"))).run().assert_code(0).assert_stdout(&row);
    known().env("CONSUL_TLS_SERVER_NAME", "server.dc1.consul:8501").run().assert_code(0).assert_stdout(&row);

    // Without a client certificate the agent closes the connection, possibly before its reason arrives.
    let without = dry().env("CONSUL_CACERT", &made.ca).run();
    without.assert_code(1).assert_stderr("cannot be reached: ").assert_stderr("CONSUL_CLIENT_CERT");
    let misnamed = known().env("CONSUL_TLS_SERVER_NAME", "other.example").run();
    misnamed.assert_code(1).assert_stderr("its certificate is not accepted").assert_stderr("CONSUL_TLS_SERVER_NAME");
    let unknown = ours().run();
    unknown.assert_code(1).assert_stderr("its certificate is not accepted").assert_stderr("CONSUL_CACERT");
    // Verification disabled by the operator.
    let blind = ours().env("CONSUL_HTTP_SSL_VERIFY", "false").run();
    blind.assert_code(0).assert_stdout(&row).assert_stderr("WARN ").assert_stderr("CONSUL_HTTP_SSL_VERIFY is false");
    assert_eq!(blind.stderr.matches("CONSUL_HTTP_SSL_VERIFY").count(), 1, "{blind}");

    let refused = |outcome: Outcome, why: &str| {
        outcome.assert_code(2).assert_stderr(why);
    };
    refused(
        dry().env("CONSUL_CLIENT_CERT", certificate).run(),
        "CONSUL_CLIENT_CERT is set but CONSUL_CLIENT_KEY is not",
    );
    refused(dry().env("CONSUL_CLIENT_KEY", key).run(), "CONSUL_CLIENT_KEY is set but CONSUL_CLIENT_CERT is not");
    let why = format!("CONSUL_CLIENT_KEY {}: is not the key of the certificate in CONSUL_CLIENT_CERT", made.server[1]);
    refused(known().env("CONSUL_CLIENT_KEY", &made.server[1]).run(), &why);
    refused(
        known().env("CONSUL_CLIENT_KEY", "/nowhere").run(),
        "CONSUL_CLIENT_KEY /nowhere: cannot read the key: No such",
    );
    refused(known().env("CONSUL_CLIENT_CERT", key).run(), "contains no certificate: expected a PEM file");
    refused(
        known().env("CONSUL_HTTP_SSL_VERIFY", "nope").run(),
        "CONSUL_HTTP_SSL_VERIFY is \"nope\", expected true or false",
    );
}

/// The agent and hsdo get certificates of another CA while hsdo runs, and one file comes before the other.
#[test]
fn renewed_certificates_count_from_the_next_connection_on() {
    let bed = Bed::new("renewed");
    let (first, second) = (Certificates::new(&bed, "first"), Certificates::new(&bed, "second"));
    let https = Port::reserve();
    let mut consul = Consul::start_with(&bed, &first.demanded(&https), None);
    bed.moto().create_table();
    consul.register("web", "web-1", &address(1));
    let names = ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"];
    let ours = names.map(|name| text(&bed.dir().join(name)));
    let install = |from: &Certificates, which: &[usize]| {
        for &which in which {
            std::fs::copy([&from.ca, &from.client[0], &from.client[1]][which], &ours[which]).expect("a copy");
        }
    };
    install(&first, &[0, 1, 2]);
    let hsdo =
        server(&bed, &consul, "web").env("SERVER_CONSUL_API_URL", &format!("https://127.0.0.1:{}", https.number()));
    let mut running = names.iter().zip(&ours).fold(hsdo, |hsdo, (name, path)| hsdo.env(name, path)).spawn();
    running.wait_turn();
    // The certificate is there, its key is not yet: hsdo keeps the previous pair.
    install(&second, &[1]);
    consul.kill();
    consul.restart();
    consul.register("web", "web-1", &address(1));
    running.wait_log("is not the key of the certificate in CONSUL_CLIENT_CERT; keeping the previous configuration");
    running.wait_turn();

    install(&second, &[0, 2]);
    consul.kill();
    consul.configure(&second.demanded(&https));
    consul.restart();
    consul.register("web", "web-2", &address(2));
    running.wait_turn();
    wait_for("the second instance in the first one's place", SOON, || match bed.moto().attribute(1, "IPAddress") {
        Some(found) if found == address(2) => Ok(()),
        other => Err(format!("{other:?}: {}", running.log())),
    });
    assert_eq!(running.log().matches("keeping the previous configuration").count(), 1, "{}", running.log());
}

#[test]
fn what_is_not_consul_is_told_apart() {
    let bed = Bed::new("not-consul");
    let mut consul = Consul::start(&bed);
    bed.moto().create_table();
    bed.moto().put_server(1, "127.2.0.1", "node-1", Some("web"), 10);
    serve(&bed, "a web page", "127.0.0.1");
    let once = |url: &str| server(&bed, &consul, "web").env("SERVER_CONSUL_API_URL", url).once();

    let page = once(&format!("http://127.0.0.1:{}", bed.web().port()));
    page.assert_code(1).assert_stderr("no X-Consul-KnownLeader header, so it is not from Consul");
    let elsewhere = once(&format!("{}/elsewhere", consul.url()));
    elsewhere.assert_code(2).assert_stderr("returned 404").assert_stderr("check SERVER_CONSUL_API_URL");
    once("127.0.0.1:8500").assert_code(2).assert_stderr("SERVER_CONSUL_API_URL: found \"127.0.0.1:8500\"");
    let url = consul.url();
    consul.kill();
    let gone = server(&bed, &consul, "web").env("SERVER_CONSUL_API_URL", &url).once();
    gone.assert_code(1).assert_stderr("cannot be reached: connection refused: check that the agent is running");
    assert_eq!(bed.moto().attribute(1, "IPAddress").as_deref(), Some("127.2.0.1"));
}

/// What a test knows of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Gone,
    Ready,
    Failing,
    Maintained,
}

/// The occupied slots: address to slot and status. Panics if two slots hold one address.
fn occupied(bed: &Bed) -> BTreeMap<String, (u32, String)> {
    let mut occupied = BTreeMap::new();
    for (slot, item) in bed.moto().items() {
        let address = text_of(&item, "IPAddress").expect("an address");
        let status = text_of(&item, "BackendServerStatus").expect("a status");
        if address != "none" {
            let before = occupied.insert(address.clone(), (slot, status));
            assert_eq!(before, None, "two slots hold {address}");
        }
    }
    occupied
}

/// Random changes in Consul under traffic, while the agent hangs or dies now and then. Table and HAProxy follow what is
/// known; untouched servers stay in place; none is removed while nothing is known; no request fails, and none is
/// answered by an instance that was out before it began.
#[test]
fn whatever_happens_in_consul_traffic_is_not_harmed() {
    const HOSTS: u32 = 3;
    /// One instance that is never touched.
    const ANCHOR: u32 = 4;
    let mut stage = Stage::new("chaos", 0);
    for host in 1..=ANCHOR {
        serve(&stage.bed, &name(host), &address(host));
    }
    stage.consul.register("web", &name(ANCHOR), &address(ANCHOR));
    stage.wait_haproxy(&["1 127.2.0.4 10"]);
    let mut stream = Stream::start(stage.haproxy.frontend(BACK), Duration::from_millis(20), 100_000);
    let mut truth: BTreeMap<u32, Truth> = (1..=HOSTS).map(|host| (host, Truth::Gone)).collect();
    let mut slots = occupied(&stage.bed);
    // A fixed seed, so that a failure can be reproduced.
    let mut seed: u64 = 20_240_607;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };

    for step in 0..40 {
        let host = u32::try_from(random(u64::from(HOSTS))).expect("few") + 1;
        let touched = Instant::now();
        match (truth[&host], random(8)) {
            (_, 0) => {
                stage.consul.kill();
                let failed = r#"hsdo_consul_requests_total{result="unreachable"}"#;
                let before = stage.server.metric(failed).unwrap_or(0.0);
                stage.server.wait_metric(failed, |n| n >= before + 2.0);
                assert_eq!(occupied(&stage.bed), slots, "step {step}: while the agent is away");
                // An unknown service is not an empty one.
                stage.consul.restart();
                stage.server.wait_metric("hsdo_missing_groups", |n| n == 1.0);
                assert_eq!(occupied(&stage.bed), slots, "step {step}: while the service is unknown");
                stage.consul.register("web", &name(ANCHOR), &address(ANCHOR));
                truth.values_mut().for_each(|truth| *truth = Truth::Gone);
            }
            (_, 1) => {
                stage.consul.freeze();
                stage.server.wait_turn();
                assert_eq!(occupied(&stage.bed), slots, "step {step}: while the agent is silent");
                stage.consul.thaw();
            }
            (before, choice) => {
                truth.insert(host, change(&stage.consul, host, before, choice));
            }
        }
        let ready: Vec<u32> =
            truth.iter().filter(|(_, truth)| **truth == Truth::Ready).map(|(host, _)| *host).chain([ANCHOR]).collect();
        slots = wait_for(&format!("the table to follow step {step}, {truth:?}"), SOON, || {
            let found = occupied(&stage.bed);
            let follows = |host: u32, truth: Truth| {
                let before = slots.get(&address(host)).map(|(slot, _)| *slot);
                let slot =
                    |status: &str| found.get(&address(host)).filter(|found| found.1 == status).map(|found| found.0);
                match truth {
                    Truth::Ready => slot("enabled").is_some_and(|slot| before.is_none_or(|before| before == slot)),
                    Truth::Maintained => before.is_some() && slot("draining") == before,
                    Truth::Failing | Truth::Gone => !found.contains_key(&address(host)),
                }
            };
            let all = truth.iter().all(|(host, truth)| follows(*host, *truth)) && follows(ANCHOR, Truth::Ready);
            if all { Ok(found) } else { Err(format!("{slots:?} became {found:?}")) }
        });
        wait_for(&format!("HAProxy to follow step {step}, {truth:?}"), SOON, || {
            let weights = stage.haproxy.active(BACK).len();
            let full = slots.values().filter(|(_, status)| status == "enabled").count();
            if weights == full { Ok(()) } else { Err(format!("{weights} of {full} serve")) }
        });
        let (settled, enough) = (Instant::now(), 5);
        let tally = wait_for("requests", SOON, || {
            let tally = stream.between(settled, Instant::now());
            if tally.answered() >= enough { Ok(tally) } else { Err(tally.to_string()) }
        });
        for answered in tally.names() {
            assert!(ready.iter().any(|host| name(*host) == answered), "step {step}, {truth:?}: {tally}");
        }
        let failed = stream.touching(touched, Instant::now()).failures;
        assert!(failed.is_empty(), "step {step}, {truth:?}: {failed:?}");
        stage.server.process().assert_running();
    }
    let tally = stream.stop();
    println!("{tally}");
    assert!(tally.failures.is_empty() && tally.answered() > 100, "{tally}");
    let anchor = format!("at {} ", address(ANCHOR));
    assert_eq!(stage.said(&anchor), 2, "added and full, once each: {}", stage.server.log());
}

fn name(host: u32) -> String {
    format!("web-{host}")
}

/// Changes one instance, and updates what is known of it.
fn change(consul: &Consul, host: u32, before: Truth, choice: u64) -> Truth {
    let id = name(host);
    match (before, choice) {
        (Truth::Gone, _) => {
            consul.register("web", &id, &address(host));
            Truth::Ready
        }
        (Truth::Ready, 2..=4) => {
            consul.set_maintenance(&id, true);
            Truth::Maintained
        }
        (Truth::Ready, _) => {
            consul.set_check(&id, if choice == 5 { "warn" } else { "fail" });
            Truth::Failing
        }
        (Truth::Failing | Truth::Maintained, 2) => {
            consul.deregister(&id);
            Truth::Gone
        }
        (Truth::Failing, _) => {
            consul.set_check(&id, "pass");
            Truth::Ready
        }
        (Truth::Maintained, _) => {
            consul.set_maintenance(&id, false);
            Truth::Ready
        }
    }
}
