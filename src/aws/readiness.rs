//! Joins what the groups say and what EC2 says into one observation. Pure.
//!
//! The states are those of the Amazon EC2 Auto Scaling User Guide, "Amazon EC2 Auto Scaling instance lifecycle".

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::autoscaling::{Group, Member};
use super::ec2::Record;
use crate::slot::{Instance, Observation, Part, is_servers, row_name};

/// The part of an instance by its group's view of it; `None` is absent, whatever EC2 says. The health of an instance
/// in service counts as good only when it is `Healthy`, so that a word of AWS that we don't know takes no traffic.
fn part(member: &Member) -> Option<Part> {
    match member.lifecycle.as_str() {
        "InService" if member.health.eq_ignore_ascii_case("Healthy") => Some(Part::Ready),
        "InService" | "Terminating" | "Terminating:Wait" | "Terminating:Proceed" | "Detaching" | "EnteringStandby" => {
            Some(Part::Draining)
        }
        _ => None,
    }
}

/// How many instances they have, if each is in one group.
fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.members.len()).sum()
}

/// The ids of the instances that matter, each once: those that EC2 must be asked about.
pub(crate) fn ids(groups: &[Group]) -> Vec<&str> {
    let count = count(groups);
    let (mut seen, mut ids) = (HashSet::with_capacity(count), Vec::with_capacity(count));
    for member in groups.iter().flat_map(|group| group.members.iter()) {
        if part(member).is_some() && seen.insert(&member.id) {
            ids.push(member.id.as_str());
        }
    }
    ids
}

/// The observation for the groups `configured`, in their order.
///
/// An instance is reported when EC2 says that it runs and gives its address. One that its group lists as `InService`
/// is *unseen*, so that its slot is kept, where EC2 says nothing of it, or nothing that settles its fate: `pending`,
/// a state that we don't know, or `running` without an address that a server can have. `stopping`, `stopped`, `shutting-down` and
/// `terminated` do settle it: absent. One that is leaving its group and that EC2 does not show running is absent.
/// Of an instance in several groups the first configured one counts. A group that was not asked for is ignored.
pub(crate) fn observe<'a>(
    configured: &[String],
    groups: &[Group],
    records: impl IntoIterator<Item = &'a Record>,
) -> Observation {
    let count = count(groups);
    let groups: HashMap<&str, &Group> = groups.iter().map(|group| (group.name.as_str(), group)).collect();
    let mut by_id: HashMap<&str, &Record> = HashMap::with_capacity(count);
    by_id.extend(records.into_iter().map(|record| (record.id.as_str(), record)));
    let mut observation = Observation { instances: Vec::with_capacity(count), ..Observation::default() };
    let (mut asked, mut seen) = (HashSet::new(), HashSet::with_capacity(count));
    for name in configured.iter().filter(|name| asked.insert(name.as_str())) {
        let Some(group) = groups.get(name.as_str()) else {
            observation.missing_groups.push(name.clone());
            continue;
        };
        for member in group.members.iter() {
            let Some(part) = part(member) else { continue };
            if !seen.insert(member.id.as_str()) {
                continue;
            }
            match fate(by_id.get(member.id.as_str()).copied()) {
                Fate::Runs(address) => {
                    let (id, group) = (member.id.clone(), name.clone());
                    observation.instances.push(Instance::new(address, id, group, part));
                }
                Fate::Open if member.lifecycle == "InService" => observation.unseen.push(row_name(member.id.clone())),
                Fate::Open | Fate::Gone => {}
            }
        }
    }
    observation
}

/// What EC2's answer says of an instance.
enum Fate {
    Runs(IpAddr),
    Gone,
    Open,
}

fn fate(record: Option<&Record>) -> Fate {
    let Some(record) = record else { return Fate::Open };
    match (record.state.as_str(), record.address) {
        ("running", Some(address)) if is_servers(address.into()) => Fate::Runs(IpAddr::V4(address)),
        ("stopping" | "stopped" | "shutting-down" | "terminated", _) => Fate::Gone,
        _ => Fate::Open,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn group(name: &str, members: &[(&str, &str, &str)]) -> Group {
        let members = members.iter().map(|(id, lifecycle, health)| Member {
            id: id.to_string(),
            lifecycle: lifecycle.to_string(),
            health: health.to_string(),
        });
        Group { name: name.to_string(), members: members.collect::<Vec<_>>().into() }
    }

    fn record(id: &str, state: &str, address: Option<Ipv4Addr>) -> Record {
        Record { id: id.to_string(), state: state.to_string(), address }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn instance(id: &str, group: &str, part: Part) -> Instance {
        Instance::new(IpAddr::V4(ADDRESS), id.to_string(), group.to_string(), part)
    }

    #[test]
    fn every_lifecycle_state_has_its_part() {
        let (ready, draining) = (Some(Part::Ready), Some(Part::Draining));
        let cases = [
            ("InService", "Healthy", ready),
            ("InService", "HEALTHY", ready),
            ("InService", "Unhealthy", draining),
            ("InService", "Pondering", draining),
            ("Terminating", "Healthy", draining),
            ("Terminating:Wait", "Unhealthy", draining),
            ("Terminating:Proceed", "Healthy", draining),
            ("Detaching", "Healthy", draining),
            ("EnteringStandby", "Healthy", draining),
            ("Pending", "Healthy", None),
            ("Pending:Wait", "Healthy", None),
            ("Pending:Proceed", "Healthy", None),
            ("Quarantined", "Healthy", None),
            ("Standby", "Healthy", None),
            ("Detached", "Healthy", None),
            ("Terminated", "Healthy", None),
            ("Warmed:Pending", "Healthy", None),
            ("Warmed:Running", "Healthy", None),
            ("Warmed:Terminating:Wait", "Healthy", None),
            ("inservice", "Healthy", None),
            ("Anything", "Healthy", None),
        ];
        for (lifecycle, health, expected) in cases {
            let groups = [group("web", &[("i-1", lifecycle, health)])];
            let observed = observe(&names(&["web"]), &groups, &[record("i-1", "running", Some(ADDRESS))]);
            let part = observed.instances.first().map(|instance| instance.part);
            assert_eq!(part, expected, "{lifecycle} {health}");
            assert_eq!(ids(&groups).is_empty(), expected.is_none(), "{lifecycle} {health}");
            assert!(observed.unseen.is_empty() && observed.missing_groups.is_empty());
        }
    }

    #[test]
    fn what_ec2_says_decides_between_reported_kept_and_absent() {
        let nowhere = Some(Ipv4Addr::UNSPECIFIED);
        let cases: [(&str, Option<Record>, &str); 20] = [
            ("InService", Some(record("i-1", "running", Some(ADDRESS))), "reported"),
            ("InService", Some(record("i-1", "running", None)), "kept"),
            ("InService", Some(record("i-1", "running", nowhere)), "kept"),
            ("InService", Some(record("i-1", "pending", Some(ADDRESS))), "kept"),
            ("InService", Some(record("i-1", "rebooting", Some(ADDRESS))), "kept"),
            ("InService", Some(record("i-1", "stopping", Some(ADDRESS))), "absent"),
            ("InService", Some(record("i-1", "stopped", Some(ADDRESS))), "absent"),
            ("InService", Some(record("i-1", "shutting-down", Some(ADDRESS))), "absent"),
            ("InService", Some(record("i-1", "terminated", None)), "absent"),
            ("InService", None, "kept"),
            ("InService", Some(record("i-2", "running", Some(ADDRESS))), "kept"),
            ("Terminating:Wait", Some(record("i-1", "running", Some(ADDRESS))), "reported"),
            ("Terminating:Wait", Some(record("i-1", "running", None)), "absent"),
            ("Terminating:Wait", Some(record("i-1", "running", nowhere)), "absent"),
            ("Terminating:Wait", Some(record("i-1", "shutting-down", Some(ADDRESS))), "absent"),
            ("Terminating", None, "absent"),
            ("Detaching", None, "absent"),
            ("EnteringStandby", None, "absent"),
            ("Standby", None, "absent"),
            ("Pending", Some(record("i-1", "running", Some(ADDRESS))), "absent"),
        ];
        for (lifecycle, found, expected) in cases {
            let groups = [group("web", &[("i-1", lifecycle, "Healthy")])];
            let text = format!("{lifecycle} {found:?}");
            let observed = observe(&names(&["web"]), &groups, found.as_slice());
            assert_eq!(!observed.instances.is_empty(), expected == "reported", "{text}");
            assert_eq!(!observed.unseen.is_empty(), expected == "kept", "{text}");
        }
    }

    #[test]
    fn an_unhealthy_instance_in_service_that_ec2_leaves_out_is_kept_too() {
        let observed = observe(&names(&["web"]), &[group("web", &[("i-1", "InService", "Unhealthy")])], &[]);
        assert_eq!(observed.unseen, ["i-1"]);
    }

    #[test]
    fn a_group_that_is_not_returned_is_missing_and_an_empty_one_is_not() {
        let groups = [group("web", &[]), group("Api", &[("i-1", "InService", "Healthy")])];
        let observed = observe(&names(&["web", "api", "gone", "gone"]), &groups, &[]);
        assert_eq!(observed, Observation { missing_groups: names(&["api", "gone"]), ..Observation::default() });
    }

    #[test]
    fn the_first_configured_group_wins() {
        let member = [("i-1", "InService", "Healthy")];
        let groups = [group("a", &member), group("b", &member), group("c", &[("i-1", "Detached", "Healthy")])];
        let records = [record("i-1", "running", Some(ADDRESS))];
        for (order, expected) in [(["a", "b", "c"], "a"), (["b", "a", "c"], "b"), (["c", "b", "a"], "b")] {
            let observed = observe(&names(&order), &groups, &records);
            assert_eq!(observed.instances, [instance("i-1", expected, Part::Ready)], "{order:?}");
        }
        assert_eq!(ids(&groups), ["i-1"]);
    }
}
