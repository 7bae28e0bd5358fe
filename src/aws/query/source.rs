//! The port `Source` for AutoScaling groups: queries Auto Scaling, then EC2, and joins both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::autoscaling::Member;
use super::ec2::{Record, fetch_instances};
use super::readiness::{instance_query, observe};
use super::search::{Found, Search};
use super::spot::{Notices, holds_spot};
use crate::aws::calls::Aws;
use crate::aws::reading::parse_cache::ParseCache;
use crate::ports::Source;
use crate::ports::TurnError;
use crate::selection::GroupSelection;
use crate::settings::{AddressKind, InstanceReading};
use crate::slot::Observation;

/// The budget of one observation: all calls, pages and attempts.
const TOTAL: Duration = Duration::from_secs(20);
/// The timeout of one attempt; AWS takes a second or two for 1,000 instances.
const ATTEMPT: Duration = Duration::from_secs(4);

/// The groups of `SERVER_ASG_NAMES` and `SERVER_ASG_TAGS` as a source of instances.
pub struct GroupSource {
    aws: Arc<Aws>,
    selection: GroupSelection,
    reading: InstanceReading,
    search: Search,
    notices: Notices,
    members: ParseCache<Vec<Member>>,
    records: ParseCache<Vec<Record>>,
}

impl GroupSource {
    /// The order of the selection is the order in which new instances of one turn take slots.
    pub fn new(aws: Arc<Aws>, selection: GroupSelection, reading: InstanceReading) -> Self {
        let (members, records) = (ParseCache::default(), ParseCache::default());
        let (search, notices) = (Search::default(), Notices::default());
        GroupSource { aws, selection, reading, search, notices, members, records }
    }
}

impl Source for GroupSource {
    /// One complete observation or an error, within 20 seconds; the Spot notices take 2 more at most, and are no error.
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, TurnError> {
        let budget = self.aws.budget(TOTAL, ATTEMPT);
        let GroupSource { aws, selection, search, members, .. } = self;
        let Found { groups, selected, is_partial } = search.fetch(aws, selection, members, &budget, Instant::now())?;
        let query = instance_query(&groups, occupants);
        let mut described = fetch_instances(&self.aws, &query, &self.records, &budget)?;
        if self.reading.spot_notice && holds_spot(&query.listed, described.records()) {
            described.marks = self.notices.fetch(&self.aws, Instant::now());
        }
        let observed = observe(selected, &groups, occupants, &described, &self.reading);
        Ok(Observation { is_partial, ..observed })
    }

    fn missing_remedy(&self) -> &'static str {
        if self.selection.tags.is_empty() {
            "correct the configured names or create the groups"
        } else {
            "correct SERVER_ASG_NAMES and SERVER_ASG_TAGS, or create and tag the groups"
        }
    }

    fn unseen_reason(&self) -> Option<&'static str> {
        Some(unseen_reason(self.reading.address))
    }
}

/// Why an instance in service has no address of this kind.
pub fn unseen_reason(kind: AddressKind) -> &'static str {
    match kind {
        AddressKind::Private => "EC2 does not list them, or gives them no private IPv4 and no IPv6 address",
        AddressKind::Ipv6 => "EC2 does not list them, or gives them no IPv6 address (SERVER_ADDRESS is ipv6)",
        AddressKind::Public => {
            "EC2 does not list them, or gives them no public IPv4 address (SERVER_ADDRESS is public)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::{CannedResponse, Responder, Seen, aws};
    use crate::slot::{Fate, Readiness, Unlisted};

    const LISTED: &str = "i-00000000000000001";
    const DETACHED: &str = "i-00000000000000002";
    const ENDED: &str = "i-00000000000000003";

    fn groups(members: &str) -> String {
        format!(
            "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>\
             <AutoScalingGroupName>web</AutoScalingGroupName><Instances>{members}</Instances></member>\
             </AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
        )
    }

    fn member() -> String {
        format!(
            "<member><InstanceId>{LISTED}</InstanceId><LifecycleState>InService</LifecycleState>\
             <HealthStatus>Healthy</HealthStatus></member>"
        )
    }

    fn records(seen: &Seen) -> String {
        let item = |id: String| {
            let state = if id == ENDED { "terminated" } else { "running" };
            format!(
                "<item><instancesSet><item><instanceId>{id}</instanceId><instanceState><name>{state}</name></instanceState>\
                 <privateIpAddress>10.0.0.1</privateIpAddress></item></instancesSet></item>"
            )
        };
        let items: String = (1..).map_while(|n| seen.query(&format!("InstanceId.{n}"))).map(item).collect();
        format!("<DescribeInstancesResponse><reservationSet>{items}</reservationSet></DescribeInstancesResponse>")
    }

    fn answering(members: String) -> Responder {
        Responder::new(move |seen: &Seen| {
            let body = if seen.operation() == "DescribeInstances" { records(seen) } else { groups(&members) };
            CannedResponse::ok(body)
        })
    }

    fn source(url: &str) -> GroupSource {
        GroupSource::new(aws(url).0, GroupSelection::named(&["web", "gone"]), InstanceReading::default())
    }

    #[test]
    fn both_responses_are_joined() {
        let server = answering(member());
        let observed = source(&server.url).fetch(&[]).expect("an answer");
        assert_eq!(observed.missing_groups, ["gone"]);
        assert_eq!(observed.instances.len(), 1);
        assert_eq!((observed.instances[0].name.as_str(), observed.instances[0].readiness), (LISTED, Readiness::Ready));
    }

    /// Occupants share the two calls that a turn makes anyway.
    #[test]
    fn unlisted_occupants_cost_no_extra_call() {
        let server = answering(member());
        let mut source = source(&server.url);
        let observed = source.fetch(&[ENDED, LISTED, "by-hand", DETACHED]).expect("an answer");
        let fates = [(DETACHED, Fate::Unconfirmed), (ENDED, Fate::Gone), ("by-hand", Fate::Unconfirmed)];
        let fates = fates.into_iter().map(|(name, fate)| (name.to_owned(), fate)).collect();
        assert_eq!(observed.unlisted, Unlisted::Fates(fates));
        source.fetch(&[LISTED]).expect("a steady turn");
        let calls: Vec<(String, usize)> =
            server.seen().iter().map(|seen| (seen.operation(), seen.count("InstanceId."))).collect();
        let (of_groups, of_ec2) = ("DescribeAutoScalingGroups".to_owned(), "DescribeInstances".to_owned());
        assert_eq!(calls, [(of_groups.clone(), 0), (of_ec2.clone(), 3), (of_groups, 0), (of_ec2, 1)]);
    }

    #[test]
    fn empty_groups_make_no_ec2_call() {
        let server = Responder::new(|seen: &Seen| {
            assert_eq!(seen.operation(), "DescribeAutoScalingGroups");
            CannedResponse::ok(groups(""))
        });
        let observed = source(&server.url).fetch(&["by-hand"]).expect("an answer");
        assert!(observed.instances.is_empty() && observed.hidden.is_empty());
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn one_response_without_the_other_is_an_error() {
        let server = Responder::new(|seen: &Seen| {
            if seen.operation() == "DescribeInstances" {
                CannedResponse::ok("<html/>")
            } else {
                CannedResponse::ok(groups(&member()))
            }
        });
        assert!(source(&server.url).fetch(&[]).is_err());
    }
}
