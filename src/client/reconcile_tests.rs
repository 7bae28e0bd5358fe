//! The plans of `reconcile`, case by case, and proved on the model of HAProxy.

use proptest::prelude::*;

use super::*;
use crate::client::hold::Holds;
use crate::client::model;

const OPTIONS: Options = Options { port: 80, gate: true, static_weights: false };

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn server(admin: Admin, health: Health, last: u8, weight: Weight) -> Running {
    Running { admin, health, address: Some(address(last)), weight: Some(weight) }
}

fn up(last: u8, weight: Weight) -> Running {
    server(Admin::Ready, Health::Passed, last, weight)
}

fn serve_at(last: u8, weight: Weight) -> Wanted {
    Wanted::Serve { address: address(last).ip(), weight }
}

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

fn any_running() -> impl Strategy<Value = Running> {
    let admin = prop_oneof![
        6 => Just(Admin::Ready), 4 => Just(Admin::Maintenance), 1 => Just(Admin::Drain), 1 => Just(Admin::Inherited)
    ];
    let health = prop_oneof![Just(Health::Passed), Just(Health::Shaky), Just(Health::Unchecked), Just(Health::Down)];
    (admin, health, 1..6_u8, prop_oneof![Just(0), Just(1), 2..=256_u16])
        .prop_map(|(admin, health, last, weight)| server(admin, health, last, weight))
}

fn any_wanted() -> impl Strategy<Value = Option<Wanted>> {
    prop_oneof![
        6 => (1..6_u8, prop_oneof![Just(0), Just(1), 2..=256_u16]).prop_map(|(last, weight)| Some(serve_at(last, weight))),
        2 => Just(Some(Wanted::Maintenance)),
        1 => Just(None),
    ]
}

prop_compose! {
    fn any_world()(
        slots in proptest::collection::btree_map(1..9_u32, (any_running(), any_wanted(), any::<bool>()), 1..8),
        known in 4..8_u32,
        gate in any::<bool>(),
    ) -> World {
        let wanted = slots.iter().filter(|(id, _)| **id <= known);
        World {
            desired: Desired { slots: wanted.filter_map(|(id, slot)| Some((*id, slot.1?))).collect(), known },
            checked: slots.iter().filter(|(_, slot)| slot.2).map(|(id, _)| *id).collect(),
            running: slots.into_iter().map(|(id, slot)| (id, slot.0)).collect(),
            options: Options { gate, ..OPTIONS },
            holds: Holds::default(),
        }
    }
}

#[derive(Clone, Debug)]
struct World {
    holds: Holds,
    desired: Desired,
    running: BTreeMap<SlotId, Running>,
    checked: Vec<SlotId>,
    options: Options,
}

impl World {
    fn plan(&mut self) -> Plan {
        let held = self.holds.observe(&self.desired, &self.running, self.options.port);
        plan(&self.desired, &self.running, &held, self.desired.known, self.options)
    }

    /// The steps that a turn sends after this reading: what raises first, and what lowers when nothing is to raise.
    fn batch(&mut self) -> Vec<Step> {
        let plan = self.plan();
        self.holds.sending(&plan);
        if plan.raise.is_empty() { plan.lower } else { plan.raise }
    }

    fn apply(&mut self, slot: SlotId, change: Change) {
        let checked = self.checked.contains(&slot);
        model::apply(self.running.get_mut(&slot).expect("a planned slot runs"), change, 1, checked);
    }

    /// Every check of a ready server passes.
    fn checks_pass(&mut self) {
        for server in self.running.values_mut().filter(|server| server.admin == Admin::Ready) {
            if server.health != Health::Unchecked {
                server.health = Health::Passed;
            }
        }
    }

    /// Turns until nothing is left to send.
    fn converge(&mut self) {
        for _ in 0..12 {
            let batch = self.batch();
            if batch.is_empty() && self.plan().waiting.is_empty() {
                return;
            }
            for step in batch {
                step.changes.iter().for_each(|change| self.apply(step.slot, *change));
            }
            self.checks_pass();
        }
        panic!("still not quiet: {:?}", self.plan());
    }

    fn exposes(&self, slot: SlotId) -> bool {
        let server = &self.running[&slot];
        let takes_traffic = server.admin == Admin::Ready && server.weight != Some(0);
        takes_traffic
            && match self.desired.of(slot) {
                Some(Wanted::Serve { address, weight }) => {
                    server.address != Some(SocketAddr::new(address, 80)) || server.weight != Some(weight)
                }
                _ => true,
            }
    }
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

/// Whoever was on its way out when hsdo was killed, and is wanted again when it is back, is nobody's but hsdo's.
#[test]
fn a_cut_step_is_no_operators_hand() {
    for (name, first) in [("it leaves", Wanted::Maintenance), ("another one comes", serve_at(2, 7))] {
        let slots = |wanted| Desired { slots: BTreeMap::from([(1, wanted)]), known: 1 };
        for cut in 0..=3 {
            let running = BTreeMap::from([(1, up(1, 7))]);
            let mut world =
                World { desired: slots(first), running, checked: vec![1], options: OPTIONS, holds: Holds::default() };
            for change in world.batch()[0].changes.iter().take(cut) {
                world.apply(1, *change);
            }
            world.holds.forget();
            world.desired = slots(serve_at(1, 7));
            world.converge();
            assert_eq!(world.running[&1], up(1, 7), "{name}, cut after {cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    /// Applying the plans gives the wanted state, and planning again gives nothing.
    #[test]
    fn plans_reach_what_is_wanted(world in any_world()) {
        let mut world = world;
        let before = world.running.clone();
        world.converge();
        let Plan { held, .. } = world.plan();
        for (id, server) in &world.running {
            match world.desired.of(*id) {
                None => {
                    let untouched = Running { health: before[id].health, ..server.clone() };
                    prop_assert_eq!(&untouched, &before[id], "an unknown slot was touched");
                }
                Some(Wanted::Maintenance) => prop_assert!(matches!(server.admin, Admin::Maintenance | Admin::Inherited)),
                Some(Wanted::Serve { address, weight }) => {
                    prop_assert_eq!(server.address, Some(SocketAddr::new(address, 80)));
                    if server.admin == Admin::Ready {
                        prop_assert_eq!(server.weight, Some(weight));
                    } else {
                        prop_assert!(held.contains(id) || server.admin == Admin::Inherited);
                    }
                }
            }
        }
    }

    /// No prefix of what is sent gives traffic an address or a weight that is not wanted, on any server it touched.
    #[test]
    fn no_prefix_exposes_a_stale_server(world in any_world()) {
        let mut world = world;
        for _ in 0..12 {
            let batch = world.batch();
            for Step { slot, changes } in batch {
                for change in changes {
                    world.apply(slot, change);
                    prop_assert!(!world.exposes(slot), "after {:?} on slot {}", change, slot);
                }
            }
            world.checks_pass();
        }
    }

    /// A turn that is cut is finished by the turns after it, to the same end, also by another process, which remembers
    /// nothing. Each step may be cut after any of its changes: HAProxy 2.2 to 3.0 drop what is left of a line whose client
    /// is gone, and there may be two lines.
    #[test]
    fn a_cut_plan_is_finished_later(
        world in any_world(),
        whole_batches in 0..5_usize,
        cuts in proptest::collection::vec(0..4_usize, 8),
        restarted in any::<bool>(),
    ) {
        let mut whole = world.clone();
        whole.converge();
        let mut broken = world;
        for _ in 0..whole_batches {
            for step in broken.batch() {
                step.changes.iter().for_each(|change| broken.apply(step.slot, *change));
            }
            broken.checks_pass();
        }
        for (step, cut) in broken.batch().iter().zip(cuts) {
            step.changes.iter().take(cut).for_each(|change| broken.apply(step.slot, *change));
        }
        if restarted {
            broken.holds.forget();
        }
        broken.converge();
        for (id, server) in &broken.running {
            if matches!(broken.desired.of(*id), Some(Wanted::Serve { .. })) {
                prop_assert_eq!(server.admin, whole.running[id].admin, "slot {}", id);
                prop_assert_eq!(server.address, whole.running[id].address, "slot {}", id);
                prop_assert_eq!(server.weight, whole.running[id].weight, "slot {}", id);
            }
        }
    }

    /// A backend with a server that serves is not emptied, at any command of any plan: not where that server stays,
    /// and not where it leaves while another one is to take over.
    #[test]
    fn somebody_always_serves(world in any_world(), stays in any::<bool>()) {
        let mut world = world;
        world.running.insert(1, up(1, 5));
        world.desired.slots.insert(1, serve_at(1, if stays { 5 } else { 0 }));
        world.running.insert(9, server(Admin::Maintenance, Health::Down, 99, 1));
        world.desired.known = 9;
        world.desired.slots.insert(9, serve_at(9, 5));
        world.checked.push(9);
        for _ in 0..12 {
            for step in world.batch() {
                for change in step.changes {
                    world.apply(step.slot, change);
                    let serves = |server: &Running| {
                        server.admin == Admin::Ready && server.health != Health::Down && server.weight != Some(0)
                    };
                    prop_assert!(world.running.values().any(serves), "empty after {:?} on slot {}", change, step.slot);
                }
            }
        }
    }
}
