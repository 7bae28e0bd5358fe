//! What servers may do to orders, and to those whom orders name.

use hsdo::order::{Order, Target, on_occupant};
use hsdo::slot::{Occupant, Row, Status};

use super::{KEPT_OUT, ORDERED, ORDERS_KEPT, SOMEBODY, occupant, occupants};
use crate::journal::{At, SECOND};
use crate::orders::names;
use crate::settings::SLOTS;
use crate::table::{Changes, MARKER_SLOT, Rows, State, Writer};
use crate::world::World;

/// How long a leader that lost slot 1's row may take to write it again: its next turn, and the one under way.
const RESTORED: At = 4 * SECOND;
/// Who has been ready for that long is seen by everybody.
const LONG_READY: At = 90 * SECOND;

/// Slot 1's row was deleted while its leader was well.
#[derive(Clone, Debug)]
pub(crate) struct RowLost {
    at: At,
    leader: usize,
    /// How often servers were killed or stood still until then.
    struck: u64,
    /// What the leader had read.
    orders: Vec<Order>,
}

impl World {
    /// Orders, or slot 1's row that keeps them, changed.
    pub(super) fn orders_changed(&self, writer: Writer, before: &State, changes: &Changes) {
        let broken = match writer {
            Writer::Server(process) => self.broken_orders(process, before, changes),
            Writer::Hand => {
                self.row_lost(before, changes);
                None
            }
        };
        if let Some(orders) = &changes.orders {
            self.unprotect(orders);
        }
        if let Some(text) = broken {
            self.fail(ORDERS_KEPT, text);
        }
    }

    /// Whoever is ordered away is protected no longer.
    fn unprotect(&self, orders: &[Order]) {
        let fleet = self.fleet.borrow();
        self.promises.borrow_mut().protected.retain(|address, it| {
            let instance = fleet.at(*address);
            let on = |order: &Order| {
                order.target == Target::Slot(it.slot) || instance.is_some_and(|it| names(&order.target, it))
            };
            !orders.iter().any(on)
        });
    }

    fn row_lost(&self, before: &State, changes: &Changes) {
        let [(MARKER_SLOT, None)] = changes.rows.as_slice() else {
            if !changes.rows.is_empty() {
                self.promises.borrow_mut().row_lost = None;
            }
            return;
        };
        let promises = &mut *self.promises.borrow_mut();
        let leader = before.marker.leader.as_ref().and_then(|leader| promises.terms.get(leader)).copied();
        let Some((leader, process)) = leader.map(|leader| (leader, &self.processes[leader])) else { return };
        let is_well = process.leads() && !process.is_trapped() && self.are_calls_well();
        let read = process.read.borrow();
        // The others may not know yet of one that has just taken the lease, or whose heart beats again.
        let is_known = self.now() > promises.taken.max(promises.beats_since) + 2 * SECOND;
        let beats = self.now() < promises.beaten + 2 * SECOND;
        if let Some(read) = read.as_ref().filter(|_| is_well && is_known && beats) {
            let orders = before.orders.iter().filter(|order| read.orders.contains(order)).cloned().collect();
            promises.row_lost = Some(RowLost { at: self.now(), leader, struck: self.strikes(), orders });
        }
    }

    fn strikes(&self) -> u64 {
        self.processes.iter().filter(|process| process.is_server()).map(|process| process.struck.get()).sum()
    }

    fn are_calls_well(&self) -> bool {
        self.troubles.are_none() && self.table.borrow().lags == [0; 3]
    }

    fn broken_orders(&self, process: usize, before: &State, changes: &Changes) -> Option<String> {
        let name = &self.processes[process].name;
        let has_row = before.rows.contains_key(&MARKER_SLOT);
        let now = self.aws_time();
        if !has_row && changes.rows.iter().any(|(id, _)| *id == MARKER_SLOT) {
            let lost = self.promises.borrow_mut().row_lost.take();
            let restored = changes.orders.as_deref().unwrap_or_default();
            if let Some(lost) = lost.filter(|lost| self.is_well_since(lost)) {
                let lacks = lost.orders.iter().find(|order| !restored.contains(order) && !order.has_lapsed(now));
                if let Some(order) = lacks {
                    let leader = &self.processes[lost.leader].name;
                    return Some(format!("{name} makes row 1 again without the {order}, which {leader} knows"));
                }
            }
            let promises = self.promises.borrow();
            let made_up = restored.iter().find(|order| !promises.given.contains(order));
            return made_up.map(|order| format!("{name} makes up the {order}"));
        }
        let after = changes.orders.as_ref()?;
        let is_over = |order: &Order| order.has_lapsed(now) || self.has_ended(order);
        if let Some(order) = before.orders.iter().find(|order| !after.contains(order) && !is_over(order)) {
            return Some(format!("{name} removes the {order}"));
        }
        let made_up = after.iter().find(|order| !before.orders.contains(order));
        made_up.map(|order| format!("{name} makes up the {order}"))
    }

    fn is_well_since(&self, lost: &RowLost) -> bool {
        let leader = &self.processes[lost.leader];
        let is_well = leader.is_up() && self.strikes() == lost.struck && !leader.is_trapped();
        is_well && self.are_calls_well() && self.now() < lost.at + RESTORED
    }

    /// Whether an order is about an instance that is no more.
    pub(crate) fn has_ended(&self, order: &Order) -> bool {
        let Target::Instance(name) = &order.target else { return false };
        let fleet = self.fleet.borrow();
        fleet.named(name).is_none_or(|instance| matches!(instance.ec2, "shutting-down" | "terminated"))
    }

    /// What a server's write of rows does to those whom orders name that it has read.
    pub(super) fn broken_order(
        &self,
        process: usize,
        before: &State,
        changes: &Changes,
    ) -> Option<(&'static str, String)> {
        // A claim writes nothing but slot 1's row, as it was.
        if !before.rows.contains_key(&MARKER_SLOT) {
            return None;
        }
        let process = &self.processes[process];
        let read = process.read.borrow();
        let read = read.as_ref()?;
        let now = self.aws_time();
        let is_in_force = |order: &&Order| before.orders.contains(order) && !order.has_lapsed(now);
        let in_force: Vec<Order> = read.orders.iter().filter(is_in_force).cloned().collect();
        let mut after = (*read.rows).clone();
        after.extend(changes.rows.iter().filter_map(|(id, row)| Some((*id, row.clone()?))));
        let serves = |occupant: &Occupant| occupant.status == Status::Enabled && occupant.weight > 0;
        let is_served = occupants(&after).any(|(_, occupant)| serves(occupant));
        for (id, row) in &changes.rows {
            let Some(new) = occupant(row.as_ref()).filter(|new| new.status != Status::Disabled) else { continue };
            let Some(order) = on_occupant(&in_force, *id, new) else { continue };
            if new.status != Status::Draining || is_served && new.weight > 0 {
                return Some((ORDERED, format!("{} writes {new:?} in slot {id} despite the {order}", process.name)));
            }
            let same = |old: &Occupant| (old.address, &old.name) == (new.address, &new.name);
            // A row that was deleted is written again as it was.
            let is_new = read.rows.contains_key(id) && !occupant(read.rows.get(id)).is_some_and(same);
            if is_new && is_served {
                return Some((KEPT_OUT, format!("{} seats {new:?} in slot {id} despite the {order}", process.name)));
            }
        }
        let has_weight = |occupant: &Occupant| occupant.status != Status::Disabled && occupant.weight > 0;
        if occupants(&after).any(|(_, occupant)| has_weight(occupant)) {
            return None;
        }
        let fleet = self.fleet.borrow();
        let able = fleet.instances.iter().find(|it| {
            let is_plain = !(it.left_out || it.denied || it.unlisted || fleet.missing_groups[it.group]);
            it.is_ready() && is_plain && it.changed + LONG_READY < self.now() && !is_held(&after, &it.id)
        })?;
        Some((SOMEBODY, format!("{} leaves nobody any weight, though {} is ready", process.name, able.id)))
    }
}

/// Whether a row that hsdo leaves alone, or that is missing, may hold the instance: unknown is not empty, and its HAProxys let it serve.
fn is_held(rows: &Rows, name: &str) -> bool {
    let is_disabled = |it: &Occupant| it.name == name && it.status == Status::Disabled;
    let unreadable = rows.values().any(|row| matches!(row, Row::Unreadable { .. }));
    let missing = (1..=SLOTS).any(|id| !rows.contains_key(&id));
    unreadable || missing || occupants(rows).any(|(_, occupant)| is_disabled(occupant))
}
