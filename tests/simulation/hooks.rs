//! The terminating lifecycle hooks: an instance that waits goes when the leader says so, or by itself in the end.

use std::rc::Rc;
use std::time::Duration;

use hsdo::ports::{Completion, Hooks, TurnError};
use hsdo::server::Departures;
use hsdo::slot::{SlotId, Waiting};

use crate::fleet::{Instance, Step};
use crate::journal::{At, SECOND};
use crate::process::START_OF_TIME;
use crate::promises::occupants;
use crate::reports::ReportEdge;
use crate::requests::LONGEST;
use crate::table::Rows;
use crate::troubles::Service;
use crate::world::{Event, World};

pub(crate) const NO_CUT: &str = "nobody is let go while a request runs on it, before the deadline";
pub(crate) const LET_GO: &str = "whom no request uses is let go soon, and everybody at the deadline";

/// The deadline of a drain: longer than the longest request, and than a client takes to follow.
const DRAIN: At = LONGEST + 20 * SECOND;
/// How long hsdo's own hook waits for an answer.
const PATIENCE: u64 = 900;
/// How often an instance that waits is looked at.
const LOOKS: At = 5 * SECOND;
/// How long a load balancer that is gone may hold an instance, and a little for the turns.
const SILENCE: At = 45 * SECOND;
/// For the turn that lets it go at the deadline, and one that fails.
const LATE: At = 15 * SECOND;

pub(crate) fn departures(world: &Rc<World>, process: usize) -> Departures {
    Departures {
        reports: Some(Box::new(ReportEdge::new(world, process))),
        hooks: Some(Box::new(HookEdge { world: Rc::clone(world), process })),
        drain: Duration::from_micros(DRAIN),
    }
}

/// Since when an instance drains, and where, by the rows.
fn seat(rows: &Rows, id: &str) -> Option<(SlotId, Option<At>)> {
    let (slot, occupant) = occupants(rows).find(|(_, occupant)| occupant.name == id)?;
    let since = occupant.drain_since.map(|since| (since.as_micros() - START_OF_TIME).max(0) as At);
    Some((slot, since))
}

impl World {
    /// An instance waits for a hook: hsdo's own, or one of another name, of which hsdo knows nothing.
    pub(crate) fn waits_for_a_hook(self: &Rc<Self>, number: u64) {
        let is_hooked = number % 5 != 4;
        let now = self.now();
        self.change(number, "waits for its end", |instance| {
            instance.lifecycle = Some("Terminating:Wait");
            instance.hooked = is_hooked.then_some(now);
        });
        // Some hooks do not wait long.
        let waits = if is_hooked && number % 5 != 3 { PATIENCE } else { self.between(5, 60) };
        self.post_in(waits * SECOND, Event::Instance(number, Step::Proceed));
        if is_hooked {
            self.post_in(LOOKS, Event::Held(number));
        }
    }

    /// `CompleteLifecycleAction`.
    fn let_go(self: &Rc<Self>, process: usize, id: &str) -> Completion {
        let found = self.fleet.borrow().named(id).filter(|it| it.hooked.is_some()).cloned();
        let Some(instance) = found else { return Completion::Over };
        let text = self.cut_by_letting_go(process, &instance);
        self.let_go.set(self.let_go.get() + 1);
        if let Some(text) = text {
            self.fail(NO_CUT, text);
        }
        self.change(instance.number, "is let go", |instance| {
            (instance.lifecycle, instance.hooked) = (Some("Terminating:Proceed"), None);
        });
        self.post_in(self.between(1, 5) * SECOND, Event::Instance(instance.number, Step::ShutsDown));
        Completion::Done
    }

    /// What is cut that should not be if an instance goes now.
    fn cut_by_letting_go(&self, process: usize, instance: &Instance) -> Option<String> {
        let now = self.now();
        let table = self.table.borrow();
        // Without a slot nobody can say who uses it.
        let (slot, since) = seat(&table.state().rows, &instance.id)?;
        let read = self.processes[process].read.borrow();
        let seen = read.as_ref().and_then(|state| seat(&state.rows, &instance.id)?.1);
        let since = [since, seen].into_iter().flatten().min().or(instance.hooked)?;
        if now >= since + DRAIN {
            return None;
        }
        let reports = self.reports.borrow();
        let taken = self.promises.borrow().taken();
        (0..self.sites.len()).find_map(|site| {
            // A leader that came later knows nothing of a report that was removed before.
            let is_unknown = reports.lacks(site) && taken > reports.removed;
            let until = self.used_until(site, slot, instance.ip());
            let is_cut = until > now && !is_unknown && !reports.may_be_silent(site, now);
            let name = &self.processes[process].name;
            is_cut.then(|| format!("{name} lets {} go, and HAProxy {site} uses it in slot {slot}", instance.id))
        })
    }

    /// An instance that waits is looked at.
    pub(crate) fn look_at_held(&self, number: u64) {
        let found = self.fleet.borrow_mut().get(number).cloned();
        let Some((instance, waits)) = found.and_then(|it| it.hooked.map(|since| (it, since))) else { return };
        self.post_in(LOOKS, Event::Held(number));
        let Some(settled) = self.settled_since() else { return };
        let now = self.now();
        let table = self.table.borrow();
        let seat = seat(&table.state().rows, &instance.id);
        let taken = self.promises.borrow().taken();
        let from = settled.max(waits).max(taken);
        let since = seat.and_then(|(_, since)| since).unwrap_or(waits.max(taken));
        if now > (since + DRAIN).max(from) + LATE {
            return self.fail(LET_GO, format!("{} waits though its deadline is over", instance.id));
        }
        let until = |(slot, _)| (0..self.sites.len()).map(|site| self.used_until(site, slot, instance.ip())).max();
        let used_until = seat.and_then(until).unwrap_or(0);
        let is_free = now > used_until.max(from).saturating_add(SILENCE);
        if is_free && !self.reports.borrow().has_strangers() {
            self.fail(LET_GO, format!("{} waits though nobody uses it", instance.id));
        }
    }
}

/// The hooks as a server completes them.
struct HookEdge {
    world: Rc<World>,
    process: usize,
}

impl HookEdge {
    fn complete_one(&self, id: &str) -> Result<Completion, TurnError> {
        const WHAT: &str = "CompleteLifecycleAction";
        self.world.call(self.process, Service::AutoScaling, WHAT)?;
        let completion = self.world.let_go(self.process, id);
        self.world.answer(self.process, Service::AutoScaling, WHAT)?;
        Ok(completion)
    }
}

impl Hooks for HookEdge {
    fn complete(&mut self, leaving: &[Waiting]) -> Vec<(Waiting, Result<Completion, TurnError>)> {
        let mut outcomes = Vec::new();
        for one in leaving {
            let outcome = self.complete_one(&one.name);
            let failed = outcome.is_err();
            outcomes.push((one.clone(), outcome));
            if failed {
                break;
            }
        }
        outcomes
    }
}
