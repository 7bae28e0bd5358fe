//! The DynamoDB table: schema, billing, expiry, and its rows. Pure.

use std::time::Duration;

use super::Roles;
use super::line::{Line, Trouble};
use crate::aws::{Throughput, ViewedTable};
use crate::client::placement::{History, Rules, Splits};
use crate::ports::TableReading;
use crate::slot::{Row, SlotId, Table};
use crate::text::{list, sanitized};

const MAX_LISTED: usize = 10;
/// Bytes of a row, and of a read unit (DynamoDB Developer Guide, "read and write operations").
const ROW: u64 = 180;
const READ_UNIT: u64 = 4096;
/// Write units that a leader needs: a heartbeat a second, and some changes. A transaction takes two for each item.
const WRITES: u64 = 5;

/// What is known of the table.
#[derive(Debug)]
pub(super) struct TableFacts {
    pub(super) name: String,
    pub(super) roles: Roles,
    /// The number of slots.
    pub(super) size: SlotId,
    pub(super) interval: Duration,
    /// By `DescribeTable`.
    pub(super) view: Result<ViewedTable, Trouble>,
    /// By `DescribeTimeToLive`: the attribute by which items expire.
    pub(super) expiry: Result<Option<String>, Trouble>,
    /// By `Scan`.
    pub(super) reading: Result<TableReading, Trouble>,
    /// Whether `GetItem` accepts the key.
    pub(super) key: Result<(), Trouble>,
    /// The endpoint has no transactions.
    pub(super) without_transactions: bool,
    /// How the client splits servers.
    pub(super) rules: Rules,
}

pub(super) fn lines(facts: &TableFacts) -> Vec<Line> {
    let table = || format!("table {:?}", facts.name);
    let mut lines = Vec::new();
    match (&facts.view, &facts.key) {
        (Ok(view), _) => {
            let text = format!("{}, key BackendServerID (number)", view.status);
            lines.push(Line::ok(table(), text));
            lines.push(billing(facts, view));
            if view.strong {
                let text = "a global table with strong consistency: no transactions, so slots are written one by one";
                lines.push(Line::ok(table(), text));
            }
        }
        (Err(trouble), _) if trouble.table => lines.push(Line::trouble(table(), trouble)),
        (Err(_), Ok(())) => {
            let text =
                "key BackendServerID (number), seen by GetItem; its billing is not told without dynamodb:DescribeTable";
            lines.push(Line::ok(table(), text));
        }
        (Err(_), Err(key)) if !key.denied => lines.push(Line::mend(
            table(),
            &key.text,
            format!(
                "{}, or name another table in DYNAMODB_TABLE_NAME: its key must be BackendServerID (number)",
                key.remedy
            ),
        )),
        (Err(_), Err(_)) => {
            lines.push(Line::ok(table(), "its schema is not told without dynamodb:DescribeTable or dynamodb:GetItem"));
        }
    }
    if facts.without_transactions {
        lines.push(Line::ok(table(), "the endpoint has no transactions, so slots are written one by one"));
    }
    match &facts.expiry {
        Ok(None) => lines.push(Line::ok("TTL", "off")),
        Ok(Some(attribute)) => lines.push(Line::mend(
            "TTL",
            format!("on, by attribute {attribute:?}: DynamoDB may delete rows, and their servers with them"),
            "turn time to live off for this table",
        )),
        Err(trouble) if trouble.denied => lines.push(Line::ok("TTL", "not told without dynamodb:DescribeTimeToLive")),
        Err(trouble) if trouble.table => {}
        Err(trouble) => lines.push(Line::ok("TTL", format!("not told: {}", trouble.text))),
    }
    if let Ok(reading) = &facts.reading {
        lines.extend(rows(facts, reading));
    }
    lines
}

fn billing(facts: &TableFacts, view: &ViewedTable) -> Line {
    let Some(Throughput { reads, writes }) = view.provisioned else { return Line::ok("billing", "on demand") };
    let wanted = wanted_reads(facts.size, facts.interval);
    let text = format!("provisioned, {reads} read and {writes} write units a second");
    if reads >= wanted && writes >= WRITES {
        return Line::ok("billing", text);
    }
    Line::warn(
        "billing",
        format!(
            "{text}: a server with {} slots takes {wanted} and {WRITES}, and calls beyond are throttled",
            facts.size
        ),
        "change the table to on-demand billing, or raise its capacity",
    )
}

/// Read units a second of one server, which scans the table each turn, and one client.
fn wanted_reads(size: SlotId, interval: Duration) -> u64 {
    let scan = (u64::from(size) * ROW).div_ceil(READ_UNIT).max(1);
    let turns = (1.0 / interval.as_secs_f64()).ceil();
    // Truncation is harmless: an interval is at least 50 ms.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let turns = turns as u64;
    (scan + 1) * turns.max(1)
}

fn rows(facts: &TableFacts, TableReading { table, marker, orders, time, .. }: &TableReading) -> Vec<Line> {
    let size = facts.size;
    let mut lines = Vec::new();
    let taken = table.slots().filter(|slot| slot.occupant.is_some()).count();
    let missing: Vec<SlotId> = (1..=size).filter(|id| !table.rows.contains_key(id)).collect();
    let text = format!("{} rows, {taken} of them taken, for {size} slots", table.rows.len());
    match (missing.is_empty(), facts.roles.server) {
        (true, _) => lines.push(Line::ok("rows", text)),
        (false, true) => lines.push(Line::ok("rows", format!("{text}; the server creates {} more", missing.len()))),
        (false, false) => lines.push(Line::warn(
            "rows",
            format!("{text}; no row for {}, so these slots are not touched", slots(&missing)),
            "start a server with the same HAPROXY_BACKEND_SERVERS_LIST_SIZE",
        )),
    }
    let standing: Vec<String> = orders.in_force(*time).iter().map(|order| order.target.to_string()).collect();
    if !standing.is_empty() {
        lines.push(Line::ok("orders", format!("in force on {}; see hsdo status", sanitized(&standing.join(", ")))));
    }
    if let Some(entry) = orders.unreadable.first() {
        let text = format!("{} cannot be read and have no effect, such as {}", orders.unreadable.len(), entry.reason);
        lines.push(Line::warn("orders", text, "correct HsdoOrders in slot 1's item, or lift them with hsdo enable"));
    }
    let above: Vec<SlotId> =
        table.slots().filter(|slot| slot.id > size && slot.occupant.is_some()).map(|slot| slot.id).collect();
    if !above.is_empty() {
        lines.push(Line::warn(
            "rows",
            format!("{} above HAPROXY_BACKEND_SERVERS_LIST_SIZE hold servers, until these leave", slots(&above)),
            format!(
                "set HAPROXY_BACKEND_SERVERS_LIST_SIZE to {} or more to keep them",
                above.iter().max().unwrap_or(&size)
            ),
        ));
    }
    let unreadable = table.rows.iter().filter_map(|(id, row)| match row {
        Row::Unreadable { reason, .. } => Some(format!("slot {id}: {reason}")),
        Row::Readable(_) => None,
    });
    for reason in unreadable.chain(table.strays.iter().cloned()).take(MAX_LISTED) {
        lines.push(Line::warn("rows", format!("unreadable, and left alone: {reason}"), "correct or delete this item"));
    }
    lines.push(match &marker.leader {
        Some(leader) => Line::ok("leader", leader),
        None => Line::ok("leader", "none: no server leads the table now"),
    });
    for (by, split) in Splits::of(table, &facts.rules, History::default()).0 {
        for name in split.missing {
            lines.push(Line::warn(
                by.setting(),
                format!("no row of the table is of {} {name:?}", by.word()),
                format!("correct the name, unless the {} never had an instance", by.word()),
            ));
        }
    }
    lines.extend(spillover(facts.rules.spill_below, table));
    lines
}

/// What surprises about spillover: its shares are sixteenths of the weights, and fleets do not divide by their zones.
fn spillover(below: u32, table: &Table) -> Option<Line> {
    let line = |text: String, remedy: &str| Some(Line::warn("CLIENT_SPILL_BELOW", text, remedy));
    let weights = table.slots().filter_map(|slot| Some(slot.occupant.as_ref()?.weight));
    match (below, weights.max().unwrap_or(0)) {
        (0, _) => None,
        (100, _) => {
            line("at 100 a zone that has one server less than another spills for ever".to_owned(), "set it to 70 or so")
        }
        (_, highest @ 1..16) => line(
            format!("the highest weight in the table is {highest}, so servers of others come in by coarse steps"),
            "set SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT to 100",
        ),
        _ => None,
    }
}

fn slots(ids: &[SlotId]) -> String {
    format!("slots {}", list(ids.iter().map(SlotId::to_string), MAX_LISTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::commands::check::line::Level;
    use crate::marker::Marker;
    use crate::order::{Order, Orders, Target, UnreadableOrder};
    use crate::selection::NamePattern;
    use crate::slot::Slot;

    fn trouble(denied: bool, table: bool) -> Trouble {
        Trouble { text: "no".to_owned(), remedy: "allow it".to_owned(), denied, table }
    }

    fn view(provisioned: Option<(u64, u64)>) -> ViewedTable {
        let provisioned = provisioned.map(|(reads, writes)| Throughput { reads, writes });
        ViewedTable { status: "ACTIVE".to_owned(), provisioned, strong: false }
    }

    fn facts() -> TableFacts {
        let rows = (1..=4).map(|id| (id, Row::Readable(Slot::empty(id).into()))).collect();
        let table = Table { rows, strays: vec![] };
        TableFacts {
            name: "web".to_owned(),
            roles: Roles { server: false, client: true },
            size: 4,
            interval: Duration::from_secs(1),
            view: Ok(view(None)),
            expiry: Ok(None),
            reading: Ok(TableReading {
                table,
                marker: Marker::default(),
                changed: false,
                orders: Orders::default(),
                time: Timestamp::from_micros(0),
            }),
            key: Ok(()),
            without_transactions: false,
            rules: Rules::default(),
        }
    }

    fn levels(facts: &TableFacts, subject: &str) -> Vec<Level> {
        let lines = lines(facts);
        lines.iter().filter(|line| line.subject == subject).map(|line| line.level).collect()
    }

    #[test]
    fn a_good_table_has_nothing_to_mend() {
        assert!(lines(&facts()).iter().all(|line| line.level == Level::Ok));
    }

    #[test]
    fn what_may_not_be_asked_is_told() {
        let client = TableFacts { view: Err(trouble(true, false)), expiry: Err(trouble(true, false)), ..facts() };
        assert!(lines(&client).iter().all(|line| line.level == Level::Ok));
        assert!(lines(&client)[0].text.contains("seen by GetItem"));
        let blind = TableFacts { key: Err(trouble(true, false)), ..client };
        assert!(lines(&blind).iter().all(|line| line.level == Level::Ok));
    }

    #[test]
    fn another_schema_and_a_missing_table_are_faults() {
        let missing = TableFacts { view: Err(trouble(false, true)), ..facts() };
        assert_eq!(levels(&missing, "table \"web\""), [Level::Mend]);
        let other = TableFacts { view: Err(trouble(true, false)), key: Err(trouble(false, false)), ..facts() };
        assert_eq!(levels(&other, "table \"web\""), [Level::Mend]);
    }

    #[test]
    fn capacity_and_expiry() {
        for (provisioned, level) in
            [(None, Level::Ok), (Some((5, 5)), Level::Ok), (Some((1, 5)), Level::Warn), (Some((5, 1)), Level::Warn)]
        {
            let facts = TableFacts { view: Ok(view(provisioned)), ..facts() };
            assert_eq!(levels(&facts, "billing"), [level], "{provisioned:?}");
        }
        assert_eq!(wanted_reads(1_000, Duration::from_millis(200)), 225);
        let expiring = TableFacts { expiry: Ok(Some("Weight".to_owned())), ..facts() };
        assert_eq!(levels(&expiring, "TTL"), [Level::Mend]);
    }

    #[test]
    fn rows_that_surprise() {
        let more = TableFacts { size: 6, ..facts() };
        assert_eq!(levels(&more, "rows"), [Level::Warn]);
        let server = TableFacts { roles: Roles { server: true, client: true }, ..more };
        assert_eq!(levels(&server, "rows"), [Level::Ok]);
        let mut odd = facts();
        odd.rules.groups = Some(vec![NamePattern::new("web-a")]);
        let reading = odd.reading.as_mut().expect("a reading");
        reading.table.strays.push("item 99999".to_owned());
        reading.table.rows.insert(2, Row::Unreadable { reason: "no Weight".to_owned(), address: None });
        assert_eq!(levels(&odd, "rows"), [Level::Ok, Level::Warn, Level::Warn]);
        assert_eq!(levels(&odd, "CLIENT_ASG_NAMES"), [Level::Warn]);
        assert_eq!(levels(&odd, "orders"), [Level::Warn; 0]);
        let reading = odd.reading.as_mut().expect("a reading");
        let target = Target::Slot(3);
        reading.orders.all.push(Order { target, until: None, since: None, by: None, note: None });
        reading.orders.unreadable.push(UnreadableOrder { target: None, reason: "odd".to_owned() });
        assert_eq!(levels(&odd, "orders"), [Level::Ok, Level::Warn]);
        for (below, expected) in [(0, vec![]), (70, vec![]), (100, vec![Level::Warn])] {
            odd.rules.spill_below = below;
            assert_eq!(levels(&odd, "CLIENT_SPILL_BELOW"), expected, "{below}");
        }
    }
}
