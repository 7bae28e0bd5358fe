//! One run: a world of a seed and a schedule, up to a point of virtual time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::journal::{At, SECOND, time};
use crate::process::{Kind, Process};
use crate::schedule::{Entry, schedule};
use crate::settings::{BACKENDS, CLIENTS, SERVERS};
use crate::shrink::shrink;
use crate::world::{Failure, World};
use crate::{DAY, variable};

/// How often everything has to be right in a day, at the least.
const LEAST_SETTLED: u64 = 100;

/// What became of a run.
pub(crate) struct Outcome {
    pub(crate) failure: Option<Failure>,
    pub(crate) journal: String,
    pub(crate) states: String,
    pub(crate) settled: u64,
    pub(crate) events: u64,
    pub(crate) let_go: u64,
}

/// Runs a schedule up to `end`.
pub(crate) fn run(seed: u64, schedule: Vec<Entry>, end: At) -> Outcome {
    let servers = (0..SERVERS).map(|n| Process::new(format!("server {n}"), Kind::Server, SECOND));
    let clients = (0..CLIENTS).map(|n| Process::new(format!("client {n}"), Kind::Client(n), SECOND));
    let world = World::new(seed, schedule, CLIENTS, servers.chain(clients).collect());
    for number in 0..16 {
        world.settled_instance(number % 2);
    }
    for index in 0..world.processes.len() {
        // They do not turn in step.
        let at = world.between(0, SECOND);
        world.run_until(world.now() + at / 9);
        world.start(index);
    }
    world.run_until(end);
    let failure = world.failure();
    let outcome = Outcome {
        states: if failure.is_some() || world.settling.borrow().times < LEAST_SETTLED {
            world.states()
        } else {
            String::new()
        },
        failure,
        journal: world.journal.borrow().to_string(),
        settled: world.settling.borrow().times,
        events: world.events.get(),
        let_go: world.let_go.get(),
    };
    world.close();
    outcome
}

/// A day of virtual time.
///
/// # Panics
/// If a promise is broken: with the seed, the time, the last events, the states, and the shrunk schedule.
pub(crate) fn day(seed: u64) {
    let started = Instant::now();
    println!("HSDO_SIMULATE_SEED={seed}: a day");
    let outcome = run(seed, schedule(seed, DAY), DAY);
    let took = started.elapsed();
    let speed = Duration::from_micros(DAY).as_secs_f64() / took.as_secs_f64();
    let Some(failure) = &outcome.failure else {
        let (settled, journal, states) = (outcome.settled, &outcome.journal, &outcome.states);
        assert!(settled >= LEAST_SETTLED, "it was settled only {settled} times:\n{journal}\n{states}");
        let (settled, events, let_go) = (outcome.settled, outcome.events, outcome.let_go);
        return println!(
            "  in {took:.1?}, {speed:.0} times as fast as the clock: {events} events, {settled} times settled, {let_go} let go"
        );
    };
    println!("  broken after {} of virtual time, in {took:.1?}: {}", time(failure.at), failure.promise);
    assert!(variable("HSDO_SIMULATE_SHRINK") != Some(0), "{}: {}", failure.promise, failure.text);
    let (schedule, outcome) = shrink(seed, &schedule(seed, failure.at), failure).unwrap_or_else(|| {
        panic!("the same seed gave another run: {}\n{}", failure.text, outcome.journal);
    });
    let failure = outcome.failure.as_ref().expect("a shrunk schedule fails");
    let entries: String = schedule.iter().map(|entry| format!("        {entry:?},\n")).collect();
    let end = failure.at / SECOND + 1;
    panic!(
        "{}\nseed {seed}, {} of virtual time: {}\n\nThe last events:\n{}\n{}\n\nAs a test, for {}:\n\n\
         #[test]\nfn found_by_seed_{seed}() {{\n    use orders::{{How::*, Whom::*}};\n    use schedule::{{Entry, What::*}};\n    let schedule = vec![\n{entries}    ];\n    \
         let outcome = run::run({seed}, schedule, {end} * SECOND);\n    \
         assert_eq!(outcome.failure.map(|failure| failure.text), None);\n}}\n",
        failure.promise,
        time(failure.at),
        failure.text,
        outcome.journal,
        outcome.states,
        "tests/simulation/main.rs",
    );
}

impl World {
    /// The states that disagree, in words.
    fn states(self: &Rc<Self>) -> String {
        let mut text = String::from("The instances:\n");
        for instance in &self.fleet.borrow().instances {
            if instance.ec2 != "terminated" {
                text += &format!("  {instance:?}\n");
            }
        }
        text += "The processes:\n";
        for process in &self.processes {
            let state = if process.leads() {
                "leads"
            } else if process.is_up() {
                "runs"
            } else {
                "is down"
            };
            let (good, bad) = (process.good_turns.get(), process.bad_turns.get());
            text += &format!("  {} {state}: {good} good turns since the last change, {bad} bad ones\n", process.name);
        }
        text += &format!("  {:?}\n", self.settling.borrow());
        for (number, site) in self.sites.iter().enumerate().filter(|(_, site)| site.haproxy.next_change().is_some()) {
            text += &format!("  HAProxy {number} has a check under way, {} in all\n", site.haproxy.version());
        }
        text += "The table:\n";
        let table = self.table.borrow();
        text += &format!("  {:?}\n", table.state().marker);
        table.state().orders.iter().for_each(|order| text += &format!("  {order}\n"));
        for (id, row) in table.state().rows.iter() {
            text += &format!("  {id}: {}\n", crate::table::show(Some(row)));
        }
        text += "What serves:\n";
        let promises = self.promises.borrow();
        for site in 0..self.sites.len() {
            for (backend, name) in BACKENDS.iter().enumerate() {
                let serving = promises.serving(site, backend).iter();
                let serving: Vec<String> = serving.map(|(id, at, weight)| format!("{id}={at}:{weight}")).collect();
                text += &format!("  HAProxy {site}, {name}: {}\n", serving.join(" "));
            }
        }
        text
    }
}
