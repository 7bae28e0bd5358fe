//! HAProxy over its Runtime API.
use std::fmt;

/// Why a talk with HAProxy failed.
#[derive(Debug)]
pub struct Error;
impl Error {
    /// Whether only a person can mend it.
    pub fn needs_a_person(&self) -> bool {
        false
    }
}
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("haproxy")
    }
}
