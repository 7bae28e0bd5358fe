//! One bounded GET of Consul's API, over http, https or a Unix socket. What an answer means is the business of the caller.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use ureq::unversioned::transport::{Connector, TcpConnector};

use super::access::{Access, Password, Token};
use super::answer::Answer;
use super::error::{Cause, Side};
use super::tls::{Fault, VERIFY};
use super::unix::UnixConnector;
use crate::resolver::CachingResolver;
use crate::settings::ConsulApi;

/// Who counts the requests.
pub trait Observer: Send + Sync {
    /// A request ended: `ok`, `timeout`, `unreachable`, `no_leader`, `denied`, `refused`, `unreadable` or `setup`.
    fn request(&self, result: &'static str);
}

/// The time for a connection to stand, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// How large an answer may be, in bytes: 10,000 instances take some 20 MB.
const BODY_LIMIT: u64 = 64 * 1024 * 1024;

/// Who can be asked. The tests of who asks bring one of their own.
pub(super) trait Ask: Send + Sync {
    /// The answer to `path?query` within `time`, or why there is none. The query may be empty.
    fn get(&self, path: &str, query: &str, time: Duration) -> Result<Answer, Cause>;
}

/// An agent of Consul.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    token: Token,
    password: Password,
    query: Vec<String>,
    observer: Arc<dyn Observer>,
}

impl Client {
    /// For the agent at `api`; no call is made.
    pub(super) fn new(api: &ConsulApi, access: Access, observer: Arc<dyn Observer>) -> Self {
        let Access { token, password, tls, query } = access;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // An agent stands beside hsdo or in its network: a proxy for the rest of the world is not asked for it.
            .proxy(None)
            .user_agent(concat!("hsdo/", env!("CARGO_PKG_VERSION")));
        if api.is_https() && !tls.verifies() {
            log::warn!("{VERIFY} is false: whoever answers at {api} is taken for Consul, and is told the token");
        }
        let (agent, base) = match api {
            ConsulApi::Http(url) => {
                let connector = ().chain(TcpConnector::default()).chain(tls.connector());
                (ureq::Agent::with_parts(config.build(), connector, CachingResolver::default()), url.clone())
            }
            ConsulApi::Unix(path) => {
                let connector = UnixConnector(path.clone());
                let agent = ureq::Agent::with_parts(config.build(), connector, CachingResolver::default());
                // An address, so that nobody has to be asked for a name; nothing is sent there.
                (agent, "http://127.0.0.1".to_owned())
            }
        };
        Client { agent, base, token, password, query, observer }
    }

    fn send(&self, path: &str, query: &str, time: Duration) -> Result<Answer, Cause> {
        let query: Vec<&str> =
            self.query.iter().map(String::as_str).chain([query]).filter(|part| !part.is_empty()).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = self.agent.get(format!("{}{path}{mark}{}", self.base, query.join("&")));
        if let Some(token) = self.token.read()? {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(password) = &self.password.0 {
            request = request.header("Authorization", password);
        }
        let request = request.config().timeout_global(Some(time)).timeout_connect(Some(CONNECT.min(time))).build();
        let mut response = request.call().map_err(|error| told(error, time))?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let mut answer = Answer {
            status: response.status().as_u16(),
            index: header("X-Consul-Index"),
            known_leader: header("X-Consul-KnownLeader"),
            filtered: header("X-Consul-Results-Filtered-By-ACLs"),
            body: Vec::new(),
        };
        let body = response.body_mut().with_config().limit(BODY_LIMIT).read_to_vec();
        answer.body = body.map_err(|error| told(error, time))?;
        Ok(answer)
    }
}

impl Ask for Client {
    fn get(&self, path: &str, query: &str, time: Duration) -> Result<Answer, Cause> {
        let result = self.send(path, query, time);
        self.observer.request(match result.as_ref().map(super::answer::whole) {
            Ok(Ok(_)) => "ok",
            Ok(Err(cause)) => cause.word(),
            Err(cause) => cause.word(),
        });
        result
    }
}

fn told(error: ureq::Error, time: Duration) -> Cause {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => Cause::TimedOut(CONNECT.min(time)),
        ureq::Error::Timeout(_) => Cause::TimedOut(time),
        ureq::Error::BodyExceedsLimit(limit) => Cause::Unreadable(format!("it is larger than {limit} bytes")),
        // What is no HTTP at all.
        ureq::Error::Protocol(error) => Cause::Unreadable(error.to_string()),
        ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => Cause::TimedOut(time),
        ureq::Error::Io(error) => {
            if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                match error {
                    rustls::Error::InvalidCertificate(_) => return Cause::Mistrust(Side::Consul, error.to_string()),
                    // What the other side says of a certificate can only be about ours.
                    rustls::Error::AlertReceived(_) => return Cause::Mistrust(Side::Hsdo, error.to_string()),
                    _ => {}
                }
            }
            // An error of the system is told by its kind; one of TLS has its own words.
            Cause::Unreachable(if error.get_ref().is_some() { error.to_string() } else { error.kind().to_string() })
        }
        ureq::Error::Other(error) => match error.downcast::<Fault>() {
            Ok(fault) => fault.0,
            Err(error) => Cause::Unreachable(error.to_string()),
        },
        other => Cause::Unreachable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::*;
    use crate::environment::Environment;

    const GOOD: &str =
        "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nX-Consul-Knownleader: true\r\nContent-Length: 2\r\n\r\n[]";

    #[derive(Default)]
    struct Words(Mutex<Vec<&'static str>>);

    impl Observer for Words {
        fn request(&self, result: &'static str) {
            self.0.lock().expect("no panic").push(result);
        }
    }

    fn client(api: &ConsulApi, env: &[(&str, &str)]) -> (Client, Arc<Words>) {
        let words = Arc::new(Words::default());
        let access = Access::from(&Environment::from(env.iter().copied())).expect("an access");
        (Client::new(api, access, words.clone()), words)
    }

    /// Answers one connection with `answer`, and tells what was asked. A silent server keeps the connection open.
    fn answer_one(mut stream: impl Read + Write, answer: &str) -> String {
        let mut asked = String::new();
        let mut reader = BufReader::new(&mut stream);
        while reader.read_line(&mut asked).is_ok_and(|count| count > 2) {}
        stream.write_all(answer.as_bytes()).expect("a reader");
        if answer.is_empty() {
            let _ = stream.read(&mut [0]);
        }
        asked
    }

    fn server(answer: &'static str) -> (SocketAddr, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (told, asked) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let _ = told.send(answer_one(stream, answer));
        });
        (address, asked)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_carries_token_password_namespace_and_datacenter() {
        let (address, asked) = server(GOOD);
        let env = [
            ("CONSUL_HTTP_TOKEN", "secret-1"),
            ("CONSUL_HTTP_AUTH", "user:secret-2"),
            ("CONSUL_NAMESPACE", "a"),
            ("CONSUL_DATACENTER", "b"),
        ];
        let (client, words) = client(&ConsulApi::Http(format!("http://{address}/consul")), &env);
        let answer = client.get("/v1/health/service/web", "index=7&wait=10s", 10 * SECOND).expect("an answer");
        assert_eq!((answer.status, answer.index.as_deref(), answer.body.as_slice()), (200, Some("7"), &b"[]"[..]));
        assert_eq!((answer.known_leader.as_deref(), answer.filtered), (Some("true"), None));
        let asked = asked.recv().expect("a request");
        assert!(
            asked.to_lowercase().contains("\r\nauthorization: ") && asked.contains("Basic dXNlcjpzZWNyZXQtMg==\r\n")
        );
        let asked = asked.to_lowercase();
        assert!(
            asked.starts_with("get /consul/v1/health/service/web?ns=a&dc=b&index=7&wait=10s http/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains("\r\nx-consul-token: secret-1\r\n"), "{asked}");
        assert_eq!(*words.0.lock().expect("no panic"), ["ok"]);
    }

    #[test]
    fn a_socket_is_asked_like_a_port() {
        let path = std::env::temp_dir().join(format!("hsdo-consul-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let (told, asked) = channel();
        std::thread::spawn(move || {
            for answer in [
                GOOD,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
                "HTTP/1.1 2",
            ] {
                let (stream, _) = listener.accept().expect("a connection");
                let _ = told.send(answer_one(stream, answer));
            }
            let (stream, _) = listener.accept().expect("a connection");
            answer_one(stream, "");
        });
        let (client, _) = client(&ConsulApi::Unix(path.clone()), &[]);
        assert_eq!(client.get("/v1/x", "", 10 * SECOND).expect("an answer").index.as_deref(), Some("7"));
        assert!(asked.recv().expect("a request").starts_with("GET /v1/x HTTP/1.1\r\n"));
        assert_eq!(client.get("/v1/x", "", 10 * SECOND).expect("chunks").body, b"[]");
        assert!(client.get("/v1/x", "", 10 * SECOND).is_err(), "a cut answer");
        let from = Instant::now();
        let short = Duration::from_millis(100);
        assert_eq!(client.get("/v1/x", "", short), Err(Cause::TimedOut(short)));
        assert!(from.elapsed() < 5 * SECOND);
        std::fs::remove_file(&path).expect("the socket's file");
        assert!(matches!(client.get("/v1/x", "", SECOND), Err(Cause::Unreachable(text)) if text.contains("not found")));
    }

    #[test]
    fn what_fails_is_told_and_counted() {
        type Judge = fn(&Cause) -> bool;
        #[rustfmt::skip]
        let cases: [(&str, &'static str, &str, Judge); 6] = [
            ("silent", "", "timeout", |cause| *cause == Cause::TimedOut(Duration::from_millis(300))),
            ("cut in the head", "HTTP/1.1 200 OK\r\nX-Con", "unreachable", |cause| matches!(cause, Cause::Unreachable(_))),
            ("cut in the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "unreachable", |cause| matches!(cause, Cause::Unreachable(_))),
            ("no HTTP", "hello\r\n\r\n", "unreadable", |cause| matches!(cause, Cause::Unreadable(_))),
            ("too large", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[", "unreadable",
             |cause| matches!(cause, Cause::Unreadable(_) | Cause::TimedOut(_) | Cause::Unreachable(_))),
            ("elsewhere", "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "refused", |_| false),
        ];
        for (name, text, word, judge) in cases {
            let (address, _asked) = server(text);
            let (client, words) = client(&ConsulApi::Http(format!("http://{address}")), &[]);
            match client.get("/", "", Duration::from_millis(300)) {
                Ok(answer) => assert_eq!((name, answer.status), ("elsewhere", 301)),
                Err(cause) => assert!(judge(&cause), "{name}: {cause:?}"),
            }
            if name != "too large" {
                assert_eq!(*words.0.lock().expect("no panic"), [word], "{name}");
            }
        }
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let (client, _) = client(&ConsulApi::Http(format!("http://{closed}")), &[]);
        assert_eq!(client.get("/", "", SECOND), Err(Cause::Unreachable("connection refused".to_owned())));
    }

    #[test]
    fn a_token_file_that_goes_is_a_fault_of_the_request() {
        let path = std::env::temp_dir().join(format!("hsdo-consul-{}-gone", std::process::id()));
        std::fs::write(&path, "t").expect("a file");
        let env = [("CONSUL_HTTP_TOKEN_FILE", path.to_str().expect("a plain path"))];
        let (client, words) = client(&ConsulApi::Unix(Path::new("/nowhere").to_owned()), &env);
        std::fs::remove_file(&path).expect("a file");
        assert!(matches!(client.get("/", "", SECOND), Err(Cause::Setup(_))));
        assert_eq!(*words.0.lock().expect("no panic"), ["setup"]);
    }
}
