//! Seats and evicts instances. Pure.

use crate::clock::Timestamp;
use crate::slot::{Instance, Occupant, Slot, Status, Weight};

/// Frees a slot, which remembers the group that held it, and in which zone.
pub(super) fn free(slot: &mut Slot) {
    if let Some(Occupant { group: group @ Some(_), zone, .. }) = slot.occupant.take() {
        (slot.last_group, slot.last_zone) = (group, zone);
    }
}

/// Gives the slot to a new instance, at this weight.
pub(super) fn seat(slot: &mut Slot, instance: &Instance, now: Timestamp, weight: Weight) {
    slot.occupant = Some(Occupant {
        address: instance.address,
        name: instance.name.clone(),
        group: Some(instance.group.clone()),
        zone: instance.zone.clone(),
        port: instance.port,
        weight,
        status: Status::Enabled,
        last_step: Some(now),
        drain_since: None,
    });
}
