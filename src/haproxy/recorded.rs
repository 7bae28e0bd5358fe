//! Replays recorded responses of HAProxy 2.2 to 3.4 (`tests/tools/record-haproxy.py`): each must read the same, and no reply may be
//! matched to the wrong command where the versions delimit replies differently. Also checks that the line which opens a slot kept
//! requests from the new server on each version (`tests/tools/measure-gate.py`).

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

/// The lines that one socket was sent, with the response to each.
#[derive(Clone)]
struct Recording {
    version: &'static str,
    socket: String,
    responses: BTreeMap<String, String>,
}

impl Recording {
    /// Every version's recording of this socket.
    fn all(socket: &str) -> Vec<Recording> {
        let of = |(version, text, _): (&'static str, &str, &str)| {
            let mut sockets: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(text).expect("responses");
            let responses = sockets.remove(socket)?.into_iter().collect();
            Some(Recording { version, socket: socket.to_owned(), responses })
        };
        VERSIONS.into_iter().filter_map(of).collect()
    }

    fn of(&self, line: &str) -> &str {
        let found = self.responses.get(line);
        found.unwrap_or_else(|| panic!("{}, {}: {line:?} was not recorded", self.version, self.socket))
    }

    /// The response to a line: as recorded, or joined from the responses to its commands.
    fn answer(&self, line: &str) -> String {
        match self.responses.get(line) {
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

/// A runtime on a socket that replays the recording, one line per connection; and the lines it was sent.
fn replaying(recording: &Recording) -> (Runtime, PathBuf, Arc<Mutex<Vec<String>>>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("hsdo-recorded-{}-{number}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, recording) = (Arc::clone(&lines), recording.clone());
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut line = String::new();
            stream.read_line(&mut line).expect("a line");
            let answer = recording.answer(line.trim_end_matches('\n'));
            seen.lock().expect("no panic").push(line);
            stream.get_mut().write_all(answer.as_bytes()).expect("sent");
            // The master keeps the connection open.
            if recording.socket == "master" {
                open.push(stream);
            }
        }
    });
    let runtime = Runtime::new(Socket::new(HaproxySocket::Path(path.clone()), SocketLimits::default()));
    (runtime, path, lines)
}

/// Without a check in flight.
fn running(admin: Admin, up: bool, address: &str, weight: u16) -> Running {
    let address = Some(address.parse().expect("an address"));
    Running {
        admin,
        inherited: false,
        up,
        address,
        weight,
        configured: 1,
        checked: true,
        checking: false,
        named: false,
        busy: false,
    }
}

/// Ignores whether a check was in flight, which is chance.
fn without_checking(servers: &Servers) -> Servers {
    let idle = |(name, server): (&String, &Running)| (name.clone(), Running { checking: false, ..server.clone() });
    servers.iter().map(idle).collect()
}

fn servers<const N: usize>(servers: [(&str, Running); N]) -> Servers {
    servers.into_iter().map(|(name, server)| (name.to_owned(), server)).collect()
}

/// The servers of the recorded backend `b`.
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
    // Up to 3.2 a frontend shares the name `twin`; `both` is a `listen` section.
    let twin = servers([("x1", unchecked(running(Maintenance, false, "127.0.0.2:18900", 1)))]);
    let both = servers([("l1", unchecked(running(Maintenance, false, "127.0.0.2:18900", 1)))]);
    for recording in Recording::all("admin") {
        let version = recording.version;
        let (mut runtime, path, lines) = replaying(&recording);
        let names = ["b", "unchecked", "following", "named", "twin", "both", "off", "nobody"];
        let reading = runtime.read(&names).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert!(reading.process.version.starts_with(version), "{:?}", reading.process);
        assert_eq!(reading.process.started.is_none(), version == "2.2");
        let shown = |name: &str| without_checking(reading.backends[name].as_ref().expect("it is there"));
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

        // 2.2's `show stat` lacks the weight that was set, so 2.2 is read every time.
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
fn the_masters_socket_and_one_with_severities_read_the_same() {
    for socket in ["master", "severity number", "severity string"] {
        let all = Recording::all(socket);
        assert_eq!(all.len(), VERSIONS.len());
        for recording in all {
            let (mut runtime, path, lines) = replaying(&recording);
            let reading =
                runtime.read(&["b"]).unwrap_or_else(|error| panic!("{}, {socket}: {error}", recording.version));
            assert_eq!(without_checking(reading.backends["b"].as_ref().expect("it is there")), backend_b());
            let before = runtime.unchanged(&["b"]).expect("an answer");
            let again = runtime.unchanged(&["b"]).expect("an answer");
            assert_eq!((before, again), (false, recording.version != "2.2"), "{}, {socket}", recording.version);
            let step = [
                command("b/s1", Change::Weight(7)),
                command("nobody/s1", Change::Ready),
                command("b/s1", Change::Address([127, 0, 0, 1].into(), Some(18901))),
            ];
            let mut verdicts = Vec::new();
            runtime.send(&[step.to_vec()], &mut |_, verdict| verdicts.push(verdict)).expect("sent");
            let refused = Verdict::Refused("No such backend.".to_owned());
            assert_eq!(verdicts, [Verdict::Done, refused, Verdict::Done], "{}, {socket}", recording.version);
            let lines = lines.lock().expect("no panic");
            assert!(
                lines.iter().skip(3).all(|line| line.starts_with("@1;") || line.starts_with("set severity-output"))
            );
            std::fs::remove_file(path).expect("the socket's file");
        }
    }
    // 2.2's master lists itself among the backends.
    for recording in Recording::all("master") {
        let shown = recording.of("@1;show cli level;show backend");
        assert_eq!(shown.contains("\nMASTER\n"), recording.version == "2.2");
    }
}

/// 2.2 ends each section with an empty line, as if it were a reply; later versions add a section.
#[test]
fn a_configured_resolver_is_found_on_each_version() {
    let all = Recording::all("resolver");
    assert_eq!(all.len(), VERSIONS.len());
    for recording in all {
        let (mut runtime, path, _) = replaying(&recording);
        let reading = runtime.read(&["named"]).unwrap_or_else(|error| panic!("{}: {error}", recording.version));
        let named = reading.backends["named"].as_ref().expect("it is there");
        assert!(named["n1"].named, "{}: {named:?}", recording.version);
        std::fs::remove_file(path).expect("the socket's file");
    }
}

#[test]
fn several_processes_and_an_insufficient_level_are_refused() {
    for recording in Recording::all("nbproc") {
        let (mut runtime, path, _) = replaying(&recording);
        let error = runtime.read(&["b"]).expect_err("several").to_string();
        assert!(error.contains("runs 2 processes"), "{}: {error}", recording.version);
        std::fs::remove_file(path).expect("the socket's file");
    }
    for recording in Recording::all("operator") {
        assert_eq!(recording.replies("show cli level"), Some(vec!["operator"]), "{}", recording.version);
        assert_eq!(
            recording.replies("set server b/s6 state ready"),
            Some(vec!["Permission denied"]),
            "{}",
            recording.version
        );
    }
}

fn command(server: &str, change: Change) -> Command {
    let (backend, server) = server.split_once('/').expect("a backend and a server");
    Command::new(backend, server, change).expect("names")
}

#[test]
fn replies_are_judged_the_same_on_each_version() {
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
    for recording in Recording::all("admin") {
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
            let replies = recording.replies(&asked).unwrap_or_else(|| panic!("{}: {asked}", recording.version));
            assert_eq!(replies.len(), 1, "{}: {asked}", recording.version);
            let verdict = match judge(&command(server, change(text)), replies[0]) {
                Verdict::Done => "done",
                Verdict::StaticWeight => "static",
                Verdict::Refused(_) => "refused",
            };
            assert_eq!(verdict, expected, "{}: {asked} was answered {replies:?}", recording.version);
        }
        let joined = "set server b/s6 state maint;set server b/s6 addr 127.0.0.11 port 80;set server b/s6 weight 0";
        let replies = recording.replies(joined).expect("whole");
        assert!(replies.len() == 3 && replies[0].is_empty() && replies[1].starts_with("IP changed from"));
    }
}

#[test]
fn health_down_lasts_outside_maintenance_and_without_a_check() {
    for recording in Recording::all("admin") {
        let server = |line: &str, name: &str| {
            let replies = recording.replies(line).expect("whole");
            let table = parse(replies.last().expect("a reply")).expect("a table");
            table.servers[name].clone()
        };
        let version = recording.version;
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

/// If a version delimits a reply differently, the number of replies is wrong, which is an error of the whole line.
#[test]
fn a_reply_is_never_matched_to_another_command() {
    for recording in Recording::all("admin") {
        let (version, count) = (recording.version, |line| recording.replies(line).map(|replies| replies.len()));
        // 2.2 and 2.6 end this refusal without an empty line, so the next success looks like its end.
        let old = recording.is_before("2.8");
        assert_eq!(count("set server b/s6 weight abc"), (!old).then_some(1), "{version}");
        let two = count("set server b/s6 weight abc;set server b/s6 state maint");
        assert_eq!(two, Some(if old { 1 } else { 2 }), "{version}");
        // 2.2 and 2.6 reply to an empty command with their whole help.
        let help = recording.of("show cli level;;show cli level");
        assert_eq!(help.contains("Unknown command"), old, "{version}");
        assert_eq!(count("show cli level;;show cli level"), Some(3), "{version}");
        // 3.0 and later drop a second line.
        let lines = count("show cli level\nshow cli level");
        assert_eq!(lines, Some(if recording.is_before("3.0") { 2 } else { 1 }), "{version}");
        // 3.2 and later refuse a line that exceeds their buffer, without an empty line; 2.2 hangs on it, though not every time.
        let line = ["set server b/s6 weight 1"; 800].join(";");
        assert_eq!(recording.of(&line).contains("too big"), !recording.is_before("3.2"), "{version}");
        if version != "2.2" {
            assert_eq!(count(&line), recording.is_before("3.2").then_some(800), "{version}");
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
        // Proof that the measurement detects early requests.
        assert_ne!(situations["unwaited: A's check under way"]["reached"], 0, "{version}");
    }
}
