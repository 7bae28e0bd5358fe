//! What is known of one HAProxy process; dropped when another one answers. Pure.

use std::collections::BTreeMap;

use super::error::HaproxyError;
use super::socket::MAX_LINE;
use super::state::info_value;
use super::version::hangs_on_long_lines;
use crate::ports::Process;

/// The shortest limit for lines, in bytes: every single command fits.
const SHORTEST: usize = 1024;

/// How to send commands over its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// It is the master's socket: commands need a prefix to reach the current worker, and the connection stays open.
    pub(super) master: bool,
    /// It prefixes messages with a severity (`severity-output`).
    pub(super) severity: bool,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Dialect { master: true, .. } => "@1;",
            Dialect { severity: true, .. } => "set severity-output none;",
            Dialect { .. } => "",
        }
    }

    pub(super) fn line(self, commands: &str) -> String {
        format!("{}{commands}", self.prefix())
    }

    pub(super) fn extra_replies(self) -> usize {
        usize::from(self.severity && !self.master)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) process: Process,
    pub(super) dialect: Dialect,
    /// The longest line that it is assumed to accept, including the line end.
    longest_line: usize,
    /// The `be_id` of each backend: `show stat` by name finds a frontend of that name first.
    pub(super) numbers: BTreeMap<String, String>,
    pub(super) reported: bool,
    /// Whether its `show stat` is usable: that of 2.2 lacks the weight.
    pub(super) stat_has_weight: bool,
    /// Whether it has a resolver; none until asked.
    pub(super) resolver: Option<bool>,
}

impl Known {
    pub(super) fn new(process: Process, dialect: Dialect) -> Self {
        Known {
            process,
            dialect,
            longest_line: MAX_LINE,
            numbers: BTreeMap::new(),
            reported: false,
            stat_has_weight: true,
            resolver: None,
        }
    }

    /// With a later answer of the same process; none if another process answered.
    pub(super) fn updated(&self, process: Process, dialect: Dialect) -> Option<Self> {
        (!process.differs_from(&self.process)).then(|| Known { process, dialect, ..self.clone() })
    }

    pub(super) fn with_dialect(self, dialect: Dialect) -> Self {
        Known { dialect, ..self }
    }

    /// The longest text of joined commands that fits a line, including the line end.
    pub(super) fn line_limit(&self) -> usize {
        self.longest_line - self.dialect.prefix().len()
    }

    /// Lowers the line limit if this error suggests it; true if the line is worth an immediate retry. If a version that hangs on long
    /// lines, such as 2.2, times out, it may also have been stopped: the shorter line waits for the next turn.
    pub(super) fn learn_from(&mut self, error: &HaproxyError) -> bool {
        let (length, retry) = match error {
            HaproxyError::LongLine { length } => (*length, true),
            HaproxyError::Io { length, .. } if error.is_timeout() && hangs_on_long_lines(&self.process.version) => {
                (*length, false)
            }
            _ => return false,
        };
        if length <= SHORTEST {
            return false;
        }
        let longest_line = self.longest_line.min((length / 2).max(SHORTEST));
        std::mem::replace(&mut self.longest_line, longest_line) > longest_line && retry
    }
}

/// Whether the reply to `show proc` is the master's: a worker does not know the command.
pub(super) fn is_master(show_proc: &str) -> bool {
    show_proc.starts_with("#<PID>")
}

/// The level in the reply to `show cli level`, and whether a severity precedes it: `[6]: admin`, `[info]: admin`.
pub(super) fn level(reply: &str) -> (&str, bool) {
    let reply = reply.trim();
    match reply.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        Some((_, level)) => (level.trim(), true),
        None => (reply, false),
    }
}

/// The number of processes behind the socket, if more than one, by the reply to `show info`.
pub(super) fn processes(show_info: &str) -> Option<&str> {
    info_value(show_info, "Nbproc").filter(|number| *number != "1")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::{Duration, Instant};

    use super::*;

    fn known(version: &str) -> Known {
        let now = Instant::now();
        let (pid, version) = ("8".to_owned(), version.to_owned());
        let process = Process { pid, version, started: None, uptime: Duration::ZERO, asked: now, answered: now };
        Known::new(process, Dialect::default())
    }

    #[test]
    fn a_line_that_was_too_long_halves_the_limit() {
        let long = |length| HaproxyError::LongLine { length };
        let timeout = |length| HaproxyError::Io { line: String::new(), length, source: io::ErrorKind::TimedOut.into() };
        for (version, error, limit, retry) in [
            ("3.2.1", long(8_000), 4_000, true),
            ("3.2.1", long(1_500), 1_024, true),
            ("3.2.1", long(800), 8_192, false),
            ("3.2.1", timeout(8_000), 8_192, false),
            ("2.2.9", timeout(8_000), 4_000, false),
            ("2.2.9", timeout(10), 8_192, false),
            ("2.6.12", timeout(8_000), 8_192, false),
            ("2.10.1", timeout(8_000), 8_192, false),
        ] {
            let mut known = known(version);
            assert_eq!((known.learn_from(&error), known.line_limit()), (retry, limit), "{version} {error}");
        }
    }

    #[test]
    fn dialects_of_sockets() {
        for (master, severity, line, extra) in [
            (false, false, "show info", 0),
            (true, false, "@1;show info", 0),
            (true, true, "@1;show info", 0),
            (false, true, "set severity-output none;show info", 1),
        ] {
            let dialect = Dialect { master, severity };
            assert_eq!((dialect.line("show info").as_str(), dialect.extra_replies()), (line, extra));
        }
        for (reply, expected) in
            [("admin\n", ("admin", false)), ("[6]: admin\n", ("admin", true)), ("[info]: operator", ("operator", true))]
        {
            assert_eq!(level(reply), expected, "{reply}");
        }
        assert!(is_master("#<PID>          <type>          <reloads>") && !is_master("Unknown command: 'show'"));
        assert_eq!(processes("Version: 2.2.9\nNbproc: 4\n"), Some("4"));
        assert_eq!(processes("Version: 2.2.9\nNbproc: 1\n"), None);
        assert_eq!(processes("Version: 3.2\n"), None);
    }
}
