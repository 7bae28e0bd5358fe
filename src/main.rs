//! The program `hsdo`.
fn main() {}
