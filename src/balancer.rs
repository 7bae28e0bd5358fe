//! What each load balancer says of itself in the report table: which state of the slots it has carried out, and what is still
//! running on the servers that drain. Pure.

use std::collections::BTreeMap;

use crate::slot::SlotId;

/// The share of their weight with which servers of others come in (spillover) rises in so many steps.
pub const SPILL_STEPS: u8 = 16;

/// A client's report about its HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancerReport {
    /// The last version of the table whose rows HAProxy was seen to match, but for what is held, blocked or missing there; `None` before
    /// the first, and while the table has no versions.
    pub version: Option<u64>,
    /// HAProxy's version; empty before it answered.
    pub haproxy: String,
    /// Of each slot that drains: sessions that run on it and requests that wait for it, over all configured backends. A slot that is not
    /// here is one whose sessions are not known.
    pub sessions: BTreeMap<SlotId, u64>,
    /// The servers that an operator or agent holds, as `backend/server`.
    pub held: Vec<String>,
    /// The highest level of spillover of any backend, in sixteenths, 0 to [`SPILL_STEPS`].
    pub spill: u8,
}

impl BalancerReport {
    /// Of the slots that drain, those with sessions, and how many.
    pub fn busy(&self) -> impl Iterator<Item = (SlotId, u64)> + '_ {
        self.sessions.iter().filter(|(_, count)| **count > 0).map(|(slot, count)| (*slot, *count))
    }

    /// The level of spillover as a share, from 0 to 1.
    pub fn spill_share(&self) -> f64 {
        f64::from(self.spill) / f64::from(SPILL_STEPS)
    }
}

/// An item of the report table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerItem {
    /// Host and socket of the load balancer.
    pub name: String,
    /// A number that changes every few seconds while its client runs: milliseconds since 1970 by that machine's clock, which is never
    /// compared with another one.
    pub seen: u64,
    /// What it says.
    pub report: BalancerReport,
}

/// The report table, read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancerItems {
    /// The load balancers; one whose report cannot be read says nothing.
    pub items: Vec<BalancerItem>,
    /// What is wrong with each report or item that cannot be read, with its name where that can be.
    pub unreadable: Vec<String>,
}
