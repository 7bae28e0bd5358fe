//! The machine that a HAProxy runs on: its processes, its socket, and what is sent to it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hsdo::ports::{Command, Process, Verdict};
use hsdo::slot::Weight;

use super::SocketState;
use super::config::Fleet;
use super::server::{Refusal, Server};
use super::version::Version;
use super::worker::{Frame, Worker};

/// Where the processes' clock stands at the beginning, seconds since 1970.
const EPOCH: u64 = 1_700_000_000;

/// Why HAProxy refuses a weight.
pub(super) const STATIC: &str = "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.";
pub(super) const NO_CHECK: &str = "Health check was not configured on this server, cannot enable.";

/// The machine that it runs on.
pub(super) struct Host {
    pub(super) version: &'static Version,
    pub(super) frames: Vec<Rc<Frame>>,
    pub(super) fleet: Rc<dyn Fleet>,
    pub(super) base: Instant,
    pub(super) now: u64,
    /// None while it is killed.
    pub(super) worker: Option<Worker>,
    /// Workers that were replaced by a reload, and until when they serve what is connected to them.
    pub(super) old: Vec<(u64, Worker)>,
    pub(super) socket: SocketState,
    /// Since when it is stopped by a signal.
    pub(super) stopped: Option<u64>,
    /// After how many commands the sender of the next line is gone.
    pub(super) cut: Option<usize>,
    /// Lines whose senders gave up, and that wait to be read.
    pub(super) unread: Vec<Vec<Command>>,
    pub(super) lag: u64,
    pub(super) pids: u32,
    /// In a container each process has the id of the last one.
    pub(super) is_container: bool,
}

impl Host {
    pub(super) fn advance(&mut self, now: Instant) {
        let now = now.saturating_duration_since(self.base).as_nanos() as u64;
        self.now = self.now.max(now);
        if !self.old.is_empty() {
            self.old.retain(|(until, _)| *until > self.now);
        }
        if self.stopped.is_none()
            && let Some(worker) = &mut self.worker
        {
            worker.advance(self.now, &*self.fleet);
        }
    }

    pub(super) fn start(&mut self) {
        assert!(self.worker.is_none(), "HAProxy runs already");
        self.pids += 1;
        let mut worker = Worker::new(self.pids, self.version, &self.frames, self.now);
        worker.advance(self.now, &*self.fleet);
        self.worker = Some(worker);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.advance(now);
        if let Some(since) = self.stopped.take()
            && let Some(worker) = &mut self.worker
        {
            worker.stopped += self.now - since;
        }
        self.read_late();
    }

    /// Whether what is sent is answered.
    pub(super) fn is_listening(&self) -> bool {
        self.socket == SocketState::Open && self.stopped.is_none() && self.worker.is_some()
    }

    /// Does what it still does of lines whose senders gave up.
    pub(super) fn read_late(&mut self) {
        if self.is_listening() {
            for line in std::mem::take(&mut self.unread) {
                let done = self.cut.take().or(self.version.done_of_orphan).unwrap_or(line.len());
                let done = if self.version.done_of_orphan.is_none() { line.len() } else { done };
                line.iter().take(done).for_each(|command| drop(self.obey(command)));
            }
        }
    }

    pub(super) fn obey(&mut self, command: &Command) -> Verdict {
        let Some(worker) = &mut self.worker else { return Verdict::Refused("it is gone".to_owned()) };
        let Some(backend) = worker.backend(command.backend()) else {
            return Verdict::Refused("No such backend.".to_owned());
        };
        let Some(server) = worker.backends[backend].find(command.server()) else {
            return Verdict::Refused("No such server.".to_owned());
        };
        let lag = if self.version.late_address { self.lag } else { 0 };
        match worker.obey(backend, server, command.change().into(), lag) {
            Ok(()) => Verdict::Done,
            Err(Refusal::StaticWeight) => Verdict::StaticWeight,
            Err(Refusal::Unchecked) => Verdict::Refused(NO_CHECK.to_owned()),
        }
    }

    pub(super) fn slots(&self, backend: &str, is_meant: impl Fn(&Server) -> bool) -> Vec<(u32, SocketAddr, Weight)> {
        let worker = self.worker.as_ref().filter(|_| self.stopped.is_none());
        let backend = worker.and_then(|worker| Some(&worker.backends[worker.backend(backend)?]));
        backend.map_or_else(Vec::new, |backend| backend.slots(is_meant))
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    /// What `show info` tells.
    pub(super) fn process(&self, worker: &Worker) -> Process {
        let age = self.now - worker.started;
        let counted = if self.version.counts_stops { age } else { age - worker.stopped };
        let started = Duration::from_nanos(worker.started).as_secs() + EPOCH;
        Process {
            pid: if self.is_container { "8".to_owned() } else { worker.pid.to_string() },
            version: self.version.name.to_owned(),
            started: self.version.tells_start.then(|| started.to_string()),
            uptime: Duration::from_secs(Duration::from_nanos(counted).as_secs()),
            asked: self.instant(),
            answered: self.instant(),
        }
    }
}
