//! The stage of one slot of one backend, derived from one reading and never stored. Pure.

use std::net::SocketAddr;

use super::placement::{Endpoint, Wanted};
pub(super) use crate::ports::PARKED;
use crate::ports::{Admin, Change, Running};
use crate::slot::Weight;

/// How to treat the servers of a backend.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The port of every server; none leaves each server's port as it is.
    pub port: Option<u16>,
    /// `CLIENT_HEALTH_GATE`: a new server stays down until its check passes.
    pub gate: bool,
    /// The backend's algorithm is static: it accepts only weight 0 and the configured weight.
    pub static_weights: bool,
}

impl Options {
    /// Whether a server at `running` has the wanted address and port.
    pub fn has_address(self, running: Option<SocketAddr>, wanted: Endpoint) -> bool {
        let has_port = |running: SocketAddr| self.port_of(wanted).is_none_or(|port| running.port() == port);
        running.is_some_and(|running| running.ip() == wanted.ip && has_port(running))
    }

    /// The change that sets this address and port.
    pub fn set_address(self, wanted: Endpoint) -> Change {
        Change::Address(wanted.ip, self.port_of(wanted))
    }

    /// The server's own port in place of the backend's. Where ports are left alone, that one too: they are mapped, and once changed
    /// nothing tells what they were.
    fn port_of(self, wanted: Endpoint) -> Option<u16> {
        self.port.map(|port| wanted.port.unwrap_or(port))
    }

    /// Whether the server has the wanted weight.
    pub fn has_weight(self, server: &Running, wanted: Weight) -> bool {
        if self.static_weights { (server.weight > 0) == (wanted > 0) } else { server.weight == wanted }
    }

    /// The change that sets this weight.
    pub fn set_weight(self, wanted: Weight) -> Change {
        if wanted > 0 && self.static_weights { Change::ConfiguredWeight } else { Change::Weight(wanted) }
    }
}

/// Where a slot stands between desired and actual state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No readable row: not touched.
    Unknown,
    /// Out of rotation as wanted: in maintenance at weight 0.
    Out,
    /// Wanted out of rotation, but not there yet.
    Retiring,
    /// Kept out by an operator or agent: only its address and weight are kept right.
    Held,
    /// Wanted in rotation, but at another address, or in maintenance with a weight that hsdo did not set.
    Stale,
    /// At the parking address with weight 0: ready to be opened, down.
    Parked,
    /// In maintenance at the right address with weight 0: ready to be opened.
    Filled,
    /// HAProxy's resolver sets its address; or it is correct, but a tracked server or an unresolved name keeps it in maintenance.
    Blocked,
    /// Ready at the right address, and down until its check passes.
    Down,
    /// Ready at the right address, and up.
    Serving,
    /// Ready at the right address; wanted weight 0.
    Leaving,
}

impl Stage {
    /// `held`: an operator or agent keeps it out.
    pub(super) fn of(wanted: Option<Wanted>, server: &Running, held: bool, options: Options) -> Stage {
        let (address, weight) = match wanted {
            None => return Stage::Unknown,
            Some(Wanted::Maintenance) if server.admin == Admin::Maintenance && server.weight == 0 => return Stage::Out,
            Some(Wanted::Maintenance) => return Stage::Retiring,
            Some(Wanted::Serve { address, weight }) => (address, weight),
        };
        let right_address = options.has_address(server.address, address);
        match server.admin {
            _ if server.named => Stage::Blocked,
            _ if held => Stage::Held,
            Admin::Ready | Admin::Maintenance if is_parked(server) => Stage::Parked,
            _ if !right_address => Stage::Stale,
            Admin::Maintenance if server.weight == 0 => Stage::Filled,
            Admin::Maintenance | Admin::Drain => Stage::Stale,
            Admin::Ready if server.inherited => Stage::Blocked,
            Admin::Ready if weight == 0 => Stage::Leaving,
            Admin::Ready if server.up => Stage::Serving,
            Admin::Ready => Stage::Down,
        }
    }
}

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
        let named = |server: Running| Running { named: true, ..server };
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
            ("its address is a resolver's", serve(1, 5), named(up(2, 5)), false, Blocked),
            ("its address is a resolver's, and it is held", serve(1, 5), named(maintenance(2, 5)), true, Blocked),
            ("its address is a resolver's, and it is not wanted", out, named(up(2, 5)), false, Retiring),
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
