//! Decides what becomes of each occupant, based on what the source says about it and its group. Pure.
//!
//! Unknown is not empty: an occupant is evicted only if the source says that it has ended, that its group has set it aside,
//! or that it is in no group. If too many leave every group at once, eviction waits (`guard`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::guard::{Guard, Vanished, serves};
use super::limits::SlotLimits;
use super::previous::Previous;
use super::seat::{free, seat};
use crate::clock::Timestamp;
use crate::order::{self, Order};
use crate::selection::NamePattern;
use crate::slot::{Fate, Instance, Observation, Occupant, Readiness, Slot, SlotId, Status, Unlisted, Weight};

pub(super) struct Judged {
    /// Slots that must not change this turn, and why.
    pub(super) kept: BTreeMap<SlotId, Kept>,
    /// Those of `kept` that the removal guard keeps, in order.
    pub(super) guarded: Vec<SlotId>,
    pub(super) guard: Guard,
    /// The occupants that drain by an order alone: their group has them ready, or says nothing.
    pub(super) ordered: BTreeMap<SlotId, Order>,
}

/// Why an occupant stays exactly as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its lifecycle or health state is not known to hsdo.
    UnknownState,
    /// Its group lists it, but the source shows no address.
    Silent,
    /// It may belong to a group that does not exist.
    MissingGroup,
    /// The source was not asked about it.
    Unasked,
    /// The removal guard keeps it for this long.
    Guarded(Duration),
}

/// Judges every occupant and updates `slots`.
pub(super) fn judge_all(
    slots: &mut BTreeMap<SlotId, Slot>,
    holders: &BTreeMap<IpAddr, &Instance>,
    seen: &Observation,
    orders: &[Order],
    previous: &Previous<'_>,
    now: Timestamp,
    limits: &SlotLimits,
) -> Judged {
    let names = SeenNames::of(seen);
    let occupants = || slots.values().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?)));
    let decision = |(id, occupant): (SlotId, &Occupant)| {
        let holder = holders.get(&occupant.address).copied();
        (id, judge(occupant, holder, &names, seen, limits))
    };
    let decisions: BTreeMap<SlotId, Decision<'_>> = occupants().map(decision).collect();

    let vanished: Vec<Vanished<'_>> = occupants()
        .filter(|(id, _)| matches!(decisions.get(id), Some(Decision::Vanished)))
        .map(|(slot, occupant)| Vanished { slot, occupant })
        .collect();
    // Slots that stay as they are in any case, such as those of a missing group, must not make the rest look few.
    let stays = |id: &SlotId| match decisions.get(id) {
        Some(Decision::Present(instance)) => instance.readiness == Readiness::Unknown,
        decision => matches!(decision, Some(Decision::Kept(_))),
    };
    let serving = occupants().filter(|(id, occupant)| !stays(id) && serves(occupant)).count();
    let guard = previous.guard.after(&vanished, serving, previous.elapsed, limits.removal_guard);
    let keep = |one: &Vanished<'_>| Some((one.slot, Kept::Guarded(guard.left(one, limits.removal_guard)?)));
    let mut kept: BTreeMap<SlotId, Kept> = vanished.iter().filter_map(keep).collect();
    let guarded: Vec<SlotId> = kept.keys().copied().collect();
    let mut ordered = BTreeMap::new();
    for (id, decision) in decisions {
        let Some(slot) = slots.get_mut(&id) else { continue };
        let Some(occupant) = slot.occupant.as_mut() else { continue };
        match decision {
            Decision::Present(instance) if instance.readiness != Readiness::Unknown => {
                occupant.group = Some(instance.group.clone());
                occupant.port = instance.port;
                if instance.zone.is_some() {
                    occupant.zone.clone_from(&instance.zone);
                }
                match order::on_occupant(orders, id, occupant).filter(|_| instance.readiness == Readiness::Ready) {
                    Some(order) => obey(occupant, id, order, &mut ordered),
                    None => stay(occupant, instance.readiness, now, limits.start(instance)),
                }
            }
            Decision::Drains => stay(occupant, Readiness::Draining, now, limits.min),
            Decision::Replaced(instance) => match newcomer_order(orders, id, instance) {
                // Nobody who must drain takes a slot, not even this one.
                Some(_) => free(slot),
                None => seat(slot, instance, now, limits.start(instance)),
            },
            Decision::Vanished if !kept.contains_key(&id) => free(slot),
            Decision::Gone => free(slot),
            Decision::Present(_) | Decision::Kept(_) | Decision::Vanished => {
                let why = match decision {
                    Decision::Kept(why) => Some(why),
                    Decision::Present(_) => Some(Kept::UnknownState),
                    _ => kept.get(&id).copied(),
                };
                match order::on_occupant(orders, id, occupant).filter(|_| occupant.status != Status::Disabled) {
                    // Draining it does no harm, whatever became of it.
                    Some(order) => {
                        kept.remove(&id);
                        obey(occupant, id, order, &mut ordered);
                    }
                    None => {
                        if previous.drained_by_order(id, occupant) {
                            stay(occupant, Readiness::Ready, now, limits.min.max(1).min(limits.max));
                        }
                        kept.extend(why.map(|why| (id, why)));
                    }
                }
            }
        }
    }
    Judged { kept, guarded, guard, ordered }
}

/// The order that keeps an instance from being seated in this slot.
fn newcomer_order<'a>(orders: &'a [Order], id: SlotId, instance: &Instance) -> Option<&'a Order> {
    order::on_instance(orders, instance).or_else(|| order::on_slot(orders, id))
}

/// Drains an occupant because of an order, unless an operator disabled it.
fn obey(occupant: &mut Occupant, id: SlotId, order: &Order, ordered: &mut BTreeMap<SlotId, Order>) {
    if occupant.status != Status::Disabled {
        occupant.status = Status::Draining;
        ordered.insert(id, order.clone());
    }
}

#[derive(Clone, Copy)]
enum Decision<'a> {
    /// The source lists it.
    Present(&'a Instance),
    /// Another ready instance has its address.
    Replaced(&'a Instance),
    Drains,
    /// Its state is unknown: it stays as it is.
    Kept(Kept),
    /// No group lists it any more, but it is not reported as ended.
    Vanished,
    Gone,
}

/// Names in the observation, for occupants whose address is not in it.
struct SeenNames<'a> {
    hidden: HashMap<&'a str, Readiness>,
    reported: HashSet<&'a str>,
}

impl<'a> SeenNames<'a> {
    fn of(seen: &'a Observation) -> Self {
        let of_hidden = seen.hidden.iter().flat_map(|one| one.names.iter().map(|name| (name.as_str(), one.readiness)));
        SeenNames {
            hidden: of_hidden.collect(),
            reported: seen.instances.iter().map(|instance| instance.name.as_str()).collect(),
        }
    }
}

fn judge<'a>(
    occupant: &Occupant,
    holder: Option<&'a Instance>,
    names: &SeenNames<'_>,
    seen: &Observation,
    limits: &SlotLimits,
) -> Decision<'a> {
    let name = occupant.name.as_str();
    match holder {
        Some(instance) if instance.has_name(name) => return Decision::Present(instance),
        Some(instance) if instance.readiness == Readiness::Ready => return Decision::Replaced(instance),
        _ => {}
    }
    match names.hidden.get(name) {
        Some(Readiness::Draining) => return Decision::Drains,
        Some(Readiness::Unknown) => return Decision::Kept(Kept::UnknownState),
        Some(Readiness::Ready) => return Decision::Kept(Kept::Silent),
        None => {}
    }
    let missing = may_be_missing(occupant.group.as_deref(), seen, limits);
    match &seen.unlisted {
        Unlisted::Gone if missing => Decision::Kept(Kept::MissingGroup),
        Unlisted::Gone => Decision::Gone,
        Unlisted::Fates(fates) => match fates.get(name) {
            Some(Fate::Gone) => Decision::Gone,
            // Its group is missing too: we may be looking at another region or account.
            Some(Fate::NotFound) if missing => Decision::Vanished,
            Some(Fate::NotFound) => Decision::Gone,
            Some(Fate::Unconfirmed) if missing => Decision::Kept(Kept::MissingGroup),
            Some(Fate::Unconfirmed) => Decision::Vanished,
            // Its instance has a new address.
            None if names.reported.contains(name) => Decision::Gone,
            None => Decision::Kept(Kept::Unasked),
        },
    }
}

/// Whether an unlisted occupant may belong to a missing group. The row's group is no proof to the contrary: it may be spelt
/// differently or absent. So while any entry matches no group, an occupant can be gone only if its own group is present, or if it is
/// one of entries that all match others.
fn may_be_missing(group: Option<&str>, seen: &Observation, limits: &SlotLimits) -> bool {
    let is_missing = |entry: &NamePattern| seen.missing_groups.iter().any(|missing| missing == entry.as_str());
    let is_of_others = |group: &str| {
        let mut entries = limits.entries.iter().filter(|entry| entry.matches(group)).peekable();
        let is_of_any = entries.peek().is_some();
        seen.groups.iter().any(|present| present == group) || is_of_any && !entries.any(is_missing)
    };
    !seen.missing_groups.is_empty() && !group.is_some_and(is_of_others)
}

/// One that is ready again after it drained restarts its ramp at `start`.
fn stay(occupant: &mut Occupant, readiness: Readiness, now: Timestamp, start: Weight) {
    match (occupant.status, readiness) {
        // Disabled by an operator: stays so until it is freed.
        (Status::Disabled, _) | (Status::Enabled, Readiness::Ready) | (_, Readiness::Unknown) => {}
        (Status::Draining, Readiness::Ready) => {
            occupant.status = Status::Enabled;
            // One that served as the last resort must not fall to 0: nothing else may serve.
            occupant.weight = if occupant.weight > 0 { start.max(1) } else { start };
            occupant.last_step = Some(now);
        }
        (_, Readiness::Draining) => occupant.status = Status::Draining,
    }
}
