//! Orders as operators give and lift them: each from a shell that reads the map, and writes it on condition that it is still so.

use std::rc::Rc;
use std::time::Duration;

use hsdo::clock::Timestamp;
use hsdo::order::{Order, Target};

use crate::fleet::Instance;
use crate::journal::{At, MILLI, SECOND};
use crate::process::START_OF_TIME;
use crate::schedule::{Pick, What};
use crate::settings::{GROUPS, SLOTS};
use crate::table::{Changes, MARKER_SLOT, Writer};
use crate::troubles::{Fault, Service};
use crate::world::{Event, World};

/// How long a shell takes between reading the orders and writing them.
const TAKES: At = 30 * MILLI;

/// Whom an order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Zone(u8),
    Group(u8),
    Slot(u8),
    Instance(Pick),
    Address(Pick),
}

/// How an order ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// At the entry's end, by itself.
    Lapses,
    /// It has no end, and is lifted at the entry's.
    Lifted,
    /// It would last twice as long.
    LiftedEarly,
}

/// One command of an operator, repeated until it is carried out.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    target: Target,
    lifts: bool,
    /// The orders as it read them, and the time by AWS's clock.
    read: Option<(Vec<Order>, Timestamp)>,
}

/// Whether a target names an instance, whatever slot it has.
pub(crate) fn names(target: &Target, instance: &Instance) -> bool {
    match target {
        Target::Slot(_) => false,
        Target::Instance(name) => *name == instance.id,
        Target::Address(address) => *address == instance.ip(),
        Target::Zone(zone) => *zone == instance.zone(),
        Target::Group(group) => group == GROUPS[instance.group],
    }
}

impl World {
    /// The orders in force by AWS's clock.
    pub(crate) fn orders_in_force(&self) -> Vec<Order> {
        let now = self.aws_time();
        self.table.borrow().state().orders.iter().filter(|order| !order.has_lapsed(now)).cloned().collect()
    }

    /// The order in force that is about an instance, or about its slot.
    pub(crate) fn order_on(&self, instance: &Instance) -> Option<Order> {
        let table = self.table.borrow();
        let mut seats = crate::promises::occupants(&table.state().rows);
        let slot = seats.find(|(_, occupant)| occupant.name == instance.id).map(|(id, _)| Target::Slot(id));
        let on = |order: &Order| names(&order.target, instance) || slot.as_ref() == Some(&order.target);
        self.orders_in_force().into_iter().find(on)
    }

    pub(crate) fn is_a_shell_busy(&self) -> bool {
        !self.shells.borrow().is_empty()
    }

    fn target(&self, whom: Whom) -> Option<Target> {
        let fleet = self.fleet.borrow();
        let alive: Vec<&Instance> = fleet.instances.iter().filter(|it| it.ec2 == "running").collect();
        let picked = |pick: Pick| alive.get(usize::from(pick) % alive.len().max(1));
        Some(match whom {
            Whom::Zone(zone) => Target::Zone(format!("z{zone}")),
            Whom::Group(group) => Target::Group(GROUPS[usize::from(group)].to_owned()),
            Whom::Slot(slot) => Target::Slot(u32::from(slot) % SLOTS + 1),
            Whom::Instance(pick) => Target::Instance(picked(pick)?.id.clone()),
            Whom::Address(pick) => Target::Address(picked(pick)?.ip()),
        })
    }

    pub(crate) fn order(self: &Rc<Self>, index: usize, whom: Whom) {
        let Some(target) = self.target(whom) else { return };
        self.targets.borrow_mut().insert(index, target.clone());
        self.shells.borrow_mut().insert(index, Shell { target, lifts: false, read: None });
        self.shell_reads(index);
    }

    /// The entry of an order ends.
    pub(crate) fn ordered_enough(self: &Rc<Self>, index: usize) {
        let What::Ordered { how, .. } = self.schedule[index].1 else { return };
        let Some(target) = self.targets.borrow_mut().remove(&index) else { return };
        if how != How::Lapses {
            self.shells.borrow_mut().insert(index, Shell { target, lifts: true, read: None });
            self.shell_reads(index);
        }
    }

    /// A shell begins, unless something is in its way: then it tries again.
    pub(crate) fn shell_reads(self: &Rc<Self>, index: usize) {
        let mut shells = self.shells.borrow_mut();
        let Some(shell) = shells.get_mut(&index) else { return };
        let has_row = self.table.borrow().state().rows.contains_key(&MARKER_SLOT);
        // Nobody gives orders by an answer of AWS that leaves out half of the fleet.
        let is_bogus = self.fleet.borrow().instances.iter().any(|instance| instance.unlisted);
        if !has_row || is_bogus || self.is_refused() {
            return self.post_in(SECOND, Event::ShellReads(index));
        }
        shell.read = Some((self.table.borrow().state().orders.clone(), self.aws_time()));
        self.post_in(TAKES, Event::ShellWrites(index));
    }

    pub(crate) fn shell_writes(self: &Rc<Self>, index: usize) {
        let What::Ordered { how, secs, .. } = self.schedule[index].1 else { return };
        let Some(shell) = self.shells.borrow().get(&index).cloned() else { return };
        let Some((before, time)) = shell.read else { return };
        let (has_row, now) = {
            let table = self.table.borrow();
            let has_row = table.state().rows.contains_key(&MARKER_SLOT) && !table.is_locked(MARKER_SLOT);
            (has_row, table.state().orders.clone())
        };
        if !has_row || self.is_refused() {
            return self.post_in(SECOND, Event::ShellReads(index));
        }
        if now != before {
            self.note(format!("a shell reads the orders again, for {}", shell.target));
            return self.post_in(TAKES, Event::ShellReads(index));
        }
        let mut orders: Vec<Order> = before.into_iter().filter(|order| order.target != shell.target).collect();
        if !shell.lifts {
            let span = |of: u16| Some(whole_seconds(time.plus(Duration::from_secs(of.into()))));
            let until = match how {
                How::Lapses => span(secs),
                How::Lifted => None,
                How::LiftedEarly => span(secs.saturating_mul(2)),
            };
            let order =
                Order { target: shell.target.clone(), until, since: Some(whole_seconds(time)), by: None, note: None };
            self.note(format!("a shell gives the {order}"));
            if let Some(until) = until {
                self.post((until.as_micros() - START_OF_TIME) as u64, Event::Lapse);
            }
            self.promises.borrow_mut().given.push(order.clone());
            orders.push(order);
            orders.sort_by(|one, other| one.target.cmp(&other.target));
        } else {
            self.note(format!("a shell lifts the order on {}", shell.target));
        }
        self.disturb(self.now());
        self.commit(Writer::Hand, Changes { orders: Some(orders), ..Changes::default() });
        match self.troubles.of(Service::DynamoDb).get() {
            // It was carried out, and the operator does not know.
            Some(Fault::LosesAnswers(percent)) if self.percent(percent.into()) => {
                self.post_in(SECOND, Event::ShellReads(index));
            }
            _ => drop(self.shells.borrow_mut().remove(&index)),
        }
    }

    fn is_refused(&self) -> bool {
        match self.troubles.of(Service::DynamoDb).get() {
            Some(Fault::Refuses(percent)) => self.percent(percent.into()),
            Some(Fault::Hangs(_)) => true,
            _ => false,
        }
    }
}

/// As the table keeps it.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}
