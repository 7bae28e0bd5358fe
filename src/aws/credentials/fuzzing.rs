//! Fuzz targets: the shared files, and the documents that hold credentials.

use std::io::Cursor;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::container::FromContainer;
use super::instance::FromMetadata;
use super::metadata::MetadataService;
use super::profile_chain::{self, Base};
use super::provider::{Outcome, Provider, ProviderContext};
use super::{document, sso, sts};
use crate::aws::Observer;
use crate::aws::config::profile_file::ProfileFiles;
use crate::aws::config::{self, Config};
use crate::aws::error::{AwsError, Cause};
use crate::aws::transport::endpoint::{self, Endpoints};
use crate::aws::transport::http::Caller;
use crate::aws::transport::identity::Credentials;
use crate::aws::transport::net::{ExchangeFault, HttpRequest, HttpResponse, Wire};
use crate::environment::Environment;
use crate::fuzzing::{assert_message, kind, parts, text};

/// The config file, a line `---`, the credentials file.
pub fn profile_files(data: &[u8]) {
    let text = text(data);
    let mut files = parts(&text);
    let (config, credentials) = (files.next().unwrap_or_default(), files.next().unwrap_or_default());
    let read = ProfileFiles::from_texts(config, credentials);
    // Indenting every line changes nothing, and neither do Windows line ends.
    let indented = |text: &str| text.split('\n').map(|line| format!(" \t{line}\n")).collect::<String>();
    assert!(ProfileFiles::from_texts(&indented(config), &indented(credentials)) == read);
    let windows = |text: &str| text.replace('\n', "\r\n");
    assert!(ProfileFiles::from_texts(&windows(config), &windows(credentials)) == read);
    let files = match read {
        Ok(files) => files,
        Err((line, fault)) => {
            assert!(line <= text.lines().count().max(1));
            return assert_message(&fault, 0);
        }
    };
    for name in files.names().take(16) {
        if let Some(region) = files.region(name)
            && let Err(fault) = endpoint::parse_region(region)
        {
            assert_message(&fault, text.len());
        }
        let environment = Environment::from([("AWS_PROFILE", name)]);
        if let Err(fault) = Config::new(&environment, &files) {
            assert_message(&fault, text.len());
        }
        let secrets = ["aws_secret_access_key", "aws_session_token", "credential_process"];
        let secrets = secrets.map(|key| files.get(name, key).unwrap_or_default());
        match profile_chain::resolve(&files, name) {
            Ok(Some(chain)) => {
                assert_hidden(&format!("{chain:?}"), &secrets, &text);
                if let Base::Keys(keys) = &chain.base {
                    assert_sendable(keys);
                }
                assert!(chain.roles.iter().all(|role| role.seconds.is_none_or(|s| (900..=43_200).contains(&s))));
            }
            Ok(None) => {}
            Err(fault) => {
                assert_message(&fault, text.len());
                assert_hidden(&fault.to_string(), &secrets, &text);
            }
        }
    }
}

/// `d`: a document; `p`: that of a process; `m`: the role list, a line `---`, and a document of the metadata service;
/// `c`: the container endpoint, `f`: its refusal; `k`: a cached SSO login; `a`: SSO's response; `s`: that of STS.
pub fn credentials(data: &[u8]) {
    let (kind, rest) = kind(data);
    let text = text(rest);
    let found = match kind {
        b'd' => document::read(&text),
        b'p' => {
            let found = document::read_process(&text);
            let version = || {
                Some(
                    serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')).ok()?["Version"].as_f64()?
                        == 1.0,
                )
            };
            assert!(found.is_err() || version() == Some(true));
            found
        }
        b'm' => from(&FromMetadata, 200, &text),
        b'c' => from(&FromContainer, 200, &text),
        b'f' => from(&FromContainer, 403, &text),
        b'k' => {
            match sso::cached_token(&text) {
                Ok((token, _)) => assert!(token.chars().all(|c| c.is_ascii_graphic())),
                Err(fault) => assert_message(&fault, 0),
            }
            return;
        }
        b'a' => sso::parse(&text),
        b's' => sts::parse(&mut &*rest).map_err(|fault| Cause::Unreadable(fault).to_string()),
        _ => return,
    };
    match found {
        Ok(found) => {
            assert_sendable(&found);
            assert_message(&found.label(), text.len());
            let secrets = [found.secret_access_key.as_str(), found.session_token.as_deref().unwrap_or_default()];
            assert_hidden(&format!("{found:?} {}", found.label()), &secrets, &text);
        }
        Err(fault) => assert_message(&fault, text.len()),
    }
}

/// They cannot inject headers into a request.
fn assert_sendable(found: &Credentials) {
    let texts = [&found.access_key_id, &found.secret_access_key].into_iter().chain(&found.session_token);
    assert!(texts.into_iter().all(|text| text.chars().all(|c| c.is_ascii_graphic())));
}

/// `shown` holds none of the secrets that are long and unique in `input`.
fn assert_hidden(shown: &str, secrets: &[&str], input: &str) {
    for secret in secrets.iter().filter(|secret| secret.len() >= 12 && input.matches(**secret).count() == 1) {
        assert!(!shown.contains(secret), "{secret:?} is in {shown:?}");
    }
}

/// What this provider finds if every response has this status, with the parts of `text` as bodies.
fn from(provider: &dyn Provider, status: u16, text: &str) -> Result<Credentials, String> {
    let variables = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x")];
    let bodies: Vec<String> = parts(text).map(str::to_string).collect();
    let context = context(Environment::from(variables), status, bodies);
    match provider.fetch(&context) {
        Ok(Outcome::Found(found)) => Ok(found),
        Ok(Outcome::NotConfigured(text)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

fn context(environment: Environment, status: u16, mut bodies: Vec<String>) -> ProviderContext {
    bodies.reverse();
    let wire: Arc<dyn Wire> = Arc::new(ScriptedWire { status, bodies: Mutex::new(bodies) });
    let second = Duration::from_secs(1);
    let url = "http://169.254.169.254".to_string();
    let metadata =
        config::MetadataConfig { disabled: false, url, expected: false, v1: false, timeout: second, attempts: 1 };
    let metadata = MetadataService::new(Arc::clone(&wire), metadata);
    ProviderContext {
        environment,
        caller: Arc::new(Caller::new(
            wire,
            Endpoints::default(),
            None,
            "eu-west-1".to_string(),
            Arc::new(NullObserver),
        )),
        metadata,
    }
}

/// Responds with one body after the other, last first, and with a session token to every `PUT`.
struct ScriptedWire {
    status: u16,
    bodies: Mutex<Vec<String>>,
}

impl Wire for ScriptedWire {
    fn send(&self, ask: &HttpRequest<'_>) -> Result<HttpResponse, ExchangeFault> {
        let answer =
            |status, body: String| HttpResponse { status, headers: Vec::new(), body: Box::new(Cursor::new(body)) };
        if ask.method == "PUT" {
            return Ok(answer(200, "token".to_string()));
        }
        assert!(ask.url.chars().all(|c| c.is_ascii_graphic()), "{:?}", ask.url);
        Ok(answer(self.status, self.bodies.lock().expect("nobody panicked").pop().unwrap_or_default()))
    }
}

struct NullObserver;

impl Observer for NullObserver {
    fn request(&self, _: &'static str, _: &'static str, _: &str) {}
    fn consumed(&self, _: &'static str, _: f64) {}
}

/// Keys and the container endpoint in the environment.
pub(crate) fn environment(environment: &Environment, input: usize) {
    let secrets = [environment.get("AWS_SECRET_ACCESS_KEY").unwrap_or_default()];
    let fault: Result<Outcome, AwsError> =
        super::environment::FromEnvironment.fetch(&context(environment.clone(), 200, vec![]));
    match fault {
        Ok(Outcome::Found(found)) => assert_sendable(&found),
        Ok(Outcome::NotConfigured(text)) => assert_message(&text, input),
        Err(fault) => {
            assert_message(&fault, input);
            assert_hidden(&fault.to_string(), &secrets, secrets[0]);
        }
    }
    match super::container::url(environment, &|_| vec![]) {
        Ok(url) => assert!(url.is_none_or(|url| url.chars().all(|c| c.is_ascii_graphic()))),
        Err(fault) => assert_message(&fault, input),
    }
}
