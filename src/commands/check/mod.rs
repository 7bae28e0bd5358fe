//! `hsdo check`: everything that a start needs, a line each. What one runs before a first start and before opening a ticket.
//!
//! `gather` asks, and changes nothing; the other files turn facts into lines, one file per subject, and are pure.

mod aws;
mod configuration;
mod departure;
mod gather;
mod haproxy;
mod line;
mod machine;
mod settings;
mod source;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use self::gather::Facts;
use self::line::{Level, Line, Style};
use super::{Options, print};
use crate::command_line;
use crate::environment::Environment;
use crate::error::exit;
use crate::log::{self, Format};

/// The roles that are checked: those named on the command line, or else those that the configuration has settings for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The server role.
    pub server: bool,
    /// The client role.
    pub client: bool,
}

impl Roles {
    fn names(self) -> Vec<&'static str> {
        [(self.server, "server"), (self.client, "client")].iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
    }
}

/// The help, without the flags that all commands have.
pub const HELP: &str = "\
usage: hsdo check [--server] [--client] [--config PATH] [--json] [--debug]

Says what a start needs, a line each: `ok`; `warn`, what works but will surprise; or `mend`, what keeps a role from
starting or a server from its traffic. The last two name a remedy. Without a role, those are checked that the
configuration has settings for.

It reads the settings, the credentials, the table, the groups or services, HAProxy's Runtime API, and HAProxy's
configuration file where it is readable. Whether IAM allows a write is tried with an update whose condition cannot hold.

exit codes: 0 nothing to mend; 1 something to mend; 2 usage

roles:
  -s, --server       check what `hsdo --server` needs
  -c, --client       check what `hsdo --client` needs, on the machine of its HAProxy
";

pub(super) fn run(options: &Options, named: Roles, env: &Environment) -> ExitCode {
    if options.debug {
        log::init(true, Format::Text);
    }
    let facts = gather::gather(options.config.as_deref(), named, env);
    let lines = lines(&facts);
    command_line::print(&if options.json {
        print::json(&line::document(&lines, &facts.roles.names()))
    } else {
        line::text(&lines, Style { columns: std::io::stdout().is_terminal(), colour: print::has_colours(env) })
    });
    ExitCode::from(if line::worst(&lines) < Level::Mend { exit::DONE } else { exit::FAILED })
}

fn lines(facts: &Facts) -> Vec<Line> {
    let mut lines = settings::lines(&facts.settings, facts.roles);
    lines.extend(facts.aws.iter().flat_map(aws::lines));
    lines.extend(facts.source.iter().flat_map(source::lines));
    lines.extend(facts.table.iter().flat_map(table::lines));
    lines.extend(departure::lines(facts.reports.as_ref(), facts.hooks.as_ref()));
    lines.extend(facts.haproxy.iter().flat_map(haproxy::lines));
    lines.extend(machine::lines(&facts.machine));
    lines
}
