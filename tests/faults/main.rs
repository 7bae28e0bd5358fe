//! The faults in the table of `tests/README.md` that no other file causes: HAProxy stopped, crowded, moved
//! away or closed to changes; hsdo killed between two writes, or without descriptors, disk, a reader of its log or a name
//! server; answers of AWS that never end, clocks that jump; texts that try to be more than texts.

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
