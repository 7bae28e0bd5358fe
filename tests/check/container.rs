//! The task definitions of `conf/ecs`: their settings are hsdo's, their rights are the least, and their parts fit together. And the
//! settings in the examples of `conf/terraform`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::bed::{Bed, package_dir, tool};
use crate::common::hsdo::Hsdo;
use crate::common::process::Process;
use crate::common::wait::{SOON, wait_until};
use crate::fixture::{Report, Site};

/// The user of hsdo's image.
const USER: &str = "65534:65534";

fn definition(name: &str) -> Value {
    let path = package_dir().join("conf/ecs").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn definitions() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(package_dir().join("conf/ecs")).expect("conf/ecs");
    let name =
        |file: std::io::Result<std::fs::DirEntry>| file.expect("a file").file_name().into_string().expect("UTF-8");
    let names: BTreeSet<String> = files.map(name).collect();
    assert_eq!(Vec::from_iter(&names), ["haproxy.json", "server.json"]);
    names.into_iter().map(|name| (name.clone(), definition(&name))).collect()
}

fn containers(definition: &Value) -> &Vec<Value> {
    definition["containerDefinitions"].as_array().expect("containers")
}

fn container<'a>(definition: &'a Value, name: &str) -> &'a Value {
    containers(definition).iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().expect("text")).collect()
}

fn environment(container: &Value) -> BTreeMap<&str, &str> {
    let pairs = container["environment"].as_array().expect("an environment").iter();
    pairs.map(|pair| (pair["name"].as_str().expect("text"), pair["value"].as_str().expect("text"))).collect()
}

#[test]
fn every_container_has_the_least_rights() {
    for (file, definition) in definitions() {
        for one in containers(&definition) {
            let name = format!("{file}, {}", one["name"]);
            assert_eq!(one["readonlyRootFilesystem"], true, "{name}");
            let capabilities = &one["linuxParameters"]["capabilities"];
            assert!(capabilities["add"].is_null() && one["privileged"].is_null(), "{name}");
            let drops = words(&capabilities["drop"]);
            if one["user"] == "0:0" {
                // It makes the folder of the socket, ends, and can do nothing but give it to another.
                assert!(
                    one["essential"] == false && drops.contains(&"DAC_OVERRIDE") && !drops.contains(&"CHOWN"),
                    "{name}"
                );
                continue;
            }
            assert_eq!(drops, ["ALL"], "{name}");
            if one["name"] == "hsdo" {
                assert_eq!((&one["user"], &one["essential"]), (&USER.into(), &true.into()), "{name}");
                let [first, program, rest @ ..] = &words(&one["healthCheck"]["command"])[..] else { panic!("{name}") };
                assert_eq!((*first, *program, rest), ("CMD", "/usr/bin/hsdo", &["check", "--quick"][..]), "{name}");
                assert!(one["restartPolicy"]["restartAttemptPeriod"].as_u64() >= Some(60), "{name}");
            }
        }
    }
}

/// Each hsdo, with its environment, its command and its health check, on moto.
#[test]
fn every_setting_of_the_task_definitions_is_one_that_hsdo_knows() {
    let known: BTreeSet<&str> = hsdo::settings::KEYS.iter().map(|key| key.name).collect();
    let site = Site::of_server("check-ecs");
    for (file, role) in [("server.json", "--server"), ("haproxy.json", "--client")] {
        let definition = definition(file);
        let container = container(&definition, "hsdo");
        let environment = environment(container);
        let names: BTreeSet<&str> = environment.keys().copied().collect();
        assert!(names.is_subset(&known), "{file}: {names:?}");
        assert_eq!(words(&container["command"]), [role], "{file}");
        assert_eq!(environment["LOG_FORMAT"], "json", "{file}");
        let check = Hsdo::with_aws(&site.bed, "check").arg("check").arg(role).arg("--json");
        let check = check.env_remove("AWS_DEFAULT_REGION").env_remove("DYNAMODB_TABLE_NAME");
        let check = environment.iter().fold(check, |check, (name, value)| check.env(name, value));
        let report = Report::of(check);
        for (name, value) in &environment {
            report.assert_says("ok", name, &format!("{value} (the environment)"), "");
        }
        assert!(!report.at("mend").chain(report.at("warn")).any(|line| line["subject"] == "settings"), "{file}");
    }
}

/// The examples of the Terraform module write settings too.
#[test]
fn every_setting_of_the_terraform_examples_is_one_that_hsdo_knows() {
    let known: BTreeSet<&str> = hsdo::settings::KEYS.iter().map(|key| key.name).collect();
    for example in ["group-per-zone", "spillover"] {
        let path = package_dir().join("conf/terraform/examples").join(example).join("main.tf");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let names = text.lines().filter_map(|line| Some(line.trim().split_once(" ")?.0));
        let is_setting =
            |name: &&str| name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let names: BTreeSet<&str> = names.filter(is_setting).collect();
        assert!(names.is_subset(&known) && names.len() > 8, "{example}: {names:?}");
    }
}

/// The task of `haproxy.json`, with its users, its folder and no capabilities: only hsdo's group reaches the socket, at level admin,
/// also where its mount is read-only.
#[test]
fn the_users_of_the_sidecar_share_the_socket() {
    let bed = Bed::new("sidecar");
    let definition = definition("haproxy.json");
    let folder = bed.dir().join("run");
    let open_to_all = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a mode");
    open_to_all(bed.dir());
    std::fs::create_dir(&folder).expect("a folder");
    let shown = folder.to_string_lossy().into_owned();
    let [socket_folder, haproxy, hsdo] = ["socket-folder", "haproxy", "hsdo"].map(|name| container(&definition, name));
    for one in [haproxy, hsdo] {
        let waits = &one["dependsOn"][0];
        assert_eq!((&waits["containerName"], &waits["condition"]), (&"socket-folder".into(), &"SUCCESS".into()));
    }
    let inside = |one: &Value| one["mountPoints"][0]["containerPath"].as_str().expect("a path").to_owned();
    assert_eq!(inside(haproxy), inside(socket_folder));
    let volume = |one: &Value| one["mountPoints"][0]["sourceVolume"].clone();
    assert!(volume(haproxy) == volume(hsdo) && volume(haproxy) == volume(socket_folder));
    let socket = environment(hsdo)["CLIENT_HAPROXY_SOCKET_PATH"];
    assert_eq!(socket.strip_prefix(&inside(hsdo)), Some("/admin.sock"));

    let script = words(&socket_folder["command"])[0].replace(&inside(haproxy), &shown);
    let made =
        Command::new("setpriv").args(["--bounding-set=-all,+chown", "--inh-caps=-all", "sh", "-c", &script]).status();
    assert!(made.is_ok_and(|status| status.success()), "{script}: run this test as root, with setpriv (util-linux)");

    let text = format!(
        "global\n  stats socket {shown}/admin.sock mode 660 level admin\ndefaults\n  mode http\n  timeout connect 1s\n  \
         timeout client 5s\n  timeout server 5s\nbackend http-back\n  server-template mywebapp 1-100 127.0.0.2:80 check disabled\n"
    );
    let file = bed.file("sidecar.cfg", &text);
    open_to_all(&file);
    // Debian's, where it is: the folder of another version may be closed to this user.
    let usual = PathBuf::from("/usr/sbin/haproxy");
    let program = if usual.is_file() { usual } else { tool("HSDO_TEST_HAPROXY", &[]) };
    let mut command = as_user(haproxy["user"].as_str().expect("a user"));
    command.arg(program).args(["-db", "-f"]).arg(&file).stdout(Stdio::null());
    let mut running = Process::spawn(bed.dir(), "haproxy", &mut command);
    let owner = wait_until("HAProxy's socket", SOON, || {
        running.assert_running();
        std::fs::metadata(folder.join("admin.sock")).ok().map(|found| (found.uid(), found.gid(), found.mode() & 0o777))
    });
    assert_eq!(owner, (99, 65534, 0o660));

    // The folder of the build may be closed to them.
    let copy = bed.dir().join("hsdo").display().to_string();
    let check = |user: &str, mount: &str| {
        let environment = environment(hsdo);
        let check = Hsdo::bare(&bed, "sidecar").arg("check").arg("--client").arg("--json");
        let check = environment.iter().fold(check, |check, (name, value)| check.env(name, value));
        let check = check.env("CLIENT_HAPROXY_SOCKET_PATH", &format!("{shown}/admin.sock"));
        // Nothing of AWS is asked about here.
        let check = check.env("AWS_EC2_METADATA_DISABLED", "true").env("EXPORTER_PORT", "0");
        let (uid, gid) = user.split_once(':').expect("a user and a group");
        let script = format!(
            "install -m 755 \"$0\" {copy} && {mount} exec setpriv --reuid={uid} --regid={gid} --clear-groups \
             --bounding-set=-all --inh-caps=-all {copy} \"$@\""
        );
        Report::of(check.under(&["unshare", "--mount", "sh", "-c", &script]))
    };
    let read_only = format!("mount --bind {shown} {shown} && mount -o remount,ro,bind {shown} &&");
    check(USER, &read_only).assert_says("ok", "HAProxy's socket", "level admin", "");
    check(USER, "").assert_says("ok", "backend http-back", "servers mywebapp1 to mywebapp100", "");
    check("12345:12345", "").assert_says("mend", "HAProxy's socket", "ermission denied", "");
}

/// A command of that user, without any capability.
fn as_user(user: &str) -> Command {
    let (uid, gid) = user.split_once(':').expect("a user and a group");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
    command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
    command
}
