//! Log messages about orders: when a term first sees one, when it changes, and when it is over. Pure.

use std::collections::BTreeMap;

use super::report::about_slots;
use crate::about::{About, Message};
use crate::order::{Order, Target};
use crate::slot::{Slot, SlotId};

/// What to log when the orders in force go from `before`, none in a term's first turn, to `after`. Of those that are no longer in force, `over` names the ones
/// that ended by themselves: the others were lifted.
pub(super) fn changes(
    before: Option<&[Order]>,
    after: &[Order],
    over: &[Order],
    slots: &BTreeMap<SlotId, Slot>,
) -> Vec<Message> {
    let (is_first, before) = (before.is_none(), before.unwrap_or_default());
    let line = |text: String, order: &Order| Message::new(text, about(order, slots));
    let has_target = |orders: &[Order], order: &Order| orders.iter().any(|other| other.target == order.target);
    let begun = after.iter().filter(|order| !before.contains(order)).map(|order| {
        let verb = match () {
            () if is_first => "in force: ",
            () if has_target(before, order) => "changed: ",
            () => "",
        };
        line(format!("{verb}{order}: {}", servers(held(order, slots).count())), order)
    });
    let ended = before.iter().filter(|order| !has_target(after, order)).map(|order| {
        let verb = match (has_target(over, order), &order.target) {
            (false, _) => "lifted",
            (true, Target::Instance(_)) if order.until.is_none() => "ended with its instance",
            (true, _) => "over",
        };
        line(format!("{verb}: {order}"), order)
    });
    begun.chain(ended).collect()
}

/// The slots whose occupants it names, in order.
pub(super) fn held<'a>(order: &Order, slots: &'a BTreeMap<SlotId, Slot>) -> impl Iterator<Item = &'a Slot> {
    let target = order.target.clone();
    let is_held = move |slot: &&Slot| slot.occupant.as_ref().is_some_and(|occupant| target.names(slot.id, occupant));
    slots.values().filter(is_held)
}

fn servers(count: usize) -> String {
    match count {
        0 => "no server is there now".to_owned(),
        1 => "1 server".to_owned(),
        more => format!("{more} servers"),
    }
}

fn about(order: &Order, slots: &BTreeMap<SlotId, Slot>) -> About {
    let about = about_slots(held(order, slots));
    match &order.target {
        Target::Zone(zone) => about.zone([zone]),
        Target::Group(group) => about.group([group]),
        Target::Instance(name) => about.instance([name]),
        Target::Slot(id) => about.slot([*id]),
        Target::Address(_) => about,
    }
}
