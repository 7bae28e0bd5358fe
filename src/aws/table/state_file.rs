//! The last whole table, kept in a file (`CLIENT_STATE_FILE`), so that a client can start while AWS cannot be read.
//!
//! [`KeptTable`] reads the table like [`SlotTable`] and keeps what it read. A thread writes the file, because a disk may be
//! slow and a turn must not wait for it. The file is replaced as a whole, so a crash leaves the old one or the new one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{info, warn};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codec::{self, ParsedItem};
use super::dynamodb::Item;
use super::store::SlotTable;
use crate::clock::Timestamp;
use crate::log::Episode;
use crate::marker::Marker;
use crate::ports::{Kept, TableReader, TurnError};
use crate::settings::StateFile;
use crate::slot::{Row, SlotId, Table};
use crate::text::one_line;
use crate::text_file;

/// The version of the file's layout.
const FORMAT: u32 = 1;
/// The largest file that is read, in bytes. 10,000 slots with the longest names take about 40 MB; usual ones take 3 MB.
const LARGEST: u64 = 64 * 1024 * 1024;
/// How long AWS has for its first answer while a kept table is at hand.
const FIRST_ANSWER: Duration = Duration::from_millis(1_200);
/// What stands between the file's name and a process id in the name of a file that is being written.
const NEW: &str = ".new-";
/// How often the time in the file is renewed while the table does not change. The file's age then tells how long ago the
/// table was last confirmed.
const RENEW: Duration = Duration::from_secs(60);

/// The file, below the line with its checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    table: String,
    region: String,
    /// When the table was read, in UTC.
    read_at: String,
    /// The readable rows, spelled as in the table.
    rows: Vec<Item>,
    /// The numbers of the rows that could not be read.
    unreadable: Vec<SlotId>,
    /// The zone of the load balancer, if the client has asked for it.
    #[serde(default)]
    zone: Option<String>,
}

/// A table as it is to be written.
#[derive(Clone, Debug)]
struct Snapshot {
    table: Table,
    name: String,
    region: String,
    read_at: Timestamp,
    zone: Option<String>,
}

/// The text of the file: a line with the SHA-256 of the rest, then JSON.
fn encode(snapshot: &Snapshot) -> String {
    let unreadable = |(id, row): (&SlotId, &Row)| matches!(row, Row::Unreadable { .. }).then_some(*id);
    let content = Content {
        format: FORMAT,
        table: snapshot.name.clone(),
        region: snapshot.region.clone(),
        read_at: snapshot.read_at.to_string(),
        rows: snapshot.table.slots().map(codec::item).collect(),
        unreadable: snapshot.table.rows.iter().filter_map(unreadable).collect(),
        zone: snapshot.zone.clone(),
    };
    let json = serde_json::to_string(&content).expect("texts and numbers are always JSON");
    format!("{}\n{json}\n", checksum(&json))
}

/// The table that a file's text keeps, if it is whole, of this table, and young enough.
///
/// # Errors
/// Why the file cannot be used.
fn decode(text: &str, name: &str, region: Option<&str>, max_age: Duration, now: Timestamp) -> Result<Kept, String> {
    table_of(content(text, name, region)?, max_age, now)
}

/// The content of a file's text, if it is whole and of this table. `region` is checked where it is known.
fn content(text: &str, name: &str, region: Option<&str>) -> Result<Content, String> {
    let (sum, json) = text.split_once('\n').ok_or("it is not whole: the line with its checksum is cut")?;
    let json = json.strip_suffix('\n').unwrap_or(json);
    if checksum(json) != sum {
        return Err("its checksum is wrong: it is not whole, was edited, or is not a file of hsdo".to_owned());
    }
    let content: Content =
        serde_json::from_str(json).map_err(|error| format!("another version of hsdo wrote it: {error}"))?;
    if content.format != FORMAT {
        return Err(format!("another version of hsdo wrote it, in format {} instead of {FORMAT}", content.format));
    }
    if content.table != name {
        return Err(format!("it is of table \"{}\", not \"{name}\"", one_line(&content.table, 255)));
    }
    match region.filter(|region| *region != content.region) {
        Some(region) => Err(format!("it is of region \"{}\", not \"{region}\"", one_line(&content.region, 64))),
        None => Ok(content),
    }
}

/// The table of a file, if it is young enough.
fn table_of(content: Content, max_age: Duration, now: Timestamp) -> Result<Kept, String> {
    let read_at = Timestamp::parse(&content.read_at).ok_or("its time cannot be read")?;
    let age = now.since(read_at).unwrap_or_default();
    if age > max_age {
        return Err(format!(
            "the table in it was read {} s ago, and CLIENT_STATE_MAX_AGE allows {} s",
            age.as_secs(),
            max_age.as_secs()
        ));
    }
    if read_at.since(now).is_some_and(|ahead| ahead > max_age) {
        return Err(format!("the table in it was read at {read_at}, which is ahead of this machine's clock"));
    }
    let mut table = Table::default();
    for item in content.rows {
        match codec::parse_item(item) {
            ParsedItem::Slot { id, row: row @ Row::Readable(_), .. } => table.rows.insert(id, row),
            ParsedItem::Slot { id, row: Row::Unreadable { reason, .. }, .. } => {
                return Err(format!("slot {id}: {reason}"));
            }
            ParsedItem::Stray(text) => return Err(text),
        };
    }
    for id in content.unreadable {
        let reason = "it could not be read when the state file was written".to_owned();
        table.rows.insert(id, Row::Unreadable { reason, address: None });
    }
    if table.rows.is_empty() {
        return Err("it holds no row".to_owned());
    }
    Ok(Kept { table, age })
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Replaces the file as a whole: written beside it, synced, renamed.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written?;
    // Without it, a power cut may bring the old file back: older, but whole.
    File::open(directory(path))?.sync_all()
}

/// Where a new file is written: a name of this process, so that two clients with one file do not write into each other.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{NEW}{}", std::process::id()));
    path.with_file_name(name)
}

/// Removes what processes left beside the file that were killed while they wrote. It is of no use, and each may leave one.
fn remove_leftovers(path: &Path) {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(NEW);
    for entry in fs::read_dir(directory(path)).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the writing thread is to do next.
#[derive(Default)]
struct Mailbox {
    next: Option<Snapshot>,
    closed: bool,
}

/// Writes snapshots in a thread of its own; of several that wait, only the newest.
struct Writer {
    mailbox: Arc<(Mutex<Mailbox>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(path: PathBuf) -> io::Result<Self> {
        remove_leftovers(&path);
        let mailbox = Arc::<(Mutex<Mailbox>, Condvar)>::default();
        let shared = Arc::clone(&mailbox);
        let work = move || {
            let mut trouble = Episode::new("CLIENT_STATE_FILE");
            let (mailbox, changed) = &*shared;
            loop {
                let mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
                let idle = |mailbox: &mut Mailbox| mailbox.next.is_none() && !mailbox.closed;
                let mut mailbox = changed.wait_while(mailbox, idle).unwrap_or_else(PoisonError::into_inner);
                let Some(snapshot) = mailbox.next.take() else { return };
                drop(mailbox);
                let fault = replace(&path, &encode(&snapshot)).err().map(|error| {
                    format!(
                        "the table cannot be kept in {}: {error}; does its directory exist, and is it writable?",
                        path.display()
                    )
                });
                trouble.report(fault.as_ref().map(|text| (text.as_str(), text.as_str())));
            }
        };
        let thread = Some(thread::Builder::new().name("state file".to_owned()).spawn(work)?);
        Ok(Writer { mailbox, thread })
    }

    fn write(&self, snapshot: Snapshot) {
        let (mailbox, changed) = &*self.mailbox;
        mailbox.lock().unwrap_or_else(PoisonError::into_inner).next = Some(snapshot);
        changed.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (mailbox, changed) = &*self.mailbox;
        mailbox.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        changed.notify_one();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The table as a client reads it, kept in a file where one is set.
pub struct KeptTable {
    table: SlotTable,
    keeper: Option<Keeper>,
    /// The zone of the load balancer, for the file to remember.
    zone: Option<String>,
}

struct Keeper {
    writer: Writer,
    /// What the file held at start, until it is used or AWS has answered.
    kept: Option<Kept>,
    /// The deadline for AWS's first answer; none before the first request.
    first_deadline: Option<Instant>,
    /// The table that was written last, and when.
    written: Option<(Table, Instant)>,
}

impl KeptTable {
    /// `table`, kept in `file` if there is one. What the file holds is read now; a file that cannot be used is logged, and is
    /// no error. `region` is that of the table, where the configuration names it; `zone` is what the file is to remember.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(
        table: SlotTable,
        file: Option<StateFile>,
        region: Option<&str>,
        zone: Option<String>,
    ) -> io::Result<Self> {
        let keeper = file.map(|file| {
            let kept = load(&file, table.name(), region);
            Ok::<_, io::Error>(Keeper { writer: Writer::start(file.path)?, kept, first_deadline: None, written: None })
        });
        Ok(KeptTable { keeper: keeper.transpose()?, table, zone })
    }
}

/// The table of a file, if it can be used.
fn load(file: &StateFile, name: &str, region: Option<&str>) -> Option<Kept> {
    let kept = match text_file::read_up_to(&file.path, LARGEST) {
        Ok(text) => decode(&text, name, region, file.max_age, Timestamp::now()),
        Err(fault) if fault.kind == Some(io::ErrorKind::NotFound) => {
            info!("CLIENT_STATE_FILE: {} is not there yet, so a start without AWS finds no table", file.path.display());
            return None;
        }
        Err(fault) => Err(fault.why),
    };
    kept.map_err(|why| warn!("CLIENT_STATE_FILE: {} is not used: {why}", file.path.display())).ok()
}

/// The zone that a state file remembers. However old it is: a zone does not change.
pub fn remembered_zone(file: &StateFile, name: &str, region: Option<&str>) -> Option<String> {
    let text = text_file::read_up_to(&file.path, LARGEST).ok()?;
    content(&text, name, region).ok()?.zone
}

impl TableReader for KeptTable {
    fn marker(&mut self, until: Instant) -> Result<Marker, TurnError> {
        let until = self.deadline(until);
        TableReader::marker(&mut self.table, until)
    }

    fn read(&mut self, consistent: bool, until: Instant) -> Result<Table, TurnError> {
        let until = self.deadline(until);
        let table = TableReader::read(&mut self.table, consistent, until)?;
        if let Some(keeper) = &mut self.keeper {
            keeper.kept = None;
            keeper.keep(&table, consistent, &self.table, self.zone.as_deref());
        }
        Ok(table)
    }

    fn kept(&mut self) -> Option<Kept> {
        self.keeper.as_mut()?.kept.take()
    }
}

impl KeptTable {
    /// The deadline of a request, sooner while a kept table is at hand.
    fn deadline(&mut self, until: Instant) -> Instant {
        match self.keeper.as_mut().filter(|keeper| keeper.kept.is_some()) {
            Some(keeper) => until.min(*keeper.first_deadline.get_or_insert_with(|| Instant::now() + FIRST_ANSWER)),
            None => until,
        }
    }
}

impl Keeper {
    /// Queues a consistent reading for writing if it is new, and once a minute any reading that confirms it. A table without
    /// rows tells a client nothing, and does not replace one that does.
    fn keep(&mut self, table: &Table, consistent: bool, store: &SlotTable, zone: Option<&str>) {
        let same = self.written.as_ref().filter(|(written, _)| written == table);
        let due = match same {
            Some((_, when)) => when.elapsed() >= RENEW,
            None => consistent,
        };
        if !due || table.rows.is_empty() {
            return;
        }
        self.written = Some((table.clone(), Instant::now()));
        self.writer.write(Snapshot {
            table: table.clone(),
            name: store.name().to_owned(),
            region: store.region().to_owned(),
            read_at: Timestamp::now(),
            zone: zone.map(str::to_owned),
        });
    }
}

#[cfg(test)]
#[path = "state_file_tests.rs"]
mod tests;
