//! The world of a run: one virtual clock, one queue of events, and everything that hsdo's processes meet. One thread, no real
//! time: an I/O step that takes time runs the world's other events up to its end.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hsdo::clock::Timestamp;
use hsdo::order::Target;
use hsdo::slot::{Row, SlotId};

use crate::aws::Aws;
use crate::fleet::{Fleet, Step};
use crate::journal::{At, Journal, SECOND};
use crate::orders::Shell;
use crate::process::{Process, START_OF_TIME};
use crate::promises::Promises;
use crate::random::Random;
use crate::reports::ReportTable;
use crate::requests::Requests;
use crate::schedule::{Entry, What};
use crate::settled::Settling;
use crate::site::{Answering, Site};
use crate::table::Dynamo;
use crate::troubles::Troubles;

/// Something that happens at a point of virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A process wakes up, if `token` is still the one that it waits for.
    Wake {
        process: usize,
        token: u64,
    },
    /// An entry of the schedule begins.
    Begin(usize),
    /// What an entry began ends.
    End(usize),
    /// An instance takes its next step.
    Instance(u64, Step),
    /// An address is given to somebody else, or back.
    Stranger(Ipv4Addr, bool),
    /// A HAProxy has a check to count.
    Check(usize),
    /// The rest of a transaction becomes visible.
    Commit,
    /// The shell of an entry reads the orders, or writes them.
    ShellReads(usize),
    ShellWrites(usize),
    /// An order is over.
    Lapse,
    /// The thread that writes a client's reports wakes up, in that life of its process.
    Report {
        process: usize,
        life: u64,
    },
    /// An instance waits for a hook.
    Held(u64),
}

/// What a promise says was broken.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) at: At,
    /// The name of the promise: a schedule that is shrunk must break the same one.
    pub(crate) promise: &'static str,
    pub(crate) text: String,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) schedule: Vec<Entry>,
    epoch: Instant,
    now: Cell<At>,
    /// Nothing may run past it: the end of the innermost pause.
    horizon: Cell<At>,
    queue: RefCell<BinaryHeap<Reverse<(At, u64, Event)>>>,
    queued: Cell<u64>,
    pub(crate) random: RefCell<Random>,
    pub(crate) journal: RefCell<Journal>,
    pub(crate) fleet: RefCell<Fleet>,
    pub(crate) aws: RefCell<Aws>,
    pub(crate) table: RefCell<Dynamo>,
    pub(crate) answering: Answering,
    pub(crate) sites: Vec<Site>,
    pub(crate) processes: Vec<Process>,
    pub(crate) troubles: Troubles,
    pub(crate) promises: RefCell<Promises>,
    pub(crate) settling: RefCell<Settling>,
    /// What the entries of the schedule that are under way changed: instances, and rows as they were.
    pub(crate) marks: RefCell<BTreeMap<usize, u64>>,
    pub(crate) edited: RefCell<BTreeMap<usize, (SlotId, Row)>>,
    /// The shells that are at work, by the entry of the schedule.
    pub(crate) shells: RefCell<BTreeMap<usize, Shell>>,
    /// Whom the orders of the entries that are under way are about.
    pub(crate) targets: RefCell<BTreeMap<usize, Target>>,
    pub(crate) reports: RefCell<ReportTable>,
    pub(crate) requests: RefCell<Requests>,
    /// How many instances were let go.
    pub(crate) let_go: Cell<u64>,
    failure: RefCell<Option<Failure>>,
    pub(crate) events: Cell<u64>,
}

impl World {
    pub(crate) fn new(seed: u64, schedule: Vec<Entry>, clients: usize, processes: Vec<Process>) -> Rc<Self> {
        let (epoch, answering) = (Instant::now() + Duration::from_secs(3_600), Answering::default());
        let sites: Vec<Site> = (0..clients).map(|number| Site::new(seed, number, &answering, epoch)).collect();
        let is_on = schedule.iter().any(|entry| entry.1 == What::Reporting);
        let world = World {
            seed,
            schedule,
            epoch,
            now: Cell::new(0),
            horizon: Cell::new(At::MAX),
            queue: RefCell::default(),
            queued: Cell::new(0),
            random: RefCell::new(Random::stream(seed, "world", 0)),
            journal: RefCell::default(),
            fleet: RefCell::new(Fleet::new()),
            aws: RefCell::default(),
            table: RefCell::default(),
            promises: RefCell::new(Promises::new(sites.len())),
            settling: RefCell::default(),
            answering,
            sites,
            processes,
            troubles: Troubles::default(),
            marks: RefCell::default(),
            edited: RefCell::default(),
            shells: RefCell::default(),
            targets: RefCell::default(),
            reports: RefCell::new(ReportTable::new(is_on)),
            requests: RefCell::default(),
            let_go: Cell::default(),
            failure: RefCell::default(),
            events: Cell::new(0),
        };
        for (index, entry) in world.schedule.iter().enumerate() {
            world.post(entry.at(), Event::Begin(index));
        }
        Rc::new(world)
    }

    /// AWS's clock, which orders lapse by.
    pub(crate) fn aws_time(&self) -> Timestamp {
        Timestamp::from_micros(START_OF_TIME + self.now() as i64)
    }

    pub(crate) fn now(&self) -> At {
        self.now.get()
    }

    /// A monotonic clock that shows `at`.
    pub(crate) fn instant(&self, at: At) -> Instant {
        self.epoch + Duration::from_micros(at)
    }

    pub(crate) fn post(&self, at: At, event: Event) {
        let number = self.queued.replace(self.queued.get() + 1);
        self.queue.borrow_mut().push(Reverse((at.max(self.now()), number, event)));
    }

    pub(crate) fn post_in(&self, micros: At, event: Event) {
        self.post(self.now() + micros, event);
    }

    pub(crate) fn note(&self, text: String) {
        self.journal.borrow_mut().note(self.now(), text);
    }

    /// A number of the run's own random numbers, from `from` up to and without `to`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.random.borrow_mut().below(to - from)
    }

    pub(crate) fn percent(&self, of_hundred: u64) -> bool {
        of_hundred > 0 && self.random.borrow_mut().percent(of_hundred)
    }

    /// A promise is broken: the run ends. The first failure counts.
    pub(crate) fn fail(&self, promise: &'static str, text: String) {
        self.note(format!("BROKEN: {promise}: {text}"));
        self.failure.borrow_mut().get_or_insert(Failure { at: self.now(), promise, text });
    }

    pub(crate) fn failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// Lets time pass, at most up to the end of a pause around this one.
    pub(crate) fn pass(self: &Rc<Self>, micros: At) {
        let end = (self.now() + micros).min(self.horizon.get());
        let outer = self.horizon.replace(end);
        self.run_until(end);
        self.horizon.set(outer);
    }

    /// Runs the events up to `end`, and sets the clock to it.
    pub(crate) fn run_until(self: &Rc<Self>, end: At) {
        while !self.failed() {
            let next = self.queue.borrow().peek().map(|Reverse((at, ..))| *at);
            if next.is_none_or(|at| at > end) {
                break;
            }
            let Some(Reverse((at, _, event))) = self.queue.borrow_mut().pop() else { break };
            self.now.set(self.now().max(at));
            self.events.set(self.events.get() + 1);
            self.handle(event);
        }
        self.now.set(self.now().max(end));
    }

    fn handle(self: &Rc<Self>, event: Event) {
        match event {
            Event::Wake { process, token } => self.wake(process, token),
            Event::Begin(index) => self.begin(index),
            Event::End(index) => self.end(index),
            Event::Instance(id, step) => self.step_instance(id, step),
            Event::Stranger(address, answers) => self.stranger(address, answers),
            Event::Check(site) => self.check_due(site),
            Event::Commit => self.commit_rest(),
            Event::ShellReads(index) => self.shell_reads(index),
            Event::ShellWrites(index) => self.shell_writes(index),
            Event::Lapse => self.disturb(self.now()),
            Event::Report { process, life } => self.report_is_due(process, life),
            Event::Held(number) => self.look_at_held(number),
        }
        self.check_promises();
    }

    /// Ends every process, which hold the world too.
    pub(crate) fn close(&self) {
        for process in &self.processes {
            drop(process.role.take());
        }
    }
}

/// How long `secs` are.
pub(crate) fn seconds(secs: u16) -> At {
    At::from(secs) * SECOND
}
