//! Groups and EC2's responses: empty, missing, misspelt; instances that EC2 does not know, leaves out or does not run.

use std::time::Duration;

use serde_json::json;

use super::fixture::{FAILED, bed, has, ids, seats, settle, steady, wait_row, wait_seats};
use crate::common::aws_proxy::Fault;
use crate::common::lifecycles::Lifecycles;
use crate::common::wait::assert_stays;

/// The Python version then called EC2 without ids, which returns every instance of the region.
#[test]
fn an_empty_group_asks_ec2_for_nothing_and_frees_its_slots() {
    let bed = bed("empty", &[("web", 2), ("other", 1)]);
    let (web, other) = (ids(&bed, "web"), ids(&bed, "other"));
    let mut server = steady(&bed, 4).env("SERVER_ASG_NAMES", "web,other").spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &other[0])]);
    bed.moto().set_desired("web", 0);
    wait_seats(&bed, &[(3, &other[0])]);
    bed.moto().set_desired("other", 0);
    wait_seats(&bed, &[]);
    let rows = bed.moto().rows();
    assert_eq!(rows.len(), 4);
    for (id, group) in [(1, "web"), (2, "web"), (3, "other")] {
        let free =
            [("IPAddress", "none"), ("Weight", "0"), ("BackendServerStatus", "disabled"), ("HsdoLastASG", group)];
        assert!(has(&rows[&id], &free), "{:?}", rows[&id]);
    }
    assert!(
        bed.aws()
            .calls()
            .iter()
            .all(|call| call.operation != "DescribeInstances" || call.body.contains("InstanceId.1"))
    );

    bed.aws().forget();
    server.wait_turn();
    assert!(bed.aws().count("DescribeAutoScalingGroups") > 0);
    assert_eq!(bed.aws().count("DescribeInstances"), 0, "{:?}", bed.aws().calls());
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
    assert_eq!(server.metric("hsdo_missing_groups"), Some(0.0));
}

#[test]
fn a_missing_group_keeps_its_servers_as_long_as_they_run() {
    let bed = bed("deleted", &[("web", 3), ("other", 1)]);
    let (web, other) = (ids(&bed, "web"), ids(&bed, "other"));
    let mut server = steady(&bed, 5).env("SERVER_ASG_NAMES", "web,other").spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &web[2]), (4, &other[0])]);
    let before = bed.moto().rows();
    bed.aws().inject(
        "DescribeAutoScalingGroups",
        Fault::replace("<AutoScalingGroupName>web<", "<AutoScalingGroupName>wbe<"),
    );
    server.wait_metric("hsdo_missing_groups", |count| count == 1.0);
    server.wait_turn();
    assert_eq!(bed.moto().rows(), before);

    // A terminated instance goes; meanwhile the other group is handled as usual.
    bed.moto().ec2("TerminateInstances", &[("InstanceId.1", &web[0])]);
    wait_seats(&bed, &[(2, &web[1]), (3, &web[2]), (4, &other[0])]);
    bed.moto().ec2("StopInstances", &[("InstanceId.1", &web[1])]);
    bed.moto().set_desired("other", 0);
    wait_seats(&bed, &[(3, &web[2])]);
    server.wait_turn();
    assert_eq!(server.log().matches("groups that do not exist: web").count(), 1, "said once: {}", server.log());

    // The group is really deleted, and its instances with it.
    bed.moto().delete_group("web");
    wait_seats(&bed, &[]);
    assert_eq!(server.metric("hsdo_missing_groups"), Some(1.0));
    bed.aws().heal();
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());

    bed.moto().create_group("web", 0, 2);
    let new = ids(&bed, "web");
    wait_seats(&bed, &[(1, &new[0]), (2, &new[1])]);
    server.wait_metric("hsdo_missing_groups", |count| count == 0.0);
    server.wait_log("every configured group is known again");
}

#[test]
fn a_misspelt_group_keeps_its_servers_and_the_others_are_served() {
    let bed = bed("misspelt", &[("web", 1)]);
    bed.moto().put_server(1, "127.1.5.1", "i-kept", Some("wbe"), 7);
    bed.moto().put_server(2, "127.1.5.2", "i-gone", Some("web"), 7);
    let before = bed.moto().rows()[&1].clone();
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 2).env("SERVER_ASG_NAMES", "wbe, web").spawn();
    wait_seats(&bed, &[(1, "i-kept"), (2, &web[0])]);
    server.wait_metric("hsdo_missing_groups", |count| count == 1.0);
    assert_eq!(bed.moto().rows()[&1], before, "not even its weight goes up");
    assert_eq!(server.log().matches("groups that do not exist: wbe").count(), 1, "{}", server.log());
}

#[test]
fn an_instance_that_does_not_run_takes_no_slot() {
    let bed = bed("stopped", &[("web", 2)]);
    let web = ids(&bed, "web");
    bed.moto().ec2("StopInstances", &[("InstanceId.1", &web[0])]);
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[1])]);
    server.wait_turn();
    assert_eq!(seats(&bed).len(), 1);
    bed.moto().ec2("StartInstances", &[("InstanceId.1", &web[0])]);
    wait_seats(&bed, &[(1, &web[1]), (2, &web[0])]);
    bed.moto().ec2("StopInstances", &[("InstanceId.1", &web[1])]);
    wait_seats(&bed, &[(2, &web[0])]);
}

#[test]
fn an_id_that_ec2_does_not_know_does_not_fail_the_turn() {
    const UNKNOWN: &str = "i-0123456789abcdef0";
    let bed = bed("unknown-id", &[("web", 3)]);
    let web = bed.moto().instances("web");
    // As after a terminated instance that its group still lists.
    bed.moto().put_server(1, "127.1.5.1", UNKNOWN, Some("web"), 10);
    let kept = bed.moto().rows()[&1].clone();
    bed.aws().inject("DescribeAutoScalingGroups", Fault::replace(&web[1].id, UNKNOWN));
    let mut server = steady(&bed, 4).spawn();
    wait_seats(&bed, &[(1, UNKNOWN), (2, &web[0].id), (3, &web[2].id)]);
    settle(&bed, &mut server);
    assert_eq!(bed.moto().rows()[&1], kept, "in service for its group, unknown to EC2: kept as it is");
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
    let refused =
        r#"hsdo_aws_requests_total{service="ec2",operation="DescribeInstances",result="InvalidInstanceID.NotFound"}"#;
    assert!(
        server.metric(refused).is_some_and(|count| count > 0.0),
        "moto did not refuse the id: {}",
        server.metrics()
    );

    bed.aws().heal();
    wait_seats(&bed, &[(1, &web[1].id), (2, &web[0].id), (3, &web[2].id)]);
    // EC2 rejects an id although it has it: no server loses its slot.
    for code in ["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"] {
        let before = bed.moto().rows();
        let message = format!("The instance ID '{}' does not exist", web[0].id);
        bed.aws().inject_times("DescribeInstances", Fault::ec2(400, code, &message), 3);
        settle(&bed, &mut server);
        assert_eq!(bed.moto().rows(), before, "{code}");
    }
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}

/// The Python version did not report it at all.
#[test]
fn an_instance_in_service_without_an_address_is_told_and_counted() {
    let bed = bed("no-address", &[("web", 3)]);
    let web = bed.moto().instances("web");
    let address = format!("<privateIpAddress>{}</privateIpAddress>", web[2].address);
    bed.aws().inject("DescribeInstances", Fault::replace(&address, ""));
    let mut server = steady(&bed, 4).spawn();
    wait_seats(&bed, &[(1, &web[0].id), (2, &web[1].id)]);
    server.wait_metric("hsdo_unseen_instances", |count| count == 1.0);
    let line = format!(
        "instances in service that cannot be reached: {}: EC2 does not list them, or gives them no private IPv4 and no IPv6 address",
        web[2].id
    );
    server.wait_log(&line);
    server.wait_turn();
    assert_eq!(server.log().matches(&line).count(), 1, "said once: {}", server.log());
    bed.aws().heal();
    wait_seats(&bed, &[(1, &web[0].id), (2, &web[1].id), (3, &web[2].id)]);
    server.wait_metric("hsdo_unseen_instances", |count| count == 0.0);
    server.wait_log("every instance in service has an address again");
}

/// EC2 is eventually consistent: an instance that it does not show, yet or for a moment, must stay.
#[test]
fn an_instance_left_out_of_ec2s_answer_keeps_its_slot() {
    let bed = bed("left-out", &[("web", 3)]);
    let web = bed.moto().instances("web");
    bed.moto().put_server(1, &web[0].address.to_string(), &web[0].id, Some("web"), 10);
    // A record of an id that was not requested replaces it.
    let hide = |id: &str| {
        let from = format!("<instanceId>{id}</instanceId>");
        bed.aws().inject("DescribeInstances", Fault::replace(&from, "<instanceId>i-0fedcba9876543210</instanceId>"));
    };
    hide(&web[0].id);
    let before = bed.moto().rows()[&1].clone();
    let mut server = steady(&bed, 4).spawn();
    wait_seats(&bed, &[(1, &web[0].id), (2, &web[1].id), (3, &web[2].id)]);
    settle(&bed, &mut server);
    assert_eq!(bed.moto().rows()[&1], before);
    bed.aws().heal();
    bed.moto().set_desired("web", 4);
    let all = ids(&bed, "web");
    wait_row(&bed, 4, &[("ServerName", &all[3])]);
    assert_eq!(seats(&bed).len(), 4);
}

#[test]
fn a_state_that_serves_nobody_takes_no_slot_and_frees_it() {
    let bed = bed("states", &[("web", 2)]);
    let web = ids(&bed, "web");
    let states = Lifecycles::install(&bed);
    states.set(&web[0], "Pending");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[1])]);
    let absent = [
        "Warmed:Pending",
        "Warmed:Pending:Wait",
        "Warmed:Stopped",
        "Warmed:Running",
        "Warmed:Hibernated",
        "Standby",
        "Detached",
        "Terminated",
        "Terminating:Retained",
    ];
    for state in absent {
        // Whatever its state, seated before or not.
        states.set(&web[0], state);
        wait_seats(&bed, &[(1, &web[1])]);
        server.wait_turn();
        assert_stays(state, Duration::from_millis(50), || {
            let seats = seats(&bed);
            if seats.len() == 1 { Ok(()) } else { Err(format!("{seats:?}")) }
        });
        states.clear();
        wait_seats(&bed, &[(1, &web[1]), (2, &web[0])]);
    }
    let rows = json!(bed.moto().rows());
    assert_eq!(rows["2"]["HsdoLastASG"]["S"], "web", "{rows}");
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}
