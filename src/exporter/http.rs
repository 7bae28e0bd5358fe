//! `tiny_http` behind the gate: a server with one connection, which nobody else can reach.
//!
//! A release build ends at a panic, and `tiny_http` panics if a peer resets its connection early, or if the system refuses it a
//! descriptor or a thread. So it gets no peer: its only connection is made here, and kept. After its start it accepts
//! nothing, opens nothing and starts no thread, and it is sent nothing but request lines that the gate has checked.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tiny_http::{HTTPVersion, Header, Response, Server};

use super::pages::Page;
use super::{Pages, STACK};

/// Threads that `tiny_http` starts: five, which it needs at the same time. One remains after some seconds.
const THREADS: usize = 6;
/// Descriptors that it and its connection take.
const DESCRIPTORS: usize = 6;
/// Longer than it takes to accept a connection that is there.
const SHUT: Duration = Duration::from_secs(5);

/// A request line that `tiny_http` answers with one reply, whatever the words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
}

impl<'a> RequestLine<'a> {
    /// The first line of a request's head. The other lines change nothing here, and `tiny_http` does not see them.
    pub(super) fn parse(head: &'a str) -> Option<Self> {
        let words: Vec<&str> = head.lines().next()?.split(' ').collect();
        let [method, target, version] = words[..] else { return None };
        let understood = version.starts_with("HTTP/1.") && !method.is_empty() && target.starts_with('/');
        let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic());
        (understood && plain(method) && plain(target)).then_some(RequestLine { method, target })
    }
}

/// The HTTP server: one exchange at a time, each a matter of microseconds since nobody outside is waited for.
pub(super) struct Http {
    pages: Arc<Pages>,
    connection: Mutex<Option<Connection>>,
}

impl Http {
    /// Starts the server. If the system refuses it threads or descriptors, that is logged, and tried again with each request.
    pub(super) fn start(pages: Arc<Pages>) -> Self {
        let connection = Connection::open(&pages)
            .inspect_err(|error| log::warn!("cannot start the exporter's HTTP server yet: {error}: {LIMITS}"));
        Http { pages, connection: Mutex::new(connection.ok()) }
    }

    /// The whole reply to a request, as it is sent.
    pub(super) fn reply(&self, request: RequestLine<'_>) -> Vec<u8> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice, because the first attempt may find a connection that has ended, which no request is known to cause.
        for _ in 0..2 {
            let opened = match connection.take() {
                Some(opened) => Ok(opened),
                None => Connection::open(&self.pages),
            };
            let Ok(mut opened) = opened else { break };
            if let Ok(reply) = opened.exchange(request) {
                *connection = Some(opened);
                return reply;
            }
        }
        print(Page::text(503, format_args!("the exporter's HTTP server cannot be started: {LIMITS}")))
    }
}

const LIMITS: &str = "check the limits of the process for threads and descriptors";

/// A page as `tiny_http` prints it, for requests that it does not get to see.
pub(super) fn print(page: Page) -> Vec<u8> {
    let mut reply = Vec::new();
    // A vector takes everything.
    let _ = response(page).raw_print(&mut reply, HTTPVersion(1, 1), &[], false, None);
    reply
}

fn response(page: Page) -> Response<Cursor<Vec<u8>>> {
    let header = |(name, value): (&str, &str)| Header::from_bytes(name, value).ok();
    let own = [("Server", "hsdo"), ("Content-Type", page.content_type), ("Cache-Control", "no-store")];
    let more = page.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = own.into_iter().chain(more).filter_map(header).collect();
    let length = page.body.len();
    // Never in chunks, so that the reply's end can be told from its head.
    Response::new(page.status.into(), headers, Cursor::new(page.body.into_bytes()), Some(length), None)
        .with_chunked_threshold(usize::MAX)
}

/// The connection to a `tiny_http` server of its own.
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    server: &'static Server,
}

impl Connection {
    pub(super) fn open(pages: &Arc<Pages>) -> io::Result<Self> {
        check_limits()?;
        let (listener, stream) = private_pair()?;
        // Never dropped: that would connect to the listener, by a path that this one does not have.
        let server: &Server = Box::leak(Box::new(Server::from_listener(listener, None).map_err(io::Error::other)?));
        // It takes the one connection, then finds its listener shut, and says so. From now on it accepts nothing.
        if let Ok(None) = server.recv_timeout(SHUT) {
            return Err(ErrorKind::TimedOut.into());
        }
        let pages = Arc::clone(pages);
        thread::Builder::new().name("metrics".to_owned()).stack_size(STACK).spawn(move || {
            for request in server.incoming_requests() {
                let url = request.url();
                let path = url.split_once('?').map_or(url, |(path, _)| path);
                let page = pages(request.method().as_str(), path);
                // An error is seen at the other end of the connection.
                let _ = request.respond(response(page));
            }
        })?;
        Ok(Connection { stream: BufReader::new(stream), server })
    }

    pub(super) fn exchange(&mut self, request: RequestLine<'_>) -> io::Result<Vec<u8>> {
        let RequestLine { method, target } = request;
        // What would be there belongs to nobody.
        if !self.stream.buffer().is_empty() {
            return Err(ErrorKind::InvalidData.into());
        }
        self.stream.get_mut().write_all(format!("{method} {target} HTTP/1.1\r\n\r\n").as_bytes())?;
        let (mut reply, mut length) = (Vec::new(), 0);
        loop {
            let start = reply.len();
            self.stream.read_until(b'\n', &mut reply)?;
            match &reply[start..] {
                [] => return Err(ErrorKind::UnexpectedEof.into()),
                b"\r\n" => break,
                line => {
                    let number = str::from_utf8(line).ok().and_then(|line| line.strip_prefix("Content-Length: "));
                    length = number.and_then(|number| number.trim_end().parse().ok()).unwrap_or(length);
                }
            }
        }
        if method != "HEAD" {
            let start = reply.len();
            reply.resize(start + length, 0);
            self.stream.read_exact(&mut reply[start..])?;
        }
        Ok(reply)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Ends the thread that serves.
        self.server.unblock();
    }
}

/// Fails where `tiny_http` would panic: takes what it will need, and gives it back.
fn check_limits() -> io::Result<()> {
    let descriptors: io::Result<Vec<Socket>> =
        (0..DESCRIPTORS).map(|_| Socket::new(Domain::UNIX, Type::STREAM, None)).collect();
    let (release, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let wait = Arc::clone(&wait);
            // Its end closes the channel, which every thread waits for.
            thread::Builder::new().spawn(move || drop(wait.lock().map(|wait| wait.recv())))
        })
        .collect();
    drop(release);
    let threads: io::Result<Vec<_>> =
        threads.into_iter().map(|thread| thread.map(|thread| drop(thread.join()))).collect();
    threads.and(descriptors).map(drop)
}

/// A listener that has one connection waiting and takes no other one ever, and the other end of that connection.
///
/// Its address is an abstract one, which needs no file system, but which any process of the machine may connect to.
/// So its queue has room for one connection: if ours got in, it is the only one, and nothing gets in after the shutdown.
fn private_pair() -> io::Result<(UnixListener, UnixStream)> {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // No name: the system picks one.
    listener.bind(&SockAddr::unix("")?)?;
    listener.listen(0)?;
    let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Otherwise it would wait for room.
    stream.set_nonblocking(true)?;
    stream.connect(&listener.local_addr()?)?;
    stream.set_nonblocking(false)?;
    listener.shutdown(std::net::Shutdown::Read)?;
    Ok((OwnedFd::from(listener).into(), OwnedFd::from(stream).into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection() -> Connection {
        let pages: Arc<Pages> = Arc::new(|method: &str, path: &str| {
            Page::text(200, format_args!("{method} {path} {}", "x".repeat(1 << 20)))
        });
        Connection::open(&pages).expect("a connection")
    }

    #[test]
    fn nobody_else_reaches_it() {
        let (listener, mut stream) = private_pair().expect("a pair");
        let address = listener.local_addr().expect("an address");
        UnixStream::connect_addr(&address).expect_err("it takes no other connection");
        let (mut accepted, _) = listener.accept().expect("the connection");
        UnixStream::connect_addr(&address).expect_err("nor when there is room");
        listener.accept().expect_err("there is one connection");
        stream.write_all(b"x").expect("a byte sent");
        accepted.read_exact(&mut [0]).expect("it is ours");
    }

    /// So that a refusal by `tiny_http`, which ends the connection, is not to be had from outside.
    #[test]
    fn every_request_line_has_one_reply() {
        let connection = Mutex::new(connection());
        let words = ("[!-~]{1,12}|GET|HEAD|POST|CONNECT", "/[!-~]{0,40}|/metrics|/[%?#:/\\\\]{0,9}|/a{8000}");
        proptest!(|((method, target) in words)| {
            let head = format!("{method} {target} HTTP/1.0\r\n\r\n");
            let request = RequestLine::parse(&head).expect("a request");
            let reply = connection.lock().expect("no panic").exchange(request).expect("a reply");
            let reply = str::from_utf8(&reply).expect("text");
            let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
            prop_assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            let path = target.split('?').next().expect("a path");
            let expected = if method == "HEAD" { String::new() } else { format!("{method} {path} x") };
            prop_assert_eq!(&body[..expected.len()], expected);
            prop_assert_eq!(body.len() > 1 << 20, method != "HEAD");
        });
    }

    #[test]
    fn strange_lines_are_no_requests() {
        for line in [
            "GET /a\rb HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "G\0T / HTTP/1.1",
            " / HTTP/1.1",
            "GET /\t HTTP/1.1",
            "GET / HTTP/1.1 x",
        ] {
            assert_eq!(RequestLine::parse(&format!("{line}\r\n\r\n")), None, "{line:?}");
        }
    }

    #[test]
    fn a_connection_that_has_ended_is_replaced() {
        let pages: Arc<Pages> = Arc::new(|_: &str, _: &str| Page::text(200, "ok"));
        let http = Http::start(pages);
        let get = RequestLine { method: "GET", target: "/" };
        for _ in 0..3 {
            assert!(http.reply(get).starts_with(b"HTTP/1.1 200 OK\r\n"));
            let connection = http.connection.lock().expect("no panic");
            let stream = connection.as_ref().expect("it is kept").stream.get_ref();
            stream.shutdown(std::net::Shutdown::Both).expect("its end");
        }
    }
}
