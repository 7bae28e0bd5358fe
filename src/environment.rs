//! The process environment as a value, so that what reads it can be tested without changing it.
//!
//! It knows names and texts only: what a variable means is the business of whoever asks for it.

use std::collections::BTreeMap;
use std::fmt;

/// Environment variables by name. An empty variable counts as one that is not set. `Debug` shows names only, since
/// values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// The environment of this process. What is not UTF-8 in a value is read as U+FFFD. `HOME` is the home that /etc/passwd
    /// has for this user, where nothing has set it.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        let mut environment = Environment::from(
            pairs.map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())),
        );
        if let (None, Some(home)) = (environment.get("HOME"), std::env::home_dir()) {
            environment.variables.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        }
        environment
    }

    /// The variable's text; `None` when it is not set or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The names of the variables that are set, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str())
    }
}

impl<I, N, V> From<I> for Environment
where
    I: IntoIterator<Item = (N, V)>,
    N: Into<String>,
    V: Into<String>,
{
    fn from(pairs: I) -> Self {
        Environment { variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_not_set() {
        let env = Environment::from([("A", "1"), ("B", ""), ("C", " ")]);
        assert_eq!(env.get("A"), Some("1"));
        assert_eq!(env.get("B"), None);
        assert_eq!(env.get("C"), Some(" "));
        assert_eq!(env.get("D"), None);
        assert_eq!(Environment::default().get("A"), None);
        assert_eq!(env.names().collect::<Vec<_>>(), ["A", "C"]);
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(
            format!("{:?}", Environment::from([("AWS_SECRET_ACCESS_KEY", "hush")])),
            "{\"AWS_SECRET_ACCESS_KEY\"}"
        );
    }

    #[test]
    fn the_process_has_an_environment() {
        let expected = std::env::var("PATH").expect("cargo sets PATH for tests");
        assert_eq!(Environment::of_process().get("PATH"), Some(expected.as_str()));
    }
}
