//! Keeps credentials, and has them replaced ahead of their end in a thread of its own: a call waits only where there are
//! none, and then no longer than its own time.
//!
//! While a replacement fails, those at hand are used on, past their end too, and the log says so once: whether they still
//! hold is for AWS to decide. So do the SDKs since 2026, for credentials of every source ("static stability": botocore's
//! pull request 3733, smithy-rs's 4774). Those that AWS has refused are not used again. It knows no provider.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::aws::error::AwsError;
use crate::aws::random::{fraction, random};
use crate::aws::transport::identity::Credentials;
use crate::clock::Timestamp;
use crate::log::Episode;

/// How long before their end credentials are replaced: the SDKs' refresh window. Shorter-lived ones after half of
/// their life; each process up to a fifth of that sooner, so that a fleet does not ask all at once.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
/// The shortest and the longest pause after a replacement that failed while there are old ones.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// Credentials that came with an end in the past are used this long before others are looked for: the instance's metadata
/// service gives such while it cannot renew them.
const PAST_END: Duration = Duration::from_secs(60);
/// How long a call waits for others where those at hand have ended, and nothing is known to be wrong with their source:
/// after the sleep of a machine it has new ones within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where credentials come from. It may take its time.
pub(crate) trait Source: Send + Sync {
    /// Looks for credentials.
    fn fetch(&self) -> Result<Credentials, AwsError>;

    /// Who is asked just now, for people.
    fn asked(&self) -> &'static str;
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
    failure: Option<AwsError>,
    /// No look before this moment while there are credentials to use, after one that failed.
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

    /// Credentials to use, waited for until `until` at most. Errors: those of the source, or that it takes longer.
    pub(crate) fn get(&self, until: Instant) -> Result<Credentials, AwsError> {
        let inner = &self.0;
        let mut state = inner.lock();
        let now = (inner.now)();
        let held = state.held(now);
        if state.due(now) || (held.is_none() && !state.fetching) {
            inner.start(&mut state);
        }
        let until = match &held {
            Some((credentials, true)) => return Ok(credentials.clone()),
            // Past their end. Of a source that is in trouble nothing is hoped for, and AWS is asked at once.
            Some((credentials, false)) if state.failure.is_some() || !state.fetching => return Ok(credentials.clone()),
            Some(_) => until.min(Instant::now() + PATIENCE),
            None => until,
        };
        let before = state.ended;
        while state.ended == before && state.fetching {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return held.map(|(credentials, _)| credentials).ok_or_else(|| {
                    let who = inner.source.asked();
                    AwsError::Unavailable(format!("AWS credentials are not there in time: {who} has not answered yet"))
                });
            }
            state = inner.fetched.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let failure = state.failure.clone();
        state.held((inner.now)()).map(|(credentials, _)| credentials).ok_or_else(|| {
            failure.unwrap_or_else(|| {
                AwsError::Unavailable("AWS refused the credentials as soon as they came".to_string())
            })
        })
    }

    /// Others than `refused`, which AWS has refused, waited for until `until` at most. The error says why there are none;
    /// `None` where their source has the same ones still.
    pub(crate) fn renew(&self, refused: &Credentials, until: Instant) -> Result<Credentials, Option<AwsError>> {
        {
            let mut state = self.0.lock();
            if let Some(held) = state.held.as_mut().filter(|held| held.credentials.same_key(refused)) {
                held.refused = true;
            }
        }
        match self.get(until) {
            Ok(credentials) if credentials.same_key(refused) => Err(None),
            result => result.map_err(Some),
        }
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
            state.take(Err(AwsError::Unavailable(text)), (self.now)(), 0);
        }
    }
}

impl State {
    /// The credentials at hand that AWS has not refused, and whether they hold by what they said when they came.
    fn held(&self, now: Timestamp) -> Option<(Credentials, bool)> {
        let held = self.held.as_ref().filter(|held| !held.refused)?;
        Some((held.credentials.clone(), held.end.is_none_or(|(end, _)| now < end)))
    }

    /// Whether it is time to look for others than those at hand.
    fn due(&self, now: Timestamp) -> bool {
        let end = self.held.as_ref().and_then(|held| held.end);
        !self.fetching && end.is_some_and(|(_, refresh)| refresh <= now) && self.pause.is_none_or(|pause| pause <= now)
    }

    /// A look ended so.
    fn take(&mut self, result: Result<Credentials, AwsError>, now: Timestamp, random: u64) {
        self.fetching = false;
        self.ended += 1;
        match result {
            Ok(credentials) => {
                if self.held.as_ref().is_none_or(|held| held.credentials.source != credentials.source) {
                    log::info!("AWS credentials: {}", credentials.label());
                }
                let end = credentials.expires.map(|expires| ends(now, expires, random));
                self.held = Some(Held { credentials, end, refused: false });
                self.failure = None;
                self.pause = None;
                self.trouble.report(None);
            }
            Err(error) => {
                let end = self.held.as_ref().filter(|held| !held.refused).and_then(|held| Some(held.end?.0));
                if let Some(end) = end {
                    let (key, text) = match end.since(now) {
                        Some(left) if !left.is_zero() => (
                            error.key(),
                            format!("not renewed, and those at hand hold for {} s more: {error}", left.as_secs()),
                        ),
                        _ => (
                            format!("past their end: {}", error.key()),
                            format!(
                                "not renewed, and those at hand are used past their end, as long as AWS takes them: {error}"
                            ),
                        ),
                    };
                    self.trouble.report(Some((&key, &text)));
                }
                let distance = end.map(|end| end.since(now).or(now.since(end)).unwrap_or_default());
                self.pause = Some(now.plus(pause(distance.unwrap_or_default(), random)));
                self.failure = Some(error);
            }
        }
    }
}

/// When credentials that came `now` and expire then end, and when others are looked for.
fn ends(now: Timestamp, expires: Timestamp, random: u64) -> (Timestamp, Timestamp) {
    let left = expires.since(now).unwrap_or_default();
    let end = if left.is_zero() { now.plus(PAST_END) } else { expires };
    let life = end.since(now).unwrap_or_default();
    let before = REFRESH_BEFORE.min(life / 2).mul_f64(1.0 + fraction(random) / 5.0);
    (end, now.plus(life.saturating_sub(before)))
}

/// How long to leave the source alone after it failed, so long before or after the end of what is held.
fn pause(distance: Duration, random: u64) -> Duration {
    (distance / 4).clamp(PAUSES[0], PAUSES[1]).mul_f64(0.5 + fraction(random) / 2.0)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
