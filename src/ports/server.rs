//! The server role's ports: a source of instances, the table it writes, and the gauges.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TurnError;
use crate::cause::{Cause, LeftOut};
use crate::clock::Timestamp;
use crate::marker::{Claim, Marker, Stamp};
use crate::order::{Order, Orders};
use crate::slot::{Observation, Slot, SlotId, Table, Weight};
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

/// Where the server publishes its state for the exporter.
pub trait Gauges: Send + Sync {
    /// Replaces everything published before.
    fn publish(&self, state: &Snapshot);
    /// Sets whether this server leads.
    fn leads(&self, leads: bool);
    /// Records the term that leads the table, its own or another's; `None` if none does.
    fn leader(&self, _term: Option<&str>) {}
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
