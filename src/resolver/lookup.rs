//! Queries name servers as glibc does: in the order of `resolv.conf`, moving on only if one times out, refuses or fails.
//! An NXDOMAIN is final.
//!
//! Name servers differ: a VPN's knows names or addresses that a public one does not. musl's resolver queries all of them at
//! once and takes the first response.
//!
//! Unlike in glibc, each server's timeout is capped at its share of the caller's time, so that a second server is still
//! queried.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::conf::ResolvConf;
use super::message::{DomainName, Question, RecordType, Resolution};

/// How long to wait for the other family once one has addresses: some servers never answer AAAA queries.
const OTHER_FAMILY_WAIT: Duration = Duration::from_secs(1);
/// In bytes; without EDNS, 512 are allowed.
const MAX_DATAGRAM: usize = 4096;

/// Why a lookup failed. The text is stable while nothing changes, since the log compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// Not a host name.
    InvalidName,
    /// This name server knows no address of the name; `None` with `rotate`, to keep the text stable.
    NotFound(Option<IpAddr>),
    /// How each name server failed, in the order of `resolv.conf`.
    ServersFailed(Vec<(IpAddr, String)>),
}

impl fmt::Display for LookupError {
    /// Starts like the standard library's message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to lookup address information: ")?;
        match self {
            LookupError::InvalidName => f.write_str("it is not a host name"),
            LookupError::NotFound(Some(server)) => write!(f, "name server {server} does not know the name"),
            LookupError::NotFound(None) => f.write_str("the name servers do not know the name"),
            LookupError::ServersFailed(servers) => {
                for (index, (server, what)) in servers.iter().enumerate() {
                    write!(f, "{}name server {server} {what}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LookupError {}

/// The addresses of `name`, by `deadline`. With the option `rotate`, `rotation` selects the first server; `random` returns
/// unpredictable numbers.
pub(super) fn lookup(
    conf: &ResolvConf,
    name: &str,
    deadline: Instant,
    rotation: usize,
    random: &dyn Fn() -> u16,
) -> Result<Vec<IpAddr>, LookupError> {
    let mut servers = conf.servers.clone();
    if conf.rotate {
        let by = rotation % servers.len().max(1);
        servers.rotate_left(by);
    }
    let mut result = LookupError::InvalidName;
    for candidate in conf.candidates(name) {
        let Some(name) = DomainName::new(&candidate) else { continue };
        match query_servers(conf, &servers, &name, deadline, random) {
            Ok((_, addresses)) if !addresses.is_empty() => return Ok(addresses),
            // Keep the first result.
            Ok((server, _)) => {
                if result == LookupError::InvalidName {
                    result = LookupError::NotFound((!conf.rotate).then_some(server.ip()));
                }
            }
            Err(NoAnswer { mut servers, timed_out }) => {
                servers.sort_by_key(|(server, _)| conf.servers.iter().position(|known| known.ip() == *server));
                result = LookupError::ServersFailed(servers);
                // Other candidates would only time out as well.
                if timed_out {
                    break;
                }
            }
        }
    }
    Err(result)
}

/// No server had an answer.
struct NoAnswer {
    servers: Vec<(IpAddr, String)>,
    /// Whether any of them timed out.
    timed_out: bool,
}

/// Tries the servers until one answers: that server, and the addresses.
fn query_servers(
    conf: &ResolvConf,
    servers: &[SocketAddr],
    name: &DomainName,
    deadline: Instant,
    random: &dyn Fn() -> u16,
) -> Result<(SocketAddr, Vec<IpAddr>), NoAnswer> {
    let mut failures: Vec<(IpAddr, String)> = Vec::new();
    let mut timed_out = false;
    for _ in 0..conf.attempts {
        for (index, server) in servers.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let remaining = u32::try_from(servers.len() - index).unwrap_or(1);
            let time = conf.timeout.min(left / remaining);
            if time.is_zero() {
                break;
            }
            let questions = questions(conf, name, random);
            match query_server(conf, *server, &questions, time) {
                Ok(addresses) => return Ok((*server, addresses)),
                Err(failure) => {
                    timed_out |= matches!(failure, ServerFailure::Timeout);
                    failures.retain(|(known, _)| *known != server.ip());
                    failures.push((server.ip(), failure.to_string()));
                }
            }
        }
    }
    if failures.is_empty() {
        failures = servers.iter().map(|server| (server.ip(), "was not queried: no time was left".to_owned())).collect();
        timed_out = true;
    }
    Err(NoAnswer { servers: failures, timed_out })
}

fn questions(conf: &ResolvConf, name: &DomainName, random: &dyn Fn() -> u16) -> Vec<Question> {
    let types: &[RecordType] = if conf.no_aaaa { &[RecordType::A] } else { &[RecordType::A, RecordType::Aaaa] };
    let mut ids: Vec<u16> = Vec::new();
    while ids.len() < types.len() {
        let id = random();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    types
        .iter()
        .zip(ids)
        .map(|(record_type, id)| Question { id, name: name.clone(), record_type: *record_type })
        .collect()
}

/// Why a query failed.
#[derive(Debug)]
enum ServerFailure {
    Timeout,
    Io(ErrorKind),
    Refused(String),
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerFailure::Timeout => f.write_str("does not respond"),
            ServerFailure::Io(kind) => write!(f, "cannot be reached ({kind})"),
            ServerFailure::Refused(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for ServerFailure {
    fn from(error: io::Error) -> Self {
        ServerFailure::Io(error.kind())
    }
}

/// Queries one server within `time`: all addresses, none if it knows none.
fn query_server(
    conf: &ResolvConf,
    server: SocketAddr,
    questions: &[Question],
    time: Duration,
) -> Result<Vec<IpAddr>, ServerFailure> {
    let deadline = Instant::now() + time;
    let responses = if conf.tcp {
        questions.iter().map(|question| query_tcp(server, question, deadline).ok()).collect()
    } else {
        let mut responses = query_udp(server, questions, time, deadline)?;
        for (question, response) in questions.iter().zip(&mut responses) {
            if let Some(Resolution::Truncated(some)) = response {
                // If TCP fails, use the addresses that fit.
                *response = Some(match query_tcp(server, question, deadline) {
                    Ok(whole) => whole,
                    Err(_) if !some.is_empty() => Resolution::Addresses(std::mem::take(some)),
                    Err(failure) => Resolution::Failed(format!("truncates its response, and over TCP {failure}")),
                });
            }
        }
        responses
    };
    combine(&responses)
}

/// Joins a server's responses: addresses of either family count, but having none takes all responses to say so.
fn combine(responses: &[Option<Resolution>]) -> Result<Vec<IpAddr>, ServerFailure> {
    let mut addresses = Vec::new();
    for response in responses {
        if let Some(Resolution::Addresses(some)) = response {
            addresses.extend(some);
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    for response in responses {
        match response {
            Some(Resolution::Failed(text)) => return Err(ServerFailure::Refused(text.clone())),
            None | Some(Resolution::Truncated(_)) => return Err(ServerFailure::Timeout),
            Some(Resolution::NotFound | Resolution::Addresses(_)) => {}
        }
    }
    Ok(addresses)
}

/// The responses over UDP, in the order of the questions.
fn query_udp(
    server: SocketAddr,
    questions: &[Question],
    time: Duration,
    deadline: Instant,
) -> Result<Vec<Option<Resolution>>, ServerFailure> {
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    // A connected socket drops packets from other addresses, and reports closed ports.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let send = |responses: &[Option<Resolution>]| -> io::Result<()> {
        for (question, _) in questions.iter().zip(responses).filter(|(_, response)| response.is_none()) {
            socket.send(&question.message())?;
        }
        Ok(())
    };
    let mut responses: Vec<Option<Resolution>> = vec![None; questions.len()];
    send(&responses)?;
    // Packets may get lost: send again after half the time.
    let mut resend_at = Some(Instant::now() + time / 2);
    let mut deadline = deadline;
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let now = Instant::now();
        if resend_at.is_some_and(|resend_at| resend_at <= now) {
            resend_at = None;
            send(&responses)?;
        }
        let left = resend_at.unwrap_or(deadline).min(deadline).saturating_duration_since(now);
        if left.is_zero() {
            return Ok(responses);
        }
        socket.set_read_timeout(Some(left))?;
        let received = match socket.recv(&mut buffer) {
            Ok(received) => received,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for (question, response) in questions.iter().zip(&mut responses) {
            if response.is_none() {
                *response = question.parse_response(&buffer[..received]);
            }
        }
        if responses.iter().all(Option::is_some) {
            return Ok(responses);
        }
        if responses.iter().any(|response| matches!(response, Some(Resolution::Addresses(_)))) {
            deadline = deadline.min(Instant::now() + OTHER_FAMILY_WAIT);
        }
    }
}

fn query_tcp(server: SocketAddr, question: &Question, deadline: Instant) -> Result<Resolution, ServerFailure> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&server, left()?)?;
    let message = question.message();
    let length = u16::try_from(message.len()).expect("a question has at most some 300 bytes");
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(&[&length.to_be_bytes(), message.as_slice()].concat())?;
    let mut fill = |buffer: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            stream.set_read_timeout(Some(left()?))?;
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let mut length = [0; 2];
    fill(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    fill(&mut message)?;
    match question.parse_response(&message) {
        Some(Resolution::Truncated(addresses)) if addresses.is_empty() => Ok(Resolution::NotFound),
        Some(Resolution::Truncated(addresses)) => Ok(Resolution::Addresses(addresses)),
        Some(response) => Ok(response),
        None => Err(ServerFailure::Refused("answers a different question".to_owned())),
    }
}
