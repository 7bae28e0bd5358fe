//! Spillover: while the own zones or groups have too little weight in a default backend, servers of the others come in too. Pure.
//!
//! Own weights never change, so a key of consistent hashing moves only to or from a server that came in. Every load balancer decides
//! for itself; with the same table and the same health they all decide alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::placement::{By, Desired, Endpoint, History, Rules, Splits, Wanted};
use super::stage::Stage;
use super::view::View;
pub(super) use crate::balancer::SPILL_STEPS as STEPS;
use crate::ports::{Admin, Running};
use crate::slot::{Occupant, SlotId, Status, Table, Weight};

/// Below the threshold it begins; it ends so many percent above, so that one server that comes and goes does not toggle it.
const BAND: u32 = 10;
/// How long the own weight must suffice before less comes in, or nothing.
const HOLD: Duration = Duration::from_secs(30);
/// How long a server may wait for its first check and still count as fit.
const FIRST_CHECK: Duration = Duration::from_secs(30);
/// How long those that came in stay at weight 0 when they go, for the requests under way.
const DRAIN: Duration = Duration::from_secs(30);

/// The enabled servers with a weight that count: with both splits on, only those of the own groups. While no server is enabled and has
/// weight, those that drain and have weight count: they are the leader's last resort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    by: By,
    own: BTreeMap<SlotId, Weight>,
    others: BTreeMap<SlotId, (Endpoint, Weight)>,
    /// Others that leave, or have no weight yet: they do not come in, but one that is in keeps its place at weight 0.
    leaving: BTreeMap<SlotId, Endpoint>,
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
        let mut found = Candidates {
            by,
            own: BTreeMap::new(),
            others: BTreeMap::new(),
            leaving: BTreeMap::new(),
            own_names,
            all_names: own_names,
        };
        let mut names = BTreeSet::new();
        let last_resort = !table.slots().filter_map(|slot| slot.occupant.as_ref()).any(is_enabled);
        for slot in table.slots() {
            let Some(occupant) = slot.occupant.as_ref().filter(|one| one.status != Status::Disabled) else { continue };
            if !sighted.iter().all(|(one, own)| *one == by || one.is_own(occupant, own)) {
                continue;
            }
            let counts = is_enabled(occupant) || last_resort && occupant.weight > 0;
            match (by.is_own(occupant, own), counts) {
                (true, true) => drop(found.own.insert(slot.id, occupant.weight)),
                (true, false) => {}
                (false, true) => {
                    found.others.insert(slot.id, (occupant.into(), occupant.weight));
                    names.insert(by.of_occupant(occupant));
                }
                (false, false) => drop(found.leaving.insert(slot.id, occupant.into())),
            }
        }
        found.all_names += u32::try_from(names.len()).unwrap_or(u32::MAX - own_names);
        Some(found)
    }

    /// Puts the others into a default backend, or keeps them out of it. Those that go, of the slots that were `in_before`, stay at
    /// weight 0 as long as the spill lasts.
    pub(super) fn place(&self, desired: &mut Desired, spill: &Spill, in_before: &BTreeSet<SlotId>) {
        let all = self.others.iter().map(|(id, (address, weight))| (id, address, Some(*weight)));
        for (id, address, weight) in all.chain(self.leaving.iter().map(|(id, address)| (id, address, None))) {
            let weight = match weight.filter(|_| spill.level > 0) {
                Some(weight) => Some(share(weight, spill.level)),
                None => (!spill.is_over() && in_before.contains(id)).then_some(0),
            };
            let wanted = match weight {
                None => {
                    desired.spilled.remove(id);
                    desired.elsewhere.insert(*id, self.by);
                    Wanted::Maintenance
                }
                Some(weight) => {
                    desired.elsewhere.remove(id);
                    desired.spilled.insert(*id);
                    Wanted::Serve { address: *address, weight }
                }
            };
            desired.slots.insert(*id, wanted);
        }
    }

    /// The level that a HAProxy runs: the one by which most of the others that serve there have their weights.
    pub(super) fn level_of(&self, running: &BTreeMap<SlotId, Running>) -> u8 {
        let weight = |(id, (address, weight)): (&SlotId, &(Endpoint, Weight))| {
            let server = running.get(id)?;
            let is_there = server.address.is_some_and(|at| at.ip() == address.ip) && server.admin == Admin::Ready;
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

fn is_enabled(occupant: &Occupant) -> bool {
    occupant.status == Status::Enabled && occupant.weight > 0
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
    /// The weight of own servers that can serve here, those included that wait for their first check.
    pub(super) fit: u32,
    /// The weight of those that do serve.
    up: u32,
    /// The weight of all enabled servers.
    total: u32,
    /// How many zones or groups are own, and how many there are with weight, own ones included.
    own: u32,
    all: u32,
    /// The weights of the servers that could come in and help.
    others: Vec<Weight>,
    /// Whether there are any others at all. Even if none could help now, they must be there when they can.
    has_others: bool,
}

/// What an own server is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It serves.
    Up,
    /// It waits for its first check, or to be opened.
    Fit,
    /// It cannot serve.
    Unfit,
}

impl Load {
    /// `fitness` is of the server of a slot, own or not.
    pub(super) fn of(candidates: &Candidates, fitness: impl Fn(SlotId) -> Fitness) -> Self {
        let own = || candidates.own.iter().map(|(id, weight)| (fitness(*id), *weight));
        let fit = sum(own().filter(|(fitness, _)| *fitness != Fitness::Unfit).map(|(_, weight)| weight));
        let up = sum(own().filter(|(fitness, _)| *fitness == Fitness::Up).map(|(_, weight)| weight));
        let others = candidates.others.iter().map(|(id, (_, weight))| (*id, *weight));
        let total = sum(own().map(|(_, weight)| weight)) + sum(others.clone().map(|(_, weight)| weight));
        let others = others.filter(|(id, _)| fitness(*id) != Fitness::Unfit).map(|(_, weight)| weight).collect();
        let has_others = !candidates.others.is_empty();
        Load { fit, up, total, own: candidates.own_names, all: candidates.all_names, others, has_others }
    }

    /// The fair share of the own zones, rounded: what they would take if load and capacity were even.
    pub(super) fn fair(&self) -> u32 {
        let (total, own, all) = (u64::from(self.total), u64::from(self.own), u64::from(self.all));
        let fair = (total * own + all / 2).checked_div(all).unwrap_or(0);
        u32::try_from(fair).unwrap_or(u32::MAX)
    }

    /// Whether an own `weight` is below `percent` of the fair share.
    fn is_below(&self, weight: u32, percent: u32) -> bool {
        u64::from(weight) * u64::from(self.all) * 100 < u64::from(self.total) * u64::from(self.own) * u64::from(percent)
    }

    /// The smallest level at which all together reach the fair share, with an own `weight`; the highest if none does.
    fn needed(&self, weight: u32) -> u8 {
        if weight == 0 {
            return STEPS;
        }
        let reaches = |level: &u8| {
            let all = weight + sum(self.others.iter().map(|weight| share(*weight, *level)));
            u64::from(all) * u64::from(self.all) >= u64::from(self.total) * u64::from(self.own)
        };
        (1..=STEPS).find(reaches).unwrap_or(STEPS)
    }

    /// The level that an own `weight` asks for.
    fn target(&self, weight: u32, spills: bool, below: u32) -> u8 {
        let percent = if spills { (below + BAND).min(100) } else { below };
        if !self.has_others || !self.is_below(weight, percent) { 0 } else { self.needed(weight) }
    }
}

fn sum(weights: impl Iterator<Item = Weight>) -> u32 {
    weights.map(u32::from).sum()
}

/// How much of the others comes in, from 0 to [`STEPS`], and what may lower it.
#[derive(Clone, Debug, Default)]
pub(super) struct Spill {
    level: u8,
    /// Since when each level has been enough.
    enough_since: [Option<Instant>; STEPS as usize + 1],
    /// Since when nothing comes in any more, while those that did drain.
    ended: Option<Instant>,
}

impl Spill {
    /// As a client that starts finds it in HAProxy.
    pub(super) fn found(level: u8) -> Self {
        Spill { level, ..Spill::default() }
    }

    /// Whether nothing of it is left, not even servers that drain.
    fn is_over(&self) -> bool {
        self.level == 0 && self.ended.is_none()
    }

    pub(super) fn level(&self) -> u8 {
        self.level
    }

    /// Whether time alone may change it.
    pub(super) fn watches_time(&self) -> bool {
        let may_fall = self.enough_since.iter().take(self.level.into()).any(Option::is_some);
        may_fall || self.ended.is_some()
    }

    /// Decides anew: it rises at once, and falls once less has been enough for [`HOLD`]. `below` is `CLIENT_SPILL_BELOW`.
    ///
    /// Servers that wait for their first check keep it from rising, so that a fresh HAProxy does not spill. Only those that serve let
    /// it fall: the others leave for nobody's mere hope.
    pub(super) fn decide(&mut self, load: &Load, below: u32, now: Instant) {
        let spills = self.level > 0;
        self.ended = self.ended.filter(|ended| now.saturating_duration_since(*ended) < DRAIN);
        let needed = load.target(load.fit, spills, below);
        let enough = load.target(load.up, spills, below);
        for (level, since) in (0..=STEPS).zip(&mut self.enough_since) {
            *since = (enough <= level).then(|| since.unwrap_or(now));
        }
        let has_held =
            |since: &Option<Instant>| since.is_some_and(|since| now.saturating_duration_since(since) >= HOLD);
        let held = (0..self.level).zip(&self.enough_since).find(|(_, since)| has_held(since));
        if needed > self.level {
            (self.level, self.ended) = (needed, None);
        } else if let Some((level, _)) = held {
            self.level = level.max(needed);
            self.ended = (self.level == 0).then_some(now);
        }
    }
}

/// What the server of a slot is worth in this backend. One that this client did not open, and that is down, has been checked before.
pub(super) fn fitness(id: SlotId, view: View<'_>, now: Instant) -> Fitness {
    let Some(server) = view.running.get(&id) else { return Fitness::Unfit };
    let never = view.options.static_weights && server.configured == 0;
    match view.stage(id, server) {
        Stage::Held | Stage::Blocked => Fitness::Unfit,
        _ if never || view.memory.is_held(id) => Fitness::Unfit,
        Stage::Filled if server.inherited => Fitness::Unfit,
        Stage::Down if view.memory.waited(id, now).is_none_or(|waited| waited >= FIRST_CHECK) => Fitness::Unfit,
        Stage::Serving => Fitness::Up,
        _ => Fitness::Fit,
    }
}

#[cfg(test)]
#[path = "spill_tests.rs"]
mod tests;
