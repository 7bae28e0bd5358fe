//! A small table printer: a row is a line, whatever its cells hold.

use std::io::IsTerminal;

use serde_json::Value;

use crate::environment::Environment;
use crate::text::{is_unsafe, sanitized};

/// Columns are padded up to this many characters. A longer cell moves only what follows it in its row.
const MAX_WIDTH: usize = 60;

/// How to show a cell. The text alone says the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// Of less interest.
    Faint,
    Good,
    /// Something to look at.
    Warn,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Cell { text: text.into(), tone }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::new(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::new(text, Tone::Plain)
    }
}

/// Whether to use colours: on a terminal that knows them, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn has_colours(env: &Environment) -> bool {
    std::io::stdout().is_terminal() && env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb")
}

/// The rows as aligned lines below a header, which may be empty.
pub(super) fn table(header: &[&str], rows: &[Vec<Cell>], colours: bool) -> String {
    let titles: Vec<Cell> = header.iter().map(|title| Cell::from(*title)).collect();
    let lines: Vec<Vec<Cell>> = Some(titles)
        .filter(|titles| !titles.is_empty())
        .into_iter()
        .chain(rows.iter().cloned())
        .map(|row| row.into_iter().map(|cell| Cell { text: sanitized(&cell.text), ..cell }).collect())
        .collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let lengths = lines.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        lengths.filter(|length| *length <= MAX_WIDTH).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in lines.iter().enumerate() {
        let is_header = number == 0 && !header.is_empty();
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&painted(cell, is_header, colours));
            line.push_str(&" ".repeat(width.saturating_sub(cell.text.chars().count()) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The document with its line end. Characters that JSON lets pass but a terminal obeys are escaped.
pub(super) fn json(document: &Value) -> String {
    let mut text = String::new();
    for character in format!("{document:#}\n").chars() {
        if character != '\n' && is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}

fn painted(cell: &Cell, is_header: bool, colours: bool) -> String {
    let code = match cell.tone {
        _ if is_header => "1",
        Tone::Plain => "",
        Tone::Faint => "2",
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
    };
    if !colours || code.is_empty() || cell.text.is_empty() {
        return cell.text.clone();
    }
    format!("\u{1b}[{code}m{}\u{1b}[0m", cell.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_steers_no_terminal() {
        let name = "a\nb\u{1b}\u{85}\u{202e}\"é";
        let text = json(&serde_json::json!({ "name": name }));
        assert_eq!(text, "{\n  \"name\": \"a\\nb\\u001b\\u0085\\u202e\\\"é\"\n}\n");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["name"], name);
    }

    #[test]
    fn a_row_is_a_line() {
        let rows = [
            vec!["1".into(), Cell::new("a\nb\u{1b}[31m", Tone::Bad), "x".into()],
            vec!["12345".into(), "".into(), Cell::new("long ".repeat(20), Tone::Plain)],
            vec!["é".into(), Cell::new("ok", Tone::Good)],
        ];
        let plain = "N      NAME\n1      a\\nb\\u{1b}[31m  x\n12345                  ".to_owned()
            + "long ".repeat(20).trim_end()
            + "\né      ok\n";
        assert_eq!(table(&["N", "NAME"], &rows, false), plain);
        assert_eq!(table(&[], &rows[2..], false), "é  ok\n");
        let coloured = table(&["N"], &rows[2..], true);
        assert_eq!(coloured, "\u{1b}[1mN\u{1b}[0m\né  \u{1b}[32mok\u{1b}[0m\n");
    }
}
