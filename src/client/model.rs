//! What a HAProxy server does with a change, as far as hsdo's plans depend on it. Pure.
//!
//! `--dry-run` plays its plans on it, to show the whole of what a turn would send; the tests prove the plans on it.
//! The facts were measured on HAProxy 2.2 to 3.2.

use crate::haproxy::{Admin, Change, Health, Running};
use std::net::SocketAddr;

/// Applies one accepted change. `configured` is the weight in the configuration file, `checked` whether the server has
/// a health check.
pub(crate) fn apply(server: &mut Running, change: Change, configured: u16, checked: bool) {
    match change {
        Change::Maintenance => {
            if server.admin != Admin::Inherited {
                server.admin = Admin::Maintenance;
            }
            server.health = Health::Down;
        }
        Change::Ready => {
            // Out of maintenance a server gets traffic before its first check; out of drain it keeps its health.
            if server.admin == Admin::Maintenance {
                server.health = if checked { Health::Shaky } else { Health::Unchecked };
            }
            if server.admin != Admin::Inherited {
                server.admin = Admin::Ready;
            }
        }
        Change::Address(ip, port) => server.address = Some(SocketAddr::new(ip, port)),
        Change::Weight(weight) => server.weight = Some(weight),
        Change::ConfiguredWeight => server.weight = Some(configured),
    }
}
