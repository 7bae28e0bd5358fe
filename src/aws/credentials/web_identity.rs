//! Credentials of a role for a web identity token named in the environment, such as IAM roles for service accounts (IRSA).

use std::path::Path;

use super::provider::{Outcome, Provider, ProviderContext};
use super::sts;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::text_file;

pub(crate) struct FromWebIdentity;

impl Provider for FromWebIdentity {
    fn name(&self) -> &'static str {
        "the exchange of the web identity token"
    }

    fn fetch(&self, context: &ProviderContext) -> Result<Outcome, AwsError> {
        let get = |name| context.environment.get(name);
        let Some(file) = get("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Ok(Outcome::NotConfigured("AWS_WEB_IDENTITY_TOKEN_FILE is not set".to_string()));
        };
        let arn = get("AWS_ROLE_ARN").ok_or_else(|| {
            AwsError::Setup(
                "AWS_WEB_IDENTITY_TOKEN_FILE is set but AWS_ROLE_ARN is not: set both or neither".to_string(),
            )
        })?;
        exchange(context, Path::new(file), arn, get("AWS_ROLE_SESSION_NAME")).map(Outcome::Found)
    }
}

/// Exchanges the token in `file` for a role's credentials. Reads the file every time, since its issuer replaces it.
pub(crate) fn exchange(
    context: &ProviderContext,
    file: &Path,
    arn: &str,
    session: Option<&str>,
) -> Result<Credentials, AwsError> {
    let shown = file.display();
    let token = text_file::read(file)
        .map_err(|fault| AwsError::Unavailable(format!("cannot read the web identity token {shown}: {}", fault.why)))?;
    if token.trim().is_empty() {
        return Err(AwsError::Unavailable(format!("the web identity token {shown} is empty")));
    }
    sts::assume_with_web_identity(&context.caller, arn, session, token.trim())
}
