//! What Auto Scaling and EC2 say, each by itself and word for word, for people. What one does not tell costs the other nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::autoscaling::Group;
use super::ec2::{DescribedInstances, InstanceQuery, Record, SpotMarks, fetch_instances};
use super::readiness::{is_instance_id, observe};
use super::search::fetch_once;
use super::spot::{fetch_marks, holds_spot};
use crate::aws::calls::Aws;
use crate::aws::error::AwsError;
use crate::aws::reading::parse_cache::ParseCache;
use crate::selection::{GroupSelection, SelectedGroups};
use crate::settings::InstanceReading;
use crate::slot::Observation;

/// For each of the two, all calls and pages.
const TOTAL: Duration = Duration::from_secs(8);
const ATTEMPT: Duration = Duration::from_secs(4);

/// What Auto Scaling and EC2 say.
#[derive(Debug)]
pub struct Description {
    /// The groups that exist, of those that were asked about, and which entries they are of.
    pub groups: Result<(Vec<Group>, SelectedGroups), AwsError>,
    /// Their members, and the others that were asked about, as EC2 describes them.
    pub records: Result<Records, AwsError>,
    /// The Spot instances that EC2 is about to interrupt; `None` if it was not asked.
    pub marks: Option<Result<Arc<SpotMarks>, AwsError>>,
}

/// What EC2 says of instances.
#[derive(Debug, Default)]
pub struct Records {
    /// The instances that it describes.
    pub found: Arc<Vec<Record>>,
    /// The ids that it does not know.
    pub not_found: HashSet<String>,
}

/// Asks Auto Scaling about the groups of `selection`, and EC2 about their members and those of `others` that are instance ids; with
/// `spot_notice`, also about interruptions of the members, if a Spot instance is among them.
pub fn describe(aws: &Aws, selection: &GroupSelection, others: &[&str], spot_notice: bool) -> Description {
    let groups = fetch_once(aws, selection, &aws.budget(TOTAL, ATTEMPT));
    let members = groups.iter().flat_map(|(groups, _)| groups).flat_map(|group| group.members.iter());
    let mut seen = HashSet::new();
    let mut query = InstanceQuery::default();
    query.listed.extend(members.map(|member| member.id.as_str()).filter(|id| seen.insert(*id)));
    query.unlisted.extend(others.iter().filter(|id| is_instance_id(id) && seen.insert(id)));
    let records =
        fetch_instances(aws, &query, &ParseCache::default(), &aws.budget(TOTAL, ATTEMPT)).map(|described| Records {
            found: Arc::new(described.records().cloned().collect()),
            not_found: described.not_found.iter().map(|id| (*id).to_owned()).collect(),
        });
    let holds_spot = |records: &Records| holds_spot(&query.listed, records.found.iter());
    let is_asked = spot_notice && records.as_ref().is_ok_and(holds_spot);
    let marks = is_asked.then(|| fetch_marks(aws).map(Arc::new));
    Description { groups, records, marks }
}

impl Description {
    /// The observation that the server would make of the same; none if either did not tell.
    pub fn observation(&self, occupants: &[&str], reading: &InstanceReading) -> Option<Observation> {
        let (Ok((groups, selected)), Ok(records)) = (&self.groups, &self.records) else { return None };
        let not_found = records.not_found.iter().map(String::as_str).collect();
        let marks = self.marks.as_ref().and_then(|marks| marks.as_ref().ok()).cloned().unwrap_or_default();
        let described = DescribedInstances { batches: vec![Arc::clone(&records.found)], not_found, marks };
        Some(observe(selected.clone(), groups, occupants, &described, reading))
    }
}
