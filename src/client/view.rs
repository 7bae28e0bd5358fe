//! One backend between what it is to be and what it runs: what a plan looks at. Pure.

use std::collections::BTreeMap;

use super::memory::SlotMemory;
use super::placement::Desired;
use super::stage::{Options, Stage};
use crate::ports::Running;
use crate::slot::SlotId;

/// One backend as a plan needs it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What it is to be.
    pub desired: &'a Desired,
    /// What it runs, by slot.
    pub running: &'a BTreeMap<SlotId, Running>,
    /// What is remembered of it, the reading taken in.
    pub memory: &'a SlotMemory,
    /// `HAPROXY_BACKEND_SERVERS_LIST_SIZE`.
    pub size: SlotId,
    /// How it is to be treated.
    pub options: Options,
}

impl<'a> View<'a> {
    /// Every slot that runs, with its stage.
    pub(super) fn slots(self) -> impl Iterator<Item = (SlotId, &'a Running, Stage)> {
        self.running.iter().map(move |(&id, server)| (id, server, self.stage(id, server)))
    }

    fn stage(self, id: SlotId, server: &Running) -> Stage {
        Stage::of(self.desired.of(id), server, self.memory.is_held(id), self.options)
    }
}
