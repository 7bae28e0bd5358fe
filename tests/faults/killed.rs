//! hsdo killed (SIGKILL) between any two writes: nothing half-done may serve, and its successor finishes the work.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fixture::{BACK, Scene};
use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::Hsdo;
use crate::common::moto::text_of;
use crate::common::tap::{SocketFault, Tap};
use crate::common::wait::{SOON, wait_for, wait_until};

/// moto needs seconds for a transaction of a hundred updates.
const MOTO: Duration = Duration::from_secs(60);

/// The instances of the occupied rows, by slot.
fn seats(bed: &Bed) -> BTreeMap<u32, String> {
    let rows = bed.moto().rows().into_iter();
    rows.filter_map(|(id, item)| Some((id, text_of(&item, "ServerName")?))).filter(|(_, name)| name != "none").collect()
}

/// The call in flight at the kill may still take effect: the proxy forwards it then.
#[test]
fn a_server_that_dies_between_two_writes_is_followed_by_one_that_finishes() {
    const SIZE: u32 = 102;
    let bed = Bed::new("server");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    let server = || {
        Hsdo::server(&bed)
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SIZE.to_string())
            .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
    };
    let ids = || bed.moto().instances("web").into_iter().map(|instance| instance.id).collect::<Vec<_>>();
    let write = "TransactWriteItems";
    // A new table takes more than one transaction, and it dies after the first.
    bed.aws().inject_times(write, Fault::Delay(Duration::ZERO), 1);
    bed.aws().inject(write, Fault::Hang);
    let mut running = server().spawn();
    wait_until("the second transaction", MOTO, || (bed.aws().count(write) == 2).then_some(()));
    running.kill();
    let rows = bed.moto().rows().len();
    assert!(rows > 0 && rows < SIZE as usize, "{rows} rows");
    bed.aws().heal();
    let web = ids();
    let mut running = server().spawn();
    wait_for("all rows", MOTO, || match bed.moto().rows().len() {
        count if count == SIZE as usize => Ok(()),
        count => Err(count),
    });
    running.wait_turn();
    assert_eq!(seats(&bed), BTreeMap::from([(1, web[0].clone()), (2, web[1].clone())]));

    for (operation, count) in [("Scan", 3), (write, 4)] {
        bed.aws().inject(operation, Fault::Hang);
        bed.aws().forget();
        bed.moto().set_desired("web", count);
        wait_until("a call", SOON, || (bed.aws().count(operation) > 0).then_some(()));
        running.kill();
        assert_eq!(seats(&bed).len(), count - 1, "{operation}: nothing was written");
        bed.aws().heal();
        running = server().spawn();
        let wanted: BTreeMap<u32, String> = (1..).zip(ids()).collect();
        wait_for("the new one to be seated", MOTO, || match seats(&bed) {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?}, not {wanted:?}")),
        });
        running.wait_turn();
        assert_eq!(seats(&bed), wanted, "{operation}");
    }
}

/// Killed or stopped, it changes nothing; its successor finds nothing to do.
#[test]
fn a_client_that_goes_leaves_haproxy_as_it_is() {
    let mut scene = Scene::set("goes");
    let before = wait_for("their checks to pass", SOON, || {
        let servers = scene.haproxy.servers(BACK);
        let settled = servers.values().all(|server| server.in_maintenance() || server.status == "UP");
        if settled { Ok(servers) } else { Err(format!("{servers:?}")) }
    });
    for way in ["killed", "stopped"] {
        if way == "killed" {
            scene.client.kill();
        } else {
            assert!(scene.client.terminate().success());
        }
        scene.assert_serves();
        let tap = Tap::start(scene.bed.dir().join(format!("{way}.sock")), scene.haproxy.socket());
        let path = tap.path().to_string_lossy().into_owned();
        let client = Hsdo::client(&scene.bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4");
        scene.client = client.env("CLIENT_HAPROXY_SOCKET_PATH", &path).spawn();
        scene.client.wait_turn();
        assert_eq!(tap.changes(), Vec::<String>::new(), "{way}");
        assert_eq!(scene.haproxy.servers(BACK), before, "{way}");
    }
}

/// Every server of a backend gets a new address and weight, and the client dies after each of its lines in turn.
#[test]
fn a_client_that_dies_between_two_lines_leaves_no_stale_address_in_rotation() {
    const SLOTS: u32 = 100;
    let bed = Bed::new("client");
    bed.moto().create_table();
    let address = |round: u32, id: u32| format!("127.1.{}.{id}", 10 + round);
    let fill = |round: u32| {
        for id in 1..=SLOTS {
            let (name, weight) = (format!("i-{round}-{id}"), u16::try_from(10 + round).expect("few"));
            bed.moto().put_server(id, &address(round, id), &name, Some("web"), weight);
        }
    };
    fill(0);
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", SLOTS as usize).unchecked()]);
    let client = || Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string());
    // How many match the table now. A server in rotation matches it, or is entirely as before.
    let arrived = |round: u32| {
        let mut arrived = 0;
        for (name, server) in haproxy.servers(BACK) {
            let id: u32 = name.trim_start_matches("mywebapp").parse().expect("a number");
            let is_of = |round: u32| {
                server.addr.starts_with(&format!("{}:", address(round, id))) && server.weight == 10 + round
            };
            assert!(!server.takes_traffic() || is_of(round) || is_of(round.saturating_sub(1)), "{name}: {server:?}");
            arrived += u32::from(server.takes_traffic() && is_of(round));
        }
        if arrived == SLOTS { Ok(()) } else { Err(format!("{arrived} of {SLOTS}")) }
    };
    let mut running = client().spawn();
    wait_for("the first filling", SOON, || arrived(0));
    let tap = Tap::start(bed.dir().join("tap.sock"), haproxy.socket());
    // The line in flight at the kill reaches HAProxy afterwards.
    tap.set_fault(SocketFault::Slow(Duration::from_millis(100)));
    let mut most = 0;
    for round in 1..=6 {
        running.kill();
        tap.forget();
        fill(round);
        let mut doomed = client().env("CLIENT_HAPROXY_SOCKET_PATH", &tap.path().to_string_lossy()).spawn();
        let sent = || tap.lines().iter().filter(|line| line.contains("set server")).count();
        wait_for("the line after which it dies, or all of them", SOON, || {
            if sent() >= round as usize { Ok(()) } else { arrived(round) }
        });
        doomed.kill();
        most = most.max(sent());
        running = client().spawn();
        wait_for("the next one to finish", SOON, || arrived(round));
    }
    assert!(most >= 4, "a replacement is several lines: {most}");
    running.wait_turn();
}
