//! The program `hsdo`: command line and environment in, exit code out.

use std::process::ExitCode;

use hsdo::cli::{self, Invocation};
use hsdo::environment::Environment;
use hsdo::error::{Error, exit};

fn main() -> ExitCode {
    let result = cli::parse(std::env::args_os().skip(1)).and_then(|invocation| match invocation {
        Invocation::Help => {
            print!("{}", cli::help());
            Ok(ExitCode::from(exit::DONE))
        }
        Invocation::Version => {
            print!("{}", cli::version());
            Ok(ExitCode::from(exit::DONE))
        }
        Invocation::Run(args) => hsdo::run::run(&args, &Environment::of_process()),
    });
    result.unwrap_or_else(|error| {
        for line in error.to_string().lines() {
            eprintln!("hsdo: {line}");
        }
        if matches!(error, Error::Usage(_)) {
            eprint!("{}", cli::usage());
        }
        error.exit_code()
    })
}
