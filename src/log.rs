//! The log: one line per event on stderr; lasting faults are logged when they begin, change and end.
//!
//! Nothing here redacts secrets: dependencies are kept quiet by level, and callers must not log any.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter};

use crate::clock::Timestamp;
use crate::text::push_sanitized;

/// Sends the log to stderr: hsdo's own lines from `info`, or from `debug` if `debug` is set. A second call has no effect.
///
/// Dependencies log from `warn` only, even with `debug`: an HTTP library at `debug` prints headers, and credentials with
/// them. `RUST_LOG` is ignored.
pub fn init(debug: bool) {
    let own = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    let started = env_logger::Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module("hsdo", own)
        // It reports the end of its listener, which the exporter shuts on purpose.
        .filter_module("tiny_http", LevelFilter::Off)
        .target(background().map_or(env_logger::Target::Stderr, |queue| env_logger::Target::Pipe(Box::new(queue))))
        .format(|buffer, record| {
            writeln!(buffer, "{}", line(Timestamp::now(), record.level(), record.target(), *record.args()))
        })
        .try_init();
    if started.is_err() {
        log::debug!("the log is already set up");
    }
}

/// Waits up to 200 ms for queued lines to be written. Call it before the process exits.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        let (done, wait) = sync_channel(1);
        if queue.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_millis(200));
        }
    }
}

/// Lines go through a queue to a thread of their own, so that a stalled pipe on stderr blocks the log and no turn.
static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();

/// Lines in the queue; any more are dropped and counted.
const MAX_QUEUED: usize = 256;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

struct QueueWriter {
    lines: SyncSender<Message>,
    dropped: u64,
}

/// Starts the writer thread; `None` if the system refuses one.
fn background() -> Option<QueueWriter> {
    let (lines, queue) = sync_channel(MAX_QUEUED);
    thread::Builder::new().name("log".to_owned()).spawn(move || drain(&queue, &mut io::stderr())).ok()?;
    let _ = QUEUE.set(lines.clone());
    Some(QueueWriter { lines, dropped: 0 })
}

/// Writes queued lines. Write errors are ignored: a broken stderr must not affect the process.
fn drain(queue: &Receiver<Message>, out: &mut impl Write) {
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let note = format!("... {} log lines were dropped: standard error could not keep up\n", self.dropped);
            if self.lines.try_send(Message::Line(note.into_bytes())).is_ok() {
                self.dropped = 0;
            }
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(line.to_vec())) {
            self.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn line(now: Timestamp, level: Level, target: &str, message: fmt::Arguments<'_>) -> String {
    // `YYYY-MM-DDTHH:MM:SS.fffZ`
    let moment = now.to_string();
    let (date, time) = moment.split_once(' ').unwrap_or((&moment, ""));
    let time = time.get(..12).unwrap_or(time);
    let module = target.strip_prefix("hsdo::").unwrap_or(target);
    let mut line = format!("{date}T{time}Z {level:<5} {module}: ");
    match message.as_str() {
        Some(text) => push_sanitized(text, &mut line),
        None => push_sanitized(&message.to_string(), &mut line),
    }
    line
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
    began: Instant,
}

/// A line to log.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    Fault(String),
    Recovered(String),
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

    /// Reports the outcome of a turn: `None` for success, else the fault's `key` and `text`.
    ///
    /// The key identifies the fault and is not logged. While it stays the same, changes of the text (a request id, a
    /// count) are not logged.
    pub fn report(&mut self, fault: Option<(&str, &str)>) {
        match self.note(Instant::now(), fault) {
            Some(Note::Fault(text)) => log::warn!(target: self.target, "{text}"),
            Some(Note::Recovered(text)) => log::info!(target: self.target, "{text}"),
            None => {}
        }
    }

    fn note(&mut self, now: Instant, fault: Option<(&str, &str)>) -> Option<Note> {
        let subject = self.subject;
        match (fault, &mut self.fault) {
            (None, None) => None,
            (None, fault) => {
                let seconds = now.saturating_duration_since(fault.take()?.began).as_secs();
                Some(Note::Recovered(format!("{subject}: recovered after {seconds} s")))
            }
            (Some((key, _)), Some(ongoing)) if ongoing.key == key => None,
            (Some((key, text)), fault) => {
                let began = fault.as_ref().map_or(now, |ongoing| ongoing.began);
                *fault = Some(OngoingFault { key: key.to_owned(), began });
                Some(Note::Fault(format!("{subject}: {text}")))
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
        let mut log = QueueWriter { lines, dropped: 0 };
        for number in 1..=5 {
            log.write_all(format!("line {number}\n").as_bytes()).expect("taken or dropped");
        }
        let mut text = Vec::new();
        let mut read = |queue: &Receiver<Message>| {
            while let Ok(Message::Line(line)) = queue.try_recv() {
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
    fn an_episode_is_logged_when_it_begins_changes_and_ends() {
        let start = Instant::now();
        let mut episode = Episode::new("table");
        let cases = [
            (0, None, None),
            (1, Some(("timeout", "no answer in 5 s")), Some(Note::Fault("table: no answer in 5 s".to_owned()))),
            (2, Some(("timeout", "no answer in 6 s")), None),
            (3, Some(("denied", "access denied")), Some(Note::Fault("table: access denied".to_owned()))),
            (4, Some(("denied", "access denied")), None),
            (13, None, Some(Note::Recovered("table: recovered after 12 s".to_owned()))),
            (14, None, None),
            (15, Some(("denied", "access denied")), Some(Note::Fault("table: access denied".to_owned()))),
            (16, None, Some(Note::Recovered("table: recovered after 1 s".to_owned()))),
        ];
        for (second, fault, expected) in cases {
            assert_eq!(episode.note(start + Duration::from_secs(second), fault), expected, "second {second}");
        }
    }
}
