//! The processes that hsdo starts, and as process 1 of a container those that others leave to it.
//!
//! A helper stands for all that it starts in turn: pipelines, background jobs, daemons. It leads a process group of its own
//! and carries a mark in its environment, which whatever it starts inherits, so that all of it can be found and ended.
//! Nothing here knows what a helper is for.

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

/// The variable that marks a helper and all that it starts.
const MARK: &str = "HSDO_HELPER";
/// How many helpers may have left something behind that still runs, before no other one is started.
const MOST_LEFT: usize = 8;
/// How long a helper that was killed is waited for: longer only where the kernel or another user holds it.
const DYING: Duration = Duration::from_secs(1);
/// The same for what it started.
const FOLLOWING: Duration = Duration::from_millis(100);
/// The same at the next start, while others wait.
const AGAIN: Duration = Duration::from_millis(10);
/// How often all of them are looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How long the end of the process waits for a helper that is just being started.
const STARTING: Duration = Duration::from_millis(100);

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { ending: false, random: None, started: 0, running: BTreeMap::new(), left: Vec::new() });

struct Registry {
    /// hsdo ends: nothing is started any more.
    ending: bool,
    /// What tells the helpers of this process from those of others.
    random: Option<u64>,
    /// How many were started.
    started: u64,
    /// Those that somebody waits for, by process id.
    running: BTreeMap<Pid, Family>,
    /// What is left of others.
    left: Vec<Left>,
}

/// A helper and all that it starts.
#[derive(Clone, Debug)]
struct Family {
    /// The helper itself.
    leader: Pid,
    /// Whether it leads a group. It does not where a person sits at a terminal, which answers its own group only.
    group: bool,
    /// The mark, as it stands in the environment.
    mark: String,
    /// When the helper was started, in ticks since the machine was: what is older is none of it.
    since: u64,
}

/// What may still run of a helper that nobody waits for.
struct Left {
    family: Family,
    /// The helper itself, unless it has ended and was waited for.
    child: Option<Child>,
    /// What others write into goes on being there.
    _pipes: Vec<File>,
}

/// A helper that runs. It must be given back by [`Helper::end`] or [`Helper::leave`].
#[must_use]
pub(crate) struct Helper {
    /// The process that was started.
    pub(crate) child: Child,
    family: Family,
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a helper. Errors: the system refuses it, too much is left of earlier ones, or hsdo is about to end.
pub(crate) fn start(command: &mut Command) -> io::Result<Helper> {
    let mut registry = registry();
    if registry.ending {
        return Err(io::Error::other("hsdo is about to end"));
    }
    registry.left.retain_mut(|left| !left.end(AGAIN));
    if registry.left.len() >= MOST_LEFT {
        let ids: Vec<String> = registry.left.iter().map(|left| left.family.leader.to_string()).collect();
        let text = format!("{} earlier ones cannot be ended: end the process groups {}", ids.len(), ids.join(", "));
        return Err(io::Error::other(text));
    }
    let registry = &mut *registry;
    registry.started += 1;
    // Process ids repeat between containers.
    let random = registry.random.get_or_insert_with(|| RandomState::new().build_hasher().finish());
    let mark = format!("{random:016x}.{}", registry.started);
    command.env(MARK, &mark);
    let group = !io::stdin().is_terminal();
    if group {
        command.process_group(0);
    }
    // Under the lock, so that `reap` cannot take its status before it is known here.
    let child = command.spawn()?;
    let leader = Pid::from_raw(child.id().cast_signed());
    let family =
        Family { leader, group, mark: format!("{MARK}={mark}"), since: Stat::of(leader).map_or(0, |stat| stat.start) };
    registry.running.insert(leader, family.clone());
    Ok(Helper { child, family })
}

impl Helper {
    /// How it ended, if it has. It stays there, so that its process group keeps its number.
    pub(crate) fn ended(&self) -> io::Result<Option<ExitStatus>> {
        match peek(Id::Pid(self.family.leader)) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(ExitStatus::from_raw(code << 8))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(ExitStatus::from_raw(signal as i32))),
            Ok(_) | Err(Errno::EINTR) => Ok(None),
            // Whoever started hsdo has it ignore the ends of its children; then nobody ever learns how they ended.
            Err(Errno::ECHILD) => Ok(Some(ExitStatus::default())),
            // One of the real-time signals, which nix does not know.
            Err(Errno::EINVAL) => Err(io::Error::other("a signal without a name ended it")),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it with all that it started.
    pub(crate) fn end(mut self) {
        self.family.kill_group();
        let _ = self.child.kill();
        // Only from here on may its number be another's.
        registry().running.remove(&self.family.leader);
        let last = Instant::now() + DYING;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < last {
            thread::sleep(LOOK);
        }
        let mut left = Left { family: self.family, child: Some(self.child), _pipes: Vec::new() };
        if !left.end(FOLLOWING) {
            registry().left.push(left);
        }
    }

    /// Leaves alone what it started, after it has ended itself. What still holds one of `pipes` is given until the next
    /// helper starts; a daemon that let go of them was meant to stay.
    pub(crate) fn leave(mut self, pipes: Vec<File>) {
        let mut registry = registry();
        registry.running.remove(&self.family.leader);
        let _ = self.child.wait();
        if !pipes.is_empty() {
            registry.left.push(Left { family: self.family, child: None, _pipes: pipes });
        }
    }
}

impl Left {
    /// Ends what can be ended; true if nothing is left.
    fn end(&mut self, time: Duration) -> bool {
        let ended = self.family.end(time);
        self.wait();
        ended && self.child.is_none()
    }

    /// Takes the status of the helper itself, once it has ended.
    fn wait(&mut self) {
        // An error says that there is nothing to be waited for.
        if self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            self.child = None;
        }
    }
}

impl Family {
    /// Ends the group. Only while the helper itself has not been waited for: until then the group keeps its number.
    fn kill_group(&self) {
        // Where the ends of children are ignored, nobody keeps the number.
        if self.group && peek(Id::Pid(self.leader)) != Err(Errno::ECHILD) {
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }

    /// Ends whatever carries the mark, also what has left the group and what is started meanwhile, and waits for that so long
    /// at most. True if nothing is left.
    fn end(&self, time: Duration) -> bool {
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
            thread::sleep(LOOK);
        }
    }

    /// What runs of it, and whether it carries the mark: what has cleared its environment shows by its group only.
    fn members(&self) -> Vec<(Pid, bool)> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let member = |process: Pid| {
            let stat = Stat::of(process)?;
            // An older process is not read any further: one that hangs in the kernel holds up whoever asks for its environment.
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

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    group: Pid,
    /// In ticks since the machine was started.
    start: u64,
}

impl Stat {
    fn of(process: Pid) -> Option<Self> {
        // The name need not be UTF-8.
        Self::read(&fs::read(format!("/proc/{process}/stat")).ok()?)
    }

    fn read(line: &[u8]) -> Option<Self> {
        // The name, in brackets, may hold anything. The state after it is field 3.
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&line[end + 1..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = Pid::from_raw(fields.nth(1)?.parse().ok()?);
        Some(Stat { state, group, start: fields.nth(16)?.parse().ok()? })
    }
}

/// What a child that has ended says, while it stays there to be waited for.
fn peek(id: Id<'_>) -> Result<WaitStatus, Errno> {
    waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)
}

/// Ends every helper, since hsdo ends, and starts none from now on. One that is just being started may slip through, where
/// the system takes its time with it.
pub fn end_all() {
    let last = Instant::now() + STARTING;
    let mut registry = loop {
        match REGISTRY.try_lock() {
            Ok(registry) => break registry,
            Err(_) if Instant::now() < last => thread::sleep(LOOK),
            Err(_) => return,
        }
    };
    registry.ending = true;
    registry.running.values().for_each(Family::kill_group);
    for family in registry.running.values().chain(registry.left.iter().map(|left| &left.family)) {
        family.end(FOLLOWING);
    }
}

/// Takes the status of every process that has ended and was left to this one, but of no helper: whoever waits for that
/// needs it.
pub(crate) fn reap() {
    let mut registry = registry();
    registry.left.iter_mut().for_each(Left::wait);
    loop {
        let orphan = match peek(Id::All) {
            Ok(status) => status.pid().filter(|pid| !registry.running.contains_key(pid)),
            // Ended by a signal that nix has no name for.
            Err(Errno::EINVAL) if registry.running.is_empty() => Some(Pid::from_raw(-1)),
            Err(_) => None,
        };
        // A helper that has ended stands in front of others until it is waited for.
        let Some(orphan) = orphan else { return };
        let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_process_is_read_whatever_its_name_is() {
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
