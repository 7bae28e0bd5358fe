//! What a HAProxy server does with a change, as far as hsdo's plans depend on it. Pure.
//!
//! `--dry-run` plays its plans on it, to show the whole of what a turn would send; the tests prove the plans on it.
//! The facts were measured on HAProxy 2.2 to 3.4 (`haproxy/facts.md`).

use std::net::SocketAddr;

use crate::ports::{Admin, Change, Running};

/// Applies one accepted change.
pub(crate) fn apply(server: &mut Running, change: Change) {
    match change {
        Change::Maintenance => {
            server.admin = Admin::Maintenance;
            server.up = false;
        }
        Change::Ready => {
            // Out of maintenance a server gets traffic before its first check; out of drain it keeps its health.
            if server.admin == Admin::Maintenance {
                server.up = true;
            }
            server.admin = Admin::Ready;
        }
        // In maintenance it has no effect.
        Change::HealthDown => server.up &= server.admin == Admin::Maintenance || !server.checked,
        Change::Address(ip, port) => {
            let port = port.unwrap_or_else(|| server.address.map_or(0, |address| address.port()));
            server.address = Some(SocketAddr::new(ip, port));
        }
        Change::Weight(weight) => server.weight = weight,
        Change::ConfiguredWeight => server.weight = server.configured,
    }
}
