//! State that a term carries from one turn to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use crate::clock::Timestamp;
use crate::slot::{Occupant, Slot, SlotId, Status};

/// Input of a decision besides the table and the observation.
pub(super) struct Previous<'a> {
    /// The table as the last turn left it: rows deleted since are restored, unless another row has their server.
    pub(super) slots: &'a BTreeMap<SlotId, Slot>,
    pub(super) guard: &'a Guard,
    /// The occupants that an order alone drained, by slot and name.
    pub(super) ordered: &'a BTreeMap<SlotId, String>,
    /// The time by AWS's clock, for drains that begin: the next leader reads it.
    pub(super) time: Timestamp,
    /// The time since the previous turn, successful or not.
    pub(super) elapsed: Duration,
}

impl Previous<'_> {
    /// Whether the occupant drains only because of an order of the previous turn.
    pub(super) fn drained_by_order(&self, id: SlotId, occupant: &Occupant) -> bool {
        occupant.status == Status::Draining && self.ordered.get(&id) == Some(&occupant.name)
    }
}
