//! As much of HTTP/1 as the exporter needs: the head of a request, replies, and a connection with a deadline.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Maximum size of a request's head, in bytes.
const MAX_HEAD: usize = 8 * 1024;
const TEXT: &str = "text/plain; charset=utf-8";

/// Reads the head of a request; `None` if it is too long or not UTF-8.
pub(super) fn read_head(stream: &mut impl Read) -> io::Result<Option<String>> {
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    while !ends(&head) {
        if head.len() > MAX_HEAD {
            return Ok(None);
        }
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

/// The method, and the path without its query.
pub(super) fn parse_head(head: &str) -> Option<(&str, &str)> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let understood = words.next().is_none() && version.starts_with("HTTP/1.") && target.starts_with('/');
    understood.then(|| (method, target.split_once('?').map_or(target, |(path, _)| path)))
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn text(status: u16, line: impl fmt::Display) -> Self {
        Reply { status, kind: TEXT, body: format!("{line}\n") }
    }

    /// The status line and headers, including the empty line.
    pub(super) fn head(&self) -> String {
        let Reply { status, kind, body } = self;
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Service Unavailable",
        };
        let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
    }
}

/// A connection with a deadline for the whole exchange, not per call: a peer that sends or reads single bytes does not extend it.
pub(super) struct DeadlineStream {
    pub(super) socket: TcpStream,
    deadline: Instant,
}

impl DeadlineStream {
    pub(super) fn new(socket: TcpStream, span: Duration) -> Self {
        DeadlineStream { socket, deadline: Instant::now() + span }
    }

    pub(super) fn extend(&mut self, span: Duration) {
        self.deadline = Instant::now() + span;
    }

    /// The time left, or a timeout error.
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::new(ErrorKind::TimedOut, "deadline exceeded")) } else { Ok(Some(left)) }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.remaining()?)?;
        self.socket.read(buffer)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.remaining()?)?;
        self.socket.write(buffer)
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
            (vec!["HEAD /healthz?verbose HTTP/1.0\n", "\nand a body"], Some(("HEAD", "/healthz"))),
            (vec!["GET  /metrics HTTP/1.1\r\n\r\n"], None),
            (vec!["GET /a b HTTP/1.1\r\n\r\n"], None),
            (vec!["\r\n\r\n"], None),
        ] {
            let head = read_head(&mut Pieces(pieces.clone())).expect("a head").expect("text");
            assert_eq!(parse_head(&head), expected, "{pieces:?}");
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
}
