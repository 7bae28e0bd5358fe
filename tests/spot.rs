//! Spot instances that EC2 is about to interrupt. moto interrupts none: the proxy says which instances are Spot, and answers
//! `DescribeSpotInstanceRequests` in its place. HAProxy: `check inter 100ms rise 2 fall 2`, round robin.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use common::aws_proxy::Fault;
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::http::lock;
use common::moto::text_of;
use common::traffic::Stream;
use common::wait::{SOON, wait_for};

const BACK: &str = "http-back";
const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;
const REQUESTS: &str = "DescribeSpotInstanceRequests";
const CODE: &str = "instance-terminated-no-capacity";
/// More than the 10 s after which a failed question is asked again.
const LONG: Duration = Duration::from_secs(60);

/// The instances that are announced, with the status codes of their requests.
type Announced = Arc<Mutex<BTreeMap<String, String>>>;

/// A group `web` of so many Spot instances.
fn bed(name: &str, count: usize) -> (Bed, Vec<String>, Announced) {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, count);
    bed.serve_instances(&["web"]);
    all_are_spot(&bed);
    let announced = Announced::default();
    let known = Arc::clone(&announced);
    bed.aws().stub(REQUESTS, move |_| {
        let item = |(id, code): (&String, &String)| {
            format!(
                "<item><state>closed</state><status><code>{code}</code></status><instanceId>{id}</instanceId></item>"
            )
        };
        let items: String = lock(&known).iter().map(item).collect();
        let set = format!("<spotInstanceRequestSet>{items}</spotInstanceRequestSet>");
        (200, format!("<DescribeSpotInstanceRequestsResponse>{set}</DescribeSpotInstanceRequestsResponse>"))
    });
    let ids = bed.moto().instances("web").into_iter().map(|instance| instance.id).collect();
    (bed, ids, announced)
}

fn all_are_spot(bed: &Bed) {
    let spot = "</instanceId><instanceLifecycle>spot</instanceLifecycle>";
    bed.aws().inject("DescribeInstances", Fault::replace("</instanceId>", spot));
}

fn announce(announced: &Announced, id: &str, code: &str) {
    lock(announced).insert(id.to_owned(), code.to_owned());
}

/// A table of three slots, in which new servers have their full weight at once.
fn settings(hsdo: Hsdo) -> Hsdo {
    hsdo.env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "3").env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
}

#[track_caller]
fn wait_table(bed: &Bed, deadline: Duration, wanted: &[(&String, &str)]) {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(id, weight)| ((*id).clone(), (*weight).into())).collect();
    wait_for(&format!("the weights {wanted:?}"), deadline, || {
        let rows = bed.moto().rows();
        let mut found: BTreeMap<String, String> =
            rows.values().filter_map(|item| Some((text_of(item, "ServerName")?, text_of(item, "Weight")?))).collect();
        found.remove("none");
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn status(role: &Running) -> Value {
    serde_json::from_str(&role.get("/status").expect("an exporter").1).expect("JSON")
}

#[test]
fn an_instance_that_is_announced_drains_while_its_group_has_it_in_service() {
    let (bed, web, announced) = bed("spot", 3);
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 3)]);
    // A newcomer that is announced gets no slot, and the others do.
    announce(&announced, &web[2], CODE);
    let mut server = settings(Hsdo::server(&bed)).spawn();
    let mut client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "3").spawn();
    haproxy.wait_weights(BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    let left = &status(&server)["left_out"][0];
    let reason = format!("gets no slot: Spot interruption notice ({CODE})");
    assert_eq!((&left["instance"], &left["reason"]), (&web[2].as_str().into(), &reason.as_str().into()), "{left}");
    lock(&announced).clear();
    let all = [("mywebapp1", 10), ("mywebapp2", 10), ("mywebapp3", 10)];
    haproxy.wait_weights(BACK, &all);

    let mut requests = Stream::start(haproxy.frontend(BACK), Duration::from_millis(5), usize::MAX);
    announce(&announced, &web[0], CODE);
    // What means nothing: requests of an instance that is in no group, of another that merely goes on, and of a scale-in.
    announce(&announced, "i-0123456789abcdef0", CODE);
    announce(&announced, &web[1], "request-canceled-and-instance-running");
    announce(&announced, &web[2], "instance-terminated-by-user");
    haproxy.wait_weights(BACK, &all[1..]);
    assert_eq!(bed.moto().instances("web")[0].lifecycle, "InService");
    let word = format!("Spot interruption notice ({CODE})");
    let report = status(&server);
    let slot = &report["slots"][0];
    assert_eq!(
        (&slot["cause"], &slot["reason"]),
        (&"draining".into(), &format!("takes no new traffic: {word}").as_str().into())
    );
    let (_, page) = server.get("/").expect("an exporter");
    assert!(page.contains(&word), "{page}");
    let asked = |hsdo: Hsdo| settings(hsdo).env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web");
    let why = asked(Hsdo::with_aws(&bed, "why").arg("why").arg(&web[0])).run();
    why.assert_code(0).assert_stdout(&format!("takes no new traffic: {word}"));
    server.wait_turn();

    // A whole answer without it: it serves again.
    lock(&announced).remove(&web[0]);
    haproxy.wait_weights(BACK, &all);
    client.wait_turn();
    let tally = requests.stop();
    assert!(tally.failures.is_empty() && tally.answered() > 0, "{tally}");
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());

    let check = || asked(Hsdo::with_aws(&bed, "check").arg("check").arg("--server"));
    check().run().assert_stdout("ec2:DescribeSpotInstanceRequests: allowed");
    bed.aws().inject(REQUESTS, Fault::ec2(403, "UnauthorizedOperation", "You are not authorized"));
    let denied = check().run();
    denied.assert_code(0).assert_stdout("ec2:DescribeSpotInstanceRequests: denied");
    denied.assert_stdout("or set SERVER_SPOT_NOTICE to false");
    // `why` names the failed call on a line of its own, and concludes from the rest.
    let why = asked(Hsdo::with_aws(&bed, "why").arg("why").arg(&web[0])).run();
    why.assert_code(0).assert_stdout("EC2 DescribeSpotInstanceRequests of interruptions at").assert_stdout("serving");
    let off = check().env("SERVER_SPOT_NOTICE", "false").run();
    assert!(!off.stdout.contains(REQUESTS), "{off}");
}

/// One call a turn, and none without a Spot instance or with the setting off.
#[test]
fn nobody_is_asked_about_interruptions_without_need() {
    let (bed, web, announced) = bed("spot-need", 1);
    announce(&announced, &web[0], CODE);
    {
        let mut server = settings(Hsdo::server(&bed)).env("SERVER_SPOT_NOTICE", "false").spawn();
        wait_table(&bed, SOON, &[(&web[0], "10")]);
        server.wait_turn();
    }
    bed.aws().heal();
    let mut server = settings(Hsdo::server(&bed)).spawn();
    server.wait_turn();
    assert_eq!(bed.aws().count(REQUESTS), 0);
    let check = settings(Hsdo::with_aws(&bed, "check").arg("check").arg("--server"));
    let check = check.env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web").run();
    assert!(!check.stdout.contains(REQUESTS), "{check}");
    all_are_spot(&bed);
    // The only one serves on, though it drains.
    server.wait_metric("hsdo_last_resort_servers", |count| count == 1.0);
    bed.aws().forget();
    for _ in 0..3 {
        server.wait_turn();
    }
    let (asked, turns) = (bed.aws().count(REQUESTS), bed.aws().count("DescribeInstances"));
    assert!(turns >= 6 && (turns - 1..=turns + 1).contains(&asked), "{asked} in {turns} turns");
}

/// The mark is gone from EC2's answer, but the answer does not come, and `more` times again: the mark stands, and turns go on.
#[track_caller]
fn assert_told_once(name: &str, fault: Fault, more: usize, says: &str) {
    let (bed, web, announced) = bed(name, 2);
    let mut server = settings(Hsdo::server(&bed)).spawn();
    wait_table(&bed, SOON, &[(&web[0], "10"), (&web[1], "10")]);
    announce(&announced, &web[0], CODE);
    wait_table(&bed, SOON, &[(&web[0], "0"), (&web[1], "10")]);
    bed.aws().inject(REQUESTS, fault);
    lock(&announced).clear();
    let trouble = "Spot interruption notices: none are heard of, and those known stand";
    server.wait_log(trouble);
    bed.aws().forget();
    wait_for("more questions", LONG, || match bed.aws().count(REQUESTS) {
        asked if asked < more => Err(server.log()),
        _ => Ok(()),
    });
    server.wait_turn();
    let log = server.log();
    assert_eq!(log.matches(trouble).count(), 1, "{log}");
    assert!(log.contains(says), "{log}");
    wait_table(&bed, Duration::ZERO, &[(&web[0], "0"), (&web[1], "10")]);
    assert_eq!(server.metric(FAILED), Some(0.0), "{log}");
    bed.aws().heal();
    all_are_spot(&bed);
    wait_table(&bed, LONG, &[(&web[0], "10"), (&web[1], "10")]);
    wait_for("the end of it in the log", LONG, || {
        let log = server.log();
        if log.contains("Spot interruption notices: recovered after") { Ok(()) } else { Err(log) }
    });
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}

#[test]
fn a_denial_is_told_once_with_both_remedies_and_the_marks_stand() {
    let denied = Fault::ec2(403, "UnauthorizedOperation", "You are not authorized to perform this operation");
    let says = "; allow ec2:DescribeSpotInstanceRequests in the IAM policy of these credentials (request r); or set \
                SERVER_SPOT_NOTICE to false";
    assert_told_once("spot-denied", denied, 1, says);
}

#[test]
fn an_unreadable_answer_is_told_and_the_marks_stand() {
    assert_told_once("spot-garbage", Fault::Garbage, 0, "unreadable response");
}

#[test]
fn a_question_that_hangs_is_told_and_the_marks_stand() {
    assert_told_once("spot-hang", Fault::Hang, 0, "timed out");
}
