//! The commands for people, each a first word: `hsdo check`. They read the configuration of the roles, and change nothing.
//!
//! A command gathers facts from the edges, as `run` does for the roles; what it says about them is decided by pure functions.

pub mod check;

use std::process::ExitCode;

use crate::environment::Environment;
use crate::error::Error;

/// A command with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `hsdo check`.
    Check(check::Options),
}

/// The first word of every command.
pub const NAMES: [&str; 1] = ["check"];

impl Command {
    /// Parses what follows the first word `name`; `None` if no command has that name.
    ///
    /// # Errors
    /// [`Error::Usage`] with one line.
    pub fn parse(name: &str, arguments: lexopt::Parser) -> Option<Result<Command, Error>> {
        match name {
            "check" => Some(check::Options::parse(arguments).map(Command::Check)),
            _ => None,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What kept it from telling anything.
    pub fn run(&self, env: &Environment) -> Result<ExitCode, Error> {
        match self {
            Command::Check(options) => check::run(options, env),
        }
    }
}
