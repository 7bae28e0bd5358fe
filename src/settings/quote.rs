//! Formats values and names for faults and warnings.

use crate::text::one_line;

/// Characters of a value to show.
const MAX_SHOWN: usize = 100;
pub(super) const MAX_LISTED: usize = 10;

/// Without quotes, on one line.
pub(super) fn truncated(text: &str) -> String {
    one_line(text, MAX_SHOWN)
}

/// In quotes, with control characters escaped, truncated.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MAX_SHOWN).collect();
    format!("{start:?}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_cannot_control_a_terminal() {
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("a\"\n\u{1b}[2J\u{202e}"), "\"a\\\"\\n\\u{1b}[2J\\u{202e}\"");
        assert_eq!(quoted(&"x".repeat(100)), format!("\"{}\"", "x".repeat(100)));
        assert_eq!(quoted(&"é".repeat(101)), format!("\"{}\"...", "é".repeat(100)));
    }
}
