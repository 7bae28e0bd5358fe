//! From the text of a setting to its value. A parser says yes or no; the table says what was expected.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::conf_file::Node;

/// The longest path that fits a Unix socket address (`sun_path` is 108 bytes with its closing zero, unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// The longest name that is taken over: an AutoScaling group's is at most 255 characters.
const MAX_NAME: usize = 255;

/// A parser of a single text, for keys that take no list and no map.
pub(super) fn scalar<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&Node) -> Option<T> {
    move |node| match node {
        Node::Text(text) => parse(text.trim()),
        Node::Null | Node::List(_) | Node::Map(_) | Node::Tagged => None,
    }
}

/// true, 1, yes, false, 0, no, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// A whole number in decimal digits: no sign, no fraction, no exponent.
pub(super) fn whole<T: FromStr + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&str) -> Option<T> {
    move |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && range.contains(number))
    }
}

/// A number of seconds, fractions allowed.
pub(super) fn seconds(range: RangeInclusive<f64>) -> impl Fn(&str) -> Option<Duration> {
    move |text| {
        let seconds = text.parse().ok().filter(|seconds| range.contains(seconds))?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Names separated by commas, or a list of them: trimmed, empty ones left out, repeated ones taken once.
pub(super) fn names(node: &Node) -> Option<Vec<String>> {
    let items: Vec<&str> = match node {
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
        // In the table `none` stands for no group.
        if item == "none" || item.chars().any(char::is_control) || item.chars().count() > MAX_NAME {
            return None;
        }
        if !names.iter().any(|name| name == item) {
            names.push(item.to_owned());
        }
    }
    Some(names)
}

/// A name that HAProxy takes for a backend or a server (`invalid_char` in its `cfgparse.c`): nothing that could
/// end a word or a command of the Runtime API.
pub(super) fn haproxy_name(text: &str) -> Option<String> {
    made_of(text, 1..=MAX_NAME, b"_.:-")
}

/// A DynamoDB table's name (API reference, `CreateTable`, `TableName`).
pub(super) fn table_name(text: &str) -> Option<String> {
    made_of(text, 3..=255, b"_.-")
}

/// An AWS region's name. It becomes part of a host name, so it is held to what a host name may hold.
pub(super) fn region(text: &str) -> Option<String> {
    made_of(text, 1..=63, b"-").filter(|name| !name.starts_with('-') && !name.ends_with('-'))
}

/// The path of a Unix socket.
pub(super) fn socket_path(text: &str) -> Option<PathBuf> {
    let clean = !text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    (clean && (1..=MAX_SOCKET_PATH).contains(&text.len())).then(|| PathBuf::from(text))
}

fn made_of(text: &str, length: RangeInclusive<usize>, marks: &[u8]) -> Option<String> {
    let allowed = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte));
    (allowed && length.contains(&text.len())).then(|| text.to_owned())
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
    fn whole_numbers() {
        let weight = whole::<u16>(0..=256);
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
    fn numbers_of_seconds() {
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
    fn a_single_text_is_no_list() {
        let parse = scalar(whole::<u16>(0..=9));
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
        for good in ["web", "My.Table_1-x", &"x".repeat(255)] {
            assert_eq!(table_name(good).as_deref(), Some(good));
        }
        for bad in ["", "ab", "a b c", "arn:aws:dynamodb:eu-west-1:1:table/x", &"x".repeat(256)] {
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
    fn paths_of_sockets() {
        for good in ["/var/run/haproxy/admin.sock", "admin.sock", "/run/with space", &"x".repeat(107)] {
            assert_eq!(socket_path(good), Some(PathBuf::from(good)));
        }
        for bad in ["", "a\0b", "a\nb", "a\u{fffd}", &"x".repeat(108)] {
            assert_eq!(socket_path(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_can_end_no_command(text in ".*") {
            if let Some(name) = haproxy_name(&text) {
                prop_assert!(!name.contains(|c: char| c.is_whitespace() || c.is_control() || ";|/#'\"\\<".contains(c)));
            }
        }

        #[test]
        fn every_number_in_the_range_is_taken_and_no_other(number in 0u64..70_000) {
            let expected = u16::try_from(number).ok().filter(|port| *port > 0);
            prop_assert_eq!(whole::<u16>(1..=u16::MAX)(&number.to_string()), expected);
        }
    }
}
