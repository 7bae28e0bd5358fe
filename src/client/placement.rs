//! Decides in which backends an occupied slot serves: the default ones, the fallback, both or none. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::slot::{Slot, SlotId, Status, Table, Weight};

/// The two kinds of backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// An entry of `CLIENT_HAPROXY_BACKEND_LIST`.
    Default,
    /// The backend of `CLIENT_HAPROXY_FALLBACK_BACKEND_NAME`.
    Fallback,
}

/// The settings that control placement.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `CLIENT_DEDICATED_ASG`: assign servers by group.
    pub dedicated: bool,
    /// `CLIENT_ASG_NAMES`: the groups of the default backends.
    pub groups: Vec<String>,
    /// `CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND`.
    pub all_in_fallback: bool,
}

/// What earlier tables have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The higher of `HAPROXY_BACKEND_SERVERS_LIST_SIZE` and every row number ever read, so that a table that loses its rows does not
    /// disable anything.
    pub max_row: SlotId,
    /// A row carried one of the own groups, so the names are right: if no row does any more, the own groups are empty.
    pub knows_own: bool,
}

/// Which of the own groups one table has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Own groups that no row carries, as its group or as its last group.
    pub missing: Vec<String>,
    /// No row carries any of the own groups, nor did one before: a typo, stray quotes, a group that never had an instance. Every
    /// occupant counts as own then, so that a wrong name never empties a default backend.
    pub blind: bool,
}

impl Split {
    /// Looks up the own groups of `rules` in the table.
    pub fn of(table: &Table, rules: &Rules, history: History) -> Self {
        // An empty table says nothing about groups.
        if !rules.dedicated || table.rows.is_empty() {
            return Split::default();
        }
        let mut seen = BTreeSet::new();
        for slot in table.slots() {
            seen.extend(slot.occupant.as_ref().and_then(|occupant| occupant.group.as_deref()));
            seen.extend(slot.last_group.as_deref());
        }
        let missing: Vec<String> =
            rules.groups.iter().filter(|group| !seen.contains(group.as_str())).cloned().collect();
        Split { blind: !history.knows_own && missing.len() == rules.groups.len(), missing }
    }
}

/// The desired state of a slot in one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// In rotation at this address and weight; at weight 0 it takes no new requests.
    Serve {
        /// The occupant's address.
        address: IpAddr,
        /// The occupant's weight.
        weight: Weight,
    },
    /// In maintenance.
    Maintenance,
}

/// The desired state of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The slots with a readable row. Any other slot up to `max_row` is unknown and not touched.
    pub slots: BTreeMap<SlotId, Wanted>,
    /// The highest slot number that may have a row. Servers above it should be in maintenance.
    pub max_row: SlotId,
}

impl Desired {
    /// The desired state of a slot; `None` if unknown.
    pub fn of(&self, id: SlotId) -> Option<Wanted> {
        if id > self.max_row { Some(Wanted::Maintenance) } else { self.slots.get(&id).copied() }
    }
}

/// The desired state of a backend of this kind.
pub fn place(table: &Table, kind: BackendKind, rules: &Rules, history: History) -> Desired {
    let by_group = rules.dedicated && !Split::of(table, rules, history).blind;
    let slots = table.slots().map(|slot| (slot.id, wanted(slot, kind, rules, by_group))).collect();
    Desired { slots, max_row: history.max_row }
}

fn wanted(slot: &Slot, kind: BackendKind, rules: &Rules, by_group: bool) -> Wanted {
    match &slot.occupant {
        Some(occupant)
            if occupant.status != Status::Disabled && belongs(occupant.group.as_deref(), kind, rules, by_group) =>
        {
            Wanted::Serve { address: occupant.address, weight: occupant.weight }
        }
        _ => Wanted::Maintenance,
    }
}

/// Whether an occupant of this group serves in a backend of this kind.
fn belongs(group: Option<&str>, kind: BackendKind, rules: &Rules, by_group: bool) -> bool {
    let own = !by_group || group.is_some_and(|group| rules.groups.iter().any(|name| name == group));
    match kind {
        BackendKind::Default => own,
        BackendKind::Fallback => !own || rules.all_in_fallback,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Occupant, Row};

    fn slot(id: SlotId, group: Option<&str>, status: Status) -> Slot {
        let occupant = Occupant {
            address: "10.0.0.1".parse().unwrap(),
            name: "i-1".to_owned(),
            group: group.map(str::to_owned),
            weight: 5,
            status,
            last_step: None,
        };
        Slot { id, occupant: Some(occupant), last_group: None }
    }

    /// The table of section 5.1 of the contract, row by row.
    #[test]
    fn an_occupant_serves_by_its_group() {
        let (own, other, none) = (Some("a"), Some("b"), None);
        for (dedicated, all, group, default, fallback) in [
            (false, false, own, true, false),
            (false, false, other, true, false),
            (false, true, own, true, true),
            (false, true, other, true, true),
            (false, false, none, true, false),
            (true, false, own, true, false),
            (true, true, own, true, true),
            (true, false, other, false, true),
            (true, true, other, false, true),
            (true, false, none, false, true),
        ] {
            let rules = Rules { dedicated, groups: vec!["a".to_owned()], all_in_fallback: all };
            let label = format!("dedicated {dedicated}, all {all}, group {group:?}");
            assert_eq!(belongs(group, BackendKind::Default, &rules, dedicated), default, "{label}");
            assert_eq!(belongs(group, BackendKind::Fallback, &rules, dedicated), fallback, "{label}");
        }
    }

    #[test]
    fn a_slot_that_does_not_serve_is_in_maintenance() {
        let rules = Rules { dedicated: true, groups: vec!["a".to_owned()], all_in_fallback: false };
        let mut table = Table::default();
        for slot in [
            slot(1, Some("a"), Status::Enabled),
            slot(2, Some("b"), Status::Enabled),
            slot(3, Some("a"), Status::Disabled),
            slot(4, Some("a"), Status::Draining),
            Slot::empty(5),
        ] {
            table.rows.insert(slot.id, Row::Readable(slot.into()));
        }
        table.rows.insert(6, Row::Unreadable { reason: "bad".to_owned(), address: None });
        let serve = Some(Wanted::Serve { address: "10.0.0.1".parse().unwrap(), weight: 5 });
        let maintenance = Some(Wanted::Maintenance);
        let history = History { max_row: 7, knows_own: false };
        let default = place(&table, BackendKind::Default, &rules, history);
        let fallback = place(&table, BackendKind::Fallback, &rules, history);
        for (id, in_default, in_fallback, why) in [
            (1, serve, maintenance, "own group"),
            (2, maintenance, serve, "another group"),
            (3, maintenance, maintenance, "disabled by an operator's edit"),
            (4, serve, maintenance, "draining keeps its place"),
            (5, maintenance, maintenance, "empty"),
            (6, None, None, "an unreadable row is unknown"),
            (7, None, None, "a missing row is unknown"),
            (8, maintenance, maintenance, "above every row"),
        ] {
            assert_eq!(default.of(id), in_default, "default: {why}");
            assert_eq!(fallback.of(id), in_fallback, "fallback: {why}");
        }
    }

    #[test]
    fn a_split_that_knows_none_of_its_groups_moves_no_server() {
        let occupied = |id, group| slot(id, group, Status::Enabled);
        let left = |id, group: &str| Slot { last_group: Some(group.to_owned()), ..Slot::empty(id) };
        let two = || vec![occupied(1, Some("web-a")), occupied(2, Some("web-b"))];
        // Own groups, the rows, which of the names are missing, and where slots 1 and 2 stand.
        for (names, slots, missing, default, fallback) in [
            (vec!["web-a"], two(), vec![], [true, false], [false, true]),
            (vec!["web-a", "web-A"], two(), vec!["web-A"], [true, false], [false, true]),
            (vec!["\"web-a\""], two(), vec!["\"web-a\""], [true, true], [false, false]),
            (vec!["x", "y"], two(), vec!["x", "y"], [true, true], [false, false]),
            (vec!["gone"], [two(), vec![left(3, "gone")]].concat(), vec![], [false, false], [true, true]),
            (vec!["web-a"], vec![occupied(1, None), occupied(2, None)], vec!["web-a"], [true, true], [false, false]),
        ] {
            let groups: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut rules = Rules { dedicated: true, groups, all_in_fallback: false };
            let mut table = Table::default();
            table.rows.extend(slots.into_iter().map(|slot| (slot.id, Row::Readable(slot.into()))));
            let history = |knows_own| History { max_row: 3, knows_own };
            assert_eq!(Split::of(&table, &rules, history(false)).missing, missing, "{names:?}");
            assert_eq!(
                Split::of(&table, &rules, history(true)),
                Split { missing: missing.iter().map(|name| (*name).to_owned()).collect(), blind: false },
                "{names:?}"
            );
            let serving = |kind, rules: &Rules| {
                let desired = place(&table, kind, rules, history(false));
                [1, 2].map(|id| matches!(desired.of(id), Some(Wanted::Serve { .. })))
            };
            assert_eq!(serving(BackendKind::Default, &rules), default, "{names:?}");
            assert_eq!(serving(BackendKind::Fallback, &rules), fallback, "{names:?}");
            assert_eq!(Split::of(&Table::default(), &rules, history(false)), Split::default());
            rules.dedicated = false;
            assert_eq!(Split::of(&table, &rules, history(false)), Split::default());
        }
    }
}
