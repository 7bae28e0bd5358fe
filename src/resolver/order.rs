//! Sorts a name's addresses by RFC 6724, section 6, as far as a client needs it. IPv4 addresses alone stay in order, since
//! name servers rotate them.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Sorts addresses by reachability from here.
pub(super) fn sort(addresses: &mut [IpAddr]) {
    if addresses.iter().any(IpAddr::is_ipv6) && addresses.len() > 1 {
        sort_by_source(addresses, &source);
    }
}

/// The source address of a connection; `None` without a route. Sends nothing.
fn source(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 53)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn sort_by_source(addresses: &mut [IpAddr], source: &dyn Fn(IpAddr) -> Option<IpAddr>) {
    addresses.sort_by_cached_key(|to| {
        let from = source(*to);
        let differs = |of: fn(Ipv6Addr) -> u8| from.is_none_or(|from| of(mapped(from)) != of(mapped(*to)));
        // Rules 1, 2, 5, 6 and 8.
        let rank = |address| policy(address).0;
        let label = |address| policy(address).1;
        (from.is_none(), differs(scope), differs(label), Reverse(rank(mapped(*to))), scope(mapped(*to)))
    });
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Precedence and label (section 2.1).
fn policy(address: Ipv6Addr) -> (u8, u8) {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => (50, 0),
        [0, 0, 0, 0, 0, 0xffff, _, _] => (35, 4),
        [0, 0, 0, 0, 0, 0, _, _] => (1, 3),
        [0x2002, ..] => (30, 2),
        [0x2001, 0, ..] => (5, 5),
        [first, ..] if first & 0xfe00 == 0xfc00 => (3, 13),
        [first, ..] if first & 0xffc0 == 0xfec0 => (1, 11),
        [0x3ffe, ..] => (1, 12),
        _ => (40, 1),
    }
}

/// 2: link-local, 5: site-local, 14: global (sections 3.1 and 3.2).
fn scope(address: Ipv6Addr) -> u8 {
    let is_link_local = |address: Ipv4Addr| address.is_loopback() || address.is_link_local();
    match address.segments() {
        _ if address.to_ipv4_mapped().is_some_and(is_link_local) => 2,
        [0, 0, 0, 0, 0, 0, 0, 1] => 2,
        [first, ..] if first & 0xffc0 == 0xfe80 => 2,
        [first, ..] if first & 0xffc0 == 0xfec0 => 5,
        _ => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order on a machine with these addresses, by family: IPv4, global and local IPv6.
    fn sorted(list: &[&str], own: &[&str]) -> Vec<String> {
        let own: Vec<IpAddr> = own.iter().map(|text| text.parse().expect("an address")).collect();
        let source = |to: IpAddr| {
            let fits = |from: &&IpAddr| from.is_ipv4() == to.is_ipv4() && from.is_loopback() == to.is_loopback();
            own.iter().find(fits).copied()
        };
        let mut addresses: Vec<IpAddr> = list.iter().map(|text| text.parse().expect("an address")).collect();
        sort_by_source(&mut addresses, &source);
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reachable_addresses_come_first() {
        let both = ["10.0.0.1", "10.0.0.2", "2600:1f00::1"];
        assert_eq!(sorted(&both, &["10.0.0.9", "2600:1f00::9"]), ["2600:1f00::1", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(sorted(&both, &["10.0.0.9"]), both);
        assert_eq!(sorted(&both, &["2600:1f00::9"]), ["2600:1f00::1", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(sorted(&both, &[]), ["2600:1f00::1", "10.0.0.1", "10.0.0.2"]);
        // A container with only a local IPv6 network: global addresses need IPv4.
        assert_eq!(sorted(&both, &["172.17.0.2", "fd00::2"]), both);
        // Local IPv6 is not preferred to IPv4.
        assert_eq!(sorted(&["10.0.0.1", "fd00::1"], &["10.0.0.9", "fd00::2"]), ["10.0.0.1", "fd00::1"]);
        assert_eq!(sorted(&["127.0.0.1", "::1"], &["127.0.0.1", "::1"]), ["::1", "127.0.0.1"]);
    }

    #[test]
    fn without_ipv6_the_order_is_the_servers() {
        let mut addresses: Vec<IpAddr> =
            ["10.0.0.9", "127.0.0.1"].map(|text| text.parse().expect("an address")).to_vec();
        let before = addresses.clone();
        sort(&mut addresses);
        assert_eq!(addresses, before);
        let mut both: Vec<IpAddr> = ["203.0.113.1", "127.0.0.1", "::1"].map(|text| text.parse().expect("one")).to_vec();
        sort(&mut both);
        assert_eq!(both.len(), 3);
    }
}
