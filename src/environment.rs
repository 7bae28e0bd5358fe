//! The process environment as a value, so that tests need not modify the real one.

use std::collections::BTreeMap;
use std::fmt;

/// Environment variables. An empty one counts as unset. `Debug` shows only names, since values may be secrets.
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
    /// The environment of this process. Invalid UTF-8 becomes U+FFFD; `HOME` defaults to the home directory in /etc/passwd.
    pub fn from_process() -> Self {
        let pairs = std::env::vars_os();
        let mut environment = Environment::from(
            pairs.map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())),
        );
        if let (None, Some(home)) = (environment.get("HOME"), std::env::home_dir()) {
            environment.variables.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        }
        environment
    }

    /// `None` if unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The names of all set variables, sorted.
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
    fn an_empty_variable_counts_as_unset() {
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
        assert_eq!(Environment::from_process().get("PATH"), Some(expected.as_str()));
    }
}
