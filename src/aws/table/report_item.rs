//! Converts reports to items of the report table and back. Pure, and the only file that knows the names of their attributes.

use std::collections::BTreeMap;

use super::codec::quoted;
use super::dynamodb::{Attribute, Item, Update};
use super::number::integer_up_to;
use crate::balancer::{BalancerItem, BalancerReport, SPILL_STEPS};
use crate::marker::MAX_COUNTER;
use crate::slot::{MAX_SLOT, SlotId};
use crate::text::one_line;

/// The key attribute: host and socket.
pub(super) const KEY: &str = "Balancer";
/// When DynamoDB may remove the item, in seconds since 1970.
pub(super) const EXPIRES: &str = "Expires";
const SEEN: &str = "Seen";
const VERSION: &str = "Version";
const HAPROXY: &str = "Haproxy";
/// The slots whose sessions were counted, as in `1-3,7`: what has none is left out of `Sessions`.
const COUNTED: &str = "Counted";
const SESSIONS: &str = "Sessions";
const HELD: &str = "Held";
const SPILL: &str = "Spill";
/// A random text for each process: it tells a second load balancer of the same name.
const PROCESS: &str = "Process";

/// The longest name of a load balancer that is read, in characters: a host name of 64 and a socket path of 107 fit twice.
const MAX_NAME: usize = 512;
/// The most servers in `Held`, and the most slots with sessions that one item tells: it has to stay well below DynamoDB's limit of
/// 400 KB. What is left out counts as unknown, not as nothing.
const MAX_HELD: usize = 100;
const MAX_BUSY: usize = 1_000;

/// Writes a report, whole, whatever is there. `seen` is in milliseconds since 1970.
pub(super) fn update(name: &str, process: &str, seen: u64, expires: u64, report: &BalancerReport) -> Update {
    let BalancerReport { version, haproxy, sessions, held, .. } = report;
    let number = |number: u64| Attribute::N(number.to_string());
    let told: BTreeMap<SlotId, u64> = report.busy().take(MAX_BUSY).collect();
    let counted =
        sessions.iter().filter(|(slot, count)| **count == 0 || told.contains_key(slot)).map(|(slot, _)| *slot);
    let values = [
        (SEEN, Some(number(seen))),
        (VERSION, version.map(number)),
        (HAPROXY, Some(Attribute::S(haproxy.clone()))),
        (COUNTED, Some(Attribute::S(ranges(counted)))),
        (SESSIONS, Some(Attribute::M(told.iter().map(|(slot, count)| (slot.to_string(), number(*count))).collect()))),
        (HELD, Some(Attribute::L(held.iter().take(MAX_HELD).cloned().map(Attribute::S).collect()))),
        (SPILL, Some(Attribute::N(report.spill_share().to_string()))),
        (EXPIRES, Some(number(expires))),
        (PROCESS, Some(Attribute::S(process.to_owned()))),
    ];
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    let mut update = Update {
        key: key(name),
        update: String::new(),
        condition: String::new(),
        names: BTreeMap::new(),
        values: Item::new(),
    };
    for (place, (attribute, value)) in values.into_iter().enumerate() {
        // Placeholders: an attribute's name might be a reserved word of DynamoDB.
        update.names.insert(format!("#a{place}"), attribute.to_owned());
        match value {
            Some(value) => {
                set.push(format!("#a{place} = :a{place}"));
                update.values.insert(format!(":a{place}"), value);
            }
            None => remove.push(format!("#a{place}")),
        }
    }
    update.update = format!("SET {}", set.join(", "));
    if !remove.is_empty() {
        update.update.push_str(&format!(" REMOVE {}", remove.join(", ")));
    }
    update
}

/// An update whose condition contradicts itself, of an item that no load balancer has.
pub(super) fn impossible_update() -> Update {
    let mut update = update("-", "-", 0, 0, &BalancerReport::default());
    update.names.insert("#key".to_owned(), KEY.to_owned());
    "attribute_exists(#key) AND attribute_not_exists(#key)".clone_into(&mut update.condition);
    update
}

/// The process that wrote an item.
pub(super) fn writer(item: &Item) -> Option<&str> {
    as_text(item.get(PROCESS)?)
}

pub(super) fn key(name: &str) -> Item {
    Item::from([(KEY.to_owned(), Attribute::S(name.to_owned()))])
}

/// An item as read, and what is wrong with its report, which then says nothing; or why it is no item of a load balancer.
///
/// One whose `Seen` can be read is there as long as that changes, whatever else it holds: unknown is not the same as no sessions.
pub(super) fn parse(item: &Item) -> Result<(BalancerItem, Option<String>), String> {
    let name = match item.get(KEY) {
        Some(Attribute::S(text)) if text.chars().count() <= MAX_NAME => text.clone(),
        Some(Attribute::S(text)) => return Err(format!("{} is longer than {MAX_NAME} characters", quoted(text))),
        _ => return Err(format!("an item whose {KEY} is not a string")),
    };
    let of_it = |why: String| format!("{}: {why}", quoted(&name));
    let seen = number(item, SEEN).and_then(|seen| seen.ok_or_else(|| format!("{SEEN} is missing"))).map_err(of_it)?;
    let (report, fault) = match report(item) {
        Ok(report) => (report, None),
        Err(why) => (BalancerReport::default(), Some(of_it(why))),
    };
    Ok((BalancerItem { name, seen, report }, fault))
}

fn report(item: &Item) -> Result<BalancerReport, String> {
    let text = |attribute: &str| match item.get(attribute) {
        None => Ok(String::new()),
        Some(Attribute::S(text)) => Ok(text.clone()),
        Some(_) => Err(format!("{attribute} is not a string")),
    };
    let mut sessions: BTreeMap<SlotId, u64> = slots(&text(COUNTED)?)?.into_iter().map(|slot| (slot, 0)).collect();
    let entries = match item.get(SESSIONS) {
        None => &Item::new(),
        Some(Attribute::M(entries)) => entries,
        Some(_) => return Err(format!("{SESSIONS} is not a map")),
    };
    for (slot, count) in entries {
        let fault = || format!("{SESSIONS} has an entry that is no count of a slot: {}", quoted(slot));
        let count = match count {
            Attribute::N(text) => integer_up_to(text, MAX_COUNTER),
            _ => None,
        };
        sessions.insert(slot_number(slot).ok_or_else(fault)?, count.ok_or_else(fault)?);
    }
    let held = match item.get(HELD) {
        None => vec![],
        Some(Attribute::L(all)) => all.iter().filter_map(as_text).map(|name| one_line(name, MAX_NAME)).collect(),
        Some(_) => return Err(format!("{HELD} is not a list")),
    };
    let spill = match item.get(SPILL) {
        None => 0.0,
        Some(Attribute::N(text)) => text.parse::<f64>().map_err(|_| format!("{SPILL} is not a number"))?,
        Some(_) => return Err(format!("{SPILL} is not a number")),
    };
    Ok(BalancerReport {
        version: number(item, VERSION)?,
        haproxy: one_line(&text(HAPROXY)?, 64),
        sessions,
        held,
        spill: (spill.clamp(0.0, 1.0) * f64::from(SPILL_STEPS)).round() as u8,
    })
}

fn as_text(attribute: &Attribute) -> Option<&str> {
    match attribute {
        Attribute::S(text) => Some(text),
        _ => None,
    }
}

fn number(item: &Item, attribute: &str) -> Result<Option<u64>, String> {
    match item.get(attribute) {
        None => Ok(None),
        Some(Attribute::N(text)) => match integer_up_to(text, MAX_COUNTER) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{attribute} {} is not a whole number from 0 to {MAX_COUNTER}", quoted(text))),
        },
        Some(_) => Err(format!("{attribute} is not a number")),
    }
}

fn slot_number(text: &str) -> Option<SlotId> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())??;
    (1..=MAX_SLOT).contains(&number).then_some(number)
}

/// Ascending numbers as ranges: `1-3,7`.
fn ranges(numbers: impl Iterator<Item = SlotId>) -> String {
    let mut ranges: Vec<(SlotId, SlotId)> = Vec::new();
    for number in numbers {
        match ranges.last_mut().filter(|(_, last)| *last + 1 == number) {
            Some((_, last)) => *last = number,
            None => ranges.push((number, number)),
        }
    }
    let spell =
        |(first, last): (SlotId, SlotId)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.into_iter().map(spell).collect::<Vec<_>>().join(",")
}

/// The slots of such ranges.
fn slots(text: &str) -> Result<Vec<SlotId>, String> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = slot_number(first).zip(slot_number(last)).filter(|(first, last)| first <= last);
        let (first, last) = range.ok_or_else(|| format!("{COUNTED} has a part that is no slots: {}", quoted(part)))?;
        all.extend(first..=last);
        if all.len() > MAX_SLOT as usize {
            return Err(format!("{COUNTED} tells of more than {MAX_SLOT} slots"));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The item that an update leaves.
    fn item(update: &Update) -> Item {
        let set = update.update.split(" REMOVE ").next().unwrap().strip_prefix("SET ").unwrap();
        let values = set.split(", ").map(|part| {
            let (name, value) = part.split_once(" = ").unwrap();
            (update.names[name].clone(), update.values[value].clone())
        });
        update.key.clone().into_iter().chain(values).collect()
    }

    fn written(report: &BalancerReport) -> Item {
        item(&update("lb-1 /run/haproxy.sock", "p", 7, 8, report))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            version in proptest::option::of(0..=MAX_COUNTER),
            sessions in proptest::collection::btree_map(1..=MAX_SLOT, 0..3_u64, 0..60),
            held in proptest::collection::vec("[a-z]{1,9}/[a-z]{1,9}[0-9]{1,4}", 0..5),
            spill in 0..=SPILL_STEPS,
        ) {
            let report = BalancerReport { version, haproxy: "2.8.5".to_owned(), sessions, held, spill };
            let (read, fault) = parse(&written(&report)).unwrap();
            prop_assert_eq!(fault, None);
            prop_assert_eq!((read.name.as_str(), read.seen), ("lb-1 /run/haproxy.sock", 7));
            prop_assert_eq!(read.report, report);
        }

        #[test]
        fn any_item_is_read_or_named(
            counted in "[0-9,-]{0,20}", sessions in "[0-9]{0,6}", count in "[0-9eE.-]{0,8}", spill in "[0-9eENa.-]{0,6}",
        ) {
            let mut item = written(&BalancerReport::default());
            item.insert(COUNTED.to_owned(), Attribute::S(counted));
            item.insert(SESSIONS.to_owned(), Attribute::M(Item::from([(sessions, Attribute::N(count))])));
            item.insert(SPILL.to_owned(), Attribute::N(spill));
            let (read, fault) = parse(&item).unwrap();
            prop_assert!(read.report.sessions.keys().all(|slot| (1..=MAX_SLOT).contains(slot)));
            if let Some(why) = fault {
                prop_assert!(why.contains("lb-1"));
                prop_assert_eq!(read.report, BalancerReport::default());
            }
        }
    }

    #[test]
    fn what_does_not_fit_an_item_is_unknown() {
        let sessions: BTreeMap<SlotId, u64> = (1..=3_000).map(|slot| (slot, u64::from(slot % 2))).collect();
        let held = (0..500).map(|number| format!("back/web{number}")).collect();
        let read = parse(&written(&BalancerReport { sessions, held, ..BalancerReport::default() })).unwrap().0.report;
        assert_eq!(read.held.len(), MAX_HELD);
        let busy = read.sessions.values().filter(|count| **count > 0).count();
        assert_eq!((busy, read.sessions.len()), (MAX_BUSY, MAX_BUSY + 1_500));
        assert_eq!(
            (read.sessions.get(&1_999), read.sessions.get(&2_001), read.sessions.get(&3_000)),
            (Some(&1), None, Some(&0))
        );
    }

    #[test]
    fn faults_are_named() {
        for (attribute, value, expected) in [
            (KEY, Attribute::N("1".to_owned()), "an item whose Balancer is not a string"),
            (SEEN, Attribute::S("1".to_owned()), "\"lb-1 /run/haproxy.sock\": Seen is not a number"),
            (SEEN, Attribute::N("-1".to_owned()), "Seen \"-1\" is not a whole number"),
            (VERSION, Attribute::N("1e99".to_owned()), "Version \"1e99\" is not a whole number"),
            (COUNTED, Attribute::S("0-5".to_owned()), "Counted has a part that is no slots: \"0-5\""),
            (COUNTED, Attribute::S("5-1".to_owned()), "Counted has a part that is no slots: \"5-1\""),
            (COUNTED, Attribute::S("1-9999,1-9999".to_owned()), "Counted tells of more than 10000 slots"),
            (SESSIONS, Attribute::L(vec![]), "Sessions is not a map"),
            (HELD, Attribute::S(String::new()), "Held is not a list"),
            (SPILL, Attribute::N("much".to_owned()), "Spill is not a number"),
        ] {
            let mut item = written(&BalancerReport::default());
            item.insert(attribute.to_owned(), value);
            let found = parse(&item).map_or_else(Some, |(_, fault)| fault).expect("a fault");
            assert!(found.contains(expected), "{attribute}: {found}");
        }
        let mut item = written(&BalancerReport::default());
        item.remove(SEEN);
        assert_eq!(parse(&item).unwrap_err(), "\"lb-1 /run/haproxy.sock\": Seen is missing");
    }
}
