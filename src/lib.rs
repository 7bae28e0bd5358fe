//! Keeps HAProxy backends in step with AWS Auto Scaling groups or Consul services, without files or reloads.

pub mod about;
pub mod aws;
pub mod balancer;
pub mod cause;
pub mod children;
pub mod cli;
pub mod client;
pub mod clock;
pub mod command_line;
pub mod commands;
pub mod conf_file;
pub mod consul;
pub mod environment;
pub mod error;
pub mod exporter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod haproxy;
pub mod log;
pub mod marker;
pub mod metrics;
pub mod order;
pub mod ports;
mod resolver;
pub mod run;
pub mod selection;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod slot;
pub mod status;
pub mod text;
mod text_file;
mod tls;
pub mod weight;
