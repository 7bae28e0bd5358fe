//! A model of one HAProxy on a virtual clock: what its servers are configured to be, what commands and checks make of them, and
//! what traffic sees. A differential test (`tests/simulation_haproxy`) holds it to the real one.
//!
//! [`SimHaproxy`] is the thing itself, for those who break it, ask it or work by hand; a [`Session`] of it is what a client
//! gets as its edge.
#![allow(dead_code, reason = "the simulator and the differential test each use the part that they need")]

mod checks;
mod config;
mod host;
mod operator;
mod server;
mod session;
mod show;
mod version;
mod worker;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hsdo::slot::Weight;

pub(crate) use config::{BackendConfig, Check, Fleet};
pub(crate) use session::Session;
pub(crate) use show::Row;
pub(crate) use version::Version;

use host::Host;
use server::Server;
use worker::{Frame, Worker};

/// What becomes of a connection to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketState {
    Open,
    /// It is refused.
    Refuses,
    /// Others use up `stats maxconn`: what is sent is read once the socket is open again, after its sender gave up.
    Silent,
}

/// One HAProxy; what is cloned is the handle.
#[derive(Clone)]
pub(crate) struct SimHaproxy(Rc<RefCell<Host>>);

impl SimHaproxy {
    /// Starts one with these backends at `now`; its checks ask `fleet`.
    pub(crate) fn new(
        version: &'static Version,
        backends: Vec<BackendConfig>,
        fleet: impl Fleet + 'static,
        now: Instant,
    ) -> Self {
        let frames: Vec<Rc<Frame>> = backends.into_iter().map(|config| Rc::new(Frame::new(config))).collect();
        let mut host = Host {
            version,
            frames,
            fleet: Rc::new(fleet),
            base: now,
            now: 0,
            worker: None,
            old: Vec::new(),
            socket: SocketState::Open,
            stopped: None,
            cut: None,
            unread: Vec::new(),
            lag: 0,
            pids: 100,
            is_container: false,
        };
        host.start();
        SimHaproxy(Rc::new(RefCell::new(host)))
    }

    /// Another HAProxy in the same state, that goes its own way from here.
    pub(crate) fn fork(&self) -> Self {
        let host = self.0.borrow();
        SimHaproxy(Rc::new(RefCell::new(Host {
            frames: host.frames.clone(),
            fleet: Rc::clone(&host.fleet),
            worker: host.worker.clone(),
            old: host.old.clone(),
            unread: host.unread.clone(),
            ..*host
        })))
    }

    /// The edge of a client that has just been started.
    pub(crate) fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Lets everything up to `now` happen; true if what traffic sees may be another thing. Time never goes back: an earlier
    /// `now` changes nothing. Call it before the fleet changes, and after.
    pub(crate) fn advance(&self, now: Instant) -> bool {
        let before = self.version();
        self.0.borrow_mut().advance(now);
        self.version() != before
    }

    /// When the next check begins or ends that may change something; none while all has settled, until the fleet changes.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        let host = self.0.borrow();
        let checks = host.worker.iter().filter(|_| host.stopped.is_none()).filter_map(Worker::due);
        let ends = host.old.iter().map(|(until, _)| *until);
        checks.chain(ends).min().map(|at| host.base + Duration::from_nanos(at))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.0.borrow().worker.is_some()
    }

    /// Which of its processes runs, or ran last: each has a higher number than the one before.
    pub(crate) fn process(&self) -> u32 {
        self.0.borrow().pids
    }

    /// It ends, and a new process starts with what is configured.
    pub(crate) fn restart(&self, now: Instant) {
        self.kill(now);
        self.start(now);
    }

    /// It ends: nobody listens, nothing is served.
    pub(crate) fn kill(&self, now: Instant) {
        let mut host = self.0.borrow_mut();
        host.advance(now);
        host.worker = None;
        host.old.clear();
        host.stopped = None;
        host.unread.clear();
    }

    /// A killed one is started again.
    pub(crate) fn start(&self, now: Instant) {
        let mut host = self.0.borrow_mut();
        host.advance(now);
        host.start();
    }

    /// A new worker starts with what is configured; the old one serves who is connected to it for as long as it lingers,
    /// unchecked and out of reach for commands.
    pub(crate) fn reload(&self, now: Instant, linger: Duration) {
        let mut host = self.0.borrow_mut();
        host.resume(now);
        let until = host.now + linger.as_nanos() as u64;
        if let Some(worker) = host.worker.take() {
            host.old.push((until, worker));
        }
        host.unread.clear();
        host.start();
    }

    /// It is stopped (SIGSTOP): silent, and no check goes on.
    pub(crate) fn stop(&self, now: Instant) {
        let mut host = self.0.borrow_mut();
        host.advance(now);
        host.stopped = host.stopped.or(Some(host.now));
    }

    /// It goes on (SIGCONT).
    pub(crate) fn resume(&self, now: Instant) {
        self.0.borrow_mut().resume(now);
    }

    /// Whether what is sent now is answered.
    pub(crate) fn answers(&self) -> bool {
        self.0.borrow().is_listening()
    }

    pub(crate) fn set_socket(&self, socket: SocketState) {
        let mut host = self.0.borrow_mut();
        host.socket = socket;
        host.read_late();
    }

    /// The sender of the next line is gone after so many of its commands, one time: what HAProxy does with the rest depends on
    /// its version.
    pub(crate) fn cut_after(&self, commands: Option<usize>) {
        self.0.borrow_mut().cut = commands;
    }

    /// How long a new address takes to hold, on the versions where it does so after the reply.
    pub(crate) fn set_address_lag(&self, lag: Duration) {
        self.0.borrow_mut().lag = lag.as_nanos() as u64;
    }

    /// Whether a new process has the id of the last one.
    pub(crate) fn set_container(&self, is_container: bool) {
        self.0.borrow_mut().is_container = is_container;
    }

    /// What an operator sends: commands joined by `;`. Gives the replies; none where the socket does not answer.
    pub(crate) fn operate(&self, line: &str) -> Option<String> {
        let mut host = self.0.borrow_mut();
        host.is_listening().then(|| operator::run(&mut host, line))
    }

    /// What new traffic of a backend sees: slots, addresses and weights.
    pub(crate) fn serving(&self, backend: &str) -> Vec<(u32, SocketAddr, Weight)> {
        self.0.borrow().slots(backend, Server::serves)
    }

    /// The slots where a check has passed at the present address.
    pub(crate) fn proven(&self, backend: &str) -> Vec<(u32, SocketAddr, Weight)> {
        self.0.borrow().slots(backend, Server::is_proven)
    }

    /// What traffic that persists, by a cookie or a table, may reach.
    pub(crate) fn reachable_by_cookie(&self, backend: &str) -> Vec<(u32, SocketAddr, Weight)> {
        self.0.borrow().slots(backend, Server::is_reachable)
    }

    /// What those reach who are still connected to old workers.
    pub(crate) fn lingering(&self, backend: &str) -> Vec<(u32, SocketAddr, Weight)> {
        let host = self.0.borrow();
        let old = host.old.iter().filter_map(|(_, worker)| Some(&worker.backends[worker.backend(backend)?]));
        old.flat_map(|backend| backend.slots(Server::is_reachable)).collect()
    }

    /// A number that is another one whenever what traffic sees may be.
    pub(crate) fn version(&self) -> u64 {
        let host = self.0.borrow();
        let changes =
            host.worker.iter().flat_map(|worker| &worker.backends).map(|backend| backend.version).sum::<u64>();
        let (silent, alive) = (host.stopped.is_some(), host.worker.is_some());
        u64::from(host.pids) << 48 | u64::from(silent) << 47 | u64::from(alive) << 46 | changes
    }

    /// The servers of a backend, as HAProxy's tables show them.
    pub(crate) fn rows(&self, backend: &str) -> Vec<Row> {
        let host = self.0.borrow();
        host.worker.iter().flat_map(|worker| Row::all(worker, backend)).collect()
    }
}
