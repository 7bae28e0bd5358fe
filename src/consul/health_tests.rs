//! Registrations as Consul reports them, and the instances they become.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::weight::Factor;

/// `checks` are written `id=status`.
fn entry(node: &str, node_address: &str, id: &str, address: &str, checks: &[&str]) -> Value {
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| check.rsplit_once('=').expect("id=status"))
        .map(|(id, status)| json!({"CheckID": id, "Status": status, "Output": "x"}))
        .collect();
    json!({
        "Node": {"Node": node, "Address": node_address},
        "Service": {"ID": id, "Service": "web", "Address": address, "Weights": {"Passing": 1, "Warning": 1}},
        "Checks": checks,
    })
}

fn health(entries: &[Value]) -> ServiceHealth {
    parse("web", Value::from(entries).to_string().as_bytes()).expect("readable")
}

/// Each instance as `name address readiness`, with its factor where that is not 1.
fn shown(health: &ServiceHealth) -> Vec<String> {
    let shown = |one: &Instance| {
        let readiness = format!("{:?}", one.readiness).to_lowercase();
        let factor = one.size.factor(Factor::ONE);
        let factor = if factor == Factor::ONE { String::new() } else { format!(" x{factor}") };
        format!("{} {} {readiness}{factor}", one.name, one.address)
    };
    health.instances.iter().map(shown).collect()
}

#[test]
fn checks_decide_readiness() {
    #[rustfmt::skip]
    let cases: [(&[&str], Option<Readiness>); 13] = [
        (&[], Some(Readiness::Ready)),
        (&["serfHealth=passing"], Some(Readiness::Ready)),
        (&["serfHealth=passing", "web=passing"], Some(Readiness::Ready)),
        (&["serfHealth=passing", "web=warning"], None),
        (&["serfHealth=passing", "web=critical"], None),
        (&["serfHealth=critical", "web=passing"], None),
        (&["web=maintenance"], None),
        (&["web=Passing"], None),
        (&["serfHealth=passing", "_service_maintenance:web-1=critical"], Some(Readiness::Draining)),
        (&["_node_maintenance=critical", "web=passing"], Some(Readiness::Draining)),
        (&["_node_maintenance=critical", "serfHealth=passing", "web=critical"], Some(Readiness::Draining)),
        (&["_node_maintenance=critical", "serfHealth=critical", "web=critical"], None),
        (&["my_node_maintenance=critical"], None),
    ];
    for (checks, expected) in cases {
        let found = health(&[entry("n1", "10.0.0.1", "web-1", "", checks)]);
        assert_eq!(found.instances.first().map(|one| one.readiness), expected, "{checks:?}");
        assert_eq!((found.registered, found.any_ready()), (1, expected == Some(Readiness::Ready)), "{checks:?}");
    }
}

#[test]
fn the_zone_is_the_metadatas_of_the_service_or_its_node() {
    for (service, node, expected) in [
        (json!({"zone": "z1"}), json!({"zone": "z2"}), Some("z1")),
        (json!({"availability_zone": "z1"}), json!(null), Some("z1")),
        (json!({"zone": " "}), json!({"availability_zone": "z2"}), Some("z2")),
        (json!({"rack": "7"}), json!({"zone": "z\n2"}), Some("z\\n2")),
        (json!(null), json!({}), None),
    ] {
        let mut entry = entry("n1", "10.0.0.1", "web-1", "", &["serfHealth=passing"]);
        entry["Service"]["Meta"] = service;
        entry["Node"]["Meta"] = node;
        assert_eq!(health(&[entry]).instances[0].zone.as_deref(), expected);
    }
}

#[test]
fn the_services_address_takes_precedence_over_the_nodes() {
    let ok = &["serfHealth=passing"][..];
    let found = health(&[
        entry("n1", "10.0.0.1", "web", "10.1.0.1", ok),
        entry("n2", "10.0.0.2", "web", "", ok),
        entry("n3", "10.0.0.3", "web", "2001:db8::3", ok),
        entry("n4", "fd00::4", "web", "", ok),
    ]);
    assert_eq!(shown(&found), ["n1 10.1.0.1 ready", "n2 10.0.0.2 ready", "n3 2001:db8::3 ready", "n4 fd00::4 ready"]);
}

#[test]
fn an_instance_with_a_host_name_is_unaddressed_not_absent() {
    let ok = &["serfHealth=passing"][..];
    let found = health(&[
        entry("n1", "10.0.0.1", "web-1", "web.example", ok),
        entry("n2", "", "web-2", "", ok),
        entry("n3", "10.0.0.3", "web-3", "host.example", &["web=critical"]),
        entry("n4", "10.0.0.4", "web-4", "10.0.0.4; shutdown frontend fe", ok),
    ]);
    assert_eq!((found.registered, found.instances.len(), found.any_ready()), (4, 0, true));
    let names: Vec<_> = found.unaddressed.iter().map(|one| (one.node.as_str(), one.address.as_str())).collect();
    assert_eq!(names, [("n1", "web.example"), ("n2", ""), ("n4", "10.0.0.4; shutdown frontend fe")]);
    assert_eq!(found.unaddressed[0].names, ["n1", "n1/web-1"]);
}

/// Neither role could read a row with one of these.
#[test]
fn unusable_addresses_and_names_never_reach_the_table() {
    let ok = &["serfHealth=passing"][..];
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
        let found = health(&[entry("n1", "10.0.0.1", "web-1", address, ok)]);
        assert_eq!((found.instances.len(), found.unaddressed.len(), found.any_ready()), (0, 1, true), "{address}");
    }
    let found = health(&[
        entry("n\n1", "10.0.0.1", "web-1", "10.1.0.1", ok),
        entry(&"n".repeat(300), "10.0.0.2", "web-1", "10.1.0.2", ok),
    ]);
    let names: BTreeSet<&str> = found.instances.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["n\\n1", &"n".repeat(255)]));
}

#[test]
fn several_instances_of_a_node_get_distinct_names() {
    let ok = &["serfHealth=passing"][..];
    let one = entry("n1", "10.0.0.1", "web-a", "10.1.0.1", ok);
    let two = entry("n1", "10.0.0.1", "web-b", "10.1.0.2", ok);
    let alone = health(std::slice::from_ref(&one));
    let both = health(&[two.clone(), one]);
    assert_eq!(shown(&alone), ["n1 10.1.0.1 ready"]);
    assert_eq!(shown(&both), ["n1/web-a 10.1.0.1 ready", "n1/web-b 10.1.0.2 ready"]);
    assert!(both.instances[0].has_name(&alone.instances[0].name), "the first instance keeps its identity");
    assert!(alone.instances[0].has_name(&both.instances[0].name), "and keeps it when the other one leaves");
    assert!(!both.instances[1].has_name("n1/web-a"));
    let other = health(&[entry("n1", "10.0.0.1", "web-c", "10.1.0.1", ok)]);
    assert!(!other.instances[0].has_name("n1/web-a"), "another instance at a sibling's address is a new server");
}

#[test]
fn instances_sharing_an_address_are_one_server() {
    let found = health(&[
        entry("n1", "10.0.0.1", "web-2", "", &["_service_maintenance:web-2=critical"]),
        entry("n1", "10.0.0.1", "web-1", "", &["serfHealth=passing"]),
    ]);
    assert_eq!(shown(&found), ["n1 10.0.0.1 ready"]);
    assert_eq!(found.instances[0].aliases, ["n1/web-1", "n1/web-2"]);
    assert_eq!(found.registered, 2);
}

#[test]
fn the_weight_of_a_registration_is_its_factor() {
    for (weights, expected) in [
        (json!({"Passing": 1, "Warning": 1}), 1),
        (json!({"Passing": 5, "Warning": 1}), 5),
        (json!({"Passing": 65_535, "Warning": 0}), 65_535),
        (json!({"Passing": 0, "Warning": 0}), 1),
        (json!({"Passing": -3}), 1),
        (json!({"Passing": 1_000_000}), 65_535),
        (json!({}), 1),
        (Value::Null, 1),
    ] {
        let mut one = entry("n1", "10.0.0.1", "web", "", &["serfHealth=passing"]);
        one["Service"]["Weights"] = weights.clone();
        assert_eq!(health(&[one]).instances[0].size.factor(Factor::ONE), Factor::whole(expected), "{weights}");
    }
}

#[test]
fn an_unreadable_response_is_an_error_not_an_empty_list() {
    let good = entry("n1", "10.0.0.1", "web", "", &["serfHealth=passing"]);
    let without = |path: &[&str]| {
        let mut entry = good.clone();
        let parent = path[..path.len() - 1].iter().fold(&mut entry, |value, key| &mut value[*key]);
        parent.as_object_mut().expect("an object").remove(path[path.len() - 1]);
        Value::from(vec![entry]).to_string()
    };
    let complete = Value::from(vec![good.clone()]).to_string();
    for body in [
        "".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        "<html>".to_owned(),
        "[null]".to_owned(),
        "[{}]".to_owned(),
        complete[..complete.len() - 1].to_owned(),
        format!("{complete}x"),
        without(&["Checks"]),
        without(&["Node"]),
        without(&["Node", "Node"]),
        without(&["Service", "ID"]),
        complete.replace("\"passing\"", "1"),
    ] {
        assert!(matches!(parse("web", body.as_bytes()), Err(QueryError::Unreadable(_))), "{body}");
    }
    assert_eq!(parse("web", b"[]"), Ok(ServiceHealth::default()));
    assert_eq!(parse("web", without(&["Service", "Weights"]).as_bytes()).expect("readable").instances.len(), 1);
}

/// Recorded from 1.8.7, and one in the shape of 1.20 with its newer fields.
#[test]
fn recorded_responses_are_parsed() {
    let old = parse("web", include_bytes!("../../tests/data/consul-health-1.8.json")).expect("readable");
    assert_eq!(shown(&old), ["n1/web-1 127.2.0.1 draining x5", "n1/web-2 127.2.0.2 ready"]);
    assert_eq!(old.registered, 3);
    let new = parse("web", include_bytes!("../../tests/data/consul-health-1.20.json")).expect("readable");
    assert_eq!(shown(&new), ["ip-10-0-1-7 10.0.1.7 ready x2", "ip-10-0-2-9 2001:db8:2::9 draining"]);
    assert_eq!(new.registered, 3);
}

proptest! {
    /// No duplicate address or name, and no instance lost.
    #[test]
    fn every_instance_appears_once(places in prop::collection::vec((0..3_u8, 0..4_u8, 0..4_u8), 0..10)) {
        let entries: Vec<Value> = places
            .iter()
            .map(|(node, id, host)| entry(&format!("n{node}"), "", &format!("w{id}"), &format!("10.{node}.0.{host}"), &[]))
            .collect();
        let found = health(&entries);
        let mut addresses: Vec<_> = found.instances.iter().map(|one| one.address).collect();
        let mut names: Vec<_> = found.instances.iter().map(|one| (one.name.clone(), one.address)).collect();
        addresses.dedup();
        names.dedup();
        prop_assert_eq!(addresses.len(), found.instances.len());
        prop_assert_eq!(names.len(), found.instances.len());
        for (node, id, host) in places {
            let address: IpAddr = [10, node, 0, host].into();
            let one = found.instances.iter().find(|one| one.address == address).expect("an instance");
            for name in [format!("n{node}"), format!("n{node}/w{id}")] {
                prop_assert!(one.has_name(&name), "{name}");
            }
        }
    }
}
