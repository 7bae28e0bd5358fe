//! Where a setting's value comes from, and the list of all faults of one configuration.
//!
//! The environment wins over the file, the file over the default; what is blank counts as not set, so that the next
//! source holds. A fault does not end the reading: all of them are reported together.
//!
//! What is no fault but will surprise is a note: the log's business at a start, and said after the faults where there are
//! some, since it often explains them.

use std::path::Path;

use super::faults::Faults;
use super::keys::{self, Key};
use super::shown::shown;
use super::strays;
use crate::conf_file::{ConfFile, Node};
use crate::environment::Environment;

/// A value that is set, and by whom.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The value.
    pub(super) node: Node,
    /// Who set it.
    pub(super) origin: Origin,
}

/// Who set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Environment,
    File,
    Default,
}

/// The sources of one configuration, and the faults found in it so far.
pub(super) struct Sources<'a> {
    env: &'a Environment,
    file: Option<ConfFile>,
    faults: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Sources<'a> {
    /// Reads the file that `--config` names, else the first of `usual` that can be read.
    /// An error is a named file that cannot be read, or one that is no YAML: nothing more can be said of its keys then.
    pub(super) fn open(config: Option<&Path>, usual: &[&Path], env: &'a Environment) -> Result<Self, Faults> {
        let mut left_out = Vec::new();
        let file = match config {
            Some(path) => Some(ConfFile::read(path)?),
            None => ConfFile::read_first(usual, &mut left_out)?,
        };
        let mut sources = Self::new(file, env);
        sources.notes.splice(..0, left_out);
        Ok(sources)
    }

    /// The environment and a file that was read; the file's unknown keys are reported.
    pub(super) fn new(file: Option<ConfFile>, env: &'a Environment) -> Self {
        let mut faults = Vec::new();
        if let Some(file) = &file {
            for (name, value) in file.entries().iter().filter(|(name, _)| !keys::is_known(name)) {
                if !file.is_merged(value) {
                    faults.push(unknown(&shown(name), &file.place(&[name]), keys::nearest(name, keys::names())));
                }
            }
        }
        let notes = strays::note(env).into_iter().collect();
        Sources { env, file, faults, notes }
    }

    /// What the environment says of a key.
    pub(super) fn in_environment(&self, key: &Key) -> Option<Found> {
        let text = self.env.get(key.name).map(str::trim).filter(|text| !text.is_empty())?;
        Some(Found { node: Node::Text(text.to_owned()), origin: Origin::Environment })
    }

    /// What the file says of a key.
    fn in_file(&self, key: &Key) -> Option<Found> {
        let node = self.file.as_ref()?.get(key.name).filter(|node| !node.is_blank())?;
        Some(Found { node: node.clone(), origin: Origin::File })
    }

    /// What someone said of a key: the environment, else the file.
    pub(super) fn given(&self, key: &Key) -> Option<Found> {
        self.in_environment(key).or_else(|| self.in_file(key))
    }

    /// The value that holds: the one that is given, else the default; `None` where there is neither.
    pub(super) fn find(&self, key: &Key) -> Option<Found> {
        let default = || Found { node: Node::Text(key.default.to_owned()), origin: Origin::Default };
        self.given(key).or_else(|| (!key.default.is_empty()).then(default))
    }

    /// The parsed value; `None` when it is not set, and when it is faulty, which is then reported.
    pub(super) fn read<T>(&mut self, key: &Key, parse: impl Fn(&Node) -> Option<T>) -> Option<T> {
        let found = self.find(key)?;
        let value = parse(&found.node);
        if value.is_none() {
            self.wrong(key, &found, key.expected);
        }
        value
    }

    /// As [`Sources::read`], and a key that is not set is a fault.
    pub(super) fn require<T>(&mut self, key: &Key, parse: impl Fn(&Node) -> Option<T>) -> Option<T> {
        if self.find(key).is_none() {
            self.missing(key, "");
        }
        self.read(key, parse)
    }

    /// Reports a key that is not set; `reason` says why it has to be (`because ...`), empty for always.
    pub(super) fn missing(&mut self, key: &Key, reason: &str) {
        let comma = if reason.is_empty() { "" } else { ", " };
        let places = match &self.file {
            Some(file) => format!("{}, the environment", file.place(&[])),
            None => "the environment, no configuration file".to_owned(),
        };
        self.faults.push(format!("{}: not set ({places}), expected {}{comma}{reason}", key.name, key.expected));
    }

    /// Reports the value of a key.
    pub(super) fn wrong(&mut self, key: &Key, found: &Found, expected: &str) {
        self.wrong_inside(key, found.origin, &[], Some(&found.node), expected);
    }

    /// Reports a value inside a key's map, at `path`; `None` for one that is not there.
    pub(super) fn wrong_inside(
        &mut self,
        key: &Key,
        origin: Origin,
        path: &[&str],
        found: Option<&Node>,
        expected: &str,
    ) {
        let subject = subject(key, path);
        let place = self.place(key, origin, path);
        self.faults.push(match found {
            Some(node) => format!("{subject}: found {} ({place}), expected {expected}", shown(&node.to_string())),
            None => format!("{subject}: not set ({place}), expected {expected}"),
        });
    }

    /// Reports a key inside a key's map that is none of `known`.
    pub(super) fn unknown_inside(&mut self, key: &Key, origin: Origin, path: &[&str], known: &[&str]) {
        let place = self.place(key, origin, path);
        let nearest = path.last().and_then(|name| keys::nearest(name, known.iter().copied()));
        self.faults.push(unknown(&subject(key, path), &place, nearest));
    }

    /// Notes what will surprise in the value of a key, and is no fault.
    pub(super) fn note(&mut self, key: &Key, found: &Found, text: &str) {
        let place = self.place(key, found.origin, &[]);
        self.notes.push(format!("{} ({place}): {text}", key.name));
    }

    /// What was noted so far, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The value if nothing was wrong, else every fault, and what was noted after them.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Faults> {
        if self.faults.is_empty() {
            return Ok(value);
        }
        self.faults.append(&mut self.notes);
        Err(Faults(self.faults))
    }

    fn place(&self, key: &Key, origin: Origin, path: &[&str]) -> String {
        match (origin, &self.file) {
            (Origin::File, Some(file)) => {
                let keys: Vec<&str> = [key.name].into_iter().chain(path.iter().copied()).collect();
                file.place(&keys)
            }
            (Origin::File, None) => "the file".to_owned(),
            (Origin::Environment, _) => "the environment".to_owned(),
            (Origin::Default, _) => "the default".to_owned(),
        }
    }
}

fn unknown(subject: &str, place: &str, nearest: Option<&str>) -> String {
    let hint = nearest.map(|key| format!(", the nearest known one is {key}")).unwrap_or_default();
    format!("{subject}: unknown key ({place}){hint}")
}

fn subject(key: &Key, path: &[&str]) -> String {
    let path: String = path.iter().map(|name| format!(" {}", shown(name))).collect();
    format!("{}{path}", key.name)
}
