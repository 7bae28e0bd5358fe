//! Whether and when a failed call is tried again: the standard retry mode of the SDKs. Pure but for its counters.
//!
//! AWS SDKs and Tools Reference Guide, "Retry behavior": three attempts, exponential backoff with full jitter, and a
//! quota of retries for each service, so that an outage does not multiply the calls.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::codes::Kind;
use super::error::Cause;

/// Half of this is the mean of the first wait, and each further one doubles.
const BASE: Duration = Duration::from_millis(100);
/// The same after a throttled call.
const THROTTLED_BASE: Duration = Duration::from_millis(500);
/// The longest wait between two attempts: the time for a whole call is not much longer.
const LONGEST: Duration = Duration::from_secs(2);

/// The tokens that a service's quota holds at first, and at most.
const CAPACITY: u32 = 500;
/// What a retry costs.
const COST: u32 = 5;
/// What a retry after a time-out costs.
const TIMEOUT_COST: u32 = 10;
/// What a call that succeeds at once gives back; one that succeeds later gives back what its last retry cost.
const REFUND: u32 = 1;

/// The retries that a service has left.
pub(crate) struct Quota(AtomicU32);

impl Default for Quota {
    fn default() -> Self {
        Quota(AtomicU32::new(CAPACITY))
    }
}

impl Quota {
    /// Takes what a retry after `cause` costs; `None` if that is not left.
    pub(crate) fn take(&self, cause: &Cause) -> Option<u32> {
        let cost = if matches!(cause, Cause::TimedOut(_)) { TIMEOUT_COST } else { COST };
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        taken.is_ok().then_some(cost)
    }

    /// A call succeeded whose last retry cost that much, if it needed any.
    pub(crate) fn refund(&self, cost: Option<u32>) {
        let back = cost.unwrap_or(REFUND);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some((left + back).min(CAPACITY)));
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the same call may succeed a moment later.
pub(crate) fn passes(cause: &Cause) -> bool {
    match cause {
        Cause::Unreachable(_) | Cause::TimedOut(_) => true,
        Cause::Refused(refusal) => refusal.passes(),
        Cause::Unreadable(_) => false,
    }
}

/// The wait after the `failed`th failed attempt: anything from zero to a bound that doubles each time.
pub(crate) fn backoff(cause: &Cause, failed: u32, random: u64) -> Duration {
    let throttled = matches!(cause, Cause::Refused(refusal) if refusal.kind() == Some(Kind::Throttled));
    let base = if throttled { THROTTLED_BASE } else { BASE };
    let bound = base.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST);
    bound.mul_f64(fraction(random))
}

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
    use super::super::refusal::refusal;
    use super::*;

    #[test]
    fn waits_grow_up_to_their_bound() {
        let fault = Cause::Unreachable("x".to_string());
        let longest: Vec<u128> = (1..=8).map(|failed| backoff(&fault, failed, u64::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000]);
        assert_eq!(backoff(&fault, 3, 0), Duration::ZERO);
        let throttled = Cause::Refused(refusal(400, None, b"{\"__type\":\"x#ThrottlingException\"}"));
        assert_eq!(backoff(&throttled, 1, u64::MAX).as_millis(), 500);
        assert_ne!(random(), random());
    }

    #[test]
    fn the_quota_runs_out_and_fills_again() {
        let quota = Quota::default();
        let (fault, timeout) = (Cause::Unreachable(String::new()), Cause::TimedOut(String::new()));
        assert_eq!((quota.take(&timeout), quota.take(&fault)), (Some(10), Some(5)));
        let taken = std::iter::from_fn(|| quota.take(&fault)).count();
        assert_eq!(taken, (500 - 15) / 5);
        assert_eq!(quota.take(&fault), None);
        (0..4).for_each(|_| quota.refund(None));
        assert_eq!(quota.take(&fault), None);
        quota.refund(Some(5));
        assert_eq!(quota.take(&fault), Some(5));
        (0..1_000).for_each(|_| quota.refund(None));
        assert_eq!(quota.left(), 500);
    }
}
