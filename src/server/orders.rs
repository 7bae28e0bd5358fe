//! Log messages about orders: when a term first sees one, when it changes, and when it is over. Pure.

use std::collections::BTreeMap;

use super::report::about_slots;
use crate::about::{About, Message};
use crate::order::{Order, Target};
use crate::slot::{Slot, SlotId};

/// What to log when the orders in force go from `before`, none in a term's first turn, to `after`. Of those that are no longer in
/// force, `over` names the ones that ended by themselves: the others were lifted.
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
        line(format!("{verb}{order}: {}", servers(order.target.among(slots.values()).count())), order)
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

fn servers(count: usize) -> String {
    match count {
        0 => "no server is there now".to_owned(),
        1 => "1 server".to_owned(),
        more => format!("{more} servers"),
    }
}

fn about(order: &Order, slots: &BTreeMap<SlotId, Slot>) -> About {
    let about = about_slots(order.target.among(slots.values()));
    match &order.target {
        Target::Zone(zone) => about.zone([zone]),
        Target::Group(group) => about.group([group]),
        Target::Instance(name) => about.instance([name]),
        Target::Slot(id) => about.slot([*id]),
        Target::Address(_) => about,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{orders, rows};
    use super::*;

    #[test]
    fn each_order_is_told_when_it_is_seen_changes_and_ends() {
        let slots = rows("1 .1 i1 a/z1 enabled 9; 2 .2 i2 b/z1 enabled 9");
        let texts = |before: Option<&str>, after: &str, over: &str| -> Vec<String> {
            let before = before.map(orders);
            let lines = changes(before.as_deref(), &orders(after), &orders(over), &slots);
            lines.into_iter().map(|line| line.text).collect()
        };
        let (lasting, timed) =
            ("order on zone:z1 by me, until it is lifted", "order on i1 by me, until 2023-11-14T22:13:30Z");
        let none: [String; 0] = [];
        assert_eq!(texts(None, "zone:z1", ""), [format!("in force: {lasting}: 2 servers")]);
        assert_eq!(texts(Some(""), "zone:z1", ""), [format!("{lasting}: 2 servers")]);
        assert_eq!(texts(Some("zone:z1"), "zone:z1", ""), none);
        assert_eq!(texts(Some("i1"), "i1 until=10", ""), [format!("changed: {timed}: 1 server")]);
        assert_eq!(
            texts(Some(""), "slot:7", ""),
            ["order on slot:7 by me, until it is lifted: no server is there now"]
        );
        assert_eq!(texts(Some("zone:z1"), "", ""), [format!("lifted: {lasting}")]);
        assert_eq!(texts(Some("i1 until=10"), "", "i1 until=10"), [format!("over: {timed}")]);
        assert_eq!(texts(Some("i1"), "", "i1"), ["ended with its instance: order on i1 by me, until it is lifted"]);
    }

    #[test]
    fn each_line_is_about_whom_the_order_names() {
        let slots = rows("1 .1 i1 a/z1 enabled 9");
        let about = changes(Some(&[]), &orders("group:a"), &[], &slots).remove(0).about;
        assert_eq!(about, About::default().slot([1]).instance(["i1"]).group(["a"]).zone(["z1"]));
    }
}
