//! Decisions and parsers alone, at several table sizes, measured by criterion.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use hsdo::aws::read_page;
use hsdo::client::placement::{BackendKind, History, Rules, place};
use hsdo::client::reconcile::reconcile;
use hsdo::client::{Options, SlotMemory, View};
use hsdo::clock::Timestamp;
use hsdo::haproxy::state::parse;
use hsdo::ports::{Admin, Running, number_of};
use hsdo::selection::NamePattern;
use hsdo::server::{SlotLimits, decide};
use hsdo::settings::Weighting;
use hsdo::slot::{Instance, Observation, Occupant, Readiness, Row, Slot, SlotId, Status, Table};
use hsdo::weight::{Factor, Size};

const SIZES: [SlotId; 4] = [10, 100, 1_000, 10_000];
const START: i64 = 1_700_000_000_000_000;

fn address(id: SlotId) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0x0A00_0000 + id).into()
}

fn table(size: SlotId, weight: u16) -> Table {
    let row = |id| {
        let occupant = Occupant {
            address: address(id),
            name: format!("i-{id:017x}"),
            group: Some("web".to_owned()),
            zone: None,
            port: None,
            weight,
            status: Status::Enabled,
            last_step: Some(Timestamp::from_micros(START)),
            drain_since: None,
        };
        (
            id,
            Row::Readable(
                Slot { occupant: Some(occupant), last_group: Some("web".to_owned()), ..Slot::empty(id) }.into(),
            ),
        )
    };
    Table { rows: (1..=size).map(row).collect(), strays: Vec::new() }
}

fn seen(size: SlotId) -> Observation {
    let instance = |id| Instance {
        size: Size::Vcpus(2),
        ..Instance::new(address(id), format!("i-{id:017x}"), "web".to_owned(), Readiness::Ready)
    };
    Observation {
        instances: (1..=size).map(instance).collect(),
        groups: vec!["web".to_owned()],
        ..Observation::default()
    }
}

/// `show servers state` of a backend that matches the table.
fn state(size: SlotId) -> String {
    let recorded = include_str!("../data/show-servers-state-2.6.txt");
    let mut lines = recorded.lines();
    let mut text = lines.by_ref().take(2).collect::<Vec<_>>().join("\n");
    let ready = lines.find(|line| line.contains(" s1 ")).expect("a ready server");
    for id in 1..=size {
        let line = ready.replace(" s1 127.0.0.1 ", &format!(" web{id} {} ", address(id))).replace(" 18901 ", " 80 ");
        let _ = write!(text, "\n{line}");
    }
    text
}

/// A page of a scan, as DynamoDB sends it.
fn page(size: SlotId) -> Vec<u8> {
    let item = |id: SlotId| {
        format!(
            r#"{{"BackendServerID":{{"N":"{id}"}},"IPAddress":{{"S":"{}"}},"ServerName":{{"S":"i-{id:017x}"}},"ASG":{{"S":"web"}},"Weight":{{"N":"10"}},"BackendServerStatus":{{"S":"enabled"}},"LastWeightUpdate":{{"S":"2026-01-02 03:04:05.678901"}},"HsdoLastASG":{{"S":"web"}}}}"#,
            address(id)
        )
    };
    let items: Vec<String> = (1..=size).map(item).collect();
    format!(r#"{{"Count":{size},"Items":[{}],"ScannedCount":{size}}}"#, items.join(",")).into_bytes()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for size in SIZES {
        let limits = SlotLimits {
            size,
            entries: vec![NamePattern::plain("web")],
            weighting: Weighting { unit: Factor::whole(2), groups: vec![(NamePattern::new("other-*"), Factor::ZERO)] },
            by_factor: true,
            min: 1,
            max: 10,
            step: 1,
            interval: Duration::from_secs(30),
            removal_guard: Duration::from_secs(30),
        };
        let observed = seen(size);
        let mut turn = |name: &str, table: &Table, seconds: i64| {
            let now = Timestamp::from_micros(START + seconds * 1_000_000);
            criterion.bench_function(&format!("{name}, {size}"), |bench| {
                bench.iter(|| decide(black_box(table), &[], black_box(&observed), now, &limits));
            });
        };
        turn("allocate: nothing changes", &table(size, 10), 1);
        turn("allocate: an empty table is filled", &Table::default(), 1);
        turn("ramp: every server takes a step", &table(size, 5), 31);

        let (table, state, page) = (table(size, 7), state(size), page(size));
        let slots: BTreeMap<SlotId, Running> = parse(&state)
            .expect("a table")
            .servers
            .into_iter()
            .filter_map(|(name, server)| Some((number_of(&name, "web")?, server)))
            .collect();
        assert_eq!(slots.len(), size as usize);
        let options = Options { port: Some(80), gate: true, static_weights: false };
        let desired =
            place(&table, BackendKind::Default, &Rules::default(), History { max_row: size, ..History::default() });
        let memory = SlotMemory::default();
        let look = |running| View { desired: &desired, running, memory: &memory, size, options };
        let steady = reconcile(look(&slots));
        assert!(steady.raise.is_empty() && steady.lower.is_empty(), "{steady:?}");
        criterion.bench_function(&format!("reconcile: nothing differs, {size}"), |bench| {
            bench.iter(|| reconcile(black_box(look(&slots))));
        });
        let empty =
            |server: &Running| Running { admin: Admin::Maintenance, up: false, address: None, ..server.clone() };
        let restarted: BTreeMap<SlotId, Running> = slots.iter().map(|(id, server)| (*id, empty(server))).collect();
        assert_eq!(reconcile(look(&restarted)).raise.len(), size as usize, "all of them are filled");
        criterion.bench_function(&format!("reconcile: HAProxy has restarted, {size}"), |bench| {
            bench.iter(|| reconcile(black_box(look(&restarted))));
        });
        criterion.bench_function(&format!("parse show servers state, {size}"), |bench| {
            bench.iter(|| parse(black_box(&state)).expect("a table"));
        });
        criterion.bench_function(&format!("parse a scan page, {size}"), |bench| {
            bench.iter(|| read_page(black_box(&page)).expect("a page"));
        });
    }
    criterion.final_summary();
}
