//! Reads backends and sends commands over `socket`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::command::{judge, lines};
use super::error::HaproxyError;
use super::known::{Dialect, Known, is_master, level, processes};
use super::snapshot::{self, StatSnapshot};
use super::socket::{self, Exchange, Socket, Until};
use super::state::{self, ServersState, info_value};
use super::traffic::{self, Traffic};
use super::version::{crashes_on_aborted_dumps, keeps_old_connections};
use crate::ports::{
    Admin, BackendFault, Command, Haproxy, PARKED, Process, Reading, Running, Servers, TurnError, Verdict,
};

/// Lines of commands in flight at a time. With one, HAProxy spends a third of the time waiting for hsdo; three are hardly faster than
/// two (measured on 2.6 with two threads and 1,000 servers).
const LINES_IN_FLIGHT: usize = 2;

const DUMP: &str = "show servers state";

/// Attempts at a reading, if another process answers in the middle of it.
const ATTEMPTS: usize = 4;

/// The Runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    socket: Socket,
    /// A dump that timed out; it must be read to the end before anything else is sent.
    unread_dump: Option<(Exchange, String)>,
    pub(super) known: Option<Known>,
    /// Whether dialect and level were checked since the last error that casts doubt on them.
    verified: bool,
    /// A receive buffer per line of commands, reused to save allocations.
    buffers: Vec<Vec<u8>>,
    /// The last `show stat`; none after a change or an error, or if it was unusable.
    snapshot: Option<StatSnapshot>,
}

impl Runtime {
    /// Nothing is sent yet.
    pub fn new(socket: Socket) -> Self {
        Runtime { socket, unread_dump: None, known: None, verified: false, buffers: Vec::new(), snapshot: None }
    }

    /// Whether HAProxy closes an idle connection within `wait`: its `stats timeout` is shorter.
    pub fn closes_idle_within(&self, wait: Duration) -> bool {
        self.socket.closes_idle_within(wait).unwrap_or(false)
    }

    /// The checks and sessions of these backends' servers, by backend and server. A backend that the last reading did not find is
    /// left out.
    ///
    /// # Errors
    /// The exchange failed.
    pub fn traffic(&mut self, backends: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, Traffic>>, TurnError> {
        let traffic = self.read_traffic(backends);
        self.checked(traffic)
    }

    fn read_traffic(&mut self, backends: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, Traffic>>, HaproxyError> {
        let Some(known) = &self.known else { return Ok(BTreeMap::new()) };
        let numbered: Vec<(&str, String)> = backends
            .iter()
            .filter_map(|name| Some((*name, format!("show stat {} 4 -1", known.numbers.get(*name)?))))
            .collect();
        let commands: Vec<String> = numbered.iter().map(|(_, command)| command.clone()).collect();
        let replies = self.ask_all(&commands)?;
        Ok(numbered
            .iter()
            .zip(replies)
            .map(|((name, _), reply)| ((*name).to_owned(), traffic::parse(&reply)))
            .collect())
    }

    fn send_line(&self, dialect: Dialect, commands: &str) -> Result<(Exchange, String), HaproxyError> {
        let line = dialect.line(commands);
        Ok((self.socket.send(&line)?, line))
    }

    fn ask(&mut self, dialect: Dialect, commands: &str, count: usize) -> Result<Vec<String>, HaproxyError> {
        let (mut exchange, line) = self.send_line(dialect, commands)?;
        let mut buffer = Vec::new();
        match exchange.receive(&line, until(dialect, count), &mut buffer) {
            Ok(response) => {
                let text = socket::text(response);
                let replies = replies(dialect, &line, count, &text)?;
                Ok(replies.into_iter().map(str::to_owned).collect())
            }
            Err(error) => {
                let crashes = self.version().is_none_or(crashes_on_aborted_dumps);
                if crashes && error.is_timeout() && commands.contains(DUMP) && !dialect.master {
                    self.unread_dump = Some((exchange, line));
                }
                Err(error)
            }
        }
    }

    /// The replies to any number of commands, in as many lines as necessary.
    pub(super) fn ask_all(&mut self, commands: &[String]) -> Result<Vec<String>, HaproxyError> {
        let mut all = Vec::with_capacity(commands.len());
        while all.len() < commands.len() {
            let known = self.known.as_ref().expect("a process was identified");
            let (dialect, limit) = (known.dialect, known.line_limit());
            let run = lines(&commands[all.len()..], limit, String::len)[0];
            match self.ask(dialect, &run.join(";"), run.len()) {
                Ok(replies) => all.extend(replies),
                Err(error) => {
                    if !self.known.as_mut().is_some_and(|known| known.learn_from(&error)) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Finds out which process answers, how to send it commands, and whether hsdo may change servers. Takes a single command if the
    /// same process answers as before.
    fn identify(&mut self) -> Result<(), HaproxyError> {
        if let Some((exchange, line)) = &mut self.unread_dump {
            exchange.drain(line)?;
            self.unread_dump = None;
        }
        let mut dialect = match &self.known {
            Some(known) if self.verified => known.dialect,
            _ => Dialect { master: self.is_master()?, severity: false },
        };
        let (info, process) = self.ask_process(dialect)?;
        let updated = self.known.as_ref().and_then(|known| known.updated(process.clone(), dialect));
        if self.verified && updated.is_some() {
            self.known = updated;
            return Ok(());
        }
        if let Some(number) = processes(&info) {
            return Err(HaproxyError::MultipleProcesses(number.to_owned()));
        }
        let plain = Dialect { severity: false, ..dialect };
        let replies = self.ask(plain, "show cli level", 1)?;
        let (level, severity) = level(&replies[0]);
        if level != "admin" {
            return Err(HaproxyError::Level { place: self.socket.place().clone(), level: level.to_owned() });
        }
        dialect.severity = severity;
        self.snapshot = None;
        self.known = Some(updated.unwrap_or_else(|| Known::new(process, dialect)).with_dialect(dialect));
        self.verified = true;
        Ok(())
    }

    /// Whether the socket is the master's, which keeps the connection open.
    fn is_master(&self) -> Result<bool, HaproxyError> {
        let line = "show proc";
        let mut buffer = Vec::new();
        let response = self.socket.send(line)?.receive(line, Until::Replies(1), &mut buffer)?;
        Ok(is_master(&socket::text(response)))
    }

    fn ask_process(&mut self, dialect: Dialect) -> Result<(String, Process), HaproxyError> {
        let asked = Instant::now();
        let info = self.ask(dialect, "show info", 1)?.remove(0);
        let process = process(&info, asked, Instant::now())?;
        Ok((info, process))
    }

    pub(super) fn read_all(&mut self, names: &[&str]) -> Result<Reading, HaproxyError> {
        for _ in 0..ATTEMPTS {
            // A version that an aborted dump crashes is asked for one only after it has just answered.
            let identified = self.verified && self.unread_dump.is_none();
            if !identified || self.version().is_none_or(crashes_on_aborted_dumps) {
                self.identify()?;
            }
            let asked = Instant::now();
            let mut commands = vec!["show info".to_owned()];
            commands.extend(names.iter().map(|name| format!("{DUMP} {name}")));
            let replies = self.ask_all(&commands)?;
            let process = process(&replies[0], asked, Instant::now())?;
            let known = self.known.as_mut().expect("a process was identified");
            if process.differs_from(&known.process) {
                self.identify()?;
                continue;
            }
            known.process = process.clone();
            known.numbers.clear();
            let mut backends = BTreeMap::new();
            for (name, reply) in names.iter().zip(&replies[1..]) {
                let table = if state::is_unknown_backend(reply) {
                    Err(BackendFault::Missing(Vec::new()))
                } else {
                    state::parse(reply).map_err(BackendFault::Unreadable)
                };
                backends.insert((*name).to_owned(), table);
            }
            let mut backends = self.resolve_faults(backends)?;
            self.mark_busy(&mut backends)?;
            let known = self.known.as_mut().expect("a process was identified");
            let is_new = !std::mem::replace(&mut known.reported, true);
            return Ok(Reading { process, is_new, backends });
        }
        Err(HaproxyError::Response {
            line: "show info".to_owned(),
            fault: "another process answers each time".to_owned(),
        })
    }

    /// Whether a resolver keeps looking names up. The response is not split, because 2.2 adds an empty line to this reply.
    fn has_resolver(&self, dialect: Dialect) -> Result<bool, HaproxyError> {
        let (mut exchange, line) = self.send_line(dialect, "show resolvers")?;
        let mut buffer = Vec::new();
        let response = socket::text(exchange.receive(&line, until(dialect, 1), &mut buffer)?);
        if response.ends_with("\n\n") {
            return Ok(state::has_resolver(&response));
        }
        Err(HaproxyError::Response { line, fault: "it is truncated".to_owned() })
    }

    /// Finds out why a backend is missing, and whether a resolver sets the addresses of servers with host names.
    fn resolve_faults(
        &mut self,
        tables: BTreeMap<String, Result<ServersState, BackendFault>>,
    ) -> Result<BTreeMap<String, Result<Servers, BackendFault>>, HaproxyError> {
        let is_missing = |table: &Result<ServersState, BackendFault>| matches!(table, Err(BackendFault::Missing(_)));
        let known = self.known.as_ref().expect("a process was identified");
        let (dialect, resolver) = (known.dialect, known.resolver);
        let show_backend = match tables.values().any(is_missing) {
            true => self.ask(dialect, "show backend", 1)?.remove(0),
            false => String::new(),
        };
        let has_names = tables.values().flatten().any(|table| !table.hosts.is_empty());
        let resolver = match (resolver, has_names) {
            (Some(resolver), _) => Some(resolver),
            (None, true) => Some(self.has_resolver(dialect)?),
            (None, false) => None,
        };
        let known = self.known.as_mut().expect("a process was identified");
        known.resolver = resolver;
        let judge = |(name, table): (String, Result<ServersState, BackendFault>)| {
            let servers = match table {
                Err(BackendFault::Missing(_)) => Err(state::missing_backend(&show_backend)),
                Err(fault) => Err(fault),
                Ok(ServersState { disabled: true, .. }) => Err(BackendFault::Disabled),
                Ok(ServersState { number, mut servers, hosts, .. }) => {
                    known.numbers.extend(number.map(|number| (name.clone(), number)));
                    for host in hosts.iter().filter(|_| resolver == Some(true)) {
                        servers.entry(host.clone()).and_modify(|server| server.named = true);
                    }
                    Ok(servers)
                }
            };
            (name, servers)
        };
        Ok(tables.into_iter().map(judge).collect())
    }

    /// The version of the process, once one has answered.
    fn version(&self) -> Option<&str> {
        self.known.as_ref().map(|known| known.process.version.as_str())
    }

    /// Marks the parked servers that still have requests from before, where that matters.
    fn mark_busy(
        &mut self,
        backends: &mut BTreeMap<String, Result<Servers, BackendFault>>,
    ) -> Result<(), HaproxyError> {
        if !self.version().is_some_and(keeps_old_connections) {
            return Ok(());
        }
        let is_parked = |server: &Running| {
            server.admin == Admin::Maintenance && server.address.is_some_and(|address| address.ip() == PARKED)
        };
        let has_parked = |(_, servers): &(&String, &Result<Servers, BackendFault>)| {
            servers.as_ref().is_ok_and(|servers| servers.values().any(is_parked))
        };
        let names: Vec<String> = backends.iter().filter(has_parked).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let traffic = self.read_traffic(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (name, servers) in backends.iter_mut() {
            let (Some(traffic), Ok(servers)) = (traffic.get(name), servers) else { continue };
            for (name, server) in servers.iter_mut().filter(|(_, server)| is_parked(server)) {
                server.busy = traffic.get(name).is_some_and(|traffic| traffic.http && traffic.sessions > 0);
            }
        }
        Ok(())
    }

    fn compare(&mut self, names: &[&str]) -> Result<bool, HaproxyError> {
        let Some(known) = self.known.as_mut().filter(|known| known.stat_has_weight) else { return Ok(false) };
        let mut commands = vec!["show info".to_owned()];
        for name in names {
            // A backend without a number was missing: it takes a reading to see whether it still is.
            let Some(number) = known.numbers.get(*name) else { return Ok(false) };
            commands.push(format!("show stat {number} 4 -1"));
        }
        let lines = lines(&commands, known.line_limit(), String::len);
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.resize_with(lines.len(), Vec::new);
        let mut responses = Vec::with_capacity(lines.len());
        let asked = Instant::now();
        for (line, buffer) in lines.iter().zip(&mut buffers) {
            let text = known.dialect.line(&line.join(";"));
            let mut exchange = self.socket.send(&text)?.not_urgent();
            let response = exchange.receive(&text, until(known.dialect, line.len()), buffer)?;
            // The extra reply of `set severity-output` is one empty line.
            responses.push(response.get(known.dialect.extra_replies()..).unwrap_or_default());
        }
        let end = memchr::memmem::find(responses[0], b"\n\n").map_or(responses[0].len(), |end| end + 2);
        let (info, tables) = responses[0].split_at(end);
        responses[0] = tables;
        let process = process(&socket::text(info), asked, Instant::now())?;
        let is_same_process = !process.differs_from(&known.process);
        if is_same_process {
            // 2.6 does not count paused time: compare the next uptime with this one, not with one from before a pause.
            known.process = process;
        }
        let unchanged = is_same_process && self.snapshot.as_ref().is_some_and(|snapshot| snapshot.matches(&responses));
        if !unchanged {
            self.snapshot = StatSnapshot::of(&responses, names.len());
            known.stat_has_weight = self.snapshot.is_some() || socket::text(tables).contains(snapshot::WEIGHT);
        }
        self.buffers = buffers;
        Ok(unchanged)
    }

    fn send_all(
        &mut self,
        steps: &[Vec<Command>],
        on_verdict: &mut dyn FnMut(&Command, Verdict),
    ) -> Result<(), HaproxyError> {
        // Otherwise a change that an agent reverts at once would go unnoticed.
        self.snapshot = None;
        let Some(known) = &mut self.known else { return Ok(()) };
        let dialect = known.dialect;
        let texts: Vec<String> =
            steps.iter().map(|step| step.iter().map(Command::to_string).collect::<Vec<_>>().join(";")).collect();
        let mut left: VecDeque<Range<usize>> = std::iter::once(0..steps.len()).collect();
        let mut in_flight: VecDeque<(Range<usize>, Exchange, String)> = VecDeque::new();
        let mut buffer = Vec::new();
        let mut result = Ok(());
        loop {
            while in_flight.len() < LINES_IN_FLIGHT && result.is_ok() {
                let Some(range) = left.pop_front() else { break };
                let Some(run) =
                    lines(&texts[range.clone()], known.line_limit(), String::len).first().map(|run| run.len())
                else {
                    continue;
                };
                let (now, later) = (range.start..range.start + run, range.start + run..range.end);
                left.push_front(later);
                let line = dialect.line(&texts[now.clone()].join(";"));
                match self.socket.send(&line) {
                    Ok(exchange) => in_flight.push_back((now, exchange, line)),
                    Err(error) => result = Err(error),
                }
            }
            let Some((range, mut exchange, line)) = in_flight.pop_front() else { return result };
            let count = steps[range.clone()].iter().map(Vec::len).sum();
            let response = exchange.receive(&line, until(dialect, count), &mut buffer).map(socket::text);
            match response.and_then(|response| {
                for (command, reply) in
                    steps[range.clone()].iter().flatten().zip(replies(dialect, &line, count, &response)?)
                {
                    on_verdict(command, judge(command, reply));
                }
                Ok(())
            }) {
                Ok(()) => {}
                // HAProxy refused the whole line.
                Err(error) if known.learn_from(&error) => left.push_front(range),
                Err(error) => result = result.and(Err(error)),
            }
        }
    }

    /// After an error the next turn reads HAProxy again. Unless the connection just broke, dialect and level are checked again too.
    fn checked<T>(&mut self, result: Result<T, HaproxyError>) -> Result<T, TurnError> {
        if let Err(error) = &result {
            self.snapshot = None;
            self.verified &= !matches!(
                error,
                HaproxyError::Connect { .. } | HaproxyError::Response { .. } | HaproxyError::Level { .. }
            );
        }
        Ok(result?)
    }
}

impl Haproxy for Runtime {
    fn is_listening(&self) -> bool {
        self.socket.is_listening()
    }

    fn unchanged(&mut self, backends: &[&str]) -> Result<bool, TurnError> {
        let unchanged = self.compare(backends);
        self.checked(unchanged)
    }

    fn read(&mut self, backends: &[&str]) -> Result<Reading, TurnError> {
        let reading = self.read_all(backends);
        self.checked(reading)
    }

    fn sessions(&mut self, backends: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, u64>>, TurnError> {
        let sum = |(server, traffic): (String, Traffic)| (server, traffic.sessions + traffic.queued);
        let traffic = self.traffic(backends)?;
        Ok(traffic.into_iter().map(|(backend, servers)| (backend, servers.into_iter().map(sum).collect())).collect())
    }

    fn send(&mut self, steps: &[Vec<Command>], on_verdict: &mut dyn FnMut(&Command, Verdict)) -> Result<(), TurnError> {
        let sent = self.send_all(steps, on_verdict);
        self.checked(sent)
    }
}

fn until(dialect: Dialect, count: usize) -> Until {
    if dialect.master { Until::Replies(count) } else { Until::Closed }
}

/// The replies to the commands of a line, without those that the dialect adds.
fn replies<'a>(dialect: Dialect, line: &str, count: usize, response: &'a str) -> Result<Vec<&'a str>, HaproxyError> {
    let mut replies = socket::replies(line, count + dialect.extra_replies(), response)?;
    replies.drain(..dialect.extra_replies());
    Ok(replies)
}

fn process(info: &str, asked: Instant, answered: Instant) -> Result<Process, HaproxyError> {
    let unusable = |fault: String| HaproxyError::Response { line: "show info".to_owned(), fault };
    let value = |name: &str| {
        let value = info_value(info, name).map(str::to_owned);
        value.ok_or_else(|| unusable(format!("no {name} line")))
    };
    let uptime = value("Uptime_sec")?.parse().map(Duration::from_secs);
    Ok(Process {
        pid: value("Pid")?,
        version: value("Version")?,
        started: info_value(info, "Start_time_sec").map(str::to_owned),
        uptime: uptime.map_err(|_| unusable("Uptime_sec is not a number".to_owned()))?,
        asked,
        answered,
    })
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
