//! The server role: one turn asks the source, reads the table, decides, and writes what changed.
//!
//! This file joins the edges and the decisions. It knows neither AWS nor Consul nor how a row is spelt, and it decides
//! nothing itself: what to write is [`decide`]'s, who may write is `lease`'s, and both are pure.

mod allocate;
mod conditions;
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

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod turns;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

pub use limits::Limits;
pub use plan::{Plan, decide};

use crate::clock::Timestamp;
use crate::error::Error;
use crate::marker::{Marker, Moment, Stamp};
use crate::ports::{Gauges, Sighting, SlotStore, Snapshot, Source, TableReading};
use crate::slot::{Observation, Slot, Table};
use conditions::{Conditions, Line, Words, conditions};
use guard::Guard;
use lease::Lease;
use plan::decide_after;
use previous::Previous;

/// A turn that found nothing to do: while the same is seen and no step of a ramp is due, there is nothing to do again.
struct Settled {
    table: Table,
    seen: Observation,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Settled {
    fn holds(&self, table: &Table, seen: &Observation, now: Timestamp) -> bool {
        // A clock that went back makes times of the table lie in the future.
        let in_time = now >= self.from && self.until.is_none_or(|until| now < until);
        in_time && self.table == *table && self.seen == *seen
    }
}

/// The server role's loop, a turn at a time.
pub struct Server<S: Source, T: SlotStore> {
    source: S,
    store: T,
    limits: Limits,
    gauges: Arc<dyn Gauges>,
    published: Snapshot,
    /// Whether anything was published yet.
    shown: bool,
    conditions: Conditions,
    lease: Lease,
    /// The last turn, if it found nothing to do.
    settled: Option<Settled>,
    /// Whether the source ever answered: until then a standby asks it too, so that a wrong set-up shows at the start.
    fetched: bool,
    /// Another hand changed a row, and the version was not raised since: the clients do not know.
    edited: bool,
    /// Those that left every group too many at once. It is this process's memory: another leader begins anew.
    guard: Guard,
    /// When this process last turned as the leader.
    turned: Option<Instant>,
    /// The words for states that were told.
    told_words: BTreeSet<String>,
}

impl<S: Source, T: SlotStore> Server<S, T> {
    /// A server that has not turned yet. `process` is a name that no other process has, now or later.
    pub fn new(source: S, store: T, limits: Limits, gauges: Arc<dyn Gauges>, process: String) -> Self {
        gauges.leads(false);
        Server {
            source,
            store,
            limits,
            gauges,
            published: Snapshot::default(),
            shown: false,
            conditions: Conditions::new(),
            lease: Lease::new(process),
            settled: None,
            fetched: false,
            edited: false,
            guard: Guard::default(),
            turned: None,
            told_words: BTreeSet::new(),
        }
    }

    /// One turn: of a leader, or of one that waits to lead. After an error nothing is assumed about the table: the next
    /// turn reads it again. An error of the source or of the reading leaves table and gauges as they are; a failed write
    /// shows in the gauges the table as it was read.
    pub fn turn(&mut self, now: Moment) -> Result<(), Error> {
        if self.lease.is_held() {
            // First of all, and whatever becomes of the rest: a leader that sees no instances still leads.
            self.beat_if_due(now)?;
        }
        if self.lease.is_held() {
            let before = self.turned.replace(now.clock);
            let elapsed = before.map_or(Duration::ZERO, |before| now.clock.saturating_duration_since(before));
            let seen = self.ask(&Table::default())?;
            return self.lead(seen, elapsed, now);
        }
        let sighting = self.store.read_marker()?;
        let free = self.watch(&sighting.marker, now);
        if !free && self.fetched {
            return Ok(());
        }
        // Whoever cannot see the instances must not lead.
        let seen = self.ask(&Table::default())?;
        self.fetched = true;
        if !free || !self.take(&sighting, now)? {
            return Ok(());
        }
        self.turned = Some(now.clock);
        self.lead(seen, Duration::ZERO, now)
    }

    /// Asks the source, also about the occupants of `table`, and of the table as it was in the turn before.
    fn ask(&mut self, table: &Table) -> Result<Observation, Error> {
        let known = self.published.slots.values();
        let occupants: Vec<&str> = known.chain(table.slots()).filter_map(name).collect();
        self.source.fetch(&occupants)
    }

    /// Whether `seen` is the answer to a question about all occupants of `table`, or tells of them without having been
    /// asked: it was asked for about those of the turn before.
    fn tells_of_all(&self, seen: &Observation, table: &Table) -> bool {
        let before = |id| self.published.slots.get(id).and_then(name);
        let mut new = table.slots().filter(|slot| name(slot) != before(&slot.id)).filter_map(name).peekable();
        new.peek().is_none() || seen.tells_of_all(&new.collect::<Vec<_>>())
    }

    /// Between two turns that are far apart, once a second: keeps the lease, or watches it. True asks for a turn at once.
    /// What fails here is left to the next turn to report.
    pub fn pulse(&mut self, now: Moment) -> bool {
        let pulse = if self.lease.is_held() {
            self.beat_if_due(now).map(|()| false)
        } else {
            self.store.read_marker().map(|sighting| self.watch(&sighting.marker, now))
        };
        pulse.unwrap_or_else(|error| {
            debug!("between two turns: {error}");
            false
        })
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        self.lease.is_held()
    }

    /// Whether another server has the lease, and its heartbeat was seen to change.
    pub fn sees_a_leader(&self) -> bool {
        self.lease.rival_is_alive()
    }

    /// Gives the lease back, if this server has it, so that another one can lead at once.
    pub fn release(&mut self) -> Result<(), Error> {
        if self.lease.is_held() {
            let name = self.lease.name();
            self.lease.lost();
            self.gauges.leads(false);
            self.store.release(&name)?;
            info!("gave the lease of the table back");
        }
        Ok(())
    }

    /// What a turn at `now` would write, a line a slot, or `nothing to write`. Writes and publishes nothing, and needs no lease.
    pub fn dry_run(&mut self, now: Timestamp) -> Result<String, Error> {
        let table = self.store.read()?.table;
        let seen = self.ask(&table)?;
        let plan = decide(&table, &seen, now, &self.limits);
        self.log_conditions(&table, &seen, &plan);
        Ok(report::preview(&table, &plan, self.limits.max))
    }

    /// The part of a turn that only the leader does.
    fn lead(&mut self, mut seen: Observation, elapsed: Duration, now: Moment) -> Result<(), Error> {
        let TableReading { table, marker, changed } = self.store.read()?;
        if !self.lease.confirm(&marker) {
            self.step_down();
            return Ok(());
        }
        self.edited |= changed;
        if !self.tells_of_all(&seen, &table) {
            seen = self.ask(&table)?;
        }
        if !self.edited
            && self.guard.is_idle()
            && self.settled.as_ref().is_some_and(|settled| settled.holds(&table, &seen, now.time))
        {
            return Ok(());
        }
        self.settled = None;
        let previous = Previous { slots: &self.published.slots, guard: &self.guard, elapsed };
        let plan = decide_after(&table, &previous, &seen, now.time, &self.limits);
        // Also where the write fails: the answer said what it said.
        self.guard.clone_from(&plan.guard);
        let unreadable = table.faults().len();
        if !plan.changes.is_empty() {
            match self.store.write(&plan.changes, &self.lease.next(true, now)) {
                Ok(written) => {
                    self.edited = false;
                    self.beaten(&written, now.clock);
                }
                Err(error) => {
                    let slots = table.slots().map(|slot| (slot.id, slot.clone())).collect();
                    self.publish(Snapshot { slots, unreadable, ..self.published.clone() });
                    return Err(error);
                }
            }
        } else if self.edited {
            debug!("a row was changed by another hand: the clients are told");
            self.beat(true, now)?;
            self.edited = false;
        }
        self.log_changes(&table, &plan);
        self.log_conditions(&table, &seen, &plan);
        self.publish(Snapshot {
            slots: plan.slots,
            unreadable,
            unplaced: plan.unplaced.len(),
            missing_groups: seen.missing_groups.len(),
            last_resort: plan.last_resort.len(),
            guarded: plan.guarded.len(),
            unseen: seen.unseen().count(),
            strange: seen.strange.len(),
        });
        if plan.changes.is_empty() {
            self.settled = Some(Settled { table, seen, from: now.time, until: plan.due });
        }
        Ok(())
    }

    /// Looks at another one's lease. True: it may be taken.
    fn watch(&mut self, marker: &Marker, now: Moment) -> bool {
        let before = self.lease.rival().map(str::to_owned);
        let free = self.lease.watch(marker, now.clock);
        if self.lease.rival_is_alive() {
            self.gauges.heartbeat(self.lease.rival_since().unwrap_or(now.clock));
        }
        if let Some(rival) = self.lease.rival().filter(|rival| before.as_deref() != Some(*rival)) {
            info!("standing by: {} leads the table", rival.escape_debug());
        }
        free
    }

    /// Tries to take the lease from what `seen` shows. False: another one was quicker.
    fn take(&mut self, seen: &Sighting<T::Raw>, now: Moment) -> Result<bool, Error> {
        let claim = self.lease.claim(&seen.marker, now);
        if !self.store.take(seen, &claim)? {
            debug!("another server was quicker to take the lease");
            return Ok(false);
        }
        let name = self.lease.name();
        match seen.marker.leader.as_deref().filter(|leader| *leader != name) {
            Some(dead) => {
                warn!("leads the table as {name}: took over from {}, whose heartbeat stood still", dead.escape_debug());
            }
            None => info!("leads the table as {name}"),
        }
        self.lease.won(&claim, now.clock);
        self.gauges.leads(true);
        self.gauges.heartbeat(now.clock);
        Ok(true)
    }

    fn beat_if_due(&mut self, now: Moment) -> Result<(), Error> {
        if self.lease.is_due(now.clock) { self.beat(false, now) } else { Ok(()) }
    }

    fn beat(&mut self, raise: bool, now: Moment) -> Result<(), Error> {
        let next = self.lease.next(raise, now);
        if self.store.beat(&next)? {
            self.beaten(&next, now.clock);
        } else {
            self.step_down();
        }
        Ok(())
    }

    fn beaten(&mut self, written: &Stamp, now: Instant) {
        self.lease.wrote(written, now);
        self.gauges.heartbeat(now);
    }

    /// The table names another term than ours. What it holds is another one's to show.
    fn step_down(&mut self) {
        warn!("lost the lease of the table, and stands by");
        self.lease.lost();
        self.gauges.leads(false);
        self.publish(Snapshot::default());
        self.conditions = Conditions::new();
        (self.settled, self.edited) = (None, false);
        (self.guard, self.turned) = (Guard::default(), None);
    }

    fn publish(&mut self, state: Snapshot) {
        if state != self.published || !self.shown {
            self.gauges.publish(&state);
            self.published = state;
            self.shown = true;
        }
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

    fn log_conditions(&mut self, table: &Table, seen: &Observation, plan: &Plan) {
        for word in conditions::new_words(&mut self.told_words, seen) {
            warn!("{word}");
        }
        let words =
            Words { missing_remedy: self.source.missing_remedy(), unseen_because: self.source.unseen_because() };
        let current = conditions(table, seen, plan, &self.limits, words);
        for line in conditions::changes(&self.conditions, &current) {
            match line {
                Line::Warn(text) => warn!("{text}"),
                Line::Info(text) => info!("{text}"),
            }
        }
        self.conditions = current;
    }
}

/// The name of a slot's occupant.
fn name(slot: &Slot) -> Option<&str> {
    slot.occupant.as_ref().map(|occupant| occupant.name.as_str())
}
