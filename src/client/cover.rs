//! Decides whether a server's traffic may be taken away now, for servers that move to another slot, are replaced, or leave. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::placement::Wanted;
use super::stage::Stage;
use super::view::View;
use crate::slot::SlotId;

/// Which servers of one backend can cover for others.
#[derive(Debug)]
pub(super) struct Cover {
    /// Slots that take traffic and will go on at the same address.
    usable: BTreeSet<SlotId>,
    /// Slots whose traffic no other server can take yet.
    needed: BTreeSet<SlotId>,
    /// A leaving server still serves while others are to take over.
    leaving_serves: bool,
}

impl Cover {
    pub(super) fn of(view: &View<'_>) -> Self {
        let moving = moving(view);
        let mut usable = BTreeSet::new();
        let (mut serving, mut successor) = (false, false);
        let (mut leaving, mut stale) = (Vec::new(), Vec::new());
        for (id, server, stage) in view.slots() {
            let serves = server.serves();
            successor |= match view.desired.of(id) {
                Some(Wanted::Serve { weight, .. }) => weight > 0 && !matches!(stage, Stage::Held | Stage::Blocked),
                _ => false,
            };
            match stage {
                _ if moving.contains(&id) => {
                    usable.insert(id);
                    serving = true;
                }
                // At weight 0, a server that has been seen serving gets its weight back in this same plan.
                Stage::Serving if serves || view.memory.is_proven(id) => {
                    usable.insert(id);
                    serving |= serves;
                }
                Stage::Unknown if serves => {
                    usable.insert(id);
                    serving = true;
                }
                Stage::Leaving if serves => leaving.push(id),
                // It moves to other backends or load balancers, but is well: it may help until those that belong here serve.
                Stage::Retiring if serves && view.desired.elsewhere.contains_key(&id) => leaving.push(id),
                Stage::Stale if serves => stale.push(id),
                _ => {}
            }
        }
        let leaving_serves = !leaving.is_empty();
        let mut needed = moving;
        if usable.is_empty() && successor {
            needed.extend(&leaving);
        }
        // Filling every stale server at once would leave the backend empty for a moment, so one half waits for the next plan. A
        // successor does not count, because its line may fail; a leaving server does: it serves until nothing is left to raise.
        if !(serving || leaving_serves && successor) {
            needed.extend(stale.split_off(stale.len().div_ceil(2)));
        }
        Cover { usable, needed, leaving_serves: leaving_serves && successor }
    }

    /// Whether no other server can take this slot's traffic yet.
    pub(super) fn is_needed(&self, slot: SlotId) -> bool {
        self.needed.contains(&slot)
    }

    /// Whether another server serves while this slot waits for its check.
    pub(super) fn can_wait(&self, slot: SlotId) -> bool {
        self.leaving_serves && self.usable.is_empty() || self.usable.iter().any(|other| *other != slot)
    }
}

/// The slots whose server moves to another slot, and serves on until it serves there. This happens if a row is lost or edited by hand;
/// otherwise HAProxy would be without the server until the check in the new slot passes. Servers that swap slots do not wait, because
/// none of them could begin.
fn moving(view: &View<'_>) -> BTreeSet<SlotId> {
    let wanted = |id: SlotId| match view.desired.of(id) {
        Some(Wanted::Serve { address, weight }) if weight > 0 => Some(address),
        _ => None,
    };
    let places: BTreeMap<_, SlotId> = view
        .slots()
        .filter(|(_, server, stage)| !matches!(stage, Stage::Held | Stage::Blocked) && !server.inherited)
        .filter_map(|(id, _, _)| Some((wanted(id)?.ip, id)))
        .collect();
    let is_wanted_at = |address: SocketAddr, id: SlotId| {
        wanted(id).is_some_and(|wanted| view.options.has_address(Some(address), wanted))
    };
    // The slot that this slot's server moves to, if it serves here and not yet there.
    let next = |id: SlotId| {
        let server = view.running.get(&id).filter(|server| server.serves() && !view.memory.is_held(id))?;
        let address = server.address.filter(|address| !is_wanted_at(*address, id))?;
        let place = *places.get(&address.ip()).filter(|place| is_wanted_at(address, **place))?;
        let there = &view.running[&place];
        (there.address.is_none_or(|there| !is_wanted_at(there, place)) || !there.serves()).then_some(place)
    };
    let waits = |id: SlotId| {
        let (mut seen, mut at) = (BTreeSet::from([id]), next(id)?);
        while let Some(further) = next(at) {
            if !seen.insert(at) {
                return None;
            }
            at = further;
        }
        Some(id)
    };
    view.running.keys().filter_map(|id| waits(*id)).collect()
}
