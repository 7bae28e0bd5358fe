//! Every setting as it is in force, with its place, for `hsdo check`.

use std::path::Path;

use super::keys::{AWS_DEFAULT_REGION, AWS_REGION, KEYS, Setting};
use super::quote::{truncated, without_user};
use super::sources::{Origin, Sources};
use super::{Faults, open};
use crate::environment::Environment;

/// A setting as it was found, valid or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSetting {
    /// The setting; `AWS_REGION` where it overrides `AWS_DEFAULT_REGION`.
    pub setting: Setting,
    /// One line, without the user of a URL; `None` if it is not set and has no default.
    pub value: Option<String>,
    /// The environment, `file:line`, or the default.
    pub place: String,
    /// Whether it is set to something else than its default.
    pub chosen: bool,
}

/// The settings as they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every setting of both roles, in the order of `--help`.
    pub settings: Vec<ListedSetting>,
    /// The file that was read, if there is one.
    pub file: Option<String>,
    /// What is odd about where the settings come from, such as a file that was skipped.
    pub warnings: Vec<String>,
}

/// Lists the settings. `config` is the argument of `--config`.
///
/// # Errors
/// The configuration file cannot be read.
pub fn list(config: Option<&Path>, env: &Environment) -> Result<Listing, Faults> {
    let sources = open(config, env)?;
    let settings = KEYS.iter().map(|key| listed(&sources, key)).collect();
    Ok(Listing { settings, file: sources.file_name(), warnings: sources.warnings() })
}

fn listed(sources: &Sources<'_>, key: &Setting) -> ListedSetting {
    let overridden = *key == AWS_DEFAULT_REGION && sources.in_environment(&AWS_REGION).is_some();
    let setting = if overridden { AWS_REGION } else { *key };
    let Some(found) = sources.find(&setting) else {
        return ListedSetting { setting, value: None, place: "not set".to_owned(), chosen: false };
    };
    let value = truncated(&without_user(found.node.to_string().trim()));
    let chosen = found.origin != Origin::Default && !value.eq_ignore_ascii_case(setting.default);
    ListedSetting { setting, place: sources.place(&setting, found.origin, &[]), value: Some(value), chosen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_value_and_a_place() {
        let env = Environment::from([
            ("SERVER_CONSUL_API_URL", "http://ops:hush@consul:8500"),
            ("CLIENT_HEALTH_GATE", "TRUE"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("DYNAMODB_TABLE_NAME", " web\u{1b} "),
        ]);
        let folder = std::env::temp_dir().join(format!("hsdo-listing-{}.yaml", std::process::id()));
        std::fs::write(&folder, "\nINTERVAL: 2\n").expect("a file");
        let Listing { settings: listed, file, warnings } = list(Some(&folder), &env).expect("a file");
        std::fs::remove_file(&folder).expect("a file");
        assert_eq!((listed.len(), file), (KEYS.len(), Some(folder.display().to_string())));
        assert!(warnings.is_empty(), "{warnings:?}");
        let shown = |name: &str| {
            let one = listed.iter().find(|one| one.setting.name == name).expect(name);
            (one.value.clone().unwrap_or_default(), one.place.clone(), one.chosen)
        };
        let environment = "the environment".to_owned();
        let url = "http://(hidden)@consul:8500".to_owned();
        assert_eq!(shown("SERVER_CONSUL_API_URL"), (url, environment.clone(), true));
        assert_eq!(shown("CLIENT_HEALTH_GATE"), ("TRUE".to_owned(), environment.clone(), false));
        assert_eq!(shown("AWS_REGION"), ("eu-west-1".to_owned(), environment.clone(), true));
        assert_eq!(shown("DYNAMODB_TABLE_NAME"), ("web\\u{1b}".to_owned(), environment, true));
        assert_eq!(shown("INTERVAL"), ("2".to_owned(), format!("{}:2", folder.display()), true));
        assert_eq!(shown("EXPORTER_PORT"), ("6789".to_owned(), "the default".to_owned(), false));
        assert_eq!(shown("SERVER_MODE"), (String::new(), "not set".to_owned(), false));
    }
}
