//! One HAProxy as hsdo's commands and its own checks move it: what traffic sees.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hsdo::ports::{Admin, Change, Command, Haproxy, Process, Reading, Running, Subject, TurnError, Verdict, number_of};
use hsdo::slot::{SlotId, Weight};

use crate::settings::{BASE, PORT};

/// `inter`, `rise` and `fall` of every server.
const INTER: Duration = Duration::from_secs(1);
const RISE: u32 = 2;
const FALL: u32 = 3;

struct Server {
    running: Running,
    /// When its checks will have passed, or failed, often enough.
    due: Option<Instant>,
}

impl Server {
    /// A fresh server of the template.
    fn new() -> Self {
        let running = Running {
            admin: Admin::Maintenance,
            inherited: false,
            up: false,
            address: Some(SocketAddr::from(([127, 0, 0, 2], PORT))),
            weight: 1,
            configured: 1,
            checked: true,
            checking: false,
        };
        Server { running, due: None }
    }

    fn apply(&mut self, change: Change) {
        let server = &mut self.running;
        match change {
            Change::Maintenance => (server.admin, server.up) = (Admin::Maintenance, false),
            Change::Ready => {
                // Traffic comes before the first check.
                server.up |= server.admin == Admin::Maintenance;
                server.admin = Admin::Ready;
            }
            Change::HealthDown => server.up &= server.admin == Admin::Maintenance,
            Change::Address(ip, port) => {
                let before = server.address.map_or(0, |address| address.port());
                server.address = Some(SocketAddr::new(ip, port.unwrap_or(before)));
            }
            Change::Weight(weight) => server.weight = weight,
            Change::ConfiguredWeight => server.weight = server.configured,
        }
    }

    /// Its checks begin to count for something else.
    fn plan_checks(&mut self, answering: &BTreeSet<IpAddr>, now: Instant) {
        let answers = self.running.address.is_some_and(|address| answering.contains(&address.ip()));
        let (checked, up) = (self.running.admin != Admin::Maintenance, self.running.up);
        let count = if up { FALL } else { RISE };
        self.due = if checked && answers != up { self.due.or(Some(now + INTER * count)) } else { None };
    }
}

pub(crate) struct SimHaproxy {
    backends: BTreeMap<String, Vec<Server>>,
    answering: BTreeSet<IpAddr>,
    reachable: bool,
    starts: u64,
    started: Instant,
    now: Instant,
    slots: SlotId,
    /// Counts whatever changed.
    version: u64,
}

impl SimHaproxy {
    pub(crate) fn new(backends: &[&str], slots: SlotId, now: Instant) -> Self {
        let backends = backends.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        let mut haproxy = SimHaproxy {
            backends,
            answering: BTreeSet::new(),
            reachable: true,
            starts: 0,
            started: now,
            now,
            slots,
            version: 0,
        };
        haproxy.restart(now);
        haproxy
    }

    /// Counts the checks up to now; true if one changed a server.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        self.now = now;
        let mut changed = false;
        for server in self.backends.values_mut().flatten().filter(|server| server.due.is_some_and(|due| due <= now)) {
            server.running.up = !server.running.up;
            server.due = None;
            server.plan_checks(&self.answering, now);
            changed = true;
        }
        self.version += u64::from(changed);
        changed
    }

    /// When the next check changes a server, as things stand.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        self.backends.values().flatten().filter_map(|server| server.due).min()
    }

    pub(crate) fn restart(&mut self, now: Instant) {
        (self.now, self.started) = (now, now);
        self.starts += 1;
        self.version += 1;
        let slots = self.slots;
        self.backends.values_mut().for_each(|servers| *servers = (0..slots).map(|_| Server::new()).collect());
    }

    pub(crate) fn set_reachable(&mut self, reachable: bool) {
        self.reachable = reachable;
    }

    /// Whether what listens at an address passes checks.
    pub(crate) fn set_answering(&mut self, address: IpAddr, answers: bool, now: Instant) {
        let changed = if answers { self.answering.insert(address) } else { self.answering.remove(&address) };
        if changed {
            self.now = now;
            for server in self.backends.values_mut().flatten() {
                if server.running.address.is_some_and(|it| it.ip() == address) {
                    server.plan_checks(&self.answering, now);
                }
            }
        }
    }

    /// An operator's command.
    pub(crate) fn set(&mut self, backend: &str, slot: SlotId, change: Change) {
        let servers = self.backends.get_mut(backend);
        if let Some(server) = servers.and_then(|servers| servers.get_mut(slot as usize - 1)) {
            server.apply(change);
            server.plan_checks(&self.answering, self.now);
            self.version += 1;
        }
    }

    /// What traffic reaches.
    pub(crate) fn serving(&self, backend: &str) -> Vec<(SlotId, SocketAddr, Weight)> {
        let servers = self.backends.get(backend).into_iter().flatten().zip(1..);
        let serving = servers.filter(|(server, _)| server.running.serves());
        serving.filter_map(|(server, id)| Some((id, server.running.address?, server.running.weight))).collect()
    }

    fn reading(&self, backends: &[&str], is_new: bool) -> Reading {
        let process = Process {
            pid: self.starts.to_string(),
            version: "2.8.25".to_owned(),
            started: Some(self.starts.to_string()),
            uptime: self.now.saturating_duration_since(self.started),
            asked: self.now,
            answered: self.now,
        };
        let servers = |name: &str| {
            let servers = self.backends[name].iter().zip(1..);
            servers.map(|(server, id)| (format!("{BASE}{id}"), server.running.clone())).collect()
        };
        let backends = backends.iter().map(|name| ((*name).to_owned(), Ok(servers(name)))).collect();
        Reading { process, is_new, backends }
    }
}

/// One client's talk with a HAProxy.
pub(crate) struct Talk {
    haproxy: Rc<RefCell<SimHaproxy>>,
    /// Which process answered last, and what it was like when it was last compared.
    met: Option<u64>,
    compared: Option<u64>,
}

impl Talk {
    pub(crate) fn new(haproxy: &Rc<RefCell<SimHaproxy>>) -> Self {
        Talk { haproxy: Rc::clone(haproxy), met: None, compared: None }
    }

    fn connect(&self) -> Result<(), TurnError> {
        if self.haproxy.borrow().reachable {
            return Ok(());
        }
        let refused = TurnError::new(Subject::Haproxy, "the socket refuses".to_owned());
        Err(TurnError { is_disconnected: true, ..refused })
    }
}

impl Haproxy for Talk {
    fn is_listening(&self) -> bool {
        self.haproxy.borrow().reachable
    }

    fn unchanged(&mut self, _: &[&str]) -> Result<bool, TurnError> {
        self.connect()?;
        let version = self.haproxy.borrow().version;
        Ok(self.compared.replace(version) == Some(version))
    }

    fn read(&mut self, backends: &[&str]) -> Result<Reading, TurnError> {
        self.connect()?;
        let haproxy = self.haproxy.borrow();
        let is_new = self.met.replace(haproxy.starts) != Some(haproxy.starts);
        Ok(haproxy.reading(backends, is_new))
    }

    fn send(&mut self, steps: &[Vec<Command>], tell: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError> {
        self.connect()?;
        self.compared = None;
        for command in steps.iter().flatten() {
            let id = number_of(command.server(), BASE).expect("hsdo changes only its own servers");
            self.haproxy.borrow_mut().set(command.backend(), id, command.change());
            tell(command, Verdict::Done);
        }
        Ok(())
    }
}
