//! Which instances serve, and how much each: patterns and tags of groups, addresses, weights by size, group and tag, ports. HAProxy:
//! `check inter 100ms rise 2 fall 2`, round robin.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use common::aws_proxy::{Fault, SEARCH};
use common::bed::Bed;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::http::lock;
use common::moto::text_of;
use common::port::Port;
use common::traffic::{self, Stream};
use common::wait::{SOON, wait_for};
use common::web::Web;

const BACK: &str = "http-back";
const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;

fn bed(name: &str, groups: &[(&str, usize)]) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    for (group, count) in groups {
        bed.moto().create_group(group, 0, *count);
    }
    let names: Vec<&str> = groups.iter().map(|(group, _)| *group).collect();
    bed.serve_instances(&names);
    bed
}

fn ids(bed: &Bed, group: &str) -> Vec<String> {
    bed.moto().instances(group).into_iter().map(|instance| instance.id).collect()
}

/// A ramp from 2 to 20 by 6, in three steps of 0.4 s.
fn server(bed: &Bed) -> Hsdo {
    Hsdo::server(bed)
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "2")
        .env("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", "20")
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "6")
}

fn tag(bed: &Bed, id: &str, key: &str, value: &str) {
    let tag = [("ResourceId.1", id), ("Tag.1.Key", key), ("Tag.1.Value", value)];
    bed.moto().ec2("CreateTags", &tag);
}

fn tag_group(bed: &Bed, group: &str, key: &str, value: &str) {
    let tag = [
        ("Tags.member.1.ResourceId", group),
        ("Tags.member.1.ResourceType", "auto-scaling-group"),
        ("Tags.member.1.Key", key),
        ("Tags.member.1.Value", value),
        ("Tags.member.1.PropagateAtLaunch", "false"),
    ];
    bed.moto().autoscaling("CreateOrUpdateTags", &tag);
}

/// What AWS says of instances besides what moto does, by their ids: moto knows neither CPUs nor IPv6 addresses, and no weights of groups.
type Said = Arc<Mutex<BTreeMap<String, String>>>;

fn says(bed: &Bed, operation: &str, texts: Vec<(String, String)>) -> Said {
    let (open, close) = match operation {
        "DescribeInstances" => ("<instanceId>", "</instanceId>"),
        _ => ("<InstanceId>", "</InstanceId>"),
    };
    let said: Said = Arc::new(Mutex::new(texts.into_iter().collect()));
    let texts = Arc::clone(&said);
    let edit = move |body: String| {
        let texts = lock(&texts);
        let mut pieces = body.split(close);
        let mut edited = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let id = edited.rsplit(open).next().unwrap_or_default().to_owned();
            edited.push_str(close);
            edited.push_str(texts.get(&id).map(String::as_str).unwrap_or_default());
            edited.push_str(piece);
        }
        edited
    };
    bed.aws().inject(operation, Fault::Edit(Arc::new(edit)));
    said
}

/// The weights of the occupied rows by instance.
fn weights(bed: &Bed) -> BTreeMap<String, u32> {
    let weight =
        |item: &common::moto::Item| Some((text_of(item, "ServerName")?, text_of(item, "Weight")?.parse().ok()?));
    let mut weights: BTreeMap<String, u32> = bed.moto().rows().values().filter_map(weight).collect();
    weights.remove("none");
    weights
}

#[track_caller]
fn wait_table(bed: &Bed, wanted: &[(&String, u32)]) {
    let wanted: BTreeMap<String, u32> = wanted.iter().map(|(id, weight)| ((*id).clone(), *weight)).collect();
    wait_for(&format!("the weights {wanted:?}"), SOON, || {
        let found = weights(bed);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Shares of the requests, in percent.
fn shares(haproxy: &Haproxy, count: usize) -> BTreeMap<String, u64> {
    let tally = traffic::send(haproxy.frontend(BACK), count);
    assert!(tally.failures.is_empty(), "{tally}");
    tally.answers.iter().map(|(name, answers)| (name.clone(), 100 * answers / tally.answered())).collect()
}

fn status(role: &Running) -> Value {
    serde_json::from_str(&role.get("/status").expect("an exporter").1).expect("JSON")
}

/// A deployment replaces one group by another with a random end. The balancer is dedicated to the pattern, the rest is in its fallback;
/// both backends are exact after every step.
#[test]
fn a_blue_green_deployment_under_a_pattern_loses_no_request() {
    let bed = bed("blue-green", &[("web-4f2a", 2), ("api-1", 1), ("other", 1)]);
    let (blue, api) = (ids(&bed, "web-4f2a"), ids(&bed, "api-1"));
    let haproxy =
        Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 6), BackendConfig::new("fallback", "fb", 6)]);
    let mut server = server(&bed).env("SERVER_ASG_NAMES", "web-????,api-*").spawn();
    let mut client = Hsdo::client(&bed)
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "6")
        .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &bed.web().port().to_string())
        .env("CLIENT_DEDICATED_ASG", "true")
        .env("CLIENT_ASG_NAMES", "web-*")
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback")
        .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fb")
        .spawn();
    wait_table(&bed, &[(&blue[0], 20), (&blue[1], 20), (&api[0], 20)]);
    haproxy.wait_weights(BACK, &[("mywebapp1", 20), ("mywebapp2", 20)]);
    haproxy.wait_weights("fallback", &[("fb3", 20)]);
    assert!(server.log().contains("the patterns and tags of groups match 2: web-4f2a, api-1"), "{}", server.log());
    server.wait_turn();
    bed.aws().forget();
    server.wait_turn();
    assert_eq!(bed.aws().count(SEARCH), 0, "not every turn looks for groups");

    let mut requests = Stream::start(haproxy.frontend(BACK), Duration::from_millis(5), usize::MAX);
    bed.moto().create_group("web-9c1d", 0, 2);
    bed.serve_instances(&["web-9c1d"]);
    let green = ids(&bed, "web-9c1d");
    wait_for("the new group", Duration::from_secs(60), || {
        weights(&bed).contains_key(&green[0]).then_some(()).ok_or_else(|| format!("{:?}", weights(&bed)))
    });
    wait_table(&bed, &[(&blue[0], 20), (&blue[1], 20), (&api[0], 20), (&green[0], 20), (&green[1], 20)]);
    let all = [("mywebapp1", 20), ("mywebapp2", 20), ("mywebapp4", 20), ("mywebapp5", 20)];
    haproxy.wait_weights(BACK, &all);
    haproxy.wait_weights("fallback", &[("fb3", 20)]);
    assert!(server.log().contains("match 3: web-4f2a, web-9c1d, api-1"), "{}", server.log());

    // The old group goes, and its instances with it: that is no missing group.
    bed.moto().delete_group("web-4f2a");
    wait_table(&bed, &[(&api[0], 20), (&green[0], 20), (&green[1], 20)]);
    haproxy.wait_weights(BACK, &all[2..]);
    haproxy.wait_weights("fallback", &[("fb3", 20)]);
    client.wait_turn();
    let tally = requests.stop();
    assert!(tally.failures.is_empty() && tally.of(&green[0]) > 0, "{tally}");
    assert_eq!(server.metric("hsdo_missing_groups"), Some(0.0));

    // The last group of a pattern: the pattern is missing by its own spelling, and a running server would stay.
    bed.moto().delete_group("api-1");
    server.wait_metric("hsdo_missing_groups", |count| count == 1.0);
    server.wait_log("groups that do not exist: api-*: their servers stay until they are known to have ended");
    wait_table(&bed, &[(&green[0], 20), (&green[1], 20)]);
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}

#[test]
fn groups_are_found_by_their_tags() {
    let bed = bed("group-tags", &[("b", 1), ("a", 1), ("c", 1)]);
    for (group, tags) in [
        ("a", [("env", "prod"), ("hsdo", "yes")]),
        ("b", [("env", "prod"), ("hsdo", "")]),
        ("c", [("env", "test"), ("hsdo", "yes")]),
    ] {
        for (key, value) in tags {
            tag_group(&bed, group, key, value);
        }
    }
    let first = |group| ids(&bed, group).remove(0);
    let seats = || {
        bed.moto()
            .rows()
            .iter()
            .filter_map(|(id, item)| Some((*id, text_of(item, "ServerName")?)))
            .filter(|(_, name)| name != "none")
            .collect::<Vec<_>>()
    };
    // By name within an entry: a before b.
    server(&bed).env("SERVER_ASG_NAMES", "").env("SERVER_ASG_TAGS", "env=prod,hsdo").once().assert_code(0);
    assert_eq!(seats(), [(1, first("a")), (2, first("b"))]);

    let check = Hsdo::with_aws(&bed, "check").arg("check").arg("--server").env("SERVER_MODE", "aws");
    let check = check.env("SERVER_ASG_TAGS", "env=prod").env("SERVER_ASG_NAMES", "b*,c").run();
    check.assert_code(1).assert_stdout(r#"matches 1: "b" with 1 instances, all ready"#);
    check.assert_stdout(r#"group "c""#).assert_stdout("does not exist here");

    // Tags that nobody carries are a missing group by their spelling; the servers stay.
    let mut server = server(&bed).env("SERVER_ASG_NAMES", "").env("SERVER_ASG_TAGS", "env=none").spawn();
    server.wait_metric("hsdo_missing_groups", |count| count == 1.0);
    server.wait_log("groups that do not exist: env=none: their servers stay");
    assert_eq!(seats(), [(1, first("a")), (2, first("b"))]);
}

/// Without any answer nothing is known: not even the first search is taken for empty.
#[test]
fn a_failed_first_search_changes_nothing() {
    let bed = bed("search", &[("web-1", 1)]);
    bed.aws().inject(SEARCH, Fault::autoscaling(400, "Throttling"));
    let mut server = server(&bed).env("SERVER_ASG_NAMES", "web-*").spawn();
    server.wait_log("Throttling");
    assert!(bed.moto().rows().is_empty());
    bed.aws().heal();
    let web = ids(&bed, "web-1");
    wait_table(&bed, &[(&web[0], 20)]);
}

/// The search of a group that vanished hangs: that turn waits a moment for it, and all go on by the names that are known.
#[test]
fn a_search_that_hangs_costs_newcomers_alone() {
    let bed = bed("hanging-search", &[("web-1", 1), ("web-2", 1)]);
    let (first, second) = (ids(&bed, "web-1"), ids(&bed, "web-2"));
    let mut server = server(&bed).env("SERVER_ASG_NAMES", "web-*").spawn();
    wait_table(&bed, &[(&first[0], 20), (&second[0], 20)]);
    bed.aws().inject(SEARCH, Fault::Hang);
    bed.moto().delete_group("web-2");
    wait_table(&bed, &[(&first[0], 20)]);
    // moto ends the instances before it drops the group: the turn that empties the seat may still have seen the group.
    wait_for("a search that hangs", SOON, || if bed.aws().hanging() > 0 { Ok(()) } else { Err(server.log()) });
    bed.moto().set_desired("web-1", 2);
    let both = ids(&bed, "web-1");
    wait_table(&bed, &[(&both[0], 20), (&both[1], 20)]);
    bed.moto().set_desired("web-1", 0);
    wait_table(&bed, &[]);
    assert!(bed.aws().hanging() > 0 && server.metric(FAILED) == Some(0.0), "{}", server.log());
    bed.aws().heal();
    server.wait_turn();
}

/// An elastic address goes to somebody else: its server drains at once, and nobody new gets a slot without one.
#[test]
fn an_instance_that_loses_its_public_address_drains() {
    let bed = bed("public", &[("web", 2)]);
    let web = ids(&bed, "web");
    let public = |place: usize| (web[place].clone(), format!("<ipAddress>198.51.100.{}</ipAddress>", place + 1));
    let said = says(&bed, "DescribeInstances", vec![public(0), public(1)]);
    let mut server = server(&bed).env("SERVER_ADDRESS", "public").spawn();
    wait_table(&bed, &[(&web[0], 20), (&web[1], 20)]);
    assert_eq!(bed.moto().attribute(1, "IPAddress").as_deref(), Some("198.51.100.1"));
    lock(&said).remove(&web[0]);
    wait_table(&bed, &[(&web[0], 0), (&web[1], 20)]);
    server.wait_metric("hsdo_unseen_instances", |count| count == 1.0);
    assert_eq!(status(&server)["slots"][0]["reason"], "takes no new traffic: EC2 shows no usable public IPv4 address");
    lock(&said).extend([public(0)]);
    wait_table(&bed, &[(&web[0], 20), (&web[1], 20)]);
}

#[test]
fn weights_follow_the_size_of_each_machine() {
    let bed = bed("sizes", &[("web", 3)]);
    let web = ids(&bed, "web");
    let cores = |id: &String, cores: u32, threads: u32| {
        let text = format!(
            "<cpuOptions><coreCount>{cores}</coreCount><threadsPerCore>{threads}</threadsPerCore></cpuOptions>"
        );
        (id.clone(), text)
    };
    let known = vec![cores(&web[0], 1, 1), cores(&web[1], 1, 2), cores(&web[2], 2, 2)];
    let said = says(&bed, "DescribeInstances", known);
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 4)]);
    let mut server = server(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4").env("SERVER_WEIGHT_BY", "vcpu").spawn();
    let mut client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4").spawn();
    wait_table(&bed, &[(&web[0], 10), (&web[1], 20), (&web[2], 40)]);
    haproxy.wait_weights(BACK, &[("mywebapp1", 10), ("mywebapp2", 20), ("mywebapp3", 40)]);
    // All were seated in one turn, and all ramps ended in one.
    let ends: Vec<Option<String>> = (1..=3).map(|id| bed.moto().attribute(id, "LastWeightUpdate")).collect();
    assert!(ends[0].is_some() && ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    let found = shares(&haproxy, 700);
    for (id, share) in [(&web[0], 14), (&web[1], 29), (&web[2], 57)] {
        assert!(found[id].abs_diff(share) <= 3, "{id} has {found:?}");
    }

    // A larger newcomer moves nobody else's weight, not for one turn.
    let before = bed.moto().rows();
    bed.moto().set_desired("web", 4);
    bed.serve_instances(&["web"]);
    let all = ids(&bed, "web");
    let new = all.iter().find(|id| !web.contains(id)).expect("a new one");
    lock(&said).extend([cores(new, 8, 2)]);
    wait_table(&bed, &[(&web[0], 10), (&web[1], 20), (&web[2], 40), (new, 160)]);
    let after = bed.moto().rows();
    for id in 2..=3 {
        assert_eq!(after[&id], before[&id]);
    }
    let report = status(&server);
    let slot =
        report["slots"].as_array().expect("slots").iter().find(|slot| slot["instance"] == new.as_str()).expect("it");
    assert_eq!(
        (&slot["factor"], &slot["factor_from"], &slot["full_weight"]),
        (&Value::from(8.0), &Value::from("16 vCPUs of 2"), &Value::from(160))
    );
    let (_, page) = server.get("/").expect("an exporter");
    assert!(page.contains("×8: 16 vCPUs of 2"), "{page}");
    client.wait_turn();
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());

    let asked = |hsdo: Hsdo| {
        hsdo.env("SERVER_MODE", "aws")
            .env("SERVER_ASG_NAMES", "web")
            .env("SERVER_WEIGHT_BY", "vcpu")
            .env("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", "20")
    };
    let why = asked(Hsdo::with_aws(&bed, "why").arg("why").arg(new)).run();
    why.assert_code(0).assert_stdout("weight 160 of 160 (factor 8: 16 vCPUs of 2)");
    asked(Hsdo::with_aws(&bed, "check").arg("check").arg("--server"))
        .run()
        .assert_stdout("full weight 160 (16 vCPUs of 2: factor 8)");
    server.wait_turn();
}

#[test]
fn weights_follow_the_capacity_and_the_group() {
    let bed = bed("capacity", &[("web", 2), ("web-canary", 1), ("web-old", 1)]);
    let (web, canary, old) = (ids(&bed, "web"), ids(&bed, "web-canary"), ids(&bed, "web-old"));
    let capacity =
        |id: &String, capacity: u32| (id.clone(), format!("<WeightedCapacity>{capacity}</WeightedCapacity>"));
    says(&bed, "DescribeAutoScalingGroups", vec![capacity(&web[1], 3), capacity(&canary[0], 2)]);
    let hsdo = server(&bed)
        .env("SERVER_ASG_NAMES", "web,web-*")
        .env("SERVER_WEIGHT_BY", "capacity")
        .env("SERVER_ASG_WEIGHTS", "web-canary=0.2,web-o*=0");
    let mut server = hsdo.spawn();
    // A group that weighs nothing counts each as one; the old group is seated at weight 0.
    wait_table(&bed, &[(&web[0], 20), (&web[1], 60), (&canary[0], 8), (&old[0], 0)]);
    let idle = status(&server)["slots"][3].clone();
    assert_eq!((&idle["cause"], &idle["status"]), (&Value::from("idle"), &Value::from("enabled")), "{idle}");

    let check = Hsdo::with_aws(&bed, "check").arg("check").arg("--server").env("SERVER_MODE", "aws");
    let check = check.env("SERVER_ASG_NAMES", "web").env("SERVER_WEIGHT_BY", "vcpu").env("SERVER_ASG_WEIGHTS", "wbe=2");
    let checked = check.run();
    checked.assert_stdout("no group gets its factor from wbe=2 (SERVER_ASG_WEIGHTS)");
    checked.assert_stdout("EC2 does not tell the virtual CPUs of ");

    // All others leave: it serves although its factor is 0.
    for group in ["web", "web-canary"] {
        bed.moto().set_desired(group, 0);
    }
    wait_table(&bed, &[(&old[0], 2)]);
    server.wait_log(
        "no server with a factor has weight: servers whose factor is 0 serve in slots 4; correct SERVER_ASG_WEIGHTS",
    );
    assert_eq!(server.metric("hsdo_last_resort_servers"), Some(1.0));
    // Another one is there again: it goes back.
    bed.moto().set_desired("web", 1);
    let new = ids(&bed, "web");
    wait_table(&bed, &[(&new[0], 20), (&old[0], 0)]);
    server.wait_log("servers whose factor is 0 no longer serve as the last resort");
}

#[test]
fn tags_of_an_instance_set_its_weight_and_port_and_exclude_it() {
    let bed = bed("instance-tags", &[("web", 3)]);
    let web = ids(&bed, "web");
    let addresses: Vec<_> = bed.moto().instances("web").into_iter().map(|instance| instance.address).collect();
    let asked = |name: &'static str| {
        let hsdo = Hsdo::with_aws(&bed, name).env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web");
        hsdo.env("SERVER_INSTANCE_TAGS", "true").arg(name)
    };
    // One that never gets a slot is explained too.
    tag(&bed, &web[2], "hsdo:exclude", "true");
    asked("why").arg(&web[2]).run().assert_code(0).assert_stdout("gets no slot: tag hsdo:exclude");
    asked("check").arg("--server").run().assert_stdout("3 instances, 2 of them ready");
    tag(&bed, &web[2], "hsdo:exclude", "false");

    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 3)]);
    let mut server =
        server(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "3").env("SERVER_INSTANCE_TAGS", "true").spawn();
    let mut client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "3").spawn();
    wait_table(&bed, &[(&web[0], 20), (&web[1], 20), (&web[2], 20)]);
    let address = |slot: usize| haproxy.server(BACK, &format!("mywebapp{slot}")).addr;
    haproxy.wait_weights(BACK, &[("mywebapp1", 20), ("mywebapp2", 20), ("mywebapp3", 20)]);

    // Another port, once its check has passed; a weight by steps; out of the traffic.
    let second = Web::new(Port::reserve());
    second.serve("moved", addresses[0]);
    let mut requests = Stream::start(haproxy.frontend(BACK), Duration::from_millis(5), usize::MAX);
    tag(&bed, &web[0], "hsdo:port", &second.port().to_string());
    tag(&bed, &web[1], "hsdo:weight", "0.5");
    tag(&bed, &web[2], "hsdo:exclude", "true");
    wait_table(&bed, &[(&web[0], 20), (&web[1], 10), (&web[2], 0)]);
    haproxy.wait_weights(BACK, &[("mywebapp1", 20), ("mywebapp2", 10)]);
    assert_eq!(address(1), format!("{}:{}", addresses[0], second.port()));
    assert_eq!(address(2), format!("{}:{}", addresses[1], bed.web().port()));
    assert_eq!(bed.moto().attribute(1, "HsdoPort"), Some(second.port().to_string()));
    assert_eq!(bed.moto().attribute(3, "BackendServerStatus").as_deref(), Some("draining"));
    let tally = requests.stop();
    assert!(tally.failures.is_empty(), "{tally}");
    let tally = traffic::send(haproxy.frontend(BACK), 90);
    assert_eq!((tally.of("moved"), tally.of(&web[1]), tally.of(&web[2])), (60, 30, 0), "{tally}");
    assert_eq!(status(&server)["slots"][2]["reason"], "takes no new traffic: tag hsdo:exclude");

    // Faulty tags count as absent, and are named once.
    tag(&bed, &web[0], "hsdo:port", "70000");
    tag(&bed, &web[1], "hsdo:weight", "heavy");
    tag(&bed, &web[2], "hsdo:exclude", "no");
    wait_table(&bed, &[(&web[0], 20), (&web[1], 20), (&web[2], 20)]);
    haproxy.wait_weights(BACK, &[("mywebapp1", 20), ("mywebapp2", 20), ("mywebapp3", 20)]);
    assert_eq!(address(1), format!("{}:{}", addresses[0], bed.web().port()));
    server.wait_log("tags of instances that cannot be read: ");
    server.wait_turn();
    client.wait_turn();
    let log = server.log();
    for text in [
        format!(r#"hsdo:port="70000" of {}: expected a port from 1 to 65535"#, web[0]),
        format!(r#"hsdo:weight="heavy" of {}: expected a factor from 0 to 16"#, web[1]),
        format!(r#"hsdo:exclude="no" of {}: expected true or false"#, web[2]),
    ] {
        assert!(log.contains(&text), "{text}: {log}");
    }
    asked("check").arg("--server").run().assert_code(1).assert_stdout("cannot be read, so they count as absent");

    // A port in the table that nobody could have: the slot is left alone.
    bed.moto().update_item(1, &serde_json::json!({"HsdoPort": {"S": "80; shutdown frontend fe"}}));
    client.wait_metric(r#"hsdo_slots{state="unreadable"}"#, |count| count == 1.0);
    assert_eq!(address(1), format!("{}:{}", addresses[0], bed.web().port()));
}

#[test]
fn an_instance_without_ipv4_is_reached_by_ipv6() {
    let bed = bed("ipv6", &[("web", 2)]);
    let web = ids(&bed, "web");
    let address = bed.moto().instances("web")[1].address;
    bed.web().serve(&web[1], "::1".parse().expect("an address"));
    let ipv6 = "<networkInterfaceSet><item><attachment><deviceIndex>0</deviceIndex></attachment><ipv6AddressesSet>\
                <item><ipv6Address>fd00::9</ipv6Address><isPrimaryIpv6>false</isPrimaryIpv6></item>\
                <item><ipv6Address>::1</ipv6Address><isPrimaryIpv6>true</isPrimaryIpv6></item>\
                </ipv6AddressesSet></item></networkInterfaceSet>";
    let id = web[1].clone();
    let edit = move |body: String| {
        let body = body.replace(&format!("<privateIpAddress>{address}</privateIpAddress>"), "");
        body.replace(&format!("<instanceId>{id}</instanceId>"), &format!("<instanceId>{id}</instanceId>{ipv6}"))
    };
    bed.aws().inject("DescribeInstances", Fault::Edit(Arc::new(edit)));
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 2)]);
    let size = |hsdo: Hsdo| hsdo.env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "2");
    let mut v4_and_v6 = size(server(&bed)).spawn();
    let mut client = size(Hsdo::client(&bed)).spawn();
    wait_table(&bed, &[(&web[0], 20), (&web[1], 20)]);
    haproxy.wait_weights(BACK, &[("mywebapp1", 20), ("mywebapp2", 20)]);
    let tally = traffic::send(haproxy.frontend(BACK), 10);
    assert_eq!((tally.of(&web[0]), tally.of(&web[1])), (5, 5), "{tally}");
    client.wait_turn();
    v4_and_v6.terminate();

    // Only IPv6 counts now: the other one has none, is named, and drains in its slot.
    let mut v6 = size(server(&bed)).env("SERVER_ADDRESS", "ipv6").spawn();
    v6.wait_metric("hsdo_unseen_instances", |count| count == 1.0);
    v6.wait_log(&format!(
        "instances in service that cannot be reached: {}: EC2 does not list them, or gives them no IPv6 address",
        web[0]
    ));
    wait_table(&bed, &[(&web[0], 0), (&web[1], 20)]);
}
