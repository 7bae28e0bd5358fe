//! Writes: only what changed, in few requests, once, and never over another writer's.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::{FAILED, bed, ids, seats, settle, steady, transactions, wait_row, wait_seats, written};
use crate::common::aws_proxy::Fault;
use crate::common::bed::{Bed, REGION, TABLE};
use crate::common::wait::{SOON, wait_for, wait_until};

#[test]
fn only_slots_that_changed_are_written() {
    let bed = bed("changed", &[("web", 3)]);
    let mut server = steady(&bed, 20).spawn();
    let web = ids(&bed, "web");
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &web[2])]);
    settle(&bed, &mut server);
    for _ in 0..3 {
        server.wait_turn();
    }
    assert_eq!(written(&bed), []);
    bed.moto().set_desired("web", 4);
    wait_for("a fourth seat", SOON, || if seats(&bed).len() == 4 { Ok(()) } else { Err("not yet") });
    server.wait_turn();
    let ids: Vec<u32> = written(&bed).iter().map(|write| write.id).collect();
    assert_eq!(ids, [4]);
    assert_eq!(bed.aws().count("PutItem") + bed.aws().count("DeleteItem"), 0);
}

#[test]
fn many_new_slots_go_in_few_requests() {
    let bed = bed("many", &[("web", 2)]);
    // moto needs seconds for a hundred updates; what matters here is the request.
    bed.aws().inject("TransactWriteItems", Fault::Reply(200, "{}".into()));
    steady(&bed, 250).once().assert_code(0);
    let transactions = transactions(&bed);
    assert_eq!(transactions.iter().map(|(_, writes)| writes.len()).collect::<Vec<_>>(), [100, 99, 51]);
    let tokens: BTreeSet<&String> = transactions.iter().map(|(token, _)| token).collect();
    assert_eq!(tokens.len(), 3);
    assert_eq!(written(&bed).iter().map(|write| write.id).collect::<Vec<_>>(), (1..=250).collect::<Vec<_>>());
}

#[test]
fn attributes_that_hsdo_does_not_know_are_kept() {
    let bed = bed("attributes", &[("web", 1)]);
    let web = bed.moto().instances("web");
    bed.moto().put_server(1, "127.1.5.1", "i-gone", Some("web"), 10);
    bed.moto().put_server(2, &web[0].address.to_string(), "i-former", Some("web"), 10);
    bed.moto().put_free(3);
    let extra = json!({"Owner": {"S": "team a"}, "Tags": {"L": [{"N": "1"}, {"M": {"x": {"BOOL": true}}}]}});
    for id in [1, 2, 3] {
        bed.moto().update_item(id, &extra);
    }
    steady(&bed, 3).once().assert_code(0);
    wait_seats(&bed, &[(2, &web[0].id)]);
    let rows = bed.moto().rows();
    for id in [1, 2, 3] {
        for (name, value) in extra.as_object().unwrap() {
            assert_eq!(&rows[&id][name], value, "row {id}");
        }
    }
}

/// DynamoDB executes a transaction once, even if the caller repeats it under its token.
#[test]
fn a_write_whose_answer_is_lost_is_repeated_with_its_token() {
    let bed = bed("lost-answer", &[("web", 2)]);
    let web = ids(&bed, "web");
    bed.aws().inject_times("TransactWriteItems", Fault::Lose, 1);
    let outcome = steady(&bed, 3).once();
    outcome.assert_code(0);
    let tried = transactions(&bed);
    assert_eq!(tried.len(), 2, "{outcome}");
    assert_eq!(tried[0], tried[1], "the same token and the same updates");
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
}

/// A transaction that conflicted, or was throttled, is retried within the turn.
#[test]
fn a_transaction_that_was_cancelled_in_passing_is_repeated() {
    let bed = bed("conflict", &[("web", 2)]);
    let web = ids(&bed, "web");
    for reason in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"] {
        for id in bed.moto().items().into_keys() {
            bed.moto().delete_item(id);
        }
        bed.aws().forget();
        bed.aws().inject_times("TransactWriteItems", Fault::cancelled(reason), 1);
        let outcome = steady(&bed, 3).once();
        outcome.assert_code(0);
        let tried = transactions(&bed);
        assert_eq!(tried.len(), 2, "{reason}: {outcome}");
        assert_eq!(tried[0], tried[1], "{reason}: the same token and the same updates");
        assert_eq!(bed.aws().count("Scan"), 1, "{reason}: one turn");
        wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    }
    // One that another writer has overtaken is not.
    bed.moto().delete_item(3);
    bed.aws().forget();
    bed.aws().inject("TransactWriteItems", Fault::cancelled("ConditionalCheckFailed"));
    steady(&bed, 3).once().assert_code(1).assert_stderr("was modified by another writer");
    assert_eq!(transactions(&bed).len(), 1);
}

#[test]
fn a_write_that_is_refused_is_tried_again_from_a_fresh_reading() {
    let bed = bed("refused", &[("web", 1)]);
    let mut server = steady(&bed, 5).spawn();
    wait_seats(&bed, &[(1, &ids(&bed, "web")[0])]);
    for (name, fault) in [
        ("cancelled", Fault::dynamodb(400, "TransactionCanceledException")),
        ("denied", Fault::dynamodb(400, "AccessDeniedException")),
        ("failing", Fault::Reply(500, String::new())),
        ("senseless", Fault::Garbage),
    ] {
        settle(&bed, &mut server);
        let (before, failed) = (bed.moto().rows(), server.metric(FAILED).unwrap_or(0.0));
        bed.aws().inject("TransactWriteItems", fault);
        let count = seats(&bed).len() + 1;
        bed.moto().set_desired("web", count);
        server.wait_metric(FAILED, |now| now >= failed + 2.0);
        assert_eq!(bed.moto().rows(), before, "{name}");
        bed.aws().heal();
        wait_for("the new seat", SOON, || if seats(&bed).len() == count { Ok(()) } else { Err(name) });
        let calls: Vec<String> = bed.aws().calls().into_iter().map(|call| call.operation).collect();
        let tokens: BTreeSet<String> = transactions(&bed).into_iter().map(|(token, _)| token).collect();
        assert!(tokens.len() >= 2, "{name}: each turn has a transaction of its own");
        let write = |operation: &String| operation == "TransactWriteItems";
        let (first, last) = (calls.iter().position(write).unwrap(), calls.iter().rposition(write).unwrap());
        assert!(calls[first..last].iter().any(|operation| operation == "Scan"), "{name}: {calls:?}");
    }
}

#[test]
fn a_row_that_another_hand_changes_meanwhile_is_not_overwritten() {
    let bed = bed("hand", &[("web", 1)]);
    for id in [1, 2] {
        bed.moto().put_free(id);
    }
    bed.aws().inject_times("TransactWriteItems", Fault::Delay(Duration::from_secs(2)), 1);
    let mut server = steady(&bed, 2).arg("--once").spawn();
    wait_until("the write to be under way", SOON, || (bed.aws().count("TransactWriteItems") == 1).then_some(()));
    bed.moto().put_server(1, "127.1.5.1", "i-by-hand", None, 3);
    let edited = bed.moto().rows();
    let status = server.process().wait_exit(SOON);
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert_eq!(bed.moto().rows(), edited, "{}", server.log());
    assert!(server.log().contains("slot 1 was modified by another writer"), "{}", server.log());
}

/// A consistent view of the table: moto shows a reader half of a transaction, so it waits its turn.
fn rows_in_turn(bed: &Bed) -> Vec<Value> {
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().proxy(None).build());
    let mut answer = agent
        .post(bed.aws().url())
        .header("X-Amz-Target", "DynamoDB_20120810.Scan")
        .header("Content-Type", "application/x-amz-json-1.0")
        .header(
            "Authorization",
            format!("AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/dynamodb/aws4_request, SignedHeaders=host, Signature=x"),
        )
        .send(json!({"TableName": TABLE, "ConsistentRead": true}).to_string())
        .expect("a scan");
    let text = answer.body_mut().read_to_string().expect("a body");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    answer["Items"].as_array().expect("items").clone()
}

/// The Python version's servers overwrote each other's rows: an instance could hold two slots.
#[test]
fn two_servers_at_once_lose_no_row_and_seat_nobody_twice() {
    const SIZE: u32 = 8;
    let bed = bed("two", &[("web", 4)]);
    let mut servers = [(); 2].map(|()| steady(&bed, SIZE).env("INTERVAL", "0.05").spawn());
    wait_for("the first seats", SOON, || if seats(&bed).len() == 4 { Ok(()) } else { Err("not yet") });
    for count in [7, 2, 8, 1, 6] {
        bed.moto().set_desired("web", count);
        let wanted: BTreeSet<String> = ids(&bed, "web").into_iter().collect();
        wait_for(&format!("{count} instances to be seated"), SOON, || {
            let rows = rows_in_turn(&bed);
            assert_eq!(rows.len(), SIZE as usize, "a row was lost: {rows:?}");
            let texts = |name: &str| -> Vec<String> {
                let values = rows.iter().map(|row| row[name]["S"].as_str().unwrap_or_default().to_owned());
                values.filter(|text| text != "none").collect()
            };
            let addresses = texts("IPAddress");
            let different: BTreeSet<&String> = addresses.iter().collect();
            assert_eq!(different.len(), addresses.len(), "an address has two slots: {rows:?}");
            let names: BTreeSet<String> = texts("ServerName").into_iter().collect();
            if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
        });
    }
    for server in &mut servers {
        server.process().assert_running();
    }
    let [first, second] = &mut servers;
    settle(&bed, first);
    second.wait_turn();
    assert_eq!(written(&bed), [], "neither undoes what the other did");
}

#[test]
fn a_table_that_is_emptied_is_filled_again() {
    let bed = bed("emptied", &[("web", 2)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 3).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    settle(&bed, &mut server);
    for id in 1..=3 {
        bed.moto().delete_item(id);
    }
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    wait_row(&bed, 3, &[("IPAddress", "none")]);
}
