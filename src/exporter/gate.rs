//! The gate before the HTTP server: it accepts, counts, bounds and times, so that no peer reaches anything else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::http::{Http, RequestLine, print};
use super::pages::Page;
use crate::log::Episode;

/// Maximum size of a request's head, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Timeout for the head of a request: short, because idle peers occupy workers. While others wait, a head has to be there at once, or
/// within [`TICK`]: so a hundred peers that send nothing do not keep a health check waiting.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// What an exchange gets of its deadline while others wait: a peer that is alive takes its page in less.
const FAIR_SHARE: Duration = Duration::from_millis(500);
/// How often a blocked exchange looks at its deadlines.
const TICK: Duration = Duration::from_millis(100);
/// The longest that a peer keeps a worker while others wait.
#[cfg(test)]
pub(super) const LONGEST_TURN: Duration = FAIR_SHARE.saturating_add(TICK.saturating_mul(3));
/// Backoff after a failed `accept` (out of file descriptors, for example).
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Gate {
    pub(super) listener: TcpListener,
    pub(super) http: Http,
    /// For an exchange, from the end of the request's head.
    pub(super) deadline: Duration,
    pub(super) accept_faults: Mutex<Episode>,
}

impl Gate {
    /// Serves one connection after the other.
    pub(super) fn serve_forever(&self) -> ! {
        loop {
            let accepted = self.listener.accept();
            let fault = accepted.as_ref().err().map(ToString::to_string);
            let fault = fault.as_deref().map(|text| (text, text));
            self.accept_faults.lock().unwrap_or_else(PoisonError::into_inner).report(fault);
            match accepted {
                // Errors are not logged: any peer could flood the log.
                Ok((stream, _)) => {
                    let stream = DeadlineStream::new(stream, self.deadline.min(HEAD_DEADLINE));
                    drop(self.exchange(stream.yielding_to(&self.listener)));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn exchange(&self, mut stream: DeadlineStream<'_>) -> io::Result<()> {
        let head = match read_head(&mut stream) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                // It fits into the empty buffer of the connection, so nothing is waited for.
                stream.extend(HEAD_DEADLINE);
                return send(&mut stream, &print(Page::text(408, "no whole request in time")));
            }
            head => head?,
        };
        stream.extend(self.deadline);
        let reply = match head.as_deref().and_then(RequestLine::parse) {
            Some(request) => self.http.reply(request),
            None => print(Page::text(400, "not an HTTP request with a head of at most 8 KiB")),
        };
        send(&mut stream, &reply)?;
        drop(reply);
        // Closing with unread input (the body of a POST) would reset the connection and lose the reply.
        stream.socket.shutdown(Shutdown::Write)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    }
}

/// Sends a reply, and that it is the last one of this connection: `tiny_http` does not know that.
fn send(stream: &mut impl Write, reply: &[u8]) -> io::Result<()> {
    let end = reply.windows(4).position(|end| end == b"\r\n\r\n").map_or(reply.len(), |end| end + 2);
    stream.write_all(&[&reply[..end], b"Connection: close\r\n"].concat())?;
    stream.write_all(&reply[end..])
}

/// Reads the head of a request; `None` if it is too long or not UTF-8.
pub(super) fn read_head(stream: &mut impl Read) -> io::Result<Option<String>> {
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    let mut seen = 0;
    // Only what is new is looked through, with the three bytes before it: a peer may send single bytes.
    while !ends(&head[seen..]) {
        if head.len() > MAX_HEAD {
            return Ok(None);
        }
        seen = head.len().saturating_sub(3);
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(String::from_utf8(head).ok())
}

/// Whether `head` contains an empty line. Anything after it is ignored.
fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// A connection with a deadline for the whole exchange, not per call: a peer that sends or reads single bytes does not extend it.
struct DeadlineStream<'a> {
    socket: TcpStream,
    /// Whose queue may have others in it.
    listener: Option<&'a TcpListener>,
    /// The deadline if others wait.
    yields: Instant,
    deadline: Instant,
}

impl<'a> DeadlineStream<'a> {
    fn new(socket: TcpStream, span: Duration) -> Self {
        let now = Instant::now();
        DeadlineStream { socket, listener: None, yields: now + span.min(TICK), deadline: now + span }
    }

    /// The connection ends early if others wait for `listener`.
    fn yielding_to(self, listener: &'a TcpListener) -> Self {
        DeadlineStream { listener: Some(listener), ..self }
    }

    fn extend(&mut self, span: Duration) {
        let now = Instant::now();
        (self.yields, self.deadline) = (now + span.min(FAIR_SHARE), now + span);
    }

    /// How long to wait before asking again, or a timeout error.
    fn patience(&self) -> io::Result<Option<Duration>> {
        let now = Instant::now();
        if now >= self.deadline || now >= self.yields && self.listener.is_some_and(is_waited_for) {
            return Err(io::Error::new(ErrorKind::TimedOut, "deadline exceeded"));
        }
        Ok(Some((self.deadline - now).min(TICK)))
    }
}

/// Whether connections wait in the queue of `listener`.
fn is_waited_for(listener: &TcpListener) -> bool {
    let mut listener = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut listener, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

impl Read for DeadlineStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(self.patience()?)?;
            match self.socket.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

impl Write for DeadlineStream<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(self.patience()?)?;
            match self.socket.write(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn a_head_is_read_in_any_pieces() {
        struct Pieces(Vec<&'static str>);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    return Ok(0);
                }
                self.0.remove(0).as_bytes().read(buffer)
            }
        }
        for (pieces, expected) in [
            (vec!["GET /metrics HTTP/1.1\r\n\r\n"], Some(("GET", "/metrics"))),
            (vec!["GET /metr", "ics HTTP/1.1\r", "\nHost: x\r\n", "\r", "\n"], Some(("GET", "/metrics"))),
            (vec!["HEAD /healthz?verbose HTTP/1.0\n", "\nand a body"], Some(("HEAD", "/healthz?verbose"))),
            (vec!["GET  /metrics HTTP/1.1\r\n\r\n"], None),
            (vec!["GET /a b HTTP/1.1\r\n\r\n"], None),
            (vec!["\r\n\r\n"], None),
        ] {
            let head = read_head(&mut Pieces(pieces.clone())).expect("a head").expect("text");
            assert_eq!(RequestLine::parse(&head).map(|line| (line.method, line.target)), expected, "{pieces:?}");
        }
        let cut = read_head(&mut Pieces(vec!["GET /metrics HTTP/1.1\r\n"])).expect_err("it ends too soon");
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read_head(&mut io::repeat(b'x')).expect("a refusal"), None);
        assert_eq!(read_head(&mut &b"\xff\r\n\r\n"[..]).expect("a refusal"), None);
    }

    #[test]
    fn a_peer_that_trickles_does_not_extend_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (socket, _) = listener.accept().expect("a connection");
        let mut timed = DeadlineStream::new(socket, Duration::from_millis(40));
        let started = Instant::now();
        let error = loop {
            // A byte is always there to be read.
            peer.write_all(b"x").expect("a byte sent");
            match timed.read(&mut [0]) {
                Ok(_) if started.elapsed() < LONG => {}
                Ok(_) => panic!("no deadline"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_peer_that_says_nothing_makes_room_for_those_who_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let silent = TcpStream::connect(address).expect("a connection");
        let (socket, _) = listener.accept().expect("a connection");
        let waiting = TcpStream::connect(address).expect("a connection");
        let started = Instant::now();
        let error =
            DeadlineStream::new(socket, LONG).yielding_to(&listener).read(&mut [0]).expect_err("nothing is said");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < LONG);
        drop((silent, waiting));
    }
}
