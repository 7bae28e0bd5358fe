//! The words both roles share: slots, their occupants, and what a source reports.
//!
//! Nothing here reads or writes anything, and nothing here knows how DynamoDB spells a row
//! (`aws::table`) or how HAProxy spells a server (`haproxy`).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;

/// The number of a slot, counted from 1: the `<n>` of HAProxy's server `<baseName><n>`.
pub type SlotId = u32;

/// The highest slot number that hsdo knows: the upper end of `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
pub const MAX_SLOT: SlotId = 10_000;

/// The highest weight of a HAProxy server (HAProxy configuration manual, `weight`: 0 to 256).
pub const MAX_WEIGHT: u16 = 256;

/// The longest name of an instance or a group in the table, in characters: AWS's own limit for a group's name.
pub const MAX_NAME_CHARS: usize = 255;

/// A server's weight, 0 to [`MAX_WEIGHT`].
pub type Weight = u16;

/// Whether a server can have this address.
pub fn is_server_address(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

/// What the table says about an occupied slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Takes its share of the traffic.
    Enabled,
    /// Leaves: keeps its slot, at weight 0 but for the last resort, until its instance is gone.
    Draining,
    /// Taken out by an operator's edit of the row: in maintenance in every backend.
    Disabled,
}

/// The instance that holds a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Where HAProxy sends the traffic; the port is the client's.
    pub address: IpAddr,
    /// The EC2 instance id, or the Consul node.
    pub name: String,
    /// The AutoScaling group or the Consul service; `None` where a row has none.
    pub group: Option<String>,
    /// The weight that HAProxy is to give it.
    pub weight: Weight,
    /// Whether it serves, leaves, or was taken out by hand.
    pub status: Status,
    /// When the weight last changed; `None` where the row's text cannot be read as a time.
    pub last_step: Option<Timestamp>,
}

/// A row of the table that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The row's number.
    pub id: SlotId,
    /// Who holds the slot; `None` is a free slot.
    pub occupant: Option<Occupant>,
    /// The group of the last occupant, remembered for who comes next (`HsdoLastASG`).
    pub last_group: Option<String>,
}

impl Slot {
    /// A free slot that never had a group.
    pub fn empty(id: SlotId) -> Self {
        Slot { id, occupant: None, last_group: None }
    }
}

/// A row as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The row was understood. Shared with whoever read it: a table of which little changes is read every turn.
    Readable(Arc<Slot>),
    /// The row was not: its slot is unknown, and neither role touches it.
    Unreadable {
        /// What is wrong with it, for the log.
        reason: String,
        /// Its address, if at least that can be read: no other slot may hold it.
        address: Option<IpAddr>,
    },
}

/// One whole reading of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The rows by their number, 1 to [`MAX_SLOT`].
    pub rows: BTreeMap<SlotId, Row>,
    /// Items that have no usable number at all, each described for the log.
    pub strays: Vec<String>,
}

impl Table {
    /// The rows that were understood, in the order of their numbers.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.rows.values().filter_map(|row| match row {
            Row::Readable(slot) => Some(slot.as_ref()),
            Row::Unreadable { .. } => None,
        })
    }

    /// A text for each item that was not understood, with its id: what is logged and counted.
    pub fn faults(&self) -> Vec<String> {
        let rows = self.rows.iter().filter_map(|(id, row)| match row {
            Row::Readable(_) => None,
            Row::Unreadable { reason, .. } => Some(format!("slot {id}: {reason}")),
        });
        rows.chain(self.strays.iter().cloned()).collect()
    }
}

/// How many slots are in each state, by the state's name in the metric `hsdo_slots`; `unreadable` is known beside them.
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

/// Whether an instance can take traffic, as its group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// In service and healthy.
    Ready,
    /// Leaving, unhealthy or on its way back: keeps a slot it has, at weight 0, and takes no new one.
    Draining,
    /// In a state that hsdo does not know: keeps a slot it has exactly as it is, and takes no new one.
    Unknown,
}

/// What a source reports of one instance. An absent instance is not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its private address.
    pub address: IpAddr,
    /// Its id.
    pub name: String,
    /// The group or service that it belongs to.
    pub group: String,
    /// Whether it can take traffic.
    pub readiness: Readiness,
    /// Other names under which the table may hold it. A Consul node that carries one instance of a service lends it its
    /// name, and a row written then is still that instance's when a second one joins the node. Empty on AWS.
    pub aliases: Vec<String>,
    /// How many times MAX its full weight is, 1 to 65535: 1 but where its Consul registration says otherwise.
    pub scale: u16,
}

impl Instance {
    /// An instance with no other name, whose full weight is MAX. Its name becomes one that a row can bear.
    pub fn new(address: IpAddr, name: String, group: String, readiness: Readiness) -> Self {
        Instance { address, name: row_name(name), group, readiness, aliases: vec![], scale: 1 }
    }

    /// Whether a row of its address that bears `name` is about this instance.
    pub fn has_name(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// The full weight of an instance whose scale is `scale`: that many times `max`, at most [`MAX_WEIGHT`].
pub fn full_weight(max: Weight, scale: u16) -> Weight {
    max.saturating_mul(scale.max(1)).min(MAX_WEIGHT)
}

/// `name` as a row can bear it and be read again: control characters escaped, and cut at [`MAX_NAME_CHARS`]. A source's
/// names are free text (a node of Consul may be called anything), and a row that cannot be read is a slot lost.
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

/// An instance that its group lists, but to which no traffic can be sent: the source does not tell its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The names under which the table may hold it; the first one is for the log.
    pub names: Vec<String>,
    /// What its group says: an occupant of that name drains, or is kept as it is.
    pub readiness: Readiness,
    /// Whether its group has it in service, so that it is missed.
    pub in_service: bool,
}

/// An instance in a state that hsdo does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownState {
    /// Its id.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The kind of state, and the word that the source has for it.
    pub state: String,
}

/// What a source knows of an occupant that it does not list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has ended, or its group has put it aside.
    Gone,
    /// The source denies that there is such an instance, any more or here.
    NotFound,
    /// It runs, or nothing was found out about it.
    Unconfirmed,
}

/// What a source says of those occupants that it was asked about and does not list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// Nothing: they are gone.
    #[default]
    Gone,
    /// What it knows of each, by name. One that is not here was not asked about.
    Fates(BTreeMap<String, Fate>),
}

/// One whole answer of a source. A partial answer is an error and never gets here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Every instance that has an address and is not absent. Those that are not in service may be left out where
    /// the source was not asked about them: only an occupant's state matters then.
    pub instances: Vec<Instance>,
    /// Configured groups that the source does not know: their occupants are kept as they are.
    pub missing_groups: Vec<String>,
    /// Instances that their group lists, but whose address is not told: an occupant keeps its slot.
    pub hidden: Vec<Hidden>,
    /// Instances in a state that hsdo does not know.
    pub unknown_states: Vec<UnknownState>,
    /// The occupants that no group lists.
    pub unlisted: Unlisted,
}

impl Observation {
    /// Whether it says something of each of these occupants, so that nothing more need be asked about them.
    pub fn covers(&self, names: &[&str]) -> bool {
        let Unlisted::Fates(fates) = &self.unlisted else { return true };
        let mut told: HashSet<&str> = fates.keys().map(String::as_str).collect();
        told.extend(self.instances.iter().map(|instance| instance.name.as_str()));
        told.extend(self.hidden.iter().flat_map(|hidden| &hidden.names).map(String::as_str));
        names.iter().all(|name| told.contains(name))
    }

    /// The names of instances that are in service for their groups, and cannot be reached.
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
    fn names_become_what_a_row_can_bear() {
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
        fn whatever_the_name_it_is_short_plain_and_stays_itself(name in "(?s:.){0,300}") {
            let text = row_name(name);
            prop_assert!(text.chars().count() <= MAX_NAME_CHARS && !text.contains(char::is_control));
            prop_assert_eq!(row_name(text.clone()), text);
        }
    }
}
