//! Credentials by way of a profile of the shared files: follows its plan.

use super::container::FromContainer;
use super::environment::FromEnvironment;
use super::instance::FromMetadata;
use super::plan::{Base, Named, plan};
use super::provider::{Context, Found, Provider};
use super::{process, sso, sts, web_identity};
use crate::aws::config::profile_file::{ProfileFiles, named_profile, profile};
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;

/// The provider of the profile in use. The files are read at each search, so that keys replaced there are found.
pub(crate) struct FromProfile;

impl Provider for FromProfile {
    fn name(&self) -> &'static str {
        "the command, login or role of the profile in use"
    }

    fn fetch(&self, context: &Context) -> Result<Found, AwsError> {
        let name = profile(&context.environment);
        let files = ProfileFiles::read(&context.environment)?;
        if !files.has(name) {
            let text = format!("profile {name:?} is not in {}", files.places());
            // A profile that someone asked for by name must be there.
            return match named_profile(&context.environment) {
                Some((variable, _)) => Err(AwsError::Setup(format!("{text}: correct {variable}"))),
                None => Ok(Found::Nothing(text)),
            };
        }
        let Some(plan) = plan(&files, name)? else {
            return Ok(Found::Nothing(format!("profile {name:?} in {} has no credentials", files.places())));
        };
        let mut found = base(context, plan.base, name)?;
        for role in &plan.roles {
            found = sts::assume(&context.caller, role, &found)?;
        }
        Ok(Found::Here(found))
    }
}

fn base(context: &Context, base: Base, name: &str) -> Result<Credentials, AwsError> {
    let found = match base {
        Base::Keys(keys) => return Ok(keys),
        Base::WebIdentity { arn, session, file } => {
            return web_identity::exchange(context, &file, &arn, session.as_deref());
        }
        Base::Sso(login) => return sso::exchange(context, &login),
        Base::Process(command, profile) => return process::run(&command.0, &profile),
        Base::Source(Named::Environment) => FromEnvironment.fetch(context)?,
        Base::Source(Named::Metadata) => FromMetadata.fetch(context)?,
        Base::Source(Named::Container) => FromContainer.fetch(context)?,
    };
    match found {
        Found::Here(credentials) => Ok(credentials),
        Found::Nothing(text) => {
            Err(AwsError::Setup(format!("the credential_source of profile {name:?} has no credentials: {text}")))
        }
    }
}
