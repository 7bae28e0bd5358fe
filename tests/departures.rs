//! The end of an instance: what load balancers report, and when a lifecycle hook lets it go. HAProxy: `check inter 100ms rise 2
//! fall 2`, round robin, two load balancers.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use common::aws_proxy::Fault;
use common::bed::Bed;
use common::haproxy::{self, BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Outcome, Running};
use common::http::lock;
use common::lifecycles::Lifecycles;
use common::traffic::Stream;
use common::wait::{SOON, assert_stays, wait_for};
use common::web::Behaviour;

const BACK: &str = "http-back";
const REPORTS: &str = "reports";
const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;
const DONE: &str = "<CompleteLifecycleActionResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
                    <CompleteLifecycleActionResult/></CompleteLifecycleActionResponse>";

/// Two instances of group `web`, their web servers, the table of slots and that of reports.
fn bed(name: &str) -> (Bed, [String; 2]) {
    let bed = Bed::new(name);
    bed.moto().create_group("web", 0, 2);
    bed.serve_instances(&["web"]);
    let created = with_reports(Hsdo::with_aws(&bed, "create")).arg("--create-table").run();
    created.assert_code(0).assert_stdout("table reports created and active, its items expire");
    let ids: Vec<String> = bed.moto().instances("web").into_iter().map(|instance| instance.id).collect();
    (bed, ids.try_into().expect("two"))
}

fn with_reports(hsdo: Hsdo) -> Hsdo {
    hsdo.env("DYNAMODB_REPORT_TABLE_NAME", REPORTS)
}

/// A server without a ramp that completes the hook `drain`.
fn server(bed: &Bed) -> Hsdo {
    with_reports(Hsdo::server(bed))
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
        .env("SERVER_LIFECYCLE_HOOK", "drain")
}

/// A load balancer and its client.
fn balancer(bed: &Bed, name: &str) -> (Haproxy, Running) {
    let haproxy = Haproxy::start_named(bed, name, &[BackendConfig::new(BACK, "mywebapp", 4)]);
    let client = client(bed, &haproxy).spawn();
    (haproxy, client)
}

fn client(bed: &Bed, haproxy: &Haproxy) -> Hsdo {
    with_reports(Hsdo::client(bed)).env("CLIENT_HAPROXY_SOCKET_PATH", &haproxy.socket().to_string_lossy())
}

/// AWS's side of the hooks: the calls, and the state that each leaves.
#[derive(Clone)]
struct Hooks {
    calls: Arc<Mutex<Vec<(String, Instant)>>>,
    states: Lifecycles,
    /// The server whose sessions are counted at a call, and the counts.
    counted: Arc<Mutex<(String, Vec<u64>)>>,
}

impl Hooks {
    /// Answers as AWS does; `seen` is told of each call before its answer.
    fn install(bed: &Bed, seen: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::install_with(bed, Arc::default(), seen)
    }

    /// The same, which counts at each call the sessions that [`Hooks::count_on`] names, on each of these load balancers.
    fn counting(bed: &Bed, haproxies: [&Haproxy; 2]) -> Self {
        let sockets = haproxies.map(|haproxy| haproxy.socket().to_owned());
        let counted: Arc<Mutex<(String, Vec<u64>)>> = Arc::default();
        let counts = Arc::clone(&counted);
        Self::install_with(bed, counted, move |_| {
            let mut counts = lock(&counts);
            let found = sockets.each_ref().map(|socket| sessions(socket, &counts.0));
            counts.1.extend(found);
        })
    }

    fn install_with(
        bed: &Bed,
        counted: Arc<Mutex<(String, Vec<u64>)>>,
        seen: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let hooks = Hooks { calls: Arc::default(), states: Lifecycles::install(bed), counted };
        let (calls, states) = (Arc::clone(&hooks.calls), hooks.states.clone());
        bed.aws().stub("CompleteLifecycleAction", move |form| {
            let value = |name: &str| {
                let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
            };
            let (instance, hook) = (value("InstanceId"), value("LifecycleHookName"));
            let mut calls = lock(&calls);
            calls.push((instance.clone(), Instant::now()));
            let given = calls.iter().filter(|(one, _)| *one == instance).count();
            drop(calls);
            if hook != "drain" || given > 1 {
                return (
                    400,
                    refusal(
                        "ValidationError",
                        &format!("No active Lifecycle Action found with instance ID {instance}"),
                    ),
                );
            }
            seen(&instance);
            states.set(&instance, "Terminating:Proceed");
            (200, DONE.to_owned())
        });
        hooks
    }

    fn count_on(&self, server: &str) {
        server.clone_into(&mut lock(&self.counted).0);
    }

    fn counted(&self) -> Vec<u64> {
        lock(&self.counted).1.clone()
    }

    /// The hook holds the instance back.
    fn hold(&self, instance: &str) {
        self.states.set(instance, "Terminating:Wait");
    }

    fn calls(&self) -> Vec<(String, Instant)> {
        lock(&self.calls).clone()
    }

    fn wait_call(&self, instance: &str, deadline: Duration) -> Instant {
        wait_for(&format!("{instance} to be let go"), deadline, || {
            let calls = self.calls();
            calls.iter().find(|(one, _)| one == instance).map(|(_, at)| *at).ok_or_else(|| format!("{calls:?}"))
        })
    }
}

fn refusal(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>0-1</RequestId></ErrorResponse>"
    )
}

/// The items of the report table.
fn reports(bed: &Bed) -> Vec<Value> {
    let found = bed.moto().dynamodb("Scan", &json!({"TableName": REPORTS}));
    found["Items"].as_array().expect("items").clone()
}

/// Sessions on the server of that slot, by HAProxy itself.
fn sessions(socket: &Path, server: &str) -> u64 {
    let text = haproxy::ask(socket, "show stat").expect("HAProxy answers");
    let header: Vec<&str> = text.lines().next().expect("a header").split(',').collect();
    let column = |name: &str| header.iter().position(|title| title.trim_start_matches("# ") == name).expect("a column");
    let line = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let cells = line.into_iter().find(|cells| cells.get(1) == Some(&server)).expect("the server");
    cells[column("scur")].parse::<u64>().expect("a number") + cells[column("qcur")].parse::<u64>().expect("a number")
}

fn slot_of(bed: &Bed, instance: &str) -> u32 {
    wait_for(&format!("a slot of {instance}"), SOON, || {
        let rows = bed.moto().rows();
        let found = rows.iter().find(|(_, row)| common::moto::text_of(row, "ServerName").as_deref() == Some(instance));
        found.map(|(id, _)| *id).ok_or_else(|| format!("{rows:?}"))
    })
}

fn wait_served(haproxies: &[&Haproxy]) {
    for haproxy in haproxies {
        haproxy.wait_weights(BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
        wait_for("both servers to pass their checks", SOON, || {
            let active = haproxy.active(BACK);
            if active.len() == 2 { Ok(()) } else { Err(format!("{active:?}")) }
        });
    }
}

fn run(bed: &Bed, arguments: &[&str]) -> Outcome {
    let hsdo = with_reports(Hsdo::with_aws(bed, "command"))
        .env("SERVER_MODE", "aws")
        .env("SERVER_ASG_NAMES", "web")
        .env("SERVER_LIFECYCLE_HOOK", "drain");
    arguments.iter().fold(hsdo, |hsdo, argument| hsdo.arg(argument)).run()
}

/// Requests that take a second run on both load balancers when the instance leaves. As AWS lets it go, nothing runs on it: not one
/// request is cut, and it does not wait for the deadline.
#[test]
fn an_instance_is_let_go_after_its_last_request_and_not_one_is_cut() {
    let (bed, [leaving, other]) = bed("last-request");
    let (first, mut first_client) = balancer(&bed, "lb-1");
    let (second, mut second_client) = balancer(&bed, "lb-2");
    let hooks = Hooks::counting(&bed, [&first, &second]);
    let mut server = server(&bed).env("SERVER_DRAIN_SECONDS", "60").spawn();
    wait_served(&[&first, &second]);
    let slot = slot_of(&bed, &leaving);
    let name = format!("mywebapp{slot}");
    hooks.count_on(&name);
    let behaviour = Behaviour::Slow(Duration::from_millis(1_200));
    for name in [&leaving, &other] {
        bed.web().set_behaviour(name, behaviour);
        bed.web().set_check_behaviour(name, Behaviour::Well);
    }
    let mut streams: Vec<Stream> = [&first, &second]
        .into_iter()
        .flat_map(|haproxy| [0, 1].map(|_| Stream::start(haproxy.frontend(BACK), Duration::from_millis(100), 400)))
        .collect();
    wait_for("requests on the leaving server of both", SOON, || {
        let running = [&first, &second].map(|haproxy| sessions(haproxy.socket(), &name));
        if running.iter().all(|count| *count > 0) { Ok(()) } else { Err(format!("{running:?}")) }
    });
    hooks.hold(&leaving);
    hooks.wait_call(&leaving, SOON);
    // As AWS does a moment later.
    bed.web().stop(&leaving);
    assert_eq!(hooks.counted(), [0, 0], "sessions when it was let go");
    server.wait_log("no load balancer has a session on it");
    assert_eq!(server.metric("hsdo_drain_seconds_count"), Some(1.0));
    // The group goes on without it, and new requests are still answered.
    server.wait_turn();
    let tallies: Vec<_> = streams.iter_mut().map(Stream::stop).collect();
    assert!(tallies.iter().all(|tally| tally.failures.is_empty()), "{tallies:?}");
    assert!(tallies.iter().any(|tally| tally.of(&leaving) > 0), "{tallies:?}");
    server.wait_turn();
    assert_eq!(hooks.calls().len(), 1, "one call: {:?}", hooks.calls());
    for role in [&mut server, &mut first_client, &mut second_client] {
        assert_eq!(role.metric(FAILED), Some(0.0), "{}", role.log());
    }
}

/// What is still running at the deadline is cut; until then `hsdo why`, `hsdo status`, the page and `/status` say who holds the instance.
#[test]
fn the_deadline_holds_and_until_then_one_sees_who_holds_the_instance() {
    let (bed, [leaving, _]) = bed("deadline");
    let (haproxy, mut client) = balancer(&bed, "lb-1");
    let hooks = Hooks::install(&bed, |_| {});
    let mut server = server(&bed).env("SERVER_DRAIN_SECONDS", "6").spawn();
    wait_served(&[&haproxy]);
    let slot = slot_of(&bed, &leaving);
    bed.web().set_behaviour(&leaving, Behaviour::Slow(Duration::from_secs(60)));
    bed.web().set_check_behaviour(&leaving, Behaviour::Well);
    let name = format!("mywebapp{slot}");
    let stream = Stream::start(haproxy.frontend(BACK), Duration::from_millis(20), 40);
    wait_for("a request that hangs", SOON, || match sessions(haproxy.socket(), &name) {
        0 => Err("none"),
        count => Ok(count),
    });
    let held = Instant::now();
    hooks.hold(&leaving);
    server.wait_metric("hsdo_drain_sessions", |count| count > 0.0);
    let count = sessions(haproxy.socket(), &name);
    let expected = format!("has {count} session");
    let why = run(&bed, &["why", &leaving]);
    why.assert_code(0).assert_stdout(&expected).assert_stdout("at the latest it is let go at");
    let status = run(&bed, &["status"]);
    status.assert_code(0).assert_stdout(&format!("slot {slot}: {count}")).assert_stdout("current");
    let shown: Value = serde_json::from_str(&server.get("/status").expect("an exporter").1).expect("JSON");
    assert_eq!(shown["balancers"][0]["sessions"][slot.to_string()], count, "{shown:#}");
    assert_eq!(shown["balancers"][0]["state"], "current", "{shown:#}");
    let page = server.get("/").expect("an exporter").1;
    assert!(page.contains("held by its lifecycle hook until") && page.contains(&expected), "{page}");
    assert_eq!(server.metric(r#"hsdo_balancers{state="current"}"#), Some(1.0));
    let called = hooks.wait_call(&leaving, SOON);
    // AWS's clock has a resolution of a second.
    assert!(called >= held + Duration::from_secs(4), "before the deadline: {:?}", called - held);
    server.wait_log("by SERVER_DRAIN_SECONDS, whatever still ran on it");
    assert_eq!(hooks.calls().len(), 1);
    assert_eq!(client.metric(FAILED), Some(0.0), "{}", client.log());
    drop(stream);
    let _ = client.terminate();
}

/// A client that was killed, and whose report says that it is behind, holds an instance for 30 s and no longer.
#[test]
fn a_dead_balancer_costs_half_a_minute_and_one_that_stops_leaves_no_report() {
    let (bed, [first, _]) = bed("dead");
    let (alive, _alive_client) = balancer(&bed, "lb-1");
    let (dead, mut dead_client) = balancer(&bed, "lb-2");
    let hooks = Hooks::install(&bed, |_| {});
    let mut server = server(&bed).env("SERVER_DRAIN_SECONDS", "600").spawn();
    wait_served(&[&alive, &dead]);
    wait_for("both reports", SOON, || {
        let found = reports(&bed);
        if found.len() == 2 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    server.wait_metric(r#"hsdo_balancers{state="current"}"#, |count| count == 2.0);
    dead_client.kill();
    hooks.hold(&first);
    // Long before the deadline.
    hooks.wait_call(&first, Duration::from_secs(60));
    assert_eq!(server.metric(r#"hsdo_balancers{state="silent"}"#), Some(1.0));
    // One that stops takes its report with it.
    let mut again = client(&bed, &dead).spawn();
    server.wait_metric(r#"hsdo_balancers{state="silent"}"#, |count| count == 0.0);
    assert!(again.terminate().success());
    assert_eq!(reports(&bed).len(), 1, "{:?}", reports(&bed));
}

/// A client is restarted while its HAProxy serves a long request: its report goes and comes back, and nothing is cut.
#[test]
fn a_client_that_is_restarted_cuts_nothing() {
    let (bed, [leaving, _]) = bed("restarted");
    let (first, mut first_client) = balancer(&bed, "lb-1");
    let (second, _second_client) = balancer(&bed, "lb-2");
    let hooks = Hooks::counting(&bed, [&first, &second]);
    let mut server = server(&bed).env("SERVER_DRAIN_SECONDS", "600").spawn();
    wait_served(&[&first, &second]);
    let name = format!("mywebapp{}", slot_of(&bed, &leaving));
    hooks.count_on(&name);
    bed.web().set_behaviour(&leaving, Behaviour::Slow(Duration::from_secs(3)));
    bed.web().set_check_behaviour(&leaving, Behaviour::Well);
    let mut stream = Stream::start(first.frontend(BACK), Duration::from_millis(50), 12);
    wait_for("a long request", SOON, || match sessions(first.socket(), &name) {
        0 => Err("none"),
        count => Ok(count),
    });
    hooks.hold(&leaving);
    server.wait_metric("hsdo_drain_sessions", |count| count > 0.0);
    assert!(first_client.terminate().success());
    wait_for("its report is gone", SOON, || {
        let found = reports(&bed);
        if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    server.wait_turn();
    assert!(hooks.calls().is_empty(), "{}", server.log());
    let _again = client(&bed, &first).spawn();
    hooks.wait_call(&leaving, Duration::from_secs(60));
    assert_eq!(hooks.counted(), [0, 0], "sessions when it was let go");
    let tally = stream.stop();
    assert!(tally.failures.is_empty(), "{tally}");
}

/// A policy that allows hooks of one group alone: the other group's instance waits, and holds back nobody else.
#[test]
fn a_group_that_may_not_be_completed_holds_back_no_other() {
    let (bed, [denied, _]) = bed("two-groups");
    bed.moto().create_group("api", 1, 1);
    bed.serve_instances(&["api"]);
    let allowed = bed.moto().instances("api")[0].id.clone();
    let hooks = Hooks::install(&bed, |_| {});
    let (inner, of_denied) = (hooks.clone(), denied.clone());
    let tried = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tried);
    bed.aws().stub("CompleteLifecycleAction", move |form| {
        if form.contains(&of_denied) {
            count.fetch_add(1, Ordering::SeqCst);
            return (403, refusal("AccessDenied", "by the test"));
        }
        let instance = form.split("InstanceId=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
        lock(&inner.calls).push((instance.to_owned(), Instant::now()));
        inner.states.set(instance, "Terminating:Proceed");
        (200, DONE.to_owned())
    });
    let mut server = server(&bed).env("SERVER_ASG_NAMES", "web,api").env("SERVER_DRAIN_SECONDS", "0").spawn();
    let _ = slot_of(&bed, &allowed);
    hooks.hold(&denied);
    server.wait_log("allow autoscaling:CompleteLifecycleAction in the IAM policy");
    hooks.hold(&allowed);
    hooks.wait_call(&allowed, SOON);
    assert_eq!(tried.load(Ordering::SeqCst), 1, "denied: not tried again every turn");
    assert_eq!(server.log().matches("allow autoscaling:CompleteLifecycleAction").count(), 1, "{}", server.log());
}

/// The leader is killed in the middle of the call, after AWS has taken it: the next one makes no second call.
/// `HSDO_LOST_LEADERS=100` for more.
#[test]
fn a_lost_leader_costs_no_second_call() {
    let rounds = std::env::var("HSDO_LOST_LEADERS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let (bed, [first, _]) = bed("lost-leader");
    let pid = Arc::new(AtomicU32::new(0));
    let hooks = {
        let pid = Arc::clone(&pid);
        Hooks::install(&bed, move |_| {
            let pid = pid.load(Ordering::SeqCst).to_string();
            let killed = std::process::Command::new("kill").args(["-9", &pid]).status();
            assert!(killed.is_ok_and(|status| status.success()));
        })
    };
    let mut instance = first;
    for _ in 0..rounds {
        let mut leader = server(&bed).env("SERVER_DRAIN_SECONDS", "0").spawn();
        pid.store(leader.id(), Ordering::SeqCst);
        leader.wait_metric("hsdo_leader", |leads| leads == 1.0);
        slot_of(&bed, &instance);
        hooks.hold(&instance);
        hooks.wait_call(&instance, SOON);
        leader.process().wait_exit(SOON);
        // The next one leads, sees the instance proceed, and then gone.
        let mut next = server(&bed).spawn();
        next.wait_metric("hsdo_leader", |leads| leads == 1.0);
        next.wait_turn();
        bed.moto().terminate_in_group(&instance, false);
        next.wait_turn();
        assert!(next.terminate().success());
        bed.serve_instances(&["web"]);
        instance = bed.moto().instances("web").last().expect("a new one").id.clone();
    }
    let calls = hooks.calls();
    let instances: BTreeSet<&String> = calls.iter().map(|(instance, _)| instance).collect();
    assert_eq!((calls.len(), instances.len()), (rounds, rounds), "{calls:?}");
}

/// Hooks and report tables as they should not be: each is named once, and costs nothing else.
#[test]
fn what_is_wrong_with_hooks_and_reports_is_said_once_and_harms_nothing() {
    let (bed, [first, second]) = bed("bad-input");
    let (haproxy, mut client) = balancer(&bed, "lb-1");
    let hooks = Hooks::install(&bed, |_| {});
    let mut server = server(&bed).env("SERVER_DRAIN_SECONDS", "600").spawn();
    wait_served(&[&haproxy]);
    let said = |server: &Running, text: &str| server.log().matches(text).count();
    let put = |item: Value| bed.moto().dynamodb("PutItem", &json!({"TableName": REPORTS, "Item": item}));

    // Items that nobody can read: named, and not counted.
    put(json!({"Balancer": {"S": "odd"}, "Seen": {"S": "now"}}));
    put(json!({"Balancer": {"S": "older"}, "Seen": {"N": "1"}, "Sessions": {"L": []}}));
    server.wait_log("reports of load balancers that cannot be read: \"odd\": Seen is not a number; \"older\": Sessions is not a map");

    // AWS denies the call: said once, though it is due every turn.
    bed.aws().inject("CompleteLifecycleAction", Fault::Reply(403, refusal("AccessDenied", "by the test")));
    hooks.hold(&first);
    // The one whose `Seen` can be read counts for 30 s, as it does not change.
    wait_for("the call to be denied", Duration::from_secs(60), || {
        let log = server.log();
        if log.contains("allow autoscaling:CompleteLifecycleAction in the IAM policy") { Ok(()) } else { Err(log) }
    });
    server.wait_turn();
    server.wait_turn();
    assert_eq!(said(&server, "allow autoscaling:CompleteLifecycleAction"), 1, "{}", server.log());
    bed.aws().heal();
    bed.aws().inject("DescribeAutoScalingGroups", hooks.states.fault());

    // The report table is emptied, and then gone: the client writes again, and says so.
    for item in reports(&bed) {
        bed.moto().dynamodb("DeleteItem", &json!({"TableName": REPORTS, "Key": {"Balancer": item["Balancer"]}}));
    }
    wait_for("the report is back", SOON, || {
        let found = reports(&bed);
        if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    bed.moto().dynamodb("DeleteTable", &json!({"TableName": REPORTS}));
    let missing = "table \"reports\" does not exist in eu-west-1: create it with hsdo --create-table, or correct \
                   DYNAMODB_REPORT_TABLE_NAME";
    server.wait_log(missing);
    client.wait_log(missing);
    assert_stays("one line each", Duration::from_secs(2), || {
        let counts = (said(&server, missing), said(&client, missing));
        if counts == (1, 1) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    // Without reports, an instance goes at its deadline, which is far.
    hooks.hold(&second);
    server.wait_turn();
    assert!(hooks.calls().iter().all(|(instance, _)| *instance != second), "{:?}", hooks.calls());
    for role in [&mut server, &mut client] {
        assert_eq!(role.metric(FAILED), Some(0.0), "{}", role.log());
    }
    // Another key: its items are no reports.
    let schema = json!([{"AttributeName": "Id", "KeyType": "HASH"}]);
    bed.moto().dynamodb(
        "CreateTable",
        &json!({"TableName": REPORTS, "KeySchema": schema, "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "Id", "AttributeType": "S"}]}),
    );
    let create = with_reports(Hsdo::with_aws(&bed, "create")).arg("--create-table").run();
    create
        .assert_code(2)
        .assert_stderr("is not a table of reports of load balancers: its key must be Balancer (string) alone");
}
