//! The weight of a draining server: 0, unless nothing else can serve. Pure.

use std::collections::BTreeMap;

use super::judge::Kept;
use super::limits::SlotLimits;
use crate::clock::Timestamp;
use crate::order::Order;
use crate::slot::{Occupant, Slot, SlotId, Status};

/// Sets the weight of every draining occupant not in `kept`. Returns the slots that serve as the last resort.
///
/// A draining server gets weight 0 as soon as an enabled one has weight. Until then, draining servers keep their weight; if
/// all are at 0, each gets MIN, at least 1. Those that drain by an order alone (`ordered`) could serve, so they get it even while
/// servers that leave have weight.
pub(super) fn set_weights(
    slots: &mut BTreeMap<SlotId, Slot>,
    kept: &BTreeMap<SlotId, Kept>,
    ordered: &BTreeMap<SlotId, Order>,
    now: Timestamp,
    limits: &SlotLimits,
) -> Vec<SlotId> {
    let served = slots
        .values()
        .filter_map(|slot| slot.occupant.as_ref())
        .any(|occupant| occupant.status == Status::Enabled && occupant.weight > 0);
    // With MAX 0 no server should get traffic, draining or not.
    let last_resort = !served && limits.max > 0;
    let idle = draining(slots, kept).all(|(_, occupant)| occupant.weight == 0);
    let able = draining(slots, kept).filter(|(id, _)| ordered.contains_key(id));
    let able_idle = able.map(|(_, occupant)| occupant.weight).all(|weight| weight == 0);
    for (id, occupant) in draining(slots, kept) {
        let idle = if ordered.contains_key(&id) { able_idle } else { idle };
        let weight = match (last_resort, idle) {
            (false, _) => 0,
            (true, false) => occupant.weight,
            (true, true) => limits.min.max(1),
        };
        if occupant.weight != weight {
            occupant.weight = weight;
            occupant.last_step = Some(now);
        }
    }
    draining(slots, kept).filter(|(_, occupant)| occupant.weight > 0).map(|(id, _)| id).collect()
}

fn draining<'a>(
    slots: &'a mut BTreeMap<SlotId, Slot>,
    kept: &'a BTreeMap<SlotId, Kept>,
) -> impl Iterator<Item = (SlotId, &'a mut Occupant)> {
    slots
        .values_mut()
        .filter(|slot| !kept.contains_key(&slot.id))
        .filter_map(|slot| Some((slot.id, slot.occupant.as_mut()?)))
        .filter(|(_, occupant)| occupant.status == Status::Draining)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, limits, rows, show};
    use super::*;

    #[test]
    fn a_draining_server_serves_only_if_no_other_can() {
        /// Name, kept slots, MIN, MAX, before, after, last resort. Now is 100.
        type Case<'a> = (&'a str, &'a [SlotId], u16, u16, &'a str, &'a str, &'a [SlotId]);
        #[rustfmt::skip]
        let cases: [Case<'_>; 12] = [
            ("another serves: weight 0", &[], 1, 10,
             "1 .1 i1 a draining 7; 2 .2 i2 a enabled 1", "1 .1 i1 a draining 0@100; 2 .2 i2 a enabled 1", &[]),
            ("already at 0: untouched", &[], 1, 10,
             "1 .1 i1 a draining 0; 2 .2 i2 a enabled 1", "1 .1 i1 a draining 0; 2 .2 i2 a enabled 1", &[]),
            ("alone: keeps its weight", &[], 1, 10,
             "1 .1 i1 a draining 7; 2 free", "1 .1 i1 a draining 7; 2 free", &[1]),
            ("the other one has no weight yet", &[], 0, 10,
             "1 .1 i1 a draining 7; 2 .2 i2 a enabled 0", "1 .1 i1 a draining 7; 2 .2 i2 a enabled 0", &[1]),
            ("the other one is disabled", &[], 1, 10,
             "1 .1 i1 a draining 7; 2 .2 i2 a disabled 5", "1 .1 i1 a draining 7; 2 .2 i2 a disabled 5", &[1]),
            ("one of two has weight: the other stays at 0", &[], 1, 10,
             "1 .1 i1 a draining 0; 2 .2 i2 a draining 3", "1 .1 i1 a draining 0; 2 .2 i2 a draining 3", &[2]),
            ("none has weight: each gets MIN", &[], 4, 10,
             "1 .1 i1 a draining 0; 2 .2 i2 a draining 0", "1 .1 i1 a draining 4@100; 2 .2 i2 a draining 4@100", &[1, 2]),
            ("none has weight, MIN is 0: each gets 1", &[], 0, 10,
             "1 .1 i1 a draining 0", "1 .1 i1 a draining 1@100", &[1]),
            ("a kept one serves", &[2], 1, 10,
             "1 .1 i1 a draining 7; 2 .2 i2 b enabled 3", "1 .1 i1 a draining 0@100; 2 .2 i2 b enabled 3", &[]),
            ("a kept draining one stays as it is", &[1], 1, 10,
             "1 .1 i1 b draining 0; 2 .2 i2 a draining 0", "1 .1 i1 b draining 0; 2 .2 i2 a draining 1@100", &[2]),
            ("MAX of 0: no traffic is wanted", &[], 0, 0,
             "1 .1 i1 a draining 7", "1 .1 i1 a draining 0@100", &[]),
            ("an empty table", &[], 1, 10, "", "", &[]),
        ];
        for (name, kept, min, max, before, after, last_resort) in cases {
            let mut slots = rows(before);
            let limits = SlotLimits { min, max, ..limits(2) };
            let kept = kept.iter().map(|id| (*id, Kept::Silent)).collect();
            let found = set_weights(&mut slots, &kept, &BTreeMap::new(), at(100), &limits);
            assert_eq!(show(&slots), after, "{name}");
            assert_eq!(found, last_resort, "{name}");
        }
    }
}
