//! The table of slots for both roles: reads all of it, writes changes, creates it.
//!
//! A write requires that each row is still as last read, and that slot 1's item still names its leader, so that concurrent
//! writers never lose updates, and a suspended leader never overwrites the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::codec::{self, KEY, MARKER_SLOT, MarkerAttributes, MarkerItem, ParsedItem, RowAttributes};
use super::dynamodb::{
    self, Attribute, Item, ItemParser, MAX_TRANSACTION_ITEMS, TableDescription, Update, get_item, is_unknown_operation,
    scan, transact, update_item,
};
use super::orders;
use super::schema::{ATTEMPT_TIMEOUT, Created, NamedTable, Schema};
use crate::about::About;
use crate::aws::calls::Aws;
use crate::aws::error::{AwsError, CANCELLED, Cause};
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::service::Service;
use crate::aws::transport::http::Budget;
use crate::marker::{Claim, Marker, Stamp};
use crate::order::Order;
use crate::ports::{Sighting, SlotStore, TableReader, TableReading, TurnError};
use crate::slot::{Row, Slot, SlotId, Table};
use crate::text::one_line;

/// For one reading by a server, all pages and attempts.
const READ_TIMEOUT: Duration = Duration::from_millis(4_500);
/// For writing or reading a heartbeat: two fit into the time after which another server takes over.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// For releasing the lease: a process must exit within 0.8 s of SIGTERM.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long slot 1's row may be restored: less than the time after which another server may have taken the lease and changed it.
const MARKER_ROW_LIFETIME: Duration = Duration::from_secs(5);
/// For one write, all transactions and attempts.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const SCHEMA: Schema = Schema { key: KEY, kind: "N", contents: "slots", setting: "DYNAMODB_TABLE_NAME" };

/// The DynamoDB table of slots.
pub struct SlotTable {
    pub(super) aws: Arc<Aws>,
    pub(super) name: String,
    /// The rows as last read or written; `None` before the first reading of a term.
    pub(super) rows: Option<BTreeMap<SlotId, Arc<RowAttributes>>>,
    /// Slot 1's row as last read or written, and when. A claim restores it if its item has just been deleted, since the item
    /// carries the lease too: a free slot in its place would take a server out of every rotation.
    marker_row: Option<(Arc<RowAttributes>, Instant)>,
    /// The orders as last read, and when that was, or when this server was last seen to lead since then. They are restored like
    /// `marker_row`.
    orders: Option<(Attribute, Instant)>,
    /// The parsed items of the last reading.
    entries: ParseCache<ParsedItem>,
    denial_logged: bool,
    /// Whether this table has no transactions; shared by all handles.
    pub(super) without_transactions: Arc<AtomicBool>,
    /// Rows were written, but the version did not rise yet.
    pub(super) unannounced: bool,
}

impl SlotTable {
    /// A handle of the table. Makes no call.
    pub fn new(aws: Arc<Aws>, name: &str) -> Self {
        SlotTable {
            aws,
            name: name.to_string(),
            rows: None,
            marker_row: None,
            orders: None,
            entries: ParseCache::default(),
            denial_logged: false,
            without_transactions: Arc::default(),
            unannounced: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The table's region, if it is known by now.
    pub(super) fn region(&self) -> &str {
        self.aws.region(Service::DynamoDb)
    }

    /// Another handle of the table, which shares what is known about transactions.
    pub fn new_handle(&self) -> Self {
        SlotTable {
            without_transactions: Arc::clone(&self.without_transactions),
            ..SlotTable::new(Arc::clone(&self.aws), &self.name)
        }
    }

    /// Checks that the table exists, has our key and is active. Errors: [`AwsError::Table`] if it is missing, has another key or
    /// needs an operator, [`AwsError::NotReady`] while it is being created or deleted, and those of the call.
    pub fn check_schema(&mut self) -> Result<(), AwsError> {
        let table = self.as_named();
        let description = table.describe(&self.aws.budget(READ_TIMEOUT, ATTEMPT_TIMEOUT))?;
        table.check_key(&description)?;
        // DynamoDB Developer Guide, "How DynamoDB global tables work": such tables reject transactions.
        if description.consistency.as_deref() == Some("STRONG") {
            self.disable_transactions("it is a global table with strong consistency");
        }
        table.check_status(&description)
    }

    /// Creates the table with on-demand billing unless it exists, and waits up to 2 minutes until it is active.
    /// Never changes an existing table; one with another key is an error.
    pub fn create(&self) -> Result<Created, AwsError> {
        self.as_named().create()
    }

    /// The whole table and its marker, strongly consistent, for a single look.
    pub fn scan_once(&self) -> Result<TableReading, AwsError> {
        let entries = self.scan(true, &self.aws.budget(READ_TIMEOUT, ATTEMPT_TIMEOUT))?;
        Ok(self.reading(&entries, false))
    }

    fn reading(&self, entries: &[Arc<ParsedItem>], changed: bool) -> TableReading {
        let found = find_marker(entries);
        TableReading {
            table: table_of(entries),
            marker: found.map(|found| found.marker.clone()).unwrap_or_default(),
            changed,
            orders: orders::read(found.and_then(|found| found.orders.as_ref())),
            time: self.aws.now(),
        }
    }

    /// One row, strongly consistent; `None` if the table has no such item.
    pub fn read_row(&mut self, id: SlotId) -> Result<Option<Row>, AwsError> {
        let budget = self.aws.budget(READ_TIMEOUT, ATTEMPT_TIMEOUT);
        let item = get_item(&self.aws, &self.name, &codec::key(id), true, None, &budget)
            .map_err(|e| self.explain_missing(e))?;
        Ok(item.map(|item| codec::row(id, &item)))
    }

    /// Describes the table, checked as by [`SlotTable::check_schema`].
    pub(crate) fn described(&self, budget: &Budget) -> Result<TableDescription, AwsError> {
        self.as_named().described(budget)
    }

    /// Adds the remedy to the error of a missing table.
    pub(crate) fn explain_missing(&self, error: AwsError) -> AwsError {
        self.as_named().explain_missing(error)
    }

    fn as_named(&self) -> NamedTable {
        NamedTable { aws: Arc::clone(&self.aws), name: self.name.clone(), schema: &SCHEMA }
    }

    fn write_in_transactions(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, AwsError> {
        let budget = self.aws.budget(WRITE_TIMEOUT, ATTEMPT_TIMEOUT);
        let mut next = stamp.clone();
        let mut rest = slots;
        while let Some(first) = rest.first() {
            let has_marker_slot = first.id == MARKER_SLOT;
            let room = if has_marker_slot { MAX_TRANSACTION_ITEMS } else { MAX_TRANSACTION_ITEMS - 1 };
            let group;
            (group, rest) = rest.split_at(room.min(rest.len()));
            let rows = self.rows.get_or_insert_default();
            let wanted: Vec<(SlotId, Arc<RowAttributes>)> =
                group.iter().map(|slot| (slot.id, Arc::new(codec::encode(slot)))).collect();
            let mut updates = Vec::with_capacity(MAX_TRANSACTION_ITEMS);
            if !has_marker_slot {
                updates.push(codec::marker_update(&next, None));
            }
            updates.extend(wanted.iter().map(|(id, wanted)| match rows.get(id).map(Arc::as_ref) {
                before if *id == MARKER_SLOT => codec::marker_update(&next, Some((wanted, before))),
                before => codec::row_update(*id, wanted, before),
            }));
            if let Err(error) = transact(&self.aws, &self.name, &updates, &budget) {
                return Err(self.explain_missing(cancelled(error, group)));
            }
            let marker_row = wanted.iter().find(|(id, _)| *id == MARKER_SLOT).map(|(_, row)| Arc::clone(row));
            rows.extend(wanted);
            self.remember_marker_row(marker_row.as_ref());
            if !rest.is_empty() {
                next.version = next.version.map(|version| version + 1);
            }
        }
        Ok(next)
    }

    pub(super) fn remember_marker_row(&mut self, row: Option<&Arc<RowAttributes>>) {
        if let Some(row) = row {
            self.marker_row = Some((Arc::clone(row), Instant::now()));
        }
    }

    fn scan(&self, consistent: bool, budget: &Budget) -> Result<Vec<Arc<ParsedItem>>, AwsError> {
        let parser = ItemParser { parse: &codec::parse_item, cache: &self.entries };
        scan(&self.aws, &self.name, consistent, budget, &parser).map_err(|error| self.explain_missing(error))
    }

    fn budget_until(&self, deadline: Instant) -> Budget {
        self.aws.budget(deadline.saturating_duration_since(Instant::now()), ATTEMPT_TIMEOUT)
    }

    /// The marker's attributes of slot 1's item, eventually consistent: half a read unit, however large the table.
    fn marker_item(&self, budget: &Budget) -> Result<Option<Item>, AwsError> {
        let key = codec::key(MARKER_SLOT);
        get_item(&self.aws, &self.name, &key, false, Some(codec::MARKER_PROJECTION), budget)
            .map_err(|error| self.explain_missing(error))
    }

    pub(super) fn update(&self, update: &Update, budget: &Budget) -> Result<bool, AwsError> {
        update_item(&self.aws, &self.name, update, budget).map_err(|error| self.explain_missing(error))
    }
}

/// The marker as stored, for [`SlotStore::take`].
pub struct StoredMarker(Option<MarkerAttributes>);

fn find_marker(entries: &[Arc<ParsedItem>]) -> Option<&MarkerItem> {
    entries.iter().find_map(|entry| match &**entry {
        ParsedItem::Slot { marker, .. } => marker.as_deref(),
        ParsedItem::Stray(_) => None,
    })
}

/// Parses one page of a Scan response.
///
/// # Errors
/// The bytes are no such page.
pub fn read_page(mut body: &[u8]) -> Result<Table, String> {
    let page =
        dynamodb::read_page(&mut body, &ItemParser { parse: &codec::parse_item, cache: &ParseCache::default() })?;
    Ok(table_of(&page.items))
}

fn table_of(entries: &[Arc<ParsedItem>]) -> Table {
    let (mut rows, mut strays) = (Vec::with_capacity(entries.len()), Vec::new());
    for entry in entries {
        match &**entry {
            ParsedItem::Slot { id, row, .. } => rows.push((*id, row.clone())),
            ParsedItem::Stray(stray) => strays.push(stray.clone()),
        }
    }
    Table { rows: rows.into_iter().collect(), strays }
}

/// Describes why a transaction was cancelled. Its reasons are in the order of its updates (DynamoDB API Reference,
/// "TransactWriteItems"): first slot 1's item with the marker, then `slots`.
pub(crate) fn cancelled(mut error: AwsError, slots: &[Slot]) -> AwsError {
    if let AwsError::Call(call) = &mut error
        && let Cause::Refused(refusal) = &mut call.cause
        && refusal.code == CANCELLED
        && !refusal.reasons.is_empty()
    {
        let ids = std::iter::once(MARKER_SLOT).chain(slots.iter().map(|slot| slot.id).filter(|id| *id != MARKER_SLOT));
        let failed: Vec<_> = ids.zip(&refusal.reasons).filter(|(_, (code, _))| code != "None").collect();
        call.about = About::default().slot(failed.iter().map(|(id, _)| *id));
        let texts: Vec<String> = failed
            .into_iter()
            .map(|(id, (code, message))| match code.as_str() {
                "ConditionalCheckFailed" if id == MARKER_SLOT => {
                    format!("another server leads the table, or slot {id} was modified by another writer")
                }
                "ConditionalCheckFailed" => format!("slot {id} was modified by another writer"),
                "TransactionConflict" => format!("slot {id} is being written by another writer"),
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

    /// Takes up to 2 s. Falls back to a full scan if GetItem is denied.
    fn read_marker(&mut self) -> Result<Sighting<StoredMarker>, TurnError> {
        let found = match self.marker_item(&self.aws.budget(HEARTBEAT_TIMEOUT, ATTEMPT_TIMEOUT)) {
            Ok(item) => item.map(|item| (codec::marker_attributes(&item), codec::marker(&item))),
            Err(error) if error.is_access_denied() => {
                let entries = self.scan(true, &self.aws.budget(READ_TIMEOUT, ATTEMPT_TIMEOUT))?;
                find_marker(&entries).map(|found| (found.attributes.clone(), found.marker.clone()))
            }
            Err(error) => return Err(error.into()),
        };
        let (raw, marker) = found.unzip();
        Ok(Sighting { marker: marker.unwrap_or_default(), raw: StoredMarker(raw), read_at: Instant::now() })
    }

    /// Takes up to 4.5 s.
    fn read(&mut self) -> Result<TableReading, TurnError> {
        let entries = self.scan(true, &self.aws.budget(READ_TIMEOUT, ATTEMPT_TIMEOUT))?;
        let rows = entries.iter().filter_map(|entry| match &**entry {
            ParsedItem::Slot { id, raw, .. } => Some((*id, Arc::clone(raw))),
            ParsedItem::Stray(_) => None,
        });
        let rows = rows.collect();
        let changed = self.unannounced || self.rows.as_ref().is_some_and(|last| *last != rows);
        self.remember_marker_row(rows.get(&MARKER_SLOT));
        self.rows = Some(rows);
        // Where the item is gone, they are remembered with its row.
        if let Some(found) = find_marker(&entries) {
            self.orders = found.orders.clone().map(|orders| (orders, Instant::now()));
        }
        Ok(self.reading(&entries, changed))
    }

    /// Takes up to 2 s.
    fn take(&mut self, seen: &Sighting<StoredMarker>, claim: &Claim) -> Result<bool, TurnError> {
        // Rows read in an earlier term are stale.
        self.rows = None;
        let recent = self
            .marker_row
            .as_ref()
            .filter(|(row, when)| codec::may_serve(row) && when.elapsed() < MARKER_ROW_LIFETIME);
        let row = recent.map_or_else(|| codec::encode(&Slot::empty(MARKER_SLOT)), |(row, _)| (**row).clone());
        let orders =
            self.orders.as_ref().filter(|(_, when)| when.elapsed() < MARKER_ROW_LIFETIME).map(|(orders, _)| orders);
        let taken = self.update(
            &codec::claim_update(claim, seen.raw.0.as_ref(), &row, orders),
            &self.aws.budget(HEARTBEAT_TIMEOUT, ATTEMPT_TIMEOUT),
        )?;
        self.unannounced &= !taken;
        Ok(taken)
    }

    /// Takes up to 2 s.
    fn beat(&mut self, stamp: &Stamp) -> Result<bool, TurnError> {
        let beaten =
            self.update(&codec::marker_update(stamp, None), &self.aws.budget(HEARTBEAT_TIMEOUT, ATTEMPT_TIMEOUT))?;
        self.unannounced &= !(beaten && stamp.version.is_some());
        if let Some((_, when)) = self.orders.as_mut().filter(|_| beaten) {
            *when = Instant::now();
        }
        Ok(beaten)
    }

    /// Takes up to 2 s.
    fn remove_orders(&mut self, over: &[Order], leader: &str) -> Result<bool, TurnError> {
        let Some((before, _)) = &self.orders else { return Ok(false) };
        let budget = self.aws.budget(HEARTBEAT_TIMEOUT, ATTEMPT_TIMEOUT);
        Ok(self.update(&orders::removal(before, over, leader), &budget)?)
    }

    /// Takes up to 10 s. Writes transactions of up to 100 slots in ascending order, each with the marker, whose version rises
    /// by one per transaction. A slot missing from the last reading is created if it still does not exist. After an error,
    /// only the transactions before the failed one are written, unless just its response was lost. Falls back to writing
    /// slots one by one.
    fn write(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, TurnError> {
        if !self.without_transactions.load(Ordering::Relaxed) {
            match self.write_in_transactions(slots, stamp) {
                Err(error) if is_unknown_operation(&error) => {
                    self.disable_transactions("the endpoint does not support TransactWriteItems");
                }
                result => return Ok(result?),
            }
        }
        Ok(self.write_sequentially(slots, stamp)?)
    }

    /// Takes up to 0.5 s. Succeeds also if another server holds the lease by now.
    fn release(&mut self, leader: &str) -> Result<(), TurnError> {
        // Ignores the end of `Aws`: the next server waits for this.
        self.update(&codec::release_update(leader), &Budget::new(RELEASE_TIMEOUT, ATTEMPT_TIMEOUT))?;
        Ok(())
    }
}

impl TableReader for SlotTable {
    /// The default marker if GetItem is denied, which is logged once.
    fn marker(&mut self, deadline: Instant) -> Result<Marker, TurnError> {
        match self.marker_item(&self.budget_until(deadline)) {
            Ok(item) => Ok(item.as_ref().map(codec::marker).unwrap_or_default()),
            Err(error) if error.is_access_denied() => {
                if !std::mem::replace(&mut self.denial_logged, true) {
                    log::warn!("the whole table is read every turn, which costs more: {error}");
                }
                Ok(Marker::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self, consistent: bool, deadline: Instant) -> Result<Table, TurnError> {
        Ok(table_of(&self.scan(consistent, &self.budget_until(deadline))?))
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
