//! What goes wrong at an I/O step: kills and pauses of a process, and the faults of the services that it calls.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;

use hsdo::ports::{Subject, TurnError};

use crate::journal::{At, MILLI};
use crate::world::World;

/// What unwinds a process that is killed.
pub(crate) struct Killed;

/// What a process calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    AutoScaling,
    Ec2,
    DynamoDb,
    /// The report table alone.
    Reports,
}

/// How a service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// So many calls of a hundred are refused: throttled, or a server error.
    Refuses(u8),
    /// So many calls of a hundred are carried out, and their answers are lost.
    LosesAnswers(u8),
    /// Each call takes up to so many milliseconds.
    Slow(u16),
    /// Each call hangs for so many milliseconds, and fails.
    Hangs(u16),
}

/// What a process meets at one of its next I/O steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    Kill,
    Pause(At),
}

#[derive(Default)]
pub(crate) struct Troubles {
    auto_scaling: Cell<Option<Fault>>,
    ec2: Cell<Option<Fault>>,
    dynamo: Cell<Option<Fault>>,
    reports: Cell<Option<Fault>>,
    /// The server that Auto Scaling and EC2 refuse, and no other: its role was taken away, or its network.
    pub(crate) sightless: Cell<Option<usize>>,
}

impl Troubles {
    pub(crate) fn are_none(&self) -> bool {
        let all = [&self.auto_scaling, &self.ec2, &self.dynamo, &self.reports];
        all.iter().all(|service| service.get().is_none()) && self.sightless.get().is_none()
    }

    pub(crate) fn of(&self, service: Service) -> &Cell<Option<Fault>> {
        match service {
            Service::AutoScaling => &self.auto_scaling,
            Service::Ec2 => &self.ec2,
            Service::DynamoDb => &self.dynamo,
            Service::Reports => &self.reports,
        }
    }
}

impl World {
    /// One step of I/O of a process. It may be killed here, or stand still for a while.
    pub(crate) fn step(self: &Rc<Self>, process: usize, what: &str) {
        let of = &self.processes[process];
        if !of.is_trapped() {
            return;
        }
        let sprung = of.spring();
        of.struck.set(of.struck.get() + u64::from(sprung.is_some()));
        match sprung {
            Some(Trap::Kill) => {
                self.note(format!("{} is killed at {what}", of.name));
                self.disturb(self.now());
                resume_unwind(Box::new(Killed));
            }
            Some(Trap::Pause(micros)) => {
                self.note(format!("{} stands still at {what} for {} ms", of.name, micros / MILLI));
                // It may strike long after its entry began, and the others take over from now on.
                self.disturb(self.now());
                of.stands_still.set(true);
                self.pass(micros);
                of.stands_still.set(false);
                self.note(format!("{} goes on at {what}", of.name));
                self.disturb(self.now());
                self.step(process, what);
            }
            None => {}
        }
    }

    /// A call begins: an error if nothing of it is done.
    pub(crate) fn call(self: &Rc<Self>, process: usize, service: Service, what: &str) -> Result<(), TurnError> {
        self.step(process, what);
        let is_source = matches!(service, Service::AutoScaling | Service::Ec2);
        if is_source && self.troubles.sightless.get() == Some(process) {
            return Err(self.error(process, what, "was refused to this server alone"));
        }
        let Some(fault) = self.troubles.of(service).get() else { return Ok(()) };
        let refused = match fault {
            Fault::Refuses(percent) => self.percent(percent.into()),
            Fault::LosesAnswers(_) => false,
            Fault::Slow(millis) => {
                let millis = self.between(0, u64::from(millis) + 1);
                self.pass(millis * MILLI);
                false
            }
            Fault::Hangs(millis) => {
                self.pass(u64::from(millis) * MILLI);
                true
            }
        };
        // What happened meanwhile may have killed it.
        self.step(process, what);
        if refused { Err(self.error(process, what, "was refused")) } else { Ok(()) }
    }

    /// A call was carried out: an error if its answer is lost.
    pub(crate) fn answer(self: &Rc<Self>, process: usize, service: Service, what: &str) -> Result<(), TurnError> {
        self.step(process, what);
        match self.troubles.of(service).get() {
            Some(Fault::LosesAnswers(percent)) if self.percent(percent.into()) => {
                Err(self.error(process, what, "was carried out, and its answer was lost"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn error(&self, process: usize, what: &str, how: &str) -> TurnError {
        self.note(format!("{}: {what} {how}", self.processes[process].name));
        TurnError::new(Subject::Aws, format!("{what} {how}"))
    }
}
