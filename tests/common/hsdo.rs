//! The program under test as a process, with a bed's environment.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::bed::{Bed, REGION, TABLE};
use super::port::Port;
use super::process::Process;
use super::wait::{SOON, wait_for};

/// How long a run that ends by itself may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// An hsdo to start: it gets settings through the environment only, and nothing of the caller's.
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

    /// A client of the bed: backend `http-back`, base name `mywebapp`, the port of the bed's web servers, interval 0.1
    /// s.
    pub fn client(bed: &Bed) -> Self {
        Self::with_aws(bed, "client")
            .arg("--client")
            .env("CLIENT_HAPROXY_SOCKET_PATH", &bed.socket().to_string_lossy())
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("http-back:mywebapp:{}", bed.web().port()))
    }

    /// Without a role: table, region, credentials and endpoint of the bed, for `--create-table`.
    pub fn with_aws(bed: &Bed, name: &'static str) -> Self {
        Self::in_dir(bed.dir(), &bed.aws().url(), name)
    }

    /// The same from a directory and an endpoint.
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

    /// Without arguments or settings, in the bed's directory.
    pub fn bare(bed: &Bed, name: &'static str) -> Self {
        Self::bare_in(bed.dir(), name)
    }

    fn bare_in(dir: &Path, name: &'static str) -> Self {
        let mut command = Command::new(binary());
        command.env_clear().env("HOME", dir).current_dir(dir);
        Hsdo { name, dir: dir.to_owned(), command, exporter: None }
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    #[must_use]
    pub fn env_remove(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Started by another program that `exec`s it, such as `prlimit --nofile=64` or `unshare --mount`.
    #[must_use]
    pub fn under(mut self, runner: &[&str]) -> Self {
        let mut command = Command::new(runner[0]);
        command.args(&runner[1..]).arg(self.command.get_program()).args(self.command.get_args());
        command.env_clear().envs(self.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.current_dir(&self.dir);
        self.command = command;
        self
    }

    /// Runs until it is stopped or dropped.
    pub fn spawn(mut self) -> Running {
        let process = Process::spawn(&self.dir, self.name, &mut self.command);
        Running { process, exporter: self.exporter }
    }

    /// Runs with a log that nobody can read.
    pub fn spawn_unread(mut self, log: UnreadLog) -> Running {
        let other = match log {
            UnreadLog::Full => File::options().write(true).open("/dev/full").expect("Linux has /dev/full").into(),
            UnreadLog::Pipe => Stdio::piped(),
        };
        let process = Process::spawn_with(&self.dir, self.name, &mut self.command, Some(other));
        Running { process, exporter: self.exporter }
    }

    /// Runs one turn (`--once`) to its end.
    pub fn once(self) -> Outcome {
        self.arg("--once").run()
    }

    /// Runs to its end.
    pub fn run(mut self) -> Outcome {
        let mut process = Process::spawn(&self.dir, self.name, &mut self.command);
        let status = process.wait_exit(RUN_TIMEOUT);
        Outcome { status, stdout: process.stdout(), stderr: process.stderr(), whole: process.to_string() }
    }
}

/// Why a log cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadLog {
    /// Every write fails: the disk is full.
    Full,
    /// A pipe that fills up.
    Pipe,
}

/// A running hsdo.
#[derive(Debug)]
pub struct Running {
    process: Process,
    exporter: Option<Port>,
}

impl Running {
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn log_file(&self) -> &Path {
        self.process.stderr_file()
    }

    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The base URL of its exporter.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.exporter.as_ref().expect("it was given an exporter's port").number())
    }

    /// Status and body of an exporter page.
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

    /// `/metrics`, waited for while the process starts.
    pub fn metrics(&self) -> String {
        wait_for("the exporter to answer", SOON, || self.get("/metrics")).1
    }

    /// The value of a series by its full name, such as `hsdo_turns_total{result="ok"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        value_of(&self.metrics(), series)
    }

    /// Waits for a value of a series that `wanted` accepts.
    pub fn wait_metric(&mut self, series: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        wait_for(series, SOON, || {
            self.process.assert_running();
            let value = self.metric(series);
            value.filter(|value| wanted(*value)).ok_or_else(|| format!("{value:?}\n{}", self.log()))
        })
    }

    /// Numbers from `/proc/<pid>/status` under that name, such as `VmHWM`, the peak resident memory in KiB.
    pub fn status_number(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{path} has no number {name}"))
    }

    /// Waits until one more turn has succeeded, counted from its start.
    pub fn wait_turn(&mut self) {
        const SERIES: &str = r#"hsdo_turns_total{result="ok"}"#;
        let before = self.metric(SERIES).unwrap_or(0.0);
        // The turn in flight may have begun before the call.
        self.wait_metric(SERIES, |value| value >= before + 2.0);
    }

    pub fn wait_log(&mut self, text: &str) {
        wait_for(&format!("the log to say {text:?}"), SOON, || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    /// SIGTERM; panics if it takes more than five seconds to exit.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate(Duration::from_secs(5))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// The lines of a log with `LOG_FORMAT=json`; panics at one that is no object with the fields of every line.
#[track_caller]
pub fn json_lines(log: &str) -> Vec<Value> {
    assert!(log.is_empty() || log.ends_with('\n'), "{log}");
    let parsed = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?} in {log}"));
        for field in ["time", "level", "target", "message"] {
            assert!(value[field].is_string(), "no {field}: {line}");
        }
        value
    };
    log.lines().map(parsed).collect()
}

/// The value of one series in a metrics page.
pub fn value_of(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok())
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    whole: String,
}

impl Outcome {
    /// Panics, with its output, unless it exited with that code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn assert_stderr(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in the standard error of {self}");
        self
    }

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

/// `HSDO_BIN`, or the one that cargo built for the tests.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("HSDO_BIN").filter(|text| !text.is_empty());
    named
        .or(option_env!("CARGO_BIN_EXE_hsdo").map(Into::into))
        .map(PathBuf::from)
        .expect("HSDO_BIN names the hsdo to run: use `make test` or `make demo`")
}
