//! The decision of a turn: from table, observation and time to the rows to write. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use super::judge::Kept;
use super::limits::SlotLimits;
use super::previous::Previous;
use super::{allocate, drain, ramp};
use crate::clock::Timestamp;
use crate::order::{self, Order};
use crate::slot::{Instance, Observation, Row, Slot, SlotId, Table, Weight, full_weight};

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
    /// Slots of draining servers that keep serving because no ready one can, in order.
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
    /// The scales other than 1.
    pub scales: BTreeMap<SlotId, u16>,
    /// When the next ramp step is due; `None` if nothing ramps. Until then, time alone changes nothing.
    pub due: Option<Timestamp>,
}

impl Plan {
    /// The weight that the occupant of slot `id` ramps to if MAX is `max`.
    pub fn full_weight(&self, id: SlotId, max: Weight) -> Weight {
        full_weight(max, self.scales.get(&id).copied().unwrap_or(1))
    }
}

/// Decides what the table must hold at `now` under the `orders` in force, without any state of earlier turns.
pub fn decide(table: &Table, orders: &[Order], seen: &Observation, now: Timestamp, limits: &SlotLimits) -> Plan {
    let (slots, guard, ordered) = (BTreeMap::new(), Guard::default(), BTreeMap::new());
    let previous = Previous { slots: &slots, guard: &guard, ordered: &ordered, elapsed: Duration::ZERO };
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
            let full = full_weight(limits.max, assigned.scales.get(id).copied().unwrap_or(1));
            ramp::advance(occupant, full, now, limits);
            due = due.into_iter().chain(ramp::due(occupant, full, limits)).min();
        }
    }
    // After the ramp, which may have given the first ready server its first weight.
    let last_resort = drain::set_weights(&mut assigned.slots, &assigned.kept, &assigned.ordered, now, limits);
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
    let allocate::Assignment { unplaced, kept_out, ordered, ignored, scales, guarded, guard, kept, .. } = assigned;
    Plan {
        changes,
        slots,
        unplaced,
        kept_out,
        ordered,
        kept_empty,
        last_resort,
        guarded,
        guard,
        kept,
        above_size,
        ignored,
        scales,
        due,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
