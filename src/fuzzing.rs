//! Entry points for `make fuzz`: a target takes any bytes and panics if an invariant is violated. Compiled only for the
//! fuzzer and the tests.
//!
//! The targets are in the `fuzzing` module of each folder. Here are shared helpers, and a test that replays
//! tests/fuzz/seeds: a starting corpus and every input that ever violated an invariant.

use std::fmt::Display;

pub use crate::aws::fuzzing::{aws, credentials, dynamodb, profile_files};
pub use crate::consul::fuzzing::consul;
pub use crate::exporter::fuzzing::output;
pub use crate::haproxy::fuzzing::haproxy;
pub use crate::resolver::fuzzing::resolver;
pub use crate::settings::fuzzing::{settings_environment, settings_file};

use crate::text::is_unsafe;

/// Checks one input.
pub type Target = fn(&[u8]);

/// Every target, by the name of its seed folder.
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

/// How many bytes longer than the input a message about it may be: its own words, and some hundred escaped characters.
const MAX_OVERHEAD: usize = 8_000;

/// Splits off the first byte, which selects how to read the rest.
pub(crate) fn kind(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(kind, rest)| (*kind, rest))
}

/// The input as text; invalid UTF-8 becomes U+FFFD.
pub(crate) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// The parts of an input, separated by lines `---`.
pub(crate) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n---\n")
}

/// Offsets to truncate an input of this length at: all of a short one; of a long one some, and those near its end.
pub(crate) fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 32).max(1);
    (0..length).step_by(step).chain(length.saturating_sub(40)..length)
}

/// A message about an input of that length must be one safe line of bounded length.
pub(crate) fn assert_message(message: &impl Display, input: usize) {
    let message = message.to_string();
    assert!(!message.contains(is_unsafe), "unsafe: {message:?}");
    assert!(message.len() <= 8 * input + MAX_OVERHEAD, "{} bytes about {input}: {message:?}", message.len());
}

/// Nothing in a command may end it or start another one.
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
    fn no_seed_violates_an_invariant() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
        for (name, target) in TARGETS {
            let mut seeds: Vec<_> = fs::read_dir(folder.join(name))
                .unwrap_or_else(|error| panic!("the seeds of {name}: {error}"))
                .map(|entry| entry.unwrap().path())
                .collect();
            seeds.sort();
            assert!(!seeds.is_empty(), "{name} has no seed");
            for seed in seeds {
                // On failure, the last line of output names the seed.
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
        let expected: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert_eq!(stems("seeds", &folder), expected);
        assert_eq!(stems("targets", &folder), expected);
        for name in expected {
            let program = fs::read_to_string(folder.join(format!("targets/{name}.rs"))).unwrap();
            assert!(program.contains(&format!("hsdo::fuzzing::{name}(data)")), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        }
    }
}
