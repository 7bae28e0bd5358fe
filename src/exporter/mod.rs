//! The exporter: `/`, `/status`, `/metrics`, `/healthz` and `/readyz` over HTTP, without authentication.
//!
//! No peer may crash the process, exhaust its memory or delay a turn. So peers meet a gate (`gate`): a fixed number of threads
//! with one connection each, a limit on the request, a deadline for the whole exchange, and no keep-alive. HTTP is spoken by
//! `tiny_http` behind it (`http`), which bounds nothing itself. What there is to see is a pure function (`pages`).

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod http;
mod pages;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use self::gate::Gate;
use self::http::Http;
use self::pages::{Page, page};
use crate::error::Error;
use crate::log::Episode;
use crate::status::Status;

/// Concurrent connections; more wait in the listener's queue.
const WORKERS: usize = 32;
/// Length of that queue, minus one: four rounds of the workers, each of 0.8 s at most while others wait.
const QUEUE: i32 = 127;
/// Stack size of a thread in bytes: the text of a scrape is on the heap.
const STACK: usize = 256 * 1024;
/// Timeout of an exchange.
const DEADLINE: Duration = Duration::from_secs(5);

/// The page for a method and a path.
type Pages = dyn Fn(&str, &str) -> Page + Send + Sync;

/// An exporter that listens but does not serve yet.
#[derive(Debug)]
pub struct Exporter {
    listener: TcpListener,
    address: SocketAddr,
}

impl Exporter {
    /// Binds the port. Port 0 is any free port here; callers handle `EXPORTER_PORT` 0 (no exporter).
    ///
    /// # Errors
    /// [`Error::Start`] if the port is in use or forbidden, or the address is not of this machine.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let refused = |error: io::Error| {
            let (ip, port) = (address.ip(), address.port());
            Error::Start(format!(
                "cannot listen on port {port} of {ip} for the exporter: {error}: \
                 set EXPORTER_PORT to a free port (0 turns the exporter off) or EXPORTER_ADDRESS to an address of this machine"
            ))
        };
        let listener = TcpListener::bind(address).map_err(refused)?;
        // A second call sets the length, whatever the library's is.
        SockRef::from(&listener).listen(QUEUE).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Exporter { listener, address })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves in background threads until the process ends. Threads that
    /// cannot be started are logged, and the others serve.
    pub fn serve(self, status: Arc<Status>) {
        self.serve_within(status, DEADLINE);
    }

    fn serve_within(self, status: Arc<Status>, deadline: Duration) {
        let pages = move |method: &str, path: &str| page(&status, method, path);
        let gate = Arc::new(Gate {
            listener: self.listener,
            http: Http::start(Arc::new(pages)),
            deadline,
            accept_faults: Mutex::new(Episode::new("exporter").target(module_path!())),
        });
        for number in 1..=WORKERS {
            let gate = Arc::clone(&gate);
            let worker = thread::Builder::new().name(format!("exporter {number}")).stack_size(STACK);
            if let Err(error) = worker.spawn(move || gate.serve_forever()) {
                log::warn!(
                    "cannot start exporter thread {number} of {WORKERS}: {error}: check the limits of the process"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::fuzzing::facts;
    use super::*;
    use crate::metrics::Metrics;

    const SECOND: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(120);

    fn start(deadline: Duration) -> (SocketAddr, Arc<Metrics>) {
        let bound = Exporter::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let (address, metrics) = (bound.address(), Metrics::new("client"));
        bound.serve_within(Status::new(facts("client"), Arc::clone(&metrics)), deadline);
        (address, metrics)
    }

    fn send(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("a request sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a whole answer");
        answer
    }

    fn server(id: u32) -> crate::metrics::ServerSeries {
        let (name, ip) = (format!("i-{id:017}"), [10, 0, 0, 1].into());
        crate::metrics::ServerSeries {
            id,
            name,
            ip,
            asg: Some("web".to_owned()),
            zone: None,
            enabled: true,
            weight: 10,
        }
    }

    fn get(address: SocketAddr, path: &str) -> String {
        send(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    #[test]
    fn metrics_are_served_as_prometheus_wants_them() {
        let (address, metrics) = start(DEADLINE);
        metrics.set_haproxy_up(true);
        for path in ["/metrics", "/metrics?name[]=x"] {
            let answer = get(address, path);
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(body.contains("\nhsdo_haproxy_up 1\n"), "{body}");
        }
    }

    #[test]
    fn a_large_scrape_arrives_whole() {
        let (address, metrics) = start(LONG);
        metrics.set_servers((1..=10_000).map(server).collect());
        let answer = get(address, "/metrics");
        assert_eq!(answer.matches("\nhsdo_server_weight{").count(), 10_000);
        assert!(answer.ends_with('\n'));
    }

    #[test]
    fn each_path_and_method_has_its_reply() {
        let (address, metrics) = start(DEADLINE);
        for (request, status, line) in [
            ("GET /healthz HTTP/1.1\r\n\r\n", "200 OK", "ok\n"),
            ("GET /healthz HTTP/1.0\n\n", "200 OK", "ok\n"),
            ("GET /readyz HTTP/1.1\r\n\r\n", "503 Service Unavailable", "no turn has ended yet, 0 s after start\n"),
            (
                "GET /nowhere HTTP/1.1\r\n\r\n",
                "404 Not Found",
                "not found: there are /, /status, /metrics, /healthz and /readyz\n",
            ),
            (
                "GET /metrics/ HTTP/1.1\r\n\r\n",
                "404 Not Found",
                "not found: there are /, /status, /metrics, /healthz and /readyz\n",
            ),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "200 OK", ""),
            ("DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", "only GET and HEAD are served here\n"),
            ("GET /metrics\r\n\r\n", "400 Bad Request", "not an HTTP request with a head of at most 8 KiB\n"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request", "not an HTTP request with a head of at most 8 KiB\n"),
            (
                "GET http://x/metrics HTTP/1.1\r\n\r\n",
                "400 Bad Request",
                "not an HTTP request with a head of at most 8 KiB\n",
            ),
            ("\r\n\r\n", "400 Bad Request", "not an HTTP request with a head of at most 8 KiB\n"),
        ] {
            let answer = send(address, request);
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {head}");
            assert!(head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{request}: {head}");
            assert_eq!(body, line, "{request}");
            assert_eq!(head.contains("\r\nAllow: GET, HEAD\r\n"), status.starts_with("405"), "{head}");
        }
        metrics.turn(true, SECOND);
        assert!(get(address, "/readyz").ends_with("\r\n\r\nok\n"));
    }

    #[test]
    fn the_body_of_a_post_does_not_cost_the_reply() {
        let (address, _) = start(LONG);
        let body = "x".repeat(300_000);
        let answer = send(address, &format!("POST /metrics HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[test]
    fn an_endless_head_is_refused() {
        let (address, _) = start(LONG);
        let answer = send(address, &format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(100_000)));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[test]
    fn slow_peers_do_not_block_the_others() {
        let (address, _) = start(LONG);
        let slow: Vec<TcpStream> = (1..WORKERS)
            .map(|_| {
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.write_all(b"GET /met").expect("half a request");
                stream
            })
            .collect();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        drop(slow);
    }

    #[test]
    fn more_slow_peers_than_workers_time_out() {
        let (address, _) = start(LONG);
        let slow: Vec<TcpStream> =
            (0..WORKERS * 2).map(|_| TcpStream::connect(address).expect("a connection")).collect();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        drop(slow);
    }

    #[test]
    fn a_late_request_is_told_so() {
        let (address, _) = start(LONG);
        let answer = send(address, "GET /metrics HTTP/1.1\r\nHost: ");
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\nno whole request in time\n"),
            "{answer}"
        );
    }

    /// Each of them holds its connection for two minutes if it may. What they can take at most is a sum, which no busy machine changes.
    #[test]
    fn four_rounds_of_peers_that_never_read_do_not_delay_a_scrape_by_their_deadline() {
        let (address, metrics) = start(LONG);
        metrics.set_servers((1..=10_000).map(server).collect());
        let deaf: Vec<TcpStream> = (0..WORKERS * 4)
            .map(|_| {
                let stream = TcpStream::connect(address).expect("a connection");
                SockRef::from(&stream).set_recv_buffer_size(4096).expect("a small buffer");
                (&stream).write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("a request sent");
                stream
            })
            .collect();
        let started = Instant::now();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
        assert!(4 * gate::LONGEST_TURN < 4 * SECOND);
        drop(deaf);
    }

    #[test]
    fn peers_that_vanish_do_no_harm() {
        let (address, _) = start(DEADLINE);
        for _ in 0..200 {
            let mut stream = TcpStream::connect(address).expect("a connection");
            // Closing with the reply unread makes the system reset the connection.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        }
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn a_taken_port_is_named_with_its_key() {
        let taken = Exporter::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let error = Exporter::bind(taken.address()).expect_err("the port is taken");
        assert!(matches!(error, Error::Start(_)));
        let text = error.to_string();
        let port = taken.address().port().to_string();
        assert!(text.contains(&port) && text.contains("EXPORTER_PORT") && text.contains("in use"), "{text}");
    }
}
