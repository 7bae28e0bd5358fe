//! The server role: one turn asks the source, reads the table, decides, and writes what changed.
//!
//! This file joins the edges and the decision. It knows neither AWS nor Consul nor how a row is spelt,
//! and it decides nothing itself: that is [`decide`], which is pure.

mod allocate;
mod conditions;
mod drain;
mod plan;
mod ramp;
mod report;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};

pub use plan::{Plan, decide};

use crate::clock::Timestamp;
use crate::error::Error;
use crate::slot::{Observation, Slot, SlotId, Table, Weight};
use conditions::{Conditions, Line, conditions};

/// Where the instances come from: AutoScaling groups, or Consul.
pub trait Source {
    /// One whole answer. A failed, partial or unreadable answer is an error, never a shorter list.
    fn fetch(&mut self) -> Result<Observation, Error>;
    /// What a person can do about configured groups that the source does not know, for the log.
    fn missing_remedy(&self) -> &'static str {
        "correct the configured names or create the groups"
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn fetch(&mut self) -> Result<Observation, Error> {
        (**self).fetch()
    }

    fn missing_remedy(&self) -> &'static str {
        (**self).missing_remedy()
    }
}

/// The table, as the server uses it.
pub trait Store {
    /// Every row, strongly consistent.
    fn read(&mut self) -> Result<Table, Error>;
    /// Writes these slots, each on the condition that its row is still as the last [`Store::read`] found it.
    /// Some groups of slots may be written when a later one fails: the next turn reads again.
    fn write(&mut self, slots: &[Slot]) -> Result<(), Error>;
}

/// Where the state of the table goes after a turn: the exporter's numbers.
pub trait Gauges: Send + Sync {
    /// Replaces everything shown before by `state`: a server that is not in it is gone.
    fn publish(&self, state: &Snapshot);
}

/// What the gauges show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The readable rows of the table by their number, as the turn left them.
    pub slots: BTreeMap<SlotId, Slot>,
    /// Items of the table that cannot be read.
    pub unreadable: usize,
    /// Ready instances that wait for a slot.
    pub unplaced: usize,
    /// Configured groups that the source does not know.
    pub missing_groups: usize,
    /// Slots whose leaving server keeps serving because no other can.
    pub last_resort: usize,
}

/// What the configuration says about slots and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// N, the number of slots that take servers: 1 to [`crate::slot::MAX_SLOT`].
    pub size: SlotId,
    /// The groups in the order of the configuration: the order in which their instances are seated.
    pub groups: Vec<String>,
    /// The weight of a new server, 0 to `max`.
    pub min: Weight,
    /// The weight that a server ramps to, `min` to [`crate::slot::MAX_WEIGHT`].
    pub max: Weight,
    /// What one step of the ramp adds, 1 to [`crate::slot::MAX_WEIGHT`].
    pub step: Weight,
    /// The time between two steps, above zero.
    pub interval: Duration,
}

/// The server role's loop, a turn at a time.
pub struct Server<S: Source, T: Store> {
    source: S,
    store: T,
    limits: Limits,
    gauges: Arc<dyn Gauges>,
    published: Snapshot,
    conditions: Conditions,
}

/// What one turn saw and decided, before anything is written.
struct Draft {
    seen: Observation,
    table: Table,
    plan: Plan,
}

impl<S: Source, T: Store> Server<S, T> {
    /// A server that has not turned yet.
    pub fn new(source: S, store: T, limits: Limits, gauges: Arc<dyn Gauges>) -> Self {
        Server { source, store, limits, gauges, published: Snapshot::default(), conditions: Conditions::new() }
    }

    /// One turn. After an error nothing is assumed about the table: the next turn reads it again.
    /// An error of the source or of the reading leaves table and gauges as they are; a failed write
    /// shows in the gauges the table as it was read.
    pub fn turn(&mut self, now: Timestamp) -> Result<(), Error> {
        let Draft { seen, table, plan } = self.draft(now)?;
        let unreadable = table.faults().len();
        if !plan.changes.is_empty()
            && let Err(error) = self.store.write(&plan.changes)
        {
            let slots = table.slots().map(|slot| (slot.id, slot.clone())).collect();
            self.publish(Snapshot { slots, unreadable, ..self.published.clone() });
            return Err(error);
        }
        self.log_changes(&table, &plan);
        self.log_conditions(conditions(&table, &seen, &plan, &self.limits, self.source.missing_remedy()));
        self.publish(Snapshot {
            slots: plan.slots,
            unreadable,
            unplaced: plan.unplaced.len(),
            missing_groups: seen.missing_groups.len(),
            last_resort: plan.last_resort.len(),
        });
        Ok(())
    }

    /// What a turn at `now` would write, a line a slot, or `nothing to write`. Writes and publishes nothing.
    pub fn dry_run(&mut self, now: Timestamp) -> Result<String, Error> {
        let Draft { seen, table, plan } = self.draft(now)?;
        self.log_conditions(conditions(&table, &seen, &plan, &self.limits, self.source.missing_remedy()));
        Ok(report::preview(&table, &plan, self.limits.max))
    }

    fn draft(&mut self, now: Timestamp) -> Result<Draft, Error> {
        let seen = self.source.fetch()?;
        let table = self.store.read()?;
        let plan = decide(&table, &seen, now, &self.limits);
        Ok(Draft { seen, table, plan })
    }

    fn publish(&mut self, state: Snapshot) {
        self.gauges.publish(&state);
        self.published = state;
    }

    fn log_changes(&self, table: &Table, plan: &Plan) {
        for slot in &plan.changes {
            debug!("wrote {}", report::row(slot));
            let full = plan.full_weight(slot.id, self.limits.max);
            for line in report::events(table.rows.get(&slot.id), slot, full) {
                info!("{line}");
            }
        }
        for instance in &plan.ignored {
            debug!("ignored {}", report::instance(instance));
        }
    }

    fn log_conditions(&mut self, current: Conditions) {
        for line in conditions::turned(&self.conditions, &current) {
            match line {
                Line::Warn(text) => warn!("{text}"),
                Line::Info(text) => info!("{text}"),
            }
        }
        self.conditions = current;
    }
}
