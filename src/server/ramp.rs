//! The ramp of one server's weight. Pure.
//!
//! All servers climb one ladder: from MIN to MAX by steps, one an interval. The weights of a server with a factor are those of the
//! ladder times its factor, so every ramp takes the same time, whatever the factor. Nothing but the weight and the time of its last
//! change is kept in the table; where on the ladder a server stands follows from them.

use std::time::Duration;

use super::limits::SlotLimits;
use crate::clock::Timestamp;
use crate::slot::{Instance, Occupant, Status, Weight};
use crate::weight::Factor;

impl SlotLimits {
    /// The weight that a server with this factor ramps to.
    pub fn full_weight(&self, factor: Factor) -> Weight {
        self.ramp(factor).full()
    }

    /// The weight of this instance when it is new.
    pub(super) fn start(&self, instance: &Instance) -> Weight {
        self.ramp(self.factor(instance.size, &instance.group)).start()
    }

    /// The ramp of a server with this factor.
    pub(super) fn ramp(&self, factor: Factor) -> Ramp {
        Ramp::new(self, factor)
    }
}

/// The weights of a server with one factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ramp {
    min: Weight,
    max: Weight,
    step: Weight,
    interval: Duration,
    factor: Factor,
    /// Whether a weight above the full one comes down by steps.
    descends: bool,
}

/// The next change of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    weight: Weight,
    /// Counted from the last change, in intervals: a small factor gives several rungs the same weight.
    after: u32,
    /// Steps that are left after it, in intervals.
    left: u32,
}

impl Ramp {
    pub(super) fn new(limits: &SlotLimits, factor: Factor) -> Self {
        let SlotLimits { min, max, step, interval, by_factor, .. } = *limits;
        // A factor beyond the range of weights would cut the ramp short.
        Ramp { min, max, step: step.max(1), interval, factor: factor.within_weights(max), descends: by_factor }
    }

    /// The weight at the end.
    pub(super) fn full(&self) -> Weight {
        self.factor.of(self.max)
    }

    /// The weight of a new server.
    pub(super) fn start(&self) -> Weight {
        self.rung(0)
    }

    /// The number of steps from MIN to MAX.
    fn steps(&self) -> u32 {
        u32::from(self.max.saturating_sub(self.min).div_ceil(self.step))
    }

    /// The weight after so many steps. It never falls from one to the next, and is the full weight only after the last.
    fn rung(&self, steps: u32) -> Weight {
        if steps >= self.steps() {
            return self.full();
        }
        let base = u32::from(self.min) + steps * u32::from(self.step);
        // Fits: below MAX.
        let weight = self.factor.of(base as Weight);
        weight.min(self.full().saturating_sub(1)).max(u16::from(weight > 0 && self.full() > 0))
    }

    /// Down from a weight that another factor gave: a share of it, so that any way down takes about as long as a ramp.
    fn step_down(&self, weight: Weight) -> Weight {
        let share = (2 * u32::from(weight) * u32::from(self.step)).div_ceil(u32::from(self.max.max(1)));
        Weight::try_from(share).unwrap_or(Weight::MAX).max(self.factor.of(self.step)).max(1)
    }

    /// The lowest rung for which `is_above` holds, which is so for all higher ones too.
    fn first(&self, is_above: impl Fn(Weight) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.steps());
        while low < high {
            let middle = low.midpoint(high);
            if is_above(self.rung(middle)) { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// None at the full weight.
    fn next(&self, weight: Weight) -> Option<Next> {
        let full = self.full();
        if weight > full {
            let lower = |weight: Weight| weight.saturating_sub(self.step_down(weight)).max(full);
            let (next, mut at, mut left) = (lower(weight), lower(weight), 0);
            while at > full {
                (at, left) = (lower(at), left + 1);
            }
            return Some(Next { weight: next, after: 1, left });
        }
        if weight == full {
            return None;
        }
        let (here, above) = (self.first(|rung| rung >= weight), self.first(|rung| rung > weight));
        if self.rung(here) != weight {
            // Left there by another factor, or by other settings.
            let step = self.factor.of(self.step).max(1);
            let next = weight.saturating_add(step).min(full);
            return Some(Next { weight: next, after: 1, left: u32::from((full - next).div_ceil(step)) });
        }
        let last = self.first(|rung| rung >= full);
        Some(Next { weight: self.rung(above), after: above - here, left: last - above })
    }

    /// Moves an enabled occupant's weight towards the full one by at most one step, if one is due at `now`.
    pub(super) fn advance(&self, occupant: &mut Occupant, now: Timestamp) {
        if occupant.status == Status::Enabled {
            (occupant.weight, occupant.last_step) = self.after(occupant.weight, occupant.last_step, now);
        }
    }

    /// When the next step is due; `None` if there is none. Until then [`Ramp::advance`] changes nothing.
    pub(super) fn due(&self, occupant: &Occupant) -> Option<Timestamp> {
        self.due_and_end(occupant).map(|(due, _)| due)
    }

    /// When the next step is due, and when the last one is, if every step comes when it is due; `None` if there is none.
    pub(super) fn due_and_end(&self, occupant: &Occupant) -> Option<(Timestamp, Timestamp)> {
        let next = self.next(occupant.weight).filter(|_| occupant.status == Status::Enabled)?;
        let due = occupant.last_step?.plus(self.interval.saturating_mul(next.after));
        Some((due, due.plus(self.interval.saturating_mul(next.left))))
    }

    fn after(&self, weight: Weight, last_step: Option<Timestamp>, now: Timestamp) -> (Weight, Option<Timestamp>) {
        // Out of range: the configuration changed, or the Python hsdo wrote its fixed 1.
        if weight < self.start() {
            return (self.start(), Some(now));
        }
        // With MAX 0, no traffic is wanted.
        if weight > self.full() && (!self.descends || self.max == 0) {
            return (self.full(), Some(now));
        }
        let Some(next) = self.next(weight) else { return (weight, last_step) };
        let Some((last, age)) = last_step.and_then(|last| Some((last, now.since(last)?))) else {
            // Unreadable or in the future: restart the interval, or the ramp would be stuck.
            return (weight, Some(now));
        };
        let wait = self.interval.saturating_mul(next.after);
        if age < wait {
            return (weight, last_step);
        }
        // Count from the last step, so that a late turn does not delay later steps. If it is late by an interval, count from now, or
        // an outage would be followed by several steps in a row.
        let step_at = if age < wait.saturating_add(self.interval) { last.plus(wait) } else { now };
        (next.weight, Some(step_at))
    }
}

#[cfg(test)]
#[path = "ramp_tests.rs"]
mod tests;
