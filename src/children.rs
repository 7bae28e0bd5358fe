//! The processes that hsdo starts, and the orphans it inherits as process 1 of a container.
//!
//! A helper process leads its own process group and has a mark in its environment. Its descendants (pipelines, background
//! jobs, daemons) inherit both, so that all of them can be found and killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// The variable that marks a helper and its descendants.
const MARK: &str = "HSDO_HELPER";
/// How many helpers may have leftovers before no more are started.
const MAX_LEFTOVERS: usize = 8;
/// How long to wait for a killed helper to exit: it takes longer only if stuck in the kernel or run by another user.
const KILL_WAIT: Duration = Duration::from_secs(1);
/// The same for its descendants.
const TREE_KILL_WAIT: Duration = Duration::from_millis(100);
/// The same at the next start, which holds the lock.
const RETRY_KILL_WAIT: Duration = Duration::from_millis(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long shutdown waits for a helper that is just being started.
const LOCK_WAIT: Duration = Duration::from_millis(100);

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    shutting_down: false,
    random: None,
    started: 0,
    running: BTreeMap::new(),
    leftovers: Vec::new(),
});

struct Registry {
    shutting_down: bool,
    /// Tells this process's helpers from those of another hsdo.
    random: Option<u64>,
    started: u64,
    running: BTreeMap<Pid, ProcessTree>,
    leftovers: Vec<Leftover>,
}

/// A helper and its descendants.
#[derive(Clone, Debug)]
struct ProcessTree {
    leader: Pid,
    /// Whether it leads a process group: not on a terminal, where only the foreground group can read input.
    group: bool,
    /// `HSDO_HELPER=...`
    mark: String,
    /// The helper's start, in ticks since boot: older processes are not descendants.
    since: u64,
}

/// Possible descendants of a finished helper.
struct Leftover {
    tree: ProcessTree,
    /// The helper itself, until reaped.
    child: Option<Child>,
    /// Kept open, so that descendants can keep writing.
    _pipes: Vec<File>,
}

/// A running helper. Must be consumed by [`Helper::kill`] or [`Helper::detach`].
#[must_use]
pub(crate) struct Helper {
    pub(crate) child: Child,
    tree: ProcessTree,
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a helper. Errors: it cannot be spawned, earlier ones have too many leftovers, or hsdo is shutting down.
pub(crate) fn start(command: &mut Command) -> io::Result<Helper> {
    let mut registry = registry();
    if registry.shutting_down {
        return Err(io::Error::other("hsdo is shutting down"));
    }
    registry.leftovers.retain_mut(|left| !left.kill(RETRY_KILL_WAIT));
    if registry.leftovers.len() >= MAX_LEFTOVERS {
        let ids: Vec<String> = registry.leftovers.iter().map(|left| left.tree.leader.to_string()).collect();
        let text = format!("{} earlier ones cannot be killed: kill the process groups {}", ids.len(), ids.join(", "));
        return Err(io::Error::other(text));
    }
    let registry = &mut *registry;
    registry.started += 1;
    // Not the process ID, which repeats between containers.
    let random = registry.random.get_or_insert_with(|| RandomState::new().build_hasher().finish());
    let mark = format!("{random:016x}.{}", registry.started);
    command.env(MARK, &mark);
    let group = !io::stdin().is_terminal();
    if group {
        command.process_group(0);
    }
    // Under the lock, so that `reap` cannot take its status first.
    let child = command.spawn()?;
    let leader = Pid::from_raw(child.id().cast_signed());
    let tree = ProcessTree {
        leader,
        group,
        mark: format!("{MARK}={mark}"),
        since: Stat::of(leader).map_or(0, |stat| stat.start),
    };
    registry.running.insert(leader, tree.clone());
    Ok(Helper { child, tree })
}

impl Helper {
    /// The exit status, if it has exited. Leaves it a zombie, so that its process group ID is not reused.
    pub(crate) fn exit_status(&self) -> io::Result<Option<ExitStatus>> {
        match peek_status(Id::Pid(self.tree.leader)) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(ExitStatus::from_raw(code << 8))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(ExitStatus::from_raw(signal as i32))),
            Ok(_) | Err(Errno::EINTR) => Ok(None),
            // hsdo was started with SIGCHLD ignored: exit statuses are lost.
            Err(Errno::ECHILD) => Ok(Some(ExitStatus::default())),
            // A real-time signal, unknown to nix.
            Err(Errno::EINVAL) => Err(io::Error::other("an unknown signal killed it")),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it and its descendants.
    pub(crate) fn kill(mut self) {
        self.tree.kill_group();
        let _ = self.child.kill();
        // Its process ID may be reused only after this.
        registry().running.remove(&self.tree.leader);
        let last = Instant::now() + KILL_WAIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < last {
            thread::sleep(POLL_INTERVAL);
        }
        let mut left = Leftover { tree: self.tree, child: Some(self.child), _pipes: Vec::new() };
        if !left.kill(TREE_KILL_WAIT) {
            registry().leftovers.push(left);
        }
    }

    /// After its exit, spares its descendants: until the next helper starts if they hold one of `pipes`, for good if they
    /// have closed them, as daemons do.
    pub(crate) fn detach(mut self, pipes: Vec<File>) {
        let mut registry = registry();
        registry.running.remove(&self.tree.leader);
        let _ = self.child.wait();
        if !pipes.is_empty() {
            registry.leftovers.push(Leftover { tree: self.tree, child: None, _pipes: pipes });
        }
    }
}

impl Leftover {
    /// True if nothing is left.
    fn kill(&mut self, time: Duration) -> bool {
        let ended = self.tree.kill(time);
        self.reap();
        ended && self.child.is_none()
    }

    /// Reaps the helper itself, once it has exited.
    fn reap(&mut self) {
        // An error means that there is nothing to reap.
        if self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            self.child = None;
        }
    }
}

impl ProcessTree {
    /// Kills the group. Only before the helper is reaped, while the group ID cannot be reused.
    fn kill_group(&self) {
        // With SIGCHLD ignored, there is no zombie to keep the ID.
        if self.group && peek_status(Id::Pid(self.leader)) != Err(Errno::ECHILD) {
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }

    /// Kills whatever carries the mark, even outside the group or started meanwhile. True if nothing is left after `time`.
    fn kill(&self, time: Duration) -> bool {
        let last = Instant::now() + time;
        loop {
            let members = self.members();
            if members.is_empty() {
                return true;
            }
            for (process, marked) in members {
                if marked {
                    let _ = kill(process, Signal::SIGKILL);
                }
            }
            if Instant::now() >= last {
                return false;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The running processes, and whether they carry the mark: with a cleared environment, only the group tells.
    fn members(&self) -> Vec<(Pid, bool)> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let member = |process: Pid| {
            let stat = Stat::of(process)?;
            // Skip older processes: reading the environment of one stuck in the kernel blocks.
            if stat.start < self.since || matches!(stat.state, b'Z' | b'X') {
                return None;
            }
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes());
            (marked || (self.group && stat.group == self.leader)).then_some((process, marked))
        };
        ids.map(Pid::from_raw).filter_map(member).collect()
    }
}

/// `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    group: Pid,
    /// In ticks since boot.
    start: u64,
}

impl Stat {
    fn of(process: Pid) -> Option<Self> {
        // As bytes: the name may not be UTF-8.
        Self::read(&fs::read(format!("/proc/{process}/stat")).ok()?)
    }

    fn read(line: &[u8]) -> Option<Self> {
        // The name, in parentheses, may hold anything. The state after it is field 3.
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&line[end + 1..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = Pid::from_raw(fields.nth(1)?.parse().ok()?);
        Some(Stat { state, group, start: fields.nth(16)?.parse().ok()? })
    }
}

/// The status of an exited child, without reaping it.
fn peek_status(id: Id<'_>) -> Result<WaitStatus, Errno> {
    waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)
}

/// Kills every helper and starts no more. One whose start is slow may slip through.
pub fn kill_all() {
    let last = Instant::now() + LOCK_WAIT;
    let mut registry = loop {
        match REGISTRY.try_lock() {
            Ok(registry) => break registry,
            Err(_) if Instant::now() < last => thread::sleep(POLL_INTERVAL),
            Err(_) => return,
        }
    };
    registry.shutting_down = true;
    registry.running.values().for_each(ProcessTree::kill_group);
    for tree in registry.running.values().chain(registry.leftovers.iter().map(|left| &left.tree)) {
        tree.kill(TREE_KILL_WAIT);
    }
}

/// Reaps exited orphans, but no helpers, whose status is still needed.
pub(crate) fn reap() {
    let mut registry = registry();
    registry.leftovers.iter_mut().for_each(Leftover::reap);
    loop {
        let orphan = match peek_status(Id::All) {
            Ok(status) => status.pid().filter(|pid| !registry.running.contains_key(pid)),
            // Killed by a signal unknown to nix.
            Err(Errno::EINVAL) if registry.running.is_empty() => Some(Pid::from_raw(-1)),
            Err(_) => None,
        };
        // An exited helper hides others until it is reaped.
        let Some(orphan) = orphan else { return };
        let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_whatever_the_name() {
        let rest = "S 1 42 42 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 777 0 0 18446744073709551615";
        let expected = Some(Stat { state: b'S', group: Pid::from_raw(42), start: 777 });
        for name in ["sh", "a b", ") Z 1 9", "\u{ff}"] {
            assert_eq!(Stat::read(format!("42 ({name}) {rest}").as_bytes()), expected, "{name}");
        }
        assert_eq!(Stat::read(b"42 (\xff) S 1 42"), None);
        assert_eq!(Stat::read(b""), None);
        assert!(Stat::of(Pid::this()).is_some_and(|stat| stat.start > 0));
    }
}
