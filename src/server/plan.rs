//! The decision of a turn: from table, observation and time to the rows to write. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use super::judge::Kept;
use super::limits::SlotLimits;
use super::previous::Previous;
use super::ramp::Ramp;
use super::{allocate, drain};
use crate::clock::Timestamp;
use crate::order::{self, Order};
use crate::slot::{Instance, Observation, Row, Slot, SlotId, Status, Table, Weight};
use crate::weight::Weighed;

/// What a turn decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The slots to write, in ascending order.
    pub changes: Vec<Slot>,
    /// The table after the plan, without unreadable rows.
    pub slots: BTreeMap<SlotId, Slot>,
    /// Ready instances without a slot, first in line first.
    pub unplaced: Vec<Instance>,
    /// Ready instances without a slot because of an order, with that order; first in line first.
    pub kept_out: Vec<(Order, Instance)>,
    /// Slots whose occupants drain by an order alone, and the order.
    pub ordered: BTreeMap<SlotId, Order>,
    /// Free slots that an order keeps empty, and the order.
    pub kept_empty: BTreeMap<SlotId, Order>,
    /// Slots of servers that drain, or whose factor is 0, and that serve because no other can, in order.
    pub last_resort: Vec<SlotId>,
    /// Slots kept by the removal guard, in order.
    pub guarded: Vec<SlotId>,
    pub(super) guard: Guard,
    /// The slots that stay exactly as they are, and why.
    pub(super) kept: BTreeMap<SlotId, Kept>,
    /// Occupied slots above the configured number, in order.
    pub above_size: Vec<SlotId>,
    /// Instances without a slot because a higher-ranking one, or an unreadable row, has their address.
    pub ignored: Vec<Instance>,
    /// The occupants whose factor is not 1.
    pub weighed: BTreeMap<SlotId, Weighed>,
    /// When the next ramp step is due; `None` if nothing ramps. Until then, time alone changes nothing.
    pub due: Option<Timestamp>,
}

impl Plan {
    /// The weight that the occupant of slot `id` ramps to.
    pub fn full_weight(&self, id: SlotId, limits: &SlotLimits) -> Weight {
        self.ramp(id, limits).full()
    }

    /// Whether the occupant of slot `id` stays exactly as it is.
    pub fn is_kept(&self, id: SlotId) -> bool {
        self.kept.contains_key(&id)
    }

    /// The ramp of the occupant of slot `id`.
    pub(super) fn ramp(&self, id: SlotId, limits: &SlotLimits) -> Ramp {
        limits.ramp(self.weighed.get(&id).copied().unwrap_or_default().factor)
    }
}

/// Decides what the table must hold at `now` under the `orders` in force, without any state of earlier turns.
pub fn decide(table: &Table, orders: &[Order], seen: &Observation, now: Timestamp, limits: &SlotLimits) -> Plan {
    let (slots, guard, ordered) = (BTreeMap::new(), Guard::default(), BTreeMap::new());
    let previous = Previous { slots: &slots, guard: &guard, ordered: &ordered, time: now, elapsed: Duration::ZERO };
    decide_after(table, orders, &previous, seen, now, limits)
}

/// Like [`decide`], with the state of the previous turn. Idempotent.
pub(super) fn decide_after(
    table: &Table,
    orders: &[Order],
    previous: &Previous<'_>,
    seen: &Observation,
    now: Timestamp,
    limits: &SlotLimits,
) -> Plan {
    let mut assigned = allocate::assign(table, orders, previous, seen, now, limits);
    let mut due = None;
    for (id, slot) in &mut assigned.slots {
        if let Some(occupant) = slot.occupant.as_mut()
            && !assigned.kept.contains_key(id)
        {
            let factor = assigned.weighed.get(id).copied().unwrap_or_default().factor;
            // With a factor of 0, it may be the last resort.
            if !factor.is_zero() {
                let ramp = limits.ramp(factor);
                ramp.advance(occupant, now);
                due = due.into_iter().chain(ramp.due(occupant)).min();
            }
        }
    }
    // After the ramp, which may have given the first ready server its first weight.
    let facts = drain::Facts { kept: &assigned.kept, ordered: &assigned.ordered, weighed: &assigned.weighed };
    let last_resort = drain::set_weights(&mut assigned.slots, &facts, now, limits);
    let due = due.into_iter().chain(last_resort.due).min();
    for (id, slot) in &mut assigned.slots {
        if let Some(occupant) = slot.occupant.as_mut()
            && !assigned.kept.contains_key(id)
        {
            let drains = occupant.status == Status::Draining;
            occupant.drain_since = drains.then_some(occupant.drain_since.unwrap_or(previous.time));
        }
    }
    let slots = assigned.slots;
    let changes = slots
        .values()
        .filter(|slot| !matches!(table.rows.get(&slot.id), Some(Row::Readable(old)) if **old == **slot))
        .cloned()
        .collect();
    let above_size =
        slots.values().filter(|slot| slot.id > limits.size && slot.occupant.is_some()).map(|slot| slot.id).collect();
    let free = slots.values().filter(|slot| slot.occupant.is_none());
    let kept_empty = free.filter_map(|slot| Some((slot.id, order::on_slot(orders, slot.id)?.clone()))).collect();
    let allocate::Assignment { unplaced, kept_out, ordered, ignored, weighed, guarded, guard, kept, .. } = assigned;
    Plan {
        changes,
        slots,
        unplaced,
        kept_out,
        ordered,
        kept_empty,
        last_resort: last_resort.slots,
        guarded,
        guard,
        kept,
        above_size,
        ignored,
        weighed,
        due,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
