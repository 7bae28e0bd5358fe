//! One slot as one look at HAProxy shows it, for people: without the memory of a running client. Pure.
//!
//! What only memory tells is said as a client that has just started says it: a server in maintenance with a weight is held, and one
//! that is down waits for its check.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::backend::{ours, slots};
use super::memory::SlotMemory;
use super::placement::{self, BackendKind, Desired, History, Rules, Wanted};
use super::reason;
use super::reconcile::reconcile;
use super::spill::{Candidates, Spill};
use super::stage::Options;
use super::view::View;
use crate::cause::Cause;
use crate::ports::{Admin, BackendFault, Running, Servers};
use crate::settings::{Backend, ClientSettings};
use crate::slot::{SlotId, Table};

/// A slot in one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The backend.
    pub backend: Backend,
    /// Default or fallback.
    pub kind: BackendKind,
    /// The slot there, or why the backend cannot be kept in step.
    pub slot: Result<SlotLook, BackendFault>,
}

/// What runs in the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLook {
    /// Its server; none if HAProxy has none of that number, or it is not hsdo's.
    pub server: Option<Running>,
    /// Why it has its weight there.
    pub cause: Cause,
}

/// Looks at slot `id` in each backend of the settings, in their order.
pub fn look(
    settings: &ClientSettings,
    table: &Table,
    read: &BTreeMap<String, Result<Servers, BackendFault>>,
    id: SlotId,
    now: Instant,
) -> Vec<Look> {
    let rules = Rules::of(settings);
    let default = settings.backends.iter().map(|backend| (backend, BackendKind::Default));
    let fallback = settings.fallback.iter().map(|backend| (backend, BackendKind::Fallback));
    let size = settings.common.list_size;
    let max_row = table.rows.keys().next_back().map_or(SlotId::MAX, |last| size.max(*last));
    let one = |(backend, kind): (&Backend, BackendKind)| {
        // Another process may know that the own groups and zones exist; the table is all that is known here.
        let history = History { max_row, ..History::default() };
        let mut desired = placement::place(table, kind, &rules, history);
        let others = Candidates::of(table, &rules, history).filter(|_| kind == BackendKind::Default);
        let slot = match read.get(&backend.name) {
            None => Err(BackendFault::Missing(Vec::new())),
            Some(servers) => servers.as_ref().map_err(Clone::clone).and_then(|servers| slots(servers, backend)),
        };
        let slot = slot.map(|servers| {
            let running = ours(servers, size, &desired);
            // How much of the others comes in is what HAProxy runs: a running client may know better.
            if let Some(others) = &others {
                others.place(&mut desired, &Spill::found(others.level_of(&running)), &BTreeSet::new());
            }
            let options = Options { port: backend.port, gate: settings.health_gate, static_weights: false };
            let options = Options { static_weights: has_static_weights(&desired, &running, options), ..options };
            slot_look(
                id,
                table,
                &View {
                    desired: &desired,
                    running: &running,
                    memory: &memory(&desired, &running, options, now),
                    size,
                    options,
                },
            )
        });
        Look { backend: backend.clone(), kind, slot }
    };
    default.chain(fallback).map(one).collect()
}

fn memory(desired: &Desired, running: &BTreeMap<SlotId, Running>, options: Options, now: Instant) -> SlotMemory {
    let mut memory = SlotMemory::default();
    memory.observe(desired, running, options, now);
    memory
}

fn slot_look(id: SlotId, table: &Table, view: &View<'_>) -> SlotLook {
    let plan = reconcile(*view);
    SlotLook { server: view.running.get(&id).cloned(), cause: reason::cause(id, table, *view, &plan) }
}

/// Whether the backend looks like one whose algorithm is static, which a client learns from a refusal: every server that should
/// serve has its configured weight, and one of them should have another.
fn has_static_weights(desired: &Desired, running: &BTreeMap<SlotId, Running>, options: Options) -> bool {
    let serving = |(id, server): (&SlotId, &Running)| match desired.of(*id) {
        Some(Wanted::Serve { address, weight }) if weight > 0 && server.weight > 0 => {
            let there = server.admin == Admin::Ready && options.has_address(server.address, address);
            there.then_some((server.weight == server.configured, server.weight == weight))
        }
        _ => None,
    };
    let serving: Vec<(bool, bool)> = running.iter().filter_map(serving).collect();
    serving.iter().all(|(configured, _)| *configured) && serving.iter().any(|(_, right)| !right)
}
