//! Conditions that an operator should know about while they last. They are logged when they begin, change and end, not
//! every turn. Pure; the caller writes the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::limits::Limits;
use super::plan::Plan;
use crate::slot::{Instance, Observation, Readiness, Slot, Table};

/// How many names a sentence lists before it only counts the rest.
const LISTED: usize = 10;
/// How many unknown states one process logs: far more than AWS will ever add.
const MOST_STATES: usize = 100;

/// A condition that an operator should know about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    Guarded,
    MissingGroups,
    Unseen,
    Unreadable,
    Unplaced,
    SharedAddress,
    AboveSize,
    LastResort,
}

impl Condition {
    /// The sentence for its end.
    fn over(self) -> &'static str {
        match self {
            Condition::Guarded => "no server is kept by SERVER_REMOVAL_GUARD any more",
            Condition::MissingGroups => "every configured group is known again",
            Condition::Unseen => "every instance in service has an address again",
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

/// A source's own words for its conditions.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceWords {
    /// The remedy for groups that do not exist.
    pub(super) missing_remedy: &'static str,
    /// Why instances in service have no address; `None` if the source reports them itself.
    pub(super) unseen_because: Option<&'static str>,
}

/// The conditions of one turn.
pub(super) fn conditions(
    table: &Table,
    seen: &Observation,
    plan: &Plan,
    limits: &Limits,
    words: SourceWords,
) -> Conditions {
    let SourceWords { missing_remedy, unseen_because } = words;
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
        Condition::Guarded,
        plan.guarded.len(),
        format!(
            "no group lists the servers in slots {} any more, and nobody says that they have ended: too many at once, so \
             they are kept until answers have said so for {} s (SERVER_REMOVAL_GUARD); if they are not to go, correct \
             SERVER_ASG_NAMES or the groups",
            list(&plan.guarded),
            limits.removal_guard.as_secs_f64()
        ),
    );
    note(
        Condition::MissingGroups,
        missing.len(),
        format!(
            "groups that do not exist: {}: their servers stay until they are known to have ended; {missing_remedy}",
            list(&missing)
        ),
    );
    if let Some(because) = unseen_because {
        let unseen: Vec<_> = seen.unseen().map(|name| name.escape_debug().to_string()).collect();
        note(
            Condition::Unseen,
            unseen.len(),
            format!(
                "instances in service that cannot be reached: {}: {because}; they take no slot, and keep one they have",
                list(&unseen)
            ),
        );
    }
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
    let outranked = plan.ignored.iter().filter(|one| one.readiness == Readiness::Ready);
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

/// What to log when the conditions go from `before` to `after`: each sentence that is new or has changed, and each end.
pub(super) fn changes(before: &Conditions, after: &Conditions) -> Vec<Line> {
    let begun = after.iter().filter(|(condition, text)| before.get(condition) != Some(text));
    let ended = before.keys().filter(|condition| !after.contains_key(condition));
    begun
        .map(|(_, text)| Line::Warn(text.clone()))
        .chain(ended.map(|condition| Line::Info(condition.over().to_owned())))
        .collect()
}

/// A line for each unknown state that is not in `named` yet; adds it there.
pub(super) fn new_states(named: &mut BTreeSet<String>, seen: &Observation) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &seen.strange {
        if named.len() < MOST_STATES && named.insert(one.state.clone()) {
            lines.push(format!(
                "{} of {} in group {} is not known to this version of hsdo: servers in it keep their slots and weights, \
                 and no others are seated",
                one.state,
                one.name.escape_debug(),
                one.group.escape_debug()
            ));
        }
    }
    lines
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
    use crate::slot::Strange;

    const WORDS: SourceWords =
        SourceWords { missing_remedy: "create them", unseen_because: Some("EC2 does not list them") };

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
        assert_eq!(changes(&none, &none), []);
        assert_eq!(changes(&none, &one), [warn("one waits")]);
        assert_eq!(changes(&one, &one), []);
        assert_eq!(changes(&one, &two), [warn("a is missing"), warn("two wait")]);
        assert_eq!(changes(&two, &one), [warn("one waits"), info(Condition::MissingGroups)]);
        assert_eq!(changes(&one, &none), [info(Condition::Unplaced)]);
    }

    #[test]
    fn each_condition_names_the_thing_and_the_remedy() {
        let table = table("1 .1 i1 a draining 4; 2 unreadable; 4 .4 i4 c enabled 0");
        let seen = seen(".1 i1 a draining; .2 i2 a ready; missing c");
        let limits = Limits { min: 0, size: 1, ..limits(1) };
        let plan = decide(&table, &seen, at(100), &limits);
        let found: Vec<String> = conditions(&table, &seen, &plan, &limits, WORDS).into_values().collect();
        assert_eq!(
            found,
            [
                "groups that do not exist: c: their servers stay until they are known to have ended; create them",
                "items of the table that cannot be read: slot 2: broken: they are left alone; correct or delete them",
                "ready servers without a slot: i2; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 1",
                "slots above HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 1, hold servers until these leave: 4",
                "no ready server has weight: leaving servers keep serving in slots 1",
            ]
        );
    }

    #[test]
    fn servers_that_are_kept_or_not_seen_are_named() {
        let table = table("1 .1 i1 a enabled 4; 2 .2 i2 a enabled 4; 3 .3 i3 a enabled 4; 4 .4 i4 a enabled 4");
        let seen = seen("i1 open; i2 open; i3 open; unseen i4; hidden i5 draining");
        let plan = decide(&table, &seen, at(100), &limits(4));
        let found: Vec<String> = conditions(&table, &seen, &plan, &limits(4), WORDS).into_values().collect();
        assert_eq!(
            found,
            [
                "no group lists the servers in slots 1, 2, 3 any more, and nobody says that they have ended: too many at \
                 once, so they are kept until answers have said so for 30 s (SERVER_REMOVAL_GUARD); if they are not to \
                 go, correct SERVER_ASG_NAMES or the groups",
                "instances in service that cannot be reached: i4: EC2 does not list them; they take no slot, and keep one \
                 they have",
            ]
        );
        let silent = SourceWords { unseen_because: None, ..WORDS };
        assert_eq!(conditions(&table, &seen, &plan, &limits(4), silent).len(), 1, "the source tells of them itself");
    }

    #[test]
    fn an_unknown_state_is_named_once() {
        let strange = |name: &str, state: &str| Strange {
            name: name.to_owned(),
            group: "a".to_owned(),
            state: format!("lifecycle state {state:?}"),
        };
        let seen = |strange: Vec<Strange>| Observation { strange, ..Observation::default() };
        let mut named = BTreeSet::new();
        let both = seen(vec![strange("i1", "Dreaming"), strange("i2", "Dreaming"), strange("i3", "Flying")]);
        let lines = new_states(&mut named, &both);
        assert_eq!(
            lines[0],
            "lifecycle state \"Dreaming\" of i1 in group a is not known to this version of hsdo: servers in it keep their \
             slots and weights, and no others are seated"
        );
        assert_eq!(lines.len(), 2);
        assert!(new_states(&mut named, &seen(vec![])).is_empty() && new_states(&mut named, &both).is_empty());
        let many = (0..1_000).map(|n| strange("i1", &n.to_string())).collect();
        assert_eq!(new_states(&mut named, &seen(many)).len(), MOST_STATES - 2, "the log is not flooded");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        assert_eq!(list(&(1..=10).collect::<Vec<_>>()), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
        assert_eq!(list(&(1..=12).collect::<Vec<_>>()), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
