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
        assert!(page.contains(&format!(".SS hsdo {command}\n")), "{command}");
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
