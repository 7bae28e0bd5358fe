//! `--create-table`: creates the table, and never touches an existing one.

use serde_json::{Value, json};

use crate::common::bed::{Bed, TABLE};
use crate::common::hsdo::Hsdo;

fn described(bed: &Bed) -> Value {
    let mut description = bed.moto().dynamodb("DescribeTable", &json!({"TableName": TABLE}))["Table"].clone();
    // moto counts items on every call.
    description.as_object_mut().expect("a table").retain(|name, _| name != "ItemCount" && name != "TableSizeBytes");
    description
}

fn create(bed: &Bed) -> Hsdo {
    Hsdo::with_aws(bed, "create").arg("--create-table")
}

#[test]
fn a_table_is_created_once_and_never_changed() {
    let bed = Bed::new("create");
    create(&bed).run().assert_code(0).assert_stdout("table hsdo created and active");
    let made = described(&bed);
    assert_eq!(made["KeySchema"], json!([{"AttributeName": "BackendServerID", "KeyType": "HASH"}]));
    assert_eq!(made["AttributeDefinitions"], json!([{"AttributeName": "BackendServerID", "AttributeType": "N"}]));
    assert_eq!(made["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST");

    bed.moto().put_free(1);
    let rows = bed.moto().rows();
    create(&bed).run().assert_code(0).assert_stdout("table hsdo already exists, left unchanged");
    // With a role, and with its settings missing: it needs none of them.
    for role in ["--server", "--client"] {
        create(&bed).arg(role).run().assert_code(0).assert_stdout("already exists");
    }
    assert_eq!(described(&bed), made);
    assert_eq!(bed.moto().rows(), rows);
    let changing = ["UpdateTable", "DeleteTable", "PutItem", "TransactWriteItems"];
    assert!(bed.aws().calls().iter().all(|call| !changing.contains(&call.operation.as_str())));
    assert_eq!(bed.aws().count("CreateTable"), 1);
}

#[test]
fn a_table_with_another_key_is_refused_and_left_alone() {
    let bed = Bed::new("other-key");
    bed.moto().dynamodb(
        "CreateTable",
        &json!({
            "TableName": TABLE,
            "KeySchema": [{"AttributeName": "Id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "Id", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        }),
    );
    let made = described(&bed);
    bed.moto().create_group("web", 0, 1);
    create(&bed).run().assert_code(2).assert_stderr("BackendServerID");
    Hsdo::server(&bed).run().assert_code(2).assert_stderr("BackendServerID").assert_stderr("DYNAMODB_TABLE_NAME");
    assert_eq!(described(&bed), made);
}
