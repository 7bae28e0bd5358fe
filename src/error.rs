//! Why the program ends, in one line, and the exit code that follows.
//!
//! `main` is the only place that prints one of these and ends the process.

use std::fmt;
use std::process::ExitCode;

use crate::about::About;
use crate::ports::TurnError;

/// The exit codes of the program, in one place.
pub mod exit {
    /// The work is done, or the process was asked to stop.
    pub const DONE: u8 = 0;
    /// A turn failed under `--once` or `--dry-run`, or a command for people found something wrong.
    pub const FAILED: u8 = 1;
    /// The command line, the configuration, or something at start that only a person can fix.
    pub const NEEDS_OPERATOR: u8 = 2;
}

/// Why the program ends.
#[derive(Debug)]
pub enum Error {
    /// The command line is invalid.
    Usage(String),
    /// The configuration is invalid: one line per fault.
    Config(Vec<String>),
    /// The system refused something at start that only a person can fix.
    Start(String),
    /// A turn failed, and is not retried.
    Turn(TurnError),
}

impl Error {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Error::Turn(error) if !error.needs_operator => exit::FAILED,
            _ => exit::NEEDS_OPERATOR,
        })
    }

    /// What it is about, for the log.
    pub fn about(&self) -> About {
        match self {
            Error::Usage(_) | Error::Config(_) | Error::Start(_) => About::default(),
            Error::Turn(error) => error.about.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Start(text) => f.write_str(text),
            Error::Config(faults) => f.write_str(&faults.join("\n")),
            Error::Turn(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::settings::Faults> for Error {
    fn from(faults: crate::settings::Faults) -> Self {
        Error::Config(faults.0)
    }
}

impl From<crate::consul::ConsulError> for Error {
    fn from(error: crate::consul::ConsulError) -> Self {
        Error::Turn(error.into())
    }
}

impl From<crate::aws::AwsError> for Error {
    fn from(error: crate::aws::AwsError) -> Self {
        Error::Turn(error.into())
    }
}

impl From<TurnError> for Error {
    fn from(error: TurnError) -> Self {
        Error::Turn(error)
    }
}
