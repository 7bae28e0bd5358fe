//! Credentials of a role for the token of an identity provider, named by the environment: IAM roles for service accounts
//! (IRSA) on EKS, and others.

use std::path::Path;

use super::provider::{Context, Found, Provider};
use super::sts;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::text_file;

/// The provider of `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`.
pub(crate) struct FromWebIdentity;

impl Provider for FromWebIdentity {
    fn name(&self) -> &'static str {
        "the exchange of the web identity token"
    }

    fn fetch(&self, context: &Context) -> Result<Found, AwsError> {
        let get = |name| context.environment.get(name);
        let Some(file) = get("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Ok(Found::Nothing("AWS_WEB_IDENTITY_TOKEN_FILE is not set".to_string()));
        };
        let arn = get("AWS_ROLE_ARN").ok_or_else(|| {
            AwsError::Setup(
                "AWS_WEB_IDENTITY_TOKEN_FILE is set but AWS_ROLE_ARN is not: set both or neither".to_string(),
            )
        })?;
        exchange(context, Path::new(file), arn, get("AWS_ROLE_SESSION_NAME")).map(Found::Here)
    }
}

/// Exchanges the token in `file` for credentials of a role. The file is read each time, since its issuer replaces it.
pub(crate) fn exchange(
    context: &Context,
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
    sts::assume_by_token(&context.caller, arn, session, token.trim())
}
