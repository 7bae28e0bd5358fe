//! From the body of `/v1/health/service/<name>` to instances: which are ready, what they are called, how much they weigh.
//! Pure; knows nothing of HTTP, of tokens, or of the table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::error::Cause;
use crate::slot::{Hidden, Instance, Readiness, is_server_address, row_name};

/// The check by which Consul puts a whole node into maintenance (`/v1/agent/maintenance`).
const NODE_MAINTENANCE: &str = "_node_maintenance";
/// The start of the check by which it puts one service of a node into maintenance (`/v1/agent/service/maintenance`).
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
/// The check of every node that has an agent: critical once the others do not hear of it any more.
const NODE_HEALTH: &str = "serfHealth";

/// What Consul says of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// How many instances are registered, whatever their checks say.
    pub(super) registered: usize,
    /// Those that are ready or draining, and have an address.
    pub(super) instances: Vec<Instance>,
    /// Those that are ready or draining, but have no IP address to send traffic to.
    pub(super) unaddressed: Vec<Unaddressed>,
}

impl Health {
    /// Whether any instance passes its checks.
    pub(super) fn any_ready(&self) -> bool {
        // One without a usable address passes too: it is known to be there.
        !self.unaddressed.is_empty() || self.instances.iter().any(|instance| instance.readiness == Readiness::Ready)
    }
}

/// An instance that is there, but not by an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unaddressed {
    /// The service.
    pub(super) service: String,
    /// The node that carries it.
    pub(super) node: String,
    /// What stands in the address's place.
    pub(super) address: String,
    /// The names under which the table may hold it.
    pub(super) names: Vec<String>,
}

impl Unaddressed {
    /// For the decision: whoever has a slot keeps it as it is.
    pub(super) fn hidden(&self) -> Hidden {
        Hidden { names: self.names.clone(), readiness: Readiness::Ready, in_service: true }
    }
}

// The fields that are needed, of Consul 1.8 to 1.20; all others may come and go. A field that a decision rests on is
// not optional: without it the answer cannot be read, and an answer that cannot be read removes nobody.

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    #[serde(default)]
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    weights: Option<Weights>,
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

/// Reads a whole answer about `service`.
pub(super) fn read(service: &str, body: &[u8]) -> Result<Health, Cause> {
    let entries: Vec<Entry> =
        serde_json::from_slice(body).map_err(|error| Cause::Unreadable(format!("its JSON: {error}")))?;
    let registered = entries.len();
    let mut nodes: BTreeMap<&str, BTreeMap<IpAddr, Place>> = BTreeMap::new();
    let mut unaddressed = Vec::new();
    for entry in &entries {
        let Some(readiness) = readiness(&entry.checks) else { continue };
        let node = entry.node.node.as_str();
        let address = if entry.service.address.is_empty() { &entry.node.address } else { &entry.service.address };
        match address.parse().ok().filter(|address| is_server_address(*address)) {
            Some(address) => {
                let place = nodes.entry(node).or_default().entry(address).or_insert_with(|| Place::new(readiness));
                place.add(&entry.service.id, readiness, scale(entry.service.weights.as_ref()));
            }
            None => unaddressed.push(Unaddressed {
                service: service.to_owned(),
                node: node.to_owned(),
                address: address.clone(),
                names: vec![row_name(node.to_owned()), full_name(node, &entry.service.id)],
            }),
        }
    }
    let instances = nodes.into_iter().flat_map(|(node, places)| named(service, node, places)).collect();
    Ok(Health { registered, instances, unaddressed })
}

/// What the checks of an instance say: all passing is ready, in maintenance is draining, anything else is absent.
/// (That is what `?passing` gives, and the maintenance besides, which `?passing` hides.)
fn readiness(checks: &[Check]) -> Option<Readiness> {
    let maintenance =
        |check: &Check| check.check_id == NODE_MAINTENANCE || check.check_id.starts_with(SERVICE_MAINTENANCE);
    if checks.iter().any(maintenance) {
        // Whatever the service's own checks say: restarted under maintenance it keeps its slot. A node that is gone
        // does not: Consul lists it for another three days.
        let gone = checks.iter().any(|check| check.check_id == NODE_HEALTH && check.status == "critical");
        return (!gone).then_some(Readiness::Draining);
    }
    checks.iter().all(|check| check.status == "passing").then_some(Readiness::Ready)
}

/// `Weights.Passing`, which Consul keeps from 1 to 65535.
fn scale(weights: Option<&Weights>) -> u16 {
    let passing = weights.map_or(1, |weights| weights.passing);
    u16::try_from(passing.max(1)).unwrap_or(u16::MAX)
}

/// One address of a node: one server, however many instances of the service have it.
struct Place {
    /// The service ids at this address, and the scale of each.
    ids: BTreeMap<String, u16>,
    readiness: Readiness,
}

impl Place {
    fn new(readiness: Readiness) -> Self {
        Place { ids: BTreeMap::new(), readiness }
    }

    fn add(&mut self, id: &str, readiness: Readiness, scale: u16) {
        self.ids.insert(id.to_owned(), scale);
        // Ready comes before draining.
        self.readiness = self.readiness.min(readiness);
    }
}

/// The instances of one node. The node's name is enough where it carries one; where it carries several, each is called
/// after the node and its service id. Either name is an alias of the other, so that an instance that was alone keeps
/// its slot when a second one joins its node, and when that one leaves.
fn named(service: &str, node: &str, places: BTreeMap<IpAddr, Place>) -> Vec<Instance> {
    let alone = places.len() == 1;
    let instance = |(address, place): (IpAddr, Place)| {
        let mut names: Vec<String> = place.ids.keys().map(|id| full_name(node, id)).collect();
        if alone {
            names.insert(0, row_name(node.to_owned()));
        } else {
            names.push(row_name(node.to_owned()));
        }
        let name = names.remove(0);
        let scale = place.ids.values().copied().max().unwrap_or(1);
        let instance = Instance::new(address, name, service.to_owned(), place.readiness);
        Instance { aliases: names, scale, ..instance }
    };
    places.into_iter().map(instance).collect()
}

fn full_name(node: &str, id: &str) -> String {
    row_name(format!("{node}/{id}"))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
