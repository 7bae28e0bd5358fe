//! The server role: one turn asks the source, reads the table, decides, and writes what changed.
//!
//! - `lease`: of all servers on a table, one leads. A `Standby` watches the heartbeat in slot 1's item and claims the lease
//!   when it is free or has expired, or when it sees the instances and the leader says that it does not (`sight`). A `Term` lasts
//!   until the table names another one; all of a leader's state ends with it.
//! - `term`: a turn beats, fetches the instances, reads the table, decides, and writes only the slots that differ. After an
//!   error nothing is assumed about the table: the next turn reads it again.
//! - `allocate`: instances are never moved. What becomes of an occupant depends on what the source says about it (`judge`):
//!   unknown is not empty. If too many vanish at once, they are kept for a while (`guard`). New instances get free slots
//!   (`seat`), preferably ones that their own group had.
//! - `departure`: when an instance may go that a lifecycle hook holds back, by what the load balancers report (`balancers`).
//! - `ramp`, `drain`: a new server's weight ramps up from MIN to its full weight; a draining server gets weight 0 as soon as
//!   another one serves.
//!
//! `plan` joins these, and all of them are pure. `conditions` and `report` write the log messages. AWS, Consul and the
//! table's format are unknown here.

mod allocate;
mod balancers;
mod conditions;
mod context;
mod departure;
mod drain;
mod guard;
mod judge;
mod lease;
mod limits;
mod orders;
mod plan;
mod previous;
mod ramp;
mod reason;
mod report;
mod seat;
mod sight;
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

pub use context::Departures;
pub use limits::SlotLimits;
pub use plan::{Plan, decide};
pub use reason::{causes, factor, left_out};

use crate::clock::Timestamp;
use crate::marker::Moment;
use crate::ports::{Gauges, SlotStore, Snapshot, Source, TableReading, TurnError};
use conditions::Conditions;
use context::TurnContext;
use standby::Standby;
use term::{Lease, Term};

/// The server role, driven one turn at a time.
pub struct Server<S: Source, T: SlotStore> {
    context: TurnContext<S, T>,
    leadership: Leadership,
}

enum Leadership {
    StandingBy(Standby),
    Leading(Box<Term>),
}

impl<S: Source, T: SlotStore> Server<S, T> {
    /// A server on standby. `process` must be unique among all processes, past and future.
    pub fn new(source: S, store: T, limits: SlotLimits, gauges: Arc<dyn Gauges>, process: String) -> Self {
        gauges.leads(false);
        let departures = Departures::default();
        let context =
            TurnContext { source, store, limits, gauges, departures, relieves: true, named_states: BTreeSet::new() };
        Server { context, leadership: Leadership::StandingBy(Standby::first(process)) }
    }

    /// From now on, while it leads, this server reads what load balancers report, and lets instances go that hooks hold back.
    pub fn watch_departures(&mut self, departures: Departures) {
        self.context.departures = departures;
    }

    /// From now on this server takes over from no leader that lives, since it will not stay.
    pub fn leave_live_leaders(&mut self) {
        self.context.relieves = false;
    }

    /// Runs one turn. A server that finds its term over goes on standby in the same turn.
    ///
    /// # Errors
    /// If the source or a read fails, table and gauges stay as they are. After a failed write the gauges show the table as
    /// read.
    pub fn turn(&mut self, now: Moment) -> Result<(), TurnError> {
        if let Leadership::Leading(term) = &mut self.leadership {
            // First, so that a leader whose source fails keeps its lease.
            let lease = term.beat_if_due(&mut self.context, now)?;
            self.stand_down_if_lost(lease);
        }
        match &mut self.leadership {
            Leadership::Leading(term) => {
                let lease = term.turn(&mut self.context, now)?;
                self.stand_down_if_lost(lease);
            }
            Leadership::StandingBy(standby) => {
                if let Some((mut term, seen)) = standby.turn(&mut self.context, now)? {
                    let outcome = term.first_turn(&mut self.context, seen, now);
                    self.leadership = Leadership::Leading(Box::new(term));
                    self.stand_down_if_lost(outcome?);
                }
            }
        }
        Ok(())
    }

    /// Renews or watches the lease between turns; call it once a second. True asks for a turn at once. Errors are left for
    /// the next turn to report.
    pub fn pulse(&mut self, now: Moment) -> bool {
        let pulse = match &mut self.leadership {
            Leadership::Leading(term) => term.beat_if_due(&mut self.context, now).map(|lease| {
                self.stand_down_if_lost(lease);
                false
            }),
            Leadership::StandingBy(standby) => standby.may_take_lease(&mut self.context, now),
        };
        pulse.unwrap_or_else(|error| {
            debug!("between turns: {error}");
            false
        })
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        matches!(self.leadership, Leadership::Leading(_))
    }

    /// Whether another server leads and its heartbeat was seen to change.
    pub fn sees_leader(&self) -> bool {
        matches!(&self.leadership, Leadership::StandingBy(standby) if standby.sees_leader())
    }

    /// Releases the lease, if this server holds it, so that another one can lead at once.
    ///
    /// # Errors
    /// The write failed; the lease will expire by itself.
    pub fn release(&mut self) -> Result<(), TurnError> {
        if let Leadership::Leading(term) = &self.leadership {
            let name = term.name().clone();
            self.leadership = Leadership::StandingBy(Standby::after(&name));
            self.context.gauges.leads(false);
            self.context.store.release(&name.to_string())?;
            info!("released the lease of the table");
        }
        Ok(())
    }

    /// What a turn at `now` would write, one line per slot, or `nothing to write`. Needs no lease, writes and publishes
    /// nothing.
    ///
    /// # Errors
    /// The read or the source failed.
    pub fn dry_run(&mut self, now: Timestamp) -> Result<String, TurnError> {
        let TurnContext { source, store, limits, .. } = &mut self.context;
        let TableReading { table, orders, time, .. } = store.read()?;
        let occupants = table.slots().filter_map(|slot| slot.occupant.as_ref()).map(|occupant| occupant.name.as_str());
        let seen = source.fetch(&occupants.chain(orders.instances()).collect::<Vec<_>>())?;
        let (in_force, _) = orders.split(&seen, time);
        let plan = decide(&table, &in_force, &seen, now, limits);
        let preview = report::preview(&table, &plan, limits);
        self.context.log_conditions(&Conditions::new(), &table, &orders, &seen, &plan);
        Ok(preview)
    }

    /// Goes on standby if the lease was lost, and clears the gauges, which the new leader publishes.
    fn stand_down_if_lost(&mut self, lease: Lease) {
        if let (Leadership::Leading(term), Lease::Lost) = (&self.leadership, lease) {
            warn!("lost the lease of the table: standing by");
            self.leadership = Leadership::StandingBy(Standby::after(term.name()));
            self.context.gauges.leads(false);
            self.context.gauges.publish(&Snapshot::default());
        }
    }
}
