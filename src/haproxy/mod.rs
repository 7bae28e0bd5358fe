//! HAProxy over its Runtime API: what it runs, and the commands that change it. The facts are in `facts.md`.
//!
//! `socket` moves one line and its replies, `reply` cuts them apart, `command` judges them, `state` reads the tables that
//! HAProxy prints, `essence` tells whether anything changed (by the few `columns` that matter), `known` holds what is known of
//! the process, and `runtime` joins them. None of them knows the slot table.

mod columns;
mod command;
mod error;
mod essence;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod known;
#[cfg(test)]
mod recorded;
mod reply;
mod runtime;
pub mod socket;
pub mod state;

pub use error::Error;
pub use runtime::Runtime;
