//! Types that both roles share: slots, their occupants, and what a source reports.
//!
//! No I/O, and no wire formats: `aws::table` maps slots to DynamoDB items, `haproxy` to servers.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::weight::Size;
pub use crate::weight::{MAX_WEIGHT, Weight};

/// The number of a slot, counted from 1: the `<n>` of HAProxy's server `<baseName><n>`.
pub type SlotId = u32;

/// The highest slot number, and the maximum of `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
pub const MAX_SLOT: SlotId = 10_000;

/// The longest name of an instance or group in the table, in characters: AWS's limit for group names.
pub const MAX_NAME_CHARS: usize = 255;

/// Whether this is a unicast address that a server can have.
pub fn is_server_address(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

/// What the table says about an occupied slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Takes its share of the traffic.
    Enabled,
    /// Leaving: keeps its slot until its instance is gone, at weight 0 unless it is the last resort.
    Draining,
    /// Taken out by an operator who edited the row: in maintenance in every backend.
    Disabled,
}

impl Status {
    /// The word for it, in the table and everywhere else.
    pub fn word(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Draining => "draining",
            Status::Disabled => "disabled",
        }
    }
}

/// The instance that holds a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Where HAProxy sends traffic. The port is a client setting.
    pub address: IpAddr,
    /// The EC2 instance id, or the Consul node.
    pub name: String,
    /// The Auto Scaling group or Consul service; `None` if the row has none.
    pub group: Option<String>,
    /// The availability zone (`HsdoZone`); `None` if it is not known.
    pub zone: Option<String>,
    /// The port that it listens on (`HsdoPort`); `None` for the client's own setting.
    pub port: Option<u16>,
    /// Its weight in HAProxy.
    pub weight: Weight,
    /// Whether it serves, is leaving, or was disabled by an operator.
    pub status: Status,
    /// When the weight last changed; `None` if the row's timestamp does not parse.
    pub last_step: Option<Timestamp>,
    /// Since when it drains, by AWS's clock (`HsdoDrainSince`); `None` if it does not.
    pub drain_since: Option<Timestamp>,
}

/// A slot as its row describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot's number.
    pub id: SlotId,
    /// The instance that holds the slot; `None` if it is free.
    pub occupant: Option<Occupant>,
    /// The group of the last occupant (`HsdoLastASG`): its next instance prefers this slot.
    pub last_group: Option<String>,
    /// The zone of the last occupant (`HsdoLastZone`): of its group's instances, the next one in that zone prefers this slot.
    pub last_zone: Option<String>,
}

impl Slot {
    /// A free slot that never had a group.
    pub fn empty(id: SlotId) -> Self {
        Slot { id, occupant: None, last_group: None, last_zone: None }
    }
}

/// A row as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A row that parsed. Shared, because most rows do not change from one read to the next.
    Readable(Arc<Slot>),
    /// A row that did not parse. Neither role touches its slot.
    Unreadable {
        /// What is wrong with it.
        reason: String,
        /// Its address, if that much parsed: no other slot may hold it.
        address: Option<IpAddr>,
    },
}

/// One complete reading of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The rows by their number, 1 to [`MAX_SLOT`].
    pub rows: BTreeMap<SlotId, Row>,
    /// Descriptions of items without a valid slot number.
    pub strays: Vec<String>,
}

impl Table {
    /// The readable rows, in slot order.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.rows.values().filter_map(|row| match row {
            Row::Readable(slot) => Some(slot.as_ref()),
            Row::Unreadable { .. } => None,
        })
    }

    /// The slots whose rows did not parse, in order.
    pub fn unreadable(&self) -> impl Iterator<Item = SlotId> {
        self.rows.iter().filter(|(_, row)| matches!(row, Row::Unreadable { .. })).map(|(id, _)| *id)
    }

    /// Describes each unreadable item, with its id.
    pub fn faults(&self) -> Vec<String> {
        let rows = self.rows.iter().filter_map(|(id, row)| match row {
            Row::Readable(_) => None,
            Row::Unreadable { reason, .. } => Some(format!("slot {id}: {reason}")),
        });
        rows.chain(self.strays.iter().cloned()).collect()
    }
}

/// Slots by state, named as in the metric `hsdo_slots`. The caller counts the `unreadable` rows.
pub fn counts_by_state<'a>(slots: impl Iterator<Item = &'a Slot>, unreadable: usize) -> [(&'static str, usize); 5] {
    let mut counts = [("enabled", 0), ("draining", 0), ("disabled", 0), ("free", 0), ("unreadable", unreadable)];
    for slot in slots {
        let state = match slot.occupant.as_ref().map(|occupant| occupant.status) {
            Some(Status::Enabled) => 0,
            Some(Status::Draining) => 1,
            Some(Status::Disabled) => 2,
            None => 3,
        };
        counts[state].1 += 1;
    }
    counts
}

/// Whether an instance can take traffic, according to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// In service and healthy.
    Ready,
    /// Leaving, unhealthy or about to return: keeps its slot, at weight 0, and gets no new one.
    Draining,
    /// In a state unknown to hsdo: its slot stays exactly as it is, and it gets no new one.
    Unknown,
}

/// An instance as a source reports it. Absent instances are not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The private address.
    pub address: IpAddr,
    /// The EC2 instance id, or the Consul node.
    pub name: String,
    /// The group or service it belongs to.
    pub group: String,
    /// Its availability zone, if the source tells.
    pub zone: Option<String>,
    /// Whether it can take traffic.
    pub readiness: Readiness,
    /// Other names that a row may have for it. A single instance on a Consul node goes by the node's name, and its row
    /// keeps that name when a second instance joins the node. Empty on AWS.
    pub aliases: Vec<String>,
    /// What its weights are multiplied by, before the factor of its group.
    pub size: Size,
    /// The port of its tag `hsdo:port`.
    pub port: Option<u16>,
}

impl Instance {
    /// An instance of one unit, without zone, aliases or port. The name is sanitized by [`row_name`].
    pub fn new(address: IpAddr, name: String, group: String, readiness: Readiness) -> Self {
        let name = row_name(name);
        Instance { address, name, group, zone: None, readiness, aliases: vec![], size: Size::Unit, port: None }
    }

    /// Whether `name` is this instance's name or one of its aliases.
    pub fn has_name(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// Whether a group of this name can be told in a row: `none` there is no group.
pub fn is_group_name(name: &str) -> bool {
    name != "none" && !name.chars().any(char::is_control) && (1..=MAX_NAME_CHARS).contains(&name.chars().count())
}

/// Makes `name` safe for a row: escapes control characters and truncates at [`MAX_NAME_CHARS`]. Names from a source are free
/// text (a Consul node may have any name), and a row that does not parse is a lost slot.
pub fn row_name(name: String) -> String {
    if !name.contains(char::is_control) && name.chars().nth(MAX_NAME_CHARS).is_none() {
        return name;
    }
    let mut text = String::with_capacity(name.len());
    for char in name.chars() {
        if char.is_control() { text.extend(char.escape_default()) } else { text.push(char) }
    }
    if let Some((end, _)) = text.char_indices().nth(MAX_NAME_CHARS) {
        text.truncate(end);
    }
    text
}

/// An instance that its group lists, but whose address the source does not report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The names that a row may have for it. The first one is logged.
    pub names: Vec<String>,
    /// According to its group. [`Readiness::Draining`] drains its slot, anything else keeps the slot as it is.
    pub readiness: Readiness,
    /// Whether its group has it in service.
    pub in_service: bool,
}

/// An instance in a state unknown to hsdo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownState {
    /// The instance.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The kind of state and its value, as in `lifecycle state "Foo"`.
    pub state: String,
}

/// An instance that a terminating lifecycle hook holds back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The instance.
    pub name: String,
    /// Its group.
    pub group: String,
}

/// A tag of an instance that cannot be read. It counts as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyTag {
    /// The instance.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The tag and its value, as in `hsdo:port="http"`.
    pub tag: String,
    /// Completes "expected ...".
    pub expected: &'static str,
}

/// What a source says about an occupant that no group lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Terminated, or set aside by its group.
    Gone,
    /// No such instance, any more or in this account and region.
    NotFound,
    /// It runs, or its state could not be determined.
    Unconfirmed,
}

/// What a source says about the occupants that it does not list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// All of them are gone.
    #[default]
    Gone,
    /// The fate of each, by name. The source was not asked about any others.
    Fates(BTreeMap<String, Fate>),
}

/// One complete answer of a source. A partial answer is an error instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Every present instance with an address. Those out of service may be missing if they are not occupants that the
    /// source was asked about.
    pub instances: Vec<Instance>,
    /// The groups that exist, in the order in which their instances are seated.
    pub groups: Vec<String>,
    /// Configured groups that do not exist, and patterns and tags that match none, as they are spelt. Their occupants are kept as
    /// they are.
    pub missing_groups: Vec<String>,
    /// Patterns and tags could not be looked for yet: `missing_groups` may be there.
    pub is_partial: bool,
    /// Listed instances without an address. They keep the slot they have.
    pub hidden: Vec<Hidden>,
    /// Instances in a state unknown to hsdo.
    pub unknown_states: Vec<UnknownState>,
    /// Instances that a terminating lifecycle hook holds back, those without an address or a slot too.
    pub waiting: Vec<Waiting>,
    /// Tags that cannot be read.
    pub faulty_tags: Vec<FaultyTag>,
    /// The occupants that no group lists.
    pub unlisted: Unlisted,
    /// Instances that the source was asked about and that have ended for good, as EC2's `terminated`, by their names. Empty for
    /// Consul, where a name may come back.
    pub ended: BTreeSet<String>,
    /// What the source says of instances that are not simply ready, by each of their names, as in
    /// `lifecycle state "Terminating:Wait"`. For messages; no decision depends on it.
    pub said: BTreeMap<String, String>,
}

impl Observation {
    /// What is known when the source says nothing: any instance may be of any of the configured groups, spelt as in `entries`.
    pub fn unknown(entries: impl Iterator<Item = String>) -> Self {
        Observation {
            missing_groups: entries.collect(),
            unlisted: Unlisted::Fates(BTreeMap::new()),
            ..Observation::default()
        }
    }

    /// Whether it accounts for each of these occupants, so that the source need not be asked again.
    pub fn covers(&self, names: &[&str]) -> bool {
        let Unlisted::Fates(fates) = &self.unlisted else { return true };
        let mut covered: HashSet<&str> = fates.keys().map(String::as_str).collect();
        covered.extend(self.instances.iter().map(|instance| instance.name.as_str()));
        covered.extend(self.hidden.iter().flat_map(|hidden| &hidden.names).map(String::as_str));
        names.iter().all(|name| covered.contains(name))
    }

    /// The names of instances in service that have no address.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.hidden
            .iter()
            .filter(|hidden| hidden.in_service)
            .filter_map(|hidden| hidden.names.first().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_made_safe_for_a_row() {
        for (name, expected) in [
            ("i-0a", "i-0a".to_owned()),
            ("node é/web \"1\"", "node é/web \"1\"".to_owned()),
            ("a\nb\u{1b}[2J\u{85}", "a\\nb\\u{1b}[2J\\u{85}".to_owned()),
            (&"é".repeat(300), "é".repeat(MAX_NAME_CHARS)),
        ] {
            assert_eq!(row_name(name.to_owned()), expected);
        }
    }

    proptest! {
        #[test]
        fn any_name_becomes_short_and_plain_once_and_for_all(name in "(?s:.){0,300}") {
            let text = row_name(name);
            prop_assert!(text.chars().count() <= MAX_NAME_CHARS && !text.contains(char::is_control));
            prop_assert_eq!(row_name(text.clone()), text);
        }
    }
}
