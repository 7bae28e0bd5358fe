//! The error type of this module.

use std::fmt;

use crate::conf_file::ConfFileError;

/// All faults of a configuration, one line each: the key, what was found and where, and what was expected. How many warnings
/// follow them, which often explain them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>, pub(super) usize);

impl Faults {
    /// The faults, and the warnings that follow them.
    pub fn split(self) -> (Vec<String>, Vec<String>) {
        let Faults(mut faults, warnings) = self;
        let warnings = faults.split_off(faults.len().saturating_sub(warnings));
        (faults, warnings)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

impl From<ConfFileError> for Faults {
    fn from(ConfFileError(line): ConfFileError) -> Self {
        Faults(vec![line], 0)
    }
}
