//! Credentials from a container's endpoint: ECS task roles, EKS Pod Identity.
//!
//! AWS SDKs and Tools Reference Guide, "Container credential provider". The response is a secret, so plain http is allowed
//! only to this machine and the ECS and EKS addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use ureq::http::Uri;

use super::provider::{Outcome, Provider, ProviderContext};
use super::{document, request};
use crate::aws::error::AwsError;
use crate::aws::transport::net::HttpRequest;
use crate::environment::Environment;
use crate::text::one_line;
use crate::text_file;

const ECS_AGENT: &str = "http://169.254.170.2";
/// Allowed over plain http besides loopback: ECS, and EKS over IPv4 and IPv6.
const ALLOWED_OVER_HTTP: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

pub(crate) struct FromContainer;

impl Provider for FromContainer {
    fn name(&self) -> &'static str {
        "the container's endpoint for credentials"
    }

    fn fetch(&self, context: &ProviderContext) -> Result<Outcome, AwsError> {
        let environment = &context.environment;
        let Some(url) = url(environment, &resolve)? else {
            return Ok(Outcome::NotConfigured(
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set".to_string(),
            ));
        };
        let token = token(environment)?;
        let mut headers = vec![("accept", "application/json")];
        headers.extend(token.as_deref().map(|token| ("authorization", token)));
        // Addresses allowed over plain http are local: no proxy.
        let direct = url.starts_with("http://");
        let ask = HttpRequest { direct, ..request::get(&url, &headers, ATTEMPT_TIMEOUT) };
        let fault =
            |what: String| AwsError::Unavailable(format!("the container's credentials at {} {what}", host(&url)));
        let response = request::send(context.caller.wire.as_ref(), &ask, ATTEMPTS)
            .map_err(|cause| fault(format!("cannot be fetched: {cause}")))?;
        if response.status != 200 {
            return Err(fault(format!(
                "are refused (status {}): {}",
                response.status,
                one_line(response.body.trim(), 300)
            )));
        }
        let found = document::read(&response.body).map_err(|text| fault(format!("cannot be read: {text}")))?;
        Ok(Outcome::Found(found.with_source("the container's role")))
    }
}

fn host(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default()
}

pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> Vec<IpAddr>;

fn resolve(host: &str) -> Vec<IpAddr> {
    (host, 80).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// The endpoint's URL, if configured.
pub(super) fn url(environment: &Environment, resolve: Resolve<'_>) -> Result<Option<String>, AwsError> {
    if let Some(path) = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        if !path.starts_with('/') || !is_printable(path) {
            let text = format!(
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is {path:?}, expected a path such as /v2/credentials/x"
            );
            return Err(AwsError::Setup(text));
        }
        return Ok(Some(format!("{ECS_AGENT}{path}")));
    }
    let Some(url) = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") else { return Ok(None) };
    let fault = |why: &str| AwsError::Setup(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI is {url:?}: {why}"));
    // `Uri` drops a fragment unchecked.
    let uri: Uri = url.parse().ok().filter(|_| is_printable(url)).ok_or_else(|| fault("not a URL"))?;
    let name = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| fault("it names no host"))?;
    match uri.scheme_str() {
        Some("https") => Ok(Some(url.to_string())),
        Some("http") => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let addresses = bare.parse().map_or_else(|_| resolve(bare), |address| vec![address]);
            let allowed = |address: &IpAddr| address.is_loopback() || ALLOWED_OVER_HTTP.contains(address);
            if !addresses.is_empty() && addresses.iter().all(allowed) {
                Ok(Some(url.to_string()))
            } else {
                Err(fault("plain http is allowed only to this machine and the ECS and EKS addresses; use https"))
            }
        }
        _ => Err(fault("it does not start with http:// or https://")),
    }
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic())
}

/// The authorization token, read every time since EKS replaces the file.
fn token(environment: &Environment) -> Result<Option<String>, AwsError> {
    let (text, place) = match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            // A missing or empty file may be in the middle of being replaced, so this is a passing error.
            let fault = |why: &str| {
                AwsError::Unavailable(format!("cannot read {path} (AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE): {why}"))
            };
            let text = text_file::read(Path::new(path)).map_err(|found| fault(&found.why))?;
            if text.trim().is_empty() {
                return Err(fault("it is empty"));
            }
            (text, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        }
        None => match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
            Some(text) => (text.to_string(), "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            None => return Ok(None),
        },
    };
    let text = text.trim();
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(AwsError::Setup(format!(
            "the token in {place} is empty or holds characters not allowed in a header"
        )));
    }
    Ok(Some(text.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::aws::testing::Folder;

    #[derive(Deserialize)]
    struct Case {
        about: String,
        env: BTreeMap<String, String>,
        #[serde(default)]
        resolves: BTreeMap<String, Vec<IpAddr>>,
        #[serde(default)]
        url: Option<String>,
        #[serde(default)]
        refused: bool,
    }

    #[test]
    fn the_endpoint_is_resolved_as_in_the_sdks() {
        let text = include_str!("../../../tests/data/aws-config/container-endpoint.json");
        let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
        assert_eq!(cases.len(), 19);
        for case in cases {
            let names = &case.resolves;
            let resolve = |host: &str| names.get(host).cloned().unwrap_or_default();
            let found = url(&Environment::from(case.env), &resolve);
            assert_eq!(found.is_err(), case.refused, "{}", case.about);
            assert_eq!(found.ok().flatten(), case.url, "{}", case.about);
        }
    }

    #[test]
    fn an_invalid_token_is_not_shown() {
        let environment = Environment::from([("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush\nhush")]);
        let error = token(&environment).expect_err("a newline").to_string();
        assert!(error.contains("AWS_CONTAINER_AUTHORIZATION_TOKEN") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn an_empty_token_file_is_a_passing_error_and_a_bom_is_stripped() {
        let folder = Folder::new();
        let read = |text: &str| {
            let path = folder.file("token", text);
            token(&Environment::from([("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path.as_str())]))
        };
        assert_eq!(read("\u{feff}Basic abc\r\n").expect("a token").as_deref(), Some("Basic abc"));
        for text in ["", "\n", "\u{feff}"] {
            let error = read(text).expect_err("no token");
            assert!(error.is_startup_transient() && error.to_string().ends_with("it is empty"), "{error}");
        }
        assert!(read("hush\nhush").expect_err("two lines").needs_operator());
    }
}
