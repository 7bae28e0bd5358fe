//! A DynamoDB without transactions: slots are written one by one, with the same guarantees as far as possible.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::{FAILED, OK, bed, ids, seats, steady, wait_row, wait_seats};
use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::wait::{SOON, wait_for, wait_until};

fn without_transactions(name: &str, groups: &[(&str, usize)]) -> Bed {
    let bed = bed(name, groups);
    deny_transactions(&bed);
    bed
}

fn deny_transactions(bed: &Bed) {
    bed.aws().inject("TransactWriteItems", Fault::dynamodb(400, "UnknownOperationException"));
}

/// The slots whose rows were written, in order; 0 for the marker alone.
fn written(bed: &Bed) -> Vec<u32> {
    let updates = bed.aws().calls().into_iter().filter(|call| call.operation == "UpdateItem");
    updates
        .map(|call| {
            let body: Value = serde_json::from_str(&call.body).expect("JSON");
            let row = body["ExpressionAttributeNames"].as_object().is_some_and(|names| names.contains_key("#a0"));
            let id = body["Key"]["BackendServerID"]["N"].as_str().and_then(|id| id.parse().ok()).expect("a number");
            if row { id } else { 0 }
        })
        .collect()
}

#[test]
fn a_table_without_transactions_is_kept_one_slot_at_a_time() {
    let bed = without_transactions("single", &[("web", 3)]);
    let web = ids(&bed, "web");
    let outcome = steady(&bed, 4).once();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr.matches("has no transactions").count(), 1, "said once: {outcome}");
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &web[2])]);
    wait_row(&bed, 4, &[("IPAddress", "none")]);

    let mut server = steady(&bed, 4).spawn();
    server.wait_turn();
    let version = || bed.moto().attribute(1, "HsdoVersion");
    let before = version();
    bed.moto().set_desired("web", 1);
    let left = ids(&bed, "web");
    wait_for("two to go", SOON, || {
        let seats = seats(&bed);
        if seats.values().eq(left.iter()) { Ok(()) } else { Err(format!("{seats:?}")) }
    });
    wait_for("the version to rise", SOON, || if version() == before { Err(format!("{before:?}")) } else { Ok(()) });
    assert_eq!(server.metric(FAILED).unwrap_or(0.0), 0.0, "{}", server.log());
    // Transactions are not tried again.
    bed.aws().forget();
    bed.moto().set_desired("web", 3);
    wait_for("three again", SOON, || if seats(&bed).len() == 3 { Ok(()) } else { Err(format!("{:?}", seats(&bed))) });
    assert_eq!(bed.aws().count("TransactWriteItems"), 0);
}

#[test]
fn a_global_table_of_strong_consistency_is_not_asked_for_transactions() {
    let bed = bed("strong", &[("web", 1)]);
    let strong = Fault::replace("\"TableStatus\"", "\"MultiRegionConsistency\": \"STRONG\", \"TableStatus\"");
    bed.aws().inject("DescribeTable", strong);
    let outcome = steady(&bed, 2).once();
    outcome.assert_code(0).assert_stderr("a global table with strong consistency");
    assert_eq!(bed.aws().count("TransactWriteItems"), 0);
    wait_seats(&bed, &[(1, &ids(&bed, "web")[0])]);
}

#[test]
fn without_transactions_another_hand_is_not_written_over_either() {
    let bed = without_transactions("single-hand", &[("web", 1)]);
    for id in [1, 2] {
        bed.moto().put_free(id);
    }
    // The lease, its confirmation, then the first row.
    bed.aws().inject_times("UpdateItem", Fault::Delay(Duration::ZERO), 2);
    bed.aws().inject_times("UpdateItem", Fault::Delay(Duration::from_secs(2)), 1);
    let mut server = steady(&bed, 2).arg("--once").spawn();
    wait_until("the write to be under way", SOON, || (written(&bed) == [0, 0, 1]).then_some(()));
    let leader = bed.moto().attribute(1, "HsdoLeader").expect("a leader");
    bed.moto().put_server(1, "127.1.5.1", "i-by-hand", None, 3);
    bed.moto().update_item(1, &json!({ "HsdoLeader": { "S": leader } }));
    let status = server.process().wait_exit(SOON);
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert!(server.log().contains("slot 1 was modified by another writer"), "{}", server.log());
    assert_eq!(bed.moto().attribute(1, "ServerName").as_deref(), Some("i-by-hand"));
}

#[test]
fn without_transactions_a_lost_answer_is_found_out() {
    let bed = without_transactions("single-lost", &[("web", 2)]);
    for id in [1, 2] {
        bed.moto().put_free(id);
    }
    bed.aws().inject_times("UpdateItem", Fault::Delay(Duration::ZERO), 2);
    bed.aws().inject_times("UpdateItem", Fault::Lose, 1);
    let outcome = steady(&bed, 2).once();
    outcome.assert_code(0);
    let web = ids(&bed, "web");
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    assert_eq!(written(&bed)[..4], [0, 0, 1, 1], "{outcome}");
}

#[test]
fn without_transactions_two_servers_lose_no_row_and_seat_nobody_twice() {
    const SIZE: u32 = 6;
    let bed = without_transactions("single-two", &[("web", 3)]);
    let mut servers = [(); 2].map(|()| steady(&bed, SIZE).env("INTERVAL", "0.05").spawn());
    let rows = || bed.moto().rows().len();
    wait_for("all rows", SOON, || if rows() == SIZE as usize { Ok(()) } else { Err(rows()) });
    for count in [5, 1, 6, 2] {
        bed.moto().set_desired("web", count);
        let wanted: BTreeSet<String> = ids(&bed, "web").into_iter().collect();
        wait_for(&format!("{count} instances to be seated"), SOON, || {
            let rows = bed.moto().rows();
            assert_eq!(rows.len(), SIZE as usize, "a row was lost: {rows:?}");
            let seated: Vec<String> = seats(&bed).into_values().collect();
            let names: BTreeSet<String> = seated.iter().cloned().collect();
            assert_eq!(names.len(), seated.len(), "an instance has two slots: {rows:?}");
            if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
        });
    }
    // The leader dies, and the other continues.
    let leads = |server: &crate::common::hsdo::Running| server.metric("hsdo_leader") == Some(1.0);
    let leader = servers.iter().position(leads).expect("one leads");
    servers[leader].kill();
    bed.moto().set_desired("web", 4);
    let other = &mut servers[1 - leader];
    other.wait_metric("hsdo_leader", |leads| leads == 1.0);
    wait_for("four to be seated", SOON, || {
        if seats(&bed).len() == 4 { Ok(()) } else { Err(format!("{:?}", seats(&bed))) }
    });
    let turns = other.metric(OK).unwrap_or(0.0);
    other.wait_metric(OK, |now| now > turns + 2.0);
}
