use super::super::fixtures::{at, config, limits, secs, slot, weighted};
use super::*;
use crate::slot::Occupant;
use crate::weight::Size;
use proptest::prelude::*;

fn ramp(limits: &SlotLimits) -> Ramp {
    Ramp::new(limits, Factor::ONE)
}

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
        let found = ramp(&limits).after(weight, last.map(at), at(100));
        assert_eq!(found, (expected, expected_last.map(at)), "{name}");
    }
}

#[test]
fn only_an_enabled_server_ramps() {
    for status in [Status::Draining, Status::Disabled] {
        let before = Occupant { status, ..slot("1 .1 i1 a enabled 3").occupant.expect("one") };
        let mut after = before.clone();
        ramp(&limits(1)).advance(&mut after, at(100_000));
        assert_eq!(after, before);
    }
}

/// The weights that a ramp from MIN gives, each as often as it stands for an interval, up to the full weight.
fn weights(ramp: &Ramp) -> Vec<Weight> {
    let mut weights = vec![ramp.start()];
    while let Some(next) = ramp.next(*weights.last().expect("one")) {
        let last = *weights.last().expect("one");
        weights.extend(std::iter::repeat_n(last, next.after as usize - 1));
        weights.push(next.weight);
    }
    weights
}

#[test]
fn ramps_of_all_sizes_take_the_same_time() {
    #[rustfmt::skip]
    let cases: [(&str, &[Weight]); 7] = [
        ("1",    &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("2",    &[2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
        ("1.25", &[1, 3, 4, 5, 6, 8, 9, 10, 11, 13]),
        ("0.5",  &[1, 1, 2, 2, 3, 3, 4, 4, 4, 5]),
        ("0.2",  &[1, 1, 1, 1, 1, 1, 1, 1, 1, 2]),
        ("0.01", &[1]),
        ("0",    &[0]),
    ];
    for (factor, expected) in cases {
        let ramp = Ramp::new(&weighted(1), Factor::parse(factor).expect("a factor"));
        assert_eq!(weights(&ramp), expected, "{factor}");
    }
    let large = SlotLimits { max: 200, step: 50, ..weighted(1) };
    assert_eq!(
        weights(&Ramp::new(&large, Factor::whole(2))),
        [1, 65, 129, 193, 256],
        "the factor is capped, not the ramp"
    );
}

#[test]
fn the_way_down_takes_about_as_long_as_a_ramp() {
    for (from, factor, limits, intervals) in [
        (160, "1", weighted(1), 12),
        (160, "0", weighted(1), 19),
        (10, "0", weighted(1), 7),
        (20, "1", weighted(1), 3),
        (256, "0.5", SlotLimits { max: 100, step: 10, ..weighted(1) }, 8),
        (30, "1", SlotLimits { step: 10, ..weighted(1) }, 1),
    ] {
        let ramp = Ramp::new(&limits, Factor::parse(factor).expect("a factor"));
        let left = ramp.next(from).map(|next| next.left + 1);
        assert_eq!(left, Some(intervals), "{from} to {factor}");
    }
}

proptest! {
    #![proptest_config(config(256))]

    /// Whenever turns happen, the ramp takes ceil((MAX - MIN) / step) intervals, and at most one turn more.
    #[test]
    fn a_ramp_takes_its_time_and_does_not_drift(
        min in 0..=256_u16,
        rise in 1..=256_u16,
        step in 1..=256_u16,
        vcpus in 1..=200_u32,
        interval in 1_000..=60_000_i64,
        gaps in prop::collection::vec(1..1_000_i64, 1..50),
    ) {
        let max = (min + rise).min(256);
        let interval_of = secs(1) * u32::try_from(interval).expect("small") / 1_000;
        let limits = SlotLimits { min, max, step, interval: interval_of, ..weighted(1) };
        let ramp = Ramp::new(&limits, Size::Vcpus(vcpus).factor(Factor::whole(8)));
        prop_assume!(ramp.start() < ramp.full());
        let steps = i64::from((max - min).div_ceil(step));
        let start = 1_700_000_000_000_123;
        let (mut weight, mut last) = (ramp.start(), Some(Timestamp::from_micros(start)));
        let (mut now, mut gap) = (start, 0);
        let mut turns = gaps.iter().cycle();
        while weight < ramp.full() {
            gap = turns.next().expect("a cycle") * 1_000;
            now += gap;
            prop_assert!(now - start <= steps * interval * 1_000 + 1_000_000, "too long");
            let before = weight;
            (weight, last) = ramp.after(weight, last, Timestamp::from_micros(now));
            prop_assert!(weight >= before, "it falls");
        }
        let took = now - start;
        let due = steps * interval * 1_000;
        prop_assert!((due..due + gap.max(1)).contains(&took), "due after {due}, took {took}, last turn {gap}");
    }

    /// From any weight, a factor that changed is reached by steps, within the range of weights, and then it rests.
    #[test]
    fn any_weight_reaches_the_full_one(
        min in 0..=256_u16,
        rise in 0..=256_u16,
        step in 1..=256_u16,
        factor in prop::sample::select(vec!["0", "0.01", "0.3", "1", "1.7", "16"]),
        weight in 0..=256_u16,
    ) {
        let limits = SlotLimits { min, max: (min + rise).min(256), step, interval: secs(30), ..weighted(1) };
        let ramp = Ramp::new(&limits, Factor::parse(factor).expect("a factor"));
        let (mut weight, mut last, mut now) = (weight, Some(at(0)), 0);
        let mut changes = 0;
        while weight != ramp.full() {
            now += 30;
            let before = weight;
            (weight, last) = ramp.after(weight, last, at(now));
            changes += u32::from(weight != before);
            prop_assert!(changes <= 257 && now < 30 * 600, "never");
            prop_assert!(weight.abs_diff(ramp.full()) <= before.abs_diff(ramp.full()), "it turns round");
        }
        prop_assert_eq!(ramp.after(weight, last, at(now + 1_000)), (weight, last));
    }
}
