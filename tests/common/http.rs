//! The little of HTTP/1.1 that the bed's servers need, and a listener that can be stopped.
//!
//! Only requests with a `Content-Length` are understood: hsdo, HAProxy and the bed send no others.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections served at once; more are closed unanswered.
const CONNECTIONS: usize = 256;
/// The longest request line or header, in bytes.
const LINE: u64 = 64 * 1024;
/// The longest body, in bytes.
const BODY: u64 = 32 * 1024 * 1024;
/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    /// Besides `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Reads one request; `None` if the peer closed before one began.
pub fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(reader)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no request line: {first:?}")));
    };
    let mut request = Request { method: method.into(), target: target.into(), ..Request::default() };
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "a request without its end");
    loop {
        let line = read_line(reader)?.ok_or_else(broken)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            request.headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = request.headers.get("content-length").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if length > BODY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a body of {length} bytes")));
    }
    let read = reader.by_ref().take(length).read_to_end(&mut request.body)?;
    if read as u64 == length { Ok(Some(request)) } else { Err(broken()) }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.by_ref().take(LINE).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(Some(line))
}

/// With `close`, announces that the connection ends.
pub fn write_response(stream: &mut impl Write, response: &Response, close: bool) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Answer\r\nContent-Length: {}\r\n", response.status, response.body.len());
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
    let mut whole = head.into_bytes();
    whole.extend_from_slice(&response.body);
    stream.write_all(&whole)?;
    stream.flush()
}

/// Open connections by number: dropping a listener cuts them.
type Open = Arc<Mutex<BTreeMap<u64, TcpStream>>>;

/// A listener with a thread per connection. Dropping it closes the port and cuts the connections.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    open: Open,
    accepting: Option<JoinHandle<()>>,
}

impl Listener {
    /// Passes every connection on `address` to `serve`, and closes it when that returns.
    pub fn start(
        address: SocketAddr,
        serve: impl Fn(BufReader<TcpStream>) + Send + Sync + 'static,
    ) -> io::Result<Listener> {
        let socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let open = Open::default();
        let accepting = std::thread::spawn({
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            move || accept(&socket, &stop, &open, &Arc::new(serve))
        });
        Ok(Listener { address, stop, open, accepting: Some(accepting) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        for stream in lock(&self.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept<F: Fn(BufReader<TcpStream>) + Send + Sync + 'static>(
    socket: &TcpListener,
    stop: &AtomicBool,
    open: &Open,
    serve: &Arc<F>,
) {
    for (number, stream) in (0..).zip(socket.incoming()) {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(kept) = stream.try_clone() else { continue };
        let _ = stream.set_read_timeout(Some(IDLE));
        let _ = stream.set_nodelay(true);
        {
            let mut open = lock(open);
            if open.len() >= CONNECTIONS {
                continue;
            }
            open.insert(number, kept);
        }
        let (serve, open) = (Arc::clone(serve), Arc::clone(open));
        std::thread::spawn(move || {
            serve(BufReader::new(stream));
            if let Some(stream) = lock(&open).remove(&number) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }
}

/// Ignores poison left by a thread of a failing test.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
