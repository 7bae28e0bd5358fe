//! Timestamp formats of AWS and its tools: RFC 3339, as leniently as botocore, and the HTTP `Date` header. Pure.

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::clock::Timestamp;

/// `Thu, 01 Jan 2026 00:05:01 GMT`.
const HTTP: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
/// `Thu Jan  1 00:05:01 UTC 2026`, as `date -u` writes it.
const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] UTC [year]"
);

/// Parses a timestamp with a zone: `2026-01-01T00:05:01Z`, `2026-01-01T01:05:01.5+01:00`, and other unambiguous formats, such
/// as `2026-01-01 01:05:01 +0100`, `20260101T000501Z`, `Thu, 01 Jan 2026 00:05:01 GMT`.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let moment = OffsetDateTime::parse(&as_rfc_3339(text).unwrap_or_default(), &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(text, &Rfc2822))
        .or_else(|_| PrimitiveDateTime::parse(text, DATE).map(PrimitiveDateTime::assume_utc));
    timestamp(moment.ok()?)
}

/// Normalises a date, a time and a zone, in this order, to RFC 3339.
fn as_rfc_3339(text: &str) -> Option<String> {
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let date = match date.len() {
        8 if numeric(date) => format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]),
        _ => date.replace('/', "-"),
    };
    let rest = rest.trim_start();
    let (time, zone) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.' | ','))?);
    let (clock, fraction) = time.split_at(time.find(['.', ',']).unwrap_or(time.len()));
    let clock = match clock.len() {
        6 if numeric(clock) => format!("{}:{}:{}", &clock[..2], &clock[2..4], &clock[4..]),
        5 if fraction.is_empty() => format!("{clock}:00"),
        _ => clock.to_string(),
    };
    let zone = zone.trim_start();
    let digits = zone.get(1..).unwrap_or_default();
    let zone = match (zone.to_ascii_uppercase().as_str(), digits.len()) {
        ("Z" | "UTC" | "GMT", _) => "Z".to_string(),
        (_, 4) if numeric(digits) => format!("{}{}:{}", &zone[..1], &digits[..2], &digits[2..]),
        (_, 2) if numeric(digits) => format!("{zone}:00"),
        _ => zone.to_string(),
    };
    Some(format!("{date}T{clock}{}{zone}", fraction.replace(',', ".")))
}

/// Parses `Thu, 01 Jan 2026 00:05:01 GMT`.
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    timestamp(PrimitiveDateTime::parse(text.trim(), HTTP).ok()?.assume_utc())
}

fn timestamp(moment: OffsetDateTime) -> Option<Timestamp> {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok().map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_timestamps_are_parsed() {
        let expected = Some(Timestamp::from_micros(1_767_225_901_000_000));
        for text in [
            "2026-01-01T00:05:01Z",
            "2026-01-01T00:05:01.000Z",
            "2026-01-01T00:05:01+00:00",
            "2026-01-01T01:05:01+01:00",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse_http_date("Thu, 01 Jan 2026 00:05:01 GMT"), expected);
        for text in ["", "soon", "2026-01-01", "2026-01-01 00:05:01"] {
            assert_eq!(parse(text), None, "{text}");
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn credential_helper_timestamps_are_parsed_like_botocore() {
        let expected = Some(Timestamp::from_micros(1_767_225_901_000_000));
        for text in [
            "2026-01-01T01:05:01+0100",
            "2026-01-01T01:05:01+01",
            "2025-12-31T16:05:01.000-0800",
            "2026-01-01 00:05:01 UTC",
            "2026-01-01 00:05:01Z",
            "2026-01-01T00:05:01GMT",
            "2026-01-01 01:05:01 +0100",
            "2026-01-01t00:05:01z",
            "2026-01-01T00:05:01,000 z",
            "2026/01/01 00:05:01 UTC",
            "20260101T000501Z",
            "20260101T010501+0100",
            "Thu, 01 Jan 2026 00:05:01 GMT",
            "Thu, 1 Jan 2026 01:05:01 +0100",
            "01 Jan 2026 00:05:01 GMT",
            "Thu Jan  1 00:05:01 UTC 2026",
            " 2026-01-01T00:05:01Z\n",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse("2026-01-01T00:05Z"), Some(Timestamp::from_micros(1_767_225_900_000_000)));
        assert_eq!(parse("2026-01-01T00:05:01.123456789Z"), Some(Timestamp::from_micros(1_767_225_901_123_456)));
        for text in [
            // Without a zone, or with an ambiguous one.
            "2026-01-01T00:05:01",
            "20260101T000501",
            "2026-01-01 00:05:01 CST",
            "1767225901",
            "2026-01-01T00:05:01+00:00Z",
            "2026-01-01T24:05:01Z",
            "2026-13-01T00:05:01Z",
            "2026-01-01T00:05:01+1",
            "2026-01-01TZ",
            "2026-01-01Tééé",
            "éééé T00:05:01é",
            "T",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
