//! The exporter under abuse: its clients cannot block a turn, fill memory or end the process.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use common::aws_proxy::Fault;
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::wait::wait_for;

/// Rows enough that no socket buffer holds a whole scrape.
const SLOTS: usize = 5_000;
/// Connections held at the same time.
const HELD: usize = 2_000;
/// For a few turns on a busy machine.
const LONG: Duration = Duration::from_secs(90);
/// The memory that abuse may cost, in KiB: each exporter thread may hold a scrape.
const MOST: u64 = 96 * 1024;

fn rows() -> String {
    let row = |id: usize| {
        format!(
            r#"{{"BackendServerID": {{"N": "{id}"}}, "IPAddress": {{"S": "127.2.{}.{}"}}, "ServerName": {{"S": "i-{id:017}"}},
            "ASG": {{"S": "web"}}, "Weight": {{"N": "10"}}, "BackendServerStatus": {{"S": "enabled"}},
            "LastWeightUpdate": {{"S": "2024-01-02 03:04:05.678901"}}}}"#,
            id / 256,
            id % 256
        )
    };
    format!(r#"{{"Items": [{}]}}"#, (1..=SLOTS).map(row).collect::<Vec<_>>().join(","))
}

/// Raises this process's descriptor limit to its maximum.
fn raise_descriptors() {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of files");
    let hard: usize = line.split_whitespace().nth(4).and_then(|word| word.parse().ok()).unwrap_or(1 << 20);
    assert!(hard > HELD + 500, "the hard limit of descriptors is {hard}: raise it (ulimit -Hn) to run this test");
    let (id, limit) = (std::process::id().to_string(), format!("--nofile={hard}:{hard}"));
    let status = Command::new("prlimit").args(["--pid", &id, &limit]).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit: install util-linux");
}

/// Threads that repeat one thing until stopped.
struct Crowd {
    enough: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// `act` returns whether the exporter let it in; `done` counts those.
    fn add(&mut self, count: usize, done: &Arc<AtomicUsize>, act: impl Fn() -> bool + Clone + Send + 'static) {
        for _ in 0..count {
            let (enough, done, act) = (Arc::clone(&self.enough), Arc::clone(done), act.clone());
            self.threads.push(std::thread::spawn(move || {
                while !enough.load(Ordering::SeqCst) {
                    done.fetch_add(usize::from(act()), Ordering::SeqCst);
                }
            }));
        }
    }

    fn disperse(self) {
        self.enough.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("it does not panic");
        }
    }
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    Some(stream)
}

/// Sends `head`, then `part` endlessly, until the peer closes.
fn flood(address: SocketAddr, head: &str, part: u8) -> bool {
    let Some(mut stream) = connect(address) else { return false };
    let _ = stream.write_all(head.as_bytes());
    let part = [part; 64 * 1024];
    let sent = (0..1_000).take_while(|_| stream.write_all(&part).is_ok()).count();
    // More than the buffers of both sides hold.
    sent > 100 || stream.read(&mut [0]).is_ok_and(|count| count > 0)
}

/// Requests all metrics, and reads a few bytes now and then.
fn sip(address: SocketAddr) -> bool {
    let Some(mut stream) = connect(address) else { return false };
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
    let (mut few, mut sips) = ([0; 8], 0);
    while let Ok(1..) = stream.read(&mut few) {
        sips += 1;
        // What was sent before its timeout is in the buffers of both sides.
        if sips == 80 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    sips > 10
}

/// Half a request, then a byte now and then.
fn trickle(address: SocketAddr) -> bool {
    let Some(mut stream) = connect(address) else { return false };
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
    let mut bytes = 0;
    while stream.write_all(b"x").is_ok() {
        bytes += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    bytes > 1
}

fn descriptors(client: &Running) -> f64 {
    client.metric("process_open_fds").expect("a number of the process")
}

#[test]
fn abuse_of_the_exporter_holds_up_no_turn_and_fills_no_memory() {
    raise_descriptors();
    let bed = Bed::new("abuse");
    bed.moto().create_table();
    let answer = rows();
    bed.aws().inject("Scan", Fault::Answer(Arc::new(move |_: &str| answer.clone())));
    let _haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 4).unchecked()]);
    let mut client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string()).spawn();
    client.wait_turn();
    assert_eq!(client.metrics().matches("\nhsdo_server_weight{").count(), SLOTS);
    let (memory, files) = (client.status_number("VmHWM"), descriptors(&client));
    let address: SocketAddr = client.url().trim_start_matches("http://").parse().expect("an address");

    // Silent connections: far more than are served, and than the system queues.
    let held: Vec<Socket> = (0..HELD)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("a flag");
            // It keeps connecting in the background.
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let mut crowd = Crowd { enough: Arc::default(), threads: Vec::new() };
    let [sips, trickles, floods] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    crowd.add(40, &sips, move || sip(address));
    crowd.add(20, &trickles, move || trickle(address));
    crowd.add(1, &floods, move || flood(address, "GET /", b'x'));
    crowd.add(1, &floods, move || flood(address, "GET /metrics HTTP/1.1\r\nX: ", b'x'));
    crowd.add(1, &floods, move || flood(address, "GET /metrics HTTP/1.1\r\n", b'\n'));
    crowd.add(1, &floods, move || flood(address, "POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b'x'));

    let mut held = Some(held);
    for round in 1..=6 {
        // Others get in once the silent ones are gone.
        if round == 3 {
            held = None;
        }
        // Counted by table reads, one a turn, since the exporter is busy.
        let before = bed.aws().count("Scan");
        wait_for(&format!("ten more turns, round {round}"), LONG, || match bed.aws().count("Scan") - before {
            10.. => Ok(()),
            turns => Err(turns),
        });
        client.process().assert_running();
        let now = client.status_number("VmHWM");
        assert!(now < memory + MOST, "{now} KiB, before the abuse {memory}");
    }
    wait_for("each kind of abuse", LONG, || {
        let counts = [&sips, &trickles, &floods].map(|count| count.load(Ordering::SeqCst));
        if counts.iter().all(|count| *count >= 20) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    drop(held);
    crowd.disperse();

    client.wait_turn();
    wait_for("the connections to be gone", LONG, || match descriptors(&client) {
        now if now <= files + 2.0 => Ok(()),
        now => Err(now),
    });
    assert_eq!(client.metric(r#"hsdo_turns_total{result="failed"}"#), Some(0.0), "{}", client.log());
    assert_eq!(client.get("/healthz").map(|(status, _)| status), Ok(200));
    let now = client.status_number("VmHWM");
    println!(
        "greatest memory: {memory} KiB before, {now} KiB after; {sips:?} sips, {trickles:?} trickles, {floods:?} floods"
    );
    assert!(now < memory + MOST, "{now} KiB, before the abuse {memory}");
    assert!(client.log().lines().count() < 30, "clients of the exporter must not flood the log: {}", client.log());
    assert!(client.terminate().success());
}
