//! What holds for every plan of `reconcile`, proved on the model of HAProxy. Tests only.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::fixtures::{OPTIONS, serve_at, server, up};
use super::hold::Holds;
use super::model;
use super::placement::{Desired, Wanted};
use super::reconcile::{Options, Plan, Step, plan, serves};
use crate::haproxy::{Admin, Change, Health, Running};
use crate::slot::SlotId;

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
            let mut batch = world.batch();
            // Lines are done in any order: at worst those that take servers out come first.
            batch.sort_by_key(|step| !step.changes.contains(&Change::Maintenance));
            for step in batch {
                for change in step.changes {
                    world.apply(step.slot, change);
                    prop_assert!(world.running.values().any(serves), "empty after {:?} on slot {}", change, step.slot);
                }
            }
        }
    }
}
