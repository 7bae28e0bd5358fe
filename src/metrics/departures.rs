//! The metrics of load balancers that report, and of the instances that were let go (server).

use std::time::Duration;

use super::Metrics;
use super::format::Text;
use crate::ports::{BalancerState, BalancerView};

/// Upper bounds of the histogram of drains, in seconds: requests take seconds, downloads hours.
const BUCKETS: [f64; 10] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 14_400.0];

#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    /// Load balancers by state, in the order of [`BalancerState::ALL`].
    pub(super) balancers: Option<[usize; 3]>,
    /// Sessions on the servers that drain, by what those say that are not silent.
    pub(super) sessions: Option<u64>,
    pub(super) drains: Drains,
}

/// How long drains took, up to the call that ended them.
#[derive(Clone, Debug, Default)]
pub(super) struct Drains {
    /// Drains per bucket of [`BUCKETS`], not cumulative; the last one counts anything longer.
    pub(super) buckets: [u64; BUCKETS.len() + 1],
    pub(super) seconds: f64,
}

impl Metrics {
    /// Server: the load balancers by their reports; `None` without a report table.
    pub fn set_balancers(&self, views: Option<&[BalancerView]>) {
        let count = |views: &[BalancerView]| {
            BalancerState::ALL.map(|state| views.iter().filter(|view| view.state == state).count())
        };
        let sessions = |views: &[BalancerView]| {
            let there = views.iter().filter(|view| view.state != BalancerState::Silent);
            there.flat_map(|view| view.report.sessions.values()).sum()
        };
        let mut values = self.values();
        (values.departures.balancers, values.departures.sessions) = (views.map(count), views.map(sessions));
    }

    /// Server: an instance was let go, this long after its drain began.
    pub fn drained(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let drains = &mut self.values().departures.drains;
        drains.buckets[BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
        drains.seconds += seconds;
    }
}

pub(super) fn render(text: &mut Text, departures: &Departures) {
    if let Some(counts) = departures.balancers {
        let name = "hsdo_balancers";
        text.family(name, "gauge", "Load balancers by their reports: current, behind by 10 s, or silent for 30 s.");
        for (state, count) in BalancerState::ALL.iter().zip(counts) {
            text.sample(name, &[("state", &state.word())], count);
        }
    }
    let sessions = "Sessions and waiting requests on the servers that drain, by what load balancers report.";
    text.gauge("hsdo_drain_sessions", sessions, departures.sessions);
    let Drains { buckets, seconds } = &departures.drains;
    if buckets.iter().any(|count| *count > 0) {
        let help = "How long an instance drained before its lifecycle hook was completed, in seconds.";
        text.histogram("hsdo_drain_seconds", help, &BUCKETS, buckets, *seconds);
    }
}
