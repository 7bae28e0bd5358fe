//! Orders of operators: `hsdo drain` and `hsdo enable`, from one shell or from two at once, and what the table has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::hsdo::{Hsdo, Running};
use crate::common::moto::{Item, text_of};
use crate::fleet::{Instance, Scene, ZONES, ip};
use crate::{Chaos, SLOTS};

/// How long a shell may take before its operator ends it.
const PATIENCE: Duration = Duration::from_secs(6);
/// So many of the first group stay in service and without an order, so that each HAProxy has a serving server.
const MIN_WITHOUT: usize = 2;
/// Around the second in which an order lapses, either state is right.
const BLURRED: i64 = 2;

/// The orders of a table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Their targets.
    pub(crate) targets: BTreeSet<String>,
    /// What [`Scene::ordered`] is by them: an ordered slot is its occupant's name.
    pub(crate) ordered: BTreeSet<String>,
    /// One of them lapses about now.
    pub(crate) is_blurred: bool,
    /// The targets of those that lapsed and are still there.
    pub(crate) over: BTreeSet<String>,
}

impl InForce {
    pub(crate) fn of(rows: &BTreeMap<u32, Item>) -> Self {
        let mut found = InForce::default();
        let map = rows.get(&1).and_then(|item| item.get("HsdoOrders")?.get("M")?.as_object());
        for (target, entry) in map.into_iter().flatten() {
            let until = entry["M"]["Until"]["N"].as_str().map(|text| text.parse::<i64>().expect("whole seconds"));
            let left = until.map(|until| until - now());
            found.is_blurred |= left.is_some_and(|left| left.abs() <= BLURRED);
            if left.is_some_and(|left| left <= 0) {
                found.over.insert(target.clone());
            } else {
                found.targets.insert(target.clone());
                found.ordered.extend(ordered(target, rows));
            }
        }
        found
    }
}

/// What [`Scene::ordered`] is by one order.
fn ordered(target: &str, rows: &BTreeMap<u32, Item>) -> Option<String> {
    let Some(slot) = target.strip_prefix("slot:") else { return Some(target.to_owned()) };
    let name = text_of(rows.get(&slot.parse().ok()?)?, "ServerName")?;
    (name != "none").then_some(name)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64)
}

pub(crate) fn zone_target(zone: usize) -> String {
    format!("zone:{}", ZONES[zone])
}

/// One command of an operator.
#[derive(Clone, Debug)]
struct Command {
    lifts: bool,
    target: String,
    /// Seconds until it lapses.
    lasts: Option<u64>,
}

impl Chaos {
    /// Orders are given and lifted at random.
    pub(crate) fn give_orders(&mut self) {
        let is_held = self.sites.iter().any(|site| !site.held.is_empty());
        // Where servers are missing already, an order might take the last one.
        if self.all_leave || is_held || self.has_disabled_rows() || !self.fleet.scene().unlisted.is_empty() {
            return;
        }
        let mut commands = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            commands.extend(self.command());
        }
        self.run_shells(&commands);
    }

    fn command(&mut self) -> Option<Command> {
        let known: Vec<String> = self.orders.iter().cloned().collect();
        if !known.is_empty() && self.random.percent(30) {
            return Some(Command { lifts: true, target: self.random.pick(&known).clone(), lasts: None });
        }
        let scene = self.fleet.scene();
        let rows = self.bed.aws().with_table_locked(|| self.bed.moto().rows());
        let ids: Vec<&String> = scene.instances.keys().collect();
        let target = match self.random.below(4) {
            0 | 1 => zone_target(self.random.below(ZONES.len() as u64) as usize),
            2 => format!("slot:{}", 1 + self.random.below(u64::from(SLOTS))),
            _ => (*self.random.pick(&ids)).clone(),
        };
        let mut after = scene;
        after.ordered.extend(ordered(&target, &rows));
        if after.in_service(0).len() < MIN_WITHOUT {
            return None;
        }
        self.orders.insert(target.clone());
        self.set_ordered(after);
        let lasts = self.random.percent(60).then(|| 1 + self.random.below(6));
        Some(Command { lifts: false, target, lasts })
    }

    /// From now on the instances of such a scene may be drained at any moment.
    fn set_ordered(&mut self, scene: Scene) {
        let drained: BTreeSet<IpAddr> = scene.instances.values().filter(|it| scene.is_ordered(it)).map(ip).collect();
        for back in self.sites.iter().flat_map(|site| &site.backs) {
            back.watcher.release(&drained);
        }
        self.fleet.set(scene);
    }

    /// Runs all of them at once.
    fn run_shells(&mut self, commands: &[Command]) {
        if commands.len() > 1 {
            self.count("orders from two shells at once");
        }
        let mut shells: Vec<(Command, Running)> = Vec::new();
        for command in commands {
            self.say(&format!("an operator: {command:?}"));
            shells.push((command.clone(), self.shell(command).spawn()));
        }
        let deadline = Instant::now() + PATIENCE;
        for (command, mut shell) in shells {
            let status = loop {
                match shell.process().status() {
                    None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                    status => break status,
                }
            };
            let Some(status) = status else {
                shell.kill();
                self.count("order: its shell was ended");
                self.given.remove(&command.target);
                continue;
            };
            let (code, text) = (status.code(), shell.process().stderr());
            assert!(
                matches!(code, Some(0..=2)) && !text.contains("panicked"),
                "{command:?} ended with {status}: {text}"
            );
            let verb = if command.lifts { "lifted" } else { "given" };
            self.count(&format!("order {}{verb}", if code == Some(0) { "" } else { "not " }));
            self.say(&format!("{command:?}: {code:?} {text}"));
            if command.lifts || code != Some(0) {
                // Perhaps it was carried out, and perhaps not.
                self.given.remove(&command.target);
            } else {
                // Two shells that give one order: either may be the later one.
                let twice = commands.iter().filter(|other| other.target == command.target).count() > 1;
                let until = command.lasts.map(|secs| now() + secs as i64 - BLURRED);
                let certain = if twice { None } else { Some(until.unwrap_or(i64::MAX)) };
                self.given.extend(certain.map(|until| (command.target.clone(), until)));
            }
        }
    }

    fn shell(&self, command: &Command) -> Hsdo {
        let hsdo = Hsdo::in_dir(self.bed.dir(), &self.bed.aws().url(), "shell")
            .arg(if command.lifts { "enable" } else { "drain" })
            .arg(&command.target)
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
            .env("AWS_ACCESS_KEY_ID", "operator");
        match (command.lifts, command.lasts) {
            (true, _) => hsdo,
            (false, None) => hsdo.arg("--yes"),
            (false, Some(secs)) => hsdo.arg("--yes").arg("--for").arg(&format!("{secs}s")),
        }
    }

    /// At the end of a round some are lifted; others stand, and everything has to be right with them.
    pub(crate) fn lift_some(&mut self) {
        let known: Vec<String> = self.orders.iter().cloned().collect();
        let lift = |target| self.random.percent(50).then_some(Command { lifts: true, target, lasts: None });
        let commands: Vec<Command> = known.into_iter().filter_map(lift).collect();
        self.run_shells(&commands);
    }

    /// An order that somebody was told is given, and that is in the table no longer, though it was not lifted and has not lapsed.
    pub(crate) fn lost_order(&self, found: &InForce) -> Option<String> {
        let ended = |target: &String| target.starts_with("i-") && !self.fleet.scene().instances.contains_key(target);
        let lost = self.given.iter().filter(|(target, until)| **until > now() && !found.targets.contains(*target));
        lost.map(|(target, _)| target)
            .find(|target| !ended(target))
            .map(|target| format!("the order on {target} is lost"))
    }

    /// The table was edited: what orders it has is not known.
    pub(crate) fn forget_orders(&mut self) {
        self.given.clear();
    }

    /// The world is settled with these.
    pub(crate) fn settle_orders(&mut self, found: InForce) {
        let stand = if found.targets.is_empty() { "settled" } else { "settled with orders" };
        self.count(stand);
        self.orders = found.targets;
        let scene = self.fleet.scene();
        self.fleet.set(Scene { ordered: found.ordered, ..scene });
        self.given.retain(|target, _| self.orders.contains(target));
    }
}

/// Whether an order names an instance: by its own name or its zone.
pub(crate) fn names(ordered: &BTreeSet<String>, instance: &Instance) -> bool {
    ordered.contains(&instance.id) || ordered.contains(&zone_target(instance.zone))
}
