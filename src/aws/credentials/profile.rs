//! Credentials of the profile in use, by following its chain.

use super::container::FromContainer;
use super::environment::FromEnvironment;
use super::instance::FromMetadata;
use super::profile_chain::{self, Base, CredentialSource};
use super::provider::{Outcome, Provider, ProviderContext};
use super::{process, sso, sts, web_identity};
use crate::aws::config::profile_file::{ProfileFiles, named_profile, profile};
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;

/// Reads the files every time, to pick up replaced keys.
pub(crate) struct FromProfile;

impl Provider for FromProfile {
    fn name(&self) -> &'static str {
        "the command, login or role of the profile in use"
    }

    fn fetch(&self, context: &ProviderContext) -> Result<Outcome, AwsError> {
        let name = profile(&context.environment);
        let files = ProfileFiles::read(&context.environment)?;
        if !files.has(name) {
            let text = format!("profile {name:?} is not in {}", files.searched_paths());
            // A profile named explicitly must exist.
            return match named_profile(&context.environment) {
                Some((variable, _)) => Err(AwsError::Setup(format!("{text}: correct {variable}"))),
                None => Ok(Outcome::NotConfigured(text)),
            };
        }
        let Some(chain) = profile_chain::resolve(&files, name)? else {
            return Ok(Outcome::NotConfigured(format!(
                "profile {name:?} in {} has no credentials",
                files.searched_paths()
            )));
        };
        let mut found = base(context, chain.base, name)?;
        for role in &chain.roles {
            found = sts::assume(&context.caller, role, &found)?;
        }
        Ok(Outcome::Found(found))
    }
}

fn base(context: &ProviderContext, base: Base, name: &str) -> Result<Credentials, AwsError> {
    let found = match base {
        Base::Keys(keys) => return Ok(keys),
        Base::WebIdentity { arn, session, file } => {
            return web_identity::exchange(context, &file, &arn, session.as_deref());
        }
        Base::Sso(login) => return sso::exchange(context, &login),
        Base::Process(command, profile) => return process::run(&command.0, &profile),
        Base::Source(CredentialSource::Environment) => FromEnvironment.fetch(context)?,
        Base::Source(CredentialSource::Metadata) => FromMetadata.fetch(context)?,
        Base::Source(CredentialSource::Container) => FromContainer.fetch(context)?,
    };
    match found {
        Outcome::Found(credentials) => Ok(credentials),
        Outcome::NotConfigured(text) => {
            Err(AwsError::Setup(format!("the credential_source of profile {name:?} has no credentials: {text}")))
        }
    }
}
