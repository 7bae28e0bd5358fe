//! Servers that take their health from others: `track`.

use std::time::Duration;

use super::fixture::{BACK, Config, bed_with_table, boot, client, in_own_maintenance, occupy, seat, wait_down};
use crate::common::traffic::{self, Stream};
use crate::common::wait::{SOON, wait_for};
use crate::common::web::Behaviour;

/// Plain pages are checked; the backend for WebSockets on the same instances tracks them.
const CONFIG: &str = "
backend http-back
    option httpchk GET /check
    default-server inter 100ms fall 1 rise 3
    server-template web 1-3 127.0.0.2:80 check disabled

backend ws-back
    server web1 127.0.0.2:80 track http-back/web1 disabled
    server web2 127.0.0.2:80 track http-back/web2 disabled
    server web3 127.0.0.2:80 track http-back/web3 disabled
";

fn replaced(name: &str, backends: &str) {
    let bed = bed_with_table(name, 3, 2);
    let haproxy = Config::of(CONFIG).start(&bed, &[BACK, "ws-back"]);
    let _client = client(&bed, 3, backends).spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    haproxy.wait_weights("ws-back", &[("web1", 10), ("web2", 10)]);
    let mut stream = Stream::start(haproxy.frontend("ws-back"), Duration::from_millis(2), 20_000);
    for (slot, host) in [(2, 12), (3, 13)] {
        let name = boot(&bed, host);
        bed.web().set_behaviour(&name, Behaviour::Status(503));
        seat(&bed, slot, host);
        wait_down(&haproxy, &format!("web{slot}"), host);
    }
    wait_for("the followers to be there, and down", SOON, || {
        let servers = haproxy.servers("ws-back");
        let down = |name: &str| servers[name].status.starts_with("DOWN") && servers[name].weight == 10;
        if down("web2") && down("web3") { Ok(()) } else { Err(format!("{servers:?}")) }
    });
    let before = stream.so_far().answered();
    wait_for("requests meanwhile", SOON, || {
        if stream.so_far().answered() >= before + 300 { Ok(()) } else { Err("not yet") }
    });
    let tally = stream.stop();
    assert!(tally.failures.is_empty(), "{tally}");
    assert_eq!((bed.web().requests_of("i-12"), bed.web().requests_of("i-13")), (0, 0), "{tally}");
    for host in [12, 13] {
        bed.web().set_behaviour(&format!("i-{host}"), Behaviour::Well);
    }
    haproxy.wait_weights("ws-back", &[("web1", 10), ("web2", 10), ("web3", 10)]);
}

#[test]
fn a_follower_waits_for_the_check_of_its_model() {
    replaced("track-after", "http-back:web:$WEB,ws-back:web:$WEB");
}

#[test]
fn a_follower_that_is_filled_first_waits_too() {
    replaced("track-before", "ws-back:web:$WEB,http-back:web:$WEB");
}

/// An operator takes the model out, and the instance leaves: the follower must not serve it when the hold is lifted.
#[test]
fn a_follower_of_a_model_in_maintenance_is_taken_out_too() {
    let bed = bed_with_table("track-held", 3, 3);
    let haproxy = Config::of(CONFIG).start(&bed, &[BACK, "ws-back"]);
    let mut client = client(&bed, 3, "http-back:web:$WEB,ws-back:web:$WEB").spawn();
    haproxy.wait_weights("ws-back", &[("web1", 10), ("web2", 10), ("web3", 10)]);
    client.wait_turn();
    haproxy.command("set server http-back/web2 state maint");
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    client.wait_metric("hsdo_haproxy_blocked_slots", |blocked| blocked == 1.0);
    assert!(
        client.log().contains("ws-back/web[2]: in maintenance because of a server that they track"),
        "{}",
        client.log()
    );

    bed.moto().put_free(2);
    wait_for("the follower to be in maintenance of its own", SOON, || {
        let servers = haproxy.servers("ws-back");
        let out = in_own_maintenance(&haproxy, "ws-back", "web2") && servers["web2"].weight == 0;
        if out { Ok(()) } else { Err(format!("{servers:?}")) }
    });
    client.wait_metric("hsdo_haproxy_blocked_slots", |blocked| blocked == 0.0);
    let before = bed.web().requests_of("i-2");
    client.terminate();
    haproxy.command("set server http-back/web2 state ready");
    for backend in [BACK, "ws-back"] {
        let tally = traffic::send(haproxy.frontend(backend), 20);
        assert!(tally.failures.is_empty(), "{tally}");
    }
    assert_eq!(bed.web().requests_of("i-2"), before, "an instance that is gone gets no request");

    let _client = super::fixture::client(&bed, 3, "http-back:web:$WEB,ws-back:web:$WEB").spawn();
    occupy(&bed, 2, 22);
    haproxy.wait_weights("ws-back", &[("web1", 10), ("web2", 10), ("web3", 10)]);
}
