//! What is known of one HAProxy process; dropped when another one answers. Pure.

use std::collections::BTreeMap;

use super::error::HaproxyError;
use super::socket::MAX_LINE;
use super::state::info_value;
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

    /// Whether a few dumps that are not read to the end crash it: 3.2 yes, before 3.1 no (facts.md).
    pub(super) fn crashes_on_aborted_dumps(&self) -> bool {
        version(&self.process.version) >= (3, 1)
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

/// Whether this version keeps a connection that was in use when the server's address changed, and sends later requests over it to the
/// old address: with `http-reuse safe`, its default, for as long as requests come (measured on 2.6.12). Fixed as "backend: fix reuse
/// with set-dst/set-dst-port" in 2.6.22, 2.8.15, 3.0.10, 3.1.7 and 3.2, and not at all in the others.
pub fn keeps_old_connections(text: &str) -> bool {
    let fixed = match version(text) {
        (2, 6) => 22,
        (2, 8) => 15,
        (3, 0) => 10,
        (3, 1) => 7,
        (2, _) => return true,
        _ => return false,
    };
    patch(text) < fixed
}

/// Whether this version hangs on a line that exceeds its buffer: 2.2 yes, 2.6 no (measured).
fn hangs_on_long_lines(text: &str) -> bool {
    version(text) < (2, 6)
}

/// Major and minor version; anything unreadable counts as recent.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(u32::MAX));
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(u32::MAX))
}

/// The third number of a version such as `2.6.12-1+deb12u4`; anything unreadable, such as a development version, counts as recent.
fn patch(text: &str) -> u32 {
    let digits =
        text.splitn(3, '.').nth(2).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
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
    fn some_versions_keep_connections_to_an_address_of_before() {
        for (version, keeps) in [
            ("2.2.9-2+deb11u7", true),
            ("2.4.29", true),
            ("2.6.12-1+deb12u4", true),
            ("2.6.22", false),
            ("2.8.5-1ubuntu3", true),
            ("2.8.15", false),
            ("2.9.15", true),
            ("3.0.9", true),
            ("3.0.11-1+deb13u2", false),
            ("3.1.6", true),
            ("3.1.7", false),
            ("3.2.0", false),
            ("3.2-dev9", false),
            ("x", false),
        ] {
            assert_eq!(keeps_old_connections(version), keeps, "{version}");
        }
    }

    #[test]
    fn only_recent_versions_crash_on_aborted_dumps() {
        for (version, crashes) in [
            ("2.2.9-2+deb11u7", false),
            ("2.10.1", false),
            ("3.0.11", false),
            ("3.2.26-1", true),
            ("3.4-dev1", true),
            ("x", true),
        ] {
            assert_eq!(known(version).crashes_on_aborted_dumps(), crashes, "{version}");
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
