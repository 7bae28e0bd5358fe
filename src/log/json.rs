//! A line of the log as a JSON object, for `LOG_FORMAT=json`.

use std::fmt::Write as _;

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};

use super::module;
use crate::about::FIELDS;
use crate::clock::Timestamp;
use crate::text::{is_unsafe, push_sanitized};

/// Limit of a name in characters: far more than AWS or HAProxy allow.
const MAX_NAME: usize = 1_000;

/// The line, without its end. Its message is the same as in the text format.
pub(crate) fn line(now: Timestamp, record: &Record<'_>) -> String {
    let mut line = String::with_capacity(256);
    let mut member = |name: &str, value: &str| {
        line.push(if line.is_empty() { '{' } else { ',' });
        push_string(name, &mut line);
        line.push(':');
        line.push_str(value);
    };
    member("time", &string(&now.rfc3339()));
    member("level", &string(record.level().as_str()));
    member("target", &string(module(record.target())));
    let mut message = String::new();
    match record.args().as_str() {
        Some(text) => push_sanitized(text, &mut message),
        None => push_sanitized(&record.args().to_string(), &mut message),
    }
    member("message", &string(&message));
    let mut fields = Fields::default();
    // Collecting cannot fail.
    let _ = record.key_values().visit(&mut fields);
    for (name, values) in FIELDS.iter().zip(&fields.0) {
        match values.as_slice() {
            [] => {}
            [value] => member(name, value),
            several => member(name, &format!("[{}]", several.join(","))),
        }
    }
    line.push('}');
    line
}

/// The values of each of [`FIELDS`], as JSON. Any other key is left out, so that none comes twice.
#[derive(Default)]
struct Fields([Vec<String>; FIELDS.len()]);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        match FIELDS.iter().position(|field| *field == key.as_str()) {
            Some(field) => value.visit(Collect(&mut self.0[field])),
            None => Ok(()),
        }
    }
}

struct Collect<'a>(&'a mut Vec<String>);

impl<'v> VisitValue<'v> for Collect<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0.push(value.to_string());
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        let end = value.char_indices().nth(MAX_NAME).map_or(value.len(), |(end, _)| end);
        self.0.push(string(&value[..end]));
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

fn string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_string(text, &mut json);
    json
}

/// Escapes all that may end a line, not only what JSON asks for: U+2028 and C1 controls end a line too, for some readers.
fn push_string(text: &str, json: &mut String) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            // All of them have at most four digits. Writing to a `String` cannot fail.
            _ if is_unsafe(character) => drop(write!(json, "\\u{:04x}", u32::from(character))),
            _ => json.push(character),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use log::Level;
    use log::kv::Source;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::about::{About, MAX_VALUES};

    const MOMENT: i64 = 1_767_323_045_678_999;

    fn line_of(target: &str, message: &str, fields: &dyn Source) -> String {
        let mut record = Record::builder();
        record.level(Level::Warn).target(target).key_values(&fields);
        line(Timestamp::from_micros(MOMENT), &record.args(format_args!("{message}")).build())
    }

    #[test]
    fn a_line_is_an_object_with_a_field_for_each_thing_it_is_about() {
        let head = r#"{"time":"2026-01-02T03:04:05.678Z","level":"WARN","target":"server::report","message":"m""#;
        let none: Option<u32> = None;
        let cases: [(&dyn Source, &str); 8] = [
            (&About::default(), "}"),
            (&About::default().slot([3]), r#","slot":3}"#),
            (&About::default().slot([3, 1]).group(["web"]), r#","slot":[3,1],"group":"web"}"#),
            (
                &About::default().server(["web1", "web2"]).backend(["http"]).slot([1, 2]),
                r#","slot":[1,2],"backend":"http","server":["web1","web2"]}"#,
            ),
            (
                &About::default().instance(["a\"b\\c\n\u{1b}\u{2028}<i>"]),
                r#","instance":"a\"b\\c\u000a\u001b\u2028<i>"}"#,
            ),
            (&[("zone", "eu-west-1a"), ("cause", "held")], r#","zone":"eu-west-1a","cause":"held"}"#),
            (&("slot", none), "}"),
            // Whatever else a dependency logs, no member comes twice.
            (&[("message", "x"), ("colour", "y")], "}"),
        ];
        for (fields, rest) in cases {
            assert_eq!(line_of("hsdo::server::report", "m", fields), format!("{head}{rest}"));
        }
    }

    #[test]
    fn the_message_is_that_of_the_text_format() {
        let line = line_of("rustls::conn", "\"quoted\"\nslot 1: \u{1b}[2J removed", &About::default());
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["target"], json!("rustls::conn"));
        assert_eq!(value["message"], json!(r#""quoted"\nslot 1: \u{1b}[2J removed"#));
    }

    proptest! {
        #[test]
        fn whatever_a_name_or_message_holds_the_line_is_one_bounded_object(
            message in "(?s:.){0,60}",
            names in prop::collection::vec("(?s:.){0,40}", 0..4),
            slots in prop::collection::vec(1u32..10_000, 0..4),
        ) {
            let about = About::default().instance(names.clone()).slot(slots.clone());
            let text = line_of("hsdo", &message, &about);
            prop_assert!(!text.chars().any(is_unsafe), "{}", text);
            let value: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).expect("JSON");
            let list = |field: &str| match value.get(field) {
                None => vec![],
                Some(serde_json::Value::Array(values)) => values.clone(),
                Some(value) => vec![value.clone()],
            };
            let mut known = Vec::new();
            names.iter().filter(|name| !known.contains(name) && { known.push(name); true }).count();
            prop_assert_eq!(list("instance"), known.into_iter().map(|name| json!(name)).collect::<Vec<_>>());
            prop_assert!(list("slot").len() <= slots.len() && list("slot").iter().all(serde_json::Value::is_u64));
        }
    }

    #[test]
    fn a_line_has_a_bounded_length() {
        let about = (0..200).fold(About::default(), |about, n| about.group([format!("{n}{}", "\u{1}".repeat(9_000))]));
        let text = line_of("hsdo", &"\u{1}".repeat(90_000), &about);
        assert!(text.len() < crate::text::MAX_MESSAGE * 12 + MAX_VALUES * (MAX_NAME + 4) * 6, "{}", text.len());
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
    }
}
