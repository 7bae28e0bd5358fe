//! The settings of each role as validated, typed values.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::consul::ConsulApi;
use super::socket::HaproxySocket;
use crate::log::Format;
use crate::selection::{GroupSelection, NamePattern};
use crate::slot::{SlotId, Weight};
use crate::weight::Factor;

/// Settings of both roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// From the start of one turn to the start of the next, 50 ms to 1 h.
    pub interval: Duration,
    /// Number of slots, 1 to [`MAX_SLOT`](crate::slot::MAX_SLOT).
    pub list_size: SlotId,
    /// Name or ARN of the DynamoDB table.
    pub table: String,
    /// Region of the table's ARN.
    pub table_region: Option<String>,
    /// Name or ARN of the table of reports, in the same region.
    pub report_table: Option<String>,
    /// Falls back to the region of the profile or the instance.
    pub region: Option<String>,
    /// Listening address of the Prometheus exporter; `None` turns it off.
    pub exporter: Option<SocketAddr>,
    /// The form of the log's lines.
    pub log_format: Format,
    /// Enables debug log lines.
    pub debug: bool,
    /// Warnings to log at startup, one line each.
    pub warnings: Vec<String>,
}

impl Common {
    /// The region of the table, where the configuration names it.
    pub fn region_of_table(&self) -> Option<&str> {
        self.table_region.as_deref().or(self.region.as_deref())
    }
}

/// Settings of `hsdo --server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Settings of both roles.
    pub common: Common,
    /// The source of instances.
    pub source: SourceSettings,
    /// How the weight of a new server rises.
    pub ramp: RampSettings,
    /// What multiplies it.
    pub weighting: Weighting,
    /// How long to keep servers when too many vanish from every group at once; zero disables the guard.
    pub removal_guard: Duration,
    /// The terminating lifecycle hooks to complete.
    pub hook: Option<HookName>,
    /// How long a drain may take before they are completed in any case.
    pub drain: Duration,
}

/// Which terminating lifecycle hooks of a group are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookName {
    /// The one of this name.
    Named(String),
    /// All of them.
    All,
}

impl HookName {
    /// A name as AWS takes it (Auto Scaling API Reference, "PutLifecycleHook": 1 to 255 of `[A-Za-z0-9\-_\/]`), or `*`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(HookName::All),
            name => {
                let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
                let fits = (1..=255).contains(&name.len()) && name.bytes().all(is_valid);
                fits.then(|| HookName::Named(name.to_owned()))
            }
        }
    }
}

/// The source of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// Auto Scaling groups.
    Aws {
        /// By name, pattern or tag.
        groups: GroupSelection,
        /// What is read of their instances.
        reading: InstanceReading,
    },
    /// Consul services.
    Consul {
        /// Address of the API.
        api: ConsulApi,
        /// At least one, without duplicates, in configured order.
        services: Vec<String>,
    },
}

/// Which address of an instance its servers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressKind {
    /// The primary private IPv4 address, else the primary IPv6 address.
    #[default]
    Private,
    /// The primary IPv6 address.
    Ipv6,
    /// The public IPv4 address.
    Public,
}

impl AddressKind {
    /// Accepts private, ipv6 and public, case-insensitively.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "private" => Some(AddressKind::Private),
            "ipv6" => Some(AddressKind::Ipv6),
            "public" => Some(AddressKind::Public),
            _ => None,
        }
    }

    /// What an instance lacks that has none.
    pub fn word(self) -> &'static str {
        match self {
            AddressKind::Private => "private IPv4 address and no IPv6 address",
            AddressKind::Ipv6 => "IPv6 address",
            AddressKind::Public => "public IPv4 address",
        }
    }
}

/// What the size of an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightBy {
    /// All count alike.
    #[default]
    None,
    /// The `WeightedCapacity` that the group gives it.
    Capacity,
    /// Its cores times threads.
    Vcpu,
}

impl WeightBy {
    /// Accepts none, capacity and vcpu, case-insensitively.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Some(WeightBy::None),
            "capacity" => Some(WeightBy::Capacity),
            "vcpu" => Some(WeightBy::Vcpu),
            _ => None,
        }
    }
}

/// What is read of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceReading {
    /// `SERVER_ADDRESS`.
    pub address: AddressKind,
    /// `SERVER_WEIGHT_BY`.
    pub weight_by: WeightBy,
    /// `SERVER_INSTANCE_TAGS`: whether its tags count.
    pub tags: bool,
    /// `SERVER_SPOT_NOTICE`: whether EC2 is asked which Spot instances it is about to interrupt.
    pub spot_notice: bool,
}

impl Default for InstanceReading {
    /// That of the settings.
    fn default() -> Self {
        let (address, weight_by) = (AddressKind::default(), WeightBy::default());
        InstanceReading { address, weight_by, tags: false, spot_notice: true }
    }
}

/// What weights are multiplied by, besides the size of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weighting {
    /// The size that counts as 1; above 0.
    pub unit: Factor,
    /// `SERVER_ASG_WEIGHTS`, in configured order.
    pub groups: Vec<(NamePattern, Factor)>,
}

impl Weighting {
    /// The factor of a group: that of the first entry that matches, else 1.
    pub fn of_group(&self, group: &str) -> Factor {
        self.groups.iter().find(|(name, _)| name.matches(group)).map_or(Factor::ONE, |(_, factor)| *factor)
    }
}

/// How the weight of a new server rises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RampSettings {
    /// Weight of a new server, 0 to [`MAX_WEIGHT`](crate::slot::MAX_WEIGHT).
    pub min: Weight,
    /// Final weight, `min` to [`MAX_WEIGHT`](crate::slot::MAX_WEIGHT).
    pub max: Weight,
    /// Weight gained per step, 1 to [`MAX_WEIGHT`](crate::slot::MAX_WEIGHT).
    pub step: Weight,
    /// Time between steps, at least 1 µs.
    pub interval: Duration,
}

/// Settings of `hsdo --client`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Settings of both roles.
    pub common: Common,
    /// Address of HAProxy's Runtime API.
    pub socket: HaproxySocket,
    /// The default backends, at least one.
    pub backends: Vec<Backend>,
    /// Put only the servers of `groups` in the default backends. Implies `fallback`.
    pub dedicated: bool,
    /// Groups of the default backends, by name or pattern; at least one if `dedicated`.
    pub groups: Vec<NamePattern>,
    /// Put only the servers of these zones in the default backends; none unless `CLIENT_DEDICATED_ZONE` is true.
    pub zones: Option<ZoneNames>,
    /// If no split and not `all_in_fallback` is set, its slots are kept in maintenance.
    pub fallback: Option<Backend>,
    /// Put the servers of the default backends in the fallback too. Implies `fallback`.
    pub all_in_fallback: bool,
    /// Below this percentage of their fair share the own servers get help from others, 0 to 100; 0 for never.
    pub spill_below: u32,
    /// Keep a new server down until HAProxy's check has passed.
    pub health_gate: bool,
    /// Where the last table is kept.
    pub state_file: Option<StateFile>,
}

impl ClientSettings {
    /// The names of all backends, each once.
    pub fn backend_names(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.backends.iter().chain(&self.fallback).map(|one| one.name.as_str()).collect();
        names.into_iter().collect()
    }
}

/// The zones of the default backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneNames {
    /// The zone that this machine is in.
    Auto,
    /// These, at least one.
    Named(Vec<String>),
}

/// Where the last table is kept, and for how long it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// `CLIENT_STATE_FILE`.
    pub path: PathBuf,
    /// `CLIENT_STATE_MAX_AGE`.
    pub max_age: Duration,
}

/// A HAProxy backend to fill. Base names that share a backend never produce the same server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// 1 to 255 letters, digits and `_.:-`.
    pub name: String,
    /// Prefix of its `server-template`, with the same characters as `name`.
    pub base: String,
    /// Port of its servers, 1 to 65535; `None` leaves each server's port alone.
    pub port: Option<u16>,
}
