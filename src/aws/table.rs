//! How a slot is spelled as an item of the table, both ways. Pure, and the only file that knows attribute names.
//!
//! Key, names, types and the spelling of a free slot are those of the original program, so that each can read the
//! other's table. `HsdoLastASG` is ours, and so is the marker on slot 1's item (`HsdoVersion`, `HsdoHeartbeat`,
//! `HsdoLeader`); the original keeps them when it updates an item, loses them when it puts one, and looks at none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::dynamodb::{Attribute, Item, Update};
use super::error::one_line;
use super::number::integer;
use crate::clock::Timestamp;
use crate::marker::{self, Marker};
use crate::slot::{LONGEST_NAME, MAX_SLOT, MAX_WEIGHT, Occupant, Row, Slot, SlotId, Status, Weight, is_servers};

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
pub(super) fn id(item: &Item) -> Result<SlotId, String> {
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
pub(super) fn raw(mut item: Item) -> Raw {
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

/// The update of slot 1's item that goes with rows, or alone as a heartbeat: the numbers of `next` that are there, on
/// the condition that the item names its leader. `row` is what slot 1 itself is to say, and what it said before:
/// a transaction cannot touch an item twice.
pub(crate) fn mark(next: &Marker, row: Option<(&Raw, Option<&Raw>)>) -> Update {
    let draft = match row {
        Some((wanted, before)) => Draft::default().row(wanted, before),
        None => Draft::default(),
    };
    draft.numbers(next).led_by(next.leader.as_deref().unwrap_or_default()).update(MARKED)
}

/// The update that takes the lease, on the condition that the marker still is as `before`. `None` is an item that did
/// not exist: it is made as a free slot, since the original ends on an item that lacks one of its attributes.
pub(crate) fn take(claim: &Marker, before: Option<&RawMarker>) -> Update {
    let mut draft = match before {
        Some(_) => Draft::default(),
        None => Draft::default().row(&attributes(&Slot::empty(MARKED)), None),
    };
    draft = draft.numbers(claim).set("#leader", MARKS[2], ":leader", text_of(claim.leader.as_deref()));
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

fn text_of(text: Option<&str>) -> Attribute {
    Attribute::S(text.unwrap_or_default().to_string())
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

    /// The version and the heartbeat, where there are any.
    fn numbers(mut self, marker: &Marker) -> Self {
        let numbers = [
            ("#version", MARKS[0], ":version", marker.version),
            ("#heartbeat", MARKS[1], ":heartbeat", marker.heartbeat),
        ];
        for (name, attribute, value, number) in numbers {
            if let Some(number) = number {
                self = self.set(name, attribute, value, Attribute::N(number.to_string()));
            }
        }
        self
    }

    /// On the condition that the item names this leader.
    fn led_by(mut self, leader: &str) -> Self {
        self.expect("#leader", MARKS[2], ":leader", Some(&text_of(Some(leader))));
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(text: &str) -> Attribute {
        Attribute::S(text.to_string())
    }

    fn n(text: &str) -> Attribute {
        Attribute::N(text.to_string())
    }

    /// An item as the original writes it.
    fn original() -> Item {
        let pairs = [
            (KEY, n("4")),
            (ADDRESS, s("10.1.2.3")),
            (NAME, s("i-0123456789abcdef0")),
            (GROUP, s("web")),
            (WEIGHT, n("7")),
            (STATUS, s("enabled")),
            (LAST_STEP, s("2024-02-29 12:34:56.123456")),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn with(attribute: &str, value: Option<Attribute>) -> Item {
        let mut item = original();
        match value {
            Some(value) => drop(item.insert(attribute.to_string(), value)),
            None => drop(item.remove(attribute)),
        }
        item
    }

    fn occupant(item: &Item) -> Occupant {
        match row(4, item) {
            Row::Known(slot) => slot.occupant.clone().expect("an occupant"),
            other @ Row::Unreadable { .. } => panic!("an occupant expected: {other:?}"),
        }
    }

    #[test]
    fn an_item_of_the_original_is_read() {
        let expected = Occupant {
            address: "10.1.2.3".parse().expect("an address"),
            name: "i-0123456789abcdef0".to_string(),
            group: Some("web".to_string()),
            weight: 7,
            status: Status::Enabled,
            last_step: Timestamp::parse("2024-02-29 12:34:56.123456"),
        };
        assert_eq!(id(&original()), Ok(4));
        assert_eq!(row(4, &original()), Row::Known(Slot { id: 4, occupant: Some(expected), last_group: None }.into()));
    }

    #[test]
    fn a_free_item_of_the_original_is_read_and_written_alike() {
        let mut free = attributes(&Slot::empty(4)).into_iter();
        let expected = [s("none"), s("none"), s("none"), n("0"), s("disabled"), s("0-0-0 00:00:00.000000")];
        for (attribute, value) in OURS.iter().zip(expected) {
            assert_eq!(free.next().flatten(), Some(value), "{attribute}");
        }
        assert_eq!(free.next(), Some(None), "nothing of ours on a slot that never had a group");
        let mut item = original();
        for (attribute, value) in OURS.iter().zip(attributes(&Slot::empty(4))) {
            item.remove(*attribute);
            item.extend(value.map(|value| ((*attribute).to_string(), value)));
        }
        assert_eq!(row(4, &item), Row::Known(Slot::empty(4).into()));
    }

    #[test]
    fn an_occupied_slot_is_spelled_as_the_original_spells_one() {
        let slot = Slot { id: 4, occupant: Some(occupant(&original())), last_group: Some("old".to_string()) };
        let written = attributes(&slot);
        for (attribute, value) in OURS.iter().zip(&written).take(6) {
            assert_eq!(value.as_ref(), original().get(*attribute), "{attribute}");
        }
        assert_eq!(written[6], Some(s("old")));
    }

    #[test]
    fn what_may_be_missing_or_odd() {
        for (value, expected) in
            [(None, None), (Some(s("none")), None), (Some(s("")), None), (Some(s("a b")), Some("a b"))]
        {
            assert_eq!(occupant(&with(GROUP, value)).group.as_deref(), expected);
        }
        assert_eq!(occupant(&with(LAST_STEP, Some(s("yesterday")))).last_step, None);
        assert!(occupant(&with(LAST_STEP, Some(s("2024-02-29T12:34:56")))).last_step.is_some());
        assert_eq!(occupant(&with(WEIGHT, Some(n("256")))).weight, 256);
        assert_eq!(occupant(&with(STATUS, Some(s("draining")))).status, Status::Draining);
        assert_eq!(occupant(&with(STATUS, Some(s("disabled")))).status, Status::Disabled);
        assert_eq!(occupant(&with(ADDRESS, Some(s("127.0.0.1")))).address.to_string(), "127.0.0.1");
        assert_eq!(occupant(&with(ADDRESS, Some(s("fd00::1")))).address.to_string(), "fd00::1");
        for (value, expected) in [(s("web"), Some("web")), (s("none"), None), (n("1"), None), (s("a\nb"), None)] {
            let Row::Known(slot) = row(4, &with(LAST_GROUP, Some(value))) else { panic!("a readable row expected") };
            assert_eq!(slot.last_group.as_deref(), expected);
        }
    }

    #[test]
    fn what_makes_a_row_unreadable_is_said() {
        let cases = [
            (ADDRESS, None, "IPAddress is missing"),
            (ADDRESS, Some(n("1")), "IPAddress is not a text"),
            (ADDRESS, Some(s("")), "IPAddress \"\" is not an IP address"),
            (ADDRESS, Some(s("None")), "IPAddress \"None\" is not an IP address"),
            (ADDRESS, Some(s("10.0.0.1 ")), "IPAddress \"10.0.0.1 \" is not an IP address"),
            (ADDRESS, Some(s("10.0.0.1; shutdown frontend fe")), "is not an IP address"),
            (ADDRESS, Some(s("10.0.0.1\nset")), "IPAddress \"10.0.0.1\\nset\" is not an IP address"),
            (ADDRESS, Some(s("0.0.0.0")), "IPAddress \"0.0.0.0\" is not an address that a server can have"),
            (ADDRESS, Some(s("255.255.255.255")), "that a server can have"),
            (ADDRESS, Some(s("224.0.0.1")), "that a server can have"),
            (ADDRESS, Some(s("::")), "that a server can have"),
            (ADDRESS, Some(s("ff02::1")), "that a server can have"),
            (NAME, None, "ServerName is missing"),
            (NAME, Some(s("a\u{7}b")), "ServerName \"a\\u{7}b\" holds a control character"),
            (GROUP, Some(n("1")), "ASG is not a text"),
            (GROUP, Some(s("a\nb")), "ASG \"a\\nb\" holds a control character"),
            (WEIGHT, None, "Weight is missing"),
            (WEIGHT, Some(s("1")), "Weight is not a number"),
            (WEIGHT, Some(n("257")), "Weight \"257\" is not a whole number from 0 to 256"),
            (WEIGHT, Some(n("-1")), "Weight \"-1\" is not"),
            (WEIGHT, Some(n("1.5")), "Weight \"1.5\" is not"),
            (STATUS, None, "BackendServerStatus is missing"),
            (STATUS, Some(s("on")), "BackendServerStatus \"on\" is none of"),
            (LAST_STEP, None, "LastWeightUpdate is missing"),
            (LAST_STEP, Some(Attribute::Null(true)), "LastWeightUpdate is not a text"),
        ];
        for (attribute, value, expected) in cases {
            match row(4, &with(attribute, value.clone())) {
                Row::Unreadable { reason, .. } => assert!(reason.contains(expected), "{reason} <> {expected}"),
                Row::Known(slot) => panic!("{attribute} {value:?} was read as {slot:?}"),
            }
        }
        let long = with(NAME, Some(s(&"x".repeat(256))));
        assert!(matches!(row(4, &long), Row::Unreadable { reason, .. } if reason.len() < 100));
        assert!(matches!(row(4, &with(NAME, Some(s(&"é".repeat(255))))), Row::Known(_)));
    }

    #[test]
    fn an_item_without_a_usable_number_is_a_stray() {
        for good in ["4", "4.0", "0.4E1", "40e-1", "+4", "004"] {
            assert_eq!(id(&with(KEY, Some(n(good)))), Ok(4), "{good}");
        }
        for bad in
            ["0", "-1", "10001", "1.5", "", "x", "NaN", "1E99", "1E-99", "99999999999999999999999999999999999999"]
        {
            let stray = id(&with(KEY, Some(n(bad)))).expect_err(bad);
            assert!(stray.contains(KEY) && stray.contains(bad), "{stray}");
        }
        assert!(id(&with(KEY, Some(s("4")))).expect_err("a text").contains("not a number"));
        assert!(id(&with(KEY, None)).expect_err("no key").contains("missing"));
    }

    #[test]
    fn an_update_sets_what_is_wanted_and_asks_for_what_was_read() {
        let wanted = attributes(&Slot::empty(4));
        let before = raw(original());
        let made = update(4, &wanted, Some(&before));
        assert_eq!(made.update, "SET #a0 = :w0, #a1 = :w1, #a2 = :w2, #a3 = :w3, #a4 = :w4, #a5 = :w5 REMOVE #a6");
        assert_eq!(
            made.condition,
            "#a0 = :b0 AND #a1 = :b1 AND #a2 = :b2 AND #a3 = :b3 AND #a4 = :b4 AND #a5 = :b5 AND attribute_not_exists(#a6)"
        );
        assert_eq!(made.names.get("#a0").map(String::as_str), Some("IPAddress"));
        assert_eq!((made.values.get(":w0"), made.values.get(":b0")), (Some(&s("none")), Some(&s("10.1.2.3"))));
        assert_eq!(made.key, key(4));
        let new = update(4, &wanted, None);
        assert_eq!(new.condition, "attribute_not_exists(#key)");
        assert_eq!(new.names.get("#key").map(String::as_str), Some(KEY));
        assert!(!new.values.keys().any(|value| value.starts_with(":b")));
    }

    #[test]
    fn every_name_and_value_of_an_update_is_used() {
        // DynamoDB refuses a request that defines one that no expression uses.
        let last = Slot { last_group: Some("web".to_string()), ..Slot::empty(4) };
        for wanted in [attributes(&last), attributes(&Slot::empty(4))] {
            for before in [None, Some(raw(original())), Some(raw(with(GROUP, None)))] {
                every_word_is_used(&update(4, &wanted, before.as_ref()));
                every_word_is_used(&mark(&marked(1, 2, "me"), Some((&wanted, before.as_ref()))));
            }
        }
        let next = marked(1, 2, "me");
        for update in [mark(&next, None), take(&next, None), take(&next, Some(&[None, None, None])), release("me")] {
            every_word_is_used(&update);
        }
    }

    fn every_word_is_used(made: &Update) {
        let words: Vec<&str> =
            made.update.split([' ', ',', '(', ')']).chain(made.condition.split([' ', ',', '(', ')'])).collect();
        for word in made.names.keys().chain(made.values.keys()) {
            assert!(words.contains(&word.as_str()), "{word} in {made:?}");
        }
    }

    fn marked(version: u64, heartbeat: u64, leader: &str) -> Marker {
        Marker { version: Some(version), heartbeat: Some(heartbeat), leader: Some(leader.to_string()) }
    }

    #[test]
    fn a_marker_is_read_and_what_cannot_be_read_of_it_is_missing() {
        assert_eq!(marker(&original()), Marker::default());
        let whole = [("HsdoVersion", n("7")), ("HsdoHeartbeat", n("1700000000000")), ("HsdoLeader", s("host/1/ab/1"))];
        let item: Item = whole.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        assert_eq!(marker(&item), marked(7, 1_700_000_000_000, "host/1/ab/1"));
        for (name, bad) in [
            ("HsdoVersion", s("7")),
            ("HsdoVersion", n("-7")),
            ("HsdoVersion", n("7.5")),
            ("HsdoVersion", n("1000000000000001")),
            ("HsdoHeartbeat", Attribute::Null(true)),
            ("HsdoLeader", n("1")),
        ] {
            let mut item = item.clone();
            item.insert(name.to_string(), bad);
            let read = marker(&item);
            let missing = [read.version.is_none(), read.heartbeat.is_none(), read.leader.is_none()];
            assert_eq!(missing.iter().filter(|missing| **missing).count(), 1, "{name}: {read:?}");
        }
    }

    #[test]
    fn the_lease_is_taken_kept_and_given_back_under_conditions() {
        let claim = marked(8, 9, "me");
        let seen: Item = [("HsdoVersion", n("7")), ("HsdoLeader", n("1"))].map(|(k, v)| (k.to_string(), v)).into();
        let taken = take(&claim, Some(&raw_marker(&seen)));
        assert_eq!(taken.update, "SET #version = :version, #heartbeat = :heartbeat, #leader = :leader");
        assert_eq!(taken.condition, "#version = :seen0 AND attribute_not_exists(#heartbeat) AND #leader = :seen2");
        assert_eq!((taken.values.get(":seen2"), taken.values.get(":leader")), (Some(&n("1")), Some(&s("me"))));

        let made = take(&claim, None);
        assert_eq!(made.condition, "attribute_not_exists(#key)");
        assert_eq!(made.values.get(":w0"), Some(&s("none")), "a whole free slot, for the original's sake");

        let beat = mark(&Marker { version: None, ..claim.clone() }, None);
        assert_eq!(
            (beat.update.as_str(), beat.condition.as_str()),
            ("SET #heartbeat = :heartbeat", "#leader = :leader")
        );
        let back = release("me");
        assert_eq!((back.update.as_str(), back.condition.as_str()), ("REMOVE #leader", "#leader = :leader"));

        let both = mark(&claim, Some((&attributes(&Slot::empty(1)), Some(&raw(original())))));
        assert!(
            both.update.starts_with("SET #a0 = :w0,") && both.update.ends_with("#heartbeat = :heartbeat REMOVE #a6"),
            "{both:?}"
        );
        assert!(
            both.condition.starts_with("#a0 = :b0 AND") && both.condition.ends_with("AND #leader = :leader"),
            "{both:?}"
        );
        assert!([taken, made, beat, back, both].iter().all(|update| update.key == key(1)));
    }

    fn an_occupant() -> impl Strategy<Value = Occupant> {
        let address = prop_oneof![
            (1_u32..0xE000_0000).prop_map(|bits| IpAddr::V4(bits.into())),
            (1_u128..(0xFE00_u128 << 112)).prop_map(|bits| IpAddr::V6(bits.into())),
        ];
        let status = prop_oneof![Just(Status::Enabled), Just(Status::Draining), Just(Status::Disabled)];
        let time = proptest::option::of((0_i64..4_102_444_800_000_000).prop_map(Timestamp::from_micros));
        (address, "[ -~é]{0,40}", proptest::option::of("[a-z][ -~]{4,40}"), 0_u16..=256, status, time).prop_map(
            |(address, name, group, weight, status, last_step)| Occupant {
                address,
                name,
                group,
                weight,
                status,
                last_step,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            id in 1_u32..=10_000,
            occupant in proptest::option::of(an_occupant()),
            last_group in proptest::option::of("[a-z][ -~]{4,40}"),
        ) {
            let slot = Slot { id, occupant, last_group };
            let mut item = key(id);
            for (attribute, value) in OURS.iter().zip(attributes(&slot)) {
                item.extend(value.map(|value| ((*attribute).to_string(), value)));
            }
            prop_assert_eq!(super::id(&item), Ok(id));
            prop_assert_eq!(row(id, &item), Row::Known(slot.clone().into()));
            prop_assert_eq!(raw(item), attributes(&slot));
        }

        #[test]
        fn no_attribute_breaks_the_reader_or_a_log_line(attribute in 0_usize..7, text in any::<String>()) {
            for value in [Attribute::S(text.clone()), Attribute::N(text.clone())] {
                if let Row::Unreadable { reason, .. } = row(4, &with(OURS[attribute], Some(value.clone()))) {
                    prop_assert!(!reason.chars().any(char::is_control), "{}", reason);
                    prop_assert!(reason.len() < 900);
                }
                if let Err(stray) = id(&with(KEY, Some(value))) {
                    prop_assert!(!stray.chars().any(char::is_control), "{}", stray);
                }
            }
        }
    }
}
