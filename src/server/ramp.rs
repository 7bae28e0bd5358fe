//! The ramp of one server's weight. Pure.

use super::limits::SlotLimits;
use crate::clock::Timestamp;
use crate::slot::{Occupant, Status, Weight};

/// Raises an enabled occupant's weight towards `full` by at most one step, if one is due at `now`.
pub(super) fn advance(occupant: &mut Occupant, full: Weight, now: Timestamp, limits: &SlotLimits) {
    if occupant.status == Status::Enabled {
        (occupant.weight, occupant.last_step) = next(occupant.weight, occupant.last_step, full, now, limits);
    }
}

/// When the next step towards `full` is due; `None` if there is none. Until then [`advance`] changes nothing.
pub(super) fn due(occupant: &Occupant, full: Weight, limits: &SlotLimits) -> Option<Timestamp> {
    let ramps = occupant.status == Status::Enabled && occupant.weight < full;
    occupant.last_step.filter(|_| ramps).map(|last| last.plus(limits.interval))
}

/// When the ramp ends, if every step comes when it is due; `None` if it does not ramp.
pub(super) fn end(occupant: &Occupant, full: Weight, limits: &SlotLimits) -> Option<Timestamp> {
    let steps = u32::from(full.saturating_sub(occupant.weight).div_ceil(limits.step.max(1)));
    Some(due(occupant, full, limits)?.plus(limits.interval.saturating_mul(steps.saturating_sub(1))))
}

fn next(
    weight: Weight,
    last_step: Option<Timestamp>,
    full: Weight,
    now: Timestamp,
    limits: &SlotLimits,
) -> (Weight, Option<Timestamp>) {
    // Out of range: the configuration changed, or the Python hsdo wrote its fixed 1.
    if weight < limits.min {
        return (limits.min, Some(now));
    }
    if weight > full {
        return (full, Some(now));
    }
    if weight == full {
        return (weight, last_step);
    }
    let Some((last, age)) = last_step.and_then(|last| Some((last, now.since(last)?))) else {
        // Unreadable or in the future: restart the interval, or the ramp would be stuck.
        return (weight, Some(now));
    };
    if age < limits.interval {
        return (weight, last_step);
    }
    // Count from the last step, so that a late turn does not delay later steps. After two intervals count from now, or an
    // outage would be followed by several steps in a row.
    let step_at = if age < limits.interval.saturating_mul(2) { last.plus(limits.interval) } else { now };
    (weight.saturating_add(limits.step).min(full), Some(step_at))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, limits, secs};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_step_is_due_when_the_interval_has_passed() {
        /// Name, (MIN, MAX, step), weight, last step, expected weight, expected last step. Now is 100, the interval 30 s.
        type Case<'a> = (&'a str, (Weight, Weight, Weight), Weight, Option<i64>, Weight, Option<i64>);
        #[rustfmt::skip]
        let cases: [Case<'_>; 18] = [
            ("young",                                     (1, 10, 1),    3,   Some(71),  3,   Some(71)),
            ("exactly the interval old",                  (1, 10, 1),    3,   Some(70),  4,   Some(100)),
            ("late by less than an interval: no drift",   (1, 10, 1),    3,   Some(65),  4,   Some(95)),
            ("almost two intervals old",                  (1, 10, 1),    3,   Some(41),  4,   Some(71)),
            ("two intervals old: from now on",            (1, 10, 1),    3,   Some(40),  4,   Some(100)),
            ("an hour old: one step only",                (1, 10, 1),    3,   Some(-3500), 4, Some(100)),
            ("a step above 1",                            (1, 10, 4),    3,   Some(70),  7,   Some(100)),
            ("the last step is capped",                   (1, 10, 4),    9,   Some(70),  10,  Some(100)),
            ("full: nothing to do",                       (1, 10, 1),    10,  Some(0),   10,  Some(0)),
            ("full, time in the future: untouched",       (1, 10, 1),    10,  Some(500), 10,  Some(500)),
            ("full, time unreadable: untouched",          (1, 10, 1),    10,  None,      10,  None),
            ("time in the future counts as now",          (1, 10, 1),    3,   Some(101), 3,   Some(100)),
            ("time unreadable counts as now",             (1, 10, 1),    3,   None,      3,   Some(100)),
            ("MAX was lowered",                           (1, 10, 1),    50,  Some(0),   10,  Some(100)),
            ("MIN was raised, or the original's fixed 1", (5, 10, 1),    1,   Some(0),   5,   Some(100)),
            ("MIN of 0 ramps from 0",                     (0, 10, 1),    0,   Some(70),  1,   Some(100)),
            ("MIN is MAX",                                (7, 7, 1),     7,   Some(0),   7,   Some(0)),
            ("the largest numbers do not wrap",           (0, 256, 256), 255, Some(0),   256, Some(100)),
        ];
        for (name, (min, max, step), weight, last, expected, expected_last) in cases {
            let limits = SlotLimits { min, max, step, interval: secs(30), ..limits(1) };
            let found = next(weight, last.map(at), limits.max, at(100), &limits);
            assert_eq!(found, (expected, expected_last.map(at)), "{name}");
        }
    }

    #[test]
    fn only_an_enabled_server_ramps() {
        for status in [Status::Draining, Status::Disabled] {
            let before =
                Occupant { status, ..super::super::fixtures::slot("1 .1 i1 a enabled 3").occupant.expect("one") };
            let mut after = before.clone();
            advance(&mut after, 10, at(100_000), &limits(1));
            assert_eq!(after, before);
        }
    }

    proptest! {
        #![proptest_config(super::super::fixtures::config(256))]

        /// Whenever turns happen, the ramp takes ceil((MAX - MIN) / step) intervals, and at most one turn more.
        #[test]
        fn a_ramp_takes_its_time_and_does_not_drift(
            min in 0..=256_u16,
            rise in 1..=256_u16,
            step in 1..=256_u16,
            interval in 1_000..=60_000_i64,
            gaps in prop::collection::vec(1..1_000_i64, 1..50),
        ) {
            let max = (min + rise).min(256);
            let limits = SlotLimits { min, max, step, interval: secs(1) * u32::try_from(interval).expect("small") / 1_000, ..limits(1) };
            let steps = i64::from((max - min).div_ceil(step));
            let start = 1_700_000_000_000_123;
            let (mut weight, mut last) = (min, Some(Timestamp::from_micros(start)));
            let (mut now, mut gap) = (start, 0);
            let mut turns = gaps.iter().cycle();
            while weight < max {
                gap = turns.next().expect("a cycle") * 1_000;
                now += gap;
                prop_assert!(now - start <= steps * interval * 1_000 + 1_000_000, "too long");
                (weight, last) = next(weight, last, max, Timestamp::from_micros(now), &limits);
            }
            let took = now - start;
            let due = steps * interval * 1_000;
            prop_assert!((due..due + gap.max(1)).contains(&took), "due after {due}, took {took}, last turn {gap}");
        }
    }
}
