//! The server role as a process, with moto as AWS: what it reads, seats and writes, and what it leaves alone when a
//! response is missing, broken or late.

#[path = "../common/mod.rs"]
mod common;

mod fixture;
mod groups;
mod leaving;
mod log;
mod pages;
mod ramp;
mod single;
mod slots;
mod start;
mod table;
mod unknown;
mod vanish;
mod writing;
