//! What `hsdo drain` and `hsdo enable` are asked for.

use std::time::Duration;

use crate::error::Error;
use crate::order::{MAX_NOTE_CHARS, Target};

/// The longest time of an order.
const MAX_DAYS: u64 = 366;

/// What to order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderRequest {
    /// At least one.
    pub targets: Vec<Target>,
    /// When the order lapses: `None` for never. Only to drain.
    pub span: Option<Duration>,
    /// Why. Only to drain.
    pub note: Option<String>,
    /// Whether more than half may be taken. Only to drain.
    pub yes: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// Parses a duration.
///
/// # Errors
/// [`Error::Usage`] with one line.
pub fn parse_span(text: &str) -> Result<Duration, Error> {
    let bad = |why: &str| Error::Usage(format!("--for {text:?}: {why}; write it as 90s, 15m, 2h or 1d"));
    let (digits, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad("not a duration")),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("not a duration"));
    }
    let total = digits.parse().ok().and_then(|count: u64| count.checked_mul(seconds));
    match total.filter(|total| *total <= MAX_DAYS * 86_400) {
        Some(0) => Err(bad("an order needs some time")),
        Some(total) => Ok(Duration::from_secs(total)),
        None => Err(bad("longer than 366 days; without --for it stands until it is lifted")),
    }
}

/// Checks a note.
///
/// # Errors
/// [`Error::Usage`] with one line.
pub fn check_note(text: &str) -> Result<(), Error> {
    if text.chars().count() > MAX_NOTE_CHARS {
        return Err(Error::Usage(format!("--note: longer than {MAX_NOTE_CHARS} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Usage("--note: it has a line break or another control character".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("1d", 86_400), ("366d", 366 * 86_400)] {
            assert_eq!(parse_span(text).expect(text), Duration::from_secs(seconds));
        }
        for text in [
            "",
            "s",
            "5",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "2w",
            "2H",
            "1h30m",
            "367d",
            "99999999999999999999s",
            "5é",
        ] {
            let error = parse_span(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("--for {text:?}: ")) && error.contains("15m"), "{error}");
        }
    }

    #[test]
    fn a_note_is_a_short_line() {
        assert!(check_note(&"é".repeat(MAX_NOTE_CHARS)).is_ok() && check_note("").is_ok());
        assert!(check_note(&"é".repeat(MAX_NOTE_CHARS + 1)).is_err());
        assert!(check_note("a\nb").is_err());
    }
}
