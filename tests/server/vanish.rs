//! Servers that have left every group: one that has ended, or was detached, goes at once; many at once that still run
//! do not.

use std::sync::Arc;

use super::fixture::{FAILED, OK, bed, ids, seats, settle, steady, wait_seats};
use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::hsdo::Running;
use crate::common::wait::{SOON, wait_for, wait_until};

const GUARDED: &str = "hsdo_removal_guard_slots";

/// Detaches instances; they keep running.
fn detach(bed: &Bed, group: &str, ids: &[String]) {
    let names: Vec<String> = (1..=ids.len()).map(|number| format!("InstanceIds.member.{number}")).collect();
    let mut parameters = vec![("AutoScalingGroupName", group), ("ShouldDecrementDesiredCapacity", "true")];
    parameters.extend(names.iter().map(String::as_str).zip(ids.iter().map(String::as_str)));
    bed.moto().autoscaling("DetachInstances", &parameters);
}

/// A complete response in which every group is empty.
fn empty_groups() -> Fault {
    Fault::Edit(Arc::new(|body| {
        let Some((head, rest)) = body.split_once("<Instances>") else { return body };
        let tail = rest.split_once("</Instances>").map_or(rest, |(_, tail)| tail);
        format!("{head}<Instances></Instances>{tail}")
    }))
}

/// Waits for that many more successful turns.
fn wait_turns(server: &mut Running, count: f64) {
    let before = server.metric(OK).unwrap_or(0.0);
    server.wait_metric(OK, |turns| turns >= before + count);
}

#[test]
fn an_answer_by_which_the_groups_are_empty_empties_nothing_at_once() {
    let bed = bed("bogus", &[("web", 5)]);
    let web = ids(&bed, "web");
    let all: Vec<(u32, &str)> = (1..).zip(web.iter().map(String::as_str)).collect();
    let mut server = steady(&bed, 6).spawn();
    wait_seats(&bed, &all);
    settle(&bed, &mut server);
    let before = bed.moto().rows();
    bed.aws().inject("DescribeAutoScalingGroups", empty_groups());
    server.wait_metric(GUARDED, |count| count == 5.0);
    wait_turns(&mut server, 5.0);
    assert_eq!(bed.moto().rows(), before);
    server.wait_log("no group lists the servers in slots 1, 2, 3, 4, 5 any more");

    // Those that end meanwhile go at once, and new instances are seated.
    bed.moto().ec2("TerminateInstances", &[("InstanceId.1", &web[1])]);
    wait_seats(&bed, &[all[0], all[2], all[3], all[4]]);
    bed.aws().heal();
    server.wait_metric(GUARDED, |count| count == 0.0);
    server.wait_log("no server is kept by SERVER_REMOVAL_GUARD any more");
    assert_eq!(
        server.log().matches("no group lists the servers in slots 1, 2, 3, 4, 5").count(),
        1,
        "{}",
        server.log()
    );

    // A single turn would empty the table: `--once` keeps the servers, and says so.
    bed.aws().inject("DescribeAutoScalingGroups", empty_groups());
    drop(server);
    let before = seats(&bed);
    steady(&bed, 6).once().assert_code(0).assert_stderr("SERVER_REMOVAL_GUARD");
    assert_eq!(seats(&bed), before);
    steady(&bed, 6).env("SERVER_REMOVAL_GUARD", "0").once().assert_code(0);
    wait_seats(&bed, &[]);
}

#[test]
fn many_that_are_detached_go_when_answers_have_said_so_for_long_enough() {
    let bed = bed("detached", &[("web", 6)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 6).env("SERVER_REMOVAL_GUARD", "2").spawn();
    let all: Vec<(u32, &str)> = (1..).zip(web.iter().map(String::as_str)).collect();
    wait_seats(&bed, &all);
    // A few are not guarded.
    detach(&bed, "web", &web[4..]);
    wait_seats(&bed, &all[..4]);
    assert!(!server.log().contains("SERVER_REMOVAL_GUARD"), "{}", server.log());

    detach(&bed, "web", &web[..3]);
    server.wait_metric(GUARDED, |count| count == 3.0);
    assert_eq!(seats(&bed).len(), 4);
    // Failed turns count for nothing.
    let failed = server.metric(FAILED).unwrap_or(0.0);
    bed.aws().inject("DescribeInstances", Fault::Reply(500, String::new()));
    server.wait_metric(FAILED, |count| count > failed);
    bed.aws().heal();
    wait_seats(&bed, &all[3..4]);
    server.wait_metric(GUARDED, |count| count == 0.0);
}

/// EC2 reports terminated instances for an hour.
#[test]
fn a_real_scale_in_is_not_delayed() {
    let bed = bed("scale-in", &[("web", 6)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 6).spawn();
    wait_for("six seats", SOON, || if seats(&bed).len() == 6 { Ok(()) } else { Err("not yet") });
    bed.moto().set_desired("web", 1);
    let left = ids(&bed, "web");
    let slot = (1..).zip(&web).find(|(_, id)| **id == left[0]).map_or(0, |(slot, _)| slot);
    wait_seats(&bed, &[(slot, &left[0])]);
    server.wait_turn();
    assert!(!server.log().contains("SERVER_REMOVAL_GUARD"), "{}", server.log());
}

#[test]
fn other_groups_in_the_settings_empty_the_table_not_at_once() {
    let bed = bed("other-groups", &[("web", 4), ("other", 3)]);
    let (web, other) = (ids(&bed, "web"), ids(&bed, "other"));
    steady(&bed, 8).env("SERVER_ASG_NAMES", "web").once().assert_code(0);
    let mut server = steady(&bed, 8).env("SERVER_ASG_NAMES", "other").spawn();
    let both: Vec<(u32, &str)> = (1..).zip(web.iter().chain(&other).map(String::as_str)).collect();
    wait_seats(&bed, &both);
    server.wait_metric(GUARDED, |count| count == 4.0);
}

#[test]
fn a_steady_turn_makes_three_calls_whoever_is_in_the_table() {
    let bed = bed("calls", &[("web", 5)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 6).spawn();
    wait_for("five seats", SOON, || if seats(&bed).len() == 5 { Ok(()) } else { Err("not yet") });
    settle(&bed, &mut server);
    let count = |server: &mut Running| -> Vec<usize> {
        bed.aws().forget();
        wait_turns(server, 10.0);
        let calls = bed.aws().calls();
        let beat = |operation: &str| operation == "UpdateItem";
        let operations: Vec<&str> =
            calls.iter().map(|call| call.operation.as_str()).filter(|operation| !beat(operation)).collect();
        // From the first request for the groups to the last, the turns are whole.
        let groups = "DescribeAutoScalingGroups";
        let first = operations.iter().position(|one| *one == groups).unwrap_or(0);
        let last = operations.iter().rposition(|one| *one == groups).unwrap_or(0);
        assert!(
            operations[first..last].chunks(3).all(|turn| turn == [groups, "DescribeInstances", "Scan"]),
            "{operations:?}"
        );
        let asked = calls.iter().filter(|call| call.operation == "DescribeInstances");
        asked.map(|call| call.body.matches("InstanceId.").count()).collect()
    };
    assert!(count(&mut server).iter().all(|asked| *asked == 5));
    // Held by the guard: no group lists them, and EC2 is still asked about them.
    detach(&bed, "web", &web[..3]);
    server.wait_metric(GUARDED, |count| count == 3.0);
    assert!(count(&mut server).iter().all(|asked| *asked == 5));
}

/// Rows may be written by hand, or by a server that follows Consul.
#[test]
fn names_that_are_no_instances_fail_no_turn() {
    let bed = bed("names", &[("web", 3)]);
    let web = ids(&bed, "web");
    let names = ["node-1", "i-0123456789abcdef0", "i-0123abcd", "i-nonsense' and more"];
    for (slot, name) in (5..).zip(names) {
        bed.moto().put_server(slot, &format!("127.1.5.{slot}"), name, Some("old"), 0);
        bed.moto().update_item(slot, &serde_json::json!({"BackendServerStatus": {"S": "draining"}}));
    }
    let mut server = steady(&bed, 9).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &web[2])]);
    settle(&bed, &mut server);
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());

    // Rejected again and again, without even naming the id.
    bed.moto().put_server(5, "127.1.5.1", "i-0123456789abcdef0", Some("old"), 3);
    let malformed = |request: &str| -> bool { request.contains("i-0123456789abcdef0") };
    wait_until("it to be freed", SOON, || (!seats(&bed).contains_key(&5)).then_some(()));
    assert!(bed.aws().calls().iter().any(|call| call.operation == "DescribeInstances" && malformed(&call.body)));
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}
