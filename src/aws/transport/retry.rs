//! Whether and when a failed call is retried: the standard retry mode of the AWS SDKs, with its defaults since November
//! 2026. Pure but for its counters.
//!
//! AWS Developer Tools Blog, "Announcing updated retry behavior for AWS SDKs and Tools", and AWS SDKs and Tools Reference
//! Guide, "Retry behavior"; where they leave a detail open, botocore's `retries/standard.py` and smithy-rs's
//! `retries/strategy/standard.rs` agree on it. Three attempts (DynamoDB: four), exponential backoff with full jitter, and
//! a retry quota per service, so that an outage does not multiply the calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::aws::error::Cause;
use crate::aws::random::fraction;
use crate::aws::service::Service;

/// The upper bound of the first delay; it doubles with each retry.
const BASE: Duration = Duration::from_millis(50);
/// The same for DynamoDB, which responds faster.
const DYNAMODB_BASE: Duration = Duration::from_millis(25);
/// The same after a throttled call, for every service.
const THROTTLED_BASE: Duration = Duration::from_secs(1);
/// The largest upper bound. (The budget of an operation usually ends sooner.)
const MAX_DELAY: Duration = Duration::from_secs(20);
/// How far a service's `retry-after` may exceed our own delay.
const MAX_EXTRA_DELAY: Duration = Duration::from_secs(5);

/// Attempts per call, the first included.
const ATTEMPTS: u32 = 3;
/// The same for DynamoDB, whose shorter delays make up for one more.
const DYNAMODB_ATTEMPTS: u32 = 4;

/// The initial and largest number of tokens in a service's quota.
const CAPACITY: u32 = 500;
/// The tokens that a retry costs.
const COST: u32 = 14;
/// The same after a throttled call: cheaper, since the service is up.
const THROTTLED_COST: u32 = 5;
/// The tokens that a call without retries gives back; one with retries gives back the cost of its last one.
const REFUND: u32 = 1;

pub(crate) struct Quota(AtomicU32);

impl Default for Quota {
    fn default() -> Self {
        Quota(AtomicU32::new(CAPACITY))
    }
}

impl Quota {
    /// Takes the cost of a retry after `cause`; `None` if too little is left.
    pub(crate) fn take(&self, cause: &Cause) -> Option<u32> {
        let cost = if throttled(cause) { THROTTLED_COST } else { COST };
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        taken.is_ok().then_some(cost)
    }

    /// A call succeeded; `cost` is that of its last retry, if any.
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
pub(crate) fn is_retryable(cause: &Cause) -> bool {
    match cause {
        Cause::Unreachable(_) | Cause::TimedOut(_) => true,
        Cause::Refused(refusal) => refusal.is_retryable(),
        Cause::Unreadable(_) => false,
    }
}

fn throttled(cause: &Cause) -> bool {
    matches!(cause, Cause::Refused(refusal) if refusal.is_throttled())
}

/// The default attempts per call of this service, the first included.
pub(crate) fn attempts(service: Service) -> u32 {
    if service == Service::DynamoDb { DYNAMODB_ATTEMPTS } else { ATTEMPTS }
}

/// The delay after failed attempt number `failed`: our own backoff, or `retry_after` if that is longer, up to a limit.
pub(crate) fn retry_delay(
    service: Service,
    cause: &Cause,
    failed: u32,
    retry_after: Option<Duration>,
    random: u64,
) -> Duration {
    let base = if service == Service::DynamoDb { DYNAMODB_BASE } else { BASE };
    let own = jittered(base, cause, failed, random);
    retry_after.unwrap_or_default().clamp(own, own + MAX_EXTRA_DELAY)
}

/// The same for a request to a credential provider.
pub(crate) fn backoff(cause: &Cause, failed: u32, random: u64) -> Duration {
    jittered(BASE, cause, failed, random)
}

/// Full jitter: from zero to a bound that doubles with each failure.
fn jittered(base: Duration, cause: &Cause, failed: u32, random: u64) -> Duration {
    let base = if throttled(cause) { THROTTLED_BASE } else { base };
    let bound = base.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(MAX_DELAY);
    bound.mul_f64(fraction(random))
}

/// Parses the header `x-amz-retry-after`, in milliseconds; `None` if malformed.
pub(crate) fn parse_retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aws::error::refusal::refusal;

    fn fault() -> Cause {
        Cause::Unreachable("x".to_string())
    }

    fn refused(status: u16, code: &str) -> Cause {
        Cause::Refused(refusal(status, None, format!("{{\"__type\":\"x#{code}\"}}").as_bytes()))
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        use Service::{DynamoDb, Ec2, Sts};
        let cases = [
            (Ec2, fault(), [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000]),
            (
                Sts,
                refused(500, "InternalFailure"),
                [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000],
            ),
            (
                DynamoDb,
                Cause::TimedOut(String::new()),
                [25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000],
            ),
            (
                DynamoDb,
                refused(400, "ThrottlingException"),
                [1, 2, 4, 8, 16, 20, 20, 20, 20, 20, 20].map(|s| s * 1_000),
            ),
            (Ec2, refused(503, "RequestLimitExceeded"), [1, 2, 4, 8, 16, 20, 20, 20, 20, 20, 20].map(|s| s * 1_000)),
        ];
        for (service, cause, expected) in cases {
            let longest: Vec<u128> =
                (1..).map(|failed| retry_delay(service, &cause, failed, None, u64::MAX).as_millis()).take(11).collect();
            assert_eq!(longest, expected, "{service:?} {cause}");
            assert_eq!(retry_delay(service, &cause, 3, None, 0), Duration::ZERO);
        }
        assert_eq!(retry_delay(Ec2, &fault(), u32::MAX, None, u64::MAX), MAX_DELAY);
        assert_eq!(backoff(&fault(), 1, u64::MAX), BASE);
    }

    #[test]
    fn retry_after_can_lengthen_a_delay_but_not_shorten_it() {
        for (asked, random, expected) in [
            (None, u64::MAX, 50),
            (Some(10), u64::MAX, 50),
            (Some(0), 0, 0),
            (Some(1_500), u64::MAX, 1_500),
            (Some(1_500), 0, 1_500),
            (Some(60_000), u64::MAX, 5_050),
            (Some(60_000), 0, 5_000),
        ] {
            let wait = retry_delay(Service::Ec2, &fault(), 1, asked.map(Duration::from_millis), random);
            assert_eq!(wait, Duration::from_millis(expected), "{asked:?} {random}");
        }
        for (header, expected) in [
            ("1500", Some(1_500)),
            (" 0 ", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(parse_retry_after(header), expected.map(Duration::from_millis), "{header:?}");
        }
    }

    #[test]
    fn dynamodb_gets_one_more_attempt() {
        assert_eq!(Service::ALL.map(attempts), [4, 3, 3, 3, 3]);
    }

    #[test]
    fn the_quota_runs_out_and_fills_again() {
        for (cause, cost) in [
            (fault(), 14),
            (Cause::TimedOut(String::new()), 14),
            (refused(500, "InternalServerError"), 14),
            (refused(400, "ProvisionedThroughputExceededException"), 5),
            (refused(429, "Other"), 5),
        ] {
            let quota = Quota::default();
            let taken = std::iter::from_fn(|| quota.take(&cause)).inspect(|taken| assert_eq!(*taken, cost)).count();
            assert_eq!(taken, 500 / cost as usize, "{cause}");
            assert_eq!(quota.take(&cause), None);
            // One refund short of a retry.
            let missing = cost - 500 % cost;
            (0..missing - 1).for_each(|_| quota.refund(None));
            assert_eq!(quota.take(&cause), None);
            quota.refund(None);
            assert_eq!(quota.take(&cause), Some(cost));
            quota.refund(Some(cost));
            assert_eq!(quota.take(&cause), Some(cost));
            (0..1_000).for_each(|_| quota.refund(None));
            assert_eq!(quota.left(), 500);
        }
    }

    proptest! {
        /// Whatever fails or succeeds, retries never exceed the initial quota plus refunds.
        #[test]
        fn retries_are_paid_for(steps in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..2_000)) {
            let quota = Quota::default();
            let (mut paid, mut back, mut last) = (0, 0, None);
            for (fails, throttled) in steps {
                if fails {
                    let cause = if throttled { refused(400, "Throttling") } else { fault() };
                    last = quota.take(&cause);
                    paid += last.unwrap_or(0);
                } else {
                    quota.refund(last);
                    back += last.take().unwrap_or(1);
                }
                prop_assert!(paid <= 500 + back);
                prop_assert!(quota.left() <= 500);
            }
        }

        #[test]
        fn a_delay_never_exceeds_its_bound(failed in 0_u32..200, random: u64, asked: Option<u32>) {
            let asked = asked.map(|millis| Duration::from_millis(millis.into()));
            for service in Service::ALL {
                let own = retry_delay(service, &fault(), failed, None, random);
                let wait = retry_delay(service, &fault(), failed, asked, random);
                prop_assert!(own <= MAX_DELAY && wait >= own && wait <= own + MAX_EXTRA_DELAY);
            }
        }
    }
}
