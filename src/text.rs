//! Text for people. Untrusted text is made safe to show: on one line, without control characters, and of bounded length.

use std::fmt::Write as _;
use std::time::Duration;

/// Limit of a message in bytes, before escaping; the rest is replaced by its length.
pub(crate) const MAX_MESSAGE: usize = 4096;

/// Whether a character can end a line, control a terminal or disguise text: control characters, Unicode line separators and
/// marks for the direction of writing.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes unsafe characters and truncates the text to `limit` characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == limit {
            line.push_str("...");
            break;
        }
        if is_unsafe(char) { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

/// The first `limit` items separated by commas, and the number of the rest.
pub(crate) fn list(items: impl ExactSizeIterator<Item = String>, limit: usize) -> String {
    let more = items.len().saturating_sub(limit);
    let mut shown: Vec<String> = items.take(limit).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// Splits a message at its last semicolon or colon, before its remedy, as hsdo's messages are written.
pub(crate) fn fact_and_remedy(message: &str) -> (String, String) {
    let cut = message.rsplit_once("; ").or_else(|| message.rsplit_once(": "));
    let (fact, remedy) = cut.unwrap_or((message, "correct what is named"));
    (fact.to_owned(), remedy.to_owned())
}

/// Escapes unsafe characters and truncates an overlong text.
pub fn sanitized(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    push_sanitized(text, &mut line);
    line
}

/// Like [`sanitized`], appended to `line`.
pub(crate) fn push_sanitized(message: &str, line: &mut String) {
    let end = message.floor_char_boundary(MAX_MESSAGE);
    for character in message[..end].chars() {
        if is_unsafe(character) {
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

/// A duration as people say it.
pub(crate) fn span(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_start_a_line_or_control_a_terminal() {
        for (message, expected) in [
            ("plain, ünïcode, \"quoted\" and \\", "plain, ünïcode, \"quoted\" and \\"),
            ("a\nb\r\n", "a\\nb\\r\\n"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("nul\0, c1 \u{9b}1m", "nul\\u{0}, c1 \\u{9b}1m"),
            ("a\u{2028}b\u{202e}c", "a\\u{2028}b\\u{202e}c"),
        ] {
            let mut text = String::new();
            push_sanitized(message, &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_long_message_is_truncated_between_characters() {
        let mut text = String::new();
        push_sanitized(&format!("a{}", "é".repeat(3000)), &mut text);
        assert_eq!(text, format!("a{}... (1906 bytes more)", "é".repeat(2047)));
    }

    #[test]
    fn spans_as_people_say_them() {
        for (seconds, text) in
            [(0.44, "0.4 s"), (59.9, "59.9 s"), (150.0, "2 min 30 s"), (7_300.0, "2 h 1 min"), (200_000.0, "2 d 7 h")]
        {
            assert_eq!(span(Duration::from_secs_f64(seconds)), text);
        }
    }
}
