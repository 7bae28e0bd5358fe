//! The client role: one turn reads the table, reads HAProxy, and sends what makes HAProxy match.

#[cfg(test)]
mod model;
pub mod placement;
pub mod reconcile;

use crate::error::Error;
use crate::slot::Table;

/// The table, as the client uses it.
pub trait TableReader {
    /// Every row. An eventually consistent reading (`consistent` false) costs half and may be a little old.
    fn read(&mut self, consistent: bool) -> Result<Table, Error>;
}
