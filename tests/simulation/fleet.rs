//! The instances as they are, and the steps that they take at AWS's pace. What AWS says of them is in `aws`.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use hsdo::weight::{Factor, Size};

use crate::journal::{At, SECOND};
use crate::settings::{GROUPS, Settings};
use crate::world::{Event, World};

/// No fewer and no more than these are launched.
pub(crate) const MOST: usize = 30;
pub(crate) const LEAST: usize = 4;
/// How many addresses there are: few enough that each is soon another instance's.
const ADDRESSES: u32 = 60;
/// How long an address rests before another instance has it.
const RESTS: At = 40 * SECOND;
/// How long EC2 knows an instance that has ended.
const REMEMBERED: At = 600 * SECOND;

/// What an instance does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Runs,
    Hook,
    InService,
    Answers,
    Wait,
    Proceed,
    ShutsDown,
    Ends,
    Forgotten,
    /// Root-volume replacement: stopped, started again, back.
    VolumeStops,
    VolumeStarts,
    VolumeReplaced,
    Back,
    /// An instance refresh takes it out.
    Refreshed,
    /// Spot: the two minutes are over.
    Interrupted,
}

#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) group: usize,
    pub(crate) zone: u8,
    /// None once no group lists it.
    pub(crate) lifecycle: Option<&'static str>,
    pub(crate) health: &'static str,
    /// The tag `hsdo:weight`.
    pub(crate) tag: Option<&'static str>,
    pub(crate) ec2: &'static str,
    /// Whether its port answers checks.
    pub(crate) answers: bool,
    /// EC2 leaves it out, or says that it does not know it.
    pub(crate) left_out: bool,
    pub(crate) denied: bool,
    /// Its group leaves it out: a bogus answer.
    pub(crate) unlisted: bool,
    /// Spot: EC2 has announced its interruption.
    pub(crate) announced: bool,
    /// hsdo's terminating hook holds it back since then.
    pub(crate) hooked: Option<At>,
    /// When it, or what is said of it, last changed.
    pub(crate) changed: At,
}

impl Instance {
    pub(crate) fn is_ready(&self) -> bool {
        let is_in_service = self.lifecycle == Some("InService") && self.health == "Healthy" && self.ec2 == "running";
        is_in_service && !self.announced
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.into()
    }

    /// What its group counts it for.
    pub(crate) fn capacity(&self) -> u32 {
        1 + (self.number % 4) as u32
    }

    /// What its weights are multiplied by.
    pub(crate) fn factor(&self) -> Factor {
        // One that cannot be read counts as absent.
        let tag = self.tag.and_then(Factor::parse_given).map(Size::Tag);
        Settings::server().factor(tag.unwrap_or(Size::Capacity(self.capacity())), GROUPS[self.group])
    }

    /// The name of its zone.
    pub(crate) fn zone(&self) -> String {
        format!("z{}", self.zone)
    }
}

#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) instances: Vec<Instance>,
    pub(crate) missing_groups: [bool; GROUPS.len()],
    /// The entry of the schedule whose bogus answer has a group missing too.
    pub(crate) missing_beside: Option<usize>,
    /// When the groups last listed all again, after a bogus answer.
    pub(crate) relisted: Option<At>,
    /// The zone in which all are launched, by the entries of the schedule that say so.
    pub(crate) skewed: BTreeMap<usize, u8>,
    launched: u64,
    /// When each may be used again.
    free: VecDeque<(At, Ipv4Addr)>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let free = (1..=ADDRESSES).map(|last| (0, Ipv4Addr::from(0x0A00_0000 + last))).collect();
        Fleet {
            instances: Vec::new(),
            missing_groups: Default::default(),
            missing_beside: None,
            relisted: None,
            skewed: BTreeMap::new(),
            launched: 0,
            free,
        }
    }

    pub(crate) fn get(&mut self, number: u64) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.number == number)
    }

    pub(crate) fn named(&self, id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// Who has the address now.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.ip() == address && instance.ec2 != "terminated")
    }

    pub(crate) fn ready(&self) -> Vec<u64> {
        self.instances.iter().filter(|instance| instance.is_ready()).map(|instance| instance.number).collect()
    }

    pub(crate) fn alive(&self) -> usize {
        self.instances.iter().filter(|instance| instance.ec2 != "terminated").count()
    }
}

impl World {
    /// An instance that serves from the beginning.
    pub(crate) fn settled_instance(self: &Rc<Self>, group: usize) {
        if let Some(number) = self.launch(group) {
            self.change(number, "is in service from the beginning", |instance| {
                (instance.lifecycle, instance.ec2, instance.answers) = (Some("InService"), "running", true);
            });
        }
    }

    pub(crate) fn launch(self: &Rc<Self>, group: usize) -> Option<u64> {
        let now = self.now();
        let number = {
            let mut fleet = self.fleet.borrow_mut();
            if fleet.alive() >= MOST || fleet.free.front().is_none_or(|(from, _)| *from > now) {
                return None;
            }
            let (_, address) = fleet.free.pop_front()?;
            fleet.launched += 1;
            let number = fleet.launched;
            let zone = fleet.skewed.values().next_back().copied().unwrap_or((number % 3) as u8);
            let instance = Instance {
                number,
                id: format!("i-{number:017x}"),
                address,
                group,
                zone,
                lifecycle: Some("Pending"),
                health: "Healthy",
                tag: None,
                ec2: "pending",
                answers: false,
                left_out: false,
                denied: false,
                unlisted: false,
                announced: false,
                hooked: None,
                changed: now,
            };
            fleet.instances.push(instance);
            number
        };
        self.change(number, "is launched", |_| ());
        self.post_in(self.between(3, 15) * SECOND, Event::Instance(number, Step::Runs));
        Some(number)
    }

    /// Its group takes it out, with its hooks.
    pub(crate) fn terminate(self: &Rc<Self>, number: u64) {
        self.change(number, "is terminated", |instance| instance.lifecycle = Some("Terminating"));
        self.post_in(self.between(1, 10) * SECOND, Event::Instance(number, Step::Wait));
    }

    /// Changes an instance, or what AWS says of it, in a way that must not change what becomes of it.
    pub(crate) fn change_view(self: &Rc<Self>, number: u64, what: &str, change: impl FnOnce(&mut Instance)) {
        let id = {
            let mut fleet = self.fleet.borrow_mut();
            let Some(instance) = fleet.get(number) else { return };
            change(instance);
            instance.changed = self.now();
            instance.id.clone()
        };
        self.note(format!("{id} {what}"));
        self.views_changed();
        self.disturb(self.now());
    }

    /// Changes an instance, which then counts as touched.
    pub(crate) fn change(self: &Rc<Self>, number: u64, what: &str, change: impl FnOnce(&mut Instance)) {
        let mut fleet = self.fleet.borrow_mut();
        let Some(instance) = fleet.get(number) else { return };
        change(instance);
        instance.changed = self.now();
        let (id, ip, answers) = (instance.id.clone(), instance.ip(), instance.answers && instance.ec2 == "running");
        let ended = instance.ec2 == "terminated";
        let group = GROUPS[instance.group];
        drop(fleet);
        self.note(format!("{id} {ip} of {group} {what}"));
        if !(ended && self.fleet.borrow().at(ip).is_some()) {
            self.answers(ip, answers);
        }
        self.fleet_changed(&id, ip);
    }

    /// Somebody else has the address for a while, and answers; for how long until an instance may have it again.
    fn strangers_stay(&self, address: Ipv4Addr) -> At {
        let end = RESTS + self.between(30, 300) * SECOND;
        self.post_in(RESTS, Event::Stranger(address, true));
        self.post_in(end, Event::Stranger(address, false));
        end + RESTS
    }

    /// Somebody who is in no group has an address now, or no longer.
    pub(crate) fn stranger(&self, address: Ipv4Addr, answers: bool) {
        self.note(format!("a stranger {} at {address}", if answers { "answers" } else { "is gone" }));
        self.answers(address.into(), answers);
    }

    pub(crate) fn step_instance(self: &Rc<Self>, number: u64, step: Step) {
        let Some(instance) = self.fleet.borrow_mut().get(number).cloned() else { return };
        let then = |from: u64, to: u64, step: Step| {
            self.post_in(self.between(from, to) * SECOND, Event::Instance(number, step));
        };
        match (step, instance.lifecycle) {
            (Step::Runs, Some("Pending")) => {
                self.change(number, "runs", |instance| instance.ec2 = "running");
                then(1, 5, Step::Hook);
            }
            (Step::Hook, Some("Pending")) => {
                self.change(number, "waits for a hook", |instance| instance.lifecycle = Some("Pending:Wait"));
                then(5, 40, Step::InService);
            }
            (Step::InService, Some("Pending:Wait")) => {
                // Most answer when they are in service; some a while later.
                let answers = self.percent(80);
                self.change(number, "is in service", |instance| {
                    (instance.lifecycle, instance.answers) = (Some("InService"), answers);
                });
                if !answers {
                    then(2, 30, Step::Answers);
                }
            }
            (Step::Answers, Some("InService")) => self.change(number, "answers", |instance| instance.answers = true),
            (Step::Wait, Some("Terminating")) if self.reports.borrow().is_on => self.waits_for_a_hook(number),
            (Step::Wait, Some("Terminating")) => {
                self.change(number, "waits for its end", |instance| instance.lifecycle = Some("Terminating:Wait"));
                then(5, 60, Step::Proceed);
            }
            (Step::Proceed, Some("Terminating:Wait")) => {
                self.change(number, "goes", |instance| {
                    (instance.lifecycle, instance.hooked) = (Some("Terminating:Proceed"), None);
                });
                then(1, 5, Step::ShutsDown);
            }
            (Step::Interrupted, Some("InService" | "Terminating" | "Terminating:Wait"))
            | (Step::ShutsDown, Some("Terminating:Proceed")) => {
                self.change(number, "shuts down", |instance| {
                    (instance.ec2, instance.answers) = ("shutting-down", false);
                    (instance.lifecycle, instance.hooked) = (Some("Terminating:Proceed"), None);
                });
                then(3, 30, Step::Ends);
            }
            (Step::ShutsDown, None) => {
                self.change(number, "shuts down", |instance| {
                    (instance.ec2, instance.answers) = ("shutting-down", false);
                });
                then(3, 30, Step::Ends);
            }
            (Step::Ends, _) => {
                self.change(number, "has ended", |instance| (instance.lifecycle, instance.ec2) = (None, "terminated"));
                let rests = if self.percent(15) { self.strangers_stay(instance.address) } else { RESTS };
                self.fleet.borrow_mut().free.push_back((self.now() + rests, instance.address));
                self.post_in(REMEMBERED, Event::Instance(number, Step::Forgotten));
            }
            (Step::Forgotten, None) => {
                self.fleet.borrow_mut().instances.retain(|instance| instance.number != number);
                self.views_changed();
            }
            (Step::Refreshed, Some("InService")) => self.terminate(number),
            (Step::VolumeStops, Some("ReplacingRootVolume")) => {
                self.change(number, "stops to have its volume replaced", |instance| {
                    (instance.ec2, instance.answers) = ("stopped", false);
                });
                then(5, 30, Step::VolumeReplaced);
            }
            (Step::VolumeReplaced, Some("ReplacingRootVolume")) => {
                self.change(number, "has another volume", |instance| instance.lifecycle = Some("RootVolumeReplaced"));
                then(1, 10, Step::VolumeStarts);
            }
            (Step::VolumeStarts, Some("RootVolumeReplaced")) => {
                self.change(number, "starts again", |instance| {
                    (instance.lifecycle, instance.ec2) = (Some("Pending"), "running");
                });
                then(3, 20, Step::Back);
            }
            (Step::Back, Some("Pending")) => {
                self.change(number, "is back in service", |instance| {
                    (instance.lifecycle, instance.answers) = (Some("InService"), true);
                });
            }
            _ => {}
        }
    }
}
