//! Joins what the groups say and what EC2 says into one observation. Pure.
//!
//! The states are those of the Amazon EC2 Auto Scaling User Guide, "Amazon EC2 Auto Scaling instance lifecycle" and
//! "Replace root volumes during instance refresh". AWS adds to them now and then.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::autoscaling::{Group, Member};
use super::ec2::{Described, Question, Record};
use crate::slot::{
    Fate, Hidden, Instance, Observation, Readiness, UnknownState, Unlisted, is_server_address, row_name,
};

/// The one lifecycle state in which an instance may take traffic.
const IN_SERVICE: &str = "InService";

/// What a group's word on an instance means for its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// It may be seated.
    Ready,
    /// It keeps a slot that it has, at weight 0, as long as EC2 does not say that it has ended.
    Draining,
    /// The same, whatever EC2 says: its machine goes down on the way, and it is the same server when it is back.
    Replacing,
    /// It keeps a slot that it has, as it is: what the word means is not known.
    Unknown,
    /// Its slot is freed.
    Absent,
}

/// The table of lifecycle states. What it does not hold is unknown, and so is a health that it does not hold.
fn view(member: &Member) -> View {
    match member.lifecycle.as_str() {
        IN_SERVICE if member.health.eq_ignore_ascii_case("Healthy") => View::Ready,
        IN_SERVICE if member.health.eq_ignore_ascii_case("Unhealthy") => View::Draining,
        "Terminating" | "Terminating:Wait" | "Terminating:Proceed" | "Detaching" | "EnteringStandby" => View::Draining,
        // An occupant's: it is on its way back. Of a new instance nothing follows.
        "Pending" | "Pending:Wait" | "Pending:Proceed" => View::Draining,
        "ReplacingRootVolume" | "ReplacingRootVolume:Wait" | "ReplacingRootVolume:Proceed" | "RootVolumeReplaced" => {
            View::Replacing
        }
        "Terminating:Retained" | "Standby" | "Detached" | "Terminated" => View::Absent,
        // The warm pool.
        word if word.starts_with("Warmed:") => View::Absent,
        _ => View::Unknown,
    }
}

fn readiness(view: View) -> Option<Readiness> {
    match view {
        View::Ready => Some(Readiness::Ready),
        View::Draining | View::Replacing => Some(Readiness::Draining),
        View::Unknown => Some(Readiness::Unknown),
        View::Absent => None,
    }
}

/// The word of a member in an unknown state, and what it is a word for.
fn strange(group: &str, member: &Member) -> UnknownState {
    let state = match member.lifecycle.as_str() {
        IN_SERVICE => format!("health {:?}", member.health),
        lifecycle => format!("lifecycle state {lifecycle:?}"),
    };
    UnknownState { name: row_name(member.id.clone()), group: group.to_owned(), state: row_name(state) }
}

/// Whether a row's name can be that of an instance: only then is EC2 asked, since it refuses a call for any other.
fn is_instance_id(name: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_prefix("i-").is_some_and(|rest| matches!(rest.len(), 8 | 17) && rest.bytes().all(hex))
}

/// Whom to ask EC2 about. An instance that is neither in service nor an occupant takes no slot and holds none.
pub fn question<'a>(groups: &'a [Group], occupants: &[&'a str]) -> Question<'a> {
    let members = || groups.iter().flat_map(|group| group.members.iter());
    let holds = Holds::of(occupants);
    let mut seen = HashSet::with_capacity(occupants.len());
    let mut question = Question::default();
    for member in members() {
        let asked = member.lifecycle == IN_SERVICE || (view(member) != View::Absent && holds.contain(&member.id));
        if asked && seen.insert(member.id.as_str()) {
            question.listed.push(&member.id);
        }
    }
    if occupants.iter().all(|name| seen.contains(name)) {
        return question;
    }
    seen.extend(members().map(|member| member.id.as_str()));
    question.unlisted.extend(occupants.iter().filter(|name| is_instance_id(name) && seen.insert(name)));
    question
}

/// The names of the occupants. The set is made when the first one is looked up: in a steady turn none is.
struct Holds<'a, 'b> {
    occupants: &'b [&'a str],
    set: OnceCell<HashSet<&'a str>>,
}

impl<'a, 'b> Holds<'a, 'b> {
    fn of(occupants: &'b [&'a str]) -> Self {
        Holds { occupants, set: OnceCell::new() }
    }

    fn contain(&self, id: &str) -> bool {
        self.set.get_or_init(|| self.occupants.iter().copied().collect()).contains(id)
    }
}

/// The observation for the groups `configured`, in their order, where the table has these `occupants`.
///
/// An instance is reported when EC2 says that it runs and gives its address. One whose group wants it to keep its slot
/// is *hidden*, so that it does, where EC2 says nothing of it, or nothing that settles its fate: `pending`, a state that
/// we don't know, or `running` without an address that a server can have. `stopping`, `stopped`, `shutting-down` and
/// `terminated` do settle it, but not while the root volume is replaced. Of an instance in several groups the first
/// configured one counts that does not have it as absent. A group that was not asked for is ignored.
pub fn observe(configured: &[String], groups: &[Group], occupants: &[&str], described: &Described<'_>) -> Observation {
    let count = groups.iter().map(|group| group.members.len()).sum();
    let groups: HashMap<&str, &Group> = groups.iter().map(|group| (group.name.as_str(), group)).collect();
    let mut records: HashMap<&str, &Record> = HashMap::with_capacity(count);
    records.extend(described.records().map(|record| (record.id.as_str(), record)));
    let holds = Holds::of(occupants);
    let mut observation = Observation { instances: Vec::with_capacity(count), ..Observation::default() };
    let (mut fates, mut absent) = (BTreeMap::new(), HashSet::new());
    let (mut asked, mut seen) = (HashSet::new(), HashSet::with_capacity(count));
    for name in configured.iter().filter(|name| asked.insert(name.as_str())) {
        let Some(group) = groups.get(name.as_str()) else {
            observation.missing_groups.push(name.clone());
            continue;
        };
        for member in group.members.iter() {
            let (id, view) = (member.id.as_str(), view(member));
            let Some(readiness) = readiness(view) else {
                absent.insert(id);
                continue;
            };
            if !seen.insert(id) {
                continue;
            }
            if view == View::Unknown {
                observation.unknown_states.push(strange(name, member));
            }
            let in_service = member.lifecycle == IN_SERVICE;
            if !in_service && !holds.contain(id) {
                continue;
            }
            match end(records.get(id).copied()) {
                End::Runs(address) => {
                    observation.instances.push(Instance::new(address, id.to_owned(), name.clone(), readiness));
                }
                End::Gone if view != View::Replacing => {
                    if holds.contain(id) {
                        fates.insert(id.to_owned(), Fate::Gone);
                    }
                }
                End::Open | End::Gone => {
                    observation.hidden.push(Hidden { names: vec![row_name(id.to_owned())], readiness, in_service });
                }
            }
        }
    }
    for id in occupants.iter().filter(|id| !seen.contains(*id)) {
        let fate = match end(records.get(id).copied()) {
            _ if absent.contains(id) => Fate::Gone,
            End::Gone => Fate::Gone,
            // EC2 refuses to tell of one that it does not know. That it leaves one out says nothing.
            _ if described.denied.contains(id) => Fate::NotFound,
            End::Runs(_) | End::Open => Fate::Unconfirmed,
        };
        fates.insert((*id).to_owned(), fate);
    }
    observation.unlisted = Unlisted::Fates(fates);
    observation
}

/// What EC2's answer says of an instance's life.
enum End {
    Runs(IpAddr),
    Gone,
    Open,
}

fn end(record: Option<&Record>) -> End {
    let Some(record) = record else { return End::Open };
    match (record.state.as_str(), record.address) {
        ("running", Some(address)) if is_server_address(address.into()) => End::Runs(IpAddr::V4(address)),
        ("stopping" | "stopped" | "shutting-down" | "terminated", _) => End::Gone,
        _ => End::Open,
    }
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
