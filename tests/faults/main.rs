//! The faults in the table of `tests/README.md` that no other file covers: HAProxy paused, crowded, moved away or
//! refusing changes; hsdo killed between two writes, or without descriptors, disk, log reader or name server; endless
//! AWS responses, clock jumps, hostile text.

#[path = "../common/mod.rs"]
mod common;

mod endless;
mod fixture;
mod haproxy;
mod hostile;
mod killed;
mod limits;
mod moved;
mod state_file;
