//! One process of HAProxy: its servers, and its own time, which stands still while it is stopped by a signal.

use std::net::SocketAddr;
use std::rc::Rc;

use hsdo::ports::{Running, Servers};
use hsdo::slot::Weight;

use super::config::{BackendConfig, Fleet};
use super::server::{Order, Refusal, Server, Shown};
use super::version::Version;

/// A backend's configuration, and what is derived from it once.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) config: BackendConfig,
    pub(super) names: Vec<String>,
    /// The servers in the order of their names.
    sorted: Vec<usize>,
}

impl Frame {
    pub(super) fn new(config: BackendConfig) -> Self {
        let names: Vec<String> = (1..=config.slots).map(|slot| format!("{}{slot}", config.base)).collect();
        let mut sorted: Vec<usize> = (0..names.len()).collect();
        sorted.sort_unstable_by(|left, right| names[*left].cmp(&names[*right]));
        Frame { config, names, sorted }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) frame: Rc<Frame>,
    pub(super) servers: Vec<Server>,
    /// Grows with each change of what `show stat` shows.
    pub(super) version: u64,
}

impl Backend {
    fn change<T>(&mut self, server: usize, change: impl FnOnce(&mut Server, &BackendConfig) -> T) -> T {
        let server = &mut self.servers[server];
        let before = server.shown();
        let result = change(server, &self.frame.config);
        self.version += u64::from(server.shown() != before);
        result
    }

    /// The place of the server with that name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let digits = name.strip_prefix(self.frame.config.base.as_str())?;
        let place = digits.parse::<usize>().ok()?.checked_sub(1)?;
        (self.frame.names.get(place)? == name).then_some(place)
    }

    pub(super) fn read(&self, now: u64) -> Servers {
        let Frame { config, names, sorted } = &*self.frame;
        let row =
            |place: &usize| -> (String, Running) { (names[*place].clone(), self.servers[*place].running(now, config)) };
        sorted.iter().map(row).collect()
    }

    /// The slots that `is_meant`, each with its address and weight.
    pub(super) fn slots(&self, is_meant: impl Fn(&Server) -> bool) -> Vec<(u32, SocketAddr, Weight)> {
        let mut slots = Vec::with_capacity(self.servers.len());
        let meant = (1..).zip(&self.servers).filter(|(_, server)| is_meant(server));
        slots.extend(meant.map(|(slot, server)| (slot, server.address(), server.weight())));
        slots
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = Shown> + '_ {
        self.servers.iter().map(Server::shown)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) pid: u32,
    pub(super) version: &'static Version,
    /// When it was started, by the clock that never stands still.
    pub(super) started: u64,
    /// For how long it was stopped by signals, in all.
    pub(super) stopped: u64,
    pub(super) backends: Vec<Backend>,
    /// Up to when its checks were worked out, by its own time.
    now: u64,
    /// When something happens by itself next, by its own time.
    due: u64,
    fleet: Option<u64>,
}

impl Worker {
    pub(super) fn new(pid: u32, version: &'static Version, frames: &[Rc<Frame>], now: u64) -> Self {
        // First checks are spread over the longest interval of the whole configuration.
        let checks = || frames.iter().filter_map(|frame| Some((frame, frame.config.check?)));
        let spread = checks().map(|(_, check)| check.inter.as_nanos() as u64).max().unwrap_or(0);
        let count = checks().map(|(frame, _)| u64::from(frame.config.slots)).sum::<u64>().max(1);
        let mut place = 0;
        let mut backend = |frame: &Rc<Frame>| {
            let mut server = |number| {
                let first = now + spread / count * place;
                place += u64::from(frame.config.check.is_some());
                Server::new(&frame.config, version, number, first)
            };
            Backend { frame: Rc::clone(frame), servers: (0..frame.config.slots).map(&mut server).collect(), version: 0 }
        };
        let backends = frames.iter().map(&mut backend).collect();
        Worker { pid, version, started: now, stopped: 0, backends, now, due: 0, fleet: None }
    }

    /// Lets everything up to `now` happen.
    pub(super) fn advance(&mut self, now: u64, fleet: &dyn Fleet) {
        let now = now - self.stopped;
        let version = fleet.version();
        if now < self.due && version == self.fleet {
            self.now = now;
            return;
        }
        let (before, is_steady) = (self.now, version.is_some());
        let is_other = std::mem::replace(&mut self.fleet, version) != version;
        self.due = u64::MAX;
        for backend in &mut self.backends {
            for place in 0..backend.servers.len() {
                let server = &mut backend.servers[place];
                if is_other {
                    server.checks.stir(before);
                }
                if server.due() <= now {
                    backend.change(place, |server, _| {
                        server.advance(now, is_steady, |address| fleet.is_healthy(address));
                    });
                }
                self.due = self.due.min(backend.servers[place].due());
            }
        }
        self.now = now;
    }

    /// Does what is ordered, once it was advanced to this moment; an address takes `lag` to hold.
    pub(super) fn obey(&mut self, backend: usize, server: usize, order: Order, lag: u64) -> Result<(), Refusal> {
        let (now, version) = (self.now, self.version);
        let backend = &mut self.backends[backend];
        let done = backend.change(server, |server, config| server.obey(order, now, now + lag, config, version));
        self.due = self.due.min(backend.servers[server].due());
        done
    }

    pub(super) fn backend(&self, name: &str) -> Option<usize> {
        self.backends.iter().position(|backend| backend.frame.config.name == name)
    }

    /// When something happens by itself next, by the clock that never stands still.
    pub(super) fn due(&self) -> Option<u64> {
        (self.due < u64::MAX).then(|| self.due + self.stopped)
    }

    /// Its own time.
    pub(super) fn now(&self) -> u64 {
        self.now
    }
}
