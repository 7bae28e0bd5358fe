//! Placeholder.
#[test]
fn nothing() {}
