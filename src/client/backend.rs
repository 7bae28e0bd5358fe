//! One backend: its desired and actual state, what was learned of it, and its fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Target;
use super::memory::SlotMemory;
use super::model;
use super::placement::{self, BackendKind, Desired, History, Rules, Wanted};
use super::reason;
use super::reconcile::{self, BackendPlan, Step};
use super::sequencer::{Next, Sequencer};
use super::spill::{self, Candidates, Load, STEPS, Spill};
use super::stage::Options;
use super::view::View;
use crate::about::About;
use crate::ports::{
    BackendFault, BackendSlot, BackendState, Command, Running, Servers, Subject, TurnError, likely_base, number_of,
};
use crate::settings::Backend;
use crate::slot::{SlotId, Status, Table};

/// What was learned of a backend in one HAProxy process; dropped when another one answers.
#[derive(Debug, Default)]
struct Learned {
    memory: SlotMemory,
    /// Its algorithm is static, by HAProxy's refusal of a weight.
    static_weights: bool,
}

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
    /// Who could help the own servers; none where spillover is off.
    candidates: Option<Candidates>,
    /// How much of them does; none before the first reading.
    spill: Option<Spill>,
    /// The slots of others that were in before this turn.
    in_before: BTreeSet<SlotId>,
    /// What that was decided by.
    pub(super) load: Load,
    /// Whether any server of the table has weight.
    table_serves: bool,
    learned: Learned,
    pub(super) plan: BackendPlan,
    turn: Sequencer,
}

impl ManagedBackend {
    pub(super) fn new(target: Target, size: SlotId, gate: bool) -> Self {
        ManagedBackend {
            target,
            size,
            gate,
            desired: Desired::default(),
            running: Err(BackendFault::Missing(Vec::new())),
            candidates: None,
            spill: None,
            in_before: BTreeSet::new(),
            load: Load::default(),
            table_serves: false,
            learned: Learned::default(),
            plan: BackendPlan::default(),
            turn: Sequencer::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.target.backend.name
    }

    /// Its servers in these slots, for the log.
    pub(super) fn about(&self, slots: &[SlotId]) -> About {
        let server = |slot: &SlotId| format!("{}{slot}", self.target.backend.base);
        About::default().slot(slots.iter().copied()).backend([self.name()]).server(slots.iter().map(server))
    }

    /// The slot that a command is for, if it is for this backend.
    pub(super) fn slot_of(&self, command: &Command) -> Option<SlotId> {
        let ours = command.backend() == self.name();
        number_of(command.server(), &self.target.backend.base).filter(|_| ours)
    }

    pub(super) fn fault(&self) -> Option<&BackendFault> {
        self.running.as_ref().err()
    }

    /// Forgets what was learned, because another HAProxy process answers.
    pub(super) fn reset(&mut self) {
        self.learned = Learned::default();
        self.turn.reset();
    }

    /// Records that its algorithm is static; true the first time.
    pub(super) fn note_static(&mut self) -> bool {
        !std::mem::replace(&mut self.learned.static_weights, true)
    }

    pub(super) fn update(&mut self, servers: &Result<Servers, BackendFault>) {
        let slots = servers.as_ref().map_err(Clone::clone).and_then(|servers| slots(servers, &self.target.backend));
        self.running = slots.map(|slots| ours(slots, self.size, &self.desired));
    }

    pub(super) fn begin(&mut self, table: &Table, rules: &Rules, history: History) {
        self.table_serves = table
            .slots()
            .filter_map(|slot| slot.occupant.as_ref())
            .any(|one| one.status != Status::Disabled && one.weight > 0);
        self.in_before = std::mem::take(&mut self.desired).spilled;
        self.desired = placement::place(table, self.target.kind, rules, history);
        let is_default = self.target.kind == BackendKind::Default;
        self.candidates = Candidates::of(table, rules, history).filter(|_| is_default);
        match (&self.candidates, &self.spill) {
            (Some(candidates), Some(spill)) => candidates.place(&mut self.desired, spill, &self.in_before),
            (Some(_), None) => {}
            (None, _) => (self.spill, self.load) = (None, Load::default()),
        }
        self.turn = Sequencer::default();
    }

    /// Decides by the first reading of a turn how much of the others comes in. `below` is `CLIENT_SPILL_BELOW`.
    pub(super) fn decide_spill(&mut self, below: u32, now: Instant) {
        let options = self.options();
        let (Some(candidates), Ok(running)) = (&self.candidates, &self.running) else { return };
        let spill = self.spill.get_or_insert_with(|| Spill::found(candidates.level_of(running)));
        // Before anything is remembered: a server that came in and is held must not pass for one that should be out.
        candidates.place(&mut self.desired, spill, &self.in_before);
        let memory = &mut self.learned.memory;
        memory.observe(&self.desired, running, options, now);
        let view = View { desired: &self.desired, running, memory, size: self.size, options };
        // What is in maintenance as it should be may help as well as any.
        self.load = Load::of(candidates, |id| spill::fitness(id, view, now));
        spill.decide(&self.load, below, now);
        candidates.place(&mut self.desired, spill, &self.in_before);
    }

    /// How much of the others comes in, in sixteenths; none where spillover is off.
    pub(super) fn spill_level(&self) -> Option<u8> {
        self.spill.as_ref().map(Spill::level)
    }

    /// The same as a share of their weight, from 0 to 1.
    pub(super) fn spill_share(&self) -> Option<f64> {
        self.spill_level().map(|level| f64::from(level) / f64::from(STEPS))
    }

    /// How many servers of others are here.
    pub(super) fn spilled(&self) -> usize {
        let is_here = |slot: &&SlotId| self.running.as_ref().is_ok_and(|running| running.contains_key(*slot));
        self.desired.spilled.iter().filter(is_here).count()
    }

    /// Whether servers of the table have weight, but none does here, though requests are sent here.
    pub(super) fn is_deserted(&self) -> bool {
        let has_weight = |wanted: &Wanted| matches!(wanted, Wanted::Serve { weight, .. } if *weight > 0);
        let is_default = self.target.kind == BackendKind::Default;
        is_default && self.table_serves && self.running.is_ok() && !self.desired.slots.values().any(has_weight)
    }

    /// Whether time alone may change what is wanted.
    pub(super) fn watches_time(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.watches_time() || !self.plan.waiting.is_empty())
    }

    fn options(&self) -> Options {
        Options { port: self.target.backend.port, gate: self.gate, static_weights: self.learned.static_weights }
    }

    /// Plans what the last reading needs.
    pub(super) fn plan(&mut self, now: Instant) {
        let options = self.options();
        let Learned { memory, .. } = &mut self.learned;
        self.plan = match &self.running {
            Ok(running) => {
                memory.observe(&self.desired, running, options, now);
                reconcile::reconcile(View { desired: &self.desired, running, memory, size: self.size, options })
            }
            Err(_) => BackendPlan::default(),
        };
    }

    /// Whether the plan raises anything.
    pub(super) fn raises(&self) -> bool {
        self.turn.raises(&self.plan)
    }

    /// What to do by the plan; `raises` is whether any backend raises.
    pub(super) fn next(&mut self, raises: bool) -> Next {
        let next = self.turn.next(&self.plan, raises);
        if let Next::Send(steps) = &next {
            steps.iter().for_each(|step| self.learned.memory.sending(step.slot, &step.changes));
        }
        next
    }

    /// Applies steps to the model of HAProxy instead of sending them.
    pub(super) fn simulate(&mut self, steps: &[Step]) {
        let Ok(running) = &mut self.running else { return };
        for Step { slot, changes } in steps {
            let server = running.get_mut(slot).expect("a plan is for slots that run");
            changes.iter().for_each(|change| model::apply(server, *change));
        }
    }

    pub(super) fn commands(&self, steps: &[Step]) -> Vec<Vec<Command>> {
        let commands = |step: &Step| {
            let server = format!("{}{}", self.target.backend.base, step.slot);
            step.changes.iter().filter_map(|change| Command::new(self.name(), &server, *change)).collect()
        };
        steps.iter().map(commands).collect()
    }

    /// What it shows of itself, by the `table` that its plan is for.
    pub(super) fn state(&self, table: &Table) -> BackendState {
        let Target { backend, kind } = &self.target;
        let state = BackendState {
            name: backend.name.clone(),
            base: backend.base.clone(),
            fallback: *kind == BackendKind::Fallback,
            fault: self.fault().map(ToString::to_string),
            spill_share: self.spill_share(),
            slots: vec![],
        };
        let Ok(running) = &self.running else { return state };
        let (desired, memory) = (&self.desired, &self.learned.memory);
        let view = View { desired, running, memory, size: self.size, options: self.options() };
        let slot = |slot| BackendSlot {
            slot,
            wanted: match desired.of(slot) {
                Some(Wanted::Serve { weight, .. }) => Some(weight),
                Some(Wanted::Maintenance) | None => None,
            },
            running: running.get(&slot).cloned(),
            cause: reason::cause(slot, table, view, &self.plan),
        };
        BackendState { slots: reason::slots(table, view).into_iter().map(slot).collect(), ..state }
    }

    /// What runs on its servers of these slots, given what runs on `servers`; slots that it does not have are left out.
    pub(super) fn sessions(
        &self,
        slots: &[SlotId],
        servers: Option<&BTreeMap<String, u64>>,
    ) -> Result<Vec<(SlotId, u64)>, TurnError> {
        let running = match &self.running {
            Ok(running) => running,
            Err(fault @ BackendFault::Unreadable(_)) => {
                return Err(TurnError::new(Subject::Haproxy, format!("backend {}: {fault}", self.name())));
            }
            // No server of it is ours.
            Err(_) => return Ok(Vec::new()),
        };
        let count = |slot: &SlotId| {
            let server = format!("{}{slot}", self.target.backend.base);
            let unknown = || {
                let text = format!("HAProxy does not tell the sessions of {}/{server}", self.name());
                TurnError::new(Subject::Haproxy, text)
            };
            let sessions = servers.and_then(|servers| servers.get(&server)).copied().ok_or_else(unknown)?;
            Ok((*slot, sessions))
        };
        slots.iter().filter(|slot| running.contains_key(slot)).map(count).collect()
    }

    pub(super) fn left(&self) -> usize {
        Sequencer::left(&self.plan)
    }
}

/// The servers of a backend by slot.
pub(super) fn slots(servers: &Servers, backend: &Backend) -> Result<BTreeMap<SlotId, Running>, BackendFault> {
    let base = backend.base.as_str();
    let slots: BTreeMap<SlotId, Running> =
        servers.iter().filter_map(|(name, server)| Some((number_of(name, base)?, server.clone()))).collect();
    let is_padded = |name: &&String| {
        let digits = name.strip_prefix(base).unwrap_or_default();
        digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    // `server-template` makes no leading zeros. If the small numbers have them, the large ones are not slots either.
    if let Some(padded) = servers.keys().find(is_padded).filter(|_| slots.range(..10).next().is_none()) {
        return Err(BackendFault::Padded(padded.clone()));
    }
    if slots.is_empty() {
        let found: BTreeSet<&str> = servers.keys().map(|name| likely_base(name)).collect();
        let found = found.into_iter().map(str::to_owned).collect();
        return Err(BackendFault::NoServers { base: base.to_owned(), found });
    }
    // A neighbour with a name, or one slot that somebody gave a name, is not the whole backend's fault.
    match slots.first_key_value() {
        Some((first, _)) if slots.values().all(|server| server.named) => {
            Err(BackendFault::Resolved(format!("{}/{base}{first}", backend.name)))
        }
        _ => Ok(slots),
    }
}

/// The servers that belong to hsdo: slots up to `size`, those that continue the numbers without a gap, and those that have a row.
pub(super) fn ours(mut slots: BTreeMap<SlotId, Running>, size: SlotId, desired: &Desired) -> BTreeMap<SlotId, Running> {
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

    #[test]
    fn which_servers_are_slots() {
        // Slot 5 has a row.
        let desired = Desired { slots: BTreeMap::from([(5, Wanted::Maintenance)]), max_row: 5, ..Desired::default() };
        let ours = |names: &[&str], base: &str, size: SlotId| {
            let backend = Backend { name: "back".to_owned(), base: base.to_owned(), port: None };
            slots(&servers(names), &backend).map(|slots| ours(slots, size, &desired).into_keys().collect::<Vec<_>>())
        };
        for (names, base, size, expected, why) in [
            (vec!["web1", "web2", "web3"], "web", 3, vec![1, 2, 3], "a template"),
            (vec!["web1", "web2", "web3", "web4"], "web", 2, vec![1, 2, 3, 4], "a larger one than is used"),
            (vec!["web1", "web3"], "web", 3, vec![1, 3], "one that was deleted"),
            (vec!["web1", "web2", "web5", "web6"], "web", 2, vec![1, 2, 5], "one beyond a gap that has a row"),
            (vec!["web1", "web2", "web2024"], "web", 2, vec![1, 2], "another server beyond a gap"),
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

    #[test]
    fn names_are_a_fault_only_if_all_slots_have_them() {
        let backend = Backend { name: "back".to_owned(), base: "web".to_owned(), port: None };
        let of = |named: &[&str]| {
            let mut servers = servers(&["web1", "web2", "sorry"]);
            named.iter().for_each(|name| servers.get_mut(*name).expect("a server").named = true);
            slots(&servers, &backend).map(|slots| slots.len())
        };
        assert_eq!((of(&[]), of(&["sorry"]), of(&["web2", "sorry"])), (Ok(2), Ok(2), Ok(2)));
        assert_eq!(of(&["web1", "web2"]), Err(BackendFault::Resolved("back/web1".to_owned())));
    }
}
