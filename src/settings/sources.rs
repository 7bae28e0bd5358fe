//! Looks settings up in the environment, then the file, then the defaults; a blank value counts as unset.
//!
//! All faults are collected and reported together. Warnings are for the log at startup; if there are faults they are
//! reported after them, since they often explain them.

use std::path::Path;

use super::faults::Faults;
use super::keys::{self, Setting};
use super::quote::{quoted, without_user};
use super::strays;
use crate::conf_file::{ConfFile, Node};
use crate::environment::Environment;

#[derive(Clone, Debug)]
pub(super) struct SourcedValue {
    pub(super) node: Node,
    pub(super) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Environment,
    File,
    Default,
}

pub(super) struct Sources<'a> {
    env: &'a Environment,
    file: Option<ConfFile>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Sources<'a> {
    /// Reads `config`, or else the first readable file of `defaults`.
    pub(super) fn open(config: Option<&Path>, defaults: &[&Path], env: &'a Environment) -> Result<Self, Faults> {
        let mut skipped = Vec::new();
        let file = match config {
            Some(path) => Some(ConfFile::read(path)?),
            None => ConfFile::read_first(defaults, &mut skipped)?,
        };
        let mut sources = Self::new(file, env);
        sources.warnings.splice(..0, skipped);
        Ok(sources)
    }

    /// Reports the file's unknown keys.
    pub(super) fn new(file: Option<ConfFile>, env: &'a Environment) -> Self {
        let mut faults = Vec::new();
        if let Some(file) = &file {
            for (name, value) in file.entries().iter().filter(|(name, _)| !keys::is_setting(name)) {
                if !file.is_merged(value) {
                    faults.push(unknown(&quoted(name), &file.place(&[name]), keys::nearest(name, keys::names())));
                }
            }
        }
        let warnings = strays::warning(env).into_iter().collect();
        Sources { env, file, faults, warnings }
    }

    /// The file that was read, if there is one.
    pub(super) fn file_name(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.place(&[]))
    }

    /// Forgets the faults reported so far, such as unknown keys: for readers of single settings.
    pub(super) fn forget_faults(&mut self) {
        self.faults.clear();
    }

    pub(super) fn in_environment(&self, key: &Setting) -> Option<SourcedValue> {
        let text = self.env.get(key.name).map(str::trim).filter(|text| !text.is_empty())?;
        Some(SourcedValue { node: Node::Text(text.to_owned()), origin: Origin::Environment })
    }

    fn in_file(&self, key: &Setting) -> Option<SourcedValue> {
        let node = self.file.as_ref()?.get(key.name).filter(|node| !node.is_blank())?;
        Some(SourcedValue { node: node.clone(), origin: Origin::File })
    }

    /// The explicit value: from the environment, else the file.
    pub(super) fn given(&self, key: &Setting) -> Option<SourcedValue> {
        self.in_environment(key).or_else(|| self.in_file(key))
    }

    /// The explicit value, else the default, if any.
    pub(super) fn find(&self, key: &Setting) -> Option<SourcedValue> {
        let default = || SourcedValue { node: Node::Text(key.default.to_owned()), origin: Origin::Default };
        self.given(key).or_else(|| (!key.default.is_empty()).then(default))
    }

    /// The parsed value. `None` if it is unset, or faulty, which is reported.
    pub(super) fn read<T>(&mut self, key: &Setting, parse: impl Fn(&Node) -> Option<T>) -> Option<T> {
        let found = self.find(key)?;
        let value = parse(&found.node);
        if value.is_none() {
            self.invalid(key, &found, key.expected);
        }
        value
    }

    pub(super) fn require<T>(&mut self, key: &Setting, parse: impl Fn(&Node) -> Option<T>) -> Option<T> {
        if self.find(key).is_none() {
            self.missing(key, "");
        }
        self.read(key, parse)
    }

    /// Reports an unset key. `reason` says why it is required (`because ...`); empty if it always is.
    pub(super) fn missing(&mut self, key: &Setting, reason: &str) {
        let comma = if reason.is_empty() { "" } else { ", " };
        let places = match &self.file {
            Some(file) => format!("{}, the environment", file.place(&[])),
            None => "the environment, no configuration file".to_owned(),
        };
        self.faults.push(format!("{}: not set ({places}), expected {}{comma}{reason}", key.name, key.expected));
    }

    pub(super) fn invalid(&mut self, key: &Setting, found: &SourcedValue, expected: &str) {
        self.invalid_inside(key, found.origin, &[], Some(&found.node), expected);
    }

    /// Reports the value at `path` inside a key's map; `None` if it is missing.
    pub(super) fn invalid_inside(
        &mut self,
        key: &Setting,
        origin: Origin,
        path: &[&str],
        found: Option<&Node>,
        expected: &str,
    ) {
        let subject = subject(key, path);
        let place = self.place(key, origin, path);
        self.faults.push(match found {
            Some(node) => {
                let found = quoted(&without_user(&node.to_string()));
                format!("{subject}: found {found} ({place}), expected {expected}")
            }
            None => format!("{subject}: not set ({place}), expected {expected}"),
        });
    }

    pub(super) fn unknown_inside(&mut self, key: &Setting, origin: Origin, path: &[&str], valid: &[&str]) {
        let place = self.place(key, origin, path);
        let nearest = path.last().and_then(|name| keys::nearest(name, valid.iter().copied()));
        self.faults.push(unknown(&subject(key, path), &place, nearest));
    }

    pub(super) fn warn(&mut self, key: &Setting, found: &SourcedValue, text: &str) {
        let place = self.place(key, found.origin, &[]);
        self.warnings.push(format!("{} ({place}): {text}", key.name));
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The value if there was no fault, else all faults, then all warnings.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Faults> {
        if self.faults.is_empty() {
            return Ok(value);
        }
        let warnings = self.warnings.len();
        self.faults.append(&mut self.warnings);
        Err(Faults(self.faults, warnings))
    }

    pub(super) fn place(&self, key: &Setting, origin: Origin, path: &[&str]) -> String {
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
    let hint = nearest.map(|key| format!(": did you mean {key}?")).unwrap_or_default();
    format!("{subject}: unknown key ({place}){hint}")
}

fn subject(key: &Setting, path: &[&str]) -> String {
    let path: String = path.iter().map(|name| format!(" {}", quoted(name))).collect();
    format!("{}{path}", key.name)
}
