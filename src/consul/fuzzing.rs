//! Consul's responses as a fuzz target.

use std::sync::Mutex;
use std::time::Duration;

use super::client::Agent;
use super::error::{ConsulError, QueryError};
use super::health;
use super::response::ConsulResponse;
use super::round::{Lookup, Timing, round};
use super::unaddressed_text;
use crate::aws::fuzzing::assert_storable;
use crate::fuzzing::{assert_message, kind, parts, text};
use crate::settings::ConsulApi;
use crate::weight::Factor;

const SERVICE: &str = "web";

/// `h`: the body of a health response; `q`: the responses of a round, separated by lines `---`, each with a first line of
/// status, index, known leader and filtered.
pub fn consul(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'h' => match health::parse(SERVICE, rest) {
            Ok(found) => assert_health(&found, rest.len()),
            Err(cause) => assert_cause(cause),
        },
        b'q' => assert_round(&text(rest)),
        _ => {}
    }
}

fn assert_health(found: &health::ServiceHealth, input: usize) {
    assert!(found.instances.len() + found.unaddressed.len() <= found.registered);
    for instance in &found.instances {
        assert_storable(instance);
        assert!(
            !instance.size.factor(Factor::ONE).is_zero()
                && instance.group == SERVICE
                && instance.has_name(&instance.name)
        );
    }
    if let Some(text) = unaddressed_text(&found.unaddressed) {
        assert_message(&text, input);
    }
}

fn assert_cause(cause: QueryError) {
    let api = ConsulApi::Http("http://127.0.0.1:8500".to_owned());
    let error = ConsulError { api, service: SERVICE.to_owned(), cause };
    assert_message(&error, 0);
    assert!(!error.key().is_empty());
}

fn assert_round(text: &str) {
    let responses: Vec<ConsulResponse> = parts(text).map(response).collect();
    let scripted = Scripted(Mutex::new(responses.iter().rev().cloned().collect()));
    for index in [None, Some(7)] {
        match round(&scripted, SERVICE, index, &Timing::DEFAULT) {
            Ok((found, next)) => {
                assert!(responses.iter().any(|response| response.status == 200), "{found:?}");
                assert_ne!(next, Some(0));
                if let Lookup::Registered(health) = found {
                    assert_health(&health, text.len());
                }
            }
            Err(cause) => assert_cause(cause),
        }
    }
}

fn response(text: &str) -> ConsulResponse {
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    let mut words = head.split(' ');
    let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(200);
    let mut header = || words.next().filter(|word| !word.is_empty()).map(str::to_owned);
    ConsulResponse { status, index: header(), known_leader: header(), filtered: header(), body: body.into() }
}

/// Returns responses from the end of the list.
struct Scripted(Mutex<Vec<ConsulResponse>>);

impl Agent for Scripted {
    fn get(&self, path: &str, query: &str, _: Duration) -> Result<ConsulResponse, QueryError> {
        assert!(path.starts_with('/') && format!("{path}?{query}").chars().all(|c| c.is_ascii_graphic()));
        self.0.lock().expect("no panic").pop().ok_or(QueryError::TimedOut(Duration::from_secs(1)))
    }
}
