//! Seats and evicts instances. Pure.

use crate::clock::Timestamp;
use crate::slot::{Instance, Occupant, Slot, Status, Weight};

/// Frees a slot, which remembers its group and zone.
pub(super) fn free(slot: &mut Slot) {
    let Some(occupant) = slot.occupant.take() else { return };
    if occupant.group.is_some() || occupant.zone.is_some() {
        slot.last_zone = occupant.zone;
    }
    slot.last_group = occupant.group.or(slot.last_group.take());
}

/// Gives the slot to a new instance, at weight `min`.
pub(super) fn seat(slot: &mut Slot, instance: &Instance, now: Timestamp, min: Weight) {
    slot.occupant = Some(Occupant {
        address: instance.address,
        name: instance.name.clone(),
        group: Some(instance.group.clone()),
        zone: instance.zone.clone(),
        weight: min,
        status: Status::Enabled,
        last_step: Some(now),
    });
}
