//! The log: one line an event on stderr, and faults told when they begin, change and end.
//!
//! It knows no role and no setting but "debug or not". Nothing here may be trusted to hide a secret:
//! a dependency's chatter is kept out by level, what hsdo itself says is the caller's care.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter};

use crate::clock::Timestamp;
use crate::text::push_sanitized;

/// Sends the log to stderr: hsdo's own lines from `info`, or from `debug` if `debug` is set.
///
/// Everything else logs from `warn` only, whatever `debug` says: an HTTP library at `debug` prints headers, and with them
/// credentials. The environment (`RUST_LOG`) changes nothing. A second call has no effect.
pub fn init(debug: bool) {
    let own = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    let started = env_logger::Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module("hsdo", own)
        .target(background().map_or(env_logger::Target::Stderr, |queue| env_logger::Target::Pipe(Box::new(queue))))
        .format(|buffer, record| {
            writeln!(buffer, "{}", line(Timestamp::now(), record.level(), record.target(), *record.args()))
        })
        .try_init();
    if started.is_err() {
        log::debug!("the log is already set up");
    }
}

/// Waits until what was logged so far is written, for a fifth of a second at most: before the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        let (done, wait) = sync_channel(1);
        if queue.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_millis(200));
        }
    }
}

/// Who writes the log waits for whoever reads it: a thread of its own, so that a pipe which nobody reads holds up the
/// log and not the load balancer.
static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();

/// How many lines may wait; the ones after that are dropped, and counted.
const WAITING: usize = 256;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The end of the queue that the log writes to.
struct Queue {
    lines: SyncSender<Message>,
    dropped: u64,
}

/// Starts the writing thread; `None` where the system refuses one.
fn background() -> Option<Queue> {
    let (lines, queue) = sync_channel(WAITING);
    thread::Builder::new().name("log".to_owned()).spawn(move || drain(&queue, &mut io::stderr())).ok()?;
    let _ = QUEUE.set(lines.clone());
    Some(Queue { lines, dropped: 0 })
}

/// Writes what comes until nobody can send any more. An error of the reader's end changes nothing for the process.
fn drain(queue: &Receiver<Message>, out: &mut impl Write) {
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let note = format!(
                "... {} lines of the log were dropped: they came faster than standard error took them\n",
                self.dropped
            );
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

/// The text of one line, without its end.
pub(crate) fn line(now: Timestamp, level: Level, target: &str, message: fmt::Arguments<'_>) -> String {
    // `YYYY-MM-DD HH:MM:SS.ffffff` becomes `YYYY-MM-DDTHH:MM:SS.fffZ`.
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

/// A fault that lasts: logged when it begins, when it becomes another one, and when it ends, not every turn.
#[derive(Debug)]
pub struct Episode {
    subject: &'static str,
    target: &'static str,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Fault {
    key: String,
    began: Instant,
}

/// What a report makes worth a line.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    Fault(String),
    Over(String),
}

impl Episode {
    /// No fault yet. `subject` opens each of its lines: `aws`, `table`, `haproxy`.
    pub fn new(subject: &'static str) -> Self {
        Episode { subject, target: "hsdo", fault: None }
    }

    /// The module that its lines name: `Episode::new("table").target(module_path!())`.
    #[must_use]
    pub fn target(self, target: &'static str) -> Self {
        Episode { target, ..self }
    }

    /// Says how this turn went: `None` for well, else the fault's `key` and `text`.
    ///
    /// The key tells one fault from another and is not shown; a fault whose key stays the same is logged once, however
    /// much its text changes (a request id, a count).
    pub fn report(&mut self, fault: Option<(&str, &str)>) {
        match self.note(Instant::now(), fault) {
            Some(Note::Fault(text)) => log::warn!(target: self.target, "{text}"),
            Some(Note::Over(text)) => log::info!(target: self.target, "{text}"),
            None => {}
        }
    }

    fn note(&mut self, now: Instant, fault: Option<(&str, &str)>) -> Option<Note> {
        let subject = self.subject;
        match (fault, &mut self.fault) {
            (None, None) => None,
            (None, over) => {
                let over = over.take()?;
                let seconds = now.saturating_duration_since(over.began).as_secs();
                Some(Note::Over(format!("{subject}: over, after {seconds} s")))
            }
            (Some((key, _)), Some(lasting)) if lasting.key == key => None,
            (Some((key, text)), Some(changed)) => {
                key.clone_into(&mut changed.key);
                Some(Note::Fault(format!("{subject}: {text}")))
            }
            (Some((key, text)), begins) => {
                *begins = Some(Fault { key: key.to_owned(), began: now });
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
        fn whatever_the_message_it_is_one_bounded_line(message in ".*\n?.{0,50}") {
            let text = line(Timestamp::from_micros(MOMENT), Level::Info, "hsdo::client", format_args!("{message}"));
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.len() < MAX_MESSAGE * 10 + 100);
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_nobody() {
        let (lines, queue) = sync_channel(2);
        let mut log = Queue { lines, dropped: 0 };
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
        assert_eq!(
            text,
            "line 1\nline 2\n... 3 lines of the log were dropped: they came faster than standard error took them\nline 6\n"
        );
    }

    #[test]
    fn an_episode_is_told_when_it_begins_changes_and_ends() {
        let start = Instant::now();
        let mut episode = Episode::new("table");
        let cases = [
            (0, None, None),
            (1, Some(("timeout", "no answer in 5 s")), Some(Note::Fault("table: no answer in 5 s".to_owned()))),
            (2, Some(("timeout", "no answer in 6 s")), None),
            (3, Some(("denied", "access denied")), Some(Note::Fault("table: access denied".to_owned()))),
            (4, Some(("denied", "access denied")), None),
            (13, None, Some(Note::Over("table: over, after 12 s".to_owned()))),
            (14, None, None),
            (15, Some(("denied", "access denied")), Some(Note::Fault("table: access denied".to_owned()))),
            (16, None, Some(Note::Over("table: over, after 1 s".to_owned()))),
        ];
        for (second, fault, expected) in cases {
            assert_eq!(episode.note(start + Duration::from_secs(second), fault), expected, "second {second}");
        }
    }
}
