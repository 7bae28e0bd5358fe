//! Short constructors for servers and desired states. Tests only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::memory::SlotMemory;
use super::model;
use super::placement::{Desired, Wanted};
use super::reconcile::{BackendPlan, Step, reconcile};
use super::sequencer::{Next, Sequencer};
use super::stage::{Options, PARKED};
use super::view::View;
use crate::ports::{Admin, Change, Running};
use crate::slot::{SlotId, Weight};

pub(super) const PORT: u16 = 80;
pub(super) const OPTIONS: Options = Options { port: Some(PORT), gate: true, static_weights: false };

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], PORT))
}

pub(super) fn server(admin: Admin, up: bool, last: u8, weight: Weight) -> Running {
    Running {
        admin,
        inherited: false,
        up,
        address: Some(address(last)),
        weight,
        configured: 1,
        checked: true,
        checking: false,
        busy: false,
        named: false,
    }
}

pub(super) fn up(last: u8, weight: Weight) -> Running {
    server(Admin::Ready, true, last, weight)
}

pub(super) fn down(last: u8, weight: Weight) -> Running {
    server(Admin::Ready, false, last, weight)
}

pub(super) fn maintenance(last: u8, weight: Weight) -> Running {
    server(Admin::Maintenance, false, last, weight)
}

pub(super) fn inherited(last: u8, weight: Weight) -> Running {
    Running { inherited: true, checked: false, ..server(Admin::Ready, false, last, weight) }
}

pub(super) fn serve_at(last: u8, weight: Weight) -> Wanted {
    Wanted::Serve { address: address(last).ip().into(), weight }
}

/// A backend on the model of HAProxy.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) desired: Desired,
    pub(super) running: BTreeMap<SlotId, Running>,
    pub(super) memory: SlotMemory,
    pub(super) options: Options,
    pub(super) size: SlotId,
    pub(super) now: Instant,
}

impl World {
    /// Slots by number, each with its desired state if known.
    pub(super) fn new(slots: impl IntoIterator<Item = (SlotId, Running, Option<Wanted>)>) -> Self {
        let mut world = World {
            desired: Desired::default(),
            running: BTreeMap::new(),
            memory: SlotMemory::default(),
            options: OPTIONS,
            size: 0,
            now: Instant::now(),
        };
        for (id, running, wanted) in slots {
            world.running.insert(id, running);
            world.desired.slots.extend(wanted.map(|wanted| (id, wanted)));
            world.desired.max_row = world.desired.max_row.max(id);
        }
        world.size = world.desired.max_row;
        world
    }

    /// The steps that a reading needs now.
    pub(super) fn plan(&mut self) -> BackendPlan {
        self.memory.observe(&self.desired, &self.running, self.options, self.now);
        let World { desired, running, memory, options, size, .. } = self;
        reconcile(View { desired, running, memory, size: *size, options: *options })
    }

    /// The next steps of a turn; empty when it is over.
    pub(super) fn steps(&mut self, turn: &mut Sequencer) -> Vec<Step> {
        loop {
            let plan = self.plan();
            let raises = turn.raises(&plan);
            match turn.next(&plan, raises) {
                Next::Send(steps) => {
                    steps.iter().for_each(|step| self.memory.sending(step.slot, &step.changes));
                    return steps;
                }
                // The model is never late.
                Next::Reread => {}
                Next::Done => return Vec::new(),
            }
        }
    }

    pub(super) fn apply(&mut self, slot: SlotId, change: Change) {
        model::apply(self.running.get_mut(&slot).expect("a planned slot runs"), change);
    }

    /// Runs one turn; `see` is called after each change of a slot.
    pub(super) fn turn(&mut self, mut see: impl FnMut(&World, SlotId, Change)) {
        let mut turn = Sequencer::default();
        loop {
            let steps = self.steps(&mut turn);
            if steps.is_empty() {
                return;
            }
            for Step { slot, changes } in steps {
                for change in changes {
                    self.apply(slot, change);
                    see(self, slot, change);
                }
            }
        }
    }

    /// Every check in flight ends, and those of ready servers pass, including tracked ones.
    pub(super) fn checks_pass(&mut self) {
        for server in self.running.values_mut() {
            server.checking = false;
            // The tracked server is up.
            server.inherited &= server.admin != Admin::Maintenance;
            let answers = server.address.is_none_or(|address| address.ip() != PARKED);
            server.up |= server.admin == Admin::Ready && answers;
        }
    }

    /// Runs turns and lets checks pass until nothing is left to do.
    pub(super) fn converge(&mut self) {
        for _ in 0..12 {
            self.turn(|_, _, _| ());
            let plan = self.plan();
            if Sequencer::left(&plan) == 0 && !plan.pending && plan.waiting.is_empty() {
                return;
            }
            self.checks_pass();
        }
        panic!("still not quiet: {:?} {self:?}", self.plan());
    }
}
