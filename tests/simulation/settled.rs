//! Everything is right again within two turns of the last fault: the leader's, and then each client's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use hsdo::client::placement::BackendKind;
use hsdo::order::{Order, Target, on_occupant};
use hsdo::slot::{Occupant, Row, SlotId, Status, Weight};

use crate::fleet::Instance;
use crate::journal::{At, SECOND};
use crate::orders::names;
use crate::promises::{ONE_WRITER, occupants};
use crate::settings::{BACKENDS, GROUPS, SLOTS, STEP, Settings, ZONE};
use crate::site::Answering;
use crate::world::World;

pub(crate) const AGAIN: &str = "everything is right again within two turns of the last fault";
pub(crate) const FULL: &str = "whoever is ready has its full weight in the end";
pub(crate) const LEADER: &str = "a server leads within ten seconds";
pub(crate) const RELIEVED: &str = "a leader that cannot see the instances is relieved by a server that can";

/// Two turns, and the one that was under way.
const TURNS: u32 = 3;
/// By how much a HAProxy's weight may differ from the row's: a step may be a turn old, and one down from the largest factor takes more
/// than half of the weight; one up at most half as much.
const LATE: Weight = 6 * STEP;
/// A ramp of three steps up, or of at most ten down.
const RAMPS: At = 150 * SECOND;
/// Turns that may still fail: the one that was under way, and one that meets what it left.
const FAILURES: u32 = 2;
/// Until another server leads: the lease expires, and a turn begins; and until an instance that went is let go by the guard.
const TAKEOVER: At = 12 * SECOND;
/// Until another server leads in the place of one that cannot see the instances: it has to be sure, and so long may the others wait that
/// could not see them either a while ago.
const RELIEF: At = (15 + 15) * SECOND + TAKEOVER;

/// How far the world is from being settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Disturbed,
    TableRight,
    Settled,
}

#[derive(Debug, Default)]
pub(crate) struct Settling {
    phase: Phase,
    /// No fault that began so far goes on after that.
    calm_from: At,
    /// Since when the world is settled.
    settled_from: At,
    /// Whether the world was settled when the last fault began.
    was_settled: bool,
    /// How often it was settled.
    pub(crate) times: u64,
}

impl World {
    /// A fault, or a change of the fleet, which lasts until `until`.
    pub(crate) fn disturb(&self, until: At) {
        if let Some(text) = self.ramp_that_never_ended() {
            self.fail(FULL, text);
        }
        let mut settling = self.settling.borrow_mut();
        settling.was_settled = settling.phase == Phase::Settled && settling.calm_from <= self.now();
        settling.phase = Phase::Disturbed;
        settling.calm_from = settling.calm_from.max(until).max(self.now());
        for process in &self.processes {
            process.good_turns.set(0);
            process.bad_turns.set(0);
        }
    }

    /// After a long calm, who is ready has its full weight, in the table and where it serves.
    fn ramp_that_never_ended(&self) -> Option<String> {
        let settling = self.settling.borrow();
        let is_calm = settling.phase == Phase::Settled && settling.calm_from + RAMPS < self.now();
        let (fleet, table) = (self.fleet.borrow(), self.table.borrow());
        let rows = is_calm.then_some(&table.state().rows)?;
        let enabled = || occupants(rows).filter(|(_, occupant)| occupant.status == Status::Enabled);
        let full = |occupant: &Occupant| Some(Settings::server().full_weight(fleet.named(&occupant.name)?.factor()));
        // Without any, those whose factor is 0 serve.
        enabled().find(|(_, occupant)| full(occupant).is_some_and(|full| full > 0))?;
        let off = enabled().find(|(_, occupant)| full(occupant).is_some_and(|full| full != occupant.weight));
        if let Some((id, occupant)) = off {
            return Some(format!("slot {id} has weight {} of {:?}", occupant.weight, full(occupant)));
        }
        let promises = self.promises.borrow();
        let places = (0..self.sites.len()).flat_map(|site| (0..BACKENDS.len()).map(move |backend| (site, backend)));
        places.into_iter().find_map(|(site, backend)| {
            let kind = if backend == 0 { BackendKind::Default } else { BackendKind::Fallback };
            let serving = promises.serving(site, backend);
            let wanted = wanted(&self.answering, rows, site, kind);
            let late = wanted.into_iter().find_map(|one| {
                let found = serving.iter().find(|it| (it.0, it.1) == (one.0, one.1))?;
                (found.2 != one.2).then_some((one, *found))
            })?;
            Some(format!("HAProxy {site}, {}: {:?} is wanted, and {:?} is there", BACKENDS[backend], late.0, late.1))
        })
    }

    /// Since when everything is right, if it is.
    pub(crate) fn settled_since(&self) -> Option<At> {
        let settling = self.settling.borrow();
        (settling.phase == Phase::Settled).then_some(settling.settled_from)
    }

    /// Whether everything has been right for so long.
    pub(crate) fn has_been_calm(&self, micros: At) -> bool {
        self.settled_since().is_some_and(|since| since + micros < self.now())
    }

    pub(crate) fn is_settled_before_this(&self) -> bool {
        self.settling.borrow().was_settled
    }

    /// The table, or a check, gives the client of this site something to do.
    pub(crate) fn disturb_clients(&self, site: usize) {
        let of_site = self.processes.iter().filter(|it| it.kind == crate::process::Kind::Client(site));
        of_site.for_each(|process| process.good_turns.set(0));
    }

    /// The rest of a transaction is visible: only now can it be followed.
    pub(crate) fn rows_are_visible(&self) {
        (0..self.sites.len()).for_each(|site| self.disturb_clients(site));
    }

    pub(crate) fn check_promises(self: &Rc<Self>) {
        let (phase, calm_from) = {
            let settling = self.settling.borrow();
            (settling.phase, settling.calm_from)
        };
        // What ends at this very moment may not have ended yet.
        if self.failed() || phase == Phase::Settled || self.now() <= calm_from || self.table.borrow().is_torn() {
            return;
        }
        if phase == Phase::Disturbed && !self.is_table_right(calm_from) {
            return;
        }
        self.settling.borrow_mut().phase = Phase::TableRight;
        for (site, process) in self.clients() {
            if process.bad_turns.get() > FAILURES {
                return self.fail(AGAIN, format!("the turns of {} go on failing", process.name));
            }
            if process.good_turns.get() < TURNS || self.sites[site].haproxy.next_change().is_some() {
                return;
            }
        }
        let leaders = self.processes.iter().filter(|process| process.leads()).count();
        if leaders > 1 {
            return self.fail(ONE_WRITER, format!("{leaders} servers believe that they lead"));
        }
        let wrong = (0..self.sites.len()).find_map(|site| self.wrong_haproxy(site));
        match wrong {
            Some(text) => self.fail(AGAIN, text),
            None => self.settle(),
        }
    }

    fn clients(&self) -> impl Iterator<Item = (usize, &crate::process::Process)> {
        self.processes.iter().filter_map(|process| match process.kind {
            crate::process::Kind::Client(site) => Some((site, process)),
            crate::process::Kind::Server => None,
        })
    }

    /// Whether Auto Scaling and EC2 refuse this server, and no other.
    pub(crate) fn is_sightless(&self, process: usize) -> bool {
        self.troubles.sightless.get() == Some(process)
    }

    fn is_table_right(&self, calm_from: At) -> bool {
        let Some((index, leader)) = self.processes.iter().enumerate().find(|(_, process)| process.leads()) else {
            // One that runs now may lead.
            let busy = self.processes.iter().any(|process| process.is_server() && process.busy.get());
            if !busy && self.now() > calm_from + TAKEOVER {
                self.fail(LEADER, "no server leads".to_owned());
            }
            return false;
        };
        if self.is_sightless(index) {
            if self.now() > calm_from + RELIEF {
                self.fail(RELIEVED, format!("{} still leads", leader.name));
            }
            return false;
        }
        if leader.bad_turns.get() > FAILURES {
            self.fail(AGAIN, format!("the turns of {} go on failing", leader.name));
        }
        if leader.good_turns.get() < TURNS {
            if self.now() > calm_from + TAKEOVER + 6 * leader.interval {
                self.fail(LEADER, format!("{} makes no turns", leader.name));
            }
            return false;
        }
        let wrong = self.wrong_table();
        if let Some(text) = &wrong {
            self.fail(AGAIN, format!("after {TURNS} turns of {}: {text}", leader.name));
        }
        wrong.is_none()
    }

    /// What is wrong with the table: each ready instance has one row, and no other row is enabled.
    fn wrong_table(&self) -> Option<String> {
        let fleet = self.fleet.borrow();
        let table = self.table.borrow();
        let rows = &table.state().rows;
        let orders = self.orders_in_force();
        if let Some(order) = table.state().orders.iter().find(|order| self.is_over(order)) {
            return Some(format!("the {order} is over, and is still in the table"));
        }
        let has_factor = |occupant: &Occupant| fleet.named(&occupant.name).is_none_or(|it| !it.factor().is_zero());
        let serves = |occupant: &Occupant| occupant.status == Status::Enabled && occupant.weight > 0;
        let is_served = occupants(rows).any(|(_, occupant)| serves(occupant) && has_factor(occupant));
        let mut seated = BTreeSet::new();
        for (id, occupant) in occupants(rows) {
            let Some(instance) = fleet.named(&occupant.name) else {
                return Some(format!("slot {id} holds {}, which nobody knows", occupant.name));
            };
            let Some(lifecycle) = instance.lifecycle else {
                return Some(format!("slot {id} holds {}, which is in no group", occupant.name));
            };
            let order = on_occupant(&orders, id, occupant);
            let wanted = if instance.is_ready() && order.is_none() { Status::Enabled } else { Status::Draining };
            if lifecycle == "Standby" {
                return Some(format!("slot {id} holds {}, which stands by", occupant.name));
            }
            // Where one belongs that EC2 does not show is learnt when it is back.
            let place_is_right =
                occupant.group.as_deref() == Some(GROUPS[instance.group]) && occupant.zone == Some(instance.zone());
            let right = occupant.address == instance.ip()
                && (place_is_right || instance.ec2 != "running")
                && occupant.status == wanted;
            if !right {
                return Some(format!("slot {id} holds {occupant:?}, and AWS says {instance:?}, with {order:?}"));
            }
            if is_served && occupant.status == Status::Draining && occupant.weight > 0 {
                return Some(format!("slot {id} holds {occupant:?}, which drains, with weight"));
            }
            if !seated.insert(occupant.name.as_str()) {
                return Some(format!("slot {id} is a second one of {}", occupant.name));
            }
        }
        if let Some(id) = (1..=SLOTS).find(|id| !matches!(rows.get(id), Some(Row::Readable(_)))) {
            return Some(format!("row {id} is missing or cannot be read"));
        }
        let can_serve =
            |(_, it): (SlotId, &Occupant)| it.weight > 0 && fleet.named(&it.name).is_some_and(Instance::is_ready);
        if fleet.instances.iter().any(Instance::is_ready) && !occupants(rows).any(can_serve) {
            return Some("nobody that is ready has weight".to_owned());
        }
        let is_kept_out = |instance: &Instance| orders.iter().any(|order| names(&order.target, instance));
        let lacks = |it: &&Instance| it.is_ready() && !seated.contains(it.id.as_str()) && !is_kept_out(it);
        let unseated = fleet.instances.iter().find(lacks);
        unseated.map(|instance| format!("{} is ready and has no slot", instance.id))
    }

    /// Whether the leader has had reason to remove an order.
    fn is_over(&self, order: &Order) -> bool {
        let is_known = |name: &String| self.fleet.borrow().named(name).is_some();
        let has_ended = matches!(&order.target, Target::Instance(name) if is_known(name)) && self.has_ended(order);
        order.has_lapsed(self.aws_time()) || has_ended
    }

    /// What is wrong with the rotation of a site.
    fn wrong_haproxy(&self, site: usize) -> Option<String> {
        let promises = self.promises.borrow();
        let table = self.table.borrow();
        let rows = &table.state().rows;
        // Where no row was ever of the own groups or zones, hsdo takes them for misspelt and moves no server.
        let is_named = |(_, occupant): (SlotId, &Occupant)| match Settings::spills(site) {
            true => occupant.zone.as_deref() == Some(ZONE),
            false => Settings::is_own(site, occupant),
        };
        if !occupants(rows).any(is_named) {
            return None;
        }
        for (backend, name) in BACKENDS.into_iter().enumerate() {
            let kind = if backend == 0 { BackendKind::Default } else { BackendKind::Fallback };
            let wanted = wanted(&self.answering, rows, site, kind);
            let mut serving = promises.serving(site, backend).to_vec();
            if wanted.is_empty() && serving.iter().all(|one| covers(rows, site, kind, one.0)) {
                continue;
            }
            if Settings::spills(site) {
                let helps = |one: &(SlotId, IpAddr, Weight)| helper(rows, site, one.0).is_some_and(|it| it.1 == one.1);
                let help: Vec<_> = serving.extract_if(.., |one| helps(one)).collect();
                let too_much = help.iter().find(|one| helper(rows, site, one.0).is_some_and(|it| it.2 + LATE < one.2));
                if let Some(one) = too_much {
                    return Some(format!(
                        "{name} of HAProxy {site}: {one:?} of another zone serves with more than its weight"
                    ));
                }
                let answers = |id: &SlotId| helper(rows, site, *id).is_some_and(|it| self.answering.contains(it.1));
                if wanted.is_empty() && help.is_empty() && rows.keys().any(answers) {
                    return Some(format!("{name} of HAProxy {site}: its zone is gone, and no other helps"));
                }
            }
            let found: BTreeSet<(SlotId, IpAddr)> = serving.iter().map(|(id, address, _)| (*id, *address)).collect();
            let names: BTreeSet<(SlotId, IpAddr)> = wanted.iter().map(|(id, address, _)| (*id, *address)).collect();
            if found != names {
                let (lacks, more) = (names.difference(&found), found.difference(&names));
                let (lacks, more): (Vec<_>, Vec<_>) = (lacks.collect(), more.collect());
                return Some(format!("{name} of HAProxy {site}: {lacks:?} do not serve, and {more:?} do"));
            }
            let is_off = |(wanted, found): &(&(SlotId, IpAddr, Weight), &(SlotId, IpAddr, Weight))| {
                found.2 > wanted.2 + LATE || wanted.2 > found.2 + LATE / 2
            };
            let off = wanted.iter().zip(&serving).find(is_off);
            if let Some((wanted, found)) = off {
                return Some(format!("{name} of HAProxy {site}: {wanted:?} is wanted, and {found:?} is there"));
            }
        }
        None
    }

    fn settle(&self) {
        let mut settling = self.settling.borrow_mut();
        (settling.phase, settling.settled_from) = (Phase::Settled, self.now());
        settling.times += 1;
        let fleet = self.fleet.borrow();
        // One that has more than its full weight is on its way down, and one that has none of its own serves now and then.
        let is_rising =
            |it: &Instance, weight: Weight| (1..=Settings::server().full_weight(it.factor())).contains(&weight);
        let ready = |occupant: &Occupant| {
            let keeps = |it: &Instance| it.is_ready() && it.answers && is_rising(it, occupant.weight);
            fleet.named(&occupant.name).is_some_and(keeps)
        };
        let entitled = fleet.instances.iter().filter(|it| it.is_ready()).map(Instance::ip).collect();
        self.promises.borrow_mut().settle(&self.table.borrow().state().rows, ready, entitled);
        self.note("everything is right".to_owned());
    }
}

/// The server of a slot that may help a site out whose zone it is not in: one that is enabled, or the last resort.
fn helper(rows: &crate::table::Rows, site: usize, id: SlotId) -> Option<(SlotId, IpAddr, Weight)> {
    let Some(Row::Readable(slot)) = rows.get(&id) else { return None };
    let occupant = slot.occupant.as_ref()?;
    let is_enabled = |occupant: &Occupant| occupant.status == Status::Enabled && occupant.weight > 0;
    let last_resort = || occupant.status == Status::Draining && !occupants(rows).any(|(_, one)| is_enabled(one));
    let may = occupant.weight > 0 && !Settings::is_own(site, occupant) && (is_enabled(occupant) || last_resort());
    may.then_some((id, occupant.address, occupant.weight))
}

/// Whether the server of a slot may serve on although it leaves, for another backend or for good: none of its successors answers.
fn covers(rows: &crate::table::Rows, site: usize, kind: BackendKind, id: SlotId) -> bool {
    let leaves = |(slot, occupant): (SlotId, &Occupant)| {
        let elsewhere = !Settings::belongs(site, occupant, kind) && occupant.status != Status::Disabled;
        slot == id && (occupant.status == Status::Draining || occupant.weight == 0 || elsewhere)
    };
    // Where servers of other zones help out, they are successors too.
    let succeeds = |(_, occupant): (SlotId, &Occupant)| {
        occupant.status == Status::Enabled && (Settings::spills(site) || Settings::belongs(site, occupant, kind))
    };
    occupants(rows).any(leaves) && occupants(rows).any(succeeds)
}

/// What should serve, in slot order.
fn wanted(
    answering: &Answering,
    rows: &crate::table::Rows,
    site: usize,
    kind: BackendKind,
) -> Vec<(SlotId, IpAddr, Weight)> {
    let serves = |(_, occupant): &(SlotId, &Occupant)| {
        occupant.weight > 0
            && occupant.status != Status::Disabled
            && Settings::belongs(site, occupant, kind)
            && answering.contains(occupant.address)
    };
    occupants(rows).filter(serves).map(|(id, occupant)| (id, occupant.address, occupant.weight)).collect()
}
