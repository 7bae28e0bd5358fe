//! Several backends in one client: trouble with one costs the others nothing.

use super::fixture::{BACK, Config, bed_with_table, client, ready};
use crate::common::haproxy::{Haproxy, Server};
use crate::common::wait::{SOON, wait_for};

const LIST: &str = "http-back:web:$WEB,old-back:web:$WEB";
const MISSING: &str = "hsdo_haproxy_missing_backends";

/// A backend that stays healthy, in each of these tests.
const STAYS: &str = "backend http-back\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";
/// A backend that is removed, or only disabled.
const OLD: &str = "backend old-back\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";
const SWITCHED_OFF: &str =
    "backend old-back\n    disabled\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";

fn wait_both(haproxy: &Haproxy) {
    for backend in [BACK, "old-back"] {
        haproxy.wait_weights(backend, &[("web1", 10), ("web2", 10)]);
    }
}

/// Routine maintenance: a backend is dropped from haproxy.cfg, HAProxy restarts, and hsdo's settings are edited later.
#[test]
fn one_that_is_gone_leaves_the_others_filled() {
    let bed = bed_with_table("gone", 3, 2);
    let both = format!("{STAYS}\n{OLD}");
    let mut haproxy = Config::of(&both).start(&bed, &[BACK, "old-back"]);
    let mut running = client(&bed, 3, LIST).spawn();
    wait_both(&haproxy);
    running.wait_turn();
    assert_eq!((running.metric(MISSING), ready(&running).as_str()), (Some(0.0), "ok"));

    let off = format!("{STAYS}\n{SWITCHED_OFF}");
    for (sections, told) in [
        (STAYS, "backend old-back: HAProxy has no such backend; it has http-back; "),
        (off.as_str(), "backend old-back: it is `disabled` in haproxy.cfg; "),
    ] {
        haproxy.kill();
        Config::of(sections).rewrite(&bed, &haproxy, &[BACK]);
        haproxy.restart();
        haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
        running.wait_metric(MISSING, |missing| missing == 1.0);
        // Logged once, not every turn.
        running.wait_turn();
        running.wait_turn();
        let text = ready(&running);
        assert!(text.starts_with(&format!("ok, but {told}")), "{text}");
        assert_eq!(running.log().matches(told).count(), 1, "named once: {}", running.log());
        // The other backend is kept in step meanwhile.
        bed.moto().put_free(2);
        haproxy.wait_weights(BACK, &[("web1", 10)]);
        super::fixture::seat(&bed, 2, 2);
        haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);

        haproxy.kill();
        Config::of(&both).rewrite(&bed, &haproxy, &[BACK, "old-back"]);
        haproxy.restart();
        wait_both(&haproxy);
        running.wait_metric(MISSING, |missing| missing == 0.0);
        running.wait_turn();
        assert_eq!(ready(&running), "ok");
    }
    assert_eq!(running.log().matches("backends left alone: recovered").count(), 2, "{}", running.log());
}

#[test]
fn a_start_needs_one_of_them_and_names_those_that_are_there() {
    let bed = bed_with_table("none-there", 3, 2);
    let sections = format!("{STAYS}\n{SWITCHED_OFF}");
    let haproxy = Config::of(&sections).start(&bed, &[BACK]);
    client(&bed, 3, "gone:web:$WEB,old-back:web:$WEB")
        .run()
        .assert_code(2)
        .assert_stderr("backend gone: HAProxy has no such backend; it has ")
        .assert_stderr(BACK)
        .assert_stderr("backend old-back: it is `disabled` in haproxy.cfg");
    client(&bed, 3, "http-back:wbe:$WEB")
        .run()
        .assert_code(2)
        .assert_stderr("it has no server wbe<number>; its base names are web; ");
    assert!(haproxy.servers(BACK).values().all(Server::in_maintenance));

    // One backend is enough, also for `--once`, which succeeds for those that are there.
    client(&bed, 3, "gone:web:$WEB,http-back:web:$WEB").once().assert_code(0).assert_stderr("backend gone: ");
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
}

/// As in a router's file: names with colons, plain servers beside slots that others fill, weights of 256, two
/// algorithms.
#[test]
fn names_with_colons_and_plain_servers_beside_the_slots() {
    let bed = bed_with_table("router", 5, 3);
    let config = "backend be_http:shop:web\n    balance leastconn\n    default-server check inter 100ms weight 256\n    \
                  server pod:web-1 127.1.2.101:$WEB\n    \
                  server-template _dynamic-pod- 1-5 127.0.0.2:8765 disabled\n\n\
                  backend be_tcp:shop:db\n    balance source\n    hash-type consistent\n    \
                  server-template _dynamic-pod- 1-5 127.0.0.2:8765 check inter 100ms weight 256 disabled\n";
    bed.web().serve("plain", "127.1.2.101".parse().unwrap());
    let names = ["be_http:shop:web", "be_tcp:shop:db"];
    let haproxy = Config::of(config).start(&bed, &names);
    let list = "be_http:shop:web:_dynamic-pod-:$WEB,be_tcp:shop:db:_dynamic-pod-:$WEB";
    let _client = client(&bed, 5, list).spawn();
    let pods = [("_dynamic-pod-1", 10), ("_dynamic-pod-2", 10), ("_dynamic-pod-3", 10)];
    haproxy.wait_weights(names[1], &pods);
    let mut all = pods.to_vec();
    all.push(("pod:web-1", 256));
    haproxy.wait_weights(names[0], &all);
    bed.moto().put_free(3);
    haproxy.wait_weights(names[1], &pods[..2]);
    wait_for("the plain server to be as it was", SOON, || {
        let plain = haproxy.server(names[0], "pod:web-1");
        if plain.weight == 256 && plain.takes_traffic() { Ok(()) } else { Err(format!("{plain:?}")) }
    });
    client(&bed, 5, "be_http:shop:web:_dynamic-pod-")
        .run()
        .assert_code(2)
        .assert_stderr("with colons requires the port");
}
