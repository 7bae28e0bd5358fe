//! The program `hsdo`: command line and environment in, exit code out.

use std::io::Write;
use std::process::ExitCode;

use hsdo::cli::{self, Invocation};
use hsdo::environment::Environment;
use hsdo::error::{Error, exit};

fn main() -> ExitCode {
    let result = cli::parse(std::env::args_os().skip(1)).and_then(|invocation| match invocation {
        Invocation::Help => {
            hsdo::run::print(&cli::help());
            Ok(ExitCode::from(exit::DONE))
        }
        Invocation::Version => {
            hsdo::run::print(&cli::version());
            Ok(ExitCode::from(exit::DONE))
        }
        Invocation::Run(args) => hsdo::run::run(&args, &Environment::of_process()),
    });
    hsdo::children::kill_all();
    hsdo::log::flush();
    result.unwrap_or_else(|error| {
        let mut text: String =
            error.to_string().lines().map(|line| format!("hsdo: {}\n", hsdo::text::plain(line))).collect();
        if matches!(error, Error::Usage(_)) {
            text += cli::usage();
        }
        // Nobody may be left to read it; the exit code tells all the same.
        let _ = std::io::stderr().write_all(text.as_bytes());
        error.exit_code()
    })
}
