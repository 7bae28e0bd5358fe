//! Reads backends and sends commands: the steps of a talk, over `socket`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::command::{self, Command, Verdict};
use super::error::Error;
use super::essence::Essence;
use super::socket::{self, MAX_LINE, Socket};
use super::state::{self, Servers};

/// How many lines of commands are under way at a time. With one, HAProxy waits for hsdo between two of them, a third of
/// the time; with three it is hardly faster than with two (measured on 2.6 with two threads and 1,000 servers).
const LINES_UNDER_WAY: usize = 2;

/// Which HAProxy process answered, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id, which changes with a reload, and with a restart unless it runs in a container.
    pub pid: String,
    /// Its version.
    pub version: String,
    /// When it was started, seconds since 1970 by its own clock; none on 2.2, which does not tell.
    pub started: Option<String>,
    /// How long it had run: whole seconds. 2.6 does not count the time that it was stopped by a signal.
    pub uptime: Duration,
    /// It said so after this.
    pub asked: Instant,
    /// It said so before this.
    pub answered: Instant,
}

impl Process {
    /// How much less than the time that passed the time that it had run may have grown: it is told in whole seconds.
    const SLACK: Duration = Duration::from_millis(1_250);

    /// Whether this is another process than `before`, which answered earlier. The id alone does not tell: in a container
    /// a new process has the id of the last one. One that was started anew within a second of its start is not seen.
    pub fn is_other_than(&self, before: &Process) -> bool {
        let between = self.asked.saturating_duration_since(before.answered);
        // The clocks of two processes may drift by a hundredth.
        let least = (before.uptime + between).saturating_sub(Self::SLACK + between / 100);
        let anew = match (&self.started, &before.started) {
            (Some(started), Some(before)) => started != before,
            _ => self.uptime < least,
        };
        self.pid != before.pid || self.version != before.version || anew
    }
}

/// What HAProxy runs, read in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Who answered.
    pub process: Process,
    /// The servers of each backend that was asked for.
    pub backends: BTreeMap<String, Servers>,
}

/// The Runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    socket: Socket,
    /// Whether this version's `show stat` lacks the weight that was set, as 2.2 does.
    stat_lacks_weight: bool,
    /// The numbers of the backends that cannot be asked for by name.
    numbers: BTreeMap<String, String>,
    /// What HAProxy sent last, a buffer a line of commands: kept for their memory.
    buffers: Vec<Vec<u8>>,
    /// What mattered of the last reading; none where that cannot be told.
    essence: Option<Essence>,
}

/// What one attempt at a reading gave.
enum Look {
    /// All of it.
    Whole(Reading),
    /// All that matters is as it was.
    Same,
    /// It taught how to ask better.
    Again,
}

impl Runtime {
    /// Over `socket`; nothing is sent yet.
    pub fn new(socket: Socket) -> Self {
        Runtime { socket, stat_lacks_weight: false, numbers: BTreeMap::new(), buffers: Vec::new(), essence: None }
    }

    /// Whether anybody listens on the socket.
    pub fn answers(&self) -> bool {
        self.socket.answers()
    }

    /// What is wrong with the socket or the configured names, that only a person can mend: a level below admin, a
    /// backend that is not there, a base name that no server has. `targets` are pairs of backend and base name.
    ///
    /// # Errors
    /// The first such fault, or a failed talk.
    pub fn check(&mut self, targets: &[(&str, &str)]) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let replies = self.socket.ask("show cli level;show backend", 2, &mut buffer)?;
        let level = replies[0].trim();
        if level != "admin" {
            return Err(Error::Level { path: self.socket.path().to_path_buf(), level: level.to_owned() });
        }
        let known = state::parse_backends(replies[1]);
        for (backend, _) in targets {
            if !known.iter().any(|name| name == backend) {
                return Err(Error::NoBackend { backend: (*backend).to_owned(), known });
            }
        }
        let names: Vec<&str> = targets.iter().map(|(backend, _)| *backend).collect();
        let reading = self.read(&names)?;
        for (backend, base) in targets {
            let servers = &reading.backends[*backend];
            if !servers.keys().any(|name| state::number_of(name, base).is_some()) {
                let mut known: Vec<String> = servers.keys().map(|name| state::likely_base(name).to_owned()).collect();
                known.dedup();
                let (backend, base) = ((*backend).to_owned(), (*base).to_owned());
                return Err(Error::NoServers { backend, base, known });
            }
        }
        Ok(())
    }

    /// Reads the servers of `backends`, over one connection. The first time it may take more: HAProxy 2.2 shows weights
    /// elsewhere, and a backend that has its name from a frontend must be asked for by its number.
    ///
    /// # Errors
    /// The talk failed, an answer cannot be read, or a backend is not there. A partial reading is an error.
    pub fn read(&mut self, backends: &[&str]) -> Result<Reading, Error> {
        self.essence = None;
        Ok(self.read_other(backends)?.expect("without an essence nothing is like the last reading"))
    }

    /// The same, but `None` where all that matters is as it was in the last reading, of the same backends; that is told
    /// without reading every field.
    ///
    /// # Errors
    /// As [`Runtime::read`].
    pub fn read_other(&mut self, backends: &[&str]) -> Result<Option<Reading>, Error> {
        let mut names: Vec<&str> = backends.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut read = || {
            for _ in 0..4 {
                match self.read_once(&names, &mut buffers)? {
                    Look::Whole(reading) => return Ok(Some(reading)),
                    Look::Same => return Ok(None),
                    Look::Again => {}
                }
            }
            Err(cannot("show stat", "its backends change while they are read"))
        };
        let reading = read();
        match &reading {
            Ok(_) => self.buffers = buffers,
            // What came is no measure of what comes next: a reply without an end may have filled 128 MB.
            Err(_) => self.essence = None,
        }
        reading
    }

    fn read_once(&mut self, names: &[&str], buffers: &mut Vec<Vec<u8>>) -> Result<Look, Error> {
        let mut commands = vec!["show info".to_owned()];
        for name in names {
            commands.push(match self.numbers.get(*name) {
                // With the row of the backend itself, which tells its name.
                Some(number) => format!("show stat {number} 6 -1"),
                None => format!("show stat {name} 4 -1"),
            });
            if self.stat_lacks_weight {
                commands.push(format!("show servers state {name}"));
            }
        }
        let lines = command::lines(&commands, MAX_LINE, String::len);
        buffers.resize_with(lines.len(), Vec::new);
        let asked = Instant::now();
        let mut answers = Vec::with_capacity(lines.len());
        for (line, buffer) in lines.iter().zip(buffers) {
            let line = line.join(";");
            // An answer that is most likely the last one again is waited for without hurry.
            answers.push(self.socket.say(&line)?.hear(&line, buffer, self.essence.is_none())?);
        }
        let answered = Instant::now();
        if self.essence.as_ref().is_some_and(|essence| essence.is_that_of(&answers)) {
            return Ok(Look::Same);
        }
        self.essence = None;
        let mut replies = Vec::with_capacity(commands.len());
        for (line, answer) in lines.iter().zip(&answers) {
            replies.extend(socket::replies(&line.join(";"), line.len(), answer)?);
        }
        let value = |name| {
            state::info_value(replies[0], name)
                .map(str::to_owned)
                .ok_or_else(|| cannot("show info", format!("it has no line {name}")))
        };
        let uptime = value("Uptime_sec")?.parse().map(Duration::from_secs);
        let process = Process {
            pid: value("Pid")?,
            version: value("Version")?,
            started: state::info_value(replies[0], "Start_time_sec").map(str::to_owned),
            uptime: uptime.map_err(|_| cannot("show info", "its Uptime_sec is no number"))?,
            asked,
            answered,
        };
        let mut tables = BTreeMap::new();
        let mut rest = commands.iter().zip(&replies).skip(1);
        for name in names {
            let (asked, reply) = rest.next().expect("a command was pushed for each name");
            if self.numbers.contains_key(*name) && !state::is_of_backend(reply, name) {
                // Another process, that numbers its backends otherwise.
                self.numbers.clear();
                return Ok(Look::Again);
            }
            if state::is_unknown_backend(reply) {
                return Err(Error::NoBackend { backend: (*name).to_owned(), known: Vec::new() });
            }
            let mut servers = state::parse_stat(reply).map_err(|fault| cannot(asked, fault))?;
            if servers.is_empty() && !self.numbers.contains_key(*name) {
                // A frontend of that name, which HAProxy finds first, has no servers.
                self.number(name)?;
                return Ok(Look::Again);
            }
            if self.stat_lacks_weight {
                let (asked, reply) = rest.next().expect("a second command was pushed for each name");
                let weights = state::parse_weights(reply).map_err(|fault| cannot(asked, fault))?;
                for (name, server) in &mut servers {
                    server.weight = server.weight.or(weights.get(name).copied());
                }
            } else if servers.values().any(|server| server.weight.is_none()) {
                self.stat_lacks_weight = true;
                return Ok(Look::Again);
            }
            tables.insert((*name).to_owned(), servers);
        }
        // With the weights in another reply there is more than one table a backend.
        self.essence = if self.stat_lacks_weight { None } else { Essence::of(&answers, names.len()) };
        Ok(Look::Whole(Reading { process, backends: tables }))
    }

    /// Learns the number of a backend.
    fn number(&mut self, name: &str) -> Result<(), Error> {
        let asked = "show stat -1 2 -1";
        let mut buffer = Vec::new();
        let replies = self.socket.ask(asked, 1, &mut buffer)?;
        let mut numbers = state::parse_numbers(replies[0]).map_err(|fault| cannot(asked, fault))?;
        match numbers.remove(name) {
            Some(number) => self.numbers.insert(name.to_owned(), number),
            None => {
                let known = numbers.into_keys().collect();
                return Err(Error::NoBackend { backend: name.to_owned(), known });
            }
        };
        Ok(())
    }

    /// Sends the commands of `steps` in joined lines that never cut a step, and gives `tell` what HAProxy made of each as
    /// its line is answered. HAProxy does a line to its end as long as hsdo is there; of a line whose sender is gone 2.2 to 3.0
    /// may drop what is left, so every step must bear to be cut. While HAProxy does one line the next one is under way
    /// already, and a thread of its own may do that before: the steps must not lean on each other.
    ///
    /// # Errors
    /// A talk failed, the first one is named: the commands of its line may or may not have been done. What was under way
    /// with it is told still, and nothing further was sent.
    pub fn send<'a>(&self, steps: &'a [Vec<Command>], mut tell: impl FnMut(&'a Command, Verdict)) -> Result<(), Error> {
        let texts: Vec<String> =
            steps.iter().map(|step| step.iter().map(Command::to_string).collect::<Vec<_>>().join(";")).collect();
        let mut steps = steps;
        let mut lines = command::lines(&texts, MAX_LINE, String::len).into_iter();
        let mut under_way = VecDeque::new();
        let mut buffer = Vec::new();
        let mut result = Ok(());
        loop {
            while under_way.len() < LINES_UNDER_WAY && result.is_ok() {
                let Some(line) = lines.next() else { break };
                let (these, later) = steps.split_at(line.len());
                steps = later;
                let line = line.join(";");
                match self.socket.say(&line) {
                    Ok(talk) => under_way.push_back((these, line, talk)),
                    Err(error) => result = Err(error),
                }
            }
            let Some((these, line, talk)) = under_way.pop_front() else { return result };
            let count = these.iter().map(Vec::len).sum();
            match talk.hear(&line, &mut buffer, true).and_then(|answer| socket::replies(&line, count, answer)) {
                Ok(replies) => {
                    for (command, reply) in these.iter().flatten().zip(replies) {
                        tell(command, command.judge(reply));
                    }
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
    }
}

fn cannot(asked: &str, fault: impl Into<String>) -> Error {
    Error::Answer { asked: asked.to_owned(), fault: fault.into() }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::command::Change;
    use super::super::socket::Limits;
    use super::*;

    #[test]
    fn another_process_may_have_the_same_id() {
        let start = Instant::now() + Duration::from_secs(60);
        // When it was asked and had answered, milliseconds after the start, and the seconds it said to have run.
        let process = |pid: &str, asked: u64, answered: u64, uptime: u64| Process {
            pid: pid.to_owned(),
            version: "3.0".to_owned(),
            started: None,
            uptime: Duration::from_secs(uptime),
            asked: start + Duration::from_millis(asked),
            answered: start + Duration::from_millis(answered),
        };
        let before = process("8", 0, 0, 100);
        for (name, now, other) in [
            ("a second later", process("8", 1_000, 1_000, 101), false),
            ("a second that it does not show yet", process("8", 1_000, 1_000, 100), false),
            ("hours later, by a slow clock", process("8", 36_000_000, 36_000_000, 35_900), false),
            ("started anew", process("8", 1_000, 1_000, 0), true),
            ("started anew, long ago", process("8", 36_000_000, 36_000_000, 34_000), true),
            ("another id", process("9", 1_000, 1_000, 101), true),
        ] {
            assert_eq!(now.is_other_than(&before), other, "{name}");
        }
        // It hung for 4 seconds before it said 104.
        let slow = process("8", 0, 4_000, 104);
        assert!(!process("8", 4_100, 4_100, 104).is_other_than(&slow));
        assert!(!process("8", 4_100, 9_000, 105).is_other_than(&slow));
        assert!(!process("8", 1_000, 1_000, 0).is_other_than(&process("8", 0, 0, 0)), "too young to tell");
        let started = |process, at: &str| Process { started: Some(at.to_owned()), ..process };
        let before = started(before, "1700");
        assert!(!started(process("8", 9_000, 9_000, 100), "1700").is_other_than(&before), "it was stopped meanwhile");
        assert!(started(process("8", 1_000, 1_000, 101), "1701").is_other_than(&before), "it says when it was started");
    }

    /// The line that a connection brought, and the connection.
    fn accept(listener: &UnixListener) -> (String, UnixStream) {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (line, stream)
    }

    /// Lines of one step each, as long as a line may be almost.
    fn long_steps(count: u16) -> Vec<Vec<Command>> {
        let step =
            |slot| (0..200).map(|_| Command::new("back", &format!("web{slot}"), Change::Ready).unwrap()).collect();
        (1..=count).map(step).collect()
    }

    #[test]
    fn the_next_line_is_under_way_while_one_is_done() {
        let path = std::env::temp_dir().join(format!("hsdo-under-way-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let haproxy = std::thread::spawn(move || {
            let mut under_way = VecDeque::from([accept(&listener)]);
            for _ in 2..=4 {
                under_way.push_back(accept(&listener));
                under_way.pop_front().unwrap().1.write_all(&[b'\n'; 200]).unwrap();
            }
            under_way[0].1.write_all(&[b'\n'; 200]).unwrap();
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "a fifth line");
        });
        let mut done = Vec::new();
        let steps = long_steps(4);
        let runtime = Runtime::new(Socket::new(&path, Limits::default()));
        runtime.send(&steps, |command, verdict| done.push((command, verdict))).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(done.iter().map(|(command, _)| *command).eq(steps.iter().flatten()), "not each, or not in order");
        assert!(done.iter().all(|(_, verdict)| *verdict == Verdict::Done));
        haproxy.join().unwrap();
    }

    #[test]
    fn after_a_line_that_failed_nothing_more_is_sent_and_what_was_under_way_is_heard() {
        let path = std::env::temp_dir().join(format!("hsdo-failed-line-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let haproxy = std::thread::spawn(move || {
            let [(_, first), (_, mut second)] = [accept(&listener), accept(&listener)];
            drop(first);
            second.write_all(&[b'\n'; 200]).unwrap();
            listener
        });
        let mut done = 0;
        let runtime = Runtime::new(Socket::new(&path, Limits::default()));
        let steps = long_steps(4);
        let error = runtime.send(&steps, |command, _| {
            assert_eq!(command.server(), "web2");
            done += 1;
        });
        std::fs::remove_file(path).unwrap();
        assert!(error.unwrap_err().to_string().contains("0 replies to 200 commands"));
        assert_eq!(done, 200);
        let listener = haproxy.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "a third line");
    }

    #[test]
    fn a_reply_that_cannot_be_used_leaves_no_memory_behind() {
        let path = std::env::temp_dir().join(format!("hsdo-runtime-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let endless = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 8]).unwrap();
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let mut runtime = Runtime::new(Socket::new(&path, Limits { bytes: 1_000_000, ..Limits::default() }));
        let error = runtime.read(&["back"]).unwrap_err().to_string();
        std::fs::remove_file(path).unwrap();
        assert!(error.contains("longer than 1000000 bytes"), "{error}");
        assert_eq!(runtime.buffers, Vec::<Vec<u8>>::new());
        endless.join().unwrap();
    }
}
