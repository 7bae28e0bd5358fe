//! The system clock, and timestamps in the table. No other file reads the time of day.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Microseconds since 1970-01-01 00:00:00 UTC: the resolution of `LastWeightUpdate` in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// `YYYY-MM-DD HH:MM:SS.ffffff`: Python's `str(datetime)`, as the original hsdo writes it.
const WRITE_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");
const FORMAT_WITH_FRACTION: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond]");
/// Python omits a zero fraction.
const FORMAT_WITHOUT_FRACTION: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

impl Timestamp {
    /// The current time.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// From milliseconds since the epoch, saturating.
    pub fn from_millis(millis: u64) -> Self {
        Timestamp(i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000))
    }

    /// Microseconds since the epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        Duration::from_micros(u64::try_from(self.0).unwrap_or(0)).as_secs_f64()
    }

    /// Adds `span`, saturating.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time since `earlier`; `None` if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Option<Duration> {
        u64::try_from(self.0.checked_sub(earlier.0)?).ok().map(Duration::from_micros)
    }

    /// In RFC 3339, to the millisecond: `2026-01-02T03:04:05.678Z`.
    pub fn rfc3339(self) -> String {
        let moment = self.to_string();
        let (date, time) = moment.split_once(' ').unwrap_or((&moment, ""));
        let time = time.get(..12).unwrap_or(time);
        format!("{date}T{time}Z")
    }

    /// In RFC 3339, to the second, as a person needs it: `2026-01-02T03:04:05Z`.
    pub fn to_the_second(self) -> String {
        let mut text = self.rfc3339();
        text.replace_range(19..23, "");
        text
    }

    /// Parses a timestamp in UTC: a space or `T` between date and time, fraction optional. `None` for anything else, such as
    /// the `0-0-0 00:00:00.000000` of a free slot.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().replacen('T', " ", 1);
        let format = if text.contains('.') { FORMAT_WITH_FRACTION } else { FORMAT_WITHOUT_FRACTION };
        let moment = PrimitiveDateTime::parse(&text, format).ok()?.assume_utc();
        i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok().map(Timestamp)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|moment| moment.format(WRITE_FORMAT).ok());
        f.write_str(text.as_deref().unwrap_or("9999-12-31 23:59:59.999999"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_writing_and_reading() {
        for micros in [0, 1, 999_999, 1_700_000_000_123_456, 4_102_444_800_000_000] {
            let moment = Timestamp::from_micros(micros);
            assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment), "{moment}");
        }
    }

    #[test]
    fn every_format_of_the_original_is_parsed() {
        let expected = Some(Timestamp::from_micros(1_709_210_096_000_000));
        for text in [
            "2024-02-29 12:34:56",
            "2024-02-29T12:34:56",
            "2024-02-29 12:34:56.000000",
            "2024-02-29T12:34:56.0",
            " 2024-02-29 12:34:56 ",
        ] {
            assert_eq!(Timestamp::parse(text), expected, "{text}");
        }
        let fraction = Timestamp::parse("2024-02-29 12:34:56.123456").expect("a time");
        assert_eq!(fraction.as_micros(), 1_709_210_096_123_456);
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["0-0-0 00:00:00.000000", "", "none", "2024-02-30 00:00:00", "2024-02-29", "2024-02-29 25:00:00"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let early = Timestamp::from_micros(10);
        let late = early.plus(Duration::from_secs(2));
        assert_eq!(late.since(early), Some(Duration::from_secs(2)));
        assert_eq!(early.since(late), None);
        assert_eq!(late.plus(Duration::MAX), Timestamp::from_micros(i64::MAX));
    }
}
