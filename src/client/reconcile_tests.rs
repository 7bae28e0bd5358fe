//! `reconcile` case by case; `properties` tests invariants.

use std::collections::BTreeMap;

use super::*;
use crate::client::fixtures::{OPTIONS, World, address, down, inherited, maintenance, serve_at, server, up};
use crate::client::placement::By;
use crate::client::stage::Options;

fn move_to(last: u8) -> Change {
    Change::Address(address(last).ip(), Some(80))
}

fn fill(last: u8) -> Vec<Change> {
    vec![Change::Weight(0), Change::Maintenance, move_to(last)]
}

fn changes(steps: &[Step]) -> Vec<Change> {
    steps.iter().flat_map(|step| step.changes.clone()).collect()
}

/// Slot 1, with or without a serving slot 2 beside it.
fn one(wanted: Option<Wanted>, running: Running, beside: bool, options: Options) -> World {
    let two = beside.then(|| (2, up(2, 10), Some(serve_at(2, 10))));
    World { options, ..World::new([(1, running, wanted)].into_iter().chain(two)) }
}

#[test]
fn each_stage_has_its_step() {
    use Change::{HealthDown, Maintenance, Ready, Weight};
    let unchecked = |server: Running| Running { checked: false, ..server };
    let checking = |server: Running| Running { checking: true, ..server };
    let busy = |server: Running| Running { busy: true, ..server };
    let parked = |server: Running| Running { address: Some((PARKED, 80).into()), ..server };
    const PARK: Change = Change::Address(PARKED, Some(80));
    let open = |weight| {
        let weight = (weight > 0).then_some(Weight(weight));
        [Weight(0), PARK, Ready, HealthDown, move_to(1)].into_iter().chain(weight).collect::<Vec<_>>()
    };
    let drain = |last, weight| server(Admin::Drain, true, last, weight);
    let filled_follower = Running { admin: Admin::Maintenance, ..inherited(1, 0) };
    let out = Wanted::Maintenance;
    type Case = (&'static str, Running, Wanted, Vec<Change>, Vec<Change>);
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        ("as it should be", up(1, 7), serve_at(1, 7), vec![], vec![]),
        ("placeholder in maintenance", maintenance(99, 1), serve_at(1, 7), vec![Weight(0), PARK], vec![]),
        ("live at a stale address", up(99, 7), serve_at(1, 7), vec![Weight(0), Maintenance, PARK], vec![]),
        ("drained at a stale address", drain(99, 7), serve_at(1, 7), vec![Weight(0), Maintenance, PARK], vec![]),
        ("the same without a check", unchecked(up(99, 7)), serve_at(1, 7), fill(1), vec![]),
        ("parked", parked(maintenance(1, 0)), serve_at(1, 7), open(7), vec![]),
        ("parked, to drain", parked(maintenance(1, 0)), serve_at(1, 0), open(0), vec![]),
        ("parked, and a check is under way from before", parked(checking(maintenance(1, 0))), serve_at(1, 7), vec![], vec![]),
        ("parked, and a request is under way from before", parked(busy(maintenance(1, 0))), serve_at(1, 7), vec![], vec![]),
        ("the same without a check", unchecked(parked(busy(maintenance(1, 0)))), serve_at(1, 7), vec![Weight(0), move_to(1)], vec![]),
        ("parked, its line was cut after ready", parked(up(1, 0)), serve_at(1, 7), open(7), vec![]),
        ("parked, its line was cut later", parked(down(1, 0)), serve_at(1, 7), open(7), vec![]),
        ("filled without time for a check, and there is some", maintenance(1, 0), serve_at(1, 7), vec![PARK], vec![]),
        ("filled, without a check", unchecked(maintenance(1, 0)), serve_at(1, 7), vec![move_to(1), Ready, Weight(7)], vec![]),
        ("down until its check passes", down(1, 7), serve_at(1, 7), vec![], vec![]),
        ("down, its line was cut", down(1, 0), serve_at(1, 7), vec![Weight(7)], vec![]),
        ("ready, its line was cut", up(1, 0), serve_at(1, 7), vec![HealthDown, Weight(7)], vec![]),
        ("the same, without a check", unchecked(up(1, 0)), serve_at(1, 7), vec![Weight(7)], vec![]),
        ("a ramp goes on", up(1, 3), serve_at(1, 4), vec![Weight(4)], vec![]),
        ("a ramp goes on, whatever the check", down(1, 3), serve_at(1, 4), vec![Weight(4)], vec![]),
        ("draining", up(1, 7), serve_at(1, 0), vec![], vec![Weight(0)]),
        ("drained", up(1, 0), serve_at(1, 0), vec![], vec![]),
        ("to be out", up(1, 7), out, vec![], vec![Weight(0), Maintenance]),
        ("to be out, drained by hand", drain(1, 7), out, vec![], vec![Weight(0), Maintenance]),
        ("to be out, held in maintenance", maintenance(1, 7), out, vec![], vec![Weight(0)]),
        ("out", maintenance(1, 0), out, vec![], vec![]),
        ("to be out, kept out by what it tracks", inherited(1, 7), out, vec![], vec![Weight(0), Maintenance]),
        ("kept out by what it tracks, at a stale address", inherited(99, 1), serve_at(1, 7), fill(1), vec![]),
        ("filled, and what it tracks is not open yet", filled_follower, serve_at(1, 7), vec![], vec![]),
        ("kept out by what it tracks", inherited(1, 0), serve_at(1, 7), vec![Weight(7)], vec![]),
    ];
    for (name, running, wanted, raise, lower) in cases {
        let plan = one(Some(wanted), running, true, OPTIONS).plan();
        assert_eq!((changes(&plan.raise), changes(&plan.lower)), (raise, lower), "{name}");
    }
}

#[test]
fn waiting_and_blocked_slots_are_reported() {
    let reported = |running: Running, wanted: Wanted| {
        let plan = one(Some(wanted), running, true, OPTIONS).plan();
        (plan.waiting, plan.blocked, plan.pending)
    };
    assert_eq!(reported(down(1, 7), serve_at(1, 7)), (vec![1], vec![], false));
    let checking = Running { checking: true, address: Some((PARKED, 80).into()), ..maintenance(1, 0) };
    assert_eq!(reported(checking, serve_at(1, 7)), (vec![1], vec![], true), "only another reading shows its end");
    assert_eq!(reported(inherited(1, 7), serve_at(1, 7)), (vec![], vec![1], false));
    let named = Running { named: true, ..up(9, 7) };
    assert_eq!(reported(named.clone(), serve_at(1, 7)), (vec![], vec![1], false));
    assert_eq!(reported(named, Wanted::Maintenance), (vec![], vec![], false));
    let mut seen = one(Some(serve_at(1, 7)), up(1, 7), true, OPTIONS);
    seen.plan();
    seen.running.insert(1, down(1, 7));
    assert_eq!(seen.plan().waiting, Vec::<SlotId>::new(), "one that has served is left to HAProxy");
}

/// Back from draining at the same address, it needs no check.
#[test]
fn a_server_that_has_served_gets_its_weight_back_at_once() {
    let mut world = one(Some(serve_at(1, 7)), up(1, 7), true, OPTIONS);
    for (wanted, expected) in [(0, vec![Change::Weight(0)]), (7, vec![Change::Weight(7)])] {
        world.desired.slots.insert(1, serve_at(1, wanted));
        let plan = world.plan();
        assert_eq!([changes(&plan.raise), changes(&plan.lower)].concat(), expected);
        world.turn(|_, _, _| ());
    }
    // Another instance at the same address, after the slot was empty.
    for wanted in [Wanted::Maintenance, serve_at(1, 7)] {
        world.desired.slots.insert(1, wanted);
        world.turn(|_, _, _| ());
    }
    assert!(!world.running[&1].up, "it waits for its check");
}

#[test]
fn a_held_server_only_gets_its_address_and_weight() {
    let drain = |last, weight| server(Admin::Drain, true, last, weight);
    for (name, running, wanted, expected) in [
        ("in maintenance", maintenance(1, 7), 7, vec![]),
        ("its ramp goes on", maintenance(1, 6), 7, vec![Change::Weight(7)]),
        ("it drains", maintenance(1, 6), 0, vec![]),
        ("its address was changed", maintenance(9, 7), 7, vec![move_to(1)]),
        ("in drain", drain(1, 7), 7, vec![]),
        ("in drain, its ramp goes on", drain(1, 6), 7, vec![Change::Weight(7)]),
        ("in drain, and it drains", drain(1, 6), 0, vec![Change::Weight(0)]),
        ("in drain, its address was changed", drain(9, 6), 7, vec![move_to(1), Change::Weight(7)]),
    ] {
        let mut world = World::new([(1, maintenance(1, 7), Some(serve_at(1, wanted)))]);
        world.plan();
        world.running.insert(1, running);
        let plan = world.plan();
        assert_eq!(([changes(&plan.raise), changes(&plan.lower)].concat(), plan.held), (expected, vec![1]), "{name}");
    }
}

/// The last working server leaves, and the new one is not up yet.
#[test]
fn a_leaving_server_serves_until_another_can_take_over() {
    let handover = |newcomer: Running, weight: Weight| {
        World::new([(1, up(1, 10), Some(serve_at(1, 0))), (2, newcomer, Some(serve_at(2, weight)))]).plan()
    };
    for (name, newcomer) in [
        ("is not filled yet", maintenance(99, 1)),
        ("is filled", maintenance(2, 0)),
        ("waits for its check", down(2, 5)),
    ] {
        let plan = handover(newcomer, 5);
        assert!(plan.lower.is_empty() && plan.pending, "the newcomer {name}: {plan:?}");
        let ready = plan.raise.iter().find(|step| step.changes.contains(&Change::Ready));
        assert!(ready.is_none_or(|step| step.changes.contains(&Change::HealthDown)), "the newcomer {name}");
    }
    let drained = [Step { slot: 1, changes: vec![Change::Weight(0)] }];
    assert_eq!(handover(up(2, 5), 5).lower, drained, "the newcomer serves");
    assert_eq!(handover(server(Admin::Drain, true, 2, 5), 0).lower, drained, "no server is to take over");
}

/// The first own server comes up: what it relieves belongs to other zones or groups, and is well.
#[test]
fn a_server_that_moves_elsewhere_serves_until_an_own_one_does() {
    let handover = |newcomer: Running, is_elsewhere: bool| {
        let mut world = World::new([(1, up(1, 10), Some(Wanted::Maintenance)), (2, newcomer, Some(serve_at(2, 5)))]);
        world.desired.elsewhere.extend(is_elsewhere.then_some((1, By::Zone)));
        world.plan().lower
    };
    let out = [Step { slot: 1, changes: vec![Change::Weight(0), Change::Maintenance] }];
    for newcomer in [maintenance(99, 1), maintenance(2, 0), down(2, 5)] {
        assert_eq!(handover(newcomer.clone(), true), [], "{newcomer:?}");
        assert_eq!(handover(newcomer.clone(), false), out, "one that is out of service waits for nobody: {newcomer:?}");
    }
    assert_eq!(handover(up(2, 5), true), out, "the newcomer serves");
}

/// Every slot gets a new server: the old ones serve on until the first new ones do.
#[test]
fn replacing_every_server_does_not_empty_the_backend() {
    let slot = |id: SlotId, running| (id, running, Some(serve_at(10 + id as u8, 10)));
    let filled = |slots: [Running; 3]| {
        let plan = World::new((1..).zip(slots).map(|(id, running)| slot(id, running))).plan();
        plan.raise.iter().map(|step| step.slot).collect::<Vec<_>>()
    };
    assert_eq!(filled([up(1, 10), up(2, 10), up(3, 10)]), [1, 2]);
    assert_eq!(filled([up(11, 10), up(12, 10), up(3, 10)]), [3]);
    assert_eq!(filled([up(11, 10), up(2, 10), up(3, 10)]), [2, 3], "where one serves on, all at once");
}

#[test]
fn the_port_is_compared_too() {
    let other = Running { address: Some("10.0.0.1:8080".parse().unwrap()), checked: false, ..up(1, 7) };
    assert_eq!(one(Some(serve_at(1, 7)), other, true, OPTIONS).plan().raise, [Step { slot: 1, changes: fill(1) }]);
}

#[test]
fn the_gate_is_skipped_if_nothing_else_serves() {
    let open = [Step { slot: 1, changes: vec![move_to(1), Change::Ready, Change::Weight(7)] }];
    assert_eq!(one(Some(serve_at(1, 7)), maintenance(1, 0), false, OPTIONS).plan().raise, open, "nothing beside it");
    let ungated = Options { gate: false, ..OPTIONS };
    assert_eq!(one(Some(serve_at(1, 7)), maintenance(1, 0), true, ungated).plan().raise, open, "no gate");
    let checking = Running { checking: true, ..maintenance(1, 0) };
    assert_eq!(one(Some(serve_at(1, 7)), checking, false, OPTIONS).plan().raise, open, "no time for a check either");

    let drain = server(Admin::Drain, true, 2, 10);
    for (name, wanted, beside, is_open) in [
        ("serves", Some(serve_at(2, 10)), up(2, 10), false),
        ("an unknown slot serves", None, up(2, 10), false),
        ("is down", Some(serve_at(2, 10)), down(2, 10), true),
        ("is ready at weight 0", Some(serve_at(2, 10)), up(2, 0), true),
        ("changes its address", Some(serve_at(3, 10)), up(2, 10), true),
        ("leaves, and serves until this one can", Some(serve_at(2, 0)), up(2, 10), false),
        ("leaves, and is down", Some(serve_at(2, 0)), down(2, 10), true),
        ("goes", Some(Wanted::Maintenance), up(2, 10), true),
        ("is held in drain", Some(serve_at(2, 10)), drain, true),
        ("is kept out by what it tracks", Some(serve_at(2, 10)), inherited(2, 10), true),
    ] {
        let mut world = World::new([(1, maintenance(1, 0), Some(serve_at(1, 7))), (2, beside, wanted)]);
        let plan = world.plan();
        let step = plan.raise.iter().find(|step| step.slot == 1).expect("slot 1 becomes ready");
        assert_eq!(step.changes.contains(&Change::Ready), is_open, "the other slot {name}");
    }
}

#[test]
fn a_static_algorithm_takes_the_configured_weight() {
    let options = Options { static_weights: true, ..OPTIONS };
    for (running, wanted, expected) in
        [(50, 7, vec![]), (0, 7, vec![Change::ConfiguredWeight]), (0, 0, vec![]), (50, 0, vec![Change::Weight(0)])]
    {
        let running = Running { checked: false, ..up(1, running) };
        let plan = one(Some(serve_at(1, wanted)), running, true, options).plan();
        assert_eq!([changes(&plan.raise), changes(&plan.lower)].concat(), expected, "wanted {wanted}");
        assert_eq!(plan.weightless, Vec::<SlotId>::new());
    }
    let never = Running { configured: 0, ..up(1, 0) };
    assert_eq!(one(Some(serve_at(1, 7)), never, true, options).plan().weightless, [1]);
}

#[test]
fn unknown_and_foreign_slots() {
    let plan = one(None, up(99, 3), true, OPTIONS).plan();
    assert!(plan.raise.is_empty() && plan.lower.is_empty(), "a slot without a row is not touched");
    let mut world = World::new([(1, up(9, 1), None), (9, up(9, 1), None)]);
    world.desired.slots = BTreeMap::from([(3, serve_at(1, 1)), (5, serve_at(2, 1))]);
    (world.desired.max_row, world.size) = (5, 3);
    let plan = world.plan();
    assert_eq!(plan.missing, [2, 3, 5], "within the size, and occupied above it");
    let out = Step { slot: 9, changes: vec![Change::Weight(0), Change::Maintenance] };
    assert_eq!(plan.lower, [out], "above every row");
}

/// A row that was lost, or edited by hand.
#[test]
fn a_server_that_moves_to_another_slot_serves_until_it_serves_there() {
    let free = || maintenance(99, 0);
    let out = Wanted::Maintenance;
    // Slots, the ones that are touched, and whether something waits for another reading.
    type Case = (&'static str, Vec<(Running, Wanted)>, Vec<SlotId>, bool);
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        ("its row was lost", vec![(free(), serve_at(7, 1)), (up(7, 9), out)], vec![1], true),
        ("its new slot is not checked yet", vec![(down(7, 1), serve_at(7, 1)), (up(7, 9), out)], vec![], true),
        ("it has arrived", vec![(up(7, 1), serve_at(7, 1)), (up(7, 9), out)], vec![2], false),
        ("its old slot goes to another one", vec![(free(), serve_at(7, 1)), (up(7, 9), serve_at(8, 1))], vec![1], true),
        ("its new slot is another one's until that moves on", vec![(up(8, 9), serve_at(7, 1)), (up(7, 9), out), (free(), serve_at(8, 1))], vec![3], true),
        ("its new slot was that of a server that is gone", vec![(up(8, 9), serve_at(7, 1)), (up(7, 9), out)], vec![1], true),
        ("two change places", vec![(up(8, 9), serve_at(7, 1)), (up(7, 9), serve_at(8, 1)), (up(3, 9), serve_at(3, 9))], vec![1, 2], false),
        ("somebody holds the new slot", vec![(maintenance(7, 1), serve_at(7, 1)), (up(7, 9), out), (up(3, 9), serve_at(3, 9))], vec![2], false),
        ("it is to drain in the new slot", vec![(free(), serve_at(7, 0)), (up(7, 9), out), (up(3, 9), serve_at(3, 9))], vec![1, 2], false),
        ("it does not serve any more", vec![(free(), serve_at(7, 1)), (down(7, 9), out), (up(3, 9), serve_at(3, 9))], vec![1, 2], false),
    ];
    for (name, slots, touched, pending) in cases {
        let slots = (1..).zip(slots).map(|(id, (running, wanted))| (id, running, Some(wanted)));
        let plan = World::new(slots).plan();
        let mut all: Vec<SlotId> = plan.raise.iter().chain(&plan.lower).map(|step| step.slot).collect();
        all.sort_unstable();
        assert_eq!((all, plan.pending), (touched, pending), "{name}");
    }
}

/// A slot that HAProxy's resolver has is nobody's successor: what waits for it would wait for ever.
#[test]
fn nobody_waits_for_a_slot_whose_address_is_a_resolvers() {
    let named = || Running { named: true, ..down(9, 1) };
    let mut leaving = World::new([(1, up(1, 7), Some(serve_at(1, 0))), (2, named(), Some(serve_at(2, 7)))]);
    let plan = leaving.plan();
    assert_eq!((plan.covering, plan.blocked, plan.lower.len()), (vec![], vec![2], 1));
    let mut moving = World::new([(1, up(2, 7), Some(serve_at(1, 7))), (2, named(), Some(serve_at(2, 7)))]);
    let plan = moving.plan();
    assert_eq!((plan.covering, plan.blocked, plan.raise.len()), (vec![], vec![2], 1));
}
