//! Assigns instances to slots: departed instances are evicted, present ones stay, new ones are seated. Pure.
//!
//! An instance keeps its slot for life, or consistent hashing would move keys needlessly. For the same reason a new
//! instance prefers a slot that its group had before. Weights are set elsewhere (`ramp`, `drain`).

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::guard::Guard;
use super::judge::{Judged, Kept, judge_all};
use super::limits::SlotLimits;
use super::previous::Previous;
use super::seat::{free, seat};
use crate::clock::Timestamp;
use crate::order::{self, Order};
use crate::slot::{Instance, Observation, Occupant, Readiness, Row, Slot, SlotId, Status, Table};
use crate::weight::{Factor, Weighed};

/// The slots after this turn, except for the weights.
pub(super) struct Assignment {
    /// The readable rows, and slots of 1 to N without a row.
    pub(super) slots: BTreeMap<SlotId, Slot>,
    /// Slots that must not change this turn, and why.
    pub(super) kept: BTreeMap<SlotId, Kept>,
    /// Those of `kept` that the removal guard keeps, in order.
    pub(super) guarded: Vec<SlotId>,
    pub(super) guard: Guard,
    pub(super) unplaced: Vec<Instance>,
    /// Ready instances without a slot because of an order, with that order.
    pub(super) kept_out: Vec<(Order, Instance)>,
    /// The occupants that drain by an order alone.
    pub(super) ordered: BTreeMap<SlotId, Order>,
    /// Instances without a slot because a higher-ranking one, or an unreadable row, has their address.
    pub(super) ignored: Vec<Instance>,
    /// Those whose factor is not 1.
    pub(super) weighed: BTreeMap<SlotId, Weighed>,
}

pub(super) fn assign(
    table: &Table,
    orders: &[Order],
    previous: &Previous<'_>,
    seen: &Observation,
    now: Timestamp,
    limits: &SlotLimits,
) -> Assignment {
    let mut slots: BTreeMap<SlotId, Slot> = table.slots().map(|slot| (slot.id, slot.clone())).collect();
    restore(&mut slots, table, previous.slots);
    let missing: BTreeSet<SlotId> =
        (1..=limits.size).filter(|id| !table.rows.contains_key(id) && !slots.contains_key(id)).collect();
    free_duplicates(&mut slots);
    let (mut holders, mut ignored) = holders(&slots, seen);
    let Judged { kept, guarded, guard, mut ordered } =
        judge_all(&mut slots, &holders, seen, orders, previous, now, limits);
    ignored.extend(exclude_unreadable(&mut holders, table, &slots));
    let empty = missing.iter().map(|id| (*id, Slot::empty(*id)));
    let (mut kept_out, newcomers): (Vec<Instance>, Vec<Instance>) = newcomers(&slots, &holders, seen)
        .into_iter()
        .partition(|instance| order::on_instance(orders, instance).is_some());
    let seat_all = |slots: &mut BTreeMap<SlotId, Slot>, newcomers: Vec<Instance>| {
        let is_open = |id| order::on_slot(orders, id).is_none();
        let mut seat = |slot: &mut Slot, instance: &Instance| seat(slot, instance, now, limits.start(instance));
        seat_newcomers(slots, newcomers, limits.size, &is_open, &mut seat)
    };
    let mut unplaced = if may_hide_instances(seen, &slots) {
        // A missing row may belong to a serving instance that cannot be seen now. So it is not written as free, and only
        // used when no other slot is left.
        let mut unplaced = seat_all(&mut slots, newcomers);
        if !unplaced.is_empty() {
            slots.extend(empty);
            unplaced = seat_all(&mut slots, unplaced);
            slots.retain(|id, slot| !missing.contains(id) || slot.occupant.is_some());
        }
        unplaced
    } else {
        slots.extend(empty);
        seat_all(&mut slots, newcomers)
    };
    if limits.max > 0 && !is_served(&slots, &kept, &ordered, &holders, now, limits) {
        let mut seat_last = |slot: &mut Slot, instance: &Instance| {
            seat(slot, instance, now, limits.start(instance).max(1));
            if let Some(occupant) = slot.occupant.as_mut()
                && let Some(order) = order::on_occupant(orders, slot.id, occupant)
            {
                occupant.status = Status::Draining;
                ordered.insert(slot.id, order.clone());
            }
        };
        kept_out = seat_newcomers(&mut slots, kept_out, limits.size, &|_| true, &mut seat_last);
        unplaced = seat_newcomers(&mut slots, unplaced, limits.size, &|_| true, &mut seat_last);
    }
    let order_of = |instance: Instance| Some((order::on_instance(orders, &instance)?.clone(), instance));
    let kept_out = kept_out.into_iter().filter_map(order_of).collect();
    let weighed = weigh(&slots, &holders, limits);
    Assignment { slots, kept, guarded, guard, unplaced, kept_out, ordered, ignored, weighed }
}

/// An occupant as the source reports it.
fn holder_of<'a>(occupant: &Occupant, holders: &BTreeMap<IpAddr, &'a Instance>) -> Option<&'a Instance> {
    holders.get(&occupant.address).copied().filter(|holder| holder.has_name(&occupant.name))
}

/// Whether a server that is not about to leave has weight after this turn, be it the last resort.
fn is_served(
    slots: &BTreeMap<SlotId, Slot>,
    kept: &BTreeMap<SlotId, Kept>,
    ordered: &BTreeMap<SlotId, Order>,
    holders: &BTreeMap<IpAddr, &Instance>,
    now: Timestamp,
    limits: &SlotLimits,
) -> bool {
    slots.values().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?))).any(|(id, occupant)| {
        match occupant.status {
            Status::Enabled if kept.contains_key(&id) => occupant.weight > 0,
            Status::Enabled => {
                let of = holder_of(occupant, holders);
                let ramp = limits.ramp(of.map_or(Factor::ONE, |holder| limits.factor(holder.size, &holder.group)));
                let mut next = occupant.clone();
                ramp.advance(&mut next, now);
                // With a factor of 0, it gets weight as the last resort.
                next.weight > 0 || limits.max > 0 && ramp.full() == 0
            }
            // It gets weight as the last resort, if it has none.
            Status::Draining => {
                let is_ready =
                    || holder_of(occupant, holders).is_some_and(|holder| holder.readiness == Readiness::Ready);
                ordered.contains_key(&id) && (occupant.weight > 0 || is_ready())
            }
            Status::Disabled => false,
        }
    })
}

/// Whether there may be serving instances without a row that cannot be seated: their group is missing, they have no
/// address, or their state is unknown.
fn may_hide_instances(seen: &Observation, slots: &BTreeMap<SlotId, Slot>) -> bool {
    if !seen.missing_groups.is_empty() {
        return true;
    }
    let unseen = seen.hidden.iter().filter(|hidden| hidden.in_service).map(|hidden| hidden.names.as_slice());
    let unknown_states = seen.unknown_states.iter().map(|unknown_states| std::slice::from_ref(&unknown_states.name));
    let mut hidden = unseen.chain(unknown_states).peekable();
    if hidden.peek().is_none() {
        return false;
    }
    let mut shown: HashSet<&str> =
        slots.values().filter_map(|slot| slot.occupant.as_ref()).map(|occupant| occupant.name.as_str()).collect();
    for instance in seen.instances.iter().filter(|instance| instance.readiness != Readiness::Unknown) {
        shown.extend(instance.aliases.iter().chain([&instance.name]).map(String::as_str));
    }
    hidden.any(|names| !names.iter().any(|name| shown.contains(name.as_str())))
}

/// Restores the occupants of deleted rows, unless another row has their address: then someone moved them by hand.
fn restore(slots: &mut BTreeMap<SlotId, Slot>, table: &Table, before: &BTreeMap<SlotId, Slot>) {
    let held = |row: &Row| match row {
        Row::Readable(slot) => slot.occupant.as_ref().map(|occupant| occupant.address),
        Row::Unreadable { address, .. } => *address,
    };
    let held: BTreeSet<IpAddr> = table.rows.values().filter_map(held).collect();
    let stays = |slot: &&Slot| slot.occupant.as_ref().is_some_and(|occupant| !held.contains(&occupant.address));
    let lost = before.values().filter(|slot| !table.rows.contains_key(&slot.id)).filter(stays);
    slots.extend(lost.map(|slot| (slot.id, slot.clone())));
}

/// Removes and returns instances whose address is in an unreadable row: a second slot would double their traffic.
fn exclude_unreadable(
    holders: &mut BTreeMap<IpAddr, &Instance>,
    table: &Table,
    slots: &BTreeMap<SlotId, Slot>,
) -> Vec<Instance> {
    let seated = |address: &IpAddr| {
        slots.values().any(|slot| slot.occupant.as_ref().is_some_and(|occupant| occupant.address == *address))
    };
    let unreadable = table.rows.values().filter_map(|row| match row {
        Row::Unreadable { address, .. } => *address,
        Row::Readable(_) => None,
    });
    unreadable.filter(|address| !seated(address)).filter_map(|address| holders.remove(&address).cloned()).collect()
}

/// Of several slots with the same address, the lowest keeps it.
fn free_duplicates(slots: &mut BTreeMap<SlotId, Slot>) {
    let mut taken = BTreeSet::new();
    for slot in slots.values_mut() {
        if slot.occupant.as_ref().is_some_and(|occupant| !taken.insert(occupant.address)) {
            free(slot);
        }
    }
}

/// The instance that holds each address, and the ones that lose out. Ready instances come first, then the occupant, then the
/// order of groups and names decides.
fn holders<'a>(
    slots: &BTreeMap<SlotId, Slot>,
    seen: &'a Observation,
) -> (BTreeMap<IpAddr, &'a Instance>, Vec<Instance>) {
    let occupants: BTreeMap<IpAddr, &str> = slots
        .values()
        .filter_map(|slot| slot.occupant.as_ref())
        .map(|occupant| (occupant.address, occupant.name.as_str()))
        .collect();
    let positions = Positions::of_groups(seen);
    let mut instances: Vec<&Instance> = seen.instances.iter().collect();
    instances.sort_by_key(|instance| {
        let newcomer = !occupants.get(&instance.address).is_some_and(|name| instance.has_name(name));
        (
            instance.address,
            instance.readiness != Readiness::Ready,
            newcomer,
            positions.of(&instance.group),
            &instance.name,
            &instance.group,
            instance.readiness,
            (&instance.zone, instance.port, instance.size),
        )
    });
    let mut holders = BTreeMap::new();
    let mut ignored = Vec::new();
    for instance in instances {
        match holders.entry(instance.address) {
            Entry::Vacant(entry) => {
                entry.insert(instance);
            }
            Entry::Occupied(_) => ignored.push(instance.clone()),
        }
    }
    (holders, ignored)
}

/// The sizes and factors of the occupants whose factor is not 1.
fn weigh(
    slots: &BTreeMap<SlotId, Slot>,
    holders: &BTreeMap<IpAddr, &Instance>,
    limits: &SlotLimits,
) -> BTreeMap<SlotId, Weighed> {
    let weigh = |slot: &Slot| {
        let Instance { size, group, .. } = holder_of(slot.occupant.as_ref()?, holders)?;
        let factor = limits.factor(*size, group);
        (factor != Factor::ONE).then_some((slot.id, Weighed { size: *size, factor }))
    };
    slots.values().filter_map(weigh).collect()
}

/// The ready instances that have no slot, first in line first.
fn newcomers(
    slots: &BTreeMap<SlotId, Slot>,
    holders: &BTreeMap<IpAddr, &Instance>,
    seen: &Observation,
) -> Vec<Instance> {
    let seated: BTreeSet<IpAddr> =
        slots.values().filter_map(|slot| slot.occupant.as_ref()).map(|occupant| occupant.address).collect();
    let mut newcomers: Vec<&Instance> = holders
        .values()
        .copied()
        .filter(|instance| instance.readiness == Readiness::Ready && !seated.contains(&instance.address))
        .collect();
    let positions = Positions::of_groups(seen);
    newcomers.sort_by_key(|instance| (positions.of(&instance.group), instance.address));
    newcomers.into_iter().cloned().collect()
}

/// Finds a free slot of 1 to `size` that `is_open` for each of the newcomers, and has it seated there. Returns those that found
/// none, in order.
fn seat_newcomers(
    slots: &mut BTreeMap<SlotId, Slot>,
    mut newcomers: Vec<Instance>,
    size: SlotId,
    is_open: &dyn Fn(SlotId) -> bool,
    seat: &mut dyn FnMut(&mut Slot, &Instance),
) -> Vec<Instance> {
    if newcomers.is_empty() {
        return newcomers;
    }
    let mut free = Free::of(slots, size, is_open);
    // The best slots for all first, so that nobody takes as "any" what is another's own.
    let choices: [fn(&mut Free, &Instance) -> Option<SlotId>; 3] = [Free::of_zone, Free::of_group, Free::other];
    for choice in choices {
        newcomers.retain(|instance| match choice(&mut free, instance).and_then(|id| slots.get_mut(&id)) {
            Some(slot) => {
                seat(slot, instance);
                false
            }
            None => true,
        });
    }
    newcomers
}

/// The free slots of 1 to N, by the group and zone of the last occupant; no group if never used.
struct Free(BTreeMap<Option<String>, BTreeMap<SlotId, Option<String>>>);

impl Free {
    fn of(slots: &BTreeMap<SlotId, Slot>, size: SlotId, is_open: &dyn Fn(SlotId) -> bool) -> Self {
        let mut free: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for slot in slots.values().filter(|slot| slot.id <= size && slot.occupant.is_none() && is_open(slot.id)) {
            free.entry(slot.last_group.clone()).or_default().insert(slot.id, slot.last_zone.clone());
        }
        Free(free)
    }

    /// The lowest one last held by the instance's group in its zone.
    fn of_zone(&mut self, instance: &Instance) -> Option<SlotId> {
        let slots = self.0.get_mut(&Some(instance.group.clone()))?;
        let id = slots.iter().find(|(_, zone)| **zone == instance.zone).map(|(id, _)| *id)?;
        slots.remove(&id).map(|_| id)
    }

    /// The lowest one last held by its group.
    fn of_group(&mut self, instance: &Instance) -> Option<SlotId> {
        self.0.get_mut(&Some(instance.group.clone()))?.pop_first().map(|(id, _)| id)
    }

    /// The lowest one never used, else the lowest.
    fn other(&mut self, _: &Instance) -> Option<SlotId> {
        let lowest = |slots: &BTreeMap<SlotId, _>| slots.keys().next().copied();
        if let Some((id, _)) = self.0.get_mut(&None).and_then(BTreeMap::pop_first) {
            return Some(id);
        }
        let slots = self.0.values_mut().filter(|slots| !slots.is_empty()).min_by_key(|slots| lowest(slots))?;
        slots.pop_first().map(|(id, _)| id)
    }
}

/// The positions of the groups in the order of seating. A pattern may match hundreds.
struct Positions<'a>(HashMap<&'a str, usize>);

impl<'a> Positions<'a> {
    fn of_groups(seen: &'a Observation) -> Self {
        Positions(seen.groups.iter().enumerate().map(|(place, group)| (group.as_str(), place)).collect())
    }

    /// Unconfigured groups come last.
    fn of(&self, group: &str) -> usize {
        self.0.get(group).copied().unwrap_or(usize::MAX)
    }
}
