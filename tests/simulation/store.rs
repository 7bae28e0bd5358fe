//! DynamoDB's side of both roles: conditional and transactional writes as `aws::table` makes them, and eventually consistent reads.

use std::rc::Rc;
use std::time::Instant;

use hsdo::marker::{Claim, Marker, Stamp};
use hsdo::order::{Order, Orders};
use hsdo::ports::{Sighting, SlotStore, TableReader, TableReading, TurnError};
use hsdo::slot::{Row, Slot, SlotId, Status, Table};

use crate::journal::{At, SECOND};
use crate::table::{Changes, MARKER_SLOT, Rows, State, Writer};
use crate::troubles::Service;
use crate::world::World;

/// As in `aws::table`.
const MARKER_ROW_LIFETIME: At = 5 * SECOND;

pub(crate) struct TableEdge {
    world: Rc<World>,
    process: usize,
    /// The rows as last read or written: the condition of a write.
    known: Option<Rc<Rows>>,
    /// Slot 1's row as last known, and when: its item is made again if it is deleted, lease and all.
    marker_row: Option<(Row, At)>,
    /// The orders as last read, and when this process was last known to lead: they are restored likewise.
    orders: Option<(Vec<Order>, At)>,
}

/// The marker as it was read: none if there was no item.
pub(crate) type Raw = Option<Marker>;

impl TableEdge {
    pub(crate) fn new(world: &Rc<World>, process: usize) -> Self {
        TableEdge { world: Rc::clone(world), process, known: None, marker_row: None, orders: None }
    }

    fn call(&self, what: &str) -> Result<(), TurnError> {
        self.world.call(self.process, Service::DynamoDb, what)
    }

    fn answer(&self, what: &str) -> Result<(), TurnError> {
        self.world.answer(self.process, Service::DynamoDb, what)
    }

    /// Some replica's state.
    fn of_a_replica(&self) -> State {
        let table = self.world.table.borrow();
        if table.lags == [0; 3] {
            return table.state().clone();
        }
        let number = self.world.between(0, 3) as usize;
        table.replica(number, self.world.now()).clone()
    }

    /// A scan is no snapshot: where time passes in the middle, the second half is of a later state.
    fn scan(&self, consistent: bool) -> Result<State, TurnError> {
        self.call("Scan")?;
        let state = || match consistent {
            true => self.world.table.borrow().state().clone(),
            false => self.of_a_replica(),
        };
        let first = state();
        self.world.step(self.process, "the middle of a Scan");
        let second = state();
        self.answer("Scan")?;
        let process = &self.world.processes[self.process];
        // A client follows no table without a row, and what is read from a replica only tells it to read again.
        if consistent && Rc::ptr_eq(&first.rows, &second.rows) && !first.rows.is_empty() {
            process.table_read.set(process.table_read.get().max(first.number));
        }
        if Rc::ptr_eq(&first.rows, &second.rows) {
            return Ok(first);
        }
        let middle = self.world.between(1, 1 + u64::from(crate::settings::SLOTS)) as SlotId;
        let halves = first.rows.range(..=middle).chain(second.rows.range(middle + 1..));
        let rows = halves.map(|(id, row)| (*id, row.clone())).collect();
        Ok(State { rows: Rc::new(rows), ..first })
    }

    fn remember_marker_row(&mut self, row: Option<&Row>) {
        if let Some(row) = row {
            self.marker_row = Some((row.clone(), self.world.now()));
        }
    }

    /// An update of slot 1's item on a condition; false if it does not hold.
    fn update(
        &self,
        what: &str,
        condition: impl FnOnce(&State) -> bool,
        change: impl FnOnce(&State) -> Changes,
    ) -> Result<bool, TurnError> {
        self.call(what)?;
        let state = self.world.table.borrow().state().clone();
        if self.world.table.borrow().is_locked(MARKER_SLOT) {
            return Err(self.world.error(self.process, what, "met a transaction"));
        }
        let holds = condition(&state);
        if holds {
            self.world.commit(Writer::Server(self.process), change(&state));
        }
        self.answer(what)?;
        Ok(holds)
    }
}

/// As `aws::table` has it.
fn may_serve(row: &Row) -> bool {
    match row {
        Row::Readable(slot) => slot.occupant.as_ref().is_some_and(|it| it.status != Status::Disabled),
        Row::Unreadable { .. } => false,
    }
}

fn table(rows: &Rows) -> Table {
    Table { rows: rows.clone(), strays: Vec::new() }
}

fn stamped(before: &Marker, stamp: &Stamp) -> Marker {
    Marker {
        version: stamp.version.or(before.version),
        heartbeat: Some(stamp.heartbeat),
        leader: Some(stamp.leader.clone()),
        blind: stamp.blind,
    }
}

fn names(state: &State, leader: &str) -> bool {
    state.marker.leader.as_deref() == Some(leader)
}

impl SlotStore for TableEdge {
    type Raw = Raw;

    fn read_marker(&mut self) -> Result<Sighting<Raw>, TurnError> {
        self.call("GetItem")?;
        let state = self.of_a_replica();
        self.answer("GetItem")?;
        let raw = state.rows.contains_key(&MARKER_SLOT).then(|| state.marker.clone());
        let read_at = self.world.processes[self.process].clock(&self.world);
        Ok(Sighting { marker: state.marker, raw, read_at })
    }

    fn read(&mut self) -> Result<TableReading, TurnError> {
        let state = self.scan(true)?;
        self.world.processes[self.process].read.replace(Some(state.clone()));
        let changed = self.known.as_ref().is_some_and(|known| !Rc::ptr_eq(known, &state.rows) && *known != state.rows);
        self.known = Some(Rc::clone(&state.rows));
        self.remember_marker_row(state.rows.get(&MARKER_SLOT));
        if state.rows.contains_key(&MARKER_SLOT) {
            self.orders = Some((state.orders.clone(), self.world.now()));
        }
        let orders = Orders { all: state.orders, unreadable: Vec::new() };
        let time = self.world.aws_time();
        Ok(TableReading { table: table(&state.rows), marker: state.marker, changed, orders, time })
    }

    fn take(&mut self, seen: &Sighting<Raw>, claim: &Claim) -> Result<bool, TurnError> {
        self.known = None;
        let condition = |state: &State| match &seen.raw {
            Some(raw) => state.rows.contains_key(&MARKER_SLOT) && state.marker == *raw,
            None => !state.rows.contains_key(&MARKER_SLOT),
        };
        let since = self.world.now().saturating_sub(MARKER_ROW_LIFETIME);
        let recent = self.marker_row.as_ref().filter(|(row, when)| *when > since && may_serve(row));
        let row = recent.map_or_else(|| Row::Readable(Slot::empty(MARKER_SLOT).into()), |(row, _)| row.clone());
        let restored = self.orders.as_ref().filter(|(_, when)| *when > since).map(|(orders, _)| orders.clone());
        let change = |state: &State| {
            let created = (!state.rows.contains_key(&MARKER_SLOT)).then(|| (MARKER_SLOT, Some(row.clone())));
            let marker = Marker {
                version: Some(claim.version),
                heartbeat: Some(claim.heartbeat),
                leader: Some(claim.leader.clone()),
                blind: false,
            };
            let orders = created.as_ref().and(restored.clone());
            Changes { rows: created.into_iter().collect(), marker: Some(marker), orders }
        };
        let world = Rc::clone(&self.world);
        let claims = |state: &State| {
            world.claims(self.process, claim);
            change(state)
        };
        self.update("the claim", condition, claims)
    }

    fn beat(&mut self, stamp: &Stamp) -> Result<bool, TurnError> {
        let change = |state: &State| Changes { marker: Some(stamped(&state.marker, stamp)), ..Changes::default() };
        let beaten = self.update("the heartbeat", |state| names(state, &stamp.leader), change)?;
        if let Some((_, when)) = self.orders.as_mut().filter(|_| beaten) {
            *when = self.world.now();
        }
        Ok(beaten)
    }

    fn remove_orders(&mut self, over: &[Order], leader: &str) -> Result<bool, TurnError> {
        let Some((seen, _)) = self.orders.clone() else { return Ok(false) };
        let left: Vec<Order> = seen.iter().filter(|order| !over.contains(order)).cloned().collect();
        let change = |_: &State| Changes { orders: Some(left), ..Changes::default() };
        self.update("the removal of orders", |state| names(state, leader) && state.orders == seen, change)
    }

    fn write(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, TurnError> {
        self.call("TransactWriteItems")?;
        let state = self.world.table.borrow().state().clone();
        let locked = {
            let table = self.world.table.borrow();
            table.is_locked(MARKER_SLOT) || slots.iter().any(|slot| table.is_locked(slot.id))
        };
        let unchanged = slots.iter().all(|slot| {
            let known = self.known.as_ref().and_then(|known| known.get(&slot.id));
            state.rows.get(&slot.id) == known
        });
        if locked || !unchanged || !names(&state, &stamp.leader) {
            return Err(self.world.error(self.process, "TransactWriteItems", "was cancelled: a condition failed"));
        }
        let rows: Vec<_> = slots.iter().map(|slot| (slot.id, Some(Row::Readable(slot.clone().into())))).collect();
        let known = Rc::make_mut(self.known.get_or_insert_default());
        known.extend(rows.iter().filter_map(|(id, row)| Some((*id, row.clone()?))));
        let marker_row = rows.iter().find(|(id, _)| *id == MARKER_SLOT).and_then(|(_, row)| row.clone());
        self.remember_marker_row(marker_row.as_ref());
        let changes = Changes { rows, marker: Some(stamped(&state.marker, stamp)), orders: None };
        let takes = self.world.commit(Writer::Server(self.process), changes);
        if takes > 0 {
            self.world.pass(takes);
        }
        self.answer("TransactWriteItems")?;
        Ok(stamp.clone())
    }

    fn release(&mut self, leader: &str) -> Result<(), TurnError> {
        let change = |state: &State| Changes {
            marker: Some(Marker { leader: None, blind: false, ..state.marker.clone() }),
            ..Changes::default()
        };
        self.update("the release", |state| names(state, leader), change).map(|_| ())
    }
}

impl TableReader for TableEdge {
    fn marker(&mut self, _: Instant) -> Result<Marker, TurnError> {
        self.call("GetItem")?;
        let marker = self.of_a_replica().marker;
        self.answer("GetItem")?;
        Ok(marker)
    }

    fn read(&mut self, consistent: bool, _: Instant) -> Result<Table, TurnError> {
        Ok(table(&self.scan(consistent)?.rows))
    }
}
