//! Caching, refreshing and reusing expired credentials, with a source that responds when the test says so.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

type Next = Result<Option<i64>, AwsError>;

/// Responds when the test says so, with numbered keys.
struct Scripted {
    next: Mutex<Receiver<Next>>,
    asked: Arc<AtomicUsize>,
}

impl CredentialFetcher for Scripted {
    fn fetch(&self) -> Result<Credentials, AwsError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let next = self.next.lock().expect("a lock").recv().expect("an answer");
        let mut found =
            Credentials::fixed(&format!("AK{number}"), "hush", None).expect("sendable").with_source("a test");
        found.expires = next?.map(at);
        Ok(found)
    }

    fn current(&self) -> &'static str {
        "a test"
    }
}

struct Bench {
    cache: Cache,
    answers: Sender<Next>,
    asked: Arc<AtomicUsize>,
    clock: Arc<AtomicI64>,
}

impl Bench {
    fn new() -> Self {
        let (answers, next) = channel();
        let asked = Arc::new(AtomicUsize::new(0));
        let clock = Arc::new(AtomicI64::new(0));
        let source = Scripted { next: Mutex::new(next), asked: Arc::clone(&asked) };
        let now = Arc::clone(&clock);
        let cache = Cache::new(Box::new(source), Box::new(move || at(now.load(Ordering::SeqCst))));
        Bench { cache, answers, asked, clock }
    }

    fn answer(&self, next: Next) {
        self.answers.send(next).expect("the source lives");
    }

    fn get(&self, second: i64) -> Result<String, AwsError> {
        self.clock.store(second, Ordering::SeqCst);
        self.cache.get(soon()).map(|found| found.access_key_id)
    }

    fn key(&self, second: i64) -> String {
        self.get(second).expect("credentials")
    }

    fn wait_finished(&self, finished: u64) {
        let mut state = self.cache.0.lock();
        while state.finished < finished {
            let waited = self.cache.0.fetched.wait_timeout(state, Duration::from_secs(5)).expect("a lock");
            assert!(!waited.1.timed_out(), "{finished} fetches");
            state = waited.0;
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn outage() -> Next {
    Err(AwsError::Unavailable("out".to_string()))
}

#[test]
fn credentials_without_expiry_are_fetched_once() {
    let bench = Bench::new();
    bench.answer(Ok(None));
    assert_eq!([bench.key(0), bench.key(1), bench.key(1_000_000)], ["AK0", "AK0", "AK0"]);
    assert_eq!(bench.asked(), 1);
}

#[test]
fn expiring_credentials_are_refreshed_in_the_background() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    assert_eq!([bench.key(0), bench.key(3_200)], ["AK0", "AK0"]);
    assert_eq!(bench.asked(), 1);
    // In the window: the old ones are returned while a fetch is in flight.
    assert_eq!(bench.key(3_301), "AK0");
    bench.answer(Ok(Some(7_200)));
    bench.wait_finished(2);
    assert_eq!(bench.key(3_302), "AK1");
}

#[test]
fn valid_credentials_stay_in_use_while_refreshes_fail() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    bench.key(0);
    bench.answer(outage());
    assert_eq!(bench.key(3_301), "AK0");
    bench.wait_finished(2);
    // The next refresh waits, but comes before the expiry.
    assert_eq!(bench.key(3_302), "AK0");
    assert_eq!(bench.asked(), 2);
    bench.answer(outage());
    assert_eq!(bench.key(3_599), "AK0");
    bench.wait_finished(3);
}

#[test]
fn expired_credentials_stay_in_use_until_aws_rejects_them() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    bench.key(0);
    // The first fetch after the expiry is waited for.
    bench.answer(outage());
    assert_eq!(bench.key(3_601), "AK0");
    assert_eq!(bench.asked(), 2);
    // Later ones run in the background, with growing pauses.
    assert_eq!(bench.key(3_601), "AK0");
    assert_eq!(bench.asked(), 2);
    bench.answer(outage());
    assert_eq!(bench.key(3_700), "AK0");
    bench.wait_finished(3);
    assert_eq!(bench.key(3_710), "AK0");
    assert_eq!(bench.asked(), 3);
    // Rejected credentials are not sent again.
    let ended = bench.cache.get(soon()).expect("credentials");
    bench.answer(outage());
    assert!(matches!(bench.cache.renew(&ended, soon()), Err(Some(AwsError::Unavailable(text))) if text == "out"));
    bench.answer(outage());
    assert!(matches!(bench.get(3_711), Err(AwsError::Unavailable(text)) if text == "out"));
    bench.answer(Ok(Some(9_000)));
    assert_eq!(bench.key(3_712), "AK5");
}

#[test]
fn a_hung_source_does_not_block_a_call_with_expired_credentials() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    bench.key(0);
    let begun = Instant::now();
    assert_eq!(bench.key(4_000), "AK0");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    bench.answer(Ok(Some(9_000)));
    bench.wait_finished(2);
    assert_eq!(bench.key(4_001), "AK1");
}

#[test]
fn a_hung_source_costs_no_more_than_the_deadline_of_the_call() {
    let bench = Bench::new();
    let begun = Instant::now();
    let error = bench.cache.get(begun + Duration::from_millis(200)).expect_err("nothing yet");
    assert!(
        error.to_string().ends_with("timed out waiting for AWS credentials: a test has not responded yet")
            && !error.needs_operator(),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    // The next call finds what came meanwhile, without a second fetch.
    bench.answer(Ok(None));
    assert_eq!(bench.key(1), "AK0");
    assert_eq!(bench.asked(), 1);
}

#[test]
fn rejected_credentials_are_replaced_within_the_call() {
    let bench = Bench::new();
    bench.answer(Ok(None));
    bench.key(0);
    bench.answer(Ok(None));
    let old = bench.cache.get(soon()).expect("credentials");
    let new = bench.cache.renew(&old, soon()).expect("others");
    assert_eq!(new.access_key_id, "AK1");
    // Another call that was rejected with the old ones gets the new ones at once.
    assert_eq!(bench.cache.renew(&old, soon()).expect("others").access_key_id, "AK1");
    bench.answer(outage());
    assert!(bench.cache.renew(&new, soon()).is_err());
    assert_eq!(bench.asked(), 3);
}

#[test]
fn credentials_that_arrive_expired_are_used_for_a_while() {
    let bench = Bench::new();
    bench.answer(Ok(Some(100)));
    assert_eq!([bench.key(1_000), bench.key(1_020)], ["AK0", "AK0"]);
    bench.answer(Ok(Some(9_000)));
    assert_eq!(bench.key(1_061), "AK1");
}

#[test]
fn the_refresh_window_shrinks_with_the_lifetime_and_differs_by_process() {
    let refresh = |life: i64, random: u64| expiry(at(0), at(life), random).1;
    assert_eq!(refresh(3_600, 0), at(3_300));
    assert_eq!(refresh(3_600, u64::MAX), at(3_240));
    assert_eq!(refresh(8, 0), at(4));
    assert_eq!(retry_pause(Duration::from_secs(2), u64::MAX), *RETRY_PAUSE.start());
    assert_eq!(retry_pause(Duration::from_secs(3_600), 0), *RETRY_PAUSE.end() / 2);
}
