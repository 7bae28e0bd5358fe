//! HAProxy as other people configure it: each test has a configuration modelled on a public one, and runs the built
//! client on a real HAProxy with it.

#[path = "../common/mod.rs"]
mod common;

mod agents;
mod backends;
mod bytes;
mod fixture;
mod gate;
mod hands;
mod names;
mod ports;
mod resolver;
mod reuse;
mod sockets;
mod tracking;
mod weights;
