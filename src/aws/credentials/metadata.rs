//! The EC2 instance metadata service (IMDSv2): the role's credentials, and the region.
//!
//! EC2 User Guide, "Use IMDS to access instance metadata". IMDSv1 is open to any request forged from this machine (SSRF),
//! so it is used only if enabled explicitly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::document;
use super::request::{self, BoundedResponse};
use crate::aws::config;
use crate::aws::error::Cause;
use crate::aws::transport::endpoint;
use crate::aws::transport::identity::Credentials;
use crate::aws::transport::net::{HttpRequest, Wire};
use crate::text::one_line;

/// The longest lifetime of a session token.
const TOKEN_SECONDS: &str = "21600";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_LIFE_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// A client of the metadata service, with its session token.
pub(crate) struct MetadataService {
    wire: Arc<dyn Wire>,
    config: config::MetadataConfig,
    token: Mutex<Option<(String, Instant)>>,
}

pub(crate) enum MetadataError {
    /// There is no service, or it lacks this value: try the next provider.
    Absent(String),
    /// The service exists, or must, but fails. Passes, as while a machine boots.
    Unavailable(String),
}

impl MetadataService {
    /// A client; no request is made yet.
    pub(crate) fn new(wire: Arc<dyn Wire>, config: config::MetadataConfig) -> Self {
        MetadataService { wire, config, token: Mutex::new(None) }
    }

    /// The instance's region, by `deadline`.
    pub(crate) fn region(&self, deadline: Instant) -> Result<String, MetadataError> {
        let parse = |text: &str| {
            endpoint::parse_region(text).map_err(|_| format!("returned an invalid region: {}", quoted(text)))
        };
        self.placement("region", "/latest/meta-data/placement/region", parse, deadline)
    }

    /// The instance's availability zone, by `deadline`.
    pub(crate) fn zone(&self, deadline: Instant) -> Result<String, MetadataError> {
        self.placement("zone", "/latest/meta-data/placement/availability-zone", endpoint::parse_zone, deadline)
    }

    /// `what`, the region or zone at `path`. The error of `parse` completes "the service ...".
    fn placement(
        &self,
        what: &str,
        path: &str,
        parse: impl Fn(&str) -> Result<String, String>,
        deadline: Instant,
    ) -> Result<String, MetadataError> {
        let response = self.get(path, Some(deadline))?;
        match response.status {
            200 => parse(response.body.trim()).map_err(|fault| MetadataError::Unavailable(self.about(&fault))),
            404 => Err(MetadataError::Absent(self.about(&format!("has no {what} (status 404)")))),
            status => {
                Err(MetadataError::Unavailable(self.about(&format!("did not return the {what} (status {status})"))))
            }
        }
    }

    /// The credentials of the instance's role.
    pub(crate) fn credentials(&self) -> Result<Credentials, MetadataError> {
        let roles = self.get(ROLES, None)?;
        let fault = |text: String| MetadataError::Unavailable(self.about(&text));
        let role = match roles.status {
            200 => roles.body.lines().next().unwrap_or_default().trim(),
            // A role may be attached after the instance has started.
            404 => "",
            status => return Err(fault(format!("did not return the role's name (status {status})"))),
        };
        if role.is_empty() {
            return Err(fault("names no role yet: attach an instance profile to this instance".to_string()));
        }
        // IAM User Guide, "IAM and STS quotas".
        let valid = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !role.chars().all(valid) {
            return Err(fault(format!("returned an invalid role name: {}", quoted(role))));
        }
        let response = self.get(&format!("{ROLES}{role}"), None)?;
        if response.status != 200 {
            return Err(fault(format!("returned no credentials for role {role} (status {})", response.status)));
        }
        let found = document::read(&response.body)
            .map_err(|problem| fault(format!("returned no credentials for role {role}: {problem}")))?;
        Ok(found.with_source(format!("instance role {role}")))
    }

    /// Gets a path, starting a new session once if the old one has expired.
    fn get(&self, path: &str, deadline: Option<Instant>) -> Result<BoundedResponse, MetadataError> {
        if self.config.disabled {
            return Err(MetadataError::Absent("AWS_EC2_METADATA_DISABLED is set".to_string()));
        }
        let url = format!("{}{path}", self.config.url);
        for last in [false, true] {
            let token = self.token(deadline)?;
            let headers: &[(&str, &str)] = match &token {
                Some(token) => &[(TOKEN_HEADER, token)],
                None => &[],
            };
            let response = request::send(
                self.wire.as_ref(),
                &request::get(&url, headers, self.attempt_timeout(deadline)),
                self.config.attempts,
            )
            .map_err(|cause| MetadataError::Unavailable(self.about(&cause.to_string())))?;
            if response.status != 401 || last {
                return Ok(response);
            }
            *self.session() = None;
        }
        unreachable!("the second round returns")
    }

    /// The session token, or `None` to use IMDSv1.
    fn token(&self, deadline: Option<Instant>) -> Result<Option<String>, MetadataError> {
        if let Some((token, end)) = self.session().as_ref()
            && Instant::now() < *end
        {
            return Ok(Some(token.clone()));
        }
        let url = format!("{}/latest/api/token", self.config.url);
        let headers = [(TOKEN_LIFE_HEADER, TOKEN_SECONDS)];
        let time = self.attempt_timeout(deadline);
        let ask = HttpRequest { method: "PUT", ..request::get(&url, &headers, time) };
        let unavailable = |what: &str| Err(MetadataError::Unavailable(self.about(what)));
        let required = self.config.expected && !self.config.v1;
        let reason = match request::send(self.wire.as_ref(), &ask, self.config.attempts) {
            Ok(response) if response.status == 200 && is_header_value(response.body.trim()) => {
                let token = response.body.trim().to_string();
                let life = response.headers.iter().find(|(name, _)| name == TOKEN_LIFE_HEADER);
                let life = life.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(0_u64).min(21_600);
                // 5 s early, so that it cannot expire in flight.
                *self.session() = Some((token.clone(), Instant::now() + Duration::from_secs(life.saturating_sub(5))));
                return Ok(Some(token));
            }
            // Not the metadata service: a captive portal's page or redirect.
            Ok(BoundedResponse { status: status @ ..400, .. }) if required => {
                return unavailable(&format!("did not start a session (status {status}, without a token)"));
            }
            Ok(BoundedResponse { status: 403, .. }) => {
                return Err(MetadataError::Absent(self.about("is disabled for this instance (status 403)")));
            }
            Ok(BoundedResponse { status: status @ (429 | 500..), .. }) => {
                return unavailable(&format!("did not start a session (status {status})"));
            }
            Ok(response) => format!("did not start a session (status {})", response.status),
            Err(cause) => {
                let hop_limit = "raise the hop limit of the instance's metadata options to 2";
                let reason = match cause {
                    Cause::TimedOut(_) => format!("does not respond; in a container on EC2, {hop_limit}"),
                    cause => cause.to_string(),
                };
                if required {
                    return unavailable(&reason);
                }
                reason
            }
        };
        if self.config.v1 { Ok(None) } else { Err(MetadataError::Absent(self.about(&reason))) }
    }

    /// The timeout of one attempt: all of them fit before `deadline`.
    fn attempt_timeout(&self, deadline: Option<Instant>) -> Duration {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()) / self.config.attempts);
        left.map_or(self.config.timeout, |left| left.min(self.config.timeout))
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant)>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn about(&self, what: &str) -> String {
        format!("the instance's metadata service at {} {what}", self.config.url)
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text, 100))
}

fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::super::replay::{Exchange, Replay};
    use super::*;

    fn metadata(v1: bool, exchanges: &[(&str, u16, &str)]) -> (MetadataService, Arc<Replay>) {
        on(false, v1, exchanges)
    }

    fn on(expected: bool, v1: bool, exchanges: &[(&str, u16, &str)]) -> (MetadataService, Arc<Replay>) {
        let replay =
            Arc::new(Replay::new(exchanges.iter().map(|(ask, status, body)| Exchange::new(ask, *status, body))));
        let config = config::MetadataConfig {
            disabled: false,
            url: "http://169.254.169.254".to_string(),
            expected,
            v1,
            timeout: Duration::from_secs(1),
            attempts: 2,
        };
        (MetadataService::new(Arc::clone(&replay) as Arc<dyn Wire>, config), replay)
    }

    const TOKEN: &str = "PUT http://169.254.169.254/latest/api/token";
    const REGION: &str = "GET http://169.254.169.254/latest/meta-data/placement/region";
    const ROLE: &str = "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/";

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// The region, or whether the error passes, and its text.
    fn region(metadata: &MetadataService) -> Result<String, (bool, String)> {
        metadata.region(soon()).map_err(|why| match why {
            MetadataError::Absent(text) => (false, text),
            MetadataError::Unavailable(text) => (true, text),
        })
    }

    #[test]
    fn an_expired_session_is_restarted() {
        let (metadata, replay) = metadata(
            false,
            &[(TOKEN, 200, "one"), (REGION, 401, ""), (TOKEN, 200, "two"), (REGION, 200, "eu-west-1\n")],
        );
        assert_eq!(region(&metadata).as_deref(), Ok("eu-west-1"));
        replay.assert_done();
    }

    #[test]
    fn imds_v1_is_used_only_if_enabled() {
        let (metadata, replay) = metadata(true, &[(TOKEN, 404, ""), (REGION, 200, "eu-west-1")]);
        assert_eq!(region(&metadata).as_deref(), Ok("eu-west-1"));
        replay.assert_done();
    }

    #[test]
    fn without_a_session_nothing_is_requested() {
        let (metadata, replay) = metadata(false, &[(TOKEN, 404, "")]);
        let (passes, text) = region(&metadata).expect_err("no session");
        assert!(!passes && text.contains("status 404"), "{text}");
        replay.assert_done();
    }

    #[test]
    fn a_service_that_is_down_is_not_a_service_without_a_role() {
        let (metadata, _) = metadata(false, &[(TOKEN, 503, ""), (TOKEN, 503, "")]);
        assert!(matches!(metadata.credentials(), Err(MetadataError::Unavailable(text)) if text.contains("503")));
    }

    #[test]
    fn failures_while_a_machine_boots_pass() {
        let no_answer = [(TOKEN, 0, ""), (TOKEN, 0, "")];
        // A timeout is a failure if the service is expected, else there is none.
        for expected in [true, false] {
            let (silent, _) = on(expected, false, &no_answer);
            assert_eq!(matches!(silent.credentials(), Err(MetadataError::Unavailable(_))), expected);
            let (silent, _) = on(expected, false, &no_answer);
            let (passes, text) = region(&silent).expect_err("silence");
            assert!(passes == expected && text.contains("hop limit"), "{text}");
        }
        for (status, body) in [(200, "<html>Please log in</html>"), (200, ""), (302, "")] {
            for expected in [true, false] {
                let (portal, _) = on(expected, false, &[(TOKEN, status, body)]);
                assert_eq!(
                    matches!(portal.credentials(), Err(MetadataError::Unavailable(_))),
                    expected,
                    "{status} {body}"
                );
            }
        }
        for (status, body, expected) in [
            (404, "", "names no role yet: attach an instance profile"),
            (200, "", "names no role yet"),
            (
                200,
                "<html><body>Welcome</body></html>",
                "returned an invalid role name: \"<html><body>Welcome</body></html>\"",
            ),
            (403, "", "did not return the role's name (status 403)"),
        ] {
            let (metadata, replay) = metadata(false, &[(TOKEN, 200, "one"), (ROLE, status, body)]);
            assert!(
                matches!(metadata.credentials(), Err(MetadataError::Unavailable(text)) if text.contains(expected)),
                "{expected}"
            );
            replay.assert_done();
        }
        for (status, body, passes, expected) in [
            (200, "<html>", true, "returned an invalid region: \"<html>\""),
            (200, "eu-west-1a", true, "returned an invalid region"),
            (403, "", true, "did not return the region (status 403)"),
            (404, "", false, "has no region"),
        ] {
            let (metadata, _) = metadata(false, &[(TOKEN, 200, "one"), (REGION, status, body)]);
            let (passed, text) = region(&metadata).expect_err(expected);
            assert!(passed == passes && text.contains(expected), "{text}");
        }
    }
}
