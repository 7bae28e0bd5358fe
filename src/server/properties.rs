//! Properties of any table and observation, over many turns with edits in between. Tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::fixtures::{GROUPS, address, at, config, limits, secs};
use super::plan::decide_after;
use super::previous::Previous;
use super::{Plan, SlotLimits, decide};
use crate::order::{Order, Target, on_occupant};
use crate::slot::{
    Fate, Hidden, Instance, Observation, Occupant, Readiness, Row, Slot, SlotId, Status, Table, UnknownState, Unlisted,
};
use crate::weight::{Factor, Size};

/// Few addresses, names and groups, so that they collide often.
fn instance() -> impl Strategy<Value = Instance> {
    // Mostly one name per address.
    let name = |host: u8| prop_oneof![4 => Just(host), 1 => 1..=9_u8].prop_map(move |name| (host, name));
    let readiness =
        prop_oneof![6 => Just(Readiness::Ready), 1 => Just(Readiness::Draining), 1 => Just(Readiness::Unknown)];
    let zone = prop::option::of(prop::sample::select(vec!["z1".to_owned(), "z2".to_owned()]));
    let factor = prop::sample::select(vec!["0", "0.3", "1.5", "3"]);
    let factor = factor.prop_map(|factor| Size::Tag(Factor::parse(factor).expect("a factor")));
    let size = prop_oneof![3 => Just(Size::Unit), 1 => factor];
    let port = prop_oneof![3 => Just(None), 1 => Just(Some(81))];
    ((1..=9_u8).prop_flat_map(name), 0..4_usize, zone, readiness, size, port).prop_map(
        |((host, name), group, zone, readiness, size, port)| {
            let group = ["a", "b", "c", "d"][group].to_owned();
            let instance = Instance::new(address(&format!(".{host}")), format!("i{name}"), group, readiness);
            Instance { zone, size, port, ..instance }
        },
    )
}

fn unlisted() -> impl Strategy<Value = Unlisted> {
    let kinds = vec![Fate::Gone, Fate::NotFound, Fate::Unconfirmed, Fate::Unconfirmed];
    let name = (1..=9_u8).prop_map(|name| format!("i{name}"));
    let fates = prop::collection::btree_map(name, prop::sample::select(kinds), 0..9).prop_map(Unlisted::Fates);
    prop_oneof![Just(Unlisted::Gone), fates]
}

fn observation() -> impl Strategy<Value = Observation> {
    let group = prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let readiness = prop::sample::select(vec![Readiness::Ready, Readiness::Draining, Readiness::Unknown]);
    let hidden = (1..=9_u8, (readiness, any::<bool>()));
    let few = prop_oneof![3 => Just(0..1_usize), 1 => Just(0..3_usize)];
    (prop::collection::vec(instance(), 0..12), few.clone(), few, unlisted())
        .prop_flat_map(move |(instances, missing, some, unlisted)| {
            let missing = prop::collection::vec(group.clone(), missing);
            let hidden = prop::collection::vec(hidden.clone(), some).prop_map(BTreeMap::from_iter);
            (Just(instances), missing, hidden, Just(unlisted))
        })
        .prop_map(|(instances, missing_groups, hidden, unlisted)| {
            // A missing group has no instances.
            let exists = |one: &Instance| !missing_groups.contains(&one.group);
            let instances: Vec<Instance> = instances.into_iter().filter(exists).collect();
            let unknown_states =
                instances.iter().filter(|one| one.readiness == Readiness::Unknown).map(|one| UnknownState {
                    name: one.name.clone(),
                    group: one.group.clone(),
                    state: "lifecycle state \"Dreaming\"".to_owned(),
                });
            let unknown_states = unknown_states.collect();
            let hidden = hidden.into_iter().map(|(name, (readiness, in_service))| {
                let in_service = in_service || readiness == Readiness::Ready;
                Hidden { names: vec![format!("i{name}")], readiness, in_service }
            });
            let mut groups = GROUPS.map(str::to_owned).to_vec();
            groups.retain(|group| !missing_groups.contains(group));
            Observation {
                instances,
                groups,
                missing_groups,
                hidden: hidden.collect(),
                unknown_states,
                unlisted,
                ..Observation::default()
            }
        })
}

/// An edit of a row between turns.
#[derive(Clone, Debug)]
enum Edit {
    Delete,
    Break,
    Free(Option<usize>),
    Fill(Instance, u16, Status, Option<i64>, bool),
}

fn edit() -> impl Strategy<Value = (SlotId, Edit)> {
    let status = prop::sample::select(vec![Status::Enabled, Status::Draining, Status::Disabled]);
    let fill = (instance(), 0..=256_u16, status, prop::option::of(-100..500_i64), any::<bool>())
        .prop_map(|(instance, weight, status, time, group)| Edit::Fill(instance, weight, status, time, group));
    let free = prop::option::of(0..4_usize).prop_map(Edit::Free);
    (1..=10_u32, prop_oneof![1 => Just(Edit::Delete), 1 => Just(Edit::Break), 2 => free, 4 => fill])
}

fn apply(rows: &mut BTreeMap<SlotId, Row>, id: SlotId, edit: &Edit) {
    let row = match edit {
        Edit::Delete => {
            rows.remove(&id);
            return;
        }
        Edit::Break => Row::Unreadable { reason: "broken".to_owned(), address: None },
        Edit::Free(group) => {
            let last_group = group.map(|group| ["a", "b", "c", "d"][group].to_owned());
            let last_zone = group.and_then(|group| (group % 2 == 0).then(|| "z1".to_owned()));
            Row::Readable(Slot { id, occupant: None, last_group, last_zone }.into())
        }
        Edit::Fill(instance, weight, status, time, group) => Row::Readable(Arc::new(Slot {
            id,
            occupant: Some(Occupant {
                address: instance.address,
                name: instance.name.clone(),
                group: group.then(|| instance.group.clone()),
                zone: instance.zone.clone(),
                port: instance.port,
                weight: *weight,
                status: *status,
                last_step: time.map(at),
                drain_since: (*status == Status::Draining).then(|| at(0)),
            }),
            ..Slot::empty(id)
        })),
    };
    rows.insert(id, row);
}

fn some_limits() -> impl Strategy<Value = SlotLimits> {
    (1..=10_u32, 0..=6_u16, 0..=6_u16, 1..=3_u16, 1..=40_u64, any::<bool>()).prop_map(
        |(size, min, rise, step, interval, by_factor)| SlotLimits {
            min,
            max: min + rise,
            step,
            interval: secs(interval),
            by_factor,
            ..limits(size)
        },
    )
}

/// The slots before the turn, without those whose address a lower one has too.
fn without_duplicates(table: &Table) -> BTreeMap<SlotId, Slot> {
    let mut addresses = BTreeSet::new();
    let first = |slot: &&Slot| slot.occupant.as_ref().is_none_or(|occupant| addresses.insert(occupant.address));
    table.slots().filter(first).map(|slot| (slot.id, slot.clone())).collect()
}

fn is(occupant: &Occupant, instance: &Instance) -> bool {
    occupant.address == instance.address && occupant.name == instance.name
}

fn occupant(slots: &BTreeMap<SlotId, Slot>, id: SlotId) -> Option<&Occupant> {
    slots.get(&id).and_then(|slot| slot.occupant.as_ref())
}

/// Everything that must hold for one turn.
fn check(table: &Table, orders: &[Order], seen: &Observation, limits: &SlotLimits, plan: &Plan) {
    rows_are_safe(table, seen, limits, plan);
    no_occupant_is_moved_or_lost(table, orders, seen, plan);
    newcomers_get_the_right_slots(table, orders, seen, limits, plan);
    weights_are_right(plan, limits);
    orders_are_obeyed(orders, plan, limits);
}

fn orders_are_obeyed(orders: &[Order], plan: &Plan, limits: &SlotLimits) {
    let occupants = || plan.slots.values().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?)));
    let is_last = |id: SlotId| plan.last_resort.contains(&id);
    let served =
        occupants().any(|(id, occupant)| occupant.status == Status::Enabled && occupant.weight > 0 && !is_last(id));
    for (id, occupant) in occupants() {
        let Some(order) = on_occupant(orders, id, occupant) else {
            assert!(!plan.ordered.contains_key(&id), "slot {id} drains by an order that is not about it");
            continue;
        };
        assert_ne!(occupant.status, Status::Enabled, "slot {id} against {order}");
        let weight = if occupant.status == Status::Disabled { 0 } else { occupant.weight };
        assert!(weight == 0 || !(served || limits.max == 0), "slot {id} has weight against {order}");
    }
    // Nobody serves, though an ordered one could.
    let idle = occupants().all(|(_, occupant)| occupant.weight == 0 || occupant.status == Status::Disabled);
    let ready = !plan.ordered.is_empty() || !plan.kept_out.is_empty();
    let full =
        || (1..=limits.size).all(|id| occupants().any(|(taken, _)| taken == id) || !plan.slots.contains_key(&id));
    assert!(!idle || !ready || limits.max == 0 || full(), "nobody serves: {plan:?}");
}

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let target = prop_oneof![
        (1..=10_u32).prop_map(Target::Slot),
        (1..=9_u8).prop_map(|host| Target::Instance(format!("i{host}"))),
        (1..=9_u8).prop_map(|host| Target::Address(address(&format!(".{host}")))),
        prop::sample::select(vec!["z1", "z2"]).prop_map(|zone| Target::Zone(zone.to_owned())),
        prop::sample::select(vec!["a", "b", "d"]).prop_map(|group| Target::Group(group.to_owned())),
    ];
    let order = target.prop_map(|target| Order { target, until: None, since: None, by: None, note: None });
    prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(order, 1..4)]
}

fn rows_are_safe(table: &Table, seen: &Observation, limits: &SlotLimits, plan: &Plan) {
    for (id, row) in &table.rows {
        match row {
            Row::Readable(_) => assert!(plan.slots.contains_key(id), "row {id} disappears"),
            Row::Unreadable { .. } => assert!(!plan.slots.contains_key(id), "row {id} is unreadable, and written"),
        }
    }
    let shown = |name: &String| {
        plan.slots.values().any(|slot| slot.occupant.as_ref().is_some_and(|occupant| occupant.name == *name))
            || seen.instances.iter().any(|instance| instance.readiness != Readiness::Unknown && instance.has_name(name))
    };
    let missed = |one: &Hidden| one.in_service && !one.names.iter().any(shown);
    let unknown_states = || seen.unknown_states.iter().any(|one| !shown(&one.name));
    let hidden = !seen.missing_groups.is_empty() || seen.hidden.iter().any(missed) || unknown_states();
    for id in (1..=limits.size).filter(|id| !table.rows.contains_key(id)) {
        let created = plan.slots.get(&id);
        let free = created.is_some_and(|slot| slot.occupant.is_none());
        assert!(created.is_some() || hidden, "row {id} is not created");
        assert!(!(free && hidden), "row {id} may belong to a hidden instance, and is written as free");
    }
    let differing: Vec<Slot> = plan
        .slots
        .values()
        .filter(|slot| table.rows.get(&slot.id) != Some(&Row::Readable((*slot).clone().into())))
        .cloned()
        .collect();
    assert_eq!(plan.changes, differing);
}

/// What must happen to an occupant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Stay,
    Drain,
    BeReplaced,
    BeKept,
    /// Freed, unless too many vanish at once.
    Vanish,
    BeFreed,
}

fn must(old: &Occupant, seen: &Observation) -> Must {
    let reports: Vec<&Instance> = seen.instances.iter().filter(|one| is(old, one)).collect();
    if reports.iter().any(|one| one.readiness == Readiness::Ready) {
        return Must::Stay;
    }
    if seen.instances.iter().any(|one| one.address == old.address && one.readiness == Readiness::Ready) {
        return Must::BeReplaced;
    }
    let place = |one: &Instance| seen.groups.iter().position(|group| *group == one.group).unwrap_or(9);
    let rank = |one: &&&Instance| (place(one), one.group.clone(), one.readiness);
    let readiness = reports.iter().min_by_key(rank).map(|one| one.readiness);
    let hidden = || seen.hidden.iter().find(|one| one.names.contains(&old.name)).map(|one| one.readiness);
    match readiness.or_else(hidden) {
        Some(Readiness::Draining) => return Must::Drain,
        Some(Readiness::Ready | Readiness::Unknown) => return Must::BeKept,
        None => {}
    }
    let present = |group: &String| seen.groups.contains(group);
    let missing = !seen.missing_groups.is_empty() && !old.group.as_ref().is_some_and(present);
    let Unlisted::Fates(fates) = &seen.unlisted else { return if missing { Must::BeKept } else { Must::BeFreed } };
    match (fates.get(&old.name), missing) {
        (Some(Fate::Gone), _) | (Some(Fate::NotFound), false) => Must::BeFreed,
        (Some(Fate::NotFound), true) | (Some(Fate::Unconfirmed), false) => Must::Vanish,
        (None, _) if seen.instances.iter().any(|one| one.name == old.name) => Must::BeFreed,
        _ => Must::BeKept,
    }
}

fn no_occupant_is_moved_or_lost(table: &Table, orders: &[Order], seen: &Observation, plan: &Plan) {
    let before = without_duplicates(table);
    let occupants: BTreeMap<SlotId, (&Slot, &Occupant)> =
        before.iter().filter_map(|(id, slot)| Some((*id, (slot, slot.occupant.as_ref()?)))).collect();
    let serves = |id: &SlotId| {
        let (_, it) = occupants[id];
        it.status == Status::Enabled || (it.status == Status::Draining && it.weight > 0)
    };
    let vanish: Vec<SlotId> =
        occupants.iter().filter(|(_, (_, old))| must(old, seen) == Must::Vanish).map(|(id, _)| *id).collect();
    let stays = |id: &SlotId| must(occupants[id].1, seen) == Must::BeKept;
    let lost = vanish.iter().filter(|id| serves(id)).count();
    let serving = occupants.keys().filter(|id| !stays(id) && serves(id)).count();
    let too_many = lost >= 3 && 2 * lost > serving;
    assert_eq!(plan.guarded, if too_many { vanish } else { vec![] }, "{lost} of {serving} vanish");
    let is_ordered = |id, old: &Occupant| on_occupant(orders, id, old).is_some();
    for (id, (slot, old)) in &occupants {
        let new = occupant(&plan.slots, *id);
        let same = new.is_some_and(|new| (new.address, &new.name) == (old.address, &old.name));
        match must(old, seen) {
            Must::Stay => assert!(same, "slot {id} moves {old:?}"),
            Must::Drain => {
                assert!(
                    same && new.is_some_and(|new| new.status != Status::Enabled),
                    "slot {id} does not drain {old:?}"
                );
            }
            Must::BeReplaced => {
                let kept_out = plan.kept_out.iter().any(|(_, one)| one.address == old.address)
                    || orders.iter().any(|order| order.target == Target::Slot(*id));
                let last = plan.slots.values().any(|slot| {
                    let one = slot.occupant.as_ref();
                    one.is_some_and(|one| one.address == old.address && plan.ordered.contains_key(&slot.id))
                });
                let replaced = new.is_some_and(|new| new.address == old.address);
                assert!(!same && (replaced || kept_out || last), "slot {id}: {new:?}");
            }
            Must::BeKept if !is_ordered(*id, old) => {
                assert_eq!(plan.slots.get(id), Some(*slot), "slot {id} is unknown, and changes");
            }
            Must::Vanish if too_many && !is_ordered(*id, old) => {
                assert_eq!(plan.slots.get(id), Some(*slot), "slot {id} is guarded, and changes");
            }
            Must::BeKept => assert!(same, "slot {id} is unknown, and loses {old:?}"),
            Must::Vanish if too_many => assert!(same, "slot {id} is guarded, and loses {old:?}"),
            Must::Vanish | Must::BeFreed => assert!(!same, "slot {id} keeps {old:?}"),
        }
    }
    let mut addresses = BTreeSet::new();
    for occupant in plan.slots.values().filter_map(|slot| slot.occupant.as_ref()) {
        assert!(addresses.insert(occupant.address), "{} has two slots", occupant.address);
    }
}

fn newcomers_get_the_right_slots(
    table: &Table,
    orders: &[Order],
    seen: &Observation,
    limits: &SlotLimits,
    plan: &Plan,
) {
    let is_open = |slot: &Slot| !orders.iter().any(|order| order.target == Target::Slot(slot.id));
    let free = |slot: &&Slot| slot.id <= limits.size && slot.occupant.is_none() && is_open(slot);
    let still_free = || plan.slots.values().filter(free);
    if !plan.unplaced.is_empty() {
        assert_eq!(still_free().next(), None, "{:?} wait", plan.unplaced);
    }
    for one in seen.instances.iter().filter(|one| one.readiness == Readiness::Ready) {
        let placed = plan.slots.values().any(|slot| slot.occupant.as_ref().is_some_and(|o| o.address == one.address));
        let waits = plan.unplaced.iter().chain(plan.kept_out.iter().map(|(_, one)| one));
        assert!(placed || waits.into_iter().any(|waiting| waiting.address == one.address), "{one:?} is forgotten");
    }
    let before = without_duplicates(table);
    for (id, slot) in &plan.slots {
        let Some(new) = slot.occupant.as_ref() else { continue };
        if occupant(&before, *id).is_some_and(|old| old.address == new.address) {
            continue;
        }
        assert!(*id <= limits.size, "slot {id} is above N and takes {new:?}");
        if plan.ordered.contains_key(id) {
            let last = (new.status, new.weight == 0) == (Status::Draining, false) && plan.last_resort.contains(id);
            assert!(last, "slot {id} is new, and against an order: {new:?}");
            continue;
        }
        let start = if plan.last_resort.contains(id) { limits.min.max(1) } else { plan.ramp(*id, limits).start() };
        assert_eq!((new.status, new.weight), (Status::Enabled, start), "slot {id} is new");
        let group = new.group.as_ref();
        // Own group and zone, own group, never used, any: no better slot stays free, nor a lower one of the same rank.
        let rank = |slot: &Slot| match &slot.last_group {
            own if own.is_some() && own.as_ref() == group => u8::from(slot.last_zone != new.zone),
            None => 2,
            Some(_) => 3,
        };
        let better = still_free().find(|other| (rank(other), other.id) < (rank(slot), *id));
        assert_eq!(better, None, "slot {id} goes to {new:?}");
        // A slot of another group is only taken if no instance of that group waits.
        if rank(slot) > 1 {
            let waits = plan.unplaced.iter().find(|waiting| slot.last_group.as_ref() == Some(&waiting.group));
            assert_eq!(waits, None, "slot {id} goes to {new:?}");
        }
    }
}

fn weights_are_right(plan: &Plan, limits: &SlotLimits) {
    let occupants = || plan.slots.values().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?)));
    assert!(occupants().all(|(_, occupant)| occupant.weight <= 256));
    let is_idle = |id: SlotId| {
        !plan.kept.contains_key(&id) && plan.weighed.get(&id).is_some_and(|weighed| weighed.factor.is_zero())
    };
    let served =
        occupants().any(|(id, occupant)| occupant.status == Status::Enabled && occupant.weight > 0 && !is_idle(id));
    if served || limits.max == 0 {
        assert_eq!(plan.last_resort, [0; 0]);
    }
    for id in &plan.last_resort {
        let occupant = occupant(&plan.slots, *id).expect("the last resort serves");
        let may = occupant.status == Status::Draining || occupant.status == Status::Enabled && is_idle(*id);
        assert!(may && occupant.weight > 0, "{occupant:?}");
    }
}

proptest! {
    #![proptest_config(config(512))]

    /// Turn after turn, with edits in between.
    #[test]
    fn every_turn_keeps_the_rules(
        limits in some_limits(),
        turns in prop::collection::vec(
            (observation(), prop::collection::vec(edit(), 0..3), 1..60_i64, 0..60_i64, orders()), 1..10,
        ),
    ) {
        let mut table = Table::default();
        let mut now = 0;
        for (seen, edits, gap, more, orders) in turns {
            now += gap;
            for (id, edit) in &edits {
                apply(&mut table.rows, *id, edit);
            }
            let plan = decide(&table, &orders, &seen, at(now), &limits);
            check(&table, &orders, &seen, &limits, &plan);
            for slot in &plan.changes {
                table.rows.insert(slot.id, Row::Readable(slot.clone().into()));
            }
            let knowing = |table: &Table, slots: &BTreeMap<SlotId, Slot>, now: i64| {
                let previous = Previous { slots, guard: &plan.guard, ordered: &BTreeMap::new(), time: at(now), elapsed: secs(0) };
                decide_after(table, &orders, &previous, &seen, at(now), &limits)
            };
            let again = knowing(&table, &BTreeMap::new(), now);
            prop_assert_eq!(&again.changes, &vec![], "a second turn at the same time");
            // The order of ignored instances may follow the new occupant.
            prop_assert_eq!(&again, &Plan { changes: vec![], ignored: again.ignored.clone(), ..plan.clone() });
            let later = knowing(&table, &BTreeMap::new(), now + more);
            let due = again.due.is_some_and(|due| due <= at(now + more));
            prop_assert_eq!(!later.changes.is_empty(), due, "{} seconds later", more);
            let whole = table.clone();
            table.rows.retain(|id, _| !edits.iter().any(|(edited, _)| edited == id));
            let back = knowing(&table, &again.slots, now);
            let occupied = |plan: &Plan| plan.slots.values().filter(|slot| slot.occupant.is_some()).cloned().collect::<Vec<_>>();
            let unreadable = whole.rows.values().any(|row| matches!(row, Row::Unreadable { .. }));
            prop_assert!(unreadable || occupied(&back) == occupied(&again), "lost rows come back: {:?}", back);
            table = whole;
        }
    }

    /// A complete but empty answer frees every slot.
    #[test]
    fn a_true_zero_frees_every_slot(limits in some_limits(), edits in prop::collection::vec(edit(), 0..15)) {
        let mut table = Table::default();
        for (id, edit) in &edits {
            apply(&mut table.rows, *id, edit);
        }
        let plan = decide(&table, &[], &Observation::default(), at(0), &limits);
        prop_assert!(plan.slots.values().all(|slot| slot.occupant.is_none()));
        prop_assert!(plan.unplaced.is_empty() && plan.above_size.is_empty() && plan.last_resort.is_empty());
    }

    #[test]
    fn the_order_of_the_reports_does_not_matter(
        limits in some_limits(),
        edits in prop::collection::vec(edit(), 0..8),
        (seen, shuffled) in observation().prop_flat_map(|seen| {
            (Just(seen.clone()), Just(seen.instances).prop_shuffle())
        }),
    ) {
        let mut table = Table::default();
        for (id, edit) in &edits {
            apply(&mut table.rows, *id, edit);
        }
        let other = Observation { instances: shuffled, ..seen.clone() };
        prop_assert_eq!(decide(&table, &[], &seen, at(0), &limits), decide(&table, &[], &other, at(0), &limits));
    }

    #[test]
    fn a_freed_slot_goes_to_its_own_group(groups in prop::collection::vec(0..3_usize, 1..10), gone in prop::collection::vec(any::<bool>(), 10)) {
        let size = u32::try_from(groups.len()).expect("few");
        let instance = |host: usize, group: usize| {
            let group = ["a", "b", "c"][group].to_owned();
            Instance::new(address(&format!(".{host}")), format!("i{host}"), group, Readiness::Ready)
        };
        let first: Vec<Instance> = groups.iter().enumerate().map(|(n, group)| instance(n + 1, *group)).collect();
        let second = groups.iter().enumerate().map(|(n, group)| instance(if gone[n] { 100 + n } else { n + 1 }, *group));
        let before = decide(&Table::default(), &[], &Observation { instances: first, ..Observation::default() }, at(0), &limits(size));
        let rows = before.slots.iter().map(|(id, slot)| (*id, Row::Readable(slot.clone().into()))).collect();
        let table = Table { rows, strays: vec![] };
        let after = decide(&table, &[], &Observation { instances: second.collect(), ..Observation::default() }, at(1), &limits(size));
        let groups_of = |plan: &Plan| -> Vec<Option<String>> {
            plan.slots.values().map(|slot| slot.occupant.as_ref().and_then(|occupant| occupant.group.clone())).collect()
        };
        prop_assert_eq!(groups_of(&before), groups_of(&after));
    }
}
