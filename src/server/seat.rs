//! Seats and evicts instances. Pure.

use crate::clock::Timestamp;
use crate::slot::{Instance, Occupant, Slot, Status, Weight};

/// Frees a slot, which remembers its group.
pub(super) fn free(slot: &mut Slot) {
    if let Some(group) = slot.occupant.take().and_then(|occupant| occupant.group) {
        slot.last_group = Some(group);
    }
}

/// Gives the slot to a new instance, at weight `min`.
pub(super) fn seat(slot: &mut Slot, instance: &Instance, now: Timestamp, min: Weight) {
    slot.occupant = Some(Occupant {
        address: instance.address,
        name: instance.name.clone(),
        group: Some(instance.group.clone()),
        weight: min,
        status: Status::Enabled,
        last_step: Some(now),
    });
}
