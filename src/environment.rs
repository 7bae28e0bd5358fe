//! The environment variables of the process, read once and passed on.
//!
//! Nothing else asks the process for a variable, so that a test can hand in an environment of its own.

use std::collections::BTreeMap;

/// Environment variables by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; one whose name or value is not UTF-8 is left out.
    pub fn of_process() -> Self {
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Environment(texts.collect())
    }

    /// The value of a variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for Environment {
    fn from(pairs: [(K, V); N]) -> Self {
        Environment(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_counts_as_not_set() {
        let environment = Environment::from([("FULL", "x"), ("EMPTY", "")]);
        assert_eq!(environment.get("FULL"), Some("x"));
        assert_eq!(environment.get("EMPTY"), None);
        assert_eq!(environment.get("MISSING"), None);
    }
}
