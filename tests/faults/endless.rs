//! Responses that never end: the turn does, and memory stays bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fixture::{FAILED, OK};
use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::hsdo::{Hsdo, Running};
use crate::common::wait::wait_for;

/// Longer than any task's share of a turn.
const LONG: Duration = Duration::from_secs(60);
/// The memory that a response may cost, in KiB: the longest body, and what is parsed of it.
const MOST: u64 = 192 * 1024;

/// A server with two slots, and its rows.
fn bed(name: &str) -> (Bed, Running) {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    let mut server = Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10").spawn();
    server.wait_turn();
    (bed, server)
}

/// Each fault ends a turn and changes nothing, and work continues once it is over.
fn survives(bed: &Bed, server: &mut Running, operation: &str, what: &str, fault: Fault) {
    let (before, failed) = (bed.moto().rows(), server.metric(FAILED).unwrap_or(0.0));
    bed.aws().inject(operation, fault);
    wait_for(&format!("{what} of {operation} to end a turn"), LONG, || {
        server.process().assert_running();
        server.metric(FAILED).filter(|now| *now > failed).ok_or_else(|| server.log())
    });
    bed.aws().heal();
    let turns = server.metric(OK).unwrap_or(0.0);
    wait_for("a turn that succeeds", LONG, || server.metric(OK).filter(|now| *now > turns).ok_or_else(|| server.log()));
    assert_eq!(bed.moto().rows(), before, "{what} of {operation}");
    let most = server.status_number("VmHWM");
    assert!(most < MOST, "{what} of {operation}: {most} KiB");
}

/// Every page names another, new one.
#[test]
fn pages_that_never_end_are_no_answer() {
    let (bed, mut server) = bed("pages");
    let count = Arc::new(AtomicUsize::new(0));
    let pages = |make: fn(usize) -> String| {
        let count = Arc::clone(&count);
        Fault::Answer(Arc::new(move |_: &str| make(count.fetch_add(1, Ordering::Relaxed))))
    };
    let groups = |page| {
        format!(
            "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups/>\
             <NextToken>{page}</NextToken></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
        )
    };
    let instances = |page| {
        format!("<DescribeInstancesResponse><reservationSet/><nextToken>{page}</nextToken></DescribeInstancesResponse>")
    };
    let rows = |page| format!(r#"{{"Items": [], "LastEvaluatedKey": {{"BackendServerID": {{"N": "{page}"}}}}}}"#);
    survives(&bed, &mut server, "Scan", "endless pages", pages(rows));
    survives(&bed, &mut server, "DescribeInstances", "endless pages", pages(instances));
    survives(&bed, &mut server, "DescribeAutoScalingGroups", "endless pages", pages(groups));
    assert!(count.load(Ordering::Relaxed) > 1_000, "{count:?} pages");
}

/// Well-formed as far as it goes.
#[test]
fn a_body_beyond_all_bounds_is_no_answer() {
    const LENGTH: usize = 40 << 20;
    let (bed, mut server) = bed("bodies");
    let filled = |head: &str, part: &str| Fault::Reply(200, format!("{head}{}", part.repeat(LENGTH / part.len())));
    let rows = r#"{"BackendServerID": {"N": "1"}, "IPAddress": {"S": "none"}},"#;
    survives(&bed, &mut server, "Scan", "a huge body", filled(r#"{"Items": ["#, rows));
    let head = "<DescribeInstancesResponse><reservationSet>";
    let instance = "<item><instancesSet><item><instanceId>i-1</instanceId><instanceState><name>running</name>\
                    </instanceState></item></instancesSet></item>";
    survives(&bed, &mut server, "DescribeInstances", "a huge body", filled(head, instance));
    survives(
        &bed,
        &mut server,
        "DescribeInstances",
        "one huge text",
        filled("<DescribeInstancesResponse><a>", "text "),
    );
    survives(&bed, &mut server, "DescribeInstances", "one huge name", filled("<DescribeInstancesResponse><", "name"));
    let head = "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>";
    let group = "<member><AutoScalingGroupName>web</AutoScalingGroupName><Instances/></member>";
    survives(&bed, &mut server, "DescribeAutoScalingGroups", "a huge body", filled(head, group));
    // An error's body too.
    let refusal =
        Fault::Reply(400, format!(r#"{{"__type":"x#AccessDeniedException","message":"{}"}}"#, "x".repeat(LENGTH)));
    survives(&bed, &mut server, "Scan", "a huge refusal", refusal);
    let longest = server.log().lines().map(str::len).max();
    assert!(longest.is_some_and(|length| length < 8 * 1024), "{longest:?} bytes in a line of the log");
}
