//! Why each slot has its weight, by what the plan decided and what the source said. Pure: it looks up and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::shared_addresses;
use super::judge::Kept;
use super::limits::SlotLimits;
use super::plan::Plan;
use crate::cause::{Cause, Keep, Leaving, LeftOut};
use crate::clock::Timestamp;
use crate::ports::Reason;
use crate::slot::{Instance, Observation, Readiness, Row, Slot, SlotId, Status, Table};
use crate::weight::Factor;

/// The cause of every slot that has a row or is planned, by what `plan` decided at `now` from `table` and `seen`.
pub fn causes(
    table: &Table,
    seen: &Observation,
    plan: &Plan,
    now: Timestamp,
    limits: &SlotLimits,
) -> BTreeMap<SlotId, Cause> {
    let planned = plan.slots.values().map(|slot| (slot.id, cause(slot, seen, plan, now, limits)));
    let unreadable = table.rows.iter().filter_map(|(id, row)| match row {
        Row::Unreadable { reason, .. } => Some((*id, Cause::Unreadable { reason: reason.clone() })),
        Row::Readable(_) => None,
    });
    let unknown = (1..=limits.size).filter(|id| !plan.slots.contains_key(id) && !table.rows.contains_key(id));
    unknown.map(|id| (id, Cause::UnknownRow)).chain(planned).chain(unreadable).collect()
}

/// The causes, with the weights that the slots are on their way to.
pub(super) fn reasons(causes: BTreeMap<SlotId, Cause>, plan: &Plan, limits: &SlotLimits) -> BTreeMap<SlotId, Reason> {
    let reason = |(id, cause): (SlotId, Cause)| {
        // The source did not tell the size of one that is kept.
        let is_known = !(limits.by_factor && plan.is_kept(id));
        let full = is_known.then(|| plan.full_weight(id, limits));
        (id, Reason { cause, full, factor: factor(id, plan, limits) })
    };
    causes.into_iter().map(reason).collect()
}

/// The factor of the occupant of slot `id`, and what gives it one; none if it is 1 and nothing does.
pub fn factor(id: SlotId, plan: &Plan, limits: &SlotLimits) -> Option<(Factor, String)> {
    let weighed = plan.weighed.get(&id)?;
    let group = plan.slots.get(&id)?.occupant.as_ref()?.group.as_deref().unwrap_or_default();
    Some((weighed.factor, limits.factor_words(weighed.size, group)?))
}

/// The instances without a slot, first in line first.
pub fn left_out(seen: &Observation, plan: &Plan) -> Vec<LeftOut> {
    let seated: BTreeSet<&str> =
        plan.slots.values().filter_map(|slot| slot.occupant.as_ref()).map(|occupant| occupant.name.as_str()).collect();
    let instance = |cause: Cause| {
        move |one: &Instance| LeftOut {
            instance: one.name.clone(),
            group: Some(one.group.clone()),
            cause: cause.clone(),
        }
    };
    let unseen =
        seen.hidden.iter().filter(|one| one.in_service && one.names.iter().all(|name| !seated.contains(name.as_str())));
    let unseen = unseen.filter_map(|one| one.names.first()).map(|name| LeftOut {
        instance: name.clone(),
        group: None,
        cause: Cause::Unseen { word: seen.said.get(name).cloned() },
    });
    let unknown = seen.unknown_states.iter().filter(|one| !seated.contains(one.name.as_str())).map(|one| LeftOut {
        instance: one.name.clone(),
        group: Some(one.group.clone()),
        cause: Cause::UnknownState { word: one.state.clone() },
    });
    let draining = seen.instances.iter().filter(|one| one.readiness == Readiness::Draining);
    let not_ready = draining.filter(|one| !seated.contains(one.name.as_str())).filter_map(|one| {
        let word = seen.said.get(&one.name)?.clone();
        Some(instance(Cause::NotReady { word })(one))
    });
    let unplaced = plan.unplaced.iter().map(instance(Cause::NoFreeSlot));
    let kept_out = plan.kept_out.iter().map(|(order, one)| instance(Cause::KeptOut { order: order.to_string() })(one));
    unplaced
        .chain(kept_out)
        .chain(shared_addresses(plan).map(instance(Cause::SharedAddress)))
        .chain(unseen)
        .chain(unknown)
        .chain(not_ready)
        .collect()
}

fn cause(slot: &Slot, seen: &Observation, plan: &Plan, now: Timestamp, limits: &SlotLimits) -> Cause {
    let Some(occupant) = &slot.occupant else {
        let order = plan.kept_empty.get(&slot.id).map(|order| Cause::KeptEmpty { order: order.to_string() });
        return order.unwrap_or_else(|| Cause::Free { last_group: slot.last_group.clone() });
    };
    let word = || seen.said.get(&occupant.name).cloned();
    if occupant.status == Status::Disabled {
        return Cause::Disabled;
    }
    if let Some(kept) = plan.kept.get(&slot.id) {
        return Cause::Kept(match kept {
            Kept::UnknownState => Keep::UnknownState { word: word() },
            Kept::Silent => Keep::Silent { word: word() },
            Kept::MissingGroup => Keep::MissingGroup { group: occupant.group.clone() },
            Kept::Unasked => Keep::Unasked,
            Kept::Guarded(left) => Keep::Guarded { until: now.plus(*left) },
        });
    }
    if occupant.status == Status::Draining {
        let ordered = || plan.ordered.get(&slot.id).map(|order| Leaving::Order(order.to_string()));
        let leaving = word().map(Leaving::Source).or_else(ordered).unwrap_or(Leaving::Row);
        let last = plan.last_resort.binary_search(&slot.id).is_ok();
        return if last { Cause::LastResort(leaving) } else { Cause::Draining(leaving) };
    }
    let ramp = plan.ramp(slot.id, limits);
    let serves = plan.last_resort.binary_search(&slot.id).is_ok();
    if limits.max > 0 && ramp.full() == 0 && (occupant.weight == 0 || serves) {
        return Cause::Idle { serves };
    }
    match ramp.due_and_end(occupant) {
        Some((next, until)) => Cause::Ramping { next, until },
        None => Cause::Serving,
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide;
    use super::super::fixtures::{at, limits, seen, table};
    use super::*;

    fn decided(
        size: SlotId,
        rows: &str,
        observed: &str,
        said: &[(&str, &str)],
    ) -> (BTreeMap<SlotId, Cause>, Vec<LeftOut>) {
        let (table, mut seen, limits) = (table(rows), seen(observed), limits(size));
        seen.said = said.iter().map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect();
        let plan = decide(&table, &[], &seen, at(100), &limits);
        (causes(&table, &seen, &plan, at(100), &limits), left_out(&seen, &plan))
    }

    #[test]
    fn every_slot_has_its_cause() {
        let source = |word: &str| Leaving::Source(word.to_owned());
        let word = |word: &str| Some(word.to_owned());
        type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], Cause);
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("free", "1 free", "", &[], Cause::Free { last_group: None }),
            ("left", "1 .1 i1 a enabled 3", "", &[], Cause::Free { last_group: word("a") }),
            ("full", "1 .1 i1 a enabled 10", ".1 i1 a ready", &[], Cause::Serving),
            ("full, of a heavier one", "1 .1 i1 a enabled 30", ".1 i1 a ready factor=3", &[], Cause::Serving),
            ("rises", "1 .1 i1 a enabled 8@90", ".1 i1 a ready", &[], Cause::Ramping { next: at(120), until: at(150) }),
            ("new", "1 free", ".1 i1 a ready", &[], Cause::Ramping { next: at(130), until: at(370) }),
            ("leaves", "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9", ".1 i1 a draining; .2 i2 a ready", &[("i1", "health \"Unhealthy\"")],
             Cause::Draining(source("health \"Unhealthy\""))),
            ("leaves, and nothing is told", "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9", ".1 i1 a draining; .2 i2 a ready", &[],
             Cause::Draining(Leaving::Row)),
            ("the last one", "1 .1 i1 a enabled 9", ".1 i1 a draining", &[("i1", "lifecycle state \"Terminating\"")],
             Cause::LastResort(source("lifecycle state \"Terminating\""))),
            ("disabled", "1 .1 i1 a disabled 9", ".1 i1 a ready", &[], Cause::Disabled),
            ("disabled, of a missing group", "1 .1 i1 a disabled 9", "missing a", &[], Cause::Disabled),
            ("of a missing group", "1 .1 i1 a enabled 9", "missing a", &[], Cause::Kept(Keep::MissingGroup { group: word("a") })),
            ("EC2 is silent", "1 .1 i1 a enabled 9", "unseen i1", &[("i1", "EC2 does not list it")],
             Cause::Kept(Keep::Silent { word: word("EC2 does not list it") })),
            ("hidden, and leaves", "1 .1 i1 a draining 0; 2 .2 i2 a enabled 9", "hidden i1 draining; .2 i2 a ready", &[("i1", "x")],
             Cause::Draining(source("x"))),
            ("a strange state", "1 .1 i1 a enabled 9", ".1 i1 a unknown", &[("i1", "lifecycle state \"Dreaming\"")],
             Cause::Kept(Keep::UnknownState { word: word("lifecycle state \"Dreaming\"") })),
            ("nobody asked", "1 .1 i1 a enabled 9", "i9 gone", &[], Cause::Kept(Keep::Unasked)),
            ("too many at once", "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9; 3 .3 i3 a enabled 9",
             "i1 unconfirmed; i2 unconfirmed; i3 unconfirmed", &[], Cause::Kept(Keep::Guarded { until: at(130) })),
            ("unreadable", "1 unreadable", "", &[], Cause::Unreadable { reason: "broken".to_owned() }),
            ("no row, while a group is missing", "2 free", "missing a", &[], Cause::UnknownRow),
        ];
        for (name, rows, observed, said, expected) in cases {
            let (causes, _) = decided(2, rows, observed, said);
            assert_eq!(causes.get(&1), Some(&expected), "{name}");
        }
    }

    #[test]
    fn every_instance_without_a_slot_has_its_cause() {
        let observed =
            ".1 i1 a ready; .1 i9 b ready; .2 i2 b ready; unseen i3; unknown i4; unseen i1; .5 i5 c draining";
        let (_, left) =
            decided(1, "1 .1 i1 a enabled 9", observed, &[("i3", "EC2 state \"pending\""), ("i5", "tag hsdo:exclude")]);
        let one = |instance: &str, group: Option<&str>, cause| LeftOut {
            instance: instance.to_owned(),
            group: group.map(str::to_owned),
            cause,
        };
        let expected = [
            one("i2", Some("b"), Cause::NoFreeSlot),
            one("i9", Some("b"), Cause::SharedAddress),
            one("i3", None, Cause::Unseen { word: Some("EC2 state \"pending\"".to_owned()) }),
            one("i4", Some("a"), Cause::UnknownState { word: "lifecycle state \"Dreaming\"".to_owned() }),
            one("i5", Some("c"), Cause::NotReady { word: "tag hsdo:exclude".to_owned() }),
        ];
        assert_eq!(left, expected);
    }
}
