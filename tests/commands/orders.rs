//! `hsdo drain` and `hsdo enable`. HAProxy: `check inter 100ms rise 2 fall 2`, round robin, a template of six servers.

use std::thread;

use serde_json::{Value, json};

use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Outcome, Running};
use crate::common::wait::{SOON, wait_for};

const BACK: &str = "http-back";
const SIZE: &str = "6";

fn order(bed: &Bed, words: &str) -> Hsdo {
    let hsdo = Hsdo::with_aws(bed, "order").env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", SIZE);
    let hsdo = hsdo.env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web-a,web-b");
    words.split_whitespace().fold(hsdo, Hsdo::arg)
}

fn document(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error} in {outcome}"))
}

/// Two groups, each in a zone of its own, and the server that leads.
struct Scene {
    // Fields drop in this order.
    server: Running,
    bed: Bed,
}

impl Scene {
    fn set(name: &str, counts: [usize; 2]) -> Self {
        let bed = Bed::new(name);
        bed.moto().create_table();
        for (index, group) in ["web-a", "web-b"].into_iter().enumerate() {
            bed.moto().create_group(group, index, counts[index]);
        }
        let server = Scene::server(&bed).spawn();
        let mut scene = Scene { server, bed };
        scene.server.wait_metric(r#"hsdo_slots{state="enabled"}"#, |count| count == (counts[0] + counts[1]) as f64);
        scene
    }

    fn server(bed: &Bed) -> Hsdo {
        Hsdo::server(bed)
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", SIZE)
            .env("SERVER_ASG_NAMES", "web-a,web-b")
            .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
            .env("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", "10")
    }

    fn instance(&self, group: &str, index: usize) -> String {
        self.bed.moto().instances(group)[index].id.clone()
    }

    /// The rows are in these states; `-` is free.
    #[track_caller]
    fn wait_states(&self, wanted: &str) {
        wait_for(&format!("the rows {wanted}"), SOON, || {
            let rows = self.bed.moto().items();
            let state = |item: &Value| match (item["IPAddress"]["S"].as_str(), &item["Weight"]["N"]) {
                (Some("none"), _) => "-".to_owned(),
                (_, weight) => format!(
                    "{}{}",
                    &item["BackendServerStatus"]["S"].as_str().unwrap_or("?")[..1],
                    weight.as_str().unwrap_or("?")
                ),
            };
            let found: Vec<String> = rows.values().map(|item| state(&json!(item))).collect();
            let found = found.join(" ");
            if found == wanted { Ok(()) } else { Err(found) }
        });
    }

    fn orders(&self) -> Value {
        self.bed.moto().items().get(&1).map_or(Value::Null, |item| json!(item)["HsdoOrders"]["M"].clone())
    }
}

#[test]
fn an_order_takes_a_zone_out_on_every_haproxy_and_its_end_brings_it_back() {
    let mut scene = Scene::set("order-zone", [2, 2]);
    let bed = &scene.bed;
    bed.serve_instances(&["web-a", "web-b"]);
    let haproxy = Haproxy::start(bed, &[BackendConfig::new(BACK, "mywebapp", 6)]);
    let _client = Hsdo::client(bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", SIZE).spawn();
    let all = [("mywebapp1", 10), ("mywebapp2", 10), ("mywebapp3", 10), ("mywebapp4", 10)];
    haproxy.wait_weights(BACK, &all);

    let shown = order(bed, "drain zone:eu-west-1a --dry-run").run();
    shown.assert_code(0).assert_stdout("2 of 4 serving servers (50 %) drain").assert_stdout("not given (--dry-run)");
    assert_eq!(scene.orders(), Value::Null);

    let given = order(bed, "drain zone:eu-west-1a --for 2h --note").arg("patch day").run();
    given.assert_code(0).assert_stdout("2 of 4 serving servers").assert_stdout("(for 2 h 0 min)");
    given.assert_stdout("arn:aws:sts::123456789012:user/moto").assert_stdout("which leads, carries it out");
    scene.wait_states("d0 d0 e10 e10 - -");
    haproxy.wait_weights(BACK, &all[2..]);
    scene.server.wait_metric(r#"hsdo_orders{kind="zone"}"#, |count| count == 1.0);
    scene.server.wait_log("order on zone:eu-west-1a by arn:aws:sts::123456789012:user/moto");
    let (_, page) = scene.server.get("/").expect("a page");
    assert!(page.contains("order on zone:eu-west-1a") && page.contains("patch day; in slots 1, 2"), "{page}");
    let (_, status) = scene.server.get("/status").expect("a report");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(
        (&status["orders"][0]["target"], &status["orders"][0]["slots"]),
        (&json!("zone:eu-west-1a"), &json!([1, 2]))
    );

    // A newcomer of the zone gets no slot, and one that leaves frees its slot, which stays empty.
    bed.moto().set_desired("web-a", 3);
    bed.serve_instances(&["web-a"]);
    let kept_out = (0..3)
        .map(|index| scene.instance("web-a", index))
        .find(|id| !bed.moto().items().values().any(|item| json!(item)["ServerName"]["S"] == id.as_str()));
    let kept_out = kept_out.expect("a third instance");
    scene.server.wait_turn();
    scene.server.wait_turn();
    scene.wait_states("d0 d0 e10 e10 - -");
    let why = order(bed, &format!("why {kept_out}")).run();
    why.assert_code(0).assert_stdout("kept-out: ready, but gets no slot: order on zone:eu-west-1a by arn:");
    order(bed, "why slot:1")
        .run()
        .assert_code(0)
        .assert_stdout("draining: takes no new traffic: order on zone:eu-west-1a");
    order(bed, "status").run().assert_code(0).assert_stdout("ORDER ON").assert_stdout("patch day");

    let wrong = order(bed, "enable slot:1").run();
    wrong.assert_code(1).assert_stderr("no order on slot:1: held by the order on zone:eu-west-1a");
    wrong.assert_stderr("hsdo enable zone:eu-west-1a");
    order(bed, "enable zone:eu-west-1a").run().assert_code(0).assert_stdout("2 servers ramp up again");
    scene.wait_states("e10 e10 e10 e10 e10 -");
    scene.server.wait_log("lifted: order on zone:eu-west-1a");
    assert_eq!(scene.orders(), Value::Null);
    haproxy.wait_weights(BACK, &[all.as_slice(), &[("mywebapp5", 10)]].concat());

    // One that lapses.
    order(bed, "drain slot:3 --for 2s").run().assert_code(0);
    scene.server.wait_log("over: order on slot:3");
    scene.wait_states("e10 e10 e10 e10 e10 -");
    wait_for("the lapsed order to be removed", SOON, || match scene.orders() {
        Value::Null => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn the_last_servers_serve_on_and_taking_them_needs_a_yes() {
    let mut scene = Scene::set("order-last", [2, 1]);
    let bed = &scene.bed;
    let most = order(bed, "drain group:web-a").run();
    most.assert_code(1).assert_stdout("2 of 3 serving servers").assert_stdout("repeat it with --yes");
    let json = document(&order(bed, "drain zone:eu-west-1a slot:3 --json").run());
    assert_eq!((&json["done"], &json["taken"], &json["serving"]), (&json!(false), &json!(3), &json!(3)), "{json}");
    assert_eq!(scene.orders(), Value::Null, "nothing is written");

    let all = order(bed, "drain group:web-a group:web-b --yes").run();
    all.assert_code(0)
        .assert_stdout("all 3 serving servers: until others have weight, they serve on as the last resort");
    scene.wait_states("d10 d10 d10 - - -");
    scene.server.wait_log(
        "no ready server has weight: draining servers serve on in slots 1, 2, 3; against an order in slots 1, 2, 3",
    );
    order(bed, "enable group:web-b").run().assert_code(0);
    scene.wait_states("d0 d0 e10 - - -");
}

#[test]
fn an_order_about_an_instance_ends_with_it_and_one_about_a_slot_keeps_it_empty() {
    let mut scene = Scene::set("order-instance", [3, 0]);
    let bed = &scene.bed;
    let first = scene.instance("web-a", 0);
    order(bed, &format!("drain {first}")).run().assert_code(0);
    order(bed, "drain slot:2").run().assert_code(0);
    scene.wait_states("d0 d0 e10 - - -");
    // Standby sets it aside, which is not its end.
    bed.moto().enter_standby("web-a", &first);
    scene.wait_states("- d0 e10 - - -");
    scene.server.wait_turn();
    assert!(scene.orders()[&first].is_object(), "{}", scene.orders());
    bed.moto().exit_standby("web-a", &first);
    scene.server.wait_turn();
    scene.wait_states("- d0 e10 - - -");
    bed.moto().terminate_in_group(&first, true);
    scene.server.wait_log(&format!("ended with its instance: order on {first}"));
    wait_for("only the slot's order to be left", SOON, || match scene.orders() {
        left if left[&first].is_null() && left["slot:2"].is_object() => Ok(()),
        other => Err(other.to_string()),
    });
    let second = bed.moto().items()[&2].clone();
    let second = json!(second)["ServerName"]["S"].as_str().expect("a name").to_owned();
    bed.moto().terminate_in_group(&second, false);
    scene.wait_states("e10 - e10 - - -");
    order(bed, "why slot:2").run().assert_code(0).assert_stdout("kept-empty: kept empty: order on slot:2");
    let unknown = order(bed, &format!("drain {first}")).run();
    unknown.assert_code(1).assert_stderr(&format!("no row holds {first}, and EC2 has it as terminated"));
}

#[test]
fn what_is_no_order_is_refused_and_changes_nothing() {
    let scene = Scene::set("order-bad", [1, 1]);
    let bed = &scene.bed;
    for (words, text) in [
        ("drain", "no target: name slot:3"),
        ("enable", "no target: name slot:3"),
        ("drain zone:", "it is empty"),
        ("drain slot:0", "not a slot number, 1 to 10000"),
        ("drain 10.0.0.0/24", "not an address"),
        ("drain slot:1 --for 0s", "an order needs some time"),
        ("drain slot:1 --for soon", "not a duration; write it as 90s, 15m, 2h or 1d"),
        ("drain slot:1 --for 400d", "longer than 366 days"),
        ("drain slot:1 --for 1h --for 2h", "--for is given twice"),
        ("enable slot:1 --for 1h", "unknown flag \"--for\""),
        ("enable slot:1 --yes", "unknown flag \"--yes\""),
        ("status --dry-run", "unknown flag \"--dry-run\""),
    ] {
        order(bed, words).run().assert_code(2).assert_stderr(text);
    }
    order(bed, "drain slot:1 --note")
        .arg(&"x".repeat(201))
        .run()
        .assert_code(2)
        .assert_stderr("longer than 200 characters");
    order(bed, "drain slot:1 --note").arg("a\nb").run().assert_code(2).assert_stderr("line break");
    for (words, text) in [
        ("drain zone:eu-west-1z", "nobody is in zone eu-west-1z; the servers are in eu-west-1a, eu-west-1b"),
        ("drain group:web", "nobody is in group web; the servers are in web-a, web-b"),
        ("drain slot:7", "slot:7 has no row, and is above HAPROXY_BACKEND_SERVERS_LIST_SIZE, 6"),
        ("drain i-0123456789abcdef0", "no row holds i-0123456789abcdef0"),
        ("drain slot:1 zone:eu-west-1z", "nobody is in zone eu-west-1z"),
        ("enable slot:1", "no order on slot:1: nothing holds it"),
        ("enable slot:1 zone:eu-west-1z", "no order on zone:eu-west-1z: nobody is there"),
    ] {
        order(bed, words).run().assert_code(1).assert_stderr(text);
    }
    assert_eq!(scene.orders(), Value::Null);

    // Edits by hand.
    bed.moto().update_item(1, &json!({"HsdoOrders": {"S": "drain all"}}));
    order(bed, "drain slot:1")
        .run()
        .assert_code(1)
        .assert_stderr("HsdoOrders of slot 1's item")
        .assert_stderr("remove the attribute");
    scene.wait_states("e10 e10 - - - -");
    bed.moto()
        .update_item(1, &json!({"HsdoOrders": {"M": {"slot:2": {"M": {"Until": {"S": "x"}}}, "odd:\n": {"N": "1"}}}}));
    order(bed, "status")
        .run()
        .assert_code(0)
        .assert_stdout("no order, as it cannot be read: \"slot:2\": Until is not a number");
    order(bed, "drain slot:1").run().assert_code(0);
    scene.wait_states("d0 e10 - - - -");
    assert!(scene.orders()["odd:\n"].is_object(), "what is not understood stays: {}", scene.orders());
    order(bed, "enable slot:2 slot:1").run().assert_code(0);
    scene.wait_states("e10 e10 - - - -");
    assert!(scene.orders()["slot:2"].is_null(), "{}", scene.orders());
    // A whole item of 4 KB costs clients nothing more.
    let notes = |id: u32| order(bed, &format!("drain 10.9.9.{id} --note")).arg(&"n".repeat(200)).run();
    let full = (1..=20).map(notes).find(|outcome| !outcome.status.success()).expect("no room");
    full.assert_code(1).assert_stderr("of 4000; lift orders");
    bed.moto().remove_attribute(1, "HsdoOrders");
    drop(scene.server);
    scene.bed.moto().delete_item(1);
    order(&scene.bed, "drain slot:2 --yes")
        .run()
        .assert_code(1)
        .assert_stderr("has no row of slot 1, where orders are kept");
}

#[test]
fn orders_from_many_shells_at_once_are_all_there_and_come_back_with_a_lost_row() {
    let scene = Scene::set("order-many", [1, 1]);
    let bed = &scene.bed;
    thread::scope(|scope| {
        for id in 1..=6 {
            scope.spawn(move || order(bed, &format!("drain 10.9.9.{id}")).run().assert_code(0).to_string());
        }
    });
    let count = || scene.orders().as_object().map_or(0, serde_json::Map::len);
    assert_eq!(count(), 6, "{}", scene.orders());
    order(bed, "drain slot:1").run().assert_code(0);
    scene.wait_states("d0 e10 - - - -");
    bed.moto().delete_item(1);
    scene.wait_states("d0 e10 - - - -");
    wait_for("all orders to be back", SOON, || if count() == 7 { Ok(()) } else { Err(scene.orders().to_string()) });
}

#[test]
fn an_order_needs_neither_auto_scaling_nor_an_answer_that_arrives() {
    let mut scene = Scene::set("order-away", [1, 2]);
    scene.bed.aws().inject("DescribeAutoScalingGroups", Fault::Close);
    scene.server.wait_log("cannot be reached");
    order(&scene.bed, "drain group:web-a").run().assert_code(0).assert_stdout("all of zone:eu-west-1a, group:web-a");
    scene.wait_states("d0 e10 e10 - - -");
    order(&scene.bed, "enable group:web-a").run().assert_code(0);
    scene.wait_states("e10 e10 e10 - - -");

    scene.server.terminate();
    scene.bed.aws().heal();
    scene.bed.aws().inject("UpdateItem", Fault::Lose);
    order(&scene.bed, "drain slot:1")
        .run()
        .assert_code(0)
        .assert_stdout("given, in table hsdo")
        .assert_stdout("nobody carries it out yet");
    assert!(scene.orders()["slot:1"].is_object(), "{}", scene.orders());
    // It is not carried out yet, but counts.
    order(&scene.bed, "drain slot:2")
        .run()
        .assert_code(1)
        .assert_stdout("with what is ordered already, that is more than half");
    scene.bed.aws().heal();
    scene.bed.aws().inject("UpdateItem", Fault::Close);
    order(&scene.bed, "drain 10.9.9.9").run().assert_code(1);
    assert!(scene.orders()["10.9.9.9"].is_null(), "{}", scene.orders());
}
