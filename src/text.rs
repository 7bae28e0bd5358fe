//! Texts from outside as people may see them: on one line, steering no terminal, and of a bounded length. It imports nothing.

use std::fmt::Write as _;

/// The longest message of a line, in bytes before escaping; the rest is cut and the cut is shown.
pub(crate) const LONGEST: usize = 4096;

/// Whether a character can end a line, steer a terminal, or make a line read as what it is not: control characters,
/// Unicode's line separators, and the marks that turn the direction of writing.
pub(crate) fn steers(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text from outside as a log line can carry it: what [`steers`] is escaped, and at most `most` characters are shown.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == most {
            line.push_str("...");
            break;
        }
        if steers(char) { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

/// A text as people may see it on a terminal: what could steer that is escaped, and what is beyond any sense of a line is cut.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    escape(text, &mut plain);
    plain
}

/// Appends `message` so that it can neither start a line of its own nor steer a terminal.
///
/// The answer of a server, or a row of the table, may stand in it.
pub(crate) fn escape(message: &str, line: &mut String) {
    let end = message.floor_char_boundary(LONGEST);
    for character in message[..end].chars() {
        if steers(character) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
