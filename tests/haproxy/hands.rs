//! Operators use the Runtime API while instances come and go.

use std::time::Duration;

use super::fixture::{BACK, Config, bed_with_table, client, occupy};
use crate::common::bed::Bed;
use crate::common::haproxy::Haproxy;
use crate::common::hsdo::Running;
use crate::common::traffic::{self, Stream};
use crate::common::wait::{SOON, wait_for};

/// With a cookie: clients that have the slot's cookie would be sent there even at weight 0.
const CONFIG: &str = "
backend http-back
    balance leastconn
    cookie SRV insert indirect nocache
    default-server inter 100ms fall 2 rise 2
    server web1 127.0.0.2:80 cookie web1 check disabled
    server web2 127.0.0.2:80 cookie web2 check disabled
    server web3 127.0.0.2:80 cookie web3 check disabled
";

/// Two instances serve, and an operator holds the second in maintenance.
fn held(name: &str) -> (Bed, Haproxy, Running) {
    let bed = bed_with_table(name, 3, 2);
    let haproxy = Config::of(CONFIG).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_turn();
    haproxy.command("set server http-back/web2 state maint");
    running.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    (bed, haproxy, running)
}

#[test]
fn maintenance_that_is_lifted_after_the_instance_left_serves_nobody() {
    let (bed, haproxy, mut running) = held("lifted");
    bed.moto().put_free(2);
    wait_for("the slot to be at weight 0", SOON, || {
        let server = haproxy.server(BACK, "web2");
        if server.weight == 0 && server.in_maintenance() { Ok(()) } else { Err(format!("{server:?}")) }
    });
    let before = bed.web().requests_of("i-2");

    // However long hsdo takes to see it.
    running.terminate();
    haproxy.command("set server http-back/web2 state ready");
    wait_for("it to be up", SOON, || {
        let server = haproxy.server(BACK, "web2");
        if server.status == "UP" { Ok(()) } else { Err(format!("{server:?}")) }
    });
    let tally = traffic::send(haproxy.frontend(BACK), 50);
    assert_eq!((tally.of("i-1"), tally.failures.len()), (50, 0), "{tally}");
    assert_eq!(bed.web().requests_of("i-2"), before, "an instance that is gone gets no request");

    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    wait_for("the slot to be out again", SOON, || {
        let server = haproxy.server(BACK, "web2");
        if server.in_maintenance() { Ok(()) } else { Err(format!("{server:?}")) }
    });
    running.wait_turn();
    // The next instance is not held.
    occupy(&bed, 2, 22);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    assert_eq!(running.metric("hsdo_haproxy_held_slots"), Some(0.0));
}

/// A held slot gets another instance: it is not in maintenance, and waits for its check.
#[test]
fn an_instance_that_replaces_a_held_one_is_a_new_one() {
    let (bed, haproxy, mut running) = held("held-replaced");
    let mut stream = Stream::start(haproxy.frontend(BACK), Duration::from_millis(2), 20_000);
    occupy(&bed, 2, 22);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_metric("hsdo_haproxy_held_slots", |held| held == 0.0);
    let tally = stream.stop();
    assert!(tally.failures.is_empty() && tally.of("i-2") == 0, "{tally}");
}

/// An old unit beside a new container, each with a port of its own.
#[test]
fn a_second_client_with_other_settings_is_told_of() {
    let bed = bed_with_table("two-clients", 3, 2);
    let config = "backend http-back\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let mut other = client(&bed, 3, "http-back:web:9").spawn();
    let told = "http-back/web[1-2]: something else keeps moving them to other addresses";
    wait_for("the other client to be told of", SOON, || {
        let (_, text) = running.get("/readyz").unwrap_or_default();
        if text.contains(told) { Ok(()) } else { Err(text) }
    });
    assert_eq!(running.log().matches(told).count(), 1, "{}", running.log());
    other.terminate();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    assert_eq!(traffic::send(haproxy.frontend(BACK), 4).answered(), 4);
    running.terminate();
}
