//! What `hsdo why` is asked about.

use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;

use crate::error::Error;
use crate::slot::{MAX_SLOT, SlotId};

/// What a target may be, for messages.
pub const TARGETS: &str = "slot:3, an instance id or an address";

/// What to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `slot:3`
    Slot(SlotId),
    /// An instance by its name: an EC2 id, or what Consul calls it.
    Instance(String),
    /// An address.
    Address(IpAddr),
}

impl Target {
    /// Parses a target.
    ///
    /// # Errors
    /// [`Error::Usage`] with one line.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let bad = |why: &str| Err(Error::Usage(format!("target {text:?}: {why}; name {TARGETS}")));
        let Some(text) = text.to_str() else { return bad("it is not UTF-8") };
        if let Some(number) = text.strip_prefix("slot:") {
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            return match number.parse() {
                Ok(id) if plain && (1..=MAX_SLOT).contains(&id) => Ok(Target::Slot(id)),
                _ => bad(&format!("not a slot number, 1 to {MAX_SLOT}")),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Target::Address(address));
        }
        if text.is_empty() {
            return bad("it is empty");
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return bad("is it a slot");
        }
        if text.bytes().all(|byte| byte.is_ascii_digit() || b".:/".contains(&byte)) {
            return bad("not an address");
        }
        if ["zone:", "group:"].iter().any(|kind| text.starts_with(kind)) {
            return bad("one server is explained at a time");
        }
        Ok(Target::Instance(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Slot(id) => write!(f, "slot:{id}"),
            Target::Instance(name) => f.write_str(name),
            Target::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            let parsed = Target::parse(text.as_ref()).expect(text);
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn anything_else_names_its_fault() {
        for (text, why) in [
            ("", "it is empty"),
            ("3", "is it a slot"),
            ("slot:", "not a slot number"),
            ("slot:0", "not a slot number"),
            ("slot:+1", "not a slot number"),
            ("slot:10001", "not a slot number"),
            ("slot:x\n", "not a slot number"),
            ("10.0.0", "not an address"),
            ("10.0.0.256", "not an address"),
            ("10.0.0.7:80", "not an address"),
            ("10.0.0.0/24", "not an address"),
            ("group:web", "one server"),
            ("zone:eu-west-1a", "one server"),
        ] {
            let error = Target::parse(text.as_ref()).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains(TARGETS) && !error.contains('\n'), "{error}");
        }
    }
}
