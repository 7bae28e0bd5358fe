//! The provider chain against the SDKs' own test cases: environment, files, the exact sequence of requests and responses,
//! and the resulting credentials.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::ProviderChain;
use super::cache::CredentialFetcher;
use super::metadata::MetadataService;
use super::provider::ProviderContext;
use crate::aws::config::Config;
use crate::aws::config::profile_file::{ProfileFiles, profile};
use crate::aws::error::Cause;
use crate::aws::reading::dates;
use crate::aws::testing::{Folder, Results};
use crate::aws::transport::http::Caller;
use crate::aws::transport::net::{ExchangeFault, HttpRequest, HttpResponse, Wire};
use crate::environment::Environment;

/// The expected next request, and its response.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Exchange {
    /// Method and URL.
    ask: String,
    /// A required header, as `name: value`.
    #[serde(default)]
    header: Option<String>,
    /// Required parts of the body.
    #[serde(default)]
    holds: Vec<String>,
    /// HTTP status, or 0 for a timeout.
    status: u16,
    #[serde(default)]
    body: String,
}

impl Exchange {
    pub(crate) fn new(ask: &str, status: u16, body: &str) -> Self {
        Exchange { ask: ask.to_string(), header: None, holds: Vec::new(), status, body: body.to_string() }
    }
}

/// Plays the exchanges in order.
pub(crate) struct Replay(Mutex<VecDeque<Exchange>>);

impl Replay {
    pub(crate) fn new(exchanges: impl IntoIterator<Item = Exchange>) -> Self {
        Replay(Mutex::new(exchanges.into_iter().collect()))
    }

    pub(crate) fn assert_done(&self) {
        let left = self.0.lock().expect("a lock");
        assert!(left.is_empty(), "not asked: {left:?}");
    }
}

impl Wire for Replay {
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, ExchangeFault> {
        let asked = format!("{} {}", request.method, request.url);
        let next = self.0.lock().expect("a lock").pop_front().unwrap_or_else(|| panic!("{asked} is not expected"));
        assert_eq!(asked, next.ask);
        if let Some((name, value)) = next.header.as_deref().and_then(|header| header.split_once(": ")) {
            assert!(request.headers.contains(&(name, value)), "{asked} without {name}");
        }
        let body = String::from_utf8_lossy(request.body);
        assert!(next.holds.iter().all(|text| body.contains(text.as_str())), "{asked}: {body}");
        if next.status == 0 {
            return Err(ExchangeFault { cause: Cause::TimedOut("no answer".to_string()), stale: false });
        }
        let headers = match next.ask.ends_with("/api/token") {
            true => vec![("x-aws-ec2-metadata-token-ttl-seconds".to_string(), "21600".to_string())],
            false => Vec::new(),
        };
        Ok(HttpResponse { status: next.status, headers, body: Box::new(Cursor::new(next.body.into_bytes())) })
    }
}

#[derive(Deserialize)]
struct Case {
    about: String,
    env: BTreeMap<String, String>,
    /// By their paths in the home directory, written as `{home}`.
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    exchanges: Vec<Exchange>,
    /// Key, secret, token and expiry.
    #[serde(default)]
    found: Option<(String, String, Option<String>, Option<String>)>,
    /// Part of the error message.
    #[serde(default)]
    error: Option<String>,
}

#[test]
fn credentials_are_found_as_in_the_sdks() {
    let text = include_str!("../../../tests/data/aws-config/chains.json");
    let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
    assert_eq!(cases.len(), 47);
    for case in cases {
        check(&case);
    }
}

fn check(case: &Case) {
    let folder = Folder::new();
    let home = folder.path();
    let here = |text: &str| text.replace("{home}", &home);
    for (name, text) in &case.files {
        folder.file(name, &here(text));
    }
    let pairs = case.env.iter().map(|(name, value)| (name.clone(), here(value)));
    let environment = Environment::from(pairs.chain([("HOME".to_string(), home.clone())]));
    let replay = Arc::new(Replay::new(case.exchanges.iter().cloned()));
    let wire = Arc::clone(&replay) as Arc<dyn Wire>;
    let result = ProfileFiles::read(&environment).and_then(|files| {
        let config = Config::new(&environment, &files)?;
        let region = environment.get("AWS_REGION").or_else(|| files.region(profile(&environment)));
        let region = region.unwrap_or("us-east-1").to_string();
        let metadata = MetadataService::new(Arc::clone(&wire), config.metadata.clone());
        let caller =
            Arc::new(Caller::new(wire, config.endpoints, config.attempts, region, Arc::new(Results::default())));
        ProviderChain::new(ProviderContext { environment: environment.clone(), caller, metadata }).fetch()
    });
    replay.assert_done();
    match (result, &case.found) {
        (Ok(found), Some((key, secret, token, end))) => {
            assert_eq!((&found.access_key_id, &found.secret_access_key), (key, secret), "{}", case.about);
            assert_eq!(&found.session_token, token, "{}", case.about);
            assert_eq!(found.expires, end.as_deref().and_then(dates::parse), "{}", case.about);
        }
        (Err(error), None) => {
            let expected = here(case.error.as_deref().expect("an error is expected"));
            assert!(error.to_string().contains(&expected), "{}: {error}", case.about);
        }
        (Ok(found), None) => panic!("{}: {found:?}", case.about),
        (Err(error), Some(_)) => panic!("{}: {error}", case.about),
    }
}
