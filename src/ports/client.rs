//! What the client role needs from its edges: the table to read, and the HAProxy to keep in step.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::TurnError;
use crate::balancer::BalancerReport;
use crate::marker::Marker;
use crate::slot::{Table, Weight};

/// The address of parked servers. `connect` to it fails at once, without network traffic (ip(7)): persistent requests get in between
/// the commands `state ready` and `health down`.
pub const PARKED: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// The table, as the client uses it.
pub trait TableReader {
    /// Reads the marker, which may be slightly stale, by the deadline `until`.
    ///
    /// # Errors
    /// The read failed.
    fn marker(&mut self, until: Instant) -> Result<Marker, TurnError>;
    /// Reads every row by the deadline `until`. An eventually consistent read (`consistent` false) costs half and may be stale.
    ///
    /// # Errors
    /// The read failed or is incomplete.
    fn read(&mut self, consistent: bool, until: Instant) -> Result<Table, TurnError>;
    /// The table that an earlier process kept, where there is one: returned once, and not after a successful read.
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
    /// Whether anything listens on its socket.
    fn is_listening(&self) -> bool;

    /// Whether these backends are unchanged since the last call. A steady turn calls this: HAProxy can be interrupted without harm.
    ///
    /// # Errors
    /// The exchange failed.
    fn unchanged(&mut self, backends: &[&str]) -> Result<bool, TurnError>;

    /// Reads these backends. One that is missing or unreadable does not affect the others.
    ///
    /// # Errors
    /// The exchange failed, or this HAProxy is unusable: its socket's level, several processes behind it.
    fn read(&mut self, backends: &[&str]) -> Result<Reading, TurnError>;

    /// The sessions that run on each server of these backends and the requests that wait for it, by backend and server. A backend that
    /// the last reading did not find is left out, and so is a server whose numbers cannot be read.
    ///
    /// # Errors
    /// The exchange failed.
    fn sessions(&mut self, backends: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, u64>>, TurnError>;

    /// Sends the commands of `steps` and passes each outcome to `on_verdict`. A step is never split between lines. If hsdo dies, 2.2 to
    /// 3.0 may drop the rest of a line, so a step must be safe to interrupt, and steps must not depend on each other.
    ///
    /// # Errors
    /// The first exchange that failed. The commands of its line may or may not have been executed; nothing further was sent.
    fn send(&mut self, steps: &[Vec<Command>], on_verdict: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError>;
}

/// Where a client leaves its reports for the leader.
pub trait Reports: Send + Sync {
    /// What is so at the end of a turn. Returns at once.
    fn report(&self, report: &BalancerReport);
    /// HAProxy is gone, and its sessions with it: there is nothing to report until the next report.
    fn silence(&self);
}

/// The HAProxy process that answered, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id. A reload changes it, and so does a restart, except in a container.
    pub pid: String,
    /// Its version.
    pub version: String,
    /// Its start time, in seconds since 1970 by its own clock; 2.2 does not report it.
    pub started: Option<String>,
    /// Its uptime, in whole seconds. 2.6 does not count time in which a signal stopped it.
    pub uptime: Duration,
    /// Just before it was asked.
    pub asked: Instant,
    /// Just after it answered.
    pub answered: Instant,
}

impl Process {
    /// How far the uptime may lag behind the elapsed time: it is reported in whole seconds.
    const SLACK: Duration = Duration::from_millis(1_250);

    /// Whether this is another process than `before`, which answered earlier. In a container a new process has the id of the last one,
    /// so start time or uptime decide. On 2.2 a restart within a second of the previous start goes unnoticed.
    pub fn differs_from(&self, before: &Process) -> bool {
        let between = self.asked.saturating_duration_since(before.answered);
        // Allow for 1% of clock drift.
        let least = (before.uptime + between).saturating_sub(Self::SLACK + between / 100);
        let anew = match (&self.started, &before.started) {
            (Some(started), Some(before)) => started != before,
            _ => self.uptime < least,
        };
        self.pid != before.pid || self.version != before.version || anew
    }
}

/// One complete reading of HAProxy.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The process that answered.
    pub process: Process,
    /// Whether it is the first process, or another one than in the last reading.
    pub is_new: bool,
    /// The servers of each requested backend, or why there are none to show.
    pub backends: BTreeMap<String, Result<Servers, BackendFault>>,
}

/// The servers of one backend, by name.
pub type Servers = BTreeMap<String, Running>;

/// A server's administrative state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// In rotation, if it is healthy.
    Ready,
    /// Set to `drain` by an operator or an agent: hsdo drains by weight 0.
    Drain,
    /// In maintenance.
    Maintenance,
}

/// A server as HAProxy runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its own administrative state.
    pub admin: Admin,
    /// Kept out by something that `state ready` does not lift: a tracked server, a name that does not resolve.
    pub inherited: bool,
    /// Whether its health lets it take new traffic; meaningless in maintenance.
    pub up: bool,
    /// Its address; `None` if HAProxy shows none (an unresolved name).
    pub address: Option<SocketAddr>,
    /// The weight that was set, without the effect of a slow start.
    pub weight: Weight,
    /// The weight in haproxy.cfg.
    pub configured: Weight,
    /// Whether it has its own check, so that `health down` lasts until that passes.
    pub checked: bool,
    /// Whether a health or agent check is in flight. Its result will count for whatever address the server has by then.
    pub checking: bool,
    /// Parked, with requests under way to the server that was there before, in a HAProxy that would go on using their connections
    /// after they end.
    pub busy: bool,
    /// HAProxy's resolver sets its address, so hsdo must not.
    pub named: bool,
}

impl Running {
    /// Whether it takes traffic.
    pub fn serves(&self) -> bool {
        self.admin == Admin::Ready && !self.inherited && self.up && self.weight > 0
    }
}

/// Why one backend cannot be kept in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendFault {
    /// HAProxy has no backend of that name, only these.
    Missing(Vec<String>),
    /// It is `disabled`.
    Disabled,
    /// HAProxy's resolver sets the address of this server and of all other slots, and hsdo would too.
    Resolved(String),
    /// HAProxy's reply cannot be parsed.
    Unreadable(String),
    /// No server's name is `base` and a number.
    NoServers {
        /// The configured base name.
        base: String,
        /// The base names that the backend has.
        found: Vec<String>,
    },
    /// Its servers' numbers have leading zeros, as in this name.
    Padded(String),
}

/// How many names a message lists, and how many characters of each.
const LISTED: usize = 20;
const SHOWN: usize = 60;

impl fmt::Display for BackendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::text::one_line;
        match self {
            BackendFault::Missing(known) => {
                f.write_str("HAProxy has no such backend; ")?;
                list(f, "it has", known, "correct the name in CLIENT_HAPROXY_BACKEND_LIST or haproxy.cfg")
            }
            BackendFault::Disabled => {
                f.write_str("it is `disabled` in haproxy.cfg; enable it, or remove it from CLIENT_HAPROXY_BACKEND_LIST")
            }
            BackendFault::Resolved(server) => write!(
                f,
                "{} has a host name whose address HAProxy's resolver sets, and hsdo would set it too; give the `server-template` a literal \
                 address such as 127.0.0.2:80 as its placeholder",
                one_line(server, SHOWN)
            ),
            BackendFault::Unreadable(fault) => write!(f, "HAProxy's answer about it is unusable: {fault}"),
            BackendFault::NoServers { base, found } => {
                write!(f, "it has no server {base}<number>; ")?;
                list(f, "its base names are", found, "add `server-template` to it or correct baseName")
            }
            BackendFault::Padded(server) => write!(
                f,
                "its servers have numbers with leading zeros, such as {}, which `server-template` never makes; use a `server-template`",
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
    /// Out of maintenance and drain: checks run, and it takes traffic by its weight.
    Ready,
    /// Down until its own check has passed `rise` times.
    HealthDown,
    /// A new address, and a new port if given; otherwise a mapped or relative port stays as it is.
    Address(IpAddr, Option<u16>),
    /// A weight, 0 to 256.
    Weight(Weight),
    /// The weight in haproxy.cfg: the only one above 0 that a static algorithm accepts.
    ConfiguredWeight,
}

/// A change of the server `backend/server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    backend: String,
    server: String,
    change: Change,
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// HAProxy executed it.
    Done,
    /// HAProxy refused a weight, because the backend's algorithm is static.
    StaticWeight,
    /// HAProxy refused, with this reply.
    Refused(String),
}

/// Whether `name` is valid for a HAProxy backend or server: letters, digits, `-`, `_`, `.` and `:`
/// (HAProxy configuration manual, section 2.3).
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

impl Command {
    /// `None` if `backend` or `server` is not a valid name.
    pub fn new(backend: &str, server: &str, change: Change) -> Option<Self> {
        (is_name(backend) && is_name(server)).then(|| Command {
            backend: backend.to_owned(),
            server: server.to_owned(),
            change,
        })
    }

    /// What to change.
    pub fn change(&self) -> Change {
        self.change
    }

    /// The backend of the server.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The server to change.
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// The command as sent (management manual, section 9.3, `set server`).
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

/// The number of server `name` in a `server-template` with that base name: 12 for `web12` and `web`. HAProxy does not pad numbers, so
/// `web012` is not from a template.
pub fn number_of(name: &str, base: &str) -> Option<u32> {
    let digits = name.strip_prefix(base)?;
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// A guess at the base name of a server, for a message: its name without trailing digits.
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
            assert_eq!(now.differs_from(&before), other, "{name}");
        }
        // It hung for 4 seconds before it said 104.
        let slow = process("8", 0, 4_000, 104);
        assert!(!process("8", 4_100, 4_100, 104).differs_from(&slow));
        assert!(!process("8", 4_100, 9_000, 105).differs_from(&slow));
        assert!(!process("8", 1_000, 1_000, 0).differs_from(&process("8", 0, 0, 0)), "too young to tell");
        let started = |process, at: &str| Process { started: Some(at.to_owned()), ..process };
        let before = started(before, "1700");
        assert!(!started(process("8", 9_000, 9_000, 100), "1700").differs_from(&before), "it was stopped meanwhile");
        assert!(started(process("8", 1_000, 1_000, 101), "1701").differs_from(&before), "it says when it was started");
    }

    #[test]
    fn a_backend_fault_is_short_and_names_the_remedy() {
        let many: Vec<String> = (0..30).map(|n| format!("backend-{n}")).collect();
        let text = BackendFault::Missing(many).to_string();
        assert!(text.contains("backend-19 and 10 more; correct the name"), "{text}");
        assert_eq!(
            BackendFault::Missing(Vec::new()).to_string(),
            "HAProxy has no such backend; correct the name in CLIENT_HAPROXY_BACKEND_LIST or haproxy.cfg"
        );
        let text = BackendFault::NoServers { base: "web".to_owned(), found: vec!["api".to_owned()] }.to_string();
        assert!(text.contains("no server web<number>; its base names are api; add `server-template`"), "{text}");
    }
}
