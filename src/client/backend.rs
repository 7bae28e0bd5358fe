//! One backend as a value: what it is to be, what it runs, what is known of it, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Target;
use super::memory::SlotMemory;
use super::model;
use super::placement::{self, Desired, Rules};
use super::reconcile::{self, BackendSteps, Step};
use super::sequencer::{Next, Sequencer};
use super::stage::Options;
use super::view::View;
use crate::ports::{BackendFault, Command, Running, Servers, likely_base, number_of};
use crate::slot::{SlotId, Table};

/// What is known of a backend in one HAProxy process, and dropped when another one answers.
#[derive(Debug, Default)]
struct Learned {
    memory: SlotMemory,
    /// Its algorithm is static, learnt from HAProxy's refusal.
    static_weights: bool,
}

/// One backend: what it is to be, what it runs, and what is known of it.
#[derive(Debug)]
pub(super) struct ManagedBackend {
    pub(super) target: Target,
    /// `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
    size: SlotId,
    /// `CLIENT_HEALTH_GATE`.
    gate: bool,
    desired: Desired,
    /// Its servers by slot, or why it cannot be kept in step.
    running: Result<BTreeMap<SlotId, Running>, BackendFault>,
    learned: Learned,
    /// What its last reading asks for.
    pub(super) plan: BackendSteps,
    /// What was sent in this turn.
    turn: Sequencer,
}

impl ManagedBackend {
    /// A backend that was not read yet.
    pub(super) fn new(target: Target, size: SlotId, gate: bool) -> Self {
        ManagedBackend {
            target,
            size,
            gate,
            desired: Desired::default(),
            running: Err(BackendFault::Missing(Vec::new())),
            learned: Learned::default(),
            plan: BackendSteps::default(),
            turn: Sequencer::default(),
        }
    }

    /// Its name in HAProxy.
    pub(super) fn name(&self) -> &str {
        &self.target.backend.name
    }

    /// Why it cannot be kept in step.
    pub(super) fn fault(&self) -> Option<&BackendFault> {
        self.running.as_ref().err()
    }

    /// Another HAProxy process answers.
    pub(super) fn forget(&mut self) {
        self.learned = Learned::default();
        self.turn.start_over();
    }

    /// Notes that its algorithm is static, as HAProxy says; true where that is news.
    pub(super) fn note_static(&mut self) -> bool {
        !std::mem::replace(&mut self.learned.static_weights, true)
    }

    /// Takes in a reading.
    pub(super) fn see(&mut self, shown: &Result<Servers, BackendFault>) {
        let slots = shown.as_ref().map_err(Clone::clone).and_then(|servers| slots(servers, &self.target.backend.base));
        self.running = slots.map(|slots| ours(slots, self.size, &self.desired));
    }

    /// Begins a turn: what it is to be, by this table. `known` is the highest slot number that may have a row.
    pub(super) fn begin(&mut self, table: &Table, rules: &Rules, max_row: SlotId) {
        self.desired = placement::place(table, self.target.kind, rules, max_row);
        self.turn = Sequencer::default();
    }

    /// What the turn does after the last reading.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let options =
            Options { port: self.target.backend.port, gate: self.gate, static_weights: self.learned.static_weights };
        let Learned { memory, .. } = &mut self.learned;
        self.plan = match &self.running {
            Ok(running) => {
                memory.observe(&self.desired, running, options, now);
                reconcile::reconcile(View { desired: &self.desired, running, memory, size: self.size, options })
            }
            Err(_) => BackendSteps::default(),
        };
        let next = self.turn.next(&self.plan);
        if let Next::Send(steps) = &next {
            steps.iter().for_each(|step| memory.sending(step.slot, &step.changes));
        }
        next
    }

    /// Plays steps on the model of HAProxy, in place of sending them.
    pub(super) fn play(&mut self, steps: &[Step]) {
        let Ok(running) = &mut self.running else { return };
        for Step { slot, changes } in steps {
            let server = running.get_mut(slot).expect("a plan is for slots that run");
            changes.iter().for_each(|change| model::apply(server, *change));
        }
    }

    /// The commands of these steps, a step each.
    pub(super) fn commands(&self, steps: &[Step]) -> Vec<Vec<Command>> {
        let commands = |step: &Step| {
            let server = format!("{}{}", self.target.backend.base, step.slot);
            step.changes.iter().filter_map(|change| Command::new(self.name(), &server, *change)).collect()
        };
        steps.iter().map(commands).collect()
    }

    /// How many changes its last plan still asks for.
    pub(super) fn left(&self) -> usize {
        Sequencer::left(&self.plan)
    }
}

/// The servers of a base name by their slot.
fn slots(servers: &Servers, base: &str) -> Result<BTreeMap<SlotId, Running>, BackendFault> {
    let slots: BTreeMap<SlotId, Running> =
        servers.iter().filter_map(|(name, server)| Some((number_of(name, base)?, server.clone()))).collect();
    let is_padded = |name: &&String| {
        let digits = name.strip_prefix(base).unwrap_or_default();
        digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    // `server-template` makes no leading zeros: where the small numbers have them, the large ones are no slots either.
    if let Some(padded) = servers.keys().find(is_padded).filter(|_| slots.range(..10).next().is_none()) {
        return Err(BackendFault::Padded(padded.clone()));
    }
    if slots.is_empty() {
        let found: BTreeSet<&str> = servers.keys().map(|name| likely_base(name)).collect();
        let found = found.into_iter().map(str::to_owned).collect();
        return Err(BackendFault::NoServers { base: base.to_owned(), found });
    }
    Ok(slots)
}

/// Those that are hsdo's: the slots up to `size`, the unbroken run that goes on from there, and those that have a row. What follows
/// after a gap is somebody else's.
fn ours(mut slots: BTreeMap<SlotId, Running>, size: SlotId, desired: &Desired) -> BTreeMap<SlotId, Running> {
    let last = (size..).take_while(|id| *id == size || slots.contains_key(id)).last().unwrap_or(size);
    slots.retain(|id, _| *id <= last || desired.slots.contains_key(id));
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fixtures::up;

    fn servers(names: &[&str]) -> Servers {
        names.iter().map(|name| ((*name).to_owned(), up(1, 1))).collect()
    }

    /// Other people's servers stand beside hsdo's.
    #[test]
    fn which_servers_are_slots() {
        // Slot 5 has a row.
        let desired = Desired { slots: BTreeMap::from([(5, placement::Wanted::Maintenance)]), max_row: 5 };
        let ours = |names: &[&str], base: &str, size: SlotId| {
            slots(&servers(names), base).map(|slots| ours(slots, size, &desired).into_keys().collect::<Vec<_>>())
        };
        for (names, base, size, expected, why) in [
            (vec!["web1", "web2", "web3"], "web", 3, vec![1, 2, 3], "a template"),
            (vec!["web1", "web2", "web3", "web4"], "web", 2, vec![1, 2, 3, 4], "a larger one than is used"),
            (vec!["web1", "web3"], "web", 3, vec![1, 3], "one that was deleted"),
            (vec!["web1", "web2", "web5", "web6"], "web", 2, vec![1, 2, 5], "one beyond a gap that has a row"),
            (vec!["web1", "web2", "web2024"], "web", 2, vec![1, 2], "somebody else's beyond a gap"),
            (vec!["web1", "web2", "web3", "web21", "web22", "web23"], "web", 3, vec![1, 2, 3], "another template's"),
            (vec!["web1", "web2", "web01"], "web", 2, vec![1, 2], "one with a zero beside them"),
            (vec!["web1"], "web", 5, vec![1], "a smaller template"),
        ] {
            assert_eq!(ours(&names, base, size), Ok(expected), "{why}");
        }
        let padded: Vec<String> = (0..=150).map(|n| format!("socks5_{n:03}")).collect();
        let padded: Vec<&str> = padded.iter().map(String::as_str).collect();
        for base in ["socks5_", "socks5_0"] {
            assert!(matches!(ours(&padded, base, 150), Err(BackendFault::Padded(_))), "{base}");
        }
        let found = vec!["api".to_owned()];
        let none = Err(BackendFault::NoServers { base: "web".to_owned(), found });
        assert_eq!(ours(&["api1", "api2"], "web", 2), none);
    }
}
