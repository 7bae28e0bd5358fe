//! Why a query to Consul failed, in one line with the remedy, and whether only a person can fix it.
//!
//! An error holds the API's address, the service and Consul's response, never a token.

use std::fmt;
use std::time::Duration;

use crate::about::About;
use crate::ports::{Subject, TurnError};
use crate::settings::ConsulApi;
use crate::text;

/// Characters of Consul's message to show: a proxy's error page must not fill the log.
const MAX_SHOWN: usize = 300;

/// A failed query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulError {
    /// The agent we queried.
    pub api: ConsulApi,
    /// The service we queried it for.
    pub service: String,
    /// What went wrong.
    pub cause: QueryError,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// An unusable token, CA or other setting; the message says what to change.
    Setup(String),
    /// Cannot connect, or the connection broke.
    Unreachable(String),
    /// One side rejected the other's certificate.
    CertificateRejected(CertOwner, String),
    /// No complete response within this time.
    TimedOut(Duration),
    /// Consul's servers have no leader, so what is registered is unknown.
    NoLeader,
    /// 403: the token is unknown or lacks permission.
    Denied(String),
    /// A status other than 200, with the body.
    Refused(u16, String),
    /// Instances that the token may not read were filtered out (`X-Consul-Results-Filtered-By-ACLs`, Consul 1.11+).
    Filtered,
    /// The catalog lists the service but its health shows no instance: the token may read the service, not its nodes.
    NodesHidden,
    /// Not a response as Consul documents it: unknown, which is not empty.
    Unreadable(String),
}

/// Whose certificate was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertOwner {
    /// The agent's, by us.
    Agent,
    /// Ours, or the lack of one, by the agent.
    Client,
}

impl ConsulError {
    /// Whether only a person can fix it: wrong settings, or a token without the required permissions.
    pub fn needs_operator(&self) -> bool {
        match &self.cause {
            QueryError::Setup(_) | QueryError::Denied(_) | QueryError::Filtered => true,
            QueryError::Refused(status, _) => (300..500).contains(status) && *status != 429,
            // Also seen briefly when a service registers between two requests.
            QueryError::NodesHidden => false,
            // The certificate may be renewed elsewhere.
            QueryError::CertificateRejected(..) => false,
            QueryError::Unreachable(_) | QueryError::TimedOut(_) | QueryError::NoLeader | QueryError::Unreadable(_) => {
                false
            }
        }
    }

    /// Stays the same for as long as the same fault persists.
    pub fn key(&self) -> String {
        match &self.cause {
            // The position of a parse error differs from one attempt to the next.
            QueryError::Unreadable(_) => "unreadable".to_owned(),
            // The connection may end before the TLS alert that explains it arrives.
            QueryError::Unreachable(_) | QueryError::CertificateRejected(..) => "unreachable".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl QueryError {
    /// The `result` label of the metric `hsdo_consul_requests_total`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            QueryError::Setup(_) => "setup",
            QueryError::Unreachable(_) | QueryError::CertificateRejected(..) => "unreachable",
            QueryError::TimedOut(_) => "timeout",
            QueryError::NoLeader => "no_leader",
            QueryError::Denied(_) | QueryError::Filtered | QueryError::NodesHidden => "denied",
            QueryError::Refused(..) => "refused",
            QueryError::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for ConsulError {
    /// Faults of the agent as a whole do not name the service, so that all services report the same text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConsulError { api, service, cause } = self;
        match cause {
            QueryError::Setup(text) => f.write_str(text),
            QueryError::Unreachable(text) => {
                let tls = if api.is_https() { ", CONSUL_CLIENT_CERT" } else { "" };
                write!(
                    f,
                    "{api} cannot be reached: {text}: check that the agent is running, SERVER_CONSUL_API_URL{tls}"
                )
            }
            QueryError::CertificateRejected(CertOwner::Agent, text) => write!(
                f,
                "{api} cannot be reached: its certificate is not accepted: {}: check CONSUL_CACERT (or CONSUL_CAPATH) and \
                 CONSUL_TLS_SERVER_NAME",
                one_line(text)
            ),
            QueryError::CertificateRejected(CertOwner::Client, text) => write!(
                f,
                "{api} cannot be reached: it aborted the TLS handshake: {}: check CONSUL_CLIENT_CERT and \
                 CONSUL_CLIENT_KEY, which an agent may require",
                one_line(text)
            ),
            QueryError::TimedOut(time) => {
                write!(f, "{api} did not respond within {} s: check the agent", time.as_secs_f64())
            }
            QueryError::NoLeader => write!(f, "{api} has no cluster leader: check Consul's servers"),
            QueryError::Denied(text) => write!(
                f,
                "{api} denies access to service {service:?}: {}: give hsdo a token with service:read on the service and \
                 node:read on its nodes (CONSUL_HTTP_TOKEN)",
                one_line(text)
            ),
            QueryError::Refused(status, text) => {
                let text = one_line(text);
                let text = if text.is_empty() { "no details" } else { &text };
                let check = if *status == 401 { "CONSUL_HTTP_AUTH" } else { "SERVER_CONSUL_API_URL and the agent" };
                write!(f, "{api} returned {status} for service {service:?}: {text}: check {check}")
            }
            QueryError::Filtered => write!(
                f,
                "{api} filters out instances of service {service:?} that the token may not read: grant it service:read on \
                 the service and node:read on all its nodes"
            ),
            QueryError::NodesHidden => write!(
                f,
                "{api} lists service {service:?} but shows none of its instances: grant the token node:read on its nodes"
            ),
            QueryError::Unreadable(text) => write!(
                f,
                "{api} returned an invalid response for service {service:?}: {}: check SERVER_CONSUL_API_URL",
                one_line(text)
            ),
        }
    }
}

impl std::error::Error for ConsulError {}

impl ConsulError {
    /// The service, where the message names it.
    fn about(&self) -> About {
        match self.cause {
            QueryError::Setup(_)
            | QueryError::Unreachable(_)
            | QueryError::CertificateRejected(..)
            | QueryError::TimedOut(_)
            | QueryError::NoLeader => About::default(),
            QueryError::Denied(_)
            | QueryError::Refused(..)
            | QueryError::Filtered
            | QueryError::NodesHidden
            | QueryError::Unreadable(_) => About::default().group([&self.service]),
        }
    }
}

impl From<ConsulError> for TurnError {
    fn from(error: ConsulError) -> Self {
        TurnError {
            about: error.about(),
            key: error.key(),
            needs_operator: error.needs_operator(),
            ..TurnError::new(Subject::Consul, error.to_string())
        }
    }
}

/// Consul's message, made safe for a log line and without a final full stop.
fn one_line(text: &str) -> String {
    text::one_line(text.trim().trim_end_matches('.'), MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(cause: QueryError) -> ConsulError {
        ConsulError { api: ConsulApi::Http("http://127.0.0.1:8500".to_owned()), service: "web".to_owned(), cause }
    }

    #[test]
    fn the_message_names_subject_and_remedy() {
        let text = |text: &str| text.to_owned();
        #[rustfmt::skip]
        let cases = [
            (QueryError::Setup(text("CONSUL_CACERT: no such file")), true, "CONSUL_CACERT: no such file"),
            (QueryError::Unreachable(text("connection refused")), false,
             "http://127.0.0.1:8500 cannot be reached: connection refused: check that the agent is running, SERVER_CONSUL_API_URL"),
            (QueryError::CertificateRejected(CertOwner::Agent, text("invalid peer certificate: UnknownIssuer")), false,
             "http://127.0.0.1:8500 cannot be reached: its certificate is not accepted: invalid peer certificate: \
              UnknownIssuer: check CONSUL_CACERT (or CONSUL_CAPATH) and CONSUL_TLS_SERVER_NAME"),
            (QueryError::CertificateRejected(CertOwner::Client, text("received fatal alert: BadCertificate")), false,
             "http://127.0.0.1:8500 cannot be reached: it aborted the TLS handshake: received fatal alert: BadCertificate: check \
              CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY, which an agent may require"),
            (QueryError::Refused(401, text("Unauthorized")), true,
             "http://127.0.0.1:8500 returned 401 for service \"web\": Unauthorized: check CONSUL_HTTP_AUTH"),
            (QueryError::TimedOut(Duration::from_millis(18_625)), false,
             "http://127.0.0.1:8500 did not respond within 18.625 s: check the agent"),
            (QueryError::NoLeader, false, "http://127.0.0.1:8500 has no cluster leader: check Consul's servers"),
            (QueryError::Denied(text("ACL not found")), true,
             "http://127.0.0.1:8500 denies access to service \"web\": ACL not found: give hsdo a token with service:read on the \
              service and node:read on its nodes (CONSUL_HTTP_TOKEN)"),
            (QueryError::Refused(404, text("")), true,
             "http://127.0.0.1:8500 returned 404 for service \"web\": no details: check SERVER_CONSUL_API_URL and the agent"),
            (QueryError::Refused(429, text("Your IP is issuing too many concurrent connections")), false,
             "http://127.0.0.1:8500 returned 429 for service \"web\": Your IP is issuing too many concurrent connections: \
              check SERVER_CONSUL_API_URL and the agent"),
            (QueryError::Refused(503, text("<html>\n\u{1b}[1mbusy</html>")), false,
             "http://127.0.0.1:8500 returned 503 for service \"web\": <html>\\n\\u{1b}[1mbusy</html>: check \
              SERVER_CONSUL_API_URL and the agent"),
            (QueryError::Filtered, true,
             "http://127.0.0.1:8500 filters out instances of service \"web\" that the token may not read: grant it \
              service:read on the service and node:read on all its nodes"),
            (QueryError::NodesHidden, false,
             "http://127.0.0.1:8500 lists service \"web\" but shows none of its instances: grant the token node:read on its nodes"),
            (QueryError::Unreadable(text("expected value at line 1 column 1")), false,
             "http://127.0.0.1:8500 returned an invalid response for service \"web\": expected value at line 1 column 1: \
              check SERVER_CONSUL_API_URL"),
        ];
        for (cause, person, expected) in cases {
            let error = error(cause);
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.needs_operator(), person, "{error}");
        }
        let secure = ConsulError {
            api: ConsulApi::Http("https://consul".to_owned()),
            ..error(QueryError::Unreachable("x".to_owned()))
        };
        assert!(secure.to_string().ends_with("SERVER_CONSUL_API_URL, CONSUL_CLIENT_CERT"), "{secure}");
    }

    #[test]
    fn a_long_message_is_truncated() {
        let text = error(QueryError::Refused(500, "é".repeat(400))).to_string();
        assert!(text.contains(&format!("{}...", "é".repeat(300))) && !text.contains(&"é".repeat(301)), "{text}");
    }

    #[test]
    fn the_key_leaves_out_what_varies() {
        let broken = |text: &str| error(QueryError::Unreadable(text.to_owned())).key();
        assert_eq!(broken("at column 7"), broken("at column 12"));
        let lost = |text: &str| error(QueryError::Unreachable(text.to_owned())).key();
        assert_eq!(lost("connection reset"), lost("connection refused"));
        assert_ne!(error(QueryError::NoLeader).key(), error(QueryError::Filtered).key());
    }
}
