//! hsdo keeps HAProxy's backends in step with AWS AutoScaling groups, without files and without reloads.

pub mod aws;
pub mod client;
pub mod clock;
pub mod environment;
pub mod error;
pub mod haproxy;
pub mod server;
pub mod slot;
