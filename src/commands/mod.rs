//! The commands for people: each reads what the roles read, says what it found, and ends. Only `orders` writes.
//!
//! Like `run`, they build edges and ask roles for their decisions. What they say is for stdout; the log stays on stderr.

pub mod check;
mod lease;
pub mod orders;
mod print;
pub mod status;
mod target;
pub mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lexopt::Arg;

use crate::aws::{Aws, AwsError, Observer, Regions, Whereabouts, remembered_zone};
use crate::command_line;
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::log;
use crate::order::Target;
use crate::ports::TurnError;
use crate::settings::{self, ClientSettings, Common, ZoneNames};
use check::{Roles, Scope};
use orders::OrderRequest;

/// All AWS calls of a command end this long after its start.
const AWS_TIMEOUT: Duration = Duration::from_secs(20);
/// How long they ask where this machine is.
const ZONE_TIMEOUT: Duration = Duration::from_secs(3);

/// The first word of the command line, where it names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `hsdo check`
    Check,
    /// `hsdo status`
    Status,
    /// `hsdo why`
    Why,
    /// `hsdo drain`
    Drain,
    /// `hsdo enable`
    Enable,
}

const WORDS: [(&str, Word); 5] = [
    ("check", Word::Check),
    ("status", Word::Status),
    ("why", Word::Why),
    ("drain", Word::Drain),
    ("enable", Word::Enable),
];

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The help of a command.
    Help(Word),
    /// Everything that a start needs, or only whether the process is alive.
    Check(Options, Scope),
    /// The table as it is.
    Status(Options),
    /// Why a server has the traffic that it has.
    Why(Options, Target),
    /// Gives orders.
    Drain(Options, OrderRequest),
    /// Lifts orders.
    Enable(Options, OrderRequest),
}

/// The flags of every command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Print a JSON document.
    pub json: bool,
    /// Enables debug log lines.
    pub debug: bool,
    /// The argument of `--config`.
    pub config: Option<PathBuf>,
}

/// Parses a command line whose first argument is `word`.
///
/// # Errors
/// [`Error::Usage`] with one line.
pub fn parse(word: &OsString, rest: &[OsString]) -> Result<Command, Error> {
    let Some(word) = WORDS.iter().find(|(name, _)| word == name).map(|(_, word)| *word) else {
        let typed = word.to_string_lossy();
        let nearest = settings::nearest(&typed, WORDS.iter().map(|(name, _)| *name)).unwrap_or_default();
        return Err(Error::Usage(format!("unknown command {typed:?}: did you mean {nearest}?")));
    };
    let mut parser = lexopt::Parser::from_args(rest);
    let (mut options, mut roles, mut targets) = (Options::default(), Roles::default(), Vec::new());
    let mut quick = false;
    let mut request = OrderRequest::default();
    let gives = word == Word::Drain;
    let orders = gives || word == Word::Enable;
    while let Some(argument) = parser.next().map_err(|error| command_line::usage_error(&error))? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(word)),
            Arg::Short('d') | Arg::Long("debug") => options.debug = true,
            Arg::Long("json") => options.json = true,
            Arg::Long("config") => {
                let path = parser.value().map_err(|error| command_line::usage_error(&error))?;
                command_line::set_config(&mut options.config, path)?;
            }
            Arg::Short('s') | Arg::Long("server") if word == Word::Check => roles.server = true,
            Arg::Short('c') | Arg::Long("client") if word == Word::Check => roles.client = true,
            Arg::Long("quick") if word == Word::Check => quick = true,
            Arg::Long("for") if gives => {
                let span = orders::parse_span(&value(&mut parser)?)?;
                set_once(&mut request.span, span, "--for")?;
            }
            Arg::Long("note") if gives => {
                let note = value(&mut parser)?;
                orders::check_note(&note)?;
                set_once(&mut request.note, note, "--note")?;
            }
            Arg::Long("yes") if gives => request.yes = true,
            Arg::Long("dry-run") if orders => request.dry_run = true,
            Arg::Value(target) if word == Word::Why => targets.push(target::parse_one_server(&target)?),
            Arg::Value(target) if orders => request.targets.push(target::parse(&target)?),
            Arg::Value(value) => {
                return Err(Error::Usage(format!("unexpected argument {value:?}: this command accepts only flags")));
            }
            Arg::Short(_) | Arg::Long(_) => return Err(command_line::usage_error(&argument.unexpected())),
        }
    }
    if orders {
        request.targets.sort();
        request.targets.dedup();
        return match request.targets.as_slice() {
            [] => Err(Error::Usage(format!("no target: name {}", crate::order::TARGETS))),
            _ if gives => Ok(Command::Drain(options, request)),
            _ => Ok(Command::Enable(options, request)),
        };
    }
    match (word, targets.pop()) {
        (Word::Drain | Word::Enable, _) => Err(Error::Usage("no target".to_owned())),
        (Word::Check, _) if quick && roles != Roles::default() => {
            let text =
                "--quick asks the process on EXPORTER_PORT, whichever role it has: leave out --server and --client";
            Err(Error::Usage(text.to_owned()))
        }
        (Word::Check, _) if quick => Ok(Command::Check(options, Scope::Quick)),
        (Word::Check, _) => Ok(Command::Check(options, Scope::Start(roles))),
        (Word::Status, _) => Ok(Command::Status(options)),
        (Word::Why, Some(target)) if targets.is_empty() => Ok(Command::Why(options, target)),
        (Word::Why, Some(_)) => Err(Error::Usage("several targets: name one".to_owned())),
        (Word::Why, None) => Err(Error::Usage(format!("no target: name {}", target::ONE_SERVER))),
    }
}

fn value(parser: &mut lexopt::Parser) -> Result<String, Error> {
    let value = parser.value().map_err(|error| command_line::usage_error(&error))?;
    value.into_string().map_err(|text| Error::Usage(format!("{text:?} is not UTF-8")))
}

fn set_once<T>(slot: &mut Option<T>, value: T, flag: &str) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::Usage(format!("{flag} is given twice"))),
    }
}

/// Finds the zone of this machine if the client's settings leave it to `auto`; they name it from then on. None if they do not. As for
/// a client that starts, the state file's memory stands in for it.
fn find_zone(client: &mut ClientSettings, env: &Environment) -> Option<Result<String, AwsError>> {
    if client.zones != Some(ZoneNames::Auto) {
        return None;
    }
    let mut found = Whereabouts::new(env).and_then(|here| here.zone(Instant::now() + ZONE_TIMEOUT));
    let (table, region) = (&client.common.table, client.common.region_of_table());
    let remembered = client.state_file.as_ref().and_then(|file| remembered_zone(file, table, region));
    if let (Err(_), Some(zone)) = (&found, remembered) {
        found = Ok(zone);
    }
    if let Ok(zone) = &found {
        client.zones = Some(ZoneNames::Named(vec![zone.clone()]));
    }
    Some(found)
}

/// The help of one command.
pub fn help(word: Word) -> String {
    let about = match word {
        Word::Check => check::HELP,
        Word::Status => status::HELP,
        Word::Why => why::HELP,
        Word::Drain => orders::DRAIN_HELP,
        Word::Enable => orders::ENABLE_HELP,
    };
    let (title, promise) = match word {
        Word::Drain | Word::Enable => ("", ""),
        _ => ("\nflags:\n", " Nothing is changed."),
    };
    format!("{about}{title}{FLAGS}{promise}\n")
}

const FLAGS: &str = "      --json         print a JSON document instead of a table
      --config PATH  configuration file; default: conf/env.yaml, else /etc/hsdo/env.yaml, else none
  -d, --debug        debug log
  -h, --help         this text

Settings and credentials are those of the roles: see hsdo --help.";

/// Runs a command, with settings from `env` and the configuration file.
///
/// # Errors
/// A faulty configuration, or what must be read cannot be.
pub fn run(command: &Command, env: &Environment) -> Result<ExitCode, Error> {
    match command {
        Command::Help(word) => {
            command_line::print(&help(*word));
            Ok(ExitCode::from(exit::DONE))
        }
        Command::Check(options, scope) => Ok(check::run(options, *scope, env)),
        Command::Status(options) => status::run(options, env),
        Command::Why(options, target) => why::run(options, target, env),
        Command::Drain(options, request) => orders::drain(options, request, env),
        Command::Enable(options, request) => orders::enable(options, request, env),
    }
}

/// Starts the log, and AWS with a deadline.
fn start(options: &Options, common: &Common, only_table: bool, env: &Environment) -> Result<Arc<Aws>, Error> {
    let debug = options.debug || common.debug;
    log::init(debug, common.log_format);
    if !debug {
        // What a role does is no news here.
        ::log::set_max_level(::log::LevelFilter::Warn);
    }
    for warning in &common.warnings {
        ::log::warn!("{warning}");
    }
    let regions = Regions { named: common.region.as_deref(), table: common.table_region.as_deref(), only_table };
    let deadline = Instant::now() + AWS_TIMEOUT;
    Ok(Aws::with_deadline(Some(deadline), regions, env, Arc::new(NoMetrics))?)
}

/// A command found something wrong: unlike a role's start, it ends with exit code 1 whoever can mend it.
fn failed(error: TurnError) -> Error {
    Error::Turn(TurnError { needs_operator: false, ..error })
}

/// Nothing is counted: the process ends.
struct NoMetrics;

impl Observer for NoMetrics {
    fn request(&self, _: &'static str, _: &'static str, _: &str) {}

    fn consumed(&self, _: &'static str, _: f64) {}
}

impl crate::consul::ConsulObserver for NoMetrics {
    fn request(&self, _: &'static str) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Invocation};

    fn parsed(line: &str) -> Result<Invocation, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        cli::parse(words.into_iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_command_is_parsed() {
        let status = |options: Options| Invocation::Command(Command::Status(options));
        let why = |options, target: &str| {
            Invocation::Command(Command::Why(options, target::parse(target.as_ref()).expect(target)))
        };
        let plain = Options::default;
        let json = || Options { json: true, ..plain() };
        for (line, expected) in [
            ("status", status(plain())),
            ("status --json --json", status(json())),
            ("status -d --config=a.yaml", status(Options { debug: true, config: Some("a.yaml".into()), ..plain() })),
            ("check", Invocation::Command(Command::Check(plain(), Scope::Start(Roles::default())))),
            (
                "check -s --client --json",
                Invocation::Command(Command::Check(json(), Scope::Start(Roles { server: true, client: true }))),
            ),
            ("check --quick", Invocation::Command(Command::Check(plain(), Scope::Quick))),
            ("check --json --quick --quick", Invocation::Command(Command::Check(json(), Scope::Quick))),
            ("check -h", Invocation::Command(Command::Help(Word::Check))),
            ("status --help", Invocation::Command(Command::Help(Word::Status))),
            ("why slot:3", why(plain(), "slot:3")),
            ("why --json i-0a", why(json(), "i-0a")),
            ("why 10.0.0.7 --json", why(json(), "10.0.0.7")),
            ("why -- --odd", why(plain(), "--odd")),
            ("why -h", Invocation::Command(Command::Help(Word::Why))),
        ] {
            assert_eq!(parsed(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn every_error_names_its_cause() {
        for (line, expected) in [
            ("chek", "unknown command \"chek\": did you mean check?"),
            ("statu", "unknown command \"statu\": did you mean status?"),
            ("wy slot:3", "unknown command \"wy\": did you mean why?"),
            ("status extra", "unexpected argument \"extra\": this command accepts only flags"),
            ("status --once", "unknown flag \"--once\""),
            ("status --quick", "unknown flag \"--quick\""),
            ("check --quick=1", "--quick takes no value, found \"1\""),
            (
                "check -c --quick",
                "--quick asks the process on EXPORTER_PORT, whichever role it has: leave out --server and --client",
            ),
            ("status -s", "unknown flag \"-s\""),
            ("status --json=yes", "--json takes no value, found \"yes\""),
            ("status --config a --config b", "--config is given twice: name one file"),
            ("why", "no target: name slot:3, an instance id or an address"),
            ("why slot:1 slot:2", "several targets: name one"),
            ("-s status", "unexpected argument \"status\": hsdo accepts only flags"),
        ] {
            assert_eq!(parsed(line), Err(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn every_command_has_its_help() {
        for (name, word) in WORDS {
            let help = help(word);
            assert!(help.starts_with("usage: hsdo ") && help.ends_with('\n'), "{help}");
            assert!(help.contains(&format!("hsdo {name}")) && help.contains("--json"), "{help}");
            assert!(help.lines().all(|line| line.len() <= 120), "{help}");
            assert!(cli::usage().contains(name) && cli::help().contains(name), "{name}");
        }
    }
}
