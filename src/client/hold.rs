//! Who keeps a server out of rotation: hsdo, or an operator by hand. Pure; the only memory of the client.
//!
//! HAProxy does not tell who set a server to maintenance, so this remembers what each slot was when it was last read.
//! A server that served and is in maintenance now, though hsdo did not put it there, is held by an operator; unless its
//! weight went to 0 as well, which is how hsdo takes one out: the last line of a client that was killed may reach HAProxy
//! when the next client is at work. And unless its address is another one too: that is a HAProxy which has just started,
//! and which no process id tells from the one before if it runs in a container. Drain is always somebody else's hand,
//! since hsdo drains by weight 0.
//!
//! After its own start hsdo remembers nothing. Then the weight tells: hsdo leaves a server in maintenance only at weight
//! 0, so one that stands there at its right address with a weight is held. Another HAProxy process starts all anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::placement::{Desired, Wanted};
use super::reconcile::Plan;
use crate::haproxy::{Admin, Change, Running};
use crate::slot::SlotId;

/// What is remembered of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// If it is in maintenance, hsdo put it there, or wanted it there.
    Ours,
    /// It was ready at this address, at weight 0 if `idle`.
    Served { address: SocketAddr, idle: bool },
    /// An operator holds the server of this address.
    Held(SocketAddr),
}

/// The memory of one backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds(BTreeMap<SlotId, Trace>);

impl Holds {
    /// Takes in a reading of HAProxy, and tells which of the servers that are to serve are held.
    pub(super) fn observe(
        &mut self,
        desired: &Desired,
        running: &BTreeMap<SlotId, Running>,
        port: u16,
    ) -> BTreeSet<SlotId> {
        let mut held = BTreeSet::new();
        for (&id, server) in running {
            let trace = match desired.of(id) {
                None => continue,
                Some(Wanted::Maintenance) => Trace::Ours,
                Some(Wanted::Serve { address, .. }) => {
                    trace(self.0.get(&id).copied(), server, SocketAddr::new(address, port))
                }
            };
            if matches!(trace, Trace::Held(_)) {
                held.insert(id);
            }
            self.0.insert(id, trace);
        }
        held
    }

    /// Remembers that hsdo itself is about to put servers into maintenance.
    pub(super) fn sending(&mut self, plan: &Plan) {
        for step in plan.raise.iter().chain(&plan.lower) {
            if step.changes.contains(&Change::Maintenance) {
                self.0.insert(step.slot, Trace::Ours);
            }
        }
    }

    /// Forgets all: another process answers, and nobody has touched its servers.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

fn trace(before: Option<Trace>, server: &Running, wanted: SocketAddr) -> Trace {
    let (right, idle) = (server.address == Some(wanted), server.weight == Some(0));
    match (server.admin, before) {
        (Admin::Ready, _) if right => Trace::Served { address: wanted, idle },
        (Admin::Drain | Admin::Maintenance, Some(Trace::Held(address))) if address == wanted => Trace::Held(wanted),
        (Admin::Drain, _) if right => Trace::Held(wanted),
        (Admin::Maintenance, Some(Trace::Served { address, idle: before }))
            if right && address == wanted && (before || !idle) =>
        {
            Trace::Held(wanted)
        }
        (Admin::Maintenance, None) if right && !idle => Trace::Held(wanted),
        _ => Trace::Ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::Health;

    const PORT: u16 = 80;

    /// A reading of the slot: state, last byte of its address, weight; and the last byte of the address that is wanted.
    type Look = (Admin, u8, u16, Option<u8>);

    /// Shows readings of one slot, and tells after each whether it is held.
    fn watch(readings: &[Look]) -> Vec<bool> {
        let mut holds = Holds::default();
        let look = |(admin, last, weight, wanted): &Look| {
            let address = Some(SocketAddr::from(([10, 0, 0, *last], PORT)));
            let server = Running { admin: *admin, health: Health::Passed, address, weight: Some(*weight) };
            let serve = |last: u8| Wanted::Serve { address: [10, 0, 0, last].into(), weight: 7 };
            let slots = BTreeMap::from([(1, wanted.map_or(Wanted::Maintenance, serve))]);
            !holds.observe(&Desired { slots, known: 1 }, &BTreeMap::from([(1, server)]), PORT).is_empty()
        };
        readings.iter().map(look).collect()
    }

    #[test]
    fn whose_hand_it_was() {
        use Admin::{Drain, Maintenance, Ready};
        #[rustfmt::skip]
        let cases: [(&str, &[Look], &[bool]); 15] = [
            ("it serves", &[(Ready, 1, 7, Some(1))], &[false]),
            ("it served, and is in maintenance", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 7, Some(1))], &[false, true]),
            ("it waited at weight 0, and is in maintenance", &[(Ready, 1, 0, Some(1)), (Maintenance, 1, 0, Some(1))], &[false, true]),
            ("it served, and another hsdo's last line takes it out", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 0, Some(1))], &[false, false]),
            ("the hand is lifted", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 7, Some(1)), (Ready, 1, 7, Some(1))], &[false, true, false]),
            ("drain is always a hand", &[(Drain, 1, 7, Some(1)), (Drain, 1, 0, Some(1))], &[true, true]),
            ("another instance is to serve there", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 7, Some(1)), (Maintenance, 1, 7, Some(2))], &[false, true, false]),
            ("its address was changed under the hand", &[(Drain, 1, 7, Some(1)), (Drain, 9, 7, Some(1)), (Maintenance, 9, 7, Some(1))], &[true, true, true]),
            ("HAProxy started anew, and nothing else tells", &[(Ready, 1, 7, Some(1)), (Maintenance, 99, 1, Some(1)), (Maintenance, 1, 0, Some(1))], &[false, false, false]),
            ("at its address while another is wanted there", &[(Ready, 2, 7, Some(1)), (Maintenance, 2, 7, Some(1))], &[false, false]),
            ("at hsdo's start, in maintenance with a weight", &[(Maintenance, 1, 7, Some(1))], &[true]),
            ("at hsdo's start, a stage of its own", &[(Maintenance, 1, 0, Some(1))], &[false]),
            ("at hsdo's start, a placeholder", &[(Maintenance, 99, 1, Some(1))], &[false]),
            ("emptied by another program, then in use again", &[(Maintenance, 1, 7, None), (Maintenance, 1, 7, Some(1))], &[false, false]),
            ("wanted out while it served, then wanted again", &[(Ready, 1, 7, None), (Maintenance, 1, 0, Some(1))], &[false, false]),
        ];
        for (name, readings, expected) in cases {
            assert_eq!(watch(readings), expected, "{name}");
        }
    }

    #[test]
    fn what_hsdo_sends_is_its_own_hand() {
        let address = SocketAddr::from(([10, 0, 0, 1], PORT));
        let mut holds = Holds(BTreeMap::from([(1, Trace::Served { address, idle: false })]));
        let step = super::super::reconcile::Step { slot: 1, changes: vec![Change::Maintenance] };
        holds.sending(&Plan { raise: vec![step], ..Plan::default() });
        assert_eq!(holds.0[&1], Trace::Ours);
        holds.forget();
        assert!(holds.0.is_empty());
    }
}
