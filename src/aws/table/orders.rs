//! Orders as slot 1's item holds them: a map from target to when, by whom and why.

use std::collections::BTreeMap;

use super::codec::{MARKER_SLOT, UpdateBuilder, key};
use super::dynamodb::{Attribute, Item, Update, get_item};
use super::number::integer_up_to;
use super::store::{ATTEMPT_TIMEOUT, SlotTable, WRITE_TIMEOUT};
use crate::aws::error::AwsError;
use crate::clock::Timestamp;
use crate::order::{MAX_NOTE_CHARS, Order, Orders, Target, UnreadableOrder};
use crate::slot::MAX_NAME_CHARS;
use crate::text::one_line;

/// The attribute of slot 1's item.
pub(crate) const ORDERS: &str = "HsdoOrders";
/// An order that takes the item above this is refused: every client reads the item each turn, for half a read unit up to 4 KB.
const MAX_ITEM_BYTES: usize = 4_000;
/// The last moment that an order may have: the end of the year 9999.
const MAX_SECONDS: u64 = 253_402_300_799;
/// How often a change is tried, if other hands change the orders at the same time.
const TRIES: usize = 8;

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

fn entry(order: &Order) -> Attribute {
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
fn update(before: Option<&Attribute>, after: Item, leader: Option<&str>) -> Update {
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
fn without(before: Option<&Attribute>, is_gone: impl Fn(&str, &Attribute) -> bool) -> Item {
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

impl SlotTable {
    /// Gives and lifts orders, all or none, by an update of slot 1's item on condition that its orders are as they were read.
    /// An order replaces one with the same target; entries that cannot be read stay. `allows` is asked about the orders that it would
    /// stand beside, and its error is passed on. Takes up to 10 s.
    ///
    /// # Errors
    /// [`AwsError::Table`] if there is no such item, its orders are no map or have no room, others keep changing them, or it is not
    /// known whether the change was made; else that of the call.
    pub fn change_orders(
        &mut self,
        given: &[Order],
        lifted: &[Target],
        allows: &dyn Fn(&Orders) -> Result<(), String>,
    ) -> Result<Result<(), String>, AwsError> {
        let budget = self.aws.budget(WRITE_TIMEOUT, ATTEMPT_TIMEOUT);
        for _ in 0..TRIES {
            let item = get_item(&self.aws, &self.name, &key(MARKER_SLOT), true, None, &budget)
                .map_err(|error| self.explain_missing(error))?;
            let Some(item) = item else {
                let text =
                    "has no row of slot 1, where orders are kept; a server that leads writes it: start `hsdo --server`";
                return Err(self.refused(text));
            };
            let before = item.get(ORDERS);
            if let Err(why) = allows(&read(before)) {
                return Ok(Err(why));
            }
            if before.is_some_and(|before| !matches!(before, Attribute::M(_))) {
                let text = format!("has orders that are no map ({ORDERS} of slot 1's item): remove the attribute");
                return Err(self.refused(&text));
            }
            let is_gone = |key: &str, _: &Attribute| {
                Target::parse(key)
                    .is_ok_and(|target| lifted.contains(&target) || given.iter().any(|order| order.target == target))
            };
            let mut after = without(before, is_gone);
            after.extend(given.iter().map(|order| (order.target.to_string(), entry(order))));
            let mut grown: BTreeMap<&str, &Attribute> =
                item.iter().map(|(name, value)| (name.as_str(), value)).collect();
            let value = Attribute::M(after.clone());
            grown.insert(ORDERS, &value);
            let bytes: usize = grown.into_iter().map(|(name, value)| name.len() + size(value)).sum();
            let grows = size(&value) > before.map_or(0, size);
            if grows && bytes > MAX_ITEM_BYTES {
                let text = format!(
                    "has no room for this: slot 1's item would have {bytes} bytes of {MAX_ITEM_BYTES}; lift orders that are no \
                     longer needed, or order zones or groups in place of single instances"
                );
                return Err(self.refused(&text));
            }
            match self.update(&update(before, after.clone(), None), &budget) {
                Ok(true) => return Ok(Ok(())),
                Ok(false) => {}
                // The response may be lost, and the change made.
                Err(error) if error.is_access_denied() => return Err(error),
                Err(error) => {
                    let again = self.aws.budget(ATTEMPT_TIMEOUT, ATTEMPT_TIMEOUT);
                    return match get_item(&self.aws, &self.name, &key(MARKER_SLOT), true, None, &again) {
                        Ok(Some(item)) if item.get(ORDERS) == Some(&value) => Ok(Ok(())),
                        Ok(Some(item)) if !item.contains_key(ORDERS) && after.is_empty() => Ok(Ok(())),
                        Ok(_) => Err(error),
                        Err(_) => Err(self.refused(&format!(
                            "may or may not have taken it: {error}; look with hsdo status, and repeat it"
                        ))),
                    };
                }
            }
        }
        Err(self.refused("has orders that others keep changing: try again"))
    }

    fn refused(&self, text: &str) -> AwsError {
        AwsError::Table(format!("table {:?} {text}", self.name))
    }
}

/// The size of a value, or a little more (DynamoDB Developer Guide, "Item sizes and formats").
fn size(value: &Attribute) -> usize {
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

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text, 64))
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
