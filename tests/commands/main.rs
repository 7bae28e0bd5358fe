//! The commands for people, on a real HAProxy and moto: what they say, and that only orders change something.

#[path = "../common/mod.rs"]
mod common;

mod orders;
mod status;
mod why;
mod why_scene;
