//! Agents (`agent-check`) change the same servers as hsdo.

use super::fixture::{BACK, Config, OK, address, bed_with_table, occupy, ready, tapped};
use crate::common::agent::Agent;
use crate::common::port::Port;
use crate::common::wait::{SOON, wait_for};

/// An agent beside each instance, polled ten times a second.
fn config(port: u16) -> String {
    format!(
        "backend http-back\n    balance roundrobin\n    \
         default-server check inter 100ms agent-check agent-port {port} agent-inter 100ms\n    \
         server-template web 1-3 127.0.0.2:80 disabled\n"
    )
}

/// An agent's drain is not reported as an operator's.
#[test]
fn an_agent_that_drains_is_left_alone() {
    let bed = bed_with_table("agent-drain", 3, 2);
    let port = Port::reserve();
    let haproxy = Config::of(&config(port.number())).start(&bed, &[BACK]);
    let (tap, running) = tapped(&bed, 3, "http-back:web:$WEB");
    let mut running = running.spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_turn();
    let agent = Agent::start(address(2).parse().unwrap(), port.number(), b"drain");
    running.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    assert!(
        running.log().contains("http-back/web[2]: set to drain or maintenance by an operator or an agent"),
        "{}",
        running.log()
    );
    tap.forget();
    let before = running.metric(OK).unwrap();
    running.wait_metric(OK, |now| now >= before + 5.0);
    assert_eq!(
        tap.changes().iter().filter(|change| change.starts_with("set server")).count(),
        0,
        "{:?}",
        tap.changes()
    );
    assert_eq!(haproxy.active(BACK), ["web1"]);

    // The next instance has no agent: it is not held.
    drop(agent);
    occupy(&bed, 2, 22);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_metric("hsdo_haproxy_held_slots", |held| held == 0.0);
}

/// It sends a share of the configured weight each time, as load-measuring agents do.
#[test]
fn an_agent_that_sets_the_weight_is_given_way() {
    let bed = bed_with_table("agent-weight", 3, 2);
    let port = Port::reserve();
    let _agent = Agent::start(address(2).parse().unwrap(), port.number(), b"50%");
    let config = config(port.number()).replace("check inter", "weight 40 check inter");
    let haproxy = Config::of(&config).start(&bed, &[BACK]);
    let (tap, running) = tapped(&bed, 3, "http-back:web:$WEB");
    let mut running = running.spawn();
    running.wait_metric("hsdo_haproxy_blocked_slots", |blocked| blocked == 1.0);
    let told = "http-back/web[2]: something else, such as an agent (`agent-check`), keeps changing their weight back";
    running.wait_log(told);
    tap.forget();
    let before = running.metric(OK).unwrap();
    running.wait_metric(OK, |now| now >= before + 20.0);
    let weights = tap.changes().iter().filter(|change| change.contains("/web2 weight")).count();
    assert!(weights <= 1, "tried once a minute: {:?}", tap.changes());
    assert_eq!(running.log().matches(told).count(), 1, "{}", running.log());
    assert!(ready(&running).contains(told), "{}", ready(&running));
    wait_for("the agent's weight to stand", SOON, || {
        let servers = haproxy.servers(BACK);
        if (servers["web1"].weight, servers["web2"].weight) == (10, 20) { Ok(()) } else { Err(format!("{servers:?}")) }
    });

    // The other slots are kept in step, and another instance in that slot, without an agent, gets its weight.
    bed.moto().put_free(1);
    haproxy.wait_weights(BACK, &[("web2", 20)]);
    occupy(&bed, 2, 22);
    haproxy.wait_weights(BACK, &[("web2", 10)]);
}
