//! What Auto Scaling and EC2 say of the fleet, which may be old, mixed, incomplete or bogus; and the source that asks them. The two
//! answers are joined by hsdo's own `question` and `observe`.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use hsdo::aws::{DescribedInstances, Group, Member, Record, SpotMarks, instance_query, observe};
use hsdo::ports::{Source, TurnError};
use hsdo::slot::Observation;

use crate::journal::{At, SECOND};
use crate::settings::{GROUPS, Settings};
use crate::troubles::Service;
use crate::world::World;

/// How long an older view is kept.
const KEPT: At = 20 * SECOND;

/// What the two services say at one time.
#[derive(Debug, Default)]
struct View {
    groups: Vec<Group>,
    records: Arc<Vec<Record>>,
    not_found: Vec<String>,
    left_out: Vec<String>,
    marks: Arc<SpotMarks>,
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Aws {
    view: Rc<View>,
    past: VecDeque<(At, Rc<View>)>,
    /// How old the answers are: of each group, and of EC2.
    pub(crate) group_lags: [At; GROUPS.len()],
    pub(crate) ec2_lag: At,
    /// Only every second instance is seen as it was: pages of different replicas.
    pub(crate) is_mixed: bool,
    count: u64,
}

impl Aws {
    fn at(&self, lag: At, now: At) -> Rc<View> {
        let then = now.saturating_sub(lag);
        let past = || self.past.iter().find(|(until, _)| *until > then).map(|(_, view)| Rc::clone(view));
        if lag == 0 { None } else { past() }.unwrap_or_else(|| Rc::clone(&self.view))
    }
}

impl World {
    /// What AWS says follows what the fleet is.
    pub(crate) fn views_changed(&self) {
        let fleet = self.fleet.borrow();
        let mut view = View::default();
        for (place, name) in GROUPS.into_iter().enumerate().filter(|(place, _)| !fleet.missing_groups[*place]) {
            let members = fleet.instances.iter().filter(|it| it.group == place && !it.unlisted);
            let members = members.filter_map(|instance| {
                let lifecycle = instance.lifecycle?.to_owned();
                Some(Member {
                    id: instance.id.clone(),
                    lifecycle,
                    health: instance.health.to_owned(),
                    zone: Some(instance.zone()),
                    capacity: Some(instance.capacity()),
                })
            });
            view.groups.push(Group { name: name.to_owned(), members: Arc::new(members.collect()), ..Group::default() });
        }
        let known = fleet.instances.iter().filter(|instance| !instance.denied && !instance.left_out);
        view.records = Arc::new(
            known
                .map(|instance| Record {
                    id: instance.id.clone(),
                    state: instance.ec2.to_owned(),
                    address: (instance.ec2 != "terminated").then_some(instance.address),
                    tags: instance.tag.map(|tag| ("weight".to_owned(), tag.to_owned())).into_iter().collect(),
                    ..Record::default()
                })
                .collect(),
        );
        view.not_found = fleet.instances.iter().filter(|it| it.denied).map(|it| it.id.clone()).collect();
        view.left_out = fleet.instances.iter().filter(|it| it.left_out).map(|it| it.id.clone()).collect();
        let announced = fleet.instances.iter().filter(|it| it.announced);
        let marks = announced.map(|it| (it.id.clone(), "instance-terminated-no-capacity"));
        view.marks = Arc::new(marks.collect());
        let mut aws = self.aws.borrow_mut();
        aws.count += 1;
        view.number = aws.count;
        let before = std::mem::replace(&mut aws.view, Rc::new(view));
        aws.past.push_back((self.now(), before));
        while aws.past.front().is_some_and(|(until, _)| until + KEPT < self.now()) {
            aws.past.pop_front();
        }
    }
}

/// The source of one server.
pub(crate) struct GroupEdge {
    world: Rc<World>,
    process: usize,
    last: Option<Last>,
}

/// The last answer, and what it follows from: nothing else decides it.
struct Last {
    views: [u64; GROUPS.len() + 2],
    occupants: Vec<String>,
    seen: Observation,
}

impl GroupEdge {
    pub(crate) fn new(world: &Rc<World>, process: usize) -> Self {
        GroupEdge { world: Rc::clone(world), process, last: None }
    }

    fn ask(&self, service: Service, what: &str) -> Result<(), TurnError> {
        self.world.call(self.process, service, what)?;
        self.world.answer(self.process, service, what)
    }
}

impl Source for GroupEdge {
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, TurnError> {
        self.ask(Service::AutoScaling, "DescribeAutoScalingGroups")?;
        let of_groups = {
            let (aws, now) = (self.world.aws.borrow(), self.world.now());
            aws.group_lags.map(|lag| aws.at(lag, now))
        };
        self.ask(Service::Ec2, "DescribeInstances")?;
        let (of_ec2, of_others) = {
            let aws = self.world.aws.borrow();
            let now = self.world.now();
            (aws.at(aws.ec2_lag, now), aws.at(if aws.is_mixed { 0 } else { aws.ec2_lag }, now))
        };
        let views = [of_groups[0].number, of_groups[1].number, of_ec2.number, of_others.number];
        if let Some(last) = self.last.as_ref().filter(|last| last.views == views && last.occupants == occupants) {
            return Ok(last.seen.clone());
        }
        let mut groups = Vec::new();
        for (name, view) in GROUPS.iter().zip(&of_groups) {
            groups.extend(view.groups.iter().find(|group| group.name == *name).cloned());
        }
        let asked = instance_query(&groups, occupants);
        let ids: HashSet<&str> = asked.listed.iter().chain(&asked.unlisted).copied().collect();
        // Every second instance may be seen by another replica.
        let is_other = |id: &str| id.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']);
        let all = || {
            let first = of_ec2.records.iter().filter(|record| !is_other(&record.id));
            first.chain(of_others.records.iter().filter(|record| is_other(&record.id)))
        };
        let records = all().filter(|record| ids.contains(record.id.as_str())).cloned().collect();
        let known: HashSet<&str> = all().map(|record| record.id.as_str()).collect();
        // EC2 names those that it does not know; that it leaves one out of an answer is something else.
        let exists =
            |id: &str| [&of_ec2, &of_others].iter().any(|view| view.left_out.iter().any(|left_out| left_out == id));
        let denied = ids
            .iter()
            .copied()
            .filter(|id| of_ec2.not_found.iter().any(|denied| denied == id) || !known.contains(id) && !exists(id));
        let (batches, marks) = (vec![Arc::new(records)], Arc::clone(&of_ec2.marks));
        let described = DescribedInstances { batches, not_found: denied.collect(), marks };
        let selected = Settings::selection().select(groups.iter().map(|group| group.name.as_str()));
        let seen = observe(selected, &groups, occupants, &described, &Settings::reading());
        let occupants = occupants.iter().map(|name| (*name).to_owned()).collect();
        self.last = Some(Last { views, occupants, seen: seen.clone() });
        Ok(seen)
    }
}
