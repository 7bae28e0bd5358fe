//! DynamoDB's API: JSON 1.0, version 2012-08-10. Only `codec` knows what attributes mean.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::aws::calls::{Aws, call_error, send};
use crate::aws::error::{AwsError, Cause};
use crate::aws::random::random;
use crate::aws::reading::pages::PageTokens;
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::service::Service;
use crate::aws::transport::http::{Budget, Request};

/// A value of an item (DynamoDB API Reference, "AttributeValue").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attribute {
    /// A string.
    S(String),
    /// A number, as decimal text.
    N(String),
    /// Base64.
    B(String),
    #[serde(rename = "BOOL")]
    Bool(bool),
    #[serde(rename = "NULL")]
    Null(bool),
    #[serde(rename = "SS")]
    Strings(Vec<String>),
    #[serde(rename = "NS")]
    Numbers(Vec<String>),
    #[serde(rename = "BS")]
    Binaries(Vec<String>),
    L(Vec<Attribute>),
    M(Item),
}

/// An item: its attributes by name.
pub(crate) type Item = BTreeMap<String, Attribute>;

/// The parts of a table description used here.
#[derive(Debug, Deserialize)]
pub(crate) struct TableDescription {
    /// `CREATING`, `ACTIVE`, ...
    #[serde(rename = "TableStatus")]
    pub(crate) status: String,
    #[serde(rename = "KeySchema")]
    pub(crate) keys: Vec<KeyElement>,
    #[serde(rename = "AttributeDefinitions")]
    pub(crate) attributes: Vec<AttributeDefinition>,
    /// For global tables: `EVENTUAL` or `STRONG`.
    #[serde(rename = "MultiRegionConsistency")]
    pub(crate) consistency: Option<String>,
    /// Absent if the table was never on demand.
    #[serde(rename = "BillingModeSummary")]
    pub(crate) billing: Option<BillingMode>,
    #[serde(rename = "ProvisionedThroughput")]
    pub(crate) throughput: Option<ProvisionedThroughput>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BillingMode {
    /// `PROVISIONED` or `PAY_PER_REQUEST`.
    #[serde(rename = "BillingMode")]
    pub(crate) mode: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ProvisionedThroughput {
    #[serde(rename = "ReadCapacityUnits", default)]
    pub(crate) reads: u64,
    #[serde(rename = "WriteCapacityUnits", default)]
    pub(crate) writes: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct KeyElement {
    /// The attribute's name.
    #[serde(rename = "AttributeName")]
    pub(crate) name: String,
    /// `HASH` or `RANGE`.
    #[serde(rename = "KeyType")]
    pub(crate) kind: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AttributeDefinition {
    /// The attribute's name.
    #[serde(rename = "AttributeName")]
    pub(crate) name: String,
    /// `S`, `N` or `B`.
    #[serde(rename = "AttributeType")]
    pub(crate) kind: String,
}

/// `Items` is mandatory: without it, a response of another kind would be an empty table.
#[derive(Deserialize)]
struct RawScanPage<'a> {
    #[serde(rename = "Items", borrow)]
    items: Vec<&'a RawValue>,
    #[serde(rename = "LastEvaluatedKey")]
    last: Option<Item>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<ConsumedCapacity>,
}

/// One page of a Scan, with parsed items.
pub(crate) struct ScanPage<T> {
    pub(crate) items: Vec<Arc<T>>,
    last: Option<Item>,
    consumed: Option<ConsumedCapacity>,
}

/// Parses items, and reuses the results of the last scan for identical bytes.
pub(crate) struct ItemParser<'a, T> {
    pub(crate) parse: &'a dyn Fn(Item) -> T,
    pub(crate) cache: &'a ParseCache<T>,
}

pub(crate) fn read_page<T>(body: &mut dyn BufRead, parser: &ItemParser<'_, T>) -> Result<ScanPage<T>, String> {
    let mut text = parser.cache.buffer();
    text.clear();
    body.read_to_end(&mut text).map_err(|error| error.to_string())?;
    let unreadable = |error: serde_json::Error| error.to_string();
    let RawScanPage { items, last, consumed } = serde_json::from_slice(&text).map_err(unreadable)?;
    let item = |raw: &RawValue| {
        parser.cache.get_or_parse(raw.get().as_bytes(), || {
            serde_json::from_str(raw.get()).map(parser.parse).map_err(unreadable)
        })
    };
    let items = items.into_iter().map(item).collect::<Result<_, _>>()?;
    parser.cache.recycle(text);
    Ok(ScanPage { items, last, consumed })
}

#[derive(Deserialize)]
struct ItemResponse {
    #[serde(rename = "Item")]
    item: Option<Item>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<ConsumedCapacity>,
}

#[derive(Deserialize)]
struct TransactWriteItemsResponse {
    #[serde(rename = "ConsumedCapacity", default)]
    consumed: Vec<ConsumedCapacity>,
}

#[derive(Deserialize)]
struct ConsumedCapacity {
    #[serde(rename = "CapacityUnits")]
    units: f64,
}

#[derive(Deserialize)]
struct DescribeTableResponse {
    #[serde(rename = "Table")]
    table: TableDescription,
}

#[derive(Deserialize)]
struct CreateTableResponse {
    #[serde(rename = "TableDescription")]
    _table: Value,
}

#[derive(Deserialize)]
struct TimeToLiveResponse {
    #[serde(rename = "TimeToLiveDescription")]
    description: TimeToLive,
}

#[derive(Deserialize)]
struct TimeToLive {
    #[serde(rename = "TimeToLiveStatus")]
    status: Option<String>,
    #[serde(rename = "AttributeName")]
    attribute: Option<String>,
}

pub(crate) fn describe_table(aws: &Aws, table: &str, budget: &Budget) -> Result<TableDescription, AwsError> {
    let request = request("DescribeTable", table, json!({ "TableName": table }).to_string());
    send(aws, &request, budget, &parse_json::<DescribeTableResponse>).map(|described| described.table)
}

/// Creates a table with on-demand billing and the key `key`, `kind` being `N` or `S`. It is not active yet when this returns.
pub(crate) fn create_table(aws: &Aws, table: &str, key: &str, kind: &str, budget: &Budget) -> Result<(), AwsError> {
    let body = json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": kind }],
        "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    send(aws, &request("CreateTable", table, body.to_string()), budget, &parse_json::<CreateTableResponse>).map(|_| ())
}

/// Has DynamoDB remove items once the time in this attribute, in seconds since 1970, is over.
pub(crate) fn enable_expiry(aws: &Aws, table: &str, attribute: &str, budget: &Budget) -> Result<(), AwsError> {
    let specification = json!({ "AttributeName": attribute, "Enabled": true });
    let body = json!({ "TableName": table, "TimeToLiveSpecification": specification });
    send(aws, &request("UpdateTimeToLive", table, body.to_string()), budget, &parse_json::<Value>).map(|_| ())
}

/// The attribute by which the table's items expire; `None` if none do.
pub(crate) fn expiry(aws: &Aws, table: &str, budget: &Budget) -> Result<Option<String>, AwsError> {
    let request = request("DescribeTimeToLive", table, json!({ "TableName": table }).to_string());
    let TimeToLiveResponse { description } = send(aws, &request, budget, &parse_json)?;
    let on = matches!(description.status.as_deref(), Some("ENABLED" | "ENABLING"));
    Ok(on.then(|| description.attribute.unwrap_or_default()))
}

/// Deletes one item; one that does not exist is no error.
pub(crate) fn delete_item(aws: &Aws, table: &str, key: &Item, budget: &Budget) -> Result<(), AwsError> {
    let body = json!({ "TableName": table, "Key": key, "ReturnConsumedCapacity": "TOTAL" });
    let deleted = send(aws, &request("DeleteItem", table, body.to_string()), budget, &parse_json::<ItemResponse>)?;
    report_capacity(aws, "DeleteItem", deleted.consumed.as_slice());
    Ok(())
}

/// Parses all items of a table, in any order.
pub(crate) fn scan<T>(
    aws: &Aws,
    table: &str,
    consistent: bool,
    budget: &Budget,
    parser: &ItemParser<'_, T>,
) -> Result<Vec<Arc<T>>, AwsError> {
    parser.cache.next_response();
    let mut items = Vec::new();
    let mut pages = PageTokens::default();
    let mut body = json!({ "TableName": table, "ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL" });
    loop {
        let request = request("Scan", table, body.to_string());
        let page = send(aws, &request, budget, &|body| read_page(body, parser))?;
        report_capacity(aws, "Scan", page.consumed.as_slice());
        items.extend(page.items);
        // "If LastEvaluatedKey is empty, then the last page of results has been processed".
        let Some(last) = page.last.filter(|last| !last.is_empty()) else { return Ok(items) };
        let last = json!(last);
        pages.follow(&last.to_string()).map_err(|text| call_error(aws, &request, Cause::Unreadable(text)))?;
        body["ExclusiveStartKey"] = last;
    }
}

/// One item, or those of its attributes in `projection`; `None` if it does not exist. Costs half a unit per 4 KB of the
/// whole item, twice that if consistent.
pub(crate) fn get_item(
    aws: &Aws,
    table: &str,
    key: &Item,
    consistent: bool,
    projection: Option<&str>,
    budget: &Budget,
) -> Result<Option<Item>, AwsError> {
    let mut body = json!({
        "TableName": table, "Key": key, "ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL",
    });
    if let Some(projection) = projection {
        body["ProjectionExpression"] = json!(projection);
    }
    let got = send(aws, &request("GetItem", table, body.to_string()), budget, &parse_json::<ItemResponse>)?;
    report_capacity(aws, "GetItem", got.consumed.as_slice());
    Ok(got.item)
}

/// A conditional update of one item.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Update {
    #[serde(rename = "Key")]
    pub(crate) key: Item,
    #[serde(rename = "UpdateExpression")]
    pub(crate) update: String,
    /// Empty for none.
    #[serde(rename = "ConditionExpression", skip_serializing_if = "String::is_empty")]
    pub(crate) condition: String,
    /// Attribute names by placeholder (`#...`).
    #[serde(rename = "ExpressionAttributeNames")]
    pub(crate) names: BTreeMap<String, String>,
    /// Values by placeholder (`:...`).
    #[serde(rename = "ExpressionAttributeValues")]
    pub(crate) values: Item,
}

#[derive(Serialize)]
struct TransactWriteItemsRequest<'a> {
    #[serde(rename = "TransactItems")]
    actions: Vec<TransactItem<'a>>,
    #[serde(rename = "ReturnConsumedCapacity")]
    consumed: &'static str,
    #[serde(rename = "ClientRequestToken")]
    token: String,
}

#[derive(Serialize)]
struct TransactItem<'a> {
    #[serde(rename = "Update")]
    update: TableUpdate<'a>,
}

#[derive(Serialize)]
struct TableUpdate<'a> {
    #[serde(rename = "TableName")]
    table: &'a str,
    #[serde(flatten)]
    update: &'a Update,
}

/// DynamoDB API Reference, "UpdateItem".
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// Whether the endpoint lacks the operation, as dynalite and ScyllaDB's Alternator lack transactions.
pub(crate) fn is_unknown_operation(error: &AwsError) -> bool {
    error.code() == Some("UnknownOperationException")
}

/// DynamoDB API Reference, "TransactWriteItems".
pub(crate) const MAX_TRANSACTION_ITEMS: usize = 100;

/// Performs all of the updates or none: at least one, at most [`MAX_TRANSACTION_ITEMS`].
pub(crate) fn transact(aws: &Aws, table: &str, updates: &[Update], budget: &Budget) -> Result<(), AwsError> {
    let transaction = TransactWriteItemsRequest {
        actions: updates.iter().map(|update| TransactItem { update: TableUpdate { table, update } }).collect(),
        consumed: "TOTAL",
        // The idempotency token, shared by all attempts of this call.
        token: format!("{:016x}{:016x}", random(), random()),
    };
    let body = serde_json::to_string(&transaction).expect("texts and maps with text keys are always JSON");
    let written =
        send(aws, &request("TransactWriteItems", table, body), budget, &parse_json::<TransactWriteItemsResponse>)?;
    report_capacity(aws, "TransactWriteItems", &written.consumed);
    Ok(())
}

#[derive(Serialize)]
struct UpdateItemRequest<'a> {
    #[serde(flatten)]
    update: TableUpdate<'a>,
    #[serde(rename = "ReturnConsumedCapacity")]
    consumed: &'static str,
    #[serde(rename = "ReturnValues", skip_serializing_if = "Option::is_none")]
    returns: Option<&'static str>,
}

#[derive(Deserialize)]
struct UpdateItemResponse {
    #[serde(rename = "Attributes", default)]
    before: Item,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<ConsumedCapacity>,
}

/// Performs one update; false if its condition fails.
pub(crate) fn update_item(aws: &Aws, table: &str, update: &Update, budget: &Budget) -> Result<bool, AwsError> {
    match send_update(aws, table, update, None, budget) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(CONDITION_FAILED) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Performs an update without a condition, and returns what it replaced.
pub(crate) fn replace_item(aws: &Aws, table: &str, update: &Update, budget: &Budget) -> Result<Item, AwsError> {
    send_update(aws, table, update, Some("UPDATED_OLD"), budget)
}

fn send_update(
    aws: &Aws,
    table: &str,
    update: &Update,
    returns: Option<&'static str>,
    budget: &Budget,
) -> Result<Item, AwsError> {
    let input = UpdateItemRequest { update: TableUpdate { table, update }, consumed: "TOTAL", returns };
    let body = serde_json::to_string(&input).expect("texts and maps with text keys are always JSON");
    let updated = send(aws, &request("UpdateItem", table, body), budget, &parse_json::<UpdateItemResponse>)?;
    report_capacity(aws, "UpdateItem", updated.consumed.as_slice());
    Ok(updated.before)
}

pub(crate) fn request(operation: &'static str, table: &str, body: String) -> Request {
    Request {
        service: Service::DynamoDb,
        operation,
        subject: format!("table {table:?}"),
        headers: vec![
            ("content-type", "application/x-amz-json-1.0".to_string()),
            ("x-amz-target", format!("DynamoDB_20120810.{operation}")),
        ],
        body,
    }
}

pub(crate) fn parse_json<T: DeserializeOwned>(body: &mut dyn BufRead) -> Result<T, String> {
    serde_json::from_reader(body).map_err(|error| error.to_string())
}

fn report_capacity(aws: &Aws, operation: &'static str, consumed: &[ConsumedCapacity]) {
    if !consumed.is_empty() {
        aws.consumed(operation, consumed.iter().map(|consumed| consumed.units).sum());
    }
}

#[cfg(test)]
#[path = "dynamodb_tests.rs"]
mod tests;
