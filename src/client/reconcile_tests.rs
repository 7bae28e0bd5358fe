//! The plans of `reconcile`, case by case; `properties` proves them.

use super::*;
use crate::client::fixtures::{OPTIONS, address, serve_at, server, up};

fn fill(last: u8) -> Vec<Change> {
    vec![Change::Weight(0), Change::Maintenance, Change::Address(address(last).ip(), 80)]
}

/// The same of a server that is in maintenance.
fn fill_idle(last: u8) -> Vec<Change> {
    vec![Change::Weight(0), Change::Address(address(last).ip(), 80)]
}

/// Plans slot 1 beside a slot 2 that serves, or not.
fn plan_one(wanted: Option<Wanted>, running: Running, beside: bool, options: Options) -> Plan {
    let mut desired = Desired { known: 2, ..Desired::default() };
    desired.slots.extend(wanted.map(|wanted| (1, wanted)));
    let mut servers = BTreeMap::from([(1, running)]);
    if beside {
        desired.slots.insert(2, serve_at(2, 10));
        servers.insert(2, up(2, 10));
    }
    plan(&desired, &servers, &BTreeSet::new(), 1, options)
}

#[test]
fn each_situation_asks_for_its_stage() {
    use Admin::{Drain, Inherited, Maintenance, Ready};
    use Health::{Down, Shaky, Unchecked};
    type Case = (&'static str, Running, Wanted, Vec<Change>, Vec<Change>);
    let none = Vec::new;
    let retired = || vec![Change::Weight(0), Change::Maintenance];
    let cases: Vec<Case> = vec![
        ("as it should be", up(1, 7), serve_at(1, 7), none(), none()),
        ("placeholder in maintenance", server(Maintenance, Down, 99, 1), serve_at(1, 7), fill_idle(1), none()),
        ("live at a stale address", up(99, 7), serve_at(1, 7), fill(1), none()),
        ("ready at the placeholder", server(Ready, Shaky, 99, 1), serve_at(1, 7), fill(1), none()),
        ("drained at a stale address", server(Drain, Down, 99, 7), serve_at(1, 7), fill(1), none()),
        (
            "emptied by another program with its weight",
            server(Maintenance, Down, 1, 7),
            serve_at(1, 7),
            fill_idle(1),
            none(),
        ),
        ("filled, not ready", server(Maintenance, Down, 1, 0), serve_at(1, 7), vec![Change::Ready], none()),
        ("ready, unchecked yet", server(Ready, Shaky, 1, 0), serve_at(1, 7), none(), none()),
        ("ready, its check fails", server(Ready, Down, 1, 0), serve_at(1, 7), none(), none()),
        ("ready, its check passed", up(1, 0), serve_at(1, 7), vec![Change::Weight(7)], none()),
        ("ready, no check", server(Ready, Unchecked, 1, 0), serve_at(1, 7), vec![Change::Weight(7)], none()),
        (
            "a ramp goes on, whatever the check",
            server(Ready, Down, 1, 3),
            serve_at(1, 4),
            vec![Change::Weight(4)],
            none(),
        ),
        ("draining", up(1, 7), serve_at(1, 0), none(), vec![Change::Weight(0)]),
        ("drained", up(1, 0), serve_at(1, 0), none(), none()),
        (
            "a draining one after a restart",
            server(Maintenance, Down, 1, 0),
            serve_at(1, 0),
            vec![Change::Ready],
            none(),
        ),
        ("to be out", up(1, 7), Wanted::Maintenance, none(), retired()),
        ("to be out, drained by hand", server(Drain, Down, 1, 7), Wanted::Maintenance, none(), retired()),
        ("out", server(Maintenance, Down, 1, 7), Wanted::Maintenance, none(), none()),
        ("out by what it tracks", server(Inherited, Down, 1, 7), Wanted::Maintenance, none(), none()),
        (
            "kept out by what it tracks, at a stale address",
            server(Inherited, Down, 99, 1),
            serve_at(1, 7),
            vec![Change::Weight(0), Change::Address(address(1).ip(), 80), Change::Ready],
            none(),
        ),
        ("kept out by what it tracks", server(Inherited, Down, 1, 0), serve_at(1, 7), none(), none()),
    ];
    for (name, running, wanted, raise, lower) in cases {
        let plan = plan_one(Some(wanted), running, true, OPTIONS);
        let changes = |steps: &[Step]| steps.iter().flat_map(|step| step.changes.clone()).collect::<Vec<_>>();
        assert_eq!(changes(&plan.raise), raise, "{name}");
        assert_eq!(changes(&plan.lower), lower, "{name}");
    }
}

#[test]
fn a_held_server_only_gets_its_address_and_weight() {
    use Admin::{Drain, Maintenance};
    let to = |last: u8| Change::Address(address(last).ip(), 80);
    for (name, running, wanted, expected) in [
        ("in maintenance", server(Maintenance, Health::Down, 1, 7), 7, vec![]),
        ("its ramp goes on", server(Maintenance, Health::Down, 1, 6), 7, vec![Change::Weight(7)]),
        ("it drains", server(Maintenance, Health::Down, 1, 6), 0, vec![]),
        ("its address was changed", server(Maintenance, Health::Down, 9, 7), 7, vec![to(1)]),
        ("in drain", server(Drain, Health::Down, 1, 7), 7, vec![]),
        ("in drain, its ramp goes on", server(Drain, Health::Down, 1, 6), 7, vec![Change::Weight(7)]),
        ("in drain, and it drains", server(Drain, Health::Down, 1, 6), 0, vec![Change::Weight(0)]),
        ("in drain, its address was changed", server(Drain, Health::Down, 9, 6), 7, vec![to(1), Change::Weight(7)]),
    ] {
        let desired = Desired { slots: BTreeMap::from([(1, serve_at(1, wanted))]), known: 1 };
        let plan = plan(&desired, &BTreeMap::from([(1, running)]), &BTreeSet::from([1]), 1, OPTIONS);
        let changes: Vec<_> = plan.raise.iter().chain(&plan.lower).flat_map(|step| step.changes.clone()).collect();
        assert_eq!((changes, plan.held), (expected, vec![1]), "{name}");
    }
}

/// The last one that works leaves, and the new one does not answer yet.
#[test]
fn a_leaving_server_serves_until_somebody_can_take_over() {
    let handover = |newcomer: Running, weight: Weight| {
        let desired = Desired { slots: BTreeMap::from([(1, serve_at(1, 0)), (2, serve_at(2, weight))]), known: 2 };
        plan(&desired, &BTreeMap::from([(1, up(1, 10)), (2, newcomer)]), &BTreeSet::new(), 2, OPTIONS)
    };
    for (name, newcomer) in [
        ("is not filled yet", server(Admin::Maintenance, Health::Down, 99, 1)),
        ("is filled", server(Admin::Maintenance, Health::Down, 2, 0)),
        ("waits for its check", server(Admin::Ready, Health::Shaky, 2, 0)),
        ("does not answer", server(Admin::Ready, Health::Down, 2, 0)),
        ("had a weight and does not answer", server(Admin::Ready, Health::Down, 2, 5)),
    ] {
        let plan = handover(newcomer, 5);
        assert!(plan.lower.is_empty(), "the newcomer {name}: {:?}", plan.lower);
        let weights = plan.raise.iter().flat_map(|step| &step.changes).filter(|change| **change == Change::Weight(5));
        assert_eq!(weights.count(), 0, "the newcomer {name}, and must not get its weight");
    }
    let drained = [Step { slot: 1, changes: vec![Change::Weight(0)] }];
    assert_eq!(handover(up(2, 0), 5).lower, drained, "the newcomer's check passed");
    assert_eq!(handover(up(2, 5), 5).lower, drained, "the newcomer serves");
    assert_eq!(handover(server(Admin::Drain, Health::Down, 2, 5), 0).lower, drained, "nobody is to take over");
}

/// Every slot is replaced at its place: the old ones serve on until the first new ones do.
#[test]
fn a_backend_that_is_replaced_whole_is_not_empty_in_between() {
    let desired = Desired { slots: (1..=3).map(|id| (id, serve_at(10 + id as u8, 10))).collect(), known: 3 };
    let running: BTreeMap<SlotId, Running> = (1..=3).map(|id| (id, up(id as u8, 10))).collect();
    let filled = |plan: &Plan| plan.raise.iter().map(|step| step.slot).collect::<Vec<_>>();
    let first = plan(&desired, &running, &BTreeSet::new(), 3, OPTIONS);
    assert_eq!(filled(&first), [1, 2]);
    let mut later = running.clone();
    later.insert(1, server(Admin::Ready, Health::Shaky, 11, 10));
    later.insert(2, server(Admin::Ready, Health::Shaky, 12, 10));
    assert_eq!(filled(&plan(&desired, &later, &BTreeSet::new(), 3, OPTIONS)), [3]);
    let mut beside = running;
    beside.insert(1, up(11, 10));
    assert_eq!(
        filled(&plan(&desired, &beside, &BTreeSet::new(), 3, OPTIONS)),
        [2, 3],
        "where one serves on, all at once"
    );
}

#[test]
fn a_port_is_compared_too() {
    let mut other = up(1, 7);
    other.address = Some(SocketAddr::new(address(1).ip(), 8080));
    let plan = plan_one(Some(serve_at(1, 7)), other, true, OPTIONS);
    assert_eq!(plan.raise, [Step { slot: 1, changes: fill(1) }]);
}

#[test]
fn the_gate_opens_where_nothing_else_serves() {
    let filled = server(Admin::Maintenance, Health::Down, 1, 0);
    let open = [Step { slot: 1, changes: vec![Change::Ready, Change::Weight(7)] }];
    assert_eq!(plan_one(Some(serve_at(1, 7)), filled.clone(), false, OPTIONS).raise, open, "nothing beside it");
    let ungated = Options { gate: false, ..OPTIONS };
    assert_eq!(plan_one(Some(serve_at(1, 7)), filled.clone(), true, ungated).raise, open, "no gate");

    for (name, wanted, beside, is_open) in [
        ("serves", Some(serve_at(2, 10)), up(2, 10), false),
        ("serves, a check failed just now", Some(serve_at(2, 10)), server(Admin::Ready, Health::Shaky, 2, 10), false),
        ("an unknown slot serves", None, up(2, 10), false),
        ("gets its weight this turn", Some(serve_at(2, 10)), up(2, 0), false),
        ("waits itself", Some(serve_at(2, 10)), server(Admin::Ready, Health::Shaky, 2, 0), true),
        ("is down", Some(serve_at(2, 10)), server(Admin::Ready, Health::Down, 2, 10), true),
        ("changes its address", Some(serve_at(3, 10)), up(2, 10), true),
        ("leaves, and serves until this one can", Some(serve_at(2, 0)), up(2, 10), false),
        ("leaves, and is down", Some(serve_at(2, 0)), server(Admin::Ready, Health::Down, 2, 10), true),
        ("goes", Some(Wanted::Maintenance), up(2, 10), true),
        ("is held in drain", Some(serve_at(2, 10)), server(Admin::Drain, Health::Down, 2, 10), true),
    ] {
        let mut desired = Desired { known: 2, ..Desired::default() };
        desired.slots.insert(1, serve_at(1, 7));
        desired.slots.extend(wanted.map(|wanted| (2, wanted)));
        let held = if beside.admin == Admin::Drain { BTreeSet::from([2]) } else { BTreeSet::new() };
        let plan = plan(&desired, &BTreeMap::from([(1, filled.clone()), (2, beside)]), &held, 2, OPTIONS);
        let step = plan.raise.iter().find(|step| step.slot == 1).expect("slot 1 becomes ready");
        assert_eq!(step.changes.len() == 2, is_open, "the other slot {name}");
    }
}

#[test]
fn a_static_algorithm_takes_the_configured_weight() {
    let options = Options { static_weights: true, ..OPTIONS };
    for (running, wanted, expected) in
        [(50, 7, vec![]), (0, 7, vec![Change::ConfiguredWeight]), (0, 0, vec![]), (50, 0, vec![Change::Weight(0)])]
    {
        let plan = plan_one(Some(serve_at(1, wanted)), up(1, running), true, options);
        let changes: Vec<_> = plan.raise.iter().chain(&plan.lower).flat_map(|step| step.changes.clone()).collect();
        assert_eq!(changes, expected, "running {running}, wanted {wanted}");
    }
}

#[test]
fn unknown_and_foreign_slots() {
    let plan = plan_one(None, up(99, 3), true, OPTIONS);
    assert!(plan.raise.is_empty() && plan.lower.is_empty(), "a slot without a row is not touched");
    let desired = Desired { slots: BTreeMap::from([(3, serve_at(1, 1)), (5, serve_at(2, 1))]), known: 5 };
    let plan = super::plan(&desired, &BTreeMap::from([(1, up(9, 1)), (9, up(9, 1))]), &BTreeSet::new(), 3, OPTIONS);
    assert_eq!(plan.missing, [2, 3, 5], "within the size, and occupied above it");
    assert_eq!(
        plan.lower,
        [Step { slot: 9, changes: vec![Change::Weight(0), Change::Maintenance] }],
        "above every row"
    );
}

/// A check that has passed gives a slot its weight in this plan; the line that does it may fail, and another one may be
/// quicker.
#[test]
fn who_serves_soon_does_not_serve_yet() {
    let desired = Desired { slots: (1..=3).map(|id| (id, serve_at(id as u8, 7))).collect(), known: 3 };
    let running = BTreeMap::from([(1, up(1, 0)), (2, up(92, 7)), (3, up(93, 7))]);
    let plan = plan(&desired, &running, &BTreeSet::new(), 3, OPTIONS);
    let steps: Vec<(SlotId, Vec<Change>)> = plan.raise.into_iter().map(|step| (step.slot, step.changes)).collect();
    assert_eq!(steps, [(1, vec![Change::Weight(7)]), (2, fill(2))], "slot 3 serves until slot 1 does");
}
