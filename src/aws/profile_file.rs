//! Reads the shared files of the AWS tools, `~/.aws/credentials` and `~/.aws/config`: profile -> key -> value.
//!
//! Syntax by the AWS SDKs and Tools Reference Guide, "Shared config and credentials files". What a key means is
//! the business of who asks for it. Values may be secrets: nothing here prints one.

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
                for (profile, keys) in sections {
                    files.profiles.entry(profile).or_default().extend(keys);
                }
            }
            files.looked_at.push(path);
        }
        Ok(files)
    }

    /// Whether either file has this profile.
    pub(crate) fn has(&self, profile: &str) -> bool {
        self.profiles.contains_key(profile)
    }

    /// The value of a key; an empty one counts as not set.
    pub(crate) fn get(&self, profile: &str, key: &str) -> Option<&str> {
        self.profiles.get(profile)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
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

/// Sections of one file that name a profile. The error is a line's number and what is wrong with it.
fn parse(text: &str, kind: Kind) -> Result<BTreeMap<String, Keys>, (usize, &'static str)> {
    let mut profiles: BTreeMap<String, Keys> = BTreeMap::new();
    // In the config file `[profile default]` hides `[default]`.
    let mut plain_default = Keys::new();
    let mut has_plain_default = false;
    let mut section = Section::None;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let name = rest.split_once(']').ok_or((number, "a section without its closing bracket"))?.0;
            section = section_of(name.trim(), kind);
            match &section {
                Section::Profile(name) => drop(profiles.entry(name.clone()).or_default()),
                Section::PlainDefault => has_plain_default = true,
                Section::Other | Section::None => {}
            }
            continue;
        }
        // An indented line continues the value above: a nested setting of another tool, such as `s3 =`.
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let (key, value) = trimmed.split_once('=').ok_or((number, "neither a [section] nor key = value"))?;
        let keys = match &section {
            Section::None => return Err((number, "a key before the first [section]")),
            Section::Other => continue,
            Section::PlainDefault => &mut plain_default,
            Section::Profile(name) => profiles.entry(name.clone()).or_default(),
        };
        keys.insert(key.trim().to_ascii_lowercase(), without_comment(value).trim().to_string());
    }
    if has_plain_default {
        profiles.entry("default".to_string()).or_insert(plain_default);
    }
    Ok(profiles)
}

enum Section {
    None,
    Profile(String),
    PlainDefault,
    Other,
}

fn section_of(name: &str, kind: Kind) -> Section {
    if kind == Kind::Credentials {
        return Section::Profile(unquoted(name));
    }
    match name.split_once([' ', '\t']) {
        Some(("profile", profile)) => Section::Profile(unquoted(profile.trim())),
        None if name == "default" => Section::PlainDefault,
        // `[sso-session x]`, `[services x]`, and in the config file a bare `[x]`, which the SDKs ignore too.
        _ => Section::Other,
    }
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
        parse(text, kind).expect("a file").get(profile)?.get(key).cloned()
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
                    s3 =\r\n  addressing_style = path\r\n  not a pair\r\nsecret = x/y+z==\r\nkey2 = 1\r\nkey2 = 2\r\n";
        let value = |key| get(text, Kind::Config, "my ops", key);
        assert_eq!(value("region").as_deref(), Some("eu-west-1"));
        assert_eq!(value("key").as_deref(), Some("a#b;c"));
        assert_eq!(value("empty").as_deref(), Some(""));
        assert_eq!(value("secret").as_deref(), Some("x/y+z=="));
        assert_eq!(value("addressing_style"), None);
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
