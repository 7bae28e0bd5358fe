//! What must be sent to make one backend match. Pure, and without memory: each plan follows from what HAProxy runs now.
//!
//! A slot goes through stages, one a plan; the next reading of HAProxy is the proof that a stage was done:
//!
//! 1. *fill*: maintenance, the address, weight 0. Whatever it was, it takes no traffic, and its address is right.
//! 2. *open*: ready, at weight 0: its checks run. Where the health gate is open, its weight follows at once.
//! 3. *weight*: what it is to have, once HAProxy reports it fully up.
//!
//! A plan that is cut short at any command is therefore finished by the next one, and no stage shows traffic an address
//! or a weight that is not wanted any more.
//!
//! The weight 0 of stage 1 tells apart who put a server into maintenance: hsdo leaves a server there only at weight 0,
//! so one that stands in maintenance at the right address with a weight was put there by an operator, and stays.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::placement::{Desired, Wanted};
use crate::haproxy::{Admin, Change, Health, Running};
use crate::slot::{SlotId, Weight};

/// How a backend is to be treated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The port of every server.
    pub port: u16,
    /// `CLIENT_HEALTH_GATE`: a new server gets its weight when its check has passed.
    pub gate: bool,
    /// The backend's algorithm is static: it accepts weight 0 and the configured weight, nothing else.
    pub static_weights: bool,
}

/// The changes of one slot, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The slot.
    pub slot: SlotId,
    /// What is sent for it.
    pub changes: Vec<Change>,
}

/// What one reading of HAProxy asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps that bring servers into rotation or correct a weight: sent first, and the backend is read again after them.
    pub raise: Vec<Step>,
    /// Steps that take servers out of rotation: sent when nothing is left to raise, so that a turn which replaces
    /// everything does not leave the backend empty in between.
    pub lower: Vec<Step>,
    /// Slots at weight 0 that wait for their check.
    pub waiting: Vec<SlotId>,
    /// Slots that an operator holds in drain or maintenance.
    pub held: Vec<SlotId>,
    /// Slots that the table speaks of, or that its size promises, and HAProxy does not have.
    pub missing: Vec<SlotId>,
}

/// Compares what a backend is to be with what it runs. `size` is `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
pub fn plan(desired: &Desired, running: &BTreeMap<SlotId, Running>, size: SlotId, options: Options) -> Plan {
    let usable: Vec<SlotId> =
        running.iter().filter(|(id, server)| is_usable(desired, **id, server, options)).map(|(id, _)| *id).collect();
    let mut plan = Plan::default();
    for (&id, server) in running {
        let alone = !usable.iter().any(|other| *other != id);
        match desired.of(id) {
            None => {}
            Some(Wanted::Maintenance) => retire(&mut plan, id, server),
            Some(Wanted::Serve { address, weight }) => {
                serve(&mut plan, id, server, SocketAddr::new(address, options.port), weight, alone, options);
            }
        }
    }
    let occupied =
        desired.slots.keys().copied().filter(|id| *id > size && matches!(desired.of(*id), Some(Wanted::Serve { .. })));
    plan.missing = (1..=size).chain(occupied).filter(|id| !running.contains_key(id)).collect();
    plan
}

/// A slot that should not be in rotation here.
fn retire(plan: &mut Plan, slot: SlotId, server: &Running) {
    if matches!(server.admin, Admin::Ready | Admin::Drain) {
        plan.lower.push(Step { slot, changes: vec![Change::Maintenance, Change::Weight(0)] });
    }
}

fn serve(
    plan: &mut Plan,
    slot: SlotId,
    server: &Running,
    address: SocketAddr,
    weight: Weight,
    alone: bool,
    options: Options,
) {
    let mut raise = |changes| plan.raise.push(Step { slot, changes });
    let set =
        |weight| if weight > 0 && options.static_weights { Change::ConfiguredWeight } else { Change::Weight(weight) };
    if server.address != Some(address) {
        let move_to = Change::Address(address.ip(), address.port());
        raise(match server.admin {
            // What keeps it out of rotation is not ours to lift; it gets its weight when that is over.
            Admin::Inherited => vec![move_to, Change::Weight(0), Change::Ready],
            _ => vec![Change::Maintenance, move_to, Change::Weight(0)],
        });
        return;
    }
    let open = !options.gate || alone;
    let matches = match server.weight {
        Some(running) if options.static_weights => (running > 0) == (weight > 0),
        running => running == Some(weight),
    };
    match server.admin {
        Admin::Maintenance if server.weight == Some(0) => {
            let mut changes = vec![Change::Ready];
            if open && weight > 0 {
                changes.push(set(weight));
            }
            raise(changes);
        }
        // Weight 0 here would look like a stage of ours, so a held server keeps the weight it has.
        Admin::Maintenance => {
            if !matches && weight > 0 {
                raise(vec![set(weight)]);
            }
            plan.held.push(slot);
        }
        Admin::Drain => {
            if !matches {
                raise(vec![set(weight)]);
            }
            plan.held.push(slot);
        }
        Admin::Inherited => {}
        Admin::Ready if matches => {}
        Admin::Ready if weight == 0 => plan.lower.push(Step { slot, changes: vec![Change::Weight(0)] }),
        Admin::Ready if server.weight != Some(0) || open || has_passed(server) => raise(vec![set(weight)]),
        Admin::Ready => plan.waiting.push(slot),
    }
}

/// Whether the gate has nothing to wait for: the check passed, or there is none.
fn has_passed(server: &Running) -> bool {
    matches!(server.health, Health::Passed | Health::Unchecked)
}

/// Whether a slot takes traffic now, keeps its address this turn, and goes on to take traffic after it.
fn is_usable(desired: &Desired, id: SlotId, server: &Running, options: Options) -> bool {
    let stays = match desired.of(id) {
        None => true,
        Some(Wanted::Maintenance) => false,
        Some(Wanted::Serve { address, weight }) => {
            weight > 0 && server.address == Some(SocketAddr::new(address, options.port))
        }
    };
    let serves = match server.health {
        Health::Passed | Health::Unchecked => server.weight != Some(0) || desired.of(id).is_some(),
        Health::Shaky => server.weight != Some(0),
        Health::Down => false,
    };
    stays && serves && server.admin == Admin::Ready
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
