//! Responses of several pages, as moto itself splits them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::fixture::{bed, seats, settle, steady, transactions};
use crate::common::aws_proxy::Fault;
use crate::common::wait::wait_for;

/// The Python version sent all names at once, of which AWS takes 50, and did not follow pages.
#[test]
fn more_groups_and_instances_than_one_answer_holds() {
    // moto returns 100 groups, and 100 reservations, per page; each of these groups has its own reservation.
    const COUNT: usize = 120;
    let bed = bed("many-groups", &[]);
    let groups: Vec<String> = (0..COUNT).map(|number| format!("web-{number:03}")).collect();
    for group in &groups {
        bed.moto().create_group(group, 0, 1);
    }
    let mut server = steady(&bed, 130).env("SERVER_ASG_NAMES", &groups.join(",")).spawn();
    wait_for("all to be seated", Duration::from_secs(60), || match seats(&bed).len() {
        COUNT => Ok(()),
        other => Err(other),
    });
    let calls = bed.aws().calls();
    let asked = |operation: &str| calls.iter().filter(|call| call.operation == operation).collect::<Vec<_>>();
    let names: BTreeSet<usize> = asked("DescribeAutoScalingGroups")
        .iter()
        .inspect(|call| assert!(call.body.contains("MaxRecords=100"), "without it AWS takes 50 names: {}", call.body))
        .map(|call| call.body.matches("AutoScalingGroupNames.member.").count())
        .collect();
    assert_eq!(names, BTreeSet::from([20, 100]));
    assert!(asked("DescribeInstances").iter().any(|call| call.body.contains("NextToken")), "moto gave one page");

    // One each, in the order of the configuration.
    let rows = bed.moto().rows();
    assert_eq!(seats(&bed).len(), COUNT);
    for (group, id) in groups.iter().zip(1..) {
        assert_eq!(rows[&id]["ASG"]["S"], json!(group), "slot {id}");
    }
    settle(&bed, &mut server);
}

/// AWS takes 1,000 ids per call. moto is too slow for so many instances, so the responses are made here.
#[test]
fn more_instances_than_one_call_takes() {
    const COUNT: usize = 1_050;
    let bed = bed("many-instances", &[]);
    let members: String = (0..COUNT)
        .map(|number| {
            format!(
                "<member><InstanceId>i-{number}</InstanceId><LifecycleState>InService</LifecycleState>\
                 <HealthStatus>Healthy</HealthStatus></member>"
            )
        })
        .collect();
    let groups = format!(
        "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>\
         <AutoScalingGroupName>web</AutoScalingGroupName><Instances>{members}</Instances></member></AutoScalingGroups>\
         </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
    );
    bed.aws().inject("DescribeAutoScalingGroups", Fault::Reply(200, groups));
    bed.aws().inject("DescribeInstances", Fault::Answer(Arc::new(instances)));
    let mut server = steady(&bed, 20).spawn();
    // All were seen, though few are seated: moto is slow at writing too.
    server.wait_metric("hsdo_unplaced_servers", |count| count == (COUNT - 20) as f64);
    let calls = bed.aws().calls().into_iter().filter(|call| call.operation == "DescribeInstances");
    let mut sizes: Vec<usize> = calls.map(|call| call.body.matches("InstanceId.").count()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [COUNT - 1_000, 1_000]);
    let wanted: Vec<String> = (0..20).map(|number| format!("i-{number}")).collect();
    assert_eq!(seats(&bed).into_values().collect::<Vec<_>>(), wanted, "in the order of their addresses");
}

/// EC2's response for the requested ids: the instance `i-<n>` has the n-th address from 127.2.0.0 on.
fn instances(request: &str) -> String {
    let ids =
        request.split('&').filter_map(|pair| pair.split_once('=').filter(|(name, _)| name.starts_with("InstanceId.")));
    let items = ids.map(|(_, id)| {
        let number: u32 = id.trim_start_matches("i-").parse().expect("an id of this test");
        let address = Ipv4Addr::from_bits(0x7f02_0000 + number);
        format!(
            "<item><instanceId>{id}</instanceId><instanceState><name>running</name></instanceState>\
             <privateIpAddress>{address}</privateIpAddress></item>"
        )
    });
    format!(
        "<DescribeInstancesResponse><reservationSet><item><instancesSet>{}</instancesSet></item></reservationSet>\
         </DescribeInstancesResponse>",
        items.collect::<String>()
    )
}

/// DynamoDB ends a scan's page at 1 MB; the Python version did not follow pages.
#[test]
fn a_table_of_several_pages_is_read_whole() {
    const SIZE: u32 = 20;
    let bed = bed("many-pages", &[("web", 15)]);
    steady(&bed, SIZE).once().assert_code(0);
    let padding = json!({"Padding": {"S": "x".repeat(60_000)}});
    for id in 1..=SIZE {
        bed.moto().update_item(id, &padding);
    }
    let before = bed.moto().rows();
    bed.aws().forget();
    steady(&bed, SIZE).once().assert_code(0);
    assert!(bed.aws().count("Scan") >= 2, "{} pages", bed.aws().count("Scan"));
    assert_eq!(transactions(&bed), [], "all rows were seen");
    assert_eq!(bed.moto().rows(), before);
}
