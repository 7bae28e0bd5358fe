//! Reads the shared files of the AWS tools, `~/.aws/credentials` and `~/.aws/config`: profile -> key -> value.
//!
//! Syntax by the AWS SDKs and Tools Reference Guide, "Shared config and credentials files", and by the SDKs' own test
//! cases, which it is tested with. What a key means is the business of who asks for it. Values may be secrets:
//! nothing here prints one.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::environment::Environment;

/// How much of a shared file is read, in bytes; a real one has a few kilobytes.
const FILE_LIMIT: u64 = 1024 * 1024;

type Keys = BTreeMap<String, String>;

/// Both shared files, joined.
#[derive(Default)]
pub(crate) struct ProfileFiles {
    profiles: BTreeMap<String, Keys>,
    sso_sessions: BTreeMap<String, Keys>,
    services: BTreeMap<String, Keys>,
    looked_at: Vec<PathBuf>,
}

impl ProfileFiles {
    /// Reads both files. A file that does not exist is empty; one that cannot be read or understood is an error.
    pub(crate) fn read(environment: &Environment) -> Result<Self, Error> {
        let mut files = ProfileFiles::default();
        // The credentials file comes last, since its keys win.
        for (variable, default, kind) in [
            ("AWS_CONFIG_FILE", "config", Kind::Config),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", Kind::Credentials),
        ] {
            let Some(path) = path(environment, variable, default) else { continue };
            if let Some(text) = read_file(&path, variable)? {
                let sections = parse(&text, kind)
                    .map_err(|(line, fault)| Error::Setup(format!("{} line {line}: {fault}", path.display())))?;
                files.add(sections);
            }
            files.looked_at.push(path);
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
        Some(without_comment(value).trim().to_string()).filter(|value| !value.is_empty())
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
        let places: Vec<String> = self.looked_at.iter().map(|path| path.display().to_string()).collect();
        if places.is_empty() { "~/.aws, as HOME is not set".to_string() } else { places.join(" or ") }
    }
}

/// The profile in use: `AWS_PROFILE`, else `default`.
pub(crate) fn profile(environment: &Environment) -> &str {
    environment.get("AWS_PROFILE").unwrap_or("default")
}

fn path(environment: &Environment, variable: &str, default: &str) -> Option<PathBuf> {
    let home = environment.get("HOME").map(Path::new);
    match environment.get(variable) {
        // The SDKs expand a leading `~/` themselves, since no shell has seen the value.
        Some(set) => match (set.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(PathBuf::from(set)),
        },
        None => home.map(|home| home.join(".aws").join(default)),
    }
}

fn read_file(path: &Path, variable: &str) -> Result<Option<String>, Error> {
    let fault = |why: String| {
        Error::Setup(format!("cannot read {}: {why}; make it readable or set {variable}", path.display()))
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(fault(error.kind().to_string())),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| fault(error.kind().to_string()))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(fault("it is larger than 1 MiB".to_string()));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| fault("it is not UTF-8".to_string()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Config,
    Credentials,
}

/// The sections of one file that something can ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sections {
    profiles: BTreeMap<String, Keys>,
    sso_sessions: BTreeMap<String, Keys>,
    services: BTreeMap<String, Keys>,
}

/// What a line can belong to.
enum Section {
    /// Nothing yet.
    None,
    /// A section that nothing asks for.
    Other,
    /// `[default]` in the config file, which `[profile default]` hides.
    PlainDefault,
    Profile(String),
    SsoSession(String),
    Services(String),
}

/// The sections of a file. The error is a line's number and what is wrong with it.
fn parse(text: &str, kind: Kind) -> Result<Sections, (usize, &'static str)> {
    let mut sections = Sections::default();
    let mut plain_default = None;
    let mut section = Section::None;
    // The key of the last line, for the lines that continue it.
    let mut last: Option<String> = None;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.split_once(']').ok_or((number, "a section without its closing bracket"))?.0;
            section = section_of(name.trim(), kind);
            last = None;
            match &section {
                Section::PlainDefault => drop(plain_default.get_or_insert_with(Keys::new)),
                other => drop(sections.keys(other)),
            }
            continue;
        }
        if matches!(section, Section::None) {
            return Err((number, "a key before the first [section]"));
        }
        let mut ignored = Keys::new();
        let keys = match &section {
            Section::PlainDefault => plain_default.get_or_insert_with(Keys::new),
            other => sections.keys(other).unwrap_or(&mut ignored),
        };
        // An indented line continues the value above, or is a key below it: `endpoint_url` below `dynamodb =`.
        if line.starts_with([' ', '\t']) {
            let known = !matches!(section, Section::Other);
            let value = match last.as_ref().and_then(|key| keys.get_mut(key)) {
                Some(value) => value,
                None if known => return Err((number, "an indented line that continues no value")),
                None => continue,
            };
            let nested = value.is_empty() || value.starts_with('\n');
            match trimmed.split_once('=') {
                None if nested => return Err((number, "neither key = value below a key nor more of its value")),
                Some((name, _)) if nested && name.trim().is_empty() => return Err((number, "a value without its key")),
                _ => {}
            }
            value.push('\n');
            value.push_str(trimmed);
            continue;
        }
        let (key, value) = trimmed.split_once('=').ok_or((number, "neither a [section] nor key = value"))?;
        let key = key.trim().to_ascii_lowercase();
        if key.is_empty() {
            return Err((number, "a value without its key"));
        }
        // As the SDKs do: a key with a space in it is none of ours.
        if key.contains(char::is_whitespace) {
            last = None;
            continue;
        }
        keys.insert(key.clone(), without_comment(value).trim().to_string());
        last = Some(key);
    }
    if let Some(keys) = plain_default {
        sections.profiles.entry("default".to_string()).or_insert(keys);
    }
    Ok(sections)
}

impl Sections {
    fn keys(&mut self, section: &Section) -> Option<&mut Keys> {
        match section {
            Section::Profile(name) => Some(self.profiles.entry(name.clone()).or_default()),
            Section::SsoSession(name) => Some(self.sso_sessions.entry(name.clone()).or_default()),
            Section::Services(name) => Some(self.services.entry(name.clone()).or_default()),
            Section::PlainDefault | Section::Other | Section::None => None,
        }
    }
}

fn section_of(title: &str, kind: Kind) -> Section {
    // In the config file a bare `[x]` is no profile, and neither is `[profile x]` in the credentials file.
    let (word, rest) = match kind {
        Kind::Credentials => ("profile", title),
        Kind::Config if title == "default" => return Section::PlainDefault,
        Kind::Config => title.split_once([' ', '\t']).unwrap_or(("", title)),
    };
    let Some(name) = name(rest.trim()) else { return Section::Other };
    match word {
        "profile" => Section::Profile(name),
        "sso-session" => Section::SsoSession(name),
        "services" => Section::Services(name),
        _ => Section::Other,
    }
}

/// A name in quotes may hold anything, one without them only what the SDKs allow.
fn name(text: &str) -> Option<String> {
    let bare = unquoted(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_/.%@:+".contains(c);
    (bare != text || (!text.is_empty() && text.chars().all(allowed))).then_some(bare)
}

fn unquoted(name: &str) -> String {
    let inner = |quote| name.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(name).to_string()
}

/// A comment begins with `#` or `;` after a space; without one it belongs to the value.
fn without_comment(value: &str) -> &str {
    let begins = |(at, c): (usize, char)| (matches!(c, '#' | ';') && value[..at].ends_with([' ', '\t'])).then_some(at);
    value.char_indices().find_map(begins).map_or(value, |at| &value[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, kind: Kind, profile: &str, key: &str) -> Option<String> {
        parse(text, kind).expect("a file").profiles.get(profile)?.get(key).cloned()
    }

    #[test]
    fn profiles_are_spelled_differently_in_the_two_files() {
        let config = "[default]\nregion = eu-west-1\n[profile ops]\nregion=us-east-1\n[other]\nregion=x\n[sso-session ops]\nregion=y\n";
        assert_eq!(get(config, Kind::Config, "default", "region").as_deref(), Some("eu-west-1"));
        assert_eq!(get(config, Kind::Config, "ops", "region").as_deref(), Some("us-east-1"));
        assert_eq!(get(config, Kind::Config, "other", "region"), None);
        let credentials = "[other]\naws_access_key_id = A\n[profile ops]\naws_access_key_id = B\n";
        assert_eq!(get(credentials, Kind::Credentials, "other", "aws_access_key_id").as_deref(), Some("A"));
        assert_eq!(get(credentials, Kind::Credentials, "ops", "aws_access_key_id"), None);
    }

    #[test]
    fn the_details_of_the_syntax() {
        let text = "# comment\r\n\r\n[ profile \"my ops\" ] ; note\r\nRegion = eu-west-1 # where\r\nkey = a#b;c\r\nempty =\r\n\
                    s3 =\r\n  addressing_style = path\r\n\r\n  # note\r\n  x = 1\r\nsecret = x/y+z==\r\nkey2 = 1\r\nkey2 = 2\r\n";
        let value = |key| get(text, Kind::Config, "my ops", key);
        assert_eq!(value("region").as_deref(), Some("eu-west-1"));
        assert_eq!(value("key").as_deref(), Some("a#b;c"));
        assert_eq!(value("empty").as_deref(), Some(""));
        assert_eq!(value("secret").as_deref(), Some("x/y+z=="));
        assert_eq!(value("addressing_style"), None);
        assert_eq!(value("s3").as_deref(), Some("\naddressing_style = path\nx = 1"));
        assert_eq!(value("key2").as_deref(), Some("2"));
    }

    #[test]
    fn profile_default_hides_default_in_the_config_file() {
        for text in [
            "[profile default]\nregion = a\n[default]\nregion = b\nkey = c\n",
            "[default]\nregion = b\nkey = c\n[profile default]\nregion = a\n",
        ] {
            assert_eq!(get(text, Kind::Config, "default", "region").as_deref(), Some("a"));
            assert_eq!(get(text, Kind::Config, "default", "key"), None);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named_by_its_line() {
        for (text, line) in [("[default\nx = 1\n", 1), ("x = 1\n", 1), ("[default]\n\nnonsense\n", 3)] {
            assert_eq!(parse(text, Kind::Config).expect_err(text).0, line, "{text}");
        }
    }

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
            serde_json::from_str(include_str!("../../tests/data/aws-config/profile-files.json")).expect("cases");
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
        let home = Environment::from([("HOME", "/home/u"), ("AWS_SHARED_CREDENTIALS_FILE", "~/keys")]);
        assert_eq!(path(&home, "AWS_CONFIG_FILE", "config"), Some(PathBuf::from("/home/u/.aws/config")));
        assert_eq!(path(&home, "AWS_SHARED_CREDENTIALS_FILE", "x"), Some(PathBuf::from("/home/u/keys")));
        assert_eq!(path(&Environment::default(), "AWS_CONFIG_FILE", "config"), None);
    }

    #[test]
    fn a_missing_file_is_empty_and_an_unreadable_one_an_error() {
        let files = ProfileFiles::read(&Environment::from([("HOME", "/nonexistent")])).expect("no files");
        assert!(!files.has("default"));
        assert!(files.places().contains("/nonexistent/.aws/credentials"));
        let directory = Environment::from([("AWS_CONFIG_FILE", "/")]);
        let error = ProfileFiles::read(&directory).err().expect("a directory is no file");
        assert!(error.to_string().contains("AWS_CONFIG_FILE"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[\\[\\]= #;a\"\\n\\té]{0,60}") {
            for kind in [Kind::Config, Kind::Credentials] {
                let _ = parse(&text, kind);
            }
        }
    }
}
