//! A short notation for tables and observations, so that a test case reads as a line. Tests only.
//!
//! A slot is `1 .7 i7 web enabled 3@70 was=api`: number, last octet of an address in 10.0.0.0/24, name, group or `-`,
//! status, weight, time of the last step in seconds (0 by default, `?` for unreadable), last group. Other rows are
//! `1 free was=api`, `1 unreadable` and `1 unreadable .7`. Any group may have a zone: `web/z1`.
//!
//! An observation lists `.7 i7 web ready factor=3 port=81 alias=n1` (`ready`, `draining` or `unknown`; the rest is
//! optional), `missing web`, `unseen i7`, `unknown i7`, and `hidden i7 draining` for an instance that is not in service.
//! An order is its target, and may have an end: `slot:1`, `zone:z1 until=100`.
//! Anything else is gone, unless fates are listed (`i7 gone`, `i7 notfound`, `i7 unconfirmed`, and `i7 ended`): then it is unknown.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Plan, SlotLimits};
use crate::clock::Timestamp;
use crate::order::{Order, Target};
use crate::selection::NamePattern;
use crate::settings::Weighting;
use crate::slot::{
    Fate, Hidden, Instance, Observation, Occupant, Readiness, Row, Slot, SlotId, Status, Table, UnknownState, Unlisted,
};
use crate::weight::{Factor, Size};

const EPOCH: i64 = 1_700_000_000;

/// A time in the notation.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros((EPOCH + seconds) * 1_000_000)
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Orders, each as `zone:z1 until=100`; one without an end stands for ever.
pub(super) fn orders(text: &str) -> Vec<Order> {
    let order = |line: &str| {
        let (target, until) = line.split_once(" until=").map_or((line, None), |(target, until)| (target, Some(until)));
        let target = match target.starts_with('.') {
            true => Target::Address(address(target)),
            false => Target::parse(target).expect("a target"),
        };
        let until = until.map(|until| at(until.parse().expect("seconds")));
        Order { target, until, since: Some(at(0)), by: Some("me".to_owned()), note: None }
    };
    items(text).map(order).collect()
}

/// N slots, groups a, b and c, weights 1 to 10 by 1 every 30 seconds.
pub(super) fn limits(size: SlotId) -> SlotLimits {
    SlotLimits {
        size,
        entries: GROUPS.map(NamePattern::plain).to_vec(),
        min: 1,
        max: 10,
        step: 1,
        interval: secs(30),
        weighting: Weighting::default(),
        by_factor: false,
        removal_guard: secs(30),
    }
}

/// Limits under which servers may have factors.
pub(super) fn weighted(size: SlotId) -> SlotLimits {
    SlotLimits { by_factor: true, ..limits(size) }
}

pub(super) const GROUPS: [&str; 3] = ["a", "b", "c"];

/// Settings for property tests: `cases` runs, and no regression files.
pub(super) fn config(cases: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}

pub(super) fn address(text: &str) -> IpAddr {
    let last = text.strip_prefix('.').and_then(|last| last.parse().ok());
    last.map_or_else(|| text.parse().expect("an address"), |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

pub(super) fn table(text: &str) -> Table {
    let rows = items(text).map(|line| {
        let id = line.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a number");
        let row = match line.split_once(" unreadable") {
            Some((_, held)) => {
                let address = (!held.is_empty()).then(|| address(held.trim()));
                Row::Unreadable { reason: "broken".to_owned(), address }
            }
            None => Row::Readable(slot(line).into()),
        };
        (id, row)
    });
    Table { rows: rows.collect(), strays: vec![] }
}

pub(super) fn rows(text: &str) -> BTreeMap<SlotId, Slot> {
    items(text).map(slot).map(|slot| (slot.id, slot)).collect()
}

pub(super) fn slot(line: &str) -> Slot {
    let (line, (last_group, last_zone)) = match line.split_once(" was=") {
        Some((line, last)) => (line, place(last)),
        None => (line, (None, None)),
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let id = words[0].parse().expect("a number");
    let occupant = match words[1..] {
        ["free"] => None,
        [host, name, group, status, weight] => {
            let (weight, time) = weight.split_once('@').unwrap_or((weight, "0"));
            let (group, zone) = place(group);
            Some(Occupant {
                address: address(host),
                name: name.to_owned(),
                group,
                zone,
                port: None,
                weight: weight.parse().expect("a weight"),
                status: match status {
                    "enabled" => Status::Enabled,
                    "draining" => Status::Draining,
                    "disabled" => Status::Disabled,
                    other => panic!("no status: {other}"),
                },
                last_step: (time != "?").then(|| at(time.parse().expect("seconds"))),
                drain_since: (status == "draining").then(|| at(0)),
            })
        }
        _ => panic!("no slot: {line}"),
    };
    Slot { id, occupant, last_group, last_zone }
}

/// The group and zone of `web/z1`.
fn place(text: &str) -> (Option<String>, Option<String>) {
    let (group, zone) = text.split_once('/').map_or((text, None), |(group, zone)| (group, Some(zone)));
    ((group != "-").then(|| group.to_owned()), zone.map(str::to_owned))
}

fn show_place(group: Option<&str>, zone: Option<&str>) -> String {
    let zone = zone.map(|zone| format!("/{zone}")).unwrap_or_default();
    format!("{}{zone}", group.unwrap_or("-"))
}

pub(super) fn seen(text: &str) -> Observation {
    let mut seen = Observation::default();
    for line in items(text) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["missing", group] => seen.missing_groups.push(group.to_owned()),
            ["unseen", name] => seen.hidden.push(hidden(name, Readiness::Ready, true)),
            ["unknown", name] => seen.unknown_states.push(UnknownState {
                name: name.to_owned(),
                group: "a".to_owned(),
                state: "lifecycle state \"Dreaming\"".to_owned(),
            }),
            ["hidden", name, word] => seen.hidden.push(hidden(name, readiness(word), false)),
            [name, word] => {
                let fate = match word {
                    "gone" => Fate::Gone,
                    "ended" => {
                        seen.ended.insert(name.to_owned());
                        Fate::Gone
                    }
                    "notfound" => Fate::NotFound,
                    "unconfirmed" => Fate::Unconfirmed,
                    other => panic!("no fate: {other}"),
                };
                let mut fates = match std::mem::take(&mut seen.unlisted) {
                    Unlisted::Fates(fates) => fates,
                    Unlisted::Gone => BTreeMap::new(),
                };
                fates.insert(name.to_owned(), fate);
                seen.unlisted = Unlisted::Fates(fates);
            }
            [host, name, group, word, ref rest @ ..] => {
                let (group, zone) = place(group);
                let group = group.expect("a group");
                let mut instance = Instance::new(address(host), name.to_owned(), group, readiness(word));
                instance.zone = zone;
                for word in rest {
                    match word.split_once('=').expect("factor=3 or alias=n1") {
                        ("factor", factor) => instance.size = Size::Tag(Factor::parse(factor).expect("a factor")),
                        ("port", port) => instance.port = Some(port.parse().expect("a port")),
                        (_, alias) => instance.aliases.push(alias.to_owned()),
                    }
                }
                seen.instances.push(instance);
            }
            _ => panic!("no report: {line}"),
        }
    }
    seen.groups = GROUPS.map(str::to_owned).to_vec();
    seen.groups.retain(|group| !seen.missing_groups.contains(group));
    seen
}

fn readiness(word: &str) -> Readiness {
    match word {
        "ready" => Readiness::Ready,
        "draining" => Readiness::Draining,
        "unknown" => Readiness::Unknown,
        other => panic!("no readiness: {other}"),
    }
}

fn hidden(name: &str, readiness: Readiness, in_service: bool) -> Hidden {
    Hidden { names: vec![name.to_owned()], readiness, in_service }
}

pub(super) fn show(slots: &BTreeMap<SlotId, Slot>) -> String {
    slots.values().map(show_slot).collect::<Vec<_>>().join("; ")
}

/// The slots after a plan, followed by its other fields if they are not empty.
pub(super) fn show_plan(plan: &Plan) -> String {
    let names =
        |instances: &[Instance]| instances.iter().map(|instance| instance.name.clone()).collect::<Vec<_>>().join(" ");
    let ids = |ids: &[SlotId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    [
        ("", show(&plan.slots)),
        ("unplaced ", names(&plan.unplaced)),
        ("kept out ", names(&plan.kept_out.iter().map(|(_, one)| one.clone()).collect::<Vec<_>>())),
        ("last resort ", ids(&plan.last_resort)),
        ("guarded ", ids(&plan.guarded)),
        ("above size ", ids(&plan.above_size)),
        ("ignored ", names(&plan.ignored)),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .map(|(title, text)| format!("{title}{text}"))
    .collect::<Vec<_>>()
    .join("; ")
}

fn show_slot(slot: &Slot) -> String {
    let was = match (slot.last_group.as_deref(), slot.last_zone.as_deref()) {
        (None, None) => String::new(),
        (group, zone) => format!(" was={}", show_place(group, zone)),
    };
    let Some(occupant) = &slot.occupant else { return format!("{} free{was}", slot.id) };
    let host = match occupant.address {
        IpAddr::V4(v4) if v4.octets().starts_with(&[10, 0, 0]) => format!(".{}", v4.octets()[3]),
        other => other.to_string(),
    };
    let group = show_place(occupant.group.as_deref(), occupant.zone.as_deref());
    let time = match occupant.last_step.map(|time| time.as_micros() / 1_000_000 - EPOCH) {
        None => "@?".to_owned(),
        Some(0) => String::new(),
        Some(seconds) => format!("@{seconds}"),
    };
    let status = format!("{:?}", occupant.status).to_lowercase();
    let port = occupant.port.map(|port| format!(" port={port}")).unwrap_or_default();
    format!("{} {host} {} {group} {status} {}{time}{was}{port}", slot.id, occupant.name, occupant.weight)
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|item| !item.is_empty())
}
