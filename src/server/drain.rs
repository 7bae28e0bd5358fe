//! The weights of servers that should not serve: 0, unless nothing else can. Pure.
//!
//! They drain, or their factor is 0.

use std::collections::BTreeMap;

use super::judge::Kept;
use super::limits::SlotLimits;
use crate::clock::Timestamp;
use crate::order::Order;
use crate::slot::{Occupant, Slot, SlotId, Status, Weight};
use crate::weight::Weighed;

/// Who serves because nobody else can.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LastResort {
    /// Their slots, in order.
    pub(super) slots: Vec<SlotId>,
    /// When a server whose factor became 0 takes its next step down; `None` if none does.
    pub(super) due: Option<Timestamp>,
}

/// What the weights depend on besides the slots.
pub(super) struct Facts<'a> {
    pub(super) kept: &'a BTreeMap<SlotId, Kept>,
    /// Those that drain by an order alone.
    pub(super) ordered: &'a BTreeMap<SlotId, Order>,
    pub(super) weighed: &'a BTreeMap<SlotId, Weighed>,
}

/// Sets the weight of every draining occupant, and of those whose factor is 0.
///
/// They get weight 0 as soon as an enabled one with a factor has weight. Until then those whose factor is 0 serve, each with at least
/// MIN, at least 1. Without any of these, draining ones keep their weight; if all are at 0, each gets MIN, at least 1. Those that drain by
/// an order alone (`ordered`) could serve, so they get it even while servers that leave have weight.
pub(super) fn set_weights(
    slots: &mut BTreeMap<SlotId, Slot>,
    facts: &Facts<'_>,
    now: Timestamp,
    limits: &SlotLimits,
) -> LastResort {
    let weighed = |id: SlotId| facts.weighed.get(&id).copied().unwrap_or_default();
    let role = |id: SlotId, occupant: &Occupant| match occupant.status {
        Status::Enabled if facts.kept.contains_key(&id) || !weighed(id).factor.is_zero() => Role::Serves,
        Status::Enabled => Role::Idle,
        Status::Draining if facts.kept.contains_key(&id) => Role::Other,
        Status::Draining if facts.ordered.contains_key(&id) => Role::Ordered,
        Status::Draining => Role::Leaves,
        Status::Disabled => Role::Other,
    };
    let weights: Vec<(Role, Weight)> = slots
        .values()
        .filter_map(|slot| slot.occupant.as_ref().map(|occupant| (role(slot.id, occupant), occupant.weight)))
        .collect();
    let has_weight = |roles: &[Role]| weights.iter().any(|(role, weight)| roles.contains(role) && *weight > 0);
    // With MAX 0 no server should get traffic, draining or not.
    let last_resort = limits.max > 0 && !has_weight(&[Role::Serves]);
    let has_idle = weights.iter().any(|(role, _)| *role == Role::Idle);
    let mut outcome = LastResort::default();
    for (id, slot) in slots {
        let Some(occupant) = &mut slot.occupant else { continue };
        let role = role(*id, occupant);
        let ramp = limits.ramp(weighed(*id).factor);
        let needed = match role {
            Role::Serves | Role::Other => continue,
            Role::Idle => occupant.weight == 0,
            Role::Ordered => !has_weight(&[Role::Ordered]),
            Role::Leaves => !has_weight(&[Role::Ordered, Role::Leaves]),
        };
        let serves = last_resort && (role == Role::Idle || !has_idle);
        let weight = match (serves, needed) {
            // Its factor became 0: its weight comes down by steps.
            (false, _) if role == Role::Idle => {
                ramp.advance(occupant, now);
                outcome.due = outcome.due.into_iter().chain(ramp.due(occupant)).min();
                continue;
            }
            (false, _) => 0,
            (true, false) => occupant.weight,
            // A factor of 0 cannot scale MIN.
            (true, true) if role == Role::Idle => limits.min.max(1),
            (true, true) => ramp.start().max(1),
        };
        if occupant.weight != weight {
            occupant.weight = weight;
            occupant.last_step = Some(now);
        }
        if weight > 0 {
            outcome.slots.push(*id);
        }
    }
    outcome
}

/// What an occupant is to the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Enabled, with a factor or kept as it is.
    Serves,
    /// Enabled, with a factor of 0.
    Idle,
    /// Drains by an order alone.
    Ordered,
    /// Drains because its source says so.
    Leaves,
    /// Disabled, or kept as it is while it drains.
    Other,
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
            let facts = Facts { kept: &kept, ordered: &BTreeMap::new(), weighed: &BTreeMap::new() };
            let found = set_weights(&mut slots, &facts, at(100), &limits);
            assert_eq!(show(&slots), after, "{name}");
            assert_eq!(found.slots, last_resort, "{name}");
        }
    }
}
