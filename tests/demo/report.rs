//! The demo's output: lines with the time since the start, and tables of shares.

use std::fmt::Display;
use std::time::Instant;

/// Characters for a share of 100 %.
const WIDTH: f64 = 40.0;

#[derive(Debug)]
pub struct Report {
    start: Instant,
}

impl Report {
    pub fn new() -> Self {
        Report { start: Instant::now() }
    }

    pub fn say(&self, text: impl Display) {
        println!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// A continuation line, without a time.
    pub fn more(&self, text: impl Display) {
        println!("          {text}");
    }

    pub fn heading(&self, text: &str) {
        println!("\n{text}");
    }
}

/// A share of 0 to 1 as a percentage and a bar.
pub fn bar(share: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and WIDTH")]
    let length = (share * WIDTH).round() as usize;
    format!("{:4.0} %  {}", share * 100.0, "#".repeat(length))
}
