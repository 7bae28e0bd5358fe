//! HAProxy over its Runtime API: what it runs, and the commands that change it.
//!
//! `socket` moves one line and its replies, `reply` cuts them apart, `command` spells commands and judges their replies,
//! `state` reads the tables that HAProxy prints, `essence` tells whether they are as they were (both by the few `columns`
//! that matter), and `runtime` joins them. None of them knows the slot table.

mod columns;
pub mod command;
mod error;
mod essence;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod reply;
mod runtime;
pub mod socket;
pub mod state;

#[cfg(test)]
mod recorded;

pub use command::{Change, Command};
pub use error::Error;
pub use runtime::{Process, Reading, Runtime};
pub use state::{Admin, Health, Running};
