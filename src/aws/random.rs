//! Randomness for jitter and hash seeds.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Scales 64 random bits to 0..=1.
pub(crate) fn fraction(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}

/// 64 random bits: the standard library seeds its hashers from the system's randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(random(), random());
    }
}
