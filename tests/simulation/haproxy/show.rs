//! What HAProxy's tables show of a server, for the comparison with the real one.

use std::fmt;
use std::net::SocketAddr;

use hsdo::slot::Weight;

use super::server::{Server, Status};
use super::worker::Worker;

/// The columns of `show stat` and `show servers state` that hsdo reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// `srv_op_state`.
    pub(crate) op: u32,
    /// `srv_admin_state`.
    pub(crate) admin: u32,
    /// `srv_uweight`, `srv_iweight`.
    pub(crate) weight: Weight,
    pub(crate) configured: Weight,
    /// `srv_check_state`, without whether a check is under way.
    pub(crate) check: u32,
    /// `status` of `show stat`.
    pub(crate) status: String,
}

impl Row {
    pub(super) fn all(worker: &Worker, backend: &str) -> Vec<Row> {
        let Some(backend) = worker.backend(backend).map(|place| &worker.backends[place]) else { return Vec::new() };
        let config = &backend.frame.config;
        let row = |(name, server): (&String, &Server)| Row {
            name: name.clone(),
            address: server.address(),
            op: server.op as u32,
            admin: server.admin_bits(config),
            weight: server.weight(),
            configured: config.weight,
            check: server.checks.bits(),
            status: status(server.shown().status, server.checks.rise_and_fall()),
        };
        backend.frame.names.iter().zip(&backend.servers).map(row).collect()
    }
}

/// As `show stat` words it.
fn status(status: Status, (rise, fall): (u32, u32)) -> String {
    let passes_left = |health: u32| format!("{}/{fall}", i64::from(health) + 1 - i64::from(rise));
    match status {
        Status::Maintenance => "MAINT".to_owned(),
        Status::Up => "UP".to_owned(),
        Status::Unchecked => "no check".to_owned(),
        Status::Drain => "DRAIN".to_owned(),
        Status::Stopping => "NOLB".to_owned(),
        Status::Down => "DOWN".to_owned(),
        Status::UpAt(health) => format!("UP {}", passes_left(health)),
        Status::DrainAt(health) => format!("DRAIN {}", passes_left(health)),
        Status::StoppingAt(health) => format!("NOLB {}", passes_left(health)),
        Status::DownAt(health) => format!("DOWN {health}/{rise}"),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { name, address, op, admin, weight, configured, check, status } = self;
        write!(f, "{name} {address} op={op} admin={admin} weight={weight}/{configured} check={check} {status:?}")
    }
}
