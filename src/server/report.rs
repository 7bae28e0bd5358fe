//! Log messages about slots. Pure; the caller writes the log.

use super::limits::SlotLimits;
use super::plan::Plan;
use crate::about::{About, MAX_VALUES, Message};
use crate::slot::{Instance, Occupant, Row, Slot, SlotId, Status, Table, Weight};

/// What happened to a slot. A ramp step is only an event when it reaches `full`.
pub(super) fn events(before: Option<&Row>, after: &Slot, full: Weight) -> Vec<Message> {
    let old = match before {
        Some(Row::Readable(slot)) => slot.occupant.as_ref(),
        _ => None,
    };
    let id = after.id;
    match (old, after.occupant.as_ref()) {
        (None, None) => vec![],
        (None, Some(new)) => vec![added(id, new)],
        (Some(old), None) => vec![removed(id, old)],
        (Some(old), Some(new)) if old.address != new.address => vec![removed(id, old), added(id, new)],
        (Some(old), Some(new)) if old.name != new.name => {
            let text =
                format!("slot {id}: {} replaced by {}, weight {}", old.name.escape_debug(), describe(new), new.weight);
            vec![Message::new(text, about(id, [old, new]))]
        }
        (Some(old), Some(new)) => changed(id, old, new, full),
    }
}

fn added(id: SlotId, new: &Occupant) -> Message {
    let against = if new.status == Status::Draining && new.weight > 0 {
        ", against an order, as nothing else serves"
    } else {
        ""
    };
    Message::new(format!("slot {id}: added {}, weight {}{against}", describe(new), new.weight), about(id, [new]))
}

fn removed(id: SlotId, old: &Occupant) -> Message {
    Message::new(format!("slot {id}: removed {}", describe(old)), about(id, [old]))
}

fn changed(id: SlotId, old: &Occupant, new: &Occupant, full: Weight) -> Vec<Message> {
    let mut events = Vec::new();
    if old.group != new.group {
        let (from, to) = (group_name(old.group.as_deref()), group_name(new.group.as_deref()));
        let text =
            format!("slot {id}: {} at {} changes group from {from} to {to}", new.name.escape_debug(), new.address);
        events.push(Message::new(text, about(id, [old, new])));
    }
    let text = match (old.status, new.status) {
        (Status::Draining, Status::Enabled) => {
            format!("slot {id}: {} is back from draining, weight {}", describe(new), new.weight)
        }
        (Status::Enabled, Status::Draining) if new.weight > 0 => {
            format!("slot {id}: {} is to drain, but serves as the last resort, weight {}", describe(new), new.weight)
        }
        (Status::Enabled, Status::Draining) => format!("slot {id}: drained {}, weight 0", describe(new)),
        (Status::Enabled, Status::Enabled) if old.weight < full && new.weight == full => {
            format!("slot {id}: {} reaches full weight {full}", describe(new))
        }
        _ => return events,
    };
    events.push(Message::new(text, about(id, [new])));
    events
}

/// A slot and its occupants.
fn about<'a>(id: SlotId, occupants: impl IntoIterator<Item = &'a Occupant> + Clone) -> About {
    let groups = occupants.clone().into_iter().filter_map(|one| one.group.as_deref());
    let zones = occupants.clone().into_iter().filter_map(|one| one.zone.as_deref());
    About::default().slot([id]).instance(occupants.into_iter().map(|one| one.name.as_str())).group(groups).zone(zones)
}

/// Slots and who holds them.
pub(super) fn about_slots<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> About {
    let of = |slot: &Slot| about(slot.id, &slot.occupant);
    slots.into_iter().take(MAX_VALUES).fold(About::default(), |all, slot| all.and(of(slot)))
}

pub(super) fn about_instances<'a>(instances: impl IntoIterator<Item = &'a Instance> + Clone) -> About {
    let names = instances.clone().into_iter().map(|one| one.name.as_str());
    About::default().instance(names).group(instances.into_iter().map(|one| one.group.as_str()))
}

pub(super) fn row(slot: &Slot) -> String {
    let id = slot.id;
    match (&slot.occupant, &slot.last_group) {
        (Some(occupant), _) => {
            let status = occupant.status.word();
            format!("slot {id}: {}, {status}, weight {}", describe(occupant), occupant.weight)
        }
        (None, Some(last)) => format!("slot {id}: free, last used by group {}", last.escape_debug()),
        (None, None) => format!("slot {id}: free"),
    }
}

pub(super) fn instance(instance: &Instance) -> String {
    format!("{} at {} (group {})", instance.name.escape_debug(), instance.address, instance.group.escape_debug())
}

/// What the plan would write, one line per slot.
pub(super) fn preview(table: &Table, plan: &Plan, limits: &SlotLimits) -> String {
    let lines: Vec<String> = plan
        .changes
        .iter()
        .map(|slot| match events(table.rows.get(&slot.id), slot, plan.full_weight(slot.id, limits)) {
            events if events.is_empty() => row(slot),
            events => events.into_iter().map(|event| event.text).collect::<Vec<_>>().join("; "),
        })
        .collect();
    if lines.is_empty() { "nothing to write".to_owned() } else { lines.join("\n") }
}

// Names are external input: unescaped, one could forge a log line.
fn describe(occupant: &Occupant) -> String {
    format!(
        "{} at {} (group {})",
        occupant.name.escape_debug(),
        occupant.address,
        group_name(occupant.group.as_deref())
    )
}

fn group_name(name: Option<&str>) -> String {
    name.unwrap_or("none").escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::decide;
    use super::super::fixtures::{at, limits, seen, slot, table};
    use super::*;

    #[test]
    fn each_event_has_its_line() {
        #[rustfmt::skip]
        let cases: [(&str, &str, &[&str]); 15] = [
            ("1 free", "1 .1 i1 a enabled 1", &["slot 1: added i1 at 10.0.0.1 (group a), weight 1"]),
            ("1 .1 i1 a enabled 9", "1 free was=a", &["slot 1: removed i1 at 10.0.0.1 (group a)"]),
            ("1 .1 i1 - enabled 9", "1 free", &["slot 1: removed i1 at 10.0.0.1 (group none)"]),
            ("1 .1 i1 a enabled 9", "1 .1 i2 b enabled 1", &["slot 1: i1 replaced by i2 at 10.0.0.1 (group b), weight 1"]),
            ("1 .1 i1 a enabled 9", "1 .2 i2 b enabled 1 was=a",
             &["slot 1: removed i1 at 10.0.0.1 (group a)", "slot 1: added i2 at 10.0.0.2 (group b), weight 1"]),
            ("1 .1 i1 a enabled 9", "1 .1 i1 a draining 0", &["slot 1: drained i1 at 10.0.0.1 (group a), weight 0"]),
            ("1 .1 i1 a draining 0", "1 .1 i1 a enabled 1",
             &["slot 1: i1 at 10.0.0.1 (group a) is back from draining, weight 1"]),
            ("1 .1 i1 a enabled 3", "1 .1 i1 b enabled 3", &["slot 1: i1 at 10.0.0.1 changes group from a to b"]),
            ("1 .1 i1 a enabled 9", "1 .1 i1 b enabled 10",
             &["slot 1: i1 at 10.0.0.1 changes group from a to b", "slot 1: i1 at 10.0.0.1 (group b) reaches full weight 10"]),
            ("1 .1 i1 a enabled 3", "1 .1 i1 a enabled 4", &[]),
            ("1 .1 i1 a enabled 50", "1 .1 i1 a enabled 10", &[]),
            ("1 .1 i1 a draining 5", "1 .1 i1 a draining 0", &[]),
            ("1 free", "1 free", &[]),
            ("", "1 free", &[]),
            ("", "1 .1 i1 a enabled 1", &["slot 1: added i1 at 10.0.0.1 (group a), weight 1"]),
        ];
        for (before, after, expected) in cases {
            let before = table(before);
            let found: Vec<String> =
                events(before.rows.get(&1), &slot(after), 10).into_iter().map(|event| event.text).collect();
            assert_eq!(found, expected, "{before:?} to {after}");
        }
    }

    #[test]
    fn each_event_is_about_its_slot_and_occupants() {
        for (before, after, expected) in [
            ("1 free", "1 .1 i1 a enabled 1", vec![About::default().slot([1]).instance(["i1"]).group(["a"])]),
            ("1 .1 i1 - enabled 9", "1 free", vec![About::default().slot([1]).instance(["i1"])]),
            (
                "1 .1 i1 a/z1 enabled 9",
                "1 .2 i2 a/z2 enabled 1",
                vec![
                    About::default().slot([1]).instance(["i1"]).group(["a"]).zone(["z1"]),
                    About::default().slot([1]).instance(["i2"]).group(["a"]).zone(["z2"]),
                ],
            ),
            (
                "1 .1 i1 a enabled 9",
                "1 .1 i2 a enabled 1",
                vec![About::default().slot([1]).instance(["i1", "i2"]).group(["a"])],
            ),
            (
                "1 .1 i1 a enabled 9",
                "1 .1 i1 b draining 0",
                vec![
                    About::default().slot([1]).instance(["i1"]).group(["a", "b"]),
                    About::default().slot([1]).instance(["i1"]).group(["b"]),
                ],
            ),
        ] {
            let before = table(before);
            let found: Vec<About> =
                events(before.rows.get(&1), &slot(after), 10).into_iter().map(|event| event.about).collect();
            assert_eq!(found, expected, "{before:?} to {after}");
        }
    }

    #[test]
    fn a_name_from_outside_stays_on_its_line() {
        let mut evil = slot("1 .1 i1 a enabled 1");
        evil.occupant.as_mut().expect("one").name = "i1\nslot 2: removed".to_owned();
        let event = events(None, &evil, 10).remove(0);
        for line in [&event.text, &row(&evil)] {
            assert!(!line.contains('\n'), "{line}");
        }
        // The fields have the name itself.
        assert_eq!(event.about, About::default().slot([1]).instance(["i1\nslot 2: removed"]).group(["a"]));
    }

    #[test]
    fn a_preview_has_one_line_for_each_slot() {
        let preview_of = |text: &str, observed: &str| {
            let table = table(text);
            let plan: Plan = decide(&table, &[], &seen(observed), at(100), &limits(4));
            preview(&table, &plan, &limits(4))
        };
        assert_eq!(
            preview_of("1 .1 i1 a enabled 3@70; 2 .2 i2 a enabled 3; 3 free", ".1 i1 a ready; .3 i3 a ready"),
            "slot 1: i1 at 10.0.0.1 (group a), enabled, weight 4\n\
             slot 2: removed i2 at 10.0.0.2 (group a); slot 2: added i3 at 10.0.0.3 (group a), weight 1\n\
             slot 4: free"
        );
        assert_eq!(preview_of("1 free; 2 free was=a; 3 unreadable; 4 free", ""), "nothing to write");
    }
}
