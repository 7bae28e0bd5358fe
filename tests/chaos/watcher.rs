//! Polls a backend's rotation: a protected address must not leave it, and an unexpected one must not enter.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::http::lock;

const PAUSE: Duration = Duration::from_millis(25);
/// More violations than that add nothing.
const MAX_VIOLATIONS: usize = 5;

#[derive(Debug, Default)]
struct Shared {
    /// Addresses that must stay.
    protected: Mutex<BTreeSet<IpAddr>>,
    /// Addresses that may be there; `None`: any.
    allowed: Mutex<Option<BTreeSet<IpAddr>>>,
    violations: Mutex<Vec<String>>,
    /// The process last seen, and when it first had servers in rotation.
    filled: Mutex<Option<(String, Instant)>>,
    looks: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(socket: &Path, backend: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (of_thread, socket, backend) = (Arc::clone(&shared), socket.to_owned(), backend.to_owned());
        let thread = std::thread::spawn(move || of_thread.watch(&socket, &backend));
        Watcher { shared, thread: Some(thread) }
    }

    /// From now on these must stay, and no others may be there.
    pub(crate) fn settle(&self, addresses: &BTreeSet<IpAddr>) {
        lock(&self.shared.protected).clone_from(addresses);
        *lock(&self.shared.allowed) = Some(addresses.clone());
    }

    pub(crate) fn release(&self, addresses: &BTreeSet<IpAddr>) {
        lock(&self.shared.protected).retain(|address| !addresses.contains(address));
    }

    pub(crate) fn release_all(&self) {
        lock(&self.shared.protected).clear();
    }

    pub(crate) fn allow(&self, addresses: &BTreeSet<IpAddr>) {
        if let Some(allowed) = &mut *lock(&self.shared.allowed) {
            allowed.extend(addresses);
        }
    }

    /// When the current HAProxy process was first seen with servers in rotation: its id, and the moment.
    pub(crate) fn filled(&self) -> Option<(String, Instant)> {
        lock(&self.shared.filled).clone()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    pub(crate) fn looks(&self) -> u64 {
        self.shared.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self, socket: &PathBuf, backend: &str) {
        let mut before: Option<Snapshot> = None;
        while !self.stop.load(Ordering::SeqCst) {
            let (first, allowed) = (lock(&self.protected).clone(), lock(&self.allowed).clone());
            let now = snapshot(socket, backend);
            let second = lock(&self.protected).clone();
            if let Some(now) = now {
                self.looks.fetch_add(1, Ordering::Relaxed);
                let same = before.as_ref().filter(|before| before.pid == now.pid);
                if let Some(before) = same {
                    for address in first.intersection(&second) {
                        if before.rotation.contains(address) && !now.rotation.contains(address) {
                            self.report_violation(format!("{address} left the rotation of {backend}: {}", now.text));
                        }
                    }
                }
                // Missing both before and after the look.
                let after = lock(&self.allowed).clone();
                if let (Some(before), Some(after)) = (allowed, after)
                    && let Some(address) = now.rotation.iter().find(|it| !before.contains(it) && !after.contains(it))
                {
                    self.report_violation(format!("{address} is in the rotation of {backend}: {}", now.text));
                }
                let mut filled = lock(&self.filled);
                if !now.rotation.is_empty() && filled.as_ref().is_none_or(|(pid, _)| *pid != now.pid) {
                    *filled = Some((now.pid.clone(), Instant::now()));
                }
                before = Some(now);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn report_violation(&self, text: String) {
        let mut violations = lock(&self.violations);
        if violations.len() < MAX_VIOLATIONS {
            violations.push(text);
        }
    }
}

/// One look: the process, and the addresses that hsdo has in rotation. Health is HAProxy's business.
struct Snapshot {
    pid: String,
    rotation: BTreeSet<IpAddr>,
    text: String,
}

fn snapshot(socket: &PathBuf, backend: &str) -> Option<Snapshot> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("show info;show servers state {backend}\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let whole = text.ends_with("\n\n");
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid: "))?.to_owned();
    let rows = text.lines().filter(|line| line.split(' ').nth(1) == Some(backend));
    let in_rotation = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let admin: u32 = fields.get(6)?.parse().ok()?;
        // Ready is 4 for a server that the configuration disables: only the maintenance and drain bits count.
        (admin & !4 == 0 && *fields.get(7)? != "0").then(|| fields[4].parse().ok())?
    };
    let text: String = rows.clone().collect::<Vec<_>>().join("\n");
    // A truncated reply proves nothing.
    (whole && text.contains(backend)).then(|| Snapshot {
        pid,
        rotation: rows.filter_map(in_rotation).collect(),
        text: text.clone(),
    })
}

#[test]
fn who_leaves_a_rotation_and_who_enters_it_is_noticed() {
    use crate::common::bed::Bed;
    use crate::common::haproxy::{BackendConfig, Haproxy};
    use crate::common::wait::{SOON, wait_until};

    let bed = Bed::new("watcher");
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("back", "web", 2).unchecked()]);
    let set = |server: &str, what: &str| drop(haproxy.command(&format!("set server back/{server} {what}")));
    let addresses = |last: &[u8]| last.iter().map(|last| IpAddr::from([127, 4, 0, *last])).collect::<BTreeSet<_>>();
    set("web1", "addr 127.4.0.1 port 80");
    set("web1", "state ready");
    let watcher = Watcher::start(haproxy.socket(), "back");
    let wait = |what: &str, count: usize| {
        wait_until(what, SOON, || (watcher.violations().len() == count).then(|| watcher.violations()))
    };
    wait_until("a look", SOON, || watcher.filled());
    watcher.settle(&addresses(&[1]));
    set("web1", "weight 5");
    let looks = watcher.looks();
    wait_until("three looks", SOON, || (watcher.looks() > looks + 3).then_some(()));
    assert_eq!(watcher.violations(), Vec::<String>::new());

    set("web1", "weight 0");
    assert!(wait("a violation", 1)[0].starts_with("127.4.0.1 left the rotation of back"));
    watcher.allow(&addresses(&[2]));
    set("web2", "addr 127.4.0.2 port 80");
    set("web2", "state ready");
    let looks = watcher.looks();
    wait_until("three looks", SOON, || (watcher.looks() > looks + 3).then_some(()));
    assert_eq!(watcher.violations().len(), 1, "it may be there");
    set("web2", "addr 127.4.0.3 port 80");
    let second = wait_until("a second violation", SOON, || watcher.violations().get(1).cloned());
    assert!(second.starts_with("127.4.0.3 is in the rotation of back"), "{second}");
}
