//! `credential_process` on the built program: whatever a helper does, hsdo neither grows nor exits, and leaves nothing
//! behind.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::bed::Bed;
use common::hsdo::{Hsdo, Running};
use common::process::unshare;
use common::wait::{SOON, wait_for};

const KEYS: &str = r#"echo '{"Version": 1, "AccessKeyId": "ASIAHELPER", "SecretAccessKey": "hush"}'"#;

fn bed(name: &str) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    bed
}

/// A server whose credentials come from this script.
fn server(bed: &Bed, script: &str) -> Hsdo {
    let script = bed.file("helper", script);
    let config = bed.file("config", &format!("[default]\ncredential_process = sh '{}'\n", script.display()));
    Hsdo::server(bed)
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", &config.to_string_lossy())
        .env("PATH", &std::env::var("PATH").expect("a PATH"))
        .env("INTERVAL", "0.05")
}

/// A long-running command that no other test uses.
fn long(number: u32) -> String {
    format!("sleep 9{number}{}", std::process::id())
}

fn entries(folder: impl AsRef<Path>) -> Vec<fs::DirEntry> {
    fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_default()
}

/// How many processes have this command line.
fn running(command: &str) -> usize {
    let line = |entry: &fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let words = command.replace(' ', "\0") + "\0";
    entries("/proc").iter().filter(|entry| line(entry) == words.as_bytes()).count()
}

/// The states of a process's children, one letter each: `Z` is a zombie.
fn children(parent: u32) -> String {
    let state = |entry: &fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.to_owned();
        (fields.next()? == parent.to_string()).then_some(state)
    };
    entries("/proc").iter().filter_map(state).collect()
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Threads, descriptors and children of the process, and how many processes have this command line.
fn counts(server: &Running, command: &str) -> [usize; 4] {
    let proc = Path::new("/proc").join(server.id().to_string());
    [entries(proc.join("task")).len(), entries(proc.join("fd")).len(), children(server.id()).len(), running(command)]
}

#[test]
fn hundreds_of_helpers_that_hang_leave_nothing_behind() {
    let bed = bed("helpers");
    let (tries, long) = (bed.dir().join("tries"), long(1));
    // It fails while other processes hold its pipes: in its group, in the background, in sessions of their own.
    let script = format!(
        "echo >>'{}'\n{long} | cat &\nsetsid {long} &\n(setsid sh -c '{long} & {long} >/dev/null 2>&1 & wait' &)\nexit 3\n",
        tries.display()
    );
    let mut server = server(&bed, &script).spawn();
    let mut counts_after = |goal| {
        wait_for("the helper to be tried again and again", 4 * SOON, || {
            server.process().assert_running();
            let count = lines(&tries);
            if count >= goal { Ok(counts(&server, &long)) } else { Err(format!("{count} tries\n{}", server.log())) }
        })
    };
    let few = counts_after(20);
    let many = counts_after(220);
    // Each may be in the middle of an attempt.
    let grown = few.into_iter().zip(many).any(|(few, many)| many > few + 6);
    assert!(!grown, "threads, descriptors, children, helpers: {few:?}, then {many:?}");
    assert!(server.log().contains("failed (exit status: 3)"), "{}", server.log());
    // What is left of the last attempt ends with hsdo.
    assert_eq!(server.terminate().code(), Some(0));
    wait_for("the helpers to be gone", SOON, || if running(&long) == 0 { Ok(()) } else { Err(running(&long)) });
}

#[test]
fn a_whole_document_counts_though_the_pipe_stays_open() {
    let bed = bed("open-pipe");
    let long = long(2);
    let outcome = server(&bed, &format!("{long} &\n{KEYS}\n")).once();
    outcome.assert_code(0);
    assert!(bed.aws().calls().iter().any(|call| call.key == "ASIAHELPER"), "{outcome}");
    assert_eq!(running(&long), 0, "what held the pipe ends with hsdo");
}

#[test]
fn a_helper_that_hangs_ends_with_hsdo() {
    let bed = bed("hanging");
    let long = long(3);
    let mut server = server(&bed, &format!("setsid {long} &\n{long} >/dev/null 2>&1 &\n{long} | cat\n")).spawn();
    wait_for("the helper to hang", SOON, || if running(&long) == 3 { Ok(()) } else { Err(running(&long)) });
    server.process().assert_running();
    assert_eq!(server.terminate().code(), Some(0));
    assert_eq!(running(&long), 0);
}

/// A process limit does not bind root, and counts all processes of a user: so it is set for a user of this test, which
/// may read what root may.
fn limited(tasks: u32) -> Vec<String> {
    let limit = format!("--nproc={tasks}");
    let user =
        ["setpriv", "--reuid=64937", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
    let words = if unshare().len() == 1 { user.to_vec() } else { vec!["unshare", "--user"] };
    words.into_iter().chain(["prlimit", &limit]).map(str::to_owned).collect()
}

#[test]
fn without_room_for_one_more_thread_or_process_a_turn_fails_and_no_more() {
    let bed = bed("room");
    let mut done = 0;
    for tasks in 1..=12 {
        let limited = limited(tasks);
        let words: Vec<&str> = limited.iter().map(String::as_str).collect();
        let outcome = server(&bed, &format!("sleep 0.1\n{KEYS}\n")).under(&words).once();
        let code = outcome.status.code();
        assert!(matches!(code, Some(0..=2)), "{tasks} tasks: {outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{tasks} tasks: {outcome}");
        done += i32::from(code == Some(0));
    }
    assert!(done > 0, "twelve tasks are enough");
}

#[test]
fn process_1_waits_for_orphans_and_leaves_the_helper_its_status() {
    let bed = bed("orphans");
    let tries = bed.dir().join("tries");
    // Forty failed attempts, each with two orphans; then keys.
    let script = format!(
        "echo >>'{0}'\n(sleep 0.1 >/dev/null 2>&1 &)\n(setsid sleep 0.1 >/dev/null 2>&1 &)\n\
         [ $(wc -l <'{0}') -gt 40 ] || exit 3\n{KEYS}\n",
        tries.display()
    );
    let words = [&unshare()[..], &["--pid", "--fork", "--kill-child", "--mount-proc"]].concat();
    let mut server = server(&bed, &script).under(&words).spawn();
    server.wait_log("AWS: recovered after");
    let log = server.log();
    assert!(log.contains("failed (exit status: 3)") && !log.contains("is lost"), "{log}");

    let child = format!("/proc/{0}/task/{0}/children", server.id());
    let hsdo: u32 = fs::read_to_string(&child).expect(&child).trim().parse().expect("one child");
    wait_for("no zombie", SOON, || match children(hsdo) {
        all if all.is_empty() => Ok(()),
        all => Err(all),
    });
    server.wait_turn();
    assert!(Command::new("kill").arg(hsdo.to_string()).status().is_ok_and(|status| status.success()));
    assert_eq!(server.process().wait_exit(SOON).code(), Some(0));
}
