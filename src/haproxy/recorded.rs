//! What HAProxy 2.2, 2.6, 2.8, 3.0 and 3.2 said on their sockets (`tests/tools/record-haproxy.py`): each must read alike, and
//! where they cut their replies otherwise, no reply may be taken for that of another command.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::command::{Change, Command, Verdict};
use super::socket::{Limits, MAX_LINE, Socket};
use super::state::{Admin, Health, Running};
use super::{Error, Runtime, reply};

const VERSIONS: [(&str, &str); 5] = [
    ("2.2", include_str!("../../tests/data/haproxy-2.2.json")),
    ("2.6", include_str!("../../tests/data/haproxy-2.6.json")),
    ("2.8", include_str!("../../tests/data/haproxy-2.8.json")),
    ("3.0", include_str!("../../tests/data/haproxy-3.0.json")),
    ("3.2", include_str!("../../tests/data/haproxy-3.2.json")),
];

/// What was sent, and every byte that came back.
struct Talks {
    version: &'static str,
    talks: BTreeMap<String, String>,
}

impl Talks {
    fn all() -> impl Iterator<Item = Talks> {
        VERSIONS.into_iter().map(|(version, text)| {
            let talks: Vec<(String, String)> = serde_json::from_str(text).expect("pairs of texts");
            Talks { version, talks: talks.into_iter().collect() }
        })
    }

    fn of(&self, line: &str) -> &str {
        self.talks.get(line).unwrap_or_else(|| panic!("{}: {line:?} was not recorded", self.version))
    }

    fn replies(&self, line: &str) -> Option<Vec<&str>> {
        reply::split(self.of(line)).ok()
    }

    fn is_before(&self, version: &str) -> bool {
        self.version < version
    }
}

fn running(admin: Admin, health: Health, address: &str, weight: u16) -> Running {
    Running { admin, health, address: Some(address.parse().expect("an address")), weight: Some(weight) }
}

/// A socket that answers as that version did, a joined line by the replies of its commands; and what it was sent.
fn replaying(talks: Talks) -> (PathBuf, Arc<Mutex<Vec<String>>>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("hsdo-recorded-{}-{number}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut line = String::new();
            stream.read_line(&mut line).expect("a line");
            let commands = line.trim_end_matches('\n').split(';');
            let answer: String = commands.map(|command| talks.of(command)).collect();
            seen.lock().expect("no panic").push(line);
            stream.get_mut().write_all(answer.as_bytes()).expect("sent");
        }
    });
    (path, lines)
}

#[test]
fn each_version_shows_the_same_servers() {
    use Admin::{Drain, Maintenance, Ready};
    let servers = BTreeMap::from([
        ("s1".to_owned(), running(Ready, Health::Passed, "127.0.0.1:18901", 7)),
        ("s2".to_owned(), running(Maintenance, Health::Down, "127.0.0.2:18900", 5)),
        ("s3".to_owned(), running(Drain, Health::Down, "127.0.0.1:18901", 1)),
        ("s4".to_owned(), running(Ready, Health::Down, "127.0.0.1:1", 1)),
        ("s5".to_owned(), running(Maintenance, Health::Down, "[2001:db8::1]:80", 1)),
        ("s6".to_owned(), running(Maintenance, Health::Down, "127.0.0.2:18900", 1)),
    ]);
    let unchecked = BTreeMap::from([
        ("u1".to_owned(), running(Ready, Health::Unchecked, "127.0.0.1:18901", 9)),
        ("u2".to_owned(), running(Maintenance, Health::Down, "127.0.0.2:18900", 1)),
    ]);
    let backends = BTreeMap::from([("b".to_owned(), servers), ("unchecked".to_owned(), unchecked)]);
    for talks in Talks::all() {
        let version = talks.version;
        let (path, lines) = replaying(talks);
        let mut runtime = Runtime::new(Socket::new(&path, Limits::default()));
        let targets = [("b", "s"), ("unchecked", "u")];
        runtime.check(&targets).unwrap_or_else(|error| panic!("{version}: {error}"));
        let reading = runtime.read(&["b", "unchecked"]).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert!(reading.process.version.starts_with(version), "{:?}", reading.process);
        assert_eq!(reading.backends, backends, "{version}");
        let absent = runtime.check(&[("nobody", "s")]).expect_err("it has no such backend");
        assert!(absent.to_string().contains("it has b, unchecked, static"), "{version}: {absent}");
        assert!(matches!(runtime.read(&["nobody"]), Err(Error::NoBackend { .. })), "{version}");

        // Only 2.2's `show stat` lacks the weight. Whatever it is, one line a connection: 3.0 drops a second one.
        let lines = lines.lock().expect("no panic");
        assert_eq!(
            lines.iter().any(|line| line.contains("show servers state")),
            version == "2.2",
            "{version}: {lines:?}"
        );
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1 && line.len() <= MAX_LINE), "{lines:?}");
        std::fs::remove_file(path).expect("the socket's file");
    }
}

#[test]
fn each_version_says_alike_whether_a_command_was_done() {
    let change = |text: &str| {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["state", "maint"] => Change::Maintenance,
            ["state", _] => Change::Ready,
            ["weight", "100%"] => Change::ConfiguredWeight,
            ["weight", weight] => Change::Weight(weight.parse().unwrap_or(1)),
            ["addr", address, ..] => Change::Address(address.parse().unwrap_or([127, 0, 0, 1].into()), 80),
            _ => panic!("no change: {text}"),
        }
    };
    for talks in Talks::all() {
        for (server, text, expected) in [
            ("b/s6", "addr 127.0.0.11 port 80", "done"),
            ("b/s6", "addr 127.0.0.12 port 80", "done"),
            ("b/s6", "addr 127.0.0.12 port 81", "done"),
            ("b/s6", "addr 2001:db8::6 port 82", "done"),
            ("b/s6", "state ready", "done"),
            ("b/s6", "state maint", "done"),
            ("b/s6", "weight 256", "done"),
            ("static/t1", "weight 100%", "done"),
            ("static/t1", "weight 3", "static"),
            ("b/s6", "addr foo port 80", "refused"),
            ("b/s6", "addr 127.0.0.12 port abc", "refused"),
            ("b/s6", "weight 257", "refused"),
            ("b/s6", "state perhaps", "refused"),
            ("b/s9", "state ready", "refused"),
            ("nobody/s1", "state ready", "refused"),
            ("as operator: b/s6", "state ready", "refused"),
        ] {
            let (prefix, server) = server.rsplit_once(' ').unwrap_or(("", server));
            let asked = format!("{prefix} set server {server} {text}");
            let replies = talks.replies(asked.trim_start()).unwrap_or_else(|| panic!("{}: {asked}", talks.version));
            let (backend, server) = server.split_once('/').expect("a backend and a server");
            let command = Command::new(backend, server, change(text)).expect("names");
            assert_eq!(replies.len(), 1, "{}: {asked}", talks.version);
            let verdict = match command.judge(replies[0]) {
                Verdict::Done => "done",
                Verdict::StaticWeight => "static",
                Verdict::Refused(_) => "refused",
            };
            assert_eq!(verdict, expected, "{}: {asked} was answered {replies:?}", talks.version);
        }
        let joined = "set server b/s6 state maint;set server b/s6 addr 127.0.0.11 port 80;set server b/s6 weight 0";
        let replies = talks.replies(joined).expect("whole");
        assert!(
            replies.len() == 3 && replies[0].is_empty() && replies[1].starts_with("IP changed from"),
            "{replies:?}"
        );
    }
}

/// Where the versions differ, the number of replies is wrong, and a wrong number is an error of the whole line.
#[test]
fn a_reply_cut_otherwise_is_never_that_of_another_command() {
    for talks in Talks::all() {
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
        // A line longer than its buffer 3.2 refuses in one line without an end; 2.2 hangs on it, but not each time.
        let long = talks.of("too long");
        assert_eq!(long.contains("too big"), version == "3.2", "{version}: {long}");
        if version != "2.2" {
            assert_eq!(count("too long"), (version != "3.2").then_some(800), "{version}");
        }
    }
}
