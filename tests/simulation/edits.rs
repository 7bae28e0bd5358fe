//! What happens to the table by other hands: an operator's edits, the original, a backup, an accident.

use std::rc::Rc;
use std::sync::Arc;

use hsdo::marker::Marker;
use hsdo::order::Order;
use hsdo::slot::{Row, SlotId, Status};

use crate::schedule::Pick;
use crate::settings::SLOTS;
use crate::table::{Changes, MARKER_SLOT, Writer};
use crate::world::World;

impl World {
    fn occupied(&self, pick: Pick) -> Option<(SlotId, Row)> {
        let table = self.table.borrow();
        // Not one that another operator is at.
        let edited = self.edited.borrow();
        let is_free = |id: &SlotId| edited.values().all(|(edited, _)| edited != id);
        let rows = table.state().rows.iter();
        let occupied: Vec<(&SlotId, &Row)> = rows.filter(|(id, row)| is_free(id) && is_occupied(row)).collect();
        let (id, row) = occupied.get(usize::from(pick) % occupied.len().max(1))?;
        Some((**id, (*row).clone()))
    }

    /// False if a transaction holds one of the rows.
    fn edit(&self, rows: Vec<(SlotId, Option<Row>)>) -> bool {
        let is_free = !rows.iter().any(|(id, _)| self.table.borrow().is_locked(*id));
        if is_free {
            self.commit(Writer::Hand, Changes { rows, ..Changes::default() });
        }
        is_free
    }

    pub(crate) fn empty_table(self: &Rc<Self>) {
        let ids: Vec<SlotId> = self.table.borrow().state().rows.keys().copied().collect();
        self.edit(ids.into_iter().map(|id| (id, None)).collect());
    }

    pub(crate) fn back_up(self: &Rc<Self>) {
        // What an operator is about to put right is not put back wrong for good.
        let is_endless = |order: &Order| order.until.is_none();
        if self.edited.borrow().is_empty() && !self.table.borrow().state().orders.iter().any(is_endless) {
            let mut table = self.table.borrow_mut();
            table.backup = Some(table.state().clone());
        }
    }

    /// The table is as it was when it was backed up, marker and all.
    pub(crate) fn restore(self: &Rc<Self>) {
        let Some(backup) = self.table.borrow_mut().backup.take() else { return };
        let ids = 1..=SLOTS;
        let rows = ids.map(|id| (id, backup.rows.get(&id).cloned())).collect();
        self.commit(Writer::Hand, Changes { rows, marker: Some(backup.marker), orders: Some(backup.orders) });
    }

    pub(crate) fn delete_row(self: &Rc<Self>, pick: Pick) {
        if let Some((id, _)) = self.occupied(pick) {
            self.edit(vec![(id, None)]);
        }
    }

    pub(crate) fn spoil_row(self: &Rc<Self>, index: usize, pick: Pick) {
        let Some((id, row)) = self.occupied(pick) else { return };
        let Row::Readable(slot) = &row else { return };
        let address = slot.occupant.as_ref().map(|occupant| occupant.address);
        if self.edit(vec![(id, Some(Row::Unreadable { reason: "Weight is missing".to_owned(), address }))]) {
            self.edited.borrow_mut().insert(index, (id, row.clone()));
        }
    }

    pub(crate) fn disable_row(self: &Rc<Self>, index: usize, pick: Pick) {
        let Some((id, row)) = self.occupied(pick) else { return };
        let Row::Readable(slot) = &row else { return };
        let mut disabled = (**slot).clone();
        if let Some(occupant) = &mut disabled.occupant {
            occupant.status = Status::Disabled;
        }
        if self.edit(vec![(id, Some(Row::Readable(Arc::new(disabled))))]) {
            self.edited.borrow_mut().insert(index, (id, row.clone()));
        }
    }

    /// False if it has to be tried again.
    pub(crate) fn put_back(self: &Rc<Self>, index: usize) -> bool {
        let Some((id, row)) = self.edited.borrow().get(&index).cloned() else { return true };
        let done = self.edit(vec![(id, Some(row))]);
        if done {
            self.edited.borrow_mut().remove(&index);
        }
        done
    }

    /// One server in two rows.
    pub(crate) fn copy_row(self: &Rc<Self>, pick: Pick, to: u8) {
        let Some((from, Row::Readable(slot))) = self.occupied(pick) else { return };
        let to = SlotId::from(to) % SLOTS + 1;
        if from != to {
            let mut copy = (*slot).clone();
            copy.id = to;
            self.edit(vec![(to, Some(Row::Readable(Arc::new(copy))))]);
        }
    }

    /// The original puts slot 1's item whole: whatever it does not know is gone.
    ///
    /// Not while the groups leave instances out and orders drain others: without the orders those serve again, and the ones that are
    /// left out are a minority, which the guard lets go.
    pub(crate) fn original(self: &Rc<Self>) {
        if self.was_bogus(0) && !self.table.borrow().state().orders.is_empty() {
            return;
        }
        let row = self.table.borrow().state().rows.get(&MARKER_SLOT).cloned();
        if let Some(Row::Readable(slot)) = row
            && !self.table.borrow().is_locked(MARKER_SLOT)
        {
            let mut slot = (*slot).clone();
            slot.last_group = None;
            if let Some(occupant) = &mut slot.occupant {
                occupant.drain_since = None;
            }
            let rows = vec![(MARKER_SLOT, Some(Row::Readable(Arc::new(slot))))];
            self.commit(Writer::Hand, Changes { rows, marker: Some(Marker::default()), orders: Some(Vec::new()) });
        }
    }
}

fn is_occupied(row: &Row) -> bool {
    matches!(row, Row::Readable(slot) if slot.occupant.is_some())
}
