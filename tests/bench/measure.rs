//! A process's CPU time and memory, from the kernel.

use std::fs;
use std::time::{Duration, Instant};

use super::common::process::Process;

/// CPU time of all threads, in nanoseconds: `/proc/PID/task/*/schedstat`.
pub fn cpu_nanos(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
    let on_cpu = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(|task| on_cpu(task.path())).sum()
}

/// Resident memory now and at its peak, in MiB.
pub fn memory(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    };
    (value("VmRSS"), value("VmHWM"))
}

/// CPU milliseconds per turn that `turns` counts, over `span`, the best of `runs`: other work on the machine only adds
/// to it.
pub fn cpu_per_turn(pid: u32, turns: impl Fn() -> u64, span: Duration, runs: u32) -> f64 {
    let once = || {
        let (cpu, from) = (cpu_nanos(pid), turns());
        std::thread::sleep(span);
        (cpu_nanos(pid) - cpu) as f64 / 1e6 / (turns() - from).max(1) as f64
    };
    (0..runs).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// The same for several processes to compare: one runs at a time, each once a round, so that a slow moment strikes all.
pub fn cpu_per_turn_in_rounds<const N: usize>(
    mut processes: [&mut Process; N],
    turns: impl Fn() -> u64,
    span: Duration,
    rounds: u32,
) -> [f64; N] {
    let mut best = [f64::INFINITY; N];
    processes.iter_mut().for_each(|process| process.signal("STOP"));
    for _ in 0..rounds {
        for (process, best) in processes.iter_mut().zip(&mut best) {
            process.signal("CONT");
            // Let it finish what it was doing when it was stopped.
            std::thread::sleep(span / 4);
            *best = best.min(cpu_per_turn(process.id(), &turns, span, 1));
            process.signal("STOP");
        }
    }
    processes.iter_mut().for_each(|process| process.signal("CONT"));
    best
}

pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let index = (samples.len() as f64 * share).ceil() as usize;
    samples[index.clamp(1, samples.len()) - 1]
}

/// Polls with short sleeps until `probe` holds; returns the time it took.
pub fn time_until(limit: Duration, mut probe: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !probe() {
        assert!(begun.elapsed() < limit, "timed out after {limit:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
    begun.elapsed()
}
