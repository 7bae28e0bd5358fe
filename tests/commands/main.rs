//! The commands for people, on a real HAProxy and moto: what they say, and that they change nothing.

#[path = "../common/mod.rs"]
mod common;

mod status;
mod why;
mod why_scene;
