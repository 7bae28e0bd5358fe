//! The metadata service of an EC2 instance (IMDSv2): the credentials of its role, and its region.
//!
//! EC2 User Guide, "Use IMDS to access instance metadata". The first version, which any request that is smuggled out
//! of this machine could use, is asked only where someone says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::small::{self, Reply};
use super::{Context, Credentials, Found, Provider, document};
use crate::aws::config;
use crate::aws::error::{Cause, Error};
use crate::aws::net::{Ask, Wire};

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
enum Why {
    /// It is not there, or has nothing of this: the search goes on elsewhere.
    Nothing(String),
    /// It is there, and cannot answer now.
    Fault(String),
}

/// The provider of the instance's role.
pub(crate) struct FromMetadata;

impl Provider for FromMetadata {
    fn fetch(&self, context: &Context) -> Result<Found, Error> {
        match context.metadata.credentials() {
            Ok(found) => Ok(Found::Here(found)),
            Err(Why::Nothing(text)) => Ok(Found::Nothing(text)),
            Err(Why::Fault(text)) => Err(Error::Unavailable(text)),
        }
    }
}

impl Metadata {
    /// The service as `config` has it, asked over `wire`.
    pub(crate) fn new(wire: Arc<dyn Wire>, config: config::Metadata) -> Self {
        Metadata { wire, config, token: Mutex::new(None) }
    }

    /// The region of this instance. The error says why there is none.
    pub(crate) fn region(&self) -> Result<String, String> {
        match self.get("/latest/meta-data/placement/region") {
            Ok(reply) if reply.status == 200 => Ok(reply.body.trim().to_string()),
            Ok(reply) => Err(self.text(&format!("has no region (status {})", reply.status))),
            Err(Why::Nothing(text) | Why::Fault(text)) => Err(text),
        }
    }

    fn credentials(&self) -> Result<Credentials, Why> {
        let roles = self.get(ROLES)?;
        let role = match roles.status {
            200 => roles.body.lines().next().unwrap_or_default().trim().to_string(),
            404 => String::new(),
            status => return Err(Why::Fault(self.text(&format!("does not name the role (status {status})")))),
        };
        // IAM User Guide, "IAM and STS quotas": the characters of a role's name.
        let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if role.is_empty() || !role.chars().all(fits) {
            return Err(Why::Nothing("this instance has no role: attach an instance profile to it".to_string()));
        }
        let reply = self.get(&format!("{ROLES}{role}"))?;
        if reply.status != 200 {
            let text = format!("gives no credentials of role {role} (status {})", reply.status);
            return Err(Why::Fault(self.text(&text)));
        }
        let found = document::read(&reply.body)
            .map_err(|fault| Why::Fault(self.text(&format!("gives no credentials of role {role}: {fault}"))))?;
        Ok(found.of(format!("instance role {role}")))
    }

    /// Asks for a path, in a session if the service knows sessions. A session that has ended is begun anew, once.
    fn get(&self, path: &str) -> Result<Reply, Why> {
        if self.config.disabled {
            return Err(Why::Nothing("AWS_EC2_METADATA_DISABLED is set".to_string()));
        }
        let url = format!("{}{path}", self.config.url);
        for last in [false, true] {
            let token = self.token()?;
            let headers: &[(&str, &str)] = match &token {
                Some(token) => &[(TOKEN_HEADER, token)],
                None => &[],
            };
            let reply =
                small::ask(self.wire.as_ref(), &small::get(&url, headers, self.config.time), self.config.attempts)
                    .map_err(|cause| Why::Fault(self.text(&cause.to_string())))?;
            if reply.status != 401 || last {
                return Ok(reply);
            }
            *self.kept() = None;
        }
        unreachable!("the second round returns")
    }

    /// The token of the session; `None` where the first version is to be used.
    fn token(&self) -> Result<Option<String>, Why> {
        if let Some((token, end)) = self.kept().as_ref()
            && Instant::now() < *end
        {
            return Ok(Some(token.clone()));
        }
        let url = format!("{}/latest/api/token", self.config.url);
        let headers = [(TOKEN_LIFE_HEADER, TOKEN_SECONDS)];
        let time = self.config.time;
        let ask = Ask { method: "PUT", url: &url, headers: &headers, body: b"", time, connect: time, direct: true };
        let why = match small::ask(self.wire.as_ref(), &ask, self.config.attempts) {
            Ok(reply) if reply.status == 200 && sendable(reply.body.trim()) => {
                let token = reply.body.trim().to_string();
                let life = reply.headers.iter().find(|(name, _)| name == TOKEN_LIFE_HEADER);
                let life = life.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(0_u64).min(21_600);
                // A little early, so that it does not end on its way.
                *self.kept() = Some((token.clone(), Instant::now() + Duration::from_secs(life.saturating_sub(5))));
                return Ok(Some(token));
            }
            Ok(reply) if reply.status == 403 => {
                return Err(Why::Nothing(self.text("is switched off for this instance (status 403)")));
            }
            Ok(reply) if reply.status >= 500 || reply.status == 429 => {
                return Err(Why::Fault(self.text(&format!("begins no session (status {})", reply.status))));
            }
            Ok(reply) => format!("begins no session (status {})", reply.status),
            Err(Cause::TimedOut(_)) => {
                "does not answer; in a container on EC2, raise the hop limit of the instance's metadata options to 2"
                    .to_string()
            }
            Err(cause) => cause.to_string(),
        };
        if self.config.v1 { Ok(None) } else { Err(Why::Nothing(self.text(&why))) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant)>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, what: &str) -> String {
        format!("the instance's metadata service at {} {what}", self.config.url)
    }
}

fn sendable(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::super::replay::{Exchange, Replay};
    use super::*;

    fn metadata(v1: bool, exchanges: &[(&str, u16, &str)]) -> (Metadata, Arc<Replay>) {
        let replay =
            Arc::new(Replay::new(exchanges.iter().map(|(ask, status, body)| Exchange::new(ask, *status, body))));
        let config = config::Metadata {
            disabled: false,
            url: "http://169.254.169.254".to_string(),
            v1,
            time: Duration::from_secs(1),
            attempts: 2,
        };
        (Metadata::new(Arc::clone(&replay) as Arc<dyn Wire>, config), replay)
    }

    const TOKEN: &str = "PUT http://169.254.169.254/latest/api/token";
    const REGION: &str = "GET http://169.254.169.254/latest/meta-data/placement/region";

    #[test]
    fn a_session_that_has_ended_is_begun_anew() {
        let (metadata, replay) = metadata(
            false,
            &[(TOKEN, 200, "one"), (REGION, 401, ""), (TOKEN, 200, "two"), (REGION, 200, "eu-west-1\n")],
        );
        assert_eq!(metadata.region().as_deref(), Ok("eu-west-1"));
        replay.assert_done();
    }

    #[test]
    fn the_first_version_is_used_only_where_someone_says_so() {
        let (metadata, replay) = metadata(true, &[(TOKEN, 404, ""), (REGION, 200, "eu-west-1")]);
        assert_eq!(metadata.region().as_deref(), Ok("eu-west-1"));
        replay.assert_done();
    }

    #[test]
    fn without_the_second_version_nothing_is_asked() {
        let (metadata, replay) = metadata(false, &[(TOKEN, 404, "")]);
        assert!(metadata.region().expect_err("no session").contains("status 404"));
        replay.assert_done();
    }

    #[test]
    fn a_service_that_is_down_is_not_a_service_without_a_role() {
        let (metadata, _) = metadata(false, &[(TOKEN, 503, ""), (TOKEN, 503, "")]);
        assert!(matches!(metadata.credentials(), Err(Why::Fault(text)) if text.contains("503")));
    }
}
