//! Converts slots to items of the table and back. Pure, and the only file that knows the names of a slot's attributes.
//!
//! Key, names, types and free slots are encoded as in the original program, so that each can read the other's table.
//! `HsdoLastASG`, `HsdoZone`, `HsdoLastZone`, `HsdoPort`, `HsdoDrainSince` and the marker on slot 1's item (`HsdoVersion`,
//! `HsdoHeartbeat`, `HsdoLeader`, `HsdoBlind`) are ours, as is `HsdoOrders` (`orders`): the original ignores them, keeps them when it
//! updates an item, and loses them when it puts one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::dynamodb::{Attribute, Item, Update};
use super::number::integer;
use crate::clock::Timestamp;
use crate::marker::{self, Claim, Marker, Stamp};
use crate::slot::{
    MAX_NAME_CHARS, MAX_SLOT, MAX_WEIGHT, Occupant, Row, Slot, SlotId, Status, Weight, is_server_address,
};
use crate::text::one_line;

/// The key attribute: the slot's number.
pub(crate) const KEY: &str = "BackendServerID";
const ADDRESS: &str = "IPAddress";
const NAME: &str = "ServerName";
const GROUP: &str = "ASG";
const WEIGHT: &str = "Weight";
const STATUS: &str = "BackendServerStatus";
const LAST_STEP: &str = "LastWeightUpdate";
const LAST_GROUP: &str = "HsdoLastASG";
const ZONE: &str = "HsdoZone";
const LAST_ZONE: &str = "HsdoLastZone";
const PORT: &str = "HsdoPort";
const DRAIN_SINCE: &str = "HsdoDrainSince";

/// The attributes hsdo reads and writes, besides the key.
const ROW_ATTRIBUTES: [&str; 11] =
    [ADDRESS, NAME, GROUP, WEIGHT, STATUS, LAST_STEP, LAST_GROUP, ZONE, LAST_ZONE, PORT, DRAIN_SINCE];

/// The orders on slot 1's item.
pub(crate) const ORDERS: &str = "HsdoOrders";
/// The slot whose item carries the marker.
pub(crate) const MARKER_SLOT: SlotId = 1;
/// The attributes of the marker that a claim depends on: version, heartbeat, leader.
const MARKER_NAMES: [&str; 3] = ["HsdoVersion", "HsdoHeartbeat", "HsdoLeader"];
/// The attribute of a leader that cannot see its instances, whatever its value. The heartbeat changes whenever it comes or goes.
const BLIND: &str = "HsdoBlind";
/// The projection that reads the marker alone; the key tells a missing item from one without a marker.
pub(crate) const MARKER_PROJECTION: &str = "BackendServerID, HsdoVersion, HsdoHeartbeat, HsdoLeader, HsdoBlind";

/// The original's placeholder in a free slot.
const NONE: &str = "none";
/// The original's timestamp of a free slot.
const NEVER: &str = "0-0-0 00:00:00.000000";

/// An item's [`ROW_ATTRIBUTES`] as read: the condition of a later write.
pub(crate) type RowAttributes = [Option<Attribute>; ROW_ATTRIBUTES.len()];

/// The marker's attributes as read: the condition of a claim.
pub(crate) type MarkerAttributes = [Option<Attribute>; MARKER_NAMES.len()];

/// What slot 1's item holds besides its slot.
pub(crate) struct MarkerItem {
    /// The condition of a claim.
    pub(crate) attributes: MarkerAttributes,
    pub(crate) marker: Marker,
    /// As stored: `orders` reads it.
    pub(crate) orders: Option<Attribute>,
}

pub(crate) enum ParsedItem {
    /// A slot.
    Slot {
        /// The slot's number.
        id: SlotId,
        row: Row,
        /// The condition of a later write.
        raw: Arc<RowAttributes>,
        /// On slot 1's item.
        marker: Option<Box<MarkerItem>>,
    },
    /// The description of an item without a valid slot number.
    Stray(String),
}

pub(crate) fn parse_item(item: Item) -> ParsedItem {
    match id(&item) {
        Ok(id) => ParsedItem::Slot {
            id,
            row: row(id, &item),
            marker: (id == MARKER_SLOT).then(|| Box::new(marker_item(&item))),
            raw: Arc::new(row_attributes(item)),
        },
        Err(stray) => ParsedItem::Stray(stray),
    }
}

fn marker_item(item: &Item) -> MarkerItem {
    MarkerItem { attributes: marker_attributes(item), marker: marker(item), orders: item.get(ORDERS).cloned() }
}

/// The slot number of an item. The error describes an item without a valid one.
pub(crate) fn id(item: &Item) -> Result<SlotId, String> {
    match item.get(KEY) {
        Some(Attribute::N(text)) => match integer(text) {
            Some(id) if (1..=u64::from(MAX_SLOT)).contains(&id) => Ok(id as SlotId),
            _ => Err(format!("item with {KEY} {}: not a slot number, 1 to {MAX_SLOT}", quoted(text))),
        },
        other => Err(format!("item whose {KEY} {}", mismatch("number", other))),
    }
}

/// The row of an item.
pub(crate) fn row(id: SlotId, item: &Item) -> Row {
    match slot(id, item) {
        Ok(slot) => Row::Readable(Arc::new(slot)),
        Err(reason) => {
            let address = text(item, ADDRESS).and_then(parse_address).ok();
            Row::Unreadable { reason, address }
        }
    }
}

/// The condition of a later write.
pub(crate) fn row_attributes(mut item: Item) -> RowAttributes {
    ROW_ATTRIBUTES.map(|name| item.remove(name))
}

/// The marker on an item; an unreadable attribute counts as missing.
pub(crate) fn marker(item: &Item) -> Marker {
    let number = |name: &str| match item.get(name) {
        Some(Attribute::N(text)) => text.parse().ok().filter(|number| *number <= marker::MAX_COUNTER),
        _ => None,
    };
    let leader = match item.get(MARKER_NAMES[2]) {
        Some(Attribute::S(text)) => Some(text.clone()),
        _ => None,
    };
    let blind = item.contains_key(BLIND);
    Marker { version: number(MARKER_NAMES[0]), heartbeat: number(MARKER_NAMES[1]), leader, blind }
}

/// The marker's attributes as stored.
pub(crate) fn marker_attributes(item: &Item) -> MarkerAttributes {
    MARKER_NAMES.map(|name| item.get(name).cloned())
}

fn slot(id: SlotId, item: &Item) -> Result<Slot, String> {
    let address = text(item, ADDRESS)?;
    let name = valid_name(item, NAME)?;
    let weight = weight(item)?;
    let status = status(text(item, STATUS)?)?;
    let last_step = Timestamp::parse(text(item, LAST_STEP)?);
    let asg = match item.get(GROUP) {
        None => None,
        Some(_) => group(valid_name(item, GROUP)?),
    };
    // Ours, which the server corrects: an unreadable one counts as absent.
    let ours = |attribute: &str| item.get(attribute).and_then(|_| valid_name(item, attribute).ok()).and_then(group);
    // The same, of a slot that drains.
    let drain_since = text(item, DRAIN_SINCE).ok().and_then(Timestamp::parse);
    let occupant = match address {
        NONE => None,
        text => Some(Occupant {
            address: parse_address(text)?,
            name: name.to_string(),
            group: asg,
            zone: ours(ZONE),
            port: port(item)?,
            weight,
            status,
            last_step,
            drain_since,
        }),
    };
    Ok(Slot { id, occupant, last_group: ours(LAST_GROUP), last_zone: ours(LAST_ZONE) })
}

fn text<'a>(item: &'a Item, attribute: &str) -> Result<&'a str, String> {
    match item.get(attribute) {
        Some(Attribute::S(text)) => Ok(text),
        other => Err(format!("{attribute} {}", mismatch("string", other))),
    }
}

fn mismatch(kind: &str, found: Option<&Attribute>) -> String {
    if found.is_none() { "is missing".to_string() } else { format!("is not a {kind}") }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{ADDRESS} {} is not an IP address", quoted(text)))?;
    if !is_server_address(address) {
        return Err(format!("{ADDRESS} {} is not an address that a server can have", quoted(text)));
    }
    Ok(address)
}

fn valid_name<'a>(item: &'a Item, attribute: &str) -> Result<&'a str, String> {
    let text = text(item, attribute)?;
    if text.chars().any(char::is_control) {
        return Err(format!("{attribute} {} holds a control character", quoted(text)));
    }
    if text.chars().count() > MAX_NAME_CHARS {
        return Err(format!("{attribute} is longer than {MAX_NAME_CHARS} characters"));
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
            .ok_or_else(|| format!("{WEIGHT} {} is not a whole number from 0 to {MAX_WEIGHT}", quoted(text))),
        other => Err(format!("{WEIGHT} {}", mismatch("number", other))),
    }
}

/// An absent one is the client's own.
fn port(item: &Item) -> Result<Option<u16>, String> {
    match item.get(PORT) {
        None => Ok(None),
        Some(Attribute::N(text)) => {
            match integer(text).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
                Some(port) => Ok(Some(port)),
                None => Err(format!("{PORT} {} is not a port from 1 to {}", quoted(text), u16::MAX)),
            }
        }
        other => Err(format!("{PORT} {}", mismatch("number", other))),
    }
}

fn status(text: &str) -> Result<Status, String> {
    // May have been edited by hand.
    match text.trim().to_ascii_lowercase().as_str() {
        "enabled" => Ok(Status::Enabled),
        "draining" => Ok(Status::Draining),
        "disabled" => Ok(Status::Disabled),
        _ => Err(format!("{STATUS} {} is not one of enabled, disabled, draining", quoted(text))),
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text, 64))
}

/// A slot's attributes, in the order of [`ROW_ATTRIBUTES`].
pub(crate) fn encode(slot: &Slot) -> RowAttributes {
    let text = |text: &str| Some(Attribute::S(text.to_string()));
    let number = |number: u16| Some(Attribute::N(number.to_string()));
    let name = |name: &Option<String>| name.clone().map(Attribute::S);
    let (last_group, last_zone) = (name(&slot.last_group), name(&slot.last_zone));
    match &slot.occupant {
        None => {
            let none = || text(NONE);
            [none(), none(), none(), number(0), text("disabled"), text(NEVER), last_group, None, last_zone, None, None]
        }
        Some(occupant) => {
            let status = occupant.status.word();
            [
                text(&occupant.address.to_string()),
                text(&occupant.name),
                text(occupant.group.as_deref().unwrap_or(NONE)),
                number(occupant.weight),
                text(status),
                occupant.last_step.map_or_else(|| text(NEVER), |time| text(&time.to_string())),
                last_group,
                name(&occupant.zone),
                last_zone,
                occupant.port.and_then(number),
                occupant.drain_since.and_then(|since| text(&since.to_string())),
            ]
        }
    }
}

/// The item of a slot: the attributes that both roles read, without the marker.
pub(crate) fn item(slot: &Slot) -> Item {
    let named = ROW_ATTRIBUTES.iter().zip(encode(slot)).filter_map(|(name, value)| Some(((*name).to_string(), value?)));
    key(slot.id).into_iter().chain(named).collect()
}

/// The key of a slot's item.
pub(crate) fn key(id: SlotId) -> Item {
    Item::from([(KEY.to_string(), Attribute::N(id.to_string()))])
}

/// Writes `wanted` to a slot's item and keeps foreign attributes, on the condition that the item is still as `before`;
/// `None` if it did not exist.
pub(crate) fn row_update(id: SlotId, wanted: &RowAttributes, before: Option<&RowAttributes>) -> Update {
    UpdateBuilder::default().row(wanted, before).build(id)
}

/// Writes the numbers and the blindness of `stamp`, on the condition that the item names its leader. `row` is slot 1's own new and old
/// row: a transaction cannot update an item twice.
pub(crate) fn marker_update(stamp: &Stamp, row: Option<(&RowAttributes, Option<&RowAttributes>)>) -> Update {
    let builder = match row {
        Some((wanted, before)) => UpdateBuilder::default().row(wanted, before),
        None => UpdateBuilder::default(),
    };
    builder
        .version_and_heartbeat(stamp.version, stamp.heartbeat)
        .blind(stamp.blind)
        .led_by(&stamp.leader)
        .build(MARKER_SLOT)
}

/// Writes slot 1's row alone, on the condition that its item names `leader`.
pub(crate) fn marker_slot_update(leader: &str, wanted: &RowAttributes, before: Option<&RowAttributes>) -> Update {
    UpdateBuilder::default().row(wanted, before).led_by(leader).build(MARKER_SLOT)
}

/// Whether the row's server takes traffic, or did until it began to drain.
pub(crate) fn may_serve(row: &RowAttributes) -> bool {
    let mut named = ROW_ATTRIBUTES.iter().zip(row);
    match named.find(|(name, _)| **name == STATUS) {
        Some((_, Some(Attribute::S(text)))) => matches!(status(text), Ok(Status::Enabled | Status::Draining)),
        _ => false,
    }
}

/// Claims the lease, on the condition that the marker is still as `before`. `None` if the item did not exist: it is created with
/// `row`, a complete one, since the original crashes on an item that lacks an attribute, and with `orders`.
pub(crate) fn claim_update(
    claim: &Claim,
    before: Option<&MarkerAttributes>,
    row: &RowAttributes,
    orders: Option<&Attribute>,
) -> Update {
    let mut builder = match before {
        Some(_) => UpdateBuilder::default(),
        None => UpdateBuilder::default().row(row, None),
    };
    if let (None, Some(orders)) = (before, orders) {
        builder = builder.set("#orders", ORDERS, ":orders", orders.clone());
    }
    builder = builder.version_and_heartbeat(Some(claim.version), claim.heartbeat).blind(false).set(
        "#leader",
        MARKER_NAMES[2],
        ":leader",
        Attribute::S(claim.leader.clone()),
    );
    let names = ["#version", "#heartbeat", "#leader"];
    for (index, value) in before.into_iter().flatten().enumerate() {
        builder.expect(names[index], MARKER_NAMES[index], &format!(":seen{index}"), value.as_ref());
    }
    builder.build(MARKER_SLOT)
}

/// Releases the lease of `leader`.
pub(crate) fn release_update(leader: &str) -> Update {
    let mut builder = UpdateBuilder::default().blind(false).led_by(leader);
    builder.remove.push("#leader".to_string());
    builder.build(MARKER_SLOT)
}

/// Every attribute goes through a placeholder name, since it might be a reserved word of DynamoDB.
#[derive(Default)]
pub(super) struct UpdateBuilder {
    set: Vec<String>,
    remove: Vec<String>,
    conditions: Vec<String>,
    names: BTreeMap<String, String>,
    values: Item,
}

impl UpdateBuilder {
    /// Writes `wanted`, on the condition that the item is still as `before`.
    fn row(mut self, wanted: &RowAttributes, before: Option<&RowAttributes>) -> Self {
        for (index, attribute) in ROW_ATTRIBUTES.iter().enumerate() {
            let name = format!("#a{index}");
            match &wanted[index] {
                Some(value) => self = self.set(&name, attribute, &format!(":w{index}"), value.clone()),
                None => self = self.remove(&name, attribute),
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

    /// Requires that the item exists.
    pub(super) fn existing(mut self) -> Self {
        self.names.insert("#key".to_string(), KEY.to_string());
        self.conditions.push("attribute_exists(#key)".to_string());
        self
    }

    pub(super) fn remove(mut self, name: &str, attribute: &str) -> Self {
        self.names.insert(name.to_string(), attribute.to_string());
        self.remove.push(name.to_string());
        self
    }

    /// Sets the version, if any, and the heartbeat.
    fn version_and_heartbeat(mut self, version: Option<u64>, heartbeat: u64) -> Self {
        let numbers = [
            ("#version", MARKER_NAMES[0], ":version", version),
            ("#heartbeat", MARKER_NAMES[1], ":heartbeat", Some(heartbeat)),
        ];
        for (name, attribute, value, number) in numbers {
            if let Some(number) = number {
                self = self.set(name, attribute, value, Attribute::N(number.to_string()));
            }
        }
        self
    }

    /// Sets or removes what says that the leader cannot see its instances.
    fn blind(self, blind: bool) -> Self {
        match blind {
            true => self.set("#blind", BLIND, ":blind", Attribute::S("1".to_string())),
            false => self.remove("#blind", BLIND),
        }
    }

    /// Requires that the item names this leader.
    pub(super) fn led_by(mut self, leader: &str) -> Self {
        self.expect("#leader", MARKER_NAMES[2], ":leader", Some(&Attribute::S(leader.to_string())));
        self
    }

    pub(super) fn set(mut self, name: &str, attribute: &str, key: &str, value: Attribute) -> Self {
        self.names.insert(name.to_string(), attribute.to_string());
        self.set.push(format!("{name} = {key}"));
        self.values.insert(key.to_string(), value);
        self
    }

    /// Requires this value of the attribute; `None`: that it does not exist.
    pub(super) fn expect(&mut self, name: &str, attribute: &str, key: &str, value: Option<&Attribute>) {
        self.names.insert(name.to_string(), attribute.to_string());
        match value {
            Some(value) => {
                self.conditions.push(format!("{name} = {key}"));
                self.values.insert(key.to_string(), value.clone());
            }
            None => self.conditions.push(format!("attribute_not_exists({name})")),
        }
    }

    pub(super) fn build(self, id: SlotId) -> Update {
        let UpdateBuilder { set, remove, conditions, names, values } = self;
        let clause = |verb: &str, parts: &[String]| {
            if parts.is_empty() { String::new() } else { format!("{verb} {}", parts.join(", ")) }
        };
        let expression = format!("{} {}", clause("SET", &set), clause("REMOVE", &remove));
        let update = expression.trim().to_string();
        Update { key: key(id), update, condition: conditions.join(" AND "), names, values }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
pub(super) mod tests;
