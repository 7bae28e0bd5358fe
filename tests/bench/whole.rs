//! `make bench`: both roles as processes, on a real HAProxy and an AWS in this process, at several table sizes.
//!
//! Writes `target/bench.txt` and `target/bench.svg`. CPU time is what the kernel charged to the process, so other work
//! on the machine hardly affects it; it does affect wall-clock times. `HSDO_BENCH_SIZES=10,1000` measures other sizes,
//! `HSDO_BENCH_QUICK=1` skips the times from a change to HAProxy.

#![allow(unreachable_pub, reason = "one program; its modules share what they share")]

#[path = "../common/mod.rs"]
mod common;
mod floor;
mod measure;
mod report;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::aws_memory::{AwsMemory, Instance, REPORTS};
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::Hsdo;
use common::process::Process;
use common::tap::Tap;
use measure::{cpu_nanos, cpu_per_turn, cpu_per_turn_in_rounds, memory, percentile, time_until};
use report::{Change, Row};

const BACK: &str = "http-back";
const SPAN: Duration = Duration::from_secs(2);
const RUNS: u32 = 3;
const LONG: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "floor") {
        return floor::run(&arguments[1..]);
    }
    let sizes = std::env::var("HSDO_BENCH_SIZES").unwrap_or_else(|_| "10,100,1000,5000".to_owned());
    let sizes = sizes.split(',').map(|size| size.parse().expect("HSDO_BENCH_SIZES is a list of numbers"));
    let mut rows = Vec::new();
    for size in sizes {
        eprintln!("bench: {size} slots");
        rows.push(at_size(size));
    }
    let mut changes = Vec::new();
    if std::env::var_os("HSDO_BENCH_QUICK").is_none() {
        for (interval, starts, samples) in [(0.2, 10, 20), (1.0, 10, 10)] {
            eprintln!("bench: changes at an interval of {interval} s");
            changes.push(change(interval, starts, samples));
        }
    }
    let text = report::text(&machine(), &rows, &changes);
    let target = common::bed::package_dir().join("target");
    std::fs::write(target.join("bench.txt"), &text).expect("target/bench.txt");
    std::fs::write(target.join("bench.svg"), report::plot(&rows)).expect("target/bench.svg");
    println!("{text}");
}

/// Settings of both roles. Weights start at MAX: a turn with a ramp step is not steady.
fn settings(hsdo: Hsdo, aws: &AwsMemory, size: u32, interval: f64) -> Hsdo {
    hsdo.env("AWS_ENDPOINT_URL", &aws.url())
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &size.to_string())
        .env("INTERVAL", &interval.to_string())
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
}

fn instances(size: u32) -> Vec<Instance> {
    (1..=size).map(Instance::number).collect()
}

fn start_haproxy(bed: &Bed, size: u32) -> Haproxy {
    Haproxy::start(bed, &[BackendConfig::new(BACK, "mywebapp", size as usize).unchecked()])
}

/// Waits until the servers that are made ready last take traffic, and returns when they did. It polls only a few, at
/// least one of each command line that may still be in flight, because reading all would slow HAProxy down. All of them
/// are checked afterwards.
fn wait_filled(haproxy: &Haproxy, size: u32) -> Instant {
    let last = (0..4).filter_map(|step| size.checked_sub(step * 50)).filter(|slot| *slot > 0);
    let ask = last.map(|slot| format!("get weight {BACK}/mywebapp{slot}")).collect::<Vec<_>>().join(";");
    time_until(LONG, || {
        let reply = haproxy.try_command(&ask).unwrap_or_default();
        let mut weights = reply.lines().filter(|line| !line.is_empty()).peekable();
        weights.peek().is_some() && weights.all(|weight| weight.starts_with("10 "))
    });
    let seen = Instant::now();
    let mut filled = seen;
    // The last line but one may end a moment after the last.
    while haproxy.active(BACK).len() != size as usize {
        assert!(seen.elapsed() < LONG, "not all servers take traffic");
        filled = Instant::now();
    }
    filled
}

fn at_size(size: u32) -> Row {
    let bed = Bed::new("bench");
    let aws = AwsMemory::start(instances(size));
    let mut row = Row { slots: size as usize, ..Row::default() };
    fill_table(&bed, &aws, size, &mut row);

    let server = |interval| settings(Hsdo::server(&bed), &aws, size, interval);
    let mut leading = server(0.1).spawn();
    let pid = leading.process().id();
    std::thread::sleep(SPAN);
    row.server_cpu = cpu_per_turn(pid, || aws.usage().count("Scan"), SPAN, RUNS);
    row.server_memory = memory(pid);
    drop(leading);
    // Each machine of the recorded response has the 2 virtual CPUs that count as one unit, so the weights stay.
    let all = [
        ("SERVER_ASG_NAMES", "w*"),
        ("SERVER_WEIGHT_BY", "vcpu"),
        ("SERVER_ASG_WEIGHTS", "other-*=0.5,web-canary=0.2"),
        ("SERVER_INSTANCE_TAGS", "true"),
    ];
    let mut leading = all.iter().fold(server(0.1), |hsdo, (key, value)| hsdo.env(key, value)).spawn();
    let pid = leading.process().id();
    // The lease of the one before has to expire.
    leading.wait_metric("hsdo_leader", |leads| leads == 1.0);
    std::thread::sleep(SPAN);
    row.selecting_cpu = cpu_per_turn(pid, || aws.usage().count("Scan"), SPAN, RUNS);
    drop(leading);
    let mut leading = server(1.0).spawn();
    leading.wait_metric("hsdo_leader", |leads| leads == 1.0);
    aws.forget();
    std::thread::sleep(SPAN * 2);
    let usage = aws.usage();
    let turns = usage.count("Scan").max(1) as f64;
    row.server_calls = usage.calls.values().sum::<u64>() as f64 / turns;
    row.server_units = (usage.read_units / turns, usage.write_units / turns);
    client(&bed, &aws, size, &mut row);
    row
}

/// One turn fills an empty table.
fn fill_table(bed: &Bed, aws: &AwsMemory, size: u32, row: &mut Row) {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        aws.clear();
        aws.forget();
        let begun = Instant::now();
        settings(Hsdo::server(bed), aws, size, 1.0).once().assert_code(0);
        best = best.min(begun.elapsed());
        let usage = aws.usage();
        // The lease is released when the process exits.
        row.fill_writes = usage.count("TransactWriteItems") + usage.count("UpdateItem") - 1;
    }
    assert_eq!(aws.items().len(), size as usize);
    row.fill = best.as_secs_f64() * 1e3;
}

/// A client's cost, while a server leads.
fn client(bed: &Bed, aws: &AwsMemory, size: u32, row: &mut Row) {
    let mut haproxy = start_haproxy(bed, size);
    let client = |interval| settings(Hsdo::client(bed), aws, size, interval);
    let mut running = client(0.1).spawn();
    let pid = running.process().id();
    wait_filled(&haproxy, size);
    std::thread::sleep(SPAN);
    let gets = || aws.usage().count("GetItem");
    let haproxy_pid = haproxy_pid(&haproxy);
    let (haproxy_cpu, from) = (cpu_nanos(haproxy_pid), gets());
    let mut floor = floor(bed, aws, &haproxy);
    [row.client_cpu, row.floor_cpu] = cpu_per_turn_in_rounds([running.process(), &mut floor], gets, SPAN, RUNS);
    drop(floor);
    row.haproxy_cpu = (cpu_nanos(haproxy_pid) - haproxy_cpu) as f64 / 1e6 / (gets() - from).max(1) as f64;
    row.client_memory = memory(pid);
    let refills = (0..RUNS).map(|_| refill(&mut haproxy, size));
    row.refill = refills.fold((f64::INFINITY, 0.0), |best, one| if one.0 < best.0 { one } else { best });
    drop(running);
    let mut reporting = client(0.1).env("DYNAMODB_REPORT_TABLE_NAME", REPORTS).spawn();
    std::thread::sleep(SPAN);
    row.reporting_cpu = cpu_per_turn(reporting.process().id(), gets, SPAN, RUNS);
    drop(reporting);

    let tap = Tap::start(bed.dir().join("tap.sock"), haproxy.socket());
    let tapped = client(0.1).env("CLIENT_HAPROXY_SOCKET_PATH", &tap.path().to_string_lossy()).spawn();
    std::thread::sleep(SPAN);
    tap.forget();
    let from = gets();
    std::thread::sleep(SPAN);
    let turns = (gets() - from).max(1) as f64;
    row.connections = tap.connections() as f64 / turns;
    row.commands = tap.commands().len() as f64 / turns;
    drop(tapped);

    // The server scans once a second; any other scan is the client's.
    let tapped = client(0.1).spawn();
    std::thread::sleep(SPAN);
    aws.forget();
    std::thread::sleep(SPAN);
    let usage = aws.usage();
    let turns = usage.count("GetItem").max(1) as f64;
    let scans = usage.count("Scan") as f64;
    let server_scans = (SPAN.as_secs_f64()).min(scans);
    row.client_calls = (turns + scans - server_scans) / turns;
    row.client_units = (usage.read_units - server_scans * row.server_units.0) / turns;
    drop(tapped);

    row.start = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            client(1.0).once().assert_code(0);
            begun.elapsed().as_secs_f64() * 1e3
        })
        .fold(f64::INFINITY, f64::min);
}

fn haproxy_pid(haproxy: &Haproxy) -> u32 {
    let info = haproxy.command("show info");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid: ")).expect("show info has a Pid");
    pid.parse().expect("a number")
}

/// Kills HAProxy, and restarts it once the client has noticed: the time from its socket's first answer to its last
/// server, and its CPU time meanwhile.
fn refill(haproxy: &mut Haproxy, size: u32) -> (f64, f64) {
    haproxy.kill();
    std::thread::sleep(Duration::from_millis(300));
    let socket = haproxy.socket().to_owned();
    // It listens some milliseconds before it answers.
    let answers = std::thread::spawn(move || {
        time_until(LONG, || common::haproxy::ask(&socket, "show info").is_ok());
        Instant::now()
    });
    haproxy.restart();
    let begun = cpu_nanos(haproxy_pid(haproxy));
    let filled = wait_filled(haproxy, size);
    let cpu = cpu_nanos(haproxy_pid(haproxy)) - begun;
    ((filled - answers.join().expect("it answers")).as_secs_f64() * 1e3, cpu as f64 / 1e6)
}

fn floor(bed: &Bed, aws: &AwsMemory, haproxy: &Haproxy) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["floor", &aws.url(), &haproxy.socket().to_string_lossy(), BACK, "0.1"]).stdin(Stdio::null());
    Process::spawn(bed.dir(), "floor", &mut command)
}

/// How long a replaced instance takes to show in HAProxy. Both processes restart now and then, because the phase
/// between their turns matters a lot.
fn change(interval: f64, starts: u32, samples: u32) -> Change {
    let size = 100;
    let bed = Bed::new("change");
    let mut members = instances(size);
    let aws = AwsMemory::start(members.clone());
    let haproxy = start_haproxy(&bed, size);
    let mut next = size;
    let mut took = Vec::new();
    for start in 0..starts {
        let server = settings(Hsdo::server(&bed), &aws, size, interval).spawn();
        std::thread::sleep(Duration::from_secs_f64(interval * f64::from(start) / f64::from(starts)));
        let client = settings(Hsdo::client(&bed), &aws, size, interval).spawn();
        wait_filled(&haproxy, size);
        std::thread::sleep(Duration::from_secs(3));
        for sample in 0..samples {
            // Spread over all phases of a turn.
            std::thread::sleep(Duration::from_secs_f64(interval * (0.1 + f64::from(sample) / f64::from(samples))));
            next += 1;
            let place = (next % size) as usize;
            members[place] = Instance::number(next);
            let address = format!("{}:", members[place].address);
            let begun = Instant::now();
            aws.set_instances(members.clone());
            let serves = || {
                haproxy.servers(BACK).values().any(|server| server.addr.starts_with(&address) && server.takes_traffic())
            };
            time_until(LONG, serves);
            took.push(begun.elapsed());
        }
        drop(client);
        let mut server = server;
        server.terminate();
    }
    let seconds = |share, took: &mut [Duration]| percentile(took, share).as_secs_f64();
    Change { interval, samples: took.len(), median: seconds(0.5, &mut took), high: seconds(0.99, &mut took) }
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let haproxy = Command::new(common::haproxy::program()).arg("-v").output().expect("haproxy -v");
    let version = String::from_utf8_lossy(&haproxy.stdout).split_whitespace().nth(2).unwrap_or("?").to_owned();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{}, {} CPUs, Linux {}, HAProxy {version}, load {} at the end",
        model.trim_start_matches([' ', '\t', ':']),
        std::thread::available_parallelism().map_or(0, usize::from),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}
