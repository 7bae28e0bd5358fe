//! Credentials that a command writes (`credential_process`).
//!
//! AWS SDKs and Tools Reference Guide, "Process credential provider". The command line may hold secrets: it is not
//! shown. What the command writes on its standard error is, when it fails: it is there for people.

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

/// How long the command may take: it may ask a person for a second factor.
const TIME: Duration = Duration::from_secs(60);
/// How long a command that has written a whole document may still take to end, before the document counts without that.
const ENDING: Duration = Duration::from_secs(1);
/// How often it is looked at whether the command has ended.
const LOOK: Duration = Duration::from_millis(10);
/// How much of what it writes is read, in bytes.
const LIMIT: usize = 64 * 1024;

/// Runs the command of a profile by the shell.
pub(crate) fn run(command: &str, profile: &str) -> Result<Credentials, AwsError> {
    run_within(command, profile, TIME)
}

fn run_within(command: &str, profile: &str, time: Duration) -> Result<Credentials, AwsError> {
    let fault = |what: String| AwsError::Unavailable(format!("credential_process of profile {profile:?} {what}"));
    let mut shell = Command::new("/bin/sh");
    // A value of several lines is one command line.
    shell.arg("-c").arg(command.replace('\n', " "));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut helper = children::start(&mut shell).map_err(|error| fault(refusal(&error)))?;
    let mut stdout = Stream::new(helper.child.stdout.take());
    let mut stderr = Stream::new(helper.child.stderr.take());
    let heard = listen(&helper, &mut stdout, &mut stderr, time);
    let said = one_line(String::from_utf8_lossy(&stderr.text).trim(), 300);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let found = match &heard {
        Heard::Ended(status) if !status.success() => Err(format!("failed ({status}){said}")),
        Heard::Ended(_) if stdout.text.trim_ascii().is_empty() => {
            Err(format!("gives no credentials: it writes nothing to its standard output{said}"))
        }
        Heard::Ended(_) | Heard::Written => document::read_of_process(&String::from_utf8_lossy(&stdout.text))
            .map_err(|text| format!("gives no credentials: {text}{said}")),
        Heard::TooMuch => Err(format!("gives no credentials: it writes more than {LIMIT} bytes{said}")),
        Heard::TooLate => Err(format!("takes more than {} s{said}", time.as_secs_f64())),
        Heard::Lost(why) => Err(format!("is lost: {why}")),
    };
    match heard {
        // What it has started may still write: a log, or what it keeps for the next time.
        Heard::Ended(_) if found.is_ok() => helper.leave([stdout.pipe, stderr.pipe].into_iter().flatten().collect()),
        _ => helper.end(),
    }
    Ok(found.map_err(fault)?.with_source(format!("credential_process of profile {profile:?}")))
}

fn refusal(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => {
            "finds no room for another process: raise TasksMax of the unit, pids of the container or nproc".to_string()
        }
        // Said by `children`.
        ErrorKind::Other => format!("is not started: {error}"),
        _ => format!("cannot be started by /bin/sh: {error}"),
    }
}

/// How it went.
enum Heard {
    /// The command ended so, and what it wrote is there.
    Ended(ExitStatus),
    /// A whole document is there, though the command does not end.
    Written,
    /// It writes what cannot be a document.
    TooMuch,
    /// Its time is over.
    TooLate,
    /// Nobody knows what it does.
    Lost(String),
}

/// Reads both streams until the outcome is known. A pipe that others hold open, in the background, is not waited for.
fn listen(helper: &Helper, stdout: &mut Stream, stderr: &mut Stream, time: Duration) -> Heard {
    let begun = Instant::now();
    let mut written = None;
    loop {
        // Asked first: whatever it had written when it ended is in the pipes now.
        let ended = match helper.ended() {
            Ok(ended) => ended,
            Err(error) => return Heard::Lost(error.to_string()),
        };
        let more = read([&mut *stdout, &mut *stderr], if ended.is_some() { Duration::ZERO } else { LOOK });
        if stdout.is_full() {
            return Heard::TooMuch;
        }
        if begun.elapsed() >= time {
            return Heard::TooLate;
        }
        match ended {
            // What is left in the pipes comes first. A standard error without end has shown enough, and no longer in haste.
            _ if more && !stderr.is_full() => {}
            Some(status) if !status.success() || stdout.pipe.is_none() || is_whole(&stdout.text) => {
                return Heard::Ended(status);
            }
            None if is_whole(&stdout.text) && written.get_or_insert_with(Instant::now).elapsed() >= ENDING => {
                return Heard::Written;
            }
            _ => {}
        }
        // Nothing more can come, or it need not come so fast.
        if stderr.is_full() || ended.is_some() && !more {
            thread::sleep(LOOK);
        }
    }
}

/// What the command writes into a pipe.
struct Stream {
    /// The end to read, as long as somebody holds the other one.
    pipe: Option<File>,
    /// Its beginning.
    text: Vec<u8>,
}

impl Stream {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> Self {
        Stream { pipe: pipe.map(|pipe| File::from(pipe.into())), text: Vec::new() }
    }

    /// Whether there is more than a document, or a message for people, can have.
    fn is_full(&self) -> bool {
        self.text.len() > LIMIT
    }
}

/// Reads what is there, waiting for `wait` at most; true if there was anything.
fn read(streams: [&mut Stream; 2], wait: Duration) -> bool {
    let open: Vec<&mut Stream> = streams.into_iter().filter(|stream| stream.pipe.is_some()).collect();
    let pipes = open.iter().filter_map(|stream| stream.pipe.as_ref());
    let mut asked: Vec<PollFd<'_>> = pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    // An error is a signal that came meanwhile: nothing is there yet.
    let _ = poll(&mut asked, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO));
    let ready: Vec<bool> = asked.iter().map(|fd| fd.any() == Some(true)).collect();
    let mut chunk = [0; LIMIT];
    let mut any = false;
    for stream in open.into_iter().zip(ready).filter_map(|(stream, ready)| ready.then_some(stream)) {
        any = true;
        match stream.pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut chunk)) {
            Ok(count @ 1..) => {
                stream.text.extend_from_slice(&chunk[..count]);
                stream.text.truncate(LIMIT + 1);
            }
            _ => stream.pipe = None,
        }
    }
    any
}

/// Whether this is a JSON object from beginning to end.
fn is_whole(text: &[u8]) -> bool {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_writes_is_read() {
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
    fn a_command_that_fails_is_told_with_what_it_said() {
        for (command, expected) in [
            ("echo 'log in first' >&2; exit 3 # hush", "failed (exit status: 3): log in first"),
            ("echo hush", "gives no credentials"),
            ("true", "gives no credentials: it writes nothing to its standard output"),
            (
                "exec >&-; echo 'log in first' >&2",
                "gives no credentials: it writes nothing to its standard output: log in",
            ),
            ("head -c 100000 /dev/zero", "gives no credentials"),
        ] {
            let error = run(command, "ops").expect_err(command).to_string();
            assert!(error.contains(expected) && error.contains("\"ops\"") && !error.contains("hush"), "{error}");
        }
    }

    const DOCUMENT: &str = r#"echo '{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush"}'"#;

    #[test]
    fn a_value_of_several_lines_is_one_command_line() {
        let command = DOCUMENT.replace("echo ", "echo\n");
        assert_eq!(run(&command, "ops").expect("credentials").access_key_id, "AK");
    }

    #[test]
    fn a_whole_document_counts_whoever_still_holds_the_pipe() {
        for command in [
            // Somebody in the background holds both pipes, or one.
            format!("sleep 60 & {DOCUMENT}"),
            format!("sleep 60 >/dev/null & {DOCUMENT}"),
            format!("setsid sleep 60 & {DOCUMENT}"),
            format!("sleep 60 & printf '\\357\\273\\277'; {DOCUMENT}"),
            // The command itself goes on, or a part of its pipeline.
            format!("{DOCUMENT}; exec sleep 60"),
            format!("{{ {DOCUMENT}; sleep 60; }} | cat"),
            // The shell ends, and who writes the document does later.
            format!("{{ sleep 0.2; {DOCUMENT}; }} &"),
        ] {
            let found = run_within(&command, "ops", Duration::from_secs(30));
            assert_eq!(found.expect(&command).access_key_id, "AK", "{command}");
        }
    }

    #[test]
    fn a_document_of_a_command_that_fails_does_not_count() {
        let error = run(&format!("sleep 60 & {DOCUMENT}; sleep 0.1; exit 3"), "ops").expect_err("it fails");
        assert!(error.to_string().contains("failed (exit status: 3)"), "{error}");
    }

    #[test]
    fn floods_end_the_command_or_are_left_out() {
        let error = run_within("yes hush", "ops", Duration::from_secs(30)).expect_err("no document");
        assert!(error.to_string().ends_with("gives no credentials: it writes more than 65536 bytes"), "{error}");
        assert!(run(&format!("yes | head -c 300000 >&2; {DOCUMENT}"), "ops").is_ok());
    }

    /// How many processes have `text` in their command line.
    fn count(text: &str) -> usize {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text)).count()
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        // A number that nobody else sleeps for.
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
            assert!(error.contains("takes more than 0.2 s"), "{error}");
            assert_eq!(error.contains("s: Code:"), command.contains("Code:"), "{error}");
            assert_eq!(count(&sleep), 0, "{command}");
        }
    }

    /// What is counted in a running hsdo is in tests/credential_process.rs; here the time is over, again and again.
    #[test]
    fn hundreds_of_tries_leave_nothing_behind() {
        let sleep = format!("sleep 8{}", std::process::id());
        // What the first one leaves behind is ended by the next start.
        let commands = [format!("{sleep} & {DOCUMENT}"), format!("{sleep} | cat"), format!("setsid {sleep} & {sleep}")];
        for command in commands.iter().cycle().take(300) {
            let _ = run_within(command, "ops", Duration::from_millis(20));
        }
        assert_eq!(count(&sleep), 0);
    }
}
