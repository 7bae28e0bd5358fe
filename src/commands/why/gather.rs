//! Asks every source that can tell something about a target. One that fails costs the others nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::aws::{Aws, Description, ReportTable, Service, SlotTable, describe};
use crate::balancer::BalancerItems;
use crate::clock::Timestamp;
use crate::commands::NoMetrics;
use crate::commands::lease::Lease;
use crate::consul::ServiceSource;
use crate::environment::Environment;
use crate::haproxy::socket::{Socket, SocketLimits};
use crate::haproxy::{Runtime, Traffic};
use crate::order::{Orders, Target};
use crate::ports::{BackendFault, Haproxy, Servers, SlotStore, Source, TableReading, TurnError};
use crate::selection::{GroupSelection, NamePattern};
use crate::settings::{
    AddressKind, ClientSettings, Common, ConsulApi, PresentSettings, ServerSettings, SourceSettings,
};
use crate::slot::{Observation, Occupant, Row, SlotId, Table};

/// Everything that was found.
pub(super) struct Gathered {
    pub(super) now: Timestamp,
    /// For HAProxy's part.
    pub(super) clock: Instant,
    /// The table's name and region.
    pub(super) place: String,
    pub(super) table: Table,
    pub(super) orders: Orders,
    /// AWS's time, which orders lapse by.
    pub(super) time: Timestamp,
    pub(super) lease: Lease,
    pub(super) source: Told,
    /// What load balancers report; `None` without a report table.
    pub(super) reports: Option<Result<BalancerItems, TurnError>>,
    /// None without settings of a client.
    pub(super) balancer: Option<Result<Balancer, TurnError>>,
}

/// What the source of instances says.
pub(super) enum Told {
    Aws {
        /// The groups that were asked about.
        asked: GroupSelection,
        /// Which of an instance's addresses counts.
        address: AddressKind,
        description: Description,
        /// What the server would make of it; none without its settings, or if a part is missing.
        observation: Option<Box<Observation>>,
    },
    Consul {
        services: Vec<String>,
        observation: Result<Observation, TurnError>,
    },
}

impl Told {
    pub(super) fn observation(&self) -> Option<&Observation> {
        match self {
            Told::Aws { observation, .. } => observation.as_deref(),
            Told::Consul { observation, .. } => observation.as_ref().ok(),
        }
    }
}

/// What HAProxy runs.
pub(super) struct Balancer {
    pub(super) backends: BTreeMap<String, Result<Servers, BackendFault>>,
    /// By backend and server; or why HAProxy does not tell.
    pub(super) traffic: Result<BTreeMap<String, BTreeMap<String, Traffic>>, TurnError>,
}

/// Asks all of them.
///
/// # Errors
/// The table cannot be read: without it nothing can be explained.
pub(super) fn gather(
    aws: &Arc<Aws>,
    settings: &PresentSettings,
    target: &Target,
    env: &Environment,
) -> Result<Gathered, TurnError> {
    let mut store = SlotTable::new(Arc::clone(aws), &settings.common.table);
    let TableReading { table, marker, orders, time, .. } = SlotStore::read(&mut store)?;
    let lease = Lease::of(marker, Timestamp::now());
    let source = ask_source(aws, settings.server.as_ref(), &table, target, env);
    let reports = settings.common.report_table.as_ref();
    let reports = reports.map(|name| ReportTable::new(Arc::clone(aws), name).scan().map_err(TurnError::from));
    let balancer = settings.client.as_ref().map(|client| ask_haproxy(client, &settings.common));
    let (now, clock) = (Timestamp::now(), Instant::now());
    let place = format!("table {} in {}", settings.common.table, aws.region(Service::DynamoDb));
    Ok(Gathered { now, clock, place, table, orders, time, lease, source, reports, balancer })
}

pub(super) fn ask_source(
    aws: &Aws,
    server: Option<&ServerSettings>,
    table: &Table,
    target: &Target,
    env: &Environment,
) -> Told {
    let occupants = table.slots().filter_map(|slot| slot.occupant.as_ref());
    let subject = find_row(table, target).and_then(|(_, row)| occupant(row));
    let groups = match server.map(|server| &server.source) {
        Some(SourceSettings::Consul { api, services }) => return ask_consul(api, services, env),
        Some(SourceSettings::Aws { groups, reading }) => Some((groups, reading)),
        None => None,
    };
    let mut names: Vec<&str> = match groups {
        Some(_) => occupants.map(|occupant| occupant.name.as_str()).collect(),
        None => subject.iter().map(|occupant| occupant.name.as_str()).collect(),
    };
    if let Target::Instance(name) = target {
        names.push(name);
    }
    // Without the server's settings, only the group that the row names can be asked about.
    let of_row = || {
        let group = subject.and_then(|occupant| occupant.group.as_deref());
        GroupSelection { names: group.into_iter().map(NamePattern::plain).collect(), tags: vec![] }
    };
    let asked = groups.map_or_else(of_row, |(groups, _)| groups.clone());
    let spot_notice = groups.is_some_and(|(_, reading)| reading.spot_notice);
    let description = describe(aws, &asked, &names, spot_notice);
    let observation = groups.and_then(|(_, reading)| description.observation(&names, reading)).map(Box::new);
    let address = groups.map(|(_, reading)| reading.address).unwrap_or_default();
    Told::Aws { asked, address, description, observation }
}

fn ask_consul(api: &ConsulApi, services: &[String], env: &Environment) -> Told {
    let source = ServiceSource::new(api.clone(), services.to_vec(), env, Arc::new(NoMetrics));
    let observation = source.map_err(TurnError::from).and_then(|mut source| source.fetch(&[]));
    Told::Consul { services: services.to_vec(), observation }
}

fn ask_haproxy(client: &ClientSettings, common: &Common) -> Result<Balancer, TurnError> {
    let names = client.backend_names();
    let limits = SocketLimits::of(names.len(), common.list_size as usize);
    let mut runtime = Runtime::new(Socket::new(client.socket.clone(), limits));
    let backends = runtime.read(&names)?.backends;
    let traffic = runtime.traffic(&names);
    Ok(Balancer { backends, traffic })
}

/// The row of a target; the lowest, if several name it.
pub(super) fn find_row<'a>(table: &'a Table, target: &Target) -> Option<(SlotId, &'a Row)> {
    let is_meant = |id: SlotId, row: &Row| match (target, row) {
        (Target::Slot(slot), _) => id == *slot,
        (Target::Address(address), Row::Unreadable { address: found, .. }) => *found == Some(*address),
        (target, row) => occupant(row).is_some_and(|occupant| target.names(id, occupant)),
    };
    table.rows.iter().map(|(id, row)| (*id, row)).find(|(id, row)| is_meant(*id, row))
}

/// The occupant of a row, if it is readable and has one.
pub(super) fn occupant(row: &Row) -> Option<&Occupant> {
    match row {
        Row::Readable(slot) => slot.occupant.as_ref(),
        Row::Unreadable { .. } => None,
    }
}
