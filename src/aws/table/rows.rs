//! How a slot is spelled as an item of the table, both ways. Pure, and the only file that knows attribute names.
//!
//! Key, names, types and the spelling of a free slot are those of the original program, so that each can read the
//! other's table. `HsdoLastASG` is ours, and so is the marker on slot 1's item (`HsdoVersion`, `HsdoHeartbeat`,
//! `HsdoLeader`); the original keeps them when it updates an item, loses them when it puts one, and looks at none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::dynamodb::{Attribute, Item, Update};
use super::number::integer;
use crate::clock::Timestamp;
use crate::marker::{self, Claim, Marker, Stamp};
use crate::slot::{LONGEST_NAME, MAX_SLOT, MAX_WEIGHT, Occupant, Row, Slot, SlotId, Status, Weight, is_servers};
use crate::text::one_line;

/// The key: the slot's number.
pub(crate) const KEY: &str = "BackendServerID";
const ADDRESS: &str = "IPAddress";
const NAME: &str = "ServerName";
const GROUP: &str = "ASG";
const WEIGHT: &str = "Weight";
const STATUS: &str = "BackendServerStatus";
const LAST_STEP: &str = "LastWeightUpdate";
const LAST_GROUP: &str = "HsdoLastASG";

/// What hsdo reads and writes of an item, beside its key.
const OURS: [&str; 7] = [ADDRESS, NAME, GROUP, WEIGHT, STATUS, LAST_STEP, LAST_GROUP];

/// The slot whose item carries the marker.
pub(crate) const MARKED: SlotId = 1;
/// The attributes of the marker: version, heartbeat, leader.
const MARKS: [&str; 3] = ["HsdoVersion", "HsdoHeartbeat", "HsdoLeader"];
/// What a reading of the marker alone asks for; the key is there whenever the item is.
pub(crate) const MARKER: &str = "BackendServerID, HsdoVersion, HsdoHeartbeat, HsdoLeader";

/// How the original spells what a free slot has not.
const NONE: &str = "none";
/// How the original spells the time of a free slot.
const NEVER: &str = "0-0-0 00:00:00.000000";

/// What an item holds of [`OURS`], as it was read: what a later write puts its condition on.
pub(crate) type Raw = [Option<Attribute>; OURS.len()];

/// What slot 1's item holds of the marker, as it was read: what taking the lease puts its condition on.
pub(crate) type RawMarker = [Option<Attribute>; MARKS.len()];

/// An item, taken apart.
pub(crate) enum Entry {
    /// A slot's.
    Slot {
        /// The slot's number.
        id: SlotId,
        /// The row that it is.
        row: Row,
        /// What a later write puts its condition on.
        raw: Arc<Raw>,
        /// The marker, on slot 1's item.
        marker: Option<Box<(RawMarker, Marker)>>,
    },
    /// An item without a usable number, described.
    Stray(String),
}

/// Takes an item apart.
pub(crate) fn entry(item: Item) -> Entry {
    match id(&item) {
        Ok(id) => Entry::Slot {
            id,
            row: row(id, &item),
            marker: (id == MARKED).then(|| Box::new((raw_marker(&item), marker(&item)))),
            raw: Arc::new(raw(item)),
        },
        Err(stray) => Entry::Stray(stray),
    }
}

/// The number of the slot that an item is about. The error describes an item without a usable one.
pub(crate) fn id(item: &Item) -> Result<SlotId, String> {
    match item.get(KEY) {
        Some(Attribute::N(text)) => match integer(text) {
            Some(id) if (1..=u64::from(MAX_SLOT)).contains(&id) => Ok(id as SlotId),
            _ => Err(format!("item with {KEY} {}: not a number of a slot, 1 to {MAX_SLOT}", shown(text))),
        },
        other => Err(format!("item whose {KEY} {}", not_a("number", other))),
    }
}

/// The row that an item is.
pub(crate) fn row(id: SlotId, item: &Item) -> Row {
    match slot(id, item) {
        Ok(slot) => Row::Known(Arc::new(slot)),
        Err(reason) => {
            let address = text(item, ADDRESS).and_then(parse_address).ok();
            Row::Unreadable { reason, address }
        }
    }
}

/// Takes out of an item what a later write puts its condition on.
pub(crate) fn raw(mut item: Item) -> Raw {
    OURS.map(|name| item.remove(name))
}

/// The marker on an item; an attribute that cannot be read counts as missing.
pub(crate) fn marker(item: &Item) -> Marker {
    let number = |name: &str| match item.get(name) {
        Some(Attribute::N(text)) => text.parse().ok().filter(|number| *number <= marker::MOST),
        _ => None,
    };
    let leader = match item.get(MARKS[2]) {
        Some(Attribute::S(text)) => Some(text.clone()),
        _ => None,
    };
    Marker { version: number(MARKS[0]), heartbeat: number(MARKS[1]), leader }
}

/// The marker on an item as it stands there.
pub(crate) fn raw_marker(item: &Item) -> RawMarker {
    MARKS.map(|name| item.get(name).cloned())
}

fn slot(id: SlotId, item: &Item) -> Result<Slot, String> {
    let address = text(item, ADDRESS)?;
    let name = name_of(item, NAME)?;
    let weight = weight(item)?;
    let status = status(text(item, STATUS)?)?;
    let last_step = Timestamp::parse(text(item, LAST_STEP)?);
    let asg = match item.get(GROUP) {
        None => None,
        Some(_) => group(name_of(item, GROUP)?),
    };
    // Only a hint for who comes next: one that cannot be read is none.
    let last_group = match item.get(LAST_GROUP) {
        Some(_) => name_of(item, LAST_GROUP).ok().and_then(group),
        None => None,
    };
    let occupant = match address {
        NONE => None,
        text => Some(Occupant {
            address: parse_address(text)?,
            name: name.to_string(),
            group: asg,
            weight,
            status,
            last_step,
        }),
    };
    Ok(Slot { id, occupant, last_group })
}

fn text<'a>(item: &'a Item, attribute: &str) -> Result<&'a str, String> {
    match item.get(attribute) {
        Some(Attribute::S(text)) => Ok(text),
        other => Err(format!("{attribute} {}", not_a("text", other))),
    }
}

fn not_a(kind: &str, found: Option<&Attribute>) -> String {
    if found.is_none() { "is missing".to_string() } else { format!("is not a {kind}") }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{ADDRESS} {} is not an IP address", shown(text)))?;
    if !is_servers(address) {
        return Err(format!("{ADDRESS} {} is not an address that a server can have", shown(text)));
    }
    Ok(address)
}

fn name_of<'a>(item: &'a Item, attribute: &str) -> Result<&'a str, String> {
    let text = text(item, attribute)?;
    if text.chars().any(char::is_control) {
        return Err(format!("{attribute} {} holds a control character", shown(text)));
    }
    if text.chars().count() > LONGEST_NAME {
        return Err(format!("{attribute} is longer than {LONGEST_NAME} characters"));
    }
    Ok(text)
}

fn group(text: &str) -> Option<String> {
    (!text.is_empty() && text != NONE).then(|| text.to_string())
}

fn weight(item: &Item) -> Result<Weight, String> {
    match item.get(WEIGHT) {
        Some(Attribute::N(text)) => integer(text)
            .and_then(|weight| Weight::try_from(weight).ok())
            .filter(|weight| *weight <= MAX_WEIGHT)
            .ok_or_else(|| format!("{WEIGHT} {} is not a whole number from 0 to {MAX_WEIGHT}", shown(text))),
        other => Err(format!("{WEIGHT} {}", not_a("number", other))),
    }
}

fn status(text: &str) -> Result<Status, String> {
    // A person may have typed it.
    match text.trim().to_ascii_lowercase().as_str() {
        "enabled" => Ok(Status::Enabled),
        "draining" => Ok(Status::Draining),
        "disabled" => Ok(Status::Disabled),
        _ => Err(format!("{STATUS} {} is none of enabled, disabled, draining", shown(text))),
    }
}

/// A text of the table as a log line can carry it.
fn shown(text: &str) -> String {
    format!("\"{}\"", one_line(text, 64))
}

/// The item of a slot, with all that both roles read of it but the marker.
pub(crate) fn item(slot: &Slot) -> Item {
    let attributes = OURS.iter().zip(attributes(slot));
    let named = attributes.filter_map(|(name, value)| Some(((*name).to_string(), value?)));
    key(slot.id).into_iter().chain(named).collect()
}

/// The attributes of a slot as they are written, in the order of [`OURS`].
pub(crate) fn attributes(slot: &Slot) -> Raw {
    let text = |text: &str| Some(Attribute::S(text.to_string()));
    let number = |number: Weight| Some(Attribute::N(number.to_string()));
    let last_group = slot.last_group.clone().map(Attribute::S);
    match &slot.occupant {
        None => [text(NONE), text(NONE), text(NONE), number(0), text("disabled"), text(NEVER), last_group],
        Some(occupant) => {
            let status = match occupant.status {
                Status::Enabled => "enabled",
                Status::Draining => "draining",
                Status::Disabled => "disabled",
            };
            [
                text(&occupant.address.to_string()),
                text(&occupant.name),
                text(occupant.group.as_deref().unwrap_or(NONE)),
                number(occupant.weight),
                text(status),
                occupant.last_step.map_or_else(|| text(NEVER), |time| text(&time.to_string())),
                last_group,
            ]
        }
    }
}

/// The key of a slot's item.
pub(crate) fn key(id: SlotId) -> Item {
    Item::from([(KEY.to_string(), Attribute::N(id.to_string()))])
}

/// The update that makes a slot's item say `wanted` and keeps every attribute that is not ours, on the condition that
/// it still is as `before`; `None` is an item that did not exist.
pub(crate) fn update(id: SlotId, wanted: &Raw, before: Option<&Raw>) -> Update {
    Draft::default().row(wanted, before).update(id)
}

/// The update of slot 1's item that goes with rows, or alone as a heartbeat: the numbers of `stamp`, on the condition
/// that the item names its leader. `row` is what slot 1 itself is to say, and what it said before: a transaction cannot
/// touch an item twice.
pub(crate) fn mark(stamp: &Stamp, row: Option<(&Raw, Option<&Raw>)>) -> Update {
    let draft = match row {
        Some((wanted, before)) => Draft::default().row(wanted, before),
        None => Draft::default(),
    };
    draft.numbers(stamp.version, stamp.heartbeat).led_by(&stamp.leader).update(MARKED)
}

/// The update of slot 1's row alone, on the condition that its item names `leader`.
pub(crate) fn marked_row(leader: &str, wanted: &Raw, before: Option<&Raw>) -> Update {
    Draft::default().row(wanted, before).led_by(leader).update(MARKED)
}

/// The update that takes the lease, on the condition that the marker still is as `before`. `None` is an item that did
/// not exist: it is made as a free slot, since the original ends on an item that lacks one of its attributes.
pub(crate) fn take(claim: &Claim, before: Option<&RawMarker>) -> Update {
    let mut draft = match before {
        Some(_) => Draft::default(),
        None => Draft::default().row(&attributes(&Slot::empty(MARKED)), None),
    };
    draft = draft.numbers(Some(claim.version), claim.heartbeat).set(
        "#leader",
        MARKS[2],
        ":leader",
        Attribute::S(claim.leader.clone()),
    );
    let names = ["#version", "#heartbeat", "#leader"];
    for (index, value) in before.into_iter().flatten().enumerate() {
        draft.expect(names[index], MARKS[index], &format!(":seen{index}"), value.as_ref());
    }
    draft.update(MARKED)
}

/// The update that gives the lease of `leader` back.
pub(crate) fn release(leader: &str) -> Update {
    let mut draft = Draft::default().led_by(leader);
    draft.remove.push("#leader".to_string());
    draft.update(MARKED)
}

/// An update in the making. Names stand for themselves, lest one is a reserved word of DynamoDB now or later.
#[derive(Default)]
struct Draft {
    set: Vec<String>,
    remove: Vec<String>,
    conditions: Vec<String>,
    names: BTreeMap<String, String>,
    values: Item,
}

impl Draft {
    /// Says `wanted`, on the condition that the item still says `before`.
    fn row(mut self, wanted: &Raw, before: Option<&Raw>) -> Self {
        for (index, attribute) in OURS.iter().enumerate() {
            let name = format!("#a{index}");
            match &wanted[index] {
                Some(value) => self = self.set(&name, attribute, &format!(":w{index}"), value.clone()),
                None => {
                    self.names.insert(name.clone(), (*attribute).to_string());
                    self.remove.push(name.clone());
                }
            }
            if let Some(before) = before {
                self.expect(&name, attribute, &format!(":b{index}"), before[index].as_ref());
            }
        }
        if before.is_none() {
            self.expect("#key", KEY, "", None);
        }
        self
    }

    /// The version, where there is one, and the heartbeat.
    fn numbers(mut self, version: Option<u64>, heartbeat: u64) -> Self {
        let numbers =
            [("#version", MARKS[0], ":version", version), ("#heartbeat", MARKS[1], ":heartbeat", Some(heartbeat))];
        for (name, attribute, value, number) in numbers {
            if let Some(number) = number {
                self = self.set(name, attribute, value, Attribute::N(number.to_string()));
            }
        }
        self
    }

    /// On the condition that the item names this leader.
    fn led_by(mut self, leader: &str) -> Self {
        self.expect("#leader", MARKS[2], ":leader", Some(&Attribute::S(leader.to_string())));
        self
    }

    fn set(mut self, name: &str, attribute: &str, key: &str, value: Attribute) -> Self {
        self.names.insert(name.to_string(), attribute.to_string());
        self.set.push(format!("{name} = {key}"));
        self.values.insert(key.to_string(), value);
        self
    }

    /// On the condition that the attribute has this value; `None`: that it is not there.
    fn expect(&mut self, name: &str, attribute: &str, key: &str, value: Option<&Attribute>) {
        self.names.insert(name.to_string(), attribute.to_string());
        match value {
            Some(value) => {
                self.conditions.push(format!("{name} = {key}"));
                self.values.insert(key.to_string(), value.clone());
            }
            None => self.conditions.push(format!("attribute_not_exists({name})")),
        }
    }

    fn update(self, id: SlotId) -> Update {
        let Draft { set, remove, conditions, names, values } = self;
        let part = |verb: &str, parts: &[String]| {
            if parts.is_empty() { String::new() } else { format!("{verb} {}", parts.join(", ")) }
        };
        let expression = format!("{} {}", part("SET", &set), part("REMOVE", &remove));
        let update = expression.trim().to_string();
        Update { key: key(id), update, condition: conditions.join(" AND "), names, values }
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
pub(super) mod tests;
