//! AWS: region, endpoints, credentials and the connections that all calls share, and the two edges built on them:
//! [`GroupSource`] for instances, [`SlotTable`] for slots.
//!
//! Nothing outside this folder knows that AWS speaks HTTP, and nothing in it knows a role or HAProxy.

mod autoscaling;
mod credentials;
mod dynamodb;
mod ec2;
pub mod endpoint;
pub mod error;
mod http;
mod number;
mod pages;
mod profile_file;
mod query;
mod readiness;
mod refusal;
mod sign;
mod source;
mod store;
mod table;
#[cfg(test)]
mod testing;
mod xml;

use std::sync::Arc;

use self::credentials::environment::FromEnvironment;
use self::credentials::profile::FromProfile;
use self::credentials::{Chain, Credentials};
use self::endpoint::{Endpoint, Service, endpoint};
pub use self::error::Error;
use self::profile_file::{ProfileFiles, profile};
pub use self::source::GroupSource;
pub use self::store::{Created, SlotTable, read_page};
use crate::environment::Environment;

/// Who counts the calls.
pub trait Observer: Send + Sync {
    /// An attempt at a call ended: `service` is `dynamodb`, `autoscaling` or `ec2`; `operation` is AWS's spelling;
    /// `result` is `ok`, AWS's error code (`HTTP 503` where it gave none, `other` for one that is no plain word),
    /// `timeout`, `unreachable` or `unreadable`.
    fn request(&self, service: &'static str, operation: &'static str, result: &str);
    /// DynamoDB says that a call consumed so many capacity units.
    fn consumed(&self, operation: &'static str, units: f64);
}

/// What all calls to AWS share.
pub struct Aws {
    region: String,
    dynamodb: Endpoint,
    autoscaling: Endpoint,
    ec2: Endpoint,
    credentials: Chain,
    agent: ureq::Agent,
    observer: Arc<dyn Observer>,
}

impl Aws {
    /// Prepares calls in `region`, or where it is `None` in the region of the profile in use. Endpoints and
    /// credentials come from the standard variables and files. No call is made, and credentials are first looked for
    /// when a call needs them. Errors: no region or a wrong one, a wrong endpoint, a shared file that cannot be read.
    pub fn new(
        region: Option<&str>,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Aws>, Error> {
        let region = match region {
            Some(region) => endpoint::region(region)?,
            None => region_of_profile(environment)?,
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("hsdo/", env!("CARGO_PKG_VERSION")));
        Ok(Arc::new(Aws {
            dynamodb: endpoint(Service::DynamoDb, &region, environment)?,
            autoscaling: endpoint(Service::AutoScaling, &region, environment)?,
            ec2: endpoint(Service::Ec2, &region, environment)?,
            credentials: Chain::new(vec![
                Box::new(FromEnvironment(environment.clone())),
                Box::new(FromProfile(environment.clone())),
            ]),
            agent: config.build().new_agent(),
            observer,
            region,
        }))
    }

    /// The region in use.
    pub fn region(&self) -> &str {
        &self.region
    }

    fn endpoint(&self, service: Service) -> &Endpoint {
        match service {
            Service::DynamoDb => &self.dynamodb,
            Service::AutoScaling => &self.autoscaling,
            Service::Ec2 => &self.ec2,
        }
    }
}

fn region_of_profile(environment: &Environment) -> Result<String, Error> {
    let files = ProfileFiles::read(environment)?;
    let name = profile(environment);
    match files.get(name, "region") {
        Some(region) => endpoint::region(region),
        None => Err(Error::Setup(format!(
            "no AWS region: profile {name:?} has none in {}; set AWS_DEFAULT_REGION",
            files.places()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Folder, Results};
    use super::*;

    #[test]
    fn the_region_is_the_argument_else_the_profiles() {
        let folder = Folder::new();
        let config =
            folder.file("config", "[default]\nregion = eu-west-1\n[profile ops]\nregion = us-east-1\n[profile bare]\n");
        let region = |argument: Option<&str>, profile: &str| {
            let environment = Environment::from([("AWS_CONFIG_FILE", config.as_str()), ("AWS_PROFILE", profile)]);
            Aws::new(argument, &environment, Arc::new(Results::default())).map(|aws| aws.region().to_string())
        };
        assert_eq!(region(Some("ap-south-1"), "ops").expect("a region"), "ap-south-1");
        assert_eq!(region(None, "ops").expect("a region"), "us-east-1");
        assert_eq!(region(None, "").expect("a region"), "eu-west-1");
        let error = region(None, "bare").expect_err("no region");
        assert!(error.to_string().contains("AWS_DEFAULT_REGION") && error.to_string().contains(&config), "{error}");
        assert!(error.needs_a_person());
        assert!(region(Some("Europe"), "").is_err());
    }
}
