//! What `/etc/resolv.conf` and `/etc/hosts` say, by resolv.conf(5) and hosts(5) as glibc reads them. Pure.
//!
//! What is not read: the variables `LOCALDOMAIN`, `RES_OPTIONS` and `HOSTALIASES`, `nsswitch.conf`, and the options that
//! are not named below (`edns0` and `trust-ad` among them: nothing is asked that needs them).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The port of every name server.
const PORT: u16 = 53;
/// The most name servers that count (`MAXNS`).
const MOST_SERVERS: usize = 3;
/// The most domains that are searched; glibc knows no limit, and nobody has so many.
const MOST_DOMAINS: usize = 32;

/// How names are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    /// The name servers, at least one.
    pub(super) servers: Vec<SocketAddr>,
    /// The domains that a short name is looked for in; an empty one is the root.
    pub(super) search: Vec<String>,
    /// How many dots a name must have to be asked for as it is, before the domains.
    pub(super) ndots: usize,
    /// How long one server is waited for.
    pub(super) timeout: Duration,
    /// How often the list of servers is gone through.
    pub(super) attempts: u32,
    /// Whether each question starts with another server.
    pub(super) rotate: bool,
    /// Whether every question goes over TCP.
    pub(super) tcp: bool,
    /// Whether IPv6 addresses are not asked for.
    pub(super) no_aaaa: bool,
}

impl Conf {
    /// Reads `resolv.conf`, empty where there is none. `host` is this machine's name, whose domain is searched where no
    /// other is named; `scope` gives the number of a network interface.
    pub(super) fn parse(text: &str, host: &str, scope: &dyn Fn(&str) -> Option<u32>) -> Conf {
        let mut conf = Conf {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
            no_aaaa: false,
        };
        // A comment begins at the start of a line, and nowhere else.
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(|word| server(word, scope))),
                // Of both words the last line wins.
                Some("domain") => conf.search = words.take(1).map(domain).collect(),
                Some("search") => conf.search = words.take(MOST_DOMAINS).map(domain).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.servers.truncate(MOST_SERVERS);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        if conf.search.is_empty() {
            conf.search.extend(host.split_once('.').map(|(_, rest)| domain(rest)));
        }
        conf
    }

    fn option(&mut self, word: &str) {
        // As `atoi` reads it: what does not begin with a number is 0.
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).take(4).collect();
            digits.parse::<u32>().unwrap_or(0)
        };
        match word.split_once(':') {
            Some(("ndots", text)) => self.ndots = number(text).min(15) as usize,
            Some(("timeout", text)) => self.timeout = Duration::from_secs(number(text).clamp(1, 30).into()),
            Some(("attempts", text)) => self.attempts = number(text).clamp(1, 5),
            _ => match word {
                "rotate" => self.rotate = true,
                "use-vc" => self.tcp = true,
                "no-aaaa" => self.no_aaaa = true,
                _ => {}
            },
        }
    }

    /// The names that `name` may stand for, in the order in which they are asked for.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let searched = self.search.iter().map(|domain| match domain.as_str() {
            "" => name.to_owned(),
            domain => format!("{name}.{domain}"),
        });
        let first = name.matches('.').count() >= self.ndots;
        let mut names: Vec<String> = Vec::new();
        let as_it_is = || std::iter::once(name.to_owned());
        for name in as_it_is().filter(|_| first).chain(searched).chain(as_it_is()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// A domain without the dots around it: `.` is the root.
fn domain(word: &str) -> String {
    word.trim_matches('.').to_owned()
}

/// A name server's address: IPv4, or IPv6 with or without a scope (`fe80::1%eth0`).
fn server(word: &str, scope: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some((word.parse::<IpAddr>().ok()?, PORT).into());
    };
    // A zone that is not known here leaves the server without one, which the system then refuses.
    let zone = zone.parse().ok().or_else(|| scope(zone)).unwrap_or(0);
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, zone).into())
}

/// The addresses that `/etc/hosts` has for a name.
pub(super) fn addresses_in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
            && words.any(|word| word.eq_ignore_ascii_case(name))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The number of an interface by `/proc/net/if_inet6`, which lists those with an IPv6 address:
/// `fe80000000000000000000000000000a 02 40 20 80 eth0`.
pub(super) fn scope_in(if_inet6: &str, interface: &str) -> Option<u32> {
    if_inet6.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, index, _, _, _, name] = words[..] else { return None };
        (name == interface).then(|| u32::from_str_radix(index, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        Conf::parse(text, "web-1", &|interface| (interface == "eth0").then_some(2))
    }

    fn servers(text: &str) -> Vec<String> {
        conf(text).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_glibcs() {
        let expected = Conf {
            servers: vec!["127.0.0.1:53".parse().unwrap()],
            search: vec![],
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
            no_aaaa: false,
        };
        for text in ["", "# nameserver 10.0.0.1\n;nameserver 10.0.0.1\n nameserver 10.0.0.1x\nnameserver\n"] {
            assert_eq!(conf(text), expected, "{text:?}");
        }
    }

    #[test]
    fn servers_are_taken_in_order_and_three_at_most() {
        assert_eq!(servers("nameserver 10.0.0.1\nnameserver\t10.0.0.2 # x\r\n"), ["10.0.0.1:53", "10.0.0.2:53"]);
        let four = "nameserver 10.0.0.1\nnameserver bad\nnameserver ::1\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        assert_eq!(servers(four), ["10.0.0.1:53", "[::1]:53", "10.0.0.3:53"]);
        assert_eq!(servers("nameserver fe80::1%eth0\nnameserver fe80::2%7\n"), ["[fe80::1%2]:53", "[fe80::2%7]:53"]);
        assert_eq!(servers("nameserver fe80::1%gone\nnameserver 10.0.0.1%eth0\n"), ["[fe80::1]:53"]);
    }

    #[test]
    fn options_are_read_and_held_within_bounds() {
        let of = |text: &str| {
            let conf = conf(&format!("options {text}\n"));
            (conf.ndots, conf.timeout.as_secs(), conf.attempts, conf.rotate, conf.tcp, conf.no_aaaa)
        };
        assert_eq!(of("ndots:5 timeout:1 attempts:3 rotate"), (5, 1, 3, true, false, false));
        assert_eq!(of("edns0 trust-ad single-request use-vc no-aaaa"), (1, 5, 2, false, true, true));
        assert_eq!(of("ndots:99 timeout:99 attempts:99"), (15, 30, 5, false, false, false));
        assert_eq!(of("ndots:0 timeout:0 attempts:0"), (0, 1, 1, false, false, false));
        assert_eq!(of("ndots:x timeout: attempts:-1 ndots:99999999999999999999"), (15, 1, 1, false, false, false));
        assert_eq!(conf("options ndots:3\noptions rotate\n").ndots, 3);
    }

    #[test]
    fn short_names_are_searched_for_and_whole_ones_asked_for_first() {
        let kubernetes = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        for (text, name, expected) in [
            ("", "db", &["db"][..]),
            ("search a.example b.example.\n", "db", &["db.a.example", "db.b.example", "db"]),
            ("search a.example\n", "db.x", &["db.x", "db.x.a.example"]),
            ("search a.example\n", "db.", &["db"]),
            ("search a.example\noptions ndots:0\n", "db", &["db", "db.a.example"]),
            ("search a.example\ndomain b.example c.example\n", "db", &["db.b.example", "db"]),
            ("domain b.example\nsearch a.example .\n", "db", &["db.a.example", "db"]),
            (
                kubernetes,
                "sts.amazonaws.com",
                &[
                    "sts.amazonaws.com.default.svc.cluster.local",
                    "sts.amazonaws.com.svc.cluster.local",
                    "sts.amazonaws.com.cluster.local",
                    "sts.amazonaws.com",
                ],
            ),
        ] {
            assert_eq!(conf(text).candidates(name), expected, "{text:?} {name}");
        }
        let named = Conf::parse("", "web-1.corp.example", &|_| None);
        assert_eq!(named.candidates("db"), ["db.corp.example", "db"]);
    }

    #[test]
    fn hosts_has_addresses_of_both_kinds_for_any_of_a_lines_names() {
        let text = "127.0.0.1 localhost # db\n10.0.0.1\tdb.example  DB extra\r\nfd00::1 db\n10.0.0.1 db\n#10.9.9.9 db\nbad db\n10.0.0.2 dbx\n";
        let found = |name: &str| addresses_in_hosts(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("db"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(found("Db.Example."), ["10.0.0.1"]);
        assert_eq!(found("localhost"), ["127.0.0.1"]);
        assert_eq!(found("10.0.0.1"), Vec::<String>::new());
        assert_eq!(found("d"), Vec::<String>::new());
    }

    #[test]
    fn an_interface_has_a_number() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe80000000000000000000000000000a 1f 40 20 80     eth0\n";
        assert_eq!(scope_in(text, "eth0"), Some(31));
        assert_eq!(scope_in(text, "lo"), Some(1));
        assert_eq!(scope_in(text, "eth1"), None);
        assert_eq!(scope_in("x y", "y"), None);
    }
}
