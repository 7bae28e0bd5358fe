//! Reads the AWS tools' shared files, `~/.aws/credentials` and `~/.aws/config` (AWS SDKs and Tools Reference Guide, "Shared
//! config and credentials files"). Values may be secrets: never printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::profile_text::{FileKind, Keys, Sections, parse, strip_comment};
use crate::aws::error::AwsError;
use crate::environment::Environment;
use crate::text_file;

/// Both shared files, merged.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct ProfileFiles {
    profiles: BTreeMap<String, Keys>,
    sso_sessions: BTreeMap<String, Keys>,
    services: BTreeMap<String, Keys>,
    /// The paths, for messages, with the reason if one was ignored.
    searched: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct FileLocation {
    path: PathBuf,
    /// Whether a variable names it, rather than being the default.
    named: bool,
}

impl ProfileFiles {
    /// Reads both files. A missing file counts as empty, as does a default one that is inaccessible. Errors: a file named by
    /// a variable is inaccessible, or a file is malformed.
    pub(crate) fn read(environment: &Environment) -> Result<Self, AwsError> {
        let mut files = ProfileFiles::default();
        // The credentials file comes last: its keys win.
        for (variable, default, kind) in [
            ("AWS_CONFIG_FILE", "config", FileKind::Config),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", FileKind::Credentials),
        ] {
            let Some(FileLocation { path, named }) = file_location(environment, variable, default) else { continue };
            let shown = path.display().to_string();
            let fault = match text_file::read(&path) {
                Ok(text) => {
                    let fault = |(line, what)| AwsError::Setup(format!("{shown} line {line}: {what}"));
                    files.add(parse(&text, kind).map_err(fault)?);
                    files.searched.push(shown);
                    continue;
                }
                Err(fault) => fault,
            };
            match fault.kind {
                Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => files.searched.push(shown),
                // Such as another user's home under sudo, a directory created by a container mount, a network that is down.
                Some(_) if !named => {
                    log_once(format!("{shown} is left out: {}; {variable} may name another file", fault.why));
                    files.searched.push(format!("{shown} ({})", fault.why));
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

    #[cfg(any(test, fuzzing))]
    pub(crate) fn from_texts(config: &str, credentials: &str) -> Result<Self, (usize, &'static str)> {
        let mut files = ProfileFiles::default();
        files.add(parse(config, FileKind::Config)?);
        files.add(parse(credentials, FileKind::Credentials)?);
        Ok(files)
    }

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

    pub(crate) fn has(&self, profile: &str) -> bool {
        self.profiles.contains_key(profile)
    }

    /// A profile's key; an empty value counts as unset.
    pub(crate) fn get(&self, profile: &str, key: &str) -> Option<&str> {
        self.profiles.get(profile)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The key of an `[sso-session]`; an empty value counts as unset.
    pub(crate) fn sso_session(&self, session: &str, key: &str) -> Option<&str> {
        self.sso_sessions.get(session)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The key of a service in a `[services]` section; an empty value counts as unset.
    pub(crate) fn service(&self, section: &str, service: &str, key: &str) -> Option<String> {
        let nested = self.services.get(section)?.get(service)?;
        let mut pairs = nested.lines().rev().filter_map(|line| line.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(key))?;
        Some(strip_comment(value, false).trim().to_string()).filter(|value| !value.is_empty())
    }

    /// A profile's region, else that of its source_profile, and so on.
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

    /// For messages: `a or b`.
    pub(crate) fn searched_paths(&self) -> String {
        if self.searched.is_empty() {
            return "~/.aws (neither HOME nor /etc/passwd says where that is)".to_string();
        }
        self.searched.join(" or ")
    }
}

/// The profile in use.
pub(crate) fn profile(environment: &Environment) -> &str {
    named_profile(environment).map_or("default", |(_, name)| name)
}

/// The variable that names the profile, and the name: `AWS_PROFILE`, else the older `AWS_DEFAULT_PROFILE`.
pub(crate) fn named_profile(environment: &Environment) -> Option<(&'static str, &str)> {
    ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find_map(|name| Some((name, environment.get(name)?)))
}

fn file_location(environment: &Environment, variable: &str, default: &str) -> Option<FileLocation> {
    match environment.get(variable) {
        Some(set) => Some(FileLocation { path: expand(set, environment), named: true }),
        None => {
            let home = Path::new(environment.get("HOME")?);
            Some(FileLocation { path: home.join(".aws").join(default), named: false })
        }
    }
}

/// Expands variables and a leading `~/`, as the SDKs do. An unset variable stays as it is.
fn expand(path: &str, environment: &Environment) -> PathBuf {
    let mut whole = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('$') {
        whole.push_str(before);
        let (name, remainder) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len())),
        };
        match environment.get(name) {
            Some(value) => {
                whole.push_str(value);
                rest = remainder;
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

/// The files are read at every refresh, but each problem is logged once.
fn log_once(line: String) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if !logged.contains(&line) {
        log::info!("{line}");
        logged.insert(line);
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
        /// The profiles; none if the files are malformed.
        profiles: Option<BTreeMap<String, Keys>>,
        #[serde(default)]
        sso_sessions: BTreeMap<String, Keys>,
    }

    #[test]
    fn files_are_parsed_as_in_the_sdks() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/data/aws-config/profile-files.json")).expect("cases");
        assert_eq!(cases.len(), 63);
        for case in cases {
            let read = parse(&case.config, FileKind::Config).and_then(|config| {
                let mut files = ProfileFiles::default();
                files.add(config);
                files.add(parse(&case.credentials, FileKind::Credentials)?);
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
        files.add(parse(text, FileKind::Config).expect("a file"));
        assert_eq!(files.service("s", "dynamodb", "endpoint_url").as_deref(), Some("http://x"));
        assert_eq!(files.service("s", "ec2", "endpoint_url"), None);
        for (profile, region) in [("a", Some("eu-west-1")), ("b", Some("eu-west-1")), ("c", None), ("d", None)] {
            assert_eq!(files.region(profile), region, "{profile}");
        }
    }

    #[test]
    fn paths_come_from_variables_or_home() {
        let home = Environment::from([("HOME", "/home/u"), ("AWS_SHARED_CREDENTIALS_FILE", "~/keys"), ("A_1", "/a")]);
        let at = |path: &str, named| Some(FileLocation { path: PathBuf::from(path), named });
        assert_eq!(file_location(&home, "AWS_CONFIG_FILE", "config"), at("/home/u/.aws/config", false));
        assert_eq!(file_location(&home, "AWS_SHARED_CREDENTIALS_FILE", "x"), at("/home/u/keys", true));
        assert_eq!(file_location(&Environment::default(), "AWS_CONFIG_FILE", "config"), None);
        for (text, expected) in [
            ("$HOME/x", "/home/u/x"),
            ("${HOME}x/$A_1-${A_1}", "/home/ux//a-/a"),
            ("$B/$ $HOME ${", "$B/$ /home/u ${"),
            ("${B}/~/x", "${B}/~/x"),
            ("é$HOMEé", "é/home/ué"),
        ] {
            assert_eq!(expand(text, &home), PathBuf::from(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_empty_and_an_inaccessible_one_an_error_if_named() {
        let files = ProfileFiles::read(&Environment::from([("HOME", "/nonexistent")])).expect("no files");
        assert!(!files.has("default"));
        assert!(files.searched_paths().contains("/nonexistent/.aws/credentials"));
        let folder = Folder::new();
        let ring = Path::new(&folder.file("ring", "")).with_file_name("home");
        std::os::unix::fs::symlink(&ring, &ring).expect("a link to itself");
        let ring = ring.to_string_lossy().into_owned();
        let files = ProfileFiles::read(&Environment::from([("HOME", ring.as_str())])).expect("left out");
        assert!(files.searched_paths().contains("/home/.aws/credentials ("), "{}", files.searched_paths());
        let error = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", ring.as_str())])).err();
        assert!(error.expect("a named file").to_string().contains("make it readable or correct AWS_CONFIG_FILE"));
        let directory = Environment::from([("AWS_CONFIG_FILE", "/")]);
        let error = ProfileFiles::read(&directory).err().expect("a directory is no file");
        assert!(error.to_string().contains("make it readable or correct AWS_CONFIG_FILE"), "{error}");

        let path = folder.file("latin-1", "");
        std::fs::write(&path, b"[default]\n# M\xfcller\n").expect("a file");
        let error = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", path.as_str())])).err();
        assert!(error.expect("no UTF-8").to_string().ends_with("not valid UTF-8: save it as UTF-8"));
        std::fs::write(&path, "\u{feff}[default]\nregion = eu-west-1\n").expect("a file");
        let files = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", path.as_str())])).expect("a file");
        assert_eq!(files.region("default"), Some("eu-west-1"));
    }

    #[test]
    fn either_variable_names_the_profile() {
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
