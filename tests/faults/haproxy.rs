//! HAProxy itself: stopped, crowded, moved away, closed to changes.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::fixture::{BACK, FAILED, Scene};
use crate::common::haproxy::Server;
use crate::common::tap::Tap;

const UP: &str = "hsdo_haproxy_up";

/// What was sent to it meanwhile waits in its queue, and must do no harm when it goes on.
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
    assert_eq!((log.matches("did not answer").count(), log.matches("HAProxy: over").count()), (2, 2), "{log}");
}

/// Whoever else talks to the socket may leave no place for hsdo (`stats maxconn`, 10 by default).
#[test]
fn others_that_fill_the_socket_cost_turns_and_no_traffic() {
    let mut scene = Scene::set("crowded");
    // Ten are served at a time, and each may say nothing for `stats timeout`.
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
    for (weight, stranger) in [(3, "nothing"), (5, "a file"), (7, "another program")] {
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
    }
    // Each is a fault of its own, which begins once and ends once.
    assert_eq!(scene.client.log().matches("WARN").count(), 3, "{}", scene.client.log());
    assert_eq!(scene.client.log().matches("HAProxy: over").count(), 3, "{}", scene.client.log());
}

/// `level admin` is checked at the start; a HAProxy that comes back without it refuses every change.
#[test]
fn refused_commands_are_told_counted_and_tried_again() {
    let refused = r#"hsdo_haproxy_commands_total{result="refused"}"#;
    let mut scene = Scene::set("refused");
    let path = scene.bed.dir().join("haproxy.cfg");
    let admin = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, admin.replace("level admin", "level operator")).expect("a file");
    let restart = |scene: &mut Scene| {
        scene.haproxy.kill();
        scene.haproxy.start_again();
    };
    restart(&mut scene);
    scene.client.wait_metric(refused, |count| count > 0.0);
    let (count, failed) = (scene.client.metric(refused).unwrap(), scene.client.metric(FAILED).unwrap());
    scene.client.wait_metric(FAILED, |now| now >= failed + 3.0);
    assert!(scene.client.metric(refused).is_some_and(|now| now >= count + 3.0), "tried again every turn");
    assert_eq!(scene.client.metric(UP), Some(1.0), "it answers");
    let told = "`set server http-back/mywebapp1 weight 0` was answered \"Permission denied\"";
    assert_eq!(scene.client.log().matches("was answered").count(), 3, "said once, of three: {}", scene.client.log());
    assert!(scene.client.log().contains(told), "{}", scene.client.log());
    assert!(scene.haproxy.servers(BACK).values().all(Server::in_maintenance), "each slot stays as it is");

    fs::write(&path, admin).expect("a file");
    restart(&mut scene);
    scene.wait_weights(&[10, 10]);
    scene.assert_serves();
    scene.client.wait_log("turn: over, after ");
}
