//! Decides in which backends an occupied slot serves: the default ones, the fallback, both or none. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::selection::NamePattern;
use crate::settings::{ClientSettings, ZoneNames};
use crate::slot::{Occupant, Slot, SlotId, Status, Table, Weight};

/// The two kinds of backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// An entry of `CLIENT_HAPROXY_BACKEND_LIST`.
    Default,
    /// The backend of `CLIENT_HAPROXY_FALLBACK_BACKEND_NAME`.
    Fallback,
}

/// What the occupants are split by, into the load balancer's own and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `CLIENT_DEDICATED_ASG`.
    Group,
    /// `CLIENT_DEDICATED_ZONE`.
    Zone,
}

impl By {
    /// Both.
    pub const ALL: [By; 2] = [By::Group, By::Zone];

    /// The setting with the own names.
    pub fn setting(self) -> &'static str {
        match self {
            By::Group => "CLIENT_ASG_NAMES",
            By::Zone => "CLIENT_ZONE_NAMES",
        }
    }

    /// The word for one of the names.
    pub fn word(self) -> &'static str {
        match self {
            By::Group => "group",
            By::Zone => "zone",
        }
    }

    pub(super) fn of_occupant(self, occupant: &Occupant) -> Option<&str> {
        match self {
            By::Group => occupant.group.as_deref(),
            By::Zone => occupant.zone.as_deref(),
        }
    }

    /// Whether an occupant is one of the load balancer's own. One of unknown zone is own everywhere.
    pub(super) fn is_own(self, occupant: &Occupant, own: &[NamePattern]) -> bool {
        self.of_occupant(occupant).map_or(self == By::Zone, |name| own.iter().any(|own| own.matches(name)))
    }

    fn last_of(self, slot: &Slot) -> Option<&str> {
        match self {
            By::Group => slot.last_group.as_deref(),
            By::Zone => slot.last_zone.as_deref(),
        }
    }
}

/// The settings that control placement.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `CLIENT_ASG_NAMES`, the groups of the default backends; none without `CLIENT_DEDICATED_ASG`.
    pub groups: Option<Vec<NamePattern>>,
    /// `CLIENT_ZONE_NAMES`, the zones of the default backends; none without `CLIENT_DEDICATED_ZONE`.
    pub zones: Option<Vec<NamePattern>>,
    /// `CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND`.
    pub all_in_fallback: bool,
    /// `CLIENT_SPILL_BELOW`, percent; 0 for no spillover.
    pub spill_below: u32,
}

impl Rules {
    /// The rules of these settings. As long as `auto` is not resolved, no zone is known to be own, so every one counts as own.
    pub fn of(settings: &ClientSettings) -> Self {
        let zones = settings.zones.as_ref().map(|zones| match zones {
            ZoneNames::Auto => vec![],
            ZoneNames::Named(names) => names.iter().map(|name| NamePattern::plain(name)).collect(),
        });
        Rules {
            groups: settings.dedicated.then(|| settings.groups.clone()),
            zones,
            all_in_fallback: settings.all_in_fallback,
            spill_below: settings.spill_below,
        }
    }

    /// The own names of this split; none if it is off.
    fn own(&self, by: By) -> Option<&[NamePattern]> {
        match by {
            By::Group => self.groups.as_deref(),
            By::Zone => self.zones.as_deref(),
        }
    }
}

/// What earlier tables have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The higher of `HAPROXY_BACKEND_SERVERS_LIST_SIZE` and every row number ever read, so that a table that loses its rows does not
    /// disable anything.
    pub max_row: SlotId,
    /// A row carried one of the own groups, so the names are right: if no row does any more, the own groups are empty.
    pub knows_groups: bool,
    /// The same for the own zones.
    pub knows_zones: bool,
}

impl History {
    fn knows(&self, by: By) -> bool {
        match by {
            By::Group => self.knows_groups,
            By::Zone => self.knows_zones,
        }
    }

    /// Remembers what `splits` found in a table.
    pub fn learn(&mut self, splits: &Splits) {
        for (by, split) in &splits.0 {
            match by {
                By::Group => self.knows_groups |= split.found,
                By::Zone => self.knows_zones |= split.found,
            }
        }
    }
}

/// Which of the own names of a split one table has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Own names that no row carries, as its occupant's or its last occupant's.
    pub missing: Vec<String>,
    /// A row carries one of them.
    pub found: bool,
    /// No row carries any of them, nor did one before: a typo, stray quotes, a group that never had an instance. Every occupant
    /// counts as own then, so that a wrong name never empties a default backend.
    pub blind: bool,
}

/// The splits that are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits(pub Vec<(By, Split)>);

impl Splits {
    /// Looks up the own names of `rules` in the table.
    pub fn of(table: &Table, rules: &Rules, history: History) -> Self {
        // An empty table says nothing about names.
        if table.rows.is_empty() {
            return Splits::default();
        }
        let split = |by: By| {
            let own = rules.own(by)?;
            let mut seen = BTreeSet::new();
            for slot in table.slots() {
                seen.extend(slot.occupant.as_ref().and_then(|occupant| by.of_occupant(occupant)));
                seen.extend(by.last_of(slot));
            }
            let is_missing = |own: &&NamePattern| !seen.iter().any(|name| own.matches(name));
            let missing: Vec<String> = own.iter().filter(is_missing).map(ToString::to_string).collect();
            let found = missing.len() < own.len();
            Some((by, Split { blind: !found && !history.knows(by), found, missing }))
        };
        Splits(By::ALL.into_iter().filter_map(split).collect())
    }

    /// The splits that assign servers, with their own names.
    pub(super) fn sighted<'a>(&self, rules: &'a Rules) -> Vec<(By, &'a [NamePattern])> {
        let sighted = self.0.iter().filter(|(_, split)| !split.blind);
        sighted.filter_map(|(by, _)| Some((*by, rules.own(*by)?))).collect()
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its own port (`HsdoPort`); none for that of the backend.
    pub port: Option<u16>,
}

impl From<IpAddr> for Endpoint {
    fn from(ip: IpAddr) -> Self {
        Endpoint { ip, port: None }
    }
}

impl From<&Occupant> for Endpoint {
    fn from(occupant: &Occupant) -> Self {
        Endpoint { ip: occupant.address, port: occupant.port }
    }
}

/// The desired state of a slot in one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// In rotation at this address and weight; at weight 0 it takes no new requests.
    Serve {
        /// The occupant's address and port.
        address: Endpoint,
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
    /// The slots whose occupants serve in other backends, or on other load balancers, and what that is decided by.
    pub elsewhere: BTreeMap<SlotId, By>,
    /// The slots of others that spilled in, at a share of their weight.
    pub spilled: BTreeSet<SlotId>,
}

impl Desired {
    /// The desired state of a slot; `None` if unknown.
    pub fn of(&self, id: SlotId) -> Option<Wanted> {
        if id > self.max_row { Some(Wanted::Maintenance) } else { self.slots.get(&id).copied() }
    }
}

/// The desired state of a backend of this kind.
pub fn place(table: &Table, kind: BackendKind, rules: &Rules, history: History) -> Desired {
    let splits = Splits::of(table, rules, history).sighted(rules);
    let mut desired = Desired { max_row: history.max_row, ..Desired::default() };
    for slot in table.slots() {
        let wanted = match slot.occupant.as_ref().filter(|occupant| occupant.status != Status::Disabled) {
            None => Wanted::Maintenance,
            Some(occupant) => match elsewhere(occupant, kind, rules, &splits) {
                None => Wanted::Serve { address: occupant.into(), weight: occupant.weight },
                Some(by) => {
                    desired.elsewhere.insert(slot.id, by);
                    Wanted::Maintenance
                }
            },
        };
        desired.slots.insert(slot.id, wanted);
    }
    desired
}

/// By which of the splits that are on an occupant does not serve in a backend of this kind; none if it does.
fn elsewhere(occupant: &Occupant, kind: BackendKind, rules: &Rules, splits: &[(By, &[NamePattern])]) -> Option<By> {
    let foreign = splits.iter().find(|(by, own)| !by.is_own(occupant, own)).map(|(by, _)| *by);
    match kind {
        BackendKind::Default => foreign,
        BackendKind::Fallback if foreign.is_some() || rules.all_in_fallback => None,
        // Without a split every occupant is the default backends'.
        BackendKind::Fallback => Some(splits.first().map_or(By::Group, |(by, _)| *by)),
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
            zone: None,
            port: None,
            weight: 5,
            status,
            last_step: None,
            drain_since: None,
        };
        Slot { occupant: Some(occupant), ..Slot::empty(id) }
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
            let rules = Rules {
                groups: dedicated.then(|| vec![NamePattern::new("a")]),
                all_in_fallback: all,
                ..Rules::default()
            };
            let label = format!("dedicated {dedicated}, all {all}, group {group:?}");
            assert_eq!(places(group, None, &rules), [default, fallback], "{label}");
        }
    }

    /// The same with zones, alone and with groups.
    #[test]
    fn an_occupant_serves_by_its_zone() {
        let (own, other, none) = (Some("z1"), Some("z2"), None);
        for (by_group, all, group, zone, default, fallback) in [
            (false, false, "a", own, true, false),
            (false, false, "a", other, false, true),
            (false, false, "a", none, true, false),
            (false, true, "a", own, true, true),
            (false, true, "a", other, false, true),
            (false, true, "a", none, true, true),
            (true, false, "a", own, true, false),
            (true, false, "a", other, false, true),
            (true, false, "a", none, true, false),
            (true, false, "b", own, false, true),
            (true, false, "b", other, false, true),
            (true, false, "b", none, false, true),
            (true, true, "a", own, true, true),
            (true, true, "b", own, false, true),
        ] {
            let groups = by_group.then(|| vec![NamePattern::new("a")]);
            let zones = Some(vec![NamePattern::plain("z1")]);
            let rules = Rules { groups, zones, all_in_fallback: all, ..Rules::default() };
            let label = format!("by group {by_group}, all {all}, group {group:?}, zone {zone:?}");
            assert_eq!(places(Some(group), zone, &rules), [default, fallback], "{label}");
        }
    }

    /// Whether an occupant serves in a default backend, and in the fallback.
    fn places(group: Option<&str>, zone: Option<&str>, rules: &Rules) -> [bool; 2] {
        let mut one = slot(1, group, Status::Enabled);
        one.occupant.as_mut().unwrap().zone = zone.map(str::to_owned);
        // Both splits see their own names.
        let own = Slot { last_group: Some("a".to_owned()), last_zone: Some("z1".to_owned()), ..Slot::empty(2) };
        let rows = [one, own].map(|slot| (slot.id, Row::Readable(slot.into())));
        let table = Table { rows: rows.into(), strays: vec![] };
        [BackendKind::Default, BackendKind::Fallback].map(|kind| {
            let desired = place(&table, kind, rules, History { max_row: 2, ..History::default() });
            assert_eq!(desired.elsewhere.contains_key(&1), desired.of(1) == Some(Wanted::Maintenance));
            matches!(desired.of(1), Some(Wanted::Serve { .. }))
        })
    }

    #[test]
    fn a_slot_that_does_not_serve_is_in_maintenance() {
        let rules = Rules { groups: Some(vec![NamePattern::new("a")]), ..Rules::default() };
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
        let serve = Some(Wanted::Serve { address: IpAddr::from([10, 0, 0, 1]).into(), weight: 5 });
        let maintenance = Some(Wanted::Maintenance);
        let history = History { max_row: 7, ..History::default() };
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
            (vec!["web-?", "x"], two(), vec!["x"], [true, true], [false, false]),
            (vec!["*-a"], two(), vec![], [true, false], [false, true]),
            (vec!["x", "y"], two(), vec!["x", "y"], [true, true], [false, false]),
            (vec!["gone"], [two(), vec![left(3, "gone")]].concat(), vec![], [false, false], [true, true]),
            (vec!["web-a"], vec![occupied(1, None), occupied(2, None)], vec!["web-a"], [true, true], [false, false]),
        ] {
            let groups: Vec<NamePattern> = names.iter().map(|name| NamePattern::new(name)).collect();
            let rules = Rules { groups: Some(groups), ..Rules::default() };
            let mut table = Table::default();
            table.rows.extend(slots.into_iter().map(|slot| (slot.id, Row::Readable(slot.into()))));
            let history = |knows_groups| History { max_row: 3, knows_groups, ..History::default() };
            let split = |known| Splits::of(&table, &rules, history(known)).0.remove(0);
            assert_eq!(split(false).1.missing, missing, "{names:?}");
            let missing: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
            let found = missing.len() < names.len();
            assert_eq!(split(true), (By::Group, Split { missing, found, blind: false }), "{names:?}");
            let serving = |kind, rules: &Rules| {
                let desired = place(&table, kind, rules, history(false));
                [1, 2].map(|id| matches!(desired.of(id), Some(Wanted::Serve { .. })))
            };
            assert_eq!(serving(BackendKind::Default, &rules), default, "{names:?}");
            assert_eq!(serving(BackendKind::Fallback, &rules), fallback, "{names:?}");
            assert_eq!(Splits::of(&Table::default(), &rules, history(false)), Splits::default());
            assert_eq!(Splits::of(&table, &Rules::default(), history(false)), Splits::default());
        }
    }
}
