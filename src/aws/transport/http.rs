//! One AWS call: signs and posts a request, retries transient failures, and streams the body to a reader.
//!
//! Connecting, each attempt, all attempts together and the size of a body are bounded. The `Date` of every response
//! corrects the clock used for signing.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::{Endpoint, Endpoints};
use super::identity::Credentials;
use super::net::{ExchangeFault, HttpRequest, HttpResponse, UNRESOLVED, Wire, body_fault};
use super::retry::{self, Quota, is_retryable, retry_delay};
use super::sign::{SigningScope, sign};
use super::skew::{AwsClock, DateSample};
use crate::about::About;
use crate::aws::error::codes::ErrorClass;
use crate::aws::error::refusal::{html_text, redirect_target, refusal};
use crate::aws::error::{AwsError, Cause, FailedCall, PAGE_SHOWN, redact};
use crate::aws::random::random;
use crate::aws::service::Service;
use crate::clock::Timestamp;
use crate::text::one_line;

/// The timeout for connecting, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// The largest response body, in bytes: 1,000 instances take about 8 MB.
const BODY_LIMIT: u64 = 32 * 1024 * 1024;
/// The same for DynamoDB: a page is 1 MB of items, less than ten times that in JSON, and parsed items take many times
/// their JSON length in memory.
const ITEMS_LIMIT: u64 = 10 * 1024 * 1024;
/// Bytes of a body kept to recognise an HTML page.
const PREFIX_LIMIT: usize = 4 * 1024;
const ERROR_BODY_LIMIT: u64 = 256 * 1024;

/// Counts calls, for metrics.
pub trait Observer: Send + Sync {
    /// One attempt ended: `service` is `dynamodb`, `autoscaling`, `ec2` or `sts`; `operation` is AWS's spelling;
    /// `result` is `ok`, AWS's error code (`HTTP 503` if it gave none, `other` for one unfit for a label),
    /// `timeout`, `unreachable` or `unreadable`.
    fn request(&self, service: &'static str, operation: &'static str, result: &str);
    /// A DynamoDB call consumed this many capacity units.
    fn consumed(&self, operation: &'static str, units: f64);
}

pub(crate) struct Request {
    pub(crate) service: Service,
    pub(crate) operation: &'static str,
    /// What the call is about, for messages.
    pub(crate) subject: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// The time a group of calls may take together, such as all pages of a scan.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    deadline: Instant,
    total: Duration,
    attempt: Duration,
    /// One attempt at each call, whatever fails.
    is_single: bool,
}

impl Budget {
    /// Starts now: `total` for everything, `attempt` for one attempt at one call.
    pub(crate) fn new(total: Duration, attempt: Duration) -> Self {
        Budget { deadline: Instant::now() + total, total, attempt, is_single: false }
    }

    /// The same for calls that are not worth a second attempt: nothing waits, and the retries of other calls are left to them.
    pub(crate) fn without_retries(self) -> Self {
        Budget { is_single: true, ..self }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left().is_zero()
    }

    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn timed_out(&self) -> Cause {
        Cause::TimedOut(match self.total {
            Duration::ZERO => "no time left".to_string(),
            total => format!("{:.1} s for the whole operation", total.as_secs_f64()),
        })
    }
}

/// Reads a response body to its end. The error says what is malformed.
pub(crate) type ReadBody<'a, T> = &'a dyn Fn(&mut dyn BufRead) -> Result<T, String>;

type ReadInto<'a> = dyn FnMut(&mut dyn BufRead) -> Result<(), String> + 'a;

/// What all calls share except the credentials, since some calls exist to fetch those.
pub(crate) struct Caller {
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) endpoints: Endpoints,
    /// Attempts per call, the first included, if configured.
    attempts: Option<u32>,
    /// AWS's time, used for signing.
    pub(crate) clock: Arc<AwsClock>,
    remotes: [Remote; Service::ALL.len()],
    observer: Arc<dyn Observer>,
}

struct Remote {
    region: Arc<str>,
    endpoint: Endpoint,
    quota: Quota,
}

impl Caller {
    /// Calls over `wire` in `region`, counted by `observer`, each with up to `attempts` (1 or more; `None`: the service's
    /// default).
    pub(crate) fn new(
        wire: Arc<dyn Wire>,
        endpoints: Endpoints,
        attempts: Option<u32>,
        region: String,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let region: Arc<str> = region.into();
        let remotes = Service::ALL.map(|service| Remote {
            region: Arc::clone(&region),
            endpoint: endpoints.of(service, &region),
            quota: Quota::default(),
        });
        Caller { wire, endpoints, attempts, clock: Arc::default(), remotes, observer }
    }

    pub(crate) fn set_region(&mut self, service: Service, region: String) {
        let remote = &mut self.remotes[service as usize];
        remote.endpoint = self.endpoints.of(service, &region);
        remote.region = region.into();
    }

    pub(crate) fn region_of(&self, service: Service) -> &str {
        &self.remote(service).region
    }

    fn remote(&self, service: Service) -> &Remote {
        &self.remotes[service as usize]
    }

    pub(crate) fn error(&self, request: &Request, credentials: Option<&Credentials>, cause: Cause) -> AwsError {
        AwsError::Call(Box::new(FailedCall {
            service: request.service,
            operation: request.operation,
            subject: request.subject.clone(),
            host: self.remote(request.service).endpoint.host.clone(),
            identity: credentials.map(Credentials::label),
            cause,
            about: About::default(),
            renewal: None,
        }))
    }

    /// Sends `request` within `budget`, signed if there are credentials, and parses the body with `read`.
    pub(crate) fn send<T>(
        &self,
        request: &Request,
        credentials: Option<&Credentials>,
        budget: &Budget,
        read: ReadBody<'_, T>,
    ) -> Result<T, Cause> {
        let mut value = None;
        self.send_to(request, credentials, budget, &mut |body| {
            value = Some(read(body)?);
            Ok(())
        })?;
        Ok(value.expect("a call succeeds only once its body has been read"))
    }

    /// [`Caller::send`] for a reader that keeps its value: compiled once, not for each type of value.
    fn send_to(
        &self,
        request: &Request,
        credentials: Option<&Credentials>,
        budget: &Budget,
        read: &mut ReadInto<'_>,
    ) -> Result<(), Cause> {
        let remote = self.remote(request.service);
        let max_attempts = match self.attempts {
            _ if budget.is_single => 1,
            attempts => attempts.unwrap_or_else(|| retry::attempts(request.service)),
        };
        let (mut attempts, mut reconnected, mut clock_changed, mut cost) = (0, false, false, None);
        loop {
            let time = budget.attempt.min(budget.left());
            if time.is_zero() {
                return Err(budget.timed_out());
            }
            attempts += 1;
            let failure = match self.attempt(remote, credentials, request, time, read) {
                Ok(()) => {
                    remote.quota.refund(cost);
                    self.observer.request(request.service.id(), request.operation, "ok");
                    if clock_changed && self.clock.ignores_dates() {
                        warn_of_dates(&remote.endpoint.host);
                    }
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let AttemptFailure { fault: ExchangeFault { cause, stale }, clock, retry_after } = *failure;
            self.observer.request(request.service.id(), request.operation, &result_label(&cause));
            // The server may close an idle connection just as we reuse it: reconnect once, without counting an attempt.
            if stale && !reconnected {
                reconnected = true;
                attempts -= 1;
                continue;
            }
            // Change the clock once per call: if AWS refuses both times, it would alternate between them.
            let clock = clock && !std::mem::replace(&mut clock_changed, true);
            if attempts >= max_attempts || !(clock || is_retryable(&cause)) {
                return Err(cause);
            }
            let wait = if clock {
                Duration::ZERO
            } else {
                retry_delay(request.service, &cause, attempts, retry_after, random())
            };
            if wait >= budget.left() {
                return Err(cause);
            }
            cost = remote.quota.take(&cause);
            if cost.is_none() {
                log::debug!("{} {}: retry quota exhausted, giving up", request.service.name(), request.operation);
                return Err(cause);
            }
            log::debug!("{}: retrying", self.error(request, credentials, cause));
            std::thread::sleep(wait);
        }
    }

    fn attempt(
        &self,
        Remote { region, endpoint, .. }: &Remote,
        credentials: Option<&Credentials>,
        request: &Request,
        time: Duration,
        read: &mut ReadInto<'_>,
    ) -> Result<(), Box<AttemptFailure>> {
        let body = request.body.as_bytes();
        let sent = Timestamp::now();
        let signature = match credentials {
            Some(credentials) => {
                let scope = SigningScope { region, service: request.service.id() };
                sign(credentials, &scope, &endpoint.url, &request.headers, body, self.clock.at(sent)).map_err(
                    |text| ExchangeFault { cause: Cause::Unreadable(format!("cannot sign: {text}")), stale: false },
                )?
            }
            None => Vec::new(),
        };
        let own = request.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> =
            own.chain(signature.iter().map(|(name, value)| (name.as_str(), value.as_str()))).collect();
        let exchange = HttpRequest {
            method: "POST",
            url: &endpoint.url,
            headers: &headers,
            body,
            time,
            connect: CONNECT,
            direct: false,
        };
        let response = self.wire.send(&exchange).map_err(|fault| self.explain(request.service, fault))?;
        let date = (response.header("date"), response.header("age").is_some());
        let sample = self.clock.learn(sent, Timestamp::now(), date.0, date.1);
        if response.status != 200 {
            return Err(Box::new(self.refused(response, sample, credentials)));
        }
        let left = if request.service == Service::DynamoDb { ITEMS_LIMIT } else { BODY_LIMIT };
        let body = BoundedBody { inner: response.body, left, time, fault: None, prefix: Vec::new() };
        let mut body = BufReader::with_capacity(16 * 1024, body);
        read(&mut body).map_err(|text| {
            let BoundedBody { fault, prefix, .. } = body.into_inner();
            let unreadable = || {
                let secrets = credentials.map(Credentials::secrets).unwrap_or_default();
                let page = html_text(&prefix).map(|page| redact(page, &secrets));
                let text = page.map_or(text, |page| format!("it is an HTML page: \"{}\"", one_line(&page, PAGE_SHOWN)));
                ExchangeFault { cause: Cause::Unreadable(text), stale: false }
            };
            fault.unwrap_or_else(unreadable).into()
        })
    }

    /// Suggests a wrong region if a host name derived from it does not resolve.
    fn explain(&self, service: Service, mut fault: ExchangeFault) -> ExchangeFault {
        if let Cause::Unreachable(text) = &mut fault.cause
            && text.starts_with(UNRESOLVED)
            && !self.endpoints.configured.contains_key(service.id())
        {
            text.push_str(&format!("; is {} an AWS region, and does DNS work?", self.region_of(service)));
        }
        fault
    }

    /// The failure for an error response; `sample` comes from its date.
    fn refused(
        &self,
        response: HttpResponse,
        sample: Option<DateSample>,
        credentials: Option<&Credentials>,
    ) -> AttemptFailure {
        let request_id =
            response.header("x-amzn-requestid").or(response.header("x-amz-request-id")).map(str::to_string);
        let retry_after = response.header("x-amz-retry-after").and_then(retry::parse_retry_after);
        let redirect = response.header("location").filter(|_| response.status < 400).map(redirect_target);
        let mut text = Vec::new();
        // The status is still known if the body breaks off.
        let _ = response.body.take(ERROR_BODY_LIMIT).read_to_end(&mut text);
        let mut refusal = refusal(response.status, request_id.as_deref(), &text);
        if let Some(target) = redirect {
            refusal.message = format!("it redirects to {target}");
        }
        if let Some(credentials) = credentials {
            refusal.redact(&credentials.secrets());
        }
        let clock = match refusal.class() {
            Some(ErrorClass::Clock) => self.clock.refused(sample) || sample.is_some(),
            Some(ErrorClass::Signature) => self.clock.refused(sample),
            _ => false,
        };
        AttemptFailure { fault: ExchangeFault { cause: Cause::Refused(refusal), stale: false }, clock, retry_after }
    }
}

fn warn_of_dates(host: &str) {
    log::warn!(
        "the Date of responses from {host} is wrong, perhaps set by a proxy: signing with this machine's own clock"
    );
}

struct AttemptFailure {
    fault: ExchangeFault,
    /// The signature's time may have been wrong, and another one is worth trying.
    clock: bool,
    retry_after: Option<Duration>,
}

impl From<ExchangeFault> for Box<AttemptFailure> {
    fn from(fault: ExchangeFault) -> Self {
        Box::new(AttemptFailure { fault, clock: false, retry_after: None })
    }
}

/// A body of limited size that keeps the cause of a read error, which parsers do not pass on.
struct BoundedBody<R> {
    inner: R,
    left: u64,
    time: Duration,
    fault: Option<ExchangeFault>,
    prefix: Vec<u8>,
}

impl<R: Read> Read for BoundedBody<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.fault = Some(body_fault(error, self.time));
                return Err(io::Error::other("the body was cut short"));
            }
        };
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other("the body is larger than any real response")),
        }
        let more = PREFIX_LIMIT.saturating_sub(self.prefix.len()).min(count);
        self.prefix.extend_from_slice(&buffer[..more]);
        Ok(count)
    }
}

/// The `result` label of a metric, at most 64 plain characters whatever AWS sends.
pub(crate) fn result_label(cause: &Cause) -> String {
    match cause {
        Cause::Unreachable(_) => "unreachable".to_string(),
        Cause::TimedOut(_) => "timeout".to_string(),
        Cause::Unreadable(_) => "unreadable".to_string(),
        Cause::Refused(refusal) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ' ');
            let fits = refusal.code.len() <= 64 && refusal.code.chars().all(plain);
            if fits { refusal.code.clone() } else { "other".to_string() }
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
