//! Why a slot has the weight that it has in one backend, by its row, what is wanted, what HAProxy runs, and what the plan found.
//! Pure: it looks up and decides nothing.

use super::placement::{By, Wanted};
use super::reconcile::BackendPlan;
use super::stage::Stage;
use super::view::View;
use crate::cause::{Cause, Hand, Leaving, Wait};
use crate::ports::{Admin, Running};
use crate::slot::{Occupant, Row, SlotId, Status, Table, Weight};

/// The slots of one backend that have a row, a server or a place up to the list size, in order.
pub fn slots(table: &Table, view: View<'_>) -> Vec<SlotId> {
    let mut slots: Vec<SlotId> =
        (1..=view.size).chain(table.rows.keys().copied()).chain(view.running.keys().copied()).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// Why slot `id` of a backend has its weight, by the `table` that is in force, the backend's `view` and the `plan` for it.
pub fn cause(id: SlotId, table: &Table, view: View<'_>, plan: &BackendPlan) -> Cause {
    // Plans list slots in order.
    let has = |slots: &[SlotId]| slots.binary_search(&id).is_ok();
    let occupant = match table.rows.get(&id) {
        Some(Row::Unreadable { reason, .. }) => return Cause::Unreadable { reason: reason.clone() },
        Some(Row::Readable(slot)) => match &slot.occupant {
            Some(occupant) => Ok(occupant),
            None => Err(Cause::Free { last_group: slot.last_group.clone() }),
        },
        None if id > view.desired.max_row => Err(Cause::Unused),
        None => return Cause::UnknownRow,
    };
    let server = view.running.get(&id);
    if server.is_some() && has(&plan.covering) {
        return Cause::Covering;
    }
    match (occupant, view.desired.of(id), server) {
        (Err(cause), ..) => cause,
        (Ok(occupant), ..) if occupant.status == Status::Disabled => Cause::Disabled,
        (Ok(occupant), Some(Wanted::Serve { weight, .. }), Some(server)) => {
            serving(id, occupant, weight, server, view, plan)
        }
        (Ok(_), Some(Wanted::Serve { .. }), None) => Cause::BeyondTemplate,
        (Ok(occupant), ..) => {
            let zone = match view.desired.elsewhere.get(&id) {
                Some(By::Zone) => occupant.zone.clone(),
                Some(By::Group) | None => None,
            };
            Cause::Elsewhere { group: occupant.group.clone(), zone }
        }
    }
}

/// The cause of a slot whose occupant is to serve in this backend.
fn serving(
    id: SlotId,
    occupant: &Occupant,
    wanted: Weight,
    server: &Running,
    view: View<'_>,
    plan: &BackendPlan,
) -> Cause {
    // Plans list slots in order.
    let has = |slots: &[SlotId]| slots.binary_search(&id).is_ok();
    if has(&plan.held) {
        return Cause::Held(if server.admin == Admin::Drain { Hand::Drain } else { Hand::Maintenance });
    }
    if has(&plan.weightless) {
        return Cause::Weightless;
    }
    if has(&plan.blocked) {
        return Cause::Blocked;
    }
    let right = view.options.has_weight(server, wanted);
    if has(&plan.contested) && !right {
        return Cause::Contested { wanted };
    }
    match view.stage(id, server) {
        Stage::Parked if has(&plan.waiting) && server.checking => Cause::Waiting(Wait::OldCheck),
        Stage::Parked if has(&plan.waiting) => Cause::Waiting(Wait::OldRequests),
        Stage::Down | Stage::Serving if !right => Cause::Behind,
        Stage::Down if has(&plan.waiting) => Cause::Waiting(Wait::Check),
        Stage::Down => Cause::Down,
        Stage::Leaving if server.weight > 0 => Cause::Behind,
        Stage::Leaving if occupant.status == Status::Draining => Cause::Draining(Leaving::Row),
        Stage::Serving if occupant.status == Status::Draining => Cause::LastResort(Leaving::Row),
        Stage::Leaving if view.desired.spilled.contains(&id) && occupant.status == Status::Enabled => {
            Cause::Elsewhere { group: occupant.group.clone(), zone: occupant.zone.clone() }
        }
        Stage::Serving if view.desired.spilled.contains(&id) => Cause::Spilled { full: occupant.weight },
        Stage::Serving | Stage::Leaving => Cause::Serving,
        _ => Cause::Behind,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::client::fixtures::{OPTIONS, World, address, down, inherited, maintenance, server, up};
    use crate::client::placement::{BackendKind, History, Rules, place};
    use crate::client::stage::{Options, PARKED};
    use crate::selection::NamePattern;
    use crate::slot::Slot;

    fn row(id: SlotId, status: Status, weight: Weight, group: &str) -> (SlotId, Row) {
        let occupant = Occupant {
            address: address(id as u8).ip(),
            name: format!("i-{id}"),
            group: Some(group.to_owned()),
            zone: None,
            port: None,
            weight,
            status,
            last_step: None,
            drain_since: None,
        };
        (id, Row::Readable(Arc::new(Slot { occupant: Some(occupant), ..Slot::empty(id) })))
    }

    fn in_zone((id, row): (SlotId, Row), zone: &str) -> (SlotId, Row) {
        let Row::Readable(slot) = row else { panic!("a readable row") };
        let mut slot = (*slot).clone();
        slot.occupant.as_mut().expect("an occupant").zone = Some(zone.to_owned());
        (id, Row::Readable(slot.into()))
    }

    /// The cause of slot 1 beside a serving slot 2, in a backend that is dedicated to group `web`.
    fn cause_of(rows: &[(SlotId, Row)], running: &[(SlotId, Running)], options: Options, proven: bool) -> Cause {
        let table = Table { rows: rows.iter().cloned().collect(), strays: vec![] };
        let zones = Some(vec![NamePattern::plain("z1")]);
        let rules = Rules { groups: Some(vec![NamePattern::new("web")]), zones, ..Rules::default() };
        let mut world = World::new([]);
        (world.size, world.options) = (2, options);
        world.desired = place(
            &table,
            BackendKind::Default,
            &rules,
            History { max_row: 2, knows_zones: true, ..History::default() },
        );
        world.running = running.iter().cloned().collect();
        if proven {
            let now = std::mem::replace(&mut world.running, [(1, up(1, 7)), (2, up(2, 7))].into());
            world.plan();
            world.running = now;
        }
        let plan = world.plan();
        let World { desired, running, memory, size, options, .. } = &world;
        cause(1, &table, View { desired, running, memory, size: *size, options: *options }, &plan)
    }

    #[test]
    fn every_slot_has_its_cause() {
        use Status::{Disabled, Draining, Enabled};
        let free = || (1, Row::Readable(Arc::new(Slot { last_group: Some("web".to_owned()), ..Slot::empty(1) })));
        let broken = || (1, Row::Unreadable { reason: "bad".to_owned(), address: None });
        let web = |status, weight| row(1, status, weight, "web");
        let checking = |server: Running| Running { checking: true, address: Some((PARKED, 80).into()), ..server };
        let weightless = |server: Running| Running { configured: 0, ..server };
        let fixed = Options { static_weights: true, ..OPTIONS };
        let drain = |weight| server(Admin::Drain, true, 1, weight);
        #[rustfmt::skip]
        let cases = [
            ("serves", web(Enabled, 7), Some(up(1, 7)), OPTIONS, true, Cause::Serving),
            ("not there yet", web(Enabled, 7), Some(maintenance(99, 1)), OPTIONS, false, Cause::Behind),
            ("a step of the ramp is not there yet", web(Enabled, 7), Some(up(1, 6)), OPTIONS, true, Cause::Behind),
            ("new", web(Enabled, 7), Some(down(1, 7)), OPTIONS, false, Cause::Waiting(Wait::Check)),
            ("new, and an old check is under way", web(Enabled, 7), Some(checking(maintenance(1, 0))), OPTIONS, false, Cause::Waiting(Wait::OldCheck)),
            ("new, and an old request is under way", web(Enabled, 7), Some(Running { busy: true, checking: false, ..checking(maintenance(1, 0)) }), OPTIONS, false, Cause::Waiting(Wait::OldRequests)),
            ("down after it served", web(Enabled, 7), Some(down(1, 7)), OPTIONS, true, Cause::Down),
            ("set to drain", web(Enabled, 7), Some(drain(7)), OPTIONS, true, Cause::Held(Hand::Drain)),
            ("set to maintenance", web(Enabled, 7), Some(maintenance(1, 7)), OPTIONS, true, Cause::Held(Hand::Maintenance)),
            ("tracks", web(Enabled, 7), Some(inherited(1, 7)), OPTIONS, false, Cause::Blocked),
            ("can never serve", web(Enabled, 7), Some(weightless(up(1, 0))), fixed, false, Cause::Weightless),
            ("leaves", web(Draining, 0), Some(up(1, 0)), OPTIONS, true, Cause::Draining(Leaving::Row)),
            ("is to leave", web(Draining, 0), Some(up(1, 7)), OPTIONS, true, Cause::Behind),
            ("the last resort", web(Draining, 7), Some(up(1, 7)), OPTIONS, true, Cause::LastResort(Leaving::Row)),
            ("the ramp begins at 0", web(Enabled, 0), Some(up(1, 0)), OPTIONS, true, Cause::Serving),
            ("disabled", web(Disabled, 7), Some(maintenance(1, 0)), OPTIONS, false, Cause::Disabled),
            ("of another group", row(1, Enabled, 7, "api"), Some(maintenance(1, 0)), OPTIONS, false, Cause::Elsewhere { group: Some("api".to_owned()), zone: None }),
            ("of another zone", in_zone(web(Enabled, 7), "z2"), Some(maintenance(1, 0)), OPTIONS, false, Cause::Elsewhere { group: Some("web".to_owned()), zone: Some("z2".to_owned()) }),
            ("of another group, disabled", row(1, Disabled, 7, "api"), None, OPTIONS, false, Cause::Disabled),
            ("no server", web(Enabled, 7), None, OPTIONS, false, Cause::BeyondTemplate),
            ("free", free(), Some(maintenance(1, 0)), OPTIONS, false, Cause::Free { last_group: Some("web".to_owned()) }),
            ("free, not there yet", free(), Some(up(1, 7)), OPTIONS, true, Cause::Free { last_group: Some("web".to_owned()) }),
            ("unreadable", broken(), Some(up(1, 7)), OPTIONS, true, Cause::Unreadable { reason: "bad".to_owned() }),
        ];
        for (name, first, server, options, proven, expected) in cases {
            let running: Vec<_> = server.map(|server| (1, server)).into_iter().chain([(2, up(2, 7))]).collect();
            let found = cause_of(&[first, row(2, Enabled, 7, "web")], &running, options, proven);
            assert_eq!(found, expected, "{name}");
        }
        let only = [(1, up(2, 7)), (2, maintenance(99, 1))];
        assert_eq!(cause_of(&[row(2, Enabled, 7, "web")], &only, OPTIONS, false), Cause::UnknownRow);
        let moved = [free(), row(2, Enabled, 7, "web")];
        assert_eq!(cause_of(&moved, &only, OPTIONS, false), Cause::Covering, "its server moves to slot 2");
    }
}
