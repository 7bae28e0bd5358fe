//! The table of slots as both roles use it: reads it whole, writes what changed, creates it.
//!
//! A write carries the condition that each row is still as this process last read it, and that slot 1's item still
//! names its leader: two writers never undo each other's work unseen, and a leader that slept never writes over the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::dynamodb::{
    self, ACTIONS_A_TRANSACTION, Item, Maker, TableDescription, Update, create_table, describe_table, get_item,
    is_unknown_operation, scan, transact, update_item,
};
use super::rows::{self as table, Entry, KEY, MARKED, Raw, RawMarker};
use crate::aws::calls::Aws;
use crate::aws::error::{CANCELLED, Cause, Error};
use crate::aws::reading::memory::Memory;
use crate::aws::service::Service;
use crate::aws::transport::http::Budget;
use crate::marker::{Claim, Marker, Stamp};
use crate::ports::{Sighting, SlotStore, TableReader, TableReading, TurnError};
use crate::slot::{Row, Slot, SlotId, Table};
use crate::text::one_line;

/// The time for one whole reading by a server, all pages and attempts.
const READ_TOTAL: Duration = Duration::from_millis(4_500);
/// The time for a heartbeat or a look at one: two of them fit into the time after which another server takes over.
const BEAT_TOTAL: Duration = Duration::from_secs(2);
/// The time for giving the lease back: a process has to be gone 0.8 seconds after it was asked to stop.
const RELEASE_TOTAL: Duration = Duration::from_millis(500);
/// The time for one whole write, all transactions and attempts.
pub(super) const WRITE_TOTAL: Duration = Duration::from_secs(10);
/// The time for one attempt at one call.
pub(super) const ATTEMPT: Duration = Duration::from_secs(4);
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
    pub(super) aws: Arc<Aws>,
    pub(super) name: String,
    /// What the last [`SlotStore::read`] found, and what was written since; `None` before the first one of a term.
    pub(super) rows: Option<BTreeMap<SlotId, Arc<Raw>>>,
    /// The items of the last reading.
    entries: Memory<Entry>,
    /// Whether it was said that the marker may not be read.
    denial_told: bool,
    /// Whether DynamoDB has no transactions for this table; shared by all twins.
    pub(super) singly: Arc<AtomicBool>,
    /// Rows were written without a version that tells so.
    pub(super) untold: bool,
}

impl SlotTable {
    /// The table of this name. Nothing is asked yet.
    pub fn new(aws: Arc<Aws>, name: &str) -> Self {
        SlotTable {
            aws,
            name: name.to_string(),
            rows: None,
            entries: Memory::default(),
            denial_told: false,
            singly: Arc::default(),
            untold: false,
        }
    }

    /// The table's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The table's region, where it is known by now.
    pub(super) fn region(&self) -> &str {
        self.aws.region(Service::DynamoDb)
    }

    /// The same table, for somebody else: what one learns about how it can be written holds for both.
    pub fn twin(&self) -> Self {
        SlotTable { singly: Arc::clone(&self.singly), ..SlotTable::new(Arc::clone(&self.aws), &self.name) }
    }

    /// Whether the table is there, has our key and can be used. Errors: [`Error::Table`] for one that is missing, has
    /// another key or cannot be used before a person has done something, [`Error::NotYet`] for one that is being created
    /// or deleted, and those of the call.
    pub fn check_schema(&mut self) -> Result<(), Error> {
        let description = self.describe(&self.aws.budget(READ_TOTAL, ATTEMPT))?;
        self.check(&description)?;
        // DynamoDB Developer Guide, "How DynamoDB global tables work": transactions on such a table are refused.
        if description.consistency.as_deref() == Some("STRONG") {
            self.write_singly_from_now_on("it is a global table of strong consistency");
        }
        self.check_status(&description)
    }

    /// Creates the table, billed on demand, unless it exists, and waits until it can be used: at most two minutes.
    /// An existing table is never changed; one with another key is an error.
    pub fn create(&mut self) -> Result<Created, Error> {
        let budget = self.aws.budget(CREATE_TOTAL, ATTEMPT);
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
                    match self.check_status(&description) {
                        Ok(()) => return Ok(created),
                        Err(Error::NotYet(_)) => {}
                        Err(error) => return Err(error),
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
        let budget = self.aws.budget(READ_TOTAL, ATTEMPT);
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
            self.aws.region(Service::DynamoDb)
        )))
    }

    fn check_status(&self, description: &TableDescription) -> Result<(), Error> {
        let name = &self.name;
        match description.status.as_str() {
            // One that may not replicate serves its own region on.
            "ACTIVE" | "UPDATING" | "REPLICATION_NOT_AUTHORIZED" => Ok(()),
            "INACCESSIBLE_ENCRYPTION_CREDENTIALS" => Err(Error::Table(format!(
                "table {name:?} cannot be used: DynamoDB has no access to the KMS key that it is encrypted with; enable the \
                 key, and let its policy allow DynamoDB to use it"
            ))),
            "ARCHIVING" | "ARCHIVED" => Err(Error::Table(format!(
                "table {name:?} is archived, since its KMS key could not be used for a week: restore it from the backup that \
                 DynamoDB made, or name another in DYNAMODB_TABLE_NAME"
            ))),
            status => Err(Error::NotYet(format!("table {name:?} cannot be used yet: it is {}", one_line(status, 40)))),
        }
    }

    /// A table that is not there is told in words of ours.
    fn explain(&self, error: Error) -> Error {
        if error.code() != Some("ResourceNotFoundException") {
            return error;
        }
        // One that is named by its ARN is not for us to create.
        let create = if self.name.starts_with("arn:") { "" } else { "create it with hsdo --create-table, or " };
        Error::Table(format!(
            "table {:?} does not exist in {}: {create}correct DYNAMODB_TABLE_NAME",
            self.name,
            self.aws.region(Service::DynamoDb)
        ))
    }

    /// Carries out what [`SlotStore::write`] promises.
    fn write_in_transactions(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, Error> {
        let budget = self.aws.budget(WRITE_TOTAL, ATTEMPT);
        let mut next = stamp.clone();
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
                return Err(self.explain(cancelled(error, group)));
            }
            rows.extend(wanted);
            if !rest.is_empty() {
                next.version = next.version.map(|version| version + 1);
            }
        }
        Ok(next)
    }

    /// Every item.
    fn scan(&self, consistent: bool, budget: &Budget) -> Result<Vec<Arc<Entry>>, Error> {
        let maker = Maker { make: &table::entry, memory: &self.entries };
        scan(&self.aws, &self.name, consistent, budget, &maker).map_err(|error| self.explain(error))
    }

    fn time_until(&self, until: Instant) -> Budget {
        self.aws.budget(until.saturating_duration_since(Instant::now()), ATTEMPT)
    }

    /// Slot 1's item as far as the marker goes, eventually consistent: half a read unit, whatever the table's size.
    fn marked_item(&self, budget: &Budget) -> Result<Option<Item>, Error> {
        let key = table::key(MARKED);
        get_item(&self.aws, &self.name, &key, false, Some(table::MARKER), budget).map_err(|error| self.explain(error))
    }

    pub(super) fn update(&self, update: &Update, budget: &Budget) -> Result<bool, Error> {
        update_item(&self.aws, &self.name, update, budget).map_err(|error| self.explain(error))
    }
}

/// The marker as slot 1's item spells it; of no use but to [`SlotStore::take`].
pub struct StoredMarker(Option<RawMarker>);

/// The marker among the items of a table.
fn marked(entries: &[Arc<Entry>]) -> Option<&(RawMarker, Marker)> {
    entries.iter().find_map(|entry| match &**entry {
        Entry::Slot { marker, .. } => marker.as_deref(),
        Entry::Stray(_) => None,
    })
}

/// The rows on one page of a scan's answer, for whoever has the bytes: what a reading does with each page.
///
/// # Errors
/// The page is none.
pub fn read_page(mut body: &[u8]) -> Result<Table, String> {
    let page = dynamodb::read_page(&mut body, &Maker { make: &table::entry, memory: &Memory::default() })?;
    Ok(table_of(&page.items))
}

fn table_of(entries: &[Arc<Entry>]) -> Table {
    let (mut rows, mut strays) = (Vec::with_capacity(entries.len()), Vec::new());
    for entry in entries {
        match &**entry {
            Entry::Slot { id, row, .. } => rows.push((*id, row.clone())),
            Entry::Stray(stray) => strays.push(stray.clone()),
        }
    }
    Table { rows: rows.into_iter().collect(), strays }
}

/// Says of a cancelled transaction what cancelled it: its reasons come in the order of its updates (DynamoDB API
/// Reference, "TransactWriteItems"), of which the first is slot 1's item with the marker, and the others are `slots`.
pub(crate) fn cancelled(mut error: Error, slots: &[Slot]) -> Error {
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

impl SlotStore for SlotTable {
    type Raw = StoredMarker;

    /// Within 2 seconds. Where the credentials may not read one item, the whole table is read instead.
    fn read_marker(&mut self) -> Result<Sighting<StoredMarker>, TurnError> {
        let found = match self.marked_item(&self.aws.budget(BEAT_TOTAL, ATTEMPT)) {
            Ok(item) => item.map(|item| (table::raw_marker(&item), table::marker(&item))),
            Err(error) if error.is_access_denied() => {
                marked(&self.scan(true, &self.aws.budget(READ_TOTAL, ATTEMPT))?).cloned()
            }
            Err(error) => return Err(error.into()),
        };
        let (raw, marker) = found.unzip();
        Ok(Sighting { marker: marker.unwrap_or_default(), raw: StoredMarker(raw) })
    }

    /// Within 4.5 seconds, the whole table or an error.
    fn read(&mut self) -> Result<TableReading, TurnError> {
        let entries = self.scan(true, &self.aws.budget(READ_TOTAL, ATTEMPT))?;
        let rows = entries.iter().filter_map(|entry| match &**entry {
            Entry::Slot { id, raw, .. } => Some((*id, Arc::clone(raw))),
            Entry::Stray(_) => None,
        });
        let rows = rows.collect();
        let changed = self.untold || self.rows.as_ref().is_some_and(|known| *known != rows);
        self.rows = Some(rows);
        let marker = marked(&entries).map(|(_, marker)| marker.clone()).unwrap_or_default();
        Ok(TableReading { table: table_of(&entries), marker, changed })
    }

    /// Within 2 seconds.
    fn take(&mut self, seen: &Sighting<StoredMarker>, claim: &Claim) -> Result<bool, TurnError> {
        // What an earlier term knew about the rows no longer holds.
        self.rows = None;
        let taken = self.update(&table::take(claim, seen.raw.0.as_ref()), &self.aws.budget(BEAT_TOTAL, ATTEMPT))?;
        self.untold &= !taken;
        Ok(taken)
    }

    /// Within 2 seconds.
    fn beat(&mut self, stamp: &Stamp) -> Result<bool, TurnError> {
        let beaten = self.update(&table::mark(stamp, None), &self.aws.budget(BEAT_TOTAL, ATTEMPT))?;
        self.untold &= !(beaten && stamp.version.is_some());
        Ok(beaten)
    }

    /// Within 10 seconds, in transactions of up to 100 slots, each with the marker, whose version rises by one from one
    /// to the next. A slot that the last reading did not find is created, on the condition that it still does not exist.
    /// After an error, the slots before the failed transaction are written; those of it and after it are not, unless the
    /// answer alone was lost. The slots are in the order of their numbers. Where DynamoDB has no transactions, they are
    /// written one by one.
    fn write(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, TurnError> {
        if !self.singly.load(Ordering::Relaxed) {
            match self.write_in_transactions(slots, stamp) {
                Err(error) if is_unknown_operation(&error) => {
                    self.write_singly_from_now_on("what answers as DynamoDB does not know TransactWriteItems");
                }
                result => return Ok(result?),
            }
        }
        Ok(self.write_singly(slots, stamp)?)
    }

    /// Within half a second; also where another one holds it by now.
    fn release(&mut self, leader: &str) -> Result<(), TurnError> {
        // Also where everything else has to be over: the next server waits for this.
        self.update(&table::release(leader), &Budget::new(RELEASE_TOTAL, ATTEMPT))?;
        Ok(())
    }
}

impl TableReader for SlotTable {
    /// Until then, the marker; none where the credentials may not read one item, which is said once.
    fn marker(&mut self, until: Instant) -> Result<Marker, TurnError> {
        match self.marked_item(&self.time_until(until)) {
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
    fn read(&mut self, consistent: bool, until: Instant) -> Result<Table, TurnError> {
        Ok(table_of(&self.scan(consistent, &self.time_until(until))?))
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
