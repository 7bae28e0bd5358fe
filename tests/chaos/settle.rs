//! What must hold, during a round and after its faults have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::moto::{Item, text_of};
use crate::fleet::{Expected, GROUPS, Scene, ZONES, ip};
use crate::orders::InForce;
use crate::role::{Role, State};
use crate::{Chaos, SLOTS};

/// The longest time for a round to settle: a lease expiry, hung calls, ramps, checks, a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Turns until everything must be right, plus the one in flight.
const TURNS: f64 = 3.0;
/// Turns that may still fail: the one in flight, and one whose connection the fault broke.
const FAILURES: f64 = 2.0;
const PAUSE: Duration = Duration::from_millis(30);

/// Turns of a process since the faults ended.
#[derive(Clone, Copy, Debug, Default)]
struct TurnsSince {
    start: Option<(f64, f64)>,
    ok: f64,
    failed: f64,
}

impl TurnsSince {
    fn see(&mut self, state: State) {
        let (ok, failed) = *self.start.get_or_insert((state.ok, state.failed));
        (self.ok, self.failed) = (state.ok - ok, state.failed - failed);
    }
}

impl Chaos {
    /// Waits until everything matches the fleet, and protects it from then on.
    pub(crate) fn settle(&mut self, round: usize) {
        let begun = Instant::now();
        let mut scene = self.fleet.scene();
        let mut in_force = InForce::default();
        let mut leader: Option<(usize, TurnsSince)> = None;
        let mut table_right = false;
        // Consul's responses arrive on their own schedule: a turn uses what is known by then.
        let of_consul = self.consul.is_some();
        let mut clients = vec![TurnsSince::default(); self.sites.len()];
        let settled = loop {
            self.check_watchers();
            self.take_requests();
            for site in &mut self.sites {
                site.look_at_outage();
            }
            // Read turns first: a fault seen after that many of them has lasted too long.
            let states: Vec<State> = self.servers.iter_mut().map(Role::look).collect();
            let leading = states.iter().position(|state| state.leads);
            match (&mut leader, leading) {
                (Some((known, since)), Some(now)) if *known == now => since.see(states[now]),
                (_, Some(now)) => {
                    let mut since = TurnsSince::default();
                    since.see(states[now]);
                    leader = Some((now, since));
                }
                (_, None) => leader = None,
            }
            let rows = self.bed.aws().with_table_locked(|| self.bed.moto().rows());
            let found = InForce::of(&rows);
            if found.is_blurred || found.ordered != in_force.ordered {
                (leader, table_right) = (None, false);
                clients.fill(TurnsSince::default());
            }
            scene.ordered.clone_from(&found.ordered);
            in_force = found;
            let fault = self.table_fault(&scene, &rows).or_else(|| self.order_fault(&in_force));
            let turned = leader.map_or(0.0, |(_, since)| since.ok);
            table_right |= fault.is_none() && turned >= 2.0;
            if let Some(fault) = fault.as_ref().filter(|_| round > 0 && !of_consul && turned > TURNS) {
                self.fail(&format!("{turned} turns of the leader, and the table is wrong: {fault}"));
            }
            let mut wrong = fault;
            for (place, since) in clients.iter_mut().enumerate() {
                let state = self.sites[place].client.look();
                if table_right {
                    since.see(state);
                }
                if self.sites[place].waits() {
                    *since = TurnsSince::default();
                }
                let (site, since) = (&self.sites[place], *since);
                if let Some(fault) = site.fault(&scene, &rows, false).filter(|_| round > 0 && since.ok > TURNS) {
                    self.fail(&format!("{} turns of the client, and HAProxy is wrong: {fault}", since.ok));
                }
                if !of_consul && (since.failed > FAILURES || leader.is_some_and(|(_, since)| since.failed > FAILURES)) {
                    self.fail(&format!("turns keep failing: client {since:?}, leader {leader:?}"));
                }
                if let Some(fault) = site.fault(&scene, &rows, true) {
                    wrong.get_or_insert(fault);
                }
            }
            match wrong {
                None if table_right
                    && !in_force.is_blurred
                    && self.sites.iter().all(|site| site.outages.last().is_none_or(|o| o.1.is_some())) =>
                {
                    break Instant::now();
                }
                wrong if begun.elapsed() > TIMEOUT => {
                    self.fail(&format!("not settled after {TIMEOUT:?}: {wrong:?}, leader {leader:?}"));
                }
                _ => std::thread::sleep(PAUSE),
            }
        };
        self.settle_orders(in_force);
        self.settled(&scene, settled);
    }

    fn settled(&mut self, scene: &Scene, at: Instant) {
        self.settled_at = at;
        for site in &self.sites {
            for back in &site.backs {
                back.watcher.settle(&back.addresses(scene, Expected::Ready));
                back.watcher.allow(&back.able(scene));
            }
            site.tap.forget();
        }
        self.bed.aws().forget();
        self.allowed_before = std::mem::take(&mut self.allowed);
        self.allowed = scene.of(Expected::Ready).map(|instance| instance.id.clone()).collect();
        let drains = scene.of(Expected::Draining).map(|instance| instance.id.clone()).collect();
        self.drains = [drains, std::mem::take(&mut self.drains[0])];
        let seats = self.current_seats(scene);
        let stays = |id: &String| {
            let part = scene.instances.get(id).map(|instance| scene.expected(instance));
            matches!(part, Some(Expected::Ready | Expected::Draining)) && !self.moved.contains(id)
        };
        let moved: Vec<String> = self
            .seats
            .iter()
            .filter(|(id, slot)| stays(id) && seats.get(*id) != Some(*slot))
            .map(|(id, slot)| format!("{id} from slot {slot} to {:?}", seats.get(id)))
            .collect();
        if !moved.is_empty() {
            self.fail(&format!("moved: {moved:?}"));
        }
        self.unseated.clear();
        self.regrouped.clear();
        (self.seats, self.moved, self.mixed_views, self.detached) = (seats, BTreeSet::new(), false, None);
        self.ready_seats = self.seats.keys().filter(|id| self.allowed.contains(*id)).cloned().collect();
        if let Some(held) = self.servers.iter().find_map(|server| server.held().filter(|held| *held > 0.0)) {
            self.fail(&format!("the guard still keeps {held} slots"));
        }
        for (operation, times) in self.bed.aws().struck() {
            self.report.count(&format!("aws {operation}"), times);
        }
        let mut samples = Vec::new();
        for site in &mut self.sites {
            for way in site.tap.struck() {
                let name = format!("{way:?}");
                self.report.count(&format!("socket {}", name.split('(').next().unwrap_or_default()), 1);
            }
            samples.push((site.client.name, site.client.sample()));
        }
        samples.extend(self.servers.iter_mut().map(|server| (server.name, server.sample())));
        for role in self.servers.iter_mut().chain(self.sites.iter_mut().map(|site| &mut site.client)) {
            let times = std::mem::take(&mut role.given_up);
            self.report.count("exited at start on a fault that needs a person, and restarted", times);
        }
        for (name, sample) in samples {
            if let Some(fault) = self.report.sample(name, sample) {
                self.fail(&fault);
            }
        }
    }

    fn current_seats(&self, scene: &Scene) -> BTreeMap<String, u32> {
        let rows = self.bed.aws().with_table_locked(|| self.bed.moto().rows());
        let seat = |(id, item): (u32, Item)| Some((text_of(&item, "ServerName")?, id));
        let stays = |(name, _): &(String, u32)| {
            let part = scene.instances.get(name).map(|instance| scene.expected(instance));
            matches!(part, Some(Expected::Ready | Expected::Draining))
        };
        rows.into_iter().filter_map(seat).filter(stays).collect()
    }

    /// What is wrong with the table: each ready instance has one row, and no other row is enabled.
    fn table_fault(&self, scene: &Scene, rows: &BTreeMap<u32, Item>) -> Option<String> {
        let mut ready: BTreeMap<&str, IpAddr> = scene
            .of(Expected::Ready)
            .filter(|instance| !scene.is_ordered(instance))
            .map(|instance| (instance.id.as_str(), ip(instance)))
            .collect();
        for (id, item) in rows {
            let text = |name| text_of(item, name).unwrap_or_default();
            let (name, status) = (text("ServerName"), text("BackendServerStatus"));
            if name == "none" {
                continue;
            }
            let Some(instance) = scene.instances.get(&name) else { return Some(format!("row {id} holds {name}")) };
            let expected = match scene.wanted(instance) {
                Expected::Ready => "enabled",
                Expected::Draining => "draining",
                Expected::Absent | Expected::Unknown => return Some(format!("row {id} holds {name}, which is absent")),
            };
            let right = text("IPAddress") == instance.address.to_string() && text("ASG") == GROUPS[instance.group];
            if status != expected || !right {
                return Some(format!("row {id}: {item:?}, expected {expected} {instance:?}"));
            }
            let zone = text("HsdoZone");
            if scene.expected(instance) == Expected::Ready && zone != ZONES[instance.zone] {
                return Some(format!("row {id} has zone {zone:?}, expected {instance:?}"));
            }
            if expected == "enabled" && ready.remove(name.as_str()).is_none() {
                return Some(format!("row {id} is a second one for {name}"));
            }
        }
        if let Some(id) = (1..=SLOTS).find(|id| !rows.contains_key(id)) {
            return Some(format!("row {id} is missing"));
        }
        if !ready.is_empty() {
            return Some(format!("{ready:?} have no row"));
        }
        self.lost_attribute(rows)
    }

    /// What is wrong with the orders of the table.
    fn order_fault(&self, found: &InForce) -> Option<String> {
        let over = found.over.first().filter(|_| !found.is_blurred);
        over.map(|target| format!("the order on {target} is over")).or_else(|| self.lost_order(found))
    }

    /// TurnsSince the last round settled, only ready instances may have answered.
    pub(crate) fn check_quiet(&mut self) {
        self.check_watchers();
        self.take_requests();
    }

    pub(crate) fn take_requests(&mut self) {
        let mut unexpected = Vec::new();
        for site in &mut self.sites {
            site.look_at_outage();
            for asked in site.stream.take() {
                match &asked.outcome {
                    Ok(name) => {
                        self.report.answered += 1;
                        let before = asked.from < self.settled_at && self.allowed_before.contains(name);
                        let drains = self.drains[0].contains(name)
                            || asked.from < self.settled_at && self.drains[1].contains(name);
                        let persists = site.persistent && drains;
                        if !(before || persists || self.allowed.contains(name)) {
                            unexpected.push(format!("{name}, which is not ready, answered in {}", site.name));
                        }
                    }
                    Err(why) if site.explains(asked.from, asked.to) => self.report.excused(why),
                    Err(why) => {
                        let (from, to) = (asked.from.elapsed(), asked.to.elapsed());
                        unexpected
                            .push(format!("a request failed in {} from {from:?} to {to:?} ago: {why}", site.name));
                    }
                }
            }
        }
        if !unexpected.is_empty() {
            self.fail(&format!("{unexpected:#?}"));
        }
    }

    pub(crate) fn check_watchers(&mut self) {
        let violations: Vec<String> =
            self.sites.iter().flat_map(|site| site.backs.iter().flat_map(|back| back.watcher.violations())).collect();
        if !violations.is_empty() {
            self.fail(&format!("{violations:#?}"));
        }
    }

    /// Fails the test, with the state of everything.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let logs: Vec<String> = self
            .servers
            .iter()
            .chain(self.sites.iter().map(|site| &site.client))
            .map(|role| format!("--- log of the {}\n{}", role.name, role.log()))
            .collect();
        let rows = self.bed.moto().items();
        let rows: Vec<String> = rows.values().map(|item| serde_json::to_string(item).unwrap_or_default()).collect();
        panic!("{what}\n--- fleet\n{:#?}\n--- table\n{}\n{}", self.fleet.scene(), rows.join("\n"), logs.join("\n"));
    }
}
