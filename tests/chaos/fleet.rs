//! The instances and their groups as AWS reports them: one group per page, three instances per page.
//!
//! moto cannot give a new instance an old address, has no `Terminating:Wait`, and slows down with every instance it
//! ever had, so the two `Describe` operations are answered here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use crate::common::aws_proxy::AwsProxy;
use crate::common::http::lock;
use crate::orders;

/// In the order of the configuration.
pub(crate) const GROUPS: [&str; 2] = ["web-a", "web-b"];
pub(crate) const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];
const PAGE: usize = 3;

const MEMBER: &str = include_str!("../data/group-member.xml");
const RECORD: &str = include_str!("../data/reservation.xml");

/// What EC2 reports for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ec2 {
    Running,
    /// Running, but without an address for a moment.
    Unaddressed,
    Pending,
    Stopped,
    /// Left out of the response for a while.
    LeftOut,
}

/// Detached: its group no longer lists it, and it keeps running.
pub(crate) const DETACHED: &str = "";
/// During a root volume replacement, and on the way back.
pub(crate) const REPLACING: [&str; 4] =
    ["ReplacingRootVolume", "ReplacingRootVolume:Wait", "ReplacingRootVolume:Proceed", "RootVolumeReplaced"];
/// States that take an instance out of service.
pub(crate) const OUT_OF_SERVICE: [&str; 4] = ["Standby", "Terminating:Retained", "Warmed:Stopped", "Detached"];
/// States that AWS does not have.
pub(crate) const UNKNOWN_STATES: [&str; 3] = ["Dreaming", "InService:Warm", "Terminating:Something"];

/// What hsdo should make of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Ready,
    Draining,
    Absent,
    /// State unknown: a server stays as it is, a new instance gets no slot.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
    /// Index into [`GROUPS`].
    pub(crate) group: usize,
    /// Index into [`ZONES`].
    pub(crate) zone: usize,
    pub(crate) lifecycle: &'static str,
    pub(crate) health: &'static str,
    pub(crate) ec2: Ec2,
    pub(crate) has_served: bool,
}

impl Instance {
    /// Safe to change in any way: in service, healthy and running.
    fn is_healthy(&self) -> bool {
        self.lifecycle == "InService" && self.health == "Healthy" && self.ec2 == Ec2::Running
    }
}

/// All instances at one moment, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Groups that AWS does not return.
    pub(crate) missing: BTreeSet<usize>,
    /// Instances missing from a bogus response: so many of the serving ones that the guard keeps them.
    pub(crate) unlisted: BTreeSet<String>,
    /// Terminated instances that EC2 still reports.
    pub(crate) ended: BTreeMap<String, (Ipv4Addr, &'static str)>,
    /// The instances and zones that orders may drain at any moment.
    pub(crate) ordered: BTreeSet<String>,
}

impl Scene {
    pub(crate) fn expected(&self, instance: &Instance) -> Expected {
        if self.unlisted.contains(&instance.id) {
            return Expected::Unknown;
        }
        let replacing = REPLACING.contains(&instance.lifecycle);
        let missing = self.missing.contains(&instance.group);
        match instance.ec2 {
            Ec2::Stopped if missing || !replacing => return Expected::Absent,
            // Unknown to its group and to EC2.
            Ec2::LeftOut if missing => return Expected::Absent,
            _ => {}
        }
        let in_transition = instance.lifecycle.starts_with("Pending") && instance.has_served;
        let here = instance.lifecycle == "InService" || instance.lifecycle == "Terminating:Wait" || replacing;
        match instance.lifecycle {
            _ if missing && (here || in_transition || UNKNOWN_STATES.contains(&instance.lifecycle)) => {
                Expected::Unknown
            }
            "InService" => match (instance.health, instance.ec2) {
                ("Healthy", Ec2::Running) => Expected::Ready,
                ("Unhealthy", _) => Expected::Draining,
                _ => Expected::Unknown,
            },
            _ if here || in_transition => Expected::Draining,
            lifecycle if UNKNOWN_STATES.contains(&lifecycle) => Expected::Unknown,
            _ => Expected::Absent,
        }
    }

    pub(crate) fn is_ordered(&self, instance: &Instance) -> bool {
        orders::names(&self.ordered, instance)
    }

    /// What hsdo should make of an instance, by its orders too.
    pub(crate) fn wanted(&self, instance: &Instance) -> Expected {
        match self.expected(instance) {
            Expected::Ready if self.is_ordered(instance) => Expected::Draining,
            part => part,
        }
    }

    /// Removes an instance; EC2 may still report it.
    pub(crate) fn end(&mut self, id: &str, reported_as: Option<&'static str>) {
        self.unlisted.remove(id);
        if let (Some(instance), Some(state)) = (self.instances.remove(id), reported_as) {
            self.ended.insert(id.to_owned(), (instance.address, state));
        }
    }

    pub(crate) fn of(&self, part: Expected) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(move |instance| self.expected(instance) == part)
    }

    /// In service, without an order, and safe to change.
    pub(crate) fn in_service(&self, group: usize) -> Vec<Instance> {
        let good =
            |i: &&Instance| i.group == group && i.is_healthy() && !self.unlisted.contains(&i.id) && !self.is_ordered(i);
        self.instances.values().filter(good).cloned().collect()
    }

    pub(crate) fn free_address(&self) -> Ipv4Addr {
        let taken: BTreeSet<Ipv4Addr> = self.instances.values().map(|instance| instance.address).collect();
        (1..=250).map(|last| Ipv4Addr::new(127, 3, 0, last)).find(|it| !taken.contains(it)).expect("there are few")
    }

    /// A page, and the token of the next one. The token says whether the response is the bogus one, so all of its pages
    /// are.
    fn groups(&self, form: &str) -> (u16, String) {
        let token = value(form, "NextToken");
        let known: Vec<usize> = (0..GROUPS.len()).filter(|group| !self.missing.contains(group)).collect();
        let (place, unlisted) = match token.as_deref() {
            None => (0, self.unlisted.clone()),
            Some(token) => match token.split_once('.').map(|(number, unlisted)| (number.parse::<usize>(), unlisted)) {
                Some((Ok(number), unlisted)) => (
                    known.iter().position(|group| *group >= number).unwrap_or(known.len()),
                    unlisted.split('.').map(str::to_owned).collect(),
                ),
                _ => return (400, error("InvalidNextToken")),
            },
        };
        let mut groups = String::new();
        for &group in known.get(place..=place).unwrap_or_default() {
            let listed = |instance: &&Instance| {
                instance.group == group && instance.lifecycle != DETACHED && !unlisted.contains(&instance.id)
            };
            let members: String = self.instances.values().filter(listed).map(member).collect();
            let name = GROUPS[group];
            groups.push_str(&format!(
                "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances>{members}</Instances></member>"
            ));
        }
        let unlisted: Vec<String> = unlisted.into_iter().collect();
        let next = known.get(place + 1).map(|group| format!("<NextToken>{group}.{}</NextToken>", unlisted.join(".")));
        (
            200,
            format!(
                "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>{groups}\
                 </AutoScalingGroups>{}</DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>",
                next.unwrap_or_default()
            ),
        )
    }

    fn record(&self, id: &str) -> Option<String> {
        let (address, state) = match (self.instances.get(id), self.ended.get(id)) {
            (Some(instance), _) => {
                let state = match instance.ec2 {
                    Ec2::Running | Ec2::Unaddressed => "running",
                    Ec2::Pending => "pending",
                    Ec2::Stopped => "stopped",
                    Ec2::LeftOut => return None,
                };
                let address = (instance.ec2 != Ec2::Unaddressed).then_some(instance.address);
                (address, state)
            }
            (None, ended) => ended.map(|(address, state)| (Some(*address), *state))?,
        };
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let record = RECORD.replace("@ID@", id).replace("@IP@", &address);
        Some(record.replace("<name>running</name>", &format!("<name>{state}</name>")))
    }

    fn described(&self, form: &str) -> (u16, String) {
        let mut asked: Vec<String> = (1..).map_while(|number| value(form, &format!("InstanceId.{number}"))).collect();
        asked.sort();
        let unknown: Vec<&str> = asked
            .iter()
            .filter(|id| !self.instances.contains_key(*id) && !self.ended.contains_key(*id))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            let text = format!("The instance IDs '{}' do not exist", unknown.join(", "));
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
        let records: String = asked[from..end].iter().filter_map(|id| self.record(id)).collect();
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
        .replace(">eu-west-1a<", &format!(">{}<", ZONES[instance.zone]))
        .replace(">InService<", &format!(">{}<", instance.lifecycle))
        .replace(">Healthy<", &format!(">{}<", instance.health))
}

/// An error that both APIs' parsers read.
fn error(code: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>by the test</Message></Error></Errors><RequestID>r</RequestID></Response>"
    )
}

/// A form value; none of ours is escaped.
fn value(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// The scene that AWS reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet(Arc<Mutex<Scene>>);

impl Fleet {
    /// Answers in moto's place.
    pub(crate) fn behind(aws: &AwsProxy) -> Self {
        let fleet = Fleet::default();
        let (groups, instances) = (fleet.clone(), fleet.clone());
        aws.stub("DescribeAutoScalingGroups", move |form| groups.scene().groups(form));
        aws.stub("DescribeInstances", move |form| instances.scene().described(form));
        fleet
    }

    pub(crate) fn scene(&self) -> Scene {
        lock(&self.0).clone()
    }

    pub(crate) fn set(&self, scene: Scene) {
        *lock(&self.0) = scene;
    }
}

pub(crate) fn ip(instance: &Instance) -> IpAddr {
    IpAddr::V4(instance.address)
}
