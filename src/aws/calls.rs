//! What all calls of AWS share, and a call with it: the region, which may have to be asked for first, the connections, and
//! the credentials, which are looked up again where AWS refuses them.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::config::Config;
use super::config::profile_file::{ProfileFiles, profile};
use super::credentials::cache::Cache;
use super::credentials::metadata::{MetadataError, MetadataService};
use super::credentials::{ProviderChain, ProviderContext};
use super::error::{Cause, Error};
use super::service::Service;
use super::transport::endpoint;
use super::transport::http::{Budget, Caller, Observer, ReadBody, Request};
use super::transport::net::{Net, Wire};
use crate::environment::Environment;

/// The regions that are called, as far as the configuration names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regions<'a> {
    /// The region of all services; `None` for that of the profile in use, else of this instance.
    pub named: Option<&'a str>,
    /// The region of the table, where its ARN names it: it can be reached in no other.
    pub table: Option<&'a str>,
    /// Whether the table is all that is called, so that its region stands in for the instance's. The groups are not
    /// looked for where the table happens to be.
    pub only_table: bool,
}

/// What all calls to AWS share.
pub struct Aws {
    /// Once the region is known.
    placed: OnceLock<Placed>,
    /// Until then.
    unplaced: Mutex<Option<Unplaced>>,
    observer: Arc<dyn Observer>,
    /// No call goes on beyond this moment.
    end: Option<Instant>,
}

/// How calls are made in the region.
struct Placed {
    caller: Arc<Caller>,
    credentials: Cache,
}

/// What calls need beside a region.
struct Unplaced {
    wire: Arc<dyn Wire>,
    config: Config,
    metadata: MetadataService,
    environment: Environment,
    /// The region of the table, where its ARN names it.
    table: Option<String>,
    /// Where a region was looked for, for the message.
    places: String,
}

impl Aws {
    /// Prepares calls in `regions`, or where they name none in the region of the profile in use, or of this instance, which
    /// its metadata service is asked for by the first call. All else comes from the standard variables and files, and
    /// credentials are first looked for when a call needs them. Errors: no region or a wrong one, a setting that cannot be
    /// used, a shared file or a certificate bundle that cannot be read.
    pub fn new(
        regions: Regions<'_>,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Aws>, Error> {
        Aws::until(None, regions, environment, observer)
    }

    /// The same for calls that all end by `end`, whatever they meet.
    pub fn until(
        end: Option<Instant>,
        regions: Regions<'_>,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Aws>, Error> {
        let files = ProfileFiles::read(environment)?;
        let mut config = Config::new(environment, &files)?;
        let named = regions.named.or_else(|| files.region(profile(environment)));
        let region = named.or(regions.table.filter(|_| regions.only_table)).map(endpoint::region).transpose()?;
        let table = regions.table.map(endpoint::region).transpose()?;
        let bundle = config.ca_bundle.as_ref().map(|(path, place)| (Path::new(path), place.as_str()));
        let wire: Arc<dyn Wire> = Arc::new(Net::new(std::mem::take(&mut config.proxies), bundle)?);
        let metadata = MetadataService::new(Arc::clone(&wire), config.metadata.clone());
        let name = profile(environment);
        let lacks = if files.has(name) { "has none" } else { "is not" };
        let places = format!("profile {name:?} {lacks} in {}", files.searched_paths());
        let unplaced = Unplaced { wire, config, metadata, environment: environment.clone(), table, places };
        let aws = Aws { placed: OnceLock::new(), unplaced: Mutex::new(None), observer, end };
        match region {
            Some(region) => aws.place(unplaced, region),
            None if unplaced.config.metadata.disabled => {
                return Err(unplaced.without("AWS_EC2_METADATA_DISABLED is set"));
            }
            None => *aws.unplaced.lock().unwrap_or_else(PoisonError::into_inner) = Some(unplaced),
        }
        Ok(Arc::new(aws))
    }

    /// The region that a service is called in, where it is known.
    pub fn region(&self, service: Service) -> &str {
        self.placed.get().map_or("an unknown region", |placed| placed.caller.region_of(service))
    }

    /// A budget that starts now: `total` for everything, `attempt` for one attempt at one call.
    pub(crate) fn budget(&self, total: Duration, attempt: Duration) -> Budget {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        Budget::new(left.map_or(total, |left| total.min(left)), attempt)
    }

    /// Tells the observer that calls consumed so many capacity units.
    pub(crate) fn consumed(&self, operation: &'static str, units: f64) {
        self.observer.consumed(operation, units);
    }

    /// How calls are made, asking the instance for its region if nobody else has said it, until `until` at most. Errors:
    /// there is no region, or it is not to be had just now.
    fn placed(&self, until: Instant) -> Result<&Placed, Error> {
        if let Some(placed) = self.placed.get() {
            return Ok(placed);
        }
        let mut waiting = self.unplaced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unplaced) = waiting.take() {
            match unplaced.metadata.region(until) {
                Ok(region) => self.place(unplaced, region),
                Err(why) => {
                    let error = match why {
                        MetadataError::Absent(text) => unplaced.without(&text),
                        MetadataError::Unavailable(text) => Error::Unavailable(format!("no AWS region yet: {text}")),
                    };
                    *waiting = Some(unplaced);
                    return Err(error);
                }
            }
        }
        Ok(self.placed.get().expect("whoever takes what waits for a region places it or puts it back"))
    }

    fn place(&self, unplaced: Unplaced, region: String) {
        let Unplaced { wire, config, metadata, environment, table, .. } = unplaced;
        let mut caller = Caller::new(wire, config.endpoints, config.attempts, region, Arc::clone(&self.observer));
        if let Some(region) = table {
            caller.move_service(Service::DynamoDb, region);
        }
        let caller = Arc::new(caller);
        let clock = Arc::clone(&caller.clock);
        let context = ProviderContext { environment, caller: Arc::clone(&caller), metadata };
        let credentials = Cache::new(Box::new(ProviderChain::new(context)), Box::new(move || clock.now()));
        let _ = self.placed.set(Placed { caller, credentials });
    }
}

impl Unplaced {
    fn without(&self, why: &str) -> Error {
        Error::Setup(format!("no AWS region: {}; {why}; set AWS_DEFAULT_REGION", self.places))
    }
}

/// Sends `request` within `budget`, the wait for region and credentials included, and reads the answer's body by `read`.
/// Credentials that AWS refuses are looked up again, and others are tried once.
pub(crate) fn send<T>(aws: &Aws, request: &Request, budget: &Budget, read: ReadBody<'_, T>) -> Result<T, Error> {
    let Placed { caller, credentials } = aws.placed(budget.end())?;
    let found = credentials.get(budget.end())?;
    let cause = match caller.send(request, Some(&found), budget, read) {
        Err(cause) => cause,
        Ok(answer) => return Ok(answer),
    };
    let Cause::Refused(refusal) = &cause else { return Err(caller.failed(request, Some(&found), cause)) };
    if !refusal.is_of_credentials() {
        return Err(caller.failed(request, Some(&found), cause));
    }
    let why = match credentials.renew(&found, budget.end()) {
        Ok(others) => {
            let again = caller.send(request, Some(&others), budget, read);
            return again.map_err(|cause| caller.failed(request, Some(&others), cause));
        }
        Err(Some(why)) => Some(why),
        // As the metadata service does while it cannot renew them itself.
        Err(None) if refusal.is_of_end() && found.expires.is_some() => {
            Some(Error::Unavailable(format!("{} has no newer ones yet", found.from)))
        }
        Err(None) => None,
    };
    let mut error = caller.failed(request, Some(&found), cause);
    if let Error::Call(call) = &mut error {
        call.others = why.map(Box::new);
    }
    Err(error)
}

/// The error of `request`, for whoever finds that its answer cannot be used.
pub(crate) fn failed(aws: &Aws, request: &Request, cause: Cause) -> Error {
    match aws.placed(Instant::now()) {
        Ok(placed) => placed.caller.failed(request, None, cause),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::{Folder, Results};

    #[test]
    fn the_region_is_the_argument_else_the_profiles() {
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
            Ok::<_, Error>(aws.region(Service::Ec2).to_string())
        };
        assert_eq!(region(Some("ap-south-1"), "ops").expect("a region"), "ap-south-1");
        assert_eq!(region(None, "ops").expect("a region"), "us-east-1");
        assert_eq!(region(None, "").expect("a region"), "eu-west-1");
        assert_eq!(region(None, "role").expect("a region"), "us-east-1");
        let error = region(None, "bare").expect_err("no region");
        assert!(error.to_string().contains("AWS_DEFAULT_REGION") && error.to_string().contains(&config), "{error}");
        assert!(error.needs_a_person());
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
            Ok::<_, Error>([Service::DynamoDb, Service::AutoScaling].map(|service| aws.region(service).to_string()))
        };
        for only_table in [false, true] {
            let region = regions(Some("ap-south-1"), only_table, "ops");
            assert_eq!(region.expect("named"), ["eu-west-1", "ap-south-1"]);
            assert_eq!(regions(None, only_table, "ops").expect("the profile's"), ["eu-west-1", "us-east-1"]);
        }
        assert_eq!(regions(None, true, "").expect("the table's"), ["eu-west-1", "eu-west-1"]);
        let error = regions(None, false, "").expect_err("nobody says where the groups are");
        assert!(error.to_string().contains("set AWS_DEFAULT_REGION"), "{error}");
    }
}
