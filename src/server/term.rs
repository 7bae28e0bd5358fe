//! One term of a leading server, from taking the lease to losing it. All of a leader's state is here and ends with the term.

mod blind;
mod farewell;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::conditions::Conditions;
use farewell::Farewell;

use super::context::TurnContext;
use super::guard::Guard;
use super::lease::{HeldLease, TermName};
use super::limits::SlotLimits;
use super::plan::{Plan, decide_after};
use super::previous::Previous;
use super::reason::{causes, left_out, reasons};
use super::sight::Sight;
use crate::clock::Timestamp;
use crate::marker::{Moment, Stamp};
use crate::order::{Order, Orders};
use crate::ports::{Gauges, Reason, SlotStore, Snapshot, Source, TableReading, TurnError};
use crate::slot::{Observation, Slot, SlotId, Table};

/// After turns failed for this long, a row may have been edited and edited back unseen, while clients followed the edit.
const UNWATCHED: Duration = Duration::from_secs(5);

/// Whether a term continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Lease {
    Held,
    /// The table does not name this term any more: it is over.
    Lost,
}

pub(super) struct Term {
    lease: HeldLease,
    last_turn: Instant,
    /// What the gauges show; `None` until the end of the first turn.
    published: Option<Snapshot>,
    conditions: Conditions,
    guard: Guard,
    /// When the first of the turns began that have failed since the table was last read.
    unread_since: Option<Instant>,
    sight: Sight,
    /// A row was edited from outside, or may have been, and the version not raised since: clients do not know yet.
    edited: bool,
    steady: Option<Steady>,
    /// The orders as the table was last read.
    orders: Orders,
    /// Those in force as the last turn ended, which were logged.
    in_force: Option<Vec<Order>>,
    /// The occupants that an order alone drained in the last turn, by slot and name.
    ordered: BTreeMap<SlotId, String>,
    farewell: Farewell,
}

/// The same moment by two clocks.
#[derive(Clone, Copy)]
struct Clocks {
    /// This machine's, for the steps of ramps.
    own: Timestamp,
    /// AWS's, for what the next leader has to read alike.
    aws: Timestamp,
}

/// A turn that had nothing to do. As long as table and observation are the same and no ramp step is due, the next one has
/// nothing to do either.
struct Steady {
    table: Table,
    orders: Orders,
    seen: Observation,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Steady {
    fn holds(&self, table: &Table, orders: &Orders, seen: &Observation, now: Timestamp) -> bool {
        // If the clock went back, timestamps in the table are in the future.
        let in_time = now >= self.from && self.until.is_none_or(|until| now < until);
        in_time && self.table == *table && self.orders == *orders && self.seen == *seen
    }
}

impl Term {
    pub(super) fn new(lease: HeldLease, now: Instant) -> Self {
        Term {
            lease,
            last_turn: now,
            published: None,
            conditions: Conditions::new(),
            guard: Guard::default(),
            unread_since: None,
            sight: Sight::default(),
            edited: false,
            steady: None,
            orders: Orders::default(),
            in_force: None,
            ordered: BTreeMap::new(),
            farewell: Farewell::new(),
        }
    }

    pub(super) fn name(&self) -> &TermName {
        self.lease.term()
    }

    /// The first turn, on the observation made before the lease was taken.
    pub(super) fn first_turn<S: Source, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        seen: Observation,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        let first = self.decide_and_write(context, seen, Duration::ZERO, now);
        // The claim told clients to read. What is edited between that and this term's first reading, no comparison will show.
        self.edited |= first.is_err();
        first
    }

    pub(super) fn turn<S: Source, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        let elapsed = now.clock.saturating_duration_since(std::mem::replace(&mut self.last_turn, now.clock));
        self.unread_since.get_or_insert(now.clock);
        match self.fetch(&mut context.source, &Table::default()) {
            Ok(seen) => self.decide_and_write(context, seen, elapsed, now),
            Err(error) => {
                self.source_failed(&*context.gauges, now);
                // What an operator orders needs no source, least of all while a zone or AWS is in trouble.
                match self.obey_blindly(context, now) {
                    Ok(Lease::Lost) => Ok(Lease::Lost),
                    Ok(Lease::Held) => Err(error),
                    Err(other) => {
                        debug!("orders cannot be carried out: {other}");
                        Err(error)
                    }
                }
            }
        }
    }

    pub(super) fn beat_if_due<S, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        if self.lease.is_due(now.clock) { self.beat(context, false, now) } else { Ok(Lease::Held) }
    }

    fn beat<S, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        raise: bool,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        let stamp = self.stamp(raise, now);
        if !context.store.beat(&stamp)? {
            return Ok(Lease::Lost);
        }
        self.wrote(&*context.gauges, &stamp, now.clock);
        Ok(Lease::Held)
    }

    fn stamp(&mut self, raise: bool, now: Moment) -> Stamp {
        self.lease.stamp(raise, self.sight.is_blind(), now)
    }

    /// The source failed in the turn of `now`. If that makes this leader blind, the next heartbeat says so to the others.
    fn source_failed(&mut self, gauges: &dyn Gauges, now: Moment) {
        if self.sight.failed(now.clock) {
            warn!(
                "this server leads the table, and cannot see its instances: one that stands by and sees them may take over"
            );
            gauges.leader(Some(&self.name().to_string()), true);
        }
    }

    fn source_answered(&mut self, gauges: &dyn Gauges) {
        if self.sight.answered() {
            info!("this server sees its instances again");
            gauges.leader(Some(&self.name().to_string()), false);
        }
    }

    fn wrote(&mut self, gauges: &dyn Gauges, stamp: &Stamp, now: Instant) {
        self.lease.wrote(stamp, now);
        gauges.heartbeat(now);
    }

    /// Asks the source, including about the occupants of `table` and of the table as the last turn left it, and about instances
    /// with an order of their own.
    fn fetch(&self, source: &mut impl Source, table: &Table) -> Result<Observation, TurnError> {
        let before = self.published.iter().flat_map(|published| published.slots.values());
        let occupants: Vec<&str> =
            before.chain(table.slots()).filter_map(occupant_name).chain(self.orders.instances()).collect();
        source.fetch(&occupants)
    }

    /// Whether `seen`, which covers the occupants of the last turn, covers those of `table` too.
    fn covers_occupants(&self, seen: &Observation, table: &Table) -> bool {
        let before = |id| self.published.as_ref().and_then(|published| published.slots.get(id)).and_then(occupant_name);
        let mut new =
            table.slots().filter(|slot| occupant_name(slot) != before(&slot.id)).filter_map(occupant_name).peekable();
        new.peek().is_none() || seen.covers(&new.collect::<Vec<_>>())
    }

    /// The rest of a turn, after fetching the instances.
    fn decide_and_write<S: Source, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        mut seen: Observation,
        elapsed: Duration,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        // The source answered, whatever becomes of the table; whether it tells enough, only the table shows.
        let reading = context.store.read().inspect_err(|_| self.source_answered(&*context.gauges))?;
        let TableReading { table, marker, changed, orders, time } = reading;
        if !self.lease.confirm(&marker) {
            return Ok(Lease::Lost);
        }
        let unread =
            self.unread_since.take().map_or(Duration::ZERO, |since| now.clock.saturating_duration_since(since));
        self.edited |= changed || unread > UNWATCHED;
        if !self.covers_occupants(&seen, &table) {
            let whole = self.fetch(&mut context.source, &table);
            seen = whole.inspect_err(|_| self.source_failed(&*context.gauges, now))?;
        }
        self.source_answered(&*context.gauges);
        let (in_force, over) = orders.split(&seen, time);
        self.orders.clone_from(&orders);
        if over.is_empty() && self.is_steady(&table, &orders, &seen, now.time) {
            self.say_farewell(context, &seen.waiting, &table, time, now);
            return Ok(Lease::Held);
        }
        self.steady = None;
        let clocks = Clocks { own: now.time, aws: time };
        let plan = self.decide(&table, &in_force, &seen, elapsed, clocks, &context.limits);
        if self.write(context, &table, &plan, now)? == Lease::Lost {
            return Ok(Lease::Lost);
        }
        let causes = causes(&table, &seen, &plan, now.time, &context.limits);
        context.log_changes(&table, &plan, &causes);
        context.log_orders(self.in_force.as_deref(), &in_force, &over, &plan);
        self.conditions = context.log_conditions(&self.conditions, &table, &orders, &seen, &plan);
        let ordered = drained_by_order(&plan);
        let steady_until = plan.changes.is_empty().then_some(plan.due);
        let reasons = reasons(causes, &plan, &context.limits);
        let mut state = snapshot(&table, &seen, plan, reasons, (&in_force, &orders));
        if let Some(before) = &self.published {
            (state.balancers, state.waiting) = (before.balancers.clone(), before.waiting.clone());
        }
        self.publish(&*context.gauges, state);
        self.in_force = Some(in_force);
        self.ordered = ordered;
        self.say_farewell(context, &seen.waiting, &table, time, now);
        self.steady = steady_until.map(|until| Steady { table, orders, seen, from: now.time, until });
        self.remove_orders(&mut context.store, &over);
        Ok(Lease::Held)
    }

    /// Removes orders that are over from the table. They have no effect any more, so a failure is left to the next turn.
    fn remove_orders(&self, store: &mut impl SlotStore, over: &[Order]) {
        if over.is_empty() {
            return;
        }
        match store.remove_orders(over, &self.name().to_string()) {
            Ok(true) => {}
            Ok(false) => debug!("orders were changed by another hand before those that are over could be removed"),
            Err(error) => debug!("cannot remove orders that are over: {error}"),
        }
    }

    fn is_steady(&self, table: &Table, orders: &Orders, seen: &Observation, now: Timestamp) -> bool {
        let steady = || self.steady.as_ref().is_some_and(|steady| steady.holds(table, orders, seen, now));
        !self.edited && self.guard.is_idle() && steady()
    }

    fn decide(
        &mut self,
        table: &Table,
        orders: &[Order],
        seen: &Observation,
        elapsed: Duration,
        now: Clocks,
        limits: &SlotLimits,
    ) -> Plan {
        let none = Snapshot::default();
        let slots = &self.published.as_ref().unwrap_or(&none).slots;
        let previous = Previous { slots, guard: &self.guard, ordered: &self.ordered, time: now.aws, elapsed };
        let plan = decide_after(table, orders, &previous, seen, now.own, limits);
        // Even if the write fails, the response counts.
        self.guard.clone_from(&plan.guard);
        plan
    }

    /// Writes the changes. If there are none, raises the version if a row was edited from outside.
    fn write<S, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        table: &Table,
        plan: &Plan,
        now: Moment,
    ) -> Result<Lease, TurnError> {
        if plan.changes.is_empty() {
            if !self.edited {
                return Ok(Lease::Held);
            }
            debug!("a row was edited from outside, or may have been: raising the version");
            let lease = self.beat(context, true, now)?;
            self.edited = false;
            return Ok(lease);
        }
        let stamp = self.stamp(true, now);
        match context.store.write(&plan.changes, &stamp) {
            Ok(stamp) => {
                self.edited = false;
                self.wrote(&*context.gauges, &stamp, now.clock);
                Ok(Lease::Held)
            }
            Err(error) => {
                let slots = table.slots().map(|slot| (slot.id, slot.clone())).collect();
                let unreadable = table.faults().len();
                let before = self.published.clone().unwrap_or_default();
                self.publish(&*context.gauges, Snapshot { slots, unreadable, ..before });
                Err(error)
            }
        }
    }

    fn publish(&mut self, gauges: &dyn Gauges, state: Snapshot) {
        if self.published.as_ref() != Some(&state) {
            gauges.publish(&state);
            self.published = Some(state);
        }
    }
}

fn snapshot(
    table: &Table,
    seen: &Observation,
    plan: Plan,
    reasons: BTreeMap<SlotId, Reason>,
    (in_force, orders): (&[Order], &Orders),
) -> Snapshot {
    Snapshot {
        orders: with_slots(in_force, &plan.slots),
        unreadable_orders: orders.unreadable.iter().map(|entry| entry.reason.clone()).collect(),
        left_out: left_out(seen, &plan),
        reasons,
        slots: plan.slots,
        unreadable: table.faults().len(),
        unplaced: plan.unplaced.len(),
        missing_groups: seen.missing_groups.len(),
        last_resort: plan.last_resort.len(),
        guarded: plan.guarded.len(),
        unseen: seen.unseen().count(),
        unknown_states: seen.unknown_states.len(),
        ..Snapshot::default()
    }
}

/// Orders with the slots whose servers they are about.
fn with_slots(orders: &[Order], slots: &BTreeMap<SlotId, Slot>) -> Vec<(Order, Vec<SlotId>)> {
    let with = |order: &Order| (order.clone(), order.target.among(slots.values()).map(|slot| slot.id).collect());
    orders.iter().map(with).collect()
}

/// The occupants that an order alone drains, by slot and name.
fn drained_by_order(plan: &Plan) -> BTreeMap<SlotId, String> {
    let name = |id: &SlotId| Some((*id, plan.slots.get(id)?.occupant.as_ref()?.name.clone()));
    plan.ordered.keys().filter_map(name).collect()
}

fn occupant_name(slot: &Slot) -> Option<&str> {
    slot.occupant.as_ref().map(|occupant| occupant.name.as_str())
}
