//! Credentials out of the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` (which botocore,
//! and so the Python version, also knows by its older name `AWS_SECURITY_TOKEN`, and takes by that first).

use super::provider::{Context, Found, Provider};
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::environment::Environment;

/// The provider of the standard variables.
pub(crate) struct FromEnvironment;

impl Provider for FromEnvironment {
    fn name(&self) -> &'static str {
        "the environment"
    }

    fn fetch(&self, context: &Context) -> Result<Found, AwsError> {
        read(&context.environment)
    }
}

fn read(environment: &Environment) -> Result<Found, AwsError> {
    // A variable of nothing but spaces counts as not set, as it does for the SDKs.
    let get = |name| environment.get(name).filter(|value| !value.trim().is_empty());
    let token = get("AWS_SECURITY_TOKEN").or_else(|| get("AWS_SESSION_TOKEN"));
    match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => Credentials::fixed(key, secret, token)
            .map(|credentials| Found::Here(credentials.with_source("the environment")))
            .map_err(|text| AwsError::Setup(format!("the {text} in the environment holds characters that none has"))),
        (Some(_), None) => Err(half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        (None, Some(_)) => Err(half("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
        (None, None) => Ok(Found::Nothing("AWS_ACCESS_KEY_ID is not set".to_string())),
    }
}

fn half(set: &str, missing: &str) -> AwsError {
    AwsError::Setup(format!("{set} is set but {missing} is not: set both or neither"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch<const N: usize>(pairs: [(&str, &str); N]) -> Result<Found, AwsError> {
        read(&Environment::from(pairs))
    }

    #[test]
    fn a_pair_with_or_without_a_token() {
        let pair = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t")];
        let Ok(Found::Here(found)) = fetch(pair) else { panic!("credentials expected") };
        assert_eq!((found.access_key_id.as_str(), found.session_token.as_deref()), ("AK", Some("t")));
        let Ok(Found::Here(found)) = fetch([pair[0], pair[1]]) else { panic!("credentials expected") };
        assert_eq!(found.session_token, None);
        for (old, new, expected) in [("o", "", "o"), ("o", "n", "o"), (" ", "n", "n")] {
            let tokens = [("AWS_SECURITY_TOKEN", old), ("AWS_SESSION_TOKEN", new)];
            let Ok(Found::Here(found)) = fetch([pair[0], pair[1], tokens[0], tokens[1]]) else { panic!("{tokens:?}") };
            assert_eq!(found.session_token.as_deref(), Some(expected), "{tokens:?}");
        }
    }

    #[test]
    fn half_a_pair_is_an_error_that_shows_no_secret() {
        for pairs in [[("AWS_ACCESS_KEY_ID", "hush")], [("AWS_SECRET_ACCESS_KEY", "hush")]] {
            let error = fetch(pairs).err().expect("an error").to_string();
            assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert!(
            matches!(fetch([("AWS_SESSION_TOKEN", "t")]), Ok(Found::Nothing(text)) if text.contains("AWS_ACCESS_KEY_ID"))
        );
    }
}
