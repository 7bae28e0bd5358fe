//! What the packages carry beside the binary: man page and completions tell what `--help` tells.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::bed::{Bed, package_dir};
use common::hsdo::binary;

const GENERATED: [&str; 4] = ["hsdo.1", "completions/hsdo.bash", "completions/_hsdo", "completions/hsdo.fish"];

fn read(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn man_page_and_completions_are_those_of_the_help() {
    let bed = Bed::new("manual");
    let shipped = package_dir().join("conf/package");
    let output = Command::new(shipped.join("manual.py")).arg(binary()).arg(bed.dir()).output();
    let output = output.unwrap_or_else(|error| panic!("manual.py: {error}: install python3"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in GENERATED {
        assert!(
            read(bed.dir(), name) == read(&shipped, name),
            "conf/package/{name} is not up to date: run make manual"
        );
    }
}

/// The generator reads the help line by line; what it does not understand must not be lost.
#[test]
fn they_name_every_setting_command_and_flag() {
    let shipped = package_dir().join("conf/package");
    let page = read(&shipped, "hsdo.1").replace("\\-", "-");
    for key in hsdo::settings::KEYS {
        let help = key.help.replace('`', "");
        assert!(page.contains(&format!("\\fB{}\\fR (default: ", key.name)) && page.contains(&help), "{}", key.name);
    }
    let mut help = hsdo::cli::help();
    for command in ["check", "status", "why", "drain", "enable"] {
        assert_eq!(page.matches(&format!(".SS hsdo {command}\n")).count(), 1, "{command}");
        let output = Command::new(binary()).args([command, "--help"]).output().expect("hsdo");
        help += &String::from_utf8_lossy(&output.stdout);
    }
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| line.trim_start().starts_with('-')))
        .flat_map(|line| line.split([' ', ',', '`']).filter(|word| word.starts_with("--")))
        .collect();
    assert!(flags.len() > 20, "{flags:?}");
    for name in &GENERATED[1..] {
        let text = read(&shipped, name);
        for flag in &flags {
            let fish = format!(" -l {} ", flag.trim_start_matches('-'));
            assert!(text.contains(flag) || text.contains(&fish), "{name}: {flag}");
        }
    }
}

#[test]
fn a_version_is_released_only_as_the_changelog_has_it() {
    let bed = Bed::new("changelog");
    let script = package_dir().join("conf/package/changelog.sh");
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=x", "-c", "user.email=x@x.invalid", "-c", "commit.gpgSign=false"];
        let output = Command::new("git").current_dir(bed.dir()).args(identity).args(words).output();
        let output = output.unwrap_or_else(|error| panic!("git: {error}: install git"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
    let next =
        "# Changelog\n\nSee ## 0.2.0 (soon).\n\n## 0.2.0 (unreleased)\n\n- One.\n\n## 0.1.0 (2026-11-25)\n\n- Two.\n";
    let dated = next.replace("(unreleased)", "(2027-01-31)");
    for (version, text, tag, fault) in [
        ("0.2.0", next, None, ""),
        ("0.2.0", &dated, None, ""),
        ("0.2.0", &dated, Some("v0.2.0"), ""),
        ("0.2.0", next, Some("v0.2.0"), "is tagged, but has no date"),
        ("0.2.0", &dated, Some("v0.3.0"), "has the tag v0.3.0, but Cargo.toml has version 0.2.0"),
        ("0.2.0", &dated, Some("0.2.0"), "the tag has to be v0.2.0"),
        ("0.1.0", next, None, "begins with \"## 0.2.0 (unreleased)\""),
        ("0.2.0-rc.1", next, None, "only X.Y.Z can be packed"),
        ("0.2.0", &next.replace("unreleased", "YYYY-MM-DD"), None, "\"YYYY-MM-DD\" is no date"),
        ("0.2.0", &next.replace("unreleased", "2027-13-45"), None, "\"2027-13-45\" is no date"),
        ("0.2.0", &next.replace("- One.\n\n", ""), None, "the section of version 0.2.0 is empty"),
        ("0.2.0", "# Changelog\n", None, "its first section has to be ## 0.2.0"),
    ] {
        bed.file("CHANGELOG.md", text);
        tag.iter().for_each(|tag| git(&["tag", tag]));
        let output = Command::new(&script).current_dir(bed.dir()).arg(version).output().expect("sh");
        tag.iter().for_each(|tag| git(&["tag", "--delete", tag]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), fault.is_empty(), "{version} {tag:?} {text}: {said}");
        assert!(said.contains(fault), "{version} {tag:?} {text}: {said}");
    }
}

#[test]
fn both_lock_files_have_the_version() {
    for name in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let version = concat!("name = \"hsdo\"\nversion = \"", env!("CARGO_PKG_VERSION"), "\"\n");
        assert!(
            read(package_dir(), name).contains(version),
            "{name}: run cargo update --offline --package hsdo for it"
        );
    }
}
