//! What Consul answers, as a fuzz target.

use std::sync::Mutex;
use std::time::Duration;

use super::answer::Answer;
use super::client::Ask;
use super::error::{Cause, Error};
use super::health;
use super::round::{Seen, Timing, round};
use super::unaddressed_text;
use crate::aws::fuzzing::assert_storable;
use crate::fuzzing::{assert_message, kind, parts, text};
use crate::settings::ConsulApi;

const SERVICE: &str = "web";

/// `h`: the body about a service's health; `q`: the answers to the questions of a round, a line `---` between two of
/// them, each with a first line of status, index, known leader and filtered.
pub fn consul(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'h' => match health::read(SERVICE, rest) {
            Ok(found) => assert_health(&found, rest.len()),
            Err(cause) => assert_cause(cause),
        },
        b'q' => questions(&text(rest)),
        _ => {}
    }
}

fn assert_health(found: &health::Health, input: usize) {
    assert!(found.instances.len() + found.unaddressed.len() <= found.registered);
    for instance in &found.instances {
        assert_storable(instance);
        assert!(instance.scale > 0 && instance.group == SERVICE && instance.has_name(&instance.name));
    }
    if let Some(text) = unaddressed_text(&found.unaddressed) {
        assert_message(&text, input);
    }
}

fn assert_cause(cause: Cause) {
    let api = ConsulApi::Http("http://127.0.0.1:8500".to_owned());
    let error = Error { api, service: SERVICE.to_owned(), cause };
    assert_message(&error, 0);
    assert!(!error.key().is_empty());
}

fn questions(text: &str) {
    let answers: Vec<Answer> = parts(text).map(answer).collect();
    let played = Played(Mutex::new(answers.iter().rev().cloned().collect()));
    for asked in [None, Some(7)] {
        match round(&played, SERVICE, asked, &Timing::USUAL) {
            Ok((seen, next)) => {
                // Only a whole answer counts, and a query that blocks waits for a number above 0.
                assert!(answers.iter().any(|answer| answer.status == 200), "{seen:?}");
                assert_ne!(next, Some(0));
                if let Seen::Known(found) = seen {
                    assert_health(&found, text.len());
                }
            }
            Err(cause) => assert_cause(cause),
        }
    }
}

fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    let mut words = head.split(' ');
    let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(200);
    let mut header = || words.next().filter(|word| !word.is_empty()).map(str::to_owned);
    Answer { status, index: header(), known_leader: header(), filtered: header(), body: body.into() }
}

/// Who gives one answer after the other, the last first.
struct Played(Mutex<Vec<Answer>>);

impl Ask for Played {
    fn get(&self, path: &str, query: &str, _: Duration) -> Result<Answer, Cause> {
        assert!(path.starts_with('/') && format!("{path}?{query}").chars().all(|c| c.is_ascii_graphic()));
        self.0.lock().expect("nobody panicked").pop().ok_or(Cause::TimedOut(Duration::from_secs(1)))
    }
}
