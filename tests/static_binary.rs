//! The binary itself: static, at home in an empty directory, and fit to be PID 1 of a container.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use common::bed::Bed;
use common::hsdo::binary;
use common::process::Process;
use common::wait::{SOON, wait_for};

/// A little-endian number of `N` bytes at an offset.
fn number<const N: usize>(file: &[u8], offset: usize) -> usize {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&file[offset..offset + N]);
    usize::try_from(u64::from_le_bytes(bytes)).expect("a 64-bit machine")
}

/// `PT_DYNAMIC` and `PT_INTERP` (System V ABI, "Program Header").
const DYNAMIC: usize = 2;
const INTERPRETER: usize = 3;

#[test]
fn it_needs_no_loader_and_no_library() {
    let path = binary();
    let file = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&file[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
    let (table, size, count) = (number::<8>(&file, 32), number::<2>(&file, 54), number::<2>(&file, 56));
    assert!(count > 0);
    let kinds: Vec<usize> = (0..count).map(|index| number::<4>(&file, table + index * size)).collect();
    assert!(!kinds.contains(&INTERPRETER), "{} asks for a loader: build it for a musl target", path.display());
    assert!(!kinds.contains(&DYNAMIC), "{} has a dynamic section: see .cargo/config.toml", path.display());
}

fn unshare() -> Command {
    let words = common::process::unshare();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

const HOW: &str = "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0)";

#[test]
fn it_runs_in_an_empty_root_directory() {
    let bed = Bed::new("chroot");
    let root = bed.dir().join("root");
    fs::create_dir(&root).unwrap();
    fs::copy(binary(), root.join("hsdo")).unwrap();
    fs::set_permissions(root.join("hsdo"), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = unshare();
        command.arg("--root").arg(&root).arg("/hsdo").args(arguments).env_clear();
        let output = command.output().unwrap_or_else(|error| panic!("unshare: {error}: install util-linux"));
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let version = concat!("hsdo ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(run(&["--version"]), (Some(0), version, String::new()), "{HOW}");
    // It gets as far as it can without settings, and does not panic.
    let (code, _, stderr) = run(&["--server"]);
    assert!(code == Some(2) && stderr.contains("SERVER_MODE"), "{code:?}: {stderr}");
}

/// The kernel does not deliver signals that process 1 does not handle.
#[test]
fn as_process_1_it_stops_within_a_second_of_sigterm() {
    let bed = Bed::new("pid1");
    let mut command = unshare();
    command.args(["--pid", "--fork", "--kill-child"]).arg(binary()).arg("--client").env_clear().current_dir(bed.dir());
    command.envs([
        ("DYNAMODB_TABLE_NAME", "slots"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("CLIENT_HAPROXY_SOCKET_PATH", "/nowhere.sock"),
        ("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80"),
        ("EXPORTER_PORT", "0"),
    ]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut process = Process::spawn(bed.dir(), "pid1", command.env("PATH", path));
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    let child = wait_for("hsdo to wait for its next turn", SOON, || {
        process.assert_running();
        let log = process.stderr();
        let child = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        if log.contains("AWS: ") && !child.is_empty() { Ok(child) } else { Err(format!("{child:?}: {log}: {HOW}")) }
    });
    let inside = fs::read_to_string(format!("/proc/{child}/status")).expect("the child's status");
    let numbers = inside.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its numbers");
    assert!(numbers.ends_with("\t1"), "it is process 1 of its namespace: {numbers:?}");

    let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {child}")).status();
    assert!(sent.is_ok_and(|status| status.success()));
    let status = process.wait_exit(Duration::from_millis(1_900));
    assert_eq!(status.code(), Some(0), "{process}");
}
