//! Keeps credentials as long as they hold, and has them replaced ahead of their end in a thread of its own: a call
//! waits only where there are none that hold, and then no longer than its own time.
//!
//! While a replacement fails, what still holds is used on, and the log says so once. It knows no provider.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Credentials;
use crate::aws::error::Error;
use crate::aws::retry::{fraction, random};
use crate::clock::Timestamp;
use crate::log::Episode;

/// How long before their end credentials are replaced: the SDKs' refresh window. Shorter-lived ones after half of
/// their life; each process up to a fifth of that sooner, so that a fleet does not ask all at once.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
/// The shortest and the longest pause after a replacement that failed while the old ones hold.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// Credentials that came with an end in the past are used this long: the instance's metadata service gives such while it
/// cannot renew them, and AWS itself decides whether they still hold.
const PAST_END: Duration = Duration::from_secs(60);

/// Where credentials come from. It may take its time.
pub(crate) trait Source: Send + Sync {
    /// Looks for credentials.
    fn fetch(&self) -> Result<Credentials, Error>;
}

/// The time by AWS's clock.
pub(crate) type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// The credentials in use.
pub(crate) struct Cache(Arc<Inner>);

struct Inner {
    source: Box<dyn Source>,
    now: Now,
    state: Mutex<State>,
    fetched: Condvar,
}

struct State {
    held: Option<Held>,
    /// Whether a thread looks for others.
    fetching: bool,
    /// How many looks have ended.
    ended: u64,
    /// Why the last look failed, if it did.
    failure: Option<Error>,
    /// No look ahead of the end before this moment, after one that failed.
    pause: Option<Timestamp>,
    trouble: Episode,
}

struct Held {
    credentials: Credentials,
    /// When they end, and when others are looked for; `None` for those that do not end.
    end: Option<(Timestamp, Timestamp)>,
    /// AWS refused them.
    refused: bool,
}

impl Cache {
    /// Credentials of this source. Nothing is looked for yet.
    pub(crate) fn new(source: Box<dyn Source>, now: Now) -> Self {
        let trouble = Episode::new("AWS credentials").target(module_path!());
        let state = State { held: None, fetching: false, ended: 0, failure: None, pause: None, trouble };
        Cache(Arc::new(Inner { source, now, state: Mutex::new(state), fetched: Condvar::new() }))
    }

    /// Credentials that hold, waited for until `until` at most. Errors: those of the source, or that it takes longer.
    pub(crate) fn get(&self, until: Instant) -> Result<Credentials, Error> {
        let inner = &self.0;
        let mut state = inner.lock();
        let now = (inner.now)();
        if let Some(credentials) = state.usable(now) {
            if state.due(now) {
                inner.start(&mut state);
            }
            return Ok(credentials);
        }
        if !state.fetching {
            inner.start(&mut state);
        }
        let before = state.ended;
        while state.ended == before && state.fetching {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Unavailable(
                    "AWS credentials are not there in time: who gives them has not answered yet".to_string(),
                ));
            }
            state = inner.fetched.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let failure = state.failure.clone();
        state.usable((inner.now)()).ok_or_else(|| {
            failure.unwrap_or_else(|| Error::Unavailable("AWS credentials ended as soon as they came".to_string()))
        })
    }

    /// Others than `refused`, which AWS has refused, waited for until `until` at most; `None` if there are none.
    pub(crate) fn renew(&self, refused: &Credentials, until: Instant) -> Option<Credentials> {
        {
            let mut state = self.0.lock();
            if let Some(held) = state.held.as_mut().filter(|held| held.credentials.same_key(refused)) {
                held.refused = true;
            }
        }
        self.get(until).ok().filter(|credentials| !credentials.same_key(refused))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for credentials in a thread of its own.
    fn start(self: &Arc<Self>, state: &mut State) {
        state.fetching = true;
        let inner = Arc::clone(self);
        let thread = std::thread::Builder::new().name("credentials".to_string());
        let started = thread.spawn(move || {
            let result = inner.source.fetch();
            let now = (inner.now)();
            inner.lock().take(result, now, random());
            inner.fetched.notify_all();
        });
        if let Err(error) = started {
            let text = format!("no thread to fetch AWS credentials: {error}: check the limits of the process");
            state.take(Err(Error::Unavailable(text)), (self.now)(), 0);
        }
    }
}

impl State {
    fn usable(&self, now: Timestamp) -> Option<Credentials> {
        let held = self.held.as_ref().filter(|held| !held.refused)?;
        held.end.is_none_or(|(end, _)| now < end).then(|| held.credentials.clone())
    }

    fn due(&self, now: Timestamp) -> bool {
        let end = self.held.as_ref().and_then(|held| held.end);
        !self.fetching && end.is_some_and(|(_, refresh)| refresh <= now) && self.pause.is_none_or(|pause| pause <= now)
    }

    /// A look ended so.
    fn take(&mut self, result: Result<Credentials, Error>, now: Timestamp, random: u64) {
        self.fetching = false;
        self.ended += 1;
        match result {
            Ok(credentials) => {
                if self.held.as_ref().is_none_or(|held| held.credentials.from != credentials.from) {
                    log::info!("AWS credentials: {}", credentials.who());
                }
                let end = credentials.expires.map(|expires| ends(now, expires, random));
                self.held = Some(Held { credentials, end, refused: false });
                self.failure = None;
                self.pause = None;
                self.trouble.report(None);
            }
            Err(error) => {
                let left = self.held.as_ref().filter(|held| !held.refused).and_then(|held| held.end?.0.since(now));
                if let Some(left) = left {
                    let text = format!("not renewed, and those at hand hold for {} s more: {error}", left.as_secs());
                    self.trouble.report(Some((&error.key(), &text)));
                }
                self.pause = Some(now.plus(pause(left.unwrap_or_default(), random)));
                self.failure = Some(error);
            }
        }
    }
}

/// When credentials that came `now` and expire then are no longer used, and when others are looked for.
fn ends(now: Timestamp, expires: Timestamp, random: u64) -> (Timestamp, Timestamp) {
    let left = expires.since(now).unwrap_or_default();
    let end = if left.is_zero() { now.plus(PAST_END) } else { expires };
    let life = end.since(now).unwrap_or_default();
    let before = REFRESH_BEFORE.min(life / 2).mul_f64(1.0 + fraction(random) / 5.0);
    (end, now.plus(life.saturating_sub(before)))
}

/// How long to leave the source alone after it failed, while what is held holds for `left`.
fn pause(left: Duration, random: u64) -> Duration {
    (left / 4).clamp(PAUSES[0], PAUSES[1]).mul_f64(0.5 + fraction(random) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// What a source answers next.
    type Next = Result<Option<i64>, Error>;

    /// A source that answers when the test says so, with keys counted up that end at a second or never.
    struct Scripted {
        next: Mutex<Receiver<Next>>,
        asked: Arc<AtomicUsize>,
    }

    impl Source for Scripted {
        fn fetch(&self) -> Result<Credentials, Error> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            let next = self.next.lock().expect("a lock").recv().expect("an answer");
            let mut found = Credentials::fixed(&format!("AK{number}"), "hush", None).expect("sendable").of("a test");
            found.expires = next?.map(at);
            Ok(found)
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

        fn get(&self, second: i64) -> Result<String, Error> {
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
        Err(Error::Unavailable("out".to_string()))
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
        bench.answer(outage());
        assert!(matches!(bench.get(3_600), Err(Error::Unavailable(text)) if text == "out"));
        bench.answer(Ok(Some(9_000)));
        assert_eq!(bench.key(3_601), "AK4");
    }

    #[test]
    fn a_source_that_hangs_takes_no_more_than_the_time_of_the_call() {
        let bench = Bench::new();
        let begun = Instant::now();
        let error = bench.cache.get(begun + Duration::from_millis(200)).expect_err("nothing yet");
        assert!(error.to_string().contains("in time") && !error.needs_a_person(), "{error}");
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
        assert!(bench.cache.renew(&new, soon()).is_none());
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
}
