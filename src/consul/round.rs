//! One round of requests about one service, which a polling thread repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;

use super::access::encode;
use super::client::Agent;
use super::error::QueryError;
use super::health::{self, ServiceHealth};
use super::response::{next_index, trusted_body};

#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long Consul may hold a blocking query. Shorter than Consul's default of five minutes, to detect a hung agent
    /// soon.
    pub(super) wait: Duration,
    /// How long a response may take beyond that. Longer than the seven seconds for which an agent retries by itself during
    /// a leader election (`rpc_hold_timeout`), so that we get its error.
    pub(super) response: Duration,
    /// The least time between the starts of two rounds, to throttle queries about a service that keeps changing.
    pub(super) min_interval: Duration,
    pub(super) retry: Duration,
    /// Pause after a connection that broke while blocking: long enough for a stopping agent to be gone.
    pub(super) reconnect: Duration,
}

impl Timing {
    pub(super) const DEFAULT: Timing = Timing {
        wait: Duration::from_secs(10),
        response: Duration::from_secs(8),
        min_interval: Duration::from_millis(100),
        retry: Duration::from_millis(500),
        reconnect: Duration::from_millis(250),
    };

    /// Timeout of a blocking query: Consul adds up to a sixteenth to the wait (API documentation, "Blocking Queries").
    pub(super) fn blocking(&self) -> Duration {
        self.wait + self.wait / 16 + self.response
    }

    /// Timeout of a round of at most three requests.
    pub(super) fn round(&self) -> Duration {
        self.blocking() + self.response * 2
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The service and its instances; if none is ready, that was confirmed.
    Registered(ServiceHealth),
    /// The catalog does not list the service, or not to our token, so the state of its instances is unknown.
    Missing,
}

/// Queries `service`, blocking until a change after `index` if there is one. Returns the index for the next round too.
pub(super) fn round(
    agent: &dyn Agent,
    service: &str,
    index: Option<u64>,
    timing: &Timing,
) -> Result<(Lookup, Option<u64>), QueryError> {
    // Without `passing`, which would hide instances in maintenance; `health` applies the same rule.
    let path = format!("/v1/health/service/{}", encode(service));
    let response = match index {
        None => agent.get(&path, "", timing.response)?,
        Some(index) => {
            agent.get(&path, &format!("index={index}&wait={}ms", timing.wait.as_millis()), timing.blocking())?
        }
    };
    let health = health::parse(service, trusted_body(&response)?)?;
    let next = next_index(index, &response)?;
    if health.any_ready() {
        return Ok((Lookup::Registered(health), next));
    }
    // This would take every server out of rotation. A leader that has just been replaced may still serve stale reads.
    let response = agent.get(&path, "consistent", timing.response)?;
    let health = health::parse(service, trusted_body(&response)?)?;
    if health.registered > 0 {
        return Ok((Lookup::Registered(health), next));
    }
    // A token that may not read the service or its nodes sees an empty list as well (all that 1.8.7 shows).
    let response = agent.get("/v1/catalog/services", "consistent", timing.response)?;
    let catalog: BTreeMap<String, IgnoredAny> = serde_json::from_slice(trusted_body(&response)?)
        .map_err(|error| QueryError::Unreadable(format!("the catalog's JSON: {error}")))?;
    if catalog.contains_key(service) { Err(QueryError::NodesHidden) } else { Ok((Lookup::Missing, next)) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use serde_json::json;

    use super::super::response::ConsulResponse;
    use super::*;

    /// Returns scripted responses in order and records the requests.
    #[derive(Default)]
    pub(crate) struct Script {
        responses: Mutex<VecDeque<Result<ConsulResponse, QueryError>>>,
        pub(crate) requests: Mutex<Vec<String>>,
    }

    impl Script {
        pub(crate) fn new(responses: impl IntoIterator<Item = Result<ConsulResponse, QueryError>>) -> Self {
            Script { responses: Mutex::new(responses.into_iter().collect()), requests: Mutex::default() }
        }

        pub(crate) fn requests(&self) -> Vec<String> {
            self.requests.lock().expect("no panic").clone()
        }
    }

    impl Agent for Script {
        fn get(&self, path: &str, query: &str, _: Duration) -> Result<ConsulResponse, QueryError> {
            self.requests.lock().expect("no panic").push(format!("{path}?{query}"));
            let response = self.responses.lock().expect("no panic").pop_front();
            response.unwrap_or(Err(QueryError::Unreachable("the script is over".to_owned())))
        }
    }

    pub(crate) fn response(index: u64, body: &str) -> Result<ConsulResponse, QueryError> {
        Ok(ConsulResponse {
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

    fn summary(result: &Result<(Lookup, Option<u64>), QueryError>) -> String {
        match result {
            Ok((Lookup::Registered(health), next)) => {
                format!("{} of {}, next {next:?}", health.instances.len(), health.registered)
            }
            Ok((Lookup::Missing, next)) => format!("missing, next {next:?}"),
            Err(cause) => cause.label().to_owned(),
        }
    }

    #[test]
    fn which_response_counts() {
        const HEALTH: &str = "/v1/health/service/web?";
        const CONSISTENT: &str = "/v1/health/service/web?consistent";
        const CATALOG: &str = "/v1/catalog/services?consistent";
        let good = || response(9, &one("passing"));
        let bad = || response(9, &one("critical"));
        let none = || response(9, "[]");
        let leaderless =
            || Ok(ConsulResponse { known_leader: Some("false".to_owned()), ..none().expect("a response") });
        let timeout = || Err(QueryError::TimedOut(Duration::from_secs(5)));
        type Responses = Vec<Result<ConsulResponse, QueryError>>;
        #[rustfmt::skip]
        let cases: Vec<(&str, Responses, &str, &[&str])> = vec![
            ("one ready: at once", vec![good()], "1 of 1, next Some(9)", &[HEALTH]),
            ("none ready: confirmed", vec![bad(), bad()], "0 of 1, next Some(9)", &[HEALTH, CONSISTENT]),
            ("none ready: the second response counts", vec![bad(), good()], "1 of 1, next Some(9)", &[HEALTH, CONSISTENT]),
            ("none ready, the second response fails", vec![bad(), timeout()], "timeout", &[HEALTH, CONSISTENT]),
            ("none ready, the second response without a leader", vec![none(), leaderless()], "no_leader", &[HEALTH, CONSISTENT]),
            ("none for a moment", vec![none(), good()], "1 of 1, next Some(9)", &[HEALTH, CONSISTENT]),
            ("a service that the catalog does not know", vec![none(), none(), response(9, r#"{"consul": [], "api": ["a"]}"#)],
             "missing, next Some(9)", &[HEALTH, CONSISTENT, CATALOG]),
            ("a token that sees nothing at all", vec![none(), none(), response(9, "{}")],
             "missing, next Some(9)", &[HEALTH, CONSISTENT, CATALOG]),
            ("a token that sees the service but not its nodes", vec![none(), none(), response(9, r#"{"web": []}"#)],
             "denied", &[HEALTH, CONSISTENT, CATALOG]),
            ("a catalog that cannot be read", vec![none(), none(), response(9, "[]")], "unreadable", &[HEALTH, CONSISTENT, CATALOG]),
            ("a catalog without a leader", vec![none(), none(), leaderless()], "no_leader", &[HEALTH, CONSISTENT, CATALOG]),
            ("no leader", vec![leaderless()], "no_leader", &[HEALTH]),
            ("no JSON", vec![response(9, "<html>")], "unreadable", &[HEALTH]),
            ("no response", vec![timeout()], "timeout", &[HEALTH]),
        ];
        for (name, responses, expected, requests) in cases {
            let script = Script::new(responses);
            let found = round(&script, "web", None, &Timing::DEFAULT);
            assert_eq!(summary(&found), expected, "{name}");
            assert_eq!(script.requests(), requests, "{name}");
        }
    }

    #[test]
    fn a_round_blocks_until_a_change_since_the_previous_one() {
        let script = Script::new([response(12, &one("passing")), response(3, &one("passing"))]);
        assert_eq!(summary(&round(&script, "a/b c", Some(7), &Timing::DEFAULT)), "1 of 1, next Some(12)");
        assert_eq!(summary(&round(&script, "web", Some(12), &Timing::DEFAULT)), "1 of 1, next None");
        assert_eq!(
            script.requests(),
            ["/v1/health/service/a%2Fb%20c?index=7&wait=10000ms", "/v1/health/service/web?index=12&wait=10000ms"]
        );
        assert_eq!(Timing::DEFAULT.blocking(), Duration::from_millis(18_625));
    }
}
