//! Makes HAProxy match a table: reads it, plans, sends, and reads again, until nothing differs or nothing helps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use log::{debug, info, warn};

use super::Target;
use super::hold::Holds;
use super::model;
use super::placement::{self, Desired, Rules};
use super::reconcile::{self, Options, Plan, Step};
use crate::error::Error;
use crate::haproxy::command::Verdict;
use crate::haproxy::state::{Servers, number_of};
use crate::haproxy::{self, Change, Command, Process, Reading, Running, Runtime};
use crate::log::Episode;
use crate::metrics::Metrics;
use crate::slot::{SlotId, Table};

/// How often HAProxy is read at most in one turn. A new server takes three stages (`reconcile`), taking others out one
/// more, a static algorithm's refusal one more; each is proved by the reading after it.
const PASSES: usize = 8;

/// Who keeps one HAProxy in step.
pub(super) struct Repair {
    runtime: Runtime,
    targets: Vec<Target>,
    rules: Arc<Rules>,
    size: SlotId,
    gate: bool,
    metrics: Arc<Metrics>,
    checked: bool,
    process: Option<Process>,
    /// Whether nothing was to be done about the last reading of HAProxy: while that stays so and the table is the same,
    /// nothing is to be done again.
    settled: bool,
    /// Whether the socket refused in the last turn.
    down: bool,
    /// Backends whose algorithm is static, learnt from HAProxy's refusal; forgotten when another process answers.
    static_backends: BTreeSet<String>,
    missing: Episode,
    held: Episode,
    /// Who keeps servers out of rotation, a memory for each target.
    holds: Vec<Holds>,
}

impl Repair {
    pub(super) fn new(
        runtime: Runtime,
        targets: Vec<Target>,
        rules: Arc<Rules>,
        size: SlotId,
        gate: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Repair {
            runtime,
            holds: targets.iter().map(|_| Holds::default()).collect(),
            targets,
            rules,
            size,
            gate,
            metrics,
            checked: false,
            process: None,
            settled: false,
            down: false,
            static_backends: BTreeSet::new(),
            missing: Episode::new("slots that HAProxy does not have"),
            held: Episode::new("servers held by hand"),
        }
    }

    /// Before the first command: does HAProxy have what is configured, and may we change it?
    pub(super) fn check_once(&mut self) -> Result<(), Error> {
        if !self.checked {
            let names: Vec<(&str, &str)> = self
                .targets
                .iter()
                .map(|target| (target.backend.name.as_str(), target.backend.base.as_str()))
                .collect();
            let checked = self.runtime.check(&names);
            self.metrics.set_haproxy_up(checked.is_ok());
            self.down = matches!(checked, Err(haproxy::Error::Connect { .. }));
            checked?;
            self.checked = true;
        }
        Ok(())
    }

    /// One turn's work. `known` is the highest slot number that may have a row.
    pub(super) fn run(&mut self, table: &Table, known: SlotId) -> Result<(), Error> {
        let result = self.converge(table, known);
        self.metrics.set_haproxy_up(!matches!(result, Err(Error::Haproxy(_))));
        self.down = matches!(result, Err(Error::Haproxy(haproxy::Error::Connect { .. })));
        result
    }

    /// The table is another one than in the last [`Repair::run`].
    pub(super) fn table_changed(&mut self) {
        self.settled = false;
    }

    /// Whether the socket refused in the last turn.
    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    /// Whether anybody listens on the socket now.
    pub(super) fn answers(&self) -> bool {
        self.runtime.answers()
    }

    fn converge(&mut self, table: &Table, known: SlotId) -> Result<(), Error> {
        let mut refusals = Refusals::default();
        let mut raised: Vec<Vec<Command>> = Vec::new();
        let mut lowered = false;
        let mut left = 0;
        let mut reading = if std::mem::take(&mut self.settled) {
            match self.read_other()? {
                Some(reading) => reading,
                None => {
                    self.settled = true;
                    return Ok(());
                }
            }
        } else {
            self.read()?
        };
        let desired = self.place(table, known);
        for pass in 1..=PASSES {
            let plans = self.plan(&desired, &reading.backends);
            self.report(&plans);
            let raise = self.commands(&plans, |plan| &plan.raise);
            let lower = self.commands(&plans, |plan| &plan.lower);
            left = raise.iter().chain(&lower).map(Vec::len).sum();
            for (holds, plan) in self.holds.iter_mut().zip(&plans) {
                holds.sending(plan);
            }
            // The same commands again: they did not help, so what is to be taken out is not kept waiting for them.
            if !raise.is_empty() && raise != raised {
                self.send(&raise, &mut refusals)?;
                raised = raise;
            } else if !lower.is_empty() && !lowered {
                for command in lower.iter().flatten().filter(|command| command.change() == Change::Maintenance) {
                    info!("{}/{}: out, into maintenance", command.backend(), command.server());
                }
                self.send(&lower, &mut refusals)?;
                lowered = true;
            } else {
                break;
            }
            if pass < PASSES {
                reading = self.read()?;
            }
        }
        self.settled = left == 0;
        if left > 0 { Err(refusals.error(left)) } else { Ok(()) }
    }

    /// The commands that a turn would send, played on a model of HAProxy.
    pub(super) fn rehearse(&mut self, table: &Table, known: SlotId) -> Result<Vec<String>, Error> {
        let mut backends = self.read()?.backends;
        let desired = self.place(table, known);
        let mut texts = Vec::new();
        for _ in 0..PASSES {
            let plans = self.plan(&desired, &backends);
            let mut commands = self.commands(&plans, |plan| &plan.raise);
            if commands.is_empty() {
                commands = self.commands(&plans, |plan| &plan.lower);
            }
            for command in commands.iter().flatten() {
                texts.push(command.to_string());
                let server = backends.get_mut(command.backend()).and_then(|servers| servers.get_mut(command.server()));
                if let Some(server) = server {
                    model::apply(server, command.change(), 1, true);
                }
            }
            if commands.is_empty() {
                break;
            }
        }
        Ok(texts)
    }

    /// What HAProxy runs.
    fn read(&mut self) -> Result<Reading, Error> {
        let reading = self.runtime.read(&names(&self.targets))?;
        self.meet(&reading.process);
        Ok(reading)
    }

    /// What HAProxy runs; `None` where that is what it ran at the last reading.
    fn read_other(&mut self) -> Result<Option<Reading>, Error> {
        let reading = self.runtime.read_other(&names(&self.targets))?;
        if let Some(reading) = &reading {
            self.meet(&reading.process);
        }
        Ok(reading)
    }

    /// Forgets what was known of a process, if another one answered.
    fn meet(&mut self, process: &Process) {
        let before = self.process.replace(process.clone());
        let Process { pid, version, .. } = process;
        match before {
            Some(before) if !process.is_other_than(&before) => return,
            Some(before) => info!("another HAProxy answers: {version}, pid {pid}, after pid {}", before.pid),
            None => info!("HAProxy {version} answers, pid {pid}"),
        }
        self.static_backends.clear();
        self.holds.iter_mut().for_each(Holds::forget);
    }

    /// What each target is to be.
    fn place(&self, table: &Table, known: SlotId) -> Vec<Desired> {
        self.targets.iter().map(|target| placement::place(table, target.kind, &self.rules, known)).collect()
    }

    fn plan(&mut self, desired: &[Desired], backends: &BTreeMap<String, Servers>) -> Vec<Plan> {
        let plan = |((target, desired), holds): ((&Target, &Desired), &mut Holds)| {
            let options = Options {
                port: target.backend.port,
                gate: self.gate,
                static_weights: self.static_backends.contains(&target.backend.name),
            };
            let running = slots_of(target, &backends[&target.backend.name]);
            let held = holds.observe(desired, &running, target.backend.port);
            reconcile::plan(desired, &running, &held, self.size, options)
        };
        self.targets.iter().zip(desired).zip(&mut self.holds).map(plan).collect()
    }

    /// The commands of all targets' steps, in order, those of a step together.
    fn commands(&self, plans: &[Plan], steps: impl Fn(&Plan) -> &Vec<Step>) -> Vec<Vec<Command>> {
        let commands = |target: &Target, step: &Step| {
            let server = format!("{}{}", target.backend.base, step.slot);
            step.changes.iter().filter_map(|change| Command::new(&target.backend.name, &server, *change)).collect()
        };
        let targets = self.targets.iter().zip(plans);
        targets.flat_map(|(target, plan)| steps(plan).iter().map(move |step| commands(target, step))).collect()
    }

    fn send(&mut self, steps: &[Vec<Command>], refusals: &mut Refusals) -> Result<(), Error> {
        let mut refused = 0_u64;
        let mut static_backends = Vec::new();
        let mut done = Vec::new();
        let sent = self.runtime.send(steps, |command, verdict| match verdict {
            Verdict::Done => done.push(command),
            Verdict::StaticWeight => {
                refused += 1;
                static_backends.push(command.backend().to_owned());
            }
            Verdict::Refused(reply) => {
                refused += 1;
                refusals.commands.push(format!("`{command}` was answered {reply:?}"));
                refusals.answers.insert(reply);
            }
        });
        // Not between two lines: HAProxy would wait.
        done.iter().for_each(|command| tell(command));
        let ok = done.len() as u64;
        for backend in static_backends {
            if self.static_backends.insert(backend.clone()) {
                warn!(
                    "backend {backend} has a static balancing algorithm and takes no weights but 0 and the configured \
                     one, so servers do not ramp there; add `hash-type consistent` to it, or balance by roundrobin, \
                     leastconn or random"
                );
            }
        }
        self.metrics.haproxy_command("ok", ok);
        self.metrics.haproxy_command("refused", refused);
        if sent.is_err() {
            let all: usize = steps.iter().map(Vec::len).sum();
            self.metrics.haproxy_command("failed", all as u64 - ok - refused);
        }
        Ok(sent?)
    }

    /// What the plans say beside their commands.
    fn report(&mut self, plans: &[Plan]) {
        let name = |pick: fn(&Plan) -> &Vec<SlotId>| {
            let names =
                self.targets.iter().zip(plans).filter(|(_, plan)| !pick(plan).is_empty()).map(|(target, plan)| {
                    format!("{}/{}{}", target.backend.name, target.backend.base, ranges(pick(plan)))
                });
            names.collect::<Vec<_>>().join(", ")
        };
        let count = |pick: fn(&Plan) -> &Vec<SlotId>| plans.iter().map(|plan| pick(plan).len()).sum::<usize>();
        let (missing, held) = (name(|plan| &plan.missing), name(|plan| &plan.held));
        self.metrics.set_missing_slots(count(|plan| &plan.missing));
        self.metrics.set_held_slots(count(|plan| &plan.held));
        let missing_text = format!(
            "{missing}: the `server-template` is smaller than HAPROXY_BACKEND_SERVERS_LIST_SIZE ({}) or the table; \
             they get no traffic here until it is enlarged",
            self.size
        );
        self.missing.report((!missing.is_empty()).then_some((missing.as_str(), missing_text.as_str())));
        let held_text =
            format!("{held}: an operator set drain or maintenance; left so until `set server … state ready`");
        self.held.report((!held.is_empty()).then_some((held.as_str(), held_text.as_str())));
    }
}

/// The backends of these targets.
fn names(targets: &[Target]) -> Vec<&str> {
    targets.iter().map(|target| target.backend.name.as_str()).collect()
}

/// The servers of a target by their slot.
fn slots_of(target: &Target, servers: &Servers) -> BTreeMap<SlotId, Running> {
    let slot = |(name, server): (&String, &Running)| Some((number_of(name, &target.backend.base)?, server.clone()));
    servers.iter().filter_map(slot).collect()
}

/// What a done command means, for the log.
fn tell(command: &Command) {
    let (backend, server) = (command.backend(), command.server());
    match command.change() {
        Change::Address(address, port) => info!("{backend}/{server}: now {address} port {port}"),
        Change::Maintenance => debug!("{backend}/{server}: into maintenance"),
        Change::Ready => debug!("{backend}/{server}: ready"),
        Change::Weight(weight) => debug!("{backend}/{server}: weight {weight}"),
        Change::ConfiguredWeight => debug!("{backend}/{server}: configured weight"),
    }
}

/// What HAProxy refused in a turn.
#[derive(Default)]
struct Refusals {
    /// Each command with its answer.
    commands: Vec<String>,
    /// The answers, each once.
    answers: BTreeSet<String>,
}

impl Refusals {
    /// The error of a turn that leaves so many commands to do.
    fn error(self, left: usize) -> Error {
        let count = self.commands.len();
        let shown = self.commands.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        let more = if count > 3 { format!("; and {} more", count - 3) } else { String::new() };
        let text = match count {
            0 => format!("HAProxy does not show what {left} commands asked of it"),
            _ => format!("HAProxy refused {count} commands: {shown}{more}"),
        };
        Error::Unheeded { answers: self.answers.into_iter().collect::<Vec<_>>().join("; "), text }
    }
}

/// Numbers for a person: `[1-3,7]`.
fn ranges(ids: &[SlotId]) -> String {
    let mut runs: Vec<(SlotId, SlotId)> = Vec::new();
    for &id in ids {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == id => *end = id,
            _ => runs.push((id, id)),
        }
    }
    let runs: Vec<String> = runs
        .iter()
        .map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") })
        .collect();
    format!("[{}]", runs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_commands_and_stays_one_fault_whatever_they_are() {
        let error = |commands: &[(&str, &str)], left| {
            let mut refusals = Refusals::default();
            for (command, answer) in commands {
                refusals.commands.push(format!("`{command}` was answered {answer:?}"));
                refusals.answers.insert((*answer).to_owned());
            }
            refusals.error(left)
        };
        let one = error(&[("a", "No."), ("b", "No."), ("c", "Never."), ("d", "No.")], 4);
        let text = "HAProxy refused 4 commands: `a` was answered \"No.\"; `b` was answered \"No.\"; \
                    `c` was answered \"Never.\"; and 1 more";
        assert_eq!(one.to_string(), text);
        assert_eq!(one.key(), error(&[("e", "Never."), ("f", "No.")], 2).key());
        assert_ne!(one.key(), error(&[("a", "No.")], 1).key());
        let none = error(&[], 3);
        assert_eq!(none.to_string(), "HAProxy does not show what 3 commands asked of it");
        assert_eq!(none.key(), error(&[], 5).key());
    }

    #[test]
    fn slot_numbers_for_a_person() {
        for (ids, text) in [(vec![4], "[4]"), (vec![1, 2, 3, 7], "[1-3,7]"), (vec![1, 3], "[1,3]")] {
            assert_eq!(ranges(&ids), text);
        }
    }
}
