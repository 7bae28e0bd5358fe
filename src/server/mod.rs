//! The server role: one turn asks the source, reads the table, decides, and writes what changed.

use crate::error::Error;
use crate::slot::{Observation, Slot, Table};

/// Where the instances come from: AutoScaling groups, or Consul.
pub trait Source {
    /// One whole answer. A failed, partial or unreadable answer is an error, never a shorter list.
    fn fetch(&mut self) -> Result<Observation, Error>;
}

/// The table, as the server uses it.
pub trait Store {
    /// Every row, strongly consistent.
    fn read(&mut self) -> Result<Table, Error>;
    /// Writes these slots, each on the condition that its row is still as the last [`Store::read`] found it.
    /// Some groups of slots may be written when a later one fails: the next turn reads again.
    fn write(&mut self, slots: &[Slot]) -> Result<(), Error>;
}
