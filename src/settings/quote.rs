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

/// The text without the user information of a URL, which may hold a password.
pub(super) fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://(hidden)@{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_url_is_hidden() {
        for (text, expected) in [
            ("http://ops:hush@consul:8500/x@y", "http://(hidden)@consul:8500/x@y"),
            ("http://a@b:hush@consul", "http://(hidden)@consul"),
            ("http://consul:8500", "http://consul:8500"),
            ("unix@/run/x", "unix@/run/x"),
            ("", ""),
        ] {
            assert_eq!(without_user(text), expected);
        }
    }

    #[test]
    fn quoted_text_cannot_control_a_terminal() {
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("a\"\n\u{1b}[2J\u{202e}"), "\"a\\\"\\n\\u{1b}[2J\\u{202e}\"");
        assert_eq!(quoted(&"x".repeat(100)), format!("\"{}\"", "x".repeat(100)));
        assert_eq!(quoted(&"é".repeat(101)), format!("\"{}\"...", "é".repeat(100)));
    }
}
