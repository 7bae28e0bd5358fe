//! The store against an AWS with scripted responses.

use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::aws::testing::{CannedResponse, Responder, Seen, aws, raw_server, read_request};
use crate::slot::{Occupant, Status};

fn slot(id: SlotId) -> Slot {
    let occupant = Occupant {
        address: "10.0.0.1".parse().expect("an address"),
        name: format!("i-{id}"),
        group: Some("web".to_string()),
        zone: None,
        port: None,
        weight: 1,
        status: Status::Enabled,
        last_step: None,
        drain_since: None,
    };
    Slot { occupant: Some(occupant), last_group: Some("web".to_string()), ..Slot::empty(id) }
}

fn item(slot: &Slot) -> Value {
    let update = codec::row_update(slot.id, &codec::encode(slot), None);
    let mut item = json!(codec::key(slot.id));
    for (index, name) in update.names.iter().filter_map(|(key, name)| Some((key.strip_prefix("#a")?, name))) {
        if let Some(value) = update.values.get(&format!(":w{index}")) {
            item[name] = json!(value);
        }
    }
    item
}

fn refusal(code: &str, more: &str) -> CannedResponse {
    CannedResponse { status: 400, body: format!("{{\"__type\":\"x#{code}\"{more}}}") }
}

fn description(status: &str, key: &str, kind: &str) -> String {
    json!({ "Table": { "TableStatus": status, "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": kind }], "ItemCount": 0 } })
    .to_string()
}

fn soon() -> Instant {
    Instant::now() + READ_TIMEOUT
}

fn next(version: u64) -> Stamp {
    Stamp { version: Some(version), heartbeat: 9, leader: "me".to_string(), blind: false }
}

fn slot_table(url: &str) -> SlotTable {
    SlotTable::new(aws(url).0, "web")
}

fn actions(seen: &Seen) -> Vec<Value> {
    seen.json()["TransactItems"].as_array().expect("actions").clone()
}

#[test]
fn a_whole_table_is_read_with_its_unreadable_rows_and_strays() {
    let server = Responder::new(|_: &Seen| {
        let bad = json!({ "BackendServerID": { "N": "2" }, "IPAddress": { "S": "10.0.0.1; shutdown" } });
        let stray = json!({ "BackendServerID": { "N": "0" } });
        CannedResponse::ok(json!({ "Items": [item(&slot(1)), bad, stray, item(&Slot::empty(3))] }).to_string())
    });
    let mut slots = slot_table(&server.url);
    let table = TableReader::read(&mut slots, false, soon()).expect("a table");
    assert_eq!(table.slots().cloned().collect::<Vec<_>>(), [slot(1), Slot::empty(3)]);
    assert!(matches!(table.rows.get(&2), Some(Row::Unreadable { .. })));
    assert_eq!(table.strays.len(), 1);
    assert_eq!(SlotStore::read(&mut slots).expect("a table").table, table);
    let consistent: Vec<Value> = server.seen().iter().map(|seen| seen.json()["ConsistentRead"].clone()).collect();
    assert_eq!(consistent, [json!(false), json!(true)]);
}

#[test]
fn each_transaction_holds_the_marker_and_at_most_100_items() {
    let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
        "Scan" => CannedResponse::ok(r#"{"Items":[]}"#),
        _ => CannedResponse::ok(r#"{"ConsumedCapacity":[{"CapacityUnits":200.0}]}"#),
    });
    let mut slots = slot_table(&server.url);
    SlotStore::read(&mut slots).expect("a table");
    for (ids, sizes) in [(1..=250, vec![100, 100, 52]), (2..=100, vec![100]), (2..=101, vec![100, 2]), (1..=1, vec![1])]
    {
        let before = server.seen().len();
        let last = slots.write(&ids.clone().map(slot).collect::<Vec<_>>(), &next(7)).expect("written");
        let seen = server.seen().split_off(before);
        assert_eq!(seen.iter().map(|seen| actions(seen).len()).collect::<Vec<_>>(), sizes, "{ids:?}");
        for (version, seen) in (7..).zip(&seen) {
            let actions = actions(seen);
            let mark = &actions[0]["Update"];
            assert_eq!(mark["Key"]["BackendServerID"]["N"], json!("1"));
            assert_eq!(mark["ExpressionAttributeValues"][":version"]["N"], json!(version.to_string()));
            assert!(mark["ConditionExpression"].as_str().expect("one").ends_with("#leader = :leader"), "{mark}");
            let keys: std::collections::BTreeSet<String> =
                actions.iter().map(|action| action["Update"]["Key"].to_string()).collect();
            assert_eq!(keys.len(), actions.len(), "no item twice");
        }
        assert_eq!(last.version, Some(6 + sizes.len() as u64), "the last version is told");
    }
    let before = server.seen().len();
    assert_eq!(slots.write(&[], &next(7)).expect("nothing to write"), next(7));
    assert_eq!(server.seen().len(), before);
}

#[test]
fn a_server_notices_a_row_modified_by_another_writer() {
    let rows = Arc::new(Mutex::new(vec![item(&slot(1)), item(&slot(2))]));
    let table = Arc::clone(&rows);
    let server = Responder::new(move |seen: &Seen| match seen.operation().as_str() {
        "Scan" => CannedResponse::ok(json!({ "Items": *table.lock().expect("rows") }).to_string()),
        _ => CannedResponse::ok("{}"),
    });
    let mut slots = slot_table(&server.url);
    let mut changed = || SlotStore::read(&mut slots).expect("a table").changed;
    assert!(!changed(), "the first reading has nothing to compare with");
    assert!(!changed());
    rows.lock().expect("rows")[0]["HsdoHeartbeat"] = json!({ "N": "5" });
    assert!(!changed(), "the marker is no row");
    rows.lock().expect("rows")[1]["Weight"] = json!({ "N": "5" });
    assert!(changed() && !changed());
    rows.lock().expect("rows").pop();
    assert!(changed() && !changed(), "a lost row is a change");
    slots.write(&[Slot::empty(1)], &next(7)).expect("written");
    rows.lock().expect("rows")[0] = item(&Slot { last_group: None, ..Slot::empty(1) });
    assert!(!SlotStore::read(&mut slots).expect("a table").changed, "what it wrote itself is none");
}

#[test]
fn the_lease_is_claimed_if_the_marker_is_as_seen() {
    let item =
        r#"{"BackendServerID":{"N":"1"},"HsdoLeader":{"S":"a"},"HsdoHeartbeat":{"N":"4"},"HsdoBlind":{"BOOL":false}}"#;
    let server = Responder::new(move |seen: &Seen| match seen.operation().as_str() {
        "GetItem" => CannedResponse::ok(format!("{{\"Item\":{item}}}")),
        "Scan" => CannedResponse::ok(r#"{"Items":[]}"#),
        _ => refusal("ConditionalCheckFailedException", ""),
    });
    let mut slots = slot_table(&server.url);
    let seen = slots.read_marker().expect("a marker");
    assert_eq!(seen.marker, Marker { version: None, heartbeat: Some(4), leader: Some("a".to_string()), blind: true });
    SlotStore::read(&mut slots).expect("a later reading, which is another's business");
    let claim = Claim { version: 7, heartbeat: 9, leader: "me".to_string() };
    assert!(!slots.take(&seen, &claim).expect("an answer") && !slots.beat(&next(8)).expect("an answer"));
    slots.release("me").expect("another one has it: no fault");
    let bodies: Vec<Value> = server.seen().iter().map(Seen::json).collect();
    assert_eq!(bodies[0]["ConsistentRead"], json!(false), "half a unit");
    assert_eq!(
        bodies[2]["ConditionExpression"],
        json!("attribute_not_exists(#version) AND #heartbeat = :seen1 AND #leader = :seen2")
    );
    assert_eq!(bodies[3]["ConditionExpression"], json!("#leader = :leader"));
    assert_eq!(bodies[4]["UpdateExpression"], json!("REMOVE #blind, #leader"));
}

/// Deleting slot 1's item deletes the lease as well. A free slot in its place would put its server into maintenance everywhere.
#[test]
fn a_claim_restores_the_row_of_an_item_that_was_just_deleted() {
    let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
        "Scan" => CannedResponse::ok(json!({ "Items": [item(&slot(1)), item(&slot(2))] }).to_string()),
        _ => CannedResponse::ok("{}"),
    });
    let claim = Claim { version: 7, heartbeat: 9, leader: "me".to_string() };
    let address = |slots: &mut SlotTable| {
        let seen = slots.read_marker().expect("no item");
        assert!(slots.take(&seen, &claim).expect("an answer"));
        server.seen().last().expect("a claim").json()["ExpressionAttributeValues"][":w0"]["S"].clone()
    };
    let mut slots = slot_table(&server.url);
    assert_eq!(address(&mut slots), json!("none"), "nothing is known of the row");
    SlotStore::read(&mut slots).expect("a table");
    assert_eq!(address(&mut slots), item(&slot(1))["IPAddress"]["S"]);
    slots.write(&[Slot::empty(1)], &next(7)).expect("written");
    assert_eq!(address(&mut slots), json!("none"), "it is free by now");
}

#[test]
fn without_permission_to_get_an_item_the_table_is_scanned() {
    let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
        "GetItem" => refusal("AccessDeniedException", ""),
        _ => {
            let mut item = item(&slot(1));
            item["HsdoLeader"] = json!({ "S": "a" });
            CannedResponse::ok(json!({ "Items": [item] }).to_string())
        }
    });
    let mut slots = slot_table(&server.url);
    assert_eq!(TableReader::marker(&mut slots, soon()).expect("none"), Marker::default());
    assert_eq!(slots.read_marker().expect("a marker").marker.leader.as_deref(), Some("a"));
}

#[test]
fn a_write_requires_the_rows_as_last_read_or_written() {
    let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
        "Scan" => CannedResponse::ok(json!({ "Items": [item(&slot(1))] }).to_string()),
        _ => CannedResponse::ok("{}"),
    });
    let mut slots = slot_table(&server.url);
    SlotStore::read(&mut slots).expect("a table");
    for slots_written in [[slot(1), slot(2)], [Slot::empty(1), Slot::empty(2)]] {
        slots.write(&slots_written, &next(7)).expect("written");
    }
    let seen = server.seen();
    let condition = |seen: &Seen, action: usize| actions(seen)[action]["Update"]["ConditionExpression"].to_string();
    assert!(condition(&seen[1], 0).starts_with("\"#a0 = :b0 AND"), "{}", condition(&seen[1], 0));
    assert_eq!(condition(&seen[1], 1), "\"attribute_not_exists(#key)\"");
    assert!(condition(&seen[2], 1).starts_with("\"#a0 = :b0 AND"), "{}", condition(&seen[2], 1));
    assert_eq!(actions(&seen[2])[1]["Update"]["ExpressionAttributeValues"][":b1"], json!({ "S": "i-2" }));
}

#[test]
fn a_cancelled_write_names_its_slots_and_is_a_passing_error() {
    let server = Responder::new(|_: &Seen| {
        let reasons = r#","Message":"cancelled","CancellationReasons":[{"Code":"ConditionalCheckFailed"},{"Code":"None"},
            {"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},
            {"Code":"TransactionConflict"},{"Code":"ThrottlingError","Message":"slow down"}]"#;
        refusal("TransactionCanceledException", reasons)
    });
    let error = slot_table(&server.url).write(&[slot(3), slot(4), slot(5), slot(6)], &next(7)).expect_err("cancelled");
    assert_eq!(error.about, About::default().slot([1, 4, 5, 6]));
    let text = error.to_string();
    for part in [
        "another server leads the table, or slot 1 was modified by another writer",
        "slot 4 was modified by another writer",
        "slot 5 is being written by another writer",
        "slot 6: ThrottlingError slow down",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("slot 3"), "{text}");
    assert!(!error.needs_operator);
    assert_eq!(server.seen().len(), 1, "it is not tried again: the next turn reads first");
}

#[test]
fn a_long_list_of_reasons_is_cut() {
    let server = Responder::new(|seen: &Seen| {
        let reasons = vec![json!({ "Code": "ConditionalCheckFailed" }); actions(seen).len()];
        refusal("TransactionCanceledException", &format!(",\"CancellationReasons\":{}", json!(reasons)))
    });
    let slots: Vec<Slot> = (1..=50).map(slot).collect();
    let text = slot_table(&server.url).write(&slots, &next(7)).expect_err("cancelled").to_string();
    assert!(text.contains("slot 4 was") && !text.contains("slot 5 ") && text.contains("and 46 more"), "{text}");
}

#[test]
fn a_missing_table_is_reported_with_the_remedy() {
    let server = Responder::new(|_: &Seen| refusal("ResourceNotFoundException", ""));
    let mut slots = slot_table(&server.url);
    let errors: [TurnError; 6] = [
        slots.read_marker().map(|_| ()).expect_err("missing"),
        TableReader::marker(&mut slots, soon()).expect_err("missing"),
        slots.check_schema().expect_err("missing").into(),
        SlotStore::read(&mut slots).expect_err("missing"),
        TableReader::read(&mut slots, true, soon()).expect_err("missing"),
        slots.write(&[slot(1)], &next(7)).expect_err("missing"),
    ];
    for error in errors {
        assert!(error.needs_operator);
        let text = error.to_string();
        assert!(
            text.contains("table \"web\" does not exist in eu-west-1") && text.contains("--create-table"),
            "{text}"
        );
    }
}

#[test]
fn the_schema_is_checked() {
    let cases = [
        (description("ACTIVE", KEY, "N"), None),
        (description("UPDATING", KEY, "N"), None),
        (description("REPLICATION_NOT_AUTHORIZED", KEY, "N"), None),
        (description("CREATING", KEY, "N"), Some(false)),
        (description("SOMETHING_NEW", KEY, "N"), Some(false)),
        (description("INACCESSIBLE_ENCRYPTION_CREDENTIALS", KEY, "N"), Some(true)),
        (description("ARCHIVING", KEY, "N"), Some(true)),
        (description("ARCHIVED", KEY, "N"), Some(true)),
        (description("ACTIVE", KEY, "S"), Some(true)),
        (description("ACTIVE", "id", "N"), Some(true)),
        ("{}".to_string(), Some(false)),
    ];
    for (body, expected) in cases {
        let answer = body.clone();
        let server = Responder::new(move |_: &Seen| CannedResponse::ok(answer.clone()));
        let checked = slot_table(&server.url).check_schema();
        assert_eq!(checked.err().map(|error| error.needs_operator()), expected, "{body}");
    }
}

#[test]
fn a_table_is_created_once_and_waited_for() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&calls);
    // Missing, created, not visible yet, creating, active; then it exists.
    let server = Responder::new(move |seen: &Seen| {
        let mut told = told.lock().expect("calls");
        told.push(seen.operation());
        match told.len() {
            1 | 3 => refusal("ResourceNotFoundException", ""),
            2 => CannedResponse::ok(r#"{"TableDescription":{"TableStatus":"CREATING"}}"#),
            4 => CannedResponse::ok(description("CREATING", KEY, "N")),
            _ => CannedResponse::ok(description("ACTIVE", KEY, "N")),
        }
    });
    let slots = slot_table(&server.url);
    assert_eq!(slots.create().expect("created"), Created::Created);
    assert_eq!(slots.create().expect("there"), Created::Existed);
    let creations = calls.lock().expect("calls").iter().filter(|call| *call == "CreateTable").count();
    assert_eq!(creations, 1);
    let body = server.seen()[1].json();
    assert_eq!(body["BillingMode"], json!("PAY_PER_REQUEST"));
    assert_eq!(body["KeySchema"], json!([{ "AttributeName": KEY, "KeyType": "HASH" }]));
    assert_eq!(body["AttributeDefinitions"], json!([{ "AttributeName": KEY, "AttributeType": "N" }]));
}

#[test]
fn an_existing_table_of_another_kind_is_left_alone() {
    let server = Responder::new(|_: &Seen| CannedResponse::ok(description("ACTIVE", "id", "S")));
    let error = slot_table(&server.url).create().expect_err("not ours");
    assert!(error.to_string().contains("BackendServerID"), "{error}");
    assert!(server.seen().iter().all(|seen| seen.operation() == "DescribeTable"));
}

#[test]
fn one_row_is_read_by_its_number() {
    let server = Responder::new(|seen: &Seen| {
        let there = seen.json()["Key"]["BackendServerID"]["N"] == json!("1");
        CannedResponse::ok(if there { json!({ "Item": item(&slot(1)) }) } else { json!({}) }.to_string())
    });
    let mut slots = slot_table(&server.url);
    assert_eq!(slots.read_row(1).expect("an answer"), Some(Row::Readable(slot(1).into())));
    assert_eq!(slots.read_row(2).expect("an answer"), None);
}

#[test]
fn a_hung_aws_takes_less_than_five_seconds_of_a_client() {
    let url = raw_server(|_, mut stream| {
        read_request(&mut stream);
        read_request(&mut stream); // until the caller hangs up
    });
    let begun = Instant::now();
    let error =
        TableReader::read(&mut slot_table(&url), false, begun + Duration::from_millis(4_500)).expect_err("silence");
    assert!(begun.elapsed() < Duration::from_millis(4_900), "{:?}", begun.elapsed());
    assert!(error.to_string().contains("timed out"), "{error}");
}
