//! Web servers that keep connections open, as real ones do: what HAProxy does with a connection that was in use when its slot got
//! another instance.

use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::fixture::{BACK, Config, address, bed_with_table, client, seat, state};
use crate::common::bed::Bed;
use crate::common::haproxy::Haproxy;
use crate::common::http::{Listener, Response, read_request, write_response};
use crate::common::wait::{SOON, wait_for};

/// `http-reuse` is `safe`, as by default, and clients keep their connections too.
const CONFIG: &str = "backend http-back\n    balance roundrobin\n    use-server web2 if { path_beg /two }\n    \
                      server-template web 1-3 127.0.0.2:80 check inter 100ms disabled\n";

/// Requests after the swap: more than any pool would hold.
const REQUESTS: u64 = 50;

/// A web server on `i-<host>` that keeps connections open, counts requests, and holds those for `/two/held` until it is told.
struct Lasting {
    requests: Arc<AtomicU64>,
    release: Arc<AtomicBool>,
    _listener: Listener,
}

impl Lasting {
    fn start(bed: &Bed, host: u32) -> Self {
        let (requests, release) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, released) = (Arc::clone(&requests), Arc::clone(&release));
        let serve = move |mut reader: BufReader<TcpStream>| {
            while let Ok(Some(request)) = read_request(&mut reader) {
                count.fetch_add(1, Ordering::SeqCst);
                while request.target == "/two/held" && !released.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
                let response = Response { status: 200, headers: Vec::new(), body: format!("i-{host}").into() };
                if write_response(reader.get_mut(), &response, false).is_err() {
                    return;
                }
            }
        };
        let place = SocketAddr::new(address(host).parse().expect("an address"), bed.web().port());
        let listener = Listener::start(place, serve).expect("the address is free");
        Lasting { requests, release, _listener: listener }
    }
}

/// A client that keeps its connection.
fn browser() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).proxy(None);
    ureq::Agent::new_with_config(config.build())
}

fn get(browser: &ureq::Agent, haproxy: &Haproxy, path: &str) -> String {
    let url = format!("http://127.0.0.1:{}{path}", haproxy.frontend(BACK));
    let mut answer = browser.get(url).call().unwrap_or_else(|error| panic!("{path}: {error}"));
    answer.body_mut().read_to_string().expect("a body")
}

#[test]
fn a_connection_of_the_server_before_gets_no_request_for_its_successor() {
    let bed = bed_with_table("reuse", 3, 1);
    let (before, after) = (Lasting::start(&bed, 2), Lasting::start(&bed, 3));
    seat(&bed, 2, 2);
    let haproxy = Config::of(CONFIG).start(&bed, &[BACK]);
    let mut running = client(&bed, 3, "http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);

    let browser = browser();
    assert_eq!(get(&browser, &haproxy, "/two/first"), "i-2");
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| sender.send(get(&browser, &haproxy, "/two/held")));
        wait_for("the request to be held", SOON, || match before.requests.load(Ordering::SeqCst) {
            2 => Ok(()),
            count => Err(count),
        });
        seat(&bed, 2, 3);
        wait_for("the slot to leave its old address", SOON, || {
            let now = state(&haproxy, BACK, "web2", 4);
            if now == address(2) { Err(now) } else { Ok(()) }
        });
        // Time enough for a client that does not wait.
        running.wait_turn();
        running.wait_turn();
        before.release.store(true, Ordering::SeqCst);
    });
    assert_eq!(receiver.recv().as_deref(), Ok("i-2"), "a request in flight ends where it began");
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    assert_eq!(state(&haproxy, BACK, "web2", 4), address(3));
    for number in 0..REQUESTS {
        assert_eq!(get(&browser, &haproxy, &format!("/two/{number}")), "i-3", "request {number}\n{}", running.log());
    }
    assert_eq!((before.requests.load(Ordering::SeqCst), after.requests.load(Ordering::SeqCst)), (2, REQUESTS));
    running.terminate();
}
