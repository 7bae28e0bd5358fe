//! The report table: clients write their reports there, and the leader reads them all.
//!
//! A thread writes, because a turn must not wait for AWS: at once if something changed, at most once a second, and else every 10 s.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::dynamodb::{
    Item, ItemParser, delete_item, enable_expiry, expiry, is_unknown_operation, replace_item, scan, update_item,
};
use super::report_item;
use super::report_schedule::{ReportSchedule, UNCHANGED};
use super::schema::{Created, NamedTable, Schema};
use crate::aws::calls::Aws;
use crate::aws::error::AwsError;
use crate::aws::random::random;
use crate::aws::reading::parse_cache::ParseCache;
use crate::balancer::{BalancerItem, BalancerItems, BalancerReport};
use crate::clock::Timestamp;
use crate::log::Episode;
use crate::ports::{ReportReader, Reports, TurnError};
use crate::text::one_line;

/// For one reading or writing, all attempts.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// For deleting a report: a process must exit within 0.8 s of SIGTERM.
const DELETE: Duration = Duration::from_millis(400);
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
    entries: ParseCache<Result<(BalancerItem, Option<String>), String>>,
}

impl ReportTable {
    /// A handle of the table. Makes no call.
    pub fn new(aws: Arc<Aws>, name: &str) -> Self {
        let table = NamedTable { aws, name: name.to_owned(), schema: &SCHEMA };
        ReportTable { table, entries: ParseCache::default() }
    }

    /// Creates the table with on-demand billing unless it exists, and waits up to 2 minutes until it is active. Turns the expiry of its
    /// items on, in a table that was there too, and changes nothing else of that; one with another key is an error.
    pub fn create(&self) -> Result<Created, AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        let created = self.table.create()?;
        // It may not have been allowed when the table was made.
        if created == Created::Created || !self.expires()? {
            match enable_expiry(aws, name, report_item::EXPIRES, &aws.budget(TIMEOUT * 5, ATTEMPT * 2)) {
                Err(error) if is_unknown_operation(&error) => {
                    warn!("table {name}: {error}; what a client leaves behind that is killed stays in it");
                }
                result => result?,
            }
        }
        Ok(created)
    }

    /// Whether its items expire, or whether that cannot be told.
    fn expires(&self) -> Result<bool, AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        match expiry(aws, name, &aws.budget(TIMEOUT * 5, ATTEMPT * 2)) {
            Ok(attribute) => Ok(attribute.is_some()),
            Err(error) if is_unknown_operation(&error) || error.is_access_denied() => Ok(true),
            Err(error) => Err(error),
        }
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
                Ok((item, fault)) => {
                    all.items.push(item.clone());
                    all.unreadable.extend(fault.clone());
                }
                Err(why) => all.unreadable.push(why.clone()),
            }
        }
        all.unreadable.sort();
        Ok(all)
    }

    /// Tries a write whose condition cannot hold.
    pub fn try_write(&self) -> Result<(), AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        let tried = update_item(aws, name, &report_item::impossible_update(), &aws.budget(TIMEOUT, ATTEMPT));
        tried.map(drop).map_err(|error| self.table.explain_missing(error))
    }

    /// Writes a report over the last one, and returns the process that wrote that.
    fn write(
        &self,
        balancer: &str,
        process: &str,
        seen: u64,
        report: &BalancerReport,
    ) -> Result<Option<String>, AwsError> {
        let NamedTable { aws, name, .. } = &self.table;
        // By AWS's clock, which removes what has expired.
        let expires = aws.now().plus(LIFETIME).as_secs_f64() as u64;
        let update = report_item::update(balancer, process, seen, expires, report);
        let before = replace_item(aws, name, &update, &aws.budget(TIMEOUT, ATTEMPT));
        let before = before.map_err(|error| self.table.explain_missing(error))?;
        Ok(report_item::writer(&before).map(str::to_owned))
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

    /// Removes the report, as far as that can be done within half a second: it is shown nowhere any more. A leader waits for it as for
    /// one that fell silent, because HAProxy may serve on.
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
    let mut schedule = ReportSchedule::new(interval);
    let mut trouble = Episode::new("DYNAMODB_REPORT_TABLE_NAME");
    let mut twin = Twin::new(format!("{:016x}", random()));
    let mut seen = 0;
    loop {
        let now = Instant::now();
        let wait = schedule.due().map_or(UNCHANGED, |due| due.saturating_duration_since(now));
        match words.recv_timeout(wait) {
            Ok(Word::Report(report)) => schedule.report(report, Instant::now()),
            Ok(Word::Silence) => schedule.silence(),
            Ok(Word::Stop(done)) => {
                if schedule.may_exist()
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
        let result = table.write(balancer, &twin.process, seen, &report);
        if let Ok(before) = &result {
            twin.see(before.as_deref(), balancer);
        }
        schedule.wrote(report, result.is_ok(), Instant::now());
        let text = result.err().map(|error| {
            let error = TurnError::from(error);
            (error.key, format!("{}; nobody sees what this load balancer has carried out", error.text))
        });
        trouble.report(text.as_ref().map(|(key, text)| (key.as_str(), text.as_str())));
    }
}

/// Notices another load balancer that reports by the same name.
struct Twin {
    process: String,
    /// How often in a row another process had written since this one did; none before the first writing.
    strange: Option<u32>,
    episode: Episode,
}

impl Twin {
    fn new(process: String) -> Self {
        Twin { process, strange: None, episode: Episode::new("reports") }
    }

    /// `before` is the process whose report was just replaced.
    fn see(&mut self, before: Option<&str>, balancer: &str) {
        let is_other = before.is_some_and(|before| before != self.process);
        // The first one may replace that of an earlier process.
        let strange = self.strange.map_or(0, |count| if is_other { count + 1 } else { 0 });
        self.strange = Some(strange);
        let text = format!(
            "another load balancer reports as \"{}\" too, so that one hides the sessions of the other; give each machine a host name \
             of its own",
            one_line(balancer, 200)
        );
        self.episode.report((strange >= 2).then_some(("twin", text.as_str())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_load_balancer_of_the_same_name_is_noticed() {
        let mut twin = Twin::new("me".to_owned());
        let mut see = |before| {
            twin.see(before, "lb-1 /s");
            twin.episode.is_open()
        };
        assert!(!see(Some("my predecessor")), "after a restart");
        assert!(!see(Some("me")) && !see(None), "an item that was deleted");
        assert!(!see(Some("other")), "an older process that was late");
        assert!(see(Some("other")) && see(Some("third")));
        assert!(!see(Some("me")), "it is gone");
    }
}
