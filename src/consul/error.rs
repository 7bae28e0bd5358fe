//! Why Consul gave no answer that counts, in one line with the remedy, and whether only a person can mend it.
//!
//! No token can get into it: what it holds is the API's address, the service, and what Consul answered.

use std::fmt;
use std::time::Duration;

use crate::ports::{Subject, TurnError};
use crate::settings::ConsulApi;
use crate::text;

/// How much of a message of Consul is shown, in characters: an error page of a proxy must not fill the log.
const MESSAGE_SHOWN: usize = 300;

/// Why Consul gave no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Whom was asked.
    pub api: ConsulApi,
    /// The service that was asked about.
    pub service: String,
    /// What went wrong.
    pub cause: Cause,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The token, the CA or another setting cannot be used: the sentence says what to change.
    Setup(String),
    /// No connection, or it broke.
    Unreachable(String),
    /// One side does not accept the other one's certificate.
    Mistrust(Side, String),
    /// No whole answer within this time.
    TimedOut(Duration),
    /// Consul's servers have no leader, so nobody can say what is registered.
    NoLeader,
    /// 403: the token is unknown, or may not read this.
    Denied(String),
    /// Another status than 200, and what came with it.
    Refused(u16, String),
    /// Instances were left out of the answer that the token may not read (`X-Consul-Results-Filtered-By-ACLs`,
    /// Consul 1.11 and later).
    Filtered,
    /// The catalog lists the service, its health shows no instance: the token may read the service and not its nodes.
    Hidden,
    /// The answer is not what Consul's manual says it should be: unknown, which is not empty.
    Unreadable(String),
}

/// Whose certificate is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// That of the agent, by us.
    Consul,
    /// Ours, or that we have none, by the agent.
    Hsdo,
}

impl Error {
    /// Whether only a person can mend it: wrong settings, or a token that may not read what is needed.
    pub fn needs_a_person(&self) -> bool {
        match &self.cause {
            Cause::Setup(_) | Cause::Denied(_) | Cause::Filtered => true,
            Cause::Refused(status, _) => (300..500).contains(status) && *status != 429,
            // Also what a service shows for a moment that registers between two questions.
            Cause::Hidden => false,
            // A certificate may be renewed by others.
            Cause::Mistrust(..) => false,
            Cause::Unreachable(_) | Cause::TimedOut(_) | Cause::NoLeader | Cause::Unreadable(_) => false,
        }
    }

    /// A text that stays the same while the same fault goes on.
    pub fn key(&self) -> String {
        match &self.cause {
            // Where an answer breaks off, and how a connection ends, differs from one try to the next.
            Cause::Unreadable(_) => "unreadable".to_owned(),
            // The end of the connection may be quicker than the reason for it.
            Cause::Unreachable(_) | Cause::Mistrust(..) => "unreachable".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl Cause {
    /// The word under which the metric `hsdo_consul_requests_total` counts it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Cause::Setup(_) => "setup",
            Cause::Unreachable(_) | Cause::Mistrust(..) => "unreachable",
            Cause::TimedOut(_) => "timeout",
            Cause::NoLeader => "no_leader",
            Cause::Denied(_) | Cause::Filtered | Cause::Hidden => "denied",
            Cause::Refused(..) => "refused",
            Cause::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for Error {
    /// What concerns the agent as a whole does not name the service: all services then fail with the same sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { api, service, cause } = self;
        match cause {
            Cause::Setup(text) => f.write_str(text),
            Cause::Unreachable(text) => {
                let tls = if api.is_https() { ", CONSUL_CLIENT_CERT" } else { "" };
                write!(f, "{api} cannot be reached: {text}: check that the agent runs, SERVER_CONSUL_API_URL{tls}")
            }
            Cause::Mistrust(Side::Consul, text) => write!(
                f,
                "{api} cannot be reached: its certificate is not accepted: {}: check CONSUL_CACERT (or CONSUL_CAPATH) and \
                 CONSUL_TLS_SERVER_NAME",
                one_line(text)
            ),
            Cause::Mistrust(Side::Hsdo, text) => write!(
                f,
                "{api} cannot be reached: it breaks TLS off: {}: check CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY, which \
                 an agent may demand",
                one_line(text)
            ),
            Cause::TimedOut(time) => {
                write!(f, "{api} gives no answer within {} s: check the agent", time.as_secs_f64())
            }
            Cause::NoLeader => write!(f, "{api} knows no leader of its cluster: check Consul's servers"),
            Cause::Denied(text) => write!(
                f,
                "{api} denies service {service:?}: {}: give hsdo a token with service:read of the service and node:read \
                 of its nodes (CONSUL_HTTP_TOKEN)",
                one_line(text)
            ),
            Cause::Refused(status, text) => {
                let text = one_line(text);
                let text = if text.is_empty() { "no more said" } else { &text };
                let check = if *status == 401 { "CONSUL_HTTP_AUTH" } else { "SERVER_CONSUL_API_URL and the agent" };
                write!(f, "{api} answers {status} about service {service:?}: {text}: check {check}")
            }
            Cause::Filtered => write!(
                f,
                "{api} leaves out instances of service {service:?} that the token may not read: give it service:read of \
                 the service and node:read of all its nodes"
            ),
            Cause::Hidden => write!(
                f,
                "{api} lists service {service:?} but shows no instance of it: give the token node:read of its nodes"
            ),
            Cause::Unreadable(text) => write!(
                f,
                "{api} answers about service {service:?} what cannot be read: {}: check SERVER_CONSUL_API_URL",
                one_line(text)
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for TurnError {
    fn from(error: Error) -> Self {
        TurnError {
            key: error.key(),
            needs_a_person: error.needs_a_person(),
            ..TurnError::new(Subject::Consul, error.to_string())
        }
    }
}

/// A text of Consul as a log line can carry it, without the full stop at its end.
fn one_line(text: &str) -> String {
    text::one_line(text.trim().trim_end_matches('.'), MESSAGE_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(cause: Cause) -> Error {
        Error { api: ConsulApi::Http("http://127.0.0.1:8500".to_owned()), service: "web".to_owned(), cause }
    }

    #[test]
    fn the_sentence_names_the_thing_and_the_remedy() {
        let text = |text: &str| text.to_owned();
        #[rustfmt::skip]
        let cases = [
            (Cause::Setup(text("CONSUL_CACERT: no such file")), true, "CONSUL_CACERT: no such file"),
            (Cause::Unreachable(text("connection refused")), false,
             "http://127.0.0.1:8500 cannot be reached: connection refused: check that the agent runs, SERVER_CONSUL_API_URL"),
            (Cause::Mistrust(Side::Consul, text("invalid peer certificate: UnknownIssuer")), false,
             "http://127.0.0.1:8500 cannot be reached: its certificate is not accepted: invalid peer certificate: \
              UnknownIssuer: check CONSUL_CACERT (or CONSUL_CAPATH) and CONSUL_TLS_SERVER_NAME"),
            (Cause::Mistrust(Side::Hsdo, text("received fatal alert: BadCertificate")), false,
             "http://127.0.0.1:8500 cannot be reached: it breaks TLS off: received fatal alert: BadCertificate: check \
              CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY, which an agent may demand"),
            (Cause::Refused(401, text("Unauthorized")), true,
             "http://127.0.0.1:8500 answers 401 about service \"web\": Unauthorized: check CONSUL_HTTP_AUTH"),
            (Cause::TimedOut(Duration::from_millis(18_625)), false,
             "http://127.0.0.1:8500 gives no answer within 18.625 s: check the agent"),
            (Cause::NoLeader, false, "http://127.0.0.1:8500 knows no leader of its cluster: check Consul's servers"),
            (Cause::Denied(text("ACL not found")), true,
             "http://127.0.0.1:8500 denies service \"web\": ACL not found: give hsdo a token with service:read of the \
              service and node:read of its nodes (CONSUL_HTTP_TOKEN)"),
            (Cause::Refused(404, text("")), true,
             "http://127.0.0.1:8500 answers 404 about service \"web\": no more said: check SERVER_CONSUL_API_URL and the agent"),
            (Cause::Refused(429, text("Your IP is issuing too many concurrent connections")), false,
             "http://127.0.0.1:8500 answers 429 about service \"web\": Your IP is issuing too many concurrent connections: \
              check SERVER_CONSUL_API_URL and the agent"),
            (Cause::Refused(503, text("<html>\n\u{1b}[1mbusy</html>")), false,
             "http://127.0.0.1:8500 answers 503 about service \"web\": <html>\\n\\u{1b}[1mbusy</html>: check \
              SERVER_CONSUL_API_URL and the agent"),
            (Cause::Filtered, true,
             "http://127.0.0.1:8500 leaves out instances of service \"web\" that the token may not read: give it \
              service:read of the service and node:read of all its nodes"),
            (Cause::Hidden, false,
             "http://127.0.0.1:8500 lists service \"web\" but shows no instance of it: give the token node:read of its nodes"),
            (Cause::Unreadable(text("expected value at line 1 column 1")), false,
             "http://127.0.0.1:8500 answers about service \"web\" what cannot be read: expected value at line 1 column 1: \
              check SERVER_CONSUL_API_URL"),
        ];
        for (cause, person, expected) in cases {
            let error = error(cause);
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.needs_a_person(), person, "{error}");
        }
        let secure =
            Error { api: ConsulApi::Http("https://consul".to_owned()), ..error(Cause::Unreachable("x".to_owned())) };
        assert!(secure.to_string().ends_with("SERVER_CONSUL_API_URL, CONSUL_CLIENT_CERT"), "{secure}");
    }

    #[test]
    fn a_long_message_is_cut() {
        let text = error(Cause::Refused(500, "é".repeat(400))).to_string();
        assert!(text.contains(&format!("{}...", "é".repeat(300))) && !text.contains(&"é".repeat(301)), "{text}");
    }

    #[test]
    fn the_key_is_free_of_what_differs_each_time() {
        let broken = |text: &str| error(Cause::Unreadable(text.to_owned())).key();
        assert_eq!(broken("at column 7"), broken("at column 12"));
        let lost = |text: &str| error(Cause::Unreachable(text.to_owned())).key();
        assert_eq!(lost("connection reset"), lost("connection refused"));
        assert_ne!(error(Cause::NoLeader).key(), error(Cause::Filtered).key());
    }
}
