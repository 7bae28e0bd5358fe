//! Instances out of AutoScaling groups: asks Auto Scaling, then EC2, and joins the two answers.

use std::sync::Arc;
use std::time::Duration;

use super::Aws;
use super::autoscaling::{Member, fetch_groups};
use super::ec2::{Record, fetch_instances};
use super::memory::Memory;
use super::readiness::{ids, observe};
use crate::error::Error;
use crate::server::Source;
use crate::slot::Observation;

/// The time for one whole answer: all calls, pages and attempts.
const TOTAL: Duration = Duration::from_secs(20);
/// The time for one attempt at one call; AWS takes a second or two for 1,000 instances.
const ATTEMPT: Duration = Duration::from_secs(4);

/// The groups of `SERVER_ASG_NAMES` as a source of instances.
pub struct GroupSource {
    aws: Arc<Aws>,
    groups: Vec<String>,
    members: Memory<Vec<Member>>,
    records: Memory<Vec<Record>>,
}

impl GroupSource {
    /// The source of these groups. Their order is that in which new instances of one turn take slots.
    pub fn new(aws: Arc<Aws>, groups: Vec<String>) -> Self {
        GroupSource { aws, groups, members: Memory::default(), records: Memory::default() }
    }
}

impl Source for GroupSource {
    /// Within 20 seconds, one whole answer or an error.
    fn fetch(&mut self) -> Result<Observation, Error> {
        let budget = self.aws.budget(TOTAL, ATTEMPT);
        let groups = fetch_groups(&self.aws, &self.groups, &self.members, &budget)?;
        let records = fetch_instances(&self.aws, &ids(&groups), &self.records, &budget)?;
        Ok(observe(&self.groups, &groups, records.iter().flat_map(|some| some.iter())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answer, Responder, Seen, aws};
    use super::*;
    use crate::slot::Part;

    fn groups(members: &str) -> String {
        format!(
            "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>\
             <AutoScalingGroupName>web</AutoScalingGroupName><Instances>{members}</Instances></member>\
             </AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
        )
    }

    const MEMBER: &str = "<member><InstanceId>i-1</InstanceId><LifecycleState>InService</LifecycleState>\
                          <HealthStatus>Healthy</HealthStatus></member>";
    const RECORD: &str = "<DescribeInstancesResponse><reservationSet><item><instancesSet><item>\
        <instanceId>i-1</instanceId><instanceState><name>running</name></instanceState>\
        <privateIpAddress>10.0.0.1</privateIpAddress></item></instancesSet></item></reservationSet></DescribeInstancesResponse>";

    fn source(url: &str) -> GroupSource {
        GroupSource::new(aws(url).0, vec!["web".to_string(), "gone".to_string()])
    }

    #[test]
    fn the_two_answers_are_joined() {
        let server = Responder::new(|seen: &Seen| {
            if seen.operation() == "DescribeInstances" { Answer::ok(RECORD) } else { Answer::ok(groups(MEMBER)) }
        });
        let observed = source(&server.url).fetch().expect("an answer");
        assert_eq!(observed.missing_groups, ["gone"]);
        assert_eq!(observed.instances.len(), 1);
        assert_eq!((observed.instances[0].name.as_str(), observed.instances[0].part), ("i-1", Part::Ready));
    }

    #[test]
    fn empty_groups_ask_ec2_nothing() {
        let server = Responder::new(|seen: &Seen| {
            assert_eq!(seen.operation(), "DescribeAutoScalingGroups");
            Answer::ok(groups(""))
        });
        let observed = source(&server.url).fetch().expect("an answer");
        assert!(observed.instances.is_empty() && observed.unseen.is_empty());
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn one_answer_without_the_other_is_an_error() {
        let server = Responder::new(|seen: &Seen| {
            if seen.operation() == "DescribeInstances" { Answer::ok("<html/>") } else { Answer::ok(groups(MEMBER)) }
        });
        assert!(source(&server.url).fetch().is_err());
    }
}
