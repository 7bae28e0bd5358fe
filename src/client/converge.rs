//! Makes HAProxy match a table: reads, plans, sends and reads again, until nothing differs or nothing helps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use log::{debug, info, warn};

use super::Target;
use super::backend::ManagedBackend;
use super::placement::{History, Rules};
use super::reconcile::{BackendPlan, Step};
use super::report::{self, Refusals, Report};
use super::sequencer::Next;
use super::stage::PARKED;
use crate::about::About;
use crate::metrics::Metrics;
use crate::ports::{Board, Change, ClientState, Command, Haproxy, Process, Reading, Subject, TurnError, Verdict};
use crate::slot::{SlotId, Table};

/// What a load balancer is like at the end of a turn.
pub(super) struct Account {
    /// Whether HAProxy matches the table, but for what is held, blocked or missing there.
    pub(super) matches: bool,
    pub(super) haproxy: String,
    pub(super) sessions: BTreeMap<SlotId, u64>,
    pub(super) held: Vec<String>,
    /// In sixteenths.
    pub(super) spill: u8,
}

pub(super) struct Converge<H> {
    haproxy: H,
    backends: Vec<ManagedBackend>,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    /// The process that answered last.
    process: Option<Process>,
    /// Where to show the state of every turn that compared something.
    board: Option<Arc<dyn Board>>,
    /// Whether a reading has found at least one usable backend.
    started: bool,
    /// Whether the last reading needed no steps. If neither HAProxy nor the table changes, the next turn needs none either.
    in_sync: bool,
    /// Whether the last turn could not connect.
    down: bool,
    /// Whether it found no HAProxy.
    gone: bool,
    /// Another process has answered since [`Converge::is_renewed`] was asked.
    renewed: bool,
    report: Report,
}

impl<H: Haproxy> Converge<H> {
    pub(super) fn new(
        haproxy: H,
        targets: Vec<Target>,
        rules: Arc<Rules>,
        size: SlotId,
        gate: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Converge {
            haproxy,
            backends: targets.into_iter().map(|target| ManagedBackend::new(target, size, gate)).collect(),
            rules,
            report: Report::new(size, Arc::clone(&metrics)),
            metrics,
            process: None,
            board: None,
            started: false,
            in_sync: false,
            down: false,
            gone: false,
            renewed: false,
        }
    }

    /// Checks, before there is a table, that HAProxy has the configured backends and lets hsdo change them.
    pub(super) fn check_once(&mut self) -> Result<(), TurnError> {
        if self.started {
            return Ok(());
        }
        let checked = self.read();
        self.record(&checked);
        checked
    }

    /// Runs one turn. `history` is what earlier tables have shown.
    pub(super) fn run(&mut self, table: &Table, history: History, now: Instant) -> Result<(), TurnError> {
        let result = self.converge(table, history, now);
        self.record(&result);
        result
    }

    fn record<T>(&mut self, result: &Result<T, TurnError>) {
        self.metrics.set_haproxy_up(!matches!(result, Err(error) if error.subject == Subject::Haproxy));
        self.down = matches!(result, Err(error) if error.is_disconnected);
        self.gone = matches!(result, Err(error) if error.is_gone);
    }

    pub(super) fn table_changed(&mut self) {
        self.in_sync = false;
    }

    /// Whether the last turn could not connect.
    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    /// Whether the last turn found no HAProxy.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether another process has answered since this was last asked.
    pub(super) fn is_renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    pub(super) fn has_unopened(&self) -> bool {
        self.backends.iter().any(|backend| backend.plan.unopened)
    }

    pub(super) fn is_listening(&self) -> bool {
        self.haproxy.is_listening()
    }

    fn converge(&mut self, table: &Table, history: History, now: Instant) -> Result<(), TurnError> {
        if std::mem::take(&mut self.in_sync) {
            let names: Vec<&str> = names(&self.backends);
            if self.haproxy.unchanged(&names)? {
                self.in_sync = true;
                return Ok(());
            }
        }
        self.begin(table, history);
        let mut refusals = Refusals::default();
        self.read()?;
        self.decide_spill(now);
        loop {
            let next = self.next(now);
            if next.iter().all(|next| *next == Next::Done) {
                break;
            }
            let mut commands = Vec::new();
            for (backend, next) in self.backends.iter().zip(next) {
                if let Next::Send(steps) = next {
                    log_retiring(backend, &steps);
                    commands.extend(backend.commands(&steps));
                }
            }
            self.send(&commands, &mut refusals)?;
            self.read()?;
        }
        self.report.publish(&self.backends);
        self.show(table);
        let left: usize = self.backends.iter().map(ManagedBackend::left).sum();
        let open =
            |backend: &ManagedBackend| backend.plan.pending || backend.fault().is_some() || backend.watches_time();
        self.in_sync = left == 0 && !self.backends.iter().any(open);
        if left > 0 { Err(refusals.error(left)) } else { Ok(()) }
    }

    pub(super) fn show_on(&mut self, board: Arc<dyn Board>) {
        self.board = Some(board);
    }

    fn show(&self, table: &Table) {
        if let Some(board) = &self.board {
            let backends = self.backends.iter().map(|backend| backend.state(table)).collect();
            board.publish(ClientState { table: table.clone(), process: self.process.clone(), backends });
        }
    }

    /// What this load balancer is like after a turn without errors, with the sessions on the servers of the slots in `leaving`.
    pub(super) fn account(&mut self, leaving: &[SlotId]) -> Result<Account, TurnError> {
        let sessions = if leaving.is_empty() { BTreeMap::new() } else { self.sessions(leaving)? };
        let held = |backend: &ManagedBackend| {
            let target = backend.target.backend.clone();
            backend.plan.held.clone().into_iter().map(move |slot| format!("{}/{}{slot}", target.name, target.base))
        };
        let unfinished = |backend: &ManagedBackend| {
            let BackendPlan { unopened, covering, contested, .. } = &backend.plan;
            *unopened || !covering.is_empty() || !contested.is_empty() || backend.left() > 0
        };
        Ok(Account {
            matches: !self.backends.iter().any(unfinished),
            haproxy: self.process.as_ref().map(|process| process.version.clone()).unwrap_or_default(),
            sessions,
            held: self.backends.iter().flat_map(held).collect(),
            spill: self.backends.iter().filter_map(ManagedBackend::spill_level).max().unwrap_or_default(),
        })
    }

    /// What runs on the servers of these slots, over all backends. Unknown is an error: it must not pass for nothing.
    fn sessions(&mut self, slots: &[SlotId]) -> Result<BTreeMap<SlotId, u64>, TurnError> {
        let all = self.haproxy.sessions(&names(&self.backends))?;
        let mut sum: BTreeMap<SlotId, u64> = slots.iter().map(|slot| (*slot, 0)).collect();
        for backend in &self.backends {
            let here = backend.sessions(slots, all.get(backend.name()))?;
            for (slot, count) in here {
                *sum.entry(slot).or_default() += count;
            }
        }
        Ok(sum)
    }

    /// The commands that a turn would send, simulated on the model of HAProxy.
    pub(super) fn dry_run(&mut self, table: &Table, history: History, now: Instant) -> Result<Vec<String>, TurnError> {
        self.begin(table, history);
        self.read()?;
        self.decide_spill(now);
        let mut texts = Vec::new();
        loop {
            let next = self.next(now);
            if next.iter().all(|next| *next == Next::Done) {
                break;
            }
            for (backend, next) in self.backends.iter_mut().zip(next) {
                if let Next::Send(steps) = next {
                    texts.extend(backend.commands(&steps).iter().flatten().map(Command::to_string));
                    backend.simulate(&steps);
                }
            }
        }
        self.report.publish(&self.backends);
        Ok(texts)
    }

    /// What each backend is to do after a reading.
    fn next(&mut self, now: Instant) -> Vec<Next> {
        self.backends.iter_mut().for_each(|backend| backend.plan(now));
        let raises = self.backends.iter().any(ManagedBackend::raises);
        self.backends.iter_mut().map(|backend| backend.next(raises)).collect()
    }

    fn decide_spill(&mut self, now: Instant) {
        let below = self.rules.spill_below;
        self.backends.iter_mut().for_each(|backend| backend.decide_spill(below, now));
    }

    fn begin(&mut self, table: &Table, history: History) {
        for backend in &mut self.backends {
            backend.begin(table, &self.rules, history);
        }
    }

    fn read(&mut self) -> Result<(), TurnError> {
        let Reading { process, is_new, backends } = self.haproxy.read(&names(&self.backends))?;
        if is_new {
            let Process { pid, version, .. } = &process;
            match &self.process {
                Some(before) => info!("another HAProxy answers: {version}, pid {pid}, previously pid {}", before.pid),
                None => info!("HAProxy {version} answers, pid {pid}"),
            }
        }
        self.process = Some(process);
        self.renewed |= is_new;
        for backend in &mut self.backends {
            if is_new {
                backend.reset();
            }
            backend.update(&backends[backend.name()]);
        }
        if self.backends.iter().all(|backend| backend.fault().is_some()) {
            self.metrics.set_missing_backends(self.backends.len());
            let text = report::faults(&self.backends).join("; ");
            let about = report::about_faults(&self.backends);
            return Err(TurnError { needs_operator: true, about, ..TurnError::new(Subject::Haproxy, text) });
        }
        self.started = true;
        Ok(())
    }

    fn send(&mut self, steps: &[Vec<Command>], refusals: &mut Refusals) -> Result<(), TurnError> {
        let (mut refused, mut done) = (0_u64, Vec::new());
        let mut static_backends = BTreeSet::new();
        let backends = &self.backends;
        let sent = self.haproxy.send(steps, &mut |command, verdict| match verdict {
            Verdict::Done => done.push(command.clone()),
            Verdict::StaticWeight => {
                refused += 1;
                static_backends.insert(command.backend().to_owned());
            }
            Verdict::Refused(reply) => {
                refused += 1;
                refusals.add(command, about(backends, command), reply);
            }
        });
        // Log after sending, not between two lines, so that HAProxy does not wait.
        for (index, command) in done.iter().enumerate() {
            // What is opened has had its address since it was filled.
            let opens = done.get(index + 1).is_some_and(|next| {
                next.change() == Change::Ready
                    && (next.backend(), next.server()) == (command.backend(), command.server())
            });
            if !opens {
                log_done(command, slot_of(&self.backends, command));
            }
        }
        let ok = done.len() as u64;
        for backend in &mut self.backends {
            if static_backends.contains(backend.name()) && backend.note_static() {
                warn!(
                    backend = backend.name();
                    "backend {} has a static balancing algorithm, which accepts only weight 0 and the configured one, so servers do \
                     not ramp there; add `hash-type consistent` to it, or balance by roundrobin, leastconn or random",
                    backend.name()
                );
            }
        }
        self.metrics.haproxy_command("ok", ok);
        self.metrics.haproxy_command("refused", refused);
        if sent.is_err() {
            let all: usize = steps.iter().map(Vec::len).sum();
            self.metrics.haproxy_command("failed", (all as u64).saturating_sub(ok + refused));
        }
        sent
    }
}

fn names(backends: &[ManagedBackend]) -> Vec<&str> {
    let names: BTreeSet<&str> = backends.iter().map(ManagedBackend::name).collect();
    names.into_iter().collect()
}

fn log_retiring(backend: &ManagedBackend, steps: &[Step]) {
    let target = &backend.target.backend;
    for step in steps.iter().filter(|step| step.changes.as_slice() == [Change::Weight(0), Change::Maintenance]) {
        let server = format!("{}{}", target.base, step.slot);
        info!(slot = step.slot, backend = target.name, server; "{}/{server}: out, into maintenance", target.name);
    }
}

fn slot_of(backends: &[ManagedBackend], command: &Command) -> Option<SlotId> {
    backends.iter().find_map(|backend| backend.slot_of(command))
}

fn about(backends: &[ManagedBackend], command: &Command) -> About {
    About::default().slot(slot_of(backends, command)).backend([command.backend()]).server([command.server()])
}

fn log_done(command: &Command, slot: Option<SlotId>) {
    let (backend, server) = (command.backend(), command.server());
    match command.change() {
        Change::Address(PARKED, _) => debug!(slot, backend, server; "{backend}/{server}: parked"),
        Change::Address(address, Some(port)) => {
            info!(slot, backend, server; "{backend}/{server}: now {address} port {port}");
        }
        Change::Address(address, None) => info!(slot, backend, server; "{backend}/{server}: now {address}"),
        Change::HealthDown => {
            info!(slot, backend, server, cause = "waiting"; "{backend}/{server}: waiting for its check");
        }
        Change::Maintenance => debug!(slot, backend, server; "{backend}/{server}: into maintenance"),
        Change::Ready => debug!(slot, backend, server; "{backend}/{server}: ready"),
        Change::Weight(weight) => debug!(slot, backend, server; "{backend}/{server}: weight {weight}"),
        Change::ConfiguredWeight => debug!(slot, backend, server; "{backend}/{server}: configured weight"),
    }
}
