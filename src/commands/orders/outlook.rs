//! What an order means for the servers of now. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::commands::print::{Cell, Tone};
use crate::order::{Order, Orders, Target, on_occupant};
use crate::slot::{Occupant, SlotId, Status, Table};
use crate::text::{list, sanitized};

/// Names listed in one message.
const LISTED: usize = 10;

/// What some targets are, in a table with orders on others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outlook {
    pub(super) rows: Vec<Row>,
    /// The servers that have weight now.
    pub(super) serving: usize,
    /// Those of them that the targets name.
    pub(super) taken: usize,
    /// Those of them that no order names, neither these targets nor one that stands.
    left: usize,
    /// Those of them that an order names that stands: the last resort, or it is not carried out yet.
    ordered: usize,
    /// Enabled servers without weight that no order names: new ones, or such whose factor is 0.
    resting: usize,
    /// The zones and groups of which all serving servers are taken.
    emptied: Vec<Target>,
    /// The servers that the targets name.
    named: usize,
    /// Those of them that no other order and no operator holds.
    free: usize,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    target: Target,
    slots: Vec<SlotId>,
    serving: usize,
    /// The orders on its servers, this target's own included.
    orders: Vec<String>,
}

fn occupants(table: &Table) -> impl Iterator<Item = (SlotId, &Occupant)> {
    table.slots().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?)))
}

fn serves(occupant: &Occupant) -> bool {
    occupant.weight > 0 && occupant.status != Status::Disabled
}

impl Outlook {
    /// What `targets` are, with `standing` orders.
    pub(super) fn of(table: &Table, standing: &[Order], targets: &[Target]) -> Self {
        let is_named = |(id, occupant): &(SlotId, &Occupant)| targets.iter().any(|target| target.names(*id, occupant));
        let named: Vec<(SlotId, &Occupant)> = occupants(table).filter(is_named).collect();
        let serving = || occupants(table).filter(|(_, occupant)| serves(occupant));
        let is_ordered = |(id, occupant): &(SlotId, &Occupant)| on_occupant(standing, *id, occupant).is_some();
        let is_free = |(id, occupant): &&(SlotId, &Occupant)| {
            occupant.status != Status::Disabled && on_occupant(standing, *id, occupant).is_none()
        };
        let row = |target: &Target| {
            let mine: Vec<(SlotId, &Occupant)> = occupants(table).filter(|(id, it)| target.names(*id, it)).collect();
            let on_mine = |order: &&Order| {
                order.target == *target || mine.iter().any(|(id, occupant)| order.target.names(*id, occupant))
            };
            Row {
                target: target.clone(),
                slots: mine.iter().map(|(id, _)| *id).collect(),
                serving: mine.iter().filter(|(_, occupant)| serves(occupant)).count(),
                orders: standing.iter().filter(on_mine).map(|order| held(order, target)).collect(),
            }
        };
        Outlook {
            rows: targets.iter().map(row).collect(),
            serving: serving().count(),
            taken: named.iter().filter(|(_, occupant)| serves(occupant)).count(),
            left: serving().filter(|one| !is_named(one) && !is_ordered(one)).count(),
            ordered: serving().filter(is_ordered).count(),
            resting: occupants(table)
                .filter(|one| {
                    one.1.status == Status::Enabled && one.1.weight == 0 && !is_named(one) && !is_ordered(one)
                })
                .count(),
            emptied: emptied(table, targets),
            named: named.len(),
            free: named.iter().filter(is_free).count(),
        }
    }

    /// Whether the targets are more than half of what serves, together with what is ordered already.
    pub(super) fn is_most(&self) -> bool {
        self.taken > 0 && 2 * (self.serving - self.left) > self.serving
    }

    /// What draining the targets means.
    pub(super) fn drains(&self) -> String {
        let Outlook { serving, taken, named, .. } = self;
        match (taken, serving) {
            (0, _) if *named == 0 => "no server is there now; one that comes gets no slot".to_owned(),
            (0, _) => format!("none of the {serving} serving servers, as these have no weight now"),
            (_, serving) if self.left == 0 && self.resting > 0 => {
                format!(
                    "all {serving} serving servers: they drain once one of {} others has weight, and those of them whose factor is 0 \
                     get some at once",
                    self.resting
                )
            }
            (_, serving) if self.left == 0 => {
                format!("all {serving} serving servers: until others have weight, they serve on as the last resort")
            }
            (taken, serving) => {
                let share = 100 * taken / serving;
                let mut text = format!("{taken} of {serving} serving servers ({share} %) drain, on every HAProxy");
                if !self.emptied.is_empty() {
                    let names = list(self.emptied.iter().map(|target| sanitized(&target.to_string())), LISTED);
                    let hint = "one that takes only servers of these has none left, unless CLIENT_SPILL_BELOW or its fallback helps";
                    text.push_str(&format!("; all of {names}: {hint}"));
                }
                text
            }
        }
    }

    /// What lifting the orders on the targets means.
    pub(super) fn enables(&self) -> String {
        let Outlook { named, free, .. } = self;
        // Be it that they are the last resort, or that their order is not carried out yet.
        let also = match self.ordered {
            ordered if ordered > 0 && *free > 0 => {
                format!("; {ordered} that serve against other orders go to weight 0")
            }
            _ => String::new(),
        };
        let text = match (free, named) {
            (_, 0) => "no server is there now; one that comes gets a slot".to_owned(),
            (free, named) if free == named => format!("{named} servers ramp up again, as far as they are ready"),
            (free, named) => {
                format!(
                    "{free} of {named} servers ramp up again, as far as they are ready; the others are held otherwise"
                )
            }
        };
        text + &also
    }
}

impl Row {
    pub(super) fn cells(&self) -> Vec<Cell> {
        let held = match self.orders.as_slice() {
            [] => Cell::new("-", Tone::Faint),
            orders => Cell::new(orders.join("; "), Tone::Warn),
        };
        vec![self.target.to_string().into(), self.slots.len().to_string().into(), self.serving.to_string().into(), held]
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "target": self.target.to_string(),
            "slots": self.slots,
            "serving": self.serving,
            "orders": self.orders,
        })
    }
}

/// What holds the servers of a target that has no order of its own.
pub(super) fn held_by(table: &Table, orders: &Orders, target: &Target, now: Timestamp) -> String {
    let standing = orders.in_force(now);
    let named: Vec<(SlotId, &Occupant)> = occupants(table).filter(|(id, it)| target.names(*id, it)).collect();
    let on_named = |order: &&Order| named.iter().any(|(id, occupant)| order.target.names(*id, occupant));
    let held: Vec<String> = standing
        .iter()
        .filter(on_named)
        .map(|order| format!("{order} (hsdo enable {})", sanitized(&order.target.to_string())))
        .collect();
    if !held.is_empty() {
        return format!("held by the {}", held.join(" and the "));
    }
    let slots = |status: Status| {
        let of = named.iter().filter(move |(_, occupant)| occupant.status == status);
        list(of.map(|(id, _)| id.to_string()).collect::<Vec<_>>().into_iter(), LISTED)
    };
    let (disabled, draining) = (slots(Status::Disabled), slots(Status::Draining));
    match (named.is_empty(), disabled.is_empty(), draining.is_empty()) {
        (true, ..) => "nobody is there".to_owned(),
        (_, false, _) => format!("an operator disabled the rows of slots {disabled} (BackendServerStatus)"),
        (_, _, false) => format!("slots {draining} drain for another reason; see hsdo why"),
        _ => "nothing holds it".to_owned(),
    }
}

/// An order, beside a new one on `target`.
fn held(order: &Order, target: &Target) -> String {
    if order.target == *target { format!("replaces the {order}") } else { order.to_string() }
}

/// The zones and groups of which these targets take every serving server.
fn emptied(table: &Table, targets: &[Target]) -> Vec<Target> {
    let names = |(_, one): (SlotId, &Occupant)| {
        [one.zone.clone().map(Target::Zone), one.group.clone().map(Target::Group)].into_iter().flatten()
    };
    let is_taken = |id: SlotId, one: &Occupant| targets.iter().any(|target| target.names(id, one));
    let serving = || occupants(table).filter(|(_, one)| serves(one));
    let places: BTreeSet<Target> = serving().flat_map(names).collect();
    let is_empty =
        |place: &Target| serving().filter(|(id, one)| place.names(*id, one)).all(|(id, one)| is_taken(id, one));
    places.into_iter().filter(is_empty).collect()
}

/// Whether a target names any occupant.
pub(super) fn is_somebody(table: &Table, target: &Target) -> bool {
    target.among(table.slots()).next().is_some()
}

/// The names that the occupants have, for a message.
pub(super) fn names<'a>(table: &'a Table, pick: fn(&'a Occupant) -> Option<&'a str>) -> String {
    let names: BTreeSet<&str> = occupants(table).filter_map(|(_, occupant)| pick(occupant)).collect();
    match names.len() {
        0 => "none that is known".to_owned(),
        _ => list(names.into_iter().map(sanitized).collect::<Vec<_>>().into_iter(), LISTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Row as TableRow, Slot};

    /// Slots 1 to 4: two in zone a, one in zone b that drains, one in zone b that is disabled; each with a weight.
    fn table(weights: [u16; 4]) -> Table {
        let occupant = |index: usize, weight| Occupant {
            address: format!("10.0.0.{}", index + 1).parse().expect("an address"),
            name: format!("i{}", index + 1),
            group: Some("web".to_owned()),
            zone: Some(if index < 2 { "a" } else { "b" }.to_owned()),
            port: None,
            weight,
            status: [Status::Enabled, Status::Enabled, Status::Draining, Status::Disabled][index],
            last_step: None,
            drain_since: None,
        };
        let row = |(index, weight)| {
            let id = SlotId::try_from(index + 1).expect("few");
            let slot = Slot { occupant: Some(occupant(index, weight)), ..Slot::empty(id) };
            (id, TableRow::Readable(slot.into()))
        };
        Table { rows: weights.into_iter().enumerate().map(row).collect(), strays: vec![] }
    }

    fn targets(text: &str) -> Vec<Target> {
        text.split_whitespace().map(|word| Target::parse(word).expect(word)).collect()
    }

    fn standing(text: &str) -> Vec<Order> {
        let order = |target| Order { target, until: None, since: None, by: Some("x".to_owned()), note: None };
        targets(text).into_iter().map(order).collect()
    }

    #[test]
    fn what_an_order_takes_is_counted_once_and_by_weight() {
        /// Weights, targets, serving, taken, whether it is most, what it says.
        type Case = ([u16; 4], &'static str, usize, usize, bool, &'static str);
        let cases: [Case; 9] = [
            ([10, 10, 0, 5], "slot:1", 2, 1, false, "1 of 2 serving servers (50 %) drain, on every HAProxy"),
            (
                [10, 10, 0, 5],
                "slot:1 i1 10.0.0.1",
                2,
                1,
                false,
                "1 of 2 serving servers (50 %) drain, on every HAProxy",
            ),
            (
                [10, 10, 0, 5],
                "zone:a",
                2,
                2,
                true,
                "all 2 serving servers: until others have weight, they serve on as the last resort",
            ),
            (
                [10, 10, 3, 5],
                "slot:1 slot:3",
                3,
                2,
                true,
                "2 of 3 serving servers (66 %) drain, on every HAProxy; all of zone:b: HINT",
            ),
            (
                [10, 10, 3, 5],
                "zone:b",
                3,
                1,
                false,
                "1 of 3 serving servers (33 %) drain, on every HAProxy; all of zone:b: HINT",
            ),
            (
                [10, 0, 0, 5],
                "slot:1",
                1,
                1,
                true,
                "all 1 serving servers: they drain once one of 1 others has weight, and those of them whose factor is 0 get some at once",
            ),
            ([10, 10, 0, 5], "zone:b", 2, 0, false, "none of the 2 serving servers, as these have no weight now"),
            ([10, 10, 0, 5], "10.0.0.9", 2, 0, false, "no server is there now; one that comes gets no slot"),
            ([0, 0, 0, 0], "group:web", 0, 0, false, "none of the 0 serving servers, as these have no weight now"),
        ];
        for (weights, words, serving, taken, most, says) in cases {
            let found = Outlook::of(&table(weights), &[], &targets(words));
            assert_eq!((found.serving, found.taken, found.is_most()), (serving, taken, most), "{words}");
            let hint =
                "one that takes only servers of these has none left, unless CLIENT_SPILL_BELOW or its fallback helps";
            assert_eq!(found.drains(), says.replace("HINT", hint), "{words}");
        }
        // What is ordered already counts, whether it is carried out or not.
        let beside = |standing_on: &str, words: &str| {
            let found = Outlook::of(&table([10, 10, 10, 5]), &standing(standing_on), &targets(words));
            (found.is_most(), found.drains().contains("all 3 serving servers"))
        };
        assert_eq!(beside("", "slot:1"), (false, false));
        assert_eq!(beside("slot:2", "slot:1"), (true, false));
        assert_eq!(beside("slot:1", "slot:1"), (false, false));
        assert_eq!(beside("slot:2 slot:3", "slot:1"), (true, true));
        assert_eq!(beside("zone:a", "10.0.0.9"), (false, false), "it takes nobody");
    }

    #[test]
    fn what_else_holds_a_server_is_named() {
        let table = table([10, 10, 0, 5]);
        for (words, left, says) in [
            ("zone:a", "", "2 servers ramp up again, as far as they are ready"),
            (
                "zone:a",
                "slot:2",
                "1 of 2 servers ramp up again, as far as they are ready; the others are held otherwise; 1 that serve against other \
                 orders go to weight 0",
            ),
            ("zone:b", "", "1 of 2 servers ramp up again, as far as they are ready; the others are held otherwise"),
            ("zone:c", "", "no server is there now; one that comes gets a slot"),
        ] {
            assert_eq!(Outlook::of(&table, &standing(left), &targets(words)).enables(), says, "{words} beside {left}");
        }
        let now = Timestamp::from_micros(0);
        for (word, orders, says) in [
            ("slot:1", "zone:a slot:2", "held by the order on zone:a by x, until it is lifted (hsdo enable zone:a)"),
            ("slot:1", "zone:b", "nothing holds it"),
            ("zone:c", "zone:a", "nobody is there"),
            ("slot:4", "", "an operator disabled the rows of slots 4 (BackendServerStatus)"),
            ("slot:3", "", "slots 3 drain for another reason; see hsdo why"),
        ] {
            let orders = Orders { all: standing(orders), unreadable: vec![] };
            assert_eq!(held_by(&table, &orders, &targets(word)[0], now), says, "{word}");
        }
        assert_eq!(names(&table, |occupant| occupant.zone.as_deref()), "a, b");
        assert_eq!(names(&Table::default(), |occupant| occupant.zone.as_deref()), "none that is known");
    }
}
