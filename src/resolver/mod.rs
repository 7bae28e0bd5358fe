//! Names to addresses for the HTTP agents: an answer is remembered for a moment, and a name server that is down does not
//! stop what worked before. It knows no service.
//!
//! The lookup is our own, by `/etc/hosts` and `/etc/resolv.conf` as glibc reads them. That of the C library we are built
//! with (musl) asks all name servers at once and believes the fastest, which on a VPN is the one that knows least; and it
//! knows no deadline, so that it would need a thread for each lookup, left behind where it hangs. (The trait is one of
//! ureq's that may change without a major version, so Cargo.lock is what holds it.)

mod ask;
mod conf;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod message;
mod order;
#[cfg(test)]
mod servers;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use self::ask::{Unresolved, lookup};
use self::conf::{Conf, addresses_in_hosts, scope_in};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// The interfaces with an IPv6 address, and their numbers.
const INTERFACES: &str = "/proc/net/if_inet6";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// The most that is read of any of them, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// How long an answer serves without asking again: AWS's own answers hold for some seconds.
const FRESH: Duration = Duration::from_secs(10);
/// How long an older answer serves when no new one is to be had.
const STALE: Duration = Duration::from_secs(3600);
/// How long a new answer is waited for while an older one is at hand.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one is waited for where the caller names no time.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Known {
    addresses: Vec<SocketAddr>,
    since: Instant,
    /// When it was last asked for, with or without success.
    asked: Instant,
}

/// Who looks names up, until a deadline.
type Lookup = fn(&str, Instant) -> Result<Vec<IpAddr>, Unresolved>;

/// The resolver of an agent.
pub(crate) struct Names {
    known: Mutex<HashMap<String, Known>>,
    lookup: Lookup,
}

impl Default for Names {
    fn default() -> Self {
        Names { known: Mutex::default(), lookup: look_up }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// The addresses of `name`, which is a host and a port, within `time`.
    fn addresses(&self, name: &str, time: Duration, now: Instant) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let known = known.filter(|known| now.saturating_duration_since(known.since) < STALE);
        if let Some(known) = known.as_ref().filter(|known| now.saturating_duration_since(known.asked) < FRESH) {
            return Ok(known.addresses.clone());
        }
        let time = if known.is_some() { time.min(PATIENCE) } else { time.min(LONGEST) };
        let answer = self.ask(name, time);
        let (addresses, since) = match (answer, known) {
            (Ok(addresses), _) if !addresses.is_empty() => (addresses, now),
            (_, Some(known)) => (known.addresses, known.since),
            (Ok(_), None) => return Err(Error::HostNotFound),
            (Err(error), None) => return Err(Error::Io(io::Error::other(error))),
        };
        let known = Known { addresses: addresses.clone(), since, asked: now };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), known);
        Ok(addresses)
    }

    fn ask(&self, name: &str, time: Duration) -> Result<Vec<SocketAddr>, Unresolved> {
        let (host, port) = name.rsplit_once(':').ok_or(Unresolved::NoName)?;
        let port = port.parse().map_err(|_| Unresolved::NoName)?;
        let addresses = (self.lookup)(host, Instant::now() + time)?;
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// The addresses of a host by this machine's files and name servers, the best one first.
fn look_up(host: &str, until: Instant) -> Result<Vec<IpAddr>, Unresolved> {
    /// How many were looked up, for name servers that take turns.
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let mut addresses = addresses_in_hosts(&text_of(HOSTS), host);
    if addresses.is_empty() {
        let scope = |interface: &str| scope_in(&text_of(INTERFACES), interface);
        let conf = Conf::parse(&text_of(RESOLV_CONF), text_of(HOST_NAME).trim(), &scope);
        addresses = lookup(&conf, host, until, TURN.fetch_add(1, Ordering::Relaxed), &random)?;
    }
    order::sort(&mut addresses);
    Ok(addresses)
}

/// A file of the system. One that is not there or cannot be read says nothing.
fn text_of(path: &str) -> String {
    let mut bytes = Vec::new();
    // What was read before a fault still counts.
    let _ = File::open(Path::new(path)).map(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A number that nobody can guess: the standard library keys its hashes from the system's randomness.
fn random() -> u16 {
    let hash = RandomState::new().hash_one(0_u8).to_be_bytes();
    u16::from_be_bytes([hash[0], hash[1]])
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.scheme().zip(uri.authority());
        let name = name.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let addresses = self.addresses(&name.ok_or(Error::HostNotFound)?, *timeout.after, Instant::now())?;
        let mut result = self.empty();
        // What an agent takes at most.
        for address in config.ip_family().keep_wanted(addresses.into_iter()).take(16) {
            result.push(address);
        }
        if result.is_empty() { Err(Error::HostNotFound) } else { Ok(result) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let names = Names { lookup: |_, _| panic!("asked"), ..Names::default() };
        for name in ["127.0.0.1:80", "[::1]:443"] {
            assert_eq!(names.addresses(name, TIME, at(0)).unwrap(), [name.parse().unwrap()]);
        }
    }

    #[test]
    fn an_answer_serves_for_a_while_and_longer_while_there_is_no_new_one() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let lookup: Lookup = |host, _| {
            assert_eq!(host, "a");
            match ASKED.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(vec!["127.0.0.1".parse().unwrap()]),
                1 => Err(Unresolved::NoAnswer(vec![])),
                2 => Ok(vec![]),
                3 => Ok(vec!["127.0.0.2".parse().unwrap()]),
                _ => Err(Unresolved::Unknown(Some([127, 0, 0, 53].into()))),
            }
        };
        let names = Names { lookup, ..Names::default() };
        for (second, last, asked) in
            [(0, 1, 1), (9, 1, 1), (10, 1, 2), (19, 1, 2), (20, 1, 3), (30, 2, 4), (39, 2, 4), (40, 2, 5), (3600, 2, 6)]
        {
            let addresses = names.addresses("a:80", TIME, at(second)).unwrap();
            assert_eq!(addresses, [format!("127.0.0.{last}:80").parse().unwrap()], "second {second}");
            assert_eq!(ASKED.load(Ordering::SeqCst), asked, "second {second}");
        }
        let error = names.addresses("a:80", TIME, at(3630)).expect_err("an hour after the last answer");
        let expected = "failed to lookup address information: name server 127.0.0.53 does not know the name";
        assert!(matches!(&error, Error::Io(error) if error.to_string() == expected), "{error:?}");
    }

    #[test]
    fn a_lookup_has_the_time_of_its_caller_and_less_where_an_answer_is_at_hand() {
        static LEFT: Mutex<Vec<Duration>> = Mutex::new(Vec::new());
        let lookup: Lookup = |_, until| {
            LEFT.lock().unwrap().push(until.saturating_duration_since(Instant::now()));
            Ok(vec!["127.0.0.1".parse().unwrap()])
        };
        let names = Names { lookup, ..Names::default() };
        for (name, time, second) in [("a:1", TIME, 0), ("a:1", TIME, 20), ("b:1", Duration::MAX, 0)] {
            names.addresses(name, time, at(second)).unwrap();
        }
        let left = LEFT.lock().unwrap().clone();
        assert!(left[0] <= TIME && left[0] > PATIENCE && left[1] <= PATIENCE && left[2] <= LONGEST, "{left:?}");
    }

    #[test]
    fn what_is_no_host_and_port_is_not_looked_up() {
        let names = Names { lookup: |_, _| panic!("asked"), ..Names::default() };
        for name in ["a", "a:b", ""] {
            assert!(names.addresses(name, TIME, at(0)).is_err(), "{name}");
        }
    }
}
