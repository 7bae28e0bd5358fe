//! An hsdo process under chaos: killed, paused, restarted, and measured throughout.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::hsdo::{Hsdo, Running, UnreadLog, value_of};
use crate::report::Sample;

/// One process, and how to start its successor.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    make: Box<dyn Fn() -> Hsdo>,
    running: Running,
    read: bool,
    /// Bytes of its log counted so far.
    counted: u64,
    /// CPU time and turns at the last measurement, and its time.
    last: (f64, f64, Instant),
    /// Turns of earlier processes.
    turns_before: f64,
    /// Memory at the first measurement of this process.
    first_memory: Option<u64>,
    pub(crate) frozen: bool,
    /// Whether this process has had a successful turn.
    succeeded: bool,
    /// How often a process gave up at its start and was replaced.
    pub(crate) given_up: u64,
}

impl Role {
    pub(crate) fn start(name: &'static str, make: impl Fn() -> Hsdo + 'static) -> Self {
        let running = make().spawn();
        Role {
            name,
            make: Box::new(make),
            running,
            read: true,
            counted: 0,
            last: (0.0, 0.0, Instant::now()),
            turns_before: 0.0,
            first_memory: None,
            frozen: false,
            succeeded: false,
            given_up: 0,
        }
    }

    fn begin(&mut self, unread: Option<UnreadLog>) {
        self.running = match unread {
            None => (self.make)().spawn(),
            Some(log) => (self.make)().spawn_unread(log),
        };
        (self.succeeded, self.first_memory) = (false, None);
        (self.read, self.counted, self.last) = (unread.is_none(), 0, (0.0, 0.0, Instant::now()));
    }

    /// Kills it (SIGKILL) and starts another.
    pub(crate) fn kill(&mut self, unread: Option<UnreadLog>) {
        self.thaw();
        self.turns_before += self.turns().0;
        self.running.kill();
        self.begin(unread);
    }

    /// Stops it (SIGTERM) and starts another.
    pub(crate) fn restart(&mut self, unread: Option<UnreadLog>) {
        self.thaw();
        self.supervise();
        self.turns_before += self.turns().0;
        let status = self.running.terminate();
        assert!(status.success(), "the {} ended with {status}: {}", self.name, self.log());
        self.begin(unread);
    }

    pub(crate) fn end(mut self) -> f64 {
        self.thaw();
        self.supervise();
        let turns = self.all_turns();
        let status = self.running.terminate();
        assert!(status.success(), "the {} ended with {status}: {}", self.name, self.log());
        turns
    }

    /// Pauses it (SIGSTOP) until [`Role::thaw`].
    pub(crate) fn freeze(&mut self) {
        self.supervise();
        self.frozen = true;
        self.running.process().signal("STOP");
    }

    pub(crate) fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            self.running.process().signal("CONT");
        }
    }

    pub(crate) fn limit_files(&mut self, most: u32) {
        self.supervise();
        let limit = format!("--nofile={most}:1024");
        let id = self.running.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &id, &limit]).status();
        assert!(set.is_ok_and(|status| status.success()), "prlimit {limit} of {id}");
    }

    /// Restarts it if it exited as it may: before its first good turn, on a fault that needs a person. A supervisor
    /// does the same.
    pub(crate) fn supervise(&mut self) {
        let process = self.running.process();
        let Some(status) = process.status() else { return };
        let read = if self.read { "" } else { "is lost" };
        assert!(
            status.code() == Some(2) && !self.succeeded,
            "the {} ended with {status}; its log {read}: {process}",
            self.name
        );
        self.given_up += 1;
        self.begin(None);
    }

    /// An idle connection to its exporter.
    pub(crate) fn connect_exporter(&self) -> Option<TcpStream> {
        TcpStream::connect(self.running.url().trim_start_matches("http://")).ok()
    }

    pub(crate) fn log(&self) -> String {
        let log = self.running.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    pub(crate) fn look(&mut self) -> State {
        self.supervise();
        let state = self.state();
        self.succeeded |= state.ok > 0.0;
        state
    }

    fn metrics(&self) -> String {
        if self.frozen {
            return String::new();
        }
        self.running.get("/metrics").map(|answer| answer.1).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> State {
        let metrics = self.metrics();
        let of = |result: &str| value_of(&metrics, &format!("hsdo_turns_total{{result=\"{result}\"}}"));
        State {
            ok: of("ok").unwrap_or(0.0),
            failed: of("failed").unwrap_or(0.0),
            leads: value_of(&metrics, "hsdo_leader") == Some(1.0),
        }
    }

    /// Slots that the removal guard keeps.
    pub(crate) fn held(&self) -> Option<f64> {
        value_of(&self.metrics(), "hsdo_removal_guard_slots")
    }

    fn turns(&self) -> (f64, bool) {
        let state = self.state();
        (state.ok + state.failed, state.leads)
    }

    /// Turns of this process and its predecessors.
    pub(crate) fn all_turns(&self) -> f64 {
        self.turns_before + self.turns().0
    }

    /// Memory and descriptors; CPU time, turns and log lines since the last sample.
    pub(crate) fn sample(&mut self) -> Sample {
        let id = self.running.id();
        let (cpu, turns, now) = (cpu_seconds(id), self.turns().0, Instant::now());
        let (cpu_before, turns_before, before) = std::mem::replace(&mut self.last, (cpu, turns, now));
        let mut text = String::new();
        if self.read
            && let Ok(mut file) = fs::File::open(self.running.log_file())
            && file.seek(SeekFrom::Start(self.counted)).is_ok()
        {
            let _ = file.read_to_string(&mut text);
        }
        self.counted += text.len() as u64;
        let memory = resident(id);
        Sample {
            memory,
            grown: memory.saturating_sub(*self.first_memory.get_or_insert(memory)),
            files: fs::read_dir(format!("/proc/{id}/fd")).map_or(0, |entries| entries.count() as u64),
            cpu: (cpu - cpu_before).max(0.0),
            turns: (turns - turns_before).max(0.0),
            lines: text.lines().count() as u64,
            panics: text.lines().filter(|line| line.contains("panicked")).count() as u64,
            span: now.duration_since(before).max(Duration::from_millis(1)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) ok: f64,
    pub(crate) failed: f64,
    pub(crate) leads: bool,
}

/// Resident memory in KiB.
fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU seconds, at the usual 100 ticks a second.
fn cpu_seconds(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // After the name, which may hold anything: state, eleven more fields, then user and system time (proc(5)).
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
