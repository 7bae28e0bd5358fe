//! Servers and wishes in few letters. Tests only.

use std::net::SocketAddr;

use super::placement::Wanted;
use super::reconcile::Options;
use crate::haproxy::{Admin, Health, Running};
use crate::slot::Weight;

pub(super) const OPTIONS: Options = Options { port: 80, gate: true, static_weights: false };

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

pub(super) fn server(admin: Admin, health: Health, last: u8, weight: Weight) -> Running {
    Running { admin, health, address: Some(address(last)), weight: Some(weight) }
}

pub(super) fn up(last: u8, weight: Weight) -> Running {
    server(Admin::Ready, Health::Passed, last, weight)
}

pub(super) fn serve_at(last: u8, weight: Weight) -> Wanted {
    Wanted::Serve { address: address(last).ip(), weight }
}
