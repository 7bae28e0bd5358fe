//! Credentials that a command writes (`credential_process`).
//!
//! AWS SDKs and Tools Reference Guide, "Process credential provider". The command line may hold secrets: it is not
//! shown. What the command writes on its standard error is, when it fails: it is there for people.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::{Credentials, document};
use crate::aws::error::{Error, one_line};

/// How long the command may take: it may ask a person for a second factor.
const TIME: Duration = Duration::from_secs(60);
/// How much of what it writes is read, in bytes.
const LIMIT: u64 = 64 * 1024;

/// Runs the command of a profile by the shell.
pub(crate) fn run(command: &str, profile: &str) -> Result<Credentials, Error> {
    run_within(command, profile, TIME)
}

fn run_within(command: &str, profile: &str, time: Duration) -> Result<Credentials, Error> {
    let fault = |what: String| Error::Unavailable(format!("credential_process of profile {profile:?} {what}"));
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fault(format!("cannot be started by /bin/sh: {}", error.kind())))?;
    // Each pipe is read by a thread of its own, so that neither can fill up and stop the command.
    let (ended, end) = channel();
    for (stdout, pipe) in [
        (true, child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>)),
        (false, child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>)),
    ] {
        let (ended, mut pipe) = (ended.clone(), pipe.expect("both were asked for"));
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.by_ref().take(LIMIT).read_to_end(&mut text);
            // The rest is of no use, but a command that cannot write it would fail for another reason than its own.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            // Who waited may have given up.
            let _ = ended.send((stdout, String::from_utf8_lossy(&text).into_owned()));
        });
    }
    let (mut stdout, mut stderr) = (String::new(), String::new());
    for _ in 0..2 {
        match end.recv_timeout(time) {
            Ok((true, text)) => stdout = text,
            Ok((false, text)) => stderr = text,
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fault(format!("takes more than {} s", time.as_secs_f64())));
            }
        }
    }
    let status = child.wait().map_err(|error| fault(format!("is lost: {}", error.kind())))?;
    let said = one_line(stderr.trim(), 300);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    if !status.success() {
        return Err(fault(format!("failed ({status}){said}")));
    }
    let found =
        document::read_of_process(&stdout).map_err(|text| fault(format!("gives no credentials: {text}{said}")))?;
    Ok(found.of(format!("credential_process of profile {profile:?}")))
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
            (found.access_key_id.as_str(), found.who().as_str()),
            ("AK", "key ...AK (credential_process of profile \"ops\")")
        );
        assert!(found.expires.is_some());
    }

    #[test]
    fn a_command_that_fails_is_told_with_what_it_said() {
        for (command, expected) in [
            ("echo 'log in first' >&2; exit 3 # hush", "failed (exit status: 3): log in first"),
            ("echo hush", "gives no credentials"),
            ("head -c 100000 /dev/zero", "gives no credentials"),
        ] {
            let error = run(command, "ops").expect_err(command).to_string();
            assert!(error.contains(expected) && error.contains("\"ops\"") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let begun = std::time::Instant::now();
        let error = run_within("exec sleep 60", "ops", Duration::from_millis(100)).expect_err("it hangs");
        assert!(error.to_string().contains("takes more than 0.1 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
