//! What must be sent to make one backend match: a step a slot, from its stage and from who covers for it. Pure.

use std::net::IpAddr;

use super::cover::Cover;
use super::placement::Wanted;
use super::stage::{PARKED, Stage};
use super::view::View;
use crate::ports::{Admin, Change, Running};
use crate::slot::{SlotId, Weight};

/// The changes of one slot, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The slot.
    pub slot: SlotId,
    /// What is sent for it.
    pub changes: Vec<Change>,
}

/// What one reading of a backend asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSteps {
    /// Steps that bring servers into rotation or correct a weight: sent first, and the backend is read again after them.
    pub raise: Vec<Step>,
    /// Steps that take servers out of rotation: sent when nothing is left to raise, so that a turn which replaces
    /// everything does not leave the backend empty in between.
    pub lower: Vec<Step>,
    /// Slots whose new server has not passed its check yet, or must not be opened yet.
    pub waiting: Vec<SlotId>,
    /// Slots that somebody holds in drain or maintenance by hand.
    pub held: Vec<SlotId>,
    /// Slots that a tracked server, or a name, keeps in maintenance.
    pub blocked: Vec<SlotId>,
    /// Slots whose weight another hand sets back and forth.
    pub contested: Vec<SlotId>,
    /// Slots that can never serve: their configured weight is 0, and the algorithm takes no other.
    pub weightless: Vec<SlotId>,
    /// Slots that the table speaks of, or that its size promises, and HAProxy does not have.
    pub missing: Vec<SlotId>,
    /// A slot is parked, and a check of the server before is under way: it is opened as soon as that is over.
    pub unopened: bool,
    /// Something is to be done as soon as HAProxy, or the time, allows it.
    pub pending: bool,
}

/// Compares what a backend is to be with what it runs.
pub fn reconcile(view: View<'_>) -> BackendSteps {
    let cover = Cover::of(&view);
    let mut plan = BackendSteps::default();
    for (id, server, stage) in view.slots() {
        match view.desired.of(id) {
            None => {}
            Some(_) if cover.needs(id) => plan.pending = true,
            Some(Wanted::Maintenance) => retire(&mut plan, id, server, stage),
            Some(Wanted::Serve { address, weight }) => {
                let slot = ServingSlot { id, server, stage, address, weight };
                slot.step(&view, &cover, &mut plan);
            }
        }
    }
    let serves = |id: &SlotId| matches!(view.desired.of(*id), Some(Wanted::Serve { .. }));
    let above = view.desired.slots.keys().copied().filter(|id| *id > view.size && serves(id));
    plan.missing = (1..=view.size).chain(above).filter(|id| !view.running.contains_key(id)).collect();
    plan
}

/// A slot that should not be in rotation here: at weight 0 too, so that it serves nobody if somebody lifts its maintenance.
fn retire(plan: &mut BackendSteps, slot: SlotId, server: &Running, stage: Stage) {
    let changes = match (stage, server.admin) {
        (Stage::Out, _) => return,
        (_, Admin::Maintenance) => vec![Change::Weight(0)],
        _ => vec![Change::Weight(0), Change::Maintenance],
    };
    plan.lower.push(Step { slot, changes });
}

/// A slot that is to serve.
struct ServingSlot<'a> {
    id: SlotId,
    server: &'a Running,
    stage: Stage,
    address: IpAddr,
    weight: Weight,
}

impl ServingSlot<'_> {
    fn step(&self, view: &View<'_>, cover: &Cover, plan: &mut BackendSteps) {
        let options = view.options;
        let (move_to, park) = (Change::Address(self.address, options.port), Change::Address(PARKED, options.port));
        let right = options.has_weight(self.server, self.weight);
        // A check that HAProxy has never seen pass here is waited for, if the server has one and others serve meanwhile.
        let gated = options.gate && self.server.checked && cover.has_time(self.id);
        let weight = options.set_weight(self.weight);
        if options.static_weights && self.weight > 0 && self.server.configured == 0 {
            plan.weightless.push(self.id);
        }
        let changes = match self.stage {
            Stage::Unknown | Stage::Out | Stage::Retiring => return,
            Stage::Held => {
                plan.held.push(self.id);
                let mut changes = Vec::new();
                if !options.is_there(self.server.address, self.address) {
                    changes.push(move_to);
                }
                // In maintenance never weight 0: after a restart of hsdo that would look like a stage of its own.
                if !right && (self.weight > 0 || self.server.admin == Admin::Drain) {
                    changes.push(weight);
                }
                changes
            }
            Stage::Parked if gated && self.server.admin == Admin::Maintenance && self.server.checking => {
                // That check is of the server before, and its result would count for this one.
                plan.waiting.push(self.id);
                (plan.unopened, plan.pending) = (true, true);
                return;
            }
            Stage::Parked if gated => {
                let ready = (self.server.admin == Admin::Maintenance).then_some(Change::Ready);
                let down = (ready.is_some() || self.server.up).then_some(Change::HealthDown);
                let weight = (self.weight > 0).then_some(weight);
                ready.into_iter().chain(down).chain([move_to]).chain(weight).collect()
            }
            Stage::Filled if gated => vec![park],
            Stage::Stale | Stage::Parked if self.server.admin != Admin::Maintenance => {
                vec![Change::Weight(0), Change::Maintenance, if gated { park } else { move_to }]
            }
            Stage::Stale | Stage::Parked => vec![Change::Weight(0), if gated { park } else { move_to }],
            Stage::Filled if self.server.inherited => {
                // It would take requests in the moment in which the server that it tracks is opened: that one comes first.
                plan.blocked.push(self.id);
                plan.pending = true;
                return;
            }
            Stage::Filled => [Change::Ready].into_iter().chain((self.weight > 0).then_some(weight)).collect(),
            Stage::Leaving => {
                self.note_contest(view, plan);
                if self.server.weight > 0 {
                    plan.lower.push(Step { slot: self.id, changes: vec![Change::Weight(0)] });
                }
                return;
            }
            Stage::Blocked | Stage::Down | Stage::Serving => {
                match self.stage {
                    Stage::Blocked => plan.blocked.push(self.id),
                    Stage::Down if !view.memory.is_proven(self.id) => plan.waiting.push(self.id),
                    _ => {}
                }
                self.note_contest(view, plan);
                if right || view.memory.rests(self.id) {
                    return;
                }
                // The line that opened it was cut before `health down`, or it comes back from draining.
                let unproven =
                    self.stage == Stage::Serving && self.server.weight == 0 && !view.memory.is_proven(self.id);
                let gate = (unproven && gated).then_some(Change::HealthDown);
                gate.into_iter().chain([weight]).collect()
            }
        };
        if !changes.is_empty() {
            plan.raise.push(Step { slot: self.id, changes });
        }
    }

    fn note_contest(&self, view: &View<'_>, plan: &mut BackendSteps) {
        if view.memory.is_contested(self.id) {
            plan.contested.push(self.id);
            plan.pending = true;
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
