//! STS calls that return a role's credentials, at the regional endpoint (STS API Reference, version 2011-06-15).

use std::io::BufRead;
use std::time::Duration;

use crate::aws::error::AwsError;
use crate::aws::reading::dates;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::{Budget, Caller, Request};
use crate::aws::transport::identity::Credentials;

const VERSION: &str = "2011-06-15";
/// The default session name, shown in CloudTrail.
pub(crate) const DEFAULT_SESSION: &str = "hsdo";
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssumedRole {
    pub(crate) arn: String,
    /// The session name.
    pub(crate) session: Option<String>,
    pub(crate) external_id: Option<String>,
    /// The lifetime of the credentials, in seconds.
    pub(crate) seconds: Option<u32>,
}

/// Assumes a role with the credentials `by`.
pub(crate) fn assume(caller: &Caller, role: &AssumedRole, by: &Credentials) -> Result<Credentials, AwsError> {
    let mut query = Query::new("AssumeRole", VERSION);
    query.add("RoleArn", &role.arn);
    query.add("RoleSessionName", role.session.as_deref().unwrap_or(DEFAULT_SESSION));
    if let Some(id) = &role.external_id {
        query.add("ExternalId", id);
    }
    if let Some(seconds) = role.seconds {
        query.add("DurationSeconds", &seconds.to_string());
    }
    call(caller, query, "AssumeRole", &role.arn, Some(by))
}

/// Assumes a role with a web identity token.
pub(crate) fn assume_with_web_identity(
    caller: &Caller,
    arn: &str,
    session: Option<&str>,
    token: &str,
) -> Result<Credentials, AwsError> {
    let mut query = Query::new("AssumeRoleWithWebIdentity", VERSION);
    query.add("RoleArn", arn);
    query.add("RoleSessionName", session.unwrap_or(DEFAULT_SESSION));
    query.add("WebIdentityToken", token);
    call(caller, query, "AssumeRoleWithWebIdentity", arn, None)
}

fn call(
    caller: &Caller,
    query: Query,
    operation: &'static str,
    arn: &str,
    by: Option<&Credentials>,
) -> Result<Credentials, AwsError> {
    let request: Request = query.request(Service::Sts, operation, format!("role {arn}"));
    let found = caller.send(&request, by, &Budget::new(CALL_TIMEOUT, ATTEMPT_TIMEOUT), &parse);
    let found = found.map_err(|cause| caller.error(&request, by, cause))?;
    Ok(found.with_source(format!("role {arn}")))
}

pub(super) fn parse(body: &mut dyn BufRead) -> Result<Credentials, String> {
    let (mut key, mut secret, mut token, mut expires) = (None, None, None, None);
    xml::walk(body, &mut |path, text| {
        let place = match path.rsplit_once("/Credentials/") {
            Some((_, "AccessKeyId")) => &mut key,
            Some((_, "SecretAccessKey")) => &mut secret,
            Some((_, "SessionToken")) => &mut token,
            Some((_, "Expiration")) => &mut expires,
            _ => return Ok(()),
        };
        *place = Some(text.to_string());
        Ok(())
    })?;
    let (Some(key), Some(secret), Some(token)) = (key, secret, token) else {
        return Err("it has no Credentials".to_string());
    };
    let mut found = Credentials::fixed(&key, &secret, Some(&token))
        .map_err(|name| format!("its {name} holds invalid characters"))?;
    let expires = expires.ok_or("it has no Expiration")?;
    found.expires = Some(dates::parse(&expires).ok_or_else(|| format!("its Expiration is {expires:?}"))?);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_response_is_an_error() {
        let whole = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AK</AccessKeyId><SecretAccessKey>hush\
                     </SecretAccessKey><SessionToken>t</SessionToken><Expiration>2026-01-01T00:00:00Z</Expiration>\
                     </Credentials></AssumeRoleResult></AssumeRoleResponse>";
        assert_eq!(parse(&mut whole.as_bytes()).expect("credentials").access_key_id, "AK");
        for (from, to) in [
            ("AccessKeyId>", "Other>"),
            ("SessionToken>", "Other>"),
            ("Expiration>", "Other>"),
            ("2026-01-01T00:00:00Z", "soon"),
            ("</AssumeRoleResponse>", ""),
        ] {
            let error = parse(&mut whole.replace(from, to).as_bytes()).expect_err(from);
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
