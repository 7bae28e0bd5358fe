//! What must be sent to make one backend match. Pure, and without memory: each plan follows from what HAProxy runs now.
//!
//! A slot goes through stages, one a plan; the next reading of HAProxy is the proof that a stage was done:
//!
//! 1. *fill*: weight 0, maintenance (unless it is in it), the address. It takes no traffic, and its address is right.
//! 2. *open*: ready, at weight 0: its checks run. Where the health gate is open, its weight follows at once.
//! 3. *weight*: what it is to have, once HAProxy reports it fully up.
//!
//! A plan that is cut short is therefore finished by the next one, and no stage shows traffic an address or a weight that
//! is not wanted any more. HAProxy 2.2 to 3.0 drop what is left of a line whose client is gone (measured), so a step may be
//! cut after any of its changes: weight 0 comes first of all, because in maintenance at the right address a weight is an
//! operator's. Which servers an operator holds by hand is told by `hold`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::moving::moving;
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
    /// Slots that wait: a new one at weight 0 for its check, a leaving one for somebody who can take its traffic, one
    /// whose server moves to another slot until it serves there.
    pub waiting: Vec<SlotId>,
    /// Slots that an operator holds in drain or maintenance.
    pub held: Vec<SlotId>,
    /// Slots that the table speaks of, or that its size promises, and HAProxy does not have.
    pub missing: Vec<SlotId>,
}

/// Compares what a backend is to be with what it runs. `held` are the servers that an operator keeps out of rotation,
/// `size` is `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
pub fn plan(
    desired: &Desired,
    running: &BTreeMap<SlotId, Running>,
    held: &BTreeSet<SlotId>,
    size: SlotId,
    options: Options,
) -> Plan {
    let scene = Scene::of(desired, running, held, options);
    let mut plan = Plan::default();
    for (&id, server) in running {
        match desired.of(id) {
            None => {}
            Some(_) if scene.moving.contains(&id) => plan.waiting.push(id),
            Some(Wanted::Maintenance) => retire(&mut plan, id, server),
            Some(Wanted::Serve { address, weight }) => {
                let address = SocketAddr::new(address, options.port);
                if held.contains(&id) {
                    hold(&mut plan, id, server, address, weight, options);
                } else {
                    serve(&mut plan, id, server, address, weight, &scene);
                }
            }
        }
    }
    let serves = |id: &SlotId| matches!(desired.of(*id), Some(Wanted::Serve { .. }));
    let above = desired.slots.keys().copied().filter(|id| *id > size && serves(id));
    plan.missing = (1..=size).chain(above).filter(|id| !running.contains_key(id)).collect();
    plan
}

/// What the decision about one slot must know of the others.
struct Scene {
    options: Options,
    /// Slots that take traffic, keep their address, and go on taking traffic.
    usable: Vec<SlotId>,
    /// Nobody else can take the traffic yet, so the leaving ones keep theirs until a new one has passed its check:
    /// a leaving server is better than none.
    handover: bool,
    /// Slots that serve at a stale address and wait for the next plan: if all of them were filled at once, the backend
    /// would be empty for a moment.
    postponed: Vec<SlotId>,
    /// Slots that serve at an address which is wanted in another slot, and does not serve there yet.
    moving: BTreeSet<SlotId>,
}

impl Scene {
    fn of(desired: &Desired, running: &BTreeMap<SlotId, Running>, held: &BTreeSet<SlotId>, options: Options) -> Self {
        let moving = moving(desired, running, held, options.port);
        let mut scene = Scene { options, usable: Vec::new(), handover: false, postponed: Vec::new(), moving };
        let (mut leaving, mut hope, mut stale, mut serving) = (false, false, Vec::new(), false);
        for (&id, server) in running {
            let serves = serves(server);
            match desired.of(id) {
                wanted if wanted.is_none() && serves || scene.moving.contains(&id) => {
                    scene.usable.push(id);
                    serving = true;
                }
                Some(Wanted::Serve { address, weight }) => {
                    let stays = server.address == Some(SocketAddr::new(address, options.port));
                    // A check that has passed gives the slot its weight in this very plan.
                    let soon = server.admin == Admin::Ready && has_passed(server);
                    match (stays, weight > 0) {
                        (true, true) if serves || soon => {
                            scene.usable.push(id);
                            serving |= serves;
                        }
                        (true, false) if serves => leaving = true,
                        (false, _) if serves && !held.contains(&id) => stale.push(id),
                        _ => {}
                    }
                    hope |= weight > 0 && !held.contains(&id) && server.admin != Admin::Inherited;
                }
                _ => {}
            }
        }
        scene.handover = scene.usable.is_empty() && leaving && hope;
        // Who serves soon does not serve yet, and its line may fail; who leaves serves until nothing is left to raise.
        if !(serving || leaving && hope) {
            scene.postponed = stale.split_off(stale.len().div_ceil(2));
        }
        scene
    }

    /// Whether the slot may have its weight without a passed check: the gate is off, or nothing else serves.
    fn is_open_for(&self, slot: SlotId) -> bool {
        !self.options.gate || !(self.handover || self.usable.iter().any(|other| *other != slot))
    }

    fn weight(&self, weight: Weight) -> Change {
        set_weight(weight, self.options)
    }
}

/// Whether it takes traffic.
pub(super) fn serves(server: &Running) -> bool {
    server.admin == Admin::Ready && server.health != Health::Down && server.weight != Some(0)
}

fn set_weight(weight: Weight, options: Options) -> Change {
    if weight > 0 && options.static_weights { Change::ConfiguredWeight } else { Change::Weight(weight) }
}

fn has_weight(server: &Running, weight: Weight, options: Options) -> bool {
    match server.weight {
        Some(running) if options.static_weights => (running > 0) == (weight > 0),
        running => running == Some(weight),
    }
}

/// A slot that should not be in rotation here.
fn retire(plan: &mut Plan, slot: SlotId, server: &Running) {
    if matches!(server.admin, Admin::Ready | Admin::Drain) {
        plan.lower.push(Step { slot, changes: vec![Change::Weight(0), Change::Maintenance] });
    }
}

/// A slot that an operator keeps out of rotation: only its address and weight are kept right, for when the hand is
/// lifted. In maintenance it never gets weight 0: after a restart of hsdo that would look like a stage of its own.
fn hold(plan: &mut Plan, slot: SlotId, server: &Running, address: SocketAddr, weight: Weight, options: Options) {
    let mut changes = Vec::new();
    if server.address != Some(address) {
        changes.push(Change::Address(address.ip(), address.port()));
    }
    if !has_weight(server, weight, options) && (weight > 0 || server.admin == Admin::Drain) {
        changes.push(set_weight(weight, options));
    }
    if !changes.is_empty() {
        plan.raise.push(Step { slot, changes });
    }
    plan.held.push(slot);
}

fn serve(plan: &mut Plan, slot: SlotId, server: &Running, address: SocketAddr, weight: Weight, scene: &Scene) {
    let move_to = Change::Address(address.ip(), address.port());
    let fill = || match server.admin {
        Admin::Maintenance => vec![Change::Weight(0), move_to],
        _ => vec![Change::Weight(0), Change::Maintenance, move_to],
    };
    let mut raise = |changes| plan.raise.push(Step { slot, changes });
    if server.address != Some(address) {
        match server.admin {
            // What keeps it out of rotation is not ours to lift; it gets its weight when that is over.
            Admin::Inherited => raise(vec![Change::Weight(0), move_to, Change::Ready]),
            _ if scene.postponed.contains(&slot) => {}
            _ => raise(fill()),
        }
        return;
    }
    let matches = has_weight(server, weight, scene.options);
    match server.admin {
        Admin::Maintenance | Admin::Drain if server.weight != Some(0) => raise(fill()),
        Admin::Maintenance | Admin::Drain => {
            let mut changes = vec![Change::Ready];
            if weight > 0 && scene.is_open_for(slot) {
                changes.push(scene.weight(weight));
            }
            raise(changes);
        }
        Admin::Inherited => {}
        Admin::Ready if matches => {}
        Admin::Ready if weight == 0 && scene.handover && server.health != Health::Down => plan.waiting.push(slot),
        Admin::Ready if weight == 0 => plan.lower.push(Step { slot, changes: vec![Change::Weight(0)] }),
        Admin::Ready if server.weight != Some(0) || scene.is_open_for(slot) || has_passed(server) => {
            raise(vec![scene.weight(weight)]);
        }
        Admin::Ready => plan.waiting.push(slot),
    }
}

/// Whether the gate has nothing to wait for: the check passed, or there is none.
fn has_passed(server: &Running) -> bool {
    matches!(server.health, Health::Passed | Health::Unchecked)
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
