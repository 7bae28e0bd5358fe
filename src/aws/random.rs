//! Chance: for waits that must not fall together, and for seeds.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number from 0 to 1.
pub(crate) fn fraction(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}

/// 64 bits that nobody can foretell: the standard library seeds a hasher from the system's randomness.
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
