//! The server role as a process, with moto in the place of AWS: what it reads, whom it seats, what it writes, and what it
//! leaves alone when an answer is missing, broken or late.

#[path = "../common/mod.rs"]
mod common;

mod fixture;
mod groups;
mod leaving;
mod pages;
mod ramp;
mod single;
mod slots;
mod start;
mod table;
mod unknown;
mod vanish;
mod writing;
