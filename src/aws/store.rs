//! The table of slots as both roles use it: reads it whole, writes what changed, creates it.
//!
//! A write carries the condition that each row is still as this process last read it, so that two writers never
//! undo each other's work unseen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Aws;
use super::dynamodb::{
    ACTIONS_A_TRANSACTION, Item, TableDescription, create_table, describe_table, get_item, scan, transact,
};
use super::error::{CANCELLED, Cause, Error, one_line};
use super::http::Budget;
use super::table::{self, KEY, Raw};
use crate::client::TableReader;
use crate::server::Store;
use crate::slot::{Row, Slot, SlotId, Table};

/// The time for one whole reading, all pages and attempts: a client promises that a hung AWS delays its repair of
/// HAProxy by at most 5 seconds.
const READ_TOTAL: Duration = Duration::from_millis(4_500);
/// The time for one whole write, all transactions and attempts.
const WRITE_TOTAL: Duration = Duration::from_secs(10);
/// The time for one attempt at one call.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long a table may take to become active; AWS takes about ten seconds.
const CREATE_TOTAL: Duration = Duration::from_secs(120);
/// How often a table that is being created is looked at.
const CREATE_POLL: Duration = Duration::from_millis(500);

/// Whether [`SlotTable::create`] had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It made the table.
    Created,
    /// The table was there.
    Existed,
}

/// The DynamoDB table of slots.
pub struct SlotTable {
    aws: Arc<Aws>,
    name: String,
    /// What the last [`Store::read`] found, and what was written since.
    rows: BTreeMap<SlotId, Raw>,
}

impl SlotTable {
    /// The table of this name. Nothing is asked yet.
    pub fn new(aws: Arc<Aws>, name: &str) -> Self {
        SlotTable { aws, name: name.to_string(), rows: BTreeMap::new() }
    }

    /// Whether the table is there, has our key and can be used. Errors: [`Error::Table`] for one that is missing or
    /// has another key, [`Error::NotYet`] for one that is being created or deleted, and those of the call.
    pub fn check_schema(&mut self) -> Result<(), Error> {
        let description = self.describe(&Budget::new(READ_TOTAL, ATTEMPT))?;
        self.check(&description)?;
        if usable(&description) {
            return Ok(());
        }
        Err(Error::NotYet(format!(
            "table {:?} cannot be used yet: it is {}",
            self.name,
            one_line(&description.status, 40)
        )))
    }

    /// Creates the table, billed on demand, unless it exists, and waits until it can be used: at most two minutes.
    /// An existing table is never changed; one with another key is an error.
    pub fn create(&mut self) -> Result<Created, Error> {
        let budget = Budget::new(CREATE_TOTAL, ATTEMPT);
        let created = match self.describe(&budget) {
            Ok(_) => Created::Existed,
            Err(Error::Table(_)) => match create_table(&self.aws, &self.name, KEY, &budget) {
                Ok(()) => Created::Created,
                // Another one was quicker.
                Err(error) if error.code() == Some("ResourceInUseException") => Created::Existed,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        loop {
            match self.describe(&budget) {
                Ok(description) => {
                    self.check(&description)?;
                    if usable(&description) {
                        return Ok(created);
                    }
                }
                // DescribeTable is eventually consistent: a new table may not be seen at once.
                Err(Error::Table(_)) if !budget.is_over() => {}
                Err(error) => return Err(error),
            }
            if budget.is_over() {
                let seconds = CREATE_TOTAL.as_secs();
                return Err(Error::NotYet(format!("table {:?} is not active after {seconds} s", self.name)));
            }
            std::thread::sleep(CREATE_POLL);
        }
    }

    /// One row, strongly consistent; `None` if the table has no such item.
    pub fn read_row(&mut self, id: SlotId) -> Result<Option<Row>, Error> {
        let budget = Budget::new(READ_TOTAL, ATTEMPT);
        let item = get_item(&self.aws, &self.name, &table::key(id), true, &budget).map_err(|e| self.explain(e))?;
        Ok(item.map(|item| table::row(id, &item)))
    }

    fn describe(&self, budget: &Budget) -> Result<TableDescription, Error> {
        describe_table(&self.aws, &self.name, budget).map_err(|error| self.explain(error))
    }

    fn check(&self, description: &TableDescription) -> Result<(), Error> {
        let key_fits = matches!(description.keys.as_slice(), [key] if key.name == KEY && key.kind == "HASH");
        let number = description.attributes.iter().any(|attribute| attribute.name == KEY && attribute.kind == "N");
        if key_fits && number {
            return Ok(());
        }
        Err(Error::Table(format!(
            "table {:?} in {} is not a table of slots: its key must be {KEY} (number) alone; name another in DYNAMODB_TABLE_NAME",
            self.name,
            self.aws.region()
        )))
    }

    /// A table that is not there is told in words of ours.
    fn explain(&self, error: Error) -> Error {
        if error.code() != Some("ResourceNotFoundException") {
            return error;
        }
        Error::Table(format!(
            "table {:?} does not exist in {}: create it with hsdo --create-table, or correct DYNAMODB_TABLE_NAME",
            self.name,
            self.aws.region()
        ))
    }

    /// Reads every item, and hands each one with a usable number to `keep` after its row was understood.
    fn scan(&self, consistent: bool, keep: &mut dyn FnMut(SlotId, Item)) -> Result<Table, Error> {
        let budget = Budget::new(READ_TOTAL, ATTEMPT);
        let mut table = Table::default();
        let each = &mut |item: Item| match table::id(&item) {
            Ok(id) => {
                table.rows.insert(id, table::row(id, &item));
                keep(id, item);
            }
            Err(stray) => table.strays.push(stray),
        };
        scan(&self.aws, &self.name, consistent, &budget, each).map_err(|error| self.explain(error))?;
        Ok(table)
    }
}

fn usable(description: &TableDescription) -> bool {
    matches!(description.status.as_str(), "ACTIVE" | "UPDATING")
}

/// Says of a cancelled transaction which slots cancelled it: its reasons come in the order of its updates
/// (DynamoDB API Reference, "TransactWriteItems").
fn cancelled(mut error: Error, slots: &[Slot]) -> Error {
    if let Error::Call(call) = &mut error
        && let Cause::Refused(refusal) = &mut call.cause
        && refusal.code == CANCELLED
        && !refusal.reasons.is_empty()
    {
        let reasons = slots.iter().zip(&refusal.reasons).filter(|(_, (code, _))| code != "None");
        let texts: Vec<String> = reasons
            .map(|(slot, (code, message))| match code.as_str() {
                "ConditionalCheckFailed" => format!("slot {} was changed by another hand", slot.id),
                "TransactionConflict" => format!("slot {} is being written by another hand", slot.id),
                _ => format!("slot {}: {} {}", slot.id, one_line(code, 60), one_line(message, 120)),
            })
            .collect();
        let (shown, more) = texts.split_at(texts.len().min(4));
        refusal.message = shown.join(", ");
        if !more.is_empty() {
            refusal.message.push_str(&format!(", and {} more", more.len()));
        }
    }
    error
}

impl Store for SlotTable {
    /// Within 4.5 seconds, the whole table or an error.
    fn read(&mut self) -> Result<Table, crate::error::Error> {
        let mut rows = BTreeMap::new();
        let table = self.scan(true, &mut |id, item| drop(rows.insert(id, table::raw(item))))?;
        self.rows = rows;
        Ok(table)
    }

    /// Within 10 seconds, in transactions of up to 100 slots. A slot that the last reading did not find is created,
    /// on the condition that it still does not exist. After an error, the slots before the failed transaction are
    /// written; those of it and after it are not, unless the answer alone was lost.
    fn write(&mut self, slots: &[Slot]) -> Result<(), crate::error::Error> {
        let budget = Budget::new(WRITE_TOTAL, ATTEMPT);
        for slots in slots.chunks(ACTIONS_A_TRANSACTION) {
            let wanted: Vec<(SlotId, Raw)> = slots.iter().map(|slot| (slot.id, table::attributes(slot))).collect();
            let updates: Vec<_> =
                wanted.iter().map(|(id, wanted)| table::update(*id, wanted, self.rows.get(id))).collect();
            transact(&self.aws, &self.name, &updates, &budget)
                .map_err(|error| self.explain(cancelled(error, slots)))?;
            self.rows.extend(wanted);
        }
        Ok(())
    }
}

impl TableReader for SlotTable {
    /// Within 4.5 seconds, the whole table or an error.
    fn read(&mut self, consistent: bool) -> Result<Table, crate::error::Error> {
        Ok(self.scan(consistent, &mut |_, _| {})?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::super::testing::{Answer, Responder, Seen, aws, raw_server, read_request};
    use super::*;
    use crate::slot::{Occupant, Status};

    fn slot(id: SlotId) -> Slot {
        let occupant = Occupant {
            address: "10.0.0.1".parse().expect("an address"),
            name: format!("i-{id}"),
            group: Some("web".to_string()),
            weight: 1,
            status: Status::Enabled,
            last_step: None,
        };
        Slot { id, occupant: Some(occupant), last_group: Some("web".to_string()) }
    }

    fn item(slot: &Slot) -> Value {
        let update = table::update(slot.id, &table::attributes(slot), None);
        let mut item = json!(table::key(slot.id));
        for (index, name) in update.names.iter().filter_map(|(key, name)| Some((key.strip_prefix("#a")?, name))) {
            if let Some(value) = update.values.get(&format!(":w{index}")) {
                item[name] = json!(value);
            }
        }
        item
    }

    fn refusal(code: &str, more: &str) -> Answer {
        Answer { status: 400, body: format!("{{\"__type\":\"x#{code}\"{more}}}") }
    }

    fn description(status: &str, key: &str, kind: &str) -> String {
        json!({ "Table": { "TableStatus": status, "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
                "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": kind }], "ItemCount": 0 } })
        .to_string()
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
            Answer::ok(json!({ "Items": [item(&slot(1)), bad, stray, item(&Slot::empty(3))] }).to_string())
        });
        let mut slots = slot_table(&server.url);
        let table = TableReader::read(&mut slots, false).expect("a table");
        assert_eq!(table.slots().cloned().collect::<Vec<_>>(), [slot(1), Slot::empty(3)]);
        assert!(matches!(table.rows.get(&2), Some(Row::Unreadable { .. })));
        assert_eq!(table.strays.len(), 1);
        assert_eq!(Store::read(&mut slots).expect("a table"), table);
        let consistent: Vec<Value> = server.seen().iter().map(|seen| seen.json()["ConsistentRead"].clone()).collect();
        assert_eq!(consistent, [json!(false), json!(true)]);
    }

    #[test]
    fn two_hundred_and_fifty_slots_take_three_transactions() {
        let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
            "Scan" => Answer::ok(r#"{"Items":[]}"#),
            _ => Answer::ok(r#"{"ConsumedCapacity":[{"CapacityUnits":200.0}]}"#),
        });
        let mut slots = slot_table(&server.url);
        Store::read(&mut slots).expect("a table");
        slots.write(&(1..=250).map(slot).collect::<Vec<_>>()).expect("written");
        let seen = server.seen();
        assert_eq!(seen[1..].iter().map(|seen| actions(seen).len()).collect::<Vec<_>>(), [100, 100, 50]);
        slots.write(&[]).expect("nothing to write");
        assert_eq!(server.seen().len(), 4);
    }

    #[test]
    fn a_write_asks_for_the_rows_as_they_were_read_and_then_as_they_were_written() {
        let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
            "Scan" => Answer::ok(json!({ "Items": [item(&slot(1))] }).to_string()),
            _ => Answer::ok("{}"),
        });
        let mut slots = slot_table(&server.url);
        Store::read(&mut slots).expect("a table");
        for slots_written in [[slot(1), slot(2)], [Slot::empty(1), Slot::empty(2)]] {
            slots.write(&slots_written).expect("written");
        }
        let seen = server.seen();
        let condition = |seen: &Seen, action: usize| actions(seen)[action]["Update"]["ConditionExpression"].to_string();
        assert!(condition(&seen[1], 0).starts_with("\"#a0 = :b0 AND"), "{}", condition(&seen[1], 0));
        assert_eq!(condition(&seen[1], 1), "\"attribute_not_exists(#key)\"");
        assert!(condition(&seen[2], 1).starts_with("\"#a0 = :b0 AND"), "{}", condition(&seen[2], 1));
        assert_eq!(actions(&seen[2])[1]["Update"]["ExpressionAttributeValues"][":b1"], json!({ "S": "i-2" }));
    }

    #[test]
    fn a_cancelled_write_names_its_slots_and_passes() {
        let server = Responder::new(|_: &Seen| {
            let reasons = r#","Message":"cancelled","CancellationReasons":[{"Code":"None"},
                {"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},
                {"Code":"TransactionConflict"},{"Code":"ThrottlingError","Message":"slow down"}]"#;
            refusal("TransactionCanceledException", reasons)
        });
        let error = slot_table(&server.url).write(&[slot(3), slot(4), slot(5), slot(6)]).expect_err("cancelled");
        let text = error.to_string();
        for part in [
            "slot 4 was changed by another hand",
            "slot 5 is being written by another hand",
            "slot 6: ThrottlingError slow down",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("slot 3"), "{text}");
        assert!(!error.needs_a_person());
        assert_eq!(server.seen().len(), 1, "it is not tried again: the next turn reads first");
    }

    #[test]
    fn a_long_list_of_reasons_is_cut() {
        let server = Responder::new(|seen: &Seen| {
            let reasons = vec![json!({ "Code": "ConditionalCheckFailed" }); actions(seen).len()];
            refusal("TransactionCanceledException", &format!(",\"CancellationReasons\":{}", json!(reasons)))
        });
        let slots: Vec<Slot> = (1..=50).map(slot).collect();
        let text = slot_table(&server.url).write(&slots).expect_err("cancelled").to_string();
        assert!(text.contains("slot 4 was") && !text.contains("slot 5 ") && text.contains("and 46 more"), "{text}");
    }

    #[test]
    fn a_table_that_is_missing_is_told_with_the_remedy() {
        let server = Responder::new(|_: &Seen| refusal("ResourceNotFoundException", ""));
        let mut slots = slot_table(&server.url);
        let errors: [crate::error::Error; 4] = [
            slots.check_schema().expect_err("missing").into(),
            Store::read(&mut slots).expect_err("missing"),
            TableReader::read(&mut slots, true).expect_err("missing"),
            slots.write(&[slot(1)]).expect_err("missing"),
        ];
        for error in errors {
            assert!(error.needs_a_person());
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
            (description("CREATING", KEY, "N"), Some(false)),
            (description("ACTIVE", KEY, "S"), Some(true)),
            (description("ACTIVE", "id", "N"), Some(true)),
            ("{}".to_string(), Some(false)),
        ];
        for (body, expected) in cases {
            let answer = body.clone();
            let server = Responder::new(move |_: &Seen| Answer::ok(answer.clone()));
            let checked = slot_table(&server.url).check_schema();
            assert_eq!(checked.err().map(|error| error.needs_a_person()), expected, "{body}");
        }
    }

    #[test]
    fn a_table_is_created_once_and_waited_for() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&calls);
        // Missing, created, not seen yet, being made, there; then it exists.
        let server = Responder::new(move |seen: &Seen| {
            let mut told = told.lock().expect("calls");
            told.push(seen.operation());
            match told.len() {
                1 | 3 => refusal("ResourceNotFoundException", ""),
                2 => Answer::ok(r#"{"TableDescription":{"TableStatus":"CREATING"}}"#),
                4 => Answer::ok(description("CREATING", KEY, "N")),
                _ => Answer::ok(description("ACTIVE", KEY, "N")),
            }
        });
        let mut slots = slot_table(&server.url);
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
        let server = Responder::new(|_: &Seen| Answer::ok(description("ACTIVE", "id", "S")));
        let error = slot_table(&server.url).create().expect_err("not ours");
        assert!(error.to_string().contains("BackendServerID"), "{error}");
        assert!(server.seen().iter().all(|seen| seen.operation() == "DescribeTable"));
    }

    #[test]
    fn one_row_is_read_by_its_number() {
        let server = Responder::new(|seen: &Seen| {
            let there = seen.json()["Key"]["BackendServerID"]["N"] == json!("1");
            Answer::ok(if there { json!({ "Item": item(&slot(1)) }) } else { json!({}) }.to_string())
        });
        let mut slots = slot_table(&server.url);
        assert_eq!(slots.read_row(1).expect("an answer"), Some(Row::Known(slot(1))));
        assert_eq!(slots.read_row(2).expect("an answer"), None);
    }

    #[test]
    fn a_hung_aws_takes_less_than_five_seconds_of_a_client() {
        let url = raw_server(|_, mut stream| {
            read_request(&mut stream);
            read_request(&mut stream); // until the caller hangs up
        });
        let begun = Instant::now();
        let error = TableReader::read(&mut slot_table(&url), false).expect_err("silence");
        assert!(begun.elapsed() < Duration::from_millis(4_900), "{:?}", begun.elapsed());
        assert!(error.to_string().contains("timed out"), "{error}");
    }
}
