//! What HAProxy 2.2 to 3.4 said on their sockets (`tests/tools/record-haproxy.py`): each must read alike, and where they cut their
//! replies otherwise, no reply may be taken for that of another command. What kept requests from a new server on them
//! (`tests/tools/measure-gate.py`): the line that hsdo fills a slot with must do so on each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::command::judge;
use super::reply;
use super::runtime::Runtime;
use super::socket::{MAX_LINE, Socket, SocketLimits};
use super::state::parse;
use crate::ports::{Admin, BackendFault, Change, Command, Haproxy, Running, Servers, Verdict};
use crate::settings::HaproxySocket;

macro_rules! recorded {
    ($($version:literal),*) => {
        [$(($version, include_str!(concat!("../../tests/data/haproxy-", $version, ".json")),
            include_str!(concat!("../../tests/data/gate-", $version, ".json")))),*]
    };
}

const VERSIONS: [(&str, &str, &str); 6] = recorded!("2.2", "2.6", "2.8", "3.0", "3.2", "3.4");

/// What one socket was sent, and every byte that came back.
#[derive(Clone)]
struct Talks {
    version: &'static str,
    socket: String,
    talks: BTreeMap<String, String>,
}

impl Talks {
    /// Each version's for a socket, where it was recorded.
    fn all(socket: &str) -> Vec<Talks> {
        let of = |(version, text, _): (&'static str, &str, &str)| {
            let mut sockets: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(text).expect("talks");
            let talks = sockets.remove(socket)?.into_iter().collect();
            Some(Talks { version, socket: socket.to_owned(), talks })
        };
        VERSIONS.into_iter().filter_map(of).collect()
    }

    fn of(&self, line: &str) -> &str {
        let found = self.talks.get(line);
        found.unwrap_or_else(|| panic!("{}, {}: {line:?} was not recorded", self.version, self.socket))
    }

    /// What this socket answers to a line: as it was recorded, or else the replies to each of its commands.
    fn answer(&self, line: &str) -> String {
        match self.talks.get(line) {
            Some(answer) => answer.clone(),
            None => line.split(';').map(|command| self.of(command)).collect(),
        }
    }

    fn replies(&self, line: &str) -> Option<Vec<&str>> {
        reply::split(self.of(line)).ok()
    }

    fn is_before(&self, version: &str) -> bool {
        self.version < version
    }
}

/// A runtime that talks to a socket which answers as that one did, a line a connection; and what it was sent.
fn replaying(talks: &Talks) -> (Runtime, PathBuf, Arc<Mutex<Vec<String>>>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("hsdo-recorded-{}-{number}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, talks) = (Arc::clone(&lines), talks.clone());
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut line = String::new();
            stream.read_line(&mut line).expect("a line");
            let answer = talks.answer(line.trim_end_matches('\n'));
            seen.lock().expect("no panic").push(line);
            stream.get_mut().write_all(answer.as_bytes()).expect("sent");
            // The master keeps the connection open.
            if talks.socket == "master" {
                open.push(stream);
            }
        }
    });
    let runtime = Runtime::new(Socket::new(HaproxySocket::Path(path.clone()), SocketLimits::default()));
    (runtime, path, lines)
}

/// Which state, whether up, at which address and weight; no check is under way.
fn running(admin: Admin, up: bool, address: &str, weight: u16) -> Running {
    let address = Some(address.parse().expect("an address"));
    Running { admin, inherited: false, up, address, weight, configured: 1, checked: true, checking: false }
}

/// A check that was under way at that moment is chance.
fn still(servers: &Servers) -> Servers {
    let still = |(name, server): (&String, &Running)| (name.clone(), Running { checking: false, ..server.clone() });
    servers.iter().map(still).collect()
}

fn servers<const N: usize>(servers: [(&str, Running); N]) -> Servers {
    servers.into_iter().map(|(name, server)| (name.to_owned(), server)).collect()
}

/// What the backend `b` was made to be.
fn backend_b() -> Servers {
    use Admin::{Drain, Maintenance, Ready};
    servers([
        ("s1", running(Ready, true, "127.0.0.1:18901", 7)),
        ("s2", running(Maintenance, false, "127.0.0.2:18900", 5)),
        ("s3", running(Drain, true, "127.0.0.1:18901", 1)),
        ("s4", running(Ready, false, "127.0.0.1:1", 1)),
        ("s5", running(Maintenance, false, "[2001:db8::1]:80", 1)),
        ("s6", running(Maintenance, false, "127.0.0.2:18900", 1)),
    ])
}

#[test]
fn each_version_shows_the_same_servers() {
    use Admin::{Maintenance, Ready};
    let unchecked = |server: Running| Running { checked: false, ..server };
    let other = servers([
        ("u1", unchecked(running(Ready, true, "127.0.0.1:18901", 9))),
        ("u2", unchecked(running(Maintenance, false, "127.0.0.2:18900", 1))),
    ]);
    let inherited = |server: Running| Running { inherited: true, ..server };
    let following = servers([
        ("f1", unchecked(running(Ready, true, "127.0.0.1:18901", 1))),
        ("f2", inherited(unchecked(running(Ready, false, "127.0.0.1:18901", 1)))),
    ]);
    let named = servers([("n1", unchecked(running(Ready, true, "127.0.0.1:18901", 1)))]);
    // A frontend has the name of the one up to 3.2; the other one is a `listen`.
    let twin = servers([("x1", unchecked(running(Maintenance, false, "127.0.0.2:18900", 1)))]);
    let both = servers([("l1", unchecked(running(Maintenance, false, "127.0.0.2:18900", 1)))]);
    for talks in Talks::all("admin") {
        let version = talks.version;
        let (mut runtime, path, lines) = replaying(&talks);
        let names = ["b", "unchecked", "following", "named", "twin", "both", "off", "nobody"];
        let reading = runtime.read(&names).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert!(reading.process.version.starts_with(version), "{:?}", reading.process);
        assert_eq!(reading.process.started.is_none(), version == "2.2");
        let shown = |name: &str| still(reading.backends[name].as_ref().expect("it is there"));
        for (name, expected) in [
            ("b", &backend_b()),
            ("unchecked", &other),
            ("following", &following),
            ("named", &named),
            ("twin", &twin),
            ("both", &both),
        ] {
            assert_eq!(shown(name), *expected, "{version}: {name}");
        }
        assert_eq!(reading.backends["off"], Err(BackendFault::Disabled), "{version}");
        let Err(BackendFault::Missing(known)) = &reading.backends["nobody"] else { panic!("{version}: nobody") };
        assert_eq!(known[..4], ["b", "unchecked", "static", "slow"], "{version}");

        // Only 2.2's `show stat` lacks the weight that was set, so it is read each time.
        let names = ["b", "unchecked", "twin"];
        let asked = |runtime: &mut Runtime| runtime.unchanged(&names).expect("an answer");
        assert!(!asked(&mut runtime), "{version}");
        assert_eq!(asked(&mut runtime), version != "2.2", "{version}");
        // One line a connection: 3.0 and later drop a second one.
        let lines = lines.lock().expect("no panic");
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1 && line.len() <= MAX_LINE), "{lines:?}");
        std::fs::remove_file(path).expect("the socket's file");
    }
}

#[test]
fn the_masters_socket_and_one_with_severities_read_alike() {
    for socket in ["master", "severity number", "severity string"] {
        let all = Talks::all(socket);
        assert_eq!(all.len(), VERSIONS.len());
        for talks in all {
            let (mut runtime, path, lines) = replaying(&talks);
            let reading = runtime.read(&["b"]).unwrap_or_else(|error| panic!("{}, {socket}: {error}", talks.version));
            assert_eq!(still(reading.backends["b"].as_ref().expect("it is there")), backend_b());
            let before = runtime.unchanged(&["b"]).expect("an answer");
            let again = runtime.unchanged(&["b"]).expect("an answer");
            assert_eq!((before, again), (false, talks.version != "2.2"), "{}, {socket}", talks.version);
            let step = [
                command("b/s1", Change::Weight(7)),
                command("nobody/s1", Change::Ready),
                command("b/s1", Change::Address([127, 0, 0, 1].into(), Some(18901))),
            ];
            let mut verdicts = Vec::new();
            runtime.send(&[step.to_vec()], &mut |_, verdict| verdicts.push(verdict)).expect("sent");
            let refused = Verdict::Refused("No such backend.".to_owned());
            assert_eq!(verdicts, [Verdict::Done, refused, Verdict::Done], "{}, {socket}", talks.version);
            let lines = lines.lock().expect("no panic");
            assert!(
                lines.iter().skip(3).all(|line| line.starts_with("@1;") || line.starts_with("set severity-output"))
            );
            std::fs::remove_file(path).expect("the socket's file");
        }
    }
    // 2.2's master names itself among the backends.
    for talks in Talks::all("master") {
        let shown = talks.of("@1;show cli level;show backend");
        assert_eq!(shown.contains("\nMASTER\n"), talks.version == "2.2");
    }
}

/// 2.2 ends each section with an empty line, as if it were a reply; later versions show a section of their own making.
#[test]
fn a_resolver_of_the_configuration_is_seen_on_each_version() {
    let all = Talks::all("resolver");
    assert_eq!(all.len(), VERSIONS.len());
    for talks in all {
        let (mut runtime, path, _) = replaying(&talks);
        let reading = runtime.read(&["named"]).unwrap_or_else(|error| panic!("{}: {error}", talks.version));
        assert_eq!(reading.backends["named"], Err(BackendFault::Resolved("named/n1".to_owned())), "{}", talks.version);
        std::fs::remove_file(path).expect("the socket's file");
    }
}

#[test]
fn several_processes_and_a_level_that_changes_nothing_are_refused() {
    for talks in Talks::all("nbproc") {
        let (mut runtime, path, _) = replaying(&talks);
        let error = runtime.read(&["b"]).expect_err("several").to_string();
        assert!(error.contains("runs 2 processes"), "{}: {error}", talks.version);
        std::fs::remove_file(path).expect("the socket's file");
    }
    for talks in Talks::all("operator") {
        assert_eq!(talks.replies("show cli level"), Some(vec!["operator"]), "{}", talks.version);
        assert_eq!(talks.replies("set server b/s6 state ready"), Some(vec!["Permission denied"]), "{}", talks.version);
    }
}

fn command(server: &str, change: Change) -> Command {
    let (backend, server) = server.split_once('/').expect("a backend and a server");
    Command::new(backend, server, change).expect("names")
}

#[test]
fn each_version_says_alike_whether_a_command_was_done() {
    let change = |text: &str| match text.split(' ').collect::<Vec<_>>()[..] {
        ["state", "maint"] => Change::Maintenance,
        ["state", _] => Change::Ready,
        ["health", "down"] => Change::HealthDown,
        ["weight", "100%"] => Change::ConfiguredWeight,
        ["weight", weight] => Change::Weight(weight.parse().unwrap_or(1)),
        ["addr", address, ref port @ ..] => {
            Change::Address(address.parse().unwrap_or([127, 0, 0, 1].into()), (!port.is_empty()).then_some(80))
        }
        _ => panic!("no change: {text}"),
    };
    for talks in Talks::all("admin") {
        for (server, text, expected) in [
            ("b/s6", "addr 127.0.0.11 port 80", "done"),
            ("b/s6", "addr 127.0.0.12 port 80", "done"),
            ("b/s6", "addr 127.0.0.12 port 81", "done"),
            ("b/s6", "addr 127.0.0.12", "done"),
            ("b/s6", "addr 127.0.0.13", "done"),
            ("b/s6", "addr 2001:db8::6 port 82", "done"),
            ("b/s6", "state ready", "done"),
            ("b/s6", "health down", "done"),
            ("b/s6", "state maint", "done"),
            ("b/s6", "weight 256", "done"),
            ("static/t1", "weight 100%", "done"),
            ("static/t1", "weight 3", "static"),
            ("following/f1", "health down", "refused"),
            ("b/s6", "addr foo port 80", "refused"),
            ("b/s6", "addr 127.0.0.12 port abc", "refused"),
            ("b/s6", "weight 257", "refused"),
            ("b/s6", "state perhaps", "refused"),
            ("b/s9", "state ready", "refused"),
            ("nobody/s1", "state ready", "refused"),
            ("off/o1", "state ready", "refused"),
            ("off/o1", "addr 127.0.0.13 port 80", "refused"),
        ] {
            let asked = format!("set server {server} {text}");
            let replies = talks.replies(&asked).unwrap_or_else(|| panic!("{}: {asked}", talks.version));
            assert_eq!(replies.len(), 1, "{}: {asked}", talks.version);
            let verdict = match judge(&command(server, change(text)), replies[0]) {
                Verdict::Done => "done",
                Verdict::StaticWeight => "static",
                Verdict::Refused(_) => "refused",
            };
            assert_eq!(verdict, expected, "{}: {asked} was answered {replies:?}", talks.version);
        }
        let joined = "set server b/s6 state maint;set server b/s6 addr 127.0.0.11 port 80;set server b/s6 weight 0";
        let replies = talks.replies(joined).expect("whole");
        assert!(replies.len() == 3 && replies[0].is_empty() && replies[1].starts_with("IP changed from"));
    }
}

#[test]
fn health_down_holds_outside_maintenance_and_wherever_no_check_lifts_it() {
    for talks in Talks::all("admin") {
        let server = |line: &str, name: &str| {
            let replies = talks.replies(line).expect("whole");
            let table = parse(replies.last().expect("a reply")).expect("a table");
            table.servers[name].clone()
        };
        let version = talks.version;
        let maintenance = "set server slow/w1 health down;set server slow/w1 state ready;show servers state slow";
        assert!(server(maintenance, "w1").up, "{version}: in maintenance it is forgotten");
        let ready =
            server("set server slow/w2 state ready;set server slow/w2 health down;show servers state slow", "w2");
        assert!(!ready.up && ready.checked && ready.admin == Admin::Ready, "{version}");
        let off = server("set server slow/w3 state ready;disable health slow/w3;show servers state slow", "w3");
        assert!(off.up && !off.checked, "{version}: its check is switched off");
        let unchecked = server("set server unchecked/u1 health down;show servers state unchecked", "u1");
        assert!(!unchecked.up && !unchecked.checked, "{version}");
    }
}

/// Where the versions differ, the number of replies is wrong, and a wrong number is an error of the whole line.
#[test]
fn a_reply_cut_otherwise_is_never_that_of_another_command() {
    for talks in Talks::all("admin") {
        let (version, count) = (talks.version, |line| talks.replies(line).map(|replies| replies.len()));
        // 2.2 and 2.6 end this one refusal without an empty line, so the next success looks like its end.
        let old = talks.is_before("2.8");
        assert_eq!(count("set server b/s6 weight abc"), (!old).then_some(1), "{version}");
        let two = count("set server b/s6 weight abc;set server b/s6 state maint");
        assert_eq!(two, Some(if old { 1 } else { 2 }), "{version}");
        // 2.2 and 2.6 answer an empty command with their whole help.
        let help = talks.of("show cli level;;show cli level");
        assert_eq!(help.contains("Unknown command"), old, "{version}");
        assert_eq!(count("show cli level;;show cli level"), Some(3), "{version}");
        // 3.0 and later drop what stands on a second line.
        let lines = count("show cli level\nshow cli level");
        assert_eq!(lines, Some(if talks.is_before("3.0") { 2 } else { 1 }), "{version}");
        // A line longer than its buffer 3.2 and later refuse in one line without an end; 2.2 hangs on it, but not each time.
        let line = ["set server b/s6 weight 1"; 800].join(";");
        assert_eq!(talks.of(&line).contains("too big"), !talks.is_before("3.2"), "{version}");
        if version != "2.2" {
            assert_eq!(count(&line), talks.is_before("3.2").then_some(800), "{version}");
        }
    }
}

#[test]
fn no_version_sends_a_new_server_a_request_before_its_check_passes() {
    for (version, _, text) in VERSIONS {
        let measured: Value = serde_json::from_str(text).expect("JSON");
        assert!(measured["version"].as_str().expect("a version").starts_with(version));
        let situations = measured["situations"].as_object().expect("situations");
        assert!(situations.len() >= 27, "{version}: {}", situations.len());
        for (name, situation) in situations {
            let reached = situation["reached"].as_u64().expect("a number");
            if situation["may_serve_early"] == false {
                assert_eq!(reached, 0, "{version}: {name}");
            }
            assert!(situation["requests_before"].as_u64() >= Some(10), "{version}: {name}");
            assert_eq!(situation["served"], 10, "{version}: {name}");
        }
        // Without the waiting some come too early, so that would be seen.
        assert_ne!(situations["unwaited: A's check under way"]["reached"], 0, "{version}");
    }
}
