//! The settings behind the server's decisions.

use std::time::Duration;

use crate::selection::NamePattern;
use crate::settings::{ServerSettings, SourceSettings, WeightBy, Weighting};
use crate::slot::{SlotId, Weight};
use crate::weight::{Factor, Size};

/// Settings for slots and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLimits {
    /// N, the number of slots: 1 to [`crate::slot::MAX_SLOT`].
    pub size: SlotId,
    /// The configured groups as they are spelt, patterns and tags included.
    pub entries: Vec<NamePattern>,
    /// The weight of a new server, 0 to `max`.
    pub min: Weight,
    /// The full weight, `min` to [`crate::slot::MAX_WEIGHT`].
    pub max: Weight,
    /// Weight added per ramp step, 1 to [`crate::slot::MAX_WEIGHT`].
    pub step: Weight,
    /// The time between ramp steps, above zero.
    pub interval: Duration,
    /// What the factor of a server follows from, besides its size.
    pub weighting: Weighting,
    /// Whether servers may have other full weights than `max`. If so, a weight above the full one comes down by steps; if not, MAX
    /// was lowered, and holds at once.
    pub by_factor: bool,
    /// How long to keep servers when too many leave every group at once; zero disables the guard.
    pub removal_guard: Duration,
}

impl SlotLimits {
    /// The limits that the settings give.
    pub fn of(settings: &ServerSettings) -> Self {
        let ServerSettings { common, source, ramp, weighting, removal_guard, .. } = settings;
        let (entries, has_sizes) = match source {
            SourceSettings::Aws { groups, reading } => {
                (groups.entries(), reading.tags || reading.weight_by != WeightBy::None)
            }
            SourceSettings::Consul { services, .. } => {
                (services.iter().map(|name| NamePattern::plain(name)).collect(), true)
            }
        };
        SlotLimits {
            size: common.list_size,
            entries,
            min: ramp.min,
            max: ramp.max,
            step: ramp.step,
            interval: ramp.interval,
            by_factor: has_sizes || !weighting.groups.is_empty(),
            weighting: weighting.clone(),
            removal_guard: *removal_guard,
        }
    }

    /// What the weights of an instance of this size and group are multiplied by.
    pub fn factor(&self, size: Size, group: &str) -> Factor {
        size.factor(self.weighting.unit).times(self.weighting.of_group(group))
    }

    /// How that factor comes about, as in `4 vCPUs of 2, group web-old x 0.5`; `None` if nothing gives it one.
    pub fn factor_words(&self, size: Size, group: &str) -> Option<String> {
        let factor = self.weighting.of_group(group);
        let of_group = (factor != Factor::ONE).then(|| format!("group {group} x {factor}"));
        let words: Vec<String> = size.word(self.weighting.unit).into_iter().chain(of_group).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}
