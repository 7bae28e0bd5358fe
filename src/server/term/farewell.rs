//! The end of an instance: reads what load balancers report, and lets those go that nobody needs any more.
//!
//! Nothing here ends or delays a turn's own work: it comes last, and its failures are logged and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{info, warn};

use super::{Term, occupant_name};
use crate::clock::Timestamp;
use crate::log::Episode;
use crate::marker::Moment;
use crate::ports::{BalancerView, Completion, Holding, Snapshot, TurnError};
use crate::server::balancers::Balancers;
use crate::server::context::{Departures, TurnContext};
use crate::server::departure::{Facts, MayGo, decide, is_out};
use crate::slot::{Slot, SlotId, Table, Waiting};

/// How often the reports are read while no instance waits, and after a failure.
const IDLE: Duration = Duration::from_secs(10);
/// How long to wait after AWS denied letting an instance go.
const DENIED: Duration = Duration::from_secs(30);

/// What a term knows of load balancers and of the instances that wait.
pub(super) struct Farewell {
    balancers: Balancers,
    /// When the reports are to be read again while no instance waits; at once if none.
    read_again: Option<Instant>,
    /// The occupants that are out, by slot: name, and a version of the table in which they are.
    drained: BTreeMap<SlotId, (String, u64)>,
    /// Since when each waiting instance is known, by AWS's clock.
    known_since: BTreeMap<String, Timestamp>,
    /// The waiting instances that were let go.
    answered: BTreeSet<String>,
    /// The groups for which AWS denies it: until when nothing is tried, and why.
    denied: BTreeMap<String, (Instant, TurnError)>,
    reading: Episode,
    items: Episode,
    completing: Episode,
}

impl Farewell {
    pub(super) fn new() -> Self {
        Farewell {
            balancers: Balancers::default(),
            read_again: None,
            drained: BTreeMap::new(),
            known_since: BTreeMap::new(),
            answered: BTreeSet::new(),
            denied: BTreeMap::new(),
            reading: Episode::new("report table"),
            items: Episode::new("reports of load balancers that cannot be read"),
            completing: Episode::new("lifecycle hooks"),
        }
    }

    /// Reads the reports if that is due. Returns whether they are those of this turn.
    fn read(&mut self, departures: &mut Departures, is_urgent: bool, now: Instant) -> bool {
        let Some(reports) = &mut departures.reports else { return false };
        let is_due = self.read_again.is_none_or(|again| now >= again);
        let is_failing = self.reading.is_open();
        if !is_due && (!is_urgent || is_failing) {
            return false;
        }
        self.read_again = Some(now + IDLE);
        match reports.read() {
            Ok(reading) => {
                self.reading.report(None);
                // Their values may change with every reading, their number does not.
                let (key, text) = (reading.unreadable.len().to_string(), reading.unreadable.join("; "));
                self.items.report((!text.is_empty()).then_some((key.as_str(), text.as_str())));
                self.balancers.learn(reading, now);
                true
            }
            Err(error) => {
                let text = format!("{error}; instances whose hooks wait go at their deadline");
                self.reading.report(Some((&error.key, &text)));
                false
            }
        }
    }

    /// Notes in which version of the table each slot's occupant is out.
    fn note_drained(&mut self, slots: &BTreeMap<SlotId, Slot>, version: Option<u64>) {
        let mut before = std::mem::take(&mut self.drained);
        for slot in slots.values().filter(|slot| is_out(slot)) {
            let (Some(occupant), Some(version)) = (&slot.occupant, version) else { continue };
            let known = before.remove(&slot.id).filter(|(name, _)| *name == occupant.name);
            self.drained.insert(slot.id, known.unwrap_or_else(|| (occupant.name.clone(), version)));
        }
    }
}

impl Term {
    /// The last part of a turn. `waiting` are the instances that hooks hold back, `time` is AWS's.
    pub(super) fn say_farewell<S, T>(
        &mut self,
        context: &mut TurnContext<S, T>,
        waiting: &[Waiting],
        table: &Table,
        time: Timestamp,
        now: Moment,
    ) {
        let departures = &mut context.departures;
        if departures.reports.is_none() && departures.hooks.is_none() {
            return;
        }
        let none = BTreeMap::new();
        let slots = self.published.as_ref().map_or(&none, |published| &published.slots);
        let farewell = &mut self.farewell;
        let version = self.lease.version();
        farewell.balancers.note_version(version, now.clock);
        farewell.note_drained(slots, version);
        let waiting: Vec<&Waiting> = waiting.iter().filter(|_| departures.hooks.is_some()).collect();
        farewell.answered.retain(|name| waiting.iter().any(|one| one.name == *name));
        let before = std::mem::take(&mut farewell.known_since);
        let since = |one: &&Waiting| (one.name.clone(), before.get(&one.name).copied().unwrap_or(time));
        farewell.known_since = waiting.iter().map(since).collect();
        let open = |one: &&&Waiting| !farewell.answered.contains(&one.name);
        let open: Vec<&Waiting> = waiting.iter().filter(open).copied().collect();
        let asked: BTreeSet<&str> = open.iter().map(|one| one.name.as_str()).collect();
        let named = |slot| Some((occupant_name(slot)?, slot));
        let of_name: BTreeMap<&str, &Slot> =
            slots.values().filter_map(named).filter(|(name, _)| asked.contains(name)).collect();
        let has_slot = open.iter().any(|one| of_name.contains_key(one.name.as_str()));
        let is_fresh = farewell.read(departures, has_slot, now.clock);
        let live = farewell.balancers.live(now.clock);
        let (mut leaving, mut holding) = (Vec::new(), BTreeMap::new());
        for one in open {
            let slot = of_name.get(one.name.as_str()).copied();
            let drained = slot.and_then(|slot| farewell.drained.get(&slot.id));
            let drain_since = slot.and_then(|slot| slot.occupant.as_ref()).and_then(|occupant| occupant.drain_since);
            let facts = Facts {
                slot,
                drained_in: drained.map(|(_, version)| *version),
                live: is_fresh.then_some(&live),
                // A time in the future is a mistake, which must not hold an instance longer.
                since: drain_since.filter(|since| *since <= time).unwrap_or(farewell.known_since[&one.name]),
                may_hide: table.unreadable().next().is_some(),
            };
            match decide(&facts, time, departures.drain) {
                Ok(why) => leaving.push((one.clone(), slot.map(|slot| slot.id), facts.since, why)),
                Err(held) => {
                    holding.insert(one.name.clone(), held);
                }
            }
        }
        let shown = departures.reports.is_some().then(|| farewell.balancers.views(now.clock));
        farewell.let_go(context, &leaving, time, now.clock);
        self.show(context, shown, holding);
    }

    fn show<S, T>(
        &mut self,
        context: &TurnContext<S, T>,
        balancers: Option<Vec<BalancerView>>,
        waiting: BTreeMap<String, Holding>,
    ) {
        if let Some(published) = &self.published
            && (published.balancers != balancers || published.waiting != waiting)
        {
            let state = Snapshot { balancers, waiting, ..published.clone() };
            self.publish(&*context.gauges, state);
        }
    }
}

impl Farewell {
    /// Lets instances go, each for its reason.
    fn let_go<S, T>(
        &mut self,
        context: &mut TurnContext<S, T>,
        leaving: &[(Waiting, Option<SlotId>, Timestamp, MayGo)],
        time: Timestamp,
        now: Instant,
    ) {
        let Some(hooks) = &mut context.departures.hooks else { return };
        self.denied.retain(|group, _| leaving.iter().any(|(one, ..)| one.group == *group));
        let is_due = |group: &str| self.denied.get(group).is_none_or(|(until, _)| now >= *until);
        let asked: Vec<Waiting> =
            leaving.iter().map(|(one, ..)| one).filter(|one| is_due(&one.group)).cloned().collect();
        let mut other = None;
        for (one, outcome) in if asked.is_empty() { vec![] } else { hooks.complete(&asked) } {
            let Some((_, slot, since, why)) = leaving.iter().find(|(known, ..)| *known == one) else { continue };
            match outcome {
                Ok(completion) => {
                    self.denied.remove(&one.group);
                    let took = time.since(*since).unwrap_or_default();
                    tell(&one, *slot, took, *why, completion);
                    if completion == Completion::Done && slot.is_some() {
                        context.gauges.let_go(took);
                    }
                    self.answered.insert(one.name);
                }
                Err(error) if error.needs_operator => {
                    self.denied.insert(one.group, (now + DENIED, error));
                }
                Err(error) => {
                    other.get_or_insert(error);
                }
            }
        }
        let faults: Vec<&TurnError> = self.denied.values().map(|(_, error)| error).chain(&other).collect();
        let joined =
            |pick: fn(&TurnError) -> &str| faults.iter().map(|error| pick(error)).collect::<Vec<_>>().join("; ");
        let (key, text) = (joined(|error| &error.key), joined(|error| &error.text));
        self.completing.report((!faults.is_empty()).then_some((key.as_str(), text.as_str())));
    }
}

fn tell(one: &Waiting, slot: Option<SlotId>, took: Duration, why: MayGo, completion: Completion) {
    let Waiting { name, group } = one;
    let (instance, seconds) = (name.as_str(), took.as_secs());
    if completion == Completion::Over {
        info!(slot, instance, group = group.as_str(); "{name}: no action of SERVER_LIFECYCLE_HOOK holds it back: it ended by itself, or another hook does");
        return;
    }
    match why {
        MayGo::NoSlot => info!(instance, group = group.as_str(); "{name}: let go, it has no slot"),
        MayGo::Drained => info!(
            slot, instance, group = group.as_str();
            "{name}: let go after {seconds} s, no load balancer has a session on it"
        ),
        MayGo::Deadline => warn!(
            slot, instance, group = group.as_str();
            "{name}: let go after {seconds} s by SERVER_DRAIN_SECONDS, whatever still ran on it"
        ),
    }
}
