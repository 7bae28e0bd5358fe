//! How an entry of the schedule is carried out.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::fleet::{Instance, LEAST, Step};
use crate::haproxy::SocketState;
use crate::journal::{At, MILLI, SECOND};
use crate::promises::Cause;
use crate::random::Random;
use crate::schedule::{ALL, BESIDE, BESIDE_A_MISSING_GROUP, Pick, TAGS, What};
use crate::settings::{BACKENDS, BASE, CLIENTS, GROUPS, REMOVAL_GUARD};
use crate::troubles::{Fault, Service, Trap};
use crate::world::{Event, World};
use hsdo::ports::Change;

impl World {
    /// The instance in service that a number means, if it can be spared; the same at an entry's begin and end only by its own mark.
    fn spare(&self, pick: Pick) -> Option<u64> {
        let ready = self.fleet.borrow().ready();
        (ready.len() > LEAST).then(|| ready[usize::from(pick) % ready.len()])
    }

    pub(crate) fn begin(self: &Rc<Self>, index: usize) {
        let what = self.schedule[index].1;
        self.note(format!("SCHEDULE {what:?}"));
        let lasts = what.lasts();
        self.disturb(self.now() + what.disturbs());
        if lasts > 0 {
            self.post_in(lasts, Event::End(index));
        }
        match what {
            What::Launch { group, count } => {
                for _ in 0..count {
                    self.launch(usize::from(group));
                }
            }
            What::Terminate { pick } => self.each(self.spare(pick), |number| self.terminate(number)),
            What::Unhealthy { pick, secs: _ } => self.marked(index, self.spare(pick), "is unhealthy", |it| {
                it.health = "Unhealthy";
            }),
            What::StopsAnswering { pick, .. } => {
                self.marked(index, self.spare(pick), "stops answering", |it| it.answers = false);
            }
            What::Standby { pick, .. } => self.marked(index, self.spare(pick), "stands by", |it| {
                it.lifecycle = Some("Standby");
            }),
            What::Tagged { pick, with } => {
                let all = || self.fleet.borrow().ready();
                let numbers = if pick < ALL { all() } else { self.spare(pick).into_iter().collect() };
                for number in numbers {
                    self.change(number, "gets another weight", |it| it.tag = TAGS[usize::from(with)]);
                }
            }
            What::Detach { pick } => self.each(self.spare(pick), |number| {
                self.change(number, "is detached", |it| it.lifecycle = None);
                // If no turn saw it listed in between, the guard keeps it as it kept the others.
                if self.fleet.borrow().relisted.is_some_and(|relisted| self.now() < relisted + 20 * SECOND) {
                    self.disturb_for_the_guard();
                }
                self.post_in(30 * SECOND, Event::Instance(number, Step::ShutsDown));
            }),
            What::Refresh { group } => self.refresh(usize::from(group)),
            What::RootVolume { pick } => self.each(self.spare(pick), |number| {
                self.change(number, "gets another root volume", |it| it.lifecycle = Some("ReplacingRootVolume"));
                self.post_in(5 * SECOND, Event::Instance(number, Step::VolumeStops));
            }),
            What::Spot { pick } => self.each(self.spare(pick), |number| self.interrupt(number)),
            What::ZoneLost { zone } => {
                let lost: Vec<u64> = {
                    let fleet = self.fleet.borrow();
                    fleet.instances.iter().filter(|it| it.zone == zone && it.is_ready()).map(|it| it.number).collect()
                };
                let can_be_spared = self.fleet.borrow().ready().len() > lost.len() + 1;
                for number in lost.into_iter().filter(|_| can_be_spared) {
                    self.change(number, "is lost with its zone", |it| {
                        (it.health, it.answers) = ("Unhealthy", false);
                    });
                    self.post_in(self.between(20, 90) * SECOND, Event::Instance(number, Step::Interrupted));
                }
            }
            What::GroupMissing { group, .. } => self.set_missing(usize::from(group), true),
            What::GroupReplaced { group, .. } => self.delete_group(index, usize::from(group)),
            What::Moves { pick } => self.each(self.spare(pick), |number| {
                self.change(number, "moves to the other group", |it| it.group = GROUPS.len() - 1 - it.group);
            }),
            What::Uneven { zone, count, .. } => {
                self.fleet.borrow_mut().skewed.insert(index, zone);
                for _ in 0..count {
                    self.launch(usize::from(zone) % GROUPS.len());
                }
            }
            What::UnknownWord { pick, .. } => self.each(self.spare(pick), |number| {
                self.marks.borrow_mut().insert(index, number);
                self.change_view(number, "is in an unknown state", |it| it.lifecycle = Some("Pondering"));
            }),
            What::LeftOut { pick, .. } => self.each(self.spare(pick), |number| {
                self.marks.borrow_mut().insert(index, number);
                self.change_view(number, "is left out by EC2", |it| it.left_out = true);
            }),
            // Only one that is new is not known yet.
            What::Denied { .. } => {
                let number = self.launch(0);
                self.marked(index, number, "is not known to EC2 yet", |it| it.denied = true);
            }
            What::Bogus { percent, .. } => {
                let is_there = !self.fleet.borrow().missing_groups[BESIDE];
                if self.unlist(index, percent) && percent == BESIDE_A_MISSING_GROUP && is_there {
                    self.fleet.borrow_mut().missing_beside = Some(index);
                    self.set_missing(BESIDE, true);
                }
            }
            // The page of one group from a bogus answer, beside a right one of the other, looks like half a fleet that left.
            What::OldGroups { lag_ms, .. } if self.was_bogus(u64::from(lag_ms) * MILLI) => {}
            What::OldGroups { group, lag_ms, .. } => {
                self.aws.borrow_mut().group_lags[usize::from(group)] = u64::from(lag_ms) * MILLI;
                self.is_seen_as_before(u64::from(lag_ms) * MILLI);
            }
            What::OldInstances { lag_ms, .. } => {
                self.aws.borrow_mut().ec2_lag = u64::from(lag_ms) * MILLI;
                self.is_seen_as_before(u64::from(lag_ms) * MILLI);
            }
            What::MixedInstances { lag_ms, .. } => {
                let mut aws = self.aws.borrow_mut();
                (aws.ec2_lag, aws.is_mixed) = (u64::from(lag_ms) * MILLI, true);
                drop(aws);
                self.is_seen_as_before(u64::from(lag_ms) * MILLI);
            }
            What::Refuses { service, percent, .. } => self.set_fault(service, Some(Fault::Refuses(percent))),
            What::LosesAnswers { service, percent, .. } => self.set_fault(service, Some(Fault::LosesAnswers(percent))),
            What::Slow { service, millis, .. } => self.set_fault(service, Some(Fault::Slow(millis))),
            What::Hangs { service, millis, .. } => self.set_fault(service, Some(Fault::Hangs(millis))),
            What::Sightless { server, .. } => self.troubles.sightless.set(Some(server.into())),
            What::Replicas { lags_ms, .. } => {
                self.table.borrow_mut().lags = lags_ms.map(|lag| u64::from(lag) * MILLI);
            }
            What::Torn { millis, .. } => self.table.borrow_mut().torn = u64::from(millis) * MILLI,
            What::TableEmptied => self.empty_table(),
            What::BackedUp => self.back_up(),
            What::Restored => self.restore(),
            What::RowDeleted { pick } => self.delete_row(pick),
            What::RowUnreadable { pick, .. } => self.spoil_row(index, pick),
            What::RowDisabled { pick, .. } => self.disable_row(index, pick),
            What::RowCopied { pick, to } => self.copy_row(pick, to),
            What::Original { .. } => self.original(),
            What::Reporting => {}
            What::SpotWave { pick } => self.spot_wave(pick),
            What::Liar { .. } => self.strangers_report(index, None),
            What::DeadBalancers { count, .. } => self.strangers_report(index, Some(count)),
            What::ReportsEmptied => self.empty_reports(),
            What::ReportSpoiled { site } => self.spoil_report(usize::from(site) % CLIENTS),
            What::Ordered { whom, .. } => self.order(index, whom),
            What::HaproxyRestarts { site, .. } => self.stop_haproxy(usize::from(site) % CLIENTS),
            What::HaproxyReloads { site, linger } => self.reload_haproxy(usize::from(site) % CLIENTS, linger),
            What::HaproxyStops { site, .. } => self.freeze_haproxy(usize::from(site) % CLIENTS, true),
            What::SocketCrowded { site, .. } => self.crowd_socket(usize::from(site) % CLIENTS, true),
            What::SocketCut { site, percent, .. } => self.sites[usize::from(site) % CLIENTS].cuts.set(percent),
            What::Operator { site, pick, drain, .. } => {
                let change = if drain { Change::Weight(0) } else { Change::Maintenance };
                let _ = self.operate(usize::from(site) % CLIENTS, pick, change);
            }
            What::Kill { process, steps, restart_ms } => {
                let of = &self.processes[usize::from(process)];
                of.down_until.set(None);
                of.restart_in.set(u64::from(restart_ms) * MILLI);
                of.set_trap(steps.into(), Trap::Kill);
            }
            What::KillNow { process, restart_ms } => self.kill(process.into(), u64::from(restart_ms) * MILLI),
            What::Stop { process, restart_ms } => self.stop(process.into(), u64::from(restart_ms) * MILLI),
            What::Pause { process, steps, millis } => {
                self.processes[usize::from(process)].set_trap(steps.into(), Trap::Pause(u64::from(millis) * MILLI));
            }
            What::Clock { process, secs } => {
                let of = &self.processes[usize::from(process)];
                of.wall.set(of.wall.get() + i64::from(secs) * SECOND as i64);
            }
            What::Drift { process, parts_per_million } => {
                self.processes[usize::from(process)].set_drift(self.now(), parts_per_million.into());
            }
        }
    }

    pub(crate) fn end(self: &Rc<Self>, index: usize) {
        let what = self.schedule[index].1;
        self.note(format!("SCHEDULE ends {what:?}"));
        self.disturb(self.now());
        match what {
            What::Unhealthy { .. } => self.unmark(index, "is healthy again", |it| it.health = "Healthy"),
            What::StopsAnswering { .. } => self.unmark(index, "answers again", |it| it.answers = true),
            What::Standby { .. } | What::UnknownWord { .. } => self.unmark(index, "is in service again", |it| {
                if matches!(it.lifecycle, Some("Standby" | "Pondering")) {
                    it.lifecycle = Some("InService");
                }
            }),
            What::GroupMissing { group, .. } => self.set_missing(usize::from(group), false),
            What::GroupReplaced { group, .. } => self.make_group(index, usize::from(group)),
            What::LeftOut { .. } => {
                let number = self.marks.borrow_mut().remove(&index);
                self.each(number, |number| {
                    self.change_view(number, "is in EC2's answer again", |it| {
                        it.left_out = false;
                    });
                });
            }
            What::Denied { .. } => self.unmark(index, "is known to EC2", |it| it.denied = false),
            What::Bogus { .. } => {
                self.list_all();
                let is_ours = self.fleet.borrow().missing_beside == Some(index);
                if is_ours {
                    self.fleet.borrow_mut().missing_beside = None;
                    self.set_missing(BESIDE, false);
                }
            }
            What::OldGroups { group, .. } => self.aws.borrow_mut().group_lags[usize::from(group)] = 0,
            What::OldInstances { .. } | What::MixedInstances { .. } => {
                let mut aws = self.aws.borrow_mut();
                (aws.ec2_lag, aws.is_mixed) = (0, false);
            }
            What::Refuses { service, .. }
            | What::LosesAnswers { service, .. }
            | What::Slow { service, .. }
            | What::Hangs { service, .. } => self.set_fault(service, None),
            What::Sightless { .. } => self.troubles.sightless.set(None),
            What::Replicas { .. } => self.table.borrow_mut().lags = [0; 3],
            What::Torn { .. } => self.table.borrow_mut().torn = 0,
            What::RowUnreadable { .. } | What::RowDisabled { .. } => self.again_unless(self.put_back(index), index),
            What::Original { .. } => self.original(),
            What::Ordered { .. } => self.ordered_enough(index),
            What::Liar { .. } | What::DeadBalancers { .. } => self.strangers_leave(index),
            What::Uneven { .. } => drop(self.fleet.borrow_mut().skewed.remove(&index)),
            What::HaproxyRestarts { site, .. } => self.start_haproxy(usize::from(site) % CLIENTS),
            What::HaproxyStops { site, .. } => self.freeze_haproxy(usize::from(site) % CLIENTS, false),
            What::SocketCrowded { site, .. } => self.crowd_socket(usize::from(site) % CLIENTS, false),
            What::SocketCut { site, .. } => self.sites[usize::from(site) % CLIENTS].cuts.set(0),
            What::Operator { site, pick, .. } => {
                self.again_unless(self.operate(usize::from(site) % CLIENTS, pick, Change::Ready), index);
            }
            _ => {}
        }
    }

    /// An operator whom HAProxy or the table does not answer tries again.
    fn again_unless(&self, done: bool, index: usize) {
        if !done {
            self.post_in(SECOND, Event::End(index));
        }
    }

    /// What changed within `lag` is seen as it was before, which may be ready.
    fn is_seen_as_before(&self, lag: At) {
        let since = self.now().saturating_sub(lag);
        for instance in self.fleet.borrow().instances.iter().filter(|instance| instance.changed >= since) {
            self.promises.borrow_mut().touched(instance.ip(), true);
        }
    }

    /// Spot: an instance has two minutes.
    fn interrupt(self: &Rc<Self>, number: u64) {
        self.change(number, "is interrupted in two minutes", |it| {
            // EC2's mark means nothing while EC2 does not show the instance.
            it.announced = !(it.left_out || it.denied);
        });
        self.post_in(120 * SECOND, Event::Instance(number, Step::Interrupted));
    }

    /// Half of the fleet has two minutes, and Auto Scaling replaces it: most are terminated before these are over.
    fn spot_wave(self: &Rc<Self>, pick: Pick) {
        let ready = self.fleet.borrow().ready();
        let half = ready.len() / 2;
        if half < LEAST {
            return;
        }
        for number in ready.into_iter().cycle().skip(usize::from(pick)).take(half) {
            let group = self.fleet.borrow_mut().get(number).map_or(0, |it| it.group);
            self.interrupt(number);
            self.launch(group);
            self.post_in(self.between(20, 90) * SECOND, Event::Instance(number, Step::Refreshed));
        }
    }

    fn each(&self, number: Option<u64>, act: impl FnOnce(u64)) {
        if let Some(number) = number {
            act(number);
        }
    }

    /// Changes an instance until the entry ends.
    fn marked(self: &Rc<Self>, index: usize, number: Option<u64>, what: &str, change: impl FnOnce(&mut Instance)) {
        if let Some(number) = number {
            self.marks.borrow_mut().insert(index, number);
            self.change(number, what, change);
        }
    }

    fn unmark(self: &Rc<Self>, index: usize, what: &str, change: impl FnOnce(&mut Instance)) {
        let number = self.marks.borrow_mut().remove(&index);
        // It may have ended meanwhile.
        let alive = |number: &u64| self.fleet.borrow_mut().get(*number).is_some_and(|it| it.lifecycle.is_some());
        self.each(number.filter(alive), |number| self.change(number, what, change));
    }

    fn set_fault(&self, service: u8, fault: Option<Fault>) {
        let service =
            [Service::AutoScaling, Service::Ec2, Service::DynamoDb, Service::Reports][usize::from(service) % 4];
        self.troubles.of(service).set(fault);
    }

    /// An instance refresh: as many new ones as old ones, then the old ones go.
    fn refresh(self: &Rc<Self>, group: usize) {
        let old: Vec<u64> = {
            let fleet = self.fleet.borrow();
            fleet.instances.iter().filter(|it| it.group == group && it.is_ready()).map(|it| it.number).collect()
        };
        for (place, number) in old.into_iter().enumerate() {
            if self.launch(group).is_some() {
                self.disturb(self.now() + 90 * SECOND);
                self.post_in((70 + place as u64 * 2) * SECOND, Event::Instance(number, Step::Refreshed));
            }
        }
    }

    fn set_missing(self: &Rc<Self>, group: usize, missing: bool) {
        self.note(format!("group {} {}", GROUPS[group], if missing { "is missing" } else { "is there" }));
        self.fleet.borrow_mut().missing_groups[group] = missing;
        self.views_changed();
    }

    /// A group is deleted with its instances, if the other one can serve alone.
    fn delete_group(self: &Rc<Self>, index: usize, group: usize) {
        let (members, others): (Vec<u64>, Vec<u64>) = {
            let fleet = self.fleet.borrow();
            let of_group = |wanted: bool| {
                let ready = fleet.instances.iter().filter(|it| it.is_ready() && (it.group == group) == wanted);
                ready.map(|it| it.number).collect()
            };
            (of_group(true), of_group(false))
        };
        if others.len() >= LEAST {
            self.set_missing(group, true);
            self.marks.borrow_mut().insert(index, members.len() as u64);
            members.into_iter().for_each(|number| self.terminate(number));
        }
    }

    /// A group of the same name takes its place.
    fn make_group(self: &Rc<Self>, index: usize, group: usize) {
        let Some(size) = self.marks.borrow_mut().remove(&index) else { return };
        self.set_missing(group, false);
        for _ in 0..size {
            self.launch(group);
        }
        self.disturb_for_the_guard();
    }

    /// A whole answer that leaves out so many of a hundred: more than the guard lets go.
    ///
    /// Leaves out more than half of each group, and at least three of it, so that the guard holds whichever other group is missing
    /// meanwhile.
    fn unlist(self: &Rc<Self>, index: usize, percent: u8) -> bool {
        let is_late = self.aws.borrow().group_lags.iter().any(|lag| *lag > 0);
        if !self.is_settled_before_this() || is_late || self.is_a_shell_busy() {
            return false;
        }
        let mut random = Random::stream(self.seed, "bogus", index as u64);
        let mut numbers = self.fleet.borrow().ready();
        // Who drains by an order does not serve, and so does not count.
        numbers.retain(|number| self.fleet.borrow_mut().get(*number).is_some_and(|it| self.order_on(it).is_none()));
        random.shuffle(&mut numbers);
        let mut by_group: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for number in numbers {
            if let Some(instance) = self.fleet.borrow_mut().get(number) {
                by_group.entry(instance.group).or_default().push(number);
            }
        }
        // With a small group beside them, fewer than half of all might be left out.
        if by_group.values().any(|members| members.len() < 4) {
            return false;
        }
        let mut count = 0;
        for members in by_group.values() {
            let share = (members.len() * usize::from(percent)).div_ceil(100).max(members.len() / 2 + 1);
            for number in &members[..share] {
                if let Some(instance) = self.fleet.borrow_mut().get(*number) {
                    (instance.unlisted, instance.changed) = (true, self.now());
                    count += 1;
                }
            }
        }
        self.note(format!("the groups leave out {count} instances"));
        self.views_changed();
        true
    }

    /// Whether the groups left instances out at a moment of the last `lag`.
    pub(crate) fn was_bogus(&self, lag: At) -> bool {
        let fleet = self.fleet.borrow();
        let still = fleet.instances.iter().any(|instance| instance.unlisted);
        still || fleet.relisted.is_some_and(|relisted| self.now() < relisted + lag)
    }

    fn list_all(self: &Rc<Self>) {
        for instance in self.fleet.borrow_mut().instances.iter_mut().filter(|instance| instance.unlisted) {
            (instance.unlisted, instance.changed) = (false, self.now());
        }
        self.fleet.borrow_mut().relisted = Some(self.now());
        self.views_changed();
        // The guard keeps one that left in the meantime as it keeps the others.
        if self.fleet.borrow().instances.iter().any(|it| it.lifecycle.is_none() && it.ec2 == "running") {
            self.disturb_for_the_guard();
        }
    }

    fn disturb_for_the_guard(&self) {
        self.disturb(self.now() + REMOVAL_GUARD.as_micros() as u64 + 3 * SECOND);
    }

    fn stop_haproxy(self: &Rc<Self>, site: usize) {
        self.note(format!("HAProxy {site} stops"));
        self.sites[site].haproxy.kill(self.instant(self.now()));
        self.haproxy_changed(site, Cause::Restart);
    }

    fn start_haproxy(self: &Rc<Self>, site: usize) {
        self.note(format!("HAProxy {site} starts"));
        // Two entries may stop the same one.
        self.sites[site].haproxy.restart(self.instant(self.now()));
        self.haproxy_changed(site, Cause::Restart);
        self.plan_check(site);
        self.haproxy_is_back(site);
    }

    /// A new worker takes over, with what is configured; the old one lingers.
    fn reload_haproxy(self: &Rc<Self>, site: usize, linger: u16) {
        self.note(format!("HAProxy {site} is reloaded"));
        let haproxy = &self.sites[site].haproxy;
        if haproxy.is_running() {
            haproxy.reload(self.instant(self.now()), Duration::from_secs(linger.into()));
            self.haproxy_changed(site, Cause::Restart);
            self.plan_check(site);
        }
    }

    /// SIGSTOP and SIGCONT.
    fn freeze_haproxy(self: &Rc<Self>, site: usize, frozen: bool) {
        self.note(format!("HAProxy {site} {}", if frozen { "stands still" } else { "goes on" }));
        self.advance_haproxy(site);
        let (haproxy, now) = (&self.sites[site].haproxy, self.instant(self.now()));
        if frozen {
            haproxy.stop(now);
        } else {
            haproxy.resume(now);
        }
        self.haproxy_changed(site, Cause::Signal);
        self.plan_check(site);
    }

    /// Others use up what connections the socket takes, or leave it again.
    fn crowd_socket(self: &Rc<Self>, site: usize, crowded: bool) {
        self.advance_haproxy(site);
        self.sites[site].haproxy.set_socket(if crowded { SocketState::Silent } else { SocketState::Open });
        self.haproxy_changed(site, Cause::Signal);
        self.plan_check(site);
    }

    /// False if HAProxy does not answer.
    fn operate(self: &Rc<Self>, site: usize, pick: Pick, change: Change) -> bool {
        let slot = u32::from(pick) % 8 + 1;
        self.note(format!("an operator at HAProxy {site}: slot {slot} {change:?}"));
        self.advance_haproxy(site);
        let words = match change {
            Change::Weight(weight) => format!("weight {weight}"),
            Change::Maintenance => "state maint".to_owned(),
            _ => "state ready".to_owned(),
        };
        let line = format!("set server {}/{BASE}{slot} {words}", BACKENDS[0]);
        if self.sites[site].haproxy.operate(&line).is_none() {
            return false;
        }
        self.operator_acts(site, slot, change);
        self.haproxy_changed(site, Cause::Operator);
        self.plan_check(site);
        true
    }
}
