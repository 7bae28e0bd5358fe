//! Asks name servers as glibc does: one after the other in the order of `resolv.conf`, the next one only where one is
//! silent, refuses or fails. Its "there is no such name" is believed at once, and so is its answer.
//!
//! A network has name servers that differ: that of a VPN knows names, or other addresses for them, which a public one does
//! not. musl's own resolver asks all of them at once and takes what comes first.
//!
//! glibc waits for resolv.conf's `timeout`; here each server's share of the time that the caller has is the limit where
//! that is less, so that a second server is heard before a turn is over.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::conf::Conf;
use super::message::{Answer, Kind, Name, Question};

/// How long addresses of one family wait for the other one's: some servers never answer about IPv6.
const OTHER_FAMILY: Duration = Duration::from_secs(1);
/// The largest message over UDP that is read whole: one without EDNS has at most 512 bytes.
const LARGEST: usize = 4096;

/// Why there are no addresses, in words that stay the same while nothing changes: a log tells a fault by them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// It cannot be a name.
    NoName,
    /// This name server knows no such name, or no address of it; `None` where they take turns.
    Unknown(Option<IpAddr>),
    /// Each name server is silent, refuses or fails: what they did, in the order of `resolv.conf`.
    NoAnswer(Vec<(IpAddr, String)>),
}

impl fmt::Display for Unresolved {
    /// It begins as the standard library does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to lookup address information: ")?;
        match self {
            Unresolved::NoName => f.write_str("it is not a host name"),
            Unresolved::Unknown(Some(server)) => write!(f, "name server {server} does not know the name"),
            Unresolved::Unknown(None) => f.write_str("the name servers do not know the name"),
            Unresolved::NoAnswer(servers) => {
                for (place, (server, what)) in servers.iter().enumerate() {
                    write!(f, "{}name server {server} {what}", if place == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Unresolved {}

/// The addresses of `name` by `conf`, found until `until`. `turn` says which server is first, with the option `rotate`;
/// `random` gives numbers that nobody can guess.
pub(super) fn lookup(
    conf: &Conf,
    name: &str,
    until: Instant,
    turn: usize,
    random: &dyn Fn() -> u16,
) -> Result<Vec<IpAddr>, Unresolved> {
    let mut servers = conf.servers.clone();
    if conf.rotate {
        let by = turn % servers.len().max(1);
        servers.rotate_left(by);
    }
    let mut result = Unresolved::NoName;
    for candidate in conf.candidates(name) {
        let Some(name) = Name::new(&candidate) else { continue };
        match ask_all(conf, &servers, &name, until, random) {
            Ok((_, addresses)) if !addresses.is_empty() => return Ok(addresses),
            // The first one says more than those that a domain was added to.
            Ok((server, _)) => {
                if result == Unresolved::NoName {
                    result = Unresolved::Unknown((!conf.rotate).then_some(server.ip()));
                }
            }
            Err(NoAnswer { mut servers, silent }) => {
                servers.sort_by_key(|(server, _)| conf.servers.iter().position(|known| known.ip() == *server));
                result = Unresolved::NoAnswer(servers);
                // To ask about another name is of no use where nobody answers, and takes as long again.
                if silent {
                    break;
                }
            }
        }
    }
    Err(result)
}

/// No server gave an answer.
struct NoAnswer {
    servers: Vec<(IpAddr, String)>,
    /// Whether one of them said nothing at all.
    silent: bool,
}

/// Goes through the servers until one answers: the server, and the addresses that it knows.
fn ask_all(
    conf: &Conf,
    servers: &[SocketAddr],
    name: &Name,
    until: Instant,
    random: &dyn Fn() -> u16,
) -> Result<(SocketAddr, Vec<IpAddr>), NoAnswer> {
    let mut told: Vec<(IpAddr, String)> = Vec::new();
    let mut silent = false;
    for _ in 0..conf.attempts {
        for (place, server) in servers.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let to_come = u32::try_from(servers.len() - place).unwrap_or(1);
            let time = conf.timeout.min(left / to_come);
            if time.is_zero() {
                break;
            }
            let questions = questions(conf, name, random);
            match ask(conf, *server, &questions, time) {
                Ok(addresses) => return Ok((*server, addresses)),
                Err(failure) => {
                    silent |= matches!(failure, Failure::Silent);
                    told.retain(|(known, _)| *known != server.ip());
                    told.push((server.ip(), failure.to_string()));
                }
            }
        }
    }
    if told.is_empty() {
        told = servers.iter().map(|server| (server.ip(), "was not asked, since no time was left".to_owned())).collect();
        silent = true;
    }
    Err(NoAnswer { servers: told, silent })
}

fn questions(conf: &Conf, name: &Name, random: &dyn Fn() -> u16) -> Vec<Question> {
    let kinds: &[Kind] = if conf.no_aaaa { &[Kind::A] } else { &[Kind::A, Kind::Aaaa] };
    let mut ids: Vec<u16> = Vec::new();
    while ids.len() < kinds.len() {
        let id = random();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    kinds.iter().zip(ids).map(|(kind, id)| Question { id, name: name.clone(), kind: *kind }).collect()
}

/// Why one server gave no answer.
#[derive(Debug)]
enum Failure {
    Silent,
    Broken(ErrorKind),
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Silent => f.write_str("gives no answer"),
            Failure::Broken(kind) => write!(f, "cannot be reached ({kind})"),
            Failure::Refused(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Broken(error.kind())
    }
}

/// Asks one server all questions within `time`: the addresses of all its answers, none if it knows none.
fn ask(conf: &Conf, server: SocketAddr, questions: &[Question], time: Duration) -> Result<Vec<IpAddr>, Failure> {
    let until = Instant::now() + time;
    let answers = if conf.tcp {
        questions.iter().map(|question| ask_by_tcp(server, question, until).ok()).collect()
    } else {
        let mut answers = ask_by_udp(server, questions, time, until)?;
        for (question, answer) in questions.iter().zip(&mut answers) {
            if let Some(Answer::Cut(some)) = answer {
                // Where TCP is closed, what did fit is better than nothing.
                *answer = Some(match ask_by_tcp(server, question, until) {
                    Ok(whole) => whole,
                    Err(_) if !some.is_empty() => Answer::Addresses(std::mem::take(some)),
                    Err(failure) => Answer::Failed(format!("cuts its answer short, and by TCP {failure}")),
                });
            }
        }
        answers
    };
    summary(&answers)
}

/// What the answers of a server come to: addresses of either family count, and that there are none only where both
/// answers say so.
fn summary(answers: &[Option<Answer>]) -> Result<Vec<IpAddr>, Failure> {
    let mut addresses = Vec::new();
    for answer in answers {
        if let Some(Answer::Addresses(some)) = answer {
            addresses.extend(some);
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    for answer in answers {
        match answer {
            Some(Answer::Failed(text)) => return Err(Failure::Refused(text.clone())),
            None | Some(Answer::Cut(_)) => return Err(Failure::Silent),
            Some(Answer::None | Answer::Addresses(_)) => {}
        }
    }
    Ok(addresses)
}

/// The answers that come over UDP until `until`, in the order of the questions.
fn ask_by_udp(
    server: SocketAddr,
    questions: &[Question],
    time: Duration,
    until: Instant,
) -> Result<Vec<Option<Answer>>, Failure> {
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    // A connected socket takes nothing from others, and is told where nobody listens.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let send = |answers: &[Option<Answer>]| -> io::Result<()> {
        for (question, _) in questions.iter().zip(answers).filter(|(_, answer)| answer.is_none()) {
            socket.send(&question.message())?;
        }
        Ok(())
    };
    let mut answers: Vec<Option<Answer>> = vec![None; questions.len()];
    send(&answers)?;
    // A datagram may be lost.
    let mut again = Some(Instant::now() + time / 2);
    let mut until = until;
    let mut buffer = [0; LARGEST];
    loop {
        let now = Instant::now();
        if again.is_some_and(|again| again <= now) {
            again = None;
            send(&answers)?;
        }
        let left = again.unwrap_or(until).min(until).saturating_duration_since(now);
        if left.is_zero() {
            return Ok(answers);
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
        for (question, answer) in questions.iter().zip(&mut answers) {
            if answer.is_none() {
                *answer = question.answer(&buffer[..received]);
            }
        }
        if answers.iter().all(Option::is_some) {
            return Ok(answers);
        }
        if answers.iter().any(|answer| matches!(answer, Some(Answer::Addresses(_)))) {
            until = until.min(Instant::now() + OTHER_FAMILY);
        }
    }
}

fn ask_by_tcp(server: SocketAddr, question: &Question, until: Instant) -> Result<Answer, Failure> {
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
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
    match question.answer(&message) {
        Some(Answer::Cut(addresses)) if addresses.is_empty() => Ok(Answer::None),
        Some(Answer::Cut(addresses)) => Ok(Answer::Addresses(addresses)),
        Some(answer) => Ok(answer),
        None => Err(Failure::Refused("answers another question".to_owned())),
    }
}
