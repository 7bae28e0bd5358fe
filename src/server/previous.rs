//! What earlier turns of the same term left behind for this one's decisions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use crate::slot::{Slot, SlotId};

/// What a decision may use besides the table and the observation.
pub(super) struct Previous<'a> {
    /// The table as the last turn left it: a row that was lost since counts as it was, unless its server stands in another.
    pub(super) slots: &'a BTreeMap<SlotId, Slot>,
    /// The servers that the removal guard holds.
    pub(super) guard: &'a Guard,
    /// The time since the previous turn, whether that turn got an answer or not.
    pub(super) elapsed: Duration,
}
