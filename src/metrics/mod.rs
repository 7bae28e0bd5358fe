//! The numbers that operators watch: both roles write them, the exporter reads them.
//!
//! A role tells what it saw; nothing here decides anything for it. The text format is `text`'s, the process's own
//! numbers are `process`'s. A number that nobody has told yet is absent, not zero.

mod health;
mod process;
mod server;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::health::Health;
use crate::clock::Timestamp;
use crate::slot::{Occupant, Slot, SlotId, Weight};
use crate::text::sanitized;

/// The role that speaks to HAProxy.
const CLIENT: &str = "client";

/// The upper bounds of the histogram of turns, in seconds: a steady client turn takes about a millisecond, a turn that waits for AWS seconds.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How many different results of AWS requests get series of their own; the ones after that are counted as `other`.
const MOST_RESULTS: usize = 32;
/// The longest result of an AWS request, in characters; its rest is cut.
const LONGEST_RESULT: usize = 64;

/// A server in the table, as `hsdo_server_weight` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSeries {
    /// Its slot.
    pub id: SlotId,
    /// Its instance.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its group; shown as `none`, as the original does, where it has none.
    pub asg: Option<String>,
    /// Its weight, 0 to 256.
    pub weight: Weight,
}

impl ServerSeries {
    /// The series of all that are occupied.
    pub fn all<'a>(slots: impl Iterator<Item = &'a Slot>) -> Vec<Self> {
        slots.filter_map(|slot| Some(ServerSeries::of(slot.id, slot.occupant.as_ref()?))).collect()
    }

    /// The series of the occupant of slot `id`.
    pub fn of(id: SlotId, occupant: &Occupant) -> Self {
        ServerSeries {
            id,
            name: occupant.name.clone(),
            ip: occupant.address,
            asg: occupant.group.clone(),
            weight: occupant.weight,
        }
    }
}

/// The numbers of one role's process.
#[derive(Debug)]
pub struct Metrics {
    role: &'static str,
    /// When the process started, in seconds since the epoch: it never changes, so it is read once.
    process_start: Option<f64>,
    started: Instant,
    state: Mutex<State>,
}

/// All that is told, at one moment.
#[derive(Clone, Debug, Default)]
struct State {
    turns: Turns,
    /// Behind an `Arc`, so that a copy of the state costs the same for 10 slots and for 10,000.
    servers: Arc<Vec<ServerSeries>>,
    slots: Vec<(&'static str, usize)>,
    unplaced: Option<usize>,
    missing_groups: Option<usize>,
    last_resort: Option<usize>,
    guarded: Option<usize>,
    unseen: Option<usize>,
    strange: Option<usize>,
    leads: Option<bool>,
    heartbeat: Option<Instant>,
    /// How old the heartbeat is when the state is shown.
    heartbeat_age: Option<Duration>,
    haproxy_up: Option<bool>,
    haproxy_commands: BTreeMap<&'static str, u64>,
    missing_slots: Option<usize>,
    held_slots: Option<usize>,
    waiting_slots: Option<usize>,
    blocked_slots: Option<usize>,
    missing_backends: Option<usize>,
    aws_requests: BTreeMap<(&'static str, &'static str, String), u64>,
    consumed: BTreeMap<&'static str, f64>,
    consul_requests: BTreeMap<&'static str, u64>,
    conditions: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, Default)]
struct Turns {
    ok: u64,
    failed: u64,
    /// Turns by duration: a bucket of [`BUCKETS`] each, without the ones below it, and last the longer ones.
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
    last_success: Option<Timestamp>,
    last_end: Option<Instant>,
    last_ok_end: Option<Instant>,
    last_failed: bool,
}

impl Metrics {
    /// For a process of this role, `server` or `client`, that starts now.
    pub fn new(role: &'static str) -> Arc<Self> {
        let mut state = State::default();
        if role == CLIENT {
            // From the start, so that the first refusal is a rise that an alert can see.
            state.haproxy_commands.extend([("ok", 0), ("refused", 0), ("failed", 0)]);
        }
        let process_start = process::start();
        Arc::new(Metrics { role, process_start, started: Instant::now(), state: Mutex::new(state) })
    }

    /// A turn ended just now, after `took`; `ok` if it did all of its work.
    pub fn turn(&self, ok: bool, took: Duration) {
        let (now, moment) = (Instant::now(), Timestamp::now());
        let turns = &mut self.state().turns;
        turns.last_end = Some(now);
        turns.last_failed = !ok;
        if ok {
            turns.ok += 1;
            turns.last_ok_end = Some(now);
            turns.last_success = Some(moment);
        } else {
            turns.failed += 1;
        }
        let seconds = took.as_secs_f64();
        turns.buckets[BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
        turns.seconds += seconds;
    }

    /// The servers of the table as of now, in any order: a server that is not among them loses its series.
    pub fn set_servers(&self, mut series: Vec<ServerSeries>) {
        series.sort_by_key(|server| server.id);
        let series = Arc::new(series);
        self.state().servers = series;
    }

    /// How many slots are in each state (`enabled`, `draining`, `disabled`, `free`, `unreadable`); a state that is not given is not shown.
    pub fn set_slots(&self, counts: &[(&'static str, usize)]) {
        self.state().slots = counts.to_vec();
    }

    /// Server: how many ready instances wait for a slot.
    pub fn set_unplaced(&self, n: usize) {
        self.state().unplaced = Some(n);
    }

    /// How many of the configured groups nobody knows: the source (server), the rows of the table (client).
    pub fn set_missing_groups(&self, n: usize) {
        self.state().missing_groups = Some(n);
    }

    /// Server: how many draining servers keep their weight because no ready one is left.
    pub fn set_last_resort(&self, n: usize) {
        self.state().last_resort = Some(n);
    }

    /// Server: how many slots keep servers that left every group too many at once.
    pub fn set_guarded(&self, n: usize) {
        self.state().guarded = Some(n);
    }

    /// Server: how many instances in service the source does not show with an address.
    pub fn set_unseen(&self, n: usize) {
        self.state().unseen = Some(n);
    }

    /// Server: how many instances are in a state that hsdo does not know.
    pub fn set_strange(&self, n: usize) {
        self.state().strange = Some(n);
    }

    /// Server: whether this process holds the lease of the table.
    pub fn set_leads(&self, leads: bool) {
        self.state().leads = Some(leads);
    }

    /// When the heartbeat in the table was last seen to change; `None` where it was not yet.
    pub fn set_heartbeat(&self, when: Option<Instant>) {
        self.state().heartbeat = when;
    }

    /// Client: whether HAProxy's socket answered in this turn.
    pub fn set_haproxy_up(&self, up: bool) {
        self.state().haproxy_up = Some(up);
    }

    /// Client: `n` more commands ended with `result`: `ok`, `refused` (HAProxy answered that it will not) or `failed` (no whole answer).
    pub fn haproxy_command(&self, result: &'static str, n: u64) {
        *self.state().haproxy_commands.entry(result).or_default() += n;
    }

    /// Client: how many slots have no server in HAProxy, in all backends together.
    pub fn set_missing_slots(&self, n: usize) {
        self.state().missing_slots = Some(n);
    }

    /// Client: how many servers an operator put in drain or maint by hand.
    pub fn set_held_slots(&self, n: usize) {
        self.state().held_slots = Some(n);
    }

    /// Client: how many new servers have not passed their check yet.
    pub fn set_waiting_slots(&self, n: usize) {
        self.state().waiting_slots = Some(n);
    }

    /// Client: how many servers something keeps out, or at another weight, that hsdo cannot lift.
    pub fn set_blocked_slots(&self, n: usize) {
        self.state().blocked_slots = Some(n);
    }

    /// Client: how many configured backends cannot be kept in step.
    pub fn set_missing_backends(&self, n: usize) {
        self.state().missing_backends = Some(n);
    }

    /// An attempt of an AWS request ended with `result`: `ok`, AWS's error code, or a word for what failed (`timeout`, `connect`).
    ///
    /// The answer comes from outside, so it is bounded: other characters than letters, digits, `_`, `-` and `.` become `_`, and
    /// once 32 different results were seen a new one counts as `other`.
    pub fn aws_request(&self, service: &'static str, operation: &'static str, result: &str) {
        let mut result = bounded(result);
        let requests = &mut self.state().aws_requests;
        if result != "ok" {
            let seen: BTreeSet<&str> = requests.keys().map(|(_, _, result)| result.as_str()).collect();
            if seen.len() >= MOST_RESULTS && !seen.contains(result.as_str()) {
                "other".clone_into(&mut result);
            }
        }
        *requests.entry((service, operation, result)).or_default() += 1;
    }

    /// DynamoDB says that an operation took `units` capacity units.
    pub fn consumed(&self, operation: &'static str, units: f64) {
        if units.is_finite() && units >= 0.0 {
            *self.state().consumed.entry(operation).or_default() += units;
        }
    }

    /// Server: a request to Consul ended with `result`.
    pub fn consul_request(&self, result: &'static str) {
        *self.state().consul_requests.entry(result).or_default() += 1;
    }

    /// Something that a person should know of a role that is ready nevertheless: `/readyz` tells it. None ends it.
    pub fn set_condition(&self, key: &'static str, text: Option<String>) {
        let conditions = &mut self.state().conditions;
        match text {
            Some(text) => conditions.insert(key, text),
            None => conditions.remove(key),
        };
    }

    /// How the role does at `now`, when its turns are to start every `interval`.
    ///
    /// A process that has not ended a turn yet is alive for its first minute (or ten intervals), and not ready.
    pub fn health(&self, now: Instant, interval: Duration) -> Health {
        let (turns, leads, conditions) = {
            let state = self.state();
            (state.turns.clone(), state.leads, state.conditions.values().cloned().collect::<Vec<_>>())
        };
        let mut health = turns.health(self.started, now, interval);
        if health.ready && leads == Some(false) {
            health.reason.push_str(", standby: another server leads the table");
        }
        if health.ready && !conditions.is_empty() {
            health.reason.push_str(", but ");
            health.reason.push_str(&sanitized(&conditions.join("; ")));
        }
        health
    }

    /// The text for a scrape: Prometheus' text format, version 0.0.4.
    ///
    /// It holds the lock only for a copy, so a scrape never makes a turn wait.
    pub fn render(&self) -> String {
        let mut state = self.state().clone();
        state.heartbeat_age = state.heartbeat.map(|when| when.elapsed());
        text::render(self.role, &state, &process::read(self.process_start))
    }

    /// A panic elsewhere leaves numbers that are still worth showing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A result of an AWS request as a label: short, and of harmless characters.
fn bounded(result: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' };
    let result: String = result.chars().take(LONGEST_RESULT).map(harmless).collect();
    if result.is_empty() { "unknown".to_owned() } else { result }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(id: SlotId) -> ServerSeries {
        ServerSeries { id, name: format!("i-{id}"), ip: [10, 0, 0, 7].into(), asg: Some("web".to_owned()), weight: 5 }
    }

    #[test]
    fn a_series_goes_when_its_server_goes() {
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
        server.set_strange(0);
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
    fn the_results_of_aws_requests_cannot_grow_without_bound() {
        let metrics = Metrics::new("server");
        for n in 0..500 {
            metrics.aws_request("ec2", "DescribeInstances", &format!("{n}{}", "x".repeat(200)));
        }
        metrics.aws_request("ec2", "DescribeInstances", "ok");
        let text = metrics.render();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("hsdo_aws_requests_total")).collect();
        assert_eq!(lines.len(), MOST_RESULTS + 2, "the first ones, other, and ok");
        assert!(lines.iter().all(|line| line.len() < 160));
        assert!(text.contains("result=\"other\"} 468\n") && text.contains("result=\"ok\"} 1\n"), "{text}");
    }

    #[test]
    fn a_turn_counts_for_health_and_for_the_scrape() {
        let metrics = Metrics::new("server");
        let second = Duration::from_secs(1);
        assert!(!metrics.health(Instant::now(), second).ready);
        assert!(!metrics.render().contains("hsdo_last_success_timestamp_seconds"), "unknown before the first success");
        metrics.turn(true, Duration::from_millis(20));
        assert!(metrics.health(Instant::now(), second).ready);
        metrics.turn(false, second);
        assert!(!metrics.health(Instant::now(), second).ready);
        let text = metrics.render();
        assert!(text.contains("hsdo_turns_total{result=\"ok\"} 1\nhsdo_turns_total{result=\"failed\"} 1\n"), "{text}");
        assert!(text.contains("hsdo_turn_duration_seconds_count 2\n"), "{text}");
        assert!(text.contains("\nhsdo_last_success_timestamp_seconds "), "{text}");
    }

    #[test]
    fn a_standby_is_ready_and_says_what_it_is() {
        let metrics = Metrics::new("server");
        let health = || metrics.health(Instant::now(), Duration::from_secs(1));
        metrics.set_leads(false);
        metrics.turn(true, Duration::from_millis(1));
        assert!(health().ready && health().reason.contains("standby"), "{:?}", health());
        metrics.set_leads(true);
        assert_eq!(health().reason, "ok");
    }

    #[test]
    fn what_a_person_should_know_stands_behind_the_ok() {
        let metrics = Metrics::new("client");
        let reason = || metrics.health(Instant::now(), Duration::from_secs(1)).reason;
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

    proptest! {
        #[test]
        fn a_turn_falls_into_the_buckets_that_hold_it(millis in 0u64..20_000) {
            let metrics = Metrics::new("client");
            metrics.turn(true, Duration::from_millis(millis));
            let buckets = metrics.state().turns.buckets;
            let index = buckets.iter().position(|count| *count == 1).expect("one bucket");
            let seconds = Duration::from_millis(millis).as_secs_f64();
            prop_assert!(index == BUCKETS.len() || seconds <= BUCKETS[index]);
            prop_assert!(index == 0 || seconds > BUCKETS[index - 1]);
        }
    }
}
