//! One line of joined commands, one connection, one deadline. The only opener of the Runtime API's socket.
//!
//! Each line gets a connection of its own: HAProxy closes after the first line's replies, 3.0 and later drop
//! every line after the first in silence, and a connection opened before a reload stays with the old worker.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::error::Error;
use super::reply;

/// The longest line that is sent, with its line end. HAProxy 2.2 hangs on a line of more than 15,360 bytes
/// (`bufsize` less `maxrewrite`), 3.2 refuses one of more than 16,384.
pub const MAX_LINE: usize = 8 * 1024;

/// How much is read at a time, at least: HAProxy writes up to 16 KB.
const CHUNK: usize = 16 * 1024;

/// How long to wait before each further reading of a long answer that nobody is in a hurry for: HAProxy writes 12 to 16 KB
/// at a time, and each writing wakes the reader. Its side of the socket holds some 137 KB while nobody reads, which it
/// takes some 4 ms to fill (measured on 2.6 with 5,000 servers).
const PATIENCE: Duration = Duration::from_millis(2);

/// Limits of one talk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long connecting may take: HAProxy's queue of connections may be full.
    pub connect: Duration,
    /// How long the rest may take, from the first byte written to the last one read.
    pub talk: Duration,
    /// How many bytes an answer may hold. 10,000 slots are about 3 MB.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connect: Duration::from_secs(2), talk: Duration::from_secs(5), bytes: 64 * 1024 * 1024 }
    }
}

/// The path of a Runtime API and the limits of each talk with it.
#[derive(Clone, Debug)]
pub struct Socket {
    path: PathBuf,
    limits: Limits,
}

impl Socket {
    /// For the socket at `path`, which need not exist yet.
    pub fn new(path: &Path, limits: Limits) -> Self {
        Socket { path: path.to_path_buf(), limits }
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a line of so many commands, which `;` joins, and gives the reply to each, in order. `buffer` holds the replies;
    /// one that is used again keeps its memory.
    ///
    /// # Errors
    /// The socket cannot be reached, falls silent, or gives another number of replies than there are commands.
    pub fn ask<'a>(&self, line: &str, count: usize, buffer: &'a mut Vec<u8>) -> Result<Vec<&'a str>, Error> {
        replies(line, count, self.say(line)?.hear(line, buffer, true)?)
    }

    /// Whether anybody listens.
    pub fn answers(&self) -> bool {
        self.connect().is_ok()
    }

    /// Sends a line of commands, whose answer is then to be heard.
    ///
    /// # Errors
    /// The socket cannot be reached, or takes nothing.
    pub(super) fn say(&self, line: &str) -> Result<Talk, Error> {
        debug_assert!(line.len() < MAX_LINE && !line.contains('\n'), "an unsafe line: {line:?}");
        let mut stream = self.connect().map_err(|source| Error::Connect { path: self.path.clone(), source })?;
        let deadline = Instant::now() + self.limits.talk;
        let sent = stream.set_write_timeout(Some(self.limits.talk));
        sent.and_then(|()| stream.write_all(format!("{line}\n").as_bytes())).map_err(|source| broke(line, source))?;
        Ok(Talk { stream, deadline, limit: self.limits.bytes })
    }

    /// Connects within the limit. The kernel lets a connect to a full queue wait for `SO_SNDTIMEO`, and the standard
    /// library cannot set that before it connects: hence `socket2` (unix(7), socket(7)).
    fn connect(&self) -> io::Result<UnixStream> {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(self.limits.connect))?;
        socket.connect(&SockAddr::unix(&self.path)?)?;
        Ok(UnixStream::from(socket))
    }
}

/// A line that was sent, and its answer that is to come.
pub(super) struct Talk {
    stream: UnixStream,
    deadline: Instant,
    limit: usize,
}

impl Talk {
    /// The bytes that come back, for [`replies`]. They are in `buffer`. Who is in no `hurry` for a long answer gets it some
    /// milliseconds later, for less work of both sides. `line` is what was said, for a message.
    ///
    /// # Errors
    /// HAProxy falls silent, or says too much.
    pub(super) fn hear<'a>(mut self, line: &str, buffer: &'a mut Vec<u8>, hurry: bool) -> Result<&'a [u8], Error> {
        let broke = |source| broke(line, source);
        let mut length = 0;
        loop {
            if length > CHUNK && !hurry {
                thread::sleep(PATIENCE);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(broke(io::ErrorKind::TimedOut.into()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(broke)?;
            if buffer.len() < length + CHUNK {
                buffer.resize((length + CHUNK).max(2 * length), 0);
            }
            match self.stream.read(&mut buffer[length..]) {
                Ok(0) => return Ok(&buffer[..length]),
                Ok(n) if length + n > self.limit => {
                    let fault = format!("it is longer than {} bytes", self.limit);
                    return Err(Error::Answer { asked: shorten(line), fault });
                }
                Ok(n) => length += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broke(error)),
            }
        }
    }
}

/// The reply to each of the `count` commands of `line` in what came back for it.
///
/// # Errors
/// It is no text, was cut, or has another number of replies.
pub(super) fn replies<'a>(line: &str, count: usize, answer: &'a [u8]) -> Result<Vec<&'a str>, Error> {
    let text = std::str::from_utf8(answer).map_err(|_| "it is not text".to_owned());
    let fault = match text.and_then(reply::split) {
        Ok(replies) if replies.len() == count => return Ok(replies),
        Ok(replies) => format!("{} replies to {count} commands", replies.len()),
        Err(fault) => fault,
    };
    Err(Error::Answer { asked: shorten(line), fault })
}

fn broke(line: &str, source: io::Error) -> Error {
    Error::Talk { asked: shorten(line), source }
}

/// The start of what was asked, for a message.
fn shorten(line: &str) -> String {
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What small things a real HAProxy cannot be made to do: silence, a cut answer, an endless one.
    fn answering(limits: Limits, respond: impl Fn(UnixStream) + Send + 'static) -> (Socket, PathBuf) {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hsdo-socket-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                let mut byte = [0];
                while byte[0] != b'\n' {
                    stream.read_exact(&mut byte).unwrap();
                }
                respond(stream);
            }
        });
        (Socket::new(&path, limits), path)
    }

    fn ask(limits: Limits, respond: impl Fn(UnixStream) + Send + 'static) -> Result<Vec<String>, Error> {
        let (socket, path) = answering(limits, respond);
        let mut buffer = Vec::new();
        let answer = socket.ask("show a;show b", 2, &mut buffer);
        std::fs::remove_file(path).unwrap();
        answer.map(|replies| replies.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn replies_are_matched_to_commands() {
        let replies = ask(Limits::default(), |mut s| s.write_all(b"one\n\ntwo\nlines\n\n").unwrap()).unwrap();
        assert_eq!(replies, ["one", "two\nlines"]);
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for cut in ["", "one\n\n", "one\n\ntwo", "one\n\ntwo\n"] {
            let answer = ask(Limits::default(), move |mut s| s.write_all(cut.as_bytes()).unwrap());
            assert!(matches!(answer, Err(Error::Answer { .. })), "{cut:?}: {answer:?}");
        }
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let limits = Limits { talk: Duration::from_millis(50), ..Limits::default() };
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let answer = ask(limits, move |_stream| assert!(held.lock().unwrap().recv().is_err()));
        drop(hold);
        assert!(answer.unwrap_err().to_string().contains("did not answer"));
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let limits = Limits { bytes: 100_000, ..Limits::default() };
        let answer = ask(limits, |mut s| while s.write_all(&[b'x'; 4096]).is_ok() {});
        assert!(answer.unwrap_err().to_string().contains("longer than 100000 bytes"));
    }

    #[test]
    fn a_missing_socket_says_so() {
        let error = Socket::new(Path::new("/nowhere/admin.sock"), Limits::default())
            .ask("show info", 1, &mut Vec::new())
            .map(drop);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("/nowhere/admin.sock") && text.contains("is HAProxy running"), "{text}");
    }
}
