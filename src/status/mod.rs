//! The state of this process, for `/status` and the page at `/`: roles publish it, the exporter asks for it.
//!
//! A turn leaves what it knows behind a lock. It becomes a `report` only when somebody asks, as JSON or as a `page`.

mod page;
mod report;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::page::{content_security_policy, render};
pub use self::report::{BalancerFacts, OrderFacts, Report};
use crate::clock::Timestamp;
use crate::metrics::Metrics;
use crate::ports::{Board, ClientState, Gauges, Snapshot};
use crate::slot::SlotId;

/// What stays the same while the process runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `server` or `client`.
    pub role: &'static str,
    /// The machine's name.
    pub host: String,
    /// Name or ARN of the table.
    pub table: String,
    /// The region from the settings, if they have one.
    pub region: Option<String>,
    /// From the start of one turn to the start of the next.
    pub interval: Duration,
    /// The number of slots.
    pub size: SlotId,
    /// Address of HAProxy's Runtime API (client).
    pub socket: Option<String>,
    /// When the process started.
    pub started: Timestamp,
    /// The same, by the monotonic clock.
    pub start: Instant,
}

/// The state of one process. Publishing passes the server's state on to the metrics.
pub struct Status {
    facts: Facts,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    turn: Option<Turn>,
    leader: Option<String>,
    /// Whether it says that it cannot see the instances.
    blind: bool,
    /// When the table was last known to be as it is shown.
    confirmed: Option<Instant>,
    server: Option<Arc<Snapshot>>,
    client: Option<Arc<ClientState>>,
}

#[derive(Clone)]
struct Turn {
    ended: Timestamp,
    took: Duration,
    errors: Vec<String>,
}

impl Status {
    /// Nothing is known yet.
    pub fn new(facts: Facts, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Status { facts, metrics, state: Mutex::default() })
    }

    /// The metrics of the same process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// From the start of one turn to the start of the next.
    pub fn interval(&self) -> Duration {
        self.facts.interval
    }

    /// A turn just ended after `took`, with these failures.
    pub fn turn(&self, took: Duration, errors: Vec<String>) {
        let ended = Timestamp::now();
        let leads = errors.is_empty() && self.metrics.leads() == Some(true);
        let mut state = self.state();
        if leads {
            state.confirmed = Some(Instant::now());
        }
        state.turn = Some(Turn { ended, took, errors });
    }

    /// Everything at this moment. The lock is held only for a copy of what is shared.
    pub fn report(&self) -> Report {
        let state = self.state().clone();
        Report::of(&self.facts, &self.metrics, &state, Instant::now())
    }

    /// Ignores poisoning: after a panic elsewhere the state is still worth showing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_leader(state: &mut State, leader: Option<&str>, blind: bool) {
        state.blind = blind;
        if state.leader.as_deref() != leader {
            state.leader = leader.map(str::to_owned);
        }
    }
}

impl Gauges for Status {
    fn publish(&self, state: &Snapshot) {
        Gauges::publish(&*self.metrics, state);
        let shared = Arc::new(state.clone());
        self.state().server = Some(shared);
    }

    fn leads(&self, leads: bool) {
        Gauges::leads(&*self.metrics, leads);
    }

    fn leader(&self, term: Option<&str>, blind: bool) {
        Self::set_leader(&mut self.state(), term, blind);
    }

    fn let_go(&self, after: Duration) {
        Gauges::let_go(&*self.metrics, after);
    }

    fn heartbeat(&self, when: Instant) {
        Gauges::heartbeat(&*self.metrics, when);
    }
}

impl Board for Status {
    fn publish(&self, client: ClientState) {
        let shared = Arc::new(client);
        self.state().client = Some(shared);
    }

    fn confirmed(&self, leader: Option<&str>, blind: bool, when: Instant) {
        let mut state = self.state();
        state.confirmed = Some(when);
        Self::set_leader(&mut state, leader, blind);
    }
}
