//! A new server in a used slot gets no request before HAProxy's own check has passed, however requests are routed to
//! it.

use std::time::Duration;

use super::fixture::{BACK, Config, address, bed_with_table, boot, client, seat, wait_down};
use crate::common::bed::Bed;
use crate::common::haproxy::Haproxy;
use crate::common::traffic::{self, Headers, Stream};
use crate::common::wait::{SOON, wait_for};
use crate::common::web::Behaviour;

/// Requests of each kind that must bypass a server whose check fails.
const PASSED: u64 = 300;

/// A common check where one failure counts: a backend with the lines `persistence`, whose second server is a client's
/// own.
fn backend(persistence: &str, cookie: bool) -> String {
    let server = |id: u32| {
        let own = if cookie { format!("cookie web{id}") } else { String::new() };
        format!("    server web{id} 127.0.0.2:80 {own} disabled\n")
    };
    format!(
        "backend {BACK}\n    balance roundrobin\n    option httpchk GET /check\n    {persistence}\n    \
         default-server check inter 100ms fall 1 rise 3\n{}",
        (1..=4).map(server).collect::<String>()
    )
}

/// Slots 1 and 2 serve, and the client that sends `headers` sticks to `i-2`. Another instance with a failing check
/// replaces it, hsdo is stopped, and then the instance recovers.
fn replace_under(name: &str, config: &str, headers: Headers<'static>) {
    let bed = bed_with_table(name, 4, 2);
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let mut running = client(&bed, 4, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let port = haproxy.frontend(BACK);
    let stuck = !headers.is_empty();
    if stuck {
        let tally = traffic::send_with(port, 10, headers);
        assert_eq!(tally.of("i-2"), 10, "{tally}");
    }
    let mut streams =
        [&[][..], headers].map(|headers| Stream::start_with(port, Duration::from_millis(4), 20_000, headers));

    boot(&bed, 3);
    bed.web().set_behaviour("i-3", Behaviour::Status(503));
    seat(&bed, 2, 3);
    wait_down(&haproxy, "web2", 3);
    let so_far = streams.each_ref().map(|stream| stream.so_far().answered());
    let checks = bed.web().checks_of("i-3");
    wait_for("requests and checks to come meanwhile", SOON, || {
        let passed = streams.iter().zip(so_far).all(|(stream, before)| stream.so_far().answered() >= before + PASSED);
        if passed && bed.web().checks_of("i-3") >= checks + 3 { Ok(()) } else { Err("not enough") }
    });
    // From here on HAProxy decides alone.
    assert!(running.terminate().success(), "{}", running.log());
    assert_eq!(bed.web().requests_of("i-3"), 0, "a server that is not ready gets no request");
    for stream in &mut streams {
        let tally = stream.stop();
        assert!(tally.failures.is_empty(), "{tally}");
    }
    let tally = traffic::send_with(port, 10, headers);
    assert_eq!(tally.of("i-1"), 10, "a client that stuck to the slot is redispatched: {tally}");
    assert!(running.log().contains(&format!("{BACK}/web2: waiting for its check")), "{}", running.log());

    bed.web().set_behaviour("i-3", Behaviour::Well);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let tally = traffic::send(port, 20);
    assert_eq!((tally.of("i-3"), tally.failures.len()), (10, 0), "{tally}");
}

#[test]
fn balanced_traffic() {
    replace_under("gate-balanced", &backend("", false), &[]);
}

/// A cookie per slot, as ingress controllers write it.
#[test]
fn clients_with_the_cookie_of_the_slot() {
    replace_under("gate-cookie", &backend("cookie SRV insert indirect nocache", true), &[("Cookie", "SRV=web2")]);
}

#[test]
fn requests_that_a_rule_sends_to_the_slot() {
    replace_under(
        "gate-rule",
        &backend("use-server web2 if { req.hdr(X-User) -m str two }", false),
        &[("X-User", "two")],
    );
}

/// A stick table maps users to servers.
#[test]
fn users_in_a_stick_table() {
    let bed = bed_with_table("gate-stick", 4, 2);
    let table = "stick-table type string len 32 size 1k expire 1m\n    stick on req.hdr(X-User)";
    let haproxy = Config::of(&backend(table, false)).start(&bed, &[BACK]);
    let mut running = client(&bed, 4, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let port = haproxy.frontend(BACK);
    // The first two users get one server each.
    let users: [Headers<'static>; 4] = [&[("X-User", "a")], &[("X-User", "b")], &[("X-User", "c")], &[("X-User", "d")]];
    let of_two: Vec<Headers<'static>> =
        users.into_iter().filter(|headers| traffic::send_with(port, 3, headers).of("i-2") == 3).collect();
    assert!(!of_two.is_empty(), "no user sticks to i-2");

    boot(&bed, 3);
    bed.web().set_behaviour("i-3", Behaviour::Status(503));
    let mut stream = Stream::start_with(port, Duration::from_millis(2), 20_000, of_two[0]);
    seat(&bed, 2, 3);
    wait_down(&haproxy, "web2", 3);
    let before = stream.so_far().of("i-1");
    wait_for("the user to go on at another server", SOON, || {
        if stream.so_far().of("i-1") >= before + PASSED { Ok(()) } else { Err("not yet") }
    });
    running.terminate();
    // The other users of slot 2 have not been back since: they find its entry now.
    let rest = of_two[1..].iter().map(|headers| traffic::send_with(port, 5, headers)).collect::<Vec<_>>();
    let tally = stream.stop();
    assert_eq!(bed.web().requests_of("i-3"), 0, "a server that is not ready gets no request");
    assert!(tally.failures.is_empty() && rest.iter().all(|tally| tally.of("i-1") == 5), "{tally} {rest:?}");

    bed.web().set_behaviour("i-3", Behaviour::Well);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    assert!(traffic::send(port, 20).of("i-3") > 0);
}

/// The previous server's check is in flight when the slot changes: with `fall 1 rise 1`, its pass would open the slot.
#[test]
fn a_check_of_the_server_before_does_not_count() {
    let bed = bed_with_table("gate-in-flight", 4, 2);
    let config = backend("cookie SRV insert indirect nocache", true).replace("rise 3", "rise 1");
    let haproxy = Config::of(&config).start(&bed, &[BACK]);
    let _client = client(&bed, 4, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    for (old, new) in [(2, 3), (3, 4)] {
        let [old_name, new_name] = [format!("i-{old}"), boot(&bed, new)];
        bed.web().set_behaviour(&new_name, Behaviour::Status(503));
        let mut stream =
            Stream::start_with(haproxy.frontend(BACK), Duration::from_millis(2), 20_000, &[("Cookie", "SRV=web2")]);
        bed.web().set_check_behaviour(&old_name, Behaviour::Slow(Duration::from_secs(2)));
        let checks = bed.web().checks_of(&old_name);
        wait_for("a check that takes its time", SOON, || {
            // The last quick one may be counted too.
            if bed.web().checks_of(&old_name) > checks + 1 { Ok(()) } else { Err("not yet") }
        });
        seat(&bed, 2, new);
        wait_down(&haproxy, "web2", new);
        let (before, checks) = (stream.so_far().answered(), bed.web().checks_of(&new_name));
        wait_for("requests and checks to come meanwhile", SOON, || {
            let passed = stream.so_far().answered() >= before + PASSED;
            if passed && bed.web().checks_of(&new_name) >= checks + 3 { Ok(()) } else { Err("not enough") }
        });
        let tally = stream.stop();
        assert_eq!(bed.web().requests_of(&new_name), 0, "a server that is not ready gets no request: {tally}");
        assert!(tally.failures.is_empty(), "{tally}");
        bed.web().set_behaviour(&new_name, Behaviour::Well);
        haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    }
    assert_eq!(haproxy.server(BACK, "web2").addr, format!("{}:{}", address(4), bed.web().port()));
}

/// `state ready` and `health down` are two commands. With `fall 1 rise 3` and a cookie, a dense stream of requests
/// arrives while the slot's server changes again and again, and none of the servers is ready.
#[test]
fn no_request_gets_in_between_the_commands_that_open_a_slot() {
    const CHANGES: u32 = 40;
    let bed = bed_with_table("gate-between", 4, 2);
    let haproxy = Config::of(&backend("cookie SRV insert indirect nocache", true)).start(&bed, &[BACK]);
    let _client = client(&bed, 4, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let names = [3, 4].map(|host| boot(&bed, host));
    for name in &names {
        bed.web().set_behaviour(name, Behaviour::Status(503));
    }
    let stick =
        || Stream::start_with(haproxy.frontend(BACK), Duration::from_millis(1), 200_000, &[("Cookie", "SRV=web2")]);
    let mut streams = [stick(), stick()];
    for change in 0..CHANGES {
        let host = 3 + change % 2;
        seat(&bed, 2, host);
        wait_down(&haproxy, "web2", host);
    }
    for stream in &mut streams {
        let tally = stream.stop();
        assert!(tally.failures.is_empty() && tally.answered() > PASSED, "{tally}");
    }
    assert_eq!(names.map(|name| bed.web().requests_of(&name)), [0, 0], "a server that is not ready gets no request");
}

/// With `rise 1`, a check of the previous server is in flight when `--once` starts: it waits for its end, and leaves no
/// slot parked.
#[test]
fn one_turn_opens_what_it_fills() {
    let bed = bed_with_table("gate-once", 4, 2);
    let config = backend("", false).replace("rise 3", "rise 1");
    let haproxy = Config::of(&config).start(&bed, &[BACK]);
    let once = || client(&bed, 4, "http-back:web:$WEB").once();
    once().assert_code(0);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    boot(&bed, 3);
    bed.web().set_check_behaviour("i-2", Behaviour::Slow(Duration::from_secs(2)));
    let checks = bed.web().checks_of("i-2");
    wait_for("a check that takes its time", SOON, || {
        if bed.web().checks_of("i-2") > checks + 1 { Ok(()) } else { Err("not yet") }
    });
    seat(&bed, 2, 3);
    once().assert_code(0);
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    assert!(haproxy.server(BACK, "web2").addr.starts_with(&format!("{}:", address(3))));
}

/// As in a database cluster's file: a check asks each member whether it is the primary, and one that no longer is loses
/// its sessions. A replica joins; hsdo is stopped; the replica becomes the primary.
#[test]
fn a_replica_that_becomes_the_primary_serves_without_hsdo() {
    let bed = bed_with_table("gate-primary", 5, 0);
    let config = "backend http-back\n    option httpchk GET /check\n    http-check expect status 200\n    \
                  default-server inter 100ms fall 1 rise 2 on-marked-down shutdown-sessions\n    \
                  server-template web 1-5 127.0.0.2:80 check disabled\n";
    for host in 1..=2 {
        boot(&bed, host);
        bed.web().set_behaviour(&format!("i-{host}"), Behaviour::Status(503));
        seat(&bed, host, host);
    }
    bed.web().set_behaviour("i-1", Behaviour::Well);
    let haproxy = Config::of(config).start(&bed, &[BACK]);
    let mut running = client(&bed, 5, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10)]);
    boot(&bed, 5);
    bed.web().set_behaviour("i-5", Behaviour::Status(503));
    seat(&bed, 5, 5);
    wait_down(&haproxy, "web5", 5);
    running.wait_metric("hsdo_haproxy_waiting_slots", |waiting| waiting >= 1.0);
    assert!(running.terminate().success());

    primary(&bed, &haproxy, "i-1", "i-5");
    haproxy.wait_weights(BACK, &[("web5", 10)]);
    let tally = traffic::send(haproxy.frontend(BACK), 5);
    assert_eq!((tally.of("i-5"), tally.failures.len()), (5, 0), "{tally}");
}

fn primary(bed: &Bed, haproxy: &Haproxy, before: &str, after: &str) {
    assert_eq!(bed.web().requests_of(after), 0);
    bed.web().set_behaviour(before, Behaviour::Status(503));
    bed.web().set_behaviour(after, Behaviour::Well);
    wait_for("the one before to be down", SOON, || {
        let servers = haproxy.servers(BACK);
        if servers["web1"].status.starts_with("DOWN") { Ok(()) } else { Err(format!("{servers:?}")) }
    });
}
