//! The credentials that sign calls, and the order in which they are looked for.
//!
//! A provider says what it found, or what it looked at in vain; the chain takes the first find and keeps it until
//! shortly before it expires. This file knows no provider's details.

pub(crate) mod environment;
pub(crate) mod profile;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::Error;
use crate::clock::Timestamp;

/// How long before their end credentials are replaced: the SDKs' refresh window.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);

/// An access key with its secret. `Debug` shows neither the secret nor the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The public half.
    pub(crate) access_key_id: String,
    /// The secret half.
    pub(crate) secret_access_key: String,
    /// The token of temporary credentials.
    pub(crate) session_token: Option<String>,
    /// When they end; `None` for those that do not.
    pub(crate) expires: Option<Timestamp>,
}

impl Credentials {
    /// Static credentials out of texts; spaces and line ends around them are dropped, since files and secret stores
    /// often add a newline. The error says which text cannot be sent, without showing it.
    pub(crate) fn fixed(key: &str, secret: &str, token: Option<&str>) -> Result<Self, &'static str> {
        let sendable = |text: &str| text.trim().chars().all(|c| c.is_ascii_graphic());
        for (name, text) in
            [("access key id", key), ("secret access key", secret), ("session token", token.unwrap_or(""))]
        {
            if !sendable(text) {
                return Err(name);
            }
        }
        Ok(Credentials {
            access_key_id: key.trim().to_string(),
            secret_access_key: secret.trim().to_string(),
            session_token: token.map(|token| token.trim().to_string()),
            expires: None,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What a provider found.
pub(crate) enum Found {
    /// Credentials.
    Here(Credentials),
    /// None, and what was looked at, for the message: `AWS_ACCESS_KEY_ID is not set`.
    Nothing(String),
}

/// One place where credentials may come from.
pub(crate) trait Provider: Send + Sync {
    /// Looks there. A place that is set up but broken is an error, which ends the search.
    fn fetch(&self) -> Result<Found, Error>;
}

/// The providers in their order, and what they last gave.
pub(crate) struct Chain {
    providers: Vec<Box<dyn Provider>>,
    cached: Mutex<Option<Credentials>>,
}

impl Chain {
    /// A chain of these, asked in this order.
    pub(crate) fn new(providers: Vec<Box<dyn Provider>>) -> Self {
        Chain { providers, cached: Mutex::new(None) }
    }

    /// Credentials that hold at `now`.
    pub(crate) fn get(&self, now: Timestamp) -> Result<Credentials, Error> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = cached.as_ref().filter(|credentials| holds(credentials, now)) {
            return Ok(credentials.clone());
        }
        let mut looked_at = Vec::new();
        for provider in &self.providers {
            match provider.fetch()? {
                Found::Here(credentials) => {
                    *cached = Some(credentials.clone());
                    return Ok(credentials);
                }
                Found::Nothing(text) => looked_at.push(text),
            }
        }
        Err(Error::Setup(format!(
            "no AWS credentials: {}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            looked_at.join("; ")
        )))
    }

    /// Looks again at the next call: AWS refused what was cached, and a person may have replaced it since.
    pub(crate) fn forget(&self) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn holds(credentials: &Credentials, now: Timestamp) -> bool {
    credentials.expires.is_none_or(|end| now.plus(REFRESH_BEFORE) < end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Fake {
        asked: Arc<AtomicUsize>,
        expires: Option<Timestamp>,
        empty: bool,
    }

    impl Provider for Fake {
        fn fetch(&self) -> Result<Found, Error> {
            let count = self.asked.fetch_add(1, Ordering::SeqCst);
            if self.empty {
                return Ok(Found::Nothing("nothing here".to_string()));
            }
            let mut found =
                Credentials::fixed(&format!("AK{count}"), "hush-hush", Some("token-hush")).expect("sendable");
            found.expires = self.expires;
            Ok(Found::Here(found))
        }
    }

    fn chain(expires: Option<Timestamp>) -> (Chain, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let (first, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let empty = Fake { asked: Arc::clone(&first), expires: None, empty: true };
        let full = Fake { asked: Arc::clone(&second), expires, empty: false };
        (Chain::new(vec![Box::new(empty), Box::new(full)]), first, second)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_first_find_is_kept_until_it_is_forgotten() {
        let (chain, first, second) = chain(None);
        for _ in 0..3 {
            assert_eq!(chain.get(at(0)).expect("credentials").access_key_id, "AK0");
        }
        assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (1, 1));
        chain.forget();
        assert_eq!(chain.get(at(0)).expect("credentials").access_key_id, "AK1");
    }

    #[test]
    fn credentials_are_replaced_before_they_end() {
        let (chain, _, asked) = chain(Some(at(1_000)));
        for (now, expected) in [(0, 1), (699, 1), (700, 2), (2_000, 3)] {
            chain.get(at(now)).expect("credentials");
            assert_eq!(asked.load(Ordering::SeqCst), expected, "at {now}");
        }
    }

    #[test]
    fn without_any_the_error_says_what_was_looked_at() {
        let asked = Arc::new(AtomicUsize::new(0));
        let chain = Chain::new(vec![Box::new(Fake { asked, expires: None, empty: true })]);
        let error = chain.get(at(0)).expect_err("no credentials");
        assert!(error.to_string().contains("nothing here"), "{error}");
        assert!(error.needs_a_person());
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = Credentials::fixed("AK", "hush-hush", Some("token-hush")).expect("sendable");
        let text = format!("{credentials:?}");
        assert!(text.contains("AK") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn a_newline_around_a_secret_is_dropped_and_one_inside_refused() {
        assert_eq!(Credentials::fixed(" AK\n", "s\n", None).expect("sendable").secret_access_key, "s");
        assert_eq!(Credentials::fixed("AK", "a\nb", None), Err("secret access key"));
        assert_eq!(Credentials::fixed("AK", "s", Some("t t")), Err("session token"));
    }
}
