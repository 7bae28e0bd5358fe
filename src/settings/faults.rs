//! What is wrong with a configuration.

use std::fmt;

use crate::conf_file::Unusable;

/// All that is wrong with a configuration, a line for each fault: the key, what was found and where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

impl From<Unusable> for Faults {
    fn from(Unusable(line): Unusable) -> Self {
        Faults(vec![line])
    }
}
