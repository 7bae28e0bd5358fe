//! What can go wrong, said in one line, and the exit code that follows from it.
//!
//! A variant names the attempt and its subject; the edge that failed wrote the sentence, as an error of its own. Here they are
//! put together for the roles and for `run`, so this file imports the edges, and no edge needs it but for the ports that it
//! implements.
//! `main` is the only place that prints one of these and ends the process.

use std::fmt;
use std::process::ExitCode;

pub(crate) use crate::text::one_line;

/// The exit codes of the program, in one place.
pub mod exit {
    /// The work is done, or the process was asked to stop.
    pub const DONE: u8 = 0;
    /// A turn failed under `--once` or `--dry-run`.
    pub const FAILED: u8 = 1;
    /// The command line, the configuration, or something at start that only a person can mend.
    pub const MEND: u8 = 2;
}

/// What an error is about. Faults of different subjects begin and end apart from each other, and are logged so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A call of AWS.
    Aws,
    /// A question to Consul.
    Consul,
    /// The talk with HAProxy.
    Haproxy,
    /// The rest of a turn.
    Turn,
}

/// An error of an edge, or of the configuration.
#[derive(Debug)]
pub enum Error {
    /// The command line cannot be understood.
    Usage(String),
    /// Faults of the configuration, each a line of its own.
    Config(Vec<String>),
    /// An AWS call failed.
    Aws(crate::aws::Error),
    /// Consul gave no answer that counts.
    Consul(Box<crate::consul::Error>),
    /// HAProxy could not be read or commanded.
    Haproxy(crate::haproxy::HaproxyError),
    /// Something at start that only a person can mend: the sentence says what.
    Start(String),
    /// HAProxy answered, and did not do what it was asked; it is asked again next turn.
    Unheeded {
        /// Its answers, each once: what stays the same while the commands change.
        answers: String,
        /// The commands too.
        text: String,
    },
    /// Something outside that is tried again next turn: the sentence says what.
    Turn(String),
}

impl Error {
    /// Whether only a person can mend it, so that a start must end with exit code 2 instead of trying again.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Error::Usage(_) | Error::Config(_) | Error::Start(_) => true,
            Error::Aws(error) => error.needs_a_person(),
            Error::Consul(error) => error.needs_a_person(),
            Error::Haproxy(error) => error.needs_a_person(),
            Error::Unheeded { .. } | Error::Turn(_) => false,
        }
    }

    /// Whether it is of the kind that the first moments of a machine or of an access key bring, and that passes then.
    pub fn is_early(&self) -> bool {
        matches!(self, Error::Aws(error) if error.is_early())
    }

    /// Which part of the world it speaks of.
    pub fn subject(&self) -> Subject {
        match self {
            Error::Aws(_) => Subject::Aws,
            Error::Consul(_) => Subject::Consul,
            Error::Haproxy(_) => Subject::Haproxy,
            _ => Subject::Turn,
        }
    }

    /// A text that stays the same while the same fault goes on.
    pub fn key(&self) -> String {
        match self {
            Error::Aws(error) => error.key(),
            Error::Consul(error) => error.key(),
            Error::Haproxy(error) => error.key(),
            Error::Unheeded { answers, .. } => answers.clone(),
            other => other.to_string(),
        }
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.needs_a_person() { exit::MEND } else { exit::FAILED })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Start(text) | Error::Unheeded { text, .. } | Error::Turn(text) => {
                f.write_str(text)
            }
            Error::Config(faults) => f.write_str(&faults.join("\n")),
            Error::Aws(error) => error.fmt(f),
            Error::Consul(error) => error.fmt(f),
            Error::Haproxy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::aws::Error> for Error {
    fn from(error: crate::aws::Error) -> Self {
        match error {
            // No fault of AWS: the turn was another process's.
            crate::aws::Error::OtherHand(text) => Error::Turn(text),
            error => Error::Aws(error),
        }
    }
}

impl From<crate::settings::Faults> for Error {
    fn from(crate::settings::Faults(faults): crate::settings::Faults) -> Self {
        Error::Config(faults)
    }
}

impl From<crate::consul::Error> for Error {
    fn from(error: crate::consul::Error) -> Self {
        Error::Consul(Box::new(error))
    }
}

impl From<crate::haproxy::HaproxyError> for Error {
    fn from(error: crate::haproxy::HaproxyError) -> Self {
        Error::Haproxy(error)
    }
}
