//! Credentials out of a profile of the shared files: static keys.

use super::{Credentials, Found, Provider};
use crate::aws::error::Error;
use crate::aws::profile_file::{ProfileFiles, profile};
use crate::environment::Environment;

/// The provider of the profile in use. The files are read at each search, so that keys replaced there are found.
pub(crate) struct FromProfile(
    /// Names the profile and the files.
    pub(crate) Environment,
);

impl Provider for FromProfile {
    fn fetch(&self) -> Result<Found, Error> {
        let name = profile(&self.0);
        let files = ProfileFiles::read(&self.0)?;
        if !files.has(name) {
            let text = format!("profile {name:?} is not in {}", files.places());
            // A profile that someone asked for by name must be there.
            return match self.0.get("AWS_PROFILE") {
                Some(_) => Err(Error::Setup(format!("{text}: correct AWS_PROFILE"))),
                None => Ok(Found::Nothing(text)),
            };
        }
        let get = |key| files.get(name, key);
        match (get("aws_access_key_id"), get("aws_secret_access_key")) {
            (Some(key), Some(secret)) => {
                Credentials::fixed(key, secret, get("aws_session_token")).map(Found::Here).map_err(|text| {
                    let places = files.places();
                    Error::Setup(format!("the {text} of profile {name:?} in {places} holds characters that none has"))
                })
            }
            (None, None) => {
                Ok(Found::Nothing(format!("profile {name:?} in {} has no aws_access_key_id", files.places())))
            }
            (key, _) => {
                let missing = if key.is_none() { "aws_access_key_id" } else { "aws_secret_access_key" };
                Err(Error::Setup(format!("profile {name:?} in {} lacks {missing}", files.places())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::Folder;

    const CONFIG: &str = "[default]\nregion = eu-west-1\naws_access_key_id = FROM-CONFIG\naws_secret_access_key = c\n\
                          [profile ops]\nregion = us-east-1\n[profile half]\naws_access_key_id = AK\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = FROM-CREDENTIALS\naws_secret_access_key = hush\n\
                               [ops]\naws_access_key_id = OPS\naws_secret_access_key = hush\naws_session_token = t\n";

    fn fetch(profile: &str, config: &str, credentials: &str) -> Result<Found, Error> {
        let folder = Folder::new();
        let config = folder.file("config", config);
        let credentials = folder.file("credentials", credentials);
        FromProfile(Environment::from([
            ("AWS_PROFILE", profile),
            ("AWS_CONFIG_FILE", &config),
            ("AWS_SHARED_CREDENTIALS_FILE", &credentials),
        ]))
        .fetch()
    }

    #[test]
    fn the_credentials_file_wins_over_the_config_file() {
        for (profile, key, token) in [("", "FROM-CREDENTIALS", None), ("ops", "OPS", Some("t"))] {
            let Ok(Found::Here(found)) = fetch(profile, CONFIG, CREDENTIALS) else { panic!("credentials expected") };
            assert_eq!((found.access_key_id.as_str(), found.session_token.as_deref()), (key, token));
        }
        let Ok(Found::Here(found)) = fetch("", CONFIG, "") else { panic!("credentials expected") };
        assert_eq!(found.access_key_id, "FROM-CONFIG");
    }

    #[test]
    fn a_profile_asked_for_by_name_must_be_there() {
        let error = fetch("missing", CONFIG, CREDENTIALS).err().expect("an error").to_string();
        assert!(error.contains("\"missing\"") && error.contains("AWS_PROFILE"), "{error}");
        assert!(matches!(fetch("", "", ""), Ok(Found::Nothing(_))));
        assert!(matches!(fetch("ops", CONFIG, ""), Ok(Found::Nothing(text)) if text.contains("aws_access_key_id")));
    }

    #[test]
    fn half_a_pair_is_an_error() {
        let error = fetch("half", CONFIG, CREDENTIALS).err().expect("an error").to_string();
        assert!(error.contains("aws_secret_access_key") && !error.contains("hush"), "{error}");
    }
}
