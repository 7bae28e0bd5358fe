//! Where one slot of one backend stands, told from one reading. Pure, and never stored.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::placement::Wanted;
use crate::ports::{Admin, Change, Running};
use crate::slot::Weight;

/// How the servers of a backend are to be treated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The port of every server; none leaves each one's own alone.
    pub port: Option<u16>,
    /// `CLIENT_HEALTH_GATE`: a new server is down until its check has passed.
    pub gate: bool,
    /// The backend's algorithm is static: it accepts weight 0 and the configured weight, nothing else.
    pub static_weights: bool,
}

impl Options {
    /// Whether a server at `running` is where it is wanted.
    pub fn is_there(self, running: Option<SocketAddr>, wanted: IpAddr) -> bool {
        running.is_some_and(|running| running.ip() == wanted && self.port.is_none_or(|port| running.port() == port))
    }

    /// Whether the server has the weight that is wanted.
    pub fn has_weight(self, server: &Running, wanted: Weight) -> bool {
        if self.static_weights { (server.weight > 0) == (wanted > 0) } else { server.weight == wanted }
    }

    /// What gives a server that weight.
    pub fn set_weight(self, wanted: Weight) -> Change {
        if wanted > 0 && self.static_weights { Change::ConfiguredWeight } else { Change::Weight(wanted) }
    }
}

/// Where a server is parked while its gate is set up. No connection to it can be made, and none is tried on the network: `connect`
/// fails at once (ip(7)). `state ready` and `health down` are two commands, and requests that persist get in between them.
pub(super) const PARKED: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// What a slot is, between what the table wants and what HAProxy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The table says nothing of it: it is not touched.
    Unknown,
    /// Out of rotation, as is wanted: in maintenance, at weight 0.
    Out,
    /// To be out of rotation, and not yet there.
    Retiring,
    /// Somebody keeps it out by hand: only its address and weight are kept right.
    Held,
    /// To serve, and at another address; or in maintenance with a weight that is not hsdo's. It is to be filled.
    Stale,
    /// At the address where nothing answers, at weight 0: it is to be opened down.
    Parked,
    /// In maintenance at the right address and at weight 0: it is to be opened.
    Filled,
    /// All is right, but a server that it tracks, or a name, keeps it in maintenance.
    Blocked,
    /// Ready, at the right address, and down until its check passes.
    Down,
    /// Ready, at the right address, and up.
    Serving,
    /// Ready, at the right address, and to take no new traffic: weight 0.
    Leaving,
}

impl Stage {
    /// Of a slot that is to be `wanted` and runs as `server`; `held` says that somebody keeps it out by hand.
    pub(super) fn of(wanted: Option<Wanted>, server: &Running, held: bool, options: Options) -> Stage {
        let (address, weight) = match wanted {
            None => return Stage::Unknown,
            Some(Wanted::Maintenance) if server.admin == Admin::Maintenance && server.weight == 0 => return Stage::Out,
            Some(Wanted::Maintenance) => return Stage::Retiring,
            Some(Wanted::Serve { address, weight }) => (address, weight),
        };
        let there = options.is_there(server.address, address);
        match server.admin {
            _ if held => Stage::Held,
            Admin::Ready | Admin::Maintenance if is_parked(server) => Stage::Parked,
            _ if !there => Stage::Stale,
            Admin::Maintenance if server.weight == 0 => Stage::Filled,
            Admin::Maintenance | Admin::Drain => Stage::Stale,
            Admin::Ready if server.inherited => Stage::Blocked,
            Admin::Ready if weight == 0 => Stage::Leaving,
            Admin::Ready if server.up => Stage::Serving,
            Admin::Ready => Stage::Down,
        }
    }
}

/// Whether it stands at the address where nothing answers, and takes no balanced traffic.
fn is_parked(server: &Running) -> bool {
    server.weight == 0 && server.address.is_some_and(|address| address.ip() == PARKED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fixtures::{OPTIONS, down, inherited, maintenance, serve_at, server, up};

    #[test]
    fn every_stage_follows_from_one_reading() {
        use Stage::{Blocked, Down, Filled, Held, Leaving, Out, Parked, Retiring, Serving, Stale, Unknown};
        let parked = |server: Running| Running { address: Some((PARKED, 80).into()), ..server };
        let out = Some(Wanted::Maintenance);
        let serve = |last, weight| Some(serve_at(last, weight));
        let drain = |last, weight| server(Admin::Drain, true, last, weight);
        #[rustfmt::skip]
        let cases = [
            ("nothing is known of it", None, up(1, 5), false, Unknown),
            ("out", out, maintenance(1, 0), false, Out),
            ("a fresh template", out, maintenance(99, 1), false, Retiring),
            ("it serves, and is not wanted", out, up(1, 5), false, Retiring),
            ("at weight 0, and not wanted", out, up(1, 0), false, Retiring),
            ("drained by hand, and not wanted", out, drain(1, 5), false, Retiring),
            ("held", serve(1, 5), maintenance(1, 5), true, Held),
            ("another address", serve(1, 5), up(2, 5), false, Stale),
            ("another address, in maintenance", serve(1, 5), maintenance(2, 0), false, Stale),
            ("in maintenance with a weight", serve(1, 5), maintenance(1, 5), false, Stale),
            ("parked", serve(1, 5), parked(maintenance(1, 0)), false, Parked),
            ("parked, and ready", serve(1, 5), parked(down(1, 0)), false, Parked),
            ("at that address with a weight", serve(1, 5), parked(up(1, 5)), false, Stale),
            ("a cut fill", serve(1, 5), maintenance(1, 0), false, Filled),
            ("filled to drain", serve(1, 0), maintenance(1, 0), false, Filled),
            ("its model is in maintenance", serve(1, 5), inherited(1, 5), false, Blocked),
            ("its model is in maintenance, elsewhere", serve(1, 5), inherited(2, 5), false, Stale),
            ("down", serve(1, 5), down(1, 5), false, Down),
            ("serving", serve(1, 5), up(1, 5), false, Serving),
            ("ready at weight 0", serve(1, 5), up(1, 0), false, Serving),
            ("to drain", serve(1, 0), up(1, 5), false, Leaving),
            ("drained", serve(1, 0), up(1, 0), false, Leaving),
        ];
        for (name, wanted, server, held, stage) in cases {
            assert_eq!(Stage::of(wanted, &server, held, OPTIONS), stage, "{name}");
        }
    }

    #[test]
    fn a_port_that_is_left_alone_makes_no_difference() {
        let options = Options { port: None, ..OPTIONS };
        let server = Running { address: Some("10.0.0.1:0".parse().unwrap()), ..up(1, 5) };
        assert_eq!(Stage::of(Some(serve_at(1, 5)), &server, false, options), Stage::Serving);
        assert_eq!(Stage::of(Some(serve_at(1, 5)), &server, false, OPTIONS), Stage::Stale);
        assert_eq!(Stage::of(Some(serve_at(2, 5)), &server, false, options), Stage::Stale);
    }
}
