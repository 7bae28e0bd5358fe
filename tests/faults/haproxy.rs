//! HAProxy itself: paused, crowded, moved away, refusing changes.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::fixture::{BACK, FAILED, Scene};
use crate::common::haproxy::Server;
use crate::common::tap::Tap;
use crate::common::wait::{SOON, wait_for};

const UP: &str = "hsdo_haproxy_up";

/// Commands queued meanwhile must do no harm when it continues.
#[test]
fn a_stopped_haproxy_is_waited_for_and_repaired_when_it_goes_on() {
    let mut scene = Scene::set("stopped");
    for weights in [[10, 7], [4, 8]] {
        let frozen = scene.haproxy.freeze();
        scene.set_weight(1, weights[0]);
        scene.set_weight(2, weights[1]);
        scene.client.wait_metric(UP, |up| up == 0.0);
        drop(frozen);
        scene.wait_weights(&weights.map(u32::from));
        scene.client.wait_metric(UP, |up| up == 1.0);
    }
    scene.assert_serves();
    let log = scene.client.log();
    assert_eq!((log.matches("did not answer").count(), log.matches("HAProxy: recovered").count()), (2, 2), "{log}");
}

/// Other clients can use up the socket's `stats maxconn` (10 by default).
#[test]
fn others_that_fill_the_socket_cost_turns_and_no_traffic() {
    let mut scene = Scene::set("crowded");
    // Ten are served at a time, and each may stay silent for `stats timeout`.
    let crowd: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(scene.bed.socket()).expect("room in the queue")).collect();
    scene.client.wait_metric(UP, |up| up == 0.0);
    scene.assert_serves();
    scene.set_weight(2, 7);
    drop(crowd);
    scene.wait_weights(&[10, 7]);
    scene.client.wait_metric(UP, |up| up == 1.0);
    assert_eq!(scene.client.log().matches("stats maxconn").count(), 1, "said once: {}", scene.client.log());
}

#[test]
fn a_socket_that_is_moved_away_or_replaced_is_waited_for() {
    let mut scene = Scene::set("moved-away");
    let (socket, away) = (scene.bed.socket(), scene.bed.dir().join("away.sock"));
    for (faults, weight, stranger) in [(1, 3, "nothing"), (2, 5, "a file"), (3, 7, "another program")] {
        fs::rename(&socket, &away).expect("the socket is there");
        let program = (stranger == "another program").then(|| Tap::start(socket.clone(), Path::new("/nowhere.sock")));
        if stranger == "a file" {
            fs::write(&socket, "no socket").expect("a file");
        }
        scene.client.wait_metric(UP, |up| up == 0.0);
        scene.set_weight(2, weight);
        scene.assert_serves();
        drop(program);
        fs::rename(&away, &socket).expect("it was moved there");
        scene.wait_weights(&[10, u32::from(weight)]);
        scene.client.wait_metric(UP, |up| up == 1.0);
        // The metric is set in the middle of a turn, the line is logged at its end.
        wait_for("the end of the fault to be logged", SOON, || {
            let log = scene.client.log();
            if log.matches("HAProxy: recovered").count() == faults { Ok(()) } else { Err(log) }
        });
    }
    // Each is a fault of its own, logged once when it begins and once when it ends.
    assert_eq!(scene.client.log().matches("WARN").count(), 3, "{}", scene.client.log());
    assert_eq!(scene.client.log().matches("HAProxy: recovered").count(), 3, "{}", scene.client.log());
}

/// hsdo asks every new process for its level, and sends nothing to one that would refuse it.
#[test]
fn a_haproxy_that_comes_back_below_level_admin_is_told_and_waited_for() {
    let mut scene = Scene::set("refused");
    let path = scene.bed.dir().join("haproxy.cfg");
    let admin = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, admin.replace("level admin", "level operator")).expect("a file");
    let restart = |scene: &mut Scene| {
        scene.haproxy.kill();
        scene.haproxy.restart();
    };
    restart(&mut scene);
    scene.client.wait_log("has level operator, which cannot change servers; give it `level admin`");
    let failed = scene.client.metric(FAILED).unwrap();
    scene.client.wait_metric(FAILED, |now| now >= failed + 3.0);
    assert_eq!(scene.client.log().matches("level operator").count(), 1, "said once: {}", scene.client.log());
    assert_eq!(scene.client.metric(r#"hsdo_haproxy_commands_total{result="refused"}"#), Some(0.0));
    assert!(scene.haproxy.servers(BACK).values().all(Server::in_maintenance), "each slot stays as it is");

    fs::write(&path, admin).expect("a file");
    restart(&mut scene);
    scene.wait_weights(&[10, 10]);
    scene.assert_serves();
    scene.client.wait_log("HAProxy: recovered after ");
}
