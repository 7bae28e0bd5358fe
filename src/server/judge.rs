//! What becomes of each occupant, by what was seen of it and of its group. Pure.
//!
//! Unknown is not empty: an occupant is freed only where the source says that it has ended, that its group has put it
//! aside, or that it is in no group; and where too many are in no group all at once, not so soon (`guard`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::guard::{Guard, Vanished, serves};
use super::limits::Limits;
use super::previous::Previous;
use super::seat::{free, seat};
use crate::clock::Timestamp;
use crate::slot::{Fate, Instance, Observation, Occupant, Part, Slot, SlotId, Status, Unlisted, Weight};

/// What came of judging the occupants, beside the slots.
pub(super) struct Judged {
    /// Slots of which nothing may change this turn.
    pub(super) kept: BTreeSet<SlotId>,
    /// Those of them that the guard keeps, in order.
    pub(super) guarded: Vec<SlotId>,
    /// What the guard remembers.
    pub(super) guard: Guard,
}

/// Judges every occupant, and applies the verdicts.
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
            Verdict::Present(instance) if instance.part != Part::Unknown => {
                occupant.group = Some(instance.group.clone());
                stay(occupant, instance.part, now, limits.min);
            }
            Verdict::Drains => stay(occupant, Part::Draining, now, limits.min),
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
    /// A ready instance of another name has its address.
    Replaced(&'a Instance),
    /// It stays, at weight 0.
    Drains,
    /// Whether it is there, or what has become of it, is unknown.
    Kept,
    /// It is in no group any more, though nobody says that it has ended.
    Vanished,
    /// It is not there any more.
    Gone,
}

/// What was seen of those that no report of their address is about, by name.
struct Names<'a> {
    hidden: HashMap<&'a str, Part>,
    reported: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(seen: &'a Observation) -> Self {
        let of_hidden = seen.hidden.iter().flat_map(|one| one.names.iter().map(|name| (name.as_str(), one.part)));
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
        Some(instance) if instance.part == Part::Ready => return Verdict::Replaced(instance),
        _ => {}
    }
    if let Some(part) = names.hidden.get(name) {
        return if *part == Part::Draining { Verdict::Drains } else { Verdict::Kept };
    }
    let missing = may_be_missing(occupant.group.as_ref(), seen, groups);
    match &seen.unlisted {
        Unlisted::Gone if missing => Verdict::Kept,
        Unlisted::Gone => Verdict::Gone,
        Unlisted::Told(fates) => match fates.get(name) {
            Some(Fate::Gone) => Verdict::Gone,
            // With its group, the id is not known either: this may be another region, or another account.
            Some(Fate::Denied) if missing => Verdict::Vanished,
            Some(Fate::Denied) => Verdict::Gone,
            Some(Fate::Open) if missing => Verdict::Kept,
            Some(Fate::Open) => Verdict::Vanished,
            // Its instance has another address by now.
            None if names.reported.contains(name) => Verdict::Gone,
            None => Verdict::Kept,
        },
    }
}

/// Whether an occupant that is not reported may belong to a group that the source does not know. A misspelt name is
/// not the one in its row, and an old row has none: so while any group is missing, only those who belong to a
/// configured group that is known can be said to be gone.
fn may_be_missing(group: Option<&String>, seen: &Observation, groups: &[String]) -> bool {
    let known = |group: &String| groups.contains(group) && !seen.missing_groups.contains(group);
    !seen.missing_groups.is_empty() && !group.is_some_and(known)
}

/// An occupant that is ready, or drains.
fn stay(occupant: &mut Occupant, part: Part, now: Timestamp, min: Weight) {
    match (occupant.status, part) {
        // An operator took it out: only its departure ends that.
        (Status::Disabled, _) | (Status::Enabled, Part::Ready) | (_, Part::Unknown) => {}
        (Status::Draining, Part::Ready) => {
            occupant.status = Status::Enabled;
            occupant.weight = min;
            occupant.last_step = Some(now);
        }
        (_, Part::Draining) => occupant.status = Status::Draining,
    }
}
