//! The log: one line per event on stderr; lasting faults are logged when they begin, change and end.
//!
//! A line is text, or a JSON object with fields for what it is about: key-values at the call (`info!(slot = id; "…")`), or an
//! [`About`] where a message was put together elsewhere. The text format does not show them.
//!
//! Nothing here redacts secrets: dependencies are kept quiet by level, and callers must not log any.

mod json;

use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Record};

use crate::about::{About, Message};
use crate::clock::Timestamp;
use crate::text::{push_sanitized, sanitized};

/// The form of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, module and message.
    #[default]
    Text,
    /// An object per line, for programs.
    Json,
}

/// The format of this process; none until the log starts.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Sends the log to stderr: hsdo's own lines from `info`, or from `debug` if `debug` is set. A second call has no effect.
///
/// Dependencies log from `warn` only, even with `debug`: an HTTP library at `debug` prints headers, and credentials with
/// them. `RUST_LOG` is ignored.
pub fn init(debug: bool, format: Format) {
    let own = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    let queue = background(format);
    let started = env_logger::Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module("hsdo", own)
        // It reports the end of its listener, which the exporter shuts on purpose.
        .filter_module("tiny_http", LevelFilter::Off)
        .target(queue.map_or(env_logger::Target::Stderr, |queue| env_logger::Target::Pipe(Box::new(queue))))
        .format(move |buffer, record| match format {
            Format::Text => {
                writeln!(buffer, "{}", line(Timestamp::now(), record.level(), record.target(), *record.args()))
            }
            Format::Json => writeln!(buffer, "{}", json::line(Timestamp::now(), record)),
        })
        .try_init();
    if started.is_err() {
        log::debug!("the log is already set up");
        return;
    }
    let _ = FORMAT.set(format);
    if format == Format::Json {
        panic::set_hook(Box::new(|broken| {
            flush();
            let _ = io::stderr().write_all(last_line(&broken.to_string(), &About::default()).as_bytes());
        }));
    }
}

/// Logs a message. Where it is about one thing only, the macros of `log` take it as it is: `info!(slot = id; "…")`.
pub fn write(level: Level, target: &str, message: &Message) {
    if level <= log::max_level() {
        let Message { text, about } = message;
        let mut record = Record::builder();
        record.level(level).target(target).key_values(about);
        log::logger().log(&record.args(format_args!("{text}")).build());
    }
}

/// The line that says why the process ends, with its line end. It is not written: the log's thread may be gone.
pub fn last_line(text: &str, about: &About) -> String {
    last_line_in(FORMAT.get().copied().unwrap_or_default(), text, about)
}

fn last_line_in(format: Format, text: &str, about: &About) -> String {
    match format {
        Format::Text => format!("hsdo: {}\n", sanitized(text)),
        Format::Json => plain_json(Level::Error, text, about),
    }
}

/// A line as JSON that no macro of `log` asked for.
fn plain_json(level: Level, text: &str, about: &About) -> String {
    let mut record = Record::builder();
    record.level(level).target("hsdo").key_values(about);
    let mut line = json::line(Timestamp::now(), &record.args(format_args!("{text}")).build());
    line.push('\n');
    line
}

/// Waits up to 200 ms for queued lines to be written. Call it before the process exits.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        let (done, wait) = sync_channel(1);
        if queue.try_send(Entry::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_millis(200));
        }
    }
}

/// Lines go through a queue to a thread of their own, so that a stalled pipe on stderr blocks the log and no turn.
static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// Lines in the queue; any more are dropped and counted.
const MAX_QUEUED: usize = 256;

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

struct QueueWriter {
    format: Format,
    lines: SyncSender<Entry>,
    dropped: u64,
}

/// Starts the writer thread; `None` if the system refuses one.
fn background(format: Format) -> Option<QueueWriter> {
    let (lines, queue) = sync_channel(MAX_QUEUED);
    thread::Builder::new().name("log".to_owned()).spawn(move || drain(&queue, &mut io::stderr())).ok()?;
    let _ = QUEUE.set(lines.clone());
    Some(QueueWriter { format, lines, dropped: 0 })
}

/// Writes queued lines. Write errors are ignored: a broken stderr must not affect the process.
fn drain(queue: &Receiver<Entry>, out: &mut impl Write) {
    while let Ok(entry) = queue.recv() {
        match entry {
            Entry::Line(line) => drop(out.write_all(&line)),
            Entry::Flush(done) => drop(done.send(())),
        }
    }
}

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let note = format!("{} log lines were dropped: standard error could not keep up", self.dropped);
            let note = match self.format {
                Format::Text => format!("... {note}\n"),
                Format::Json => plain_json(Level::Warn, &note, &About::default()),
            };
            if self.lines.try_send(Entry::Line(note.into_bytes())).is_ok() {
                self.dropped = 0;
            }
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Entry::Line(line.to_vec())) {
            self.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn line(now: Timestamp, level: Level, target: &str, message: fmt::Arguments<'_>) -> String {
    let mut line = format!("{} {level:<5} {}: ", now.rfc3339(), module(target));
    match message.as_str() {
        Some(text) => push_sanitized(text, &mut line),
        None => push_sanitized(&message.to_string(), &mut line),
    }
    line
}

fn module(target: &str) -> &str {
    target.strip_prefix("hsdo::").unwrap_or(target)
}

/// A lasting fault: logged when it begins, turns into another one, or ends, not every turn.
#[derive(Debug)]
pub struct Episode {
    subject: &'static str,
    target: &'static str,
    fault: Option<OngoingFault>,
}

#[derive(Debug)]
struct OngoingFault {
    key: String,
    about: About,
    began: Instant,
}

/// A line to log.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    Fault(Message),
    Recovered(Message),
}

impl Episode {
    /// No fault yet. Each line starts with `subject`, such as `AWS` or `table`.
    pub fn new(subject: &'static str) -> Self {
        Episode { subject, target: "hsdo", fault: None }
    }

    /// Sets the module shown on its lines: `Episode::new("table").target(module_path!())`.
    #[must_use]
    pub fn target(self, target: &'static str) -> Self {
        Episode { target, ..self }
    }

    /// Whether the last outcome was a fault.
    pub fn is_open(&self) -> bool {
        self.fault.is_some()
    }

    /// Reports the outcome of a turn: `None` for success, else the fault's `key` and `text`.
    ///
    /// The key identifies the fault and is not logged. While it stays the same, changes of the text (a request id, a
    /// count) are not logged.
    pub fn report(&mut self, fault: Option<(&str, &str)>) {
        self.report_about(fault, &About::default());
    }

    /// Like [`Episode::report`], with what the fault is about. The line at its end is about the same.
    pub fn report_about(&mut self, fault: Option<(&str, &str)>, about: &About) {
        match self.note(Instant::now(), fault, about) {
            Some(Note::Fault(message)) => write(Level::Warn, self.target, &message),
            Some(Note::Recovered(message)) => write(Level::Info, self.target, &message),
            None => {}
        }
    }

    fn note(&mut self, now: Instant, fault: Option<(&str, &str)>, about: &About) -> Option<Note> {
        let subject = self.subject;
        match (fault, &mut self.fault) {
            (None, None) => None,
            (None, fault) => {
                let OngoingFault { about, began, .. } = fault.take()?;
                let seconds = now.saturating_duration_since(began).as_secs();
                Some(Note::Recovered(Message::new(format!("{subject}: recovered after {seconds} s"), about)))
            }
            (Some((key, _)), Some(ongoing)) if ongoing.key == key => None,
            (Some((key, text)), fault) => {
                let began = fault.as_ref().map_or(now, |ongoing| ongoing.began);
                *fault = Some(OngoingFault { key: key.to_owned(), about: about.clone(), began });
                Some(Note::Fault(Message::new(format!("{subject}: {text}"), about.clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::text::MAX_MESSAGE;

    const MOMENT: i64 = 1_767_323_045_678_999;

    #[test]
    fn a_line_has_time_level_module_and_message() {
        for (level, target, expected) in [
            (Level::Info, "hsdo::server", "2026-01-02T03:04:05.678Z INFO  server: message"),
            (Level::Warn, "hsdo::server::slots", "2026-01-02T03:04:05.678Z WARN  server::slots: message"),
            (Level::Error, "hsdo", "2026-01-02T03:04:05.678Z ERROR hsdo: message"),
            (Level::Debug, "rustls::conn", "2026-01-02T03:04:05.678Z DEBUG rustls::conn: message"),
        ] {
            assert_eq!(line(Timestamp::from_micros(MOMENT), level, target, format_args!("message")), expected);
        }
    }

    proptest! {
        #[test]
        fn any_message_becomes_one_bounded_line(message in ".*\n?.{0,50}") {
            let text = line(Timestamp::from_micros(MOMENT), Level::Info, "hsdo::client", format_args!("{message}"));
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.len() < MAX_MESSAGE * 10 + 100);
        }
    }

    #[test]
    fn a_log_that_nobody_reads_blocks_nobody() {
        let (lines, queue) = sync_channel(2);
        let mut log = QueueWriter { format: Format::Text, lines, dropped: 0 };
        for number in 1..=5 {
            log.write_all(format!("line {number}\n").as_bytes()).expect("taken or dropped");
        }
        let mut text = Vec::new();
        let mut read = |queue: &Receiver<Entry>| {
            while let Ok(Entry::Line(line)) = queue.try_recv() {
                text.extend(line);
            }
        };
        read(&queue);
        log.write_all(b"line 6\n").expect("taken");
        read(&queue);
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text, "line 1\nline 2\n... 3 log lines were dropped: standard error could not keep up\nline 6\n");
    }

    #[test]
    fn every_line_of_a_json_log_is_json() {
        let (lines, queue) = sync_channel(3);
        let mut log = QueueWriter { format: Format::Json, lines, dropped: 2 };
        log.write_all(b"{}\n").expect("taken");
        let Ok(Entry::Line(note)) = queue.try_recv() else { panic!("no note") };
        let parsed = |line: &[u8]| -> serde_json::Value {
            assert!(line.ends_with(b"}\n"), "{line:?}");
            serde_json::from_slice(line).expect("JSON")
        };
        let note = parsed(&note);
        assert_eq!(note["message"], "2 log lines were dropped: standard error could not keep up");
        assert_eq!((&note["level"], &note["target"]), (&"WARN".into(), &"hsdo".into()));
        let last = last_line_in(Format::Json, "it is over\n\"now\"", &About::default().backend(["http-back"]));
        let last = parsed(last.as_bytes());
        assert_eq!((&last["level"], &last["message"]), (&"ERROR".into(), &"it is over\\n\"now\"".into()));
        assert_eq!(last["backend"], "http-back");
        let text = last_line_in(Format::Text, "it is over\n\"now\"", &About::default().backend(["http-back"]));
        assert_eq!(text, "hsdo: it is over\\n\"now\"\n");
    }

    #[test]
    fn an_episode_is_logged_when_it_begins_changes_and_ends() {
        let start = Instant::now();
        let mut episode = Episode::new("table");
        let [one, other] = [1, 2].map(|slot| About::default().slot([slot]));
        let warn = |text: &str, about: &About| Some(Note::Fault(Message::new(text.to_owned(), about.clone())));
        let info = |text: &str, about: &About| Some(Note::Recovered(Message::new(text.to_owned(), about.clone())));
        let cases = [
            (0, None, &one, None),
            (1, Some(("timeout", "no answer in 5 s")), &one, warn("table: no answer in 5 s", &one)),
            (2, Some(("timeout", "no answer in 6 s")), &one, None),
            (3, Some(("denied", "access denied")), &other, warn("table: access denied", &other)),
            (4, Some(("denied", "access denied")), &one, None),
            (13, None, &one, info("table: recovered after 12 s", &other)),
            (14, None, &one, None),
            (15, Some(("denied", "access denied")), &one, warn("table: access denied", &one)),
            (16, None, &one, info("table: recovered after 1 s", &one)),
        ];
        for (second, fault, about, expected) in cases {
            assert_eq!(episode.note(start + Duration::from_secs(second), fault, about), expected, "second {second}");
        }
    }
}
