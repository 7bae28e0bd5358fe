//! Unknown is not empty: a failed, truncated, late or nonsensical response ends the turn, changes nothing, and ends
//! nothing else.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fixture::{FAILED, OK, bed, ids, settle, steady, wait_seats};
use crate::common::aws_proxy::Fault;

/// Faults that any response can have.
fn faults() -> Vec<(&'static str, Fault)> {
    vec![
        ("a fault of the service", Fault::Reply(500, "oops".into())),
        ("a refusal after the start", Fault::dynamodb(403, "AccessDeniedException")),
        ("a closed connection", Fault::Close),
        ("garbage", Fault::Garbage),
        ("an empty body", Fault::Empty),
        ("a cut body", Fault::Cut),
        ("a redirect", Fault::Reply(302, String::new())),
        ("a page of a proxy", Fault::Reply(200, "<html><body>log in</body></html>".into())),
        ("another's JSON", Fault::Reply(200, r#"{"status": "ok"}"#.into())),
    ]
}

/// Every fault of one operation, one after another, on a table with two servers.
fn survives(name: &str, operation: &str, special: Vec<(&'static str, Fault)>) {
    let bed = bed(name, &[("web", 2)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 3).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    settle(&bed, &mut server);
    let before = bed.moto().rows();
    for (what, fault) in faults().into_iter().chain(special) {
        let failed = server.metric(FAILED).unwrap_or(0.0);
        bed.aws().inject(operation, fault);
        server.wait_metric(FAILED, |count| count > failed);
        assert_eq!(bed.moto().rows(), before, "{operation}: {what}");
        bed.aws().heal();
        let ok = server.metric(OK).unwrap_or(0.0);
        server.wait_metric(OK, |count| count > ok);
        assert_eq!(bed.moto().rows(), before, "{operation}, afterwards: {what}");
    }
    assert_eq!(bed.aws().count("TransactWriteItems"), 0);
    server.process().assert_running();
    // And it works again.
    bed.moto().terminate_in_group(&web[0], true);
    wait_seats(&bed, &[(2, &web[1])]);
}

#[test]
fn a_broken_answer_about_the_groups_changes_nothing() {
    let wrapper = "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult>\
                   </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>";
    survives(
        "groups-broken",
        "DescribeAutoScalingGroups",
        vec![
            ("throttled", Fault::autoscaling(400, "Throttling")),
            ("no result", Fault::Reply(200, "<DescribeAutoScalingGroupsResponse/>".into())),
            ("no list of groups", Fault::Reply(200, wrapper.into())),
            ("a group without a name", Fault::replace("AutoScalingGroupName>", "Other>")),
            ("members without a state", Fault::replace("LifecycleState>", "Other>")),
            ("members without an id", Fault::replace("InstanceId>", "Other>")),
            ("the document ends early", Fault::replace("</DescribeAutoScalingGroupsResponse>", "")),
        ],
    );
}

#[test]
fn a_broken_answer_about_the_instances_changes_nothing() {
    survives(
        "instances-broken",
        "DescribeInstances",
        vec![
            ("throttled", Fault::ec2(503, "RequestLimitExceeded", "slow down")),
            ("no list of reservations", Fault::Reply(200, "<DescribeInstancesResponse/>".into())),
            ("records without an id", Fault::replace("instanceId>", "other>")),
            ("records without a state", Fault::replace("instanceState>", "other>")),
            ("an address that is none", Fault::replace("<privateIpAddress>127.", "<privateIpAddress>x.")),
            ("the document ends early", Fault::replace("</DescribeInstancesResponse>", "")),
        ],
    );
}

#[test]
fn a_broken_reading_of_the_table_changes_nothing() {
    survives(
        "table-broken",
        "Scan",
        vec![
            ("throttled", Fault::dynamodb(400, "ProvisionedThroughputExceededException")),
            ("the table is gone for a moment", Fault::dynamodb(400, "ResourceNotFoundException")),
            ("no list of items", Fault::replace("\"Items\"", "\"Others\"")),
            ("no list", Fault::Reply(200, r#"{"Items": {"a": 1}}"#.into())),
            ("values without a type", Fault::replace("{\"S\": ", "{\"X\": ")),
        ],
    );
}

/// The deadline of an attempt, or of all, ends the turn.
#[test]
fn a_hung_call_ends_the_turn_and_no_more() {
    let bed = bed("hang", &[("web", 1)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[0])]);
    settle(&bed, &mut server);
    let before = bed.moto().rows();
    bed.aws().inject("Scan", Fault::Hang);
    server.wait_metric(FAILED, |count| count >= 1.0);
    assert_eq!(bed.moto().rows(), before);
    server.wait_log("timed out");
    bed.aws().heal();
    let ok = server.metric(OK).unwrap_or(0.0);
    server.wait_metric(OK, |count| count > ok);
}

/// The first page alone looks like a group that shrank.
#[test]
fn a_page_that_fails_ends_the_turn() {
    let bed = bed("page", &[("web", 3)]);
    let web = ids(&bed, "web");
    let seats = [(1, web[0].as_str()), (2, &web[1]), (3, &web[2])];
    steady(&bed, 4).once().assert_code(0);
    wait_seats(&bed, &seats);
    let before = bed.moto().rows();
    let first_page = |operation: &str| -> Fault {
        match operation {
            "Scan" => Fault::Edit(Arc::new(|body| {
                let mut page: Value = serde_json::from_str(&body).expect("a page");
                let items = page["Items"].as_array_mut().expect("items");
                items.truncate(1);
                page["LastEvaluatedKey"] = json!({"BackendServerID": items[0]["BackendServerID"]});
                page.to_string()
            })),
            "DescribeInstances" => Fault::Edit(Arc::new(|body| {
                let body = keep_first_only(&body, "<item><instanceId>", "</instancesSet>");
                body.replace("</DescribeInstancesResponse>", "<nextToken>more</nextToken></DescribeInstancesResponse>")
            })),
            _ => Fault::replace("</AutoScalingGroups>", "</AutoScalingGroups><NextToken>more</NextToken>"),
        }
    };
    for operation in ["Scan", "DescribeInstances", "DescribeAutoScalingGroups"] {
        bed.aws().forget();
        bed.aws().inject_times(operation, first_page(operation), 1);
        bed.aws().inject(operation, Fault::Reply(500, "no second page".into()));
        steady(&bed, 4).once().assert_code(1).assert_stderr(operation);
        assert!(bed.aws().count(operation) >= 2, "{operation}: no second page was asked for");
        assert_eq!(bed.aws().count("TransactWriteItems"), 0, "{operation}");
        assert_eq!(bed.moto().rows(), before, "{operation}");
        bed.aws().heal();
        // Pages in a circle are not a whole answer either.
        bed.aws().inject(operation, first_page(operation));
        steady(&bed, 4).once().assert_code(1).assert_stderr(operation);
        assert_eq!(bed.moto().rows(), before, "{operation}");
        bed.aws().heal();
    }
    steady(&bed, 4).once().assert_code(0);
    assert_eq!(bed.moto().rows(), before);
}

/// Cuts from the second occurrence of `start` up to `end`.
fn keep_first_only(body: &str, start: &str, end: &str) -> String {
    let second = body.match_indices(start).nth(1);
    match (second, body.find(end)) {
        (Some((from, _)), Some(to)) if from < to => format!("{}{}", &body[..from], &body[to..]),
        _ => body.to_owned(),
    }
}

/// A table that reads as empty still has its rows: none is overwritten.
#[test]
fn a_table_that_seems_empty_is_not_filled_over() {
    let bed = bed("seems-empty", &[("web", 2)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 3).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    bed.moto().terminate_in_group(&web[0], true);
    wait_seats(&bed, &[(2, &web[1])]);
    settle(&bed, &mut server);
    let before = bed.moto().rows();
    bed.aws().inject("Scan", Fault::Reply(200, r#"{"Items": [], "Count": 0, "ScannedCount": 0}"#.into()));
    // Without the lease in sight it must not write, and stands by.
    server.wait_metric("hsdo_leader", |leads| leads == 0.0);
    server.wait_turn();
    assert_eq!(bed.moto().rows(), before);
    bed.aws().heal();
    server.wait_metric("hsdo_leader", |leads| leads == 1.0);
    server.wait_turn();
    assert_eq!(bed.moto().rows(), before);
}
