//! AWS: region, endpoints, credentials and the connections that all calls share, and the two edges built on them:
//! [`GroupSource`] for instances, [`SlotTable`] for slots.
//!
//! Nothing outside this folder knows that AWS speaks HTTP, and nothing in it knows a role or HAProxy.

mod action;
mod autoscaling;
mod codes;
mod config;
mod credentials;
mod dates;
mod dynamodb;
mod ec2;
pub mod endpoint;
pub mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod memory;
mod net;
mod number;
mod pages;
mod partition;
mod pieces;
mod profile_file;
mod proxy;
mod query;
mod readiness;
mod refusal;
mod retry;
mod sign;
mod skew;
mod source;
mod store;
mod table;
#[cfg(test)]
mod testing;
mod tls;
mod xml;

use std::sync::Arc;

use self::config::Config;
use self::credentials::cache::Cache;
use self::credentials::metadata::Metadata;
use self::credentials::{Chain, Context};
use self::endpoint::Service;
pub use self::error::Error;
use self::http::Caller;
use self::net::{Net, Wire};
use self::profile_file::{ProfileFiles, profile};
pub use self::source::GroupSource;
pub use self::store::{Created, SlotTable, read_page};
use crate::environment::Environment;

/// Who counts the calls.
pub trait Observer: Send + Sync {
    /// An attempt at a call ended: `service` is `dynamodb`, `autoscaling`, `ec2` or `sts`; `operation` is AWS's spelling;
    /// `result` is `ok`, AWS's error code (`HTTP 503` where it gave none, `other` for one that is no plain word),
    /// `timeout`, `unreachable` or `unreadable`.
    fn request(&self, service: &'static str, operation: &'static str, result: &str);
    /// DynamoDB says that a call consumed so many capacity units.
    fn consumed(&self, operation: &'static str, units: f64);
}

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
    caller: Arc<Caller>,
    credentials: Cache,
    observer: Arc<dyn Observer>,
}

impl Aws {
    /// Prepares calls in `regions`, or where they name none in the region of the profile in use, or of this instance, which
    /// its metadata service is asked for. All else comes from the standard variables and files, and credentials are
    /// first looked for when a call needs them. Errors: no region or a wrong one, a setting that cannot be used, a
    /// shared file or a certificate bundle that cannot be read.
    pub fn new(
        regions: Regions<'_>,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Aws>, Error> {
        let files = ProfileFiles::read(environment)?;
        let mut config = Config::new(environment, &files)?;
        let wire: Arc<dyn Wire> = Arc::new(Net::new(&mut config)?);
        let metadata = Metadata::new(Arc::clone(&wire), config.metadata.clone());
        let named = regions.named.or_else(|| files.region(profile(environment)));
        let region = match named.or(regions.table.filter(|_| regions.only_table)) {
            Some(region) => endpoint::region(region)?,
            None => region_of_instance(&metadata, &files, environment)?,
        };
        let mut caller = Caller::new(wire, config, region, Arc::clone(&observer));
        if let Some(region) = regions.table {
            caller.move_service(Service::DynamoDb, endpoint::region(region)?);
        }
        let caller = Arc::new(caller);
        let clock = Arc::clone(&caller.clock);
        let context = Context { environment: environment.clone(), caller: Arc::clone(&caller), metadata };
        let credentials = Cache::new(Box::new(Chain::new(context)), Box::new(move || clock.now()));
        Ok(Arc::new(Aws { caller, credentials, observer }))
    }

    /// The region that a service is called in.
    pub fn region(&self, service: Service) -> &str {
        self.caller.region_of(service)
    }
}

fn region_of_instance(metadata: &Metadata, files: &ProfileFiles, environment: &Environment) -> Result<String, Error> {
    let why = match metadata.region() {
        Ok(region) => return endpoint::region(&region),
        Err(why) => why,
    };
    let name = profile(environment);
    Err(Error::Setup(format!(
        "no AWS region: profile {name:?} has none in {}; {why}; set AWS_DEFAULT_REGION",
        files.places()
    )))
}

#[cfg(test)]
mod tests {
    use super::testing::{Folder, Results};
    use super::*;

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
