//! Asks the exporter of a process on this machine: one small request, with a deadline for the whole exchange.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::TcpConnector;

use crate::resolver::CachingResolver;

/// Bytes of a page that are read: `/healthz` and `/readyz` have one line.
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
/// Nobody listens, what is there is silent for too long (`TimedOut`), or it does not speak HTTP (`InvalidData`).
pub(super) fn get(listening: SocketAddr, path: &str, patience: Duration) -> Result<Answer, ErrorKind> {
    // No proxy: the process is on this machine.
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None).build();
    let agent = ureq::Agent::with_parts(config, TcpConnector::default(), CachingResolver::default());
    let end = Instant::now() + patience;
    let mut last = ErrorKind::NotFound;
    for address in near(listening) {
        match ask(&agent, &format!("http://{address}{path}"), end.saturating_duration_since(Instant::now())) {
            Err(kind @ (ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable)) => last = kind,
            answer => return answer,
        }
    }
    Err(last)
}

fn ask(agent: &ureq::Agent, url: &str, patience: Duration) -> Result<Answer, ErrorKind> {
    if patience.is_zero() {
        return Err(ErrorKind::TimedOut);
    }
    let response = agent.get(url).config().timeout_global(Some(patience)).build().call().map_err(kind)?;
    let (status, server) = (response.status().as_u16(), response.headers().get("server"));
    let by_hsdo = server.is_some_and(|server| server == "hsdo");
    let mut page = Vec::new();
    let read = response.into_body().into_reader().take(LARGEST).read_to_end(&mut page);
    read.map_err(|error| kind(error.into()))?;
    let line = String::from_utf8_lossy(&page).lines().next().unwrap_or_default().to_owned();
    Ok(Answer { status, by_hsdo, line })
}

fn kind(error: ureq::Error) -> ErrorKind {
    match error {
        ureq::Error::Timeout(_) => ErrorKind::TimedOut,
        // Some services close on a request that they do not understand.
        ureq::Error::Io(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            ErrorKind::InvalidData
        }
        ureq::Error::Io(error) => error.kind(),
        _ => ErrorKind::InvalidData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
