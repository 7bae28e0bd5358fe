//! Ports that the request chooses.

use super::fixture::{BACK, Config, address, bed_with_table, boot, client, ready, seat};
use crate::common::bed::Bed;
use crate::common::port::Port;
use crate::common::traffic;
use crate::common::wait::{SOON, wait_for};
use crate::common::web::Web;

/// Two programs on each instance, as where WebSockets have their own port: `/ws` goes to the second.
fn config(port: u16) -> String {
    format!(
        "backend http-back\n    balance roundrobin\n    http-request set-dst-port int($WEB)\n    \
         http-request set-dst-port int({port}) if {{ path_beg /ws }}\n    default-server inter 100ms\n    \
         server-template web 1-3 127.0.0.2:0 check port $WEB disabled\n"
    )
}

#[test]
fn a_server_port_of_zero_leaves_the_mapping_alone() {
    let bed = bed_with_table("mapped", 3, 2);
    let second = Web::new(Port::reserve());
    let with_second = |bed: &Bed, host: u32| {
        boot(bed, host);
        second.serve(&format!("ws-{host}"), address(host).parse().unwrap());
    };
    with_second(&bed, 1);
    with_second(&bed, 2);
    let haproxy = Config::of(&config(second.port())).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:0").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let port = haproxy.frontend(BACK);
    let reaches = |hosts: &[u32]| {
        for (path, prefix) in [("/", "i"), ("/ws", "ws")] {
            let mut seen: Vec<String> = (0..8).map(|_| traffic::get(port, path).expect("an answer")).collect();
            seen.sort();
            seen.dedup();
            assert_eq!(seen, hosts.iter().map(|host| format!("{prefix}-{host}")).collect::<Vec<_>>(), "{path}");
        }
    };
    reaches(&[1, 2]);

    with_second(&bed, 3);
    seat(&bed, 2, 3);
    wait_for("the slot to have moved", SOON, || {
        let servers = haproxy.servers(BACK);
        if servers["web2"].addr.starts_with(&address(3)) && servers["web2"].takes_traffic() {
            Ok(())
        } else {
            Err(format!("{servers:?}"))
        }
    });
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    reaches(&[1, 3]);
    running.wait_turn();
    assert_eq!(ready(&running), "ok");
    // Nothing is left to do, so another client sends nothing.
    client(&bed, 3, "http-back:web:0").arg("--dry-run").run().assert_code(0).assert_stdout("nothing to send");
}
