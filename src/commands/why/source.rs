//! What Auto Scaling, EC2 and Consul say of one instance, as facts. Pure.

use std::net::IpAddr;

use super::fact::Fact;
use super::gather::Told;
use crate::aws::{AwsError, Description, Group, Member, Record, Records, spot_word};
use crate::selection::{GroupSelection, SelectedGroups};
use crate::settings::AddressKind;
use crate::slot::{Observation, Readiness};
use crate::text;

/// Names listed in one line.
const MAX_LISTED: usize = 10;

const KINDS: [AddressKind; 3] = [AddressKind::Private, AddressKind::Ipv6, AddressKind::Public];

/// What the source of instances says of one.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) facts: Vec<Fact>,
    /// The group that lists it.
    pub(super) group: Option<String>,
    pub(super) address: Option<IpAddr>,
    /// Why it gets no traffic, in the source's words; none if it is ready or not known.
    pub(super) word: Option<String>,
    /// Whether any source knows it.
    pub(super) is_known: bool,
}

/// The name of the instance that has an address, according to the source.
pub(super) fn holder(told: &Told, address: IpAddr) -> Option<String> {
    let described = match told {
        Told::Aws { description: Description { records: Ok(records), .. }, .. } => {
            let has = |record: &&Record| KINDS.iter().any(|kind| record.address_of(*kind) == Some(address));
            records.found.iter().find(has).map(|record| record.id.clone())
        }
        _ => None,
    };
    let observed = || {
        let mut instances = told.observation()?.instances.iter();
        instances.find(|instance| instance.address == address).map(|instance| instance.name.clone())
    };
    described.or_else(observed)
}

/// EC2's word for an instance that has ended for good.
pub(super) fn ended(told: &Told, name: &str) -> Option<String> {
    let Told::Aws { description: Description { records: Ok(records), .. }, .. } = told else { return None };
    let record = records.found.iter().find(|record| record.id == name)?;
    record.has_ended().then(|| record.state.clone())
}

/// What the source says of the instance `name`; `row_group` is the group that its row names.
pub(super) fn said(told: &Told, name: &str, row_group: Option<&str>) -> Said {
    match told {
        Told::Aws { asked, address, description, .. } => aws(asked, *address, description, name, row_group),
        Told::Consul { services, observation: Ok(observation) } => consul(services, observation, name),
        Told::Consul { observation: Err(error), .. } => {
            Said { facts: vec![Fact::unknown("Consul", error.to_string())], ..Said::default() }
        }
    }
}

fn aws(
    asked: &GroupSelection,
    address: AddressKind,
    description: &Description,
    name: &str,
    row_group: Option<&str>,
) -> Said {
    let mut said = Said::default();
    match &description.groups {
        Err(error) => said.facts.push(unknown("Auto Scaling", error)),
        Ok((groups, selected)) => group_says(asked, selected, groups, name, row_group, &mut said),
    }
    match &description.records {
        Err(error) => said.facts.push(unknown("EC2", error)),
        Ok(records) => ec2_says(records, address, name, &mut said),
    }
    spot_says(description, name, &mut said);
    said
}

fn unknown(source: &str, error: &AwsError) -> Fact {
    Fact::unknown(source, error.to_string())
}

fn group_says(
    asked: &GroupSelection,
    selected: &SelectedGroups,
    groups: &[Group],
    name: &str,
    row_group: Option<&str>,
    said: &mut Said,
) {
    // In configured order, as the server decides.
    let member = selected.present.iter().find_map(|group| {
        let group = groups.iter().find(|found| found.name == *group)?;
        Some((group, group.members.iter().find(|member| member.id == name)?))
    });
    let text = match member {
        Some((group, Member { lifecycle, health, .. })) => {
            said.group = Some(group.name.clone());
            said.is_known = true;
            said.word = match (lifecycle.as_str(), health.as_str()) {
                ("InService", health) if health.eq_ignore_ascii_case("Healthy") => None,
                ("InService", health) => Some(format!("health {health:?}")),
                (lifecycle, _) => Some(format!("lifecycle state {lifecycle:?}")),
            };
            format!("group {} lists it: {lifecycle}, {health}", group.name)
        }
        None if asked.names.is_empty() && asked.tags.is_empty() => {
            "not asked: no SERVER_ASG_NAMES is set here, and no row names the instance's group".to_owned()
        }
        None => {
            let all: Vec<&String> = selected.present.iter().chain(&selected.missing).collect();
            let listed = text::list(all.iter().map(ToString::to_string), MAX_LISTED);
            let mut text = match all.len() {
                1 => format!("group {listed} does not list it"),
                count => format!("none of {count} groups lists it: {listed}"),
            };
            if !selected.missing.is_empty() {
                let names = text::list(selected.missing.iter().cloned(), MAX_LISTED);
                text = format!("{text}; no such group: {names}");
            }
            let other = row_group.filter(|group| !selected.present.iter().any(|name| name == group));
            let missing = |group: &&str| selected.missing.iter().any(|name| name == group);
            if let Some(group) = other.filter(|group| !missing(group)) {
                text.push_str(&format!("; its row's group {group} is not one that the settings select"));
            }
            said.word = Some("no configured group lists it".to_owned());
            text
        }
    };
    said.facts.push(Fact::new("Auto Scaling", text));
}

fn ec2_says(records: &Records, kind: AddressKind, name: &str, said: &mut Said) {
    let record = records.found.iter().find(|record| record.id == name);
    let text = match record {
        Some(record) => {
            let (state, address) = (&record.state, record.address_of(kind));
            said.is_known = true;
            said.address = address;
            if state != "running" {
                said.word = Some(format!("EC2 state {state:?}"));
            }
            let address = address.map_or_else(|| format!("no {}", kind.word()), |address| address.to_string());
            format!("{state}, {address}")
        }
        None if records.not_found.contains(name) => "no such instance in this account and region".to_owned(),
        None if !name.starts_with("i-") => "not asked: the name is no instance id".to_owned(),
        None => "does not list it".to_owned(),
    };
    said.facts.push(Fact::new("EC2", text));
}

/// Whether EC2 is about to interrupt it, if it is a Spot instance that runs.
fn spot_says(description: &Description, name: &str, said: &mut Said) {
    let (Some(marks), Ok(records)) = (&description.marks, &description.records) else { return };
    if !records.found.iter().any(|record| record.id == name && record.is_spot && record.is_running()) {
        return;
    }
    match marks.as_ref().map(|marks| marks.get(name)) {
        Ok(Some(code)) => {
            let word = spot_word(code);
            said.facts.push(Fact::new("EC2", &word));
            said.word.get_or_insert(word);
        }
        Ok(None) => {}
        Err(error) => said.facts.push(unknown("EC2", error)),
    }
}

fn consul(services: &[String], observation: &Observation, name: &str) -> Said {
    let mut said = Said::default();
    let hidden = observation.hidden.iter().find(|hidden| hidden.names.iter().any(|one| one == name));
    let missing = text::list(observation.missing_groups.iter().cloned(), MAX_LISTED);
    let text = match observation.instances.iter().find(|instance| instance.has_name(name)) {
        Some(instance) => {
            said.is_known = true;
            said.group = Some(instance.group.clone());
            said.address = Some(instance.address);
            let state = match instance.readiness {
                Readiness::Ready => "passing",
                Readiness::Draining => "in maintenance",
                Readiness::Unknown => "in an unknown state",
            };
            said.word = (instance.readiness != Readiness::Ready).then(|| state.to_owned());
            format!("service {} lists it at {}: {state}", instance.group, instance.address)
        }
        None if hidden.is_some() => {
            said.is_known = true;
            said.word = Some("no address".to_owned());
            "lists it without an IP address".to_owned()
        }
        None => {
            let listed = text::list(services.iter().cloned(), MAX_LISTED);
            said.word = Some("no service lists it as passing".to_owned());
            let missing = if missing.is_empty() { missing } else { format!("; no such service: {missing}") };
            format!("no instance of that name passes its checks in {listed}{missing}")
        }
    };
    said.facts.push(Fact::new("Consul", text));
    said
}
