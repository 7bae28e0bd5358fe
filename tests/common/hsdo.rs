//! The program under test as a process, with the environment of a bed.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::bed::{Bed, REGION, TABLE};
use super::port::Port;
use super::process::Process;
use super::wait::{SOON, wait_for};

/// How long a run that ends by itself may take.
const RUN: Duration = Duration::from_secs(60);

/// An hsdo to start: settings reach it by its environment only, and of the caller's environment it gets nothing.
#[derive(Debug)]
pub struct Hsdo {
    name: &'static str,
    dir: PathBuf,
    command: Command,
    exporter: Option<Port>,
}

impl Hsdo {
    /// A server of the bed: group `web`, interval 0.1 s, a ramp from 1 to 10 that takes a second.
    pub fn server(bed: &Bed) -> Self {
        Self::with_aws(bed, "server")
            .arg("--server")
            .env("SERVER_MODE", "aws")
            .env("SERVER_ASG_NAMES", "web")
            .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "3")
            .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "0.4")
    }

    /// A client of the bed: backend `http-back`, base name `mywebapp`, the port of the bed's web servers, interval 0.1 s.
    pub fn client(bed: &Bed) -> Self {
        Self::with_aws(bed, "client")
            .arg("--client")
            .env("CLIENT_HAPROXY_SOCKET_PATH", &bed.socket().to_string_lossy())
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("http-back:mywebapp:{}", bed.web().port()))
    }

    /// Neither role, but the table, the region, the credentials and the endpoint of the bed: for `--create-table`.
    pub fn with_aws(bed: &Bed, name: &'static str) -> Self {
        Self::in_dir(bed.dir(), &bed.aws().url(), name)
    }

    /// The same by the directory and the endpoint of a bed.
    pub fn in_dir(dir: &Path, endpoint: &str, name: &'static str) -> Self {
        let exporter = Port::reserve();
        let mut hsdo = Self::bare_in(dir, name)
            .env("DYNAMODB_TABLE_NAME", TABLE)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("INTERVAL", "0.1")
            .env("EXPORTER_ADDRESS", "127.0.0.1")
            .env("EXPORTER_PORT", &exporter.number().to_string());
        hsdo.exporter = Some(exporter);
        hsdo
    }

    /// No argument and no setting at all, in the bed's directory.
    pub fn bare(bed: &Bed, name: &'static str) -> Self {
        Self::bare_in(bed.dir(), name)
    }

    fn bare_in(dir: &Path, name: &'static str) -> Self {
        let mut command = Command::new(binary());
        command.env_clear().env("HOME", dir).current_dir(dir);
        Hsdo { name, dir: dir.to_owned(), command, exporter: None }
    }

    /// The same with a variable set.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// The same without a variable that was set.
    #[must_use]
    pub fn env_remove(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// The same, started by another program that becomes it, such as `prlimit --nofile=64` or `unshare --mount`.
    #[must_use]
    pub fn under(mut self, runner: &[&str]) -> Self {
        let mut command = Command::new(runner[0]);
        command.args(&runner[1..]).arg(self.command.get_program()).args(self.command.get_args());
        command.env_clear().envs(self.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.current_dir(&self.dir);
        self.command = command;
        self
    }

    /// Starts it, to run until it is stopped or dropped.
    pub fn spawn(mut self) -> Running {
        let process = Process::spawn(&self.dir, self.name, &mut self.command);
        Running { process, exporter: self.exporter }
    }

    /// Starts it with a log that nobody can read.
    pub fn spawn_unread(mut self, log: Unread) -> Running {
        let other = match log {
            Unread::Full => File::options().write(true).open("/dev/full").expect("Linux has /dev/full").into(),
            Unread::Pipe => Stdio::piped(),
        };
        let process = Process::spawn_with(&self.dir, self.name, &mut self.command, Some(other));
        Running { process, exporter: self.exporter }
    }

    /// Runs one turn (`--once`) to its end.
    pub fn once(self) -> Outcome {
        self.arg("--once").run()
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let mut process = Process::spawn(&self.dir, self.name, &mut self.command);
        let status = process.wait_exit(RUN);
        Outcome { status, stdout: process.stdout(), stderr: process.stderr(), whole: process.to_string() }
    }
}

/// What becomes of a log that nobody can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Every write fails: the disk is full.
    Full,
    /// It goes into a pipe that fills up.
    Pipe,
}

/// An hsdo that runs.
#[derive(Debug)]
pub struct Running {
    process: Process,
    exporter: Option<Port>,
}

impl Running {
    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The file with its log.
    pub fn log_file(&self) -> &Path {
        self.process.stderr_file()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The base of its exporter's addresses.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.exporter.as_ref().expect("it was given an exporter's port").number())
    }

    /// Status and body of a page of its exporter.
    ///
    /// # Errors
    /// The exporter does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .max_idle_connections(0)
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let mut answer = agent.get(format!("{}{path}", self.url())).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), body))
    }

    /// The text of `/metrics`, waited for while the process starts.
    pub fn metrics(&self) -> String {
        wait_for("the exporter to answer", SOON, || self.get("/metrics")).1
    }

    /// The value of one series by its whole name, such as `hsdo_turns_total{result="ok"}`; `None` where there is none.
    pub fn metric(&self, series: &str) -> Option<f64> {
        value_of(&self.metrics(), series)
    }

    /// Waits until a series has a value that `wanted` accepts, and returns it.
    pub fn wait_metric(&mut self, series: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        wait_for(series, SOON, || {
            self.process.assert_running();
            let value = self.metric(series);
            value.filter(|value| wanted(*value)).ok_or_else(|| format!("{value:?}\n{}", self.log()))
        })
    }

    /// The process's numbers under that name in `/proc/<pid>/status`, such as `VmHWM`, its greatest resident memory in KiB.
    pub fn status_number(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{path} has no number {name}"))
    }

    /// Waits until one more turn than now has succeeded, from its start on.
    pub fn wait_turn(&mut self) {
        const SERIES: &str = r#"hsdo_turns_total{result="ok"}"#;
        let before = self.metric(SERIES).unwrap_or(0.0);
        // The turn under way may have begun before the call.
        self.wait_metric(SERIES, |value| value >= before + 2.0);
    }

    /// Waits until the log has `text`.
    pub fn wait_log(&mut self, text: &str) {
        wait_for(&format!("the log to say {text:?}"), SOON, || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    /// Asks it to end (SIGTERM); panics if that takes more than five seconds.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate(Duration::from_secs(5))
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// The value of one series in a text of metrics.
pub fn value_of(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    whole: String,
}

impl Outcome {
    /// Panics, with all it said, unless it ended with that code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Panics, with all it said, unless its standard error has `text`.
    #[track_caller]
    pub fn assert_stderr(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in the standard error of {self}");
        self
    }

    /// Panics, with all it said, unless its standard output has `text`.
    #[track_caller]
    pub fn assert_stdout(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "no {text:?} in the standard output of {self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.whole, self.status)
    }
}

/// The program: `HSDO_BIN`, else the one that cargo built for the tests.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("HSDO_BIN").filter(|text| !text.is_empty());
    named
        .or(option_env!("CARGO_BIN_EXE_hsdo").map(Into::into))
        .map(PathBuf::from)
        .expect("HSDO_BIN names the hsdo to run: use `make test` or `make demo`")
}
