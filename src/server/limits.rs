//! The settings that the server's decisions follow.

use std::time::Duration;

use crate::slot::{SlotId, Weight};

/// What the configuration says about slots and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLimits {
    /// N, the number of slots that take servers: 1 to [`crate::slot::MAX_SLOT`].
    pub size: SlotId,
    /// The groups in the order of the configuration: the order in which their instances are seated.
    pub groups: Vec<String>,
    /// The weight of a new server, 0 to `max`.
    pub min: Weight,
    /// The weight that a server ramps to, `min` to [`crate::slot::MAX_WEIGHT`].
    pub max: Weight,
    /// What one step of the ramp adds, 1 to [`crate::slot::MAX_WEIGHT`].
    pub step: Weight,
    /// The time between two steps, above zero.
    pub interval: Duration,
    /// How long servers are kept that leave every group too many at once; zero: not at all.
    pub removal_guard: Duration,
}
