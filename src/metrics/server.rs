//! The server role's gauges.

use std::time::{Duration, Instant};

use super::{Metrics, ServerSeries};
use crate::order::Target;
use crate::ports::{Gauges, Snapshot};
use crate::slot;

impl Gauges for Metrics {
    fn publish(&self, state: &Snapshot) {
        self.set_servers(ServerSeries::all(state.slots.values()));
        self.set_slots(&slot::counts_by_state(state.slots.values(), state.unreadable));
        self.set_unplaced(state.unplaced);
        self.set_missing_groups(state.missing_groups);
        self.set_last_resort(state.last_resort);
        self.set_guarded(state.guarded);
        self.set_unseen(state.unseen);
        self.set_unknown_states(state.unknown_states);
        let of_kind = |kind| state.orders.iter().filter(|(order, _)| order.target.kind() == kind).count();
        let kinds = Target::KINDS.map(|kind| (kind, of_kind(kind)));
        self.set_balancers(state.balancers.as_deref());
        self.set_orders(&[&kinds[..], &[("unreadable", state.unreadable_orders.len())]].concat());
    }

    fn let_go(&self, after: Duration) {
        self.drained(after);
    }

    fn leads(&self, leads: bool) {
        self.set_leads(leads);
    }

    fn heartbeat(&self, when: Instant) {
        self.set_heartbeat(Some(when));
    }
}
