//! Gathers the facts that the other files judge. It changes nothing: it reads, tries writes whose condition cannot hold
//! (`aws::Probe`), and `local` takes the exporter's port for a moment.

mod local;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use self::local::{haproxy_facts, machine_facts};
use super::Roles;
use super::aws::{Action, AwsFacts, Need};
use super::departure::{HookFacts, ReportFacts};
use super::haproxy::HaproxyFacts;
use super::line::Trouble;
use super::machine::MachineFacts;
use super::settings::{SettingsFacts, chosen_roles};
use super::source::{Members, SameFactor, SourceFacts, Wanted};
use super::table::TableFacts;
use crate::aws::{
    Aws, AwsError, Group, Member, Probe, Regions, ReportTable, Service, SlotTable, Tried, describe, unseen_reason,
};
use crate::client::placement::Rules;
use crate::clock::Timestamp;
use crate::commands::{AWS_TIMEOUT, NoMetrics, find_zone};
use crate::consul::ServiceSource;
use crate::environment::Environment;
use crate::haproxy::HaproxyError;
use crate::ports::Source;
use crate::selection::{GroupSelection, NamePattern, SelectedGroups};
use crate::server::SlotLimits;
use crate::settings::{
    self, ClientSettings, Common, ListedSetting, ServerSettings, SourceSettings, WeightBy, Weighting,
};
use crate::slot::{Instance, Observation, Readiness};
use crate::text::fact_and_remedy;
use crate::weight::Size;

/// The groups that are asked for their hooks: a call each.
const MAX_HOOKED_GROUPS: usize = 20;

/// Everything that is known. What could not be asked, because a setting is faulty, is `None`.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) roles: Roles,
    pub(super) settings: SettingsFacts,
    pub(super) aws: Option<AwsFacts>,
    pub(super) source: Option<SourceFacts>,
    pub(super) table: Option<TableFacts>,
    pub(super) reports: Option<ReportFacts>,
    pub(super) hooks: Option<HookFacts>,
    pub(super) haproxy: Option<HaproxyFacts>,
    pub(super) machine: MachineFacts,
}

/// The settings of the roles that are checked, where they have no fault.
#[derive(Default)]
struct Loaded {
    server: Option<ServerSettings>,
    client: Option<ClientSettings>,
}

impl Loaded {
    fn common(&self) -> Option<&Common> {
        let client = || self.client.as_ref().map(|client| &client.common);
        self.server.as_ref().map(|server| &server.common).or_else(client)
    }

    fn roles(&self) -> Roles {
        Roles { server: self.server.is_some(), client: self.client.is_some() }
    }
}

pub(super) fn gather(config: Option<&Path>, named: Roles, env: &Environment) -> Facts {
    let (roles, facts, mut loaded) = load(config, named, env);
    let zone = loaded.client.as_mut().and_then(|client| find_zone(client, env));
    let (mut aws, mut source, mut table, mut haproxy, mut machine) = Default::default();
    let mut ends = Ends::default();
    thread::scope(|scope| {
        let from_haproxy = scope.spawn(|| loaded.client.as_ref().map(haproxy_facts));
        let from_machine = scope.spawn(|| machine_facts(&loaded));
        let from_consul = scope.spawn(|| loaded.server.as_ref().and_then(|server| consul_facts(server, env)));
        if let Some(common) = loaded.common() {
            (aws, source, table) = ask_aws(common, &loaded, &facts.listed, env, &mut ends);
        }
        haproxy = from_haproxy.join().expect("no fact panics");
        machine = from_machine.join().expect("no fact panics");
        source = source.take().or(from_consul.join().expect("no fact panics"));
    });
    let mut machine: MachineFacts = machine;
    machine.zone = zone.map(|zone| zone.map_err(Trouble::from));
    machine.ahead = aws.as_ref().and_then(|(_, ahead): &(AwsFacts, Option<i64>)| *ahead);
    let (reports, hooks) = (ends.reports, ends.hooks);
    Facts { roles, settings: facts, aws: aws.map(|(aws, _)| aws), source, table, reports, hooks, haproxy, machine }
}

fn load(config: Option<&Path>, named: Roles, env: &Environment) -> (Roles, SettingsFacts, Loaded) {
    let mut facts = SettingsFacts { named: named.server || named.client, ..SettingsFacts::default() };
    let mut roles = named;
    match settings::list(config, env) {
        Ok(listing) => (facts.listed, facts.file, facts.warnings) = (listing.settings, listing.file, listing.warnings),
        Err(faults) => {
            (facts.faults, facts.warnings) = faults.split();
            return (roles, facts, Loaded::default());
        }
    }
    if !facts.named {
        roles = chosen_roles(&facts.listed);
    }
    let mut loaded = Loaded::default();
    let mut report = |faults: settings::Faults| {
        let (faults, warnings) = faults.split();
        extend(&mut facts.faults, faults);
        extend(&mut facts.warnings, warnings);
    };
    if roles.server {
        loaded.server = settings::load_server(config, env).map_err(&mut report).ok();
    }
    if roles.client {
        loaded.client = settings::load_client(config, env).map_err(&mut report).ok();
    }
    for common in [loaded.server.as_ref().map(|one| &one.common), loaded.client.as_ref().map(|one| &one.common)] {
        extend(&mut facts.warnings, common.map(|common| common.warnings.clone()).unwrap_or_default());
    }
    (roles, facts, loaded)
}

/// Adds what is not there yet.
fn extend(lines: &mut Vec<String>, more: Vec<String>) {
    for line in more {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

impl From<AwsError> for Trouble {
    fn from(error: AwsError) -> Self {
        let (text, remedy) = error.fact_and_remedy();
        let denied = error.is_access_denied();
        Trouble { text, remedy, denied, table: matches!(error, AwsError::Table(_) | AwsError::NotReady(_)) }
    }
}

impl From<HaproxyError> for Trouble {
    fn from(error: HaproxyError) -> Self {
        let (text, remedy) = match &error {
            HaproxyError::Response { .. } => {
                (error.to_string(), "see that this is a `stats socket` of HAProxy".to_owned())
            }
            _ => fact_and_remedy(&error.to_string()),
        };
        Trouble { text, remedy, denied: false, table: false }
    }
}

/// From a message that ends with its remedy.
fn trouble(message: &str) -> Trouble {
    let (text, remedy) = fact_and_remedy(message);
    Trouble { text, remedy, denied: false, table: false }
}

/// What the end of an instance depends on.
#[derive(Default)]
struct Ends {
    reports: Option<ReportFacts>,
    hooks: Option<HookFacts>,
}

type FromAws = (Option<(AwsFacts, Option<i64>)>, Option<SourceFacts>, Option<TableFacts>);

fn ask_aws(common: &Common, loaded: &Loaded, listed: &[ListedSetting], env: &Environment, ends: &mut Ends) -> FromAws {
    let asked = loaded.server.as_ref().filter(|server| matches!(server.source, SourceSettings::Aws { .. }));
    let regions =
        Regions { named: common.region.as_deref(), table: common.table_region.as_deref(), only_table: asked.is_none() };
    let mut facts = AwsFacts {
        regions: Vec::new(),
        region_place: region_place(common, listed),
        credentials: Err(trouble("AWS is not asked: correct what is named above")),
        caller: None,
        now: Timestamp::now(),
        actions: Vec::new(),
    };
    let aws = match Aws::with_deadline(Some(Instant::now() + AWS_TIMEOUT), regions, env, Arc::new(NoMetrics)) {
        Ok(aws) => aws,
        Err(error) => {
            facts.credentials = Err(error.into());
            return (Some((facts, None)), None, None);
        }
    };
    let probe = Probe::new(Arc::clone(&aws));
    match probe.credentials() {
        Ok(held) => facts.credentials = Ok(held),
        Err(error) => {
            facts.credentials = Err(error.into());
            return (Some((facts, None)), None, None);
        }
    }
    facts.regions.push(("the table", aws.region(Service::DynamoDb).to_owned()));
    if asked.is_some() {
        facts.regions.push(("the groups", aws.region(Service::AutoScaling).to_owned()));
    }
    let (caller, (source, mut actions), (table, more)) = thread::scope(|scope| {
        let caller = scope.spawn(|| probe.caller());
        let source = scope.spawn(|| asked.map(|server| ask_groups(&aws, &probe, server)).unwrap_or_default());
        let table = ask_table(&aws, &probe, common, loaded);
        (caller.join().expect("no fact panics"), source.join().expect("no fact panics"), table)
    });
    ends.reports = common.report_table.as_ref().map(|name| ask_reports(&aws, name, loaded));
    ends.hooks = loaded.server.as_ref().and_then(|server| ask_hooks(&probe, server, source.as_ref()));
    facts.caller = Some(caller.map_err(credentials_trouble));
    actions.extend(more);
    facts.actions = actions;
    let ahead = probe.clock_ahead();
    facts.now = Timestamp::from_micros(Timestamp::now().as_micros().saturating_add(ahead.unwrap_or(0)));
    (Some((facts, ahead)), source, Some(table))
}

/// STS denies nothing to credentials that are good: a refusal means that they are not.
fn credentials_trouble(error: AwsError) -> Trouble {
    let denied = error.refusal().is_some_and(|refusal| !refusal.is_retryable() && (400..500).contains(&refusal.status));
    Trouble { denied, ..error.into() }
}

/// An operator who does not want to allow the call can turn it off.
fn spot_trouble(error: AwsError) -> Trouble {
    let trouble = Trouble::from(error);
    let remedy = format!("{}, or set SERVER_SPOT_NOTICE to false", trouble.remedy);
    Trouble { remedy: if trouble.denied { remedy } else { trouble.remedy }, ..trouble }
}

fn region_place(common: &Common, listed: &[ListedSetting]) -> String {
    let setting = listed.iter().find(|one| ["AWS_REGION", "AWS_DEFAULT_REGION"].contains(&one.setting.name));
    match (&common.region, setting) {
        (Some(_), Some(setting)) => format!("{}, {}", setting.setting.name, setting.place),
        _ if common.table_region.is_some() => "the table's ARN, else the profile or this instance".to_owned(),
        _ => "the profile, or this instance".to_owned(),
    }
}

fn ask_groups(aws: &Arc<Aws>, probe: &Probe, server: &ServerSettings) -> (Option<SourceFacts>, Vec<Action>) {
    let SourceSettings::Aws { groups: selection, reading } = &server.source else { return Default::default() };
    let description = describe(aws, selection, &[], reading.spot_notice);
    let observed = description.observation(&[], reading).unwrap_or_default();
    let ec2 = probe.describe_instances().map_err(Trouble::from);
    let groups = description.groups.map_err(Trouble::from);
    let need = Need::Required;
    let mut actions = vec![
        Action {
            name: "autoscaling:DescribeAutoScalingGroups",
            need,
            outcome: groups.as_ref().map(|_| ()).map_err(Trouble::clone),
        },
        Action { name: "ec2:DescribeInstances", need, outcome: ec2 },
    ];
    // Asked only if Spot instances are there.
    actions.extend(description.marks.map(|marks| Action {
        name: "ec2:DescribeSpotInstanceRequests",
        need: Need::Useful("Spot instances that are interrupted serve until their group or a check says so"),
        outcome: marks.map(drop).map_err(spot_trouble),
    }));
    let facts = groups.ok().map(|(groups, selected)| SourceFacts {
        kind: "group",
        key: match (selection.names.is_empty(), selection.tags.is_empty()) {
            (true, _) => "SERVER_ASG_TAGS",
            (false, true) => "SERVER_ASG_NAMES",
            (false, false) => "SERVER_ASG_NAMES or SERVER_ASG_TAGS",
        },
        tagged: !selection.tags.is_empty(),
        unused: unused_weights(&server.weighting, &selected.present),
        without_vcpus: match reading.weight_by {
            WeightBy::Vcpu => {
                observed.instances.iter().filter(|one| one.size == Size::Unit).map(|one| one.name.clone()).collect()
            }
            WeightBy::None | WeightBy::Capacity => vec![],
        },
        wanted: wanted(selection, &selected),
        found: Ok(groups.iter().map(|group| (group.name.clone(), group_members(group, &observed))).collect()),
        unseen: observed.unseen().map(str::to_owned).collect(),
        unseen_reason: unseen_reason(reading.address),
        faulty_tags: observed.faulty_tags.clone(),
        factors: factors(&observed, server),
        size: server.common.list_size,
    });
    (facts, actions)
}

fn ask_reports(aws: &Arc<Aws>, name: &str, loaded: &Loaded) -> ReportFacts {
    let table = ReportTable::new(Arc::clone(aws), name);
    ReportFacts {
        name: name.to_owned(),
        reading: loaded.server.as_ref().map(|_| table.scan().map_err(Trouble::from)),
        writing: loaded.client.as_ref().map(|_| table.try_write().map_err(Trouble::from)),
    }
}

fn ask_hooks(probe: &Probe, server: &ServerSettings, source: Option<&SourceFacts>) -> Option<HookFacts> {
    let wanted = server.hook.clone()?;
    let groups: Vec<String> = source
        .and_then(|source| source.found.as_ref().ok())
        .into_iter()
        .flat_map(|found| found.keys().cloned())
        .collect();
    let hooks = |group: &String| Ok((group.clone(), probe.hooks(group).map_err(Trouble::from)?));
    Some(HookFacts {
        completing: groups.first().map(|group| probe.completing(&wanted, group).map_err(Trouble::from)),
        groups: groups.iter().take(MAX_HOOKED_GROUPS).map(hooks).collect(),
        wanted,
        drain: server.drain,
        has_reports: server.common.report_table.is_some(),
    })
}

/// Each entry of the selection with the groups that are its own.
fn wanted(selection: &GroupSelection, selected: &SelectedGroups) -> Vec<Wanted> {
    if selection.names.is_empty() {
        let tags = selection.entries().iter().map(ToString::to_string).collect();
        return vec![Wanted { entry: tags, is_search: true, groups: selected.present.clone() }];
    }
    let wanted = |entry: &NamePattern| Wanted {
        entry: entry.to_string(),
        is_search: entry.is_pattern(),
        groups: selected.present.iter().filter(|name| entry.matches(name)).cloned().collect(),
    };
    selection.names.iter().map(wanted).collect()
}

/// A member whose tag excludes it is not ready.
fn group_members(group: &Group, observed: &Observation) -> Members {
    let drains = |one: &&Instance| one.readiness == Readiness::Draining;
    let draining: HashSet<&str> = observed.instances.iter().filter(drains).map(|one| one.name.as_str()).collect();
    let is_ready = |member: &&Member| member.is_ready() && !draining.contains(member.id.as_str());
    Members { all: group.members.len(), ready: group.members.iter().filter(is_ready).count() }
}

/// The entries of `SERVER_ASG_WEIGHTS` that are first for no group.
fn unused_weights(weighting: &Weighting, groups: &[String]) -> Vec<String> {
    let entry_of = |group: &String| weighting.groups.iter().position(|(name, _)| name.matches(group));
    let used: HashSet<usize> = groups.iter().filter_map(entry_of).collect();
    let entries = weighting.groups.iter().enumerate().filter(|(place, _)| !used.contains(place));
    entries.map(|(_, (name, factor))| format!("{name}={factor}")).collect()
}

/// The instances by what gives them another factor than 1.
fn factors(observed: &Observation, server: &ServerSettings) -> BTreeMap<String, SameFactor> {
    let limits = SlotLimits::of(server);
    let mut factors: BTreeMap<String, SameFactor> = BTreeMap::new();
    for instance in &observed.instances {
        if let Some(words) = limits.factor_words(instance.size, &instance.group) {
            let factor = limits.factor(instance.size, &instance.group);
            let full = limits.full_weight(factor);
            let new = || SameFactor { factor, full, instances: vec![] };
            factors.entry(words).or_insert_with(new).instances.push(instance.name.clone());
        }
    }
    factors
}

fn ask_table(aws: &Arc<Aws>, probe: &Probe, common: &Common, loaded: &Loaded) -> (TableFacts, Vec<Action>) {
    let (name, roles) = (&common.table, loaded.roles());
    let view = probe.table(name).map_err(Trouble::from);
    let expiry = probe.time_to_live(name).map_err(Trouble::from);
    let key = probe.get_item(name).map_err(Trouble::from);
    let reading = SlotTable::new(Arc::clone(aws), name).scan_once().map_err(Trouble::from);
    let outcome = |result: &Result<(), Trouble>| result.clone();
    let describe = if roles.server {
        Need::Useful("the server works without it, but says less of a table that is not one of slots")
    } else {
        Need::Told("the table's status and billing are not told")
    };
    let mut actions = vec![
        Action {
            name: "dynamodb:DescribeTable",
            need: describe,
            outcome: view.as_ref().map(|_| ()).map_err(Trouble::clone),
        },
        Action {
            name: "dynamodb:Scan",
            need: Need::Required,
            outcome: reading.as_ref().map(|_| ()).map_err(Trouble::clone),
        },
        Action {
            name: "dynamodb:GetItem",
            need: Need::Useful("the whole table is read every turn instead, which costs more"),
            outcome: outcome(&key),
        },
    ];
    let mut without_transactions = false;
    if roles.server {
        let transacted = probe.transact(name);
        without_transactions = matches!(transacted, Ok(Tried::Unknown));
        let strong = view.as_ref().is_ok_and(|view| view.strong);
        let tried = match transacted {
            // A table without transactions refuses them: then an update of one item is what counts.
            Err(error) if error.is_access_denied() || !strong => Err(error),
            _ => probe.update_item(name),
        };
        let outcome = tried.map_err(Trouble::from);
        actions.push(Action { name: "dynamodb:UpdateItem", need: Need::Required, outcome });
    }
    let facts = TableFacts {
        name: name.clone(),
        roles,
        size: common.list_size,
        interval: common.interval,
        view,
        expiry,
        reading,
        key,
        without_transactions,
        rules: loaded.client.as_ref().map(Rules::of).unwrap_or_default(),
    };
    (facts, actions)
}

fn consul_facts(server: &ServerSettings, env: &Environment) -> Option<SourceFacts> {
    let SourceSettings::Consul { api, services } = &server.source else { return None };
    let observed = ServiceSource::new(api.clone(), services.clone(), env, Arc::new(NoMetrics))
        .map_err(|error| trouble(&error.to_string()))
        .and_then(|mut source| source.fetch(&[]).map_err(|error| trouble(&error.text)));
    Some(SourceFacts {
        kind: "service",
        key: "SERVER_CONSUL_SERVICE_NAME",
        wanted: services.iter().map(|service| Wanted::named(service)).collect(),
        factors: observed.as_ref().map(|observed| factors(observed, server)).unwrap_or_default(),
        found: observed.map(|observed| members(services, &observed)),
        unseen: Vec::new(),
        unseen_reason: "",
        tagged: false,
        unused: unused_weights(&server.weighting, services),
        without_vcpus: Vec::new(),
        faulty_tags: Vec::new(),
        size: server.common.list_size,
    })
}

fn members(services: &[String], observed: &Observation) -> BTreeMap<String, Members> {
    let known = services.iter().filter(|service| !observed.missing_groups.contains(service));
    let count = |service: &String| {
        let of = || observed.instances.iter().filter(|instance| instance.group == *service);
        let ready = of().filter(|instance| instance.readiness == Readiness::Ready).count();
        (service.clone(), Members { all: of().count(), ready })
    };
    known.map(count).collect()
}
