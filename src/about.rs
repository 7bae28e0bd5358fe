//! What a message is about: the slots, instances, groups, backends and servers that it names. They are fields of their own in
//! the log of `LOG_FORMAT=json`.
//!
//! Names are kept as they are: whoever prints them escapes them.

use std::fmt;

use log::kv::{Error, Key, Source, Value, VisitSource};

use crate::slot::SlotId;

/// The fields that a log line may have besides time, level, target and message, in their order.
pub const FIELDS: [&str; 7] = ["slot", "instance", "group", "zone", "backend", "server", "cause"];

/// The most values that [`About`] keeps of a field: a line has to stay short. The message has the number of the rest.
pub const MAX_VALUES: usize = 50;

/// What a message is about. A field may have several values, which a message about several servers needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About(Vec<(&'static str, Thing)>);

#[derive(Clone, PartialEq, Eq)]
enum Thing {
    Number(SlotId),
    Name(String),
}

impl fmt::Debug for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Number(number) => number.fmt(f),
            Thing::Name(name) => name.fmt(f),
        }
    }
}

impl About {
    /// Adds slots.
    #[must_use]
    pub fn slot(self, ids: impl IntoIterator<Item = SlotId>) -> Self {
        self.with("slot", ids.into_iter().map(Thing::Number))
    }

    /// Adds instances, by name.
    #[must_use]
    pub fn instance<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with("instance", named(names))
    }

    /// Adds Auto Scaling groups or Consul services.
    #[must_use]
    pub fn group<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with("group", named(names))
    }

    /// Adds availability zones.
    #[must_use]
    pub fn zone<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with("zone", named(names))
    }

    /// Adds HAProxy's backends.
    #[must_use]
    pub fn backend<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with("backend", named(names))
    }

    /// Adds HAProxy's servers.
    #[must_use]
    pub fn server<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with("server", named(names))
    }

    /// Adds the words of causes.
    #[must_use]
    pub fn cause(self, words: impl IntoIterator<Item = &'static str>) -> Self {
        self.with("cause", named(words))
    }

    /// Adds all that `other` is about.
    #[must_use]
    pub fn and(mut self, other: About) -> Self {
        for (field, thing) in other.0 {
            self.add(field, thing);
        }
        self
    }

    fn with(mut self, field: &'static str, things: impl Iterator<Item = Thing>) -> Self {
        for thing in things {
            if !self.add(field, thing) {
                break;
            }
        }
        self
    }

    /// Adds a value unless it is there already. False once the field is full.
    fn add(&mut self, field: &'static str, thing: Thing) -> bool {
        let values = || self.0.iter().filter(|(name, _)| *name == field);
        if values().count() >= MAX_VALUES {
            return false;
        }
        if values().all(|(_, value)| *value != thing) {
            self.0.push((field, thing));
        }
        true
    }
}

fn named<N: Into<String>>(names: impl IntoIterator<Item = N>) -> impl Iterator<Item = Thing> {
    names.into_iter().map(|name| Thing::Name(name.into()))
}

/// A field with several values is a key that comes several times.
impl Source for About {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        self.0.iter().try_for_each(|(field, thing)| {
            let value = match thing {
                Thing::Number(number) => Value::from(*number),
                Thing::Name(name) => Value::from(name.as_str()),
            };
            visitor.visit_pair(Key::from_str(field), value)
        })
    }
}

/// A message, and what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// One line.
    pub text: String,
    /// What it names.
    pub about: About,
}

impl Message {
    /// A message about these.
    pub fn new(text: String, about: About) -> Self {
        Message { text, about }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_once_and_a_field_is_bounded() {
        let about = About::default().slot([3, 1, 3]).group(Some("web")).group(["web", "api"]).instance(None::<&str>);
        assert_eq!(format!("{about:?}"), r#"About([("slot", 3), ("slot", 1), ("group", "web"), ("group", "api")])"#);
        assert_eq!(about.clone().and(about.clone()), about);
        let many = About::default().slot(1..=10_000).and(About::default().slot(5_000..=6_000).backend(["b"]));
        assert_eq!(many, About::default().slot(1..=MAX_VALUES as SlotId).backend(["b"]));
    }

    #[test]
    fn every_value_is_a_pair_of_a_known_field() {
        let about = About::default().slot([1, 2]).instance(["i"]).group(["g"]).backend(["b"]).server(["s"]);
        struct Pairs(Vec<(String, Option<u64>)>);
        impl<'kvs> VisitSource<'kvs> for Pairs {
            fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
                assert!(FIELDS.contains(&key.as_str()), "{key}");
                self.0.push((value.to_string(), value.to_u64()));
                Ok(())
            }
        }
        let mut pairs = Pairs(Vec::new());
        about.visit(&mut pairs).expect("no error");
        let expected = [("1", Some(1)), ("2", Some(2)), ("i", None), ("g", None), ("b", None), ("s", None)];
        assert_eq!(pairs.0, expected.map(|(text, number)| (text.to_owned(), number)));
    }
}
