//! Names to addresses for the HTTP agents: an answer is remembered for a moment, and a name server that is down does not
//! stop what worked before. It knows no service.
//!
//! ureq's own resolver starts a thread for every request, and ends the process where the system refuses one. This one
//! asks only when it has to, and a refused thread is an error like any other. (The trait is one of ureq's that may
//! change without a major version, so Cargo.lock is what holds it.)

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

/// How long an answer serves without asking again: AWS's own answers hold for some seconds.
const FRESH: Duration = Duration::from_secs(10);
/// How long an older answer serves when no new one is to be had.
const STALE: Duration = Duration::from_secs(3600);
/// How long a new answer is waited for while an older one is at hand.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Known {
    addresses: Vec<SocketAddr>,
    since: Instant,
    /// When it was last asked for, with or without success.
    asked: Instant,
}

/// Who looks names up.
type Lookup = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// The resolver of an agent.
pub(crate) struct Names {
    known: Mutex<HashMap<String, Known>>,
    lookup: Lookup,
}

impl Default for Names {
    fn default() -> Self {
        Names { known: Mutex::default(), lookup: |name| Ok(name.to_socket_addrs()?.collect()) }
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
        let time = if known.is_some() { time.min(PATIENCE) } else { time };
        let answer = self.ask(name, time);
        let (addresses, since) = match (answer, known) {
            (Ok(addresses), _) if !addresses.is_empty() => (addresses, now),
            (_, Some(known)) => (known.addresses, known.since),
            (Ok(_), None) => return Err(Error::HostNotFound),
            (Err(error), None) => return Err(error),
        };
        let known = Known { addresses: addresses.clone(), since, asked: now };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), known);
        Ok(addresses)
    }

    /// Asks the system, which knows no deadline: in a thread that may be left behind.
    fn ask(&self, name: &str, time: Duration) -> Result<Vec<SocketAddr>, Error> {
        let (tell, told) = sync_channel(1);
        let (lookup, name) = (self.lookup, name.to_owned());
        thread::Builder::new().name("resolver".to_owned()).spawn(move || tell.send(lookup(&name)))?;
        match told.recv_timeout(time) {
            Ok(answer) => Ok(answer?),
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(Timeout::Resolve)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
        }
    }
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let names = Names { lookup: |_| panic!("asked"), ..Names::default() };
        for name in ["127.0.0.1:80", "[::1]:443"] {
            assert_eq!(names.addresses(name, TIME, at(0)).unwrap(), [name.parse().unwrap()]);
        }
    }

    #[test]
    fn an_answer_serves_for_a_while_and_longer_while_there_is_no_new_one() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let lookup: Lookup = |_| match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec!["127.0.0.1:80".parse().unwrap()]),
            1 => Err(io::ErrorKind::NotFound.into()),
            2 => Ok(vec![]),
            3 => Ok(vec!["127.0.0.2:80".parse().unwrap()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let names = Names { lookup, ..Names::default() };
        for (second, last, asked) in
            [(0, 1, 1), (9, 1, 1), (10, 1, 2), (19, 1, 2), (20, 1, 3), (30, 2, 4), (39, 2, 4), (40, 2, 5), (3600, 2, 6)]
        {
            let addresses = names.addresses("a:80", TIME, at(second)).unwrap();
            assert_eq!(addresses, [format!("127.0.0.{last}:80").parse().unwrap()], "second {second}");
            assert_eq!(ASKED.load(Ordering::SeqCst), asked, "second {second}");
        }
        assert!(names.addresses("a:80", TIME, at(3630)).is_err(), "an hour after the last answer");
    }

    #[test]
    fn a_lookup_that_hangs_ends_at_the_deadline() {
        let sleeping: Lookup = |_| {
            thread::sleep(Duration::from_secs(60));
            Ok(vec![])
        };
        let names = Names { lookup: sleeping, ..Names::default() };
        let answer = names.addresses("a:80", Duration::from_millis(20), at(0));
        assert!(matches!(answer, Err(Error::Timeout(Timeout::Resolve))), "{answer:?}");
    }
}
