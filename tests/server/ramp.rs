//! Weights: the ramp from MIN to MAX, its restart for a new instance, and changed limits.

use super::fixture::{FAILED, bed, ids, settle, steady, values_written, wait_row};
use crate::common::bed::Bed;
use crate::common::hsdo::Hsdo;

/// A server with these weights and a step every 0.3 s.
fn ramping(bed: &Bed, min: &str, max: &str, step: &str) -> Hsdo {
    steady(bed, 2)
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", min)
        .env("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", max)
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", step)
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "0.3")
}

/// The Python version left new servers at 1 for ever if MIN was above 1, and exited if it was 0.
#[test]
fn a_new_server_ramps_from_any_min_to_max() {
    let bed = bed("ramp", &[("web", 1)]);
    let name = ids(&bed, "web").remove(0);
    for (min, max, step, expected) in [
        ("1", "10", "3", ["1", "4", "7", "10"].as_slice()),
        ("5", "10", "2", &["5", "7", "9", "10"]),
        ("0", "10", "4", &["0", "4", "8", "10"]),
        ("256", "256", "1", &["256"]),
    ] {
        bed.moto().put_free(1);
        bed.aws().forget();
        let mut server = ramping(&bed, min, max, step).spawn();
        wait_row(&bed, 1, &[("ServerName", &name), ("Weight", max), ("BackendServerStatus", "enabled")]);
        settle_with(&bed, &mut server, expected, &format!("{min} to {max}"));
        if expected.len() > 1 {
            assert!(server.log().contains(&format!("reaches full weight {max}")), "{}", server.log());
        }
        assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
    }
}

/// Checks all weights written to slot 1, also any after the last one expected.
fn settle_with(bed: &Bed, server: &mut crate::common::hsdo::Running, expected: &[&str], what: &str) {
    server.wait_turn();
    assert_eq!(values_written(bed, 1, "Weight"), expected, "{what}");
}

/// The Python version identified a server by its address: a new instance got its predecessor's full weight.
#[test]
fn an_address_reused_by_a_new_instance_restarts_its_ramp() {
    let bed = bed("reused", &[("web", 1)]);
    let web = bed.moto().instances("web");
    let address = web[0].address.to_string();
    // As the former instance left the table.
    bed.moto().put_free(1);
    bed.moto().put_server(2, &address, "i-former", Some("web"), 10);
    let mut server = ramping(&bed, "1", "10", "3").spawn();
    wait_row(&bed, 2, &[("ServerName", &web[0].id), ("IPAddress", &address), ("Weight", "10")]);
    server.wait_turn();
    assert_eq!(values_written(&bed, 2, "Weight"), ["1", "4", "7", "10"]);
    assert_eq!(bed.moto().attribute(1, "IPAddress").as_deref(), Some("none"), "it stays in its slot");
    let line = format!("slot 2: i-former replaced by {} at {address} (group web), weight 1", web[0].id);
    assert!(server.log().contains(&line), "{}", server.log());
}

#[test]
fn limits_that_change_move_live_weights() {
    let bed = bed("limits", &[("web", 2)]);
    let web = bed.moto().instances("web");
    bed.moto().put_server(1, &web[0].address.to_string(), &web[0].id, Some("web"), 200);
    bed.moto().put_server(2, &web[1].address.to_string(), &web[1].id, Some("web"), 3);
    let mut server = ramping(&bed, "20", "50", "100").spawn();
    wait_row(&bed, 1, &[("Weight", "50")]);
    wait_row(&bed, 2, &[("Weight", "50")]);
    server.wait_turn();
    assert_eq!(values_written(&bed, 1, "Weight"), ["50"], "MAX was lowered");
    assert_eq!(values_written(&bed, 2, "Weight"), ["20", "50"], "MIN was raised, and no step goes beyond MAX");
    server.terminate();

    let mut server = ramping(&bed, "1", "6", "3").spawn();
    wait_row(&bed, 1, &[("Weight", "6")]);
    wait_row(&bed, 2, &[("Weight", "6")]);
    settle(&bed, &mut server);
}

#[test]
fn a_time_in_the_future_or_no_time_does_not_stop_a_ramp() {
    let bed = bed("times", &[("web", 2)]);
    let web = bed.moto().instances("web");
    for (slot, text) in [(1, "2999-01-01 00:00:00.000000"), (2, "yesterday")] {
        let instance = &web[slot as usize - 1];
        bed.moto().put_server(slot, &instance.address.to_string(), &instance.id, Some("web"), 2);
        bed.moto().update_item(slot, &serde_json::json!({"LastWeightUpdate": {"S": text}}));
    }
    let _server = ramping(&bed, "1", "10", "4").spawn();
    wait_row(&bed, 1, &[("Weight", "10")]);
    wait_row(&bed, 2, &[("Weight", "10")]);
    for slot in [1, 2] {
        assert_eq!(values_written(&bed, slot, "Weight"), ["2", "6", "10"]);
    }
}
