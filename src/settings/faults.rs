//! The error type of this module.

use std::fmt;

use crate::conf_file::ConfFileError;

/// All faults of a configuration, one line each: the key, what was found and where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

impl From<ConfFileError> for Faults {
    fn from(ConfFileError(line): ConfFileError) -> Self {
        Faults(vec![line])
    }
}
