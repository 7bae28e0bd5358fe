//! Caches credentials and refreshes them in the background before they expire: a call waits only when the cache is empty,
//! and never past its own deadline.
//!
//! While refreshes fail, the cached credentials stay in use, even expired: AWS decides whether to accept them, as in the
//! SDKs since 2026 ("static stability": botocore pull request 3733, smithy-rs 4774). Rejected ones are never reused.

use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::aws::error::AwsError;
use crate::aws::random::{fraction, random};
use crate::aws::transport::identity::Credentials;
use crate::clock::Timestamp;
use crate::log::Episode;

/// The SDKs' refresh window before expiry, capped at half the lifetime. Each process adds up to a fifth, so that a fleet
/// does not refresh all at once.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
/// Bounds of the pause after a failed refresh.
const RETRY_PAUSE: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(60);
/// How long to use credentials that arrived already expired: the metadata service returns such while it cannot renew them.
const EXPIRED_LIFETIME: Duration = Duration::from_secs(60);
/// How long a call waits for a refresh of expired credentials: after a machine wakes up, it takes milliseconds.
const EXPIRED_WAIT: Duration = Duration::from_secs(1);

/// Fetches credentials; may block.
pub(crate) trait CredentialFetcher: Send + Sync {
    fn fetch(&self) -> Result<Credentials, AwsError>;

    /// The provider being queried, for messages.
    fn current(&self) -> &'static str;
}

/// The time, corrected for clock skew with AWS.
pub(crate) type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// The credential cache.
pub(crate) struct Cache(Arc<CacheInner>);

struct CacheInner {
    fetcher: Box<dyn CredentialFetcher>,
    now: Now,
    state: Mutex<CacheState>,
    fetched: Condvar,
}

struct CacheState {
    held: Option<CachedCredentials>,
    fetching: bool,
    /// How many fetches have finished.
    finished: u64,
    failure: Option<AwsError>,
    /// No refresh before this, after a failed one.
    retry_at: Option<Timestamp>,
    trouble: Episode,
}

struct CachedCredentials {
    credentials: Credentials,
    /// When they expire, and when to refresh them.
    expiry: Option<(Timestamp, Timestamp)>,
    /// AWS rejected them.
    rejected: bool,
}

impl Cache {
    /// An empty cache.
    pub(crate) fn new(fetcher: Box<dyn CredentialFetcher>, now: Now) -> Self {
        let trouble = Episode::new("AWS credentials").target(module_path!());
        let state = CacheState { held: None, fetching: false, finished: 0, failure: None, retry_at: None, trouble };
        Cache(Arc::new(CacheInner { fetcher, now, state: Mutex::new(state), fetched: Condvar::new() }))
    }

    /// Credentials to use, by `deadline`. Errors: the fetch failed or did not finish in time.
    pub(crate) fn get(&self, deadline: Instant) -> Result<Credentials, AwsError> {
        let inner = &self.0;
        let mut state = inner.lock();
        let now = (inner.now)();
        let held = state.usable(now);
        if state.refresh_due(now) || (held.is_none() && !state.fetching) {
            inner.start_fetch(&mut state);
        }
        let deadline = match &held {
            Some((credentials, true)) => return Ok(credentials.clone()),
            // Expired. If the last refresh failed, don't wait for another: let AWS decide.
            Some((credentials, false)) if state.failure.is_some() || !state.fetching => return Ok(credentials.clone()),
            Some(_) => deadline.min(Instant::now() + EXPIRED_WAIT),
            None => deadline,
        };
        let before = state.finished;
        while state.finished == before && state.fetching {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return held.map(|(credentials, _)| credentials).ok_or_else(|| {
                    let provider = inner.fetcher.current();
                    AwsError::Unavailable(format!(
                        "timed out waiting for AWS credentials: {provider} has not responded yet"
                    ))
                });
            }
            state = inner.fetched.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let failure = state.failure.clone();
        state.usable((inner.now)()).map(|(credentials, _)| credentials).ok_or_else(|| {
            failure.unwrap_or_else(|| AwsError::Unavailable("AWS rejected the newly fetched credentials".to_string()))
        })
    }

    /// Replaces credentials that AWS rejected, by `deadline`. The error is `None` if their source still returns the same.
    pub(crate) fn renew(&self, rejected: &Credentials, deadline: Instant) -> Result<Credentials, Option<AwsError>> {
        {
            let mut state = self.0.lock();
            if let Some(held) = state.held.as_mut().filter(|held| held.credentials.same_key(rejected)) {
                held.rejected = true;
            }
        }
        match self.get(deadline) {
            Ok(credentials) if credentials.same_key(rejected) => Err(None),
            result => result.map_err(Some),
        }
    }
}

impl CacheInner {
    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_fetch(self: &Arc<Self>, state: &mut CacheState) {
        state.fetching = true;
        let inner = Arc::clone(self);
        let thread = std::thread::Builder::new().name("credentials".to_string());
        let started = thread.spawn(move || {
            let result = inner.fetcher.fetch();
            let now = (inner.now)();
            inner.lock().record(result, now, random());
            inner.fetched.notify_all();
        });
        if let Err(error) = started {
            let text = format!("cannot start a thread to fetch AWS credentials: {error}: check the process limits");
            state.record(Err(AwsError::Unavailable(text)), (self.now)(), 0);
        }
    }
}

impl CacheState {
    /// The cached credentials unless rejected, and whether they are unexpired.
    fn usable(&self, now: Timestamp) -> Option<(Credentials, bool)> {
        let held = self.held.as_ref().filter(|held| !held.rejected)?;
        Some((held.credentials.clone(), held.expiry.is_none_or(|(end, _)| now < end)))
    }

    fn refresh_due(&self, now: Timestamp) -> bool {
        let expiry = self.held.as_ref().and_then(|held| held.expiry);
        !self.fetching && expiry.is_some_and(|(_, refresh)| refresh <= now) && self.retry_at.is_none_or(|at| at <= now)
    }

    fn record(&mut self, result: Result<Credentials, AwsError>, now: Timestamp, random: u64) {
        self.fetching = false;
        self.finished += 1;
        match result {
            Ok(credentials) => {
                if self.held.as_ref().is_none_or(|held| held.credentials.source != credentials.source) {
                    log::info!("AWS credentials: {}", credentials.label());
                }
                let expiry = credentials.expires.map(|expires| expiry(now, expires, random));
                self.held = Some(CachedCredentials { credentials, expiry, rejected: false });
                self.failure = None;
                self.retry_at = None;
                self.trouble.report(None);
            }
            Err(error) => {
                let end = self.held.as_ref().filter(|held| !held.rejected).and_then(|held| Some(held.expiry?.0));
                if let Some(end) = end {
                    let (key, text) = match end.since(now) {
                        Some(left) if !left.is_zero() => (
                            error.key(),
                            format!(
                                "refresh failed, but the current ones are valid for another {} s: {error}",
                                left.as_secs()
                            ),
                        ),
                        _ => (
                            format!("expired: {}", error.key()),
                            format!("refresh failed; using the expired ones for as long as AWS accepts them: {error}"),
                        ),
                    };
                    self.trouble.report(Some((&key, &text)));
                }
                let distance = end.map(|end| end.since(now).or(now.since(end)).unwrap_or_default());
                self.retry_at = Some(now.plus(retry_pause(distance.unwrap_or_default(), random)));
                self.failure = Some(error);
            }
        }
    }
}

/// When credentials fetched `now` expire, and when to refresh them.
fn expiry(now: Timestamp, expires: Timestamp, random: u64) -> (Timestamp, Timestamp) {
    let left = expires.since(now).unwrap_or_default();
    let end = if left.is_zero() { now.plus(EXPIRED_LIFETIME) } else { expires };
    let life = end.since(now).unwrap_or_default();
    let before = REFRESH_BEFORE.min(life / 2).mul_f64(1.0 + fraction(random) / 5.0);
    (end, now.plus(life.saturating_sub(before)))
}

/// The pause after a failed refresh, by the distance from the expiry.
fn retry_pause(distance: Duration, random: u64) -> Duration {
    (distance / 4).clamp(*RETRY_PAUSE.start(), *RETRY_PAUSE.end()).mul_f64(0.5 + fraction(random) / 2.0)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
