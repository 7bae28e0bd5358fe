//! A proxy in front of HAProxy's socket that records every line and can inject faults.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http::lock;
use super::random::Random;

/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// The pause after each byte of a slow reply.
const TRICKLE: Duration = Duration::from_micros(150);

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFault {
    /// Forwarded.
    None,
    /// Forwarded after that time.
    Slow(Duration),
    /// Closed as soon as it is accepted.
    Closed,
    /// Reset: closed with unread bytes in it.
    Reset,
    /// Its line is read but not forwarded; no reply.
    Silent,
    /// Its line is executed; no reply.
    Mute,
    /// Its line is executed; closed without the reply.
    Lost,
    /// Its line reaches HAProxy up to that byte, then it is closed.
    Half(usize),
    /// Its reply ends after that many bytes.
    Cut(usize),
    /// Its reply comes byte by byte.
    Trickle,
    /// Its line is not executed, and the reply is not text.
    Garbage,
    /// Its line is not executed; every command is answered `Permission denied`.
    Denied,
    /// Its line is not executed, and the reply never ends.
    Endless,
    /// Forwarded, and the reply shows process id 8: in a container, each new process has the same id.
    OnePid,
}

/// What replaces the tap's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    Nothing,
    /// A socket without a listener.
    NoListener,
    File,
}

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    lines: Vec<String>,
}

/// Decides what happens to each connection.
#[derive(Debug)]
struct Policy {
    fault: SocketFault,
    /// For lines that change something, if different.
    changing: Option<SocketFault>,
    /// Seed, percentage, and the faults to pick from.
    random: (u64, u64, Vec<SocketFault>),
    /// Connections since that was set.
    count: u64,
}

impl Policy {
    fn new(fault: SocketFault) -> Self {
        Policy { fault, changing: None, random: (0, 0, Vec::new()), count: 0 }
    }

    fn next(&mut self) -> SocketFault {
        let (seed, percent, faults) = &self.random;
        self.count += 1;
        let mut random = Random::stream(*seed, "connection", self.count);
        if !faults.is_empty() && random.percent(*percent) { *random.pick(faults) } else { self.fault }
    }
}

#[derive(Debug)]
struct Shared {
    target: PathBuf,
    policy: Mutex<Policy>,
    seen: Mutex<Seen>,
    struck: Mutex<Vec<SocketFault>>,
    stop: AtomicBool,
}

/// A socket in front of HAProxy's.
#[derive(Debug)]
pub struct Tap {
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens on `path` for `target`, which need not exist yet.
    pub fn start(path: PathBuf, target: &Path) -> Self {
        let listener =
            UnixListener::bind(&path).unwrap_or_else(|error| panic!("cannot listen on {}: {error}", path.display()));
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            policy: Mutex::new(Policy::new(SocketFault::None)),
            seen: Mutex::default(),
            struck: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || shared.carry(stream));
            }
        });
        Tap { path, shared, accepting: Some(accepting) }
    }

    /// The socket to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines sent since the start or since [`Tap::forget`], without their line ends.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.seen).lines.clone()
    }

    /// Those lines, split into commands at `;`.
    pub fn commands(&self) -> Vec<String> {
        self.lines().iter().flat_map(|line| line.split(';')).map(|command| command.trim().to_owned()).collect()
    }

    /// Those commands that change something.
    pub fn changes(&self) -> Vec<String> {
        self.commands().into_iter().filter(|command| !command.starts_with("show ")).collect()
    }

    pub fn connections(&self) -> usize {
        lock(&self.shared.seen).connections
    }

    pub fn forget(&self) {
        *lock(&self.shared.seen) = Seen::default();
    }

    /// From now on, for all connections.
    pub fn set_fault(&self, fault: SocketFault) {
        *lock(&self.shared.policy) = Policy::new(fault);
    }

    /// From now on, for lines that change something.
    pub fn set_fault_on_changes(&self, fault: SocketFault) {
        lock(&self.shared.policy).changing = Some(fault);
    }

    /// From now on, this percentage of connections take one of these faults; a seed repeats the sequence.
    pub fn schedule(&self, seed: u64, percent: u64, faults: Vec<SocketFault>) {
        *lock(&self.shared.policy) = Policy { random: (seed, percent, faults), ..Policy::new(SocketFault::None) };
    }

    /// The faults that struck since the last call of this.
    pub fn struck(&self) -> Vec<SocketFault> {
        std::mem::take(&mut *lock(&self.shared.struck))
    }

    /// Replaces the socket until [`Tap::heal`].
    pub fn replace_socket(&self, behind: Replacement) {
        self.show();
        fs::rename(&self.path, self.aside()).expect("the socket can be moved");
        match behind {
            Replacement::Nothing => {}
            Replacement::NoListener => drop(UnixListener::bind(&self.path).expect("the path is free")),
            Replacement::File => fs::write(&self.path, "no socket").expect("the path is free"),
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.show();
        self.set_fault(SocketFault::None);
    }

    fn show(&self) {
        if self.aside().exists() {
            fs::rename(self.aside(), &self.path).expect("the socket can be moved back");
        }
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension("aside")
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if self.aside().exists() {
            let _ = fs::rename(self.aside(), &self.path);
        }
        // Wakes the accepting thread, which then sees the flag.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

impl Shared {
    fn carry(&self, mut stream: UnixStream) {
        lock(&self.seen).connections += 1;
        let _ = stream.set_read_timeout(Some(IDLE));
        let mut fault = lock(&self.policy).next();
        if fault == SocketFault::Closed || fault == SocketFault::Reset {
            lock(&self.struck).push(fault);
            if fault == SocketFault::Reset {
                // Closing with unread bytes resets the connection.
                let _ = stream.read(&mut [0]);
            }
            return;
        }
        let Ok(readable) = stream.try_clone() else { return };
        let mut reader = BufReader::new(readable);
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(length) if length > 0) {
            return;
        }
        lock(&self.seen).lines.push(line.trim_end_matches('\n').to_owned());
        if !line.starts_with("show ") {
            fault = lock(&self.policy).changing.unwrap_or(fault);
        }
        if fault != SocketFault::None {
            lock(&self.struck).push(fault);
        }
        match fault {
            // Until the peer closes, or the idle time is over.
            SocketFault::Silent => drop(reader.read(&mut [0])),
            SocketFault::Mute => {
                self.ask(&line);
                drop(reader.read(&mut [0]));
            }
            SocketFault::Lost => drop(self.ask(&line)),
            SocketFault::Half(bytes) => drop(self.ask(line.get(..bytes.min(line.len() - 1)).unwrap_or_default())),
            SocketFault::Trickle => {
                for byte in self.ask(&line) {
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(TRICKLE);
                }
            }
            SocketFault::Garbage => drop(stream.write_all(b"\xff\xfe\x00# garbage, with no end")),
            SocketFault::Denied => {
                drop(stream.write_all("Permission denied\n\n".repeat(line.split(';').count()).as_bytes()));
            }
            SocketFault::Endless => while stream.write_all(&b"# endless,\n".repeat(6_000)).is_ok() {},
            SocketFault::OnePid => drop(stream.write_all(&with_one_pid(&self.ask(&line)))),
            SocketFault::Slow(span) => {
                std::thread::sleep(span);
                self.pass(&line, reader, &mut stream, usize::MAX);
            }
            SocketFault::Cut(bytes) => self.pass(&line, reader, &mut stream, bytes),
            SocketFault::None | SocketFault::Closed | SocketFault::Reset => {
                self.pass(&line, reader, &mut stream, usize::MAX);
            }
        }
    }

    /// HAProxy's whole reply to that text; empty if it is unreachable.
    fn ask(&self, text: &str) -> Vec<u8> {
        let mut reply = Vec::new();
        let asked = || -> io::Result<UnixStream> {
            let mut target = UnixStream::connect(&self.target)?;
            target.set_read_timeout(Some(IDLE))?;
            target.write_all(text.as_bytes())?;
            target.shutdown(Shutdown::Write)?;
            Ok(target)
        };
        if let Ok(mut target) = asked() {
            let _ = target.read_to_end(&mut reply);
        }
        reply
    }

    /// Forwards the line and any further ones (recorded too), and returns up to `limit` bytes of the reply.
    fn pass(&self, line: &str, mut more: BufReader<UnixStream>, back: &mut UnixStream, limit: usize) {
        let Ok(mut target) = UnixStream::connect(&self.target) else { return };
        let _ = target.set_read_timeout(Some(IDLE));
        if target.write_all(line.as_bytes()).is_err() {
            return;
        }
        let Ok(mut ahead) = target.try_clone() else { return };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut line = String::new();
                while matches!(more.read_line(&mut line), Ok(length) if length > 0) {
                    lock(&self.seen).lines.push(line.trim_end_matches('\n').to_owned());
                    if ahead.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
            let _ = io::copy(&mut target.take(u64::try_from(limit).unwrap_or(u64::MAX)), back);
            // Also ends the reader above.
            let _ = back.shutdown(Shutdown::Both);
        });
    }
}

/// The reply with its `Pid: …` line replaced by `Pid: 8`.
fn with_one_pid(reply: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(reply);
    let lines = text.split_inclusive('\n').map(|line| if line.starts_with("Pid: ") { "Pid: 8\n" } else { line });
    lines.collect::<String>().into_bytes()
}
