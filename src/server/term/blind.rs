//! Orders in a turn whose source says nothing.

use std::time::Duration;

use super::{Lease, Term, drained_by_order, with_slots};
use crate::marker::Moment;
use crate::ports::{SlotStore, Snapshot, Source, TableReading, TurnError};
use crate::server::context::TurnContext;
use crate::server::plan::decide_after;
use crate::server::previous::Previous;
use crate::server::reason::{causes, reasons};
use crate::slot::Observation;

impl Term {
    /// Carries out orders while the source says nothing: every occupant is unknown, and only those change whom an order drains, or
    /// drained until it was over.
    pub(super) fn obey_blindly<S: Source, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        let TableReading { table, marker, changed, orders, time } = context.store.read()?;
        if !self.lease.confirm(&marker) {
            return Ok(Lease::Lost);
        }
        self.edited |= changed;
        let blind = Observation::unknown(context.limits.entries.iter().map(ToString::to_string));
        let (in_force, over) = orders.split(&blind, time);
        if in_force.is_empty() && self.ordered.is_empty() {
            return Ok(Lease::Held);
        }
        let slots = self.published.as_ref().map(|published| published.slots.clone()).unwrap_or_default();
        let (guard, ordered, elapsed) = (&self.guard, &self.ordered, Duration::ZERO);
        let previous = Previous { slots: &slots, guard, ordered, time, elapsed };
        let mut plan = decide_after(&table, &in_force, &previous, &blind, now.time, &context.limits);
        // A slot that is freed holds a copy of another row's server: the plan counts on its end.
        plan.changes.retain(|slot| {
            let is_ordered = plan.ordered.contains_key(&slot.id) || self.ordered.contains_key(&slot.id);
            is_ordered || slot.occupant.is_none()
        });
        if !plan.changes.is_empty() {
            let stamp = self.stamp(true, now);
            let stamp = context.store.write(&plan.changes, &stamp)?;
            self.wrote(&*context.gauges, &stamp, now.clock);
            let mut causes = causes(&table, &blind, &plan, now.time, &context.limits);
            causes.retain(|id, _| plan.changes.iter().any(|slot| slot.id == *id));
            context.log_changes(&table, &plan, &causes);
            self.steady = None;
            let before = self.published.clone().unwrap_or_default();
            let mut shown = Snapshot { orders: with_slots(&in_force, &plan.slots), ..before };
            shown.slots.extend(plan.changes.iter().map(|slot| (slot.id, slot.clone())));
            shown.reasons.extend(reasons(causes, &plan, &context.limits));
            self.publish(&*context.gauges, shown);
        }
        context.log_orders(self.in_force.as_deref(), &in_force, &over, &plan);
        (self.in_force, self.ordered) = (Some(in_force), drained_by_order(&plan));
        Ok(Lease::Held)
    }
}
