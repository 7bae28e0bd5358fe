//! The server role: one turn asks the source, reads the table, decides, and writes what changed.
//!
//! # The whole rule
//!
//! *Who writes* (`lease`). Of all servers on a table one leads. A `Standby` watches the heartbeat in slot 1's item and claims
//! the lease when it is free or has lapsed. A `Term` lasts until the table names another one; what a leader knows ends
//! with it.
//!
//! *What a turn does* (`term`). It beats, asks the source, reads the table, decides, and writes only the slots that differ. After
//! an error it assumes nothing about the table: the next turn reads it again.
//!
//! *Who holds which slot* (`allocate`). Nobody is ever moved. What becomes of an occupant follows from what was seen of it
//! (`judge`): unknown is not empty. Where too many vanish at once, they are kept for a while (`guard`). Newcomers take the
//! free slots (`seat`), first those of their own group.
//!
//! *What a server weighs.* A new one ramps up from MIN to its full weight (`ramp`). A leaving one gets weight 0 as soon as
//! another serves (`drain`).
//!
//! `plan` puts these together; all of them are pure. `conditions` and `report` find the words for the log. Nothing here knows
//! AWS, Consul, or how a row is spelt.

mod allocate;
mod conditions;
mod context;
mod drain;
mod guard;
mod judge;
mod lease;
mod limits;
mod plan;
mod previous;
mod ramp;
mod report;
mod seat;
mod standby;
mod term;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod turns;

use std::collections::BTreeSet;
use std::sync::Arc;

use log::{debug, info, warn};

pub use limits::SlotLimits;
pub use plan::{Plan, decide};

use crate::clock::Timestamp;
use crate::error::Error;
use crate::marker::Moment;
use crate::ports::{Gauges, SlotStore, Snapshot, Source};
use conditions::Conditions;
use context::TurnContext;
use standby::Standby;
use term::{Lease, Term};

/// The server role, a turn at a time.
pub struct Server<S: Source, T: SlotStore> {
    context: TurnContext<S, T>,
    role: Role,
}

/// Whether this server may write.
enum Role {
    StandingBy(Standby),
    Leading(Box<Term>),
}

impl<S: Source, T: SlotStore> Server<S, T> {
    /// A server that stands by. `process` is a name that no other process has, now or later.
    pub fn new(source: S, store: T, limits: SlotLimits, gauges: Arc<dyn Gauges>, process: String) -> Self {
        gauges.leads(false);
        let context = TurnContext { source, store, limits, gauges, named_states: BTreeSet::new() };
        Server { context, role: Role::StandingBy(Standby::first(process)) }
    }

    /// One turn. A server whose term turns out to be over stands by in the same turn.
    ///
    /// # Errors
    /// An error of the source or of a reading leaves table and gauges as they are. After a failed write the gauges show the
    /// table as it was read.
    pub fn turn(&mut self, now: Moment) -> Result<(), Error> {
        if let Role::Leading(term) = &mut self.role {
            // Before anything else: a leader that sees no instances still leads.
            let lease = term.beat_if_due(&mut self.context, now)?;
            self.stand_down_if_lost(lease);
        }
        match &mut self.role {
            Role::Leading(term) => {
                let lease = term.turn(&mut self.context, now)?;
                self.stand_down_if_lost(lease);
            }
            Role::StandingBy(standby) => {
                if let Some((mut term, seen)) = standby.turn(&mut self.context, now)? {
                    let outcome = term.first_turn(&mut self.context, seen, now);
                    self.role = Role::Leading(Box::new(term));
                    self.stand_down_if_lost(outcome?);
                }
            }
        }
        Ok(())
    }

    /// Keeps the lease or watches it between two turns that are far apart, to be called once a second. True asks for a turn
    /// at once. A failure is left for the next turn to report.
    pub fn pulse(&mut self, now: Moment) -> bool {
        let pulse = match &mut self.role {
            Role::Leading(term) => term.beat_if_due(&mut self.context, now).map(|lease| {
                self.stand_down_if_lost(lease);
                false
            }),
            Role::StandingBy(standby) => standby.look(&mut self.context, now),
        };
        pulse.unwrap_or_else(|error| {
            debug!("between turns: {error}");
            false
        })
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    /// Whether another server leads, and its heartbeat was seen to change.
    pub fn sees_leader(&self) -> bool {
        matches!(&self.role, Role::StandingBy(standby) if standby.sees_leader())
    }

    /// Gives the lease back, if this server has it, so that another one can lead at once.
    ///
    /// # Errors
    /// The table could not be told; the lease lapses by itself.
    pub fn release(&mut self) -> Result<(), Error> {
        if let Role::Leading(term) = &self.role {
            let name = term.name().clone();
            self.role = Role::StandingBy(Standby::after(&name));
            self.context.gauges.leads(false);
            self.context.store.release(&name.to_string())?;
            info!("released the lease of the table");
        }
        Ok(())
    }

    /// What a turn at `now` would write, a line a slot, or `nothing to write`. Writes and publishes nothing, and needs no
    /// lease.
    ///
    /// # Errors
    /// The reading or the source failed.
    pub fn dry_run(&mut self, now: Timestamp) -> Result<String, Error> {
        let TurnContext { source, store, limits, .. } = &mut self.context;
        let table = store.read()?.table;
        let occupants = table.slots().filter_map(|slot| slot.occupant.as_ref()).map(|occupant| occupant.name.as_str());
        let seen = source.fetch(&occupants.collect::<Vec<_>>())?;
        let plan = decide(&table, &seen, now, limits);
        let preview = report::preview(&table, &plan, limits.max);
        self.context.log_conditions(&Conditions::new(), &table, &seen, &plan);
        Ok(preview)
    }

    /// Stands by if the lease was lost. What the term showed is another server's to show.
    fn stand_down_if_lost(&mut self, lease: Lease) {
        if let (Role::Leading(term), Lease::Lost) = (&self.role, lease) {
            warn!("lost the lease of the table: standing by");
            self.role = Role::StandingBy(Standby::after(term.name()));
            self.context.gauges.leads(false);
            self.context.gauges.publish(&Snapshot::default());
        }
    }
}
