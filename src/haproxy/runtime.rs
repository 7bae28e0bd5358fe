//! Reads backends and sends commands: the steps of a talk, over `socket`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::command::{judge, lines};
use super::error::Error;
use super::known::{Dialect, Known, is_master, level, processes};
use super::snapshot::{self, Snapshot};
use super::socket::{self, Socket, Talk, Until};
use super::state::{self, Table, info_value};
use crate::ports::{BackendFault, Command, Haproxy, Process, Reading, Servers, Verdict};

/// How many lines of commands are under way at a time. With one, HAProxy waits for hsdo between two of them, a third of
/// the time; with three it is hardly faster than with two (measured on 2.6 with two threads and 1,000 servers).
const LINES_UNDER_WAY: usize = 2;

/// What shows the servers of a backend.
const DUMP: &str = "show servers state";

/// How often a reading is begun again because another process answered in the middle of it.
const ATTEMPTS: usize = 4;

/// The Runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    socket: Socket,
    /// A dump that was not heard to its end in time: nothing else is asked until it was.
    unfinished: Option<(Talk, String)>,
    /// Who answered last; dropped as a whole when another process does.
    known: Option<Known>,
    /// Whether how to speak to it is beyond doubt: nothing went wrong since it was asked.
    sure: bool,
    /// What HAProxy sent last, a buffer a line of commands: kept for their memory.
    buffers: Vec<Vec<u8>>,
    /// What `show stat` said last; none after a change or an error, or if it was unusable.
    snapshot: Option<Snapshot>,
}

impl Runtime {
    /// Over `socket`; nothing is sent yet.
    pub fn new(socket: Socket) -> Self {
        Runtime { socket, unfinished: None, known: None, sure: false, buffers: Vec::new(), snapshot: None }
    }

    /// Sends a line in this dialect.
    fn say(&self, dialect: Dialect, commands: &str) -> Result<(Talk, String), Error> {
        let line = dialect.line(commands);
        Ok((self.socket.say(&line)?, line))
    }

    /// The replies to `count` commands, as text.
    fn ask(&mut self, dialect: Dialect, commands: &str, count: usize) -> Result<Vec<String>, Error> {
        let (mut talk, line) = self.say(dialect, commands)?;
        let mut buffer = Vec::new();
        match talk.hear(&line, until(dialect, count), &mut buffer) {
            Ok(answer) => {
                let text = socket::text(answer);
                let replies = replies(dialect, &line, count, &text)?;
                Ok(replies.into_iter().map(str::to_owned).collect())
            }
            Err(error) => {
                let dies = self.known.as_ref().is_none_or(Known::dies_of_cut_dumps);
                if dies && error.is_silence() && commands.contains(DUMP) && !dialect.master {
                    self.unfinished = Some((talk, line));
                }
                Err(error)
            }
        }
    }

    /// The same for any number of commands, in as many lines as the process takes, a talk each.
    fn ask_all(&mut self, commands: &[String]) -> Result<Vec<String>, Error> {
        let mut answers = Vec::with_capacity(commands.len());
        while answers.len() < commands.len() {
            let known = self.known.as_ref().expect("a process was met");
            let (dialect, room) = (known.dialect, known.room());
            let run = lines(&commands[answers.len()..], room, String::len)[0];
            match self.ask(dialect, &run.join(";"), run.len()) {
                Ok(replies) => answers.extend(replies),
                Err(error) => {
                    if !self.known.as_mut().is_some_and(|known| known.learn(&error)) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(answers)
    }

    /// Finds out who answers, and whether hsdo may change servers there. It costs a question where the same process answers
    /// as before.
    fn meet(&mut self) -> Result<(), Error> {
        if let Some((talk, line)) = &mut self.unfinished {
            talk.drain(line)?;
            self.unfinished = None;
        }
        let mut dialect = match &self.known {
            Some(known) if self.sure => known.dialect,
            _ => Dialect { master: self.is_master()?, severity: false },
        };
        let (info, process) = self.who(dialect)?;
        let again = self.known.as_ref().and_then(|known| known.again(process.clone(), dialect));
        if self.sure && again.is_some() {
            self.known = again;
            return Ok(());
        }
        if let Some(number) = processes(&info) {
            return Err(Error::Processes(number.to_owned()));
        }
        let plain = Dialect { severity: false, ..dialect };
        let replies = self.ask(plain, "show cli level", 1)?;
        let (level, severity) = level(&replies[0]);
        if level != "admin" {
            return Err(Error::Level { place: self.socket.place().clone(), level: level.to_owned() });
        }
        dialect.severity = severity;
        self.snapshot = None;
        self.known = Some(again.unwrap_or_else(|| Known::new(process, dialect)).speaking(dialect));
        self.sure = true;
        Ok(())
    }

    /// Whether the socket is the master's. It keeps the connection open; a worker closes it.
    fn is_master(&self) -> Result<bool, Error> {
        let line = "show proc";
        let mut buffer = Vec::new();
        let answer = self.socket.say(line)?.hear(line, Until::Replies(1), &mut buffer)?;
        Ok(is_master(&socket::text(answer)))
    }

    fn who(&mut self, dialect: Dialect) -> Result<(String, Process), Error> {
        let asked = Instant::now();
        let info = self.ask(dialect, "show info", 1)?.remove(0);
        let process = process(&info, asked, Instant::now())?;
        Ok((info, process))
    }

    fn read_all(&mut self, names: &[&str]) -> Result<Reading, Error> {
        for _ in 0..ATTEMPTS {
            // Where a dump must be heard to its end, it is asked only of a process that has just answered.
            let is_met = self.sure && self.unfinished.is_none();
            if !is_met || self.known.as_ref().is_none_or(Known::dies_of_cut_dumps) {
                self.meet()?;
            }
            let asked = Instant::now();
            let mut commands = vec!["show info".to_owned()];
            commands.extend(names.iter().map(|name| format!("{DUMP} {name}")));
            let replies = self.ask_all(&commands)?;
            let process = process(&replies[0], asked, Instant::now())?;
            let known = self.known.as_mut().expect("a process was met");
            if process.is_other_than(&known.process) {
                self.meet()?;
                continue;
            }
            known.process = process.clone();
            known.numbers.clear();
            let mut backends = BTreeMap::new();
            for (name, reply) in names.iter().zip(&replies[1..]) {
                let shown = if state::is_unknown_backend(reply) {
                    Err(BackendFault::Missing(Vec::new()))
                } else {
                    state::parse(reply).map_err(BackendFault::Unreadable)
                };
                backends.insert((*name).to_owned(), shown);
            }
            let backends = self.explain(backends)?;
            let known = self.known.as_mut().expect("a process was met");
            let is_new = !std::mem::replace(&mut known.told, true);
            return Ok(Reading { process, is_new, backends });
        }
        Err(Error::Answer {
            asked: "show info".to_owned(),
            fault: "it comes from another process each time".to_owned(),
        })
    }

    /// Whether a resolver looks names up again. 2.2 ends its reply with two empty lines, which would be a reply too many.
    fn has_resolver(&self, dialect: Dialect) -> Result<bool, Error> {
        let (mut talk, line) = self.say(dialect, "show resolvers")?;
        let mut buffer = Vec::new();
        let answer = socket::text(talk.hear(&line, until(dialect, 1), &mut buffer)?);
        if answer.ends_with("\n\n") {
            return Ok(state::has_resolver(&answer));
        }
        Err(Error::Answer { asked: line, fault: "it was cut before its end".to_owned() })
    }

    /// What is behind a backend that is not there, or whose servers have names.
    fn explain(
        &mut self,
        tables: BTreeMap<String, Result<Table, BackendFault>>,
    ) -> Result<BTreeMap<String, Result<Servers, BackendFault>>, Error> {
        let is_missing = |table: &Result<Table, BackendFault>| matches!(table, Err(BackendFault::Missing(_)));
        let known = self.known.as_ref().expect("a process was met");
        let (dialect, resolver) = (known.dialect, known.resolver);
        let show_backend = match tables.values().any(is_missing) {
            true => self.ask(dialect, "show backend", 1)?.remove(0),
            false => String::new(),
        };
        let has_names = tables.values().flatten().any(|table| table.by_name.is_some());
        let resolver = match (resolver, has_names) {
            (Some(resolver), _) => Some(resolver),
            (None, true) => Some(self.has_resolver(dialect)?),
            (None, false) => None,
        };
        let known = self.known.as_mut().expect("a process was met");
        known.resolver = resolver;
        let judge = |(name, table): (String, Result<Table, BackendFault>)| {
            let servers = match table {
                Err(BackendFault::Missing(_)) => Err(state::absence(&show_backend)),
                Err(fault) => Err(fault),
                Ok(Table { disabled: true, .. }) => Err(BackendFault::Disabled),
                Ok(Table { by_record: Some(server), .. }) => Err(BackendFault::Resolved(format!("{name}/{server}"))),
                Ok(Table { by_name: Some(server), .. }) if resolver == Some(true) => {
                    Err(BackendFault::Resolved(format!("{name}/{server}")))
                }
                Ok(table) => {
                    known.numbers.extend(table.number.map(|number| (name.clone(), number)));
                    Ok(table.servers)
                }
            };
            (name, servers)
        };
        Ok(tables.into_iter().map(judge).collect())
    }

    fn compare(&mut self, names: &[&str]) -> Result<bool, Error> {
        let Some(known) = self.known.as_mut().filter(|known| known.stat_tells) else { return Ok(false) };
        let mut commands = vec!["show info".to_owned()];
        for name in names {
            // What has no number is not there; the next reading tells whether it still is not.
            let Some(number) = known.numbers.get(*name) else { return Ok(false) };
            commands.push(format!("show stat {number} 4 -1"));
        }
        let lines = lines(&commands, known.room(), String::len);
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.resize_with(lines.len(), Vec::new);
        let mut answers = Vec::with_capacity(lines.len());
        let asked = Instant::now();
        for (line, buffer) in lines.iter().zip(&mut buffers) {
            let text = known.dialect.line(&line.join(";"));
            let answer = self.socket.say(&text)?.hear(&text, until(known.dialect, line.len()), buffer)?;
            // What severity adds is one empty line.
            answers.push(answer.get(known.dialect.extra_replies()..).unwrap_or_default());
        }
        // The first reply is that to `show info`.
        let info = memchr::memmem::find(answers[0], b"\n\n").map_or(answers[0].len(), |end| end + 2);
        let (info, tables) = answers[0].split_at(info);
        answers[0] = tables;
        // A HAProxy that was paused while it answered reports too short an uptime, and is the same process still.
        let process = process(&socket::text(info), asked, Instant::now())?;
        let is_same_process = !process.is_other_than(&known.process);
        if is_same_process {
            known.process = process;
        }
        let unchanged = is_same_process && self.snapshot.as_ref().is_some_and(|snapshot| snapshot.matches(&answers));
        if !unchanged {
            self.snapshot = Snapshot::of(&answers, names.len());
            known.stat_tells = self.snapshot.is_some() || socket::text(tables).contains(snapshot::WEIGHT);
        }
        self.buffers = buffers;
        Ok(unchanged)
    }

    fn send_all(&mut self, steps: &[Vec<Command>], tell: &mut dyn FnMut(&Command, Verdict)) -> Result<(), Error> {
        // What was seen before a change is not as it was if another hand, such as an agent, sets it back.
        self.snapshot = None;
        let Some(known) = &mut self.known else { return Ok(()) };
        let dialect = known.dialect;
        let texts: Vec<String> =
            steps.iter().map(|step| step.iter().map(Command::to_string).collect::<Vec<_>>().join(";")).collect();
        let mut left: VecDeque<Range<usize>> = std::iter::once(0..steps.len()).collect();
        let mut under_way: VecDeque<(Range<usize>, Talk, String)> = VecDeque::new();
        let mut buffer = Vec::new();
        let mut result = Ok(());
        loop {
            while under_way.len() < LINES_UNDER_WAY && result.is_ok() {
                let Some(range) = left.pop_front() else { break };
                let Some(run) = lines(&texts[range.clone()], known.room(), String::len).first().map(|run| run.len())
                else {
                    continue;
                };
                let (now, later) = (range.start..range.start + run, range.start + run..range.end);
                left.push_front(later);
                let line = dialect.line(&texts[now.clone()].join(";"));
                match self.socket.say(&line) {
                    Ok(talk) => under_way.push_back((now, talk, line)),
                    Err(error) => result = Err(error),
                }
            }
            let Some((these, mut talk, line)) = under_way.pop_front() else { return result };
            let count = steps[these.clone()].iter().map(Vec::len).sum();
            let heard = talk.hear(&line, until(dialect, count), &mut buffer).map(socket::text);
            match heard.and_then(|answer| {
                for (command, reply) in
                    steps[these.clone()].iter().flatten().zip(replies(dialect, &line, count, &answer)?)
                {
                    tell(command, judge(command, reply));
                }
                Ok(())
            }) {
                Ok(()) => {}
                // Nothing of the line was done.
                Err(error) if known.learn(&error) => left.push_front(these),
                Err(error) => result = result.and(Err(error)),
            }
        }
    }

    /// What was learnt of the socket may be wrong after this: it is asked anew.
    fn doubt<T>(&mut self, result: Result<T, Error>) -> Result<T, crate::error::Error> {
        if let Err(error) = &result {
            self.snapshot = None;
            self.sure &= !matches!(error, Error::Connect { .. } | Error::Answer { .. } | Error::Level { .. });
        }
        Ok(result?)
    }
}

impl Haproxy for Runtime {
    fn answers(&self) -> bool {
        self.socket.answers()
    }

    fn is_as_it_was(&mut self, backends: &[&str]) -> Result<bool, crate::error::Error> {
        let same = self.compare(backends);
        self.doubt(same)
    }

    fn read(&mut self, backends: &[&str]) -> Result<Reading, crate::error::Error> {
        let reading = self.read_all(backends);
        self.doubt(reading)
    }

    fn send(
        &mut self,
        steps: &[Vec<Command>],
        tell: &mut dyn FnMut(&Command, Verdict),
    ) -> Result<(), crate::error::Error> {
        let sent = self.send_all(steps, tell);
        self.doubt(sent)
    }
}

/// When the answer to so many commands is over.
fn until(dialect: Dialect, count: usize) -> Until {
    if dialect.master { Until::Replies(count) } else { Until::Closed }
}

/// The replies to the commands of a line, without what the dialect adds.
fn replies<'a>(dialect: Dialect, line: &str, count: usize, answer: &'a str) -> Result<Vec<&'a str>, Error> {
    let mut replies = socket::replies(line, count + dialect.extra_replies(), answer)?;
    replies.drain(..dialect.extra_replies());
    Ok(replies)
}

/// Who answered, by the reply to `show info`.
fn process(info: &str, asked: Instant, answered: Instant) -> Result<Process, Error> {
    let cannot = |fault: String| Error::Answer { asked: "show info".to_owned(), fault };
    let value = |name: &str| {
        let value = info_value(info, name).map(str::to_owned);
        value.ok_or_else(|| cannot(format!("it has no line {name}")))
    };
    let uptime = value("Uptime_sec")?.parse().map(Duration::from_secs);
    Ok(Process {
        pid: value("Pid")?,
        version: value("Version")?,
        started: info_value(info, "Start_time_sec").map(str::to_owned),
        uptime: uptime.map_err(|_| cannot("its Uptime_sec is no number".to_owned()))?,
        asked,
        answered,
    })
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
