//! Reads the shared files of the AWS tools, `~/.aws/credentials` and `~/.aws/config`: profile -> key -> value.
//!
//! AWS SDKs and Tools Reference Guide, "Shared config and credentials files"; their grammar is that of `profile_text`. What a
//! key means is the business of who asks for it. Values may be secrets: nothing here prints one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::profile_text::{Keys, Kind, Sections, parse, without_comment};
use crate::aws::error::AwsError;
use crate::environment::Environment;
use crate::text_file;

/// Both shared files, joined.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct ProfileFiles {
    profiles: BTreeMap<String, Keys>,
    sso_sessions: BTreeMap<String, Keys>,
    services: BTreeMap<String, Keys>,
    /// The files, for messages, with the reason where one was left out.
    looked_at: Vec<String>,
}

/// Where a file is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// Whether a variable says so. Otherwise it is only the usual place.
    named: bool,
}

impl ProfileFiles {
    /// Reads both files. One that does not exist is empty, and so is one that nobody named and that the system does not let us
    /// read. Any other that cannot be read, or not understood, is an error.
    pub(crate) fn read(environment: &Environment) -> Result<Self, AwsError> {
        let mut files = ProfileFiles::default();
        // The credentials file comes last, since its keys win.
        for (variable, default, kind) in [
            ("AWS_CONFIG_FILE", "config", Kind::Config),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", Kind::Credentials),
        ] {
            let Some(Place { path, named }) = place(environment, variable, default) else { continue };
            let shown = path.display().to_string();
            let fault = match text_file::read(&path) {
                Ok(text) => {
                    let fault = |(line, what)| AwsError::Setup(format!("{shown} line {line}: {what}"));
                    files.add(parse(&text, kind).map_err(fault)?);
                    files.looked_at.push(shown);
                    continue;
                }
                Err(fault) => fault,
            };
            match fault.kind {
                Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => files.looked_at.push(shown),
                // The home of another user, as under sudo, a folder that a container's mount has made, a network that is down.
                Some(_) if !named => {
                    say_once(format!("{shown} is left out: {}; {variable} may name another file", fault.why));
                    files.looked_at.push(format!("{shown} ({})", fault.why));
                }
                Some(_) => {
                    let remedy = format!("make it readable or correct {variable}");
                    return Err(AwsError::Setup(format!("cannot read {shown}: {}; {remedy}", fault.why)));
                }
                None => return Err(AwsError::Setup(format!("cannot read {shown}: {}", fault.why))),
            }
        }
        Ok(files)
    }

    /// The files of these texts. The error is the number of a line and what is wrong with it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(config: &str, credentials: &str) -> Result<Self, (usize, &'static str)> {
        let mut files = ProfileFiles::default();
        files.add(parse(config, Kind::Config)?);
        files.add(parse(credentials, Kind::Credentials)?);
        Ok(files)
    }

    /// The names of the profiles.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }

    fn add(&mut self, sections: Sections) {
        for (profile, keys) in sections.profiles {
            self.profiles.entry(profile).or_default().extend(keys);
        }
        self.sso_sessions.extend(sections.sso_sessions);
        self.services.extend(sections.services);
    }

    /// Whether either file has this profile.
    pub(crate) fn has(&self, profile: &str) -> bool {
        self.profiles.contains_key(profile)
    }

    /// The value of a key; an empty one counts as not set.
    pub(crate) fn get(&self, profile: &str, key: &str) -> Option<&str> {
        self.profiles.get(profile)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a key of an `[sso-session]`; an empty one counts as not set.
    pub(crate) fn sso_session(&self, session: &str, key: &str) -> Option<&str> {
        self.sso_sessions.get(session)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a key below a service in a `[services]` section; an empty one counts as not set.
    pub(crate) fn service(&self, section: &str, service: &str, key: &str) -> Option<String> {
        let nested = self.services.get(section)?.get(service)?;
        let mut pairs = nested.lines().rev().filter_map(|line| line.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(key))?;
        Some(without_comment(value, false).trim().to_string()).filter(|value| !value.is_empty())
    }

    /// The region of a profile: its own, else that of the profiles whose credentials it takes.
    pub(crate) fn region<'a>(&'a self, profile: &'a str) -> Option<&'a str> {
        let mut seen = vec![profile];
        loop {
            let last = seen.last()?;
            if let Some(region) = self.get(last, "region") {
                return Some(region);
            }
            let source = self.get(last, "source_profile").filter(|source| !seen.contains(source))?;
            seen.push(source);
        }
    }

    /// The files, for a message: `a or b`.
    pub(crate) fn places(&self) -> String {
        if self.looked_at.is_empty() {
            return "~/.aws, as neither HOME nor /etc/passwd says where that is".to_string();
        }
        self.looked_at.join(" or ")
    }
}

/// The profile in use: the one that a variable names, else `default`.
pub(crate) fn profile(environment: &Environment) -> &str {
    named_profile(environment).map_or("default", |(_, name)| name)
}

/// The variable that names a profile, and the name: `AWS_PROFILE`, else the older `AWS_DEFAULT_PROFILE`.
pub(crate) fn named_profile(environment: &Environment) -> Option<(&'static str, &str)> {
    ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find_map(|name| Some((name, environment.get(name)?)))
}

fn place(environment: &Environment, variable: &str, default: &str) -> Option<Place> {
    match environment.get(variable) {
        Some(set) => Some(Place { path: expanded(set, environment), named: true }),
        None => {
            let home = Path::new(environment.get("HOME")?);
            Some(Place { path: home.join(".aws").join(default), named: false })
        }
    }
}

/// A path with its variables and its leading `~/` replaced, as the SDKs do themselves, since no shell has seen it. A variable
/// that is not set stays as it is.
fn expanded(path: &str, environment: &Environment) -> PathBuf {
    let mut whole = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('$') {
        whole.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len())),
        };
        match environment.get(name) {
            Some(value) => {
                whole.push_str(value);
                rest = behind;
            }
            None => {
                whole.push('$');
                rest = after;
            }
        }
    }
    whole.push_str(rest);
    match (whole.strip_prefix("~/"), environment.get("HOME")) {
        (Some(below), Some(home)) => Path::new(home).join(below),
        _ => PathBuf::from(whole),
    }
}

/// The files are read at each search for credentials; what is left out of them is told when it begins to be.
fn say_once(line: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&line) {
        log::info!("{line}");
        said.insert(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::Folder;

    #[derive(serde::Deserialize)]
    struct Case {
        #[serde(default)]
        config: String,
        #[serde(default)]
        credentials: String,
        /// What is read; without it, the files are wrong.
        profiles: Option<BTreeMap<String, Keys>>,
        #[serde(default)]
        sso_sessions: BTreeMap<String, Keys>,
    }

    #[test]
    fn files_are_understood_as_the_sdks_do() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/data/aws-config/profile-files.json")).expect("cases");
        assert_eq!(cases.len(), 63);
        for case in cases {
            let read = parse(&case.config, Kind::Config).and_then(|config| {
                let mut files = ProfileFiles::default();
                files.add(config);
                files.add(parse(&case.credentials, Kind::Credentials)?);
                Ok(files)
            });
            let (config, credentials) = (&case.config, &case.credentials);
            match case.profiles {
                Some(expected) => {
                    let files = read.unwrap_or_else(|fault| panic!("{config:?} {credentials:?}: {fault:?}"));
                    assert_eq!(files.profiles, expected, "{config:?} {credentials:?}");
                    assert_eq!(files.sso_sessions, case.sso_sessions, "{config:?} {credentials:?}");
                }
                None => assert!(read.is_err(), "{config:?} {credentials:?}"),
            }
        }
    }

    #[test]
    fn services_and_regions_are_found() {
        let text = "[profile a]\nsource_profile = b\n[profile b]\nsource_profile = a\nregion = eu-west-1\n[profile c]\n\
                    source_profile = c\n[services s]\ndynamodb =\n  endpoint_url = http://x # note\nec2 =\n  other = y\n";
        let mut files = ProfileFiles::default();
        files.add(parse(text, Kind::Config).expect("a file"));
        assert_eq!(files.service("s", "dynamodb", "endpoint_url").as_deref(), Some("http://x"));
        assert_eq!(files.service("s", "ec2", "endpoint_url"), None);
        for (profile, region) in [("a", Some("eu-west-1")), ("b", Some("eu-west-1")), ("c", None), ("d", None)] {
            assert_eq!(files.region(profile), region, "{profile}");
        }
    }

    #[test]
    fn paths_come_from_variables_or_home() {
        let home = Environment::from([("HOME", "/home/u"), ("AWS_SHARED_CREDENTIALS_FILE", "~/keys"), ("A_1", "/a")]);
        let at = |path: &str, named| Some(Place { path: PathBuf::from(path), named });
        assert_eq!(place(&home, "AWS_CONFIG_FILE", "config"), at("/home/u/.aws/config", false));
        assert_eq!(place(&home, "AWS_SHARED_CREDENTIALS_FILE", "x"), at("/home/u/keys", true));
        assert_eq!(place(&Environment::default(), "AWS_CONFIG_FILE", "config"), None);
        for (text, expected) in [
            ("$HOME/x", "/home/u/x"),
            ("${HOME}x/$A_1-${A_1}", "/home/ux//a-/a"),
            ("$B/$ $HOME ${", "$B/$ /home/u ${"),
            ("${B}/~/x", "${B}/~/x"),
            ("é$HOMEé", "é/home/ué"),
        ] {
            assert_eq!(expanded(text, &home), PathBuf::from(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_empty_and_an_unreadable_one_an_error_where_somebody_named_it() {
        let files = ProfileFiles::read(&Environment::from([("HOME", "/nonexistent")])).expect("no files");
        assert!(!files.has("default"));
        assert!(files.places().contains("/nonexistent/.aws/credentials"));
        let folder = Folder::new();
        let ring = Path::new(&folder.file("ring", "")).with_file_name("home");
        std::os::unix::fs::symlink(&ring, &ring).expect("a link to itself");
        let ring = ring.to_string_lossy().into_owned();
        let files = ProfileFiles::read(&Environment::from([("HOME", ring.as_str())])).expect("left out");
        assert!(files.places().contains("/home/.aws/credentials ("), "{}", files.places());
        let error = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", ring.as_str())])).err();
        assert!(error.expect("a named file").to_string().contains("make it readable or correct AWS_CONFIG_FILE"));
        let directory = Environment::from([("AWS_CONFIG_FILE", "/")]);
        let error = ProfileFiles::read(&directory).err().expect("a directory is no file");
        assert!(error.to_string().contains("make it readable or correct AWS_CONFIG_FILE"), "{error}");

        let path = folder.file("latin-1", "");
        std::fs::write(&path, b"[default]\n# M\xfcller\n").expect("a file");
        let error = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", path.as_str())])).err();
        assert!(error.expect("no UTF-8").to_string().ends_with("it is not in UTF-8: save it so"));
        std::fs::write(&path, "\u{feff}[default]\nregion = eu-west-1\n").expect("a file");
        let files = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", path.as_str())])).expect("a file");
        assert_eq!(files.region("default"), Some("eu-west-1"));
    }

    #[test]
    fn the_profile_is_that_of_either_variable() {
        for (pairs, expected) in [
            (vec![], "default"),
            (vec![("AWS_DEFAULT_PROFILE", "old")], "old"),
            (vec![("AWS_DEFAULT_PROFILE", "old"), ("AWS_PROFILE", "new")], "new"),
            (vec![("AWS_DEFAULT_PROFILE", "old"), ("AWS_PROFILE", "")], "old"),
        ] {
            assert_eq!(profile(&Environment::from(pairs.clone())), expected, "{pairs:?}");
        }
    }
}
