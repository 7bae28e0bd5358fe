//! The `hsdo` binary.

use std::io::Write;
use std::process::ExitCode;

use hsdo::cli::{self, Invocation};
use hsdo::environment::Environment;
use hsdo::error::{Error, exit};

fn main() -> ExitCode {
    let result = cli::parse(std::env::args_os().skip(1)).and_then(|invocation| match invocation {
        Invocation::Help => {
            hsdo::command_line::print(&cli::help());
            Ok(ExitCode::from(exit::DONE))
        }
        Invocation::Version => {
            hsdo::command_line::print(&cli::version());
            Ok(ExitCode::from(exit::DONE))
        }
        Invocation::Command(command) => hsdo::commands::run(&command, &Environment::from_process()),
        Invocation::Run(args) => hsdo::run::run(&args, &Environment::from_process()),
    });
    hsdo::children::kill_all();
    hsdo::log::flush();
    result.unwrap_or_else(|error| {
        let about = error.about();
        let mut text: String = error.to_string().lines().map(|line| hsdo::log::last_line(line, &about)).collect();
        if matches!(error, Error::Usage(_)) {
            text += cli::usage();
        }
        // stderr may be closed; the exit code still reports the failure.
        let _ = std::io::stderr().write_all(text.as_bytes());
        error.exit_code()
    })
}
