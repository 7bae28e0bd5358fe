//! What the client role shows of itself, for `/status` and the page.

use std::time::Instant;

use super::{Process, Running};
use crate::cause::Cause;
use crate::slot::{SlotId, Table, Weight};

/// Where the client publishes its state.
pub trait Board: Send + Sync {
    /// Replaces what was published before. Called only after a turn that found something to compare.
    fn publish(&self, state: ClientState);
    /// The table was confirmed at `when`, and names this leader.
    fn confirmed(&self, leader: Option<&str>, blind: bool, when: Instant);
}

/// What the client shows.
#[derive(Clone, Debug, Default)]
pub struct ClientState {
    /// The table that HAProxy is kept in step with.
    pub table: Table,
    /// The HAProxy that answered last.
    pub process: Option<Process>,
    /// Its backends, in configured order.
    pub backends: Vec<BackendState>,
}

/// One backend as the last turn left it.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendState {
    /// Its name.
    pub name: String,
    /// The base name of its servers.
    pub base: String,
    /// Whether it is the fallback backend.
    pub fallback: bool,
    /// Why it cannot be kept in step.
    pub fault: Option<String>,
    /// The share of their weight with which servers of others come in, from 0 to 1; none where spillover is off.
    pub spill_share: Option<f64>,
    /// Its slots, in order; none if it has a fault.
    pub slots: Vec<BackendSlot>,
}

/// A slot in one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSlot {
    /// The slot.
    pub slot: SlotId,
    /// The weight that is wanted; `None` for maintenance or where nothing is known to be wanted.
    pub wanted: Option<Weight>,
    /// What HAProxy runs there.
    pub running: Option<Running>,
    /// Why it has its weight.
    pub cause: Cause,
}
