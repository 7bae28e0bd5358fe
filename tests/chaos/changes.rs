//! Changes to instances and groups.

use crate::Chaos;
use crate::fleet::{
    DETACHED, Ec2, Expected, GROUPS, Instance, OUT_OF_SERVICE, REPLACING, Scene, UNKNOWN_STATES, ZONES,
};
use crate::orders::zone_target;

/// The most instances at once, leaving ones included, so each has a slot.
const MAX_INSTANCES: usize = 12;
/// The first group keeps at least this many in service, so each HAProxy has a serving server even while an operator
/// holds one there and disables another in the table.
const MIN_IN_SERVICE: usize = 3;

impl Chaos {
    pub(crate) fn launch(&mut self, scene: &mut Scene, group: usize, lifecycle: &'static str) {
        if scene.instances.len() < MAX_INSTANCES {
            self.launched += 1;
            let id = id(self.launched);
            let address = scene.free_address();
            // Not in a zone of which somebody orders that it drains: too few would serve.
            let zones = (self.launched as usize..).map(|number| number % ZONES.len());
            let zone = zones.take(ZONES.len()).find(|zone| !scene.ordered.contains(&zone_target(*zone)));
            let zone = zone.unwrap_or_default();
            let has_served = lifecycle == "InService";
            let instance = Instance {
                id: id.clone(),
                address,
                group,
                zone,
                lifecycle,
                health: "Healthy",
                ec2: Ec2::Running,
                has_served,
            };
            scene.instances.insert(id, instance);
        }
    }

    /// Changes one instance or group, as AWS or an operator would.
    pub(crate) fn change(&mut self) {
        if !self.fleet.scene().unlisted.is_empty() {
            return self.change_while_unlisted();
        }
        if std::mem::take(&mut self.all_leave) {
            return self.change_counted("all come back", |_, scene| come_back(scene));
        }
        let group = self.random.below(2) as usize;
        let serving = self.fleet.scene().in_service(group);
        // Consul forgets a service without instances, and hsdo then keeps its servers.
        let of_consul = self.consul.is_some();
        let spare = serving.len().saturating_sub(if group == 0 { MIN_IN_SERVICE } else { usize::from(of_consul) });
        let chosen = if spare > 0 { Some(self.random.pick(&serving).id.clone()) } else { None };
        match (self.random.below(if of_consul { 17 } else { 25 }), chosen) {
            (0 | 1, _) => {
                let unknown = if of_consul { "Pending" } else { *self.random.pick(&UNKNOWN_STATES) };
                let lifecycle = *self.random.pick(&["InService", "InService", "InService", "Pending", unknown]);
                self.change_counted("launch", |chaos, scene| chaos.launch(scene, group, lifecycle));
            }
            (2, Some(id)) => self.change_counted("terminates, waiting", |_, scene| {
                set(scene, &id, |instance| instance.lifecycle = "Terminating:Wait");
            }),
            (3, Some(id)) => {
                let reported_as = self.reported_as();
                self.change_counted("terminates at once", |_, scene| scene.end(&id, reported_as));
            }
            // A zone of which the last server dies unnoticed is without one for a moment.
            (4, Some(id)) if self.zone_can_spare(&id) => {
                // Its port closes before AWS reports it: a Spot interruption.
                self.bed.web().stop(&id);
                let unnoticed = self.random.millis(0, 600);
                self.leave_rotations(&[id.clone()].into());
                std::thread::sleep(unnoticed);
                let reported_as = self.reported_as();
                self.change_counted("dies", |_, scene| scene.end(&id, reported_as));
            }
            (5 | 6, Some(old)) => {
                let reported_as = self.reported_as();
                self.change_counted("address reused", |chaos, scene| {
                    chaos.launched += 1;
                    let id = id(chaos.launched);
                    let new = Instance { id: id.clone(), ..scene.instances[&old].clone() };
                    scene.end(&old, reported_as);
                    scene.instances.insert(id, new);
                });
            }
            (7, Some(id)) => {
                let lifecycle = if of_consul { OUT_OF_SERVICE[0] } else { *self.random.pick(&OUT_OF_SERVICE) };
                self.change_counted("out of service", |_, scene| {
                    set(scene, &id, |instance| instance.lifecycle = lifecycle);
                });
            }
            (8, Some(id)) => {
                self.change_counted("unhealthy", |_, scene| set(scene, &id, |instance| instance.health = "Unhealthy"));
            }
            (9 | 10, Some(id)) if self.detached.is_none() => self.change_counted("changes group", |_, scene| {
                set(scene, &id, |instance| instance.group = 1 - instance.group);
            }),
            (11, Some(id)) if !of_consul => {
                let ec2 = *self.random.pick(&[Ec2::LeftOut, Ec2::Pending, Ec2::Unaddressed]);
                self.change_counted("unseen by EC2", |_, scene| set(scene, &id, |instance| instance.ec2 = ec2));
            }
            (12, _) if !of_consul => self.change_counted("a group is missing", |_, scene| {
                scene.missing.insert(group);
            }),
            (13, _) if group == 1 && !of_consul => {
                let reported_as = self.reported_as();
                self.change_counted("a group is emptied", |_, scene| {
                    let of_group = scene.instances.values().filter(|instance| instance.group == 1);
                    let ids: Vec<String> = of_group.map(|instance| instance.id.clone()).collect();
                    ids.iter().for_each(|id| scene.end(id, reported_as));
                });
            }
            (13, _) if group == 0 && serving.len() >= MIN_IN_SERVICE => {
                self.group_replaced = true;
                self.change_counted("a group is replaced", |chaos, scene| {
                    let count = scene.in_service(0).len();
                    for instance in scene.instances.values_mut().filter(|instance| instance.group == 0) {
                        instance.lifecycle = "Terminating:Wait";
                    }
                    for _ in 0..count.min(4) {
                        chaos.launch(scene, 0, "InService");
                    }
                    while scene.in_service(0).len() < MIN_IN_SERVICE {
                        let leaving = scene.instances.values_mut().find(|i| i.group == 0 && i.lifecycle != "InService");
                        let back = leaving.expect("there were as many before");
                        (back.lifecycle, back.health, back.ec2) = ("InService", "Healthy", Ec2::Running);
                    }
                });
            }
            // With stale responses, lost rows or kept servers around, not all of them would leave, and the remaining
            // ones would have to serve alone.
            (14, _)
                if self.fleet.scene().ordered.is_empty()
                    && !self.mixed_views
                    && !of_consul
                    && self.fleet.scene().of(Expected::Unknown).next().is_none() =>
            {
                self.all_leave = true;
                self.change_counted("all unhealthy", |_, scene| {
                    scene.instances.values_mut().for_each(|instance| instance.health = "Unhealthy");
                });
            }
            (17 | 18, Some(_)) => {
                let some = self.pick_some(&serving, spare);
                let lifecycle = *self.random.pick(&REPLACING);
                let ec2 = *self.random.pick(&[Ec2::Running, Ec2::Running, Ec2::LeftOut, Ec2::Pending]);
                self.change_counted("root volume replacement begins", |_, scene| {
                    for id in &some {
                        set(scene, id, |instance| (instance.lifecycle, instance.ec2) = (lifecycle, ec2));
                    }
                });
            }
            (19 | 20, _) => self.advance_replacements(),
            (21 | 22, Some(_)) => {
                let some = self.pick_some(&serving, spare);
                let word = *self.random.pick(&UNKNOWN_STATES);
                let of_health = self.random.percent(30);
                self.change_counted("unknown state", |_, scene| {
                    for id in &some {
                        set(scene, id, |instance| match of_health {
                            true => instance.health = "Pondering",
                            false => instance.lifecycle = word,
                        });
                    }
                });
            }
            // Together with others that are briefly in no group they would trip the removal guard.
            (23, Some(id)) if !self.mixed_views && self.detached.is_none() && self.regrouped.is_empty() => {
                self.detached = Some(id.clone());
                self.change_counted("detached", |_, scene| set(scene, &id, |instance| instance.lifecycle = DETACHED));
            }
            // None can be spared.
            (_, None) if self.random.percent(50) => {
                self.change_counted("launch", |chaos, scene| chaos.launch(scene, group, "InService"));
            }
            _ => self.change_counted("all come back", |_, scene| come_back(scene)),
        }
    }

    /// Whether others of its zone serve too, if HAProxy has that zone.
    fn zone_can_spare(&self, id: &str) -> bool {
        let scene = self.fleet.scene();
        let zone = scene.instances.get(id).map(|instance| instance.zone);
        let of_zone = (0..GROUPS.len()).flat_map(|group| scene.in_service(group)).filter(|it| Some(it.zone) == zone);
        zone != Some(0) || of_zone.count() > 2
    }

    /// At most `most` of these.
    fn pick_some(&mut self, of: &[Instance], most: usize) -> Vec<String> {
        let mut ids: Vec<String> = of.iter().map(|instance| instance.id.clone()).collect();
        self.random.shuffle(&mut ids);
        ids.truncate(1 + self.random.below(most as u64) as usize);
        ids
    }

    /// Each root volume replacement advances on its own; some instances are stopped meanwhile.
    fn advance_replacements(&mut self) {
        let away = |instance: &Instance| REPLACING.contains(&instance.lifecycle) || in_transition(instance);
        let scene = self.fleet.scene();
        let mut ids: Vec<String> = scene.instances.values().filter(|i| away(i)).map(|i| i.id.clone()).collect();
        self.random.shuffle(&mut ids);
        let steps: Vec<u64> = ids.iter().map(|_| self.random.below(5)).collect();
        // Two calls may straddle this change: one says in service, the other stopped.
        self.moved.extend(ids.iter().zip(&steps).filter(|(_, step)| **step == 0).map(|(id, _)| id.clone()));
        let back = *self.random.pick(&["Pending", "Pending:Wait", "Pending:Proceed"]);
        self.change_counted("root volume replacement advances", |_, scene| {
            for (id, step) in ids.iter().zip(steps) {
                set(scene, id, |instance| match (step, REPLACING.iter().position(|it| *it == instance.lifecycle)) {
                    (0, Some(_)) => instance.ec2 = Ec2::Stopped,
                    (1, Some(place)) if place + 1 < REPLACING.len() => instance.lifecycle = REPLACING[place + 1],
                    (2 | 3, Some(_)) => (instance.lifecycle, instance.ec2) = (back, Ec2::Running),
                    (_, None) => (instance.lifecycle, instance.ec2) = ("InService", Ec2::Running),
                    _ => {}
                });
            }
        });
    }

    /// A complete but bogus response: no instances, or fewer than half of the serving ones. Enough are missing for the
    /// guard to keep them, whatever hsdo has seen by then.
    pub(crate) fn unlist(&mut self) {
        let scene = self.fleet.scene();
        let seated =
            |instance: &&Instance| self.ready_seats.contains(&instance.id) && !self.moved.contains(&instance.id);
        let mut ids: Vec<String> =
            scene.of(Expected::Ready).filter(seated).map(|instance| instance.id.clone()).collect();
        let others: Vec<String> = scene.instances.keys().filter(|id| !ids.contains(*id)).cloned().collect();
        // Instances that were launched or came back this round may serve by now.
        let serving = self.ready_seats.len() + others.iter().filter(|id| !self.ready_seats.contains(*id)).count();
        self.random.shuffle(&mut ids);
        let least = serving / 2 + 1;
        if self.mixed_views
            || !scene.ordered.is_empty()
            || self.all_leave
            || self.detached.is_some()
            || !self.regrouped.is_empty()
            || ids.len() < least.max(3)
        {
            return;
        }
        let all = self.random.percent(40);
        if !all {
            ids.truncate(least.max(3) + self.random.below((ids.len() - least.max(3) + 1) as u64) as usize);
        }
        let some: Vec<String> = others.into_iter().filter(|_| all || self.random.percent(30)).collect();
        self.change_counted(
            if all { "bogus response: empty groups" } else { "bogus response: most instances missing" },
            |_, scene| {
                scene.unlisted.extend(ids.into_iter().chain(some));
            },
        );
    }

    fn change_while_unlisted(&mut self) {
        if self.random.percent(50) {
            self.change_counted("bogus response ends", |_, scene| scene.unlisted.clear());
        }
    }

    /// What EC2 reports for a terminated instance; usually it still knows it.
    fn reported_as(&mut self) -> Option<&'static str> {
        *self.random.pick(&[None, Some("shutting-down"), Some("terminated")])
    }

    fn change_counted(&mut self, what: &str, change: impl FnOnce(&mut Self, &mut Scene)) {
        self.count(&format!("fleet: {what}"));
        self.change_scene(what, change);
    }

    /// At the end of a round AWS reports everything, and pending changes finish.
    pub(crate) fn settle_fleet(&mut self) {
        let (goes, back, forgets) = (self.random.percent(50), self.random.percent(50), self.random.percent(50));
        let replaced = self.random.percent(50);
        let goes = goes && !std::mem::take(&mut self.group_replaced);
        self.all_leave = false;
        let detached = self.detached.clone();
        self.change_scene("the fleet settles", |chaos, scene| {
            scene.missing.clear();
            scene.unlisted.clear();
            if forgets {
                scene.ended.clear();
            }
            scene.instances.retain(|id, instance| instance.lifecycle != DETACHED || detached.as_ref() == Some(id));
            for instance in scene.instances.values_mut() {
                let replacing = REPLACING.contains(&instance.lifecycle) || in_transition(instance);
                if instance.lifecycle.starts_with("Pending") && !in_transition(instance)
                    || UNKNOWN_STATES.contains(&instance.lifecycle)
                    || replacing && replaced
                {
                    instance.lifecycle = "InService";
                }
                if instance.health == "Pondering" {
                    instance.health = "Healthy";
                }
                if !REPLACING.contains(&instance.lifecycle) {
                    instance.ec2 = Ec2::Running;
                }
                instance.has_served |= instance.lifecycle == "InService";
            }
            if goes {
                scene.instances.retain(|_, instance| instance.lifecycle != "Terminating:Wait");
            }
            if scene.in_service(0).is_empty() && back {
                come_back(scene);
            }
            for (group, least) in [(0, MIN_IN_SERVICE), (1, usize::from(chaos.consul.is_some()))] {
                while scene.in_service(group).len() < least {
                    if scene.instances.len() == MAX_INSTANCES {
                        let leaves = scene
                            .instances
                            .values()
                            .find(|i| i.lifecycle != "InService" || i.group != group || scene.is_ordered(i));
                        let id = leaves.expect("there are more than it needs").id.clone();
                        scene.instances.remove(&id);
                    }
                    chaos.launch(scene, group, "InService");
                }
            }
        });
    }
}

fn id(number: u64) -> String {
    format!("i-{number:017x}")
}

fn set(scene: &mut Scene, id: &str, change: impl FnOnce(&mut Instance)) {
    if let Some(instance) = scene.instances.get_mut(id) {
        change(instance);
    }
}

fn in_transition(instance: &Instance) -> bool {
    instance.has_served && instance.lifecycle.starts_with("Pending")
}

fn come_back(scene: &mut Scene) {
    for instance in scene.instances.values_mut() {
        instance.health = "Healthy";
        let stays_out = ["InService", "Terminating:Wait"].contains(&instance.lifecycle)
            || instance.lifecycle.starts_with("Pending") && !instance.has_served;
        if !stays_out {
            instance.lifecycle = "InService";
            instance.ec2 = Ec2::Running;
            instance.has_served = true;
        }
    }
}
