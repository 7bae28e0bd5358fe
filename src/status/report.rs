//! The report of `/status`: every field is always there, times are RFC 3339, durations are seconds. Fields are only ever added.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Facts, State};
use crate::balancer::BalancerReport;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::ports::{Admin, BackendSlot, BackendState, BalancerView, ClientState, Running, Snapshot};
use crate::slot::{Occupant, Row, SlotId, Weight};

/// Everything that this process knows of itself.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // conf/README.md documents each field.
pub struct Report {
    pub role: &'static str,
    pub version: &'static str,
    pub host: String,
    pub started: String,
    pub uptime_seconds: f64,
    pub ready: bool,
    pub ready_reason: String,
    pub table: TableFacts,
    pub interval_seconds: f64,
    pub last_turn: LastTurn,
    pub lease: LeaseFacts,
    pub summary: Summary,
    pub slots: Vec<SlotFacts>,
    pub left_out: Vec<LeftOutFacts>,
    pub orders: Vec<OrderFacts>,
    pub unreadable_orders: Vec<String>,
    pub balancers: Option<Vec<BalancerFacts>>,
    pub haproxy: Option<HaproxyFacts>,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct TableFacts {
    pub name: String,
    pub region: Option<String>,
    pub size: SlotId,
    pub age_seconds: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct LastTurn {
    pub ended: Option<String>,
    pub duration_seconds: Option<f64>,
    pub result: Option<&'static str>,
    pub errors: Vec<String>,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct LeaseFacts {
    pub leader: Option<String>,
    pub term: Option<u64>,
    pub leads: Option<bool>,
    pub blind: Option<bool>,
    pub heartbeat_age_seconds: Option<f64>,
}

/// The slots by what an operator looks for; each counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub serving: usize,
    pub ramping: usize,
    pub draining: usize,
    pub waiting: usize,
    pub held: usize,
    pub trouble: usize,
    pub free: usize,
    pub other: usize,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct SlotFacts {
    pub number: SlotId,
    pub instance: Option<String>,
    pub address: Option<String>,
    pub port: Option<u16>,
    pub group: Option<String>,
    pub zone: Option<String>,
    pub status: Option<&'static str>,
    pub weight: Option<Weight>,
    pub full_weight: Option<Weight>,
    pub factor: Option<f64>,
    pub factor_from: Option<String>,
    pub next_step: Option<String>,
    pub since: Option<String>,
    pub cause: Option<&'static str>,
    pub reason: Option<String>,
    #[serde(skip)]
    pub(super) is_trouble: bool,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct LeftOutFacts {
    pub instance: String,
    pub group: Option<String>,
    pub cause: &'static str,
    pub reason: String,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct OrderFacts {
    pub target: String,
    pub since: Option<String>,
    pub until: Option<String>,
    pub by: Option<String>,
    pub note: Option<String>,
    pub slots: Vec<SlotId>,
    #[serde(skip)]
    pub(super) text: String,
}

/// A load balancer by its report.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct BalancerFacts {
    pub name: String,
    pub state: &'static str,
    pub version: Option<u64>,
    pub haproxy: String,
    pub seen: String,
    pub sessions: BTreeMap<SlotId, u64>,
    pub held: Vec<String>,
    pub spill_share: f64,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct HaproxyFacts {
    pub up: Option<bool>,
    pub version: Option<String>,
    pub pid: Option<String>,
    pub socket: Option<String>,
    pub backends: Vec<BackendFacts>,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct BackendFacts {
    pub name: String,
    pub base_name: String,
    pub fallback: bool,
    pub fault: Option<String>,
    pub spill_share: Option<f64>,
    pub slots: Vec<BackendSlotFacts>,
}

#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct BackendSlotFacts {
    pub number: SlotId,
    pub server: String,
    pub wanted_state: &'static str,
    pub wanted_weight: Option<Weight>,
    pub address: Option<String>,
    pub weight: Option<Weight>,
    pub admin_state: Option<&'static str>,
    pub check_state: Option<&'static str>,
    pub serves: Option<bool>,
    pub cause: &'static str,
    pub reason: String,
    #[serde(skip)]
    pub(super) is_trouble: bool,
}

impl Report {
    pub(super) fn of(facts: &Facts, metrics: &Metrics, state: &State, now: Instant) -> Self {
        let liveness = metrics.liveness(now, facts.interval);
        let age = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        let mut summary = Summary::default();
        let slots = match (&state.server, &state.client) {
            (Some(snapshot), _) => server_slots(snapshot, &mut summary),
            (None, Some(client)) => client_slots(client, &mut summary),
            (None, None) => vec![],
        };
        let left_out = state.server.iter().flat_map(|snapshot| &snapshot.left_out).map(|one| LeftOutFacts {
            instance: one.instance.clone(),
            group: one.group.clone(),
            cause: one.cause.word(),
            reason: one.cause.to_string(),
        });
        let orders = state.server.iter().flat_map(|snapshot| &snapshot.orders);
        Report {
            role: facts.role,
            version: env!("CARGO_PKG_VERSION"),
            host: facts.host.clone(),
            started: facts.started.rfc3339(),
            uptime_seconds: age(facts.start),
            ready: liveness.ready,
            ready_reason: liveness.reason,
            table: TableFacts {
                name: facts.table.clone(),
                region: facts.region.clone(),
                size: facts.size,
                age_seconds: state.confirmed.map(age),
            },
            interval_seconds: facts.interval.as_secs_f64(),
            last_turn: last_turn(state),
            lease: LeaseFacts {
                leader: state.leader.clone(),
                term: state.leader.as_deref().and_then(|leader| leader.rsplit('/').next()?.parse().ok()),
                leads: metrics.leads(),
                blind: state.leader.as_ref().map(|_| state.blind),
                heartbeat_age_seconds: metrics.heartbeat_age().map(|age: Duration| age.as_secs_f64()),
            },
            summary,
            slots,
            left_out: left_out.collect(),
            orders: orders.map(|(order, slots)| OrderFacts::of(order, slots.clone())).collect(),
            unreadable_orders: state.server.iter().flat_map(|snapshot| snapshot.unreadable_orders.clone()).collect(),
            balancers: state.server.as_ref().and_then(|snapshot| snapshot.balancers.as_deref()).map(BalancerFacts::all),
            haproxy: (facts.role == "client").then(|| haproxy(facts, metrics, state.client.as_deref())),
        }
    }

    /// As JSON. Names are data, whatever they hold.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has only strings as keys")
    }
}

impl OrderFacts {
    /// Of an order that is about the servers of these slots.
    pub(crate) fn of(order: &Order, slots: Vec<SlotId>) -> Self {
        OrderFacts {
            target: order.target.to_string(),
            since: order.since.map(Timestamp::rfc3339),
            until: order.until.map(Timestamp::rfc3339),
            by: order.by.clone(),
            note: order.note.clone(),
            slots,
            text: order.to_string(),
        }
    }
}

impl BalancerFacts {
    fn all(views: &[BalancerView]) -> Vec<Self> {
        views.iter().map(|view| BalancerFacts::of(&view.name, view.state.word(), view.seen, &view.report)).collect()
    }

    /// What a load balancer says, and whether it keeps up. `seen` is in milliseconds since 1970 by its own clock.
    pub(crate) fn of(name: &str, state: &'static str, seen: u64, report: &BalancerReport) -> Self {
        BalancerFacts {
            name: name.to_owned(),
            state,
            version: report.version,
            haproxy: report.haproxy.clone(),
            seen: Timestamp::from_millis(seen).rfc3339(),
            sessions: report.busy().collect(),
            held: report.held.clone(),
            spill_share: report.spill_share(),
        }
    }
}

fn last_turn(state: &State) -> LastTurn {
    state.turn.as_ref().map_or_else(LastTurn::default, |turn| LastTurn {
        ended: Some(turn.ended.rfc3339()),
        duration_seconds: Some(turn.took.as_secs_f64()),
        result: Some(if turn.errors.is_empty() { "ok" } else { "failed" }),
        errors: turn.errors.clone(),
    })
}

impl Summary {
    fn count(&mut self, cause: &Cause) {
        *match cause {
            Cause::Serving => &mut self.serving,
            Cause::Ramping { .. } => &mut self.ramping,
            Cause::Draining(_) => &mut self.draining,
            Cause::Waiting(_) => &mut self.waiting,
            Cause::Held(_) | Cause::Disabled => &mut self.held,
            Cause::Free { .. } => &mut self.free,
            cause if cause.is_trouble() => &mut self.trouble,
            _ => &mut self.other,
        } += 1;
    }
}

fn server_slots(snapshot: &Snapshot, summary: &mut Summary) -> Vec<SlotFacts> {
    let numbers: BTreeSet<SlotId> = snapshot.slots.keys().chain(snapshot.reasons.keys()).copied().collect();
    let facts = |number: SlotId| {
        let occupant = snapshot.slots.get(&number).and_then(|slot| slot.occupant.as_ref());
        let reason = snapshot.reasons.get(&number);
        if let Some(reason) = reason {
            summary.count(&reason.cause);
        }
        let mut facts = slot_facts(number, occupant, reason.map(|reason| &reason.cause));
        if let (Some(_), Some(reason)) = (occupant, reason) {
            let (factor, from) = reason.factor.clone().unzip();
            facts.full_weight = reason.full;
            facts.factor = reason.full.map(|_| factor.unwrap_or_default().as_f64());
            facts.factor_from = from;
        }
        if let Some(holding) = occupant.and_then(|occupant| snapshot.waiting.get(&occupant.name)) {
            let text = format!("held by its lifecycle hook{holding}");
            facts.reason = Some(facts.reason.map_or_else(|| text.clone(), |reason| format!("{reason}; {text}")));
        }
        facts
    };
    numbers.into_iter().map(facts).collect()
}

/// Of a slot that several backends have, the cause that an operator looks for comes first.
fn client_slots(client: &ClientState, summary: &mut Summary) -> Vec<SlotFacts> {
    let rank = |cause: &Cause| match cause {
        cause if cause.is_trouble() => 0,
        Cause::Elsewhere { .. } | Cause::Unused | Cause::Free { .. } => 2,
        _ => 1,
    };
    let mut causes: BTreeMap<SlotId, &Cause> = BTreeMap::new();
    for slot in client.backends.iter().flat_map(|backend| &backend.slots) {
        let cause = causes.entry(slot.slot).or_insert(&slot.cause);
        if rank(&slot.cause) < rank(cause) {
            *cause = &slot.cause;
        }
    }
    let numbers: BTreeSet<SlotId> = client.table.rows.keys().chain(causes.keys()).copied().collect();
    let facts = |number: SlotId| {
        let occupant = match client.table.rows.get(&number) {
            Some(Row::Readable(slot)) => slot.occupant.as_ref(),
            _ => None,
        };
        let cause = causes.get(&number).copied();
        cause.into_iter().for_each(|cause| summary.count(cause));
        slot_facts(number, occupant, cause)
    };
    numbers.into_iter().map(facts).collect()
}

fn slot_facts(number: SlotId, occupant: Option<&Occupant>, cause: Option<&Cause>) -> SlotFacts {
    SlotFacts {
        number,
        instance: occupant.map(|occupant| occupant.name.clone()),
        address: occupant.map(|occupant| occupant.address.to_string()),
        port: occupant.and_then(|occupant| occupant.port),
        group: occupant.and_then(|occupant| occupant.group.clone()),
        zone: occupant.and_then(|occupant| occupant.zone.clone()),
        status: occupant.map(|occupant| occupant.status.word()),
        weight: occupant.map(|occupant| occupant.weight),
        full_weight: None,
        factor: None,
        factor_from: None,
        next_step: match cause {
            Some(Cause::Ramping { next, .. }) => Some(next.rfc3339()),
            _ => None,
        },
        since: occupant.and_then(|occupant| occupant.last_step).map(Timestamp::rfc3339),
        cause: cause.map(Cause::word),
        reason: cause.map(Cause::to_string),
        is_trouble: cause.is_some_and(Cause::is_trouble),
    }
}

fn haproxy(facts: &Facts, metrics: &Metrics, client: Option<&ClientState>) -> HaproxyFacts {
    let process = client.and_then(|client| client.process.as_ref());
    HaproxyFacts {
        up: metrics.haproxy_up(),
        version: process.map(|process| process.version.clone()),
        pid: process.map(|process| process.pid.clone()),
        socket: facts.socket.clone(),
        backends: client.iter().flat_map(|client| &client.backends).map(backend).collect(),
    }
}

fn backend(state: &BackendState) -> BackendFacts {
    BackendFacts {
        name: state.name.clone(),
        base_name: state.base.clone(),
        fallback: state.fallback,
        fault: state.fault.clone(),
        spill_share: state.spill_share,
        slots: state.slots.iter().map(|slot| backend_slot(slot, &state.base)).collect(),
    }
}

fn backend_slot(slot: &BackendSlot, base: &str) -> BackendSlotFacts {
    let running = slot.running.as_ref();
    let unknown = matches!(slot.cause, Cause::UnknownRow | Cause::Unreadable { .. });
    BackendSlotFacts {
        number: slot.slot,
        server: format!("{base}{}", slot.slot),
        wanted_state: match slot.wanted {
            Some(_) => "ready",
            None if unknown => "unknown",
            None => "maint",
        },
        wanted_weight: slot.wanted,
        address: running.and_then(|server| server.address).map(|address| address.to_string()),
        weight: running.map(|server| server.weight),
        admin_state: running.map(|server| match server.admin {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maintenance => "maint",
        }),
        check_state: running.map(|server| match server {
            Running { checked: false, .. } => "none",
            Running { admin: Admin::Maintenance, .. } => "paused",
            Running { up: true, .. } => "up",
            Running { .. } => "down",
        }),
        serves: running.map(Running::serves),
        cause: slot.cause.word(),
        reason: slot.cause.to_string(),
        is_trouble: slot.cause.is_trouble(),
    }
}
