//! HAProxy's configuration file, as far as the Runtime API does not tell it: `hash-type` and `load-server-state-from-file`.
//! Pure: the text comes from `gather`.
//!
//! Not a parser of HAProxy's language: conditions, variables and quotes are left as they are.

use std::collections::BTreeMap;

/// What the file says about a backend, with what it inherits from `defaults`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendText {
    /// `hash-type consistent`.
    pub(super) consistent: bool,
    /// `hash-key addr` on its servers, which does not depend on their numbers.
    pub(super) by_address: bool,
    /// `load-server-state-from-file global` or `local`.
    pub(super) state_file: bool,
    /// `option persist`.
    pub(super) persist: bool,
    /// `http-reuse never`.
    pub(super) reuse_never: bool,
    /// `option http-server-close` or `httpclose`.
    pub(super) server_close: bool,
}

/// The words that open a section (configuration manual, sections 3 to 12).
const SECTIONS: [&str; 20] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "program",
    "cache",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "log-profile",
    "acme",
    "healthcheck",
];

/// The backends of a configuration; several files are joined in their order.
pub(super) fn parse(text: &str) -> BTreeMap<String, BackendText> {
    let mut backends: BTreeMap<String, BackendText> = BTreeMap::new();
    let mut named: BTreeMap<String, BackendText> = BTreeMap::new();
    let mut defaults = BackendText::default();
    // The backend, or the name of the defaults, that lines belong to.
    let (mut backend, mut defaults_name) = (None::<String>, None::<String>);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let Some(first) = words.first() else { continue };
        if SECTIONS.contains(first) {
            if let Some(name) = defaults_name.take() {
                named.insert(name, defaults.clone());
            }
            backend = None;
            let name = words.get(1).copied().unwrap_or_default().to_owned();
            let from = words.iter().position(|word| *word == "from").and_then(|place| words.get(place + 1));
            let inherited = from.and_then(|from| named.get(*from));
            match *first {
                "defaults" => {
                    defaults = inherited.cloned().unwrap_or_default();
                    defaults_name = Some(name);
                }
                "backend" | "listen" => {
                    backends.insert(name.clone(), inherited.unwrap_or(&defaults).clone());
                    backend = Some(name);
                }
                _ => {}
            }
            continue;
        }
        let section = match (&backend, &defaults_name) {
            (Some(name), _) => backends.get_mut(name),
            (None, Some(_)) => Some(&mut defaults),
            (None, None) => None,
        };
        if let Some(section) = section {
            directive(section, &words);
        }
    }
    backends
}

fn directive(section: &mut BackendText, words: &[&str]) {
    match words {
        ["hash-type", kind, ..] => section.consistent = *kind == "consistent",
        ["load-server-state-from-file", from, ..] => section.state_file = *from != "none",
        ["option", "persist", ..] => section.persist = true,
        ["no", "option", "persist", ..] => section.persist = false,
        ["http-reuse", kind, ..] => section.reuse_never = *kind == "never",
        ["option", "http-server-close" | "httpclose", ..] => section.server_close = true,
        ["no", "option", "http-server-close" | "httpclose", ..] => section.server_close = false,
        ["server-template" | "default-server", rest @ ..] => {
            if let Some(key) = rest.iter().position(|word| *word == "hash-key").and_then(|place| rest.get(place + 1)) {
                section.by_address = key.starts_with("addr");
            }
        }
        _ => {}
    }
}

/// The files that a command line of HAProxy names: `-f` each, and all after `--`; and its working directory (`-C`).
pub(super) fn files_of(command_line: &[&str]) -> (Vec<String>, Option<String>) {
    let (mut files, mut directory) = (Vec::new(), None);
    let mut words = command_line.iter().skip(1);
    while let Some(word) = words.next() {
        match *word {
            "-f" => files.extend(words.next().map(|file| (*file).to_owned())),
            "-C" => directory = words.next().map(|directory| (*directory).to_owned()),
            "--" => {
                files.extend(words.by_ref().map(|file| (*file).to_owned()));
            }
            _ => {}
        }
    }
    (files, directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_inherit_from_defaults() {
        let backends = parse(
            "global\n  hash-type consistent\n\
             defaults base\n  load-server-state-from-file global # kept\n\
             backend a\n  balance uri\n  hash-type consistent sdbm\n  server-template w 1-4 127.0.0.2:80 hash-key addr\n\
             defaults from base\n  option persist\n  http-reuse never\n  option http-server-close\n\
             frontend f\n  hash-type consistent\n\
             backend b\n  #hash-type consistent\n  load-server-state-from-file none\n  no option http-server-close\n\
             listen c from base\n  bind :80\n",
        );
        let expected = [
            ("a", BackendText { consistent: true, by_address: true, state_file: true, ..BackendText::default() }),
            ("b", BackendText { persist: true, reuse_never: true, ..BackendText::default() }),
            ("c", BackendText { state_file: true, ..BackendText::default() }),
        ];
        for (name, expected) in expected {
            assert_eq!(backends[name], expected, "{name}");
        }
        assert_eq!(backends.len(), 3);
        assert!(parse("").is_empty() && parse("\u{0}\n{}\nbackend").contains_key(""));
    }

    #[test]
    fn files_on_the_command_line() {
        let files = |line: &str| files_of(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(files("haproxy -W -f /a -p x -f b -sf 1").0, ["/a", "b"]);
        assert_eq!(files("haproxy -C /etc -- a b"), (vec!["a".to_owned(), "b".to_owned()], Some("/etc".to_owned())));
        assert_eq!(files("haproxy -f"), (vec![], None));
    }
}
