//! The removal guard: servers that leave every group, too many at once and without having ended, are kept for a grace
//! period. Pure.
//!
//! That is what a bogus response or a wrong configuration looks like. A real scale-in is not delayed, because AWS reports
//! its instances as ended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::slot::{Occupant, SlotId, Status};

/// Minimum number of serving slots vanishing at once that triggers the guard.
const MIN_VANISHED: usize = 3;

/// An occupant that no group lists any more, but is not reported as ended.
pub(super) struct Vanished<'a> {
    pub(super) slot: SlotId,
    pub(super) occupant: &'a Occupant,
}

/// The held occupants by slot and name, each with the time for which responses have confirmed that it vanished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Guard(BTreeMap<(SlotId, String), Duration>);

impl Guard {
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// The guard after a response without `vanished`, of a table with `serving` serving slots. The response counts for the
    /// time `elapsed` since the previous turn. Anything that vanishes while others are held is held too.
    pub(super) fn after(&self, vanished: &[Vanished<'_>], serving: usize, elapsed: Duration, grace: Duration) -> Guard {
        let lost = vanished.iter().filter(|one| serves(one.occupant)).count();
        let key = |one: &Vanished<'_>| (one.slot, one.occupant.name.clone());
        let too_many = lost >= MIN_VANISHED && 2 * lost > serving;
        let ongoing = || vanished.iter().any(|one| self.0.contains_key(&key(one)));
        if grace.is_zero() || !(too_many || (!self.is_idle() && ongoing())) {
            return Guard::default();
        }
        let aged = |key| {
            let age = self.0.get(&key).map_or(Duration::ZERO, |age| age.saturating_add(elapsed));
            (key, age)
        };
        Guard(vanished.iter().map(key).map(aged).collect())
    }

    /// How long it still keeps this occupant, if it does. After `grace` it does not, but remembers it until the slot is freed.
    pub(super) fn left(&self, one: &Vanished<'_>, grace: Duration) -> Option<Duration> {
        if self.is_idle() {
            return None;
        }
        let age = self.0.get(&(one.slot, one.occupant.name.clone()))?;
        Some(grace.saturating_sub(*age)).filter(|left| !left.is_zero())
    }
}

/// Whether an occupant takes traffic, according to the table.
pub(super) fn serves(occupant: &Occupant) -> bool {
    match occupant.status {
        Status::Enabled => true,
        // As the last resort.
        Status::Draining => occupant.weight > 0,
        Status::Disabled => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{rows, secs};
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    /// The guard after these slots have vanished, and the slots it keeps.
    fn answer(guard: &Guard, table: &str, vanished: &[SlotId], passed: u64, grace: Duration) -> (Guard, Vec<SlotId>) {
        let slots = rows(table);
        let occupants = || slots.values().filter_map(|slot| Some((slot.id, slot.occupant.as_ref()?)));
        let serving = occupants().filter(|(_, occupant)| serves(occupant)).count();
        let lost: Vec<Vanished<'_>> = occupants()
            .filter(|(id, _)| vanished.contains(id))
            .map(|(slot, occupant)| Vanished { slot, occupant })
            .collect();
        let after = guard.after(&lost, serving, secs(passed), grace);
        let kept = lost.iter().filter(|one| after.left(one, grace).is_some()).map(|one| one.slot).collect();
        (after, kept)
    }

    #[test]
    fn more_than_half_and_three_at_least_are_too_many() {
        let six = "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9; 3 .3 i3 a enabled 0; 4 .4 i4 a enabled 9; 5 .5 i5 a enabled 9; \
                   6 .6 i6 a draining 0; 7 .7 i7 a disabled 9; 8 free";
        let last_resort = "1 .1 i1 a draining 9; 2 .2 i2 a draining 9; 3 .3 i3 a draining 9";
        /// Name, table, slots that vanished, grace period, slots kept.
        type Case<'a> = (&'a str, &'a str, &'a [SlotId], Duration, &'a [SlotId]);
        #[rustfmt::skip]
        let cases: [Case<'_>; 9] = [
            ("none", six, &[], GRACE, &[]),
            ("three of five", six, &[1, 2, 3], GRACE, &[1, 2, 3]),
            ("two of five", six, &[1, 2], GRACE, &[]),
            ("two, and two that do not serve", six, &[1, 2, 6, 7], GRACE, &[]),
            ("three, and two that do not serve", six, &[1, 2, 3, 6, 7], GRACE, &[1, 2, 3, 6, 7]),
            ("two of two", "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9", &[1, 2], GRACE, &[]),
            ("half", "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9; 3 .3 i3 a enabled 9; 4 .4 i4 a enabled 9; \
                      5 .5 i5 a enabled 9; 6 .6 i6 a enabled 9", &[1, 2, 3], GRACE, &[]),
            ("the last resort serves", last_resort, &[1, 2, 3], GRACE, &[1, 2, 3]),
            ("switched off", six, &[1, 2, 3, 4, 5], Duration::ZERO, &[]),
        ];
        for (name, table, vanished, grace, kept) in cases {
            assert_eq!(answer(&Guard::default(), table, vanished, 1, grace).1, kept, "{name}");
        }
    }

    #[test]
    fn each_is_kept_until_confirmed_for_the_grace_period() {
        let table =
            "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9; 3 .3 i3 a enabled 9; 4 .4 i4 a enabled 9; 5 .5 i5 a enabled 9";
        let mut guard = Guard::default();
        // Seconds since the previous turn, slots that vanished, slots kept.
        #[rustfmt::skip]
        let answers: [(u64, &[SlotId], &[SlotId]); 8] = [
            (100, &[1, 2, 3], &[1, 2, 3]),
            (10, &[1, 2, 3], &[1, 2, 3]),
            (10, &[1, 3], &[1, 3]),
            // One that was back starts over; while others are held, even a minority is kept.
            (5, &[1, 2], &[1, 2]),
            (4, &[1, 2], &[1, 2]),
            (1, &[1, 2], &[2]),
            // Not freed, as after a failed write: not held a second time.
            (1, &[1, 2], &[2]),
            (25, &[1, 2], &[]),
        ];
        for (passed, vanished, kept) in answers {
            let (after, found) = answer(&guard, table, vanished, passed, GRACE);
            assert_eq!(found, kept, "{passed} s later: {guard:?}");
            guard = after;
        }
        assert!(answer(&guard, table, &[], 1, GRACE).0.is_idle());
        assert_eq!(answer(&guard, table, &[4, 5], 1, GRACE).1, [0; 0], "none of those held is missing any more");
    }

    #[test]
    fn another_occupant_of_the_slot_does_not_inherit_its_time() {
        let (old, new) = (
            "1 .1 i1 a enabled 9; 2 .2 i2 a enabled 9; 3 .3 i3 a enabled 9",
            "1 .9 i9 a enabled 9; 2 .2 i2 a enabled 9; 3 .3 i3 a enabled 9",
        );
        let guard = answer(&Guard::default(), old, &[1, 2, 3], 1, GRACE).0;
        let guard = answer(&guard, old, &[1, 2, 3], 29, GRACE).0;
        assert_eq!(answer(&guard, new, &[1, 2, 3], 1, GRACE).1, [1]);
    }
}
