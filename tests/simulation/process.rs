//! hsdo's processes: the real `Server` and `Client`, started, stopped, killed and woken as `run` does it, each with its own clocks.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use hsdo::client::Client;
use hsdo::clock::Timestamp;
use hsdo::marker::Moment;
use hsdo::metrics::Metrics;
use hsdo::ports::TurnError;
use hsdo::server::Server;

use crate::aws::GroupEdge;
use crate::drift::Drift;
use crate::hooks::departures;
use crate::journal::{At, MILLI, SECOND};
use crate::reports::Writer;
use crate::settings::Settings;
use crate::site::HaproxyEdge;
use crate::store::TableEdge;
use crate::table::State;
use crate::troubles::{Killed, Trap};
use crate::world::{Event, World};

/// 2026-01-01, microseconds since 1970.
pub(crate) const START_OF_TIME: i64 = 1_767_225_600_000_000;
/// How often a server looks at its lease between turns.
const PULSE: At = SECOND;

pub(crate) enum Role {
    Server(Box<Server<GroupEdge, TableEdge>>),
    Client(Box<Client<TableEdge, HaproxyEdge>>),
}

/// What a process is to be, whenever it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    /// Of the HAProxy at this site.
    Client(usize),
}

pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) interval: At,
    /// None while it is down, and while it runs.
    pub(crate) role: RefCell<Option<Role>>,
    pub(crate) busy: Cell<bool>,
    /// Not to be started until then.
    pub(crate) down_until: Cell<Option<At>>,
    life: Cell<u64>,
    token: Cell<u64>,
    /// When its next turn is due, while it waits.
    next_turn: Cell<At>,
    /// What is to happen after so many more steps of I/O.
    traps: RefCell<Vec<(u32, Trap)>>,
    trapped: Cell<bool>,
    /// How long after a kill it is started again, microseconds.
    pub(crate) restart_in: Cell<At>,
    /// How far its time of day is off, microseconds.
    pub(crate) wall: Cell<i64>,
    drift: Cell<Drift>,
    /// Turns since the world was last changed by a fault or by others.
    pub(crate) good_turns: Cell<u32>,
    pub(crate) bad_turns: Cell<u32>,
    /// The newest state of the table that it has read since it was started.
    pub(crate) table_read: Cell<u64>,
    /// The table as it last read it as a server: what its next write follows from.
    pub(crate) read: RefCell<Option<State>>,
    /// How often it was killed or stood still.
    pub(crate) struck: Cell<u64>,
    pub(crate) stands_still: Cell<bool>,
    /// The thread that writes its reports, and the `Seen` of the last one.
    pub(crate) writer: RefCell<Option<Writer>>,
    pub(crate) reported: Cell<u64>,
}

impl Process {
    pub(crate) fn new(name: String, kind: Kind, interval: At) -> Self {
        Process {
            name,
            kind,
            interval,
            role: RefCell::default(),
            busy: Cell::default(),
            down_until: Cell::default(),
            life: Cell::default(),
            token: Cell::default(),
            next_turn: Cell::default(),
            traps: RefCell::default(),
            trapped: Cell::default(),
            restart_in: Cell::new(SECOND),
            wall: Cell::default(),
            drift: Cell::default(),
            good_turns: Cell::default(),
            bad_turns: Cell::default(),
            table_read: Cell::default(),
            read: RefCell::default(),
            struck: Cell::default(),
            stands_still: Cell::default(),
            writer: RefCell::default(),
            reported: Cell::default(),
        }
    }

    pub(crate) fn is_trapped(&self) -> bool {
        self.trapped.get()
    }

    /// `trap` is sprung at the step of I/O after the next `steps`.
    pub(crate) fn set_trap(&self, steps: u32, trap: Trap) {
        self.traps.borrow_mut().push((steps, trap));
        self.trapped.set(true);
    }

    pub(crate) fn clear_traps(&self) {
        self.traps.borrow_mut().clear();
        self.trapped.set(false);
    }

    /// Counts a step, and tells what happens at it.
    pub(crate) fn spring(&self) -> Option<Trap> {
        let mut traps = self.traps.borrow_mut();
        let due = traps.iter().position(|(left, _)| *left == 0);
        traps.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
        let trap = due.map(|due| traps.remove(due).1);
        self.trapped.set(!traps.is_empty());
        trap
    }

    pub(crate) fn is_server(&self) -> bool {
        self.kind == Kind::Server
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(&*self.role.borrow(), Some(Role::Server(server)) if server.leads())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.role.borrow().is_some() || self.busy.get()
    }

    /// From `now` on its monotonic clock runs so much fast.
    pub(crate) fn set_drift(&self, now: At, parts_per_million: i64) {
        self.drift.set(self.drift.get().changed(now, parts_per_million));
    }

    pub(crate) fn clock(&self, world: &World) -> Instant {
        world.instant(self.drift.get().shows(world.now()))
    }

    /// By its own clock, which may be wrong.
    pub(crate) fn time_of_day(&self, world: &World) -> Timestamp {
        Timestamp::from_micros(START_OF_TIME + world.now() as i64 + self.wall.get())
    }

    /// How often it was started.
    pub(crate) fn life(&self) -> u64 {
        self.life.get()
    }

    fn moment(&self, world: &World) -> Moment {
        Moment { time: self.time_of_day(world), clock: self.clock(world) }
    }
}

impl World {
    /// Starts a process that is down.
    pub(crate) fn start(self: &Rc<Self>, index: usize) {
        let process = &self.processes[index];
        if process.is_up() {
            return;
        }
        // It may have been killed again while it was down.
        if let Some(until) = process.down_until.get().filter(|until| *until > self.now()) {
            return self.sleep(index, until);
        }
        process.down_until.set(None);
        process.life.set(process.life.get() + 1);
        process.table_read.set(0);
        process.read.replace(None);
        process.struck.set(process.struck.get() + 1);
        let role = match process.kind {
            Kind::Server => {
                let name = format!("{}/{}", process.name, process.life.get());
                let (source, store) = (GroupEdge::new(self, index), TableEdge::new(self, index));
                let mut server = Server::new(source, store, Settings::server(), Metrics::new("server"), name);
                if self.reports.borrow().is_on {
                    server.watch_departures(departures(self, index));
                }
                Role::Server(Box::new(server))
            }
            Kind::Client(site) => {
                let (reader, haproxy) = (TableEdge::new(self, index), HaproxyEdge::new(self, index, site));
                let settings = Settings::client(site);
                let mut client = Client::new(&settings, reader, haproxy, Metrics::new("client"));
                if self.reports.borrow().is_on {
                    let writer = Writer::new(site);
                    client.report_to(writer.desk());
                    process.writer.replace(Some(writer));
                    process.reported.set(0);
                }
                Role::Client(Box::new(client))
            }
        };
        // Nobody could lead until now.
        let can_lead = |(index, it): (usize, &Process)| {
            it.is_server() && it.is_up() && !it.stands_still.get() && !self.is_sightless(index)
        };
        if process.is_server() && !self.processes.iter().enumerate().any(can_lead) {
            self.disturb(self.now());
        }
        process.role.replace(Some(role));
        process.next_turn.set(self.now());
        self.note(format!("{} starts", process.name));
        self.sleep(index, self.now());
    }

    /// Ends a process at once. One that is in the middle of something ends at its next step of I/O.
    pub(crate) fn kill(self: &Rc<Self>, index: usize, restart_in: At) {
        let process = &self.processes[index];
        process.down_until.set(Some(self.now() + restart_in));
        if process.busy.get() {
            process.set_trap(0, Trap::Kill);
        } else if process.role.take().is_some() {
            self.note(format!("{} is killed between turns", process.name));
            process.clear_traps();
            self.sleep(index, self.now() + restart_in);
        }
    }

    /// Ends a process as SIGTERM does.
    pub(crate) fn stop(self: &Rc<Self>, index: usize, restart_in: At) {
        let process = &self.processes[index];
        if process.busy.get() {
            return;
        }
        let Some(mut role) = process.role.take() else { return };
        self.note(format!("{} is stopped", process.name));
        process.down_until.set(Some(self.now() + restart_in));
        process.busy.set(true);
        let released = catch_unwind(AssertUnwindSafe(|| match &mut role {
            Role::Server(server) => server.release().err().map(|error| self.note(format!("no release: {error}"))),
            Role::Client(_) => {
                self.removes_its_report(index);
                None
            }
        }));
        process.busy.set(false);
        process.clear_traps();
        if let Err(payload) = released
            && !payload.is::<Killed>()
        {
            self.panicked(index, &*payload);
        }
        self.sleep(index, self.now() + restart_in);
    }

    /// The process is woken at `at` and not before.
    fn sleep(&self, index: usize, at: At) {
        let process = &self.processes[index];
        process.token.set(process.token.get() + 1);
        self.post(at, Event::Wake { process: index, token: process.token.get() });
    }

    /// Wakes a client that polls for its HAProxy.
    pub(crate) fn haproxy_is_back(self: &Rc<Self>, site: usize) {
        for (index, process) in self.processes.iter().enumerate().filter(|(_, it)| it.kind == Kind::Client(site)) {
            if matches!(&*process.role.borrow(), Some(Role::Client(client)) if client.awaits_haproxy()) {
                process.next_turn.set(self.now());
                self.sleep(index, self.now() + 5 * MILLI);
            }
        }
    }

    pub(crate) fn wake(self: &Rc<Self>, index: usize, token: u64) {
        let process = &self.processes[index];
        if process.token.get() != token || process.busy.get() {
            return;
        }
        if process.role.borrow().is_none() {
            return self.start(index);
        }
        let Some(mut role) = process.role.take() else { return };
        let began = self.now();
        process.busy.set(true);
        let is_turn = began >= process.next_turn.get();
        let done = catch_unwind(AssertUnwindSafe(|| match (&mut role, is_turn) {
            (Role::Server(server), true) => Done::Turn(server.turn(process.moment(self)).err().into_iter().collect()),
            (Role::Server(server), false) => Done::Pulse(server.pulse(process.moment(self))),
            (Role::Client(client), _) => Done::Turn(client.turn(|| process.clock(self))),
        }));
        process.busy.set(false);
        match done {
            Ok(Done::Turn(failures)) => {
                process.role.replace(Some(role));
                self.client_has_turned(index);
                process.next_turn.set((began + process.interval).max(self.now()));
                self.turned(index, &failures);
                self.wait(index);
            }
            Ok(Done::Pulse(now)) => {
                process.role.replace(Some(role));
                if now {
                    process.next_turn.set(self.now());
                }
                self.wait(index);
            }
            Err(payload) if payload.is::<Killed>() => {
                process.clear_traps();
                let at = process.down_until.get().unwrap_or(self.now() + process.restart_in.get());
                process.down_until.set(Some(at.max(self.now())));
                self.sleep(index, at);
            }
            Err(payload) => self.panicked(index, &*payload),
        }
    }

    fn wait(&self, index: usize) {
        let process = &self.processes[index];
        let next = process.next_turn.get();
        let pulses = process.is_server() && next > self.now() + PULSE;
        self.sleep(index, if pulses { self.now() + PULSE } else { next });
    }

    fn turned(&self, index: usize, failures: &[TurnError]) {
        let process = &self.processes[index];
        match failures {
            [] => {
                process.good_turns.set(process.good_turns.get().saturating_add(1));
                process.bad_turns.set(0);
            }
            [first, ..] => {
                process.bad_turns.set(process.bad_turns.get() + 1);
                self.note(format!("{}: the turn failed: {}", process.name, first.text));
            }
        }
    }

    fn panicked(&self, index: usize, payload: &(dyn std::any::Any + Send)) {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        self.fail("no panic", format!("{} panicked: {text}", self.processes[index].name));
    }
}

enum Done {
    Turn(Vec<TurnError>),
    Pulse(bool),
}
