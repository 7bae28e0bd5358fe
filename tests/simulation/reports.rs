//! The report table: what the clients write there, each in a thread of its own, and what the leader reads.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use hsdo::aws::ReportSchedule;
use hsdo::balancer::{BalancerItem, BalancerItems, BalancerReport};
use hsdo::ports::{ReportReader, Reports, TurnError};

use crate::journal::{At, MILLI};
use crate::settings::{SLOTS, Settings};
use crate::troubles::{Fault, Service};
use crate::world::{Event, World};

/// Who reports that sessions run on everything, and changes its word with every reading.
const LIAR: &str = "liar";

/// What a client's loop says to the thread that writes.
#[derive(Debug)]
enum Word {
    Report(BalancerReport),
    Silence,
}

/// Where it says that.
#[derive(Debug, Default)]
struct Desk(Mutex<Option<Word>>);

impl Desk {
    fn put(&self, word: Word) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
    }

    fn take(&self) -> Option<Word> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Reports for Desk {
    fn report(&self, report: &BalancerReport) {
        self.put(Word::Report(report.clone()));
    }

    fn silence(&self) {
        self.put(Word::Silence);
    }
}

/// The thread of a client that writes its reports.
#[derive(Debug)]
pub(crate) struct Writer {
    desk: Arc<Desk>,
    schedule: ReportSchedule,
    /// When it looks at its schedule next.
    planned: Option<At>,
}

impl Writer {
    pub(crate) fn new(site: usize) -> Self {
        let schedule = ReportSchedule::new(Settings::client(site).common.interval);
        Writer { desk: Arc::default(), schedule, planned: None }
    }

    pub(crate) fn desk(&self) -> Arc<dyn Reports> {
        Arc::clone(&self.desk) as _
    }
}

/// The report table.
#[derive(Debug, Default)]
pub(crate) struct ReportTable {
    /// Whether this run has one.
    pub(crate) is_on: bool,
    items: BTreeMap<String, BalancerItem>,
    unreadable: Vec<String>,
    /// When each site's report was last written.
    written: BTreeMap<usize, At>,
    /// When an item was last removed by another hand, or by the client that stopped.
    pub(crate) removed: At,
    /// The liars and the dead, by the entries of the schedule that made them.
    strangers: BTreeMap<usize, Vec<String>>,
    reads: u64,
}

fn name(site: usize) -> String {
    format!("balancer {site}")
}

impl ReportTable {
    pub(crate) fn new(is_on: bool) -> Self {
        ReportTable { is_on, ..ReportTable::default() }
    }

    /// Whether the leader may take the load balancer of this site for one that is gone.
    pub(crate) fn may_be_silent(&self, site: usize, now: At) -> bool {
        // The leader's clock may run fast.
        self.written.get(&site).is_none_or(|written| written + 29_900 * MILLI < now)
    }

    /// Whether the report of this site is not there.
    pub(crate) fn lacks(&self, site: usize) -> bool {
        !self.items.contains_key(&name(site))
    }

    pub(crate) fn has_strangers(&self) -> bool {
        !self.strangers.is_empty()
    }

    fn write(&mut self, site: usize, seen: u64, report: BalancerReport, now: At) {
        let name = name(site);
        self.unreadable.retain(|other| *other != name);
        self.items.insert(name.clone(), BalancerItem { name, seen, report });
        self.written.insert(site, now);
    }
}

impl World {
    /// After a turn of a client.
    pub(crate) fn client_has_turned(&self, process: usize) {
        let of = &self.processes[process];
        let clock = of.clock(self);
        if let Some(writer) = &mut *of.writer.borrow_mut() {
            match writer.desk.take() {
                Some(Word::Report(report)) => writer.schedule.report(report, clock),
                Some(Word::Silence) => writer.schedule.silence(),
                None => {}
            }
        }
        self.plan_report(process);
    }

    fn plan_report(&self, process: usize) {
        let of = &self.processes[process];
        let Some(writer) = &mut *of.writer.borrow_mut() else { return };
        let Some(due) = writer.schedule.due() else { return };
        let wait = due.saturating_duration_since(of.clock(self)).as_micros() as At;
        let at = self.now() + wait.max(MILLI);
        // Two clocks may tell the same moment a little apart.
        if writer.planned.is_none_or(|planned| at + 10 * MILLI < planned || planned <= self.now()) {
            writer.planned = Some(at);
            self.post(at, Event::Report { process, life: of.life() });
        }
    }

    /// The thread that writes a client's reports looks at its schedule.
    pub(crate) fn report_is_due(&self, process: usize, life: u64) {
        let of = &self.processes[process];
        if of.life() != life || !of.is_up() {
            return;
        }
        let crate::process::Kind::Client(site) = of.kind else { return };
        let taken = match &mut *of.writer.borrow_mut() {
            // The whole process stands still.
            Some(_) if of.stands_still.get() => None,
            Some(writer) if writer.planned.is_some_and(|planned| planned <= self.now()) => {
                writer.schedule.take(of.clock(self))
            }
            _ => return,
        };
        if let Some(report) = taken {
            let fault = self.troubles.of(Service::Reports).get();
            let (arrives, is_told) = match fault {
                Some(Fault::Refuses(percent)) if self.percent(percent.into()) => (false, false),
                Some(Fault::LosesAnswers(percent)) if self.percent(percent.into()) => (true, false),
                Some(Fault::Hangs(_)) => (false, false),
                _ => (true, true),
            };
            if arrives {
                let millis = u64::try_from(of.time_of_day(self).as_micros() / 1_000).unwrap_or(0);
                let seen = millis.max(of.reported.get() + 1);
                of.reported.set(seen);
                self.reports.borrow_mut().write(site, seen, report.clone(), self.now());
            }
            if let Some(writer) = &mut *of.writer.borrow_mut() {
                writer.schedule.wrote(report, is_told, of.clock(self));
            }
        }
        if let Some(writer) = &mut *of.writer.borrow_mut() {
            writer.planned = None;
        }
        self.plan_report(process);
    }

    /// A client that is stopped removes its report, if it can.
    pub(crate) fn removes_its_report(&self, process: usize) {
        let of = &self.processes[process];
        let crate::process::Kind::Client(site) = of.kind else { return };
        let is_written = of.writer.borrow().as_ref().is_some_and(|writer| writer.schedule.may_exist());
        if is_written && self.troubles.of(Service::Reports).get().is_none() {
            let reports = &mut *self.reports.borrow_mut();
            reports.items.remove(&name(site));
            reports.removed = self.now();
        }
    }

    pub(crate) fn empty_reports(&self) {
        let reports = &mut *self.reports.borrow_mut();
        reports.items.clear();
        reports.strangers.clear();
        reports.removed = self.now();
    }

    /// Somebody writes something else into the item of a site.
    pub(crate) fn spoil_report(&self, site: usize) {
        let reports = &mut *self.reports.borrow_mut();
        if let Some(item) = reports.items.get_mut(&name(site)) {
            item.report = BalancerReport::default();
            reports.unreadable.push(name(site));
        }
    }

    /// Load balancers of others, dead or lying.
    pub(crate) fn strangers_report(&self, index: usize, count: Option<u8>) {
        let reports = &mut *self.reports.borrow_mut();
        let names: Vec<String> = match count {
            Some(count) => (0..count).map(|number| format!("dead {index}/{number}")).collect(),
            None => vec![LIAR.to_owned()],
        };
        for name in &names {
            let sessions = (1..=SLOTS).map(|slot| (slot, 5)).collect();
            let report = BalancerReport { version: Some(1), sessions, ..BalancerReport::default() };
            reports.items.insert(name.clone(), BalancerItem { name: name.clone(), seen: 1, report });
        }
        reports.strangers.insert(index, names);
    }

    pub(crate) fn strangers_leave(&self, index: usize) {
        let reports = &mut *self.reports.borrow_mut();
        for name in reports.strangers.remove(&index).into_iter().flatten() {
            // Two entries may have sent the same one.
            if !reports.strangers.values().flatten().any(|other| *other == name) {
                reports.items.remove(&name);
            }
        }
    }
}

/// The report table as a server reads it.
pub(crate) struct ReportEdge {
    world: Rc<World>,
    process: usize,
}

impl ReportEdge {
    pub(crate) fn new(world: &Rc<World>, process: usize) -> Self {
        ReportEdge { world: Rc::clone(world), process }
    }
}

impl ReportReader for ReportEdge {
    fn read(&mut self) -> Result<BalancerItems, TurnError> {
        const WHAT: &str = "the Scan of the reports";
        self.world.call(self.process, Service::Reports, WHAT)?;
        let reading = {
            let reports = &mut *self.world.reports.borrow_mut();
            reports.reads += 1;
            if let Some(liar) = reports.items.get_mut(LIAR) {
                liar.seen = reports.reads;
            }
            BalancerItems { items: reports.items.values().cloned().collect(), unreadable: reports.unreadable.clone() }
        };
        self.world.answer(self.process, Service::Reports, WHAT)?;
        Ok(reading)
    }
}
