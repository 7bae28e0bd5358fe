//! The two spellings of a moment that AWS uses: RFC 3339 in documents, RFC 9110's in the header `Date`. Pure.

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::clock::Timestamp;

/// `Thu, 01 Jan 2026 00:05:01 GMT`.
const HTTP: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// A moment such as `2026-01-01T00:05:01Z` or `2026-01-01T01:05:01.5+01:00`.
pub(crate) fn document(text: &str) -> Option<Timestamp> {
    timestamp(OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?)
}

/// A moment such as `Thu, 01 Jan 2026 00:05:01 GMT`.
pub(crate) fn header(text: &str) -> Option<Timestamp> {
    timestamp(PrimitiveDateTime::parse(text.trim(), HTTP).ok()?.assume_utc())
}

fn timestamp(moment: OffsetDateTime) -> Option<Timestamp> {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok().map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_aws_are_read() {
        let expected = Some(Timestamp::from_micros(1_767_225_901_000_000));
        for text in [
            "2026-01-01T00:05:01Z",
            "2026-01-01T00:05:01.000Z",
            "2026-01-01T00:05:01+00:00",
            "2026-01-01T01:05:01+01:00",
        ] {
            assert_eq!(document(text), expected, "{text}");
        }
        assert_eq!(header("Thu, 01 Jan 2026 00:05:01 GMT"), expected);
        for text in ["", "soon", "2026-01-01", "2026-01-01 00:05:01"] {
            assert_eq!(document(text), None, "{text}");
            assert_eq!(header(text), None, "{text}");
        }
    }
}
