//! State that a term carries from one turn to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use crate::slot::{Slot, SlotId};

/// Input of a decision besides the table and the observation.
pub(super) struct Previous<'a> {
    /// The table as the last turn left it: rows deleted since are restored, unless another row has their server.
    pub(super) slots: &'a BTreeMap<SlotId, Slot>,
    pub(super) guard: &'a Guard,
    /// The time since the previous turn, successful or not.
    pub(super) elapsed: Duration,
}
