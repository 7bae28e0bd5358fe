//! Asks the exporter of a process on this machine. One small request, in HTTP's plainest form, with a deadline for the whole exchange.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an answer that are looked at: `/healthz` and `/readyz` have one line.
const LARGEST: u64 = 8 * 1024;

/// What a page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP's status code.
    pub(super) status: u16,
    /// Whether hsdo says of itself that it answers.
    pub(super) by_hsdo: bool,
    /// The first line of the page.
    pub(super) line: String,
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let is_ours = |line: &str| {
            let header = line.split_once(':');
            header.is_some_and(|(name, value)| name.eq_ignore_ascii_case("Server") && value.trim() == "hsdo")
        };
        Some(Answer { status, by_hsdo: lines.any(is_ours), line: body.lines().next().unwrap_or_default().to_owned() })
    }
}

/// Where to reach what listens on `listening`: on the loopback address, if it listens on all; on IPv4's too, since `::` serves both.
pub(super) fn near(listening: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let hosts = match listening.ip() {
        ip if !ip.is_unspecified() => vec![ip],
        IpAddr::V4(_) => vec![v4],
        IpAddr::V6(_) => vec![v6, v4],
    };
    hosts.into_iter().map(|ip| SocketAddr::new(ip, listening.port())).collect()
}

/// Gets `path` from the exporter that listens on `listening`, within `patience` altogether.
///
/// # Errors
/// Nobody listens, what is there is silent for too long, or it does not speak HTTP.
pub(super) fn get(listening: SocketAddr, path: &str, patience: Duration) -> io::Result<Answer> {
    let end = Instant::now() + patience;
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in near(listening) {
        match connect(address, end) {
            Ok(stream) => return exchange(stream, path, end),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect(address: SocketAddr, end: Instant) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, left(end)?)
}

fn exchange(mut stream: TcpStream, path: &str, end: Instant) -> io::Result<Answer> {
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let (mut page, mut part) = (Vec::new(), [0; 1024]);
    while (page.len() as u64) < LARGEST {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => page.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A read that times out.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Answer::parse(&String::from_utf8_lossy(&page)).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The time left; at least a moment, since zero would be no limit.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nServer: hsdo\r\n\r\nok\n", Some((200, true, "ok"))),
            (
                "HTTP/1.1 503 Service Unavailable\r\nserver:hsdo\r\n\r\nthe last turn\nx",
                Some((503, true, "the last turn")),
            ),
            ("HTTP/1.0 200 OK\r\nServer: nginx\r\n\r\n", Some((200, false, ""))),
            ("HTTP/1.1 200 OK\r\n\r\nServer: hsdo\r\n", Some((200, false, "Server: hsdo"))),
            ("HTTP/1.1 abc\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nServer: hsdo\r\n", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(status, by_hsdo, line): (u16, bool, &str)| Answer {
                status,
                by_hsdo,
                line: line.into(),
            });
            assert_eq!(Answer::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_listens_everywhere_is_asked_on_loopback() {
        for (listening, expected) in [
            ("0.0.0.0:1", &["127.0.0.1:1"][..]),
            ("[::]:1", &["[::1]:1", "127.0.0.1:1"]),
            ("10.0.0.7:1", &["10.0.0.7:1"]),
            ("[::1]:1", &["[::1]:1"]),
        ] {
            let near: Vec<String> = near(listening.parse().expect(listening)).iter().map(ToString::to_string).collect();
            assert_eq!(near, expected);
        }
    }
}
