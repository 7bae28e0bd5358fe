//! Reads backends and sends commands: the steps of a talk, over `socket`.

use std::collections::BTreeMap;

use super::command::{self, Command, Verdict};
use super::error::Error;
use super::socket::{MAX_LINE, Socket};
use super::state::{self, Servers};

/// Which HAProxy process answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id, which changes with a restart and with a reload.
    pub pid: String,
    /// Its version.
    pub version: String,
}

/// What HAProxy runs, read in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Who answered.
    pub process: Process,
    /// The servers of each backend that was asked for.
    pub backends: BTreeMap<String, Servers>,
}

/// A command that was sent, and what HAProxy made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The command.
    pub command: Command,
    /// What HAProxy said to it.
    pub verdict: Verdict,
}

/// The Runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    socket: Socket,
    /// Whether this version's `show stat` lacks the weight that was set, as 2.2 does.
    stat_lacks_weight: bool,
}

impl Runtime {
    /// Over `socket`; nothing is sent yet.
    pub fn new(socket: Socket) -> Self {
        Runtime { socket, stat_lacks_weight: false }
    }

    /// What is wrong with the socket or the configured names, that only a person can mend: a level below admin, a
    /// backend that is not there, a base name that no server has. `targets` are pairs of backend and base name.
    ///
    /// # Errors
    /// The first such fault, or a failed talk.
    pub fn check(&mut self, targets: &[(&str, &str)]) -> Result<(), Error> {
        let replies = self.socket.ask(&["show cli level".to_owned(), "show backend".to_owned()])?;
        let level = replies[0].trim();
        if level != "admin" {
            return Err(Error::Level {
                path: self.socket.path().to_path_buf(),
                level: level.chars().take(40).collect(),
            });
        }
        let known = state::parse_backends(&replies[1]);
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

    /// Reads the servers of `backends`, over one connection (two the first time, on HAProxy 2.2).
    ///
    /// # Errors
    /// The talk failed, an answer cannot be read, or a backend is not there. A partial reading is an error.
    pub fn read(&mut self, backends: &[&str]) -> Result<Reading, Error> {
        let reading = self.read_once(backends)?;
        let lacks = reading.backends.values().flat_map(BTreeMap::values).any(|server| server.weight.is_none());
        if lacks && !self.stat_lacks_weight {
            self.stat_lacks_weight = true;
            return self.read_once(backends);
        }
        Ok(reading)
    }

    fn read_once(&self, backends: &[&str]) -> Result<Reading, Error> {
        let mut commands = vec!["show info".to_owned()];
        let mut names: Vec<&str> = backends.to_vec();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            commands.push(format!("show stat {name} 4 -1"));
            if self.stat_lacks_weight {
                commands.push(format!("show servers state {name}"));
            }
        }
        let mut replies = Vec::with_capacity(commands.len());
        for line in command::lines(&commands, MAX_LINE, String::len) {
            replies.extend(self.socket.ask(line)?);
        }
        let cannot = |asked: &str, fault| Error::Answer { asked: asked.to_owned(), fault };
        let value = |name| {
            state::info_value(&replies[0], name)
                .map(str::to_owned)
                .ok_or_else(|| cannot("show info", format!("it has no line {name}")))
        };
        let process = Process { pid: value("Pid")?, version: value("Version")? };
        let mut tables = BTreeMap::new();
        let mut rest = commands.iter().zip(&replies).skip(1);
        for name in &names {
            let (asked, reply) = rest.next().expect("a command was pushed for each name");
            if state::is_unknown_backend(reply) {
                return Err(Error::NoBackend { backend: (*name).to_owned(), known: Vec::new() });
            }
            let mut servers = state::parse_stat(reply).map_err(|fault| cannot(asked, fault))?;
            if self.stat_lacks_weight {
                let (asked, reply) = rest.next().expect("a second command was pushed for each name");
                let weights = state::parse_weights(reply).map_err(|fault| cannot(asked, fault))?;
                for (name, server) in &mut servers {
                    server.weight = server.weight.or(weights.get(name).copied());
                }
            }
            tables.insert((*name).to_owned(), servers);
        }
        Ok(Reading { process, backends: tables })
    }

    /// Sends the commands of `steps` in order, in joined lines that never cut a step, and gives each command's outcome
    /// to `tell` as its line is answered. HAProxy does a line as a whole, so a step is done whole or not at all.
    ///
    /// # Errors
    /// A talk failed: the commands of that line may or may not have been done, those of later lines were not sent.
    pub fn send(&self, steps: &[Vec<Command>], mut tell: impl FnMut(Outcome)) -> Result<(), Error> {
        let texts: Vec<Vec<String>> =
            steps.iter().map(|commands| commands.iter().map(Command::text).collect()).collect();
        let mut commands = steps.iter().flatten();
        let length = |step: &Vec<String>| step.iter().map(|text| text.len() + 1).sum::<usize>().saturating_sub(1);
        for line in command::lines(&texts, MAX_LINE, length) {
            let line: Vec<String> = line.concat();
            for (reply, command) in self.socket.ask(&line)?.iter().zip(&mut commands) {
                tell(Outcome { command: command.clone(), verdict: command.judge(reply) });
            }
        }
        Ok(())
    }
}
