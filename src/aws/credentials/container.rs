//! Credentials of a container's endpoint: the task role of ECS, EKS Pod Identity.
//!
//! AWS SDKs and Tools Reference Guide, "Container credential provider". Plain http is spoken to this machine and to the
//! addresses that ECS and EKS use, and to nobody else: the answer is a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use ureq::http::Uri;

use super::provider::{Context, Found, Provider};
use super::{document, small};
use crate::aws::error::AwsError;
use crate::aws::transport::net::HttpRequest;
use crate::environment::Environment;
use crate::text::one_line;
use crate::text_file;

/// Where the agent of ECS answers.
const ECS: &str = "http://169.254.170.2";
/// The addresses that may be asked over plain http beside those of this machine: ECS, and EKS in both families.
const ALLOWED: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];
/// The time for one attempt, and how many there are.
const TIME: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

/// The provider of a container's role.
pub(crate) struct FromContainer;

impl Provider for FromContainer {
    fn name(&self) -> &'static str {
        "the container's endpoint for credentials"
    }

    fn fetch(&self, context: &Context) -> Result<Found, AwsError> {
        let environment = &context.environment;
        let Some(url) = url(environment, &resolve)? else {
            return Ok(Found::Nothing("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set".to_string()));
        };
        let token = token(environment)?;
        let mut headers = vec![("accept", "application/json")];
        headers.extend(token.as_deref().map(|token| ("authorization", token)));
        // What is allowed over plain http is near, and has no proxy before it.
        let direct = url.starts_with("http://");
        let ask =
            HttpRequest { method: "GET", url: &url, headers: &headers, body: b"", time: TIME, connect: TIME, direct };
        let fault =
            |what: String| AwsError::Unavailable(format!("the container's credentials at {} {what}", host(&url)));
        let reply = small::ask(context.caller.wire.as_ref(), &ask, ATTEMPTS)
            .map_err(|cause| fault(format!("cannot be had: {cause}")))?;
        if reply.status != 200 {
            return Err(fault(format!("are refused (status {}): {}", reply.status, one_line(reply.body.trim(), 300))));
        }
        let found = document::read(&reply.body).map_err(|text| fault(format!("cannot be read: {text}")))?;
        Ok(Found::Here(found.with_source("the container's role")))
    }
}

fn host(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default()
}

pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> Vec<IpAddr>;

fn resolve(host: &str) -> Vec<IpAddr> {
    (host, 80).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// The URL to ask, if there is one.
pub(super) fn url(environment: &Environment, resolve: Resolve<'_>) -> Result<Option<String>, AwsError> {
    if let Some(path) = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        if !path.starts_with('/') || !is_plain(path) {
            let text = format!(
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is {path:?}, expected a path such as /v2/credentials/x"
            );
            return Err(AwsError::Setup(text));
        }
        return Ok(Some(format!("{ECS}{path}")));
    }
    let Some(url) = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") else { return Ok(None) };
    let fault = |why: &str| AwsError::Setup(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI is {url:?}: {why}"));
    // The parser drops a fragment unseen, whatever is in it.
    let uri: Uri = url.parse().ok().filter(|_| is_plain(url)).ok_or_else(|| fault("not a URL"))?;
    let name = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| fault("it names no host"))?;
    match uri.scheme_str() {
        Some("https") => Ok(Some(url.to_string())),
        Some("http") => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let addresses = bare.parse().map_or_else(|_| resolve(bare), |address| vec![address]);
            let near = |address: &IpAddr| address.is_loopback() || ALLOWED.contains(address);
            if !addresses.is_empty() && addresses.iter().all(near) {
                Ok(Some(url.to_string()))
            } else {
                Err(fault("over plain http only this machine and the addresses of ECS and EKS may be asked; use https"))
            }
        }
        _ => Err(fault("it does not start with http:// or https://")),
    }
}

/// Whether a text holds only what a URL may hold.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic())
}

/// The token to send along. It is read each time, since EKS replaces the file.
fn token(environment: &Environment) -> Result<Option<String>, AwsError> {
    let (text, place) = match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            // Whoever writes the file writes it again: one that is not there, or is empty, may be whole a moment later.
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
            "the token of {place} is empty or holds characters that no header can carry"
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
        /// The URL; null where none is set.
        #[serde(default)]
        url: Option<String>,
        #[serde(default)]
        refused: bool,
    }

    #[test]
    fn the_endpoint_is_found_as_the_sdks_do() {
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
    fn a_token_that_cannot_be_sent_is_not_shown() {
        let environment = Environment::from([("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush\nhush")]);
        let error = token(&environment).expect_err("a newline").to_string();
        assert!(error.contains("AWS_CONTAINER_AUTHORIZATION_TOKEN") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn a_file_of_a_token_that_is_not_whole_yet_passes_and_a_mark_is_left_out() {
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
