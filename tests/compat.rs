//! Compatibility with the Python version's table: either program can take over from the other.

mod common;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use common::bed::{Bed, REGION, TABLE, package_dir};
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::Hsdo;
use common::moto::{GroupInstance, Item};
use common::wait::{SOON, wait_for};

/// Items from a file of `tests/data`, with the group's instances filled in.
fn items(file: &str, instances: &[GroupInstance]) -> BTreeMap<u32, Item> {
    let path = package_dir().join("tests/data").join(file);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (instance, number) in instances.iter().zip(1..) {
        text = text.replace(&format!("@ADDRESS{number}@"), &instance.address.to_string());
        text = text.replace(&format!("@NAME{number}@"), &instance.id);
    }
    let items: Vec<Item> = serde_json::from_str(&text).expect("items");
    let number = |item: &Item| item["BackendServerID"]["N"].as_str().and_then(|text| text.parse().ok());
    items.into_iter().map(|item| (number(&item).expect("a number"), item)).collect()
}

fn put(bed: &Bed, items: &BTreeMap<u32, Item>) {
    for item in items.values() {
        bed.moto().put_item(&json!(item));
    }
}

#[test]
fn the_server_goes_on_with_the_originals_table() {
    let bed = Bed::new("takeover");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 3);
    let original = items("original-items.json", &bed.moto().instances("web"));
    put(&bed, &original);
    let outcome = Hsdo::server(&bed)
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "5")
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "1")
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "30")
        .once();
    outcome.assert_code(0);
    assert!(!outcome.stderr.contains("cannot be read"), "{outcome}");
    let mut rows = without_ours(bed.moto().items());
    let mut expected = original.clone();
    // hsdo learns the group of a server that the Python version left without one.
    expected.get_mut(&2).expect("a row").insert("ASG".into(), json!({"S": "web"}));
    // It parsed the time, which has no fraction here: long ago, so a step is due.
    let stepped = rows.get_mut(&4).expect("a row");
    assert!(is_time(&stepped["LastWeightUpdate"]), "{stepped:?}");
    let row = expected.get_mut(&4).expect("a row");
    row.insert("Weight".into(), json!({"N": "8"}));
    row.insert("LastWeightUpdate".into(), stepped["LastWeightUpdate"].clone());
    for (id, item) in &expected {
        assert_eq!(&rows[id], item, "row {id}");
    }
}

#[test]
fn the_client_serves_the_originals_table() {
    let bed = Bed::new("clients");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 3);
    let instances = bed.moto().instances("web");
    bed.serve_instances(&["web"]);
    put(&bed, &items("original-items.json", &instances));
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 5)]);
    let mut client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "5").spawn();
    wait_for("the three servers", SOON, || {
        let servers = haproxy.servers("http-back");
        let found: Vec<(&str, u32, &str)> = servers
            .iter()
            .filter(|(_, server)| server.takes_traffic())
            .map(|(name, server)| (name.as_str(), server.weight, server.addr.split(':').next().unwrap_or_default()))
            .collect();
        let address: Vec<String> = instances.iter().map(|instance| instance.address.to_string()).collect();
        let wanted = [("mywebapp1", 10, &address[0]), ("mywebapp2", 10, &address[1]), ("mywebapp4", 7, &address[2])];
        if found == wanted.map(|(name, weight, address)| (name, weight, address.as_str())) {
            Ok(())
        } else {
            Err(format!("{servers:?}"))
        }
    });
    assert!(haproxy.server("http-back", "mywebapp3").in_maintenance());
    assert!(haproxy.server("http-back", "mywebapp5").in_maintenance());
    assert_eq!(client.metric(r#"hsdo_slots{state="unreadable"}"#), Some(0.0), "{}", client.log());
    client.terminate();
}

/// A table of another account, say. DynamoDB is called in the ARN's region, everything else in the configured one.
#[test]
fn both_roles_use_a_table_by_its_arn() {
    let bed = Bed::new("arn");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    bed.serve_instances(&["web"]);
    let arn = format!("arn:aws:dynamodb:{REGION}:123456789012:table/{TABLE}");
    let elsewhere = "ap-south-1";
    assert_ne!(REGION, elsewhere);
    let server = || Hsdo::server(&bed).env("DYNAMODB_TABLE_NAME", &arn);
    server().once().assert_code(0).assert_stderr(&format!("starts as server, table {arn}\n"));
    assert_eq!(bed.moto().attribute(2, "BackendServerStatus").as_deref(), Some("enabled"));
    // The table does not tell where the groups are.
    let nowhere = server().env_remove("AWS_DEFAULT_REGION").env("AWS_EC2_METADATA_DISABLED", "true").once();
    nowhere.assert_stderr("no AWS region").assert_stderr("set AWS_DEFAULT_REGION");

    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 2)]);
    let client = || Hsdo::client(&bed).env("DYNAMODB_TABLE_NAME", &arn).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "2");
    client().env("AWS_DEFAULT_REGION", elsewhere).once().assert_code(0);
    for name in ["mywebapp1", "mywebapp2"] {
        assert!(!haproxy.server("http-back", name).in_maintenance(), "{name}");
    }
    // Without any region, the table's is used.
    client().env_remove("AWS_DEFAULT_REGION").env("AWS_EC2_METADATA_DISABLED", "true").once().assert_code(0);

    let gone = arn.replace(TABLE, "nowhere");
    let gone = client().env("DYNAMODB_TABLE_NAME", &gone).once();
    gone.assert_code(2).assert_stderr(&format!("does not exist in {REGION}: correct DYNAMODB_TABLE_NAME"));
    let create = Hsdo::with_aws(&bed, "create").arg("--create-table").env("DYNAMODB_TABLE_NAME", &arn).run();
    create.assert_code(2).assert_stderr("expected a plain name: a table is created in the account");
}

/// Removes the change marker from slot 1's item, and zones and the beginnings of drains from those of servers. The lease was released at the end of the run.
fn without_ours(mut rows: BTreeMap<u32, Item>) -> BTreeMap<u32, Item> {
    let first = rows.get_mut(&1).expect("a row");
    for name in ["HsdoVersion", "HsdoHeartbeat"] {
        let value = first.remove(name).unwrap_or_else(|| panic!("slot 1 has no {name}"));
        assert!(value["N"].as_str().is_some_and(|text| text.parse::<u64>().is_ok()), "{name}: {value}");
    }
    for row in rows.values_mut() {
        let is_free = row["IPAddress"]["S"] == "none";
        assert_eq!(row.remove("HsdoZone").is_none(), is_free, "{row:?}");
        let since = row.remove("HsdoDrainSince");
        assert_eq!(since.as_ref().is_some_and(is_time), row["BackendServerStatus"]["S"] == "draining", "{row:?}");
        if let Some(zone) = row.remove("HsdoLastZone") {
            assert!(is_free && zone["S"] == "eu-west-1a" && row.contains_key("HsdoLastASG"), "{row:?}");
        }
    }
    rows
}

/// `YYYY-MM-DD HH:MM:SS.ffffff`, the only form that every Python version of hsdo parses.
fn is_time(value: &Value) -> bool {
    let form = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>();
    value["S"].as_str().is_some_and(|text| form(text) == "9999-99-99 99:99:99.999999")
}

#[test]
fn rows_are_written_as_the_original_writes_them() {
    let bed = Bed::new("spelling");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 3);
    let instances = bed.moto().instances("web");
    let hsdo = || {
        Hsdo::server(&bed)
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")
            .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
    };
    hsdo().once().assert_code(0);
    bed.moto().set_instance_health(&instances[1].id, "Unhealthy");
    bed.moto().terminate_in_group(&instances[2].id, true);
    hsdo().once().assert_code(0);

    let mut rows = without_ours(bed.moto().items());
    for row in rows.values_mut().filter(|row| row["IPAddress"]["S"] != "none") {
        assert!(is_time(&row["LastWeightUpdate"]), "{row:?}");
        row.insert("LastWeightUpdate".into(), json!({"S": "@TIME@"}));
    }
    assert_eq!(rows, items("expected-items.json", &instances));
}
