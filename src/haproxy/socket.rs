//! One line of joined commands per connection, with one deadline. Nothing else opens the Runtime API's socket.
//!
//! Each line needs its own connection: HAProxy closes it after the first line's replies, 3.0 and later silently drop further lines,
//! and a connection that was open before a reload stays with the old worker.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::error::HaproxyError;
use super::reply;
use crate::settings::HaproxySocket;

/// The longest line to send, including its line end. HAProxy 2.2 hangs on a line of more than 15,360 bytes (`bufsize` less
/// `maxrewrite`), 3.2 refuses more than 16,384; with a smaller `tune.bufsize`, `known` lowers the limit.
pub const MAX_LINE: usize = 8 * 1024;

/// The smallest read buffer, in bytes: HAProxy writes up to 16 KB at a time.
const CHUNK: usize = 16 * 1024;

/// The pause between the reads of a long response that is not urgent. HAProxy writes 12 to 16 KB at a time, and each write would wake
/// hsdo, which costs a tenth of a turn's CPU at 5,000 servers. The socket buffers some 137 KB, which HAProxy takes some 4 ms to fill
/// (measured on 2.6).
const READ_PAUSE: Duration = Duration::from_millis(2);

/// How 3.2 and later refuse a line that exceeds their buffer.
const TOO_LONG: &str = "The command line is too big";

/// The limits of one exchange: a line and its response.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// The timeout for connecting: HAProxy's listen queue may be full.
    pub connect: Duration,
    /// The timeout from the first byte written to the last one read.
    pub exchange: Duration,
    /// The largest response, in bytes.
    pub bytes: usize,
}

impl SocketLimits {
    /// For this many backends with this many slots each. A server takes some 320 bytes of `show stat`, and a backend may have
    /// thousands of servers that are not hsdo's.
    pub fn of(backends: usize, slots: usize) -> Self {
        SocketLimits { bytes: 4 * 1024 * 1024 + backends * slots * 1024, ..SocketLimits::default() }
    }
}

impl Default for SocketLimits {
    fn default() -> Self {
        SocketLimits { connect: Duration::from_secs(2), exchange: Duration::from_secs(5), bytes: 4 * 1024 * 1024 }
    }
}

/// A Runtime API socket, and the limits of each exchange with it.
#[derive(Clone, Debug)]
pub struct Socket {
    place: HaproxySocket,
    limits: SocketLimits,
}

impl Socket {
    /// The socket at `place` need not exist yet.
    pub fn new(place: HaproxySocket, limits: SocketLimits) -> Self {
        Socket { place, limits }
    }

    /// Where the socket is.
    pub fn place(&self) -> &HaproxySocket {
        &self.place
    }

    /// Whether anything is listening.
    pub fn is_listening(&self) -> bool {
        self.connect().is_ok()
    }

    /// Sends a line of commands.
    ///
    /// # Errors
    /// Connecting or writing fails or times out.
    pub(super) fn send(&self, line: &str) -> Result<Exchange, HaproxyError> {
        debug_assert!(line.len() < MAX_LINE && !line.contains('\n'), "an unsafe line: {line:?}");
        let mut stream =
            self.connect().map_err(|source| HaproxyError::Connect { place: self.place.clone(), source })?;
        let deadline = Instant::now() + self.limits.exchange;
        let sent = stream.set_write_timeout(Some(self.limits.exchange));
        sent.and_then(|()| stream.write_all(format!("{line}\n").as_bytes()))
            .map_err(|source| io_error(line, source))?;
        Ok(Exchange { stream, deadline, limit: self.limits.bytes, pause: Duration::ZERO })
    }

    /// Whether a connection on which nothing is sent is closed within `wait`.
    pub(super) fn closes_idle_within(&self, wait: Duration) -> io::Result<bool> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(wait))?;
        match stream.read(&mut [0]) {
            Ok(length) => Ok(length == 0),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Connects within the timeout. On a full listen queue the kernel waits for `SO_SNDTIMEO`, which the standard library cannot set
    /// before it connects: hence `socket2` (unix(7), socket(7)).
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
                    // HAProxy uses all 108 bytes of `sun_path` as the name (unix(7)).
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

#[derive(Debug)]
pub(super) struct Exchange {
    stream: RawSocket,
    deadline: Instant,
    limit: usize,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The connection is closed, as HAProxy does.
    Closed,
    /// This many replies: the master keeps the connection open.
    Replies(usize),
}

impl Exchange {
    /// Pauses between the reads of a long response: a few milliseconds later, for less CPU on both sides.
    pub(super) fn not_urgent(self) -> Self {
        Exchange { pause: READ_PAUSE, ..self }
    }

    /// Reads the response into `buffer`; `line` is what was sent, for error messages.
    ///
    /// # Errors
    /// The connection breaks or times out, or the response is too long.
    pub(super) fn receive<'a>(
        &mut self,
        line: &str,
        until: Until,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], HaproxyError> {
        let length = self.read_all(line, until, buffer);
        if length.is_err() || buffer.len() > self.limit / 2 {
            // Give the memory of an endless response back.
            buffer.truncate(*length.as_ref().unwrap_or(&0));
            buffer.shrink_to_fit();
        }
        length.map(|length| &buffer[..length])
    }

    /// Reads the rest and discards it, with a new timeout.
    ///
    /// # Errors
    /// HAProxy still times out.
    pub(super) fn drain(&mut self, line: &str) -> Result<(), HaproxyError> {
        self.deadline = Instant::now() + SocketLimits::default().exchange;
        match self.read_all(line, Until::Closed, &mut Vec::new()) {
            Err(error) if error.is_timeout() => Err(error),
            _ => Ok(()),
        }
    }

    fn read_all(&mut self, line: &str, until: Until, buffer: &mut Vec<u8>) -> Result<usize, HaproxyError> {
        let io_error = |source| io_error(line, source);
        let mut length = 0;
        loop {
            if length > CHUNK {
                thread::sleep(self.pause);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io_error(io::ErrorKind::TimedOut.into()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(io_error)?;
            if buffer.len() < length + CHUNK {
                buffer.resize((length + CHUNK).max(2 * length), 0);
            }
            match self.stream.read(&mut buffer[length..]) {
                Ok(0) => return Ok(length),
                Ok(n) if length + n > self.limit => {
                    let fault = format!("it is longer than {} bytes", self.limit);
                    return Err(HaproxyError::Response { line: shorten(line), fault });
                }
                Ok(n) => length += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(error)),
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

/// The response as text. Everything that hsdo reads is ASCII, whatever bytes a check's description holds.
pub(super) fn text(answer: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(answer)
}

/// Splits the response to `line` into the replies to its `count` commands.
///
/// # Errors
/// The line is too long for HAProxy's buffer; the response is truncated, or has another number of replies.
pub(super) fn replies<'a>(line: &str, count: usize, answer: &'a str) -> Result<Vec<&'a str>, HaproxyError> {
    let fault = match reply::split(answer) {
        Ok(replies) if replies.len() == count => return Ok(replies),
        _ if answer.contains(TOO_LONG) => return Err(HaproxyError::LongLine { length: line.len() + 1 }),
        Ok(replies) => format!("{} replies to {count} commands", replies.len()),
        Err(fault) => match answer.lines().next() {
            Some(first) => format!("{fault}; it begins with {:?}", crate::text::one_line(first, 80)),
            None => fault,
        },
    };
    Err(HaproxyError::Response { line: shorten(line), fault })
}

fn io_error(line: &str, source: io::Error) -> HaproxyError {
    HaproxyError::Io { line: shorten(line), length: line.len() + 1, source }
}

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

    /// A server for what a real HAProxy cannot be made to do: time out, truncate a response, send an endless one.
    fn answering(limits: SocketLimits, respond: impl Fn(UnixStream) + Send + 'static) -> (Socket, PathBuf) {
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

    fn ask(limits: SocketLimits, respond: impl Fn(UnixStream) + Send + 'static) -> Result<Vec<String>, HaproxyError> {
        let (socket, path) = answering(limits, respond);
        let mut buffer = Vec::new();
        let line = "show a;show b";
        let response = socket.send(line).and_then(|mut sent| sent.receive(line, Until::Closed, &mut buffer).map(text));
        std::fs::remove_file(path).unwrap();
        let owned = |answer: Cow<'_, str>| Ok(replies(line, 2, &answer)?.into_iter().map(str::to_owned).collect());
        response.and_then(owned)
    }

    #[test]
    fn replies_are_matched_to_commands() {
        let replies = ask(SocketLimits::default(), |mut s| s.write_all(b"one\n\ntwo\nlines\n\n").unwrap()).unwrap();
        assert_eq!(replies, ["one", "two\nlines"]);
    }

    #[test]
    fn a_truncated_response_is_an_error() {
        for cut in ["", "one\n\n", "one\n\ntwo", "one\n\ntwo\n"] {
            let answer = ask(SocketLimits::default(), move |mut s| s.write_all(cut.as_bytes()).unwrap());
            assert!(matches!(answer, Err(HaproxyError::Response { .. })), "{cut:?}: {answer:?}");
        }
    }

    #[test]
    fn a_silent_haproxy_times_out() {
        let limits = SocketLimits { exchange: Duration::from_millis(50), ..SocketLimits::default() };
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let answer = ask(limits, move |_stream| assert!(held.lock().unwrap().recv().is_err()));
        drop(hold);
        assert!(answer.unwrap_err().to_string().contains("did not answer"));
    }

    #[test]
    fn an_endless_response_is_an_error() {
        let limits = SocketLimits { bytes: 100_000, ..SocketLimits::default() };
        let answer = ask(limits, |mut s| while s.write_all(&[b'x'; 4096]).is_ok() {});
        assert!(answer.unwrap_err().to_string().contains("longer than 100000 bytes"));
    }

    #[test]
    fn a_connection_that_stays_open_is_read_until_the_last_reply() {
        let limits = SocketLimits { exchange: Duration::from_secs(60), ..SocketLimits::default() };
        let (socket, path) = answering(limits, |mut stream| {
            stream.write_all(b"one\n\ntwo\n\n").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "hsdo closes the connection");
        });
        let mut buffer = Vec::new();
        let mut sent = socket.send("show a;show b").unwrap();
        assert_eq!(sent.receive("show a;show b", Until::Replies(2), &mut buffer).unwrap(), b"one\n\ntwo\n\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        let replies =
            ask(SocketLimits::default(), |mut s| s.write_all(b"L7STS/503 caf\xe9\n\nb\n\n").unwrap()).unwrap();
        assert_eq!(replies, ["L7STS/503 caf\u{fffd}", "b"]);
    }

    #[test]
    fn a_line_that_is_too_long_has_its_own_error() {
        let refusal = b"The command line is too big for the buffer size. Please change tune.bufsize in the configuration to use a \
                        bigger command.\n";
        let answer = ask(SocketLimits::default(), |mut s| s.write_all(refusal).unwrap());
        assert!(matches!(answer, Err(HaproxyError::LongLine { length: 14 })), "{answer:?}");
    }

    #[test]
    fn a_missing_socket_is_named() {
        let place = HaproxySocket::Path(PathBuf::from("/nowhere/admin.sock"));
        let text = Socket::new(place, SocketLimits::default()).send("show info").map(drop).unwrap_err().to_string();
        assert!(text.contains("/nowhere/admin.sock") && text.contains("is HAProxy running"), "{text}");
    }
}
