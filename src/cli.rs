//! Parses the command line; the texts of `--help`, `--version` and the usage.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg;

use crate::command_line;
use crate::commands::{self, Command};
use crate::error::Error;
use crate::settings;

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Print the help and exit.
    Help,
    /// Print the version and exit.
    Version,
    /// Run a command for people.
    Command(Command),
    /// Run a role or create the table.
    Run(Args),
}

/// The options of [`Invocation::Run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// The role; `None` only with [`Mode::CreateTable`].
    pub role: Option<Role>,
    /// What to run.
    pub mode: Mode,
    /// Enables debug log lines, as the setting `DEBUG` does.
    pub debug: bool,
    /// The argument of `--config`.
    pub config: Option<PathBuf>,
}

/// The role of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Fills the table from the source of instances.
    Server,
    /// Makes one HAProxy match the table.
    Client,
}

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Turns until a signal ends the process.
    Loop,
    /// One turn.
    Once,
    /// One turn that prints what it would change but changes nothing.
    DryRun,
    /// Create the table if it does not exist.
    CreateTable,
}

impl Mode {
    /// Empty for [`Mode::Loop`], the default.
    fn flag(self) -> &'static str {
        match self {
            Mode::Loop => "",
            Mode::Once => "--once",
            Mode::DryRun => "--dry-run",
            Mode::CreateTable => "--create-table",
        }
    }
}

/// Parses the arguments after the program's name. Ignores what follows `--help` or `--version`.
///
/// # Errors
/// [`Error::Usage`] with one line.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation, Error> {
    let args: Vec<OsString> = args.collect();
    if let Some((word, rest)) = args.split_first().filter(|(word, _)| !word.as_encoded_bytes().starts_with(b"-")) {
        return commands::parse(word, rest).map(Invocation::Command);
    }
    let mut parser = lexopt::Parser::from_args(args);
    let (mut server, mut client, mut debug) = (false, false, false);
    let (mut config, mut mode) = (None, Mode::Loop);
    while let Some(argument) = parser.next().map_err(|error| command_line::usage_error(&error))? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Invocation::Version),
            Arg::Short('s') | Arg::Long("server") => server = true,
            Arg::Short('c') | Arg::Long("client") => client = true,
            Arg::Short('d') | Arg::Long("debug") => debug = true,
            Arg::Long("config") => {
                command_line::set_config(
                    &mut config,
                    parser.value().map_err(|error| command_line::usage_error(&error))?,
                )?;
            }
            Arg::Long("once") => set_mode(&mut mode, Mode::Once)?,
            Arg::Long("dry-run") => set_mode(&mut mode, Mode::DryRun)?,
            Arg::Long("create-table") => set_mode(&mut mode, Mode::CreateTable)?,
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(command_line::usage_error(&argument.unexpected()));
            }
        }
    }
    let role = match (server, client) {
        (true, true) => {
            let text = "--server and --client are mutually exclusive: start a process for each";
            return Err(Error::Usage(text.to_owned()));
        }
        (true, false) => Some(Role::Server),
        (false, true) => Some(Role::Client),
        (false, false) => None,
    };
    if role.is_none() && mode != Mode::CreateTable {
        return Err(Error::Usage("no role: use --server or --client".to_owned()));
    }
    Ok(Invocation::Run(Args { role, mode, debug, config }))
}

fn set_mode(mode: &mut Mode, requested: Mode) -> Result<(), Error> {
    if *mode != Mode::Loop && *mode != requested {
        let (one, other) = (mode.flag(), requested.flag());
        return Err(Error::Usage(format!("{one} and {other} are mutually exclusive: use one")));
    }
    *mode = requested;
    Ok(())
}

/// The short usage, for stderr after an invalid command line.
pub fn usage() -> &'static str {
    "usage: hsdo --server|--client [--config PATH] [--once|--dry-run] [--debug]\n       \
     hsdo --create-table [--config PATH] [--debug]\n       \
     hsdo check [--server] [--client] [--quick] [--config PATH] [--json]\n       \
     hsdo status|why [TARGET] [--json] [--config PATH]\n       \
     hsdo drain|enable TARGET... [--for DURATION] [--note TEXT] [--yes] [--dry-run]\n       \
     hsdo --help|--version\n"
}

/// `hsdo` and its version, with a newline.
pub fn version() -> String {
    concat!("hsdo ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// The text of `--help`.
pub fn help() -> String {
    format!(
        "{description}.\n\n{usage}{FLAGS}{settings}",
        description = env!("CARGO_PKG_DESCRIPTION"),
        usage = usage(),
        settings = settings::help()
    )
}

const FLAGS: &str = "
roles, one process each:
  -s, --server       one per service: get the instances, assign slots, ramp weights, write the table
  -c, --client       one next to each HAProxy: read the table, make HAProxy's backends match it

commands for people; each has its own --help:
  check              everything that a start needs, a line each, with what to mend
  check --quick      is the process on this machine alive? The health check of a container
  status             the table as it is: who leads, and each slot
  why TARGET         why an instance, an address or a slot (slot:3) has its traffic, or none
  drain TARGET...    order a slot, instance, address, zone or group out of the traffic of every HAProxy
  enable TARGET...   lift that order; the only other command that changes something

flags:
      --config PATH  configuration file; default: conf/env.yaml, else /etc/hsdo/env.yaml, else none
      --once         one turn of at most 20 s, then exit 0, or 1 if it failed
      --dry-run      one turn that prints what it would write or send to HAProxy, but changes nothing
      --create-table create the DynamoDB table if it does not exist, wait until it is active, and exit; needs no role
  -d, --debug        debug log
  -h, --help         this text
  -V, --version      the version

exit codes: 0 success; 1 a turn failed under --once or --dry-run, or a command found something wrong; 2 usage,
configuration, or a startup error that only a person can fix

settings, in the YAML file or the environment, which takes precedence:
";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| match error {
            Error::Usage(text) => text,
            other => panic!("no usage error: {other:?}"),
        })
    }

    #[test]
    fn every_invocation_is_parsed() {
        let run = |role, mode, debug, config: Option<&str>| {
            Invocation::Run(Args { role, mode, debug, config: config.map(PathBuf::from) })
        };
        let (server, client) = (Some(Role::Server), Some(Role::Client));
        let cases = [
            ("-h", Invocation::Help),
            ("--help", Invocation::Help),
            ("-s -c --help", Invocation::Help),
            ("-V", Invocation::Version),
            ("--version --bogus", Invocation::Version),
            ("-s", run(server, Mode::Loop, false, None)),
            ("--server", run(server, Mode::Loop, false, None)),
            ("--server --server", run(server, Mode::Loop, false, None)),
            ("-c", run(client, Mode::Loop, false, None)),
            ("-cd", run(client, Mode::Loop, true, None)),
            ("--debug --client", run(client, Mode::Loop, true, None)),
            ("-s --once", run(server, Mode::Once, false, None)),
            ("-s --once --once", run(server, Mode::Once, false, None)),
            ("--dry-run -c", run(client, Mode::DryRun, false, None)),
            ("--create-table", run(None, Mode::CreateTable, false, None)),
            ("--create-table -s -d", run(server, Mode::CreateTable, true, None)),
            ("-c --create-table", run(client, Mode::CreateTable, false, None)),
            ("-s --config a.yaml", run(server, Mode::Loop, false, Some("a.yaml"))),
            ("--config=/x/b.yaml -c", run(client, Mode::Loop, false, Some("/x/b.yaml"))),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn every_error_names_its_cause() {
        let cases = [
            ("", "no role: use --server or --client"),
            ("-d", "no role: use --server or --client"),
            ("--once", "no role: use --server or --client"),
            ("-s -c", "--server and --client are mutually exclusive: start a process for each"),
            ("-sc --create-table", "--server and --client are mutually exclusive: start a process for each"),
            ("-s --once --dry-run", "--once and --dry-run are mutually exclusive: use one"),
            ("-s --dry-run --once", "--dry-run and --once are mutually exclusive: use one"),
            ("--create-table --once", "--create-table and --once are mutually exclusive: use one"),
            ("-s --dry-run --create-table", "--dry-run and --create-table are mutually exclusive: use one"),
            ("-s --bogus", "unknown flag \"--bogus\""),
            ("-s --check", "unknown flag \"--check\""),
            ("-x", "unknown flag \"-x\""),
            ("-s extra", "unexpected argument \"extra\": hsdo accepts only flags"),
            ("-s --once=yes", "--once takes no value, found \"yes\""),
            ("-s --config", "--config needs a value"),
            ("-s --config=", "--config needs a non-empty path"),
            ("-s --config a --config b", "--config is given twice: name one file"),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), Err(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn the_help_names_every_flag_and_setting() {
        let help = help();
        for flag in ["--server", "--client", "--config", "--once", "--dry-run", "--create-table", "--debug", "--help"] {
            assert!(help.contains(flag), "{flag}");
        }
        for key in settings::KEYS {
            assert!(help.contains(key.name), "{}", key.name);
        }
        assert!(help.contains(usage()) && help.ends_with('\n'));
        assert_eq!(version(), format!("hsdo {}\n", env!("CARGO_PKG_VERSION")));
    }

    proptest! {
        #[test]
        fn errors_contain_no_control_characters(args in prop::collection::vec("-{0,2}(?s:.){0,12}", 0..4)) {
            if let Err(error) = parse(args.iter().map(OsString::from)) {
                prop_assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
                prop_assert!(matches!(error, Error::Usage(_)));
            }
        }
    }
}
