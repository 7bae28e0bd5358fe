//! Holds the simulator's model of HAProxy to the real one: the same random commands, restarts and changes of health on both
//! must leave the same servers in `show stat` and `show servers state`, and give hsdo's edge the same answers.
//!
//! `ROUNDS=200` runs that many rounds, `SEED=7 ROUNDS=1` the one of that seed again.

#[path = "../common/mod.rs"]
mod common;
mod machines;
#[path = "../simulation/haproxy/mod.rs"]
mod model;
mod pair;
mod script;
mod shape;
mod table;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::random::Random;
use pair::Pair;
use shape::Shape;

/// How long the rounds of a normal run take.
const SPAN: Duration = Duration::from_secs(18);

#[test]
fn the_model_does_what_haproxy_does() {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let first = number("SEED").unwrap_or(now.as_secs());
    let rounds = number("ROUNDS");
    let start = Instant::now();
    let mut steps = 0;
    let is_over = |done: u64| rounds.map_or(done >= 4 && start.elapsed() > SPAN, |rounds| done >= rounds);
    let mut done = 0;
    while !is_over(done) {
        let seed = first + done;
        let mut random = Random::new(seed);
        let shape = Shape::any(&mut random);
        let mut pair = Pair::start(seed, &shape);
        for _ in 0..shape.steps {
            let step = script::any(&mut random, &shape);
            pair.step(&step);
            steps += 1;
        }
        done += 1;
    }
    println!("{steps} steps in {done} rounds from seed {first} on");
}
