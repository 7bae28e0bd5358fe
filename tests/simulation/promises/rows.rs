//! What servers may do to the rows, and what other hands did to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hsdo::order::Target;
use hsdo::slot::{Occupant, Row, SlotId, Status};

use super::{ANNOUNCED, NOT_YET, ONE_WRITER, OWN_GROUP, Protected, ROW_KEPT, ROW_TWICE, occupant, occupants};
use crate::journal::SECOND;
use crate::settings::SLOTS;
use crate::table::{Changes, Rows, State, Writer};
use crate::world::World;

impl World {
    /// The table changed.
    pub(crate) fn table_changed(&self, writer: Writer, before: &State, changes: &Changes) {
        if changes.marker.is_some() && matches!(writer, Writer::Server(_)) {
            let promises = &mut *self.promises.borrow_mut();
            if promises.beaten + 3 * SECOND < self.now() {
                promises.beats_since = self.now();
            }
            promises.beaten = self.now();
        }
        self.orders_changed(writer, before, changes);
        if changes.rows.is_empty() {
            return;
        }
        let mut after = (*before.rows).clone();
        for (id, row) in &changes.rows {
            match row {
                Some(row) => drop(after.insert(*id, row.clone())),
                None => drop(after.remove(id)),
            }
        }
        let broken = match writer {
            Writer::Server(process) => self
                .broken_by_server(process, before, changes, &after)
                .or_else(|| self.broken_order(process, before, changes)),
            Writer::Hand => {
                self.edited_by_hand(changes);
                None
            }
        };
        let seats = |rows: &Rows| occupants(rows).map(|(id, it)| (id, it.address)).collect::<BTreeSet<_>>();
        let seats_after = seats(&after);
        let parts = |rows: &Rows| {
            occupants(rows)
                .map(|(id, it)| (id, it.address, it.group.clone(), it.status, it.weight > 0))
                .collect::<Vec<_>>()
        };
        if parts(&before.rows) != parts(&after) {
            (0..self.sites.len()).for_each(|site| self.disturb_clients(site));
        }
        let version = match self.table.borrow() {
            table if table.is_torn() => NOT_YET,
            table => table.state().number,
        };
        {
            let promises = &mut *self.promises.borrow_mut();
            let gone = seats(&before.rows).into_iter().filter(|seat| !seats_after.contains(seat));
            promises.removed.extend(gone.map(|seat| (seat, version)));
            promises.removed.retain(|seat, _| !seats_after.contains(seat));
            promises.placed.extend(seats_after);
            // The hand is on a server. It ends where the table frees or disables the slot, or gives it to another one.
            for (id, row) in &changes.rows {
                if let Some(Row::Readable(slot)) = row {
                    let wanted = slot.occupant.as_ref().filter(|occupant| occupant.status != Status::Disabled);
                    let now = wanted.map(|occupant| occupant.address);
                    promises.held.iter_mut().for_each(|held| held.retain(|slot, at| slot != id || Some(*at) == now));
                }
            }
        }
        if let Some((promise, text)) = broken {
            self.fail(promise, text);
        }
    }

    fn edited_by_hand(&self, changes: &Changes) {
        let promises = &mut *self.promises.borrow_mut();
        promises.edited = true;
        // A row that is gone or cannot be read must not take out what serves; what the servers do about it may.
        let emptied = changes.rows.iter().all(|(_, row)| !matches!(row, Some(Row::Readable(_))));
        let whole = changes.rows.len() > 1 && !emptied;
        for (id, row) in &changes.rows {
            let address = occupant(row.as_ref()).map(|occupant| occupant.address);
            // It is what the table says, until a server puts it right.
            promises.entitled.extend(address);
            let hit = |at: &IpAddr, it: &Protected| whole || it.slot == *id || Some(*at) == address;
            promises.protected.iter_mut().filter(|(at, it)| hit(at, it)).for_each(|(_, it)| it.row = false);
        }
        if !emptied {
            promises.protected.retain(|_, it| it.row);
        }
    }

    fn broken_by_server(
        &self,
        process: usize,
        before: &State,
        changes: &Changes,
        after: &Rows,
    ) -> Option<(&'static str, String)> {
        let promises = &mut *self.promises.borrow_mut();
        let name = &self.processes[process].name;
        // A server does something about what another hand did.
        let seats = |id: &SlotId, address: &IpAddr| {
            let seat = |(slot, row): &(SlotId, Option<Row>)| {
                slot == id || occupant(row.as_ref()).is_some_and(|occupant| occupant.address == *address)
            };
            changes.rows.iter().any(seat)
        };
        promises.protected.retain(|address, it| it.row || !seats(&it.slot, address));
        if let Some(marker) = &changes.marker {
            let leader = marker.leader.clone().unwrap_or_default();
            if promises.terms.get(&leader) != Some(&process) {
                return Some((ONE_WRITER, format!("{name} writes in the term {leader}")));
            }
            let announced = marker.version > before.marker.version;
            if !announced {
                return Some((ANNOUNCED, format!("{name} leaves the version at {:?}", marker.version)));
            }
        }
        for (id, row) in &changes.rows {
            let old = occupant(before.rows.get(id));
            let new = occupant(row.as_ref());
            if let Some(old) = old
                && promises.protected.get(&old.address).is_some_and(|it| it.slot == *id && it.row)
            {
                let stays = new.is_some_and(|new| {
                    (new.address, &new.name, new.status) == (old.address, &old.name, old.status)
                        && new.weight >= old.weight
                });
                if !stays {
                    return Some((ROW_KEPT, format!("{name} writes {new:?} over {old:?} in slot {id}")));
                }
            }
            if let Some(text) = new.filter(|_| old.is_none()).and_then(|new| other_own(*id, new, before, after)) {
                return Some((OWN_GROUP, text));
            }
        }
        let mut taken = BTreeMap::new();
        for (id, occupant) in occupants(after) {
            if let Some(first) = taken.insert(occupant.address, id)
                && !promises.edited
            {
                return Some((ROW_TWICE, format!("{} is in slots {first} and {id}", occupant.address)));
            }
        }
        None
    }

    /// Whether an address may serve, in the eyes of the fleet.
    pub(crate) fn fleet_changed(&self, id: &str, address: IpAddr) {
        let ready = self.fleet.borrow().named(id).is_some_and(crate::fleet::Instance::is_ready);
        self.promises.borrow_mut().touched(address, ready);
        self.views_changed();
        self.disturb(self.now());
    }
}

/// A slot that was free before and is free still, and should have been taken in place of this one.
fn other_own(id: SlotId, new: &Occupant, before: &State, after: &Rows) -> Option<String> {
    let group = new.group.as_deref()?;
    let last = |id: SlotId| match before.rows.get(&id) {
        Some(Row::Readable(slot)) if slot.occupant.is_none() => slot.last_group.as_deref(),
        _ => None,
    };
    let is_free = |id: SlotId| matches!(after.get(&id), Some(Row::Readable(slot)) if slot.occupant.is_none());
    if !before.rows.contains_key(&id) || last(id) == Some(group) {
        return None;
    }
    let is_kept_empty = |id: SlotId| before.orders.iter().any(|order| order.target == Target::Slot(id));
    let other = (1..=SLOTS).find(|id| last(*id) == Some(group) && is_free(*id) && !is_kept_empty(*id))?;
    Some(format!("{} of {group} is in slot {id}, though {other} was last of its group", new.name))
}
