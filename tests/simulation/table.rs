//! The table in DynamoDB: items that change atomically, transactions whose items become visible one by one, and replicas that lag.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use hsdo::marker::Marker;
use hsdo::order::Order;
use hsdo::slot::{Row, SlotId};

use crate::journal::{At, MILLI};
use crate::world::{Event, World};

pub(crate) type Rows = BTreeMap<SlotId, Row>;

/// How long an older state is kept for replicas that lag.
const KEPT: At = 30_000 * MILLI;
pub(crate) const MARKER_SLOT: SlotId = 1;

/// All items. The marker and the orders belong to slot 1's item, and are nothing without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Counts the states.
    pub(crate) number: u64,
    pub(crate) rows: Rc<Rows>,
    pub(crate) marker: Marker,
    pub(crate) orders: Vec<Order>,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A server by its number.
    Server(usize),
    /// An operator, the original, or a backup.
    Hand,
}

/// Changes of a transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// `None` deletes the item.
    pub(crate) rows: Vec<(SlotId, Option<Row>)>,
    pub(crate) marker: Option<Marker>,
    pub(crate) orders: Option<Vec<Order>>,
}

#[derive(Debug, Default)]
pub(crate) struct Dynamo {
    state: State,
    /// Older states, each with the time until which it was the current one.
    past: VecDeque<(At, State)>,
    /// How far each replica is behind.
    pub(crate) lags: [At; 3],
    /// The rest of a transaction that is being carried out.
    rest: Option<(Writer, Changes)>,
    /// How long, at most, the items of a transaction take to become visible one by one; 0 for all at once.
    pub(crate) torn: At,
    pub(crate) backup: Option<State>,
}

impl Dynamo {
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What a replica shows.
    pub(crate) fn replica(&self, number: usize, now: At) -> &State {
        let lag = self.lags[number % self.lags.len()];
        match now.checked_sub(lag) {
            _ if lag == 0 => &self.state,
            Some(then) => self.past.iter().find(|(until, _)| *until > then).map_or(&self.state, |(_, state)| state),
            None => self.past.front().map_or(&self.state, |(_, state)| state),
        }
    }

    /// Whether a transaction holds the item: other writes of it are refused.
    pub(crate) fn is_locked(&self, slot: SlotId) -> bool {
        let of_marker = |changes: &Changes| slot == MARKER_SLOT && changes.marker.is_some();
        self.rest.as_ref().is_some_and(|(_, rest)| of_marker(rest) || rest.rows.iter().any(|(id, _)| *id == slot))
    }

    pub(crate) fn is_torn(&self) -> bool {
        self.rest.is_some()
    }

    fn apply(&mut self, changes: &Changes, now: At) {
        self.past.push_back((now, self.state.clone()));
        while self.past.front().is_some_and(|(until, _)| until + KEPT < now) {
            self.past.pop_front();
        }
        self.state.number += 1;
        if !changes.rows.is_empty() {
            let rows = Rc::make_mut(&mut self.state.rows);
            for (id, row) in &changes.rows {
                match row {
                    Some(row) => drop(rows.insert(*id, row.clone())),
                    None => drop(rows.remove(id)),
                }
            }
        }
        if let Some(marker) = &changes.marker {
            self.state.marker = marker.clone();
        }
        if let Some(orders) = &changes.orders {
            self.state.orders.clone_from(orders);
        }
        if !self.state.rows.contains_key(&MARKER_SLOT) {
            self.state.marker = Marker::default();
            self.state.orders.clear();
        }
    }
}

impl World {
    /// Carries out a write whose conditions hold; for how long it is under way.
    pub(crate) fn commit(&self, writer: Writer, mut changes: Changes) -> At {
        let (before, torn) = {
            let table = self.table.borrow();
            (table.state.clone(), table.torn)
        };
        let now = self.now();
        let mut takes = 0;
        let all = changes.clone();
        if torn > 0 && changes.rows.len() > 1 && self.table.borrow().rest.is_none() {
            takes = self.between(1, torn.max(2));
            let mut rest = Changes::default();
            for _ in 0..self.between(1, changes.rows.len() as u64) {
                let last = self.between(0, changes.rows.len() as u64) as usize;
                rest.rows.push(changes.rows.remove(last));
            }
            if self.percent(50) {
                rest.marker = changes.marker.take();
            }
            self.table.borrow_mut().rest = Some((writer, rest));
            self.post_in(takes, Event::Commit);
        }
        self.table.borrow_mut().apply(&changes, now);
        if !all.rows.is_empty() {
            self.note_write(writer, &all);
        }
        self.table_changed(writer, &before, &all);
        takes
    }

    /// The rest of a transaction becomes visible.
    pub(crate) fn commit_rest(&self) {
        let rest = self.table.borrow_mut().rest.take();
        if let Some((_, changes)) = rest {
            let now = self.now();
            self.table.borrow_mut().apply(&changes, now);
            self.promises.borrow_mut().is_visible(self.table.borrow().state().number);
            self.rows_are_visible();
        }
    }

    fn note_write(&self, writer: Writer, changes: &Changes) {
        let by = match writer {
            Writer::Server(process) => self.processes[process].name.as_str(),
            Writer::Hand => "another hand",
        };
        let text: Vec<String> = changes.rows.iter().map(|(id, row)| format!("{id} {}", show(row.as_ref()))).collect();
        let version = changes.marker.as_ref().and_then(|marker| marker.version);
        self.note(format!("{by} writes rows, version {version:?}: {}", text.join("; ")));
    }
}

/// A row in a few words.
pub(crate) fn show(row: Option<&Row>) -> String {
    match row {
        None => "deleted".to_owned(),
        Some(Row::Unreadable { reason, .. }) => format!("unreadable ({reason})"),
        Some(Row::Readable(slot)) => match &slot.occupant {
            None => format!("free, last {}", slot.last_group.as_deref().unwrap_or("none")),
            Some(occupant) => {
                let status = format!("{:?}", occupant.status).to_lowercase();
                format!("{} {} {status} {}", occupant.name, occupant.address, occupant.weight)
            }
        },
    }
}
