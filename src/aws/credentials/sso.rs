//! Credentials of a role for a person who logged in by `aws sso login`: the login is read, never renewed.
//!
//! AWS SDKs and Tools Reference Guide, "IAM Identity Center credential provider"; SSO Portal API Reference,
//! "GetRoleCredentials".

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::provider::Context;
use super::{sha1, small};
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

/// The time for one attempt, and how many there are.
const TIME: Duration = Duration::from_secs(4);
const ATTEMPTS: u32 = 3;

/// What a profile says of its login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The session, or `None` in the older form, where the profile itself has the start URL.
    pub(crate) session: Option<String>,
    /// The start URL.
    pub(crate) start_url: String,
    /// The region of the identity center.
    pub(crate) region: String,
    /// The account of the role.
    pub(crate) account: String,
    /// The role.
    pub(crate) role: String,
    /// The profile, for messages.
    pub(crate) profile: String,
}

/// A login as the AWS CLI keeps it. It holds a secret, so it cannot be printed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    access_token: String,
    expires_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
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
pub(crate) fn exchange(context: &Context, login: &Login) -> Result<Credentials, AwsError> {
    let again = match &login.session {
        Some(session) => format!("run aws sso login --sso-session {}", one_line(session, 100)),
        None => format!("run aws sso login --profile {}", one_line(&login.profile, 100)),
    };
    let home = context.environment.get("HOME").ok_or_else(|| {
        AwsError::Setup(format!(
            "profile {:?} needs a login, which is kept in the home of this user: set HOME",
            login.profile
        ))
    })?;
    let name = sha1::hex(login.session.as_deref().unwrap_or(&login.start_url));
    let path = Path::new(home).join(".aws/sso/cache").join(format!("{name}.json"));
    let lapsed = |what: &str| AwsError::Setup(format!("the login of profile {:?} {what}: {again}", login.profile));
    let text = text_file::read(&path)
        .map_err(|fault| lapsed(&format!("cannot be read from {} ({})", path.display(), fault.why)))?;
    let (token, ends) = kept(&text).map_err(|fault| lapsed(&format!("in {} {fault}", path.display())))?;
    if ends <= context.caller.clock.now() {
        return Err(lapsed("has lapsed"));
    }
    let place = context.caller.endpoints.of(Service::Sso, &endpoint::parse_region(&login.region)?);
    let url = format!(
        "{}/federation/credentials?account_id={}&role_name={}",
        place.url.trim_end_matches('/'),
        percent_encoded(&login.account),
        percent_encoded(&login.role)
    );
    let headers = [("x-amz-sso_bearer_token", token.as_str())];
    let ask = HttpRequest {
        method: "GET",
        url: &url,
        headers: &headers,
        body: b"",
        time: TIME,
        connect: TIME,
        direct: false,
    };
    let fault = |what: String| {
        let Login { role, account, .. } = login;
        AwsError::Unavailable(format!(
            "SSO GetRoleCredentials of role {role} in account {account} at {}: {what}",
            place.host
        ))
    };
    let reply = small::ask(context.caller.wire.as_ref(), &ask, ATTEMPTS).map_err(|cause| fault(cause.to_string()))?;
    match reply.status {
        200 => {}
        401 => return Err(lapsed("is no longer accepted")),
        status if status == 429 || status >= 500 => return Err(fault(format!("status {status}"))),
        status => {
            let said = one_line(reply.body.trim(), 300);
            return Err(AwsError::Setup(format!(
                "{}: {said}; check sso_account_id and sso_role_name",
                fault(format!("status {status}"))
            )));
        }
    }
    let credentials = found(&reply.body).map_err(fault)?;
    Ok(credentials.with_source(format!("SSO role {} in account {}", login.role, login.account)))
}

/// The token of a login and when it ends, out of the file that keeps it. The error says what is wrong, without a secret.
pub(super) fn kept(text: &str) -> Result<(String, Timestamp), &'static str> {
    let kept: Kept = serde_json::from_str(text).map_err(|_| "is not as it should be")?;
    let ends = dates::parse(&kept.expires_at).ok_or("has no expiresAt that can be read")?;
    let token = kept.access_token.trim();
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err("holds characters that no header can carry");
    }
    Ok((token.to_string(), ends))
}

/// The credentials in an answer.
pub(super) fn found(body: &str) -> Result<Credentials, String> {
    let Answer { role_credentials: found } =
        serde_json::from_str(body).map_err(|_| "the answer cannot be read".to_string())?;
    let mut credentials =
        Credentials::fixed(&found.access_key_id, &found.secret_access_key, Some(&found.session_token))
            .map_err(|name| format!("its {name} holds characters that none has"))?;
    credentials.expires = Some(Timestamp::from_micros(found.expiration.saturating_mul(1_000)));
    Ok(credentials)
}
