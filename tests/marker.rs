//! The change marker: what a client reads while nothing changes, and how soon it sees a change, whoever wrote it.

mod common;

use std::time::{Duration, Instant};

use serde_json::json;

use common::aws_proxy::{AwsProxy, Fault};
use common::bed::{Bed, TABLE};
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::wait::{SOON, assert_stays, wait_for, wait_until};

const BACK: &str = "http-back";

/// A server and a client on a group of two, with a proxy for the client's calls alone.
struct Scene {
    // Fields drop in this order.
    client: Running,
    server: Option<Running>,
    reads: AwsProxy,
    haproxy: Haproxy,
    bed: Bed,
}

impl Scene {
    fn set(name: &str) -> Self {
        let bed = Bed::new(name);
        bed.moto().create_table();
        bed.moto().create_group("web", 0, 2);
        let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 10).unchecked()]);
        // It forwards to the bed's proxy, which serialises the calls to moto.
        let reads = AwsProxy::start(&bed.aws().url());
        let server = Some(Hsdo::server(&bed).spawn());
        let client = Hsdo::client(&bed).env("AWS_ENDPOINT_URL", &reads.url()).spawn();
        let mut scene = Scene { client, server, reads, haproxy, bed };
        scene.wait_active(&["mywebapp1", "mywebapp2"]);
        scene.wait_quiet();
        scene
    }

    #[track_caller]
    fn wait_active(&mut self, names: &[&str]) {
        wait_for(&format!("{names:?} to serve"), SOON, || match self.haproxy.active(BACK) {
            active if active == names => Ok(()),
            active => Err(format!("{active:?}\n{}", self.client.log())),
        });
    }

    /// Waits until the ramps are over and the client has read only the marker for a second.
    fn wait_quiet(&mut self) {
        let mut since = (Instant::now(), 0);
        wait_until("the client to read the marker alone", SOON, || {
            let scans = self.reads.count("Scan");
            if scans != since.1 {
                since = (Instant::now(), scans);
            }
            (since.0.elapsed() > Duration::from_secs(2)).then_some(())
        });
        self.reads.forget();
    }

    /// An operator disables slot 1 by hand.
    fn disable_by_hand(&self) {
        self.bed.moto().update_item(1, &json!({"BackendServerStatus": {"S": "disabled"}}));
    }
}

#[test]
fn a_steady_client_reads_the_marker_and_a_change_costs_it_one_reading() {
    let mut scene = Scene::set("steady");
    let before = scene.reads.count("GetItem");
    assert_stays("no scan while nothing changes", Duration::from_secs(2), || match scene.reads.count("Scan") {
        0 => Ok(()),
        scans => Err(format!("{scans} scans")),
    });
    assert!(scene.reads.count("GetItem") > before + 5, "it looks every turn");
    assert!(scene.reads.calls().iter().all(|call| call.body.contains(r#""ConsistentRead":false"#)), "at half a unit");
    assert!(scene.client.metric("hsdo_heartbeat_age_seconds").is_some_and(|age| age < 3.0));
    assert!(scene.server.as_ref().is_some_and(|server| server.metric("hsdo_leader") == Some(1.0)));

    scene.disable_by_hand();
    let begun = Instant::now();
    scene.wait_active(&["mywebapp2"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "a manual edit is logged at once: {:?}", begun.elapsed());
    let scans = scene.reads.calls().into_iter().filter(|call| call.operation == "Scan");
    let consistent = scans.filter(|call| call.body.contains(r#""ConsistentRead":true"#)).count();
    assert_eq!(consistent, 1);
}

#[test]
fn the_original_may_take_over_as_the_writer_and_ours_again() {
    let mut scene = Scene::set("original");
    assert_eq!(scene.server.take().expect("it runs").terminate().code(), Some(0));
    // The Python version updates only its own attributes: the version stays, and the heartbeat stands still.
    scene.disable_by_hand();
    scene.wait_active(&["mywebapp2"]);
    scene.client.wait_log("the server's heartbeat has stopped");
    // At start it puts whole items: the marker is gone.
    let item = |weight: &str| {
        json!({"BackendServerID": {"N": "1"}, "IPAddress": {"S": "127.1.9.9"}, "ServerName": {"S": "i-9"}, "ASG": {"S": "web"},
               "Weight": {"N": weight}, "BackendServerStatus": {"S": "enabled"}, "LastWeightUpdate": {"S": "2026-01-01 00:00:00"}})
    };
    scene.bed.moto().put_item(&item("4"));
    scene.wait_active(&["mywebapp1", "mywebapp2"]);
    scene.bed.moto().put_item(&item("5"));
    wait_until("the weight to follow", SOON, || (scene.haproxy.server(BACK, "mywebapp1").weight == 5).then_some(()));
    scene.reads.forget();
    scene.client.wait_turn();
    assert!(scene.reads.count("Scan") > 0, "without a marker the table is read every turn");

    scene.server = Some(Hsdo::server(&scene.bed).spawn());
    wait_until("ours to know the servers again", SOON, || {
        (scene.haproxy.server(BACK, "mywebapp1").addr.starts_with("127.1.0.")).then_some(())
    });
    scene.wait_quiet();
    scene.client.wait_log("change marker: recovered");
}

#[test]
fn a_marker_deleted_by_hand_is_made_anew_and_nothing_is_missed() {
    let mut scene = Scene::set("deleted");
    let remove = json!({"TableName": TABLE, "Key": {"BackendServerID": {"N": "1"}},
                        "UpdateExpression": "REMOVE HsdoVersion, HsdoHeartbeat, HsdoLeader"});
    scene.bed.moto().dynamodb("UpdateItem", &remove);
    scene.disable_by_hand();
    scene.wait_active(&["mywebapp2"]);
    wait_until("another term", SOON, || {
        scene.bed.moto().attribute(1, "HsdoLeader").filter(|term| term.ends_with("/2"))
    });
    scene.wait_quiet();

    // With the item deleted, the row is recreated as a whole, so that the Python version can read it.
    scene.bed.moto().delete_item(1);
    wait_until("a whole row", SOON, || {
        let moto = scene.bed.moto();
        moto.attribute(1, "HsdoLeader")?;
        moto.attribute(1, "LastWeightUpdate")?;
        moto.attribute(1, "ServerName").filter(|name| name.starts_with("i-"))
    });
    scene.wait_active(&["mywebapp1", "mywebapp2"]);
}

#[test]
fn a_policy_without_get_item_costs_more_and_works() {
    let bed = Bed::new("denied");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 1);
    bed.aws().inject("GetItem", Fault::dynamodb(400, "AccessDeniedException"));
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 10).unchecked()]);
    let mut server = Hsdo::server(&bed).spawn();
    let mut client = Hsdo::client(&bed).spawn();
    server.wait_metric("hsdo_leader", |leads| leads == 1.0);
    wait_for("the server to serve", SOON, || match haproxy.active(BACK) {
        names if names == ["mywebapp1"] => Ok(()),
        names => Err(format!("{names:?}\n{}\n{}", server.log(), client.log())),
    });
    client.wait_turn();
    assert_eq!(client.log().matches("read every turn, which costs more").count(), 1, "said once: {}", client.log());
}
