//! hsdo in a simulated world: the real `Server` and `Client`, several of each, on simulated edges, in one thread, on one virtual
//! clock, by one seed. Nothing sleeps, nothing opens a socket, and nothing reads the time.
//!
//! `world` is the clock and the queue of events; `fleet`, `aws` and `hooks`, `table`, `store` and `reports`, `haproxy`, `site` and `requests`
//! are what hsdo meets;
//! `process` runs its roles; `schedule`, `apply`, `edits`, `orders` and `troubles` are what goes wrong; `promises` and `settled` say what must
//! hold whatever happens; `shrink` finds the smallest schedule that still breaks it.

mod apply;
mod aws;
mod drift;
mod edits;
mod fleet;
mod found;
mod haproxy;
mod hooks;
mod journal;
mod orders;
mod process;
mod promises;
#[path = "../common/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the other tests, which use more of it")]
mod random;
mod reports;
mod requests;
mod run;
mod schedule;
mod settings;
mod settled;
mod shrink;
mod site;
mod store;
mod table;
mod troubles;
mod world;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use journal::{At, SECOND};

const DAY: At = 24 * 3_600 * SECOND;

/// Six days of fixed seeds, and one of a seed that is new each time.
#[test]
fn a_week_of_virtual_time_breaks_no_promise() {
    if let Some(days) = variable("HSDO_SIMULATE_DAYS") {
        return simulate(days, variable("HSDO_SIMULATE_SEED").unwrap_or_else(new_seed));
    }
    for seed in 1..=6 {
        run::day(seed);
    }
    run::day(new_seed());
}

/// So many days, each of its own seed.
fn simulate(days: u64, seed: u64) {
    let started = Instant::now();
    for day in 0..days {
        run::day(seed.wrapping_add(day));
        if day % 30 == 29 || day + 1 == days {
            println!("{} days in {:.0?}", day + 1, started.elapsed());
        }
    }
}

/// A number in the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a number"))
}

fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}
