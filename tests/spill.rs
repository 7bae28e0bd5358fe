//! Spillover on a real HAProxy: `check inter 100ms rise 2 fall 2`, a template of six servers, two of them in each of three zones.

mod common;

use std::time::Duration;

use serde_json::{Value, json};

use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::traffic::{self, Stream};
use common::wait::{SOON, wait_for};

const BACK: &str = "http-back";

struct Scene {
    bed: Bed,
    haproxy: Haproxy,
}

impl Scene {
    /// Every server has weight 10. The load balancer is in zone a, with slots 1 and 2.
    fn set(name: &str) -> Self {
        let bed = Bed::new(name);
        rows(&bed);
        // One server of several that stops answering is tried again elsewhere.
        let backend = BackendConfig::new(BACK, "web", 6).line("option redispatch 1").line("retries 3");
        let haproxy = Haproxy::start(&bed, &[backend]);
        Scene { bed, haproxy }
    }

    fn client(&self) -> Hsdo {
        Hsdo::client(&self.bed)
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACK}:web:{}", self.bed.web().port()))
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "6")
            .env("CLIENT_DEDICATED_ZONE", "true")
            .env("CLIENT_ZONE_NAMES", "a")
            .env("CLIENT_SPILL_BELOW", "70")
    }

    /// The weights of all six servers: 0 for one that takes no new traffic.
    #[track_caller]
    fn wait_weights(&self, weights: [u32; 6]) {
        let names: Vec<String> = (1..=6).map(|id| format!("web{id}")).collect();
        let serving = names.iter().zip(weights).filter(|(_, weight)| *weight > 0);
        let wanted: Vec<(&str, u32)> = serving.map(|(name, weight)| (name.as_str(), weight)).collect();
        self.haproxy.wait_weights(BACK, &wanted);
    }
}

/// Six servers that answer, two in each zone.
fn rows(bed: &Bed) {
    bed.moto().create_table();
    for id in 1..=6 {
        serve(bed, id);
        bed.moto().put_server(id, &address(id), &format!("i-{id}"), Some("web"), 10);
        let zone = ["a", "b", "c"][(id as usize - 1) / 2];
        bed.moto().update_item(id, &json!({"HsdoZone": {"S": zone}}));
    }
}

fn address(id: u32) -> String {
    format!("127.1.3.{id}")
}

fn serve(bed: &Bed, id: u32) {
    bed.web().serve(&format!("i-{id}"), address(id).parse().expect("an address"));
}

fn share(client: &Running) -> Option<f64> {
    client.metric(r#"hsdo_spill_share{backend="http-back"}"#)
}

#[test]
fn others_come_in_while_the_own_zone_is_short_and_leave_when_it_is_not() {
    let scene = Scene::set("spill");
    let mut client = scene.client().spawn();
    scene.wait_weights([10, 10, 0, 0, 0, 0]);
    client.wait_turn();
    assert_eq!((share(&client), client.metric("hsdo_spill_slots")), (Some(0.0), Some(0.0)));
    assert!(!client.log().contains("spillover"), "a fresh HAProxy spills nothing: {}", client.log());

    // Half of the own weight is gone: 10 of a fair share of 20. Four others at 4/16 make up for it.
    let mut stream = Stream::start(scene.haproxy.frontend(BACK), Duration::from_millis(5), usize::MAX);
    scene.bed.web().stop("i-1");
    scene.wait_weights([0, 10, 3, 3, 3, 3]);
    client.wait_metric(r#"hsdo_spill_share{backend="http-back"}"#, |share| share == 0.25);
    client.wait_log(
        "spillover: backend http-back: 4 servers of others serve at 4/16 of their weight; the own ones that can serve have a weight of 10, and \
         their fair share is 20",
    );
    wait_for("the reason on the page", SOON, || {
        let report: Value = serde_json::from_str(&client.get("/status")?.1).map_err(|error| error.to_string())?;
        let backend = &report["haproxy"]["backends"][0];
        let told = (&backend["spill_share"], &backend["slots"][2]["cause"]);
        if told == (&json!(0.25), &json!("spilled")) { Ok(()) } else { Err(backend.to_string()) }
    });

    // The whole zone is gone: all of the others.
    scene.bed.web().stop("i-2");
    scene.wait_weights([0, 0, 10, 10, 10, 10]);
    assert_eq!(client.metric("hsdo_spill_slots"), Some(4.0));

    // Servers of the own zone that are new and never pass their check do not send the others away: not after 30 s either, as the end
    // of this test shows.
    scene.bed.moto().put_server(1, &address(7), "i-7", Some("web"), 10);
    scene.bed.moto().update_item(1, &json!({"HsdoZone": {"S": "a"}}));
    scene.wait_weights([0, 0, 10, 10, 10, 10]);

    // A client that starts goes on where its HAProxy is, and changes nothing.
    client.terminate();
    let sent = scene.haproxy.servers(BACK);
    let mut client = scene.client().spawn();
    client.wait_turn();
    client.wait_metric(r#"hsdo_spill_share{backend="http-back"}"#, |share| share == 1.0);
    assert_eq!(scene.haproxy.servers(BACK).keys().collect::<Vec<_>>(), sent.keys().collect::<Vec<_>>());
    scene.wait_weights([0, 0, 10, 10, 10, 10]);
    // Longer than a new server counts as fit, and the own weight has to be enough.
    wait_for("half a minute", 3 * SOON, || {
        let since = client.metric("process_start_time_seconds").expect("a process");
        let age = client.metric("hsdo_last_success_timestamp_seconds").expect("a turn") - since;
        if age > 33.0 { Ok(()) } else { Err(age.to_string()) }
    });
    scene.wait_weights([0, 0, 10, 10, 10, 10]);
    let tally = stream.stop();
    assert_eq!(tally.failures, [""; 0], "{tally}");

    // Back again: the own servers serve at once, the others leave half a minute later.
    scene.bed.web().serve("i-7", address(7).parse().expect("an address"));
    serve(&scene.bed, 2);
    scene.wait_weights([10, 10, 10, 10, 10, 10]);
    wait_for("the others to leave", 3 * SOON, || match scene.haproxy.active(BACK).as_slice() {
        [_, _] => Ok(()),
        more => Err(format!("{more:?}")),
    });
    scene.wait_weights([10, 10, 0, 0, 0, 0]);
    client.wait_log("spillover: recovered after");
    assert_eq!(scene.haproxy.server(BACK, "web3").weight, 0, "it drains");
    let tally = traffic::send(scene.haproxy.frontend(BACK), 10);
    assert_eq!((tally.of("i-7"), tally.of("i-2")), (5, 5), "{tally}");
}

/// What an operator takes out of the own zone counts as missing, and so does a slot that HAProxy does not have.
#[test]
fn held_and_missing_servers_are_not_fit() {
    let scene = Scene::set("spill-held");
    let client = scene.client().spawn();
    scene.wait_weights([10, 10, 0, 0, 0, 0]);
    scene.haproxy.command("set server http-back/web1 state maint");
    scene.wait_weights([0, 10, 3, 3, 3, 3]);
    let sent = scene.bed.moto().items().len();
    assert_eq!(sent, 6, "nothing is written to the table");
    // Why, with the words of the page.
    let why = Hsdo::with_aws(&scene.bed, "why")
        .env("CLIENT_HAPROXY_SOCKET_PATH", &scene.bed.socket().to_string_lossy())
        .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACK}:web:{}", scene.bed.web().port()))
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "6")
        .env("CLIENT_DEDICATED_ZONE", "true")
        .env("CLIENT_ZONE_NAMES", "a")
        .env("CLIENT_SPILL_BELOW", "70");
    why.arg("why").arg("slot:3").run().assert_code(0).assert_stdout("spilled: serves here at a share of its weight 10");
    // An emptied own slot is none that could serve: the fair share falls with it.
    scene.bed.moto().put_free(1);
    scene.wait_weights([0, 10, 3, 3, 3, 3]);
    drop(client);
}

/// The own zone died while the client was away: HAProxy has found that, and nobody waits for a first check.
#[test]
fn a_client_that_starts_on_a_dead_zone_spills_at_once() {
    let scene = Scene::set("spill-start");
    let mut client = scene.client().spawn();
    scene.wait_weights([10, 10, 0, 0, 0, 0]);
    client.terminate();
    scene.bed.web().stop("i-1");
    scene.bed.web().stop("i-2");
    scene.wait_weights([0; 6]);
    let outcome = scene.client().once();
    outcome.assert_code(0);
    scene.wait_weights([0, 0, 10, 10, 10, 10]);
    // Held by an operator while no client runs, one that came in stays out.
    scene.haproxy.command("set server http-back/web3 state maint");
    let mut client = scene.client().spawn();
    client.wait_turn();
    client.wait_metric("hsdo_haproxy_held_slots", |held| held == 1.0);
    scene.wait_weights([0, 0, 0, 10, 10, 10]);
}

/// The configuration that conf/README.md advises. HAProxy: the check `observe`s connections and marks a server down at the first
/// refusal, `retries 5`, `option redispatch 1`, and a backup server that leads to the fallback backend.
#[test]
fn a_zone_that_dies_at_once_costs_no_request() {
    let bed = Bed::new("spill-death");
    rows(&bed);
    let door = bed.dir().join("others.sock");
    let options = "check inter 100ms rise 2 fall 2 observe layer4 error-limit 1 on-error mark-down";
    let backend = BackendConfig::new(BACK, "web", 6)
        .options(options)
        .line("option redispatch 1")
        .line("retries 5")
        .line(&format!("server others unix@{} backup", door.display()));
    let others = BackendConfig::new("others", "o", 6).rule(&format!("bind unix@{}", door.display()));
    let haproxy = Haproxy::start(&bed, &[backend, others]);
    let scene = Scene { bed, haproxy };
    let mut client = scene
        .client()
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "others")
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "o")
        .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &scene.bed.web().port().to_string())
        .spawn();
    let serving = |names: &[&'static str]| {
        let own = names.iter().map(|name| (*name, 10));
        [("others", 1)].into_iter().chain(own).collect::<Vec<_>>()
    };
    scene.haproxy.wait_weights(BACK, &serving(&["web1", "web2"]));
    client.wait_turn();
    wait_for("the others in the fallback", SOON, || match scene.haproxy.active("others").len() {
        4 => Ok(()),
        count => Err(count.to_string()),
    });
    let port = scene.haproxy.frontend(BACK);
    let streams: Vec<Stream> = (0..8).map(|_| Stream::start(port, Duration::from_millis(3), usize::MAX)).collect();
    wait_for("requests on every stream", SOON, || {
        let counts: Vec<u64> = streams.iter().map(|stream| stream.so_far().answered()).collect();
        if counts.iter().all(|count| *count > 20) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    scene.bed.web().stop("i-1");
    scene.bed.web().stop("i-2");
    scene.haproxy.wait_weights(BACK, &serving(&["web3", "web4", "web5", "web6"]));
    client.wait_turn();
    for mut stream in streams {
        let tally = stream.stop();
        assert_eq!(tally.failures, [""; 0], "{tally}");
    }
}

/// Which server answers each of many keys. HAProxy: `balance uri`, `hash-type consistent`.
fn owners(port: u16) -> Vec<String> {
    let owner = |key: u32| traffic::get(port, &format!("/key/{key}")).expect("an answer");
    (0..400).map(owner).collect()
}

#[test]
fn a_key_moves_only_to_a_server_that_came_in_and_back() {
    let bed = Bed::new("spill-keys");
    rows(&bed);
    let backend = BackendConfig::new(BACK, "web", 6).balance("uri").line("hash-type consistent");
    let haproxy = Haproxy::start(&bed, &[backend.line("option redispatch 1").line("retries 3")]);
    let scene = Scene { bed, haproxy };
    let mut client = scene.client().spawn();
    scene.wait_weights([10, 10, 0, 0, 0, 0]);
    let port = scene.haproxy.frontend(BACK);
    let before = owners(port);
    assert!(["i-1", "i-2"].iter().all(|own| before.iter().any(|owner| owner == own)), "{before:?}");

    // Other zones churn.
    scene.bed.moto().put_free(3);
    scene.bed.moto().put_server(4, &address(8), "i-8", Some("web"), 10);
    scene.bed.moto().update_item(4, &json!({"HsdoZone": {"S": "b"}}));
    client.wait_turn();
    client.wait_turn();
    assert_eq!(owners(port), before, "no key moves");
    for (id, host) in [(3, 3), (4, 4)] {
        scene.bed.moto().put_server(id, &address(host), &format!("i-{host}"), Some("web"), 10);
        scene.bed.moto().update_item(id, &json!({"HsdoZone": {"S": "b"}}));
    }
    client.wait_turn();

    // An own server dies: the keys of the other stay, or go to one that came in.
    scene.bed.web().stop("i-1");
    scene.wait_weights([0, 10, 3, 3, 3, 3]);
    let short = owners(port);
    let came_in = |owner: &str| ["i-3", "i-4", "i-5", "i-6"].contains(&owner);
    for (was, is) in before.iter().zip(&short) {
        assert!(is != "i-1" && (was == is || came_in(is) || (was == "i-1" && is == "i-2")), "from {was} to {is}");
    }
    assert!(short.iter().any(|owner| came_in(owner)), "{short:?}");

    // It is back: every key of an own server is where it was, or still with one that came in; and in the end all are.
    serve(&scene.bed, 1);
    scene.wait_weights([10, 10, 3, 3, 3, 3]);
    for (was, is) in before.iter().zip(&owners(port)) {
        assert!(was == is || came_in(is), "from {was} to {is}");
    }
    wait_for("the others to leave", 3 * SOON, || match scene.haproxy.active(BACK).as_slice() {
        [_, _] => Ok(()),
        more => Err(format!("{more:?}")),
    });
    assert_eq!(owners(port), before);
}

/// The leader lets the last servers serve on that orders would take: here they are in another zone than the load balancer's.
#[test]
fn the_last_resort_of_orders_helps_other_zones_too() {
    let scene = Scene::set("spill-last");
    let mut client = scene.client().spawn();
    scene.wait_weights([10, 10, 0, 0, 0, 0]);
    let drain = |id, weight: &str| {
        let row = json!({"BackendServerStatus": {"S": "draining"}, "Weight": {"N": weight}});
        scene.bed.moto().update_item(id, &row);
    };
    let mut stream = Stream::start(scene.haproxy.frontend(BACK), Duration::from_millis(5), usize::MAX);
    [1, 2, 3, 4].into_iter().for_each(|id| drain(id, "0"));
    scene.wait_weights([0, 0, 0, 0, 10, 10]);
    [5, 6].into_iter().for_each(|id| drain(id, "10"));
    client.wait_turn();
    client.wait_turn();
    scene.wait_weights([0, 0, 0, 0, 10, 10]);
    let tally = stream.stop();
    assert_eq!(tally.failures, [""; 0], "{tally}");

    // Without spillover there is nobody, which somebody should know.
    client.terminate();
    let mut client = scene.client().env("CLIENT_SPILL_BELOW", "0").spawn();
    client.wait_log("http-back: none of the own servers has weight here, and no others come in (CLIENT_SPILL_BELOW)");
    wait_for("the reason in /readyz", SOON, || match client.get("/readyz")?.1 {
        text if text.contains("none of the own servers has weight") => Ok(()),
        text => Err(text),
    });
}
