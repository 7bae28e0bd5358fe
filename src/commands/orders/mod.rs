//! `hsdo drain` and `hsdo enable`: give and lift orders. They are the only commands that write, and what they write is one map on
//! slot 1's item: the server that leads carries it out.

mod outlook;
mod report;
mod request;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::lease::Lease;
use super::{Options, failed, start};
use crate::aws::{Aws, Probe, Service, SlotTable};
use crate::environment::Environment;
use crate::error::Error;
use crate::order::{Order, Orders, Target};
use crate::ports::{SlotStore, Subject, TableReading, TurnError};
use crate::settings::{self, PresentSettings};
use crate::text::sanitized;
use outlook::{Outlook, held_by};
use report::OrderReport;
pub use request::{OrderRequest, check_note, parse_span};

/// Why an order is not given.
const MOST: &str = "with what is ordered already, that is more than half of the serving servers: repeat it with --yes";
/// How long STS is asked who gives an order.
const CALLER_TIMEOUT: Duration = Duration::from_secs(3);

/// The help of `hsdo drain`, without the flags.
pub const DRAIN_HELP: &str = "\
usage: hsdo drain TARGET... [--for DURATION] [--note TEXT] [--yes] [--dry-run]

Gives an order: whoever is in TARGET drains, on every HAProxy, until the order is lifted or lapses. Its servers keep
their slots at weight 0, and newcomers that it names get no slot. The server that leads carries it out in its next turn.
Says first what it means, and asks for --yes where it takes more than half of the serving servers. While no other
server has weight, its servers serve on as the last resort. It replaces an order on the same target.

TARGET: slot:3, an instance id, an address, zone:eu-west-1a or group:web-a
DURATION: 90s, 15m, 2h or 1d

exit codes: 0 given; 1 not given, with the reason; 2 usage or configuration

flags:
      --for DURATION the order lapses after that; default: never
      --note TEXT    why, for those who wonder: at most 200 characters
      --yes          also if it takes more than half of the serving servers
      --dry-run      only say what it would mean
";

/// The help of `hsdo enable`, without the flags.
pub const ENABLE_HELP: &str = "\
usage: hsdo enable TARGET... [--dry-run]

Lifts the orders on TARGETs, which `hsdo drain` gave: in the next turn of the server that leads, their servers start at
weight MIN again and ramp up. A target without an order is an error that names what holds it; nothing is lifted then.

TARGET: as it was given: slot:3, an instance id, an address, zone:eu-west-1a or group:web-a

exit codes: 0 lifted; 1 not lifted, with the reason; 2 usage or configuration

flags:
      --dry-run      only say what it would mean
";

/// The table with what is asked of it.
struct Desk {
    settings: PresentSettings,
    aws: Arc<Aws>,
    store: SlotTable,
    reading: TableReading,
}

impl Desk {
    fn open(options: &Options, env: &Environment) -> Result<Self, Error> {
        let settings = settings::load_present(options.config.as_deref(), env)?;
        let aws = start(options, &settings.common, false, env)?;
        let mut store = SlotTable::new(Arc::clone(&aws), &settings.common.table);
        let reading = SlotStore::read(&mut store).map_err(failed)?;
        Ok(Desk { settings, aws, store, reading })
    }

    fn place(&self) -> String {
        format!("table {} in {}", self.settings.common.table, self.aws.region(Service::DynamoDb))
    }

    /// Who gives an order. Nothing can deny the question, but STS may be out of reach.
    fn caller(&self) -> String {
        let probe = Probe::new(Arc::clone(&self.aws));
        let key = || probe.credentials().map(|held| held.label);
        probe.caller_within(CALLER_TIMEOUT).or_else(|_| key()).unwrap_or_else(|_| "unknown".to_owned())
    }

    /// Who carries an order out, and when; the second part is whether somebody does.
    fn carried_out(&mut self) -> (String, bool) {
        let lease = Lease::of(self.reading.marker.clone(), self.reading.time).watched(&mut self.store);
        match (&lease.marker.leader, lease.alive) {
            (Some(leader), Some(true)) => (format!("{leader}, which leads, carries it out in its next turn"), true),
            (None, _) | (_, Some(false)) => (format!("nobody carries it out yet: {}", lease.text()), false),
            (Some(leader), None) => (format!("{leader} leads and carries it out"), true),
        }
    }
}

/// Gives an order.
pub(super) fn drain(options: &Options, request: &OrderRequest, env: &Environment) -> Result<ExitCode, Error> {
    let mut desk = Desk::open(options, env)?;
    check_targets(&desk, &request.targets, env).map_err(refusal)?;
    let TableReading { table, orders, time, .. } = &desk.reading;
    let (time, standing) = (*time, orders.in_force(*time));
    let outlook = Outlook::of(table, &standing, &request.targets);
    let mut refused = (outlook.is_most() && !request.yes && !request.dry_run).then(|| MOST.to_owned());
    let until = request.span.map(|span| time.plus(span));
    let mut given_by = None;
    let mut carried_out = None;
    if !request.dry_run && refused.is_none() {
        let by = desk.caller();
        let order = |target: &Target| Order {
            target: target.clone(),
            until,
            since: Some(time),
            by: Some(by.clone()),
            note: request.note.clone(),
        };
        let given: Vec<Order> = request.targets.iter().map(order).collect();
        // Orders that others give at the same moment count too.
        let table = desk.reading.table.clone();
        let allows = |orders: &Orders| {
            let outlook = Outlook::of(&table, &orders.in_force(time), &request.targets);
            if outlook.is_most() && !request.yes { Err(MOST.to_owned()) } else { Ok(()) }
        };
        match desk.store.change_orders(&given, &[], &allows).map_err(|error| failed(error.into()))? {
            Ok(()) => {
                carried_out = Some(desk.carried_out());
                given_by = Some(by);
            }
            Err(why) => refused = Some(why),
        }
    }
    let answer = OrderReport {
        place: desk.place(),
        meaning: outlook.drains() + if outlook.is_most() && request.dry_run { "; that needs --yes" } else { "" },
        until: Some(until),
        note: request.note.clone(),
        by: given_by,
        carried_out,
        refused,
        outlook,
    };
    Ok(answer.print(options, request, "given", time, env))
}

/// Lifts orders.
pub(super) fn enable(options: &Options, request: &OrderRequest, env: &Environment) -> Result<ExitCode, Error> {
    let mut desk = Desk::open(options, env)?;
    let TableReading { table, orders, time, .. } = &desk.reading;
    let time = *time;
    let has_order = |target: &Target| {
        orders.all.iter().any(|order| order.target == *target)
            || orders.unreadable.iter().any(|entry| entry.target.as_ref() == Some(target))
    };
    let faults: Vec<String> = request
        .targets
        .iter()
        .filter(|target| !has_order(target))
        .map(|target| {
            format!("no order on {}: {}", sanitized(&target.to_string()), held_by(table, orders, target, time))
        })
        .collect();
    if !faults.is_empty() {
        return Err(refusal(faults.join("; ")));
    }
    let left: Vec<Order> =
        orders.in_force(time).into_iter().filter(|order| !request.targets.contains(&order.target)).collect();
    let outlook = Outlook::of(table, &left, &request.targets);
    let mut carried_out = None;
    if !request.dry_run {
        let any = |_: &Orders| Ok(());
        desk.store
            .change_orders(&[], &request.targets, &any)
            .map_err(|error| failed(error.into()))?
            .map_err(refusal)?;
        carried_out = Some(desk.carried_out());
    }
    let answer = OrderReport {
        place: desk.place(),
        meaning: outlook.enables(),
        until: None,
        note: None,
        by: None,
        carried_out,
        refused: None,
        outlook,
    };
    Ok(answer.print(options, request, "lifted", time, env))
}

fn refusal(text: String) -> Error {
    failed(TurnError::new(Subject::Turn, text))
}

/// Whether each target is something. The error names those that are not.
fn check_targets(desk: &Desk, targets: &[Target], env: &Environment) -> Result<(), String> {
    let faults: Vec<String> = targets.iter().filter_map(|target| target_fault(desk, target, env)).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

fn target_fault(desk: &Desk, target: &Target, env: &Environment) -> Option<String> {
    let TableReading { table, orders, .. } = &desk.reading;
    if outlook::is_somebody(table, target) || orders.all.iter().any(|order| order.target == *target) {
        return None;
    }
    let size = desk.settings.common.list_size;
    match target {
        Target::Slot(id) if *id <= size || table.rows.contains_key(id) => None,
        Target::Slot(id) => {
            Some(format!("slot:{id} has no row, and is above HAPROXY_BACKEND_SERVERS_LIST_SIZE, {size}"))
        }
        Target::Address(_) => None,
        Target::Zone(zone) => {
            let zones = outlook::names(table, |occupant| occupant.zone.as_deref());
            Some(format!("nobody is in zone {}; the servers are in {zones}", sanitized(zone)))
        }
        Target::Group(group) => {
            let groups = outlook::names(table, |occupant| occupant.group.as_deref());
            Some(format!("nobody is in group {}; the servers are in {groups}", sanitized(group)))
        }
        Target::Instance(name) => {
            let server = desk.settings.server.as_ref();
            let why = super::why::unknown_instance(&desk.aws, server, table, name, env)?;
            let meant = [Target::Zone(name.clone()), Target::Group(name.clone())];
            let meant = meant.iter().find(|target| outlook::is_somebody(table, target));
            let hint = meant.map(|target| format!(" (did you mean {}?)", sanitized(&target.to_string())));
            Some(format!("no row holds {}, and {why}{}", sanitized(name), hint.unwrap_or_default()))
        }
    }
}
