//! A model of how a HAProxy server reacts to a change, measured on 2.2 to 3.4 (`haproxy/facts.md`). Pure.
//!
//! `--dry-run` applies its steps to it, to show everything that a turn would send, and so do the tests.

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
            // Out of maintenance a server takes traffic before its first check; out of drain it keeps its health.
            if server.admin == Admin::Maintenance {
                server.up = true;
            }
            server.admin = Admin::Ready;
        }
        // No effect in maintenance.
        Change::HealthDown => server.up &= server.admin == Admin::Maintenance || !server.checked,
        Change::Address(ip, port) => {
            let port = port.unwrap_or_else(|| server.address.map_or(0, |address| address.port()));
            server.address = Some(SocketAddr::new(ip, port));
        }
        Change::Weight(weight) => server.weight = weight,
        Change::ConfiguredWeight => server.weight = server.configured,
    }
}
