//! Which servers of a backend are hsdo's slots when there are others.

use super::fixture::{BACK, Config, bed_with_table, client, ready};
use crate::common::traffic;
use crate::common::wait::{SOON, wait_for};

/// As a set-up script writes it: servers numbered with leading zeros, which no template makes.
#[test]
fn numbers_with_leading_zeros_are_refused() {
    let bed = bed_with_table("padded", 3, 2);
    let mut config = "backend http-back\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n\n\
                      backend socks5_backend\n    balance roundrobin\n"
        .to_owned();
    for number in 0..=120 {
        bed.web().serve(&format!("s{number}"), format!("127.1.3.{number}").parse().unwrap());
        config.push_str(&format!("    server socks5_{number:03} 127.1.3.{number}:$WEB\n"));
    }
    let haproxy = Config::of(&config).start(&bed, &[BACK, "socks5_backend"]);
    let before = haproxy.servers("socks5_backend");
    let mut running = client(&bed, 3, "socks5_backend:socks5_:$WEB,http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_turn();
    let told = "backend socks5_backend: its servers have numbers with leading zeros";
    assert!(ready(&running).contains(told), "{}", ready(&running));
    running.terminate();
    for base in ["socks5_", "socks5_0"] {
        client(&bed, 150, &format!("socks5_backend:{base}:$WEB")).run().assert_code(2).assert_stderr(told);
    }
    assert_eq!(haproxy.servers("socks5_backend"), before, "not touched");
}

/// A second template whose name begins like the first, and a server with a year in its name.
#[test]
fn servers_beyond_a_gap_are_somebody_elses() {
    let bed = bed_with_table("beyond", 3, 2);
    let config = "backend http-back\n    balance roundrobin\n    default-server inter 100ms\n    \
                  server-template web 1-3 127.0.0.2:80 check disabled\n    \
                  server-template web2 1-3 127.1.2.102:$WEB check\n    server web2024 127.1.2.103:$WEB check\n";
    for (name, host) in [("other", 102), ("year", 103)] {
        bed.web().serve(name, format!("127.1.2.{host}").parse().unwrap());
    }
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let others = [("web2024", 1), ("web21", 1), ("web22", 1), ("web23", 1)];
    haproxy.wait_weights(BACK, &others);
    let dry = client(&bed, 3, "http-back:web:$WEB").arg("--dry-run").run();
    assert!(
        !dry.assert_code(0).stdout.contains("/web2 state maint") && !dry.stdout.contains("/web20"),
        "{}",
        dry.stdout
    );
    assert!(!dry.stdout.lines().any(|line| ["/web21 ", "/web22 ", "/web23 "].iter().any(|name| line.contains(name))));
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    let all = [("web1", 10), ("web2", 10), ("web2024", 1), ("web21", 1), ("web22", 1), ("web23", 1)];
    haproxy.wait_weights(BACK, &all);
    bed.moto().put_free(1);
    haproxy.wait_weights(BACK, &all[1..]);
    running.wait_turn();
    assert!(!running.log().contains("web2024") && !running.log().contains("web21"), "{}", running.log());
    assert_eq!(ready(&running), "ok");
}

/// A template larger than the table: servers that continue the slots without a gap are taken out.
#[test]
fn servers_that_continue_the_slots_are_put_out() {
    let bed = bed_with_table("larger", 2, 2);
    let config = "backend http-back\n    server-template web 1-5 127.1.2.66:$WEB check inter 100ms\n";
    bed.web().serve("placeholder", "127.1.2.66".parse().unwrap());
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let _client = client(&bed, 2, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    wait_for("the rest to be out", SOON, || {
        let servers = haproxy.servers(BACK);
        let out = ["web3", "web4", "web5"].iter().all(|name| servers[*name].in_maintenance());
        if out { Ok(()) } else { Err(format!("{servers:?}")) }
    });
    let tally = traffic::send(haproxy.frontend(BACK), 10);
    assert_eq!((tally.of("placeholder"), tally.failures.len()), (0, 0), "{tally}");
}

/// A template with one server deleted, and a smaller list size: what has a row is a slot, gap or not.
#[test]
fn a_row_beyond_a_gap_is_a_slot() {
    let bed = bed_with_table("gap", 6, 6);
    let server = |id: u32| format!("    server web{id} 127.0.0.2:80 check inter 100ms disabled\n");
    let config = format!("backend http-back\n    balance roundrobin\n{}", [1, 2, 3, 5, 6].map(server).concat());
    let haproxy = Config::of(&config).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10), ("web3", 10), ("web5", 10), ("web6", 10)]);
    running.wait_metric("hsdo_haproxy_missing_slots", |missing| missing == 1.0);
    bed.moto().put_free(5);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10), ("web3", 10), ("web6", 10)]);
    assert!(haproxy.server(BACK, "web5").in_maintenance());
}
