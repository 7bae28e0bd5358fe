//! A proxy in front of HAProxy's socket that records every line sent, and can spoil the way.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http::lock;

/// A connection on which nothing moves for this long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes to HAProxy.
    Open,
    /// It goes to HAProxy after that time.
    Slow(Duration),
    /// It is closed as soon as it was accepted.
    Closed,
    /// Its line is read, and no reply comes.
    Silent,
    /// Its reply ends after that many bytes.
    Cut(usize),
}

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    lines: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    target: PathBuf,
    way: Mutex<Way>,
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

/// The tap: a socket of its own, behind which HAProxy's is.
#[derive(Debug)]
pub struct Tap {
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens on `path` for what is meant for `target`, which need not be there yet.
    pub fn start(path: PathBuf, target: &Path) -> Self {
        let listener =
            UnixListener::bind(&path).unwrap_or_else(|error| panic!("cannot listen on {}: {error}", path.display()));
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            way: Mutex::new(Way::Open),
            seen: Mutex::default(),
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

    /// Every line that was sent, without its line end, since the start or since [`Tap::forget`].
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.seen).lines.clone()
    }

    /// Every command that was sent: the lines, split at their `;`.
    pub fn commands(&self) -> Vec<String> {
        self.lines().iter().flat_map(|line| line.split(';')).map(|command| command.trim().to_owned()).collect()
    }

    /// The commands among them that change something.
    pub fn changes(&self) -> Vec<String> {
        self.commands().into_iter().filter(|command| !command.starts_with("show ")).collect()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        lock(&self.shared.seen).connections
    }

    /// Forgets what was recorded.
    pub fn forget(&self) {
        *lock(&self.shared.seen) = Seen::default();
    }

    /// What happens to connections from now on.
    pub fn set_way(&self, way: Way) {
        *lock(&self.shared.way) = way;
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Shared {
    fn carry(&self, mut stream: UnixStream) {
        lock(&self.seen).connections += 1;
        let _ = stream.set_read_timeout(Some(IDLE));
        let way = *lock(&self.way);
        if way == Way::Closed {
            return;
        }
        let Ok(readable) = stream.try_clone() else { return };
        let mut reader = BufReader::new(readable);
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(length) if length > 0) {
            return;
        }
        lock(&self.seen).lines.push(line.trim_end_matches('\n').to_owned());
        match way {
            Way::Silent => {
                // Until the peer closes, or the idle time is over.
                let _ = reader.read(&mut [0]);
            }
            Way::Slow(span) => {
                std::thread::sleep(span);
                self.pass(&line, reader, &mut stream, usize::MAX);
            }
            Way::Cut(bytes) => self.pass(&line, reader, &mut stream, bytes),
            Way::Open | Way::Closed => self.pass(&line, reader, &mut stream, usize::MAX),
        }
    }

    /// Sends the line to HAProxy, any further lines too (they are recorded), and up to `limit` bytes of the reply back.
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
            let _ = std::io::copy(&mut target.take(u64::try_from(limit).unwrap_or(u64::MAX)), back);
            // Ends the reader above as well.
            let _ = back.shutdown(std::net::Shutdown::Both);
        });
    }
}
