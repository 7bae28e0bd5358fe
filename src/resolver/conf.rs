//! Parses `/etc/resolv.conf` and `/etc/hosts` as glibc does, by resolv.conf(5) and hosts(5). Pure.
//!
//! Ignores the variables `LOCALDOMAIN`, `RES_OPTIONS` and `HOSTALIASES`, `nsswitch.conf`, and all options not named below
//! (such as `edns0` and `trust-ad`, which no query here needs).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

const PORT: u16 = 53;
/// glibc's `MAXNS`.
const MAX_SERVERS: usize = 3;
/// glibc has no limit.
const MAX_DOMAINS: usize = 32;

/// `/etc/resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// 1 to 3 name servers.
    pub(super) servers: Vec<SocketAddr>,
    /// The search domains; an empty one is the root.
    pub(super) search: Vec<String>,
    /// The number of dots from which a name is tried as it is first.
    pub(super) ndots: usize,
    /// Per server and attempt, 1 to 30 s.
    pub(super) timeout: Duration,
    /// Passes through the list of servers, 1 to 5.
    pub(super) attempts: u32,
    /// Whether each lookup starts with the next server.
    pub(super) rotate: bool,
    /// Whether to use only TCP (`use-vc`).
    pub(super) tcp: bool,
    /// Whether to skip AAAA queries.
    pub(super) no_aaaa: bool,
}

impl ResolvConf {
    /// Parses `resolv.conf`. `host` is this machine's name, whose domain is the default search domain; `scope` returns the
    /// index of a network interface.
    pub(super) fn parse(text: &str, host: &str, scope: &dyn Fn(&str) -> Option<u32>) -> ResolvConf {
        let mut conf = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
            no_aaaa: false,
        };
        // Comments start only in the first column.
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(|word| server(word, scope))),
                // The last `domain` or `search` line wins.
                Some("domain") => conf.search = words.take(1).map(domain).collect(),
                Some("search") => conf.search = words.take(MAX_DOMAINS).map(domain).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.servers.truncate(MAX_SERVERS);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        if conf.search.is_empty() {
            conf.search.extend(host.split_once('.').map(|(_, rest)| domain(rest)));
        }
        conf
    }

    fn option(&mut self, word: &str) {
        // Like `atoi`: anything without leading digits is 0.
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

    /// The names to look up for `name`, in order.
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

fn domain(word: &str) -> String {
    word.trim_matches('.').to_owned()
}

/// IPv4, or IPv6 with an optional scope (`fe80::1%eth0`).
fn server(word: &str, scope: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some((word.parse::<IpAddr>().ok()?, PORT).into());
    };
    // With an unknown zone, connecting will fail.
    let zone = zone.parse().ok().or_else(|| scope(zone)).unwrap_or(0);
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, zone).into())
}

/// The addresses of a name in `/etc/hosts`.
pub(super) fn hosts_addresses(text: &str, name: &str) -> Vec<IpAddr> {
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

/// The index of an interface in `/proc/net/if_inet6`:
/// `fe80000000000000000000000000000a 02 40 20 80 eth0`.
pub(super) fn interface_index(if_inet6: &str, interface: &str) -> Option<u32> {
    if_inet6.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, index, _, _, _, name] = words[..] else { return None };
        (name == interface).then(|| u32::from_str_radix(index, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> ResolvConf {
        ResolvConf::parse(text, "web-1", &|interface| (interface == "eth0").then_some(2))
    }

    fn servers(text: &str) -> Vec<String> {
        conf(text).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_those_of_glibc() {
        let expected = ResolvConf {
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
    fn options_are_clamped() {
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
    fn short_names_are_searched_for_and_dotted_ones_tried_first() {
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
        let named = ResolvConf::parse("", "web-1.corp.example", &|_| None);
        assert_eq!(named.candidates("db"), ["db.corp.example", "db"]);
    }

    #[test]
    fn hosts_lists_addresses_of_both_families_under_any_name() {
        let text = "127.0.0.1 localhost # db\n10.0.0.1\tdb.example  DB extra\r\nfd00::1 db\n10.0.0.1 db\n#10.9.9.9 db\nbad db\n10.0.0.2 dbx\n";
        let found = |name: &str| hosts_addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("db"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(found("Db.Example."), ["10.0.0.1"]);
        assert_eq!(found("localhost"), ["127.0.0.1"]);
        assert_eq!(found("10.0.0.1"), Vec::<String>::new());
        assert_eq!(found("d"), Vec::<String>::new());
    }

    #[test]
    fn an_interface_has_an_index() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe80000000000000000000000000000a 1f 40 20 80     eth0\n";
        assert_eq!(interface_index(text, "eth0"), Some(31));
        assert_eq!(interface_index(text, "lo"), Some(1));
        assert_eq!(interface_index(text, "eth1"), None);
        assert_eq!(interface_index("x y", "y"), None);
    }
}
