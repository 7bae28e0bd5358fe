//! The table of slots as both roles use it: reads it whole, writes what changed, creates it.
//!
//! A write carries the condition that each row is still as this process last read it, and that slot 1's item still
//! names its leader: two writers never undo each other's work unseen, and a leader that slept never writes over the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Aws;
use super::dynamodb::{
    self, ACTIONS_A_TRANSACTION, Item, Maker, TableDescription, Update, create_table, describe_table, get_item, scan,
    transact, update_item,
};
use super::error::{CANCELLED, Cause, Error, one_line};
use super::http::Budget;
use super::memory::Memory;
use super::table::{self, Entry, KEY, MARKED, Raw, RawMarker};
use crate::client::TableReader;
use crate::marker::Marker;
use crate::server::{Reading, Store};
use crate::slot::{Row, Slot, SlotId, Table};

/// The time for one whole reading by a server, all pages and attempts.
const READ_TOTAL: Duration = Duration::from_millis(4_500);
/// The time for a heartbeat or a look at one: two of them fit into the time after which another server takes over.
const BEAT_TOTAL: Duration = Duration::from_secs(2);
/// The time for giving the lease back: a process has to be gone 0.8 seconds after it was asked to stop.
const RELEASE_TOTAL: Duration = Duration::from_millis(500);
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
    /// What the last [`Store::read`] found, and what was written since; `None` before the first one of a term.
    rows: Option<BTreeMap<SlotId, Arc<Raw>>>,
    /// The items of the last reading.
    entries: Memory<Entry>,
    /// The marker as it was last read for taking the lease; `None` where slot 1 had no item.
    marker: Option<RawMarker>,
    /// Whether it was said that the marker may not be read.
    denial_told: bool,
}

impl SlotTable {
    /// The table of this name. Nothing is asked yet.
    pub fn new(aws: Arc<Aws>, name: &str) -> Self {
        SlotTable {
            aws,
            name: name.to_string(),
            rows: None,
            entries: Memory::default(),
            marker: None,
            denial_told: false,
        }
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
        let item =
            get_item(&self.aws, &self.name, &table::key(id), true, None, &budget).map_err(|e| self.explain(e))?;
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

    /// Reads every item, and hands each one with a usable number to `keep`.
    fn scan(&self, consistent: bool, budget: &Budget, keep: &mut dyn FnMut(&Entry)) -> Result<Table, Error> {
        let mut table = Table::default();
        let maker = Maker { make: &table::entry, memory: &self.entries };
        let each = &mut |entry: Arc<Entry>| {
            add(&mut table, &entry);
            keep(&entry);
        };
        scan(&self.aws, &self.name, consistent, budget, &maker, each).map_err(|error| self.explain(error))?;
        Ok(table)
    }

    /// Slot 1's item as far as the marker goes, eventually consistent: half a read unit, whatever the table's size.
    fn marked_item(&self, budget: &Budget) -> Result<Option<Item>, Error> {
        let key = table::key(MARKED);
        get_item(&self.aws, &self.name, &key, false, Some(table::MARKER), budget).map_err(|error| self.explain(error))
    }

    fn update(&self, update: &Update, total: Duration) -> Result<bool, Error> {
        update_item(&self.aws, &self.name, update, &Budget::new(total, ATTEMPT)).map_err(|error| self.explain(error))
    }
}

/// The rows on one page of a scan's answer, for whoever has the bytes: what a reading does with each page.
///
/// # Errors
/// The page is none.
pub fn read_page(mut body: &[u8]) -> Result<Table, String> {
    let mut table = Table::default();
    let page = dynamodb::read_page(&mut body, &Maker { make: &table::entry, memory: &Memory::default() })?;
    page.items.iter().for_each(|entry| add(&mut table, entry));
    Ok(table)
}

fn add(table: &mut Table, entry: &Entry) {
    match entry {
        Entry::Slot { id, row, .. } => drop(table.rows.insert(*id, row.clone())),
        Entry::Stray(stray) => table.strays.push(stray.clone()),
    }
}

fn usable(description: &TableDescription) -> bool {
    matches!(description.status.as_str(), "ACTIVE" | "UPDATING")
}

/// Says of a cancelled transaction what cancelled it: its reasons come in the order of its updates (DynamoDB API
/// Reference, "TransactWriteItems"), of which the first is slot 1's item with the marker, and the others are `slots`.
pub(super) fn cancelled(mut error: Error, slots: &[Slot]) -> Error {
    if let Error::Call(call) = &mut error
        && let Cause::Refused(refusal) = &mut call.cause
        && refusal.code == CANCELLED
        && !refusal.reasons.is_empty()
    {
        let ids = std::iter::once(MARKED).chain(slots.iter().map(|slot| slot.id).filter(|id| *id != MARKED));
        let texts: Vec<String> = ids
            .zip(&refusal.reasons)
            .filter(|(_, (code, _))| code != "None")
            .map(|(id, (code, message))| match code.as_str() {
                "ConditionalCheckFailed" if id == MARKED => {
                    format!("another server leads the table, or slot {id} was changed by another hand")
                }
                "ConditionalCheckFailed" => format!("slot {id} was changed by another hand"),
                "TransactionConflict" => format!("slot {id} is being written by another hand"),
                _ => format!("slot {id}: {} {}", one_line(code, 60), one_line(message, 120)),
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
    /// Within 2 seconds. Where the credentials may not read one item, the whole table is read instead.
    fn read_marker(&mut self) -> Result<Marker, crate::error::Error> {
        match self.marked_item(&Budget::new(BEAT_TOTAL, ATTEMPT)) {
            Ok(item) => {
                self.marker = item.as_ref().map(table::raw_marker);
                Ok(item.as_ref().map(table::marker).unwrap_or_default())
            }
            Err(error) if error.is_access_denied() => Ok(Store::read(self)?.marker),
            Err(error) => Err(error.into()),
        }
    }

    /// Within 4.5 seconds, the whole table or an error.
    fn read(&mut self) -> Result<Reading, crate::error::Error> {
        let (mut rows, mut raw_marker, mut marker) = (BTreeMap::new(), None, Marker::default());
        let budget = Budget::new(READ_TOTAL, ATTEMPT);
        let table = self.scan(true, &budget, &mut |entry| {
            let Entry::Slot { id, raw, marker: found, .. } = entry else { return };
            rows.insert(*id, Arc::clone(raw));
            if let Some(found) = found {
                (raw_marker, marker) = (Some(found.0.clone()), found.1.clone());
            }
        })?;
        let changed = self.rows.as_ref().is_some_and(|known| *known != rows);
        (self.rows, self.marker) = (Some(rows), raw_marker);
        Ok(Reading { table, marker, changed })
    }

    /// Within 2 seconds.
    fn take(&mut self, claim: &Marker) -> Result<bool, crate::error::Error> {
        // Of the rows of an earlier term nothing is known any more.
        self.rows = None;
        Ok(self.update(&table::take(claim, self.marker.as_ref()), BEAT_TOTAL)?)
    }

    /// Within 2 seconds.
    fn beat(&mut self, next: &Marker) -> Result<bool, crate::error::Error> {
        Ok(self.update(&table::mark(next, None), BEAT_TOTAL)?)
    }

    /// Within 10 seconds, in transactions of up to 100 slots, each with the marker, whose version rises by one from one
    /// to the next. A slot that the last reading did not find is created, on the condition that it still does not exist.
    /// After an error, the slots before the failed transaction are written; those of it and after it are not, unless the
    /// answer alone was lost. The slots are in the order of their numbers.
    fn write(&mut self, slots: &[Slot], next: &Marker) -> Result<Marker, crate::error::Error> {
        let budget = Budget::new(WRITE_TOTAL, ATTEMPT);
        let mut next = next.clone();
        let mut rest = slots;
        while let Some(first) = rest.first() {
            let with_marked = first.id == MARKED;
            let room = if with_marked { ACTIONS_A_TRANSACTION } else { ACTIONS_A_TRANSACTION - 1 };
            let group;
            (group, rest) = rest.split_at(room.min(rest.len()));
            let rows = self.rows.get_or_insert_default();
            let wanted: Vec<(SlotId, Arc<Raw>)> =
                group.iter().map(|slot| (slot.id, Arc::new(table::attributes(slot)))).collect();
            let mut updates = Vec::with_capacity(ACTIONS_A_TRANSACTION);
            if !with_marked {
                updates.push(table::mark(&next, None));
            }
            updates.extend(wanted.iter().map(|(id, wanted)| match rows.get(id).map(Arc::as_ref) {
                before if *id == MARKED => table::mark(&next, Some((wanted, before))),
                before => table::update(*id, wanted, before),
            }));
            if let Err(error) = transact(&self.aws, &self.name, &updates, &budget) {
                return Err(self.explain(cancelled(error, group)).into());
            }
            rows.extend(wanted);
            if !rest.is_empty() {
                next.version = next.version.map(|version| version + 1);
            }
        }
        Ok(next)
    }

    /// Within half a second; also where another one holds it by now.
    fn release(&mut self, leader: &str) -> Result<(), crate::error::Error> {
        self.update(&table::release(leader), RELEASE_TOTAL)?;
        Ok(())
    }
}

impl TableReader for SlotTable {
    /// Until then, the marker; none where the credentials may not read one item, which is said once.
    fn marker(&mut self, until: Instant) -> Result<Marker, crate::error::Error> {
        match self.marked_item(&time_until(until)) {
            Ok(item) => Ok(item.as_ref().map(table::marker).unwrap_or_default()),
            Err(error) if error.is_access_denied() => {
                if !std::mem::replace(&mut self.denial_told, true) {
                    log::warn!("the whole table is read every turn, which costs more: {error}");
                }
                Ok(Marker::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Until then, the whole table or an error.
    fn read(&mut self, consistent: bool, until: Instant) -> Result<Table, crate::error::Error> {
        Ok(self.scan(consistent, &time_until(until), &mut |_| {})?)
    }
}

fn time_until(until: Instant) -> Budget {
    Budget::new(until.saturating_duration_since(Instant::now()), ATTEMPT)
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

    fn soon() -> Instant {
        Instant::now() + READ_TOTAL
    }

    fn next(version: u64) -> Marker {
        Marker { version: Some(version), heartbeat: Some(9), leader: Some("me".to_string()) }
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
        let table = TableReader::read(&mut slots, false, soon()).expect("a table");
        assert_eq!(table.slots().cloned().collect::<Vec<_>>(), [slot(1), Slot::empty(3)]);
        assert!(matches!(table.rows.get(&2), Some(Row::Unreadable { .. })));
        assert_eq!(table.strays.len(), 1);
        assert_eq!(Store::read(&mut slots).expect("a table").table, table);
        let consistent: Vec<Value> = server.seen().iter().map(|seen| seen.json()["ConsistentRead"].clone()).collect();
        assert_eq!(consistent, [json!(false), json!(true)]);
    }

    #[test]
    fn groups_of_slots_go_with_the_marker_and_no_transaction_is_too_large() {
        let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
            "Scan" => Answer::ok(r#"{"Items":[]}"#),
            _ => Answer::ok(r#"{"ConsumedCapacity":[{"CapacityUnits":200.0}]}"#),
        });
        let mut slots = slot_table(&server.url);
        Store::read(&mut slots).expect("a table");
        for (ids, sizes) in
            [(1..=250, vec![100, 100, 52]), (2..=100, vec![100]), (2..=101, vec![100, 2]), (1..=1, vec![1])]
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
    fn a_server_sees_that_another_hand_changed_a_row() {
        let rows = Arc::new(Mutex::new(vec![item(&slot(1)), item(&slot(2))]));
        let table = Arc::clone(&rows);
        let server = Responder::new(move |seen: &Seen| match seen.operation().as_str() {
            "Scan" => Answer::ok(json!({ "Items": *table.lock().expect("rows") }).to_string()),
            _ => Answer::ok("{}"),
        });
        let mut slots = slot_table(&server.url);
        let mut changed = || Store::read(&mut slots).expect("a table").changed;
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
        assert!(!Store::read(&mut slots).expect("a table").changed, "what it wrote itself is none");
    }

    #[test]
    fn the_lease_is_taken_from_the_marker_as_it_was_read() {
        let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
            "GetItem" => {
                Answer::ok(r#"{"Item":{"BackendServerID":{"N":"1"},"HsdoLeader":{"S":"a"},"HsdoHeartbeat":{"N":"4"}}}"#)
            }
            _ => refusal("ConditionalCheckFailedException", ""),
        });
        let mut slots = slot_table(&server.url);
        let seen = slots.read_marker().expect("a marker");
        assert_eq!(seen, Marker { version: None, heartbeat: Some(4), leader: Some("a".to_string()) });
        assert!(!slots.take(&next(7)).expect("an answer") && !slots.beat(&next(8)).expect("an answer"));
        slots.release("me").expect("another one has it: no fault");
        let bodies: Vec<Value> = server.seen().iter().map(Seen::json).collect();
        assert_eq!(bodies[0]["ConsistentRead"], json!(false), "half a unit");
        assert_eq!(
            bodies[1]["ConditionExpression"],
            json!("attribute_not_exists(#version) AND #heartbeat = :seen1 AND #leader = :seen2")
        );
        assert_eq!(bodies[2]["ConditionExpression"], json!("#leader = :leader"));
        assert_eq!(bodies[3]["UpdateExpression"], json!("REMOVE #leader"));
    }

    #[test]
    fn who_may_not_read_one_item_reads_the_table() {
        let server = Responder::new(|seen: &Seen| match seen.operation().as_str() {
            "GetItem" => refusal("AccessDeniedException", ""),
            _ => {
                let mut item = item(&slot(1));
                item["HsdoLeader"] = json!({ "S": "a" });
                Answer::ok(json!({ "Items": [item] }).to_string())
            }
        });
        let mut slots = slot_table(&server.url);
        assert_eq!(TableReader::marker(&mut slots, soon()).expect("none"), Marker::default());
        assert_eq!(slots.read_marker().expect("a marker").leader.as_deref(), Some("a"));
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
    fn a_cancelled_write_names_its_slots_and_passes() {
        let server = Responder::new(|_: &Seen| {
            let reasons = r#","Message":"cancelled","CancellationReasons":[{"Code":"ConditionalCheckFailed"},{"Code":"None"},
                {"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},
                {"Code":"TransactionConflict"},{"Code":"ThrottlingError","Message":"slow down"}]"#;
            refusal("TransactionCanceledException", reasons)
        });
        let error =
            slot_table(&server.url).write(&[slot(3), slot(4), slot(5), slot(6)], &next(7)).expect_err("cancelled");
        let text = error.to_string();
        for part in [
            "another server leads the table, or slot 1 was changed by another hand",
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
        let text = slot_table(&server.url).write(&slots, &next(7)).expect_err("cancelled").to_string();
        assert!(text.contains("slot 4 was") && !text.contains("slot 5 ") && text.contains("and 46 more"), "{text}");
    }

    #[test]
    fn a_table_that_is_missing_is_told_with_the_remedy() {
        let server = Responder::new(|_: &Seen| refusal("ResourceNotFoundException", ""));
        let mut slots = slot_table(&server.url);
        let errors: [crate::error::Error; 6] = [
            slots.read_marker().expect_err("missing"),
            TableReader::marker(&mut slots, soon()).expect_err("missing"),
            slots.check_schema().expect_err("missing").into(),
            Store::read(&mut slots).expect_err("missing"),
            TableReader::read(&mut slots, true, soon()).expect_err("missing"),
            slots.write(&[slot(1)], &next(7)).expect_err("missing"),
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
        assert_eq!(slots.read_row(1).expect("an answer"), Some(Row::Known(slot(1).into())));
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
}
