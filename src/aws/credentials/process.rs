//! Credentials printed by a command (`credential_process`).
//!
//! AWS SDKs and Tools Reference Guide, "Process credential provider". The command line may hold secrets and is never shown.
//! Its standard error is, when it fails.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::IgnoredAny;

use super::document;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::children::{self, Helper};
use crate::text::one_line;

/// Long enough for the command to prompt for an MFA code.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the exit of a command that has printed a complete document, before using it anyway.
const EXIT_GRACE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// In bytes, per pipe.
const MAX_OUTPUT: usize = 64 * 1024;

/// Runs a profile's command in the shell.
pub(crate) fn run(command: &str, profile: &str) -> Result<Credentials, AwsError> {
    run_within(command, profile, TIMEOUT)
}

fn run_within(command: &str, profile: &str, timeout: Duration) -> Result<Credentials, AwsError> {
    let fault = |what: String| AwsError::Unavailable(format!("credential_process of profile {profile:?} {what}"));
    let mut shell = Command::new("/bin/sh");
    // A multi-line value is one command line.
    shell.arg("-c").arg(command.replace('\n', " "));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut helper = children::start(&mut shell).map_err(|error| fault(spawn_failure(&error)))?;
    let mut stdout = CapturedPipe::new(helper.child.stdout.take());
    let mut stderr = CapturedPipe::new(helper.child.stderr.take());
    let result = wait_for_output(&helper, &mut stdout, &mut stderr, timeout);
    let stderr_note = one_line(String::from_utf8_lossy(&stderr.text).trim(), 300);
    let stderr_note = if stderr_note.is_empty() { String::new() } else { format!(": {stderr_note}") };
    let found = match &result {
        ProcessResult::Exited(status) if !status.success() => Err(format!("failed ({status}){stderr_note}")),
        ProcessResult::Exited(_) if stdout.text.trim_ascii().is_empty() => {
            Err(format!("returned no credentials: it wrote nothing to standard output{stderr_note}"))
        }
        ProcessResult::Exited(_) | ProcessResult::StillRunning => {
            document::read_process(&String::from_utf8_lossy(&stdout.text))
                .map_err(|text| format!("returned no credentials: {text}{stderr_note}"))
        }
        ProcessResult::OutputTooLarge => {
            Err(format!("returned no credentials: it wrote more than {MAX_OUTPUT} bytes{stderr_note}"))
        }
        ProcessResult::TimedOut => Err(format!("timed out after {} s{stderr_note}", timeout.as_secs_f64())),
        ProcessResult::WaitFailed(why) => Err(format!("cannot be monitored: {why}")),
    };
    match result {
        // Its background processes may still be writing: a log, or a cache.
        ProcessResult::Exited(_) if found.is_ok() => {
            helper.detach([stdout.pipe, stderr.pipe].into_iter().flatten().collect());
        }
        _ => helper.kill(),
    }
    Ok(found.map_err(fault)?.with_source(format!("credential_process of profile {profile:?}")))
}

fn spawn_failure(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => "cannot fork: raise TasksMax of the unit, pids of the container or nproc".to_string(),
        // From `children`.
        ErrorKind::Other => format!("was not started: {error}"),
        _ => format!("cannot be started by /bin/sh: {error}"),
    }
}

enum ProcessResult {
    Exited(ExitStatus),
    /// The document is complete, but the command does not exit.
    StillRunning,
    OutputTooLarge,
    TimedOut,
    WaitFailed(String),
}

/// Reads both pipes until the result is known, without waiting for pipes that background processes hold open.
fn wait_for_output(
    helper: &Helper,
    stdout: &mut CapturedPipe,
    stderr: &mut CapturedPipe,
    timeout: Duration,
) -> ProcessResult {
    let begun = Instant::now();
    let mut written = None;
    loop {
        // Checked before reading: what it wrote before it exited is in the pipes by now.
        let status = match helper.exit_status() {
            Ok(status) => status,
            Err(error) => return ProcessResult::WaitFailed(error.to_string()),
        };
        let more = read([&mut *stdout, &mut *stderr], if status.is_some() { Duration::ZERO } else { POLL_INTERVAL });
        if stdout.is_full() {
            return ProcessResult::OutputTooLarge;
        }
        if begun.elapsed() >= timeout {
            return ProcessResult::TimedOut;
        }
        match status {
            // Drain the pipes first, except an endless standard error.
            _ if more && !stderr.is_full() => {}
            Some(status) if !status.success() || stdout.pipe.is_none() || is_complete(&stdout.text) => {
                return ProcessResult::Exited(status);
            }
            None if is_complete(&stdout.text) && written.get_or_insert_with(Instant::now).elapsed() >= EXIT_GRACE => {
                return ProcessResult::StillRunning;
            }
            _ => {}
        }
        if stderr.is_full() || status.is_some() && !more {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// A pipe and what was read from it.
struct CapturedPipe {
    /// `None` once the other end is closed.
    pipe: Option<File>,
    text: Vec<u8>,
}

impl CapturedPipe {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> Self {
        CapturedPipe { pipe: pipe.map(|pipe| File::from(pipe.into())), text: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.text.len() > MAX_OUTPUT
    }
}

/// Reads what is available within `wait`; true if there was anything.
fn read(streams: [&mut CapturedPipe; 2], wait: Duration) -> bool {
    let open: Vec<&mut CapturedPipe> = streams.into_iter().filter(|stream| stream.pipe.is_some()).collect();
    let pipes = open.iter().filter_map(|stream| stream.pipe.as_ref());
    let mut polled: Vec<PollFd<'_>> = pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    // An error means a signal interrupted it: nothing is ready yet.
    let _ = poll(&mut polled, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO));
    let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
    let mut chunk = [0; MAX_OUTPUT];
    let mut any = false;
    for stream in open.into_iter().zip(ready).filter_map(|(stream, ready)| ready.then_some(stream)) {
        any = true;
        match stream.pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut chunk)) {
            Ok(count @ 1..) => {
                stream.text.extend_from_slice(&chunk[..count]);
                stream.text.truncate(MAX_OUTPUT + 1);
            }
            _ => stream.pipe = None,
        }
    }
    any
}

/// Whether this is a complete JSON object.
fn is_complete(text: &[u8]) -> bool {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_parsed() {
        let found = run(
            r#"echo '{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush","Expiration":"2022-05-02T18:36:00+00:00"}'"#,
            "ops",
        )
        .expect("credentials");
        assert_eq!(
            (found.access_key_id.as_str(), found.label().as_str()),
            ("AK", "key ...AK (credential_process of profile \"ops\")")
        );
        assert!(found.expires.is_some());
    }

    #[test]
    fn errors_include_what_a_failing_command_wrote() {
        for (command, expected) in [
            ("echo 'log in first' >&2; exit 3 # hush", "failed (exit status: 3): log in first"),
            ("echo hush", "returned no credentials"),
            ("true", "returned no credentials: it wrote nothing to standard output"),
            (
                "exec >&-; echo 'log in first' >&2",
                "returned no credentials: it wrote nothing to standard output: log in",
            ),
            ("head -c 100000 /dev/zero", "returned no credentials"),
        ] {
            let error = run(command, "ops").expect_err(command).to_string();
            assert!(error.contains(expected) && error.contains("\"ops\"") && !error.contains("hush"), "{error}");
        }
    }

    const DOCUMENT: &str = r#"echo '{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush"}'"#;

    #[test]
    fn a_multi_line_value_is_one_command_line() {
        let command = DOCUMENT.replace("echo ", "echo\n");
        assert_eq!(run(&command, "ops").expect("credentials").access_key_id, "AK");
    }

    #[test]
    fn a_complete_document_counts_even_if_the_pipe_stays_open() {
        for command in [
            // A background process holds both pipes, or one.
            format!("sleep 60 & {DOCUMENT}"),
            format!("sleep 60 >/dev/null & {DOCUMENT}"),
            format!("setsid sleep 60 & {DOCUMENT}"),
            format!("sleep 60 & printf '\\357\\273\\277'; {DOCUMENT}"),
            // The command itself keeps running, or a part of its pipeline.
            format!("{DOCUMENT}; exec sleep 60"),
            format!("{{ {DOCUMENT}; sleep 60; }} | cat"),
            // The shell exits before the document is written.
            format!("{{ sleep 0.2; {DOCUMENT}; }} &"),
        ] {
            let found = run_within(&command, "ops", Duration::from_secs(30));
            assert_eq!(found.expect(&command).access_key_id, "AK", "{command}");
        }
    }

    #[test]
    fn the_document_of_a_failed_command_does_not_count() {
        let error = run(&format!("sleep 60 & {DOCUMENT}; sleep 0.1; exit 3"), "ops").expect_err("it fails");
        assert!(error.to_string().contains("failed (exit status: 3)"), "{error}");
    }

    #[test]
    fn excess_output_is_an_error_and_excess_stderr_is_dropped() {
        let error = run_within("yes hush", "ops", Duration::from_secs(30)).expect_err("no document");
        assert!(error.to_string().ends_with("returned no credentials: it wrote more than 65536 bytes"), "{error}");
        assert!(run(&format!("yes | head -c 300000 >&2; {DOCUMENT}"), "ops").is_ok());
    }

    fn count(text: &str) -> usize {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text)).count()
    }

    #[test]
    fn a_hung_command_is_killed_with_its_descendants() {
        // Unique to this test.
        let sleep = format!("sleep 7{}", std::process::id());
        for command in [
            format!("exec {sleep}"),
            format!("echo 'Code:' >&2; {sleep} | cat"),
            format!("setsid {sleep} | cat"),
            format!("{sleep} & {sleep} >/dev/null 2>&1 & wait"),
            format!("(setsid sh -c '{sleep} & {sleep} >/dev/null 2>&1 & wait' &); {sleep}"),
            format!("env -i {sleep}"),
        ] {
            let error = run_within(&command, "ops", Duration::from_millis(200)).expect_err("it hangs").to_string();
            assert!(error.contains("timed out after 0.2 s"), "{error}");
            assert_eq!(error.contains("s: Code:"), command.contains("Code:"), "{error}");
            assert_eq!(count(&sleep), 0, "{command}");
        }
    }

    /// tests/credential_process.rs counts them in a running hsdo; this one times out repeatedly.
    #[test]
    fn hundreds_of_runs_leave_no_process_behind() {
        let sleep = format!("sleep 8{}", std::process::id());
        // What the first one leaves behind is killed by the next start.
        let commands = [format!("{sleep} & {DOCUMENT}"), format!("{sleep} | cat"), format!("setsid {sleep} & {sleep}")];
        for command in commands.iter().cycle().take(300) {
            let _ = run_within(command, "ops", Duration::from_millis(20));
        }
        assert_eq!(count(&sleep), 0);
    }
}
