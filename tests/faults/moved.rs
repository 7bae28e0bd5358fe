//! A row that is deleted by hand seats its instance in another slot.

use super::fixture::{BACK, Scene};
use crate::common::haproxy::Server;
use crate::common::traffic;
use crate::common::wait::{SOON, wait_for};

/// Its check in the new slot takes a while; the old slot serves until then.
#[test]
fn a_server_that_moves_to_another_slot_never_leaves_the_rotation() {
    let scene = Scene::set("moved");
    let at = |server: &Server, address: &str| server.takes_traffic() && server.addr.starts_with(address);
    for (from, to) in [(1, 3), (3, 1), (1, 4)] {
        scene.bed.moto().put_server(to, "127.1.2.1", "i-1", Some("web"), 1);
        scene.bed.moto().put_free(from);
        let names = [format!("mywebapp{from}"), format!("mywebapp{to}")];
        wait_for("it to serve in its new slot alone", SOON, || {
            let servers = scene.haproxy.servers(BACK);
            let serving = servers.values().filter(|server| at(server, "127.1.2.1:")).count();
            assert!(serving > 0, "from slot {from} to {to}: {servers:#?}");
            let moved = servers[&names[0]].in_maintenance() && at(&servers[&names[1]], "127.1.2.1:");
            if moved { Ok(()) } else { Err(format!("{servers:#?}")) }
        });
        let tally = traffic::send(scene.haproxy.frontend(BACK), 20);
        assert!(tally.failures.is_empty() && tally.names() == ["i-1", "i-2"], "{tally}");
    }
}
