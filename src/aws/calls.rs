//! What all AWS calls share: the region, which may have to be fetched first, connections, and credentials, which are renewed
//! if AWS refuses them.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::config::Config;
use super::config::profile_file::{ProfileFiles, profile};
use super::credentials::cache::Cache;
use super::credentials::metadata::{MetadataError, MetadataService};
use super::credentials::{ProviderChain, ProviderContext};
use super::error::{AwsError, Cause};
use super::service::Service;
use super::transport::endpoint;
use super::transport::http::{Budget, Caller, Observer, ReadBody, Request};
use super::transport::net::{Net, Wire};
use crate::clock::Timestamp;
use crate::environment::Environment;

/// The configured regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regions<'a> {
    /// The region of all services; `None` for that of the profile in use, or of this instance.
    pub named: Option<&'a str>,
    /// The region of the table, if its ARN names it.
    pub table: Option<&'a str>,
    /// Whether only the table is called, so that its region is the default. Groups may be in another region than the table.
    pub only_table: bool,
}

/// What all AWS calls share.
pub struct Aws {
    /// Set once the region is known.
    session: OnceLock<Session>,
    /// Set until then.
    pending: Mutex<Option<PendingSession>>,
    observer: Arc<dyn Observer>,
    /// No call continues past this.
    deadline: Option<Instant>,
}

/// Makes calls in a known region.
struct Session {
    caller: Arc<Caller>,
    credentials: Cache,
}

/// A session that waits for its region.
struct PendingSession {
    wire: Arc<dyn Wire>,
    config: Config,
    metadata: MetadataService,
    environment: Environment,
    table_region: Option<String>,
    /// Where a region was looked for, for messages.
    searched: String,
}

impl Aws {
    /// Prepares calls in `regions`, or else in the region of the profile in use, or of this instance, which the first call
    /// fetches from the metadata service. All else comes from the standard variables and files; credentials are fetched when
    /// first needed. Errors: no region or a wrong one, an unusable setting, an unreadable shared file or CA bundle.
    pub fn new(
        regions: Regions<'_>,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Aws>, AwsError> {
        Aws::with_deadline(None, regions, environment, observer)
    }

    /// [`Aws::new`] for calls that all end by `deadline`.
    pub fn with_deadline(
        deadline: Option<Instant>,
        regions: Regions<'_>,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Aws>, AwsError> {
        let files = ProfileFiles::read(environment)?;
        let mut config = Config::new(environment, &files)?;
        let named = regions.named.or_else(|| files.region(profile(environment)));
        let region = named.or(regions.table.filter(|_| regions.only_table)).map(endpoint::parse_region).transpose()?;
        let table_region = regions.table.map(endpoint::parse_region).transpose()?;
        let bundle = config.ca_bundle.as_ref().map(|(path, place)| (Path::new(path), place.as_str()));
        let wire: Arc<dyn Wire> = Arc::new(Net::new(std::mem::take(&mut config.proxies), bundle)?);
        let metadata = MetadataService::new(Arc::clone(&wire), config.metadata.clone());
        let name = profile(environment);
        let problem = if files.has(name) { "has none" } else { "is not" };
        let searched = format!("profile {name:?} {problem} in {}", files.searched_paths());
        let environment = environment.clone();
        let pending = PendingSession { wire, config, metadata, environment, table_region, searched };
        let aws = Aws { session: OnceLock::new(), pending: Mutex::new(None), observer, deadline };
        match region {
            Some(region) => aws.start(pending, region),
            None if pending.config.metadata.disabled => {
                return Err(pending.no_region("AWS_EC2_METADATA_DISABLED is set"));
            }
            None => *aws.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending),
        }
        Ok(Arc::new(aws))
    }

    /// The region of a service, for messages.
    pub fn region(&self, service: Service) -> &str {
        self.session.get().map_or("an unknown region", |session| session.caller.region_of(service))
    }

    pub(crate) fn budget(&self, total: Duration, attempt: Duration) -> Budget {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Budget::new(left.map_or(total, |left| total.min(left)), attempt)
    }

    pub(crate) fn consumed(&self, operation: &'static str, units: f64) {
        self.observer.consumed(operation, units);
    }

    /// The session; fetches the region from the instance if nothing configures it, until `deadline`. Errors: there is no
    /// region, or it cannot be fetched right now.
    fn session(&self, deadline: Instant) -> Result<&Session, AwsError> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let mut slot = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = slot.take() {
            match pending.metadata.region(deadline) {
                Ok(region) => self.start(pending, region),
                Err(why) => {
                    let error = match why {
                        MetadataError::Absent(text) => pending.no_region(&text),
                        MetadataError::Unavailable(text) => AwsError::Unavailable(format!("no AWS region yet: {text}")),
                    };
                    *slot = Some(pending);
                    return Err(error);
                }
            }
        }
        Ok(self.session.get().expect("a pending session is started or put back"))
    }

    /// Fetches the region, if it is not known, and the credentials, until `deadline`: what identifies them in messages, and
    /// when they expire.
    pub(crate) fn credentials(&self, deadline: Instant) -> Result<(String, Option<Timestamp>), AwsError> {
        let credentials = self.session(deadline)?.credentials.get(deadline)?;
        Ok((credentials.label(), credentials.expires))
    }

    /// The time by AWS's clock, as far as responses have told it, and as long as they agree: to decide by.
    pub(crate) fn now(&self) -> Timestamp {
        self.session.get().map_or_else(Timestamp::now, |session| session.caller.clock.steady_now())
    }

    /// AWS's time less that of this machine, in microseconds, as far as the calls so far have told.
    pub(crate) fn clock_ahead(&self) -> Option<i64> {
        let clock = &self.session.get()?.caller.clock;
        let local = Timestamp::now();
        (!clock.ignores_dates()).then(|| clock.at(local).as_micros().saturating_sub(local.as_micros()))
    }

    fn start(&self, pending: PendingSession, region: String) {
        let PendingSession { wire, config, metadata, environment, table_region, .. } = pending;
        let mut caller = Caller::new(wire, config.endpoints, config.attempts, region, Arc::clone(&self.observer));
        if let Some(region) = table_region {
            caller.set_region(Service::DynamoDb, region);
        }
        let caller = Arc::new(caller);
        let clock = Arc::clone(&caller.clock);
        let context = ProviderContext { environment, caller: Arc::clone(&caller), metadata };
        let credentials = Cache::new(Box::new(ProviderChain::new(context)), Box::new(move || clock.now()));
        let _ = self.session.set(Session { caller, credentials });
    }
}

impl PendingSession {
    fn no_region(&self, why: &str) -> AwsError {
        AwsError::Setup(format!("no AWS region: {}; {why}; set AWS_DEFAULT_REGION", self.searched))
    }
}

/// Sends `request` within `budget`, fetching region and credentials included, and parses the body with `read`. If AWS
/// refuses the credentials, they are renewed and the call is tried once more.
pub(crate) fn send<T>(aws: &Aws, request: &Request, budget: &Budget, read: ReadBody<'_, T>) -> Result<T, AwsError> {
    let Session { caller, credentials: cache } = aws.session(budget.deadline())?;
    let credentials = cache.get(budget.deadline())?;
    let cause = match caller.send(request, Some(&credentials), budget, read) {
        Err(cause) => cause,
        Ok(value) => return Ok(value),
    };
    let Cause::Refused(refusal) = &cause else { return Err(caller.error(request, Some(&credentials), cause)) };
    if !refusal.is_credentials_error() {
        return Err(caller.error(request, Some(&credentials), cause));
    }
    let why = match cache.renew(&credentials, budget.deadline()) {
        Ok(renewed) => {
            let result = caller.send(request, Some(&renewed), budget, read);
            return result.map_err(|cause| caller.error(request, Some(&renewed), cause));
        }
        Err(Some(why)) => Some(why),
        // The metadata service hands out expired credentials while it cannot renew them itself.
        Err(None) if refusal.is_expired() && credentials.expires.is_some() => {
            Some(AwsError::Unavailable(format!("{} has no newer ones yet", credentials.source)))
        }
        Err(None) => None,
    };
    let mut error = caller.error(request, Some(&credentials), cause);
    if let AwsError::Call(call) = &mut error {
        call.renewal = why.map(Box::new);
    }
    Err(error)
}

/// The error for `request`, for callers that cannot use its response.
pub(crate) fn call_error(aws: &Aws, request: &Request, cause: Cause) -> AwsError {
    match aws.session(Instant::now()) {
        Ok(session) => session.caller.error(request, None, cause),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::{Folder, Results};

    #[test]
    fn the_region_comes_from_the_argument_or_the_profile() {
        let folder = Folder::new();
        let config =
            folder.file("config", "[default]\nregion = eu-west-1\n[profile ops]\nregion = us-east-1\n[profile bare]\n[profile role]\nsource_profile = ops\n");
        let region = |argument: Option<&str>, profile: &str| {
            let environment = Environment::from([
                ("AWS_CONFIG_FILE", config.as_str()),
                ("AWS_PROFILE", profile),
                ("AWS_EC2_METADATA_DISABLED", "true"),
            ]);
            let regions = Regions { named: argument, ..Regions::default() };
            let aws = Aws::new(regions, &environment, Arc::new(Results::default()))?;
            Ok::<_, AwsError>(aws.region(Service::Ec2).to_string())
        };
        assert_eq!(region(Some("ap-south-1"), "ops").expect("a region"), "ap-south-1");
        assert_eq!(region(None, "ops").expect("a region"), "us-east-1");
        assert_eq!(region(None, "").expect("a region"), "eu-west-1");
        assert_eq!(region(None, "role").expect("a region"), "us-east-1");
        let error = region(None, "bare").expect_err("no region");
        assert!(error.to_string().contains("AWS_DEFAULT_REGION") && error.to_string().contains(&config), "{error}");
        assert!(error.needs_operator());
        assert!(region(Some("Europe"), "").is_err());
    }

    #[test]
    fn the_table_may_be_in_another_region_than_the_groups() {
        let folder = Folder::new();
        let config = folder.file("config", "[default]\n[profile ops]\nregion = us-east-1\n");
        let regions = |named: Option<&str>, only_table: bool, profile: &str| {
            let environment = Environment::from([
                ("AWS_CONFIG_FILE", config.as_str()),
                ("AWS_PROFILE", profile),
                ("AWS_EC2_METADATA_DISABLED", "true"),
            ]);
            let regions = Regions { named, table: Some("eu-west-1"), only_table };
            let aws = Aws::new(regions, &environment, Arc::new(Results::default()))?;
            Ok::<_, AwsError>([Service::DynamoDb, Service::AutoScaling].map(|service| aws.region(service).to_string()))
        };
        for only_table in [false, true] {
            let region = regions(Some("ap-south-1"), only_table, "ops");
            assert_eq!(region.expect("named"), ["eu-west-1", "ap-south-1"]);
            assert_eq!(regions(None, only_table, "ops").expect("the profile's"), ["eu-west-1", "us-east-1"]);
        }
        assert_eq!(regions(None, true, "").expect("the table's"), ["eu-west-1", "eu-west-1"]);
        let error = regions(None, false, "").expect_err("the region of the groups is unknown");
        assert!(error.to_string().contains("set AWS_DEFAULT_REGION"), "{error}");
    }
}
