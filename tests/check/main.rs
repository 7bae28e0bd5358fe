//! `hsdo check` on the real HAProxy and moto: a good set-up has nothing to mend, and each fault is named with its remedy. The
//! table stays as it is.

#[path = "../common/mod.rs"]
mod common;

mod aws;
mod container;
mod fixture;
mod good;
mod haproxy;
mod machine;
mod quick;
mod settings;
