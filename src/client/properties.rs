//! Invariants of every turn, tested on the model of HAProxy with the real sequencer. Tests only.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixtures::{OPTIONS, World, address, maintenance, serve_at, server, up};
use super::memory::SlotMemory;
use super::placement::Wanted;
use super::reconcile::Step;
use super::sequencer::Sequencer;
use super::stage::{Options, PARKED};
use crate::ports::{Admin, Change, Running};
use crate::slot::SlotId;

fn any_running() -> impl Strategy<Value = Running> {
    let admin = prop_oneof![6 => Just(Admin::Ready), 4 => Just(Admin::Maintenance), 1 => Just(Admin::Drain)];
    let weight = prop_oneof![Just(0), Just(1), 2..=256_u16];
    (admin, proptest::bool::weighted(0.1), any::<[bool; 3]>(), 1..6_u8, weight).prop_map(
        |(admin, inherited, [up, checked, checking], last, weight)| {
            let up = up && admin != Admin::Maintenance;
            Running { inherited, checked: checked && !inherited, checking, ..server(admin, up, last, weight) }
        },
    )
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
        slots in proptest::collection::btree_map(1..9_u32, (any_running(), any_wanted()), 1..8),
        max_row in 4..8_u32,
        gate in any::<bool>(),
    ) -> World {
        let slots = slots.into_iter().map(|(id, (running, wanted))| (id, running, wanted.filter(|_| id <= max_row)));
        let mut world = World::new(slots);
        (world.desired.max_row, world.size) = (max_row, max_row);
        World { options: Options { gate, ..OPTIONS }, ..world }
    }
}

/// Whether the slot takes traffic at a wrong address or weight, or should not take any.
fn exposes(world: &World, slot: SlotId) -> bool {
    let server = &world.running[&slot];
    let takes_traffic = server.serves();
    takes_traffic
        && match world.desired.of(slot) {
            Some(Wanted::Serve { address, weight }) => {
                server.address.map(|there| there.ip()) != Some(address.ip) || server.weight != weight
            }
            _ => true,
        }
}

/// A server that hsdo was taking out when it was killed, and that is wanted again after its restart.
#[test]
fn an_interrupted_step_does_not_count_as_held() {
    for (name, first) in [("it leaves", Wanted::Maintenance), ("another one comes", serve_at(2, 7))] {
        for cut in 0..=3 {
            let mut world = World::new([(1, up(1, 7), Some(first))]);
            for change in world.steps(&mut Sequencer::default())[0].changes.iter().take(cut) {
                world.apply(1, *change);
            }
            world.memory = SlotMemory::default();
            world.desired.slots.insert(1, serve_at(1, 7));
            world.converge();
            assert_eq!(world.running[&1], up(1, 7), "{name}, cut after {cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    /// Turns reach the desired state, and the next turn sends nothing.
    #[test]
    fn turns_reach_the_desired_state(world in any_world()) {
        let mut world = world;
        let before = world.running.clone();
        world.converge();
        let plan = world.plan();
        for (id, server) in &world.running {
            match world.desired.of(*id) {
                None => {
                    let Running { up, checking, inherited, .. } = before[id];
                    let untouched = Running { up, checking, inherited, ..server.clone() };
                    prop_assert_eq!(&untouched, &before[id], "an unknown slot was touched");
                }
                Some(Wanted::Maintenance) => prop_assert_eq!((server.admin, server.weight), (Admin::Maintenance, 0)),
                Some(Wanted::Serve { address, weight }) => {
                    prop_assert_eq!(server.address.map(|there| there.ip()), Some(address.ip));
                    if server.admin == Admin::Ready {
                        prop_assert_eq!(server.weight, weight);
                    } else {
                        prop_assert!(plan.held.contains(id));
                    }
                }
            }
        }
    }

    /// No prefix of the commands makes a touched server serve at a wrong address or weight.
    #[test]
    fn no_prefix_exposes_a_stale_server(world in any_world()) {
        let mut world = world;
        for _ in 0..4 {
            let mut exposed = None;
            world.turn(|world, slot, change| {
                if exposes(world, slot) {
                    exposed = exposed.take().or(Some((slot, change)));
                }
            });
            prop_assert_eq!(exposed, None);
            world.checks_pass();
        }
    }

    /// If another server serves throughout, a new one takes no request before its own check passes: at the end of each of its steps it
    /// is down or in maintenance. An old check does not count for it.
    #[test]
    fn a_new_server_waits_for_its_own_check(world in any_world(), cut in 0..4_usize) {
        let mut world = world;
        world.options.gate = true;
        world.running.insert(1, up(1, 5));
        world.desired.slots.insert(1, serve_at(1, 5));
        for server in world.running.values_mut() {
            server.checked = !server.inherited;
        }
        world.plan();
        let begun = world.running.clone();
        for round in 0..3 {
            let mut turn = Sequencer::default();
            loop {
                let steps = world.steps(&mut turn);
                if steps.is_empty() {
                    break;
                }
                for Step { slot, changes } in steps {
                    // Cut the lines of one round.
                    let sent = if round == 1 { cut } else { changes.len() };
                    let opens = changes.contains(&Change::Ready) && !begun[&slot].inherited;
                    prop_assert!(!(opens && world.running[&slot].checking), "slot {} opens while it is checked", slot);
                    for change in changes.iter().take(sent) {
                        world.apply(slot, *change);
                        let server = &world.running[&slot];
                        let moved = server.address != begun[&slot].address || begun[&slot].admin == Admin::Maintenance;
                        let answers = server.address.is_none_or(|address| address.ip() != PARKED);
                        // Persistent requests go to a server at weight 0 too.
                        let takes = server.admin == Admin::Ready && !server.inherited && server.up && answers;
                        prop_assert!(!(moved && takes), "slot {} takes requests after {:?}", slot, change);
                    }
                }
            }
            for server in world.running.values_mut() {
                server.checking = false;
            }
        }
    }

    /// Later turns finish an interrupted one with the same result, even after a restart of hsdo. Each step may be cut after any change:
    /// HAProxy 2.2 to 3.0 drop the rest of a line whose client is gone, and two lines may be in flight.
    #[test]
    fn an_interrupted_turn_is_finished_later(
        world in any_world(),
        whole_batches in 0..5_usize,
        cuts in proptest::collection::vec(0..4_usize, 8),
        restarted in any::<bool>(),
    ) {
        let mut whole = world.clone();
        whole.converge();
        let mut broken = world;
        let mut turn = Sequencer::default();
        for _ in 0..whole_batches {
            for step in broken.steps(&mut turn) {
                step.changes.iter().for_each(|change| broken.apply(step.slot, *change));
            }
            broken.checks_pass();
        }
        for (step, cut) in broken.steps(&mut turn).iter().zip(cuts) {
            step.changes.iter().take(cut).for_each(|change| broken.apply(step.slot, *change));
        }
        if restarted {
            broken.memory = SlotMemory::default();
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

    /// If HAProxy keeps refusing some commands, the turn still ends, sends nothing twice, and the other slots reach their desired state.
    #[test]
    fn a_refused_step_does_not_block_other_slots(world in any_world(), stuck in 1..9_u32) {
        let mut world = world;
        let refused = |slot: SlotId, change: Change| slot == stuck && matches!(change, Change::Address(..) | Change::Weight(1..));
        for _ in 0..6 {
            let mut turn = Sequencer::default();
            let mut sent: Vec<Step> = Vec::new();
            loop {
                let steps = world.steps(&mut turn);
                if steps.is_empty() {
                    break;
                }
                for step in steps {
                    prop_assert!(!sent.contains(&step), "{:?} twice", step);
                    for change in step.changes.iter().filter(|change| !refused(step.slot, **change)) {
                        world.apply(step.slot, *change);
                    }
                    sent.push(step);
                }
            }
            world.checks_pass();
        }
        let plan = world.plan();
        let others = plan.raise.iter().chain(&plan.lower).filter(|step| step.slot != stuck);
        prop_assert_eq!(others.count(), 0);
        if let (Some(server), Some(Wanted::Serve { address, .. })) = (world.running.get(&stuck), world.desired.of(stuck))
            && server.address.map(|there| there.ip()) != Some(address.ip)
        {
            prop_assert!(!server.serves(), "its address was refused, and it serves");
        }
    }

    /// No command of any turn empties a backend with a serving server, whether that stays or leaves with a successor.
    #[test]
    fn a_backend_is_never_emptied(world in any_world(), stays in any::<bool>()) {
        let mut world = world;
        world.running.insert(1, up(1, 5));
        world.desired.slots.insert(1, serve_at(1, if stays { 5 } else { 0 }));
        world.running.insert(9, maintenance(99, 0));
        world.desired.max_row = 9;
        world.desired.slots.insert(9, serve_at(9, 5));
        for _ in 0..6 {
            let mut turn = Sequencer::default();
            loop {
                let mut steps = world.steps(&mut turn);
                if steps.is_empty() {
                    break;
                }
                // Lines complete in any order; the worst case takes servers out first.
                steps.sort_by_key(|step| !step.changes.contains(&Change::Maintenance));
                for step in steps {
                    for change in step.changes {
                        world.apply(step.slot, change);
                        let serves = world.running.values().any(Running::serves);
                        prop_assert!(serves, "empty after {:?} on slot {}", change, step.slot);
                    }
                }
            }
            world.checks_pass();
        }
    }

    /// Whatever happens to its old slot, and however long its check takes.
    #[test]
    fn a_server_that_moves_to_a_free_slot_is_never_out(
        count in 1..6_u8,
        mover in any::<proptest::sample::Index>(),
        weight in 1..256_u16,
        newcomer in any::<bool>(),
        gate in any::<bool>(),
        patience in 0..3_usize,
    ) {
        let mover = 1 + mover.index(usize::from(count)) as u8;
        let (old, new) = (SlotId::from(mover), SlotId::from(count) + 1);
        let stays = (1..=count).map(|last| (SlotId::from(last), up(last, 10), Some(serve_at(last, 10))));
        let free = (new, maintenance(99, 0), Some(serve_at(mover, weight)));
        let mut world = World::new(stays.chain([free]));
        world.desired.slots.insert(old, if newcomer { serve_at(50, 1) } else { Wanted::Maintenance });
        world.options.gate = gate;
        for turn in 0..8 {
            let mut out = None;
            world.turn(|world, _, _| {
                let serves = |last: u8| {
                    world.running.values().any(|server| server.serves() && server.address == Some(address(last)))
                };
                out = out.or((1..=count).find(|last| !serves(*last)));
            });
            prop_assert_eq!(out, None);
            if turn >= patience {
                world.checks_pass();
            }
        }
        prop_assert_eq!(world.running[&new].weight, weight);
        prop_assert_eq!(world.running[&old].serves(), newcomer);
        prop_assert!(!newcomer || world.running[&old].address == Some(address(50)));
    }

    /// An agent that changes a weight back after every turn gets its way, but for one attempt a minute.
    #[test]
    fn a_contested_weight_is_given_up(wanted in 2..200_u16, agents in 201..256_u16, pause in 1..10_u64) {
        let mut world = World::new([(1, up(1, 5), Some(serve_at(1, wanted))), (2, up(2, 5), Some(serve_at(2, 5)))]);
        let mut tries = 0;
        let mut turns = 0;
        while turns * pause < 600 {
            world.turn(|_, slot, _| tries += usize::from(slot == 1));
            world.running.get_mut(&1).expect("slot 1").weight = agents;
            world.now += std::time::Duration::from_secs(pause);
            turns += 1;
        }
        prop_assert!(tries <= 3 + 11, "{} tries in 10 minutes", tries);
        prop_assert_eq!(world.plan().contested, vec![1]);
        // The agent stops.
        let mut agreed = BTreeMap::new();
        for _ in 0..200 {
            world.turn(|_, _, _| ());
            agreed.insert(world.now, world.running[&1].weight);
            world.now += std::time::Duration::from_secs(pause);
        }
        prop_assert_eq!(world.running[&1].weight, wanted);
        prop_assert_eq!(world.plan().contested, Vec::<SlotId>::new());
    }
}
