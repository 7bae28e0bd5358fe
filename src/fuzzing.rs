//! The ways into everything that hsdo parses, for `make fuzz`: a target takes any bytes and panics where a promise is
//! broken. Only a build for the fuzzer or for the tests has this module.
//!
//! The promises stand beside what they are about, in the `fuzzing` of each folder. Here is what they share, and the
//! test that replays the seeds of tests/fuzz/seeds: each starting point, and each input that ever broke a promise.

use std::fmt::Display;

pub use crate::aws::fuzzing::{aws, credentials, dynamodb, profile_files};
pub use crate::consul::fuzzing::consul;
pub use crate::exporter::fuzzing::output;
pub use crate::haproxy::fuzzing::haproxy;
pub use crate::resolver::fuzzing::resolver;
pub use crate::settings::fuzzing::{settings_environment, settings_file};

use crate::text::steers;

/// Takes the bytes of one input.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder of seeds.
pub const TARGETS: [(&str, Target); 10] = [
    ("haproxy", haproxy),
    ("aws", aws),
    ("dynamodb", dynamodb),
    ("profile_files", profile_files),
    ("credentials", credentials),
    ("settings_file", settings_file),
    ("settings_environment", settings_environment),
    ("consul", consul),
    ("resolver", resolver),
    ("output", output),
];

/// How much longer than the input a message about it may be, in bytes: the words around it, and some hundred characters of
/// the input that it quotes and escapes.
const WORDS: usize = 8_000;

/// The first byte, which says what the rest is, and the rest.
pub(crate) fn kind(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(kind, rest)| (*kind, rest))
}

/// The input as text: what is no UTF-8 in it becomes U+FFFD.
pub(crate) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// The parts of an input, which a line `---` separates.
pub(crate) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n---\n")
}

/// Places to cut an input of this length: all of a short one, some of a long one and those near its end.
pub(crate) fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 32).max(1);
    (0..length).step_by(step).chain(length.saturating_sub(40)..length)
}

/// A message for people about `input` is one line that steers no terminal, and not many times the input.
pub(crate) fn assert_message(message: &impl Display, input: usize) {
    let message = message.to_string();
    assert!(!message.contains(steers), "it steers: {message:?}");
    assert!(message.len() <= 8 * input + WORDS, "{} bytes about {input}: {message:?}", message.len());
}

/// A command is one word after the other: nothing in it ends a command or begins another one.
pub(crate) fn assert_command(command: &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || " /-_.:%".contains(c);
    assert!(command.starts_with("set server ") && command.chars().all(fits), "{command:?}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_seed_keeps_every_promise() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
        for (name, target) in TARGETS {
            let mut seeds: Vec<_> = fs::read_dir(folder.join(name))
                .unwrap_or_else(|error| panic!("the seeds of {name}: {error}"))
                .map(|entry| entry.unwrap().path())
                .collect();
            seeds.sort();
            assert!(!seeds.is_empty(), "{name} has no seed");
            for seed in seeds {
                // A test's output is shown where it fails: the last line of it is the seed that broke a promise.
                println!("{}", seed.display());
                target(&fs::read(&seed).unwrap());
            }
        }
    }

    #[test]
    fn every_target_has_its_program_and_its_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let stems = |folder: &str, path: &Path| -> BTreeSet<String> {
            fs::read_dir(path.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert_eq!(stems("seeds", &folder), known);
        assert_eq!(stems("targets", &folder), known);
        for name in known {
            let program = fs::read_to_string(folder.join(format!("targets/{name}.rs"))).unwrap();
            assert!(program.contains(&format!("hsdo::fuzzing::{name}(data)")), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        }
    }
}
