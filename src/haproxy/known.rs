//! What is known of one HAProxy process, and dropped when another one answers. Pure.

use std::collections::BTreeMap;

use super::error::Error;
use super::socket::MAX_LINE;
use super::state::info_value;
use crate::ports::Process;

/// No line of a single command is longer.
const SHORTEST: usize = 1024;

/// How its socket wants to be spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// It is the master's: commands go to the current worker, and the connection stays open.
    pub(super) master: bool,
    /// It puts a severity before each message (`severity-output`).
    pub(super) severity: bool,
}

impl Dialect {
    /// What stands before a line of commands.
    fn prefix(self) -> &'static str {
        match self {
            Dialect { master: true, .. } => "@1;",
            Dialect { severity: true, .. } => "set severity-output none;",
            Dialect { .. } => "",
        }
    }

    /// The line as it is sent.
    pub(super) fn line(self, commands: &str) -> String {
        format!("{}{commands}", self.prefix())
    }

    /// How many replies come before those to the commands.
    pub(super) fn extra_replies(self) -> usize {
        usize::from(self.severity && !self.master)
    }
}

/// One process.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) process: Process,
    pub(super) dialect: Dialect,
    /// The longest line that it takes, as far as it is known, with its line end.
    longest: usize,
    /// The number of each backend: asked for by name, `show stat` finds a frontend of that name first.
    pub(super) numbers: BTreeMap<String, String>,
    /// Whether a reading has told of it.
    pub(super) told: bool,
    /// Whether its `show stat` tells all that counts: that of 2.2 lacks the weight.
    pub(super) stat_tells: bool,
    /// Whether it has a resolver; none as long as it was not asked.
    pub(super) resolver: Option<bool>,
}

impl Known {
    /// A process that was met now.
    pub(super) fn new(process: Process, dialect: Dialect) -> Self {
        Known {
            process,
            dialect,
            longest: MAX_LINE,
            numbers: BTreeMap::new(),
            told: false,
            stat_tells: true,
            resolver: None,
        }
    }

    /// The same process, met again now.
    pub(super) fn again(&self, process: Process, dialect: Dialect) -> Option<Self> {
        (!process.is_other_than(&self.process)).then(|| Known { process, dialect, ..self.clone() })
    }

    /// The same, that wants to be spoken to so.
    pub(super) fn speaking(self, dialect: Dialect) -> Self {
        Known { dialect, ..self }
    }

    /// Whether it dies of a few dumps that nobody hears to their end: 3.2 does, those before 3.1 do not (facts.md).
    pub(super) fn dies_of_cut_dumps(&self) -> bool {
        version(&self.process.version) >= (3, 1)
    }

    /// How long the commands of a line may be together, with the line end.
    pub(super) fn room(&self) -> usize {
        self.longest - self.dialect.prefix().len()
    }

    /// Takes in that a line failed so; true where a shorter one is worth another try at once. A version that hangs on a line
    /// that is too long, as 2.2 does, may also have been stopped: the shorter line is for the next turn.
    pub(super) fn learn(&mut self, error: &Error) -> bool {
        let (length, at_once) = match error {
            Error::LongLine { length } => (*length, true),
            Error::Talk { length, .. } if error.is_silence() && hangs_on_long_lines(&self.process.version) => {
                (*length, false)
            }
            _ => return false,
        };
        if length <= SHORTEST {
            return false;
        }
        let longest = self.longest.min((length / 2).max(SHORTEST));
        std::mem::replace(&mut self.longest, longest) > longest && at_once
    }
}

/// Whether this version hangs on a line that is longer than its buffer: 2.2 does, 2.6 does not (measured).
fn hangs_on_long_lines(text: &str) -> bool {
    version(text) < (2, 6)
}

/// The first two numbers of a version; what cannot be read counts as a late one.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(u32::MAX));
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(u32::MAX))
}

/// Whether the reply to `show proc` is the master's. A worker does not know the command.
pub(super) fn is_master(show_proc: &str) -> bool {
    show_proc.starts_with("#<PID>")
}

/// The level in the reply to `show cli level`, and whether a severity stood before it: `[6]: admin`, `[info]: admin`.
pub(super) fn level(reply: &str) -> (&str, bool) {
    let reply = reply.trim();
    match reply.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        Some((_, level)) => (level.trim(), true),
        None => (reply, false),
    }
}

/// How many processes stand behind the socket, where they are several, in the reply to `show info`.
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
    fn a_line_that_was_too_long_halves_what_follows() {
        let long = |length| Error::LongLine { length };
        let silent = |length| Error::Talk { asked: String::new(), length, source: io::ErrorKind::TimedOut.into() };
        for (version, error, room, at_once) in [
            ("3.2.1", long(8_000), 4_000, true),
            ("3.2.1", long(1_500), 1_024, true),
            ("3.2.1", long(800), 8_192, false),
            ("3.2.1", silent(8_000), 8_192, false),
            ("2.2.9", silent(8_000), 4_000, false),
            ("2.2.9", silent(10), 8_192, false),
            ("2.6.12", silent(8_000), 8_192, false),
            ("2.10.1", silent(8_000), 8_192, false),
        ] {
            let mut known = known(version);
            assert_eq!((known.learn(&error), known.room()), (at_once, room), "{version} {error}");
        }
    }

    #[test]
    fn only_late_versions_are_asked_whether_they_answer_before_a_dump() {
        for (version, dies) in [
            ("2.2.9-2+deb11u7", false),
            ("2.10.1", false),
            ("3.0.11", false),
            ("3.2.26-1", true),
            ("3.4-dev1", true),
            ("x", true),
        ] {
            assert_eq!(known(version).dies_of_cut_dumps(), dies, "{version}");
        }
    }

    #[test]
    fn how_a_socket_wants_to_be_spoken_to() {
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
