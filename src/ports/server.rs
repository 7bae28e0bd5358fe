//! What the server role needs of its edges: a source of instances, the table that it writes, and gauges that show its state.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::error::Error;
use crate::marker::{Claim, Marker, Stamp};
use crate::slot::{Observation, Slot, SlotId, Table};

/// Where instances come from: AutoScaling groups, or Consul.
pub trait Source {
    /// One whole answer. It covers the instances that the source lists, and those `occupants` (by their names in the
    /// table) that it does not list.
    ///
    /// # Errors
    /// The answer failed, is partial or cannot be read: never a shorter list.
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, Error>;

    /// For the log: the remedy for configured groups that the source does not know.
    fn missing_remedy(&self) -> &'static str {
        "correct the configured names or create the groups"
    }

    /// For the log: why instances in service may have no address; `None` where the source reports them itself.
    fn unseen_reason(&self) -> Option<&'static str> {
        None
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, Error> {
        (**self).fetch(occupants)
    }

    fn missing_remedy(&self) -> &'static str {
        (**self).missing_remedy()
    }

    fn unseen_reason(&self) -> Option<&'static str> {
        (**self).unseen_reason()
    }
}

/// The whole table as a server read it.
#[derive(Clone, Debug, Default)]
pub struct TableReading {
    /// The rows.
    pub table: Table,
    /// The marker on slot 1's item.
    pub marker: Marker,
    /// A row differs from what this store last read or wrote: somebody else changed it.
    pub changed: bool,
}

/// One look at the marker.
#[derive(Clone, Debug)]
pub struct Sighting<R> {
    /// What it says.
    pub marker: Marker,
    /// How it was stored, with what cannot be read: the condition of [`SlotStore::take`].
    pub raw: R,
}

/// The table, as the server uses it.
pub trait SlotStore {
    /// How this store spells a marker.
    type Raw;

    /// Reads the marker alone; it may be slightly stale.
    ///
    /// # Errors
    /// The reading failed.
    fn read_marker(&mut self) -> Result<Sighting<Self::Raw>, Error>;

    /// Reads every row and the marker, strongly consistent.
    ///
    /// # Errors
    /// The reading failed or is not whole.
    fn read(&mut self) -> Result<TableReading, Error>;

    /// Writes `claim` on the condition that the marker is still as it was `seen`. False: it is not. A new term begins
    /// with nothing known about the rows.
    ///
    /// # Errors
    /// The write failed; it may have been done all the same.
    fn take(&mut self, seen: &Sighting<Self::Raw>, claim: &Claim) -> Result<bool, Error>;

    /// Writes `stamp` on the condition that the table names its leader. False: it does not.
    ///
    /// # Errors
    /// The write failed; it may have been done all the same.
    fn beat(&mut self, stamp: &Stamp) -> Result<bool, Error>;

    /// Writes these slots, each on the condition that its row is still as the last [`SlotStore::read`] found it, together
    /// with `stamp`, on the condition that the table names its leader. Returns the stamp as it was written last.
    ///
    /// # Errors
    /// A condition did not hold, or the write failed: some of the slots may have been written.
    fn write(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, Error>;

    /// Removes `leader` from the marker, if the marker names it.
    ///
    /// # Errors
    /// The write failed.
    fn release(&mut self, leader: &str) -> Result<(), Error>;
}

/// Where a server shows its state: the exporter's numbers.
pub trait Gauges: Send + Sync {
    /// Replaces everything shown before by `state`.
    fn publish(&self, state: &Snapshot);
    /// Whether this server leads.
    fn leads(&self, leads: bool);
    /// The heartbeat in the table was written, or seen to change, at `when`.
    fn heartbeat(&self, when: Instant);
}

/// What the gauges show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The readable rows of the table by number, as the turn left them.
    pub slots: BTreeMap<SlotId, Slot>,
    /// Items of the table that cannot be read.
    pub unreadable: usize,
    /// Ready instances that wait for a slot.
    pub unplaced: usize,
    /// Configured groups that the source does not know.
    pub missing_groups: usize,
    /// Slots whose leaving server keeps serving because no other can.
    pub last_resort: usize,
    /// Slots that the removal guard keeps.
    pub guarded: usize,
    /// Instances in service for which the source gives no address.
    pub unseen: usize,
    /// Instances in a state that hsdo does not know.
    pub unknown_states: usize,
}
