//! Tests of the test bed: moto, HAProxy and the proxies do what the other tests assume.

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use common::aws_proxy::{AwsProxy, Chance, Fault};
use common::bed::{Bed, package_dir};
use common::haproxy::{BackendConfig, Haproxy, Server, program};
use common::moto::text_of;
use common::tap::{Replacement, SocketFault, Tap};
use common::wait::{SOON, wait_for, wait_until};
use common::web::Behaviour;
use common::{hsdo, traffic};

fn ids(bed: &Bed, group: &str) -> Vec<String> {
    bed.moto().instances(group).into_iter().map(|instance| instance.id).collect()
}

#[test]
fn groups_of_moto_have_instances_on_loopback_addresses() {
    let bed = Bed::new("groups");
    let moto = bed.moto();
    moto.create_group("web-a", 0, 3);
    moto.create_group("web-b", 1, 2);
    moto.create_group("none", 1, 0);
    for (group, network, count) in [("web-a", "127.1.0.", 3), ("web-b", "127.1.16.", 2), ("none", "", 0)] {
        let instances = moto.instances(group);
        assert_eq!(instances.len(), count, "{group}: {instances:?}");
        for instance in &instances {
            assert!(instance.address.to_string().starts_with(network), "{instance:?}");
            assert_eq!((instance.lifecycle.as_str(), instance.health.as_str()), ("InService", "Healthy"));
        }
    }

    moto.set_desired("web-a", 5);
    assert_eq!(ids(&bed, "web-a").len(), 5);
    moto.set_desired("web-a", 1);
    assert_eq!(ids(&bed, "web-a").len(), 1);
    moto.delete_group("web-a");
    let left = moto.autoscaling("DescribeAutoScalingGroups", &[]);
    assert!(!left.contains("web-a") && left.contains("web-b"), "{left}");
}

#[test]
fn instances_go_to_standby_fall_ill_and_are_replaced() {
    let bed = Bed::new("lifecycle");
    let moto = bed.moto();
    moto.create_group("web", 0, 3);
    let before = ids(&bed, "web");
    let lifecycle = |id: &str| {
        let all = moto.instances("web");
        all.into_iter().find(|instance| instance.id == id).map(|instance| (instance.lifecycle, instance.health))
    };
    let state = |lifecycle: &str, health: &str| Some((lifecycle.to_owned(), health.to_owned()));

    moto.enter_standby("web", &before[0]);
    assert_eq!(lifecycle(&before[0]), state("Standby", "Healthy"));
    moto.exit_standby("web", &before[0]);
    assert_eq!(lifecycle(&before[0]), state("InService", "Healthy"));

    moto.set_instance_health(&before[1], "Unhealthy");
    assert_eq!(lifecycle(&before[1]), state("InService", "Unhealthy"));
    moto.set_instance_health(&before[1], "Healthy");
    assert_eq!(lifecycle(&before[1]), state("InService", "Healthy"));

    moto.terminate_in_group(&before[2], false);
    let replaced = ids(&bed, "web");
    assert!(replaced.len() == 3 && !replaced.contains(&before[2]), "{before:?} became {replaced:?}");
    moto.terminate_in_group(&replaced[0], true);
    assert_eq!(ids(&bed, "web").len(), 2);
}

#[test]
fn the_table_of_moto_holds_what_was_put() {
    let bed = Bed::new("table");
    let moto = bed.moto();
    moto.create_table();
    moto.put_server(1, "127.1.0.4", "i-1", Some("web"), 7);
    moto.put_server(2, "127.1.0.5", "i-2", None, 3);
    moto.put_free(10);
    let items = moto.items();
    assert_eq!(items.keys().copied().collect::<Vec<_>>(), [1, 2, 10]);
    assert_eq!(text_of(&items[&1], "ASG").as_deref(), Some("web"));
    assert_eq!(text_of(&items[&2], "ASG"), None);
    assert_eq!(text_of(&items[&10], "IPAddress").as_deref(), Some("none"));

    moto.update_item(2, &json!({"Weight": {"N": "9"}, "Extra": {"S": "kept"}}));
    assert_eq!(moto.attribute(2, "Weight").as_deref(), Some("9"));
    assert_eq!(moto.attribute(2, "Extra").as_deref(), Some("kept"));
    assert_eq!(moto.attribute(2, "IPAddress").as_deref(), Some("127.1.0.5"));
    moto.delete_item(1);
    assert_eq!(moto.attribute(1, "Weight"), None);
}

#[test]
fn haproxy_is_read_commanded_killed_and_started_again() {
    let bed = Bed::new("haproxy");
    let backends =
        [BackendConfig::new("http-back", "mywebapp", 4), BackendConfig::new("api-back", "api", 2).unchecked()];
    let mut haproxy = Haproxy::start(&bed, &backends);
    assert_eq!(haproxy.servers("http-back").len(), 4);
    assert!(haproxy.servers("api-back").values().all(Server::in_maintenance));

    for (n, name) in ["one", "two"].iter().enumerate() {
        let address = format!("127.1.0.{}", 10 + n);
        bed.web().serve(name, address.parse().unwrap());
        let (server, port) = (format!("http-back/mywebapp{}", n + 1), bed.web().port());
        haproxy.command(&format!("set server {server} addr {address} port {port};set server {server} weight 5"));
        haproxy.command(&format!("set server {server} state ready"));
    }
    wait_for("both servers to be up", SOON, || match haproxy.active("http-back") {
        names if names == ["mywebapp1", "mywebapp2"] => Ok(()),
        names => Err(format!("{names:?}")),
    });
    let first = haproxy.server("http-back", "mywebapp1");
    assert_eq!((first.weight, first.addr), (5, format!("127.1.0.10:{}", bed.web().port())));

    let tally = traffic::send(haproxy.frontend("http-back"), 10);
    assert_eq!((tally.of("one"), tally.of("two"), tally.failures.len()), (5, 5, 0), "{tally}");
    assert_eq!(bed.web().requests()["one"], 5);
    bed.web().set_behaviour("two", Behaviour::Status(500));
    let tally = traffic::send(haproxy.frontend("http-back"), 10);
    assert_eq!((tally.of("one"), tally.failures.len()), (5, 5), "{tally}");
    bed.web().stop("two");
    wait_until("the closed port to be seen", SOON, || {
        haproxy.server("http-back", "mywebapp2").status.starts_with("DOWN").then_some(())
    });

    haproxy.kill();
    assert!(haproxy.try_command("show info").is_err());
    assert!(UnixStream::connect(haproxy.socket()).is_err(), "a killed HAProxy refuses");
    assert_eq!(traffic::send(haproxy.frontend("http-back"), 2).failures.len(), 2);
    haproxy.restart();
    assert!(haproxy.servers("http-back").values().all(Server::in_maintenance));
}

#[test]
fn haproxy_forgets_its_servers_when_it_reloads() {
    let bed = Bed::new("reload");
    let mut haproxy = Haproxy::start_master_worker(&bed, &[BackendConfig::new("http-back", "mywebapp", 2)]);
    haproxy.command("set server http-back/mywebapp1 addr 127.1.0.9 port 81;set server http-back/mywebapp1 weight 9");
    assert_eq!(haproxy.server("http-back", "mywebapp1").addr, "127.1.0.9:81");
    haproxy.reload();
    assert_eq!(haproxy.server("http-back", "mywebapp1").addr, "127.0.0.2:80");
}

#[test]
fn the_tap_records_what_is_sent_and_can_spoil_it() {
    let bed = Bed::new("tap");
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 2)]);
    let tap = Tap::start(bed.dir().join("tap.sock"), haproxy.socket());
    let ask = |line: &str| {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(tap.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream.write_all(line.as_bytes())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).map(|_| reply)
    };
    let whole = ask("show stat http-back 4 -1\n").unwrap();
    assert!(whole.starts_with("# pxname") && whole.ends_with("\n\n"), "{whole}");
    ask("set server http-back/mywebapp1 weight 3;set server http-back/mywebapp2 weight 4\n").unwrap();
    assert_eq!(tap.changes(), ["set server http-back/mywebapp1 weight 3", "set server http-back/mywebapp2 weight 4"]);
    assert_eq!((tap.connections(), tap.lines().len()), (2, 2));
    assert_eq!(haproxy.server("http-back", "mywebapp2").weight, 4);

    tap.set_fault(SocketFault::Cut(20));
    assert_eq!(ask("show stat http-back 4 -1\n").unwrap(), whole[..20]);
    tap.set_fault(SocketFault::Silent);
    assert!(ask("show info\n").is_err());
    tap.set_fault(SocketFault::Closed);
    assert!(!ask("show info\n").is_ok_and(|reply| !reply.is_empty()));
    tap.set_fault(SocketFault::Slow(Duration::from_millis(100)));
    let from = Instant::now();
    assert!(ask("show info\n").unwrap().contains("Pid: "));
    assert!(from.elapsed() >= Duration::from_millis(100));
    tap.forget();
    assert_eq!((tap.connections(), tap.commands().len()), (0, 0));
}

#[test]
fn the_tap_carries_out_half_a_line_a_line_without_its_reply_or_none() {
    let bed = Bed::new("tap-faults");
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 2)]);
    let tap = Tap::start(bed.dir().join("tap.sock"), haproxy.socket());
    let ask = |line: &str| {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(tap.path())?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(line.as_bytes())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).map(|_| reply)
    };
    let weight = |weight: u32| format!("set server http-back/mywebapp1 weight {weight}\n");
    let running = || haproxy.server("http-back", "mywebapp1").weight;
    for (way, carried_out) in [
        (SocketFault::Lost, true),
        (SocketFault::Mute, true),
        (SocketFault::Trickle, true),
        (SocketFault::Half(40), false),
        (SocketFault::Silent, false),
        (SocketFault::Denied, false),
        (SocketFault::Garbage, false),
        (SocketFault::Reset, false),
    ] {
        ask(&weight(1)).unwrap();
        tap.set_fault(way);
        let reply = ask(&weight(9));
        tap.heal();
        assert_eq!(running(), if carried_out { 9 } else { 1 }, "{way:?}: {reply:?}");
        match way {
            SocketFault::Trickle => assert_eq!(reply.unwrap(), "\n"),
            SocketFault::Denied => assert_eq!(reply.unwrap(), "Permission denied\n\n"),
            _ => assert!(!reply.is_ok_and(|reply| reply.contains('\n')), "{way:?}"),
        }
    }
    tap.set_fault_on_changes(SocketFault::Denied);
    assert!(ask("show info\n").unwrap().contains("Pid: "), "what changes nothing goes through");
    assert!(ask(&weight(9)).unwrap().contains("denied"));
    for (behind, kind) in [
        (Replacement::Nothing, std::io::ErrorKind::NotFound),
        (Replacement::NoListener, std::io::ErrorKind::ConnectionRefused),
        (Replacement::File, std::io::ErrorKind::ConnectionRefused),
    ] {
        tap.replace_socket(behind);
        assert_eq!(ask("show info\n").unwrap_err().kind(), kind, "{behind:?}");
        tap.heal();
        assert!(ask("show info\n").unwrap().contains("Pid: "));
    }
}

#[test]
fn a_seed_decides_which_calls_meet_which_fault() {
    let proxy = AwsProxy::start("http://127.0.0.1:1");
    proxy.stub("Describe", |_| (200, "fine".to_owned()));
    let ask = || call_as(&proxy, None, "Action=Describe&Version=1").map(|answer| answer.0);
    let run = |seed| {
        let chance = |percent, fault| Chance { operation: "Describe".to_owned(), percent, fault };
        proxy.schedule(seed, vec![chance(30, Fault::Reply(500, String::new())), chance(30, Fault::Close)]);
        (0..40).map(|_| ask()).map(|answer| answer.map_err(drop)).collect::<Vec<_>>()
    };
    let (first, again, other) = (run(1), run(1), run(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    for outcome in [Ok(200), Ok(500), Err(())] {
        assert!(first.contains(&outcome), "{outcome:?} is not in {first:?}");
    }
    proxy.heal();
    assert_eq!(ask(), Ok(200));
    proxy.refuse();
    assert!(ask().unwrap_err().contains("refused"));
    proxy.heal();
    assert_eq!(ask(), Ok(200));
    assert_eq!(
        proxy.struck().keys().collect::<Vec<_>>(),
        ["* refused", "Describe 500 without a code", "Describe close"]
    );
}

#[test]
fn the_proxy_gives_old_answers_and_holds_answers_back() {
    let proxy = AwsProxy::start("http://127.0.0.1:1");
    let count = std::sync::atomic::AtomicU32::new(0);
    proxy.stub("Describe", move |_| (200, count.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_string()));
    let ask = || call_as(&proxy, None, "Action=Describe&Version=1").map(|answer| answer.1);
    assert_eq!([ask(), ask(), ask()].map(Result::unwrap), ["0", "1", "2"]);
    proxy.inject_times("Describe", Fault::Stale, 1);
    let old: u32 = ask().unwrap().parse().unwrap();
    assert!(old < 3, "{old}");
    assert_eq!(ask().unwrap(), "3");
    proxy.inject("Describe", Fault::Hold);
    let held = std::thread::scope(|scope| {
        let held = scope.spawn(ask);
        wait_until("the answer to be held back", SOON, || (proxy.hanging() == 1).then_some(()));
        proxy.heal();
        held.join().unwrap()
    });
    assert_eq!(held.unwrap(), "4", "it was carried out before");
    assert_eq!(ask().unwrap(), "5");
}

fn call(proxy: &AwsProxy, operation: &str, body: &str) -> Result<(u16, String), String> {
    call_as(proxy, Some(operation), body)
}

/// For DynamoDB (`Some`), or a service that names its operation in the body.
fn call_as(proxy: &AwsProxy, operation: Option<&str>, body: &str) -> Result<(u16, String), String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(2)))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let mut request = ureq::Agent::new_with_config(config).post(proxy.url());
    if let Some(operation) = operation {
        request = request.header("X-Amz-Target", format!("DynamoDB_20120810.{operation}"));
    }
    let mut answer = request
        .header(
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=t/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=x",
        )
        .send(body)
        .map_err(|error| error.to_string())?;
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    Ok((answer.status().as_u16(), text))
}

#[test]
fn the_proxy_records_calls_and_spoils_those_it_is_told_to() {
    let bed = Bed::new("proxy");
    bed.moto().create_table();
    bed.moto().put_free(1);
    let proxy = bed.aws();
    let scan = || call(proxy, "Scan", r#"{"TableName": "hsdo"}"#);
    let (status, plain) = scan().unwrap();
    assert!(status == 200 && plain.contains("BackendServerID"), "{plain}");

    proxy.inject_times("Scan", Fault::dynamodb(400, "ThrottlingException"), 1);
    assert!(scan().is_ok_and(|(status, body)| status == 400 && body.contains("ThrottlingException")));
    proxy.inject_times("DescribeTable", Fault::Close, 1);
    assert_eq!(scan().unwrap().1, plain);
    for (fault, failed) in [
        (Fault::Close, true),
        (Fault::Lose, true),
        (Fault::Cut, true),
        (Fault::Empty, false),
        (Fault::Garbage, false),
        (Fault::replace("BackendServerID", "Other"), false),
    ] {
        let name = format!("{fault:?}");
        proxy.inject_times("*", fault, 1);
        let answer = scan();
        assert_eq!(answer.is_err(), failed, "{name}: {answer:?}");
        assert!(!answer.is_ok_and(|(_, body)| body == plain), "{name}");
    }
    proxy.inject("Scan", Fault::Hang);
    assert!(scan().is_err_and(|error| error.contains("timeout")));
    proxy.heal();
    proxy.inject_times("Scan", Fault::Delay(Duration::from_millis(200)), 1);
    let from = Instant::now();
    assert_eq!(scan().unwrap().1, plain);
    assert!(from.elapsed() >= Duration::from_millis(200));

    assert_eq!(proxy.count("Scan"), 11);
    assert!(proxy.calls().iter().all(|call| call.body.contains("hsdo")) && proxy.connections() >= 11);
    proxy.forget();
    assert_eq!(proxy.count("Scan"), 0);
}

#[test]
fn a_repeated_transaction_gets_its_first_answer() {
    let bed = Bed::new("token");
    bed.moto().create_table();
    let transaction = json!({
        "ClientRequestToken": "token-1",
        "TransactItems": [{"Update": {
            "TableName": "hsdo",
            "Key": {"BackendServerID": {"N": "1"}},
            "UpdateExpression": "ADD Weight :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }}],
    })
    .to_string();
    bed.aws().inject_times("TransactWriteItems", Fault::Lose, 1);
    assert!(call(bed.aws(), "TransactWriteItems", &transaction).is_err());
    assert_eq!(call(bed.aws(), "TransactWriteItems", &transaction).unwrap().0, 200);
    assert_eq!(bed.moto().attribute(1, "Weight").as_deref(), Some("1"), "it was done once");
}

#[test]
fn haproxy_accepts_the_example_configuration() {
    let bed = Bed::new("example");
    let text = std::fs::read_to_string(package_dir().join("conf/haproxy.cfg")).unwrap();
    // Debian's package creates this user; a HAProxy from elsewhere may not.
    let text: Vec<&str> =
        text.lines().filter(|line| !matches!(line.trim(), "user haproxy" | "group haproxy")).collect();
    let config = bed.file("example.cfg", &format!("{}\n", text.join("\n")));
    let checked = std::process::Command::new(program()).arg("-c").arg("-f").arg(config).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && !said.contains("WARNING"), "{said}");
}

#[test]
fn a_metric_is_found_by_its_whole_name() {
    let text = "# HELP a b\nhsdo_turns_total{result=\"ok\"} 12\nhsdo_turns_total 1\nhsdo_unplaced_servers 0\n";
    assert_eq!(hsdo::value_of(text, r#"hsdo_turns_total{result="ok"}"#), Some(12.0));
    assert_eq!(hsdo::value_of(text, "hsdo_turns_total"), Some(1.0));
    assert_eq!(hsdo::value_of(text, "hsdo_turns"), None);
}
