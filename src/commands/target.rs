//! Targets on the command line.

use std::ffi::OsStr;

use crate::error::Error;
use crate::order::{TARGETS, Target};

/// What a target of a single server may be, for messages.
pub(super) const ONE_SERVER: &str = "slot:3, an instance id or an address";

/// Parses a target.
///
/// # Errors
/// [`Error::Usage`] with one line.
pub(super) fn parse(text: &OsStr) -> Result<Target, Error> {
    parse_as(text, TARGETS)
}

/// Parses a target that names a single server.
///
/// # Errors
/// [`Error::Usage`] with one line.
pub(super) fn parse_one_server(text: &OsStr) -> Result<Target, Error> {
    match parse_as(text, ONE_SERVER)? {
        Target::Zone(_) | Target::Group(_) => Err(fault(text, "one server is explained at a time", ONE_SERVER)),
        target => Ok(target),
    }
}

fn parse_as(text: &OsStr, choices: &str) -> Result<Target, Error> {
    let Some(utf8) = text.to_str() else { return Err(fault(text, "it is not UTF-8", choices)) };
    Target::parse(utf8).map_err(|why| fault(text, &why, choices))
}

fn fault(text: &OsStr, why: &str, choices: &str) -> Error {
    Error::Usage(format!("target {text:?}: {why}; name {choices}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::MAX_SLOT;

    #[test]
    fn every_target_is_parsed() {
        let name = |text: &str| Target::Instance(text.to_owned());
        for (text, expected) in [
            ("slot:3", Target::Slot(3)),
            ("slot:10000", Target::Slot(MAX_SLOT)),
            ("10.0.0.7", Target::Address([10, 0, 0, 7].into())),
            ("2001:db8::7", Target::Address("2001:db8::7".parse().expect("an address"))),
            ("i-0123456789abcdef0", name("i-0123456789abcdef0")),
            ("node-1/web", name("node-1/web")),
            ("10.0.0.7a", name("10.0.0.7a")),
            ("zone:eu-west-1a", Target::Zone("eu-west-1a".to_owned())),
            ("group:web a", Target::Group("web a".to_owned())),
        ] {
            let parsed = parse(text.as_ref()).expect(text);
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
            let is_one = !matches!(parsed, Target::Zone(_) | Target::Group(_));
            assert_eq!(parse_one_server(text.as_ref()).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn anything_else_names_its_fault() {
        for (text, why) in [
            ("", "it is empty"),
            ("3", "did you mean slot:3"),
            ("slot:", "not a slot number"),
            ("slot:0", "not a slot number"),
            ("slot:+1", "not a slot number"),
            ("slot:10001", "not a slot number"),
            ("slot:x\n", "not a slot number"),
            ("10.0.0", "not an address"),
            ("10.0.0.256", "not an address"),
            ("10.0.0.7:80", "not an address"),
            ("10.0.0.0/24", "not an address"),
            ("zone:", "it is empty"),
            ("group:a\nb", "control character"),
        ] {
            for (error, choices) in [(parse(text.as_ref()), TARGETS), (parse_one_server(text.as_ref()), ONE_SERVER)] {
                let error = error.expect_err(text).to_string();
                assert!(error.contains(why) && error.contains(choices) && !error.contains('\n'), "{error}");
            }
        }
        let error = parse_one_server("group:web".as_ref()).expect_err("a group").to_string();
        assert!(error.contains("one server"), "{error}");
    }
}
