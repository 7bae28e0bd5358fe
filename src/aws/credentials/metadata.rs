//! The metadata service of an EC2 instance (IMDSv2): the credentials of its role, and its region.
//!
//! EC2 User Guide, "Use IMDS to access instance metadata". The first version, which any request that is smuggled out
//! of this machine could use, is asked only where someone says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::document;
use super::small::{self, Reply};
use crate::aws::config;
use crate::aws::error::Cause;
use crate::aws::transport::endpoint;
use crate::aws::transport::identity::Credentials;
use crate::aws::transport::net::{HttpRequest, Wire};
use crate::text::one_line;

/// How long a session's token is asked to hold: the longest there is.
const TOKEN_SECONDS: &str = "21600";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_LIFE_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// The metadata service, with the token of its session.
pub(crate) struct Metadata {
    wire: Arc<dyn Wire>,
    config: config::Metadata,
    token: Mutex<Option<(String, Instant)>>,
}

/// Why the metadata service gave nothing.
pub(crate) enum Why {
    /// It is not there, or has nothing of this: the search goes on elsewhere.
    Nothing(String),
    /// It is there or has to be, and cannot answer now. While a machine starts, that passes.
    Fault(String),
}

impl Metadata {
    /// The service as `config` has it, asked over `wire`.
    pub(crate) fn new(wire: Arc<dyn Wire>, config: config::Metadata) -> Self {
        Metadata { wire, config, token: Mutex::new(None) }
    }

    /// The region of this instance, waited for until `until` at most.
    pub(crate) fn region(&self, until: Instant) -> Result<String, Why> {
        let reply = self.get("/latest/meta-data/placement/region", Some(until))?;
        let region = reply.body.trim();
        match reply.status {
            200 => endpoint::parse_region(region)
                .map_err(|_| Why::Fault(self.text(&format!("gives as the region {}", shown(region))))),
            404 => Err(Why::Nothing(self.text("has no region (status 404)"))),
            status => Err(Why::Fault(self.text(&format!("does not give the region (status {status})")))),
        }
    }

    /// The credentials of the instance's role.
    pub(crate) fn credentials(&self) -> Result<Credentials, Why> {
        let roles = self.get(ROLES, None)?;
        let fault = |text: String| Why::Fault(self.text(&text));
        let role = match roles.status {
            200 => roles.body.lines().next().unwrap_or_default().trim(),
            // A role may be given to an instance after it has started.
            404 => "",
            status => return Err(fault(format!("does not name the role (status {status})"))),
        };
        if role.is_empty() {
            return Err(fault("names no role yet: attach an instance profile to this instance".to_string()));
        }
        // IAM User Guide, "IAM and STS quotas": the characters of a role's name.
        let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !role.chars().all(fits) {
            return Err(fault(format!("gives as the name of the role {}", shown(role))));
        }
        let reply = self.get(&format!("{ROLES}{role}"), None)?;
        if reply.status != 200 {
            return Err(fault(format!("gives no credentials of role {role} (status {})", reply.status)));
        }
        let found = document::read(&reply.body)
            .map_err(|problem| fault(format!("gives no credentials of role {role}: {problem}")))?;
        Ok(found.with_source(format!("instance role {role}")))
    }

    /// Asks for a path, in a session if the service knows sessions. A session that has ended is begun anew, once.
    fn get(&self, path: &str, until: Option<Instant>) -> Result<Reply, Why> {
        if self.config.disabled {
            return Err(Why::Nothing("AWS_EC2_METADATA_DISABLED is set".to_string()));
        }
        let url = format!("{}{path}", self.config.url);
        for last in [false, true] {
            let token = self.token(until)?;
            let headers: &[(&str, &str)] = match &token {
                Some(token) => &[(TOKEN_HEADER, token)],
                None => &[],
            };
            let reply =
                small::ask(self.wire.as_ref(), &small::get(&url, headers, self.time(until)), self.config.attempts)
                    .map_err(|cause| Why::Fault(self.text(&cause.to_string())))?;
            if reply.status != 401 || last {
                return Ok(reply);
            }
            *self.kept() = None;
        }
        unreachable!("the second round returns")
    }

    /// The token of the session; `None` where the first version is to be used.
    fn token(&self, until: Option<Instant>) -> Result<Option<String>, Why> {
        if let Some((token, end)) = self.kept().as_ref()
            && Instant::now() < *end
        {
            return Ok(Some(token.clone()));
        }
        let url = format!("{}/latest/api/token", self.config.url);
        let headers = [(TOKEN_LIFE_HEADER, TOKEN_SECONDS)];
        let time = self.time(until);
        let ask =
            HttpRequest { method: "PUT", url: &url, headers: &headers, body: b"", time, connect: time, direct: true };
        let why = match small::ask(self.wire.as_ref(), &ask, self.config.attempts) {
            Ok(reply) if reply.status == 200 && sendable(reply.body.trim()) => {
                let token = reply.body.trim().to_string();
                let life = reply.headers.iter().find(|(name, _)| name == TOKEN_LIFE_HEADER);
                let life = life.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(0_u64).min(21_600);
                // A little early, so that it does not end on its way.
                *self.kept() = Some((token.clone(), Instant::now() + Duration::from_secs(life.saturating_sub(5))));
                return Ok(Some(token));
            }
            // Where there has to be one, this is somebody else's answer: a page of a portal, a way to elsewhere.
            Ok(reply) if reply.status < 400 && self.config.expected && !self.config.v1 => {
                return Err(Why::Fault(
                    self.text(&format!("begins no session (status {}, without a token)", reply.status)),
                ));
            }
            Ok(reply) if reply.status == 403 => {
                return Err(Why::Nothing(self.text("is switched off for this instance (status 403)")));
            }
            Ok(reply) if reply.status >= 500 || reply.status == 429 => {
                return Err(Why::Fault(self.text(&format!("begins no session (status {})", reply.status))));
            }
            Ok(reply) => format!("begins no session (status {})", reply.status),
            Err(cause) => {
                let why = match cause {
                    Cause::TimedOut(_) => {
                        "does not answer; in a container on EC2, raise the hop limit of the instance's metadata options to 2"
                            .to_string()
                    }
                    cause => cause.to_string(),
                };
                if self.config.expected && !self.config.v1 {
                    return Err(Why::Fault(self.text(&why)));
                }
                why
            }
        };
        if self.config.v1 { Ok(None) } else { Err(Why::Nothing(self.text(&why))) }
    }

    /// The time for one attempt: so short that all of them are over by `until`.
    fn time(&self, until: Option<Instant>) -> Duration {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()) / self.config.attempts);
        left.map_or(self.config.time, |left| left.min(self.config.time))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant)>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, what: &str) -> String {
        format!("the instance's metadata service at {} {what}", self.config.url)
    }
}

/// An answer that cannot be used, as a message can carry it.
fn shown(text: &str) -> String {
    format!("\"{}\"", one_line(text, 100))
}

fn sendable(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::super::replay::{Exchange, Replay};
    use super::*;

    fn metadata(v1: bool, exchanges: &[(&str, u16, &str)]) -> (Metadata, Arc<Replay>) {
        on(false, v1, exchanges)
    }

    fn on(expected: bool, v1: bool, exchanges: &[(&str, u16, &str)]) -> (Metadata, Arc<Replay>) {
        let replay =
            Arc::new(Replay::new(exchanges.iter().map(|(ask, status, body)| Exchange::new(ask, *status, body))));
        let config = config::Metadata {
            disabled: false,
            url: "http://169.254.169.254".to_string(),
            expected,
            v1,
            time: Duration::from_secs(1),
            attempts: 2,
        };
        (Metadata::new(Arc::clone(&replay) as Arc<dyn Wire>, config), replay)
    }

    const TOKEN: &str = "PUT http://169.254.169.254/latest/api/token";
    const REGION: &str = "GET http://169.254.169.254/latest/meta-data/placement/region";
    const ROLE: &str = "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/";

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// What it says, and whether that passes.
    fn region(metadata: &Metadata) -> Result<String, (bool, String)> {
        metadata.region(soon()).map_err(|why| match why {
            Why::Nothing(text) => (false, text),
            Why::Fault(text) => (true, text),
        })
    }

    #[test]
    fn a_session_that_has_ended_is_begun_anew() {
        let (metadata, replay) = metadata(
            false,
            &[(TOKEN, 200, "one"), (REGION, 401, ""), (TOKEN, 200, "two"), (REGION, 200, "eu-west-1\n")],
        );
        assert_eq!(region(&metadata).as_deref(), Ok("eu-west-1"));
        replay.assert_done();
    }

    #[test]
    fn the_first_version_is_used_only_where_someone_says_so() {
        let (metadata, replay) = metadata(true, &[(TOKEN, 404, ""), (REGION, 200, "eu-west-1")]);
        assert_eq!(region(&metadata).as_deref(), Ok("eu-west-1"));
        replay.assert_done();
    }

    #[test]
    fn without_the_second_version_nothing_is_asked() {
        let (metadata, replay) = metadata(false, &[(TOKEN, 404, "")]);
        let (passes, text) = region(&metadata).expect_err("no session");
        assert!(!passes && text.contains("status 404"), "{text}");
        replay.assert_done();
    }

    #[test]
    fn a_service_that_is_down_is_not_a_service_without_a_role() {
        let (metadata, _) = metadata(false, &[(TOKEN, 503, ""), (TOKEN, 503, "")]);
        assert!(matches!(metadata.credentials(), Err(Why::Fault(text)) if text.contains("503")));
    }

    #[test]
    fn what_the_start_of_a_machine_brings_passes() {
        let no_answer = [(TOKEN, 0, ""), (TOKEN, 0, "")];
        // Where there has to be one, silence is trouble; elsewhere it says that there is none.
        for expected in [true, false] {
            let (silent, _) = on(expected, false, &no_answer);
            assert_eq!(matches!(silent.credentials(), Err(Why::Fault(_))), expected);
            let (silent, _) = on(expected, false, &no_answer);
            let (passes, text) = region(&silent).expect_err("silence");
            assert!(passes == expected && text.contains("hop limit"), "{text}");
        }
        for (status, body) in [(200, "<html>Please log in</html>"), (200, ""), (302, "")] {
            for expected in [true, false] {
                let (portal, _) = on(expected, false, &[(TOKEN, status, body)]);
                assert_eq!(matches!(portal.credentials(), Err(Why::Fault(_))), expected, "{status} {body}");
            }
        }
        for (status, body, expected) in [
            (404, "", "names no role yet: attach an instance profile"),
            (200, "", "names no role yet"),
            (
                200,
                "<html><body>Welcome</body></html>",
                "gives as the name of the role \"<html><body>Welcome</body></html>\"",
            ),
            (403, "", "does not name the role (status 403)"),
        ] {
            let (metadata, replay) = metadata(false, &[(TOKEN, 200, "one"), (ROLE, status, body)]);
            assert!(matches!(metadata.credentials(), Err(Why::Fault(text)) if text.contains(expected)), "{expected}");
            replay.assert_done();
        }
        for (status, body, passes, expected) in [
            (200, "<html>", true, "gives as the region \"<html>\""),
            (200, "eu-west-1a", true, "gives as the region"),
            (403, "", true, "does not give the region (status 403)"),
            (404, "", false, "has no region"),
        ] {
            let (metadata, _) = metadata(false, &[(TOKEN, 200, "one"), (REGION, status, body)]);
            let (passed, text) = region(&metadata).expect_err(expected);
            assert!(passed == passes && text.contains(expected), "{text}");
        }
    }
}
