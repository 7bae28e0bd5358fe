//! Credentials that are kept, replaced and used on, with a source that answers when a test says so.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// What a source answers next.
type Next = Result<Option<i64>, AwsError>;

/// A source that answers when the test says so, with keys counted up that end at a second or never.
struct Scripted {
    next: Mutex<Receiver<Next>>,
    asked: Arc<AtomicUsize>,
}

impl Source for Scripted {
    fn fetch(&self) -> Result<Credentials, AwsError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let next = self.next.lock().expect("a lock").recv().expect("an answer");
        let mut found =
            Credentials::fixed(&format!("AK{number}"), "hush", None).expect("sendable").with_source("a test");
        found.expires = next?.map(at);
        Ok(found)
    }

    fn asked(&self) -> &'static str {
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

    /// Waits until so many looks have ended.
    fn wait(&self, ended: u64) {
        let mut state = self.cache.0.lock();
        while state.ended < ended {
            let waited = self.cache.0.fetched.wait_timeout(state, Duration::from_secs(5)).expect("a lock");
            assert!(!waited.1.timed_out(), "{ended} looks");
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
fn what_does_not_end_is_fetched_once() {
    let bench = Bench::new();
    bench.answer(Ok(None));
    assert_eq!([bench.key(0), bench.key(1), bench.key(1_000_000)], ["AK0", "AK0", "AK0"]);
    assert_eq!(bench.asked(), 1);
}

#[test]
fn what_ends_is_replaced_ahead_without_a_wait() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    assert_eq!([bench.key(0), bench.key(3_200)], ["AK0", "AK0"]);
    assert_eq!(bench.asked(), 1);
    // In the window: the old ones are handed out while others are on their way.
    assert_eq!(bench.key(3_301), "AK0");
    bench.answer(Ok(Some(7_200)));
    bench.wait(2);
    assert_eq!(bench.key(3_302), "AK1");
}

#[test]
fn while_a_replacement_fails_what_holds_is_used_on() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    bench.key(0);
    bench.answer(outage());
    assert_eq!(bench.key(3_301), "AK0");
    bench.wait(2);
    // The source is left alone for a while, and asked again before the end.
    assert_eq!(bench.key(3_302), "AK0");
    assert_eq!(bench.asked(), 2);
    bench.answer(outage());
    assert_eq!(bench.key(3_599), "AK0");
    bench.wait(3);
}

#[test]
fn past_their_end_those_at_hand_are_used_until_aws_refuses_them() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    bench.key(0);
    // The first look past the end is waited for.
    bench.answer(outage());
    assert_eq!(bench.key(3_601), "AK0");
    assert_eq!(bench.asked(), 2);
    // From then on the source is asked beside the calls, at growing distances.
    assert_eq!(bench.key(3_601), "AK0");
    assert_eq!(bench.asked(), 2);
    bench.answer(outage());
    assert_eq!(bench.key(3_700), "AK0");
    bench.wait(3);
    assert_eq!(bench.key(3_710), "AK0");
    assert_eq!(bench.asked(), 3);
    // AWS has the last word, and is not asked twice with what it refused.
    let ended = bench.cache.get(soon()).expect("credentials");
    bench.answer(outage());
    assert!(matches!(bench.cache.renew(&ended, soon()), Err(Some(AwsError::Unavailable(text))) if text == "out"));
    bench.answer(outage());
    assert!(matches!(bench.get(3_711), Err(AwsError::Unavailable(text)) if text == "out"));
    bench.answer(Ok(Some(9_000)));
    assert_eq!(bench.key(3_712), "AK5");
}

#[test]
fn a_source_that_hangs_does_not_keep_ended_ones_from_a_call() {
    let bench = Bench::new();
    bench.answer(Ok(Some(3_600)));
    bench.key(0);
    let begun = Instant::now();
    assert_eq!(bench.key(4_000), "AK0");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    bench.answer(Ok(Some(9_000)));
    bench.wait(2);
    assert_eq!(bench.key(4_001), "AK1");
}

#[test]
fn a_source_that_hangs_takes_no_more_than_the_time_of_the_call() {
    let bench = Bench::new();
    let begun = Instant::now();
    let error = bench.cache.get(begun + Duration::from_millis(200)).expect_err("nothing yet");
    assert!(error.to_string().ends_with("in time: a test has not answered yet") && !error.needs_operator(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    // The next call finds what came meanwhile, and asked nobody twice.
    bench.answer(Ok(None));
    assert_eq!(bench.key(1), "AK0");
    assert_eq!(bench.asked(), 1);
}

#[test]
fn refused_credentials_are_replaced_within_the_call() {
    let bench = Bench::new();
    bench.answer(Ok(None));
    bench.key(0);
    bench.answer(Ok(None));
    let old = bench.cache.get(soon()).expect("credentials");
    let new = bench.cache.renew(&old, soon()).expect("others");
    assert_eq!(new.access_key_id, "AK1");
    // Another call that was refused with the old ones gets the new ones at once.
    assert_eq!(bench.cache.renew(&old, soon()).expect("others").access_key_id, "AK1");
    bench.answer(outage());
    assert!(bench.cache.renew(&new, soon()).is_err());
    assert_eq!(bench.asked(), 3);
}

#[test]
fn what_came_past_its_end_is_tried_a_little_longer() {
    let bench = Bench::new();
    bench.answer(Ok(Some(100)));
    assert_eq!([bench.key(1_000), bench.key(1_020)], ["AK0", "AK0"]);
    bench.answer(Ok(Some(9_000)));
    assert_eq!(bench.key(1_061), "AK1");
}

#[test]
fn the_window_shrinks_with_the_life_and_differs_by_process() {
    let refresh = |life: i64, random: u64| ends(at(0), at(life), random).1;
    assert_eq!(refresh(3_600, 0), at(3_300));
    assert_eq!(refresh(3_600, u64::MAX), at(3_240));
    assert_eq!(refresh(8, 0), at(4));
    assert_eq!(pause(Duration::from_secs(2), u64::MAX), PAUSES[0]);
    assert_eq!(pause(Duration::from_secs(3_600), 0), PAUSES[1] / 2);
}
