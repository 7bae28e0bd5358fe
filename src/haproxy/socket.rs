//! One line of joined commands, one connection, one deadline. The only opener of the Runtime API's socket.
//!
//! Each line gets a connection of its own: HAProxy closes after the first line's replies, 3.0 and later drop
//! every line after the first in silence, and a connection opened before a reload stays with the old worker.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::error::Error;
use super::reply;
use crate::settings::HaproxySocket;

/// The longest line that is sent, with its line end. HAProxy 2.2 hangs on a line of more than 15,360 bytes
/// (`bufsize` less `maxrewrite`), 3.2 refuses one of more than 16,384; a smaller `tune.bufsize` is learnt (`known`).
pub const MAX_LINE: usize = 8 * 1024;

/// How much is read at a time, at least: HAProxy writes up to 16 KB.
const CHUNK: usize = 16 * 1024;

/// How long to wait before each further read of a long answer: HAProxy writes 12 to 16 KB at a time, and each write would wake
/// hsdo. Its side of the socket holds some 137 KB, which HAProxy takes some 4 ms to fill (measured on 2.6 with 5,000 servers).
const PATIENCE: Duration = Duration::from_millis(2);

/// How 3.2 and later refuse a line that is longer than their buffer.
const TOO_LONG: &str = "The command line is too big";

/// Limits of one talk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long connecting may take: HAProxy's queue of connections may be full.
    pub connect: Duration,
    /// How long the rest may take, from the first byte written to the last one read.
    pub talk: Duration,
    /// How many bytes an answer may hold.
    pub bytes: usize,
}

impl Limits {
    /// For so many backends of so many slots each: a server takes some 320 bytes of `show stat`, and a backend may have
    /// thousands that are not hsdo's. What goes on beyond that is no answer.
    pub fn of(backends: usize, slots: usize) -> Self {
        Limits { bytes: 4 * 1024 * 1024 + backends * slots * 1024, ..Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connect: Duration::from_secs(2), talk: Duration::from_secs(5), bytes: 4 * 1024 * 1024 }
    }
}

/// Where a Runtime API is, and the limits of each talk with it.
#[derive(Clone, Debug)]
pub struct Socket {
    place: HaproxySocket,
    limits: Limits,
}

impl Socket {
    /// For the socket at `place`, which need not exist yet.
    pub fn new(place: HaproxySocket, limits: Limits) -> Self {
        Socket { place, limits }
    }

    /// Where the socket is.
    pub fn place(&self) -> &HaproxySocket {
        &self.place
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
        let mut stream = self.connect().map_err(|source| Error::Connect { place: self.place.clone(), source })?;
        let deadline = Instant::now() + self.limits.talk;
        let sent = stream.set_write_timeout(Some(self.limits.talk));
        sent.and_then(|()| stream.write_all(format!("{line}\n").as_bytes())).map_err(|source| broke(line, source))?;
        Ok(Talk { stream, deadline, limit: self.limits.bytes })
    }

    /// Connects within the limit. The kernel lets a connect to a full queue wait for `SO_SNDTIMEO`, and the standard
    /// library cannot set that before it connects: hence `socket2` (unix(7), socket(7)).
    fn connect(&self) -> io::Result<RawSocket> {
        let unix = |name: SockAddr| {
            let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_write_timeout(Some(self.limits.connect))?;
            socket.connect(&name)?;
            Ok(socket)
        };
        match &self.place {
            HaproxySocket::Path(path) => unix(SockAddr::unix(path)?),
            HaproxySocket::Abstract { name, padded } => {
                let mut bytes = format!("\0{name}");
                if *padded {
                    // HAProxy takes the whole of `sun_path`, 108 bytes, for the name (unix(7)).
                    bytes.extend(std::iter::repeat_n('\0', 108 - bytes.len()));
                }
                unix(SockAddr::unix(bytes)?)
            }
            HaproxySocket::Tcp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
                    match socket.connect_timeout(&address.into(), self.limits.connect) {
                        Ok(()) => return Ok(socket),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

/// A line that was sent, and its answer that is to come.
#[derive(Debug)]
pub(super) struct Talk {
    stream: RawSocket,
    deadline: Instant,
    limit: usize,
}

/// When an answer is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Whoever answers closes the connection, as HAProxy does.
    Closed,
    /// It holds so many replies: the master keeps the connection open.
    Replies(usize),
}

impl Talk {
    /// The bytes that come back, for [`replies`]. They are in `buffer`. `line` is what was said, for a message.
    ///
    /// # Errors
    /// HAProxy falls silent, or says too much.
    pub(super) fn hear<'a>(
        &mut self,
        line: &str,
        until: Until,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Error> {
        let length = self.receive(line, until, buffer);
        if length.is_err() || buffer.len() > self.limit / 2 {
            // What came is no measure of what comes next: a reply without an end would leave its memory here.
            buffer.truncate(*length.as_ref().unwrap_or(&0));
            buffer.shrink_to_fit();
        }
        length.map(|length| &buffer[..length])
    }

    /// Hears what is left, and throws it away; for as long as a talk may take.
    ///
    /// # Errors
    /// HAProxy is still silent.
    pub(super) fn drain(&mut self, line: &str) -> Result<(), Error> {
        self.deadline = Instant::now() + Limits::default().talk;
        match self.receive(line, Until::Closed, &mut Vec::new()) {
            Err(error) if error.is_silence() => Err(error),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, line: &str, until: Until, buffer: &mut Vec<u8>) -> Result<usize, Error> {
        let broke = |source| broke(line, source);
        let mut length = 0;
        loop {
            if length > CHUNK {
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
                Ok(0) => return Ok(length),
                Ok(n) if length + n > self.limit => {
                    let fault = format!("it is longer than {} bytes", self.limit);
                    return Err(Error::Answer { asked: shorten(line), fault });
                }
                Ok(n) => length += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broke(error)),
            }
            if let Until::Replies(count) = until
                && buffer[..length].ends_with(b"\n")
                && reply::count(&buffer[..length]) >= count
            {
                return Ok(length);
            }
        }
    }
}

/// What came back as text. Of all that hsdo reads nothing can hold other than ASCII, whatever the text of a check holds.
pub(super) fn text(answer: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(answer)
}

/// The reply to each of the `count` commands of `line` in what came back for it.
///
/// # Errors
/// The line is too long for HAProxy's buffer; or the answer was cut, or has another number of replies.
pub(super) fn replies<'a>(line: &str, count: usize, answer: &'a str) -> Result<Vec<&'a str>, Error> {
    let fault = match reply::split(answer) {
        Ok(replies) if replies.len() == count => return Ok(replies),
        _ if answer.contains(TOO_LONG) => return Err(Error::LongLine { length: line.len() + 1 }),
        Ok(replies) => format!("{} replies to {count} commands", replies.len()),
        Err(fault) => match answer.lines().next() {
            Some(first) => format!("{fault}; it begins with {:?}", crate::error::one_line(first, 80)),
            None => fault,
        },
    };
    Err(Error::Answer { asked: shorten(line), fault })
}

fn broke(line: &str, source: io::Error) -> Error {
    Error::Talk { asked: shorten(line), length: line.len() + 1, source }
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
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

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
        (Socket::new(HaproxySocket::Path(path.clone()), limits), path)
    }

    fn ask(limits: Limits, respond: impl Fn(UnixStream) + Send + 'static) -> Result<Vec<String>, Error> {
        let (socket, path) = answering(limits, respond);
        let mut buffer = Vec::new();
        let line = "show a;show b";
        let heard = socket.say(line).and_then(|mut talk| talk.hear(line, Until::Closed, &mut buffer).map(text));
        std::fs::remove_file(path).unwrap();
        let owned = |answer: Cow<'_, str>| Ok(replies(line, 2, &answer)?.into_iter().map(str::to_owned).collect());
        heard.and_then(owned)
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
    fn whoever_keeps_the_connection_open_is_heard_until_the_last_reply() {
        let limits = Limits { talk: Duration::from_secs(60), ..Limits::default() };
        let (socket, path) = answering(limits, |mut stream| {
            stream.write_all(b"one\n\ntwo\n\n").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is closed from here");
        });
        let mut buffer = Vec::new();
        let mut talk = socket.say("show a;show b").unwrap();
        assert_eq!(talk.hear("show a;show b", Until::Replies(2), &mut buffer).unwrap(), b"one\n\ntwo\n\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bytes_that_are_no_text_cost_nothing() {
        let replies = ask(Limits::default(), |mut s| s.write_all(b"L7STS/503 caf\xe9\n\nb\n\n").unwrap()).unwrap();
        assert_eq!(replies, ["L7STS/503 caf\u{fffd}", "b"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_of_its_own() {
        let refusal = b"The command line is too big for the buffer size. Please change tune.bufsize in the configuration to use a \
                        bigger command.\n";
        let answer = ask(Limits::default(), |mut s| s.write_all(refusal).unwrap());
        assert!(matches!(answer, Err(Error::LongLine { length: 14 })), "{answer:?}");
    }

    #[test]
    fn a_missing_socket_says_so() {
        let place = HaproxySocket::Path(PathBuf::from("/nowhere/admin.sock"));
        let text = Socket::new(place, Limits::default()).say("show info").map(drop).unwrap_err().to_string();
        assert!(text.contains("/nowhere/admin.sock") && text.contains("is HAProxy running"), "{text}");
    }
}
