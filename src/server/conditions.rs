//! The conditions an operator should know of for as long as they last: said when they begin, change and end,
//! not every turn. Pure; writes no log itself.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Limits, Plan};
use crate::slot::{Instance, Observation, Part, Slot, Table};

/// How many names a sentence lists before it only counts the rest.
const LISTED: usize = 10;

/// What an operator should know for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    MissingGroups,
    Unreadable,
    Unplaced,
    SharedAddress,
    AboveSize,
    LastResort,
}

impl Condition {
    /// Said when the condition is over.
    fn over(self) -> &'static str {
        match self {
            Condition::MissingGroups => "every configured group is known again",
            Condition::Unreadable => "every item of the table can be read again",
            Condition::Unplaced => "every ready server has a slot again",
            Condition::SharedAddress => "no ready server is without a slot for its address any more",
            Condition::AboveSize => "no slot above HAPROXY_BACKEND_SERVERS_LIST_SIZE holds a server any more",
            Condition::LastResort => "leaving servers no longer serve as the last resort",
        }
    }
}

/// The conditions that hold, each with its sentence.
pub(super) type Conditions = BTreeMap<Condition, String>;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Warn(String),
    Info(String),
}

/// The conditions of one turn. `missing_remedy` is what helps against groups that do not exist.
pub(super) fn conditions(
    table: &Table,
    seen: &Observation,
    plan: &Plan,
    limits: &Limits,
    missing_remedy: &str,
) -> Conditions {
    let unreadable = table.faults();
    let unplaced = plan.unplaced.iter().map(|instance| instance.name.escape_debug().to_string()).collect::<Vec<_>>();
    let missing: Vec<_> = seen.missing_groups.iter().map(|group| group.escape_debug().to_string()).collect();
    let mut conditions = Conditions::new();
    let mut note = |condition, count: usize, text: String| {
        if count > 0 {
            conditions.insert(condition, text);
        }
    };
    note(
        Condition::MissingGroups,
        missing.len(),
        format!("groups that do not exist: {}: their servers stay as they are; {missing_remedy}", list(&missing)),
    );
    note(
        Condition::Unreadable,
        unreadable.len(),
        format!(
            "items of the table that cannot be read: {}: they are left alone; correct or delete them",
            list(&unreadable)
        ),
    );
    note(
        Condition::Unplaced,
        unplaced.len(),
        format!(
            "ready servers without a slot: {}; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE, now {}",
            list(&unplaced),
            limits.size
        ),
    );
    let holds = |one: &Instance, slot: &Slot| {
        slot.occupant.as_ref().is_some_and(|occupant| occupant.address == one.address && one.is_called(&occupant.name))
    };
    let outranked = plan.ignored.iter().filter(|one| one.part == Part::Ready);
    let shared: Vec<_> = outranked
        .filter(|one| !plan.slots.values().any(|slot| holds(one, slot)))
        .map(|one| format!("{} at {}", one.name.escape_debug(), one.address))
        .collect();
    note(
        Condition::SharedAddress,
        shared.len(),
        format!(
            "ready servers whose address is that of another server, or of a row that cannot be read: {}: they get no slot",
            list(&shared)
        ),
    );
    note(
        Condition::AboveSize,
        plan.above_size.len(),
        format!(
            "slots above HAPROXY_BACKEND_SERVERS_LIST_SIZE, now {}, hold servers until these leave: {}",
            limits.size,
            list(&plan.above_size)
        ),
    );
    note(
        Condition::LastResort,
        plan.last_resort.len(),
        format!("no ready server has weight: leaving servers keep serving in slots {}", list(&plan.last_resort)),
    );
    conditions
}

/// What to log when the conditions go from `before` to `after`: a sentence that is new or has changed, and one for each end.
pub(super) fn turned(before: &Conditions, after: &Conditions) -> Vec<Line> {
    let begun = after.iter().filter(|(condition, text)| before.get(condition) != Some(text));
    let ended = before.keys().filter(|condition| !after.contains_key(condition));
    begun
        .map(|(_, text)| Line::Warn(text.clone()))
        .chain(ended.map(|condition| Line::Info(condition.over().to_owned())))
        .collect()
}

fn list<T: Display>(items: &[T]) -> String {
    let mut text = items.iter().take(LISTED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > LISTED {
        text.push_str(&format!(" and {} more", items.len() - LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::decide;
    use super::super::fixtures::{at, limits, seen, table};
    use super::*;

    #[test]
    fn a_condition_is_said_when_it_begins_changes_and_ends() {
        let none = Conditions::new();
        let one = Conditions::from([(Condition::Unplaced, "one waits".to_owned())]);
        let two = Conditions::from([
            (Condition::Unplaced, "two wait".to_owned()),
            (Condition::MissingGroups, "a is missing".to_owned()),
        ]);
        let warn = |text: &str| Line::Warn(text.to_owned());
        let info = |condition: Condition| Line::Info(condition.over().to_owned());
        assert_eq!(turned(&none, &none), []);
        assert_eq!(turned(&none, &one), [warn("one waits")]);
        assert_eq!(turned(&one, &one), []);
        assert_eq!(turned(&one, &two), [warn("a is missing"), warn("two wait")]);
        assert_eq!(turned(&two, &one), [warn("one waits"), info(Condition::MissingGroups)]);
        assert_eq!(turned(&one, &none), [info(Condition::Unplaced)]);
    }

    #[test]
    fn each_condition_names_the_thing_and_the_remedy() {
        let table = table("1 .1 i1 a draining 4; 2 unreadable; 4 .4 i4 c enabled 0");
        let seen = seen(".1 i1 a draining; .2 i2 a ready; missing c");
        let limits = Limits { min: 0, size: 1, ..limits(1) };
        let plan = decide(&table, &seen, at(100), &limits);
        let found: Vec<String> = conditions(&table, &seen, &plan, &limits, "create them").into_values().collect();
        assert_eq!(
            found,
            [
                "groups that do not exist: c: their servers stay as they are; create them",
                "items of the table that cannot be read: slot 2: broken: they are left alone; correct or delete them",
                "ready servers without a slot: i2; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 1",
                "slots above HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 1, hold servers until these leave: 4",
                "no ready server has weight: leaving servers keep serving in slots 1",
            ]
        );
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        assert_eq!(list(&(1..=10).collect::<Vec<_>>()), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
        assert_eq!(list(&(1..=12).collect::<Vec<_>>()), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
