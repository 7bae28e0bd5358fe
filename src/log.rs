//! The log: one line an event on stderr, and faults told when they begin, change and end.
//!
//! It knows no role and no setting but "debug or not". Nothing here may be trusted to hide a secret:
//! a dependency's chatter is kept out by level, what hsdo itself says is the caller's care.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Instant;

use log::{Level, LevelFilter};

use crate::clock::Timestamp;

/// The longest message of a line, in bytes before escaping; the rest is cut and the cut is shown.
const LONGEST: usize = 4096;

/// Sends the log to stderr: hsdo's own lines from `info`, or from `debug` if `debug` is set.
///
/// Everything else logs from `warn` only, whatever `debug` says: an HTTP library at `debug` prints headers, and with them
/// credentials. The environment (`RUST_LOG`) changes nothing. A second call has no effect.
pub fn init(debug: bool) {
    let own = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    let started = env_logger::Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module("hsdo", own)
        .target(env_logger::Target::Stderr)
        .format(|buffer, record| {
            writeln!(buffer, "{}", line(Timestamp::now(), record.level(), record.target(), *record.args()))
        })
        .try_init();
    if started.is_err() {
        log::debug!("the log is already set up");
    }
}

/// The text of one line, without its end.
fn line(now: Timestamp, level: Level, target: &str, message: fmt::Arguments<'_>) -> String {
    // `YYYY-MM-DD HH:MM:SS.ffffff` becomes `YYYY-MM-DDTHH:MM:SS.fffZ`.
    let moment = now.to_string();
    let (date, time) = moment.split_once(' ').unwrap_or((&moment, ""));
    let time = time.get(..12).unwrap_or(time);
    let module = target.strip_prefix("hsdo::").unwrap_or(target);
    let mut line = format!("{date}T{time}Z {level:<5} {module}: ");
    match message.as_str() {
        Some(text) => escape(text, &mut line),
        None => escape(&message.to_string(), &mut line),
    }
    line
}

/// Appends `message` so that it can neither start a line of its own nor steer a terminal.
///
/// The answer of a server, or a row of the table, may stand in it.
fn escape(message: &str, line: &mut String) {
    let end = message.floor_char_boundary(LONGEST);
    for character in message[..end].chars() {
        if character.is_control() || reorders(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    if end < message.len() {
        // Writing to a `String` cannot fail.
        let _ = write!(line, "... ({} bytes more)", message.len() - end);
    }
}

/// Unicode's line separators and the marks that turn the direction of writing: they make a line read as what it is not.
fn reorders(character: char) -> bool {
    matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    turns: u64,
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
    /// much its text changes (a request id, a count). Call it once a turn: the closing line counts the calls.
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
                let turns = if over.turns == 1 { "1 turn".to_owned() } else { format!("{} turns", over.turns) };
                let seconds = now.saturating_duration_since(over.began).as_secs();
                Some(Note::Over(format!("{subject}: over, after {turns} in {seconds} s")))
            }
            (Some((key, _)), Some(lasting)) if lasting.key == key => {
                lasting.turns += 1;
                None
            }
            (Some((key, text)), Some(changed)) => {
                key.clone_into(&mut changed.key);
                changed.turns += 1;
                Some(Note::Fault(format!("{subject}: {text}")))
            }
            (Some((key, text)), begins) => {
                *begins = Some(Fault { key: key.to_owned(), began: now, turns: 1 });
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

    #[test]
    fn a_message_cannot_start_a_line_or_steer_a_terminal() {
        for (message, expected) in [
            ("plain, ünïcode, \"quoted\" and \\", "plain, ünïcode, \"quoted\" and \\"),
            ("a\nb\r\n", "a\\nb\\r\\n"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("nul\0, c1 \u{9b}1m", "nul\\u{0}, c1 \\u{9b}1m"),
            ("a\u{2028}b\u{202e}c", "a\\u{2028}b\\u{202e}c"),
        ] {
            let mut text = String::new();
            escape(message, &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut text = String::new();
        escape(&format!("a{}", "é".repeat(3000)), &mut text);
        assert_eq!(text, format!("a{}... (1906 bytes more)", "é".repeat(2047)));
    }

    proptest! {
        #[test]
        fn whatever_the_message_it_is_one_bounded_line(message in ".*\n?.{0,50}") {
            let text = line(Timestamp::from_micros(MOMENT), Level::Info, "hsdo::client", format_args!("{message}"));
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.len() < LONGEST * 10 + 100);
        }
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
            (13, None, Some(Note::Over("table: over, after 4 turns in 12 s".to_owned()))),
            (14, None, None),
            (15, Some(("denied", "access denied")), Some(Note::Fault("table: access denied".to_owned()))),
            (16, None, Some(Note::Over("table: over, after 1 turn in 1 s".to_owned()))),
        ];
        for (second, fault, expected) in cases {
            assert_eq!(episode.note(start + Duration::from_secs(second), fault), expected, "second {second}");
        }
    }
}
