//! Credentials of a role through a cached `aws sso login`, which is read but never renewed.
//!
//! AWS SDKs and Tools Reference Guide, "IAM Identity Center credential provider"; SSO Portal API Reference,
//! "GetRoleCredentials".

use std::path::Path;
use std::time::Duration;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::Deserialize;

use super::provider::ProviderContext;
use super::request;
use crate::aws::error::AwsError;
use crate::aws::reading::dates;
use crate::aws::service::Service;
use crate::aws::transport::endpoint;
use crate::aws::transport::form::percent_encoded;
use crate::aws::transport::identity::Credentials;
use crate::aws::transport::net::HttpRequest;
use crate::clock::Timestamp;
use crate::text::one_line;
use crate::text_file;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const ATTEMPTS: u32 = 3;

/// A profile's SSO settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The `sso_session`, or `None` in the legacy form, where the profile has the start URL.
    pub(crate) session: Option<String>,
    pub(crate) start_url: String,
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) role: String,
    /// The profile's name, for messages.
    pub(crate) profile: String,
}

/// The AWS CLI's cache file. Holds a secret, so it has no `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedToken {
    access_token: String,
    expires_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GetRoleCredentialsResponse {
    role_credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    /// Milliseconds since 1970.
    expiration: i64,
}

/// Exchanges the login for credentials of its role.
pub(crate) fn exchange(context: &ProviderContext, login: &Login) -> Result<Credentials, AwsError> {
    let remedy = match &login.session {
        Some(session) => format!("run aws sso login --sso-session {}", one_line(session, 100)),
        None => format!("run aws sso login --profile {}", one_line(&login.profile, 100)),
    };
    let home = context.environment.get("HOME").ok_or_else(|| {
        AwsError::Setup(format!(
            "profile {:?} needs an SSO login, which is cached in the home directory: set HOME",
            login.profile
        ))
    })?;
    let name = sha1_hex(login.session.as_deref().unwrap_or(&login.start_url));
    let path = Path::new(home).join(".aws/sso/cache").join(format!("{name}.json"));
    let relogin = |what: &str| AwsError::Setup(format!("the login of profile {:?} {what}: {remedy}", login.profile));
    let text = text_file::read(&path)
        .map_err(|fault| relogin(&format!("cannot be read from {} ({})", path.display(), fault.why)))?;
    let (token, ends) = cached_token(&text).map_err(|fault| relogin(&format!("in {} {fault}", path.display())))?;
    if ends <= context.caller.clock.now() {
        return Err(relogin("has expired"));
    }
    let endpoint = context.caller.endpoints.of(Service::Sso, &endpoint::parse_region(&login.region)?);
    let url = format!(
        "{}/federation/credentials?account_id={}&role_name={}",
        endpoint.url.trim_end_matches('/'),
        percent_encoded(&login.account),
        percent_encoded(&login.role)
    );
    let headers = [("x-amz-sso_bearer_token", token.as_str())];
    let ask = HttpRequest { direct: false, ..request::get(&url, &headers, ATTEMPT_TIMEOUT) };
    let fault = |what: String| {
        let Login { role, account, .. } = login;
        AwsError::Unavailable(format!(
            "SSO GetRoleCredentials of role {role} in account {account} at {}: {what}",
            endpoint.host
        ))
    };
    let response =
        request::send(context.caller.wire.as_ref(), &ask, ATTEMPTS).map_err(|cause| fault(cause.to_string()))?;
    match response.status {
        200 => {}
        401 => return Err(relogin("is no longer accepted")),
        status if status == 429 || status >= 500 => return Err(fault(format!("status {status}"))),
        status => {
            let body = one_line(response.body.trim(), 300);
            return Err(AwsError::Setup(format!(
                "{}: {body}; check sso_account_id and sso_role_name",
                fault(format!("status {status}"))
            )));
        }
    }
    let credentials = parse(&response.body).map_err(fault)?;
    Ok(credentials.with_source(format!("SSO role {} in account {}", login.role, login.account)))
}

/// The name of the AWS CLI's cache file.
fn sha1_hex(text: &str) -> String {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The token of a cached login, and its expiry. The error holds no secret.
pub(super) fn cached_token(text: &str) -> Result<(String, Timestamp), &'static str> {
    let cached: CachedToken = serde_json::from_str(text).map_err(|_| "is malformed")?;
    let ends = dates::parse(&cached.expires_at).ok_or("has no valid expiresAt")?;
    let token = cached.access_token.trim();
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err("holds characters not allowed in a header");
    }
    Ok((token.to_string(), ends))
}

/// The credentials in a GetRoleCredentials response.
pub(super) fn parse(body: &str) -> Result<Credentials, String> {
    let GetRoleCredentialsResponse { role_credentials: found } =
        serde_json::from_str(body).map_err(|_| "the response is malformed".to_string())?;
    let mut credentials =
        Credentials::fixed(&found.access_key_id, &found.secret_access_key, Some(&found.session_token))
            .map_err(|name| format!("its {name} holds invalid characters"))?;
    credentials.expires = Some(Timestamp::from_micros(found.expiration.saturating_mul(1_000)));
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_file_has_the_name_that_the_aws_cli_gives_it() {
        for (text, expected) in [
            ("dev", "34c6fceca75e456f25e7e99531e2425c6c1de443"),
            ("https://ssotest.awsapps.com/start", "dace00cba5f8355ec9d274ceb2bcebdfbeed0e12"),
        ] {
            assert_eq!(sha1_hex(text), expected, "{text}");
        }
    }
}
