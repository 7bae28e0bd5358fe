//! What the client role needs of its edges: the table that it reads, and the HAProxy that it keeps in step.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::TurnError;
use crate::marker::Marker;
use crate::slot::{Table, Weight};

/// The table, as the client uses it.
pub trait TableReader {
    /// The marker, which may be a little old; until `until` at the latest.
    ///
    /// # Errors
    /// The reading failed.
    fn marker(&mut self, until: Instant) -> Result<Marker, TurnError>;
    /// Every row; until `until` at the latest. An eventually consistent reading (`consistent` false) costs half and may
    /// be a little old.
    ///
    /// # Errors
    /// The reading failed or is not whole.
    fn read(&mut self, consistent: bool, until: Instant) -> Result<Table, TurnError>;
    /// The table that an earlier process kept, where there is one: given away once, and not after a successful read.
    fn kept(&mut self) -> Option<Kept> {
        None
    }
}

/// A table that an earlier process read and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The table.
    pub table: Table,
    /// How long ago it was read.
    pub age: Duration,
}

/// One HAProxy, as the client uses it.
pub trait Haproxy {
    /// Whether somebody listens on its socket.
    fn answers(&self) -> bool;

    /// Whether all that counts of these backends is as it was when this was asked last. HAProxy may be stopped in the middle
    /// of it without harm, so it is what a steady turn asks.
    ///
    /// # Errors
    /// The talk failed.
    fn is_as_it_was(&mut self, backends: &[&str]) -> Result<bool, TurnError>;

    /// What these backends run. Each stands for itself: one that is not there or cannot be read costs the others nothing.
    ///
    /// # Errors
    /// The talk failed, or this HAProxy cannot be used at all: its socket's level, several processes behind it.
    fn read(&mut self, backends: &[&str]) -> Result<Reading, TurnError>;

    /// Sends the commands of `steps`, no step cut in two, and gives `tell` what HAProxy made of each. HAProxy does a line to
    /// its end as long as its sender is there; of a line whose sender is gone 2.2 to 3.0 may drop what is left, so every step
    /// must bear to be cut, and the steps must not lean on each other.
    ///
    /// # Errors
    /// A talk failed, the first one is named: the commands of its line may or may not have been done, and nothing further
    /// was sent.
    fn send(&mut self, steps: &[Vec<Command>], tell: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError>;
}

/// Which HAProxy process answered, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id, which changes with a reload, and with a restart unless it runs in a container.
    pub pid: String,
    /// Its version.
    pub version: String,
    /// When it was started, seconds since 1970 by its own clock; none on 2.2, which does not tell.
    pub started: Option<String>,
    /// How long it had run: whole seconds. 2.6 does not count the time that it was stopped by a signal.
    pub uptime: Duration,
    /// It said so after this.
    pub asked: Instant,
    /// It said so before this.
    pub answered: Instant,
}

impl Process {
    /// How much less than the time that passed the time that it had run may have grown: it is told in whole seconds.
    const SLACK: Duration = Duration::from_millis(1_250);

    /// Whether this is another process than `before`, which answered earlier. The id alone does not tell: in a container
    /// a new process has the id of the last one. One that was started anew within a second of its start is not seen.
    pub fn is_other_than(&self, before: &Process) -> bool {
        let between = self.asked.saturating_duration_since(before.answered);
        // The clocks of two processes may drift by a hundredth.
        let least = (before.uptime + between).saturating_sub(Self::SLACK + between / 100);
        let anew = match (&self.started, &before.started) {
            (Some(started), Some(before)) => started != before,
            _ => self.uptime < least,
        };
        self.pid != before.pid || self.version != before.version || anew
    }
}

/// What HAProxy runs.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who answered.
    pub process: Process,
    /// Whether that is another process than the one of the reading before, or the first.
    pub is_new: bool,
    /// The servers of each backend that was asked for, or why they cannot be told.
    pub backends: BTreeMap<String, Result<Servers, BackendFault>>,
}

/// The servers of one backend, by name.
pub type Servers = BTreeMap<String, Running>;

/// What HAProxy, or somebody by its hand, decided about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// In rotation, if it is healthy.
    Ready,
    /// Set to `drain`. hsdo never does that (it drains by weight 0), so this is an operator's or an agent's hand.
    Drain,
    /// In maintenance.
    Maintenance,
}

/// A server as HAProxy runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its own administrative state.
    pub admin: Admin,
    /// Kept out by something that `state ready` does not lift: a server that it tracks, a name that does not resolve.
    pub inherited: bool,
    /// Whether its checks, or their absence, let it take new traffic; of no meaning in maintenance.
    pub up: bool,
    /// Where its traffic goes; `None` where HAProxy shows no address (an unresolved name).
    pub address: Option<SocketAddr>,
    /// The weight that was set, whatever a slow start makes of it.
    pub weight: Weight,
    /// The weight of its configuration.
    pub configured: Weight,
    /// Whether it has a check of its own, so that `health down` holds until that passes.
    pub checked: bool,
    /// Whether a check, or a question to its agent, is under way now. Its result counts for whichever server stands here when it comes.
    pub checking: bool,
}

impl Running {
    /// Whether it takes traffic.
    pub fn serves(&self) -> bool {
        self.admin == Admin::Ready && !self.inherited && self.up && self.weight > 0
    }
}

/// Why one backend cannot be kept in step, whatever becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendFault {
    /// HAProxy has no backend of that name; these it has.
    Missing(Vec<String>),
    /// It is `disabled`.
    Disabled,
    /// Two masters: HAProxy's resolver sets the address of this server.
    Resolved(String),
    /// HAProxy's answer cannot be read.
    Unreadable(String),
    /// No server is `base` and a number; these base names there are.
    NoServers {
        /// The configured base name.
        base: String,
        /// The base names that the backend has.
        known: Vec<String>,
    },
    /// Its servers have numbers with leading zeros, like this one.
    Padded(String),
}

/// How many names a message lists, and how much of each it shows.
const LISTED: usize = 20;
const SHOWN: usize = 60;

impl fmt::Display for BackendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::text::one_line;
        match self {
            BackendFault::Missing(known) => {
                f.write_str("HAProxy has no such backend; ")?;
                list(f, "it has", known, "mend the name in CLIENT_HAPROXY_BACKEND_LIST or haproxy.cfg")
            }
            BackendFault::Disabled => {
                f.write_str("it is `disabled` in haproxy.cfg; enable it, or take it out of hsdo's list")
            }
            BackendFault::Resolved(server) => write!(
                f,
                "{} has a name, whose address a resolver of HAProxy sets, and so would hsdo; give the `server-template` a literal \
                 address such as 127.0.0.2:80 as its placeholder",
                one_line(server, SHOWN)
            ),
            BackendFault::Unreadable(fault) => write!(f, "HAProxy's answer about it cannot be used: {fault}"),
            BackendFault::NoServers { base, known } => {
                write!(f, "it has no server {base}<number>; ")?;
                list(f, "its base names are", known, "add `server-template` to it or mend baseName")
            }
            BackendFault::Padded(server) => write!(
                f,
                "its servers have numbers with leading zeros, as {}, which no `server-template` makes; use one",
                one_line(server, SHOWN)
            ),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, label: &str, known: &[String], remedy: &str) -> fmt::Result {
    let shown: Vec<String> = known.iter().take(LISTED).map(|name| crate::text::one_line(name, SHOWN)).collect();
    match known.len().saturating_sub(LISTED) {
        0 if known.is_empty() => {}
        0 => write!(f, "{label} {}; ", shown.join(", "))?,
        more => write!(f, "{label} {} and {more} more; ", shown.join(", "))?,
    }
    f.write_str(remedy)
}

/// A change of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Into maintenance: no traffic, no checks.
    Maintenance,
    /// Out of maintenance and drain: checks run, and traffic comes at its weight.
    Ready,
    /// Down until its own check has passed as often as `rise` asks.
    HealthDown,
    /// Another address, and another port, where one is given: without it a mapped or relative port stays what it is.
    Address(IpAddr, Option<u16>),
    /// A weight, 0 to 256.
    Weight(Weight),
    /// The weight of the configuration file: the only one above 0 that a static algorithm accepts.
    ConfiguredWeight,
}

/// A change of the server `backend/server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    backend: String,
    server: String,
    change: Change,
}

/// What HAProxy made of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did it.
    Done,
    /// It refused a weight, because the backend's algorithm is static.
    StaticWeight,
    /// It refused, with these words.
    Refused(String),
}

/// Whether `name` may be the name of a HAProxy backend or server: letters, digits, `-`, `_`, `.` and `:`
/// (HAProxy configuration manual, section 2.3).
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

impl Command {
    /// A change of `backend/server`; `None` if one of the two is no name that HAProxy can have.
    pub fn new(backend: &str, server: &str, change: Change) -> Option<Self> {
        (is_name(backend) && is_name(server)).then(|| Command {
            backend: backend.to_owned(),
            server: server.to_owned(),
            change,
        })
    }

    /// The change.
    pub fn change(&self) -> Change {
        self.change
    }

    /// The backend whose server it changes.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The server that it changes.
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// The command as HAProxy reads it (management manual, section 9.3, `set server`).
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { backend, server, change } = self;
        write!(f, "set server {backend}/{server} ")?;
        match change {
            Change::Maintenance => f.write_str("state maint"),
            Change::Ready => f.write_str("state ready"),
            Change::HealthDown => f.write_str("health down"),
            Change::Address(address, Some(port)) => write!(f, "addr {address} port {port}"),
            Change::Address(address, None) => write!(f, "addr {address}"),
            Change::Weight(weight) => write!(f, "weight {weight}"),
            Change::ConfiguredWeight => f.write_str("weight 100%"),
        }
    }
}

/// The number of the server `name` of a `server-template` with that base name: `web12` of `web` is 12.
/// HAProxy numbers them without leading zeros, so `web012` is a server of somebody else.
pub fn number_of(name: &str, base: &str) -> Option<u32> {
    let digits = name.strip_prefix(base)?;
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// What the base name of a server may be, for a message: its name without the digits at its end.
pub fn likely_base(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(change: Change) -> Command {
        Command::new("http-back", "web3", change).unwrap()
    }

    #[test]
    fn spelling() {
        let v4 = "10.0.0.1".parse().unwrap();
        let v6 = "2001:db8::1".parse().unwrap();
        for (change, text) in [
            (Change::Maintenance, "set server http-back/web3 state maint"),
            (Change::Ready, "set server http-back/web3 state ready"),
            (Change::HealthDown, "set server http-back/web3 health down"),
            (Change::Address(v4, Some(80)), "set server http-back/web3 addr 10.0.0.1 port 80"),
            (Change::Address(v4, None), "set server http-back/web3 addr 10.0.0.1"),
            (Change::Address(v6, Some(8080)), "set server http-back/web3 addr 2001:db8::1 port 8080"),
            (Change::Weight(256), "set server http-back/web3 weight 256"),
            (Change::ConfiguredWeight, "set server http-back/web3 weight 100%"),
        ] {
            assert_eq!(command(change).to_string(), text);
        }
    }

    #[test]
    fn a_name_cannot_carry_a_second_command() {
        for bad in ["", "a b", "a;b", "a\nb", "a\rb", "a/b", "a\\b", "a#b", "é"] {
            assert_eq!(Command::new(bad, "web1", Change::Ready), None, "{bad:?}");
            assert_eq!(Command::new("back", bad, Change::Ready), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_of_templates() {
        for (name, base, number) in [
            ("web12", "web", Some(12)),
            ("web1", "web", Some(1)),
            ("web012", "web", None),
            ("web0", "web", None),
            ("web", "web", None),
            ("web1a", "web", None),
            ("web+1", "web", None),
            ("api1", "web", None),
            ("web99999999999", "web", None),
            ("web2", "web2", None),
            ("web23", "web2", Some(3)),
        ] {
            assert_eq!(number_of(name, base), number, "{name} {base}");
        }
    }

    #[test]
    fn another_process_may_have_the_same_id() {
        let start = Instant::now() + Duration::from_secs(60);
        // When it was asked and had answered, milliseconds after the start, and the seconds it said to have run.
        let process = |pid: &str, asked: u64, answered: u64, uptime: u64| Process {
            pid: pid.to_owned(),
            version: "3.0".to_owned(),
            started: None,
            uptime: Duration::from_secs(uptime),
            asked: start + Duration::from_millis(asked),
            answered: start + Duration::from_millis(answered),
        };
        let before = process("8", 0, 0, 100);
        for (name, now, other) in [
            ("a second later", process("8", 1_000, 1_000, 101), false),
            ("a second that it does not show yet", process("8", 1_000, 1_000, 100), false),
            ("hours later, by a slow clock", process("8", 36_000_000, 36_000_000, 35_900), false),
            ("started anew", process("8", 1_000, 1_000, 0), true),
            ("started anew, long ago", process("8", 36_000_000, 36_000_000, 34_000), true),
            ("another id", process("9", 1_000, 1_000, 101), true),
        ] {
            assert_eq!(now.is_other_than(&before), other, "{name}");
        }
        // It hung for 4 seconds before it said 104.
        let slow = process("8", 0, 4_000, 104);
        assert!(!process("8", 4_100, 4_100, 104).is_other_than(&slow));
        assert!(!process("8", 4_100, 9_000, 105).is_other_than(&slow));
        assert!(!process("8", 1_000, 1_000, 0).is_other_than(&process("8", 0, 0, 0)), "too young to tell");
        let started = |process, at: &str| Process { started: Some(at.to_owned()), ..process };
        let before = started(before, "1700");
        assert!(!started(process("8", 9_000, 9_000, 100), "1700").is_other_than(&before), "it was stopped meanwhile");
        assert!(started(process("8", 1_000, 1_000, 101), "1701").is_other_than(&before), "it says when it was started");
    }

    #[test]
    fn a_fault_of_a_backend_names_the_remedy_and_is_short() {
        let many: Vec<String> = (0..30).map(|n| format!("backend-{n}")).collect();
        let text = BackendFault::Missing(many).to_string();
        assert!(text.contains("backend-19 and 10 more; mend the name"), "{text}");
        assert_eq!(
            BackendFault::Missing(Vec::new()).to_string(),
            "HAProxy has no such backend; mend the name in CLIENT_HAPROXY_BACKEND_LIST or haproxy.cfg"
        );
        let text = BackendFault::NoServers { base: "web".to_owned(), known: vec!["api".to_owned()] }.to_string();
        assert!(text.contains("no server web<number>; its base names are api; add `server-template`"), "{text}");
    }
}
