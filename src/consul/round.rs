//! One round of questions about one service: what a thread asks again and again. It decides which answer counts by
//! `answer` and `health`; it knows no thread and no turn.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;

use super::access::encode;
use super::answer::{next_index, whole};
use super::client::Ask;
use super::error::Cause;
use super::health::{self, Health};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long Consul is asked to hold a blocking query. Shorter than Consul's own five minutes, so that an agent that
    /// has fallen silent is found out soon.
    pub(super) wait: Duration,
    /// How long an answer may take besides: longer than the seven seconds for which an agent tries again by itself
    /// while its cluster elects a leader (`rpc_hold_timeout`), so that it is heard to say that there is none.
    pub(super) answer: Duration,
    /// From the start of one round to the start of the next, at least: a service that changes all the time is not
    /// asked all the time.
    pub(super) pace: Duration,
    /// After a failed round.
    pub(super) retry: Duration,
    /// After a connection that broke while it waited: long enough for an agent that is ending to be gone.
    pub(super) reconnect: Duration,
}

impl Timing {
    /// What hsdo uses.
    pub(super) const USUAL: Timing = Timing {
        wait: Duration::from_secs(10),
        answer: Duration::from_secs(8),
        pace: Duration::from_millis(100),
        retry: Duration::from_millis(500),
        reconnect: Duration::from_millis(250),
    };

    /// How long a blocking query may take: Consul adds up to a sixteenth to the wait (API documentation, "Blocking Queries").
    pub(super) fn blocking(&self) -> Duration {
        self.wait + self.wait / 16 + self.answer
    }

    /// How long a round may take: three questions.
    pub(super) fn round(&self) -> Duration {
        self.blocking() + self.answer * 2
    }
}

/// What a whole round found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The service and its instances; none ready has been confirmed.
    Known(Health),
    /// The catalog does not know the service, or does not show it to our token: nothing is known of its instances.
    Missing,
}

/// Asks about `service`, waiting for a change since `index` if there is one. Gives what was found and the index of the
/// next round.
pub(super) fn round(
    ask: &dyn Ask,
    service: &str,
    index: Option<u64>,
    timing: &Timing,
) -> Result<(Seen, Option<u64>), Cause> {
    // Without `passing`, which would hide instances in maintenance: `health` keeps to the same rule.
    let path = format!("/v1/health/service/{}", encode(service));
    let answer = match index {
        None => ask.get(&path, "", timing.answer)?,
        Some(index) => {
            ask.get(&path, &format!("index={index}&wait={}ms", timing.wait.as_millis()), timing.blocking())?
        }
    };
    let health = health::read(service, whole(&answer)?)?;
    let next = next_index(index, &answer)?;
    if health.any_ready() {
        return Ok((Seen::Known(health), next));
    }
    // Nobody ready would take every server out: a leader that was replaced just now may still say so.
    let answer = ask.get(&path, "consistent", timing.answer)?;
    let health = health::read(service, whole(&answer)?)?;
    if health.registered > 0 {
        return Ok((Seen::Known(health), next));
    }
    // An empty list is also what a token sees that may not read the service or its nodes (1.8.7 says nothing more).
    let answer = ask.get("/v1/catalog/services", "consistent", timing.answer)?;
    let catalog: BTreeMap<String, IgnoredAny> = serde_json::from_slice(whole(&answer)?)
        .map_err(|error| Cause::Unreadable(format!("the catalog's JSON: {error}")))?;
    if catalog.contains_key(service) { Err(Cause::Hidden) } else { Ok((Seen::Missing, next)) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use serde_json::json;

    use super::super::answer::Answer;
    use super::*;

    /// Answers in the order of the script, and remembers what was asked.
    #[derive(Default)]
    pub(crate) struct Script {
        answers: Mutex<VecDeque<Result<Answer, Cause>>>,
        pub(crate) asked: Mutex<Vec<String>>,
    }

    impl Script {
        pub(crate) fn new(answers: impl IntoIterator<Item = Result<Answer, Cause>>) -> Self {
            Script { answers: Mutex::new(answers.into_iter().collect()), asked: Mutex::default() }
        }

        pub(crate) fn asked(&self) -> Vec<String> {
            self.asked.lock().expect("no panic").clone()
        }
    }

    impl Ask for Script {
        fn get(&self, path: &str, query: &str, _: Duration) -> Result<Answer, Cause> {
            self.asked.lock().expect("no panic").push(format!("{path}?{query}"));
            let answer = self.answers.lock().expect("no panic").pop_front();
            answer.unwrap_or(Err(Cause::Unreachable("the script is over".to_owned())))
        }
    }

    pub(crate) fn answer(index: u64, body: &str) -> Result<Answer, Cause> {
        Ok(Answer {
            status: 200,
            index: Some(index.to_string()),
            known_leader: Some("true".to_owned()),
            filtered: None,
            body: body.into(),
        })
    }

    /// The body of one instance whose only check has that status.
    pub(crate) fn one(status: &str) -> String {
        json!([{
            "Node": {"Node": "n1", "Address": "10.0.0.1"},
            "Service": {"ID": "web", "Address": ""},
            "Checks": [{"CheckID": "web", "Status": status}],
        }])
        .to_string()
    }

    /// What a round found, in a word.
    fn word(found: &Result<(Seen, Option<u64>), Cause>) -> String {
        match found {
            Ok((Seen::Known(health), next)) => {
                format!("{} of {}, next {next:?}", health.instances.len(), health.registered)
            }
            Ok((Seen::Missing, next)) => format!("missing, next {next:?}"),
            Err(cause) => cause.word().to_owned(),
        }
    }

    #[test]
    fn which_answer_counts() {
        const HEALTH: &str = "/v1/health/service/web?";
        const CONSISTENT: &str = "/v1/health/service/web?consistent";
        const CATALOG: &str = "/v1/catalog/services?consistent";
        let good = || answer(9, &one("passing"));
        let bad = || answer(9, &one("critical"));
        let none = || answer(9, "[]");
        let leaderless = || Ok(Answer { known_leader: Some("false".to_owned()), ..none().expect("an answer") });
        let timeout = || Err(Cause::TimedOut(Duration::from_secs(5)));
        type Answers = Vec<Result<Answer, Cause>>;
        #[rustfmt::skip]
        let cases: Vec<(&str, Answers, &str, &[&str])> = vec![
            ("one ready: at once", vec![good()], "1 of 1, next Some(9)", &[HEALTH]),
            ("none ready: confirmed", vec![bad(), bad()], "0 of 1, next Some(9)", &[HEALTH, CONSISTENT]),
            ("none ready: the second answer counts", vec![bad(), good()], "1 of 1, next Some(9)", &[HEALTH, CONSISTENT]),
            ("none ready, the second answer fails", vec![bad(), timeout()], "timeout", &[HEALTH, CONSISTENT]),
            ("none ready, the second answer without a leader", vec![none(), leaderless()], "no_leader", &[HEALTH, CONSISTENT]),
            ("nobody, but for a moment", vec![none(), good()], "1 of 1, next Some(9)", &[HEALTH, CONSISTENT]),
            ("a service that the catalog does not know", vec![none(), none(), answer(9, r#"{"consul": [], "api": ["a"]}"#)],
             "missing, next Some(9)", &[HEALTH, CONSISTENT, CATALOG]),
            ("a token that sees nothing at all", vec![none(), none(), answer(9, "{}")],
             "missing, next Some(9)", &[HEALTH, CONSISTENT, CATALOG]),
            ("a token that sees the service but not its nodes", vec![none(), none(), answer(9, r#"{"web": []}"#)],
             "denied", &[HEALTH, CONSISTENT, CATALOG]),
            ("a catalog that cannot be read", vec![none(), none(), answer(9, "[]")], "unreadable", &[HEALTH, CONSISTENT, CATALOG]),
            ("a catalog without a leader", vec![none(), none(), leaderless()], "no_leader", &[HEALTH, CONSISTENT, CATALOG]),
            ("no leader", vec![leaderless()], "no_leader", &[HEALTH]),
            ("no JSON", vec![answer(9, "<html>")], "unreadable", &[HEALTH]),
            ("no answer", vec![timeout()], "timeout", &[HEALTH]),
        ];
        for (name, answers, expected, asked) in cases {
            let script = Script::new(answers);
            let found = round(&script, "web", None, &Timing::USUAL);
            assert_eq!(word(&found), expected, "{name}");
            assert_eq!(script.asked(), asked, "{name}");
        }
    }

    #[test]
    fn a_round_waits_for_a_change_since_the_last_one() {
        let script = Script::new([answer(12, &one("passing")), answer(3, &one("passing"))]);
        assert_eq!(word(&round(&script, "a/b c", Some(7), &Timing::USUAL)), "1 of 1, next Some(12)");
        assert_eq!(word(&round(&script, "web", Some(12), &Timing::USUAL)), "1 of 1, next None");
        assert_eq!(
            script.asked(),
            ["/v1/health/service/a%2Fb%20c?index=7&wait=10000ms", "/v1/health/service/web?index=12&wait=10000ms"]
        );
        assert_eq!(Timing::USUAL.blocking(), Duration::from_millis(18_625));
    }
}
