//! Lookups on real sockets, with scripted name servers on the loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::conf::ResolvConf;
use super::lookup::{LookupError, lookup};
use super::message::tests::{record, reply};
use super::random;

/// A query: name and type.
type Asked = (String, u16);
/// The response, if any: flags and records.
type Reply = Option<(u16, Vec<Vec<u8>>)>;

const A: u16 = 1;
const AAAA: u16 = 28;
const NO_SUCH_NAME: u16 = 3;
const CUT: u16 = 0x0200;

/// A name server, over UDP and TCP, until the test process ends.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    by_tcp: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: impl Fn(&str, u16) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1", answer, |_, _| None)
    }

    fn start_on(
        ip: &str,
        answer: impl Fn(&str, u16) -> Reply + Send + Sync + 'static,
        by_tcp: impl Fn(&str, u16) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let ip: IpAddr = ip.parse().expect("an address");
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind((ip, 0)).ok()?;
                Some((UdpSocket::bind((ip, tcp.local_addr().ok()?.port())).ok()?, tcp))
            })
            .expect("a port that is free for both");
        let server =
            Server { address: udp.local_addr().expect("bound"), asked: Arc::default(), by_tcp: Arc::default() };
        let asked = Arc::clone(&server.asked);
        thread::spawn(move || {
            let mut buffer = [0; 600];
            while let Ok((received, from)) = udp.recv_from(&mut buffer) {
                let message = &buffer[..received];
                let (name, kind) = question(message);
                asked.lock().expect("no panic").push((name.clone(), kind));
                if let Some((flags, records)) = answer(&name, kind) {
                    let _ = udp.send_to(&reply(message, flags, &records), from);
                }
            }
        });
        let count = Arc::clone(&server.by_tcp);
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let mut length = [0; 2];
                let mut message = Vec::new();
                if stream.read_exact(&mut length).is_ok() {
                    message.resize(usize::from(u16::from_be_bytes(length)), 0);
                }
                if stream.read_exact(&mut message).is_err() {
                    continue;
                }
                let (name, kind) = question(&message);
                if let Some((flags, records)) = by_tcp(&name, kind) {
                    let answer = reply(&message, flags, &records);
                    let length = u16::try_from(answer.len()).expect("it fits").to_be_bytes();
                    // Byte by byte, as a slow network.
                    for byte in [length.as_slice(), &answer].concat() {
                        let _ = stream.write_all(&[byte]);
                    }
                }
            }
        });
        server
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").iter().map(|(name, kind)| format!("{name} {kind}")).collect()
    }
}

fn question(message: &[u8]) -> Asked {
    let (mut name, mut at) = (String::new(), 12);
    while message[at] != 0 {
        let length = usize::from(message[at]);
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(&message[at + 1..=at + length]).expect("ASCII"));
        at += 1 + length;
    }
    (name, u16::from_be_bytes([message[at + 1], message[at + 2]]))
}

/// Returns these addresses for any name.
fn has(a: &'static [[u8; 4]]) -> impl Fn(&str, u16) -> Reply + Send + Sync {
    move |name, kind| Some((0, if kind == A { a.iter().map(|data| record(name, A, data)).collect() } else { vec![] }))
}

fn nobody(_: &str, _: u16) -> Reply {
    Some((NO_SUCH_NAME, vec![]))
}

fn silent(_: &str, _: u16) -> Reply {
    None
}

/// `resolv.conf` with these servers, on ports of their own.
fn conf(text: &str, servers: &[&Server]) -> ResolvConf {
    let mut conf = ResolvConf::parse(text, "", &|_| None);
    conf.servers = servers.iter().map(|server| server.address).collect();
    conf
}

fn find(conf: &ResolvConf, name: &str, time: Duration) -> Result<Vec<String>, LookupError> {
    find_rotated(conf, name, time, 0)
}

fn find_rotated(conf: &ResolvConf, name: &str, time: Duration, rotation: usize) -> Result<Vec<String>, LookupError> {
    let found = lookup(conf, name, Instant::now() + time, rotation, &random)?;
    Ok(found.iter().map(ToString::to_string).collect())
}

const LONG: Duration = Duration::from_secs(60);

/// A VPN's server, and a public one.
#[test]
fn the_first_server_wins_however_fast_the_second_is() {
    let late = |name: &str, kind: u16| {
        thread::sleep(Duration::from_millis(50));
        has(&[[10, 0, 0, 1]])(name, kind)
    };
    let (first, second) = (Server::start(late), Server::start(nobody));
    assert_eq!(find(&conf("", &[&first, &second]), "db.example", LONG).expect("found"), ["10.0.0.1"]);
    assert_eq!(second.asked(), Vec::<String>::new());
    let (first, second) = (Server::start(nobody), Server::start(has(&[[10, 0, 0, 2]])));
    let unknown = find(&conf("", &[&first, &second]), "db.example", LONG);
    assert_eq!(unknown, Err(LookupError::NotFound(Some(first.address.ip()))), "its word counts, too");
    assert_eq!(second.asked(), Vec::<String>::new());
    let mut asked = first.asked();
    asked.sort();
    assert_eq!(asked, ["db.example 1", "db.example 28"]);
}

#[test]
fn after_a_failure_refusal_or_timeout_the_next_server_is_queried() {
    let second = Server::start(has(&[[10, 0, 0, 2], [10, 0, 0, 3]]));
    for code in [2, 4, 5] {
        let first = Server::start(move |_, _| Some((code, vec![])));
        let found = find(&conf("", &[&first, &second]), "db.example", LONG);
        assert_eq!(found.expect("found"), ["10.0.0.2", "10.0.0.3"], "code {code}");
    }
    // A closed port.
    let mut gone = conf("", &[&second, &second]);
    gone.servers[0] = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    assert_eq!(find(&gone, "db.example", LONG).expect("found"), ["10.0.0.2", "10.0.0.3"]);
    // A second for each, by the option, or by the time available.
    let silent = Server::start(silent);
    for (options, time) in [("options timeout:1\n", LONG), ("", Duration::from_secs(2))] {
        let found = find(&conf(options, &[&silent, &second]), "db.example", time);
        assert_eq!(found.expect("found"), ["10.0.0.2", "10.0.0.3"], "{options:?}");
    }
    assert_eq!(silent.asked().len(), 8, "each question twice, each time: {:?}", silent.asked());
}

#[test]
fn without_any_response_the_lookup_ends_in_time_and_names_each_failure() {
    let (silent, failing) = (Server::start(silent), Server::start(|_, _| Some((2, vec![]))));
    let begun = Instant::now();
    let error = find(&conf("search a.example\n", &[&silent, &failing]), "db", Duration::from_millis(400));
    assert!(begun.elapsed() < LONG);
    let error = error.expect_err("nobody").to_string();
    assert!(error.starts_with("failed to lookup address information: name server 127.0.0.1 "), "{error}");
    // Only the first candidate was queried: after a timeout the others are skipped.
    assert!(silent.asked().iter().all(|asked| asked.starts_with("db.a.example ")), "{:?}", silent.asked());
    let error = find(&conf("", &[&silent]), "db", Duration::ZERO).expect_err("no time").to_string();
    assert!(error.ends_with("name server 127.0.0.1 was not queried: no time was left"), "{error}");
    let error = find(&conf("", &[&failing]), "db", LONG).expect_err("it fails").to_string();
    assert!(error.ends_with("name server 127.0.0.1 fails (SERVFAIL)"), "{error}");
    assert_eq!(failing.asked().iter().filter(|asked| *asked == "db 1").count(), 2, "two attempts");
    assert_eq!(find(&conf("", &[&failing]), "a..b", LONG), Err(LookupError::InvalidName));
}

#[test]
fn names_are_searched_for_in_the_search_domains() {
    let server =
        Server::start(
            |name, kind| {
                if name == "db.b.example" { has(&[[10, 0, 0, 1]])(name, kind) } else { nobody(name, kind) }
            },
        );
    let conf = |options: &str| conf(&format!("search a.example b.example\n{options}"), &[&server]);
    assert_eq!(find(&conf(""), "db", LONG).expect("found"), ["10.0.0.1"]);
    assert_eq!(find(&conf(""), "DB.b.Example.", LONG).expect("found"), ["10.0.0.1"]);
    assert_eq!(find(&conf("options ndots:2\n"), "db.b.example", LONG).expect("found"), ["10.0.0.1"]);
    assert_eq!(find(&conf(""), "db.c", LONG), Err(LookupError::NotFound(Some(server.address.ip()))));
    let asked: Vec<String> = server.asked().into_iter().filter(|asked| asked.ends_with(" 1")).collect();
    assert_eq!(
        asked,
        [
            "db.a.example 1",
            "db.b.example 1",
            "db.b.example 1",
            "db.b.example 1",
            "db.c 1",
            "db.c.a.example 1",
            "db.c.b.example 1",
        ]
    );
}

/// A server that never responds to AAAA queries, and one that fails them.
#[test]
fn addresses_of_one_family_do_not_wait_forever_for_the_other() {
    let silent = Server::start(|name, kind| if kind == A { has(&[[10, 0, 0, 1]])(name, kind) } else { None });
    let begun = Instant::now();
    assert_eq!(find(&conf("options timeout:30\n", &[&silent]), "db", LONG).expect("found"), ["10.0.0.1"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "it waited for {:?}", begun.elapsed());
    let failing =
        Server::start(|name, kind| if kind == A { has(&[[10, 0, 0, 1]])(name, kind) } else { Some((2, vec![])) });
    assert_eq!(find(&conf("", &[&failing]), "db", LONG).expect("found"), ["10.0.0.1"]);
    let without = conf("options no-aaaa\n", &[&failing]);
    failing.asked.lock().expect("no panic").clear();
    assert_eq!(find(&without, "db", LONG).expect("found"), ["10.0.0.1"]);
    assert_eq!(failing.asked(), ["db 1"]);
    // A name has no address only if both responses say so.
    let half = Server::start(|_, kind| Some((if kind == A { 0 } else { 2 }, vec![])));
    assert_eq!(find(&conf("", &[&half, &failing]), "db", LONG).expect("found"), ["10.0.0.1"]);
}

#[test]
fn ipv6_addresses_and_servers_work() {
    let six = |name: &str, kind: u16| {
        let data: [u8; 16] = "fd00::1".parse::<std::net::Ipv6Addr>().expect("an address").octets();
        Some((0, if kind == AAAA { vec![record(name, AAAA, &data)] } else { vec![] }))
    };
    let server = Server::start_on("::1", six, |_, _| None);
    assert_eq!(find(&conf("", &[&server]), "db", LONG).expect("found"), ["fd00::1"]);
}

#[test]
fn truncated_responses_are_retried_over_tcp() {
    let many = |name: &str, kind: u16| {
        let records = (0..100).map(|last| record(name, A, &[10, 0, 1, last])).collect();
        Some((0, if kind == A { records } else { vec![] }))
    };
    let cut = |name: &str, kind: u16| {
        has(&[[10, 0, 0, 1]])(name, kind).map(|(_, records)| (if kind == A { CUT } else { 0 }, records))
    };
    let server = Server::start_on("127.0.0.1", cut, many);
    let found = find(&conf("", &[&server]), "db", LONG).expect("found");
    assert_eq!((found.len(), found[31].as_str()), (32, "10.0.1.31"), "no more than are of use");
    assert_eq!(server.by_tcp.load(Ordering::SeqCst), 1);
    // If TCP fails, the addresses that fit.
    let closed = Server::start_on("127.0.0.1", cut, |_, _| None);
    assert_eq!(find(&conf("", &[&closed]), "db", LONG).expect("found"), ["10.0.0.1"]);
    let empty = Server::start_on("127.0.0.1", |_, _| Some((CUT, vec![])), |_, _| None);
    let next = Server::start(has(&[[10, 0, 0, 7]]));
    assert_eq!(find(&conf("", &[&empty, &next]), "db", LONG).expect("found"), ["10.0.0.7"]);
    let error = find(&conf("", &[&empty]), "db", LONG).expect_err("nothing").to_string();
    assert!(error.contains("truncates its response, and over TCP cannot be reached"), "{error}");
    // TCP from the start.
    let server = Server::start_on("127.0.0.1", silent, has(&[[10, 0, 0, 8]]));
    assert_eq!(find(&conf("options use-vc\n", &[&server]), "db", LONG).expect("found"), ["10.0.0.8"]);
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[test]
fn servers_rotate_only_with_the_option() {
    let servers = [Server::start(has(&[[10, 0, 0, 1]])), Server::start(has(&[[10, 0, 0, 2]]))];
    let servers: Vec<&Server> = servers.iter().collect();
    let found = |options: &str, rotation| find_rotated(&conf(options, &servers), "db", LONG, rotation).expect("found");
    for rotation in 0..3 {
        assert_eq!(found("", rotation), ["10.0.0.1"]);
        assert_eq!(found("options rotate\n", rotation), [format!("10.0.0.{}", 1 + rotation % 2)]);
    }
    // The error text does not depend on the rotation.
    let failing = [
        Server::start_on("127.0.0.1", |_, _| Some((2, vec![])), silent),
        Server::start_on("127.0.0.2", silent, silent),
    ];
    let failing: Vec<&Server> = failing.iter().collect();
    for (servers, end) in [
        (failing, "name server 127.0.0.1 fails (SERVFAIL), name server 127.0.0.2 does not respond"),
        (vec![&Server::start(nobody)], "the name servers do not know the name"),
    ] {
        for rotation in 0..2 {
            let conf = conf("options rotate attempts:1\n", &servers);
            let error =
                find_rotated(&conf, "db", Duration::from_millis(400), rotation).expect_err("nobody").to_string();
            assert!(error.ends_with(end), "turn {rotation}: {error}");
        }
    }
}

/// Forged responses may come from the right address.
#[test]
fn forged_responses_are_ignored() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut conf = ResolvConf::parse("", "", &|_| None);
    conf.servers = vec![udp.local_addr().expect("bound")];
    let serving = thread::spawn(move || {
        let mut buffer = [0; 600];
        for _ in 0..2 {
            let (received, from) = udp.recv_from(&mut buffer).expect("a question");
            let message = buffer[..received].to_vec();
            let (name, kind) = question(&message);
            let mut forged = message.clone();
            forged[1] ^= 1;
            let evil = [record(&name, A, &[6, 6, 6, 6])];
            let records = if kind == A { vec![record(&name, A, &[10, 0, 0, 1])] } else { vec![] };
            for answer in [b"".to_vec(), vec![0xff; 600], reply(&forged, 0, &evil), reply(&message, 0, &records)] {
                udp.send_to(&answer, from).expect("sent");
            }
        }
    });
    assert_eq!(find(&conf, "db", LONG).expect("found"), ["10.0.0.1"]);
    serving.join().expect("no panic");
}
