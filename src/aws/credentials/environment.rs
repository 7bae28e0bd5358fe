//! Credentials from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. Like botocore, and so the Python
//! version, prefers the token's older name, `AWS_SECURITY_TOKEN`.

use super::provider::{Outcome, Provider, ProviderContext};
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::environment::Environment;

pub(crate) struct FromEnvironment;

impl Provider for FromEnvironment {
    fn name(&self) -> &'static str {
        "the environment"
    }

    fn fetch(&self, context: &ProviderContext) -> Result<Outcome, AwsError> {
        read(&context.environment)
    }
}

fn read(environment: &Environment) -> Result<Outcome, AwsError> {
    // A blank variable counts as unset, as in the SDKs.
    let get = |name| environment.get(name).filter(|value| !value.trim().is_empty());
    let token = get("AWS_SECURITY_TOKEN").or_else(|| get("AWS_SESSION_TOKEN"));
    match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => Credentials::fixed(key, secret, token)
            .map(|credentials| Outcome::Found(credentials.with_source("the environment")))
            .map_err(|text| AwsError::Setup(format!("the {text} in the environment holds invalid characters"))),
        (Some(_), None) => Err(half_set("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        (None, Some(_)) => Err(half_set("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
        (None, None) => Ok(Outcome::NotConfigured("AWS_ACCESS_KEY_ID is not set".to_string())),
    }
}

fn half_set(set: &str, missing: &str) -> AwsError {
    AwsError::Setup(format!("{set} is set but {missing} is not: set both or neither"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch<const N: usize>(pairs: [(&str, &str); N]) -> Result<Outcome, AwsError> {
        read(&Environment::from(pairs))
    }

    #[test]
    fn a_pair_with_or_without_a_token() {
        let pair = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t")];
        let Ok(Outcome::Found(found)) = fetch(pair) else { panic!("credentials expected") };
        assert_eq!((found.access_key_id.as_str(), found.session_token.as_deref()), ("AK", Some("t")));
        let Ok(Outcome::Found(found)) = fetch([pair[0], pair[1]]) else { panic!("credentials expected") };
        assert_eq!(found.session_token, None);
        for (old, new, expected) in [("o", "", "o"), ("o", "n", "o"), (" ", "n", "n")] {
            let tokens = [("AWS_SECURITY_TOKEN", old), ("AWS_SESSION_TOKEN", new)];
            let Ok(Outcome::Found(found)) = fetch([pair[0], pair[1], tokens[0], tokens[1]]) else {
                panic!("{tokens:?}")
            };
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
    fn a_token_alone_is_not_configured() {
        assert!(
            matches!(fetch([("AWS_SESSION_TOKEN", "t")]), Ok(Outcome::NotConfigured(text)) if text.contains("AWS_ACCESS_KEY_ID"))
        );
    }
}
