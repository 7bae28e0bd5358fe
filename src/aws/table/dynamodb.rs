//! Calls to DynamoDB: JSON 1.0, version 2012-08-10. Items go through as DynamoDB types them; what an attribute
//! means is known only to `table`.

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
    /// Text.
    S(String),
    /// A number, as text.
    N(String),
    /// Bytes in Base64.
    B(String),
    /// True or false.
    #[serde(rename = "BOOL")]
    Bool(bool),
    /// Null.
    #[serde(rename = "NULL")]
    Null(bool),
    /// A set of texts.
    #[serde(rename = "SS")]
    Texts(Vec<String>),
    /// A set of numbers.
    #[serde(rename = "NS")]
    Numbers(Vec<String>),
    /// A set of bytes.
    #[serde(rename = "BS")]
    Binaries(Vec<String>),
    /// A list.
    L(Vec<Attribute>),
    /// A map.
    M(Item),
}

/// An item: its attributes by name.
pub(crate) type Item = BTreeMap<String, Attribute>;

/// What DescribeTable says that matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct TableDescription {
    /// `CREATING`, `ACTIVE`, ...
    #[serde(rename = "TableStatus")]
    pub(crate) status: String,
    /// The attributes of the key.
    #[serde(rename = "KeySchema")]
    pub(crate) keys: Vec<Key>,
    /// The types of the attributes that some key or index uses.
    #[serde(rename = "AttributeDefinitions")]
    pub(crate) attributes: Vec<Definition>,
    /// Of a global table: `EVENTUAL` or `STRONG`.
    #[serde(rename = "MultiRegionConsistency")]
    pub(crate) consistency: Option<String>,
}

/// A part of the key.
#[derive(Debug, Deserialize)]
pub(crate) struct Key {
    /// The attribute's name.
    #[serde(rename = "AttributeName")]
    pub(crate) name: String,
    /// `HASH` or `RANGE`.
    #[serde(rename = "KeyType")]
    pub(crate) kind: String,
}

/// The type of an attribute.
#[derive(Debug, Deserialize)]
pub(crate) struct Definition {
    /// The attribute's name.
    #[serde(rename = "AttributeName")]
    pub(crate) name: String,
    /// `S`, `N` or `B`.
    #[serde(rename = "AttributeType")]
    pub(crate) kind: String,
}

/// One page of a scan, its items as they stand there. A page without `Items` is no page.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(rename = "Items", borrow)]
    items: Vec<&'a RawValue>,
    #[serde(rename = "LastEvaluatedKey")]
    last: Option<Item>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<Consumed>,
}

/// One page of a scan, with what was made of its items.
pub(crate) struct Page<T> {
    /// The items.
    pub(crate) items: Vec<Arc<T>>,
    last: Option<Item>,
    consumed: Option<Consumed>,
}

/// What is made of items, and what was made of those of the last scan.
pub(crate) struct Maker<'a, T> {
    /// Makes something of an item.
    pub(crate) make: &'a dyn Fn(Item) -> T,
    /// What was made of the same bytes is not made again.
    pub(crate) cache: &'a ParseCache<T>,
}

/// Reads one page of a scan.
pub(crate) fn read_page<T>(body: &mut dyn BufRead, maker: &Maker<'_, T>) -> Result<Page<T>, String> {
    let mut text = maker.cache.buffer();
    text.clear();
    body.read_to_end(&mut text).map_err(|error| error.to_string())?;
    let unreadable = |error: serde_json::Error| error.to_string();
    let RawPage { items, last, consumed } = serde_json::from_slice(&text).map_err(unreadable)?;
    let item = |raw: &RawValue| {
        maker
            .cache
            .get_or_parse(raw.get().as_bytes(), || serde_json::from_str(raw.get()).map(maker.make).map_err(unreadable))
    };
    let items = items.into_iter().map(item).collect::<Result<_, _>>()?;
    maker.cache.recycle(text);
    Ok(Page { items, last, consumed })
}

#[derive(Deserialize)]
struct GotItem {
    #[serde(rename = "Item")]
    item: Option<Item>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<Consumed>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "ConsumedCapacity", default)]
    consumed: Vec<Consumed>,
}

#[derive(Deserialize)]
struct Consumed {
    #[serde(rename = "CapacityUnits")]
    units: f64,
}

#[derive(Deserialize)]
struct Described {
    #[serde(rename = "Table")]
    table: TableDescription,
}

#[derive(Deserialize)]
struct Creating {
    #[serde(rename = "TableDescription")]
    _table: Value,
}

/// Describes a table.
pub(crate) fn describe_table(aws: &Aws, table: &str, budget: &Budget) -> Result<TableDescription, AwsError> {
    let request = request("DescribeTable", table, json!({ "TableName": table }).to_string());
    send(aws, &request, budget, &answer::<Described>).map(|described| described.table)
}

/// Asks for a new table with on-demand billing, whose key is the number `key`. It is not ready when this returns.
pub(crate) fn create_table(aws: &Aws, table: &str, key: &str, budget: &Budget) -> Result<(), AwsError> {
    let body = json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": "N" }],
        "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    send(aws, &request("CreateTable", table, body.to_string()), budget, &answer::<Creating>).map(|_| ())
}

/// Makes something of every item of a table, all pages, and hands it to `each`, in any order. On an error some were handed over: what they were collected into is then no whole table.
pub(crate) fn scan<T>(
    aws: &Aws,
    table: &str,
    consistent: bool,
    budget: &Budget,
    maker: &Maker<'_, T>,
) -> Result<Vec<Arc<T>>, AwsError> {
    maker.cache.next_response();
    let mut items = Vec::new();
    let mut pages = PageTokens::default();
    let mut body = json!({ "TableName": table, "ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL" });
    loop {
        let request = request("Scan", table, body.to_string());
        let page = send(aws, &request, budget, &|body| read_page(body, maker))?;
        report(aws, "Scan", page.consumed.as_slice());
        items.extend(page.items);
        // "If LastEvaluatedKey is empty, then the last page of results has been processed".
        let Some(last) = page.last.filter(|last| !last.is_empty()) else { return Ok(items) };
        let last = json!(last);
        pages.follow(&last.to_string()).map_err(|text| call_error(aws, &request, Cause::Unreadable(text)))?;
        body["ExclusiveStartKey"] = last;
    }
}

/// One item by its key, strongly consistent or not, or the attributes of it that `projection` lists; `None` if there
/// is none. The price follows from the size of the whole item: half a unit up to 4 KB, one if consistent.
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
    let got = send(aws, &request("GetItem", table, body.to_string()), budget, &answer::<GotItem>)?;
    report(aws, "GetItem", got.consumed.as_slice());
    Ok(got.item)
}

/// An update of one item, under a condition on the item as it stands.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Update {
    /// The item's key.
    #[serde(rename = "Key")]
    pub(crate) key: Item,
    /// What is set and removed.
    #[serde(rename = "UpdateExpression")]
    pub(crate) update: String,
    /// What must hold.
    #[serde(rename = "ConditionExpression")]
    pub(crate) condition: String,
    /// Attributes by the names (`#...`) that both expressions use.
    #[serde(rename = "ExpressionAttributeNames")]
    pub(crate) names: BTreeMap<String, String>,
    /// Values by the names (`:...`) that both expressions use.
    #[serde(rename = "ExpressionAttributeValues")]
    pub(crate) values: Item,
}

#[derive(Serialize)]
struct Transaction<'a> {
    #[serde(rename = "TransactItems")]
    actions: Vec<Action<'a>>,
    #[serde(rename = "ReturnConsumedCapacity")]
    consumed: &'static str,
    #[serde(rename = "ClientRequestToken")]
    token: String,
}

#[derive(Serialize)]
struct Action<'a> {
    #[serde(rename = "Update")]
    update: Placed<'a>,
}

#[derive(Serialize)]
struct Placed<'a> {
    #[serde(rename = "TableName")]
    table: &'a str,
    #[serde(flatten)]
    update: &'a Update,
}

/// The code of a single update whose condition does not hold (DynamoDB API Reference, "UpdateItem").
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// How a DynamoDB that has no such operation says so (dynalite and ScyllaDB's Alternator do; of the operations that hsdo
/// calls, transactions are the youngest).
pub(crate) fn is_unknown_operation(error: &AwsError) -> bool {
    error.code() == Some("UnknownOperationException")
}

/// How many actions one transaction may hold (DynamoDB API Reference, "TransactWriteItems").
pub(crate) const ACTIONS_A_TRANSACTION: usize = 100;

/// Carries out all of the updates, at most [`ACTIONS_A_TRANSACTION`] and at least one, or none of them.
pub(crate) fn transact(aws: &Aws, table: &str, updates: &[Update], budget: &Budget) -> Result<(), AwsError> {
    let transaction = Transaction {
        actions: updates.iter().map(|update| Action { update: Placed { table, update } }).collect(),
        consumed: "TOTAL",
        // The same for every attempt of this call: DynamoDB carries the transaction out once.
        token: format!("{:016x}{:016x}", random(), random()),
    };
    let body = serde_json::to_string(&transaction).expect("texts and maps with text keys are always JSON");
    let written = send(aws, &request("TransactWriteItems", table, body), budget, &answer::<Written>)?;
    report(aws, "TransactWriteItems", &written.consumed);
    Ok(())
}

#[derive(Serialize)]
struct Single<'a> {
    #[serde(flatten)]
    placed: Placed<'a>,
    #[serde(rename = "ReturnConsumedCapacity")]
    consumed: &'static str,
}

/// Carries out one update; false if its condition does not hold.
pub(crate) fn update_item(aws: &Aws, table: &str, update: &Update, budget: &Budget) -> Result<bool, AwsError> {
    let single = Single { placed: Placed { table, update }, consumed: "TOTAL" };
    let body = serde_json::to_string(&single).expect("texts and maps with text keys are always JSON");
    match send(aws, &request("UpdateItem", table, body), budget, &answer::<GotItem>) {
        Ok(updated) => {
            report(aws, "UpdateItem", updated.consumed.as_slice());
            Ok(true)
        }
        Err(error) if error.code() == Some(CONDITION_FAILED) => Ok(false),
        Err(error) => Err(error),
    }
}

fn request(operation: &'static str, table: &str, body: String) -> Request {
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

pub(crate) fn answer<T: DeserializeOwned>(body: &mut dyn BufRead) -> Result<T, String> {
    serde_json::from_reader(body).map_err(|error| error.to_string())
}

fn report(aws: &Aws, operation: &'static str, consumed: &[Consumed]) {
    if !consumed.is_empty() {
        aws.consumed(operation, consumed.iter().map(|consumed| consumed.units).sum());
    }
}

#[cfg(test)]
#[path = "dynamodb_tests.rs"]
mod tests;
