//! Parsers of single settings. They return `None` for a bad value; the table of settings says what was expected.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::conf_file::{self, Node};
use crate::log::Format;
use crate::selection::{NamePattern, TagFilter};
use crate::slot::is_group_name;
use crate::weight::Factor;

/// `sun_path` is 108 bytes with its terminating zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// The limit for Auto Scaling groups, in characters.
const MAX_NAME: usize = 255;

/// Lifts a text parser to a node, and rejects lists and maps.
pub(super) fn scalar<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&Node) -> Option<T> {
    move |node| match node {
        Node::Text(text) => parse(text.trim()),
        Node::Null | Node::List(_) | Node::Map(_) | Node::Tagged => None,
    }
}

/// Accepts true, 1, yes, false, 0 and no, case-insensitively.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// Accepts text and json, case-insensitively.
pub(super) fn log_format(text: &str) -> Option<Format> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Decimal digits only: no sign, fraction or exponent.
pub(super) fn integer<T: FromStr + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&str) -> Option<T> {
    move |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && range.contains(number))
    }
}

pub(super) fn seconds(range: RangeInclusive<f64>) -> impl Fn(&str) -> Option<Duration> {
    move |text| {
        let seconds = text.parse().ok().filter(|seconds| range.contains(seconds))?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Names, trimmed, without empty ones and duplicates: separated by commas, or a list, which a text may contain as JSON or
/// in YAML's flow style.
pub(super) fn names(node: &Node) -> Option<Vec<String>> {
    let list = match node {
        Node::Text(text) => flow_list(text),
        _ => None,
    };
    let items: Vec<&str> = match list.as_ref().unwrap_or(node) {
        Node::Text(text) => text.split(',').collect(),
        Node::List(items) => items
            .iter()
            .map(|item| match item {
                Node::Text(text) => Some(text.as_str()),
                Node::Null => Some(""),
                Node::List(_) | Node::Map(_) | Node::Tagged => None,
            })
            .collect::<Option<_>>()?,
        Node::Null | Node::Map(_) | Node::Tagged => return None,
    };
    let mut names: Vec<String> = Vec::new();
    for item in items.into_iter().map(str::trim).filter(|item| !item.is_empty()) {
        if !is_group_name(item) {
            return None;
        }
        if !names.iter().any(|name| name == item) {
            names.push(item.to_owned());
        }
    }
    Some(names)
}

/// The longest tag key and value of a group, in characters (Auto Scaling API reference, `Tag`).
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// Tags as `key=value` or `key`, separated by commas or as a list. A key has no `=`; each may stand once.
pub(super) fn tag_filters(node: &Node) -> Option<Vec<TagFilter>> {
    let mut filters: Vec<TagFilter> = Vec::new();
    for item in names(node)? {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key.trim_end(), Some(value.trim_start().to_owned())),
            None => (item.as_str(), None),
        };
        // `key=` may mean any value or an empty one.
        let is_faulty = |value: &String| value.is_empty() || value.chars().count() > MAX_TAG_VALUE;
        let faulty = key.is_empty() || key.chars().count() > MAX_TAG_KEY || value.as_ref().is_some_and(is_faulty);
        if faulty || filters.iter().any(|filter| filter.key == key) {
            return None;
        }
        filters.push(TagFilter { key: key.to_owned(), value });
    }
    (!filters.is_empty()).then_some(filters)
}

/// Factors of groups as `name=0.2`, separated by commas or as a list, or a map. A name may be a pattern and hold `=`.
pub(super) fn group_factors(node: &Node) -> Option<Vec<(NamePattern, Factor)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let map = match node {
        Node::Text(text) if text.trim_start().starts_with('{') => conf_file::parse(text).ok(),
        _ => None,
    };
    match map.as_ref().unwrap_or(node) {
        Node::Map(entries) => {
            for (name, value) in entries {
                let Node::Text(value) = value else { return None };
                pairs.push((name.clone(), value.clone()));
            }
        }
        node => {
            for item in names(node)? {
                let (name, factor) = item.rsplit_once('=')?;
                pairs.push((name.to_owned(), factor.to_owned()));
            }
        }
    }
    let mut factors: Vec<(NamePattern, Factor)> = Vec::new();
    for (name, factor) in pairs {
        let name = NamePattern::new(name.trim());
        if name.as_str().is_empty() || factors.iter().any(|(known, _)| *known == name) {
            return None;
        }
        factors.push((name, Factor::parse_given(factor.trim())?));
    }
    (!factors.is_empty()).then_some(factors)
}

/// Parses a flow-style list. A text that only begins like one is not a list: a group may be called `[a`.
fn flow_list(text: &str) -> Option<Node> {
    let text = text.trim();
    let bracketed = text.starts_with('[') && text.ends_with(']');
    conf_file::parse(bracketed.then_some(text)?).ok().filter(|node| matches!(node, Node::List(_)))
}

/// Whether a name seems to include stray characters: quotes that `docker --env-file` keeps, a bracket of a list or a
/// template, `;` in place of a comma. AWS allows such names.
pub(super) fn looks_misquoted(name: &str) -> bool {
    let stray = |c: char| "\"'`\u{201c}\u{201d}\u{2018}\u{2019}[]{}<>".contains(c);
    name.starts_with(stray) || name.ends_with(stray) || name.contains(';')
}

/// A name that HAProxy accepts for a backend or server (`invalid_char` in its `cfgparse.c`). Nothing in it can end a word or
/// a command of the Runtime API.
pub(super) fn haproxy_name(text: &str) -> Option<String> {
    restricted(text, 1..=MAX_NAME, b"_.:-")
}

/// A DynamoDB table's name (API reference, `CreateTable`, `TableName`), or its ARN.
pub(super) fn table_name(text: &str) -> Option<TableName> {
    match text.strip_prefix("arn:") {
        Some(rest) => {
            // arn:aws:dynamodb:eu-west-1:123456789012:table/web
            let parts: Vec<&str> = rest.split(':').collect();
            let [partition, "dynamodb", in_region, account, resource] = parts[..] else { return None };
            restricted(partition, 3..=40, b"-").filter(|partition| partition.starts_with("aws"))?;
            restricted(account, 12..=12, b"").filter(|account| account.bytes().all(|byte| byte.is_ascii_digit()))?;
            restricted(resource.strip_prefix("table/")?, 3..=255, b"_.-")?;
            Some(TableName { name: text.to_owned(), region: Some(region(in_region)?) })
        }
        None => restricted(text, 3..=255, b"_.-").map(|name| TableName { name, region: None }),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableName {
    /// The name, or the complete ARN: DynamoDB accepts either.
    pub(super) name: String,
    pub(super) region: Option<String>,
}

/// Accepts IPv6 in brackets too, as in a URL.
pub(super) fn ip_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.map_or_else(|| text.parse().ok(), |bare| bare.parse().ok().map(IpAddr::V6))
}

/// The name of an AWS region. It becomes part of a host name, so only characters of host names are allowed.
pub(super) fn region(text: &str) -> Option<String> {
    restricted(text, 1..=63, b"-").filter(|name| !name.starts_with('-') && !name.ends_with('-'))
}

/// The path of a Unix socket, at most 107 bytes.
pub(super) fn socket_path(text: &str) -> Option<PathBuf> {
    let clean = !text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    (clean && (1..=MAX_SOCKET_PATH).contains(&text.len())).then(|| PathBuf::from(text))
}

fn restricted(text: &str, length: RangeInclusive<usize>, punctuation: &[u8]) -> Option<String> {
    let allowed = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(&byte));
    (allowed && length.contains(&text.len())).then(|| text.to_owned())
}

/// The path of a file, not of a folder as far as the text tells.
pub(super) fn file_path(text: &str) -> Option<PathBuf> {
    let names_a_file = !text.contains('\0') && !text.ends_with('/') && Path::new(text).file_name().is_some();
    names_a_file.then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn booleans() {
        for (text, expected) in [
            ("true", Some(true)),
            ("TRUE", Some(true)),
            ("1", Some(true)),
            ("Yes", Some(true)),
            ("false", Some(false)),
            ("False", Some(false)),
            ("0", Some(false)),
            ("NO", Some(false)),
            ("on", None),
            ("off", None),
            ("2", None),
            ("y", None),
            ("truee", None),
            ("", None),
        ] {
            assert_eq!(boolean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn log_formats() {
        for (text, expected) in [
            ("text", Some(Format::Text)),
            ("json", Some(Format::Json)),
            ("JSON", Some(Format::Json)),
            ("jsonl", None),
            ("true", None),
            ("", None),
        ] {
            assert_eq!(log_format(text), expected, "{text:?}");
        }
    }

    #[test]
    fn integers() {
        let weight = integer::<u16>(0..=256);
        for (text, expected) in [
            ("0", Some(0)),
            ("256", Some(256)),
            ("007", Some(7)),
            ("257", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1.0", None),
            ("1e3", None),
            ("0x10", None),
            ("1_0", None),
            ("65536", None),
            ("99999999999999999999999", None),
            ("٣", None),
            ("", None),
            ("ten", None),
        ] {
            assert_eq!(weight(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_in_seconds() {
        let interval = seconds(0.05..=3600.0);
        for (text, expected) in [
            ("1", Some(1_000)),
            ("0.05", Some(50)),
            ("3600", Some(3_600_000)),
            (".5", Some(500)),
            ("1e3", Some(1_000_000)),
            ("0.049", None),
            ("3600.001", None),
            ("0", None),
            ("-1", None),
            ("nan", None),
            ("NaN", None),
            ("inf", None),
            ("-inf", None),
            ("1e400", None),
            ("1s", None),
            ("1,5", None),
            ("", None),
        ] {
            assert_eq!(interval(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn a_scalar_is_not_a_list() {
        let parse = scalar(integer::<u16>(0..=9));
        assert_eq!(parse(&Node::Text(" 5 ".to_owned())), Some(5));
        for node in [Node::Null, Node::List(vec![Node::Text("5".to_owned())]), Node::Map(vec![]), Node::Tagged] {
            assert_eq!(parse(&node), None, "{node:?}");
        }
    }

    #[test]
    fn lists_of_names() {
        let text = |text: &str| Node::Text(text.to_owned());
        let list = |items: &[&str]| Node::List(items.iter().map(|item| text(item)).collect());
        let cases = [
            (text("a"), Some(vec!["a"])),
            (text(" a , b,,a,\tc "), Some(vec!["a", "b", "c"])),
            (text(","), Some(vec![])),
            (text("a b,c/d"), Some(vec!["a b", "c/d"])),
            (list(&["b", " a ", "", "b"]), Some(vec!["b", "a"])),
            (list(&["with,comma"]), Some(vec!["with,comma"])),
            (Node::List(vec![Node::Null, text("1e3")]), Some(vec!["1e3"])),
            (Node::List(vec![list(&["a"])]), None),
            (Node::List(vec![Node::Tagged]), None),
            (Node::Map(vec![]), None),
            (Node::Tagged, None),
            (text("a\nb"), None),
            (text("a\u{1b}[31m"), None),
            (text(&"x".repeat(256)), None),
            (text(r#" ["a", "b,c"] "#), Some(vec!["a", "b,c"])),
            (text("[a, 'b', 1e3, ~, a]"), Some(vec!["a", "b", "1e3"])),
            (text("[]"), Some(vec![])),
            (text(r#"["a\u00e9"]"#), Some(vec!["aé"])),
            (text(r#"["[a]"]"#), Some(vec!["[a]"])),
            (text("[[a]]"), None),
            (text("[a: b]"), None),
            (text(r#"["a\nb"]"#), None),
            (text("[a],b"), Some(vec!["[a]", "b"])),
            (text("[a,b"), Some(vec!["[a", "b"])),
            (text("[a],[b]"), Some(vec!["[a]", "[b]"])),
            (text("\"a\",\"b\""), Some(vec!["\"a\"", "\"b\""])),
            (list(&["[a, b]"]), Some(vec!["[a, b]"])),
        ];
        for (node, expected) in cases {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(names(&node), expected, "{node:?}");
        }
    }

    #[test]
    fn names_of_backends_tables_and_regions() {
        for good in ["http-back", "a", "Web_1.x:y", &"x".repeat(255)] {
            assert_eq!(haproxy_name(good).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a;b", "a/b", "a\nb", "é", "a|b", "#1", &"x".repeat(256)] {
            assert_eq!(haproxy_name(bad), None, "{bad:?}");
        }
        for good in ["web", "My.Table_1-x", "arn", &"x".repeat(255)] {
            assert_eq!(table_name(good), Some(TableName { name: good.to_owned(), region: None }));
        }
        for (good, region) in [
            ("arn:aws:dynamodb:eu-west-1:123456789012:table/web", "eu-west-1"),
            ("arn:aws-cn:dynamodb:cn-north-1:123456789012:table/a.b_c-d", "cn-north-1"),
            ("arn:aws-us-gov:dynamodb:us-gov-west-1:123456789012:table/web", "us-gov-west-1"),
            ("arn:aws-iso-b:dynamodb:us-isob-east-1:123456789012:table/web", "us-isob-east-1"),
            ("arn:aws-eusc:dynamodb:eusc-de-east-1:000000000000:table/web", "eusc-de-east-1"),
        ] {
            assert_eq!(table_name(good), Some(TableName { name: good.to_owned(), region: Some(region.to_owned()) }));
        }
        for bad in [
            "",
            "ab",
            "a b c",
            &"x".repeat(256),
            "arn:aws:dynamodb:eu-west-1:1:table/web",
            "arn:aws:dynamodb:eu-west-1:12345678901x:table/web",
            "arn:aws:dynamodb:eu-west-1:123456789012:table/x",
            "arn:aws:dynamodb:eu-west-1:123456789012:table/web/index/i",
            "arn:aws:dynamodb:eu-west-1:123456789012:table/web/stream/2026-01-01T00:00:00.000",
            "arn:aws:dynamodb:eu-west-1:123456789012:web",
            "arn:aws:dynamodb:eu-west-1:123456789012:table/web:x",
            "arn:aws:dynamodb::123456789012:table/web",
            "arn:aws:dynamodb:evil.example/:123456789012:table/web",
            "arn:aws:s3:eu-west-1:123456789012:table/web",
            "arn:gcp:dynamodb:eu-west-1:123456789012:table/web",
            "arn:",
        ] {
            assert_eq!(table_name(bad), None, "{bad:?}");
        }
        for good in ["eu-west-1", "us-gov-west-1", "local"] {
            assert_eq!(region(good).as_deref(), Some(good));
        }
        for bad in ["", "eu.west", "eu west", "-eu", "eu-", "eu/1", "evil.example/"] {
            assert_eq!(region(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, expected) in [
            ("0.0.0.0", Some("0.0.0.0")),
            ("::", Some("::")),
            ("[::]", Some("::")),
            ("[::1]", Some("::1")),
            ("[127.0.0.1]", None),
            ("[::", None),
            ("[]", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(ip_address(text), expected.map(|text| text.parse().expect("an address")), "{text:?}");
        }
    }

    #[test]
    fn names_with_stray_quotes_or_brackets_look_misquoted() {
        for suspect in [
            "\"web-a\"",
            "\"web-a",
            "web-a'",
            "[web-a",
            "web-b]",
            "{web}",
            "${WEB}",
            "<web>",
            "a;b",
            ";",
            "\u{201c}web\u{201d}",
        ] {
            assert!(looks_misquoted(suspect), "{suspect:?}");
        }
        for plain in ["web", "web (blue)", "it's", "a[1]b", "a b", "web-1.x/y", "é"] {
            assert!(!looks_misquoted(plain), "{plain:?}");
        }
    }

    #[test]
    fn socket_paths() {
        for good in ["/var/run/haproxy/admin.sock", "admin.sock", "/run/with space", &"x".repeat(107)] {
            assert_eq!(socket_path(good), Some(PathBuf::from(good)));
        }
        for bad in ["", "a\0b", "a\nb", "a\u{fffd}", &"x".repeat(108)] {
            assert_eq!(socket_path(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_cannot_end_a_command(text in ".*") {
            if let Some(name) = haproxy_name(&text) {
                prop_assert!(!name.contains(|c: char| c.is_whitespace() || c.is_control() || ";|/#'\"\\<".contains(c)));
            }
        }

        #[test]
        fn exactly_the_numbers_in_range_are_accepted(number in 0u64..70_000) {
            let expected = u16::try_from(number).ok().filter(|port| *port > 0);
            prop_assert_eq!(integer::<u16>(1..=u16::MAX)(&number.to_string()), expected);
        }
    }
}
