//! Joins the responses of Auto Scaling and EC2 into one observation. Pure.
//!
//! Lifecycle states: the Amazon EC2 Auto Scaling User Guide, "Amazon EC2 Auto Scaling instance lifecycle" and
//! "Replace root volumes during instance refresh". AWS adds states now and then.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::autoscaling::{Group, Member};
use super::ec2::{DescribedInstances, InstanceQuery, Record};
use super::spot::spot_word;
use super::tags::InstanceTags;
use crate::selection::SelectedGroups;
use crate::settings::{AddressKind, InstanceReading, WeightBy};
use crate::slot::{
    Fate, Hidden, Instance, Observation, Readiness, UnknownState, Unlisted, is_server_address, row_name,
};
use crate::weight::Size;

const IN_SERVICE: &str = "InService";

/// What a member's state means for its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Ready,
    /// Keeps its slot at weight 0, until EC2 says that it has stopped.
    Draining,
    /// The same, whatever EC2 says: it stops in the process and comes back as the same server.
    Replacing,
    /// Keeps its slot unchanged: an unknown state.
    Unknown,
    Absent,
}

fn membership(member: &Member) -> Membership {
    match member.lifecycle.as_str() {
        _ if member.is_ready() => Membership::Ready,
        IN_SERVICE if member.health.eq_ignore_ascii_case("Unhealthy") => Membership::Draining,
        "Terminating" | "Terminating:Wait" | "Terminating:Proceed" | "Detaching" | "EnteringStandby" => {
            Membership::Draining
        }
        // For an occupant, it is on its way back; a new instance is not ready yet.
        "Pending" | "Pending:Wait" | "Pending:Proceed" => Membership::Draining,
        "ReplacingRootVolume" | "ReplacingRootVolume:Wait" | "ReplacingRootVolume:Proceed" | "RootVolumeReplaced" => {
            Membership::Replacing
        }
        "Terminating:Retained" | "Standby" | "Detached" | "Terminated" => Membership::Absent,
        state if state.starts_with("Warmed:") => Membership::Absent,
        _ => Membership::Unknown,
    }
}

fn readiness(membership: Membership) -> Option<Readiness> {
    match membership {
        Membership::Ready => Some(Readiness::Ready),
        Membership::Draining | Membership::Replacing => Some(Readiness::Draining),
        Membership::Unknown => Some(Readiness::Unknown),
        Membership::Absent => None,
    }
}

fn unknown_state(group: &str, member: &Member) -> UnknownState {
    UnknownState { name: row_name(member.id.clone()), group: group.to_owned(), state: group_word(member) }
}

/// What its group says of a member that is not ready.
fn group_word(member: &Member) -> String {
    row_name(match member.lifecycle.as_str() {
        IN_SERVICE => format!("health {:?}", member.health),
        lifecycle => format!("lifecycle state {lifecycle:?}"),
    })
}

/// What EC2 says of an instance that it does not show running at an address.
fn ec2_word(record: Option<&Record>, kind: AddressKind) -> String {
    row_name(match record {
        None => "EC2 does not list it".to_owned(),
        Some(record) if record.is_running() => format!("EC2 shows no usable {}", kind.word()),
        Some(record) => format!("EC2 state {:?}", record.state),
    })
}

/// Whether `name` is a well-formed instance id: EC2 rejects a whole call for any other.
pub(super) fn is_instance_id(name: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_prefix("i-").is_some_and(|rest| matches!(rest.len(), 8 | 17) && rest.bytes().all(hex))
}

/// The instances to ask EC2 about: members in service, and occupants.
pub fn instance_query<'a>(groups: &'a [Group], occupants: &[&'a str]) -> InstanceQuery<'a> {
    let members = || groups.iter().flat_map(|group| group.members.iter());
    let occupied = lazy_set(occupants);
    let mut seen = HashSet::with_capacity(occupants.len());
    let mut query = InstanceQuery::default();
    for member in members() {
        let asked = member.lifecycle == IN_SERVICE
            || (membership(member) != Membership::Absent && occupied.contains(member.id.as_str()));
        if asked && seen.insert(member.id.as_str()) {
            query.listed.push(&member.id);
        }
    }
    if occupants.iter().all(|name| seen.contains(name)) {
        return query;
    }
    seen.extend(members().map(|member| member.id.as_str()));
    query.unlisted.extend(occupants.iter().filter(|name| is_instance_id(name) && seen.insert(name)));
    query
}

/// The names as a set, built on first lookup: a steady turn needs none.
fn lazy_set<'a>(names: &[&'a str]) -> LazyCell<HashSet<&'a str>, impl FnOnce() -> HashSet<&'a str>> {
    LazyCell::new(|| names.iter().copied().collect())
}

/// The observation of the `selected` groups, in their order, given the `occupants` of the table.
///
/// An instance that is running and has an address is reported. A member that should keep its slot is *hidden* if EC2 does not
/// report it, or in an inconclusive state: `pending`, an unknown state, or `running` without a usable address. `stopping`,
/// `stopped`, `shutting-down` and `terminated` are conclusive, except while the root volume is replaced. A ready one that EC2 is
/// about to interrupt drains; a mark on any other means nothing. An instance in several groups belongs to the first of them that
/// does not have it as absent. Other groups are ignored.
pub fn observe(
    selected: SelectedGroups,
    groups: &[Group],
    occupants: &[&str],
    described: &DescribedInstances<'_>,
    reading: &InstanceReading,
) -> Observation {
    let count = groups.iter().map(|group| group.members.len()).sum();
    let groups: HashMap<&str, &Group> = groups.iter().map(|group| (group.name.as_str(), group)).collect();
    let mut records: HashMap<&str, &Record> = HashMap::with_capacity(count);
    records.extend(described.records().map(|record| (record.id.as_str(), record)));
    let occupied = lazy_set(occupants);
    let mut observation = Observation { instances: Vec::with_capacity(count), ..Observation::default() };
    let (mut fates, mut absent) = (BTreeMap::new(), HashSet::new());
    let mut seen = HashSet::with_capacity(count);
    for name in &selected.present {
        let Some(group) = groups.get(name.as_str()) else { continue };
        for member in group.members.iter() {
            let (id, membership) = (member.id.as_str(), membership(member));
            let Some(mut readiness) = readiness(membership) else {
                absent.insert(id);
                continue;
            };
            if !seen.insert(id) {
                continue;
            }
            if membership == Membership::Unknown {
                observation.unknown_states.push(unknown_state(name, member));
            }
            let in_service = member.lifecycle == IN_SERVICE;
            if !in_service && !occupied.contains(id) {
                continue;
            }
            if membership != Membership::Ready {
                observation.said.insert(id.to_owned(), group_word(member));
            }
            let record = records.get(id).copied();
            match ec2_state(record, reading.address) {
                Ec2State::Running(address) => {
                    let tags = match record.filter(|record| reading.tags && !record.tags.is_empty()) {
                        Some(record) => InstanceTags::of(record, name, &mut observation.faulty_tags),
                        None => InstanceTags::default(),
                    };
                    if tags.excluded && readiness == Readiness::Ready {
                        readiness = Readiness::Draining;
                        observation.said.insert(id.to_owned(), "tag hsdo:exclude".to_owned());
                    }
                    if let Some(code) = described.marks.get(id).filter(|_| readiness == Readiness::Ready) {
                        readiness = Readiness::Draining;
                        observation.said.insert(id.to_owned(), row_name(spot_word(code)));
                    }
                    let zone = member.zone.clone().map(row_name);
                    let size = tags.weight.map_or_else(|| size(member, record, reading.weight_by), Size::Tag);
                    let instance = Instance::new(address, id.to_owned(), name.clone(), readiness);
                    observation.instances.push(Instance { zone, size, port: tags.port, ..instance });
                }
                Ec2State::Ended if membership != Membership::Replacing => {
                    if occupied.contains(id) {
                        fates.insert(id.to_owned(), Fate::Gone);
                    }
                }
                state @ (Ec2State::Unclear | Ec2State::NoAddress | Ec2State::Ended) => {
                    if matches!(state, Ec2State::NoAddress) && readiness == Readiness::Ready {
                        // Somebody else may have the address by now.
                        readiness = Readiness::Draining;
                    }
                    if membership == Membership::Ready {
                        observation.said.insert(row_name(id.to_owned()), ec2_word(record, reading.address));
                    }
                    observation.hidden.push(Hidden { names: vec![row_name(id.to_owned())], readiness, in_service });
                }
            }
        }
    }
    for id in occupants.iter().filter(|id| !seen.contains(*id)) {
        let state = ec2_state(records.get(id).copied(), reading.address);
        let fate = unlisted_fate(&state, absent.contains(id), described.not_found.contains(id));
        fates.insert((*id).to_owned(), fate);
    }
    (observation.groups, observation.missing_groups) = (selected.present, selected.missing);
    observation.unlisted = Unlisted::Fates(fates);
    let ended = described.records().filter(|record| record.has_ended() && occupied.contains(record.id.as_str()));
    observation.ended = ended.map(|record| record.id.clone()).collect();
    observation
}

fn size(member: &Member, record: Option<&Record>, by: WeightBy) -> Size {
    let found = match by {
        WeightBy::None => None,
        WeightBy::Capacity => member.capacity.map(Size::Capacity),
        WeightBy::Vcpu => record.and_then(|record| record.vcpus).map(Size::Vcpus),
    };
    // A group without weights counts each of its instances as one.
    found.unwrap_or_default()
}

/// `not_found`: EC2 rejected the id. That it merely omits one proves nothing.
fn unlisted_fate(state: &Ec2State, absent: bool, not_found: bool) -> Fate {
    match state {
        _ if absent => Fate::Gone,
        Ec2State::Ended => Fate::Gone,
        _ if not_found => Fate::NotFound,
        Ec2State::Running(_) | Ec2State::NoAddress | Ec2State::Unclear => Fate::Unconfirmed,
    }
}

enum Ec2State {
    Running(IpAddr),
    /// It runs, and has no address of a kind that an instance can lose: only a primary private one is its own for life.
    NoAddress,
    Ended,
    Unclear,
}

fn ec2_state(record: Option<&Record>, kind: AddressKind) -> Ec2State {
    let Some(record) = record else { return Ec2State::Unclear };
    match (record.state.as_str(), record.address_of(kind)) {
        ("running", Some(address)) if is_server_address(address) => Ec2State::Running(address),
        ("running", None) if kind != AddressKind::Private => Ec2State::NoAddress,
        ("stopping" | "stopped" | "shutting-down" | "terminated", _) => Ec2State::Ended,
        _ => Ec2State::Unclear,
    }
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
