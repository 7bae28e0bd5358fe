//! Why a turn failed, in the same form whichever edge it failed at.

use std::fmt;

use crate::about::About;

/// Why a turn, or a part of it, failed. Edges turn their own errors into it at their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnError {
    /// What failed.
    pub subject: Subject,
    /// One line: the subject, the cause, and the remedy where there is one.
    pub text: String,
    /// What it names.
    pub about: About,
    /// Stays the same while the same fault lasts, even where the text changes.
    pub key: String,
    /// Only an operator can fix it, so a role that has never succeeded exits with code 2 instead of retrying.
    pub needs_operator: bool,
    /// A new machine or a new access key may fail like this at first, and recover on its own.
    pub is_startup_transient: bool,
    /// HAProxy's socket could not be connected to.
    pub is_disconnected: bool,
    /// Nothing listens there: there is no HAProxy.
    pub is_gone: bool,
}

/// What a failure is about. Failures of different subjects are logged separately, each from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An AWS call.
    Aws,
    /// A Consul query.
    Consul,
    /// The connection to HAProxy.
    Haproxy,
    /// The rest of a turn.
    Turn,
}

impl TurnError {
    /// A failure that the next turn retries, and whose text is its key.
    pub fn new(subject: Subject, text: String) -> Self {
        let key = text.clone();
        TurnError {
            subject,
            text,
            about: About::default(),
            key,
            needs_operator: false,
            is_startup_transient: false,
            is_disconnected: false,
            is_gone: false,
        }
    }
}

impl fmt::Display for TurnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TurnError {}
