//! Which servers are on their way from one slot to another. Pure.
//!
//! A row that was lost, or edited by hand, seats its instance elsewhere. HAProxy would have it nowhere for as long as the
//! check in the new slot takes, if the old slot were emptied at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::placement::{Desired, Wanted};
use super::reconcile::serves;
use crate::haproxy::{Admin, Health, Running};
use crate::slot::SlotId;

/// The slots whose server is to stand in another slot, and goes on serving where it is until it serves there. Servers
/// that change places with each other do not wait: none of them could begin.
pub(super) fn moving(
    desired: &Desired,
    running: &BTreeMap<SlotId, Running>,
    held: &BTreeSet<SlotId>,
    port: u16,
) -> BTreeSet<SlotId> {
    let wanted = |id: SlotId| match desired.of(id) {
        Some(Wanted::Serve { address, weight }) if weight > 0 => Some(SocketAddr::new(address, port)),
        _ => None,
    };
    let places: BTreeMap<SocketAddr, SlotId> = running
        .iter()
        .filter(|(id, server)| !held.contains(*id) && server.admin != Admin::Inherited)
        .filter_map(|(id, _)| Some((wanted(*id)?, *id)))
        .collect();
    // Where the server of a slot goes, if it serves and has not arrived there.
    let next = |id: SlotId| {
        let server = running.get(&id).filter(|server| serves(server) && !held.contains(&id))?;
        let address = server.address.filter(|address| wanted(id) != Some(*address))?;
        let place = *places.get(&address)?;
        let there = &running[&place];
        let hopeless = there.admin == Admin::Ready && there.health == Health::Down;
        (there.address != Some(address) || !serves(there) && !hopeless).then_some(place)
    };
    let waits = |id: SlotId| {
        let (mut seen, mut at) = (BTreeSet::from([id]), next(id)?);
        while let Some(further) = next(at) {
            if !seen.insert(at) {
                return None;
            }
            at = further;
        }
        Some(id)
    };
    running.keys().filter_map(|id| waits(*id)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::fixtures::{OPTIONS, address, serve_at, server, up};
    use crate::client::model;
    use crate::client::reconcile::{Options, plan};

    fn slots<T>(values: impl IntoIterator<Item = T>) -> BTreeMap<SlotId, T> {
        (1..).zip(values).collect()
    }

    #[test]
    fn a_server_that_moves_to_another_slot_serves_until_it_serves_there() {
        use Admin::{Maintenance, Ready};
        use Health::{Down, Shaky};
        let free = || server(Maintenance, Down, 99, 0);
        let out = || Wanted::Maintenance;
        let holds = BTreeSet::new;
        // Name, slots, which of them are held, the slots that are touched, the slots that wait.
        type Case = (&'static str, Vec<(Running, Wanted)>, BTreeSet<SlotId>, Vec<SlotId>, Vec<SlotId>);
        let cases: Vec<Case> = vec![
            ("its row was lost", vec![(free(), serve_at(7, 1)), (up(7, 9), out())], holds(), vec![1], vec![2]),
            (
                "its new slot is not checked yet",
                vec![(server(Ready, Shaky, 7, 0), serve_at(7, 1)), (up(7, 9), out())],
                holds(),
                vec![],
                vec![1, 2],
            ),
            ("its new slot is checked", vec![(up(7, 0), serve_at(7, 1)), (up(7, 9), out())], holds(), vec![1], vec![2]),
            ("it has arrived", vec![(up(7, 1), serve_at(7, 1)), (up(7, 9), out())], holds(), vec![2], vec![]),
            (
                "its old slot goes to another one",
                vec![(free(), serve_at(7, 1)), (up(7, 9), serve_at(8, 1))],
                holds(),
                vec![1],
                vec![2],
            ),
            (
                "its new slot is another one's until that moves on",
                vec![(up(8, 9), serve_at(7, 1)), (up(7, 9), out()), (free(), serve_at(8, 1))],
                holds(),
                vec![3],
                vec![1, 2],
            ),
            (
                "its new slot was that of one who is gone",
                vec![(up(8, 9), serve_at(7, 1)), (up(7, 9), out())],
                holds(),
                vec![1],
                vec![2],
            ),
            (
                "two change places",
                vec![(up(8, 9), serve_at(7, 1)), (up(7, 9), serve_at(8, 1)), (up(3, 9), serve_at(3, 9))],
                holds(),
                vec![1, 2],
                vec![],
            ),
            (
                "its check fails in the new slot",
                vec![(server(Ready, Down, 7, 0), serve_at(7, 1)), (up(7, 9), out()), (up(3, 9), serve_at(3, 9))],
                holds(),
                vec![2],
                vec![1],
            ),
            (
                "an operator holds the new slot",
                vec![(server(Maintenance, Down, 7, 1), serve_at(7, 1)), (up(7, 9), out()), (up(3, 9), serve_at(3, 9))],
                BTreeSet::from([1]),
                vec![2],
                vec![],
            ),
            (
                "it is to drain in the new slot",
                vec![(free(), serve_at(7, 0)), (up(7, 9), out()), (up(3, 9), serve_at(3, 9))],
                holds(),
                vec![1, 2],
                vec![],
            ),
            (
                "it does not serve any more",
                vec![(free(), serve_at(7, 1)), (server(Ready, Down, 7, 9), out()), (up(3, 9), serve_at(3, 9))],
                holds(),
                vec![1, 2],
                vec![],
            ),
        ];
        for (name, slots, held, touched, waiting) in cases {
            let desired = Desired {
                slots: (1..).zip(slots.iter().map(|(_, wanted)| *wanted)).collect(),
                known: slots.len() as SlotId,
            };
            let running = (1..).zip(slots.iter().map(|(running, _)| running.clone())).collect();
            let plan = plan(&desired, &running, &held, slots.len() as SlotId, OPTIONS);
            let all: BTreeSet<SlotId> = plan.raise.iter().chain(&plan.lower).map(|step| step.slot).collect();
            assert_eq!((all.into_iter().collect(), plan.waiting), (touched, waiting), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever becomes of its old slot, and however long its check takes.
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
            let mut running = slots((1..=count).map(|last| up(last, 10)));
            running.insert(new, server(Admin::Maintenance, Health::Down, 99, 0));
            let mut desired = Desired { slots: slots((1..=count).map(|last| serve_at(last, 10))), known: new };
            desired.slots.insert(old, if newcomer { serve_at(50, 1) } else { Wanted::Maintenance });
            desired.slots.insert(new, serve_at(mover, weight));
            for reading in 0..20 {
                let next = plan(&desired, &running, &BTreeSet::new(), new, Options { gate, ..OPTIONS });
                let steps = if next.raise.is_empty() { next.lower } else { next.raise };
                for (slot, change) in steps.into_iter().flat_map(|s| s.changes.into_iter().map(move |c| (s.slot, c))) {
                    model::apply(running.get_mut(&slot).expect("it runs"), change, 1, true);
                    for last in 1..=count {
                        let there = |server: &Running| serves(server) && server.address == Some(address(last));
                        prop_assert!(running.values().any(there), "{last} is out: {running:?}");
                    }
                }
                if reading >= patience {
                    for server in running.values_mut().filter(|server| server.admin == Admin::Ready) {
                        server.health = Health::Passed;
                    }
                }
            }
            prop_assert_eq!(running[&new].weight, Some(weight));
            prop_assert_eq!(serves(&running[&old]), newcomer);
            prop_assert!(!newcomer || running[&old].address == Some(address(50)));
        }
    }
}
