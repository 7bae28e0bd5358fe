//! Zones: from AWS into the rows, and from the rows into the backends of each load balancer. HAProxy: `check inter 100ms rise 2
//! fall 2`, round robin, templates of four servers.

mod common;

use std::time::Duration;

use serde_json::{Value, json};

use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Outcome, Running};
use common::issuer::Issuer;
use common::wait::{SOON, wait_for};

const BACK: &str = "http-back";

/// Rows of two groups in two zones, one in no known zone, and HAProxy with a default backend and a fallback.
fn scene(name: &str) -> (Bed, Haproxy) {
    let bed = Bed::new(name);
    bed.moto().create_table();
    let rows = [(1, "web", Some("eu-west-1a")), (2, "web", Some("eu-west-1b")), (3, "api", Some("eu-west-1b"))];
    for (id, group, zone) in rows.into_iter().chain([(4, "web", None)]) {
        let address = format!("127.1.2.{id}");
        bed.web().serve(&format!("i-{id}"), address.parse().expect("an address"));
        bed.moto().put_server(id, &address, &format!("i-{id}"), Some(group), 10);
        if let Some(zone) = zone {
            move_to(&bed, id, zone);
        }
    }
    let backends = [BackendConfig::new(BACK, "mywebapp", 4), BackendConfig::new("fallback", "fb", 4)];
    let haproxy = Haproxy::start(&bed, &backends);
    (bed, haproxy)
}

fn move_to(bed: &Bed, id: u32, zone: &str) {
    bed.moto().update_item(id, &json!({"HsdoZone": {"S": zone}}));
}

/// A client that splits by zone.
fn by_zone(bed: &Bed) -> Hsdo {
    split_by_zone(Hsdo::client(bed), bed)
}

fn split_by_zone(hsdo: Hsdo, bed: &Bed) -> Hsdo {
    hsdo.env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")
        .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &bed.web().port().to_string())
        .env("CLIENT_DEDICATED_ZONE", "true")
}

fn with_fallback(hsdo: Hsdo) -> Hsdo {
    hsdo.env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback").env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fb")
}

/// Exactly these slots serve in the default backend, and these in the fallback.
#[track_caller]
fn wait_places(haproxy: &Haproxy, default: &[u32], fallback: &[u32]) {
    for (backend, base, slots) in [(BACK, "mywebapp", default), ("fallback", "fb", fallback)] {
        let names: Vec<String> = slots.iter().map(|slot| format!("{base}{slot}")).collect();
        let wanted: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 10)).collect();
        haproxy.wait_weights(backend, &wanted);
    }
}

#[test]
fn the_zone_of_each_instance_is_in_its_row_and_shown() {
    let bed = Bed::new("zone-rows");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 1);
    bed.moto().create_group("api", 1, 1);
    let mut server = Hsdo::server(&bed).env("SERVER_ASG_NAMES", "web,api").spawn();
    server.wait_metric(r#"hsdo_slots{state="enabled"}"#, |count| count == 2.0);
    let zones = [1, 2].map(|id| bed.moto().attribute(id, "HsdoZone").expect("a zone"));
    assert_eq!(zones, ["eu-west-1a", "eu-west-1b"]);
    server.wait_metric(r#"hsdo_zone_weight{zone="eu-west-1a"}"#, |weight| weight == 10.0);
    let report: Value = serde_json::from_str(&server.get("/status").expect("an exporter").1).expect("JSON");
    assert_eq!(report["slots"][1]["zone"], "eu-west-1b");
    let (_, page) = server.get("/").expect("an exporter");
    assert!(page.contains("<th>zone<th>") && page.contains("<td>eu-west-1a<td"), "{page}");
    Hsdo::with_aws(&bed, "status").arg("status").run().assert_code(0).assert_stdout("eu-west-1b");
    let why = Hsdo::with_aws(&bed, "why").arg("why").arg("slot:2").run();
    why.assert_code(0).assert_stdout("group api, zone eu-west-1b, enabled");

    // A freed slot remembers the zone, and its next occupant is of the same one.
    bed.moto().set_desired("api", 0);
    server.wait_metric(r#"hsdo_slots{state="free"}"#, |count| count == 9.0);
    let last = || bed.moto().attribute(2, "HsdoLastZone");
    assert_eq!((bed.moto().attribute(2, "HsdoZone"), last()), (None, Some("eu-west-1b".to_owned())));
    bed.moto().set_desired("api", 1);
    server.wait_metric(r#"hsdo_slots{state="enabled"}"#, |count| count == 2.0);
    assert_eq!(bed.moto().attribute(2, "HsdoZone").as_deref(), Some("eu-west-1b"));
}

/// A row that an older version wrote has no zone; a leader of this one adds it without touching anything else.
#[test]
fn rows_without_a_zone_get_it() {
    let bed = Bed::new("zone-upgrade");
    bed.moto().create_table();
    bed.moto().create_group("web", 1, 1);
    let mut server = Hsdo::server(&bed).spawn();
    server.wait_metric(r#"hsdo_zone_weight{zone="eu-west-1b"}"#, |weight| weight == 10.0);
    server.terminate();
    bed.moto().remove_attribute(1, "HsdoZone");
    let before = bed.moto().rows();
    let _server = Hsdo::server(&bed).spawn();
    let zone = || bed.moto().attribute(1, "HsdoZone");
    wait_for("the zone", SOON, || zone().map(|_| ()).ok_or_else(|| "no zone".to_owned()));
    let mut after = bed.moto().rows();
    after.get_mut(&1).expect("a row").remove("HsdoZone");
    assert_eq!(after, before);
}

#[test]
fn each_combination_of_splits_puts_every_server_where_it_belongs() {
    let (bed, haproxy) = scene("zone-splits");
    let zone = |hsdo: Hsdo| hsdo.env("CLIENT_ZONE_NAMES", "eu-west-1a");
    let group = |hsdo: Hsdo| hsdo.env("CLIENT_DEDICATED_ASG", "true").env("CLIENT_ASG_NAMES", "web");
    let all = |hsdo: Hsdo| hsdo.env("CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND", "true");
    // Slot 4 is of unknown zone, which is own everywhere.
    for (hsdo, default, fallback) in [
        (with_fallback(zone(by_zone(&bed))), &[1, 4][..], &[2, 3][..]),
        (all(with_fallback(zone(by_zone(&bed)))), &[1, 4], &[1, 2, 3, 4]),
        (group(with_fallback(by_zone(&bed).env("CLIENT_ZONE_NAMES", "eu-west-1b"))), &[2, 4], &[1, 3]),
        (group(all(with_fallback(by_zone(&bed).env("CLIENT_ZONE_NAMES", "eu-west-1b")))), &[2, 4], &[1, 2, 3, 4]),
        (with_fallback(by_zone(&bed).env("CLIENT_ZONE_NAMES", "eu-west-1a,eu-west-1b")), &[1, 2, 3, 4], &[]),
        // Nobody is of that zone, nor was: a wrong name empties no backend.
        (with_fallback(by_zone(&bed).env("CLIENT_ZONE_NAMES", "eu-west-1z")), &[1, 2, 3, 4], &[]),
    ] {
        let mut client = hsdo.spawn();
        wait_places(&haproxy, default, fallback);
        client.wait_turn();
        client.terminate();
    }

    // Without a fallback the others are nowhere.
    let mut client = zone(by_zone(&bed)).spawn();
    wait_places(&haproxy, &[1, 4], &[]);
    client.wait_turn();
    let report: Value = serde_json::from_str(&client.get("/status").expect("an exporter").1).expect("JSON");
    let reason = &report["haproxy"]["backends"][0]["slots"][1];
    assert_eq!(
        (&reason["cause"], &reason["reason"]),
        (&json!("elsewhere"), &json!("zone eu-west-1b is not served by this backend"))
    );
    // A slot that gets an instance of another zone leaves the default backend, and one that becomes own comes in.
    move_to(&bed, 2, "eu-west-1a");
    wait_places(&haproxy, &[1, 2, 4], &[]);
    move_to(&bed, 1, "eu-west-1b");
    wait_places(&haproxy, &[2, 4], &[]);
    // The own zone is empty now. The name is known to be right, so nothing else comes in.
    move_to(&bed, 2, "eu-west-1b");
    move_to(&bed, 4, "eu-west-1b");
    bed.moto().update_item(1, &json!({"HsdoLastZone": {"S": "eu-west-1a"}}));
    wait_places(&haproxy, &[], &[]);
    client.wait_turn();
    assert_eq!(client.metric("hsdo_missing_groups"), Some(0.0));
}

/// A client whose metadata service, and ECS's, are at these addresses.
fn auto(bed: &Bed, metadata: Option<&str>, task: Option<&str>) -> Hsdo {
    with_places(with_fallback(by_zone(bed)), metadata, task)
}

/// A command for people on the machine of such a client.
fn command(bed: &Bed, metadata: Option<&str>, words: &[&str]) -> Outcome {
    command_with(bed, metadata, words, |hsdo| hsdo)
}

fn command_with(bed: &Bed, metadata: Option<&str>, words: &[&str], more: impl Fn(Hsdo) -> Hsdo) -> Outcome {
    let hsdo = Hsdo::with_aws(bed, "command")
        .env("CLIENT_HAPROXY_SOCKET_PATH", &bed.socket().to_string_lossy())
        .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACK}:mywebapp:{}", bed.web().port()));
    let hsdo = with_places(with_fallback(split_by_zone(hsdo, bed)), metadata, None);
    words.iter().fold(more(hsdo), |hsdo, word| hsdo.arg(word)).run()
}

fn with_places(hsdo: Hsdo, metadata: Option<&str>, task: Option<&str>) -> Hsdo {
    let hsdo = match metadata {
        Some(url) => hsdo.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", url),
        None => hsdo.env("AWS_EC2_METADATA_DISABLED", "true"),
    };
    match task {
        Some(url) => hsdo.env("ECS_CONTAINER_METADATA_URI_V4", url),
        None => hsdo,
    }
}

#[test]
fn auto_is_the_zone_that_this_machine_is_in() {
    let (bed, haproxy) = scene("zone-auto");
    let issuer = Issuer::start(Duration::from_secs(3600));
    let mut client = auto(&bed, Some(&issuer.url()), None).spawn();
    client.wait_log("this load balancer is in zone eu-west-1b");
    wait_places(&haproxy, &[2, 3, 4], &[1]);
    client.terminate();
    // The commands find it by themselves too.
    let url = issuer.url();
    let why = command(&bed, Some(&url), &["why", "slot:1"]);
    why.assert_code(0).assert_stdout("elsewhere: zone eu-west-1a is not served by this backend");
    command(&bed, None, &["why", "slot:1"]).assert_code(0).assert_stdout("so every zone counts as its own here");
    let check = command(&bed, Some(&url), &["check", "--client"]);
    check.assert_stdout("auto: this machine is in eu-west-1b");
    let check = command(&bed, None, &["check", "--client"]);
    check.assert_code(1).assert_stdout("the zone of this machine is not known");
    let mut client = auto(&bed, None, Some(&issuer.url())).spawn();
    client.wait_log("this load balancer is in zone eu-west-1a");
    wait_places(&haproxy, &[1, 4], &[2, 3]);
}

#[test]
fn a_zone_that_nobody_tells_is_not_guessed() {
    let (bed, haproxy) = scene("zone-unknown");
    let outcome = auto(&bed, None, None).run();
    outcome.assert_code(2).assert_stderr("CLIENT_ZONE_NAMES is auto").assert_stderr("AWS_EC2_METADATA_DISABLED is set");
    let issuer = Issuer::start(Duration::from_secs(3600));
    issuer.set_broken(true);
    auto(&bed, Some(&issuer.url()), None).run().assert_code(2).assert_stderr("CLIENT_ZONE_NAMES is auto");
    assert_eq!(haproxy.active(BACK), Vec::<String>::new(), "nothing was changed");

    // A service that comes late is waited for.
    let mut client = auto(&bed, Some(&issuer.url()), None).spawn();
    client.wait_log("CLIENT_ZONE_NAMES: the instance's metadata service");
    issuer.set_broken(false);
    wait_places(&haproxy, &[2, 3, 4], &[1]);
}

#[test]
fn the_state_file_remembers_the_zone() {
    let (bed, mut haproxy) = scene("zone-kept");
    let issuer = Issuer::start(Duration::from_secs(3600));
    let file = bed.dir().join("table.json");
    let kept = |hsdo: Hsdo| hsdo.env("CLIENT_STATE_FILE", &file.to_string_lossy());
    let mut client: Running = kept(auto(&bed, Some(&issuer.url()), None)).spawn();
    wait_places(&haproxy, &[2, 3, 4], &[1]);
    wait_for("the table to be kept", SOON, || if file.exists() { Ok(()) } else { Err("no file".to_owned()) });
    client.terminate();
    haproxy.kill();
    haproxy.restart();
    issuer.set_broken(true);
    let zone = command_with(&bed, Some(&issuer.url()), &["check", "--client"], kept);
    zone.assert_stdout("auto: this machine is in eu-west-1b");
    let mut client = kept(auto(&bed, Some(&issuer.url()), None)).env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").spawn();
    client.wait_log("CLIENT_STATE_FILE remembers zone eu-west-1b");
    wait_places(&haproxy, &[2, 3, 4], &[1]);
}
