//! Why AWS did not do what was asked, in one line, and whether only a person can mend it.
//!
//! It knows what AWS's error codes ask of a person and nothing of how a call is made. No credential can get into it:
//! what it holds is the subject of a call, the host, who called (a key's last four characters) and what AWS answered. The
//! room may import `reading`.

pub(crate) mod action;
pub(crate) mod codes;
mod denial;
pub(crate) mod refusal;

use std::fmt;

use self::codes::Kind;
use crate::aws::service::Service;
use crate::ports::{Subject, TurnError};
use crate::text::one_line;

/// How much of a message of AWS is shown, in characters.
const MESSAGE_SHOWN: usize = 600;
/// How much of a page is shown that is no message of AWS, such as that of a proxy.
pub(crate) const PAGE_SHOWN: usize = 200;

/// Why AWS did not do what was asked.
#[derive(Clone, Debug)]
pub enum Error {
    /// The region, an endpoint, a profile or the credentials cannot be used: the sentence says what to change.
    Setup(String),
    /// The table does not exist or is not one of ours: the sentence says what to change.
    Table(String),
    /// Something that comes with time, such as a table that is being created.
    NotYet(String),
    /// The table, or a row of it, is another process's by now: the sentence says which.
    OtherHand(String),
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
    /// Of a refusal of the credentials: why no others could be had, where that is known.
    pub others: Option<Box<Error>>,
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
    /// AWS's message, or what the page says that came in its place; may be empty.
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
        let of_code = matches!(self.kind(), Some(Kind::Throttled | Kind::Transient));
        let of_reasons = || {
            let mut reasons = self.cancelling().peekable();
            reasons.peek().is_some() && reasons.all(|reason| codes::reason(reason).is_some())
        };
        self.status >= 500 || self.status == 429 || of_code || of_reasons()
    }

    /// Whether it says that there are too many calls.
    pub(crate) fn is_throttled(&self) -> bool {
        let of_reasons = || self.cancelling().any(|reason| codes::reason(reason) == Some(Kind::Throttled));
        self.status == 429 || self.kind() == Some(Kind::Throttled) || of_reasons()
    }

    /// The codes of the reasons for which a transaction was cancelled.
    fn cancelling(&self) -> impl Iterator<Item = &str> {
        self.reasons.iter().map(|(code, _)| code.as_str()).filter(|code| *code != "None")
    }

    /// Leaves these texts out of what is shown: a page may tell what it was asked.
    pub(crate) fn hide(&mut self, secrets: &[&str]) {
        self.message = hidden(std::mem::take(&mut self.message), secrets);
    }

    /// Whether other credentials would have been accepted: those at hand are stale or wrong.
    pub fn is_of_credentials(&self) -> bool {
        matches!(self.kind(), Some(Kind::Clock | Kind::Signature | Kind::Expired | Kind::Credentials))
    }

    /// Whether the credentials have ended.
    pub(crate) fn is_of_end(&self) -> bool {
        self.kind() == Some(Kind::Expired)
    }

    /// Whether AWS does not know the access key. A key that was made a moment ago is not known everywhere yet (IAM User
    /// Guide, "Changes that I make are not always immediately visible"). EC2 says the same of a wrong secret.
    fn is_of_unknown_key(&self) -> bool {
        matches!(self.code.as_str(), "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure")
    }

    fn needs_a_person(&self) -> bool {
        self.is_of_credentials() || matches!(self.kind(), Some(Kind::Denied | Kind::Unfit))
    }

    /// What a person can do about it, where that is known.
    fn remedy(&self, service: Service, operation: &str) -> Option<String> {
        match self.kind()? {
            Kind::Denied => Some(denial::remedy(&self.message, service, operation)),
            Kind::Expired => Some("renew the AWS credentials".to_string()),
            Kind::Clock => Some("set this machine's clock".to_string()),
            Kind::Signature => Some("check the AWS secret access key, the region and this machine's clock".to_string()),
            Kind::Credentials => Some("check the AWS access key and the region".to_string()),
            Kind::Throttled | Kind::Transient | Kind::Unfit => None,
        }
    }
}

/// The text without these.
pub(crate) fn hidden(text: String, secrets: &[&str]) -> String {
    secrets
        .iter()
        .fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "(hidden)") } else { text })
}

impl Error {
    /// Whether only a person can mend it: wrong set-up, credentials, permissions or table. What passes by itself
    /// (network, time-outs, throttling, faults of AWS, a cancelled transaction) is `false`.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Error::Setup(_) | Error::Table(_) => true,
            Error::NotYet(_) | Error::OtherHand(_) | Error::Unavailable(_) => false,
            Error::Call(call) => {
                let passes = call.others.as_ref().is_some_and(|why| !why.needs_a_person());
                !passes && matches!(&call.cause, Cause::Refused(refusal) if refusal.needs_a_person())
            }
        }
    }

    /// Whether it is of the kind that the first moments of a machine or of a key bring: a metadata service that is not
    /// ready, a key that is not known everywhere. Whoever has one try only waits for these.
    pub fn is_early(&self) -> bool {
        match self {
            Error::Unavailable(_) => true,
            Error::Call(call) => {
                let of_key = matches!(&call.cause, Cause::Refused(refusal) if refusal.is_of_unknown_key());
                of_key || call.others.as_ref().is_some_and(|why| why.is_early())
            }
            Error::Setup(_) | Error::Table(_) | Error::NotYet(_) | Error::OtherHand(_) => false,
        }
    }

    /// A text that is the same each time the same thing goes wrong: without request ids, times and counts.
    pub fn key(&self) -> String {
        match self {
            Error::Setup(text)
            | Error::Table(text)
            | Error::NotYet(text)
            | Error::OtherHand(text)
            | Error::Unavailable(text) => text.clone(),
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
            Error::Setup(text)
            | Error::Table(text)
            | Error::NotYet(text)
            | Error::OtherHand(text)
            | Error::Unavailable(text) => f.write_str(text),
            Error::Call(call) => call.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for TurnError {
    fn from(error: Error) -> Self {
        let subject = match error {
            // Nothing is wrong with AWS: another process wrote first.
            Error::OtherHand(_) => Subject::Turn,
            _ => Subject::Aws,
        };
        TurnError {
            key: error.key(),
            needs_a_person: error.needs_a_person(),
            is_early: error.is_early(),
            ..TurnError::new(subject, error.to_string())
        }
    }
}

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
        if let Some(why) = &self.others {
            write!(f, "; no others are to be had: {why}")?;
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
            let message = message.trim().trim_end_matches('.');
            if self.code.starts_with("HTTP ") {
                write!(f, ": \"{}\"", one_line(message, PAGE_SHOWN))?;
            } else {
                write!(f, ": {}", one_line(message, MESSAGE_SHOWN))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
