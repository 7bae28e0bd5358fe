//! The availability zone that this machine runs in, from ECS's task metadata or the instance's metadata service.
//!
//! ECS Developer Guide, "Task metadata endpoint version 4": `AvailabilityZone` of `/task`. EC2 User Guide, "Instance metadata
//! categories": `placement/availability-zone`. Names are those of this account: another account's `eu-west-1a` may be elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::config::{Config, ProfileFiles};
use super::credentials::metadata::{MetadataError, MetadataService};
use super::credentials::request;
use super::error::AwsError;
use super::transport::endpoint::parse_zone;
use super::transport::net::{HttpRequest, Net, Wire};
use crate::environment::Environment;

/// Where ECS tells a container of its task.
const TASK: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Asks where this machine is.
pub struct Whereabouts {
    wire: Arc<dyn Wire>,
    metadata: MetadataService,
    task: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(default)]
    availability_zone: Option<String>,
}

impl Whereabouts {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// An unusable setting, an unreadable shared file or CA bundle.
    pub fn new(environment: &Environment) -> Result<Self, AwsError> {
        let mut config = Config::new(environment, &ProfileFiles::read(environment)?)?;
        let bundle = config.ca_bundle.as_ref().map(|(path, place)| (Path::new(path), place.as_str()));
        let wire: Arc<dyn Wire> = Arc::new(Net::new(std::mem::take(&mut config.proxies), bundle)?);
        let metadata = MetadataService::new(Arc::clone(&wire), config.metadata);
        let task = environment.get(TASK).map(|uri| format!("{}/task", uri.trim_end_matches('/')));
        Ok(Whereabouts { wire, metadata, task })
    }

    /// The zone, by `deadline`.
    ///
    /// # Errors
    /// [`AwsError::Setup`] if nothing here knows it, [`AwsError::Unavailable`] if what may know it does not answer.
    pub fn zone(&self, deadline: Instant) -> Result<String, AwsError> {
        if let Some(url) = &self.task
            && let Some(zone) = self.of_task(url, deadline)?
        {
            return Ok(zone);
        }
        self.metadata.zone(deadline).map_err(|why| match why {
            MetadataError::Absent(text) => AwsError::Setup(text),
            MetadataError::Unavailable(text) => AwsError::Unavailable(text),
        })
    }

    /// What ECS says. An agent that is too old does not tell, but then it runs on an instance.
    fn of_task(&self, url: &str, deadline: Instant) -> Result<Option<String>, AwsError> {
        let fault = |what: String| AwsError::Unavailable(format!("the task's metadata at {url} ({TASK}) {what}"));
        let time = ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        let ask: HttpRequest<'_> = request::get(url, &[], time);
        let response =
            request::send(self.wire.as_ref(), &ask, 1).map_err(|cause| fault(format!("cannot be fetched: {cause}")))?;
        if response.status != 200 {
            return Err(fault(format!("is refused (status {})", response.status)));
        }
        let task: Task = serde_json::from_str(&response.body).map_err(|error| fault(format!("is no JSON: {error}")))?;
        task.availability_zone.map(|zone| parse_zone(&zone).map_err(&fault)).transpose()
    }
}
