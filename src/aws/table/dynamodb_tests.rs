//! Pages, items, updates and transactions, and answers that are none.

use std::time::Duration;

use super::*;
use crate::aws::testing::{CannedResponse, Responder, Seen, aws};

fn budget() -> Budget {
    Budget::new(Duration::from_secs(5), Duration::from_secs(2))
}

fn scanned(server: &Responder, consistent: bool) -> Result<Vec<Arc<Item>>, AwsError> {
    let (aws, _) = aws(&server.url);
    let parser = ItemParser { parse: &|item| item, cache: &ParseCache::default() };
    scan(&aws, "web", consistent, &budget(), &parser)
}

#[test]
fn values_of_every_type_go_through_unchanged() {
    let text = r#"{"a":{"S":"x"},"b":{"N":"1.50"},"c":{"B":"AA=="},"d":{"BOOL":true},"e":{"NULL":true},
        "f":{"SS":["x"]},"g":{"NS":["1"]},"h":{"BS":["AA=="]},"i":{"L":[{"S":"x"},{"M":{"y":{"N":"2"}}}]},"j":{"M":{}}}"#;
    let item: Item = serde_json::from_str(text).expect("an item");
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(json!(item), value);
}

#[test]
fn a_scan_follows_its_pages_and_reports_what_it_consumed() {
    let server = Responder::new(|seen: &Seen| {
        let from: u32 =
            seen.json()["ExclusiveStartKey"]["id"]["N"].as_str().map_or(0, |n| n.parse().expect("a number"));
        let next = if from < 3 { json!({ "id": { "N": (from + 1).to_string() } }) } else { json!({}) };
        CannedResponse::ok(
            json!({ "Items": [{ "id": { "N": from.to_string() } }], "LastEvaluatedKey": next,
                    "ConsumedCapacity": { "TableName": "web", "CapacityUnits": 0.5 } })
            .to_string(),
        )
    });
    let (aws, results) = aws(&server.url);
    let parser = ItemParser { parse: &|item| item, cache: &ParseCache::default() };
    let items = scan(&aws, "web", true, &budget(), &parser).expect("a table");
    assert_eq!(items.len(), 4);
    assert_eq!(server.seen().len(), 4);
    assert!(server.seen().iter().all(|seen| seen.json()["ConsistentRead"] == json!(true)));
    assert_eq!(results.all().iter().filter(|result| *result == "Scan consumed 0.5").count(), 4);
    assert_eq!(server.seen()[0].header("x-amz-target"), "DynamoDB_20120810.Scan");
}

#[test]
fn a_failing_page_fails_the_scan() {
    let mut count = 0;
    let server = Responder::new(move |_: &Seen| {
        count += 1;
        match count {
            1 => CannedResponse::ok(r#"{"Items":[{}],"LastEvaluatedKey":{"id":{"N":"1"}}}"#),
            _ => CannedResponse { status: 500, body: r#"{"__type":"x#InternalServerError"}"#.to_string() },
        }
    });
    let error = scanned(&server, false).expect_err("a failed page");
    assert_eq!(error.code(), Some("InternalServerError"));
    assert_eq!(server.seen().len(), 5);
}

#[test]
fn pages_in_a_circle_are_an_error() {
    let server = Responder::new(|_: &Seen| CannedResponse::ok(r#"{"Items":[],"LastEvaluatedKey":{"id":{"N":"1"}}}"#));
    assert!(scanned(&server, false).expect_err("a loop").to_string().contains("page tokens repeat"));
}

#[test]
fn an_answer_of_another_shape_is_no_answer() {
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        "<html/>",
        r#"{"Items":{}}"#,
        r#"{"Items":null}"#,
        r#"{"Items":[{"a":"x"}]}"#,
        r#"{"Items":[{"a":{"S":1}}]}"#,
        r#"{"Items":[{"a":{"S":"x","N":"1"}}]}"#,
        r#"{"Items":[]"#,
        r#"{"Items":[]} trailing"#,
        r#"{"Items":[],"LastEvaluatedKey":7}"#,
    ] {
        let server = Responder::new(move |_: &Seen| CannedResponse::ok(bad));
        let error = scanned(&server, true).expect_err(bad);
        assert!(error.to_string().contains("unreadable response: "), "{bad}: {error}");
    }
}

#[test]
fn an_item_that_is_not_there_is_none() {
    let server = Responder::new(|seen: &Seen| {
        let there = seen.json()["Key"]["id"]["N"] == json!("1");
        CannedResponse::ok(if there { r#"{"Item":{"id":{"N":"1"}}}"# } else { "{}" })
    });
    let (aws, _) = aws(&server.url);
    let get = |id: &str| {
        let key = Item::from([("id".to_string(), Attribute::N(id.to_string()))]);
        get_item(&aws, "web", &key, true, Some("id"), &budget()).expect("an answer")
    };
    assert!(get("1").is_some());
    assert!(get("2").is_none());
    assert_eq!(server.seen()[0].json()["ProjectionExpression"], json!("id"));
}

fn an_update() -> Update {
    Update {
        key: Item::from([("id".to_string(), Attribute::N("1".to_string()))]),
        update: "SET #a = :a".to_string(),
        condition: "attribute_exists(#a)".to_string(),
        names: BTreeMap::from([("#a".to_string(), "a".to_string())]),
        values: Item::from([(":a".to_string(), Attribute::S("x".to_string()))]),
    }
}

#[test]
fn a_condition_that_does_not_hold_is_an_answer_and_any_other_refusal_an_error() {
    for (status, code, expected) in [
        (200, "", Some(true)),
        (400, "ConditionalCheckFailedException", Some(false)),
        (400, "ValidationException", None),
    ] {
        let server = Responder::new(move |_: &Seen| CannedResponse {
            status,
            body: format!(r#"{{"__type":"x#{code}","ConsumedCapacity":{{"CapacityUnits":1.0}}}}"#),
        });
        let (aws, results) = aws(&server.url);
        assert_eq!(update_item(&aws, "web", &an_update(), &budget()).ok(), expected, "{code}");
        assert_eq!(server.seen().len(), 1, "it is not tried again");
        assert_eq!(server.seen()[0].json()["TableName"], json!("web"));
        assert_eq!(results.all().contains(&"UpdateItem consumed 1".to_string()), expected == Some(true));
    }
}

#[test]
fn the_attempts_at_a_transaction_share_its_token_and_two_transactions_do_not() {
    let mut count = 0;
    let server = Responder::new(move |_: &Seen| {
        count += 1;
        if count == 1 { CannedResponse { status: 500, body: String::new() } } else { CannedResponse::ok("{}") }
    });
    let (aws, _) = aws(&server.url);
    for _ in 0..2 {
        transact(&aws, "web", &[an_update()], &budget()).expect("written");
    }
    let tokens: Vec<String> = server.seen().iter().map(|seen| seen.json()["ClientRequestToken"].to_string()).collect();
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert_eq!(server.seen()[0].json()["TransactItems"][0]["Update"]["TableName"], json!("web"));
}
