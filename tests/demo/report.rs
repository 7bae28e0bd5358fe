//! What the demo prints: lines with the time since the start, and tables of shares.

use std::fmt::Display;
use std::time::Instant;

/// How many characters a share of 100 % has.
const WIDTH: f64 = 40.0;

/// Prints lines with the time since it was made.
#[derive(Debug)]
pub struct Report {
    start: Instant,
}

impl Report {
    /// Starts counting time.
    pub fn new() -> Self {
        Report { start: Instant::now() }
    }

    /// A line with the time since the start.
    pub fn say(&self, text: impl Display) {
        println!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// A line below the one before, without a time.
    pub fn more(&self, text: impl Display) {
        println!("          {text}");
    }

    /// The title of a step.
    pub fn heading(&self, text: &str) {
        println!("\n{text}");
    }
}

/// A share of 0 to 1 as per cent and as a bar.
pub fn bar(share: f64) -> String {
    // A share is at most 1, so its bar is short.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and WIDTH")]
    let length = (share * WIDTH).round() as usize;
    format!("{:4.0} %  {}", share * 100.0, "#".repeat(length))
}
