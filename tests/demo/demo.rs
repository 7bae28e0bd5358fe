//! `make demo`: hsdo on a real HAProxy and on moto as AWS, shown with real requests.
//!
//! Exits 0, or 1 with the name of the step that did not hold. With `KEEP=1` everything keeps running after the story
//! until SIGINT or SIGTERM.

#![allow(unreachable_pub, reason = "the demo is one program; its modules share what they share")]

#[path = "../common/mod.rs"]
mod common;
mod report;
mod stage;
mod story;
mod zones;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stage::Stage;

fn main() -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            eprintln!("demo: cannot catch signal {signal}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let keep = std::env::var("KEEP").is_ok_and(|text| !matches!(text.as_str(), "" | "0"));
    // A failed step panics with what it saw; dropping the stage cleans up.
    std::panic::set_hook(Box::new(|panic| eprintln!("\n{panic}")));
    let mut step = "set-up";
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = Stage::set(&stop);
        for (name, run) in story::STEPS {
            step = name;
            stage.heading(name);
            run(&mut stage);
        }
        step = "the end";
        if keep {
            stage.print_addresses();
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            eprintln!("demo: failed at: {step}");
            ExitCode::FAILURE
        }
    }
}
