//! What happens to the instances and their groups.

use crate::Chaos;
use crate::fleet::{Instance, Part, Scene};

/// The most instances at a time, leaving ones included: every one has a slot.
const MOST: usize = 12;
/// The first group always keeps so many in service that there is somebody to serve in either HAProxy, also while a hand
/// keeps one of them out of HAProxy and another one out of the table.
const LEAST: usize = 3;

impl Chaos {
    /// A new instance.
    pub(crate) fn launch(&mut self, scene: &mut Scene, group: usize, lifecycle: &'static str) {
        if scene.instances.len() < MOST {
            self.born += 1;
            let id = format!("i-{:05}", self.born);
            let address = scene.free_address();
            let instance = Instance { id: id.clone(), address, group, lifecycle, healthy: true, unseen: false };
            scene.instances.insert(id, instance);
        }
    }

    /// Changes an instance or a group, as AWS or an operator would.
    pub(crate) fn change(&mut self) {
        if std::mem::take(&mut self.all_leave) {
            return self.counted("all come back", |_, scene| come_back(scene));
        }
        let group = self.random.below(2) as usize;
        let serving = self.fleet.scene().in_service(group);
        // Consul forgets a service without instances, and then hsdo keeps those that it had.
        let of_consul = self.consul.is_some();
        let spare = serving.len() > if group == 0 { LEAST } else { usize::from(of_consul) };
        let chosen = if spare { Some(self.random.pick(&serving).id.clone()) } else { None };
        match (self.random.below(17), chosen) {
            (0 | 1, _) => {
                let lifecycle = *self.random.pick(&["InService", "InService", "Pending"]);
                self.counted("launch", |chaos, scene| chaos.launch(scene, group, lifecycle));
            }
            (2, Some(id)) => self.counted("leaves, waiting", |_, scene| {
                set(scene, &id, |instance| instance.lifecycle = "Terminating:Wait");
            }),
            (3, Some(id)) => self.counted("leaves at once", |_, scene| drop(scene.instances.remove(&id))),
            (4, Some(id)) => {
                // Its port is closed before AWS tells: a Spot instance that is taken away.
                self.bed.web().stop(&id);
                let unnoticed = self.random.millis(0, 600);
                self.leave_rotations(&[id.clone()].into());
                std::thread::sleep(unnoticed);
                self.counted("dies", |_, scene| drop(scene.instances.remove(&id)));
            }
            (5 | 6, Some(id)) => self.counted("address used again", |chaos, scene| {
                let old = scene.instances.remove(&id).expect("it was chosen");
                chaos.born += 1;
                let id = format!("i-{:05}", chaos.born);
                scene.instances.insert(id.clone(), Instance { id, ..old });
            }),
            (7, Some(id)) => self.counted("standby", |_, scene| {
                set(scene, &id, |instance| instance.lifecycle = "Standby");
            }),
            (8, Some(id)) => self.counted("unhealthy", |_, scene| set(scene, &id, |instance| instance.healthy = false)),
            (9 | 10, Some(id)) => self.counted("changes its group", |_, scene| {
                set(scene, &id, |instance| instance.group = 1 - instance.group);
            }),
            (11, Some(id)) if !of_consul => self.counted("unseen by EC2", |_, scene| {
                set(scene, &id, |instance| instance.unseen = true);
            }),
            (12, _) if !of_consul => self.counted("a group is missing", |_, scene| {
                scene.missing.insert(group);
            }),
            (13, _) if group == 1 && !of_consul => self.counted("a group is emptied", |_, scene| {
                scene.instances.retain(|_, instance| instance.group != 1);
            }),
            (13, _) if group == 0 => self.counted("a group is replaced", |chaos, scene| {
                let count = scene.in_service(0).len();
                for instance in scene.instances.values_mut().filter(|instance| instance.group == 0) {
                    instance.lifecycle = "Terminating:Wait";
                }
                for _ in 0..count.min(4) {
                    chaos.launch(scene, 0, "InService");
                }
                while scene.in_service(0).len() < LEAST {
                    let leaving = scene.instances.values_mut().find(|i| i.group == 0 && i.lifecycle != "InService");
                    let back = leaving.expect("there were as many before");
                    (back.lifecycle, back.healthy, back.unseen) = ("InService", true, false);
                }
            }),
            // With old answers, lost rows, or somebody who is kept unseen, not all of them would leave: the ready ones, or
            // the kept, would have to serve alone.
            (14, _) if !self.blurred && !of_consul && self.fleet.scene().of(Part::Unknown).next().is_none() => {
                self.all_leave = true;
                self.counted("nobody is healthy any more", |_, scene| {
                    scene.instances.values_mut().for_each(|instance| instance.healthy = false);
                });
            }
            _ => self.counted("all come back", |_, scene| come_back(scene)),
        }
    }

    fn counted(&mut self, what: &str, change: impl FnOnce(&mut Self, &mut Scene)) {
        self.count(&format!("fleet: {what}"));
        self.change_scene(what, change);
    }

    /// At the end of a round AWS tells of everything, and those that wait have come or gone.
    pub(crate) fn calm_fleet(&mut self) {
        let (goes, back) = (self.random.percent(50), self.random.percent(50));
        self.all_leave = false;
        self.change_scene("AWS tells of everything", |chaos, scene| {
            scene.missing.clear();
            for instance in scene.instances.values_mut() {
                instance.unseen = false;
                if instance.lifecycle == "Pending" {
                    instance.lifecycle = "InService";
                }
            }
            if goes {
                scene.instances.retain(|_, instance| instance.lifecycle != "Terminating:Wait");
            }
            if scene.in_service(0).is_empty() && back {
                come_back(scene);
            }
            for (group, least) in [(0, LEAST), (1, usize::from(chaos.consul.is_some()))] {
                while scene.in_service(group).len() < least {
                    if scene.instances.len() == MOST {
                        let leaves = scene.instances.values().find(|i| i.lifecycle != "InService" || i.group != group);
                        let id = leaves.expect("there are more than it needs").id.clone();
                        scene.instances.remove(&id);
                    }
                    chaos.launch(scene, group, "InService");
                }
            }
        });
    }
}

fn set(scene: &mut Scene, id: &str, change: impl FnOnce(&mut Instance)) {
    if let Some(instance) = scene.instances.get_mut(id) {
        change(instance);
    }
}

fn come_back(scene: &mut Scene) {
    for instance in scene.instances.values_mut() {
        instance.healthy = true;
        if instance.lifecycle == "Standby" {
            instance.lifecycle = "InService";
        }
    }
}
