//! HAProxy over its Runtime API: what it runs, and the commands that change it. The facts are in `facts.md`.
//!
//! `socket` moves one line and its replies, `reply` cuts them apart, `command` judges them, `state` reads the tables that
//! HAProxy prints, `snapshot` tells whether anything changed, `known` holds what is known of
//! the process, and `runtime` joins them. None of them knows the slot table.

mod command;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod known;
#[cfg(test)]
mod recorded;
mod reply;
mod runtime;
mod snapshot;
pub mod socket;
pub mod state;

pub use error::HaproxyError;
pub use runtime::Runtime;
