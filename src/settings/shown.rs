//! How values and names stand in faults and notes.

use crate::text::one_line;

/// The most characters of a value that a fault shows.
const SHOWN: usize = 100;
/// The most names that a note lists.
pub(super) const LISTED: usize = 10;

/// A text as it stands, on one line, the end of a long one left out.
pub(super) fn cut(text: &str) -> String {
    one_line(text, SHOWN)
}

/// The text in quotes, what could move a terminal's cursor escaped, the end of a long one left out.
pub(super) fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(SHOWN).collect();
    format!("{start:?}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_text_moves_no_cursor() {
        assert_eq!(shown("a b"), "\"a b\"");
        assert_eq!(shown("a\"\n\u{1b}[2J\u{202e}"), "\"a\\\"\\n\\u{1b}[2J\\u{202e}\"");
        assert_eq!(shown(&"x".repeat(100)), format!("\"{}\"", "x".repeat(100)));
        assert_eq!(shown(&"é".repeat(101)), format!("\"{}\"...", "é".repeat(100)));
    }
}
