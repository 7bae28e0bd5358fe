//! The instances and their groups, and how AWS tells of them: page by page, a group a page, three instances a page.
//!
//! moto cannot give the address of an instance that went to a new one, has no `Terminating:Wait`, and gets slower with
//! every instance that it ever had; so the two `Describe` operations are answered from here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use crate::common::aws_proxy::AwsProxy;
use crate::common::http::lock;

/// The groups, in the order of the configuration.
pub(crate) const GROUPS: [&str; 2] = ["web-a", "web-b"];
/// Instances on one page of EC2's answers.
const PAGE: usize = 3;

const MEMBER: &str = include_str!("../data/group-member.xml");
const RECORD: &str = include_str!("../data/reservation.xml");

/// What an instance is to hsdo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Ready,
    Draining,
    Absent,
    /// Its group has it in service, or is not told of at all: who serves goes on, who is new waits.
    Unknown,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
    /// The place of its group in [`GROUPS`].
    pub(crate) group: usize,
    pub(crate) lifecycle: &'static str,
    pub(crate) healthy: bool,
    /// EC2 leaves it out of its answers, as it may for a while.
    pub(crate) unseen: bool,
}

/// All instances at one moment, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Groups that AWS does not tell of.
    pub(crate) missing: BTreeSet<usize>,
}

impl Scene {
    pub(crate) fn part(&self, instance: &Instance) -> Part {
        match instance.lifecycle {
            "InService" if self.missing.contains(&instance.group) || instance.unseen => Part::Unknown,
            "InService" if instance.healthy => Part::Ready,
            "InService" | "Terminating:Wait" if self.missing.contains(&instance.group) => Part::Unknown,
            "InService" | "Terminating:Wait" => Part::Draining,
            _ => Part::Absent,
        }
    }

    /// The instances of that part.
    pub(crate) fn of(&self, part: Part) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(move |instance| self.part(instance) == part)
    }

    /// The instances in service that can do without harm whatever is done to them.
    pub(crate) fn in_service(&self, group: usize) -> Vec<Instance> {
        let good = |i: &&Instance| i.group == group && i.lifecycle == "InService" && i.healthy && !i.unseen;
        self.instances.values().filter(good).cloned().collect()
    }

    /// The lowest address that nobody has.
    pub(crate) fn free_address(&self) -> Ipv4Addr {
        let taken: BTreeSet<Ipv4Addr> = self.instances.values().map(|instance| instance.address).collect();
        (1..=250).map(|last| Ipv4Addr::new(127, 3, 0, last)).find(|it| !taken.contains(it)).expect("there are few")
    }

    fn groups(&self, form: &str) -> (u16, String) {
        let token = value(form, "NextToken");
        let known: Vec<usize> = (0..GROUPS.len()).filter(|group| !self.missing.contains(group)).collect();
        let place = match token.as_deref() {
            None => 0,
            Some(token) => match token.strip_prefix("group-").and_then(|number| number.parse::<usize>().ok()) {
                Some(number) => known.iter().position(|group| *group >= number).unwrap_or(known.len()),
                None => return (400, error("InvalidNextToken")),
            },
        };
        let mut groups = String::new();
        for &group in known.get(place..=place).unwrap_or_default() {
            let members = self.instances.values().filter(|instance| instance.group == group).map(member);
            let members = members.collect::<String>();
            let name = GROUPS[group];
            groups.push_str(&format!(
                "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances>{members}</Instances></member>"
            ));
        }
        let next = known.get(place + 1).map(|group| format!("<NextToken>group-{group}</NextToken>"));
        (
            200,
            format!(
                "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>{groups}\
                 </AutoScalingGroups>{}</DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>",
                next.unwrap_or_default()
            ),
        )
    }

    fn described(&self, form: &str) -> (u16, String) {
        let mut asked: Vec<String> = (1..).map_while(|number| value(form, &format!("InstanceId.{number}"))).collect();
        asked.sort();
        if let Some(strange) = asked.iter().find(|id| !self.instances.contains_key(*id)) {
            let text = format!("The instance ID '{strange}' does not exist");
            return (400, error("InvalidInstanceID.NotFound").replace("by the test", &text));
        }
        let from = match value(form, "NextToken") {
            None => 0,
            Some(token) => match token.strip_prefix("from-").and_then(|number| number.parse::<usize>().ok()) {
                Some(number) => number.min(asked.len()),
                None => return (400, error("InvalidNextToken")),
            },
        };
        let end = (from + PAGE).min(asked.len());
        let seen = asked[from..end].iter().filter_map(|id| self.instances.get(id)).filter(|instance| !instance.unseen);
        let records: String = seen
            .map(|instance| RECORD.replace("@ID@", &instance.id).replace("@IP@", &instance.address.to_string()))
            .collect();
        let next = if end < asked.len() { format!("<nextToken>from-{end}</nextToken>") } else { String::new() };
        (
            200,
            format!(
                "<DescribeInstancesResponse><reservationSet>{records}</reservationSet>{next}</DescribeInstancesResponse>"
            ),
        )
    }
}

fn member(instance: &Instance) -> String {
    MEMBER
        .replace("@ID@", &instance.id)
        .replace(">InService<", &format!(">{}<", instance.lifecycle))
        .replace(">Healthy<", if instance.healthy { ">Healthy<" } else { ">Unhealthy<" })
}

/// An error in either API's spelling: both are read from `Error`.
fn error(code: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>by the test</Message></Error></Errors><RequestID>r</RequestID></Response>"
    )
}

/// A value of a form; none of ours is escaped.
fn value(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// The scene that AWS tells of now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet(Arc<Mutex<Scene>>);

impl Fleet {
    /// A fleet that answers in moto's place.
    pub(crate) fn behind(aws: &AwsProxy) -> Self {
        let fleet = Fleet::default();
        let (groups, instances) = (fleet.clone(), fleet.clone());
        aws.instead("DescribeAutoScalingGroups", move |form| groups.scene().groups(form));
        aws.instead("DescribeInstances", move |form| instances.scene().described(form));
        fleet
    }

    pub(crate) fn scene(&self) -> Scene {
        lock(&self.0).clone()
    }

    pub(crate) fn set(&self, scene: Scene) {
        *lock(&self.0) = scene;
    }
}

/// The address as the bed's servers take it.
pub(crate) fn ip(instance: &Instance) -> IpAddr {
    IpAddr::V4(instance.address)
}
