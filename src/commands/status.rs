//! `hsdo status`: the table as it is, and who leads it.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::lease::Lease;
use super::print::{self, Cell, Tone};
use super::{Options, failed, start};
use crate::aws::{ReportTable, Service, SlotTable};
use crate::balancer::{BalancerItem, BalancerItems, BalancerReport};
use crate::clock::Timestamp;
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::order::{Order, Orders};
use crate::ports::{BalancerState, SlotStore, TableReading};
use crate::settings;
use crate::slot::{Occupant, Row, SlotId, Table, counts_by_state};
use crate::status::{BalancerFacts, OrderFacts};
use crate::text::{list, span};

/// Slots listed for one order.
const LISTED: usize = 12;

/// The help, without the flags.
pub const HELP: &str = "\
usage: hsdo status [--json] [--config PATH] [--debug]

Prints the table as it is: who leads it and whether it is alive, the version, each slot with its instance, group, zone,
address, weight, state, and since when (its last step), and the orders that `hsdo drain` gave. With
DYNAMODB_REPORT_TABLE_NAME it shows each load balancer too: how far it is behind the table, its HAProxy, its spillover,
the servers that it holds, and its sessions on what drains. Waits up to 3 s for the leader's heartbeat.

exit codes: 0 the table was read; 1 it cannot be read; 2 usage or configuration
";

pub(super) fn run(options: &Options, env: &Environment) -> Result<ExitCode, Error> {
    let common = settings::load_table(options.config.as_deref(), env)?;
    let aws = start(options, &common, true, env)?;
    let mut store = SlotTable::new(aws.clone(), &common.table);
    let TableReading { table, marker, orders, time, .. } = SlotStore::read(&mut store).map_err(failed)?;
    let lease = Lease::of(marker, Timestamp::now()).watched(&mut store);
    let reports = common.report_table.as_ref().map(|name| ReportTable::new(aws.clone(), name).scan());
    let reports = reports.map(|read| read.map_err(|error| error.to_string()));
    let view = View { name: &common.table, region: aws.region(Service::DynamoDb), lease, table, orders, time, reports };
    let text = if options.json {
        print::json(&view.json(Timestamp::now()))
    } else {
        view.text(Timestamp::now(), print::has_colours(env))
    };
    crate::command_line::print(&text);
    Ok(ExitCode::from(exit::DONE))
}

/// What is shown.
struct View<'a> {
    name: &'a str,
    region: &'a str,
    lease: Lease,
    table: Table,
    orders: Orders,
    /// AWS's time, which orders lapse by.
    time: Timestamp,
    /// What load balancers report, or why that cannot be read; `None` without a report table.
    reports: Option<Result<BalancerItems, String>>,
}

/// Whether a load balancer has carried out the version that was read.
fn balancer_state(report: &BalancerReport, version: Option<u64>) -> &'static str {
    if report.version >= version { BalancerState::Current.word() } else { BalancerState::Behind.word() }
}

impl View<'_> {
    fn balancers(&self) -> Vec<Vec<Cell>> {
        let version = self.lease.marker.version;
        let items = self.reports.iter().flatten().flat_map(|read| &read.items);
        let row = |item: &BalancerItem| {
            let BalancerReport { version: done, haproxy, held, .. } = &item.report;
            let state = balancer_state(&item.report, version);
            let tone = if state == BalancerState::Current.word() { Tone::Good } else { Tone::Warn };
            let lag = version.zip(*done).map(|(version, done)| Duration::from_millis(version.saturating_sub(done)));
            let lag = lag.filter(|lag| !lag.is_zero()).map(|lag| format!(" by {}", span(lag))).unwrap_or_default();
            let busy: Vec<String> = item.report.busy().map(|(slot, count)| format!("slot {slot}: {count}")).collect();
            let none = || Cell::new("-", Tone::Faint);
            let listed = |text: String| if text.is_empty() { none() } else { text.into() };
            let spill = item.report.spill_share();
            vec![
                item.name.clone().into(),
                Cell::new(format!("{state}{lag}"), tone),
                haproxy.clone().into(),
                if spill > 0.0 { spill.to_string().into() } else { none() },
                listed(list(held.iter().cloned(), LISTED)),
                listed(list(busy.into_iter(), LISTED)),
                since(Timestamp::from_millis(item.seen), self.time).into(),
            ]
        };
        items.map(row).collect()
    }

    fn counts(&self) -> String {
        let counts = counts_by_state(self.table.slots(), self.table.faults().len());
        counts.map(|(state, count)| format!("{count} {state}")).join(", ")
    }

    fn text(&self, now: Timestamp, colours: bool) -> String {
        let version = self.lease.marker.version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        let head = [
            vec!["table".into(), format!("{} in {}", self.name, self.region).into()],
            vec!["leader".into(), self.lease.cell()],
            vec!["version".into(), version.into()],
            vec!["slots".into(), self.counts().into()],
        ];
        let mut text = print::table(&[], &head, colours);
        if !self.table.rows.is_empty() {
            let rows: Vec<Vec<Cell>> = self.table.rows.iter().map(|(id, row)| cells(*id, row, now)).collect();
            let header = ["SLOT", "INSTANCE", "GROUP", "ZONE", "ADDRESS", "WEIGHT", "STATE", "SINCE", "NOTE"];
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\n{}", print::table(&header, &rows, colours));
        }
        let orders = self.orders.in_force(self.time);
        if !orders.is_empty() {
            let rows: Vec<Vec<Cell>> = orders.iter().map(|order| self.order_cells(order)).collect();
            let header = ["ORDER ON", "SLOTS", "SINCE", "UNTIL", "BY", "NOTE"];
            let _ = write!(text, "\n{}", print::table(&header, &rows, colours));
        }
        let balancers = self.balancers();
        if !balancers.is_empty() {
            let header =
                ["BALANCER", "STATE", "HAPROXY", "SPILL", "HELD", "SESSIONS ON WHAT DRAINS", "SEEN, BY ITS OWN CLOCK"];
            let _ = write!(text, "\n{}", print::table(&header, &balancers, colours));
        }
        match &self.reports {
            Some(Err(why)) => {
                let _ = writeln!(text, "the reports of load balancers cannot be read: {}", crate::text::sanitized(why));
            }
            Some(Ok(read)) => {
                for why in &read.unreadable {
                    let _ = writeln!(text, "no report, as it cannot be read: {}", crate::text::sanitized(why));
                }
            }
            None => {}
        }
        for entry in &self.orders.unreadable {
            let _ = writeln!(text, "no order, as it cannot be read: {}", crate::text::sanitized(&entry.reason));
        }
        for stray in &self.table.strays {
            let _ = writeln!(text, "no slot: {}", crate::text::sanitized(stray));
        }
        text
    }

    /// The slots whose servers an order is about.
    fn held(&self, order: &Order) -> Vec<SlotId> {
        order.target.among(self.table.slots()).map(|slot| slot.id).collect()
    }

    fn order_cells(&self, order: &Order) -> Vec<Cell> {
        let none = || Cell::new("-", Tone::Faint);
        let slots = self.held(order);
        let slots = list(slots.iter().map(ToString::to_string), LISTED);
        vec![
            Cell::new(order.target.to_string(), Tone::Warn),
            if slots.is_empty() { none() } else { slots.into() },
            order.since.map_or_else(none, |since| since.to_the_second().into()),
            order.until.map_or_else(|| "until lifted".into(), |until| until.to_the_second().into()),
            order.by.clone().map_or_else(none, Cell::from),
            order.note.clone().map_or_else(none, Cell::from),
        ]
    }

    fn json(&self, now: Timestamp) -> Value {
        let in_force = self.orders.in_force(self.time);
        let orders: Vec<OrderFacts> = in_force.iter().map(|order| OrderFacts::of(order, self.held(order))).collect();
        let facts = |item: &BalancerItem| {
            let state = balancer_state(&item.report, self.lease.marker.version);
            BalancerFacts::of(&item.name, state, item.seen, &item.report)
        };
        let read = self.reports.as_ref().map(|read| read.as_ref().ok());
        let balancers = read.map(|read| read.map(|read| read.items.iter().map(facts).collect::<Vec<_>>()));
        let slots: Vec<Value> = self.table.rows.iter().map(|(id, row)| slot_json(*id, row, now)).collect();
        json!({
            "table": self.name,
            "region": self.region,
            "lease": self.lease.json(),
            "version": self.lease.marker.version,
            "slots": slots,
            "strays": self.table.strays,
            "orders": orders,
            "balancers": balancers.flatten(),
            "balancers_fault": self.reports.as_ref().and_then(|read| read.as_ref().err()),
            "unreadable_balancers": self.reports.iter().flatten().flat_map(|read| &read.unreadable).collect::<Vec<_>>(),
            "unreadable_orders": self.orders.unreadable.iter().map(|entry| &entry.reason).collect::<Vec<_>>(),
        })
    }
}

/// A row's state, named as in the metric `hsdo_slots`.
pub(super) fn state(row: &Row) -> &'static str {
    match row {
        Row::Unreadable { .. } => "unreadable",
        Row::Readable(slot) => slot.occupant.as_ref().map_or("free", |occupant| occupant.status.word()),
    }
}

fn cells(id: SlotId, row: &Row, now: Timestamp) -> Vec<Cell> {
    let none = || Cell::new("-", Tone::Faint);
    let tone = match state(row) {
        "enabled" => Tone::Good,
        "free" => Tone::Faint,
        "unreadable" => Tone::Bad,
        _ => Tone::Warn,
    };
    let state = Cell::new(state(row), tone);
    let (occupant, address, note) = match row {
        Row::Unreadable { reason, address } => (None, *address, reason.clone()),
        Row::Readable(slot) => match (&slot.occupant, &slot.last_group) {
            (Some(occupant), _) => (Some(occupant), Some(occupant.address), String::new()),
            (None, Some(last)) => (None, None, format!("last group {last}")),
            (None, None) => (None, None, String::new()),
        },
    };
    let of = |pick: fn(&Occupant) -> String| occupant.map_or_else(none, |occupant| pick(occupant).into());
    vec![
        id.to_string().into(),
        of(|occupant| occupant.name.clone()),
        occupant.and_then(|occupant| occupant.group.clone()).map_or_else(none, Cell::from),
        occupant.and_then(|occupant| occupant.zone.clone()).map_or_else(none, Cell::from),
        address.map_or_else(none, |address| address.to_string().into()),
        of(|occupant| occupant.weight.to_string()),
        state,
        occupant.and_then(|occupant| occupant.last_step).map_or_else(none, |step| since(step, now).into()),
        note.into(),
    ]
}

fn slot_json(id: SlotId, row: &Row, now: Timestamp) -> Value {
    let (slot, address, fault) = match row {
        Row::Unreadable { reason, address } => (None, *address, Some(reason)),
        Row::Readable(slot) => (Some(slot), slot.occupant.as_ref().map(|occupant| occupant.address), None),
    };
    let occupant = slot.and_then(|slot| slot.occupant.as_ref());
    let step = occupant.and_then(|occupant| occupant.last_step);
    json!({
        "number": id,
        "instance": occupant.map(|occupant| &occupant.name),
        "group": occupant.and_then(|occupant| occupant.group.as_ref()),
        "zone": occupant.and_then(|occupant| occupant.zone.as_ref()),
        "address": address.map(|address| address.to_string()),
        "weight": occupant.map(|occupant| occupant.weight),
        "state": state(row),
        "since": step.map(Timestamp::rfc3339),
        "drain_since": occupant.and_then(|occupant| occupant.drain_since).map(Timestamp::rfc3339),
        "since_seconds": step.and_then(|step| now.since(step)).map(|age| age.as_secs_f64()),
        "last_group": slot.and_then(|slot| slot.last_group.as_ref()),
        "last_zone": slot.and_then(|slot| slot.last_zone.as_ref()),
        "fault": fault,
    })
}

/// A moment, and how long ago it was.
pub(super) fn since(then: Timestamp, now: Timestamp) -> String {
    let moment = then.to_string();
    let moment = moment.get(..19).unwrap_or(&moment);
    match now.since(then) {
        Some(age) => format!("{moment} ({} ago)", span(age)),
        None => format!("{moment} (in the future)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::Marker;
    use crate::order::{Target, UnreadableOrder};
    use crate::slot::{Slot, Status};

    fn view() -> View<'static> {
        let occupant = |name: &str, status, weight| Occupant {
            address: "10.0.0.7".parse().expect("an address"),
            name: name.to_owned(),
            group: Some("web-a".to_owned()),
            zone: (status == Status::Enabled).then(|| "z1".to_owned()),
            port: None,
            weight,
            status,
            last_step: Timestamp::parse("2026-01-02 03:04:05.678"),
            drain_since: None,
        };
        let taken =
            |id, name: &str, status, weight| Slot { occupant: Some(occupant(name, status, weight)), ..Slot::empty(id) };
        let mut table = Table::default();
        for slot in [
            taken(1, "i-0a", Status::Enabled, 10),
            taken(2, "<b>\u{202e}\"x", Status::Draining, 0),
            Slot { last_group: Some("web-b".to_owned()), ..Slot::empty(3) },
        ] {
            table.rows.insert(slot.id, Row::Readable(slot.into()));
        }
        table.rows.insert(4, Row::Unreadable { reason: "Weight is missing".to_owned(), address: None });
        table.strays.push("item with BackendServerID \"x\"".to_owned());
        let marker = Marker {
            version: Some(7),
            heartbeat: Some(1_767_323_100_000),
            leader: Some("h/1".to_owned()),
            blind: false,
        };
        let lease = Lease { alive: Some(true), ..Lease::of(marker, now()) };
        let order = Order {
            target: Target::Group("web-a".to_owned()),
            until: Some(now().plus(Duration::from_secs(3_600))),
            since: Some(now()),
            by: Some("arn:aws:iam::1:user/x".to_owned()),
            note: Some("patch <1>".to_owned()),
        };
        let broken = UnreadableOrder { target: None, reason: "\"x\": it is not a map".to_owned() };
        let orders = Orders { all: vec![order], unreadable: vec![broken] };
        View { name: "web", region: "eu-west-1", lease, table, orders, time: now(), reports: None }
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-02 03:05:05.678").expect("a time")
    }

    #[test]
    fn the_table_as_text() {
        let expected = "\
table    web in eu-west-1
leader   h/1, alive (heartbeat 5.7 s old)
version  7
slots    1 enabled, 1 draining, 0 disabled, 1 free, 2 unreadable

SLOT  INSTANCE       GROUP  ZONE  ADDRESS   WEIGHT  STATE       SINCE                                NOTE
1     i-0a           web-a  z1    10.0.0.7  10      enabled     2026-01-02 03:04:05 (1 min 0 s ago)
2     <b>\\u{202e}\"x  web-a  -     10.0.0.7  0       draining    2026-01-02 03:04:05 (1 min 0 s ago)
3     -              -      -     -         -       free        -                                    last group web-b
4     -              -      -     -         -       unreadable  -                                    Weight is missing

ORDER ON     SLOTS  SINCE                 UNTIL                 BY                     NOTE
group:web-a  1, 2   2026-01-02T03:05:05Z  2026-01-02T04:05:05Z  arn:aws:iam::1:user/x  patch <1>
no order, as it cannot be read: \"x\": it is not a map
no slot: item with BackendServerID \"x\"
";
        assert_eq!(view().text(now(), false), expected);
    }

    #[test]
    fn the_table_as_json() {
        let found = view().json(now());
        assert_eq!(
            found["lease"],
            json!({"leader": "h/1", "alive": true, "blind": false, "heartbeat_age_seconds": 5.678})
        );
        let first = json!({
            "number": 1, "instance": "i-0a", "group": "web-a", "zone": "z1", "address": "10.0.0.7", "weight": 10,
            "state": "enabled", "since": "2026-01-02T03:04:05.678Z", "since_seconds": 60.0, "drain_since": null, "last_group": null,
            "last_zone": null, "fault": null,
        });
        assert_eq!(found["slots"][0], first);
        assert_eq!(found["slots"][1]["instance"], "<b>\u{202e}\"x");
        assert_eq!(found["slots"][3]["fault"], "Weight is missing");
    }
}
