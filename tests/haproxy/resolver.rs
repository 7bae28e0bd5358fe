//! Servers with names instead of addresses.

use std::net::Ipv4Addr;

use super::fixture::{BACK, Config, FAILED, bed_with_table, client, occupy, ready, tapped};
use crate::common::dns::Dns;
use crate::common::traffic;
use crate::common::wait::{SOON, wait_for};

/// A backend with a literal placeholder, in each of these tests.
const LITERAL: &str = "backend http-back\n    server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";

/// As a scheduler writes it: a resolver looks up the template's name and sets addresses, as hsdo does.
#[test]
fn a_backend_whose_addresses_a_resolver_sets_is_refused_and_its_neighbour_is_filled() {
    let bed = bed_with_table("resolver", 3, 2);
    bed.web().serve("of-dns", "127.1.2.77".parse().unwrap());
    let dns = Dns::start(&[Ipv4Addr::new(127, 1, 2, 77)]);
    let config = format!(
        "resolvers r\n    nameserver one 127.0.0.1:{}\n    resolve_retries 3\n    timeout resolve 100ms\n    \
         timeout retry 100ms\n    hold valid 200ms\n\n{LITERAL}\nbackend dns-back\n    \
         server-template web 1-3 web.test:$WEB check inter 100ms resolvers r resolve-prefer ipv4 init-addr last,127.0.0.2\n",
        dns.port()
    );
    let haproxy = Config::of(&config).start(&bed, &[BACK, "dns-back"]);
    wait_for("DNS to have filled its backend", SOON, || match traffic::send(haproxy.frontend("dns-back"), 1) {
        tally if tally.of("of-dns") == 1 => Ok(()),
        tally => Err(tally.to_string()),
    });
    let before = haproxy.servers("dns-back");
    let mut running = client(&bed, 3, "dns-back:web:$WEB,http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_metric("hsdo_haproxy_missing_backends", |missing| missing == 1.0);
    running.wait_turn();
    let told = "backend dns-back: dns-back/web1 has a host name whose address HAProxy's resolver sets";
    let text = ready(&running);
    assert!(text.contains(told) && text.contains("a literal address such as 127.0.0.2:80"), "{text}");
    assert_eq!(running.log().matches(told).count(), 1, "{}", running.log());
    let after = haproxy.servers("dns-back");
    let changed = |name: &str| (before[name].weight, &before[name].addr) != (after[name].weight, &after[name].addr);
    assert!(!before.keys().any(|name| changed(name)), "{before:?} {after:?}");
    let tally = traffic::send(haproxy.frontend("dns-back"), 6);
    assert_eq!(tally.of("of-dns"), 6, "DNS's own servers go on: {tally}");
    running.terminate();
    client(&bed, 3, "dns-back:web:$WEB").run().assert_code(2).assert_stderr(told);
}

/// The name server is silent: hsdo does not wait for it.
#[test]
fn a_silent_name_server_costs_the_neighbour_nothing() {
    let bed = bed_with_table("silent-dns", 3, 2);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let config = format!(
        "resolvers r\n    nameserver one {}\n    resolve_retries 1\n    timeout resolve 100ms\n    timeout retry 100ms\n    \
         hold timeout 200ms\n\n{LITERAL}\nbackend dns-back\n    \
         server-template web 1-3 web.test:80 check resolvers r init-addr last,127.0.0.2 disabled\n\nbackend srv-back\n    \
         server-template web 1-3 _web._tcp.web.test resolvers r check\n",
        silent.local_addr().unwrap()
    );
    let haproxy = Config::of(&config).start(&bed, &[BACK, "dns-back", "srv-back"]);
    let mut running = client(&bed, 3, "http-back:web:$WEB,dns-back:web:$WEB,srv-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_turn();
    for backend in ["dns-back", "srv-back"] {
        let told = format!("backend {backend}: {backend}/web1 has a host name whose address HAProxy's resolver sets");
        assert!(ready(&running).contains(&told), "{}", ready(&running));
    }
    running.wait_metric("hsdo_haproxy_missing_backends", |missing| missing == 2.0);
}

/// A name that HAProxy resolves once, at start, is as good a placeholder as an address.
#[test]
fn localhost_is_a_good_placeholder() {
    let bed = bed_with_table("localhost", 3, 2);
    let config = "backend http-back\n    server-template web 1-3 localhost:80 check inter 100ms disabled\n";
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    bed.moto().put_free(1);
    haproxy.wait_weights(BACK, &[("web2", 10)]);
    running.wait_turn();
    assert_eq!(ready(&running), "ok");
}

/// Placeholders without an address: HAProxy refuses any other, which is logged once with the remedy.
fn without_an_address(name: &str, placeholder: &str) {
    let bed = bed_with_table(name, 3, 2);
    let config = format!("{LITERAL}\nbackend odd-back\n    server-template web 1-3 {placeholder} disabled\n");
    let mut haproxy = Config::of(&config).start(&bed, &[BACK, "odd-back"]);
    let (tap, running) = tapped(&bed, 3, "odd-back:web:$WEB,http-back:web:$WEB");
    let mut running = running.spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    running.wait_metric(FAILED, |failed| failed >= 2.0);
    let before = running.metric(FAILED).expect("it is there from the start");
    tap.forget();
    running.wait_metric(FAILED, |failed| failed >= before + 5.0);
    let addresses = tap.changes().iter().filter(|change| change.contains("odd-back/web1 addr")).count();
    let turns = running.metric(FAILED).expect("it is there from the start") - before;
    assert!(addresses as f64 <= turns + 2.0, "{addresses} tries in {turns} turns: {:?}", tap.changes());
    assert!(addresses >= 4, "tried again each turn: {:?}", tap.changes());
    let log = running.log();
    assert_eq!(log.matches("give the `server-template` a literal address").count(), 2, "once, of two slots: {log}");
    assert!(
        haproxy.servers("odd-back").values().all(crate::common::haproxy::Server::in_maintenance),
        "none becomes ready"
    );
    bed.moto().put_free(1);
    haproxy.wait_weights(BACK, &[("web2", 10)]);
    // A fault that is replaced by another has not recovered.
    haproxy.kill();
    running.wait_metric("hsdo_haproxy_up", |up| up == 0.0);
    assert!(!running.log().contains("turn: recovered"), "{}", running.log());
}

#[test]
fn a_placeholder_that_is_a_name_without_an_address() {
    without_an_address("init-addr-none", "nowhere.invalid:80 init-addr none check inter 100ms");
}

#[test]
fn a_placeholder_that_is_a_unix_socket() {
    without_an_address("unix-placeholder", "unix@$DIR/nobody.sock check inter 100ms");
}

/// As operators add one: a server for apologies beside the template, by its name.
#[test]
fn a_neighbour_with_a_name_and_a_slot_that_was_given_one_cost_the_other_slots_nothing() {
    let bed = bed_with_table("sorry", 4, 2);
    bed.web().serve("of-dns", "127.1.2.77".parse().unwrap());
    let dns = Dns::start(&[Ipv4Addr::new(127, 1, 2, 77)]);
    let config = format!(
        "resolvers r\n    nameserver one 127.0.0.1:{}\n    resolve_retries 3\n    timeout resolve 100ms\n    \
         timeout retry 100ms\n    hold valid 200ms\n\nbackend http-back\n    \
         server-template web 1-4 127.0.0.2:80 check inter 100ms resolvers r resolve-prefer ipv4 disabled\n    \
         server sorry sorry.test:$WEB backup resolvers r resolve-prefer ipv4 init-addr last,127.0.0.2\n",
        dns.port()
    );
    let haproxy = Config::of(&config).start(&bed, &[BACK]);
    let mut running = client(&bed, 4, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("sorry", 1), ("web1", 10), ("web2", 10)]);
    assert!(!ready(&running).contains("http-back"), "{}", ready(&running));

    haproxy.command("set server http-back/web4 fqdn legacy.test");
    occupy(&bed, 3, 3);
    haproxy.wait_weights(BACK, &[("sorry", 1), ("web1", 10), ("web2", 10), ("web3", 10)]);
    occupy(&bed, 4, 4);
    running.wait_metric("hsdo_haproxy_blocked_slots", |blocked| blocked == 1.0);
    assert!(ready(&running).contains("http-back/web[4]: in maintenance because of a server that they track or a name that does not resolve, or HAProxy's resolver sets"), "{}", ready(&running));
    let tally = traffic::send(haproxy.frontend(BACK), 9);
    assert_eq!((tally.of("i-1"), tally.of("i-2"), tally.of("i-3")), (3, 3, 3), "{tally}");
    running.terminate();
}
