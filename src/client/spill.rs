//! Spillover: while the own zones or groups have too little weight in a default backend, servers of the others come in too. Pure.
//!
//! Own weights never change, so a key of consistent hashing moves only to or from a server that came in. Every load balancer decides
//! for itself; with the same table and the same health they all decide alike.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::placement::{By, Desired, History, Rules, Splits, Wanted};
use super::stage::Stage;
use super::view::View;
use crate::ports::{Admin, Running};
use crate::slot::{SlotId, Status, Table, Weight};

/// The share of their weight with which others come in rises in so many steps.
pub(super) const STEPS: u8 = 16;
/// Below the threshold it begins; it ends so many percent above, so that one server that comes and goes does not toggle it.
const BAND: u32 = 10;
/// How long the own weight must suffice before less comes in, or nothing.
const HOLD: Duration = Duration::from_secs(30);
/// How long a server may wait for its first check and still count as fit.
const FIRST_CHECK: Duration = Duration::from_secs(30);

/// The enabled servers with a weight that count: with both splits on, only those of the own groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    by: By,
    own: BTreeMap<SlotId, Weight>,
    others: BTreeMap<SlotId, (IpAddr, Weight)>,
    /// How many zones or groups are own, at least 1, and how many there are with weight, own ones included.
    own_names: u32,
    all_names: u32,
}

impl Candidates {
    /// None if spillover is off, or if no split assigns servers. With both splits on, only the one by zone spills.
    pub(super) fn of(table: &Table, rules: &Rules, history: History) -> Option<Self> {
        let splits = Splits::of(table, rules, history);
        let sighted = splits.sighted(rules);
        let (by, own) = *sighted.last().filter(|_| rules.spill_below > 0)?;
        let missing = splits.0.iter().find(|(one, _)| *one == by).map_or(0, |(_, split)| split.missing.len());
        let own_names = u32::try_from(own.len().saturating_sub(missing).max(1)).unwrap_or(u32::MAX);
        let mut found =
            Candidates { by, own: BTreeMap::new(), others: BTreeMap::new(), own_names, all_names: own_names };
        let mut names = BTreeSet::new();
        for slot in table.slots() {
            let Some(occupant) = &slot.occupant else { continue };
            let counts = occupant.status == Status::Enabled && occupant.weight > 0;
            let of_group = sighted.iter().all(|(one, own)| *one == by || one.is_own(occupant, own));
            if !counts || !of_group {
                continue;
            }
            if by.is_own(occupant, own) {
                found.own.insert(slot.id, occupant.weight);
            } else {
                found.others.insert(slot.id, (occupant.address, occupant.weight));
                names.insert(by.of_occupant(occupant));
            }
        }
        found.all_names += u32::try_from(names.len()).unwrap_or(u32::MAX - own_names);
        Some(found)
    }

    /// Puts the others into a default backend at this level, or keeps them out of it at 0.
    pub(super) fn place(&self, desired: &mut Desired, level: u8) {
        for (id, (address, weight)) in &self.others {
            let wanted = if level == 0 {
                desired.spilled.remove(id);
                desired.elsewhere.insert(*id, self.by);
                Wanted::Maintenance
            } else {
                desired.elsewhere.remove(id);
                desired.spilled.insert(*id);
                Wanted::Serve { address: *address, weight: share(*weight, level) }
            };
            desired.slots.insert(*id, wanted);
        }
    }

    /// The level that a HAProxy runs: the one by which most of the others that serve there have their weights.
    pub(super) fn level_of(&self, running: &BTreeMap<SlotId, Running>) -> u8 {
        let weight = |(id, (address, weight)): (&SlotId, &(IpAddr, Weight))| {
            let server = running.get(id)?;
            let is_there = server.address.is_some_and(|at| at.ip() == *address) && server.admin == Admin::Ready;
            (is_there && server.weight > 0).then_some((*weight, server.weight))
        };
        let weights: Vec<(Weight, Weight)> = self.others.iter().filter_map(weight).collect();
        if weights.is_empty() {
            return 0;
        }
        let matches = |level: &u8| weights.iter().filter(|(weight, runs)| share(*weight, *level) == *runs).count();
        // Of levels that match as well the highest: it may fall, but only after a while.
        (1..=STEPS).max_by_key(matches).unwrap_or(STEPS)
    }
}

/// The weight at which a server comes in, at least 1.
pub(super) fn share(weight: Weight, level: u8) -> Weight {
    let (weight, level, steps) = (u32::from(weight), u32::from(level), u32::from(STEPS));
    let rounded = (weight * level + steps / 2) / steps;
    Weight::try_from(rounded.max(1)).unwrap_or(Weight::MAX)
}

/// What own servers can take, what they should be able to take, and who could come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// The weight of own servers that can serve here.
    pub(super) fit: u32,
    /// The weight of all enabled servers.
    total: u32,
    /// How many zones or groups are own, and how many there are with weight, own ones included.
    own: u32,
    all: u32,
    /// The weights of the servers that could come in.
    others: Vec<Weight>,
}

impl Load {
    /// `fits`: whether the own server of a slot can serve here.
    pub(super) fn of(candidates: &Candidates, fits: impl Fn(SlotId) -> bool) -> Self {
        let own = candidates.own.iter();
        let fit = own.clone().filter(|(id, _)| fits(**id)).map(|(_, weight)| u32::from(*weight)).sum();
        let others: Vec<Weight> = candidates.others.values().map(|(_, weight)| *weight).collect();
        let total = own.map(|(_, weight)| u32::from(*weight)).sum::<u32>() + sum(others.iter().copied());
        Load { fit, total, own: candidates.own_names, all: candidates.all_names, others }
    }

    /// The fair share of the own zones, rounded: what they would take if load and capacity were even.
    pub(super) fn fair(&self) -> u32 {
        (self.total * self.own + self.all / 2).checked_div(self.all).unwrap_or(0)
    }

    /// Whether the fit weight is below `percent` of the fair share.
    fn is_below(&self, percent: u32) -> bool {
        u64::from(self.fit) * u64::from(self.all) * 100
            < u64::from(self.total) * u64::from(self.own) * u64::from(percent)
    }

    /// The smallest level at which all together reach the fair share; the highest if none does.
    fn needed(&self) -> u8 {
        if self.fit == 0 {
            return STEPS;
        }
        let reaches = |level: &u8| {
            let all = self.fit + sum(self.others.iter().map(|weight| share(*weight, *level)));
            u64::from(all) * u64::from(self.all) >= u64::from(self.total) * u64::from(self.own)
        };
        (1..=STEPS).find(reaches).unwrap_or(STEPS)
    }

    /// The level that this asks for, if nothing else did.
    fn target(&self, spills: bool, below: u32) -> u8 {
        let percent = if spills { (below + BAND).min(100) } else { below };
        if self.others.is_empty() || !self.is_below(percent) { 0 } else { self.needed() }
    }
}

fn sum(weights: impl Iterator<Item = Weight>) -> u32 {
    weights.map(u32::from).sum()
}

/// How much of the others comes in, from 0 to [`STEPS`], and what may lower it.
#[derive(Clone, Debug, Default)]
pub(super) struct Spill {
    level: u8,
    /// Since when less would do, and the most that was needed meanwhile.
    easing: Option<(Instant, u8)>,
}

impl Spill {
    /// As a client that starts finds it in HAProxy.
    pub(super) fn found(level: u8) -> Self {
        Spill { level, easing: None }
    }

    pub(super) fn level(&self) -> u8 {
        self.level
    }

    /// Whether time alone may change it.
    pub(super) fn is_easing(&self) -> bool {
        self.easing.is_some()
    }

    /// Decides anew: it rises at once, and falls once less has been enough for [`HOLD`]. `below` is `CLIENT_SPILL_BELOW`.
    pub(super) fn decide(&mut self, load: &Load, below: u32, now: Instant) {
        let target = load.target(self.level > 0, below);
        if target >= self.level {
            *self = Spill::found(target);
            return;
        }
        let (since, most) = self.easing.unwrap_or((now, target));
        let most = most.max(target);
        let over = now.saturating_duration_since(since) >= HOLD;
        *self = if over { Spill::found(most) } else { Spill { easing: Some((since, most)), ..*self } };
    }
}

/// Whether the own server of a slot can serve in this backend.
pub(super) fn fits(id: SlotId, view: View<'_>, now: Instant) -> bool {
    let Some(server) = view.running.get(&id) else { return false };
    if view.options.static_weights && server.configured == 0 {
        return false;
    }
    match view.stage(id, server) {
        Stage::Held | Stage::Blocked => false,
        Stage::Filled if server.inherited => false,
        Stage::Down => !view.memory.is_proven(id) && view.memory.waited(id, now) < FIRST_CHECK,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::client::fixtures::{OPTIONS, World, down, inherited, maintenance, serve_at, server, up};
    use crate::client::placement::{BackendKind, place};
    use crate::slot::{Occupant, Row, Slot};

    fn row(id: SlotId, group: &str, zone: Option<&str>, weight: Weight, status: Status) -> (SlotId, Row) {
        let occupant = Occupant {
            address: [10, 0, 0, id as u8].into(),
            name: format!("i-{id}"),
            group: Some(group.to_owned()),
            zone: zone.map(str::to_owned),
            weight,
            status,
            last_step: None,
        };
        (id, Row::Readable(Arc::new(Slot { occupant: Some(occupant), ..Slot::empty(id) })))
    }

    fn table(rows: impl IntoIterator<Item = (SlotId, Row)>) -> Table {
        Table { rows: rows.into_iter().collect(), strays: vec![] }
    }

    fn rules(groups: Option<&[&str]>, zones: Option<&[&str]>) -> Rules {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Rules { groups: groups.map(names), zones: zones.map(names), spill_below: 70, ..Rules::default() }
    }

    /// Servers of zones a, b and c, with these weights.
    fn zones(weights: [&[Weight]; 3]) -> Table {
        let mut id = 0;
        table(["a", "b", "c"].into_iter().zip(weights).flat_map(|(zone, weights)| {
            let row = |weight: &Weight| {
                id += 1;
                row(id, "web", Some(zone), *weight, Status::Enabled)
            };
            weights.iter().map(row).collect::<Vec<_>>()
        }))
    }

    const KNOWN: History = History { max_row: 99, knows_groups: true, knows_zones: true };

    fn candidates(table: &Table, rules: &Rules) -> Candidates {
        Candidates::of(table, rules, KNOWN).expect("a split that spills")
    }

    #[test]
    fn a_share_is_rounded_half_up_and_at_least_one() {
        for (weight, level, expected) in
            [(100, 16, 100), (100, 8, 50), (100, 1, 6), (8, 1, 1), (1, 1, 1), (10, 4, 3), (10, 5, 3), (256, 16, 256)]
        {
            assert_eq!(share(weight, level), expected, "{weight} at {level}");
        }
    }

    /// Own is zone a, the threshold 70 %. What is fit, of what fair share, and the level that follows when nothing spills and when
    /// something does.
    #[test]
    fn the_level_follows_the_own_weight() {
        let all: fn(SlotId) -> bool = |_| true;
        let none: fn(SlotId) -> bool = |_| false;
        let but_first: fn(SlotId) -> bool = |id| id > 1;
        #[rustfmt::skip]
        let cases = [
            ("even zones", zones([&[100, 100], &[100, 100], &[100, 100]]), all, (200, 200), 0, 0),
            ("one of three is down", zones([&[100; 3], &[100; 3], &[100; 3]]), but_first, (200, 300), 3, 3),
            ("one of four is down: within the band", zones([&[100; 4], &[100; 4], &[100; 4]]), but_first, (300, 400), 0, 2),
            ("one of ten is down", zones([&[100; 10], &[100; 10], &[100; 10]]), but_first, (900, 1000), 0, 0),
            ("none is fit", zones([&[100, 100], &[100, 100], &[100, 100]]), none, (0, 200), 16, 16),
            ("the zone is empty", zones([&[], &[100, 100], &[100, 100]]), all, (0, 133), 16, 16),
            ("the zone is small", zones([&[100], &[100; 4], &[100; 4]]), all, (100, 300), 4, 4),
            ("all others together are too few", zones([&[100, 100, 100], &[10], &[]]), none, (0, 155), 16, 16),
            ("nobody else is there", zones([&[100, 100], &[], &[]]), none, (0, 200), 0, 0),
        ];
        for (name, table, fits, fit_of_fair, calm, spilling) in cases {
            let load = Load::of(&candidates(&table, &rules(None, Some(&["a"]))), fits);
            assert_eq!((load.fit, load.fair()), fit_of_fair, "{name}");
            assert_eq!((load.target(false, 70), load.target(true, 70)), (calm, spilling), "{name}");
        }
    }

    #[test]
    fn who_counts() {
        use Status::{Disabled, Draining, Enabled};
        let rows = || {
            [
                row(1, "web", Some("a"), 10, Enabled),
                row(2, "web", Some("b"), 10, Enabled),
                row(3, "api", Some("c"), 10, Enabled),
                row(4, "web", None, 10, Enabled),
                row(5, "web", Some("b"), 0, Enabled),
                row(6, "web", Some("b"), 10, Draining),
                row(7, "web", Some("b"), 10, Disabled),
            ]
        };
        let counted = |groups: Option<&[&str]>, zones: Option<&[&str]>| {
            let found = candidates(&table(rows()), &rules(groups, zones));
            let (own, others) = (found.own.into_keys().collect(), found.others.into_keys().collect());
            (own, others, found.own_names, found.all_names)
        };
        for (name, found, own, others, names) in [
            ("by zone", counted(None, Some(&["a"])), vec![1, 4], vec![2, 3], (1, 3)),
            ("of two zones", counted(None, Some(&["a", "b"])), vec![1, 2, 4], vec![3], (2, 3)),
            ("by group", counted(Some(&["web"]), None), vec![1, 2, 4], vec![3], (1, 2)),
            (
                "by both only those of the own groups",
                counted(Some(&["web"]), Some(&["a"])),
                vec![1, 4],
                vec![2],
                (1, 2),
            ),
            (
                "a name that nobody has is not counted",
                counted(None, Some(&["a", "typo"])),
                vec![1, 4],
                vec![2, 3],
                (1, 3),
            ),
            ("the own zone is empty", counted(None, Some(&["z"])), vec![4], vec![1, 2, 3], (1, 4)),
        ] {
            assert_eq!(found, (own, others, names.0, names.1), "{name}");
        }
        let off = Rules { spill_below: 0, ..rules(None, Some(&["a"])) };
        assert_eq!(Candidates::of(&table(rows()), &off, KNOWN), None, "off");
        assert_eq!(Candidates::of(&table(rows()), &rules(None, None), KNOWN), None, "no split");
        let blind = Candidates::of(&table(rows()), &rules(None, Some(&["z"])), History::default());
        assert_eq!(blind, None, "a split that knows nothing");
    }

    #[test]
    fn an_own_server_is_fit_as_long_as_it_may_serve() {
        let own = || Some(serve_at(1, 7));
        let mut world = World::new([(1, up(1, 7), own())]);
        let mut fit = |running: Running, seconds: u64| {
            world.running.insert(1, running);
            world.now += Duration::from_secs(seconds);
            world.plan();
            let World { desired, running, memory, size, .. } = &world;
            fits(1, View { desired, running, memory, size: *size, options: OPTIONS }, world.now)
        };
        assert!(!fit(inherited(1, 7), 0), "a tracked server keeps it out");
        assert!(fit(maintenance(99, 1), 0), "it is about to be filled");
        assert!(fit(down(1, 7), 0), "its first check is outstanding");
        assert!(fit(down(1, 7), 29), "for a while");
        assert!(!fit(down(1, 7), 1), "but not for ever");
        assert!(fit(up(1, 7), 0), "it serves");
        assert!(!fit(down(1, 7), 0), "its check fails");
        assert!(fit(up(1, 7), 0), "and passes again");
        assert!(!fit(server(Admin::Drain, true, 1, 7), 0), "an operator drains it");
        let World { desired, memory, size, .. } = &world;
        let view = View { desired, running: &BTreeMap::new(), memory, size: *size, options: OPTIONS };
        assert!(!fits(1, view, world.now), "HAProxy has no such server");
    }

    #[test]
    fn it_rises_at_once_and_falls_after_thirty_seconds() {
        let start = Instant::now();
        let load = |own: u32| Load { fit: own, total: 900, own: 1, all: 3, others: vec![100; 6] };
        let mut spill = Spill::default();
        for (second, fit, level) in [
            (0, 300, 0),
            (1, 210, 0),
            (2, 200, 3),
            (3, 100, 6),
            (4, 200, 6),
            (20, 150, 6),
            (33, 200, 6),
            (34, 200, 4),
            (35, 230, 4),
            (64, 239, 4),
            (65, 239, 2),
            (66, 240, 2),
            (90, 240, 2),
            (95, 200, 3),
            (96, 300, 3),
            (125, 300, 3),
            (126, 300, 0),
        ] {
            spill.decide(&load(fit), 70, start + Duration::from_secs(second));
            assert_eq!(spill.level(), level, "at {second}");
        }
    }

    #[test]
    fn a_client_that_starts_goes_on_where_its_haproxy_is() {
        let found = candidates(&zones([&[100], &[100], &[60]]), &rules(None, Some(&["a"])));
        let runs = |weights: [Weight; 2]| {
            let servers = [(1, up(1, 100)), (2, up(2, weights[0])), (3, up(3, weights[1]))];
            found.level_of(&servers.into_iter().filter(|(_, server)| server.weight > 0).collect())
        };
        assert_eq!(runs([0, 0]), 0);
        assert_eq!(runs([25, 15]), 4);
        assert_eq!(runs([100, 60]), 16);
        assert_eq!(runs([31, 19]), 5);
        assert_eq!(found.level_of(&BTreeMap::from([(2, maintenance(2, 25))])), 0, "it does not serve");
        assert_eq!(found.level_of(&BTreeMap::from([(2, up(9, 25))])), 0, "another address");
    }

    prop_compose! {
        fn some_zones()(weights in prop::collection::vec((0..4_usize, 0..=100_u16), 1..24)) -> Table {
            let zone = |zone: usize| ["a", "b", "c"].get(zone).copied();
            let rows = weights.iter().enumerate();
            table(rows.map(|(index, (of, weight))| row(index as u32 + 1, "web", zone(*of), *weight, Status::Enabled)))
        }
    }

    proptest! {
        #[test]
        fn own_weights_stay_and_help_reaches_the_fair_share(table in some_zones(), unfit in 0..24_u32, level in 0..=STEPS) {
            let rules = rules(None, Some(&["a"]));
            let found = candidates(&table, &rules);
            let base = place(&table, BackendKind::Default, &rules, KNOWN);
            let mut desired = base.clone();
            found.place(&mut desired, level);
            for id in found.own.keys() {
                prop_assert_eq!(desired.of(*id), base.of(*id));
            }
            // Coming and going leaves nothing behind.
            found.place(&mut desired, 0);
            prop_assert_eq!(&desired, &base);

            let load = Load::of(&found, |id| id != unfit);
            let target = load.target(false, 70);
            let help: u32 = found.others.values().map(|(_, weight)| u32::from(share(*weight, target))).sum();
            let help = if target == 0 { 0 } else { help };
            let enough = (load.fit + help) * load.all >= load.total * load.own;
            prop_assert!(target == 0 && !load.is_below(70) || found.others.is_empty() || enough || target == STEPS);
            // Never is the backend without a server while another zone has one.
            prop_assert!(load.fit > 0 || found.others.is_empty() || help > 0);
            // One more fit server never asks for more help.
            let better = Load { fit: load.fit + 10, ..load.clone() };
            prop_assert!(better.target(false, 70) <= target);
        }

        #[test]
        fn more_help_never_takes_weight_away(weight in 1..=256_u16, level in 1..STEPS) {
            prop_assert!(share(weight, level) <= share(weight, level + 1));
            prop_assert!(share(weight, level) <= weight.max(1));
        }
    }
}
