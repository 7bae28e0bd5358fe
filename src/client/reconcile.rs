//! Computes the steps that make one backend match, from each slot's stage and from `cover`. Pure.

use super::cover::Cover;
use super::placement::{Endpoint, Wanted};
use super::stage::{PARKED, Stage};
use super::view::View;
use crate::ports::{Admin, Change, Running};
use crate::slot::{SlotId, Weight};

/// The changes of one slot, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The slot.
    pub slot: SlotId,
    /// What to send for it.
    pub changes: Vec<Change>,
}

/// The steps that one reading of a backend asks for, and the slots that an operator should know about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendPlan {
    /// Steps that bring servers into rotation or correct a weight. Sent first; then the backend is read again.
    pub raise: Vec<Step>,
    /// Steps that take servers out of rotation. Sent when nothing is left to raise, so that replacing everything does not empty the
    /// backend.
    pub lower: Vec<Step>,
    /// Slots whose new server has not passed its check, or cannot be opened yet.
    pub waiting: Vec<SlotId>,
    /// Slots that an operator or agent holds in drain or maintenance.
    pub held: Vec<SlotId>,
    /// Slots that a tracked server or an unresolved name keeps in maintenance, or whose address HAProxy's resolver sets.
    pub blocked: Vec<SlotId>,
    /// Slots whose weight something else keeps changing back.
    pub contested: Vec<SlotId>,
    /// Slots whose server something else keeps moving to another address.
    pub moved: Vec<SlotId>,
    /// Slots that can never serve: their configured weight is 0, and the algorithm is static.
    pub weightless: Vec<SlotId>,
    /// Slots that serve on, though they should not, because no other server can take their traffic yet.
    pub covering: Vec<SlotId>,
    /// Slots up to the list size, or with an occupant, that HAProxy does not have.
    pub missing: Vec<SlotId>,
    /// A slot stays parked until a check of its previous server, or requests to it, end.
    pub unopened: bool,
    /// Something remains to be done once HAProxy's state or the time allows it.
    pub pending: bool,
}

/// Compares the desired state of a backend with the actual one.
pub fn reconcile(view: View<'_>) -> BackendPlan {
    let cover = Cover::of(&view);
    let mut plan = BackendPlan::default();
    for (id, server, stage) in view.slots() {
        if view.memory.is_moved(id) {
            plan.moved.push(id);
        }
        match view.desired.of(id) {
            None => {}
            Some(_) if cover.is_needed(id) => {
                plan.covering.push(id);
                plan.pending = true;
            }
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

/// Takes a slot out of rotation; at weight 0 too, so that it takes no traffic if its maintenance is lifted.
fn retire(plan: &mut BackendPlan, slot: SlotId, server: &Running, stage: Stage) {
    let changes = match (stage, server.admin) {
        (Stage::Out, _) => return,
        (_, Admin::Maintenance) => vec![Change::Weight(0)],
        _ => vec![Change::Weight(0), Change::Maintenance],
    };
    plan.lower.push(Step { slot, changes });
}

struct ServingSlot<'a> {
    id: SlotId,
    server: &'a Running,
    stage: Stage,
    address: Endpoint,
    weight: Weight,
}

impl ServingSlot<'_> {
    fn step(&self, view: &View<'_>, cover: &Cover, plan: &mut BackendPlan) {
        let options = view.options;
        let (move_to, park) = (options.set_address(self.address), options.set_address(PARKED.into()));
        let right = options.has_weight(self.server, self.weight);
        let gated = options.gate && self.server.checked && cover.can_wait(self.id);
        let weight = options.set_weight(self.weight);
        if options.static_weights && self.weight > 0 && self.server.configured == 0 {
            plan.weightless.push(self.id);
        }
        let changes = match self.stage {
            Stage::Unknown | Stage::Out | Stage::Retiring => return,
            Stage::Held => {
                plan.held.push(self.id);
                let mut changes = Vec::new();
                if !options.has_address(self.server.address, self.address) {
                    changes.push(move_to);
                }
                // Never weight 0 in maintenance: after a restart of hsdo that would look like hsdo's own stage.
                if !right && (self.weight > 0 || self.server.admin == Admin::Drain) {
                    changes.push(weight);
                }
                changes
            }
            Stage::Parked
                if gated
                    && self.server.admin == Admin::Maintenance
                    && (self.server.checking || view.memory.is_spared(self.id)) =>
            {
                // The result of the previous server's check would count for this one, and its connections would be used for this one.
                plan.waiting.push(self.id);
                (plan.unopened, plan.pending) = (true, true);
                return;
            }
            // What opens a server begins with what the reading showed: another process may answer by now, whose server is at its
            // placeholder, with a weight.
            Stage::Parked if gated => {
                let weight = (self.weight > 0).then_some(weight);
                [Change::Weight(0), park, Change::Ready, Change::HealthDown, move_to]
                    .into_iter()
                    .chain(weight)
                    .collect()
            }
            Stage::Filled if gated => vec![park],
            Stage::Stale | Stage::Parked if self.server.admin != Admin::Maintenance => {
                vec![Change::Weight(0), Change::Maintenance, if gated { park } else { move_to }]
            }
            Stage::Stale | Stage::Parked => vec![Change::Weight(0), if gated { park } else { move_to }],
            Stage::Filled if self.server.inherited => {
                // Opened now, it would take requests the moment that the tracked server is opened, before that one's check.
                plan.blocked.push(self.id);
                plan.pending = true;
                return;
            }
            Stage::Filled => [move_to, Change::Ready].into_iter().chain((self.weight > 0).then_some(weight)).collect(),
            Stage::Leaving => {
                self.note_contested(view, plan);
                if self.server.weight > 0 {
                    plan.lower.push(Step { slot: self.id, changes: vec![Change::Weight(0)] });
                }
                return;
            }
            // Its address is not ours, and so no weight of ours belongs there.
            Stage::Blocked if self.server.named => {
                plan.blocked.push(self.id);
                return;
            }
            Stage::Blocked | Stage::Down | Stage::Serving => {
                match self.stage {
                    Stage::Blocked => plan.blocked.push(self.id),
                    Stage::Down if !view.memory.is_proven(self.id) => plan.waiting.push(self.id),
                    _ => {}
                }
                self.note_contested(view, plan);
                if right || view.memory.is_paused(self.id) {
                    return;
                }
                // Its opening line was cut before `health down`, or it comes back from draining.
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

    fn note_contested(&self, view: &View<'_>, plan: &mut BackendPlan) {
        if view.memory.is_contested(self.id) {
            plan.contested.push(self.id);
            plan.pending = true;
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
