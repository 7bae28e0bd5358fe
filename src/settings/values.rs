//! What a role runs on, as typed values: what may stand in each, whatever it came from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::consul::ConsulApi;
use super::socket::HaproxySocket;
use crate::slot::{SlotId, Weight};

/// What both roles need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// From the start of one turn to the start of the next, 50 ms to one hour.
    pub interval: Duration,
    /// The number of slots, 1 to [`MAX_SLOT`](crate::slot::MAX_SLOT).
    pub list_size: SlotId,
    /// The name of the DynamoDB table, or its ARN.
    pub table: String,
    /// The table's region, where it is named by its ARN.
    pub table_region: Option<String>,
    /// The region, where the configuration names one; else the profile's or the instance's own holds.
    pub region: Option<String>,
    /// Where the Prometheus exporter listens; `None` turns it off.
    pub exporter: Option<SocketAddr>,
    /// Whether the log shows debug lines.
    pub debug: bool,
    /// What is no fault of the configuration and will surprise, a line each: the log says it at a start.
    pub notes: Vec<String>,
}

/// What `hsdo --server` runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// What both roles need.
    pub common: Common,
    /// Where the instances come from.
    pub source: SourceSettings,
    /// How a new server gains weight.
    pub ramp: RampSettings,
    /// How long servers are kept that leave every group too many at once; zero: not at all.
    pub removal_guard: Duration,
}

/// Where the instances come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// AutoScaling groups.
    Aws {
        /// Their names, at least one, none twice, in the order of the configuration.
        groups: Vec<String>,
    },
    /// Services of Consul.
    Consul {
        /// Where Consul is asked.
        api: ConsulApi,
        /// Their names, at least one, none twice, in the order of the configuration.
        services: Vec<String>,
    },
}

/// How a new server gains weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RampSettings {
    /// The weight of a new server, 0 to [`MAX_WEIGHT`](crate::slot::MAX_WEIGHT).
    pub min: Weight,
    /// The weight that it reaches in the end, `min` to [`MAX_WEIGHT`](crate::slot::MAX_WEIGHT).
    pub max: Weight,
    /// What it gains at each step, 1 to [`MAX_WEIGHT`](crate::slot::MAX_WEIGHT).
    pub step: Weight,
    /// The time between two steps, at least one microsecond.
    pub interval: Duration,
}

/// What `hsdo --client` runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// What both roles need.
    pub common: Common,
    /// HAProxy's Runtime API socket.
    pub socket: HaproxySocket,
    /// The default backends, at least one.
    pub backends: Vec<Backend>,
    /// Whether only the servers of `groups` stand in the default backends. `fallback` is there then.
    pub dedicated: bool,
    /// The groups of the default backends; at least one when `dedicated`.
    pub groups: Vec<String>,
    /// The fallback backend. Where neither `dedicated` nor `all_in_fallback` is set, its slots are in maintenance.
    pub fallback: Option<Backend>,
    /// Whether the servers of the default backends stand in the fallback too. `fallback` is there then.
    pub all_in_fallback: bool,
    /// Whether a new server is down until HAProxy's check of it has passed.
    pub health_gate: bool,
    /// Where the last table is kept.
    pub state_file: Option<StateFile>,
}

/// Where the last table is kept, and for how long it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// `CLIENT_STATE_FILE`.
    pub path: PathBuf,
    /// `CLIENT_STATE_MAX_AGE`.
    pub max_age: Duration,
}

/// A backend of HAProxy that hsdo fills. No two of one configuration with the same `name` have base names whose
/// servers could be confused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name: letters, digits and `_.:-`, 1 to 255 of them.
    pub name: String,
    /// The prefix of its `server-template`, made as `name` is.
    pub base: String,
    /// The port of its servers, 1 to 65535; none leaves the port of each server alone.
    pub port: Option<u16>,
}
