//! The desired and the actual state of one backend, side by side. Pure.

use std::collections::BTreeMap;

use super::memory::SlotMemory;
use super::placement::Desired;
use super::stage::{Options, Stage};
use crate::ports::Running;
use crate::slot::SlotId;

/// What `reconcile` needs to know about a backend.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The desired state.
    pub desired: &'a Desired,
    /// The actual servers by slot.
    pub running: &'a BTreeMap<SlotId, Running>,
    /// What is remembered, including this reading.
    pub memory: &'a SlotMemory,
    /// `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
    pub size: SlotId,
    /// How to treat its servers.
    pub options: Options,
}

impl<'a> View<'a> {
    /// Every slot that HAProxy has, with its stage.
    pub(super) fn slots(self) -> impl Iterator<Item = (SlotId, &'a Running, Stage)> {
        self.running.iter().map(move |(&id, server)| (id, server, self.stage(id, server)))
    }

    /// The stage of a slot that runs as `server`.
    pub(super) fn stage(self, id: SlotId, server: &Running) -> Stage {
        Stage::of(self.desired.of(id), server, self.memory.is_held(id), self.options)
    }
}
