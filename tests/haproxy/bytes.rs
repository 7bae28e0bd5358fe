//! Checks and agents report bytes: none of them makes HAProxy's tables unreadable.

use super::fixture::{BACK, Config, address, bed_with_table, client, occupy};
use crate::common::agent::Agent;
use crate::common::port::Port;
use crate::common::traffic;
use crate::common::wait::{SOON, wait_for};
use crate::common::web::Behaviour;

/// A Java server gives its reason in Latin-1; meanwhile the other leaves, and a third comes.
#[test]
fn a_reason_phrase_that_is_not_utf_8() {
    let bed = bed_with_table("latin-1", 3, 2);
    let config = "backend http-back\n    option httpchk GET /check\n    http-check expect status 200\n    \
                  server-template web 1-3 127.0.0.2:80 check inter 100ms rise 2 fall 2 disabled\n";
    bed.web().set_behaviour("i-2", Behaviour::Reason(b"x\xe9"));
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10)]);
    wait_for("HAProxy to have heard of it", SOON, || {
        let server = haproxy.server(BACK, "web2");
        if server.status.starts_with("DOWN") && server.check_status == "L7STS" {
            Ok(())
        } else {
            Err(format!("{server:?}"))
        }
    });
    occupy(&bed, 3, 3);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web3", 10)]);
    bed.moto().put_free(1);
    haproxy.wait_weights(BACK, &[("web3", 10)]);
    let tally = traffic::send(haproxy.frontend(BACK), 10);
    assert_eq!(tally.of("i-3"), 10, "{tally}");
    running.wait_turn();
    assert!(!running.log().contains("WARN"), "{}", running.log());
    client(&bed, 3, "http-back:web:$WEB").once().assert_code(0);
}

#[test]
fn an_agents_word_that_is_not_utf_8() {
    let bed = bed_with_table("latin-1-agent", 3, 2);
    let port = Port::reserve();
    let config = format!(
        "backend http-back\n    default-server check inter 100ms agent-check agent-port {} agent-inter 100ms\n    \
         server-template web 1-3 127.0.0.2:80 disabled\n",
        port.number()
    );
    let haproxy = Config::of(&config).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let _agent = Agent::start(address(2).parse().unwrap(), port.number(), b"down #caf\xe9");
    wait_for("HAProxy to have heard of it", SOON, || {
        let server = haproxy.server(BACK, "web2");
        if server.status.starts_with("DOWN (agent)") { Ok(()) } else { Err(format!("{server:?}")) }
    });
    occupy(&bed, 3, 3);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web3", 10)]);
    running.wait_turn();
    assert!(!running.log().contains("WARN"), "{}", running.log());
    client(&bed, 3, "http-back:web:$WEB").once().assert_code(0);
}
