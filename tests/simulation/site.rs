//! The site of one HAProxy, and how its client reaches it: commands one by one, each of which may be the last.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hsdo::ports::{Command, Haproxy, Reading, TurnError, Verdict};

use crate::haproxy::{BackendConfig, Check, Fleet, Session, SimHaproxy, Version};
use crate::journal::{At, SECOND};
use crate::promises::Cause;
use crate::settings::{BACKENDS, BASE, SLOTS};
use crate::world::{Event, World};

/// How long a socket that does not answer keeps its client waiting.
const PATIENCE: At = 2 * SECOND;

/// The addresses that pass checks: one set for all HAProxys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answering(Rc<Answers>);

#[derive(Debug, Default)]
struct Answers {
    addresses: RefCell<BTreeSet<IpAddr>>,
    version: Cell<u64>,
}

impl Answering {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.addresses.borrow().contains(&address)
    }

    fn set(&self, address: IpAddr, answers: bool) {
        let mut addresses = self.0.addresses.borrow_mut();
        let changed = if answers { addresses.insert(address) } else { addresses.remove(&address) };
        self.0.version.set(self.0.version.get() + u64::from(changed));
    }
}

impl Fleet for Answering {
    fn is_healthy(&self, address: SocketAddr) -> bool {
        self.contains(address.ip())
    }

    fn version(&self) -> Option<u64> {
        Some(self.0.version.get())
    }
}

pub(crate) struct Site {
    pub(crate) haproxy: SimHaproxy,
    /// So many exchanges of a hundred are cut somewhere.
    pub(crate) cuts: Cell<u8>,
    /// When its next check is looked at.
    planned: Cell<Option<Instant>>,
}

impl Site {
    /// Each site has another version of HAProxy; the oldest, which costs hsdo a whole reading a turn, in every fourth run only. Two
    /// sites believe a single check.
    pub(crate) fn new(seed: u64, number: usize, answering: &Answering, epoch: Instant) -> Self {
        let skipped = usize::from(!seed.is_multiple_of(4));
        let version: &'static Version = &Version::all()[skipped..][number % (Version::all().len() - skipped)];
        let (rise, fall) = if number % 3 == 1 { (1, 1) } else { (2, 3) };
        let check = Check { inter: Duration::from_secs(1), rise, fall, takes: Duration::from_millis(2) };
        let config = |name| BackendConfig { check: Some(check), ..BackendConfig::new(name, BASE, SLOTS) };
        let haproxy = SimHaproxy::new(version, BACKENDS.map(config).into(), answering.clone(), epoch);
        Site { haproxy, cuts: Cell::new(0), planned: Cell::new(None) }
    }
}

impl World {
    /// A check begins or ends.
    pub(crate) fn check_due(&self, site: usize) {
        self.sites[site].planned.set(None);
        self.advance_haproxy(site);
        self.plan_check(site);
    }

    /// Works out a HAProxy's checks up to now.
    pub(crate) fn advance_haproxy(&self, site: usize) {
        if self.sites[site].haproxy.advance(self.instant(self.now())) {
            self.haproxy_changed(site, Cause::Check);
        }
    }

    pub(crate) fn plan_check(&self, site: usize) {
        let Site { haproxy, planned, .. } = &self.sites[site];
        let Some(next) = haproxy.next_change() else { return };
        if planned.get().is_none_or(|planned| next < planned) {
            planned.set(Some(next));
            let nanos = next.saturating_duration_since(self.instant(0)).as_nanos() as u64;
            self.post(nanos.div_ceil(1_000), Event::Check(site));
        }
    }

    /// What listens at an address begins or ceases to pass checks.
    pub(crate) fn answers(&self, address: IpAddr, answers: bool) {
        if self.answering.contains(address) == answers {
            return;
        }
        // A check that is due asks what is true when it is worked out.
        (0..self.sites.len()).for_each(|site| self.advance_haproxy(site));
        self.answering.set(address, answers);
        (0..self.sites.len()).for_each(|site| self.check_due(site));
    }
}

/// A client's HAProxy.
pub(crate) struct HaproxyEdge {
    world: Rc<World>,
    process: usize,
    site: usize,
    session: Session,
}

impl HaproxyEdge {
    pub(crate) fn new(world: &Rc<World>, process: usize, site: usize) -> Self {
        let session = world.sites[site].haproxy.session();
        HaproxyEdge { world: Rc::clone(world), process, site, session }
    }

    /// Whether this exchange is cut.
    fn is_cut(&self) -> bool {
        let cuts = self.world.sites[self.site].cuts.get();
        cuts > 0 && self.world.percent(cuts.into())
    }

    fn cut(&self, what: &str) -> TurnError {
        let error = self.world.error(self.process, what, "was cut");
        TurnError { subject: hsdo::ports::Subject::Haproxy, ..error }
    }

    /// Begins an exchange.
    fn begin(&self, what: &str) -> Result<(), TurnError> {
        self.world.step(self.process, what);
        if !self.world.sites[self.site].haproxy.answers() && self.session.is_listening() {
            self.world.pass(PATIENCE);
            self.world.step(self.process, what);
        }
        self.world.advance_haproxy(self.site);
        if self.is_cut() { Err(self.cut(what)) } else { Ok(()) }
    }

    fn sent(&self) {
        self.world.haproxy_changed(self.site, Cause::Command);
        self.world.plan_check(self.site);
    }
}

impl Haproxy for HaproxyEdge {
    fn is_listening(&self) -> bool {
        self.session.is_listening()
    }

    fn unchanged(&mut self, backends: &[&str]) -> Result<bool, TurnError> {
        self.begin("show stat")?;
        self.session.unchanged(backends)
    }

    fn read(&mut self, backends: &[&str]) -> Result<Reading, TurnError> {
        self.begin("show servers state")?;
        let reading = self.session.read(backends);
        // It may be old when it is acted upon.
        self.world.step(self.process, "the end of show servers state");
        reading
    }

    fn sessions(&mut self, backends: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, u64>>, TurnError> {
        self.begin("show stat for sessions")?;
        let mut all = self.session.sessions(backends)?;
        for (backend, servers) in &mut all {
            let place = BACKENDS.iter().position(|name| name == backend);
            for (name, count) in servers {
                let slot = hsdo::ports::number_of(name, BASE);
                *count = place.zip(slot).map_or(0, |(place, slot)| self.world.sessions(self.site, place, slot));
            }
        }
        Ok(all)
    }

    fn send(&mut self, steps: &[Vec<Command>], tell: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError> {
        let haproxy = self.world.sites[self.site].haproxy.clone();
        if self.is_cut() || !haproxy.answers() {
            // The line is lost at one of its commands: what HAProxy does of it depends on its version.
            self.begin("commands to HAProxy")?;
            let count = steps.iter().map(Vec::len).sum::<usize>() as u64;
            haproxy.cut_after(Some(self.world.between(0, count + 1) as usize));
            let sent = self.session.send(steps, tell);
            haproxy.cut_after(None);
            self.world.note(format!("{}: a line of {count} commands is lost", self.world.processes[self.process].name));
            self.sent();
            return sent;
        }
        for step in steps {
            let mut asked = None;
            for command in step {
                self.begin("a command to HAProxy")?;
                // A step goes over one connection: the process that accepted it does the rest of the step, whoever runs by then.
                if haproxy.process() != *asked.get_or_insert(haproxy.process()) {
                    self.world
                        .note(format!("{}: {command}, to an old worker", self.world.processes[self.process].name));
                    tell(command, Verdict::Done);
                    continue;
                }
                self.session.send(&[vec![command.clone()]], tell)?;
                self.world.note(format!("{}: {command}", self.world.processes[self.process].name));
                self.sent();
                if self.is_cut() {
                    return Err(self.cut("the answer to a command to HAProxy"));
                }
            }
        }
        Ok(())
    }
}
