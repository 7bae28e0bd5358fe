//! What every turn needs, on standby or leading: the edges, the limits, and the process-wide log state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use log::{Level, log_enabled};

use super::conditions::{self, Conditions, Line, SourceHints, conditions};
use super::limits::SlotLimits;
use super::plan::Plan;
use super::{orders, report};
use crate::about::Message;
use crate::cause::Cause;
use crate::order::{Order, Orders};
use crate::ports::{Gauges, Hooks, ReportReader, Source};
use crate::slot::{Observation, SlotId, Table};

/// What a leader needs to let instances go.
#[derive(Default)]
pub struct Departures {
    /// The report table, if there is one.
    pub reports: Option<Box<dyn ReportReader>>,
    /// The lifecycle hooks to complete, if any.
    pub hooks: Option<Box<dyn Hooks>>,
    /// How long a drain may take (`SERVER_DRAIN_SECONDS`).
    pub drain: Duration,
}

pub(super) struct TurnContext<S, T> {
    pub(super) source: S,
    pub(super) store: T,
    pub(super) limits: SlotLimits,
    pub(super) gauges: Arc<dyn Gauges>,
    pub(super) departures: Departures,
    /// Whether it takes over from a leader that lives, but is blind.
    pub(super) relieves: bool,
    /// Unknown states that were already logged.
    pub(super) named_states: BTreeSet<String>,
}

impl<S: Source, T> TurnContext<S, T> {
    pub(super) fn log_changes(&self, table: &Table, plan: &Plan, causes: &BTreeMap<SlotId, Cause>) {
        for slot in &plan.changes {
            let wrote = || Message::new(format!("wrote {}", report::row(slot)), report::about_slots([slot]));
            debug(wrote);
            let full = plan.full_weight(slot.id, &self.limits);
            for event in report::events(table.rows.get(&slot.id), slot, full) {
                let about = event.about.cause(causes.get(&slot.id).map(Cause::word));
                crate::log::write(Level::Info, module_path!(), &Message { about, ..event });
            }
        }
        for instance in &plan.ignored {
            debug(|| {
                Message::new(format!("ignored {}", report::instance(instance)), report::about_instances([instance]))
            });
        }
    }

    /// Logs which orders began, changed and ended, from those in force `before` to those in force `now`.
    pub(super) fn log_orders(&self, before: Option<&[Order]>, now: &[Order], over: &[Order], plan: &Plan) {
        for line in orders::changes(before, now, over, &plan.slots) {
            crate::log::write(Level::Info, module_path!(), &line);
        }
    }

    /// Logs which conditions began, changed and ended since `before`, and returns those that hold now.
    pub(super) fn log_conditions(
        &mut self,
        before: &Conditions,
        table: &Table,
        orders: &Orders,
        seen: &Observation,
        plan: &Plan,
    ) -> Conditions {
        for line in conditions::new_states(&mut self.named_states, seen) {
            crate::log::write(Level::Warn, module_path!(), &line);
        }
        let hints =
            SourceHints { missing_remedy: self.source.missing_remedy(), unseen_reason: self.source.unseen_reason() };
        let now = conditions(table, orders, seen, plan, &self.limits, hints);
        for line in conditions::changes(before, &now) {
            let (level, message) = match line {
                Line::Warn(message) => (Level::Warn, message),
                Line::Info(message) => (Level::Info, message),
            };
            crate::log::write(level, module_path!(), &message);
        }
        now
    }
}

/// Puts the message together only for a log that shows it.
fn debug(message: impl FnOnce() -> Message) {
    if log_enabled!(Level::Debug) {
        crate::log::write(Level::Debug, module_path!(), &message());
    }
}
