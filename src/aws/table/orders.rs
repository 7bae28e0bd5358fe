//! Orders as slot 1's item holds them: a map from target to when, by whom and why. Pure.

use super::codec::{MARKER_SLOT, ORDERS, UpdateBuilder, quoted};
use super::dynamodb::{Attribute, Item, Update};
use super::number::integer_up_to;
use crate::clock::Timestamp;
use crate::order::{MAX_NOTE_CHARS, Order, Orders, Target, UnreadableOrder};
use crate::slot::MAX_NAME_CHARS;
use crate::text::one_line;

/// The last moment that an order may have: the end of the year 9999.
const MAX_SECONDS: u64 = 253_402_300_799;
const UNTIL: &str = "Until";
const SINCE: &str = "Since";
const BY: &str = "By";
const NOTE: &str = "Note";

/// The orders of an item.
pub(crate) fn read(attribute: Option<&Attribute>) -> Orders {
    let mut orders = Orders::default();
    match attribute {
        None => {}
        Some(Attribute::M(entries)) => {
            for (target, entry) in entries {
                match order(target, entry) {
                    Ok(order) => orders.all.push(order),
                    Err(why) => orders.unreadable.push(UnreadableOrder {
                        target: Target::parse(target).ok(),
                        reason: format!("{}: {why}", quoted(target)),
                    }),
                }
            }
        }
        Some(_) => {
            let reason = format!("{ORDERS} is not a map");
            orders.unreadable.push(UnreadableOrder { target: None, reason });
        }
    }
    orders
}

fn order(target: &str, entry: &Attribute) -> Result<Order, String> {
    let target = Target::parse(target)?;
    let Attribute::M(entry) = entry else { return Err("it is not a map".to_string()) };
    let moment = |name: &str| match entry.get(name) {
        None => Ok(None),
        Some(Attribute::N(text)) => match integer_up_to(text, MAX_SECONDS) {
            Some(seconds) => Ok(i64::try_from(seconds).ok().map(|seconds| Timestamp::from_micros(seconds * 1_000_000))),
            None => Err(format!("{name} {} is not in whole seconds since 1970", quoted(text))),
        },
        Some(_) => Err(format!("{name} is not a number")),
    };
    let text = |name: &str, limit: usize| match entry.get(name) {
        None => Ok(None),
        Some(Attribute::S(text)) => Ok(Some(one_line(text, limit))),
        Some(_) => Err(format!("{name} is not a string")),
    };
    Ok(Order {
        target,
        until: moment(UNTIL)?,
        since: moment(SINCE)?,
        by: text(BY, MAX_NAME_CHARS)?,
        note: text(NOTE, MAX_NOTE_CHARS)?,
    })
}

pub(super) fn entry(order: &Order) -> Attribute {
    let seconds = |moment: Timestamp| Attribute::N(moment.as_micros().div_euclid(1_000_000).to_string());
    let parts = [
        (UNTIL, order.until.map(seconds)),
        (SINCE, order.since.map(seconds)),
        (BY, order.by.clone().map(Attribute::S)),
        (NOTE, order.note.clone().map(Attribute::S)),
    ];
    Attribute::M(parts.into_iter().filter_map(|(name, part)| Some((name.to_string(), part?))).collect())
}

/// Replaces the map, on the condition that it is still as `before`. The item must exist, and name `leader`, if there is one.
pub(super) fn update(before: Option<&Attribute>, after: Item, leader: Option<&str>) -> Update {
    let mut builder = UpdateBuilder::default().existing();
    if let Some(leader) = leader {
        builder = builder.led_by(leader);
    }
    builder.expect("#orders", ORDERS, ":before", before);
    match after.is_empty() {
        true => builder.remove("#orders", ORDERS),
        false => builder.set("#orders", ORDERS, ":orders", Attribute::M(after)),
    }
    .build(MARKER_SLOT)
}

/// The map without the entries of which `is_gone` says so.
pub(super) fn without(before: Option<&Attribute>, is_gone: impl Fn(&str, &Attribute) -> bool) -> Item {
    let Some(Attribute::M(entries)) = before else { return Item::new() };
    entries
        .iter()
        .filter(|(key, entry)| !is_gone(key, entry))
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect()
}

/// The map without those of `over` that still are as they were.
pub(super) fn removal(before: &Attribute, over: &[Order], leader: &str) -> Update {
    let is_over = |key: &str, entry: &Attribute| order(key, entry).is_ok_and(|order| over.contains(&order));
    update(Some(before), without(Some(before), is_over), Some(leader))
}

/// The size of a value, or a little more (DynamoDB Developer Guide, "Item sizes and formats").
pub(super) fn size(value: &Attribute) -> usize {
    match value {
        Attribute::S(text) | Attribute::B(text) => text.len(),
        Attribute::N(digits) => digits.len() / 2 + 2,
        Attribute::Bool(_) | Attribute::Null(_) => 1,
        Attribute::Strings(texts) | Attribute::Numbers(texts) | Attribute::Binaries(texts) => {
            texts.iter().map(|text| text.len() + 1).sum()
        }
        Attribute::L(list) => 3 + list.iter().map(|value| 1 + size(value)).sum::<usize>(),
        Attribute::M(map) => 3 + map.iter().map(|(name, value)| 1 + name.len() + size(value)).sum::<usize>(),
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
