//! Why AWS did not do what was asked, in one line, and whether only a person can mend it.
//!
//! It knows what AWS's error codes ask of a person and nothing of how a call is made. No credential can get into it:
//! what it holds is the subject of a call, the host, who called (a key's last four characters) and what AWS answered.

use std::fmt;

use super::action::action;
use super::codes::{self, Kind};
use super::endpoint::Service;
pub(crate) use crate::error::one_line;

/// How much of a message of AWS is shown, in characters: an error page of a proxy must not fill the log.
const MESSAGE_SHOWN: usize = 600;

/// Why AWS did not do what was asked.
#[derive(Clone, Debug)]
pub enum Error {
    /// The region, an endpoint, a profile or the credentials cannot be used: the sentence says what to change.
    Setup(String),
    /// The table does not exist or is not one of ours: the sentence says what to change.
    Table(String),
    /// Something that comes with time, such as a table that is being created.
    NotYet(String),
    /// Credentials that are set up but could not be had just now.
    Unavailable(String),
    /// A call failed.
    Call(Box<Call>),
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service.
    pub service: Service,
    /// The operation, as the service spells it.
    pub operation: &'static str,
    /// What it was about, for people: `table "web"`.
    pub subject: String,
    /// Host and port that were called.
    pub host: String,
    /// Who called: the access key's last four characters and where it is from.
    pub who: Option<String>,
    /// What went wrong.
    pub cause: Cause,
}

/// What went wrong with a call.
#[derive(Clone, Debug)]
pub enum Cause {
    /// No connection, or it broke.
    Unreachable(String),
    /// No whole answer in time.
    TimedOut(String),
    /// AWS answered with an error.
    Refused(Refusal),
    /// The answer is not what the service's manual says it should be: unknown, which is not empty.
    Unreadable(String),
}

/// An error that AWS answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// AWS's code, such as `AccessDeniedException`; `HTTP 503` where the answer has none.
    pub code: String,
    /// AWS's message; may be empty.
    pub message: String,
    /// The id by which AWS's support finds the call.
    pub request_id: Option<String>,
    /// Of a cancelled transaction: code and message for each of its actions, in their order.
    pub reasons: Vec<(String, String)>,
}

/// The code of a transaction that DynamoDB did not carry out (DynamoDB API Reference "TransactWriteItems").
pub(crate) const CANCELLED: &str = "TransactionCanceledException";

impl Refusal {
    /// What the code says, where it is known.
    pub(crate) fn kind(&self) -> Option<Kind> {
        codes::kind(&self.code)
    }

    /// Whether the same call may succeed a moment later.
    pub fn passes(&self) -> bool {
        self.status >= 500 || self.status == 429 || matches!(self.kind(), Some(Kind::Throttled | Kind::Transient))
    }

    /// Whether other credentials would have been accepted: those at hand are stale or wrong.
    pub fn is_of_credentials(&self) -> bool {
        matches!(self.kind(), Some(Kind::Clock | Kind::Signature | Kind::Expired | Kind::Credentials))
    }

    fn needs_a_person(&self) -> bool {
        self.is_of_credentials() || matches!(self.kind(), Some(Kind::Denied | Kind::Unfit))
    }

    /// What a person can do about it, where that is known.
    fn remedy(&self, service: Service, operation: &str) -> Option<String> {
        match self.kind()? {
            Kind::Denied => Some(match self.missing_action(service, operation) {
                Some("sts:AssumeRole") => {
                    "allow sts:AssumeRole in the IAM policy of these credentials, and let the role trust them"
                        .to_string()
                }
                Some(action) => format!("allow {action} in the IAM policy of these credentials"),
                None if service == Service::Sts => "let the role trust this identity".to_string(),
                None => "allow this action in the IAM policy of these credentials".to_string(),
            }),
            Kind::Expired => Some("renew the AWS credentials".to_string()),
            Kind::Clock => Some("set this machine's clock".to_string()),
            Kind::Signature => Some("check the AWS secret access key, the region and this machine's clock".to_string()),
            Kind::Credentials => Some("check the AWS access key and the region".to_string()),
            Kind::Throttled | Kind::Transient | Kind::Unfit => None,
        }
    }

    /// The IAM action that AWS misses: the one that its message names, else the one that the operation needs.
    fn missing_action<'a>(&'a self, service: Service, operation: &str) -> Option<&'a str> {
        let named =
            self.message.split("not authorized to perform: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let known = action(service, operation);
        // `TransactWriteItems` is no action that a policy could allow, though emulators name it.
        named
            .map(|name| name.trim_end_matches([',', '.', ';']))
            .filter(|name| is_action(name) && !name.ends_with(":TransactWriteItems"))
            .or(known)
    }
}

/// Whether a word has the shape of an IAM action, such as `dynamodb:Scan`.
fn is_action(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ':';
    word.len() < 80 && word.contains(':') && word.chars().all(plain)
}

impl Error {
    /// Whether only a person can mend it: wrong set-up, credentials, permissions or table. What passes by itself
    /// (network, time-outs, throttling, faults of AWS, a cancelled transaction) is `false`.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Error::Setup(_) | Error::Table(_) => true,
            Error::NotYet(_) | Error::Unavailable(_) => false,
            Error::Call(call) => matches!(&call.cause, Cause::Refused(refusal) if refusal.needs_a_person()),
        }
    }

    /// A text that is the same each time the same thing goes wrong: without request ids, times and counts.
    pub fn key(&self) -> String {
        match self {
            Error::Setup(text) | Error::Table(text) | Error::NotYet(text) | Error::Unavailable(text) => text.clone(),
            Error::Call(call) => {
                let cause = match &call.cause {
                    Cause::Unreachable(text) => text.as_str(),
                    // How long it was waited for differs from turn to turn.
                    Cause::TimedOut(_) => "timed out",
                    // What cancelled a transaction is the fault itself: one slot today, another tomorrow.
                    Cause::Refused(refusal) if refusal.code == CANCELLED => refusal.message.as_str(),
                    Cause::Refused(refusal) => refusal.code.as_str(),
                    Cause::Unreadable(_) => "unreadable",
                };
                format!("{} {} {} {cause}", call.service.name(), call.operation, call.host)
            }
        }
    }

    /// AWS's error code, where AWS answered with one.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str())
    }

    /// Whether AWS said that these credentials may not do this.
    pub fn is_access_denied(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.kind() == Some(Kind::Denied))
    }

    /// What AWS answered, where it answered with an error.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Call(call) => match &call.cause {
                Cause::Refused(refusal) => Some(refusal),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setup(text) | Error::Table(text) | Error::NotYet(text) | Error::Unavailable(text) => {
                f.write_str(text)
            }
            Error::Call(call) => call.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {} at {}", self.service.name(), self.operation, self.subject, self.host)?;
        let Cause::Refused(refusal) = &self.cause else { return write!(f, ": {}", self.cause) };
        if let Some(who) = &self.who {
            write!(f, " as {who}")?;
        }
        write!(f, ": {refusal}")?;
        if let Some(remedy) = refusal.remedy(self.service, self.operation) {
            write!(f, "; {remedy}")?;
        }
        match &refusal.request_id {
            Some(id) => write!(f, " (request {})", one_line(id, 100)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unreachable(text) => write!(f, "cannot be reached: {text}"),
            Cause::TimedOut(text) => write!(f, "timed out ({text})"),
            Cause::Refused(refusal) => refusal.fmt(f),
            Cause::Unreadable(text) => write!(f, "the answer cannot be read: {}", one_line(text, MESSAGE_SHOWN)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.code, 100))?;
        if !self.message.is_empty() {
            // What EC2 encodes for DecodeAuthorizationMessage is long, and different each time.
            let message = self.message.split("Encoded authorization failure message:").next().unwrap_or_default();
            write!(f, ": {}", one_line(message.trim().trim_end_matches('.'), MESSAGE_SHOWN))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, message: &str) -> Error {
        let refusal = Refusal {
            status,
            code: code.to_string(),
            message: message.to_string(),
            request_id: Some("R-1".to_string()),
            reasons: Vec::new(),
        };
        failed(Cause::Refused(refusal))
    }

    fn failed(cause: Cause) -> Error {
        Error::Call(Box::new(Call {
            service: Service::DynamoDb,
            operation: "Scan",
            subject: "table \"web\"".to_string(),
            host: "dynamodb.eu-west-1.amazonaws.com".to_string(),
            who: Some("key ...MPLE (profile \"ops\")".to_string()),
            cause,
        }))
    }

    #[test]
    fn what_only_a_person_can_mend() {
        let cases = [
            (refused(400, "AccessDeniedException", "no"), true),
            (refused(403, "AccessDenied", "no"), true),
            (refused(403, "UnauthorizedOperation", "no"), true),
            (refused(400, "UnrecognizedClientException", "no"), true),
            (refused(403, "InvalidClientTokenId", "no"), true),
            (refused(401, "AuthFailure", "no"), true),
            (refused(403, "SignatureDoesNotMatch", "no"), true),
            (refused(400, "ExpiredTokenException", "no"), true),
            (refused(400, "ResourceNotFoundException", "no"), true),
            (refused(400, "ValidationException", "no"), true),
            (refused(400, "ThrottlingException", "no"), false),
            (refused(503, "HTTP 503", ""), false),
            (refused(400, "TransactionCanceledException", "no"), false),
            (failed(Cause::TimedOut("connect".to_string())), false),
            (failed(Cause::Unreachable("connection refused".to_string())), false),
            (failed(Cause::Unreadable("no Items".to_string())), false),
            (Error::Setup("no region".to_string()), true),
            (Error::Table("no table".to_string()), true),
            (Error::NotYet("CREATING".to_string()), false),
            (Error::Unavailable("no metadata".to_string()), false),
        ];
        for (error, expected) in cases {
            assert_eq!(error.needs_a_person(), expected, "{error}");
        }
    }

    #[test]
    fn what_passes_is_tried_again() {
        for (status, code, expected) in [
            (400, "ProvisionedThroughputExceededException", true),
            (503, "RequestLimitExceeded", true),
            (400, "Throttling", true),
            (400, "TransactionInProgressException", true),
            (500, "InternalServerError", true),
            (400, "InternalServerError", true),
            (502, "HTTP 502", true),
            (429, "HTTP 429", true),
            (400, "AccessDeniedException", false),
            (400, "TransactionCanceledException", false),
            (301, "HTTP 301", false),
        ] {
            let error = refused(status, code, "");
            assert_eq!(error.refusal().expect("a refusal").passes(), expected, "{status} {code}");
        }
    }

    #[test]
    fn the_sentence_names_call_host_code_remedy_and_request() {
        let error = refused(400, "AccessDeniedException", "User: arn:u is not authorized to perform: dynamodb:Scan");
        assert_eq!(
            error.to_string(),
            "DynamoDB Scan of table \"web\" at dynamodb.eu-west-1.amazonaws.com as key ...MPLE (profile \"ops\"): \
             AccessDeniedException: User: arn:u is not authorized to perform: dynamodb:Scan; \
             allow dynamodb:Scan in the IAM policy of these credentials (request R-1)"
        );
        let timed_out = failed(Cause::TimedOut("connect".to_string()));
        assert_eq!(
            timed_out.to_string(),
            "DynamoDB Scan of table \"web\" at dynamodb.eu-west-1.amazonaws.com: timed out (connect)"
        );
    }

    #[test]
    fn a_denial_names_the_missing_action() {
        for (message, expected) in [
            (
                "User: arn:u is not authorized to perform: dynamodb:GetItem on resource: arn:t",
                "allow dynamodb:GetItem in",
            ),
            ("not authorized to perform: dynamodb:TransactWriteItems", "allow dynamodb:Scan in"),
            ("not authorized to perform: dynamodb:\u{1b}[2J", "allow dynamodb:Scan in"),
            ("You are not authorized to perform this operation.", "allow dynamodb:Scan in"),
            ("", "allow dynamodb:Scan in"),
        ] {
            let text = refused(400, "AccessDeniedException", message).to_string();
            assert!(text.contains(expected), "{message}: {text}");
        }
    }

    #[test]
    fn the_key_is_free_of_what_differs_each_time() {
        let first = refused(400, "ThrottlingException", "rate 12.5 at 12:00");
        let mut second = refused(400, "ThrottlingException", "rate 99.1 at 12:01");
        if let Error::Call(call) = &mut second {
            call.subject = "table \"web\", page 4".to_string();
        }
        assert_eq!(first.key(), second.key());
        assert!(!first.key().contains("R-1"));
        assert_ne!(first.key(), refused(400, "AccessDeniedException", "").key());
        let timed_out = |text: &str| failed(Cause::TimedOut(text.to_string())).key();
        assert_eq!(timed_out("no whole answer in 0.4 s"), timed_out("no whole answer in 0.3 s"));
        assert_ne!(timed_out("no whole answer in 0.4 s"), failed(Cause::Unreachable("x".to_string())).key());
    }

    #[test]
    fn a_text_of_aws_stays_one_short_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m\tc", 99), "a\\nb\\u{1b}[31m\\tc");
        assert_eq!(one_line(&"x".repeat(50), 10), format!("{}...", "x".repeat(10)));
        let denied = refused(403, "UnauthorizedOperation", "Not allowed. Encoded authorization failure message: AbC1");
        assert!(!denied.to_string().contains("AbC1"), "{denied}");
    }
}
