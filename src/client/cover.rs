//! Who covers for whom: may this server's traffic be taken now? Pure; one answer for servers that move to another slot, that
//! are replaced, and that leave.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::placement::Wanted;
use super::stage::Stage;
use super::view::View;
use crate::slot::SlotId;

/// Who serves in one backend, and who could.
#[derive(Debug)]
pub(super) struct Cover {
    /// Slots that take traffic, keep their address, and go on taking traffic.
    usable: BTreeSet<SlotId>,
    /// Slots whose traffic nobody else can take yet.
    needed: BTreeSet<SlotId>,
    /// Somebody serves who leaves: a leaving server is better than none.
    leaving_serves: bool,
}

impl Cover {
    pub(super) fn of(view: &View<'_>) -> Self {
        let moving = moving(view);
        let mut usable = BTreeSet::new();
        let (mut serving, mut hope) = (false, false);
        let (mut leaving, mut stale) = (Vec::new(), Vec::new());
        for (id, server, stage) in view.slots() {
            let serves = server.serves();
            hope |= match view.desired.of(id) {
                Some(Wanted::Serve { weight, .. }) => weight > 0 && !matches!(stage, Stage::Held | Stage::Blocked),
                _ => false,
            };
            match stage {
                _ if moving.contains(&id) => {
                    usable.insert(id);
                    serving = true;
                }
                // A server that was seen to serve there gets its weight back in this very plan.
                Stage::Serving if serves || view.memory.is_proven(id) => {
                    usable.insert(id);
                    serving |= serves;
                }
                Stage::Unknown if serves => {
                    usable.insert(id);
                    serving = true;
                }
                Stage::Leaving if serves => leaving.push(id),
                Stage::Stale if serves => stale.push(id),
                _ => {}
            }
        }
        let leaving_serves = !leaving.is_empty();
        let mut needed = moving;
        if usable.is_empty() && hope {
            needed.extend(&leaving);
        }
        // Who serves soon does not serve yet, and its line may fail; who leaves serves until nothing is left to raise. If all of
        // the stale ones were filled at once, the backend would be empty for a moment: one half waits for the next plan.
        if !(serving || leaving_serves && hope) {
            needed.extend(stale.split_off(stale.len().div_ceil(2)));
        }
        Cover { usable, needed, leaving_serves: leaving_serves && hope }
    }

    /// Whether nobody else can take this server's traffic yet.
    pub(super) fn needs(&self, slot: SlotId) -> bool {
        self.needed.contains(&slot)
    }

    /// Whether somebody serves while a server in this slot waits for its check.
    pub(super) fn has_time(&self, slot: SlotId) -> bool {
        self.leaving_serves && self.usable.is_empty() || self.usable.iter().any(|other| *other != slot)
    }
}

/// The slots whose server is to stand in another slot, and goes on serving where it is until it serves there: a row that was
/// lost, or edited by hand, seats its instance elsewhere, and HAProxy would have it nowhere for as long as the check in the new
/// slot takes. Servers that change places with each other do not wait: none of them could begin.
fn moving(view: &View<'_>) -> BTreeSet<SlotId> {
    let wanted = |id: SlotId| match view.desired.of(id) {
        Some(Wanted::Serve { address, weight }) if weight > 0 => Some(address),
        _ => None,
    };
    let places: BTreeMap<_, SlotId> = view
        .slots()
        .filter(|(_, server, stage)| *stage != Stage::Held && !server.inherited)
        .filter_map(|(id, _, _)| Some((wanted(id)?, id)))
        .collect();
    let is_there =
        |address: SocketAddr, id: SlotId| wanted(id).is_some_and(|wanted| view.options.is_there(Some(address), wanted));
    // Where the server of a slot goes, if it serves and has not arrived there.
    let next = |id: SlotId| {
        let server = view.running.get(&id).filter(|server| server.serves() && !view.memory.is_held(id))?;
        let address = server.address.filter(|address| !is_there(*address, id))?;
        let place = *places.get(&address.ip()).filter(|place| is_there(address, **place))?;
        let there = &view.running[&place];
        (there.address.is_none_or(|there| !is_there(there, place)) || !there.serves()).then_some(place)
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
