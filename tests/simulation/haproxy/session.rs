//! The client's edge on the model, with what the real edge remembers: who answered, and what it showed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use hsdo::haproxy::HaproxyError;
use hsdo::ports::{BackendFault, Command, Haproxy, Process, Reading, TurnError, Verdict};
use hsdo::settings::HaproxySocket;

use super::host::Host;
use super::server::Shown;
use super::worker::{Backend, Worker};
use super::{SimHaproxy, SocketState};

/// How many commands fit a line, about; two lines are under way at a time.
const UNDER_WAY: usize = 280;

/// What one client knows of one HAProxy.
pub(crate) struct Session {
    haproxy: SimHaproxy,
    known: Option<Process>,
    /// What was shown when it was last asked whether anything changed.
    seen: Option<Seen>,
}

struct Seen {
    pid: u32,
    /// The versions of the backends, added up: they only grow.
    version: u64,
    shown: Vec<Shown>,
}

impl Session {
    pub(super) fn new(haproxy: SimHaproxy) -> Self {
        Session { haproxy, known: None, seen: None }
    }
}

impl Host {
    /// Who is asked, if the socket lets a question through.
    fn talk(&self) -> Result<&Worker, HaproxyError> {
        match (&self.worker, self.socket) {
            (None, _) | (_, SocketState::Refuses) => {
                let place = HaproxySocket::Path(PathBuf::from("/run/haproxy.sock"));
                Err(HaproxyError::Connect { place, source: io::ErrorKind::ConnectionRefused.into() })
            }
            (Some(worker), SocketState::Open) if self.stopped.is_none() => Ok(worker),
            _ => Err(broke(io::ErrorKind::TimedOut)),
        }
    }
}

fn broke(kind: io::ErrorKind) -> HaproxyError {
    HaproxyError::Io { line: "show info".to_owned(), length: 10, source: kind.into() }
}

/// The backends of these names; none where one is not there.
fn backends<'a>(worker: &'a Worker, names: &'a [&str]) -> Option<impl Iterator<Item = &'a Backend>> {
    let is_there = names.iter().all(|name| worker.backend(name).is_some());
    is_there.then(|| names.iter().filter_map(|name| Some(&worker.backends[worker.backend(name)?])))
}

impl Haproxy for Session {
    fn is_listening(&self) -> bool {
        let host = self.haproxy.0.borrow();
        host.worker.is_some() && host.socket != SocketState::Refuses
    }

    fn unchanged(&mut self, names: &[&str]) -> Result<bool, TurnError> {
        let host = self.haproxy.0.borrow();
        let Some(known) = self.known.clone().filter(|_| host.version.stat_tells_weight) else { return Ok(false) };
        let worker = match host.talk() {
            Ok(worker) => worker,
            Err(error) => {
                self.seen = None;
                return Err(error.into());
            }
        };
        let Some(asked) = backends(worker, names) else { return Ok(false) };
        let version = asked.map(|backend| backend.version).sum();
        let process = host.process(worker);
        // Another process is a change until it is read.
        let is_same_process = !process.differs_from(&known);
        if let Some(seen) = self.seen.as_mut().filter(|_| is_same_process) {
            if (seen.pid, seen.version) == (worker.pid, version) {
                return Ok(true);
            }
            // It may show the same again after a change and another one.
            let shown = backends(worker, names).into_iter().flatten().flat_map(Backend::shown);
            if seen.pid == worker.pid && shown.eq(seen.shown.iter().copied()) {
                seen.version = version;
                return Ok(true);
            }
        }
        let shown = backends(worker, names).into_iter().flatten().flat_map(Backend::shown).collect();
        self.seen = Some(Seen { pid: worker.pid, version, shown });
        if is_same_process {
            self.known = Some(process);
        }
        Ok(false)
    }

    fn read(&mut self, names: &[&str]) -> Result<Reading, TurnError> {
        let host = self.haproxy.0.borrow();
        let worker = match host.talk() {
            Ok(worker) => worker,
            Err(error) => {
                self.seen = None;
                return Err(error.into());
            }
        };
        let process = host.process(worker);
        let is_new = self.known.replace(process.clone()).is_none_or(|known| process.differs_from(&known));
        if is_new {
            self.seen = None;
        }
        let mut backends = BTreeMap::new();
        for name in names {
            let servers = match worker.backend(name) {
                Some(place) => Ok(worker.backends[place].read(worker.now())),
                None => Err(BackendFault::Missing(host.frames.iter().map(|frame| frame.config.name.clone()).collect())),
            };
            backends.insert((*name).to_owned(), servers);
        }
        Ok(Reading { process, is_new, backends })
    }

    /// Requests take no time here.
    fn sessions(&mut self, names: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, u64>>, TurnError> {
        let host = self.haproxy.0.borrow();
        let worker = host.talk()?;
        let idle = |place: usize| worker.backends[place].read(worker.now()).into_keys().map(|name| (name, 0)).collect();
        let of = |name: &&str| Some(((*name).to_owned(), idle(worker.backend(name)?)));
        Ok(names.iter().filter_map(of).collect())
    }

    fn send(&mut self, steps: &[Vec<Command>], tell: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError> {
        let mut host = self.haproxy.0.borrow_mut();
        self.seen = None;
        if steps.iter().all(Vec::is_empty) || self.known.is_none() {
            return Ok(());
        }
        let silent = host.stopped.is_some() || host.socket == SocketState::Silent;
        if let Err(error) = host.talk() {
            if silent && host.socket != SocketState::Refuses && host.worker.is_some() {
                host.unread.push(steps.iter().flatten().take(UNDER_WAY).cloned().collect());
            }
            return Err(error.into());
        }
        if let Some(cut) = host.cut.take() {
            let done = if host.version.done_of_orphan.is_some() { cut } else { UNDER_WAY.max(cut) };
            steps.iter().flatten().take(done).for_each(|command| drop(host.obey(command)));
            return Err(broke(io::ErrorKind::BrokenPipe).into());
        }
        for command in steps.iter().flatten() {
            let verdict = host.obey(command);
            tell(command, verdict);
        }
        Ok(())
    }
}
