//! HAProxy over its Runtime API: reading its servers and changing them. `facts.md` holds the measurements behind it.
//!
//! `socket` sends one line and reads its response, `reply` splits responses, `command` judges replies, `state` parses tables,
//! `snapshot` detects changes, `traffic` and `inspect` read what only people want to know, `known` holds what is known of the process, `version` of its version,
//! and `runtime` joins them. None of them knows the slot table.

mod command;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inspect;
mod known;
#[cfg(test)]
mod recorded;
mod reply;
mod runtime;
mod snapshot;
pub mod socket;
pub mod state;
mod traffic;
mod version;

pub use error::HaproxyError;
pub use inspect::{InspectedBackend, InspectedServer, Inspection};
pub use runtime::Runtime;
pub use traffic::Traffic;
pub use version::{keeps_old_connections, ring_differs};
