//! A real HAProxy with its own configuration, socket and ports.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::bed::{Bed, tool};
use super::port::Port;
use super::process::Process;
use super::wait::{SOON, try_wait_for, wait_for};

/// How long HAProxy may take to start, reload or answer.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct BackendConfig {
    pub name: String,
    /// The prefix of its `server-template`.
    pub base: String,
    pub slots: usize,
    /// What follows `balance`, such as `roundrobin` or `uri`.
    pub balance: String,
    /// What follows the address in the `server-template` line, besides `disabled`.
    pub options: String,
    /// More lines of the backend, such as `hash-type consistent`.
    pub lines: Vec<String>,
    /// More lines of its frontend, such as `use_backend`.
    pub rules: Vec<String>,
}

impl BackendConfig {
    /// `slots` servers, round robin, a TCP check every 100 ms.
    pub fn new(name: &str, base: &str, slots: usize) -> Self {
        BackendConfig {
            name: name.into(),
            base: base.into(),
            slots,
            balance: "roundrobin".into(),
            options: "check inter 100ms rise 2 fall 2".into(),
            lines: Vec::new(),
            rules: Vec::new(),
        }
    }

    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.options.clear();
        self
    }

    #[must_use]
    pub fn balance(mut self, algorithm: &str) -> Self {
        self.balance = algorithm.into();
        self
    }

    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        self.options = options.into();
        self
    }

    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.into());
        self
    }

    #[must_use]
    pub fn rule(mut self, line: &str) -> Self {
        self.rules.push(line.into());
        self
    }
}

/// A server as HAProxy shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `MAINT`, `UP`, `UP 1/2`, `DOWN`, `no check`, …
    pub status: String,
    /// The user weight, as `set server … weight` sets it.
    pub weight: u32,
    /// `address:port`.
    pub addr: String,
    /// `L4OK`, …; empty without a check.
    pub check_status: String,
}

impl Server {
    pub fn in_maintenance(&self) -> bool {
        self.status.starts_with("MAINT")
    }

    /// Whether it takes new requests: not in maintenance, not down, weight above 0.
    pub fn takes_traffic(&self) -> bool {
        (self.status.starts_with("UP") || self.status == "no check") && self.weight > 0
    }
}

/// A HAProxy, running or killed.
#[derive(Debug)]
pub struct Haproxy {
    dir: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    ports: BTreeMap<String, Port>,
    arguments: &'static [&'static str],
    process: Option<Process>,
}

impl Haproxy {
    /// With these backends and a frontend for each.
    pub fn start(bed: &Bed, backends: &[BackendConfig]) -> Self {
        Self::start_with(bed, backends, &["-db"])
    }

    /// The same in master-worker mode, which can reload.
    pub fn start_master_worker(bed: &Bed, backends: &[BackendConfig]) -> Self {
        Self::start_with(bed, backends, &["-W", "-db"])
    }

    /// The same for one of several HAProxies: its socket is `<name>.sock` in the bed's directory.
    pub fn start_named(bed: &Bed, name: &str, backends: &[BackendConfig]) -> Self {
        let (ports, socket) = (reserve(backends), bed.dir().join(format!("{name}.sock")));
        let config = bed.file(&format!("{name}.cfg"), &render(&socket, backends, &ports));
        let mut haproxy =
            Haproxy { dir: bed.dir().to_owned(), config, socket, ports, arguments: &["-W", "-db"], process: None };
        haproxy.restart();
        haproxy
    }

    fn start_with(bed: &Bed, backends: &[BackendConfig], arguments: &'static [&'static str]) -> Self {
        let ports = reserve(backends);
        let text = render(&bed.socket(), backends, &ports);
        Self::start_with_config(bed, &text, ports, arguments)
    }

    /// With a configuration of the caller's, whose socket is [`Bed::socket`].
    pub fn start_with_config(
        bed: &Bed,
        text: &str,
        ports: BTreeMap<String, Port>,
        arguments: &'static [&'static str],
    ) -> Self {
        let config = bed.file("haproxy.cfg", text);
        let mut haproxy =
            Haproxy { dir: bed.dir().to_owned(), config, socket: bed.socket(), ports, arguments, process: None };
        haproxy.restart();
        haproxy
    }

    /// HAProxy's objections to a configuration, if any.
    pub fn config_errors(bed: &Bed, text: &str) -> Option<String> {
        let config = bed.file("check.cfg", text);
        let checked = Command::new(program()).arg("-c").arg("-f").arg(config).output().expect("haproxy runs");
        (!checked.status.success()).then(|| String::from_utf8_lossy(&checked.stderr).into_owned())
    }

    /// Restarts it unchanged after a kill; returns once its socket answers.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "HAProxy runs already");
        let mut command = Command::new(program());
        command.args(self.arguments).arg("-f").arg(&self.config);
        let mut process = Process::spawn(&self.dir, "haproxy", &mut command);
        wait_for("HAProxy's socket to answer", TIMEOUT, || {
            process.assert_running();
            ask(&self.socket, "show info").map(|_| ())
        });
        self.process = Some(process);
    }

    /// SIGKILL; its socket file stays, and refuses connections.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            if self.arguments.contains(&"-W") {
                // The worker would outlive a killed master.
                process.signal("TERM");
                process.wait_exit(TIMEOUT);
            }
            process.kill();
        }
    }

    /// Kills the worker (SIGKILL); its master exits too.
    pub fn crash(&mut self) {
        if let (Some(worker), Some(mut process)) = (self.worker(), self.process.take()) {
            let sent = Command::new("sh").arg("-c").arg(format!("kill -KILL {worker}")).status();
            assert!(sent.is_ok_and(|status| status.success()), "cannot kill {worker}");
            process.wait_exit(TIMEOUT);
        }
        self.kill();
    }

    /// Reloads in master-worker mode, and returns once the new worker answers.
    pub fn reload(&mut self) {
        let before = self.worker();
        // A master that has only just started loses the signal.
        for _ in 0..3 {
            self.process.as_mut().expect("HAProxy runs").signal("USR2");
            let new = || self.worker().filter(|_| self.worker() != before).ok_or(());
            if try_wait_for(Duration::from_secs(3), new).is_ok() {
                return;
            }
        }
        panic!("no new worker answers: {}", self.process.as_ref().expect("HAProxy runs"));
    }

    /// Pauses the worker (SIGSTOP) for that long.
    pub fn pause(&mut self, span: Duration) {
        let frozen = self.freeze();
        std::thread::sleep(span);
        drop(frozen);
    }

    /// Pauses the worker (SIGSTOP) until the guard is dropped.
    pub fn freeze(&self) -> Frozen {
        let frozen = Frozen { worker: self.worker().expect("HAProxy answers") };
        frozen.signal("STOP");
        frozen
    }

    fn worker(&self) -> Option<String> {
        let info = self.try_command("show info").ok()?;
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).map(str::to_owned)
    }

    /// The port of that backend's frontend.
    pub fn frontend(&self, backend: &str) -> u16 {
        self.ports.get(backend).unwrap_or_else(|| panic!("no frontend for {backend}")).number()
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs one command, or several joined by `;`, and returns the whole reply.
    pub fn command(&self, line: &str) -> String {
        self.try_command(line).unwrap_or_else(|error| panic!("HAProxy does not answer {line:?}: {error}"))
    }

    /// The same where HAProxy may be away.
    pub fn try_command(&self, line: &str) -> io::Result<String> {
        ask(&self.socket, line)
    }

    /// A backend's servers by name.
    pub fn servers(&self, backend: &str) -> BTreeMap<String, Server> {
        self.try_servers(backend).unwrap_or_else(|error| panic!("no state of {backend}: {error}"))
    }

    /// The same where HAProxy may be away.
    pub fn try_servers(&self, backend: &str) -> io::Result<BTreeMap<String, Server>> {
        let reply = self.try_command(&format!("show stat {backend} 4 -1"))?;
        let lacks_weight = !reply.lines().next().unwrap_or_default().contains(",uweight,");
        let mut servers = parse(&reply).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, reply))?;
        if lacks_weight {
            // 2.2 shows the weight from before maintenance.
            for row in self.try_command(&format!("show servers state {backend}"))?.lines() {
                let fields: Vec<&str> = row.split(' ').collect();
                let server = fields.get(3).and_then(|name| servers.get_mut(*name));
                if let (Some(server), Some(Ok(weight))) = (server, fields.get(7).map(|text| text.parse())) {
                    server.weight = weight;
                }
            }
        }
        Ok(servers)
    }

    pub fn server(&self, backend: &str, name: &str) -> Server {
        self.servers(backend).remove(name).unwrap_or_else(|| panic!("no server {name} in {backend}"))
    }

    /// Waits until exactly these servers of a backend take new requests, at these weights.
    #[track_caller]
    pub fn wait_weights(&self, backend: &str, wanted: &[(&str, u32)]) {
        wait_for(&format!("{backend} to have the weights {wanted:?}"), SOON, || {
            let servers = self.servers(backend);
            let taking: Vec<(&str, u32)> = servers
                .iter()
                .filter(|(_, server)| server.takes_traffic())
                .map(|(name, server)| (name.as_str(), server.weight))
                .collect();
            if taking == wanted { Ok(()) } else { Err(format!("{servers:?}")) }
        });
    }

    /// The servers of a backend that take new requests, in order.
    pub fn active(&self, backend: &str) -> Vec<String> {
        self.servers(backend).into_iter().filter(|(_, server)| server.takes_traffic()).map(|(name, _)| name).collect()
    }
}

/// A paused HAProxy, until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    worker: String,
}

impl Frozen {
    fn signal(&self, signal: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.worker)).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal} to {}", self.worker);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process
            && self.arguments.contains(&"-W")
            && !std::thread::panicking()
        {
            process.signal("TERM");
            let _ = try_wait_for(TIMEOUT, || process.status().ok_or(()));
        }
    }
}

/// `HSDO_TEST_HAPROXY`, or where Debian has it.
pub fn program() -> PathBuf {
    tool("HSDO_TEST_HAPROXY", &[PathBuf::from("/usr/sbin/haproxy"), PathBuf::from("/usr/local/sbin/haproxy")])
}

/// The reply to a line of commands, on its own connection, read to the end.
pub fn ask(socket: &Path, line: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    if reply.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a reply"));
    }
    // It quotes checks and agents, so it may not be UTF-8.
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// The rows of `show stat`, with columns found by name. The configured weight is `uweight`, which 2.2 lacks.
fn parse(reply: &str) -> Option<BTreeMap<String, Server>> {
    let mut lines = reply.lines();
    let header: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let column = |name: &str| header.iter().position(|title| *title == name);
    let (name, status, addr, check) = (column("svname")?, column("status")?, column("addr")?, column("check_status")?);
    let weight = column("uweight").or(column("weight"))?;
    let mut servers = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split(',').collect();
        let server = Server {
            status: (*cells.get(status)?).to_owned(),
            weight: cells.get(weight)?.parse().ok()?,
            addr: (*cells.get(addr)?).to_owned(),
            check_status: cells.get(check)?.trim_start_matches("* ").to_owned(),
        };
        servers.insert((*cells.get(name)?).to_owned(), server);
    }
    Some(servers)
}

fn reserve(backends: &[BackendConfig]) -> BTreeMap<String, Port> {
    backends.iter().map(|backend| (backend.name.clone(), Port::reserve())).collect()
}

fn render(socket: &Path, backends: &[BackendConfig], ports: &BTreeMap<String, Port>) -> String {
    let mut text = format!(
        "global\n    stats socket {} mode 600 level admin\n    stats timeout 5s\n\n\
         defaults\n    mode http\n    timeout connect 2s\n    timeout client 10s\n    timeout server 10s\n    timeout queue 1s\n    \
         retries 2\n    option redispatch 1\n    retry-on conn-failure empty-response\n",
        socket.display()
    );
    for backend in backends {
        let BackendConfig { name, base, slots, balance, options, lines, rules } = backend;
        let port = ports[name].number();
        text.push_str(&format!("\nfrontend to-{name}\n    bind 127.0.0.1:{port}\n    default_backend {name}\n"));
        for rule in rules {
            text.push_str(&format!("    {rule}\n"));
        }
        text.push_str(&format!("\nbackend {name}\n    balance {balance}\n"));
        for line in lines {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&format!("    server-template {base} 1-{slots} 127.0.0.2:80 {options} disabled\n"));
    }
    text
}
