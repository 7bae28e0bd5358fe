//! The settings behind the server's decisions.

use std::time::Duration;

use crate::settings::{ServerSettings, SourceSettings};
use crate::slot::{SlotId, Weight};

/// Settings for slots and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLimits {
    /// N, the number of slots: 1 to [`crate::slot::MAX_SLOT`].
    pub size: SlotId,
    /// The groups in configured order, which is the order of seating.
    pub groups: Vec<String>,
    /// The weight of a new server, 0 to `max`.
    pub min: Weight,
    /// The full weight, `min` to [`crate::slot::MAX_WEIGHT`].
    pub max: Weight,
    /// Weight added per ramp step, 1 to [`crate::slot::MAX_WEIGHT`].
    pub step: Weight,
    /// The time between ramp steps, above zero.
    pub interval: Duration,
    /// How long to keep servers when too many leave every group at once; zero disables the guard.
    pub removal_guard: Duration,
}

impl SlotLimits {
    /// The limits that the settings give.
    pub fn of(settings: &ServerSettings) -> Self {
        let ServerSettings { common, source, ramp, removal_guard } = settings;
        let (SourceSettings::Aws { groups } | SourceSettings::Consul { services: groups, .. }) = source;
        SlotLimits {
            size: common.list_size,
            groups: groups.clone(),
            min: ramp.min,
            max: ramp.max,
            step: ramp.step,
            interval: ramp.interval,
            removal_guard: *removal_guard,
        }
    }
}
