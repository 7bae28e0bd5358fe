//! Metrics: roles set them, the exporter reads them.
//!
//! `text` has the exposition format, `process` the metrics of the process itself; `turns`, `aws` and `departures` keep
//! what they count. A value that was never set is absent, not zero.

mod aws;
mod departures;
mod format;
mod process;
mod server;
mod text;
mod turns;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::turns::Liveness;
use crate::slot::{Occupant, Slot, SlotId, Status, Weight};
use crate::text::sanitized;

const CLIENT: &str = "client";

/// A sample of `hsdo_server_weight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSeries {
    /// The slot.
    pub id: SlotId,
    /// The instance.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
    /// The group; `None` is shown as `none`, as in the original hsdo.
    pub asg: Option<String>,
    /// The availability zone, if it is known.
    pub zone: Option<String>,
    /// Whether it takes new traffic by its weight: its row is enabled.
    pub enabled: bool,
    /// The weight, 0 to 256.
    pub weight: Weight,
}

impl ServerSeries {
    /// The samples of all occupied slots.
    pub fn all<'a>(slots: impl Iterator<Item = &'a Slot>) -> Vec<Self> {
        slots.filter_map(|slot| Some(ServerSeries::of(slot.id, slot.occupant.as_ref()?))).collect()
    }

    /// The sample of the occupant of slot `id`.
    pub fn of(id: SlotId, occupant: &Occupant) -> Self {
        ServerSeries {
            id,
            name: occupant.name.clone(),
            ip: occupant.address,
            asg: occupant.group.clone(),
            zone: occupant.zone.clone(),
            enabled: occupant.status == Status::Enabled,
            weight: occupant.weight,
        }
    }
}

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    role: &'static str,
    process_start: Option<f64>,
    started: Instant,
    values: Mutex<Values>,
}

#[derive(Clone, Debug, Default)]
struct Values {
    turns: turns::Turns,
    /// In an `Arc`, so that a copy costs the same for 10 slots and for 10,000.
    servers: Arc<Vec<ServerSeries>>,
    slots: Vec<(&'static str, usize)>,
    unplaced: Option<usize>,
    missing_groups: Option<usize>,
    last_resort: Option<usize>,
    guarded: Option<usize>,
    unseen: Option<usize>,
    unknown_states: Option<usize>,
    orders: Vec<(&'static str, usize)>,
    departures: departures::Departures,
    leads: Option<bool>,
    heartbeat: Option<Instant>,
    /// The age of the heartbeat at the time of the scrape.
    heartbeat_age: Option<Duration>,
    haproxy_up: Option<bool>,
    haproxy_commands: BTreeMap<&'static str, u64>,
    missing_slots: Option<usize>,
    held_slots: Option<usize>,
    waiting_slots: Option<usize>,
    blocked_slots: Option<usize>,
    missing_backends: Option<usize>,
    spill: Vec<(String, f64)>,
    spill_slots: Option<usize>,
    aws: aws::Usage,
    consul_requests: BTreeMap<&'static str, u64>,
    conditions: BTreeMap<&'static str, String>,
}

impl Metrics {
    /// For a process of this role (`server` or `client`) that starts now.
    pub fn new(role: &'static str) -> Arc<Self> {
        let mut values = Values::default();
        if role == CLIENT {
            // From the start, so that an alert on `increase()` sees the first refusal.
            values.haproxy_commands.extend([("ok", 0), ("refused", 0), ("failed", 0)]);
        }
        let process_start = process::start();
        Arc::new(Metrics { role, process_start, started: Instant::now(), values: Mutex::new(values) })
    }

    /// Replaces the series of all servers. Takes them in any order.
    pub fn set_servers(&self, mut series: Vec<ServerSeries>) {
        series.sort_by_key(|server| server.id);
        let series = Arc::new(series);
        self.values().servers = series;
    }

    /// Slots by state (`enabled`, `draining`, `disabled`, `free`, `unreadable`); states left out are not shown.
    pub fn set_slots(&self, counts: &[(&'static str, usize)]) {
        self.values().slots = counts.to_vec();
    }

    /// Server: ready instances without a slot.
    pub fn set_unplaced(&self, n: usize) {
        self.values().unplaced = Some(n);
    }

    /// Configured groups unknown to the source (server) or absent from the table (client).
    pub fn set_missing_groups(&self, n: usize) {
        self.values().missing_groups = Some(n);
    }

    /// Server: draining servers that keep their weight because no ready one is left.
    pub fn set_last_resort(&self, n: usize) {
        self.values().last_resort = Some(n);
    }

    /// Server: slots kept by the removal guard.
    pub fn set_guarded(&self, n: usize) {
        self.values().guarded = Some(n);
    }

    /// Server: instances in service without an address.
    pub fn set_unseen(&self, n: usize) {
        self.values().unseen = Some(n);
    }

    /// Server: instances in a state unknown to hsdo.
    pub fn set_unknown_states(&self, n: usize) {
        self.values().unknown_states = Some(n);
    }

    /// Server: the orders in force by kind of target, and `unreadable` ones.
    pub fn set_orders(&self, counts: &[(&'static str, usize)]) {
        self.values().orders = counts.to_vec();
    }

    /// Server: whether this process holds the lease of the table.
    pub fn set_leads(&self, leads: bool) {
        self.values().leads = Some(leads);
    }

    /// When the heartbeat in the table was last seen to change, if ever.
    pub fn set_heartbeat(&self, when: Option<Instant>) {
        self.values().heartbeat = when;
    }

    /// Client: whether HAProxy responded in this turn.
    pub fn set_haproxy_up(&self, up: bool) {
        self.values().haproxy_up = Some(up);
    }

    /// Client: `n` more commands ended with `result`: `ok`, `refused` (by HAProxy) or `failed` (not sent, or no complete response).
    pub fn haproxy_command(&self, result: &'static str, n: u64) {
        *self.values().haproxy_commands.entry(result).or_default() += n;
    }

    /// Client: slots without a server in HAProxy, over all backends.
    pub fn set_missing_slots(&self, n: usize) {
        self.values().missing_slots = Some(n);
    }

    /// Client: servers that an operator put in drain or maint.
    pub fn set_held_slots(&self, n: usize) {
        self.values().held_slots = Some(n);
    }

    /// Client: new servers that have not passed their health check yet.
    pub fn set_waiting_slots(&self, n: usize) {
        self.values().waiting_slots = Some(n);
    }

    /// Client: servers kept out, or at another weight, by something hsdo cannot override.
    pub fn set_blocked_slots(&self, n: usize) {
        self.values().blocked_slots = Some(n);
    }

    /// Client: configured backends that cannot be kept in step.
    pub fn set_missing_backends(&self, n: usize) {
        self.values().missing_backends = Some(n);
    }

    /// Client: how much of the servers of others each default backend takes in, 0 to 1.
    pub fn set_spill(&self, shares: Vec<(String, f64)>) {
        self.values().spill = shares;
    }

    /// Client: servers of others that backends take in.
    pub fn set_spill_slots(&self, n: usize) {
        self.values().spill_slots = Some(n);
    }

    /// Server: a request to Consul ended with `result`.
    pub fn consul_request(&self, result: &'static str) {
        *self.values().consul_requests.entry(result).or_default() += 1;
    }

    /// Sets a condition that `/readyz` shows although the role is ready; `None` clears it.
    pub fn set_condition(&self, key: &'static str, text: Option<String>) {
        let conditions = &mut self.values().conditions;
        match text {
            Some(text) => conditions.insert(key, text),
            None => conditions.remove(key),
        };
    }

    /// Liveness and readiness at `now`, with turns due every `interval`.
    ///
    /// Before the end of its first turn, a process is alive for a minute (or ten intervals) and not ready.
    pub fn liveness(&self, now: Instant, interval: Duration) -> Liveness {
        let (turns, leads, conditions) = {
            let values = self.values();
            (values.turns.clone(), values.leads, values.conditions.values().cloned().collect::<Vec<_>>())
        };
        let mut liveness = turns.liveness(self.started, now, interval);
        if liveness.ready && leads == Some(false) {
            liveness.reason.push_str(", standby: another server leads the table");
        }
        if !conditions.is_empty() {
            liveness.reason.push_str(if liveness.ready { ", but " } else { "; " });
            liveness.reason.push_str(&sanitized(&conditions.join("; ")));
        }
        liveness
    }

    /// Whether this server leads; `None` for a client.
    pub fn leads(&self) -> Option<bool> {
        self.values().leads
    }

    /// The time since the leader's heartbeat changed, if it was seen to.
    pub fn heartbeat_age(&self) -> Option<Duration> {
        self.values().heartbeat.map(|when| when.elapsed())
    }

    /// Client: whether HAProxy answered in the last turn.
    pub fn haproxy_up(&self) -> Option<bool> {
        self.values().haproxy_up
    }

    /// Renders the metrics in Prometheus text format 0.0.4. The lock is held only for a copy, so a scrape blocks no turn.
    pub fn render(&self) -> String {
        let mut values = self.values().clone();
        values.heartbeat_age = values.heartbeat.map(|when| when.elapsed());
        text::render(self.role, &values, &process::read(self.process_start))
    }

    /// Ignores poisoning: after a panic elsewhere the metrics are still worth showing.
    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(id: SlotId) -> ServerSeries {
        ServerSeries {
            id,
            name: format!("i-{id}"),
            ip: [10, 0, 0, 7].into(),
            asg: Some("web".to_owned()),
            zone: None,
            enabled: true,
            weight: 5,
        }
    }

    #[test]
    fn a_series_ends_with_its_server() {
        let metrics = Metrics::new("server");
        metrics.set_servers(vec![series(2), series(1)]);
        let both = metrics.render();
        let one = both.find("hsdo_server_weight{id=\"1\"").expect("slot 1");
        assert!(both[one..].contains("hsdo_server_weight{id=\"2\""), "in the order of the slots: {both}");

        metrics.set_servers(vec![series(2)]);
        let left = metrics.render();
        assert!(!left.contains("id=\"1\"") && left.contains("id=\"2\""), "{left}");
        metrics.set_servers(Vec::new());
        assert!(!metrics.render().contains("hsdo_server_weight"));
    }

    #[test]
    fn the_families_of_the_other_role_are_absent() {
        let (server, client) = (Metrics::new("server"), Metrics::new("client"));
        server.set_unplaced(0);
        server.set_missing_groups(0);
        server.set_last_resort(0);
        server.set_guarded(0);
        server.set_unseen(0);
        server.set_unknown_states(0);
        client.set_haproxy_up(false);
        client.set_missing_slots(0);
        client.set_held_slots(0);
        client.set_waiting_slots(0);
        client.set_blocked_slots(0);
        client.set_missing_backends(0);
        server.set_leads(true);
        let (server, client) = (server.render(), client.render());
        for family in [
            "hsdo_leader 1\n",
            "hsdo_unplaced_servers 0\n",
            "hsdo_last_resort_servers 0\n",
            "hsdo_removal_guard_slots 0\n",
            "hsdo_unseen_instances 0\n",
            "hsdo_unknown_state_instances 0\n",
        ] {
            assert!(server.contains(family) && !client.contains(family), "{family}");
        }
        for family in [
            "hsdo_haproxy_up 0\n",
            "hsdo_haproxy_missing_slots 0\n",
            "hsdo_haproxy_held_slots 0\n",
            "hsdo_haproxy_waiting_slots 0\n",
            "hsdo_haproxy_blocked_slots 0\n",
            "hsdo_haproxy_missing_backends 0\n",
            "hsdo_haproxy_commands_total{result=\"refused\"} 0\n",
        ] {
            assert!(client.contains(family) && !server.contains(family), "{family}");
        }
    }

    #[test]
    fn counters_add_up() {
        let metrics = Metrics::new("client");
        metrics.haproxy_command("ok", 3);
        metrics.haproxy_command("ok", 2);
        metrics.consumed("Scan", 2.5);
        metrics.consumed("Scan", 0.5);
        metrics.consumed("Scan", f64::NAN);
        metrics.consumed("Scan", -1.0);
        metrics.aws_request("dynamodb", "Scan", "ok");
        metrics.aws_request("dynamodb", "Scan", "ok");
        metrics.aws_request("dynamodb", "Scan", "");
        metrics.aws_request("dynamodb", "Scan", "Bad\nCode \"x\"");
        let text = metrics.render();
        for line in [
            "hsdo_haproxy_commands_total{result=\"ok\"} 5\n",
            "hsdo_dynamodb_consumed_capacity_units_total{operation=\"Scan\"} 3\n",
            "hsdo_aws_requests_total{service=\"dynamodb\",operation=\"Scan\",result=\"ok\"} 2\n",
            "hsdo_aws_requests_total{service=\"dynamodb\",operation=\"Scan\",result=\"unknown\"} 1\n",
            "hsdo_aws_requests_total{service=\"dynamodb\",operation=\"Scan\",result=\"Bad_Code__x_\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn a_standby_is_ready_and_says_so() {
        let metrics = Metrics::new("server");
        let liveness = || metrics.liveness(Instant::now(), Duration::from_secs(1));
        metrics.set_leads(false);
        metrics.turn(true, Duration::from_millis(1));
        assert!(liveness().ready && liveness().reason.contains("standby"), "{:?}", liveness());
        metrics.set_leads(true);
        assert_eq!(liveness().reason, "ok");
    }

    #[test]
    fn conditions_follow_the_ok() {
        let metrics = Metrics::new("client");
        let reason = || metrics.liveness(Instant::now(), Duration::from_secs(1)).reason;
        metrics.turn(true, Duration::from_millis(1));
        metrics.set_condition("split", Some("no row carries \"a\nb\"".to_owned()));
        metrics.set_condition("backends", Some("one is missing".to_owned()));
        assert_eq!(reason(), "ok, but one is missing; no row carries \"a\\nb\"");
        metrics.set_condition("split", None);
        metrics.set_condition("backends", None);
        assert_eq!(reason(), "ok");
    }

    #[test]
    fn the_age_of_the_heartbeat_grows_by_itself() {
        let metrics = Metrics::new("client");
        assert!(!metrics.render().contains("hsdo_heartbeat_age_seconds"), "not seen yet");
        metrics.set_heartbeat(Instant::now().checked_sub(Duration::from_secs(90)));
        let text = metrics.render();
        let age = text.lines().find_map(|line| line.strip_prefix("hsdo_heartbeat_age_seconds ")).expect("a sample");
        assert!(age.parse::<f64>().expect("a number") >= 90.0, "{age}");
    }
}
