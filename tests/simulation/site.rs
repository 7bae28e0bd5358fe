//! The site of one HAProxy, and how its client reaches it: commands one by one, each of which may be the last.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use hsdo::ports::{Command, Haproxy, Reading, TurnError, Verdict};

use crate::haproxy::{SimHaproxy, Talk};
use crate::promises::Cause;
use crate::world::{Event, World};

pub(crate) struct Site {
    pub(crate) haproxy: Rc<RefCell<SimHaproxy>>,
    /// The socket takes so many commands of a hundred, and answers none of the others.
    pub(crate) cuts: Cell<u8>,
}

impl Site {
    pub(crate) fn new(haproxy: SimHaproxy) -> Self {
        Site { haproxy: Rc::new(RefCell::new(haproxy)), cuts: Cell::new(0) }
    }
}

impl World {
    /// A check is counted.
    pub(crate) fn check_due(&self, site: usize) {
        let changed = self.sites[site].haproxy.borrow_mut().advance(self.instant(self.now()));
        if changed {
            self.haproxy_changed(site, Cause::Check);
        }
        self.plan_check(site);
    }

    pub(crate) fn plan_check(&self, site: usize) {
        let next = self.sites[site].haproxy.borrow().next_change();
        if let Some(next) = next {
            let micros = next.saturating_duration_since(self.instant(0)).as_micros() as u64;
            self.post(micros, Event::Check(site));
        }
    }

    /// What listens at an address begins or ceases to pass checks.
    pub(crate) fn answers(&self, address: IpAddr, answers: bool) {
        for (index, site) in self.sites.iter().enumerate() {
            site.haproxy.borrow_mut().set_answering(address, answers, self.instant(self.now()));
            self.plan_check(index);
        }
        self.promises.borrow_mut().answers(address, answers, self.now());
    }
}

/// A client's HAProxy.
pub(crate) struct HaproxyEdge {
    world: Rc<World>,
    process: usize,
    site: usize,
    talk: Talk,
}

impl HaproxyEdge {
    pub(crate) fn new(world: &Rc<World>, process: usize, site: usize) -> Self {
        let talk = Talk::new(&world.sites[site].haproxy);
        HaproxyEdge { world: Rc::clone(world), process, site, talk }
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

    fn advance(&self) {
        let (world, site) = (&self.world, self.site);
        let changed = world.sites[site].haproxy.borrow_mut().advance(world.instant(world.now()));
        if changed {
            world.haproxy_changed(site, Cause::Check);
            world.plan_check(site);
        }
    }
}

impl Haproxy for HaproxyEdge {
    fn is_listening(&self) -> bool {
        self.talk.is_listening()
    }

    fn unchanged(&mut self, backends: &[&str]) -> Result<bool, TurnError> {
        self.world.step(self.process, "show stat");
        self.advance();
        if self.is_cut() {
            return Err(self.cut("show stat"));
        }
        self.talk.unchanged(backends)
    }

    fn read(&mut self, backends: &[&str]) -> Result<Reading, TurnError> {
        self.world.step(self.process, "show servers state");
        self.advance();
        if self.is_cut() {
            return Err(self.cut("show servers state"));
        }
        let reading = self.talk.read(backends);
        // It may be old when it is acted upon.
        self.world.step(self.process, "the end of show servers state");
        reading
    }

    fn send(&mut self, steps: &[Vec<Command>], tell: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError> {
        for step in steps {
            for command in step {
                self.world.step(self.process, "a command to HAProxy");
                self.advance();
                if self.is_cut() {
                    return Err(self.cut("a command to HAProxy"));
                }
                self.talk.send(&[vec![command.clone()]], tell)?;
                self.world.note(format!("{}: {command}", self.world.processes[self.process].name));
                self.world.haproxy_changed(self.site, Cause::Command);
                if self.is_cut() {
                    return Err(self.cut("the answer to a command to HAProxy"));
                }
            }
        }
        self.world.plan_check(self.site);
        Ok(())
    }
}
