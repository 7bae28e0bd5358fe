//! Parses the body of `/v1/health/service/<name>` into instances with readiness, names and weights. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::error::QueryError;
use crate::slot::{Hidden, Instance, Readiness, is_server_address, row_name};
use crate::weight::Size;

/// The check that puts a whole node into maintenance (`/v1/agent/maintenance`).
const NODE_MAINTENANCE: &str = "_node_maintenance";
/// Prefix of the check that puts one service of a node into maintenance (`/v1/agent/service/maintenance`).
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
/// The check of every node with an agent; critical once the cluster has lost contact with it.
const NODE_HEALTH: &str = "serfHealth";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceHealth {
    /// Number of registered instances, whatever their checks say.
    pub(super) registered: usize,
    /// Those that are ready or draining.
    pub(super) instances: Vec<Instance>,
    /// Those that are ready or draining but have no usable IP address.
    pub(super) unaddressed: Vec<Unaddressed>,
}

impl ServiceHealth {
    /// What Consul says of instances that are not simply ready, by name.
    pub(super) fn said(&self) -> impl Iterator<Item = (String, String)> {
        let draining = self.instances.iter().filter(|instance| instance.readiness == Readiness::Draining);
        let names = draining.flat_map(|instance| instance.aliases.iter().chain([&instance.name]));
        let maintenance = names.map(|name| (name.clone(), "maintenance in Consul".to_owned()));
        let said = |one: &Unaddressed| row_name(format!("its address in Consul is {:?}, no IP address", one.address));
        let of = move |one: &Unaddressed| one.names.iter().map(|name| (name.clone(), said(one))).collect::<Vec<_>>();
        maintenance.chain(self.unaddressed.iter().flat_map(of))
    }

    pub(super) fn any_ready(&self) -> bool {
        // One without a usable address passes its checks too.
        !self.unaddressed.is_empty() || self.instances.iter().any(|instance| instance.readiness == Readiness::Ready)
    }
}

/// A ready or draining instance without a usable IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unaddressed {
    pub(super) service: String,
    pub(super) node: String,
    /// What it is registered with instead, such as a host name.
    pub(super) address: String,
    /// Names that its row in the table may have.
    pub(super) names: Vec<String>,
}

impl Unaddressed {
    /// As the server role sees it: an occupant keeps its slot unchanged.
    pub(super) fn hidden(&self) -> Hidden {
        Hidden { names: self.names.clone(), readiness: Readiness::Ready, in_service: true }
    }
}

// The fields we need, as in Consul 1.8 to 1.20. A field that a decision depends on is required: a response that fails to
// parse evicts nothing.

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registration {
    node: NodeFields,
    service: ServiceFields,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeFields {
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceFields {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    meta: Option<Meta>,
}

/// The metadata that an operator gave a node or service, as far as it names a zone.
#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    availability_zone: Option<String>,
}

/// The zone of a registration; its own metadata counts before its node's.
fn zone(entry: &Registration) -> Option<String> {
    let of = |meta: &Option<Meta>| {
        let meta = meta.as_ref()?;
        let names = [&meta.zone, &meta.availability_zone];
        names.into_iter().flatten().map(|name| name.trim()).find(|name| !name.is_empty()).map(str::to_owned)
    };
    of(&entry.service.meta).or_else(|| of(&entry.node.meta)).map(row_name)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
}

pub(super) fn parse(service: &str, body: &[u8]) -> Result<ServiceHealth, QueryError> {
    let entries: Vec<Registration> =
        serde_json::from_slice(body).map_err(|error| QueryError::Unreadable(format!("invalid JSON: {error}")))?;
    let registered = entries.len();
    let mut nodes: BTreeMap<&str, BTreeMap<IpAddr, NodeAddress>> = BTreeMap::new();
    let mut unaddressed = Vec::new();
    for entry in &entries {
        let Some(readiness) = readiness(&entry.checks) else { continue };
        let node = entry.node.node.as_str();
        let address = if entry.service.address.is_empty() { &entry.node.address } else { &entry.service.address };
        match address.parse().ok().filter(|address| is_server_address(*address)) {
            Some(address) => {
                let server =
                    nodes.entry(node).or_default().entry(address).or_insert_with(|| NodeAddress::new(readiness));
                server.add(&entry.service.id, readiness, passing(entry.service.weights.as_ref()), zone(entry));
            }
            None => unaddressed.push(Unaddressed {
                service: service.to_owned(),
                node: node.to_owned(),
                address: address.clone(),
                names: vec![row_name(node.to_owned()), full_name(node, &entry.service.id)],
            }),
        }
    }
    let instances = nodes.into_iter().flat_map(|(node, addresses)| named_instances(service, node, addresses)).collect();
    Ok(ServiceHealth { registered, instances, unaddressed })
}

/// Ready if all checks pass, draining in maintenance, else absent: as `?passing` has it, plus the instances in maintenance
/// that `?passing` hides.
fn readiness(checks: &[Check]) -> Option<Readiness> {
    let maintenance =
        |check: &Check| check.check_id == NODE_MAINTENANCE || check.check_id.starts_with(SERVICE_MAINTENANCE);
    if checks.iter().any(maintenance) {
        // Whatever the service's own checks say: a service restarted during maintenance keeps its slot. A lost node does
        // not, though Consul lists it for another three days.
        let gone = checks.iter().any(|check| check.check_id == NODE_HEALTH && check.status == "critical");
        return (!gone).then_some(Readiness::Draining);
    }
    checks.iter().all(|check| check.status == "passing").then_some(Readiness::Ready)
}

/// `Weights.Passing`, clamped to Consul's own range of 1 to 65535.
fn passing(weights: Option<&Weights>) -> u16 {
    let passing = weights.map_or(1, |weights| weights.passing);
    u16::try_from(passing.max(1)).unwrap_or(u16::MAX)
}

/// One address of a node: one server, however many instances of the service share it.
struct NodeAddress {
    /// `Weights.Passing` and zone by service id.
    ids: BTreeMap<String, (u16, Option<String>)>,
    readiness: Readiness,
}

impl NodeAddress {
    fn new(readiness: Readiness) -> Self {
        NodeAddress { ids: BTreeMap::new(), readiness }
    }

    fn add(&mut self, id: &str, readiness: Readiness, passing: u16, zone: Option<String>) {
        self.ids.insert(id.to_owned(), (passing, zone));
        // `Ready` orders before `Draining`.
        self.readiness = self.readiness.min(readiness);
    }
}

/// The instances of one node. A single one is named after the node, several after node and service id. Each keeps the
/// other form as an alias, so that an instance keeps its slot when a second one joins its node and when it leaves again.
fn named_instances(service: &str, node: &str, addresses: BTreeMap<IpAddr, NodeAddress>) -> Vec<Instance> {
    let alone = addresses.len() == 1;
    let instance = |(address, server): (IpAddr, NodeAddress)| {
        let mut names: Vec<String> = server.ids.keys().map(|id| full_name(node, id)).collect();
        if alone {
            names.insert(0, row_name(node.to_owned()));
        } else {
            names.push(row_name(node.to_owned()));
        }
        let name = names.remove(0);
        let passing = server.ids.values().map(|(passing, _)| *passing).max().unwrap_or(1);
        let size = if passing == 1 { Size::Unit } else { Size::Passing(passing) };
        let zone = server.ids.into_values().find_map(|(_, zone)| zone);
        let instance = Instance::new(address, name, service.to_owned(), server.readiness);
        Instance { zone, aliases: names, size, ..instance }
    };
    addresses.into_iter().map(instance).collect()
}

fn full_name(node: &str, id: &str) -> String {
    row_name(format!("{node}/{id}"))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
