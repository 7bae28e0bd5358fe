//! What a machine can run out of: a log reader, disk space, file descriptors, a name server.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::{BACK, FAILED, Scene};
use crate::common::aws_proxy::Fault;
use crate::common::bed::{Bed, package_dir};
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Running};
use crate::common::process::unshare;
use crate::common::wait::{SOON, assert_stays, wait_for};

/// Stubs a table of a hundred rows with this weight; moto would be slow.
fn fill(bed: &Bed, weight: u16) {
    let row = |id: u32| {
        format!(
            r#"{{"BackendServerID": {{"N": "{id}"}}, "IPAddress": {{"S": "127.1.2.{id}"}}, "ServerName": {{"S": "i-{id}"}},
            "Weight": {{"N": "{weight}"}}, "BackendServerStatus": {{"S": "enabled"}},
            "LastWeightUpdate": {{"S": "2024-01-02 03:04:05.678901"}}}}"#
        )
    };
    let answer = format!(r#"{{"Items": [{}]}}"#, (1..=100).map(row).collect::<Vec<_>>().join(","));
    bed.aws().heal();
    bed.aws().inject("Scan", Fault::Answer(Arc::new(move |_: &str| answer.clone())));
}

/// A client that fills a hundred slots into the log `path`, more lines than the queue holds, and keeps turning.
fn client(bed: &Bed, path: &Path) -> (Haproxy, Running) {
    bed.moto().create_table();
    fill(bed, 10);
    let haproxy = Haproxy::start(bed, &[BackendConfig::new(BACK, "mywebapp", 100).unchecked()]);
    let into = format!("exec \"$0\" \"$@\" 2>'{}'", path.display());
    let mut client = Hsdo::client(bed)
        .arg("--debug")
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "100")
        .under(&["sh", "-c", &into])
        .spawn();
    wait_for("every slot to serve", SOON, || match haproxy.active(BACK).len() {
        100 => Ok(()),
        count => Err(count),
    });
    for _ in 0..3 {
        client.wait_turn();
    }
    assert_eq!(client.metric(FAILED), Some(0.0));
    (haproxy, client)
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_turn() {
    let bed = Bed::new("unread");
    let path = bed.dir().join("log");
    assert!(Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()), "mkfifo");
    // Opened for both reading and writing, so neither end blocks; full from the start.
    let mut pipe = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
    let mut filling = pipe.try_clone().expect("a second handle");
    std::thread::spawn(move || drop(filling.write_all(&[b'x'; 1 << 20])));
    let (_haproxy, mut client) = client(&bed, &path);

    // Once read again, the log reports the dropped lines.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).is_err() {
                return;
            }
        }
    });
    // A line only appears when there is something to log.
    fill(&bed, 20);
    let mut text = String::new();
    wait_for("the log to tell of dropped lines", SOON, || {
        text.extend(receiver.try_iter());
        if text.contains(" log lines were dropped: standard error could not keep up") { Ok(()) } else { Err("no") }
    });
    assert!(client.terminate().success());
}

#[test]
fn a_log_on_a_full_disk_holds_up_no_turn() {
    let bed = Bed::new("full");
    let (_haproxy, mut client) = client(&bed, Path::new("/dev/full"));
    assert!(client.terminate().success());
}

/// Limits a process's descriptors; `None` restores its hard limit.
fn limit_descriptors(id: u32, most: Option<usize>) {
    let limit = most.map_or("1024:1024".to_owned(), |most| format!("{most}:1024"));
    let status = Command::new("prlimit").arg("--pid").arg(id.to_string()).arg(format!("--nofile={limit}")).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit: install util-linux");
}

fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).expect("it runs").count()
}

#[test]
fn a_client_without_descriptors_goes_on_when_it_has_some() {
    let mut scene = Scene::set("client-descriptors");
    let id = scene.client.process().id();
    limit_descriptors(id, Some(1));
    scene.client.wait_log("HAProxy: cannot reach HAProxy");
    scene.set_weight(2, 7);
    scene.assert_serves();
    scene.haproxy.wait_weights(BACK, &[("mywebapp1", 10), ("mywebapp2", 10)]);
    limit_descriptors(id, None);
    scene.wait_weights(&[10, 7]);
    scene.client.wait_log("HAProxy: recovered");
    let failed = scene.client.metric(FAILED);
    scene.client.wait_turn();
    assert_eq!(scene.client.metric(FAILED), failed);
    assert!(
        scene.client.log().lines().count() < 30,
        "a line or two a fault, and not one a turn: {}",
        scene.client.log()
    );
}

#[test]
fn a_server_without_descriptors_goes_on_when_it_has_some() {
    let bed = Bed::new("server-descriptors");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    let mut server = Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10").spawn();
    server.wait_turn();
    let (id, before) = (server.process().id(), bed.moto().rows());
    let most = descriptors(id) + 20;
    limit_descriptors(id, Some(1));
    // Open connections are kept; once they are gone it has none.
    bed.aws().inject_times("*", Fault::Close, 3);
    server.wait_log("AWS: ");
    bed.moto().set_desired("web", 3);
    assert_eq!(bed.moto().rows(), before);
    limit_descriptors(id, None);
    server.wait_log("AWS: recovered");
    wait_for("the third seat", SOON, || match bed.moto().attribute(3, "BackendServerStatus").as_deref() {
        Some("enabled") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    server.wait_turn();
    assert!(descriptors(id) <= most, "{} descriptors", descriptors(id));
}

/// With `/etc/hosts` as the name service, in a mount namespace of hsdo's own. An answer is fresh for ten seconds.
#[test]
fn a_name_server_that_is_down_ends_nothing() {
    const LONGER_THAN_FRESH: Duration = Duration::from_secs(12);
    let bed = Bed::new("names");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 1);
    let hosts = bed.file("hosts", "");
    // Nothing listens there.
    let nobody = bed.file("resolv.conf", "nameserver 127.9.9.9\noptions timeout:1 attempts:1\n");
    let own = format!(
        "mount --bind '{}' /etc/hosts && mount --bind '{}' /etc/resolv.conf && exec \"$0\" \"$@\"",
        hosts.display(),
        nobody.display()
    );
    let url = bed.aws().url().replace("127.0.0.1", "aws.hsdo.test");
    let mut runner = unshare();
    runner.extend(["--mount", "sh", "-c", &own]);
    let server = || Hsdo::server(&bed).env("AWS_ENDPOINT_URL", &url).under(&runner);
    server().once().assert_code(1).assert_stderr("aws.hsdo.test");

    fs::write(&hosts, "127.0.0.1 aws.hsdo.test\n").expect("a file");
    let mut running = server().spawn();
    running.wait_turn();
    fs::write(&hosts, "").expect("a file");
    assert_stays("no turn fails", LONGER_THAN_FRESH, || match running.metric(FAILED) {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?} failed turns: {}", running.log())),
    });
    running.wait_turn();
    bed.moto().set_desired("web", 2);
    wait_for("the second seat", SOON, || {
        bed.moto().attribute(2, "IPAddress").filter(|text| text != "none").ok_or("none")
    });
    server().once().assert_code(1).assert_stderr("aws.hsdo.test");
}

/// A VPN's name server and a public one: the first knows the name, after a while; the second says at once that it does
/// not exist. Nothing listens at the address: "connection refused" proves that the name was resolved.
#[test]
fn name_servers_are_asked_one_after_the_other() {
    let bed = Bed::new("name-servers");
    let script = package_dir().join("tests/tools/name-servers.py").display().to_string();
    let found = |servers: &[&str]| {
        let mut runner = unshare();
        runner.extend(["--net", "--mount", "sh", "-c", "exec python3 \"$0\" \"$@\"", &script]);
        runner.extend(servers);
        runner.push("--");
        let hsdo = Hsdo::server(&bed).env("AWS_ENDPOINT_URL", "http://aws.hsdo.test:9").under(&runner);
        let outcome = hsdo.once();
        outcome.assert_code(1).assert_stderr("aws.hsdo.test:9: cannot be reached: ");
        outcome.stderr.contains("connection refused")
    };
    assert!(found(&["127.0.0.1=knows", "127.0.0.2=unknown"]), "musl: no such name");
    assert!(found(&["127.0.0.1=silent", "127.0.0.2=knows"]));
    assert!(!found(&["127.0.0.1=unknown", "127.0.0.2=knows"]), "the first server's response counts");
}
