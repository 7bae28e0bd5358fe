//! Log messages about slots. Pure; the caller writes the log.

use super::plan::Plan;
use crate::slot::{Instance, Occupant, Row, Slot, SlotId, Status, Table, Weight};

/// What happened to a slot. A ramp step is only an event when it reaches `full`.
pub(super) fn events(before: Option<&Row>, after: &Slot, full: Weight) -> Vec<String> {
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
            vec![format!("slot {id}: {} replaced by {}, weight {}", old.name.escape_debug(), describe(new), new.weight)]
        }
        (Some(old), Some(new)) => changed(id, old, new, full),
    }
}

fn added(id: SlotId, new: &Occupant) -> String {
    format!("slot {id}: added {}, weight {}", describe(new), new.weight)
}

fn removed(id: SlotId, old: &Occupant) -> String {
    format!("slot {id}: removed {}", describe(old))
}

fn changed(id: SlotId, old: &Occupant, new: &Occupant, full: Weight) -> Vec<String> {
    let mut events = Vec::new();
    if old.group != new.group {
        let (from, to) = (group_name(old.group.as_deref()), group_name(new.group.as_deref()));
        events.push(format!(
            "slot {id}: {} at {} changes group from {from} to {to}",
            new.name.escape_debug(),
            new.address
        ));
    }
    match (old.status, new.status) {
        (Status::Draining, Status::Enabled) => {
            events.push(format!("slot {id}: {} is back from draining, weight {}", describe(new), new.weight));
        }
        (Status::Enabled, Status::Draining) => {
            events.push(format!("slot {id}: drained {}, weight {}", describe(new), new.weight));
        }
        (Status::Enabled, Status::Enabled) if old.weight < full && new.weight == full => {
            events.push(format!("slot {id}: {} reaches full weight {full}", describe(new)));
        }
        _ => {}
    }
    events
}

pub(super) fn row(slot: &Slot) -> String {
    let id = slot.id;
    match (&slot.occupant, &slot.last_group) {
        (Some(occupant), _) => {
            let status = match occupant.status {
                Status::Enabled => "enabled",
                Status::Draining => "draining",
                Status::Disabled => "disabled",
            };
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
pub(super) fn preview(table: &Table, plan: &Plan, max: Weight) -> String {
    let lines: Vec<String> = plan
        .changes
        .iter()
        .map(|slot| match events(table.rows.get(&slot.id), slot, plan.full_weight(slot.id, max)) {
            events if events.is_empty() => row(slot),
            events => events.join("; "),
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
            assert_eq!(events(before.rows.get(&1), &slot(after), 10), expected, "{before:?} to {after}");
        }
    }

    #[test]
    fn a_name_from_outside_stays_on_its_line() {
        let mut evil = slot("1 .1 i1 a enabled 1");
        evil.occupant.as_mut().expect("one").name = "i1\nslot 2: removed".to_owned();
        for line in events(None, &evil, 10).into_iter().chain([row(&evil)]) {
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_preview_has_one_line_for_each_slot() {
        let preview_of = |text: &str, observed: &str| {
            let table = table(text);
            let plan: Plan = decide(&table, &seen(observed), at(100), &limits(4));
            preview(&table, &plan, 10)
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
