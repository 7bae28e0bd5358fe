//! Errors of AWS calls, in one line, and whether only an operator can fix them.
//!
//! Holds no credential: only the subject of a call, the host, the access key's last four characters and AWS's response. May
//! import `reading`.

pub(crate) mod action;
pub(crate) mod codes;
mod denial;
pub(crate) mod refusal;

use std::fmt;

use self::codes::ErrorClass;
use crate::about::{About, Message};
use crate::aws::service::Service;
use crate::ports::{Subject, TurnError};
use crate::text::{self, one_line};

/// Characters shown of an AWS message.
const MESSAGE_SHOWN: usize = 600;
/// Characters shown of a body that is not AWS's, such as a proxy's error page.
pub(crate) const PAGE_SHOWN: usize = 200;

/// Why an AWS operation failed.
#[derive(Clone, Debug)]
pub enum AwsError {
    /// The region, an endpoint, a profile or the credentials are unusable: the text says what to change.
    Setup(String),
    /// The table does not exist or is not one of ours: the text says what to change.
    Table(String),
    /// Something not ready yet, such as a table being created.
    NotReady(String),
    /// Another process has taken over the table or a row: the text says which.
    Conflict(Message),
    /// Configured credentials, or the region, could not be fetched right now.
    Unavailable(String),
    /// A call failed.
    Call(Box<FailedCall>),
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct FailedCall {
    /// The service called.
    pub service: Service,
    /// The operation, in AWS's spelling.
    pub operation: &'static str,
    /// What the call was about: `table "web"`.
    pub subject: String,
    /// The host and any explicit port.
    pub host: String,
    /// The access key's last four characters and the credentials' source.
    pub identity: Option<String>,
    /// What went wrong.
    pub cause: Cause,
    /// The slots that the cause names.
    pub about: About,
    /// If AWS refused the credentials: why they could not be renewed, if known.
    pub renewal: Option<Box<AwsError>>,
}

/// What went wrong with a call.
#[derive(Clone, Debug)]
pub enum Cause {
    /// No connection, or it broke.
    Unreachable(String),
    /// No complete response in time.
    TimedOut(String),
    /// AWS returned an error.
    Refused(Refusal),
    /// The response is malformed: the result is unknown, which is not the same as empty.
    Unreadable(String),
}

/// An error response of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// AWS's code, such as `AccessDeniedException`; `HTTP 503` if the response has none.
    pub code: String,
    /// AWS's message, or the text of a page returned instead; may be empty.
    pub message: String,
    /// The request id that AWS support asks for.
    pub request_id: Option<String>,
    /// If a transaction was cancelled: code and message of each action, in order.
    pub reasons: Vec<(String, String)>,
}

/// The code of a cancelled transaction (DynamoDB API Reference, "TransactWriteItems").
pub(crate) const CANCELLED: &str = "TransactionCanceledException";

impl Refusal {
    pub(crate) fn class(&self) -> Option<ErrorClass> {
        codes::class(&self.code)
    }

    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        let by_code = matches!(self.class(), Some(ErrorClass::Throttled | ErrorClass::Transient));
        let by_reasons = || {
            let mut reasons = self.cancellation_codes().peekable();
            reasons.peek().is_some() && reasons.all(|reason| codes::reason_class(reason).is_some())
        };
        self.status >= 500 || self.status == 429 || by_code || by_reasons()
    }

    pub(crate) fn is_throttled(&self) -> bool {
        let by_reasons =
            || self.cancellation_codes().any(|reason| codes::reason_class(reason) == Some(ErrorClass::Throttled));
        self.status == 429 || self.class() == Some(ErrorClass::Throttled) || by_reasons()
    }

    fn cancellation_codes(&self) -> impl Iterator<Item = &str> {
        self.reasons.iter().map(|(code, _)| code.as_str()).filter(|code| *code != "None")
    }

    /// Redacts secrets from the message: an error page may echo the request.
    pub(crate) fn redact(&mut self, secrets: &[&str]) {
        self.message = redact(std::mem::take(&mut self.message), secrets);
    }

    /// Whether the credentials are stale or wrong, so that others may be accepted.
    pub fn is_credentials_error(&self) -> bool {
        matches!(
            self.class(),
            Some(ErrorClass::Clock | ErrorClass::Signature | ErrorClass::Expired | ErrorClass::Credentials)
        )
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.class() == Some(ErrorClass::Expired)
    }

    /// Whether AWS does not know the access key. A new key takes a while to be known everywhere (IAM User Guide, "Changes
    /// that I make are not always immediately visible"). EC2 says the same of a wrong secret.
    fn is_unknown_key(&self) -> bool {
        matches!(self.code.as_str(), "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure")
    }

    fn needs_operator(&self) -> bool {
        self.is_credentials_error() || matches!(self.class(), Some(ErrorClass::Denied | ErrorClass::Invalid))
    }

    fn remedy(&self, service: Service, operation: &str) -> Option<String> {
        match self.class()? {
            ErrorClass::Denied => Some(denial::remedy(&self.message, service, operation)),
            ErrorClass::Expired => Some("renew the AWS credentials".to_string()),
            ErrorClass::Clock => Some("correct this machine's clock".to_string()),
            ErrorClass::Signature => {
                Some("check the AWS secret access key, the region and this machine's clock".to_string())
            }
            ErrorClass::Credentials => Some("check the AWS access key and the region".to_string()),
            ErrorClass::Throttled | ErrorClass::Transient | ErrorClass::Invalid => None,
        }
    }
}

pub(crate) fn redact(text: String, secrets: &[&str]) -> String {
    secrets
        .iter()
        .fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "(hidden)") } else { text })
}

impl AwsError {
    /// Whether only an operator can fix it: wrong configuration, credentials, permissions or table. `false` for what passes
    /// by itself: network faults, timeouts, throttling, AWS faults, a cancelled transaction.
    pub fn needs_operator(&self) -> bool {
        match self {
            AwsError::Setup(_) | AwsError::Table(_) => true,
            AwsError::NotReady(_) | AwsError::Conflict(_) | AwsError::Unavailable(_) => false,
            AwsError::Call(call) => {
                let renewable = call.renewal.as_ref().is_some_and(|why| !why.needs_operator());
                !renewable && matches!(&call.cause, Cause::Refused(refusal) if refusal.needs_operator())
            }
        }
    }

    /// Whether it is typical of a machine or an access key that has just been created: a metadata service that is not ready,
    /// a key that is not known everywhere. One-shot runs wait for these.
    pub fn is_startup_transient(&self) -> bool {
        match self {
            AwsError::Unavailable(_) => true,
            AwsError::Call(call) => {
                let unknown_key = matches!(&call.cause, Cause::Refused(refusal) if refusal.is_unknown_key());
                unknown_key || call.renewal.as_ref().is_some_and(|why| why.is_startup_transient())
            }
            AwsError::Setup(_) | AwsError::Table(_) | AwsError::NotReady(_) | AwsError::Conflict(_) => false,
        }
    }

    /// A text that stays the same while the same fault lasts: no request ids, times or counts.
    pub fn key(&self) -> String {
        match self {
            AwsError::Setup(text) | AwsError::Table(text) | AwsError::NotReady(text) | AwsError::Unavailable(text) => {
                text.clone()
            }
            AwsError::Conflict(message) => message.text.clone(),
            AwsError::Call(call) => {
                let cause = match &call.cause {
                    Cause::Unreachable(text) => text.as_str(),
                    // The timeout differs from turn to turn.
                    Cause::TimedOut(_) => "timed out",
                    // The reasons of a cancelled transaction are the fault itself.
                    Cause::Refused(refusal) if refusal.code == CANCELLED => refusal.message.as_str(),
                    Cause::Refused(refusal) => refusal.code.as_str(),
                    Cause::Unreadable(_) => "unreadable",
                };
                format!("{} {} {} {cause}", call.service.name(), call.operation, call.host)
            }
        }
    }

    /// What is wrong, and what to do about it, for people.
    pub fn fact_and_remedy(&self) -> (String, String) {
        let text = self.to_string();
        let AwsError::Call(call) = self else { return text::fact_and_remedy(&text) };
        let remedy = match &call.cause {
            Cause::Unreachable(_) | Cause::TimedOut(_) => format!(
                "let this machine reach {}: check routes, security groups, VPC endpoints, DNS, the proxy variables, and \
                 AWS_ENDPOINT_URL if it is set",
                call.host
            ),
            Cause::Unreadable(_) => format!("find out what answers at {} in the place of AWS", call.host),
            Cause::Refused(refusal) => match refusal.remedy(call.service, call.operation) {
                Some(remedy) => remedy,
                None if refusal.is_retryable() => "run the check again a little later".to_string(),
                None => "see AWS's documentation of this error".to_string(),
            },
        };
        (text.replacen(&format!("; {remedy}"), "", 1), remedy)
    }

    /// The slots that it names.
    fn about(&self) -> About {
        match self {
            AwsError::Conflict(message) => message.about.clone(),
            AwsError::Call(call) => call.about.clone(),
            _ => About::default(),
        }
    }

    /// AWS's error code, if it returned one.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str())
    }

    /// Whether the credentials lack permission.
    pub fn is_access_denied(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.class() == Some(ErrorClass::Denied))
    }

    /// The error response, if there was one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            AwsError::Call(call) => match &call.cause {
                Cause::Refused(refusal) => Some(refusal),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AwsError::Setup(text) | AwsError::Table(text) | AwsError::NotReady(text) | AwsError::Unavailable(text) => {
                f.write_str(text)
            }
            AwsError::Conflict(message) => f.write_str(&message.text),
            AwsError::Call(call) => call.fmt(f),
        }
    }
}

impl std::error::Error for AwsError {}

impl From<AwsError> for TurnError {
    fn from(error: AwsError) -> Self {
        let subject = match error {
            // Nothing is wrong with AWS: another process wrote first.
            AwsError::Conflict(_) => Subject::Turn,
            _ => Subject::Aws,
        };
        TurnError {
            key: error.key(),
            needs_operator: error.needs_operator(),
            is_startup_transient: error.is_startup_transient(),
            about: error.about(),
            ..TurnError::new(subject, error.to_string())
        }
    }
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {} at {}", self.service.name(), self.operation, self.subject, self.host)?;
        let Cause::Refused(refusal) = &self.cause else { return write!(f, ": {}", self.cause) };
        if let Some(identity) = &self.identity {
            write!(f, " as {identity}")?;
        }
        write!(f, ": {refusal}")?;
        if let Some(remedy) = refusal.remedy(self.service, self.operation) {
            write!(f, "; {remedy}")?;
        }
        if let Some(why) = &self.renewal {
            write!(f, "; cannot renew them: {why}")?;
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
            Cause::Unreadable(text) => write!(f, "unreadable response: {}", one_line(text, MESSAGE_SHOWN)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.code, 100))?;
        if !self.message.is_empty() {
            // EC2's text for DecodeAuthorizationMessage is long, and different each time.
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
