//! The report table: clients write their reports there, and the leader reads them all.
//!
//! A thread writes, because a turn must not wait for AWS: at once if something changed, at most once a second, and else every 10 s.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::dynamodb::{Item, ItemParser, delete_item, enable_expiry, is_unknown_operation, scan, update_item};
use super::report_item;
use super::schema::{Created, NamedTable, Schema};
use crate::aws::calls::Aws;
use crate::aws::error::AwsError;
use crate::aws::reading::parse_cache::ParseCache;
use crate::balancer::{BalancerItem, BalancerItems, BalancerReport};
use crate::clock::Timestamp;
use crate::log::Episode;
use crate::ports::{ReportReader, Reports, TurnError};

/// For one reading or writing, all attempts.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// For deleting a report: a process must exit within 0.8 s of SIGTERM.
const DELETE: Duration = Duration::from_millis(400);
/// The shortest time between two writings.
const CHANGED: Duration = Duration::from_secs(1);
/// The longest, and the time after one that failed. A leader takes 30 s without a change for silence.
const UNCHANGED: Duration = Duration::from_secs(10);
/// How long a report stands without a word from the client's loop, besides its interval.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long after the last writing DynamoDB may remove the item.
const LIFETIME: Duration = Duration::from_secs(86_400);

const SCHEMA: Schema = Schema {
    key: report_item::KEY,
    kind: "S",
    contents: "reports of load balancers",
    setting: "DYNAMODB_REPORT_TABLE_NAME",
};

/// The table of `DYNAMODB_REPORT_TABLE_NAME`.
pub struct ReportTable {
    table: NamedTable,
    entries: ParseCache<Result<BalancerItem, String>>,
}

impl ReportTable {
    /// A handle of the table. Makes no call.
    pub fn new(aws: Arc<Aws>, name: &str) -> Self {
        let table = NamedTable { aws, name: name.to_owned(), schema: &SCHEMA };
        ReportTable { table, entries: ParseCache::default() }
    }

    /// Creates the table with on-demand billing and expiry unless it exists, and waits up to 2 minutes until it is active.
    /// Never changes an existing table; one with another key is an error.
    pub fn create(&self) -> Result<Created, AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        let created = self.table.create()?;
        if created == Created::Created {
            match enable_expiry(aws, name, report_item::EXPIRES, &aws.budget(TIMEOUT * 5, ATTEMPT * 2)) {
                Err(error) if is_unknown_operation(&error) => {
                    warn!("table {name}: {error}; what a client leaves behind that is killed stays in it");
                }
                result => result?,
            }
        }
        Ok(created)
    }

    /// Every report, strongly consistent.
    pub fn scan(&self) -> Result<BalancerItems, AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        let parser = ItemParser { parse: &|item: Item| report_item::parse(&item), cache: &self.entries };
        let found = scan(aws, name, true, &aws.budget(TIMEOUT, ATTEMPT), &parser);
        let found = found.map_err(|error| self.table.explain_missing(error))?;
        let mut all = BalancerItems::default();
        for item in found {
            match item.as_ref() {
                Ok(item) => all.items.push(item.clone()),
                Err(why) => all.unreadable.push(why.clone()),
            }
        }
        all.unreadable.sort();
        Ok(all)
    }

    fn write(&self, balancer: &str, seen: u64, report: &BalancerReport) -> Result<(), AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        let expires = seen / 1_000 + LIFETIME.as_secs();
        let update = report_item::update(balancer, seen, expires, report);
        let written = update_item(aws, name, &update, &aws.budget(TIMEOUT, ATTEMPT));
        written.map(|_| ()).map_err(|error| self.table.explain_missing(error))
    }

    fn delete(&self, balancer: &str) -> Result<(), AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        delete_item(aws, name, &report_item::key(balancer), &aws.budget(DELETE, DELETE))
    }
}

impl ReportReader for ReportTable {
    fn read(&mut self) -> Result<BalancerItems, TurnError> {
        Ok(self.scan()?)
    }
}

/// What the writing thread is told.
enum Word {
    Report(BalancerReport),
    Silence,
    /// The client stops.
    Stop(Sender<()>),
}

/// Writes a client's reports in a thread of its own.
pub struct ReportWriter {
    words: Mutex<Sender<Word>>,
}

impl ReportWriter {
    /// Writes to `table` what the client of `balancer` (host and socket) reports, which takes a turn every `interval`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(table: ReportTable, balancer: String, interval: Duration) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let work = move || write_all(&table, &balancer, interval, &receiver);
        thread::Builder::new().name("reports".to_owned()).spawn(work)?;
        Ok(ReportWriter { words: Mutex::new(sender) })
    }

    /// Removes the report, as far as that can be done within half a second: nobody should wait for this load balancer.
    pub fn stop(&self) {
        let (done, wait) = channel();
        self.send(Word::Stop(done));
        let _ = wait.recv_timeout(DELETE + DELETE / 4);
    }

    fn send(&self, word: Word) {
        // The thread ends only with the process.
        let _ = self.words.lock().unwrap_or_else(PoisonError::into_inner).send(word);
    }
}

impl Reports for ReportWriter {
    fn report(&self, report: &BalancerReport) {
        self.send(Word::Report(report.clone()));
    }

    fn silence(&self) {
        self.send(Word::Silence);
    }
}

fn write_all(table: &ReportTable, balancer: &str, interval: Duration, words: &Receiver<Word>) {
    let mut schedule = Schedule::new(interval + PATIENCE);
    let mut trouble = Episode::new("DYNAMODB_REPORT_TABLE_NAME");
    let mut seen = 0;
    loop {
        let now = Instant::now();
        let wait = schedule.due().map_or(UNCHANGED, |due| due.saturating_duration_since(now));
        match words.recv_timeout(wait) {
            Ok(Word::Report(report)) => schedule.report(report, Instant::now()),
            Ok(Word::Silence) => schedule.silence(),
            Ok(Word::Stop(done)) => {
                if schedule.may_exist
                    && let Err(error) = table.delete(balancer)
                {
                    debug!("the report of this load balancer stays until it is silent for 30 s: {error}");
                }
                let _ = done.send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let Some(report) = schedule.take(now) else { continue };
        seen = u64::try_from(Timestamp::now().as_micros() / 1_000).unwrap_or(0).max(seen + 1);
        let result = table.write(balancer, seen, &report);
        schedule.wrote(report, result.is_ok(), Instant::now());
        let text = result.err().map(|error| {
            let error = TurnError::from(error);
            (error.key, format!("{}; nobody sees what this load balancer has carried out", error.text))
        });
        trouble.report(text.as_ref().map(|(key, text)| (key.as_str(), text.as_str())));
    }
}

/// When to write what.
#[derive(Debug)]
struct Schedule {
    /// How long a report stands without another word.
    patience: Duration,
    current: Option<(BalancerReport, Instant)>,
    /// What the item holds, if that is known.
    written: Option<BalancerReport>,
    /// When the last writing ended.
    last: Option<Instant>,
    failed: bool,
    /// An item may be there.
    may_exist: bool,
}

impl Schedule {
    fn new(patience: Duration) -> Self {
        Schedule { patience, current: None, written: None, last: None, failed: false, may_exist: false }
    }

    fn report(&mut self, report: BalancerReport, now: Instant) {
        self.current = Some((report, now));
    }

    fn silence(&mut self) {
        self.current = None;
    }

    /// When the next writing is due.
    fn due(&self) -> Option<Instant> {
        let (report, told) = self.current.as_ref()?;
        let pause = if !self.failed && self.written.as_ref() != Some(report) { CHANGED } else { UNCHANGED };
        let due = self.last.map_or(*told, |last| last + pause);
        (due <= *told + self.patience).then_some(due)
    }

    /// The report to write at `now`, if that is due.
    fn take(&mut self, now: Instant) -> Option<BalancerReport> {
        let report = self.due().filter(|due| *due <= now).and(self.current.as_ref()).map(|(report, _)| report.clone());
        self.may_exist |= report.is_some();
        report
    }

    fn wrote(&mut self, report: BalancerReport, ok: bool, now: Instant) {
        (self.last, self.failed) = (Some(now), !ok);
        self.written = ok.then_some(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_at_once_but_not_more_than_once_a_second_and_the_rest_every_ten() {
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let report = |spill| BalancerReport { spill, ..BalancerReport::default() };
        let mut schedule = Schedule::new(Duration::from_secs(21));
        assert_eq!(schedule.due(), None);
        assert!(!schedule.may_exist);
        let write = |schedule: &mut Schedule, tenths, ok| {
            let taken = schedule.take(at(tenths)).map(|report| {
                schedule.wrote(report.clone(), ok, at(tenths));
                report.spill
            });
            (taken, schedule.may_exist)
        };
        schedule.report(report(1), at(0));
        assert_eq!(write(&mut schedule, 0, true), (Some(1), true));
        schedule.report(report(2), at(5));
        assert_eq!(write(&mut schedule, 5, true).0, None, "too soon");
        schedule.report(report(3), at(9));
        assert_eq!(write(&mut schedule, 10, true).0, Some(3), "the newest of two");
        for tenths in 11..110 {
            schedule.report(report(3), at(tenths));
            assert_eq!(write(&mut schedule, tenths, true).0, None);
        }
        assert_eq!(write(&mut schedule, 110, true).0, Some(3), "as a sign of life");
        schedule.report(report(4), at(120));
        assert_eq!(write(&mut schedule, 120, false).0, Some(4));
        schedule.report(report(5), at(130));
        assert_eq!(write(&mut schedule, 130, true).0, None, "refused: not again at once");
        assert_eq!(write(&mut schedule, 220, true).0, Some(5));
        // The loop hangs: its last word does not stand for ever.
        assert_eq!(write(&mut schedule, 320, true).0, Some(5));
        assert_eq!((write(&mut schedule, 420, true).0, schedule.due()), (None, None));
        schedule.report(report(5), at(500));
        assert_eq!(write(&mut schedule, 500, true).0, Some(5));
        schedule.silence();
        assert_eq!((write(&mut schedule, 600, true).0, schedule.due()), (None, None));
    }
}
