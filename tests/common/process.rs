//! A child process that writes to files and does not outlive the test.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::wait::try_wait_for;

/// A running child process, killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    described: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `<dir>/<name>-<n>.out` and `.err`.
    pub fn spawn(dir: &Path, name: &str, command: &mut Command) -> Self {
        Self::spawn_with(dir, name, command, None)
    }

    /// The same with another standard error, which is not kept.
    pub fn spawn_with(dir: &Path, name: &str, command: &mut Command, other: Option<Stdio>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let stdout = dir.join(format!("{name}-{number}.out"));
        let stderr = dir.join(format!("{name}-{number}.err"));
        let described = describe(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a file in the bed's directory"))
            .stderr(other.unwrap_or_else(|| File::create(&stderr).expect("a file in the bed's directory").into()))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {described}: {error}"));
        Process { child, described, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    pub fn stderr_file(&self) -> &Path {
        &self.stderr
    }

    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours can be asked for its status")
    }

    /// Sends a signal by name, such as `TERM` or `USR2`, unless the process has ended.
    pub fn signal(&mut self, name: &str) {
        if self.status().is_some() {
            return;
        }
        let id = self.id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {name} to {self}");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // Fails only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for its end.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit(deadline)
    }

    /// Waits for its end; panics, with its output, after the deadline.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        match try_wait_for(deadline, || self.status().ok_or(())) {
            Ok(status) => status,
            Err(()) => panic!("still runs after {deadline:?}: {self}"),
        }
    }

    /// Panics, with its output, if it has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.status() {
            panic!("ended with {status}: {self}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}\n---", self.described, self.stdout(), self.stderr())
    }
}

/// The first words of an `unshare` command (util-linux); a plain user gets a user namespace for it.
pub fn unshare() -> Vec<&'static str> {
    let root = fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0")));
    if root { vec!["unshare"] } else { vec!["unshare", "--map-root-user"] }
}

/// The command and its variables as one would type them.
fn describe(command: &Command) -> String {
    let mut text = String::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            text.push_str(&format!("{}={:?} ", key.to_string_lossy(), value));
        }
    }
    text.push_str(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        text.push_str(&format!(" {}", argument.to_string_lossy()));
    }
    text
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
