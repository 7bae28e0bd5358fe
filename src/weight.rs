//! Weights, and the factor by which one server's weights differ from those of others: its size in units, times the factor of its group.

use std::fmt;

/// The highest weight of a HAProxy server (HAProxy configuration manual, `weight`: 0 to 256).
pub const MAX_WEIGHT: u16 = 256;

/// A server's weight, 0 to [`MAX_WEIGHT`].
pub type Weight = u16;

/// A factor of weights, to a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u64);

/// One, in millionths.
const ONE: u64 = 1_000_000;

/// Beyond any that makes a difference: weights end at [`MAX_WEIGHT`].
const MAX: u64 = 1_000_000 * ONE;

impl Factor {
    /// No weight at all.
    pub const ZERO: Factor = Factor(0);
    /// The weights of the settings.
    pub const ONE: Factor = Factor(ONE);
    /// The highest that a setting or a tag may give.
    pub const MAX_GIVEN: u64 = 16;

    /// A whole number.
    pub fn whole(number: u32) -> Self {
        Factor(u64::from(number).saturating_mul(ONE).min(MAX))
    }

    /// Parses a plain decimal number, such as `2` or `0.25`: digits and at most one point, no sign and no exponent. `None` for
    /// anything else, and above a million.
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && text.bytes().any(|byte| byte != b'.');
        let number: f64 = plain.then_some(text)?.parse().ok()?;
        // A factor above 0 is never rounded to it.
        let millionths = (number * ONE as f64).round().max(f64::from(u8::from(number > 0.0)));
        (millionths <= MAX as f64).then_some(Factor(millionths as u64))
    }

    /// Like [`Factor::parse`], up to [`Factor::MAX_GIVEN`].
    pub fn parse_given(text: &str) -> Option<Self> {
        Factor::parse(text).filter(|factor| factor.0 <= Factor::MAX_GIVEN * ONE)
    }

    /// Whether it is 0.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As a floating-point number.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / ONE as f64
    }

    /// The product, at most a million.
    pub fn times(self, other: Factor) -> Factor {
        Factor(rounded(self.0, other.0, ONE))
    }

    /// This divided by `unit`; by 0, this.
    pub fn in_units_of(self, unit: Factor) -> Factor {
        if unit.is_zero() { self } else { Factor(rounded(self.0, ONE, unit.0)) }
    }

    /// `weight` times this, rounded, 1 to [`MAX_WEIGHT`]; 0 if either is 0.
    pub fn of(self, weight: Weight) -> Weight {
        if self.is_zero() || weight == 0 {
            return 0;
        }
        // At most MAX_WEIGHT, so it fits.
        rounded(u64::from(weight), self.0, ONE).clamp(1, u64::from(MAX_WEIGHT)) as Weight
    }

    /// This, or the highest that keeps `max` within [`MAX_WEIGHT`].
    pub(crate) fn within_weights(self, max: Weight) -> Factor {
        self.min(Factor::whole(u32::from(MAX_WEIGHT)).in_units_of(Factor::whole(u32::from(max))))
    }
}

/// `a` times `b` divided by `by`, rounded, at most [`MAX`].
fn rounded(a: u64, b: u64, by: u64) -> u64 {
    let (product, by) = (u128::from(a) * u128::from(b), u128::from(by));
    u64::try_from((product + by / 2) / by).unwrap_or(MAX).min(MAX)
}

impl Default for Factor {
    fn default() -> Self {
        Factor::ONE
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / ONE, self.0 % ONE);
        let text = format!("{whole}.{rest:06}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What one server counts for, by itself: never by what the others are, so that a newcomer changes nobody else's weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// One unit.
    #[default]
    Unit,
    /// The `WeightedCapacity` that its Auto Scaling group gives it.
    Capacity(u32),
    /// Its virtual CPUs: cores times threads.
    Vcpus(u32),
    /// Its tag `hsdo:weight`, in place of its size.
    Tag(Factor),
    /// `Weights.Passing` of its Consul registration, 1 to 65535.
    Passing(u16),
}

impl Size {
    /// The factor, where a capacity or the virtual CPUs of 1 are `unit`.
    pub fn factor(self, unit: Factor) -> Factor {
        match self {
            Size::Unit => Factor::ONE,
            Size::Capacity(number) | Size::Vcpus(number) => Factor::whole(number).in_units_of(unit),
            Size::Tag(factor) => factor,
            Size::Passing(number) => Factor::whole(u32::from(number)),
        }
    }

    /// How it comes to its factor, as in `4 vCPUs of 2`; `None` if it is the unit.
    pub fn word(self, unit: Factor) -> Option<String> {
        match self {
            Size::Unit => None,
            Size::Capacity(number) => Some(format!("capacity {number} of {unit}")),
            Size::Vcpus(number) => Some(format!("{number} vCPUs of {unit}")),
            Size::Tag(factor) => Some(format!("tag hsdo:weight {factor}")),
            Size::Passing(number) => Some(format!("Consul weight {number}")),
        }
    }
}

/// What a server's weights are multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// Its size.
    pub size: Size,
    /// What its size and its group give.
    pub factor: Factor,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn factor(text: &str) -> Factor {
        Factor::parse(text).expect("a factor")
    }

    #[test]
    fn only_plain_decimals_are_factors() {
        for (text, expected) in [
            ("0", Some("0")),
            ("1", Some("1")),
            ("0.2", Some("0.2")),
            (".5", Some("0.5")),
            ("2.", Some("2")),
            ("16", Some("16")),
            ("0.0000001", Some("0.000001")),
            ("1.50", Some("1.5")),
            ("16.1", None),
            ("300", None),
            ("-1", None),
            ("+1", None),
            ("heavy", None),
            ("1e1", None),
            ("inf", None),
            ("nan", None),
            ("1,5", None),
            ("1.2.3", None),
            (".", None),
            ("", None),
            ("٣", None),
            (&"9".repeat(400), None),
        ] {
            assert_eq!(Factor::parse_given(text).map(|found| found.to_string()).as_deref(), expected, "{text:?}");
        }
        assert!(Factor::parse("300").is_some() && Factor::parse("1000001").is_none());
    }

    #[test]
    fn a_factor_multiplies_and_rounds_and_never_makes_a_weight_of_nothing() {
        for (size, unit, group, weight, expected) in [
            (Size::Unit, "1", "1", 10, 10),
            (Size::Vcpus(4), "2", "1", 10, 20),
            (Size::Vcpus(2), "8", "1", 10, 3),
            (Size::Vcpus(1), "96", "1", 10, 1),
            (Size::Capacity(3), "1", "0.5", 10, 15),
            (Size::Capacity(999), "1", "16", 256, 256),
            (Size::Tag(Factor::ZERO), "1", "16", 256, 0),
            (Size::Tag(Factor::ONE), "7", "0.25", 10, 3),
            (Size::Passing(65_535), "1", "1", 1, 256),
            (Size::Vcpus(4), "2", "0", 10, 0),
            (Size::Vcpus(4), "2", "1", 0, 0),
            (Size::Vcpus(u32::MAX), "0.000001", "16", 1, 256),
        ] {
            let found = size.factor(factor(unit)).times(factor(group));
            assert_eq!(found.of(weight), expected, "{size:?} of {unit}, {group} of {weight}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millionths in 0..=MAX) {
            let factor = Factor(millionths);
            prop_assert_eq!(Factor::parse(&factor.to_string()), Some(factor));
        }
    }
}
