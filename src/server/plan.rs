//! The whole decision of a turn: table, observation and time in, the rows to write out. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use super::limits::Limits;
use super::previous::Previous;
use super::{allocate, drain, ramp};
use crate::clock::Timestamp;
use crate::slot::{Instance, Observation, Row, Slot, SlotId, Table, Weight, full_weight};

/// What a turn decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The slots that differ from the table's rows, or have no row yet, in the order of their numbers.
    pub changes: Vec<Slot>,
    /// The table after the plan: every row but those that cannot be read.
    pub slots: BTreeMap<SlotId, Slot>,
    /// Ready instances that found no free slot, in the order in which they wait.
    pub unplaced: Vec<Instance>,
    /// Slots of draining servers that keep serving because no ready server can; in order.
    pub last_resort: Vec<SlotId>,
    /// Slots whose servers left every group too many at once, and are kept for a while; in order.
    pub guarded: Vec<SlotId>,
    /// What is to be known of them in the next turn.
    pub(super) guard: Guard,
    /// Slots above the configured number that are still occupied, in order.
    pub above_size: Vec<SlotId>,
    /// Reports of an address that another report of the same address outranks.
    pub ignored: Vec<Instance>,
    /// The scales of the slots whose occupants are reported with another one than 1.
    pub scales: BTreeMap<SlotId, u16>,
    /// When the first step of a ramp is due; `None` where nobody ramps. Until then, nothing follows from time alone.
    pub due: Option<Timestamp>,
}

impl Plan {
    /// The weight that the occupant of slot `id` reaches in the end, where MAX is `max`.
    pub fn full_weight(&self, id: SlotId, max: Weight) -> Weight {
        full_weight(max, self.scales.get(&id).copied().unwrap_or(1))
    }
}

/// Decides what the table must hold at `now`, for who knows of no turn before.
pub fn decide(table: &Table, seen: &Observation, now: Timestamp, limits: &Limits) -> Plan {
    let previous = Previous { slots: &BTreeMap::new(), guard: &Guard::default(), elapsed: Duration::ZERO };
    decide_after(table, &previous, seen, now, limits)
}

/// The same for who remembers the turns before. Deciding again on the result, and what it remembers, changes nothing.
pub(super) fn decide_after(
    table: &Table,
    previous: &Previous<'_>,
    seen: &Observation,
    now: Timestamp,
    limits: &Limits,
) -> Plan {
    let mut assigned = allocate::assign(table, previous, seen, now, limits);
    let mut due = None;
    for (id, slot) in &mut assigned.slots {
        if let Some(occupant) = slot.occupant.as_mut()
            && !assigned.kept.contains(id)
        {
            let full = full_weight(limits.max, assigned.scales.get(id).copied().unwrap_or(1));
            ramp::advance(occupant, full, now, limits);
            due = due.into_iter().chain(ramp::due(occupant, full, limits)).min();
        }
    }
    // After the ramp: it may have given the first ready server its first weight.
    let last_resort = drain::set_weights(&mut assigned.slots, &assigned.kept, now, limits);
    let slots = assigned.slots;
    let changes = slots
        .values()
        .filter(|slot| !matches!(table.rows.get(&slot.id), Some(Row::Known(old)) if **old == **slot))
        .cloned()
        .collect();
    let above_size =
        slots.values().filter(|slot| slot.id > limits.size && slot.occupant.is_some()).map(|slot| slot.id).collect();
    let allocate::Assignment { unplaced, ignored, scales, guarded, guard, .. } = assigned;
    Plan { changes, slots, unplaced, last_resort, guarded, guard, above_size, ignored, scales, due }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
