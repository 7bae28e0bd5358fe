//! What must never happen, checked whenever the table or a HAProxy changes.
//!
//! Between two faults there comes a point at which everything is right (`settled`). What serves then is *protected*: until its
//! instance, its row or its HAProxy is touched, nothing may take it out, move it or lower its weight, whatever fails meanwhile.

mod orders;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hsdo::client::placement::BackendKind;
use hsdo::marker::{Claim, Marker};
use hsdo::order::Order;
use hsdo::ports::Change;
use hsdo::slot::{Occupant, Row, Slot, SlotId, Status, Weight};

use crate::journal::{At, SECOND};
use crate::process::Kind;
use crate::settings::{BACKENDS, GROUPS, Settings, ZONE};
use crate::table::Rows;
use crate::world::World;

pub(crate) const NOT_READY: &str = "no request to a server that is not ready";
pub(crate) const STALE: &str = "no request to an address that the table does not give";
pub(crate) const GATE: &str = "no request before the check has passed";
pub(crate) const TWICE: &str = "no address in two serving slots";
pub(crate) const KEPT: &str = "what serves is not taken out";
pub(crate) const ROW_KEPT: &str = "unknown is never empty: no row of a server that is ready is freed, moved or lowered";
pub(crate) const ROW_TWICE: &str = "no address in two rows";
pub(crate) const OWN_GROUP: &str = "a freed slot goes to its own group first";
pub(crate) const ANNOUNCED: &str = "the version rises with every change";
pub(crate) const LEASE: &str = "a leader whose heart beats keeps its lease";
pub(crate) const HELD: &str = "what an operator holds does not serve";
pub(crate) const ORDERED: &str = "who is ordered to drain has no weight while others have";
pub(crate) const KEPT_OUT: &str = "nobody whom an order names takes a slot while others serve";
pub(crate) const ORDERS_KEPT: &str = "no order is lost, made up, or removed before its end";
pub(crate) const SOMEBODY: &str = "while anybody is ready, somebody has weight";
pub(crate) const ONE_WRITER: &str = "one writer a term";

/// The version of what is not wholly visible yet.
const NOT_YET: u64 = u64::MAX;

/// Why a HAProxy changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Command,
    Check,
    Restart,
    /// It was stopped by a signal, or goes on.
    Signal,
    Operator,
}

/// A server in rotation.
pub(crate) type Serving = (SlotId, IpAddr, Weight);

/// What is protected of an instance.
#[derive(Clone, Debug)]
struct Protected {
    slot: SlotId,
    /// The sites and backends where it serves.
    places: BTreeSet<(usize, usize)>,
    /// Whether its row is protected too.
    row: bool,
}

#[derive(Debug)]
pub(crate) struct Promises {
    protected: BTreeMap<IpAddr, Protected>,
    /// Addresses that were those of a ready instance since the world was settled.
    entitled: BTreeSet<IpAddr>,
    /// Where rows put addresses since then.
    placed: BTreeSet<(SlotId, IpAddr)>,
    /// What serves at each site in each backend.
    serving: Vec<[Vec<Serving>; BACKENDS.len()]>,
    /// What has served in the present process of each HAProxy.
    proven: Vec<BTreeSet<(usize, SlotId, IpAddr)>>,
    /// What an operator holds in the first backend of each HAProxy.
    held: Vec<BTreeMap<SlotId, IpAddr>>,
    /// The version of the table at which a row last ceased to give an address.
    removed: BTreeMap<(SlotId, IpAddr), u64>,
    /// Whose each term is.
    terms: BTreeMap<String, usize>,
    /// When a server last wrote the marker, and when the first time after a while in which nobody did.
    beaten: At,
    beats_since: At,
    /// When the lease was last taken.
    taken: At,
    /// Another hand wrote to the table since the world was settled.
    edited: bool,
    /// All orders that were ever given.
    pub(crate) given: Vec<Order>,
    row_lost: Option<orders::RowLost>,
}

impl Promises {
    pub(crate) fn new(sites: usize) -> Self {
        Promises {
            protected: BTreeMap::new(),
            entitled: BTreeSet::new(),
            placed: BTreeSet::new(),
            serving: vec![Default::default(); sites],
            proven: vec![BTreeSet::new(); sites],
            held: vec![BTreeMap::new(); sites],
            removed: BTreeMap::new(),
            terms: BTreeMap::new(),
            beaten: 0,
            beats_since: 0,
            taken: 0,
            edited: false,
            given: Vec::new(),
            row_lost: None,
        }
    }

    /// When the lease was last taken.
    pub(crate) fn taken(&self) -> At {
        self.taken
    }

    pub(crate) fn serving(&self, site: usize, backend: usize) -> &[Serving] {
        &self.serving[site][backend]
    }

    /// An instance changed: it is protected no longer.
    pub(crate) fn touched(&mut self, address: IpAddr, ready: bool) {
        self.protected.remove(&address);
        if ready {
            self.entitled.insert(address);
        }
    }

    /// An operator's command for the first backend of a site. What the table disables, hsdo puts into maintenance as well: afterwards
    /// nobody can tell that a hand was there first.
    fn operator(&mut self, site: usize, slot: SlotId, change: Change, is_disabled: bool) {
        let serves = self.serving[site][0].iter().find(|it| it.0 == slot).map(|it| it.1);
        match (change, serves) {
            (Change::Maintenance, Some(address)) if !is_disabled => drop(self.held[site].insert(slot, address)),
            (Change::Maintenance, _) => {}
            _ => drop(self.held[site].remove(&slot)),
        }
        let of_slot = self.protected.values_mut().filter(|it| it.slot == slot);
        of_slot.for_each(|it| it.places.retain(|(at, _)| *at != site));
    }

    /// All of a transaction is visible.
    pub(crate) fn is_visible(&mut self, version: u64) {
        self.removed.values_mut().filter(|it| **it == NOT_YET).for_each(|it| *it = version);
    }

    /// Everything is right: what serves is protected from now on. Those that are ready may serve once no order keeps them out.
    pub(crate) fn settle(&mut self, rows: &Rows, ready: impl Fn(&Occupant) -> bool, entitled: BTreeSet<IpAddr>) {
        (self.entitled, self.placed, self.protected) = (entitled, BTreeSet::new(), BTreeMap::new());
        self.edited = false;
        for (id, occupant) in occupants(rows) {
            self.placed.insert((id, occupant.address));
            self.entitled.insert(occupant.address);
            if ready(occupant) && occupant.status == Status::Enabled {
                let backends = |(site, all): (usize, &[Vec<Serving>; BACKENDS.len()])| {
                    let serves = |(_, some): &(usize, &Vec<Serving>)| {
                        // With more than the row's weight, it has yet to follow the row down.
                        some.iter().any(|(slot, address, weight)| {
                            (*slot, *address) == (id, occupant.address) && *weight <= occupant.weight
                        })
                    };
                    // While no row is of the own groups, every server counts as one of them, until one is.
                    let belongs = |(backend, _): &(usize, &Vec<Serving>)| {
                        let kind = if *backend == 0 { BackendKind::Default } else { BackendKind::Fallback };
                        Settings::belongs(site, occupant, kind)
                    };
                    let places = all.iter().enumerate().filter(|place| serves(place) && belongs(place));
                    places.map(|(backend, _)| (site, backend)).collect::<Vec<_>>()
                };
                let places = self.serving.iter().enumerate().flat_map(backends).collect();
                self.protected.insert(occupant.address, Protected { slot: id, places, row: true });
            }
        }
    }
}

pub(crate) fn occupants(rows: &Rows) -> impl Iterator<Item = (SlotId, &Occupant)> {
    rows.iter().filter_map(|(id, row)| Some((*id, occupant(Some(row))?)))
}

fn occupant(row: Option<&Row>) -> Option<&Occupant> {
    match row {
        Some(Row::Readable(slot)) => slot.occupant.as_ref(),
        _ => None,
    }
}

impl World {
    /// A server takes the lease: no two processes have one term.
    pub(crate) fn claims(&self, process: usize, claim: &Claim) {
        let Marker { leader, blind, .. } = self.table.borrow().state().marker.clone();
        let holder = leader.and_then(|leader| self.promises.borrow().terms.get(&leader).copied());
        if let Some(holder) = holder.filter(|holder| *holder != process).map(|holder| &self.processes[holder])
            && holder.leads()
            // One that says that it is blind may be relieved while its heart beats. In a calm nobody is.
            && (self.now() < self.promises.borrow().beaten + 5 * SECOND && !blind || self.has_been_calm(10 * SECOND))
        {
            let by = &self.processes[process].name;
            self.fail(LEASE, format!("{by} takes the lease of {}, whose heart beats, or should", holder.name));
        }
        if blind {
            self.disturb(self.now());
        }
        // The fault lasted until now: turns on standby put nothing right.
        self.processes.iter().for_each(|process| process.good_turns.set(0));
        self.promises.borrow_mut().taken = self.now();
        let before = self.promises.borrow_mut().terms.insert(claim.leader.clone(), process);
        self.note(format!("{} takes the lease as {}", self.processes[process].name, claim.leader));
        if before.is_some_and(|before| before != process) {
            self.fail(ONE_WRITER, format!("two processes call themselves {}", claim.leader));
        }
    }

    pub(crate) fn operator_acts(&self, site: usize, slot: SlotId, change: Change) {
        let table = self.table.borrow();
        let is_disabled = occupant(table.state().rows.get(&slot)).is_some_and(|it| it.status == Status::Disabled);
        self.promises.borrow_mut().operator(site, slot, change, is_disabled);
    }

    /// What serves at a site may have changed.
    pub(crate) fn haproxy_changed(&self, site: usize, cause: Cause) {
        let mut broken: Option<(&'static str, String)> = None;
        let mut changed = Vec::new();
        {
            let promises = &mut *self.promises.borrow_mut();
            let haproxy = &self.sites[site].haproxy;
            if cause == Cause::Restart {
                promises.proven[site].clear();
                promises.held[site].clear();
                promises.protected.values_mut().for_each(|it| it.places.retain(|(at, _)| *at != site));
            }
            for (backend, name) in BACKENDS.into_iter().enumerate() {
                let now: Vec<Serving> =
                    haproxy.serving(name).into_iter().map(|(id, at, weight)| (id, at.ip(), weight)).collect();
                if now == promises.serving[site][backend] {
                    continue;
                }
                let before = std::mem::replace(&mut promises.serving[site][backend], now.clone());
                let found = self.broken_by(promises, site, backend, cause, &before, &now);
                broken = broken.or(found);
                promises.proven[site].extend(now.iter().map(|(slot, address, _)| (backend, *slot, *address)));
                changed.push((backend, before, now));
            }
        }
        let is_changed = !changed.is_empty();
        for (backend, before, now) in changed {
            self.rotation_changed(site, backend, &before, &now);
        }
        if cause == Cause::Restart {
            self.requests_are_over(site);
        }
        if is_changed && cause != Cause::Command {
            self.disturb_clients(site);
        }
        if let Some((promise, text)) = broken {
            self.fail(promise, format!("{text}, in {} of HAProxy {site}, by {cause:?}", BACKENDS[0]));
        }
    }

    fn broken_by(
        &self,
        promises: &Promises,
        site: usize,
        backend: usize,
        cause: Cause,
        before: &[Serving],
        now: &[Serving],
    ) -> Option<(&'static str, String)> {
        let in_rotation = |all: &[Serving], slot, address| all.iter().any(|it| (it.0, it.1) == (slot, address));
        let by_hsdo = matches!(cause, Cause::Command | Cause::Check);
        for (slot, address, _) in now.iter().copied().filter(|it| !in_rotation(before, it.0, it.1) && by_hsdo) {
            if !promises.entitled.contains(&address) {
                return Some((NOT_READY, format!("{address} serves in slot {slot}, and nobody ready has it")));
            }
            if !promises.placed.contains(&(slot, address)) {
                return Some((STALE, format!("{address} serves in slot {slot}, where no row puts it")));
            }
            let removed = promises.removed.get(&(slot, address)).copied();
            if cause == Cause::Command && removed.is_some_and(|removed| removed <= self.table_seen_by(site)) {
                return Some((
                    STALE,
                    format!("{address} serves again in slot {slot}, which a later table does not say"),
                ));
            }
            if backend == 0 && promises.held[site].get(&slot) == Some(&address) {
                return Some((HELD, format!("{address} serves in slot {slot}")));
            }
            let covers = |other: &&Serving| {
                let protected = promises.protected.get(&other.1);
                other.0 != slot && protected.is_some_and(|it| it.row && it.places.contains(&(site, backend)))
            };
            let covered = before.iter().find(covers);
            let passed = || self.sites[site].haproxy.proven(BACKENDS[backend]);
            let proven = promises.proven[site].contains(&(backend, slot, address))
                || covered.is_some() && passed().iter().any(|it| (it.0, it.1.ip()) == (slot, address));
            if let (Cause::Command, false, Some(other)) = (cause, proven, covered) {
                let text = format!("{address} serves in slot {slot} at once, though slot {} serves", other.0);
                return Some((GATE, text));
            }
            let other = now.iter().find(|other| other.1 == address && other.0 != slot);
            if let Some((other, ..)) =
                other.filter(|other| !promises.edited && !(promises.placed.contains(&(other.0, address))))
            {
                return Some((TWICE, format!("{address} serves in slots {slot} and {other}")));
            }
        }
        // One that starts where no row names its own groups or zones moves every server to its default backend, as it should.
        if cause != Cause::Command || self.is_blind(site) {
            return None;
        }
        for (slot, address, weight) in before.iter().copied() {
            let protected = promises.protected.get(&address);
            if protected.is_none_or(|it| it.slot != slot || !it.places.contains(&(site, backend))) {
                continue;
            }
            match now.iter().find(|it| (it.0, it.1) == (slot, address)) {
                // It is in another backend by now.
                None if promises.serving[site].iter().flatten().any(|it| (it.0, it.1) == (slot, address)) => {}
                None => return Some((KEPT, format!("{address} in slot {slot} was taken out"))),
                Some((_, _, lower)) if *lower < weight => {
                    return Some((KEPT, format!("{address} in slot {slot} fell from weight {weight} to {lower}")));
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Whether no row is, or was last, of the own groups or zones of a site.
    fn is_blind(&self, site: usize) -> bool {
        let table = self.table.borrow();
        let slots = table.state().rows.values().filter_map(|row| match row {
            Row::Readable(slot) => Some(slot),
            Row::Unreadable { .. } => None,
        });
        let is_named = |slot: &Slot| match (Settings::is_dedicated(site), Settings::spills(site)) {
            (true, _) => [slot.occupant.as_ref().and_then(|it| it.group.as_deref()), slot.last_group.as_deref()]
                .contains(&Some(GROUPS[0])),
            (_, true) => [slot.occupant.as_ref().and_then(|it| it.zone.as_deref()), slot.last_zone.as_deref()]
                .contains(&Some(ZONE)),
            (false, false) => true,
        };
        !slots.into_iter().any(|slot| is_named(slot))
    }

    /// The newest table that the present client of a site has read.
    fn table_seen_by(&self, site: usize) -> u64 {
        let client = self.processes.iter().find(|process| process.kind == Kind::Client(site));
        client.map_or(0, |client| client.table_read.get())
    }
}
