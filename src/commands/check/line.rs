//! The lines of `hsdo check`, and their form: a table for a terminal, plain text, or JSON. Pure.

use serde_json::{Value, json};

use crate::text::sanitized;

/// What a line means for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be, or told because it could not be asked.
    Ok,
    /// It works, but will surprise.
    Warn,
    /// A start fails, or a server gets no traffic, until somebody mends it.
    Mend,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Mend => "mend",
        }
    }

    /// Bold red, yellow and green: the word says the same.
    fn colour(self) -> &'static str {
        match self {
            Level::Ok => "\x1b[32m",
            Level::Warn => "\x1b[1;33m",
            Level::Mend => "\x1b[1;31m",
        }
    }
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What it means.
    pub(super) level: Level,
    /// The thing it is about: a setting, an IAM action, a backend.
    pub(super) subject: String,
    /// The fact.
    pub(super) text: String,
    /// What to do about it; every line but an `ok` one has a remedy.
    pub(super) remedy: Option<String>,
}

impl Line {
    /// As it should be.
    pub(super) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Line { level: Level::Ok, subject: subject.into(), text: text.into(), remedy: None }
    }

    /// It works, but will surprise.
    pub(super) fn warn(subject: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Line { level: Level::Warn, subject: subject.into(), text: text.into(), remedy: Some(remedy.into()) }
    }

    /// Somebody must mend it.
    pub(super) fn mend(subject: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Line { level: Level::Mend, ..Line::warn(subject, text, remedy) }
    }

    /// A `mend` line for a trouble.
    pub(super) fn trouble(subject: impl Into<String>, trouble: &Trouble) -> Self {
        Line::mend(subject, &trouble.text, &trouble.remedy)
    }
}

/// Why something could not be done, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is wrong.
    pub(super) text: String,
    /// What to do about it.
    pub(super) remedy: String,
    /// Whether the credentials lack permission.
    pub(super) denied: bool,
    /// Whether the table does not exist or is not one of ours.
    pub(super) table: bool,
}

/// Where the lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// Align the columns: it is a terminal.
    pub(super) columns: bool,
    /// Use colours.
    pub(super) colour: bool,
}

/// The widest column for subjects; a longer one moves its own line only.
const WIDEST: usize = 44;

/// The lines as text, and a last one that counts them.
pub(super) fn text(lines: &[Line], style: Style) -> String {
    let [ok, warn, mend] = counts(lines);
    format!("{}{ok} ok, {warn} warn, {mend} mend\n", self::lines(lines, style))
}

/// The lines as text.
pub(super) fn lines(lines: &[Line], style: Style) -> String {
    let shown: Vec<(Level, String, String)> =
        lines.iter().map(|line| (line.level, sanitized(&line.subject), body(line))).collect();
    let width = shown.iter().map(|(_, subject, _)| subject.chars().count()).filter(|width| *width <= WIDEST).max();
    let mut text = String::new();
    for (level, subject, body) in shown {
        let word = level.word();
        let word = if style.colour { format!("{}{word:<4}\x1b[0m", level.colour()) } else { format!("{word:<4}") };
        if style.columns {
            text.push_str(&format!("{word}  {subject:<width$}  {body}\n", width = width.unwrap_or(0)));
        } else {
            text.push_str(&format!("{word} {subject}: {body}\n"));
        }
    }
    text
}

fn body(line: &Line) -> String {
    let text = sanitized(&line.text);
    match &line.remedy {
        Some(remedy) => format!("{text}; remedy: {}", sanitized(remedy)),
        None => text,
    }
}

/// The lines as a JSON document.
pub(super) fn document(lines: &[Line], roles: &[&str]) -> Value {
    let one = |line: &Line| -> Value {
        json!({ "level": line.level.word(), "subject": line.subject, "text": line.text, "remedy": line.remedy })
    };
    let [ok, warn, mend] = counts(lines);
    json!({
        "hsdo": env!("CARGO_PKG_VERSION"),
        "roles": roles,
        "ok": ok,
        "warn": warn,
        "mend": mend,
        "lines": lines.iter().map(one).collect::<Vec<_>>(),
    })
}

fn counts(lines: &[Line]) -> [usize; 3] {
    [Level::Ok, Level::Warn, Level::Mend].map(|level| lines.iter().filter(|line| line.level == level).count())
}

/// The most serious level.
pub(super) fn worst(lines: &[Line]) -> Level {
    lines.iter().map(|line| line.level).max().unwrap_or(Level::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::print;

    fn some() -> Vec<Line> {
        vec![
            Line::ok("INTERVAL", "1 (the default)"),
            Line::mend("backend \"a\u{1b}[2J\"", "a\nb <b>", "do \"it\""),
            Line::warn("x", "y", "z"),
        ]
    }

    #[test]
    fn text_is_plain_or_a_table() {
        assert_eq!(
            text(&some(), Style::default()),
            "ok   INTERVAL: 1 (the default)\n\
             mend backend \"a\\u{1b}[2J\": a\\nb <b>; remedy: do \"it\"\n\
             warn x: y; remedy: z\n\
             1 ok, 1 warn, 1 mend\n"
        );
        let table = text(&some(), Style { columns: true, colour: false });
        assert!(table.starts_with("ok    INTERVAL              1 (the default)\n"), "{table}");
        let coloured = text(&some(), Style { columns: true, colour: true });
        assert!(coloured.contains("\x1b[1;31mmend\x1b[0m  backend"), "{coloured:?}");
        assert_eq!(worst(&some()), Level::Mend);
        assert_eq!(worst(&some()[..1]), Level::Ok);
    }

    #[test]
    fn json_is_data() {
        let printed = print::json(&document(&some(), &["client"]));
        assert!(!printed.contains('\u{1b}'), "{printed}");
        let document: Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!(document["lines"][1]["subject"], "backend \"a\u{1b}[2J\"");
        assert_eq!(document["lines"][1]["text"], "a\nb <b>");
        assert_eq!((&document["lines"][0]["remedy"], &document["mend"]), (&Value::Null, &1.into()));
        assert_eq!(document["roles"][0], "client");
    }
}
