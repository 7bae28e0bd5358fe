//! `hsdo check`: everything that a start needs, a line each. What one runs before a first start and before opening a ticket.
//!
//! `gather` asks, and changes nothing; the other files turn facts into lines, one file per subject, and are pure.

mod aws;
mod configuration;
mod departure;
mod exporter;
mod gather;
mod haproxy;
mod line;
mod machine;
mod quick;
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

/// What `hsdo check` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that a start of these roles needs.
    Start(Roles),
    /// Only whether the process of this machine or container is alive: `--quick`.
    Quick,
}

impl Roles {
    fn names(self) -> Vec<&'static str> {
        [(self.server, "server"), (self.client, "client")].iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
    }
}

/// The help, without the flags that all commands have.
pub const HELP: &str = "\
usage: hsdo check [--server] [--client] [--config PATH] [--json] [--debug]
       hsdo check --quick [--config PATH] [--json]

Says what a start needs, a line each: `ok`; `warn`, what works but will surprise; or `mend`, what keeps a role from
starting or a server from its traffic. The last two name a remedy. Without a role, those are checked that the
configuration has settings for.

It reads the settings, the credentials, the table, the groups or services, HAProxy's Runtime API, and HAProxy's
configuration file where it is readable. Whether IAM allows a write is tried with an update whose condition cannot hold.

With --quick it only asks the process that runs on this machine, or in this container, whether it is alive, and prints
one line: the health check of a container. The process answers on EXPORTER_PORT, so give both the same settings. One
that is alive but cannot reach AWS or HAProxy is no reason for a restart: `warn`, and exit code 0. AWS and HAProxy are
not asked, and it takes at most two seconds.

exit codes: 0 nothing to mend; 1 something to mend; 2 usage

what to check:
  -s, --server       what `hsdo --server` needs
  -c, --client       what `hsdo --client` needs, on the machine of its HAProxy
      --quick        only whether the process on this machine is alive
";

pub(super) fn run(options: &Options, scope: Scope, env: &Environment) -> ExitCode {
    if options.debug {
        log::init(true, Format::Text);
    }
    let config = options.config.as_deref();
    let (lines, roles) = match scope {
        Scope::Start(named) => {
            let facts = gather::gather(config, named, env);
            (lines(&facts), facts.roles.names())
        }
        Scope::Quick => (quick::lines(config, env), Vec::new()),
    };
    let style = Style { columns: std::io::stdout().is_terminal(), colour: print::has_colours(env) };
    command_line::print(&match (options.json, scope) {
        (true, _) => print::json(&line::document(&lines, &roles)),
        (false, Scope::Start(_)) => line::text(&lines, style),
        (false, Scope::Quick) => line::lines(&lines, style),
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
