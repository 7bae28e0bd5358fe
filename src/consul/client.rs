//! One bounded GET request to Consul's API, over http, https or a Unix socket.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use ureq::unversioned::transport::{Connector, TcpConnector};

use super::access::{Access, Password, Token};
use super::error::{CertOwner, QueryError};
use super::response::{ConsulResponse, trusted_body};
use super::tls::{SetupError, VERIFY};
use super::unix::UnixConnector;
use crate::resolver::CachingResolver;
use crate::settings::ConsulApi;

/// Counts requests, for the metrics.
pub trait ConsulObserver: Send + Sync {
    /// A request ended: `ok`, `timeout`, `unreachable`, `no_leader`, `denied`, `refused`, `unreadable` or `setup`.
    fn request(&self, result: &'static str);
}

/// Time limit to connect, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes; 10,000 instances take some 20 MB.
const BODY_LIMIT: u64 = 64 * 1024 * 1024;

/// An agent of Consul; a trait so that tests can script its responses.
pub(super) trait Agent: Send + Sync {
    /// GETs `path?query` within `timeout`. The query may be empty.
    fn get(&self, path: &str, query: &str, timeout: Duration) -> Result<ConsulResponse, QueryError>;
}

pub(super) struct AgentClient {
    agent: ureq::Agent,
    base: String,
    token: Token,
    password: Password,
    query: Vec<String>,
    observer: Arc<dyn ConsulObserver>,
}

impl AgentClient {
    pub(super) fn new(api: &ConsulApi, access: Access, observer: Arc<dyn ConsulObserver>) -> Self {
        let Access { token, password, tls, query } = access;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The agent is local or on the same network: a proxy meant for the internet must not be used.
            .proxy(None)
            .user_agent(concat!("hsdo/", env!("CARGO_PKG_VERSION")));
        if api.is_https() && !tls.verifies() {
            log::warn!("{VERIFY} is false: the identity of {api} is not verified, and it receives the token");
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
        AgentClient { agent, base, token, password, query, observer }
    }

    fn send(&self, path: &str, query: &str, timeout: Duration) -> Result<ConsulResponse, QueryError> {
        let query: Vec<&str> =
            self.query.iter().map(String::as_str).chain([query]).filter(|part| !part.is_empty()).collect();
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = self.agent.get(format!("{}{path}{separator}{}", self.base, query.join("&")));
        if let Some(token) = self.token.read()? {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(password) = &self.password.0 {
            request = request.header("Authorization", password);
        }
        let request =
            request.config().timeout_global(Some(timeout)).timeout_connect(Some(CONNECT_TIMEOUT.min(timeout))).build();
        let mut reply = request.call().map_err(|error| failure(error, timeout))?;
        let header = |name: &str| reply.headers().get(name)?.to_str().ok().map(str::to_owned);
        let mut response = ConsulResponse {
            status: reply.status().as_u16(),
            index: header("X-Consul-Index"),
            known_leader: header("X-Consul-KnownLeader"),
            filtered: header("X-Consul-Results-Filtered-By-ACLs"),
            body: Vec::new(),
        };
        let body = reply.body_mut().with_config().limit(BODY_LIMIT).read_to_vec();
        response.body = body.map_err(|error| failure(error, timeout))?;
        Ok(response)
    }
}

impl Agent for AgentClient {
    fn get(&self, path: &str, query: &str, timeout: Duration) -> Result<ConsulResponse, QueryError> {
        let result = self.send(path, query, timeout);
        self.observer.request(match result.as_ref().map(trusted_body) {
            Ok(Ok(_)) => "ok",
            Ok(Err(cause)) => cause.label(),
            Err(cause) => cause.label(),
        });
        result
    }
}

fn failure(error: ureq::Error, timeout: Duration) -> QueryError {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => QueryError::TimedOut(CONNECT_TIMEOUT.min(timeout)),
        ureq::Error::Timeout(_) => QueryError::TimedOut(timeout),
        ureq::Error::BodyExceedsLimit(limit) => QueryError::Unreadable(format!("larger than {limit} bytes")),
        ureq::Error::Protocol(error) => QueryError::Unreadable(error.to_string()),
        ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => QueryError::TimedOut(timeout),
        ureq::Error::Io(error) => {
            if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                match error {
                    rustls::Error::InvalidCertificate(_) => {
                        return QueryError::CertificateRejected(CertOwner::Agent, error.to_string());
                    }
                    // A TLS alert about a certificate can only be about ours.
                    rustls::Error::AlertReceived(_) => {
                        return QueryError::CertificateRejected(CertOwner::Client, error.to_string());
                    }
                    _ => {}
                }
            }
            // Of an operating system error the kind is enough; a TLS error has its own message.
            QueryError::Unreachable(if error.get_ref().is_some() {
                error.to_string()
            } else {
                error.kind().to_string()
            })
        }
        ureq::Error::Other(error) => match error.downcast::<SetupError>() {
            Ok(fault) => fault.0,
            Err(error) => QueryError::Unreachable(error.to_string()),
        },
        other => QueryError::Unreachable(other.to_string()),
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
    struct Labels(Mutex<Vec<&'static str>>);

    impl ConsulObserver for Labels {
        fn request(&self, result: &'static str) {
            self.0.lock().expect("no panic").push(result);
        }
    }

    fn client(api: &ConsulApi, env: &[(&str, &str)]) -> (AgentClient, Arc<Labels>) {
        let labels = Arc::new(Labels::default());
        let access = Access::from(&Environment::from(env.iter().copied())).expect("an access");
        (AgentClient::new(api, access, labels.clone()), labels)
    }

    /// Sends `response` on one connection and returns the request. An empty response keeps the connection open.
    fn respond_once(mut stream: impl Read + Write, response: &str) -> String {
        let mut request = String::new();
        let mut reader = BufReader::new(&mut stream);
        while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
        stream.write_all(response.as_bytes()).expect("a reader");
        if response.is_empty() {
            let _ = stream.read(&mut [0]);
        }
        request
    }

    fn server(response: &'static str) -> (SocketAddr, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let _ = sender.send(respond_once(stream, response));
        });
        (address, requests)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_carries_token_password_namespace_and_datacenter() {
        let (address, requests) = server(GOOD);
        let env = [
            ("CONSUL_HTTP_TOKEN", "secret-1"),
            ("CONSUL_HTTP_AUTH", "user:secret-2"),
            ("CONSUL_NAMESPACE", "a"),
            ("CONSUL_DATACENTER", "b"),
        ];
        let (client, labels) = client(&ConsulApi::Http(format!("http://{address}/consul")), &env);
        let response = client.get("/v1/health/service/web", "index=7&wait=10s", 10 * SECOND).expect("a response");
        assert_eq!(
            (response.status, response.index.as_deref(), response.body.as_slice()),
            (200, Some("7"), &b"[]"[..])
        );
        assert_eq!((response.known_leader.as_deref(), response.filtered), (Some("true"), None));
        let request = requests.recv().expect("a request");
        assert!(
            request.to_lowercase().contains("\r\nauthorization: ")
                && request.contains("Basic dXNlcjpzZWNyZXQtMg==\r\n")
        );
        let request = request.to_lowercase();
        assert!(
            request.starts_with("get /consul/v1/health/service/web?ns=a&dc=b&index=7&wait=10s http/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("\r\nx-consul-token: secret-1\r\n"), "{request}");
        assert_eq!(*labels.0.lock().expect("no panic"), ["ok"]);
    }

    #[test]
    fn a_unix_socket_works_like_tcp() {
        let path = std::env::temp_dir().join(format!("hsdo-consul-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for response in [
                GOOD,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
                "HTTP/1.1 2",
            ] {
                let (stream, _) = listener.accept().expect("a connection");
                let _ = sender.send(respond_once(stream, response));
            }
            let (stream, _) = listener.accept().expect("a connection");
            respond_once(stream, "");
        });
        let (client, _) = client(&ConsulApi::Unix(path.clone()), &[]);
        assert_eq!(client.get("/v1/x", "", 10 * SECOND).expect("a response").index.as_deref(), Some("7"));
        assert!(requests.recv().expect("a request").starts_with("GET /v1/x HTTP/1.1\r\n"));
        assert_eq!(client.get("/v1/x", "", 10 * SECOND).expect("chunks").body, b"[]");
        assert!(client.get("/v1/x", "", 10 * SECOND).is_err(), "a truncated response");
        let from = Instant::now();
        let short = Duration::from_millis(100);
        assert_eq!(client.get("/v1/x", "", short), Err(QueryError::TimedOut(short)));
        assert!(from.elapsed() < 5 * SECOND);
        std::fs::remove_file(&path).expect("the socket's file");
        assert!(
            matches!(client.get("/v1/x", "", SECOND), Err(QueryError::Unreachable(text)) if text.contains("not found"))
        );
    }

    #[test]
    fn failures_are_classified_and_counted() {
        type Judge = fn(&QueryError) -> bool;
        #[rustfmt::skip]
        let cases: [(&str, &'static str, &str, Judge); 6] = [
            ("silent", "", "timeout", |cause| *cause == QueryError::TimedOut(Duration::from_millis(300))),
            ("truncated head", "HTTP/1.1 200 OK\r\nX-Con", "unreachable", |cause| matches!(cause, QueryError::Unreachable(_))),
            ("truncated body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "unreachable", |cause| matches!(cause, QueryError::Unreachable(_))),
            ("no HTTP", "hello\r\n\r\n", "unreadable", |cause| matches!(cause, QueryError::Unreadable(_))),
            ("too large", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[", "unreadable",
             |cause| matches!(cause, QueryError::Unreadable(_) | QueryError::TimedOut(_) | QueryError::Unreachable(_))),
            ("redirect", "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "refused", |_| false),
        ];
        for (name, text, label, judge) in cases {
            let (address, _requests) = server(text);
            let (client, labels) = client(&ConsulApi::Http(format!("http://{address}")), &[]);
            match client.get("/", "", Duration::from_millis(300)) {
                Ok(response) => assert_eq!((name, response.status), ("redirect", 301)),
                Err(cause) => assert!(judge(&cause), "{name}: {cause:?}"),
            }
            if name != "too large" {
                assert_eq!(*labels.0.lock().expect("no panic"), [label], "{name}");
            }
        }
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let (client, _) = client(&ConsulApi::Http(format!("http://{closed}")), &[]);
        assert_eq!(client.get("/", "", SECOND), Err(QueryError::Unreachable("connection refused".to_owned())));
    }

    #[test]
    fn a_deleted_token_file_fails_the_request() {
        let path = std::env::temp_dir().join(format!("hsdo-consul-{}-gone", std::process::id()));
        std::fs::write(&path, "t").expect("a file");
        let env = [("CONSUL_HTTP_TOKEN_FILE", path.to_str().expect("a plain path"))];
        let (client, labels) = client(&ConsulApi::Unix(Path::new("/nowhere").to_owned()), &env);
        std::fs::remove_file(&path).expect("a file");
        assert!(matches!(client.get("/", "", SECOND), Err(QueryError::Setup(_))));
        assert_eq!(*labels.0.lock().expect("no panic"), ["setup"]);
    }
}
