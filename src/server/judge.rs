//! Decides what becomes of each occupant, from what was seen of it and of its group. Pure.
//!
//! Unknown is not empty: an occupant is evicted only if the source says that it has ended, that its group has set it aside,
//! or that no group has it. If too many are in no group all at once, eviction waits (`guard`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::guard::{Guard, Vanished, serves};
use super::limits::Limits;
use super::previous::Previous;
use super::seat::{free, seat};
use crate::clock::Timestamp;
use crate::slot::{Fate, Instance, Observation, Occupant, Readiness, Slot, SlotId, Status, Unlisted, Weight};

/// What judging found, apart from the changed slots.
pub(super) struct Judged {
    /// Slots that must not change this turn.
    pub(super) kept: BTreeSet<SlotId>,
    /// The kept slots that the removal guard keeps, in order.
    pub(super) guarded: Vec<SlotId>,
    /// The removal guard after this turn.
    pub(super) guard: Guard,
}

/// Judges every occupant and applies the verdicts to `slots`.
pub(super) fn judge_all(
    slots: &mut BTreeMap<SlotId, Slot>,
    holders: &BTreeMap<IpAddr, &Instance>,
    seen: &Observation,
    previous: &Previous<'_>,
    now: Timestamp,
    limits: &Limits,
) -> Judged {
    let names = Names::of(seen);
    let occupants = || slots.values().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?)));
    let verdict = |(id, occupant): (SlotId, &Occupant)| {
        let holder = holders.get(&occupant.address).copied();
        (id, judge(occupant, holder, &names, seen, &limits.groups))
    };
    let verdicts: BTreeMap<SlotId, Verdict<'_>> = occupants().map(verdict).collect();

    let vanished: Vec<Vanished<'_>> = occupants()
        .filter(|(id, _)| matches!(verdicts.get(id), Some(Verdict::Vanished)))
        .map(|(slot, occupant)| Vanished { slot, occupant })
        .collect();
    let serving = occupants().filter(|(_, occupant)| serves(occupant)).count();
    let guard = previous.guard.after(&vanished, serving, previous.elapsed, limits.removal_guard);
    let keeps = |one: &&Vanished<'_>| guard.keeps(one, limits.removal_guard);
    let guarded: Vec<SlotId> = vanished.iter().filter(keeps).map(|one| one.slot).collect();

    let mut kept: BTreeSet<SlotId> = guarded.iter().copied().collect();
    for (id, verdict) in verdicts {
        let Some(slot) = slots.get_mut(&id) else { continue };
        let Some(occupant) = slot.occupant.as_mut() else { continue };
        match verdict {
            Verdict::Present(instance) if instance.readiness != Readiness::Unknown => {
                occupant.group = Some(instance.group.clone());
                stay(occupant, instance.readiness, now, limits.min);
            }
            Verdict::Drains => stay(occupant, Readiness::Draining, now, limits.min),
            Verdict::Replaced(instance) => seat(slot, instance, now, limits.min),
            Verdict::Present(_) | Verdict::Kept => {
                kept.insert(id);
            }
            Verdict::Vanished if kept.contains(&id) => {}
            Verdict::Vanished | Verdict::Gone => free(slot),
        }
    }
    Judged { kept, guarded, guard }
}

/// What becomes of an occupant.
#[derive(Clone, Copy)]
enum Verdict<'a> {
    /// It is reported.
    Present(&'a Instance),
    /// A ready instance with another name has its address.
    Replaced(&'a Instance),
    /// It stays, at weight 0.
    Drains,
    /// Its state is unknown: it stays as it is.
    Kept,
    /// No group lists it any more, but the source does not say that it has ended.
    Vanished,
    /// It is gone.
    Gone,
}

/// What was seen of instances by name, for occupants whose address nobody reports.
struct Names<'a> {
    hidden: HashMap<&'a str, Readiness>,
    reported: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(seen: &'a Observation) -> Self {
        let of_hidden = seen.hidden.iter().flat_map(|one| one.names.iter().map(|name| (name.as_str(), one.readiness)));
        Names {
            hidden: of_hidden.collect(),
            reported: seen.instances.iter().map(|instance| instance.name.as_str()).collect(),
        }
    }
}

fn judge<'a>(
    occupant: &Occupant,
    holder: Option<&'a Instance>,
    names: &Names<'_>,
    seen: &Observation,
    groups: &[String],
) -> Verdict<'a> {
    let name = occupant.name.as_str();
    match holder {
        Some(instance) if instance.is_called(name) => return Verdict::Present(instance),
        Some(instance) if instance.readiness == Readiness::Ready => return Verdict::Replaced(instance),
        _ => {}
    }
    if let Some(readiness) = names.hidden.get(name) {
        return if *readiness == Readiness::Draining { Verdict::Drains } else { Verdict::Kept };
    }
    let missing = may_be_missing(occupant.group.as_ref(), seen, groups);
    match &seen.unlisted {
        Unlisted::Gone if missing => Verdict::Kept,
        Unlisted::Gone => Verdict::Gone,
        Unlisted::Told(fates) => match fates.get(name) {
            Some(Fate::Gone) => Verdict::Gone,
            // Its group is missing too: we may be looking at another region or account.
            Some(Fate::Denied) if missing => Verdict::Vanished,
            Some(Fate::Denied) => Verdict::Gone,
            Some(Fate::Open) if missing => Verdict::Kept,
            Some(Fate::Open) => Verdict::Vanished,
            // Its instance has a new address.
            None if names.reported.contains(name) => Verdict::Gone,
            None => Verdict::Kept,
        },
    }
}

/// Whether an unreported occupant may belong to a group that the source does not know. The name in the row does not settle
/// it: a misspelt group has another name there, and an old row has none. So while any group is missing, an occupant counts
/// as gone only if its own group is configured and present.
fn may_be_missing(group: Option<&String>, seen: &Observation, groups: &[String]) -> bool {
    let present = |group: &String| groups.contains(group) && !seen.missing_groups.contains(group);
    !seen.missing_groups.is_empty() && !group.is_some_and(present)
}

/// Updates an occupant that stays.
fn stay(occupant: &mut Occupant, readiness: Readiness, now: Timestamp, min: Weight) {
    match (occupant.status, readiness) {
        // An operator disabled it: that ends only when it leaves.
        (Status::Disabled, _) | (Status::Enabled, Readiness::Ready) | (_, Readiness::Unknown) => {}
        (Status::Draining, Readiness::Ready) => {
            occupant.status = Status::Enabled;
            occupant.weight = min;
            occupant.last_step = Some(now);
        }
        (_, Readiness::Draining) => occupant.status = Status::Draining,
    }
}
