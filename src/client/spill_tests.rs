//! What comes in and when it leaves, as tables and properties.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::client::fixtures::{OPTIONS, World, down, inherited, maintenance, serve_at, server, up};
use crate::client::placement::{BackendKind, place};
use crate::ports::Change;
use crate::selection::NamePattern;
use crate::slot::{Occupant, Row, Slot};

fn row(id: SlotId, group: &str, zone: Option<&str>, weight: Weight, status: Status) -> (SlotId, Row) {
    let occupant = Occupant {
        address: [10, 0, 0, id as u8].into(),
        name: format!("i-{id}"),
        group: Some(group.to_owned()),
        zone: zone.map(str::to_owned),
        port: None,
        weight,
        status,
        last_step: None,
        drain_since: None,
    };
    (id, Row::Readable(Arc::new(Slot { occupant: Some(occupant), ..Slot::empty(id) })))
}

fn table(rows: impl IntoIterator<Item = (SlotId, Row)>) -> Table {
    Table { rows: rows.into_iter().collect(), strays: vec![] }
}

fn rules(groups: Option<&[&str]>, zones: Option<&[&str]>) -> Rules {
    let names = |names: &[&str]| names.iter().map(|name| NamePattern::new(name)).collect();
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

/// All zones are ordered out: the leader lets the last ones serve on, and they may be in another zone.
#[test]
fn while_nobody_is_enabled_the_last_resort_helps() {
    let draining = |id, zone, weight| row(id, "web", Some(zone), weight, Status::Draining);
    let rules = rules(None, Some(&["a"]));
    let rows = || [draining(1, "a", 0), draining(2, "b", 10), draining(3, "c", 0)];
    let found = candidates(&table(rows()), &rules);
    assert_eq!((found.own.len(), found.others.keys().copied().collect::<Vec<_>>()), (0, vec![2]));
    let enabled = table(rows().into_iter().chain([row(4, "web", Some("c"), 5, Status::Enabled)]));
    let found = candidates(&enabled, &rules);
    assert_eq!(found.others.keys().copied().collect::<Vec<_>>(), [4], "then who drains leaves");
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
    // The own servers are the first ones.
    let all: fn(SlotId) -> Fitness = |_| Fitness::Up;
    let none: fn(SlotId) -> Fitness = |id| if id > 3 { Fitness::Up } else { Fitness::Unfit };
    let but_first: fn(SlotId) -> Fitness = |id| if id > 1 { Fitness::Up } else { Fitness::Unfit };
    let sick: fn(SlotId) -> Fitness = |id| if matches!(id, 1 | 4..=6) { Fitness::Unfit } else { Fitness::Up };
    #[rustfmt::skip]
    let cases = [
        ("even zones", zones([&[100, 100], &[100, 100], &[100, 100]]), all, (200, 200), 0, 0),
        ("one of three is down", zones([&[100; 3], &[100; 3], &[100; 3]]), but_first, (200, 300), 3, 3),
        ("of the others one zone is down too", zones([&[100; 3], &[100; 3], &[100; 3]]), sick, (200, 300), 6, 6),
        ("one of four is down: within the band", zones([&[100; 4], &[100; 4], &[100; 4]]), but_first, (300, 400), 0, 2),
        ("one of ten is down", zones([&[100; 10], &[100; 10], &[100; 10]]), but_first, (900, 1000), 0, 0),
        ("none is fit", zones([&[100; 3], &[100; 3], &[100; 3]]), none, (0, 300), 16, 16),
        ("the zone is empty", zones([&[], &[100, 100], &[100, 100]]), all, (0, 133), 16, 16),
        ("the zone is small", zones([&[100], &[100; 4], &[100; 4]]), all, (100, 300), 4, 4),
        ("all others together are too few", zones([&[100, 100, 100], &[10], &[]]), none, (0, 155), 16, 16),
        ("nobody else is there", zones([&[100, 100], &[], &[]]), none, (0, 200), 0, 0),
    ];
    for (name, table, fits, fit_of_fair, calm, spilling) in cases {
        let load = Load::of(&candidates(&table, &rules(None, Some(&["a"]))), fits);
        assert_eq!((load.fit, load.fair()), fit_of_fair, "{name}");
        assert_eq!((load.target(load.fit, false, 70), load.target(load.up, true, 70)), (calm, spilling), "{name}");
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
        ("by both only those of the own groups", counted(Some(&["web"]), Some(&["a"])), vec![1, 4], vec![2], (1, 2)),
        ("a name that nobody has is not counted", counted(None, Some(&["a", "typo"])), vec![1, 4], vec![2, 3], (1, 3)),
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
fn a_server_is_fit_as_long_as_it_may_serve() {
    use Fitness::{Fit, Unfit, Up};
    let mut world = World::new([(1, up(1, 7), Some(serve_at(1, 7)))]);
    for (name, running, opened, seconds, expected) in [
        ("a client that starts finds it down", down(1, 7), false, 0, Unfit),
        ("a tracked server keeps it out", inherited(1, 7), false, 0, Unfit),
        ("it is about to be filled", maintenance(99, 1), false, 0, Fit),
        ("its first check is outstanding", down(1, 7), true, 0, Fit),
        ("for a while", down(1, 7), false, 29, Fit),
        ("but not for ever", down(1, 7), false, 1, Unfit),
        ("it serves", up(1, 7), false, 0, Up),
        ("its check fails", down(1, 7), false, 0, Unfit),
        ("and passes again", up(1, 7), false, 0, Up),
        ("an operator drains it", server(Admin::Drain, true, 1, 7), false, 0, Unfit),
    ] {
        if opened {
            world.memory.sending(1, &[Change::Ready]);
        }
        world.running.insert(1, running);
        world.now += Duration::from_secs(seconds);
        world.plan();
        let World { desired, running, memory, size, .. } = &world;
        let view = View { desired, running, memory, size: *size, options: OPTIONS };
        assert_eq!(fitness(1, view, world.now), expected, "{name}");
    }
    let World { desired, memory, size, .. } = &world;
    let view = View { desired, running: &BTreeMap::new(), memory, size: *size, options: OPTIONS };
    assert_eq!(fitness(1, view, world.now), Unfit, "HAProxy has no such server");
}

#[test]
fn it_rises_at_once_and_falls_after_thirty_seconds() {
    let start = Instant::now();
    let load = |own: u32| load(own, own);
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
        (64, 239, 3),
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
    assert!(!spill.is_over(), "those that came in drain");
    spill.decide(&load(300), 70, start + Duration::from_secs(156));
    assert!(spill.is_over() && !spill.watches_time());
}

/// A load of 300 as the fair share, with these weights of own servers that are fit and up.
fn load(fit: u32, up: u32) -> Load {
    Load { fit, up, total: 900, own: 1, all: 3, others: vec![100; 6], has_others: true }
}

/// New own servers that never pass their check, one batch after another.
#[test]
fn it_falls_only_for_servers_that_serve() {
    let start = Instant::now();
    let mut spill = Spill::default();
    for (second, fit, up, level) in
        [(0, 0, 0, 16), (1, 300, 0, 16), (40, 300, 0, 16), (80, 300, 100, 16), (110, 300, 100, 6)]
    {
        spill.decide(&load(fit, up), 70, start + Duration::from_secs(second));
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
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn own_weights_stay_and_help_reaches_the_fair_share(table in some_zones(), unfit in 0..24_u32, level in 0..=STEPS) {
        let rules = rules(None, Some(&["a"]));
        let found = candidates(&table, &rules);
        let base = place(&table, BackendKind::Default, &rules, KNOWN);
        let mut desired = base.clone();
        found.place(&mut desired, &Spill::found(level), &BTreeSet::new());
        for id in found.own.keys() {
            prop_assert_eq!(desired.of(*id), base.of(*id));
        }
        let came_in = desired.spilled.clone();
        // Those that go are at weight 0 for a while, and leave nothing behind.
        found.place(&mut desired, &Spill { ended: Some(Instant::now()), ..Spill::default() }, &came_in);
        for id in &came_in {
            let drains = matches!(desired.of(*id), Some(Wanted::Serve { weight: 0, .. }));
            prop_assert!(drains, "slot {}", id);
        }
        found.place(&mut desired, &Spill::default(), &came_in);
        prop_assert_eq!(&desired, &base);

        let load = Load::of(&found, |id| if id == unfit { Fitness::Unfit } else { Fitness::Up });
        let target = load.target(load.fit, false, 70);
        let help: u32 = load.others.iter().map(|weight| u32::from(share(*weight, target))).sum();
        let help = if target == 0 { 0 } else { help };
        let enough = (load.fit + help) * load.all >= load.total * load.own;
        prop_assert!(target == 0 && !load.is_below(load.fit, 70) || found.others.is_empty() || enough || target == STEPS);
        // Never is the backend without a server while another zone has one.
        prop_assert!(load.fit > 0 || load.others.is_empty() || help > 0);
        // One more fit server never asks for more help.
        prop_assert!(load.target(load.fit + 10, false, 70) <= target);
    }

    #[test]
    fn more_help_never_takes_weight_away(weight in 1..=256_u16, level in 1..STEPS) {
        prop_assert!(share(weight, level) <= share(weight, level + 1));
        prop_assert!(share(weight, level) <= weight.max(1));
    }
}
