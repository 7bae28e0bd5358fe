//! `hsdo check`: everything that a start needs, a line each. What one runs before a first start and before opening a ticket.
//!
//! `gather` asks, and changes nothing; the other files turn facts into lines, one file per subject, and are pure.

mod aws;
mod configuration;
mod gather;
mod haproxy;
mod line;
mod machine;
mod settings;
mod source;
mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::Arg;

use self::gather::Facts;
use self::line::{Level, Line, Style};
use crate::command_line;
use crate::command_line::print;
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::log::{self, Format};

/// The options of `hsdo check`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Print the help of this command only.
    pub help: bool,
    /// Check what the server role needs.
    pub server: bool,
    /// Check what the client role needs.
    pub client: bool,
    /// Print JSON.
    pub json: bool,
    /// Log what is asked.
    pub debug: bool,
    /// The argument of `--config`.
    pub config: Option<PathBuf>,
}

/// The roles that are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Roles {
    server: bool,
    client: bool,
}

impl Roles {
    fn names(self) -> Vec<&'static str> {
        [(self.server, "server"), (self.client, "client")].iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
    }
}

const HELP: &str = "\
hsdo check: everything that a start needs, a line each. It changes nothing.

usage: hsdo check [--server] [--client] [--config PATH] [--json] [--debug]

Each line is `ok`; `warn`, what works but will surprise; or `mend`, what keeps a role from starting or a server from its
traffic. The last two name a remedy. Without a role, those are checked that the configuration has settings for.

It reads the settings, the credentials, the table, the groups or services, HAProxy's Runtime API, and HAProxy's configuration
file where it is readable. Whether IAM allows a write is tried with an update whose condition cannot hold.

flags:
  -s, --server       check what `hsdo --server` needs
  -c, --client       check what `hsdo --client` needs, on the machine of its HAProxy
      --config PATH  configuration file; default: conf/env.yaml, else /etc/hsdo/env.yaml, else none
      --json         the same lines as a JSON document
  -d, --debug        debug log
  -h, --help         this text

exit codes: 0 nothing to mend; 1 something to mend; 2 usage
";

impl Options {
    /// Parses what follows `hsdo check`.
    ///
    /// # Errors
    /// [`Error::Usage`] with one line.
    pub fn parse(mut arguments: lexopt::Parser) -> Result<Self, Error> {
        let mut options = Options::default();
        while let Some(argument) = arguments.next().map_err(|error| command_line::usage_error(&error))? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Options { help: true, ..Options::default() }),
                Arg::Short('s') | Arg::Long("server") => options.server = true,
                Arg::Short('c') | Arg::Long("client") => options.client = true,
                Arg::Short('d') | Arg::Long("debug") => options.debug = true,
                Arg::Long("json") => options.json = true,
                Arg::Long("config") => {
                    command_line::set_config(
                        &mut options.config,
                        arguments.value().map_err(|error| command_line::usage_error(&error))?,
                    )?;
                }
                Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                    return Err(command_line::usage_error(&argument.unexpected()));
                }
            }
        }
        Ok(options)
    }
}

/// Checks and prints.
///
/// # Errors
/// None so far: what is wrong is a line.
pub fn run(options: &Options, env: &Environment) -> Result<ExitCode, Error> {
    if options.help {
        print(HELP);
        return Ok(ExitCode::from(exit::DONE));
    }
    if options.debug {
        log::init(true, Format::Text);
    }
    let facts = gather::gather(options, env);
    let lines = lines(&facts);
    if options.json {
        print(&line::json(&lines, &facts.roles.names()));
    } else {
        let columns = std::io::stdout().is_terminal();
        let colour = columns && env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb");
        print(&line::text(&lines, Style { columns, colour }));
    }
    let is_good = line::worst(&lines) < Level::Mend;
    Ok(ExitCode::from(if is_good { exit::DONE } else { exit::FAILED }))
}

fn lines(facts: &Facts) -> Vec<Line> {
    let mut lines = settings::lines(&facts.settings, facts.roles);
    lines.extend(facts.aws.iter().flat_map(aws::lines));
    lines.extend(facts.source.iter().flat_map(source::lines));
    lines.extend(facts.table.iter().flat_map(table::lines));
    lines.extend(facts.haproxy.iter().flat_map(haproxy::lines));
    lines.extend(machine::lines(&facts.machine));
    lines
}
