//! From what every source said to facts and a conclusion. Pure.

use std::net::IpAddr;

use super::drain::drain_facts;
use super::fact::Fact;
use super::gather::{Balancer, Gathered, find_row, occupant};
use super::source::{Said, holder, said};
use crate::cause::{Cause, Leaving, LeftOut, Wait};
use crate::client::look::{Look, SlotLook, look};
use crate::client::placement::BackendKind;
use crate::commands::status::{since, state};
use crate::haproxy::Traffic;
use crate::order::{Order, Target};
use crate::ports::{Admin, Running};
use crate::server::{Plan, SlotLimits, causes, decide, factor, left_out};
use crate::settings::{Backend, PresentSettings, ServerSettings};
use crate::slot::{Instance, Occupant, Row, Slot, SlotId, Status};

/// What `hsdo why` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) slot: Option<SlotId>,
    pub(super) instance: Option<String>,
    pub(super) address: Option<IpAddr>,
    pub(super) group: Option<String>,
    pub(super) facts: Vec<Fact>,
    /// None if nobody knows the target.
    pub(super) cause: Option<Cause>,
    pub(super) conclusion: String,
}

/// Explains a target.
pub(super) fn explain(target: &Target, settings: &PresentSettings, found: &Gathered) -> Answer {
    let mut row = find_row(&found.table, target);
    let mut name = row.and_then(|(_, row)| occupant(row)).map(|occupant| occupant.name.clone());
    if row.is_none() {
        name = match target {
            Target::Slot(_) | Target::Zone(_) | Target::Group(_) => None,
            Target::Instance(name) => Some(name.clone()),
            Target::Address(address) => holder(&found.source, *address),
        };
        // Its row may have another address.
        row = name.as_ref().and_then(|name| find_row(&found.table, &Target::Instance(name.clone())));
    }
    let slot = match target {
        Target::Slot(id) => Some(*id),
        _ => row.map(|(id, _)| id),
    };
    let occupant = row.and_then(|(_, row)| occupant(row));
    let told =
        name.as_ref().map(|name| said(&found.source, name, occupant.and_then(|occupant| occupant.group.as_deref())));
    let server = Verdict::of(settings.server.as_ref(), found);

    let mut facts = vec![row_fact(target, row, name.as_deref(), server.as_ref(), found)];
    facts.extend(lease_fact(found));
    let mut orders = orders_on(slot, occupant, name.as_deref(), found);
    let lapsed =
        |order: &Order| if order.has_lapsed(found.time) { " (over; the server that leads lifts it)" } else { "" };
    facts.extend(orders.iter().map(|order| Fact::new("orders", format!("{order}{}", lapsed(order)))));
    orders.retain(|order| !order.has_lapsed(found.time));
    let unreadable = found.orders.unreadable.iter();
    facts.extend(unreadable.map(|entry| Fact::unknown("orders", format!("cannot be read: {}", entry.reason))));
    facts.extend(told.iter().flat_map(|told| told.facts.iter().cloned()));
    if let (Some(id), Some(occupant)) = (slot, occupant.filter(|occupant| occupant.status != Status::Enabled)) {
        facts.extend(drain_facts(id, occupant, settings.server.as_ref(), found));
    }
    let here = slot.map(|id| looks(id, settings, found)).unwrap_or_default();
    facts.extend(here.iter().map(|here| here.fact.clone()));

    let told = told.unwrap_or_default();
    let mut answer = Answer {
        slot: row.map(|(id, _)| id),
        address: occupant.map(|occupant| occupant.address).or(told.address),
        group: occupant.and_then(|occupant| occupant.group.clone()).or_else(|| told.group.clone()),
        instance: name.clone(),
        facts,
        cause: None,
        conclusion: String::new(),
    };
    let conclusion = match (slot, row) {
        (Some(id), Some((_, row))) => {
            let (cause, next) = slot_cause(id, row, server.as_ref(), &told, orders.first());
            answer.facts.extend(next.map(|text| Fact::new("next turn", text)));
            Some(conclude(cause, &here))
        }
        (Some(id), None) => missing_row(id, settings, &here).map(|cause| (cause, None)),
        (None, _) => {
            name.as_ref().and_then(|name| unseated(name, server.as_ref(), found, &told)).map(|cause| (cause, None))
        }
    };
    answer.conclusion = match &conclusion {
        Some((cause, None)) => cause.to_string(),
        Some((cause, Some(server))) => format!("in {server}: {cause}"),
        None => nobody(target, &answer.facts),
    };
    answer.cause = conclusion.map(|(cause, _)| cause);
    answer
}

/// What the server would decide now.
struct Verdict {
    limits: SlotLimits,
    plan: Plan,
    causes: std::collections::BTreeMap<SlotId, Cause>,
}

impl Verdict {
    /// None without its settings, or if its source did not tell all.
    fn of(settings: Option<&ServerSettings>, found: &Gathered) -> Option<Self> {
        let limits = SlotLimits::of(settings?);
        let seen = found.source.observation()?;
        let (in_force, _) = found.orders.split(seen, found.time);
        let plan = decide(&found.table, &in_force, seen, found.now, &limits);
        let causes = causes(&found.table, seen, &plan, found.now, &limits);
        Some(Verdict { limits, plan, causes })
    }
}

fn row_fact(
    target: &Target,
    row: Option<(SlotId, &Row)>,
    name: Option<&str>,
    server: Option<&Verdict>,
    found: &Gathered,
) -> Fact {
    let text = match (row, target) {
        (None, Target::Slot(id)) => format!("{} has no row of slot {id}", found.place),
        (None, Target::Address(_)) => match name {
            Some(name) => format!("no row of {} holds it, nor {name}, which has it", found.place),
            None => format!("no row of {} holds it", found.place),
        },
        (None, _) => format!("no row of {} holds it", found.place),
        (Some((id, Row::Unreadable { reason, .. })), _) => format!("slot {id}: cannot be read: {reason}"),
        (Some((id, row @ Row::Readable(slot))), _) => match &slot.occupant {
            None => match &slot.last_group {
                Some(group) => format!("slot {id}: free, last used by group {group}"),
                None => format!("slot {id}: free"),
            },
            Some(occupant) => {
                let full = server.filter(|server| !(server.limits.by_factor && server.plan.is_kept(id)));
                let full = full.map(|server| server.plan.full_weight(id, &server.limits));
                let full = full.map(|full| format!(" of {full}")).unwrap_or_default();
                let factor = server.and_then(|server| factor(id, &server.plan, &server.limits));
                let factor = factor.map(|(factor, from)| format!(" (factor {factor}: {from})")).unwrap_or_default();
                let port = occupant.port.map(|port| format!(" port {port}")).unwrap_or_default();
                let group = occupant.group.as_deref().unwrap_or("none");
                let zone = occupant.zone.as_ref().map(|zone| format!(", zone {zone}")).unwrap_or_default();
                let step = occupant.last_step.map(|step| format!(", last step {}", since(step, found.now)));
                format!(
                    "slot {id}: {} at {}{port}, group {group}{zone}, {}, weight {}{full}{factor}{}",
                    occupant.name,
                    occupant.address,
                    state(row),
                    occupant.weight,
                    step.unwrap_or_default()
                )
            }
        },
    };
    Fact::new("table", text)
}

/// The orders on a slot, its occupant, or an instance without a slot.
fn orders_on(slot: Option<SlotId>, occupant: Option<&Occupant>, name: Option<&str>, found: &Gathered) -> Vec<Order> {
    let instance = found.source.observation().and_then(|seen| {
        let is_named = |instance: &&Instance| name.is_some_and(|name| instance.has_name(name));
        seen.instances.iter().find(is_named)
    });
    let is_on = |order: &Order| match (slot, occupant) {
        (Some(id), Some(occupant)) => order.target.names(id, occupant),
        (Some(id), None) => order.target == Target::Slot(id),
        (None, _) => {
            instance.is_some_and(|instance| order.target.names_instance(instance))
                || name.is_some_and(|name| order.target == Target::Instance(name.to_owned()))
        }
    };
    found.orders.all.iter().filter(|order| is_on(order)).cloned().collect()
}

/// Who keeps the row up to date.
fn lease_fact(found: &Gathered) -> Option<Fact> {
    let leader = found.lease.marker.leader.as_ref().map(|_| found.lease.text());
    leader.or_else(|| found.lease.marker.heartbeat.map(|_| found.lease.text())).map(|text| Fact::new("lease", text))
}

/// The cause of a slot with a row, and what the server's next turn makes of it, if that differs.
fn slot_cause(
    id: SlotId,
    row: &Row,
    server: Option<&Verdict>,
    told: &Said,
    order: Option<&Order>,
) -> (Cause, Option<String>) {
    let by_row = || row_cause(row, told, order);
    let Row::Readable(slot) = row else { return (by_row(), None) };
    let Some(server) = server else { return (by_row(), None) };
    let planned = server.plan.slots.get(&id);
    let is_same = planned.is_some_and(|planned| match (&planned.occupant, &slot.occupant) {
        (Some(planned), Some(now)) => {
            (&planned.name, planned.address, planned.status) == (&now.name, now.address, now.status)
        }
        (planned, now) => planned.is_none() && now.is_none(),
    });
    match (is_same, server.causes.get(&id)) {
        (true, Some(cause)) => (cause.clone(), None),
        _ => (by_row(), planned.map(|planned| next_turn(planned, slot))),
    }
}

fn next_turn(planned: &Slot, now: &Slot) -> String {
    let is_there = planned.occupant.as_ref().map(|one| &one.name) == now.occupant.as_ref().map(|one| &one.name);
    match &planned.occupant {
        None => "the server frees the slot".to_owned(),
        Some(Occupant { name, address, status, weight, .. }) => {
            let verb = match (status, is_there) {
                (Status::Draining, _) => "drains",
                (_, true) => "enables",
                (_, false) => "seats",
            };
            format!("the server {verb} {name} at {address} here, weight {weight}")
        }
    }
}

/// The cause by the row alone, and by what its source or an order says of a server that leaves.
fn row_cause(row: &Row, told: &Said, order: Option<&Order>) -> Cause {
    let slot = match row {
        Row::Unreadable { reason, .. } => return Cause::Unreadable { reason: reason.clone() },
        Row::Readable(slot) => slot,
    };
    let Some(occupant) = &slot.occupant else {
        return match order {
            Some(order) => Cause::KeptEmpty { order: order.to_string() },
            None => Cause::Free { last_group: slot.last_group.clone() },
        };
    };
    let leaving = || {
        let ordered = || order.map(|order| Leaving::Order(order.to_string()));
        told.word.clone().map(Leaving::Source).or_else(ordered).unwrap_or(Leaving::Row)
    };
    match occupant.status {
        Status::Enabled => Cause::Serving,
        Status::Disabled => Cause::Disabled,
        Status::Draining if occupant.weight > 0 => Cause::LastResort(leaving()),
        Status::Draining => Cause::Draining(leaving()),
    }
}

/// A slot without a row is known if it is one of 1 to N, or if HAProxy has its server.
fn missing_row(id: SlotId, settings: &PresentSettings, here: &[Here]) -> Option<Cause> {
    let cause = || here.iter().filter(|here| here.fact.server.is_some()).find_map(|here| here.fact.cause.clone());
    if id <= settings.common.list_size { Some(Cause::UnknownRow) } else { cause() }
}

/// The cause of an instance without a slot; none if nobody knows it.
fn unseated(name: &str, server: Option<&Verdict>, found: &Gathered, told: &Said) -> Option<Cause> {
    if let (Some(server), Some(seen)) = (server, found.source.observation()) {
        let has = |one: &&LeftOut| one.instance == name;
        if let Some(one) = left_out(seen, &server.plan).iter().find(has) {
            return Some(one.cause.clone());
        }
        let seated = |slot: &&Slot| slot.occupant.as_ref().is_some_and(|occupant| occupant.name == name);
        if let Some(slot) = server.plan.slots.values().find(seated) {
            return Some(Cause::Newcomer { slot: slot.id });
        }
    }
    let word = told.word.clone().unwrap_or_else(|| "no row holds it".to_owned());
    told.is_known.then_some(Cause::NotReady { word })
}

fn nobody(target: &Target, facts: &[Fact]) -> String {
    let silent: Vec<&str> = facts.iter().filter(|fact| !fact.known).map(|fact| fact.source.as_str()).collect();
    match silent.as_slice() {
        [] => format!("nobody knows {target}"),
        sources => format!("nobody that could tell knows {target}; {} could not", sources.join(", ")),
    }
}

/// What a backend runs in the slot. The fact has no cause where the backend cannot tell.
struct Here {
    fact: Fact,
    kind: BackendKind,
}

fn looks(id: SlotId, settings: &PresentSettings, found: &Gathered) -> Vec<Here> {
    let (Some(client), Some(balancer)) = (&settings.client, &found.balancer) else { return Vec::new() };
    let balancer = match balancer {
        Ok(balancer) => balancer,
        Err(error) => {
            return vec![Here { fact: Fact::unknown("HAProxy", error.to_string()), kind: BackendKind::Default }];
        }
    };
    let looks = look(client, &found.table, &balancer.backends, id, found.clock).into_iter();
    looks.map(|look| Here { kind: look.kind, fact: backend_fact(id, look, balancer) }).collect()
}

fn backend_fact(id: SlotId, look: Look, balancer: &Balancer) -> Fact {
    let Look { backend: Backend { name, base, .. }, slot, .. } = look;
    let SlotLook { server, mut cause } = match slot {
        Ok(slot) => slot,
        Err(fault) => return Fact::unknown(format!("HAProxy {name}"), fault.to_string()),
    };
    let server_name = format!("{base}{id}");
    let traffic = match &balancer.traffic {
        Ok(backends) => Ok(backends.get(&name).and_then(|servers| servers.get(&server_name))),
        Err(error) => Err(error),
    };
    // Without memory every server that is down waits. The last check tells more.
    if let (Cause::Waiting(Wait::Check), Ok(Some(traffic))) = (&cause, &traffic)
        && traffic.check_failed()
    {
        cause = Cause::Down;
    }
    let runs = match &server {
        None => "no such server".to_owned(),
        Some(running) => runs(running, traffic.as_ref().ok().copied().flatten()),
    };
    let mut text = format!("{runs}; {}: {cause}", cause.word());
    if let Err(error) = traffic {
        text = format!("{text} (its check and sessions are not known: {error})");
    }
    let source = format!("HAProxy {name}/{server_name}");
    Fact { server: server.map(|_| (name, server_name)), cause: Some(cause), ..Fact::new(source, text) }
}

fn runs(running: &Running, traffic: Option<&Traffic>) -> String {
    let address = running.address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    let admin = match running.admin {
        Admin::Ready => "ready",
        Admin::Drain => "drain",
        Admin::Maintenance => "maintenance",
    };
    let mut text = format!("{address}, weight {}, {admin}", running.weight);
    if let Some(Traffic { status, check, sessions, queued, .. }) = traffic {
        text.push_str(&format!(", {status}"));
        if !check.is_empty() {
            text.push_str(&format!(", check {}", check.trim_start_matches("* ")));
        }
        text.push_str(&format!(", {sessions} sessions, {queued} queued"));
    } else if !running.up && running.admin == Admin::Ready {
        text.push_str(", down");
    }
    text
}

/// Joins the cause by table and source with those of the backends: the former where the row takes the traffic away; else that of the
/// first backend that keeps traffic away. The second part is the server that it is about.
fn conclude(cause: Cause, here: &[Here]) -> (Cause, Option<String>) {
    let gives_traffic = matches!(cause, Cause::Serving | Cause::Ramping { .. } | Cause::LastResort(_) | Cause::Kept(_));
    if !gives_traffic {
        return (cause, None);
    }
    let causes = |kind: Option<BackendKind>| {
        let of_kind = here.iter().filter(move |here| kind.is_none_or(|kind| here.kind == kind));
        of_kind.filter_map(|here| Some((&here.fact, here.fact.cause.as_ref()?)))
    };
    let is_elsewhere = |cause: &Cause| matches!(cause, Cause::Elsewhere { .. });
    // The fallback backend has it then, which gets traffic by HAProxy's own rules only.
    let mut default = causes(Some(BackendKind::Default)).peekable();
    if let Some((_, first)) = default.peek().copied()
        && default.all(|(_, cause)| is_elsewhere(cause))
    {
        return (first.clone(), None);
    }
    let serves = |cause: &Cause| matches!(cause, Cause::Serving | Cause::LastResort(_) | Cause::Draining(_));
    match causes(None).find(|(_, cause)| !serves(cause) && !is_elsewhere(cause)) {
        Some((fact, wrong)) => {
            let place = fact.source.trim_start_matches("HAProxy ").to_owned();
            (wrong.clone(), Some(place))
        }
        None => (cause, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Hand;
    use crate::clock::Timestamp;

    #[test]
    fn the_conclusion_is_what_keeps_traffic_away() {
        let ramping = || {
            let then = Timestamp::from_micros(0);
            Cause::Ramping { next: then, until: then }
        };
        let elsewhere = || Cause::Elsewhere { group: Some("web-b".to_owned()), zone: None };
        let held = || Cause::Held(Hand::Drain);
        let place = |place: &str| Some(place.to_owned());
        let (default, fallback) = (BackendKind::Default, BackendKind::Fallback);
        /// Name, cause by table and source, those of the backends a, b, …, and the conclusion.
        type Case = (&'static str, Cause, Vec<(BackendKind, Option<Cause>)>, (Cause, Option<String>));
        let cases: Vec<Case> = vec![
            ("no balancer here", ramping(), vec![], (ramping(), None)),
            ("it serves", ramping(), vec![(default, Some(Cause::Serving))], (ramping(), None)),
            ("HAProxy does not tell", Cause::Serving, vec![(default, None)], (Cause::Serving, None)),
            ("down", ramping(), vec![(default, Some(Cause::Down))], (Cause::Down, place("a/web1"))),
            (
                "in the second backend",
                Cause::Serving,
                vec![(default, Some(Cause::Serving)), (default, Some(held()))],
                (held(), place("b/web1")),
            ),
            (
                "the row decides",
                Cause::Draining(Leaving::Row),
                vec![(default, Some(Cause::Down))],
                (Cause::Draining(Leaving::Row), None),
            ),
            (
                "of another group",
                Cause::Serving,
                vec![(default, Some(elsewhere())), (fallback, Some(Cause::Serving))],
                (elsewhere(), None),
            ),
            (
                "of this group",
                Cause::Serving,
                vec![(default, Some(Cause::Serving)), (fallback, Some(elsewhere()))],
                (Cause::Serving, None),
            ),
        ];
        for (name, cause, backends, expected) in cases {
            let here = |(letter, (kind, cause)): (char, (BackendKind, Option<Cause>))| Here {
                fact: Fact { cause, ..Fact::new(format!("HAProxy {letter}/web1"), "") },
                kind,
            };
            let here: Vec<Here> = ('a'..).zip(backends).map(here).collect();
            assert_eq!(conclude(cause, &here), expected, "{name}");
        }
    }
}
