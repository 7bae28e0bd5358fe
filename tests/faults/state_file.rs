//! A client that starts while AWS is away, with the table that an earlier one kept (`CLIENT_STATE_FILE`). HAProxy: `check
//! inter 100ms rise 2 fall 2`, round robin, a template of four servers.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::fixture::{BACK, Scene};
use crate::common::aws_fault::Fault;
use crate::common::hsdo::{Hsdo, Running};
use crate::common::wait::{SOON, wait_for};

/// A name in a domain that never resolves (RFC 6761, section 6.4).
const NO_SUCH_HOST: &str = "http://dynamodb.invalid:80";

fn file(scene: &Scene) -> PathBuf {
    scene.bed.dir().join("table.json")
}

fn client(scene: &Scene) -> Hsdo {
    Hsdo::client(&scene.bed)
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")
        .env("CLIENT_STATE_FILE", &file(scene).to_string_lossy())
}

/// A scene whose client has kept the table and is gone, and whose HAProxy has started anew: all its servers are in maintenance.
fn scene(name: &str) -> Scene {
    let mut scene = Scene::set(name);
    scene.client = client(&scene).spawn();
    wait_for("the table to be kept", SOON, || if file(&scene).exists() { Ok(()) } else { Err("no file".to_owned()) });
    restart_haproxy(&mut scene);
    scene
}

fn restart_haproxy(scene: &mut Scene) {
    scene.client.kill();
    scene.haproxy.kill();
    scene.haproxy.restart();
    assert_eq!(scene.haproxy.active(BACK), Vec::<String>::new());
}

/// The client follows what it kept, and says so where one looks.
fn assert_follows_kept(scene: &Scene, mut client: Running) -> Running {
    scene.wait_weights(&[10, 10]);
    scene.assert_serves();
    client.wait_log("CLIENT_STATE_FILE: AWS cannot be read, so HAProxy follows the table read ");
    let (_, text) = client.get("/readyz").expect("an exporter");
    assert!(text.contains("CLIENT_STATE_FILE: AWS cannot be read"), "{text}");
    client
}

#[test]
fn a_start_without_aws_fills_haproxy_from_the_kept_table() {
    let mut scene = scene("kept");
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT_URL", NO_SUCH_HOST),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_DEFAULT_REGION", ""),
    ] {
        // Without a key or a region the metadata service is asked, and nobody answers there.
        let away = client(&scene).env(name, value).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
        let client = assert_follows_kept(&scene, away.spawn());
        assert!(client.log().contains("AWS: "), "{name}={value}: {}", client.log());
        scene.client = client;
        restart_haproxy(&mut scene);
    }
}

#[test]
fn what_only_a_person_can_fix_does_not_end_a_start_with_a_kept_table() {
    let scene = scene("kept-denied");
    for fault in [
        Fault::dynamodb(400, "AccessDeniedException"),
        Fault::dynamodb(400, "ResourceNotFoundException"),
        Fault::dynamodb(400, "UnrecognizedClientException"),
    ] {
        scene.bed.aws().inject("*", fault);
        let mut client = assert_follows_kept(&scene, client(&scene).spawn());
        scene.bed.aws().heal();
        client.wait_log("CLIENT_STATE_FILE: recovered");
        client.kill();
    }
}

#[test]
fn a_silent_aws_is_waited_for_a_moment_only_and_the_table_is_followed_when_it_is_back() {
    let scene = scene("kept-silent");
    scene.bed.aws().inject("*", Fault::Hang);
    let mut client = assert_follows_kept(&scene, client(&scene).spawn());
    scene.set_weight(1, 4);
    scene.bed.aws().heal();
    scene.wait_weights(&[4, 10]);
    client.wait_log("CLIENT_STATE_FILE: recovered");
    wait_for("the new table to be kept", SOON, || {
        let text = fs::read_to_string(file(&scene)).expect("a file");
        if text.contains(r#""Weight":{"N":"4"}"#) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_an_old_one_too() {
    let scene = scene("kept-broken");
    let good = fs::read_to_string(file(&scene)).expect("a file");
    let away = |settings: &[(&str, &str)]| {
        let hsdo = client(&scene).env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
        settings.iter().fold(hsdo, |hsdo, (name, value)| hsdo.env(name, value))
    };
    let check = |text: &str, settings: &[(&str, &str)], expected: &str| {
        fs::write(file(&scene), text).expect("a file");
        let outcome = away(settings).once();
        let named = format!("CLIENT_STATE_FILE: {} is not used: ", file(&scene).display());
        outcome.assert_code(1).assert_stderr(&named).assert_stderr(expected);
        assert_eq!(scene.haproxy.active(BACK), Vec::<String>::new(), "{expected}");
    };
    check("", &[], "it is not whole");
    check(&good[..good.len() / 2], &[], "its checksum is wrong");
    check("{}\n[1]\n", &[], "its checksum is wrong");
    check(&good.replace("127.1.2.1", "127.1.2.9"), &[], "its checksum is wrong");
    check(&good, &[("DYNAMODB_TABLE_NAME", "other")], "it is of table \"hsdo\", not \"other\"");
    check(&good, &[("AWS_DEFAULT_REGION", "us-east-1")], "it is of region");
    check(&good, &[("CLIENT_STATE_MAX_AGE", "0")], "CLIENT_STATE_MAX_AGE allows 0 s");
    fs::remove_file(file(&scene)).expect("removed");
    away(&[]).once().assert_code(1).assert_stderr("table.json is not there yet");
    // A single turn uses the file too; that AWS failed is in its exit code.
    fs::write(file(&scene), &good).expect("a file");
    away(&[]).once().assert_code(1).assert_stderr("HAProxy follows the table read ");
    assert!(!scene.haproxy.active(BACK).is_empty());
}

#[test]
fn a_folder_that_is_not_there_or_may_not_be_written_costs_the_file_and_nothing_else() {
    let mut scene = Scene::set("kept-nowhere");
    let path = scene.bed.dir().join("nowhere/table.json");
    scene.client = client(&scene).env("CLIENT_STATE_FILE", &path.to_string_lossy()).spawn();
    scene.client.wait_log("CLIENT_STATE_FILE: the table cannot be kept in ");
    scene.set_weight(1, 5);
    scene.wait_weights(&[5, 10]);
    fs::create_dir(path.parent().expect("a folder")).expect("created");
    scene.set_weight(1, 6);
    scene.client.wait_log("CLIENT_STATE_FILE: recovered");
    assert!(path.exists());
}

/// Until the first moment at which a new file is there, beside the one in force or in its place. No pause between two looks: a
/// write takes a few milliseconds.
fn wait_for_a_write(scene: &Scene) {
    let files = || -> Vec<_> {
        let entries = fs::read_dir(scene.bed.dir()).expect("a folder").map(|entry| entry.expect("an entry"));
        let names = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("table.json"));
        names.map(|entry| (entry.file_name(), entry.metadata().and_then(|data| data.modified()).ok())).collect()
    };
    let (before, end) = (files(), Instant::now() + SOON);
    while files() == before {
        assert!(Instant::now() < end, "the table is not kept");
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_file() {
    let mut scene = scene("kept-killed");
    // `HSDO_KEPT_KILLS=1000` for longer.
    let kills = std::env::var("HSDO_KEPT_KILLS").map_or(20, |text| text.parse().expect("a number"));
    for kill in 0..kills {
        scene.set_weight(1, kill % 256 + 1);
        scene.client = client(&scene).env("INTERVAL", "0.05").spawn();
        wait_for_a_write(&scene);
        scene.client.kill();
        let outcome = client(&scene).env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").once();
        outcome.assert_code(1).assert_stderr("HAProxy follows the table read ");
    }
}
