//! One call of a service: signs and posts a request, tries again what may pass, and hands the body to a reader as it
//! arrives.
//!
//! Everything is bounded: connecting, each attempt, all attempts together, and the size of a body. Every answer's
//! date corrects the clock that signs. What an answer means is the business of the caller.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::{Endpoint, Endpoints};
use super::identity::Credentials;
use super::net::{Answer, Ask, Fault, UNRESOLVED, Wire, fault_of};
use super::retry::{self, Quota, passes, pause};
use super::sign::{Scope, sign};
use super::skew::{Clock, Seen};
use crate::aws::error::codes::Kind;
use crate::aws::error::refusal::{destination, of_page, refusal};
use crate::aws::error::{Call, Cause, Error, PAGE_SHOWN, hidden};
use crate::aws::random::random;
use crate::aws::service::Service;
use crate::clock::Timestamp;
use crate::text::one_line;

/// The time for a connection to stand, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// How large an answer may be: 1,000 instances take some 8 MB.
const BODY_LIMIT: u64 = 32 * 1024 * 1024;
/// How large one of DynamoDB may be: a page is 1 MB of items, less than ten times that in JSON, and what is read of it
/// takes many times its length in memory.
const ITEMS_LIMIT: u64 = 10 * 1024 * 1024;
/// How much of a body is kept to say what it is, where it is no answer.
const BEGINNING: usize = 4 * 1024;
/// How much of an error's body is read.
const ERROR_BODY_LIMIT: u64 = 256 * 1024;

/// Who counts the calls.
pub trait Observer: Send + Sync {
    /// An attempt at a call ended: `service` is `dynamodb`, `autoscaling`, `ec2` or `sts`; `operation` is AWS's spelling;
    /// `result` is `ok`, AWS's error code (`HTTP 503` where it gave none, `other` for one that is no plain word),
    /// `timeout`, `unreachable` or `unreadable`.
    fn request(&self, service: &'static str, operation: &'static str, result: &str);
    /// DynamoDB says that a call consumed so many capacity units.
    fn consumed(&self, operation: &'static str, units: f64);
}

/// A request before it is signed.
pub(crate) struct Request {
    /// The service it goes to.
    pub(crate) service: Service,
    /// The operation, as the service spells it.
    pub(crate) operation: &'static str,
    /// What it is about, for people.
    pub(crate) subject: String,
    /// Its headers, names in lower case.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Its body.
    pub(crate) body: String,
}

/// The time that a group of calls may take together, such as all pages of a scan.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    end: Instant,
    total: Duration,
    attempt: Duration,
}

impl Budget {
    /// A budget that starts now: `total` for everything, `attempt` for one attempt at one call.
    pub(crate) fn new(total: Duration, attempt: Duration) -> Self {
        Budget { end: Instant::now() + total, total, attempt }
    }

    /// When it is over.
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

/// Reads an answer's body to its end. The error says what is not as it should be.
pub(crate) type ReadBody<'a, T> = &'a dyn Fn(&mut dyn BufRead) -> Result<T, String>;

/// What all calls share but the credentials, which some of the calls are there to fetch.
pub(crate) struct Caller {
    /// Who carries requests.
    pub(crate) wire: Arc<dyn Wire>,
    /// Where services are.
    pub(crate) endpoints: Endpoints,
    /// Attempts at one call, the first included, where someone says so.
    attempts: Option<u32>,
    /// AWS's time.
    pub(crate) clock: Arc<Clock>,
    remotes: [Remote; Service::ALL.len()],
    observer: Arc<dyn Observer>,
}

fn place(service: Service) -> usize {
    Service::ALL.iter().position(|known| *known == service).expect("ALL names every service")
}

/// A service as it is called.
struct Remote {
    /// The region that signatures name.
    region: Arc<str>,
    endpoint: Endpoint,
    quota: Quota,
}

impl Caller {
    /// Calls over `wire` in `region`, counted by `observer`, each with so many `attempts` (1 or more), or as many as the
    /// service's retries allow.
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

    /// Calls one service in another region than the others.
    pub(crate) fn move_service(&mut self, service: Service, region: String) {
        let remote = &mut self.remotes[place(service)];
        remote.endpoint = self.endpoints.of(service, &region);
        remote.region = region.into();
    }

    /// The region that a service is called in.
    pub(crate) fn region_of(&self, service: Service) -> &str {
        &self.remote(service).region
    }

    fn remote(&self, service: Service) -> &Remote {
        &self.remotes[place(service)]
    }

    /// The error of `request`, signed `by` these.
    pub(crate) fn failed(&self, request: &Request, by: Option<&Credentials>, cause: Cause) -> Error {
        Error::Call(Box::new(Call {
            service: request.service,
            operation: request.operation,
            subject: request.subject.clone(),
            host: self.remote(request.service).endpoint.host.clone(),
            who: by.map(Credentials::who),
            cause,
            others: None,
        }))
    }

    /// Sends `request` within `budget`, signed unless there are no credentials, and reads the answer's body by `read`.
    pub(crate) fn send<T>(
        &self,
        request: &Request,
        credentials: Option<&Credentials>,
        budget: &Budget,
        read: ReadBody<'_, T>,
    ) -> Result<T, Cause> {
        let remote = self.remote(request.service);
        let most = self.attempts.unwrap_or_else(|| retry::attempts(request.service));
        let (mut attempts, mut reconnected, mut reset, mut cost) = (0, false, false, None);
        loop {
            let time = budget.attempt.min(budget.left());
            if time.is_zero() {
                return Err(Cause::TimedOut(match budget.total {
                    Duration::ZERO => "no time is left for it".to_string(),
                    total => format!("{:.1} s for the whole task", total.as_secs_f64()),
                }));
            }
            attempts += 1;
            let failure = match self.attempt(remote, credentials, request, time, read) {
                Ok(answer) => {
                    remote.quota.refund(cost);
                    self.observer.request(request.service.id(), request.operation, "ok");
                    if reset && self.clock.is_own() {
                        let host = &remote.endpoint.host;
                        log::warn!(
                            "the Date of answers from {host} is wrong, as that of a proxy may be: this machine's own clock is used"
                        );
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let Failure { fault: Fault { cause, stale }, clock, asked } = *failure;
            self.observer.request(request.service.id(), request.operation, &result_label(&cause));
            // The server may close a kept connection in the moment that we use it: no fault of anyone, and once is enough.
            if stale && !reconnected {
                reconnected = true;
                attempts -= 1;
                continue;
            }
            // Another time is tried once: with two that are both refused, one call could go to and fro.
            let clock = clock && !std::mem::replace(&mut reset, true);
            if attempts >= most || !(clock || passes(&cause)) {
                return Err(cause);
            }
            let wait = if clock { Duration::ZERO } else { pause(request.service, &cause, attempts, asked, random()) };
            if wait >= budget.left() {
                return Err(cause);
            }
            cost = remote.quota.take(&cause);
            if cost.is_none() {
                log::debug!(
                    "{} {}: too many calls failed lately to try again",
                    request.service.name(),
                    request.operation
                );
                return Err(cause);
            }
            log::debug!("{}: trying again", self.failed(request, credentials, cause));
            std::thread::sleep(wait);
        }
    }

    fn attempt<T>(
        &self,
        Remote { region, endpoint, .. }: &Remote,
        credentials: Option<&Credentials>,
        request: &Request,
        time: Duration,
        read: ReadBody<'_, T>,
    ) -> Result<T, Box<Failure>> {
        let body = request.body.as_bytes();
        let sent = Timestamp::now();
        let signature = match credentials {
            Some(credentials) => {
                let scope = Scope { region, service: request.service.id() };
                sign(credentials, &scope, &endpoint.url, &request.headers, body, self.clock.at(sent))
                    .map_err(|text| Fault { cause: Cause::Unreadable(format!("cannot sign: {text}")), stale: false })?
            }
            None => Vec::new(),
        };
        let own = request.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> =
            own.chain(signature.iter().map(|(name, value)| (name.as_str(), value.as_str()))).collect();
        let ask =
            Ask { method: "POST", url: &endpoint.url, headers: &headers, body, time, connect: CONNECT, direct: false };
        let answer = self.wire.ask(&ask).map_err(|fault| self.explain(request.service, fault))?;
        let seen = self.clock.learn(sent, Timestamp::now(), answer.header("date"), answer.header("age").is_some());
        if answer.status != 200 {
            return Err(Box::new(self.refused(answer, seen, credentials)));
        }
        let left = if request.service == Service::DynamoDb { ITEMS_LIMIT } else { BODY_LIMIT };
        let watched = Watched { inner: answer.body, left, time, fault: None, beginning: Vec::new() };
        let mut body = BufReader::with_capacity(16 * 1024, watched);
        read(&mut body).map_err(|text| {
            let Watched { fault, beginning, .. } = body.into_inner();
            let unreadable = || {
                let secrets = credentials.map(Credentials::secrets).unwrap_or_default();
                let page = of_page(&beginning).map(|page| hidden(page, &secrets));
                let text = page.map_or(text, |page| format!("it is a page: \"{}\"", one_line(&page, PAGE_SHOWN)));
                Fault { cause: Cause::Unreadable(text), stale: false }
            };
            fault.unwrap_or_else(unreadable).into()
        })
    }

    /// A name that follows from the region is as wrong as that is.
    fn explain(&self, service: Service, mut fault: Fault) -> Fault {
        if let Cause::Unreachable(text) = &mut fault.cause
            && text.starts_with(UNRESOLVED)
            && !self.endpoints.configured.contains_key(service.id())
        {
            text.push_str(&format!("; is {} an AWS region, and does DNS work?", self.region_of(service)));
        }
        fault
    }

    /// The failure that a refusal of `credentials` is; `seen` is what its date says of the clock that signed.
    fn refused(&self, answer: Answer, seen: Option<Seen>, credentials: Option<&Credentials>) -> Failure {
        let request_id = answer.header("x-amzn-requestid").or(answer.header("x-amz-request-id")).map(str::to_string);
        let asked = answer.header("x-amz-retry-after").and_then(retry::asked);
        let leads = answer.header("location").filter(|_| answer.status < 400).map(destination);
        let mut text = Vec::new();
        // A body that breaks off still leaves the status.
        let _ = answer.body.take(ERROR_BODY_LIMIT).read_to_end(&mut text);
        let mut refusal = refusal(answer.status, request_id.as_deref(), &text);
        if let Some(place) = leads {
            refusal.message = format!("it leads to {place}");
        }
        if let Some(credentials) = credentials {
            refusal.hide(&credentials.secrets());
        }
        let clock = match refusal.kind() {
            Some(Kind::Clock) => self.clock.refused(seen) || seen.is_some(),
            Some(Kind::Signature) => self.clock.refused(seen),
            _ => false,
        };
        Failure { fault: Fault { cause: Cause::Refused(refusal), stale: false }, clock, asked }
    }
}

/// A failed attempt.
struct Failure {
    fault: Fault,
    /// It may have failed because the time of the signature was wrong, and there is another one to try.
    clock: bool,
    /// How long the service asks to be left alone.
    asked: Option<Duration>,
}

impl From<Fault> for Box<Failure> {
    fn from(fault: Fault) -> Self {
        Box::new(Failure { fault, clock: false, asked: None })
    }
}

/// A body that remembers why it could not be read to its end: a parser tells only that it could not go on.
struct Watched<R> {
    inner: R,
    left: u64,
    time: Duration,
    fault: Option<Fault>,
    /// What came first, for a message.
    beginning: Vec<u8>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.fault = Some(fault_of(error, self.time));
                return Err(io::Error::other("the body broke off"));
            }
        };
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other("the body is larger than any that the service sends")),
        }
        let more = BEGINNING.saturating_sub(self.beginning.len()).min(count);
        self.beginning.extend_from_slice(&buffer[..more]);
        Ok(count)
    }
}

/// The `result` of a metric: few, short, and of plain characters, whatever comes from outside.
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
