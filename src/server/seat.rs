//! Seats and evicts instances. Pure.

use crate::clock::Timestamp;
use crate::slot::{Instance, Occupant, Slot, Status, Weight};

/// Frees a slot, which remembers its group and zone.
pub(super) fn free(slot: &mut Slot) {
    let Some(occupant) = slot.occupant.take() else { return };
    if let Some(group) = occupant.group {
        slot.last_group = Some(group);
        slot.last_zone = occupant.zone;
    }
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
