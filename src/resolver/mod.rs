//! Resolves host names for the HTTP agents, with a short cache that is served stale while name servers are down.
//!
//! Uses `/etc/hosts` and `/etc/resolv.conf` as glibc does. musl's resolver queries all name servers at once and takes the
//! fastest response, which is the wrong one on a VPN; and it has no deadline, so that a hung lookup would leak a thread.
//! (ureq may change the trait in a minor version; Cargo.lock pins it.)

mod conf;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lookup;
#[cfg(test)]
mod lookup_tests;
mod message;
mod order;

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

use self::conf::{ResolvConf, hosts_addresses, interface_index};
use self::lookup::{LookupError, lookup};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// The interfaces with an IPv6 address.
const INTERFACES: &str = "/proc/net/if_inet6";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How long to use an entry without a lookup; AWS's TTLs are some seconds.
const FRESH: Duration = Duration::from_secs(10);
/// How long to use an entry while lookups fail.
const STALE: Duration = Duration::from_secs(3600);
/// The limit of a lookup while there is a stale entry.
const STALE_WAIT: Duration = Duration::from_secs(1);
/// The limit of any other lookup.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct CacheEntry {
    addresses: Vec<SocketAddr>,
    since: Instant,
    /// When it was last looked up, successfully or not.
    looked_up: Instant,
}

type Lookup = fn(&str, Instant) -> Result<Vec<IpAddr>, LookupError>;

/// The resolver of an HTTP agent.
pub(crate) struct CachingResolver {
    cached: Mutex<HashMap<String, CacheEntry>>,
    lookup: Lookup,
}

impl Default for CachingResolver {
    fn default() -> Self {
        CachingResolver { cached: Mutex::default(), lookup: look_up }
    }
}

impl fmt::Debug for CachingResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachingResolver")
    }
}

impl CachingResolver {
    /// The addresses of `host:port`, within `time`.
    fn addresses(&self, name: &str, time: Duration, now: Instant) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let cached = cached.filter(|cached| now.saturating_duration_since(cached.since) < STALE);
        if let Some(cached) = cached.as_ref().filter(|cached| now.saturating_duration_since(cached.looked_up) < FRESH) {
            return Ok(cached.addresses.clone());
        }
        let time = if cached.is_some() { time.min(STALE_WAIT) } else { time.min(MAX_WAIT) };
        let result = self.query(name, time);
        let (addresses, since) = match (result, cached) {
            (Ok(addresses), _) if !addresses.is_empty() => (addresses, now),
            (_, Some(cached)) => (cached.addresses, cached.since),
            (Ok(_), None) => return Err(Error::HostNotFound),
            (Err(error), None) => return Err(Error::Io(io::Error::other(error))),
        };
        let cached = CacheEntry { addresses: addresses.clone(), since, looked_up: now };
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), cached);
        Ok(addresses)
    }

    fn query(&self, name: &str, time: Duration) -> Result<Vec<SocketAddr>, LookupError> {
        let (host, port) = name.rsplit_once(':').ok_or(LookupError::InvalidName)?;
        let port = port.parse().map_err(|_| LookupError::InvalidName)?;
        let addresses = (self.lookup)(host, Instant::now() + time)?;
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// The addresses of a host from files and name servers, the preferred one first.
fn look_up(host: &str, until: Instant) -> Result<Vec<IpAddr>, LookupError> {
    /// For the option `rotate`.
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    let mut addresses = hosts_addresses(&read_system_file(HOSTS), host);
    if addresses.is_empty() {
        let scope = |interface: &str| interface_index(&read_system_file(INTERFACES), interface);
        let conf = ResolvConf::parse(&read_system_file(RESOLV_CONF), read_system_file(HOST_NAME).trim(), &scope);
        addresses = lookup(&conf, host, until, LOOKUPS.fetch_add(1, Ordering::Relaxed), &random)?;
    }
    order::sort(&mut addresses);
    Ok(addresses)
}

/// An inaccessible file counts as empty.
fn read_system_file(path: &str) -> String {
    let mut bytes = Vec::new();
    // On an error, use what was read before it.
    let _ = File::open(Path::new(path)).map(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Unpredictable, since std seeds its hashers from the system's randomness.
fn random() -> u16 {
    let hash = RandomState::new().hash_one(0_u8).to_be_bytes();
    u16::from_be_bytes([hash[0], hash[1]])
}

impl Resolver for CachingResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.scheme().zip(uri.authority());
        let name = name.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let addresses = self.addresses(&name.ok_or(Error::HostNotFound)?, *timeout.after, Instant::now())?;
        let mut result = self.empty();
        // The capacity of `ResolvedSocketAddrs`.
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
        let names = CachingResolver { lookup: |_, _| panic!("asked"), ..CachingResolver::default() };
        for name in ["127.0.0.1:80", "[::1]:443"] {
            assert_eq!(names.addresses(name, TIME, at(0)).unwrap(), [name.parse().unwrap()]);
        }
    }

    #[test]
    fn entries_are_cached_and_served_stale_while_lookups_fail() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let lookup: Lookup = |host, _| {
            assert_eq!(host, "a");
            match ASKED.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(vec!["127.0.0.1".parse().unwrap()]),
                1 => Err(LookupError::ServersFailed(vec![])),
                2 => Ok(vec![]),
                3 => Ok(vec!["127.0.0.2".parse().unwrap()]),
                _ => Err(LookupError::NotFound(Some([127, 0, 0, 53].into()))),
            }
        };
        let names = CachingResolver { lookup, ..CachingResolver::default() };
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
    fn a_lookup_has_its_callers_time_and_less_with_a_stale_entry() {
        static LEFT: Mutex<Vec<Duration>> = Mutex::new(Vec::new());
        let lookup: Lookup = |_, until| {
            LEFT.lock().unwrap().push(until.saturating_duration_since(Instant::now()));
            Ok(vec!["127.0.0.1".parse().unwrap()])
        };
        let names = CachingResolver { lookup, ..CachingResolver::default() };
        for (name, time, second) in [("a:1", TIME, 0), ("a:1", TIME, 20), ("b:1", Duration::MAX, 0)] {
            names.addresses(name, time, at(second)).unwrap();
        }
        let left = LEFT.lock().unwrap().clone();
        assert!(left[0] <= TIME && left[0] > STALE_WAIT && left[1] <= STALE_WAIT && left[2] <= MAX_WAIT, "{left:?}");
    }

    #[test]
    fn invalid_names_are_not_looked_up() {
        let names = CachingResolver { lookup: |_, _| panic!("asked"), ..CachingResolver::default() };
        for name in ["a", "a:b", ""] {
            assert!(names.addresses(name, TIME, at(0)).is_err(), "{name}");
        }
    }
}
