//! The server role's ports: a source of instances, the table it writes, and the gauges.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::TurnError;
use crate::balancer::{BalancerItems, BalancerReport};
use crate::cause::{Cause, LeftOut};
use crate::clock::Timestamp;
use crate::marker::{Claim, Marker, Stamp};
use crate::order::{Order, Orders};
use crate::slot::{Observation, Slot, SlotId, Table, Waiting, Weight};
use crate::text::{list, one_line};
use crate::weight::Factor;

/// Where instances come from: Auto Scaling groups or Consul.
pub trait Source {
    /// Fetches all listed instances, and the fate of those `occupants` (by their names in the table) that are not listed.
    ///
    /// # Errors
    /// Any failure, including a partial or unparsable response: never a shorter list.
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, TurnError>;

    /// For the log: the remedy for configured groups that do not exist.
    fn missing_remedy(&self) -> &'static str {
        "correct the configured names or create the groups"
    }

    /// For the log: why instances in service may have no address; `None` if the source logs them itself.
    fn unseen_reason(&self) -> Option<&'static str> {
        None
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, TurnError> {
        (**self).fetch(occupants)
    }

    fn missing_remedy(&self) -> &'static str {
        (**self).missing_remedy()
    }

    fn unseen_reason(&self) -> Option<&'static str> {
        (**self).unseen_reason()
    }
}

/// The whole table as the server read it.
#[derive(Clone, Debug)]
pub struct TableReading {
    /// The rows.
    pub table: Table,
    /// The marker on slot 1's item.
    pub marker: Marker,
    /// Whether a row differs from what this store last read or wrote: it was edited by someone else.
    pub changed: bool,
    /// The orders on slot 1's item, lapsed ones included.
    pub orders: Orders,
    /// The time by AWS's clock, which orders lapse by.
    pub time: Timestamp,
}

/// The marker as seen once.
#[derive(Clone, Debug)]
pub struct Sighting<R> {
    /// Its parsed attributes.
    pub marker: Marker,
    /// Its raw attributes, valid or not: the condition of [`SlotStore::take`].
    pub raw: R,
    /// When the response arrived, by the monotonic clock.
    pub read_at: Instant,
}

/// The table, as the server role uses it.
pub trait SlotStore {
    /// A marker in this store's own representation.
    type Raw;

    /// Reads the marker alone; it may be slightly stale.
    ///
    /// # Errors
    /// The read failed.
    fn read_marker(&mut self) -> Result<Sighting<Self::Raw>, TurnError>;

    /// Reads every row and the marker, strongly consistent.
    ///
    /// # Errors
    /// The read failed or is incomplete.
    fn read(&mut self) -> Result<TableReading, TurnError>;

    /// Writes `claim` if the marker is still as it was `seen`; false if it is not. Forgets all rows: a term starts from
    /// scratch.
    ///
    /// # Errors
    /// The write failed, but may have been applied.
    fn take(&mut self, seen: &Sighting<Self::Raw>, claim: &Claim) -> Result<bool, TurnError>;

    /// Writes `stamp` if the table names its leader; false if it does not.
    ///
    /// # Errors
    /// The write failed, but may have been applied.
    fn beat(&mut self, stamp: &Stamp) -> Result<bool, TurnError>;

    /// Writes these slots together with `stamp`. Conditions: each row is unchanged since the last [`SlotStore::read`], and the
    /// table names the leader of `stamp`. Returns the last stamp written.
    ///
    /// # Errors
    /// A condition did not hold, or the write failed. Some of the slots may have been written.
    fn write(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, TurnError>;

    /// Removes these orders, if they still are as the last [`SlotStore::read`] showed them and the table names `leader`; false if
    /// not.
    ///
    /// # Errors
    /// The write failed, but may have been applied.
    fn remove_orders(&mut self, over: &[Order], leader: &str) -> Result<bool, TurnError>;

    /// Removes `leader` from the marker if the marker names it.
    ///
    /// # Errors
    /// The write failed.
    fn release(&mut self, leader: &str) -> Result<(), TurnError>;
}

/// The report table, as the leader reads it.
pub trait ReportReader {
    /// Reads every report, strongly consistent.
    ///
    /// # Errors
    /// The read failed or is incomplete.
    fn read(&mut self) -> Result<BalancerItems, TurnError>;
}

/// The terminating lifecycle hooks of the groups.
pub trait Hooks {
    /// Lets these instances go, in this order, as far as the time for it reaches. Returns those that were tried, with the outcome. A
    /// failure that needs an operator is one of the instance's group.
    fn complete(&mut self, leaving: &[Waiting]) -> Vec<(Waiting, Result<Completion, TurnError>)>;
}

/// The outcome of letting an instance go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// AWS goes on with its termination.
    Done,
    /// Nothing held it any more.
    Over,
}

/// Whether a load balancer keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BalancerState {
    /// It has carried out what the table says.
    Current,
    /// It has not carried out what the table said 10 s ago.
    Behind,
    /// Its report has not changed for 30 s.
    Silent,
}

impl BalancerState {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [BalancerState::Current, BalancerState::Behind, BalancerState::Silent];

    /// The word for it, in the metric and everywhere else.
    pub fn word(self) -> &'static str {
        match self {
            BalancerState::Current => "current",
            BalancerState::Behind => "behind",
            BalancerState::Silent => "silent",
        }
    }
}

/// A load balancer as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerView {
    /// Host and socket.
    pub name: String,
    /// Whether it keeps up.
    pub state: BalancerState,
    /// Its `Seen`: that machine's own word.
    pub seen: u64,
    /// What it says.
    pub report: BalancerReport,
}

/// What an instance waits for whose hook holds it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The load balancers that have sessions on it, and how many.
    pub sessions: BTreeMap<String, u64>,
    /// The load balancers that have not carried out that it drains.
    pub behind: Vec<String>,
    /// When it goes at the latest, by AWS's clock.
    pub until: Option<Timestamp>,
}

/// Completes "held by its lifecycle hook".
impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(until) = self.until {
            write!(f, " until {} at the latest", until.to_the_second())?;
        }
        let of = |(name, count): (&String, &u64)| {
            format!("{} has {count} session{}", one_line(name, NAME), if *count == 1 { "" } else { "s" })
        };
        let behind = |name: &String| format!("{} has not carried out that it drains", one_line(name, NAME));
        let all: Vec<String> = self.sessions.iter().map(of).chain(self.behind.iter().map(behind)).collect();
        if !all.is_empty() {
            write!(f, ": {}", list(all.into_iter(), LISTED))?;
        }
        Ok(())
    }
}

/// How many load balancers a message lists, and how many characters of each name.
const LISTED: usize = 8;
const NAME: usize = 60;

/// Where the server publishes its state for the exporter.
pub trait Gauges: Send + Sync {
    /// Replaces everything published before.
    fn publish(&self, state: &Snapshot);
    /// Sets whether this server leads.
    fn leads(&self, leads: bool);
    /// Records the term that leads the table, its own or another's, and whether it is blind to its instances; `None` if none does.
    fn leader(&self, _term: Option<&str>, _blind: bool) {}
    /// Records that an instance was let go, this long after its drain began.
    fn let_go(&self, _after: Duration) {}
    /// Records that the heartbeat was written, or seen to change, at `when`.
    fn heartbeat(&self, when: Instant);
}

/// What the gauges show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The readable rows by number, as the turn left them.
    pub slots: BTreeMap<SlotId, Slot>,
    /// Unreadable items.
    pub unreadable: usize,
    /// Ready instances without a slot.
    pub unplaced: usize,
    /// Configured groups that do not exist.
    pub missing_groups: usize,
    /// Servers that drain, or whose factor is 0, and that serve because no other can.
    pub last_resort: usize,
    /// Slots kept by the removal guard.
    pub guarded: usize,
    /// Instances in service without an address.
    pub unseen: usize,
    /// Instances in a state unknown to hsdo.
    pub unknown_states: usize,
    /// Why each slot has its weight, unreadable and missing rows included.
    pub reasons: BTreeMap<SlotId, Reason>,
    /// The instances without a slot, first in line first.
    pub left_out: Vec<LeftOut>,
    /// The orders in force, with the slots whose servers they are about.
    pub orders: Vec<(Order, Vec<SlotId>)>,
    /// What is wrong with each order that cannot be read.
    pub unreadable_orders: Vec<String>,
    /// The load balancers by their reports; `None` without a report table.
    pub balancers: Option<Vec<BalancerView>>,
    /// The instances that a lifecycle hook holds back, and what each waits for.
    pub waiting: BTreeMap<String, Holding>,
}

/// Why a slot has its weight, and where that is going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The reason.
    pub cause: Cause,
    /// The weight that its occupant ramps to; `None` if it is kept as it is, and its factor is not known.
    pub full: Option<Weight>,
    /// What its weights are multiplied by, and what gives it that factor; `None` if that is 1 or not known.
    pub factor: Option<(Factor, String)>,
}
