//! Conditions that an operator should know about, logged when they begin, change and end. Pure; the caller writes the log.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::SlotLimits;
use super::plan::Plan;
use super::report::{about_instances, about_slots};
use crate::about::{About, Message};
use crate::order::Orders;
use crate::slot::{FaultyTag, Instance, Observation, Readiness, Slot, SlotId, Status, Table};

/// Names listed in one message; the rest is only counted.
const MAX_LISTED: usize = 10;
/// Unknown states that one process logs: far more than AWS will ever add.
const MAX_NAMED_STATES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    Guarded,
    MissingGroups,
    Unseen,
    Unreadable,
    UnreadableOrders,
    Unplaced,
    SharedAddress,
    AboveSize,
    FaultyTags,
    Idle,
    LastResort,
}

impl Condition {
    fn end_message(self) -> &'static str {
        match self {
            Condition::Guarded => "no server is kept by SERVER_REMOVAL_GUARD any more",
            Condition::MissingGroups => "every configured group is known again",
            Condition::Unseen => "every instance in service has an address again",
            Condition::Unreadable => "every item of the table can be read again",
            Condition::UnreadableOrders => "every order can be read again",
            Condition::Unplaced => "every ready server has a slot again",
            Condition::SharedAddress => "no ready server is without a slot because of its address any more",
            Condition::AboveSize => "no slot above HAPROXY_BACKEND_SERVERS_LIST_SIZE holds a server any more",
            Condition::FaultyTags => "every tag of an instance can be read again",
            Condition::Idle => "servers whose factor is 0 no longer serve as the last resort",
            Condition::LastResort => "draining servers no longer serve as the last resort",
        }
    }
}

pub(super) type Conditions = BTreeMap<Condition, Message>;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Warn(Message),
    Info(Message),
}

/// Source-specific text for the messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceHints {
    pub(super) missing_remedy: &'static str,
    /// Why instances in service have no address; `None` if the source logs them itself.
    pub(super) unseen_reason: Option<&'static str>,
}

pub(super) fn conditions(
    table: &Table,
    orders: &Orders,
    seen: &Observation,
    plan: &Plan,
    limits: &SlotLimits,
    hints: SourceHints,
) -> Conditions {
    let SourceHints { missing_remedy, unseen_reason } = hints;
    let size = limits.size;
    let guarded = list(&plan.guarded).map(|slots| {
        format!(
            "no group lists the servers in slots {slots} any more, yet they are not reported as terminated: too many at \
             once, so they are kept until this has been confirmed for {} s (SERVER_REMOVAL_GUARD); if they are to stay, \
             correct SERVER_ASG_NAMES or the groups",
            limits.removal_guard.as_secs_f64()
        )
    });
    let missing = list(seen.missing_groups.iter().map(|group| group.escape_debug())).map(|groups| {
        let what = if seen.is_partial { "could not be looked for yet" } else { "do not exist" };
        format!("groups that {what}: {groups}: their servers stay until they are known to have ended; {missing_remedy}")
    });
    let unseen = list(seen.unseen().map(str::escape_debug)).zip(unseen_reason).map(|(names, reason)| {
        format!(
            "instances in service that cannot be reached: {names}: {reason}; they get no new slot, but keep the one they have"
        )
    });
    let unreadable = list(table.faults()).map(|items| {
        format!("items of the table that cannot be read: {items}: they are left alone; correct or delete them")
    });
    let unreadable_orders = list(orders.unreadable.iter().map(|entry| &entry.reason)).map(|entries| {
        format!("orders that cannot be read (HsdoOrders of slot 1): {entries}: they have no effect; correct them, or lift them with `hsdo enable`")
    });
    let unplaced = list(plan.unplaced.iter().map(|instance| instance.name.escape_debug())).map(|names| {
        let or_lift = match plan.kept_empty.len() + plan.ordered.len() {
            0 => String::new(),
            held => format!(", or lift orders, which hold {held} slots"),
        };
        format!("ready servers without a slot: {names}; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE, now {size}{or_lift}")
    });
    let shared_addresses: Vec<&Instance> = shared_addresses(plan).collect();
    let at_address = |one: &&Instance| format!("{} at {}", one.name.escape_debug(), one.address);
    let shared = list(shared_addresses.iter().map(at_address)).map(|names| {
        format!(
            "ready servers whose address is already held by another server or an unreadable row: {names}: they get no slot"
        )
    });
    let above = list(&plan.above_size).map(|slots| {
        format!("slots above HAPROXY_BACKEND_SERVERS_LIST_SIZE, now {size}, hold servers until these leave: {slots}")
    });
    let tag = |tag: &FaultyTag| {
        let FaultyTag { name, tag, expected, .. } = tag;
        format!("{tag} of {}: expected {expected}", name.escape_debug())
    };
    let faulty_tags = list(seen.faulty_tags.iter().map(tag)).map(|tags| {
        format!("tags of instances that cannot be read: {tags}: they count as absent; correct or delete them")
    });
    let faulty = seen.faulty_tags.iter();
    let about_tags = About::default().instance(faulty.clone().map(|tag| &tag.name)).group(faulty.map(|tag| &tag.group));
    let is_idle = |id: &&SlotId| {
        let occupant = plan.slots.get(id).and_then(|slot| slot.occupant.as_ref());
        occupant.is_some_and(|occupant| occupant.status == Status::Enabled)
    };
    let (idle, leaving): (Vec<SlotId>, Vec<SlotId>) = plan.last_resort.iter().partition(is_idle);
    let idle_serves = list(&idle).map(|slots| {
        format!(
            "no server with a factor has weight: servers whose factor is 0 serve in slots {slots}; correct SERVER_ASG_WEIGHTS or \
             the tags hsdo:weight"
        )
    });
    let last_resort = list(&leaving).map(|slots| {
        let ordered = leaving.iter().filter(|id| plan.ordered.contains_key(id));
        let against = list(ordered).map(|slots| format!("; against an order in slots {slots}")).unwrap_or_default();
        format!("no ready server has weight: draining servers serve on in slots {slots}{against}")
    });
    let slots = |ids: &[SlotId]| about_slots(ids.iter().filter_map(|id| plan.slots.get(id)));
    [
        (Condition::Guarded, guarded, slots(&plan.guarded).cause(["kept"])),
        (Condition::MissingGroups, missing, About::default().group(&seen.missing_groups)),
        (Condition::Unseen, unseen, About::default().instance(seen.unseen()).cause(["unseen"])),
        (Condition::Unreadable, unreadable, About::default().slot(table.unreadable()).cause(["unreadable"])),
        (Condition::UnreadableOrders, unreadable_orders, About::default().slot([1])),
        (Condition::Unplaced, unplaced, about_instances(&plan.unplaced).cause(["no-free-slot"])),
        (Condition::SharedAddress, shared, about_instances(shared_addresses).cause(["shared-address"])),
        (Condition::AboveSize, above, slots(&plan.above_size)),
        (Condition::FaultyTags, faulty_tags, about_tags),
        (Condition::Idle, idle_serves, slots(&idle).cause(["idle"])),
        (Condition::LastResort, last_resort, slots(&leaving).cause(["last-resort"])),
    ]
    .into_iter()
    .filter_map(|(condition, text, about)| Some((condition, Message::new(text?, about))))
    .collect()
}

/// Ready instances that are left out because of their address, unless another report of theirs has a slot.
pub(super) fn shared_addresses(plan: &Plan) -> impl Iterator<Item = &Instance> {
    let holds = |one: &Instance, slot: &Slot| {
        slot.occupant.as_ref().is_some_and(|occupant| occupant.address == one.address && one.has_name(&occupant.name))
    };
    let outranked = plan.ignored.iter().filter(|one| one.readiness == Readiness::Ready);
    outranked.filter(move |one| !plan.slots.values().any(|slot| holds(one, slot)))
}

/// What to log when the conditions go from `before` to `after`: each new or changed text, and each end.
pub(super) fn changes(before: &Conditions, after: &Conditions) -> Vec<Line> {
    let text = |conditions: &Conditions, condition| conditions.get(condition).map(|message| message.text.clone());
    let begun = after.iter().filter(|(condition, message)| text(before, condition).as_ref() != Some(&message.text));
    let ended = before.iter().filter(|(condition, _)| !after.contains_key(condition));
    // The end is about the same as the condition was.
    let end = |(condition, message): (&Condition, &Message)| {
        Line::Info(Message::new(condition.end_message().to_owned(), message.about.clone()))
    };
    begun.map(|(_, message)| Line::Warn(message.clone())).chain(ended.map(end)).collect()
}

/// A line for each unknown state not yet in `named`, to which it is added.
pub(super) fn new_states(named: &mut BTreeSet<String>, seen: &Observation) -> Vec<Message> {
    let mut lines = Vec::new();
    for one in &seen.unknown_states {
        if named.len() < MAX_NAMED_STATES && named.insert(one.state.clone()) {
            let text = format!(
                "{} of {} in group {} is not known to this version of hsdo: servers in this state keep their slots and \
                 weights, but get no new slots",
                one.state,
                one.name.escape_debug(),
                one.group.escape_debug()
            );
            lines.push(Message::new(text, About::default().instance([&one.name]).group([&one.group])));
        }
    }
    lines
}

/// The items, cut at [`MAX_LISTED`]; `None` if there are none.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> Option<String> {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let mut text = items[..items.len().min(MAX_LISTED)].join(", ");
    if items.len() > MAX_LISTED {
        text.push_str(&format!(" and {} more", items.len() - MAX_LISTED));
    }
    (!items.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::decide;
    use super::super::fixtures::{at, limits, seen, table};
    use super::*;
    use crate::slot::UnknownState;

    const HINTS: SourceHints =
        SourceHints { missing_remedy: "create them", unseen_reason: Some("EC2 does not list them") };

    fn texts(found: Conditions) -> Vec<String> {
        found.into_values().map(|message| message.text).collect()
    }

    #[test]
    fn each_condition_is_about_what_it_names() {
        let table = table("1 .1 i1 a draining 4; 2 unreadable; 4 .4 i4 c enabled 0");
        let seen = seen(".1 i1 a draining; .2 i2 a ready; .2 i9 a ready; missing c; unseen i5");
        let limits = SlotLimits { min: 0, size: 1, ..limits(1) };
        let plan = decide(&table, &[], &seen, at(100), &limits);
        let about: BTreeMap<Condition, About> = conditions(&table, &Orders::default(), &seen, &plan, &limits, HINTS)
            .into_iter()
            .map(|(key, found)| (key, found.about))
            .collect();
        let expected = [
            (Condition::MissingGroups, About::default().group(["c"])),
            (Condition::Unseen, About::default().instance(["i5"]).cause(["unseen"])),
            (Condition::Unreadable, About::default().slot([2]).cause(["unreadable"])),
            (Condition::Unplaced, About::default().instance(["i2"]).group(["a"]).cause(["no-free-slot"])),
            (Condition::SharedAddress, About::default().instance(["i9"]).group(["a"]).cause(["shared-address"])),
            (Condition::AboveSize, About::default().slot([4]).instance(["i4"]).group(["c"])),
            (Condition::LastResort, About::default().slot([1]).instance(["i1"]).group(["a"]).cause(["last-resort"])),
        ];
        assert_eq!(about, BTreeMap::from(expected));
    }

    #[test]
    fn a_condition_is_logged_when_it_begins_changes_and_ends() {
        let none = Conditions::new();
        let waits = |text: &str| Message::new(text.to_owned(), About::default().instance(["i1"]));
        let missing = Message::new("a is missing".to_owned(), About::default().group(["a"]));
        let one = Conditions::from([(Condition::Unplaced, waits("one waits"))]);
        let two =
            Conditions::from([(Condition::Unplaced, waits("two wait")), (Condition::MissingGroups, missing.clone())]);
        let warn = |text: &str| Line::Warn(waits(text));
        let info = |condition: Condition| {
            let about = if condition == Condition::Unplaced { waits("").about } else { missing.about.clone() };
            Line::Info(Message::new(condition.end_message().to_owned(), about))
        };
        // The text decides: what a line is about is not shown in every format.
        let same = Conditions::from([(Condition::Unplaced, Message::new("one waits".to_owned(), About::default()))]);
        assert_eq!(changes(&one, &same), []);
        assert_eq!(changes(&none, &none), []);
        assert_eq!(changes(&none, &one), [warn("one waits")]);
        assert_eq!(changes(&one, &one), []);
        assert_eq!(changes(&one, &two), [Line::Warn(missing.clone()), warn("two wait")]);
        assert_eq!(changes(&two, &one), [warn("one waits"), info(Condition::MissingGroups)]);
        assert_eq!(changes(&one, &none), [info(Condition::Unplaced)]);
    }

    #[test]
    fn each_condition_names_its_subject_and_the_remedy() {
        let table = table("1 .1 i1 a draining 4; 2 unreadable; 4 .4 i4 c enabled 0");
        let seen = seen(".1 i1 a draining; .2 i2 a ready; missing c");
        let limits = SlotLimits { min: 0, size: 1, ..limits(1) };
        let plan = decide(&table, &[], &seen, at(100), &limits);
        let found = texts(conditions(&table, &Orders::default(), &seen, &plan, &limits, HINTS));
        assert_eq!(
            found,
            [
                "groups that do not exist: c: their servers stay until they are known to have ended; create them",
                "items of the table that cannot be read: slot 2: broken: they are left alone; correct or delete them",
                "ready servers without a slot: i2; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 1",
                "slots above HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 1, hold servers until these leave: 4",
                "no ready server has weight: draining servers serve on in slots 1",
            ]
        );
    }

    #[test]
    fn guarded_and_unseen_servers_are_named() {
        let table = table("1 .1 i1 a enabled 4; 2 .2 i2 a enabled 4; 3 .3 i3 a enabled 4; 4 .4 i4 a enabled 4");
        let seen = seen("i1 unconfirmed; i2 unconfirmed; i3 unconfirmed; unseen i4; hidden i5 draining");
        let plan = decide(&table, &[], &seen, at(100), &limits(4));
        let found = texts(conditions(&table, &Orders::default(), &seen, &plan, &limits(4), HINTS));
        assert_eq!(
            found,
            [
                "no group lists the servers in slots 1, 2, 3 any more, yet they are not reported as terminated: too many \
                 at once, so they are kept until this has been confirmed for 30 s (SERVER_REMOVAL_GUARD); if they are to \
                 stay, correct SERVER_ASG_NAMES or the groups",
                "instances in service that cannot be reached: i4: EC2 does not list them; they get no new slot, but \
                 keep the one they have",
            ]
        );
        let silent = SourceHints { unseen_reason: None, ..HINTS };
        assert_eq!(
            conditions(&table, &Orders::default(), &seen, &plan, &limits(4), silent).len(),
            1,
            "the source logs them itself"
        );
    }

    #[test]
    fn an_unknown_state_is_logged_once() {
        let unknown_states = |name: &str, state: &str| UnknownState {
            name: name.to_owned(),
            group: "a".to_owned(),
            state: format!("lifecycle state {state:?}"),
        };
        let seen = |unknown_states: Vec<UnknownState>| Observation { unknown_states, ..Observation::default() };
        let mut named = BTreeSet::new();
        let both = seen(vec![
            unknown_states("i1", "Dreaming"),
            unknown_states("i2", "Dreaming"),
            unknown_states("i3", "Flying"),
        ]);
        let lines = new_states(&mut named, &both);
        assert_eq!(lines[0].about, About::default().instance(["i1"]).group(["a"]));
        assert_eq!(
            lines[0].text,
            "lifecycle state \"Dreaming\" of i1 in group a is not known to this version of hsdo: servers in this \
             state keep their slots and weights, but get no new slots"
        );
        assert_eq!(lines.len(), 2);
        assert!(new_states(&mut named, &seen(vec![])).is_empty() && new_states(&mut named, &both).is_empty());
        let many = (0..1_000).map(|n| unknown_states("i1", &n.to_string())).collect();
        assert_eq!(new_states(&mut named, &seen(many)).len(), MAX_NAMED_STATES - 2, "the log is not flooded");
    }

    #[test]
    fn a_long_list_is_cut_and_the_rest_counted() {
        assert_eq!(list::<u8>([]), None);
        assert_eq!(list(1..=10).as_deref(), Some("1, 2, 3, 4, 5, 6, 7, 8, 9, 10"));
        assert_eq!(list(1..=12).as_deref(), Some("1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"));
    }
}
