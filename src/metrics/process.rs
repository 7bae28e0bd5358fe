//! The `process_*` metrics from `/proc/self`, read at each scrape.
//!
//! Without `/proc` (an empty chroot), or if a line does not parse, the value is absent.

use std::fs;

/// Clock ticks per second in `/proc` (`USER_HZ`, `sysconf(_SC_CLK_TCK)` in proc(5)): 100 on every Linux that hsdo is built for
/// (kernel: include/asm-generic/param.h; musl's `sysconf` returns the same constant).
const TICKS: f64 = 100.0;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ProcessStats {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<usize>,
    pub(super) max_fds: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) start_seconds: Option<f64>,
}

/// Reads all but the start time, which does not change.
pub(super) fn read(start_seconds: Option<f64>) -> ProcessStats {
    let text = |path| fs::read_to_string(path).ok();
    let stat = text("/proc/self/stat");
    let stat = stat.as_deref();
    ProcessStats {
        cpu_seconds: stat.and_then(cpu_seconds),
        // Minus the one that lists the directory.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1)),
        max_fds: text("/proc/self/limits").as_deref().and_then(max_fds),
        virtual_bytes: stat.and_then(|stat| field(stat, 23)),
        resident_bytes: text("/proc/self/status").as_deref().and_then(resident_bytes),
        start_seconds,
    }
}

/// When this process started, in seconds since the epoch, to 10 ms.
pub(super) fn start() -> Option<f64> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    start_seconds(&boot, &stat)
}

/// A numeric field of `/proc/self/stat`, by its number in proc(5), 3 or higher. Field 2 is the program's name in parentheses,
/// which may contain spaces and parentheses.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) as f64 / TICKS)
}

/// `btime` of `/proc/stat` (boot time in seconds since the epoch) plus `starttime` (ticks since boot).
fn start_seconds(boot: &str, stat: &str) -> Option<f64> {
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, 22)? as f64 / TICKS)
}

/// `VmRSS`, always in kB.
fn resident_bytes(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = text.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The soft limit of open files; `None` if `unlimited`.
fn max_fds(limits: &str) -> Option<u64> {
    let text = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c) S 1 42 42 0 -1 4194560 173 0 0 0 150 75 0 0 20 0 5 0 123456 4194304 512 \
                        18446744073709551615 1 1 0 0 0 0 0 0 0\n";

    #[test]
    fn files_of_proc_are_parsed() {
        assert_eq!(cpu_seconds(STAT), Some(2.25));
        assert_eq!(field(STAT, 23), Some(4_194_304));
        let boot = "cpu  1 2 3\nintr 5 6\nctxt 7\nbtime 1767323000\nprocesses 8\n";
        assert_eq!(start_seconds(boot, STAT), Some(1_767_324_234.56));
        assert_eq!(resident_bytes("Name:\thsdo\nVmHWM:\t    9000 kB\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(max_fds(limits), Some(1024));
    }

    #[test]
    fn what_does_not_parse_is_absent() {
        for text in ["", "42", "42 (a", "42 (a) S 1", "42 (a) S x x x x x x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(cpu_seconds(text), None, "{text}");
            assert_eq!(start_seconds("btime 5\n", text), None, "{text}");
        }
        assert_eq!(start_seconds("cpu 1\n", STAT), None);
        assert_eq!(resident_bytes("Name:\thsdo\n"), None);
        assert_eq!(max_fds("Max open files            unlimited            unlimited            files\n"), None);
    }

    #[test]
    fn this_process_has_all_values() {
        let start = start();
        let process = read(start);
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.open_fds.is_some_and(|fds| fds >= 3), "{process:?}");
        assert!(process.max_fds.is_some() && process.cpu_seconds.is_some(), "{process:?}");
        let age = crate::clock::Timestamp::now().as_secs_f64() - start.expect("a start");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
