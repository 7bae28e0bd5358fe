//! Shared by the tests of the server role: beds, views of the table, edits of AWS's responses.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::bed::Bed;
use crate::common::hsdo::{Hsdo, Running};
use crate::common::moto::{Item, text_of};
use crate::common::wait::{SOON, wait_for};

pub(crate) const OK: &str = r#"hsdo_turns_total{result="ok"}"#;
pub(crate) const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;

/// A bed with the table and groups of that many instances: the first in 127.1.0.0/20, the others in 127.1.16.0/20.
pub(crate) fn bed(name: &str, groups: &[(&str, usize)]) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    for (index, (group, count)) in groups.iter().enumerate() {
        bed.moto().create_group(group, index.min(1), *count);
    }
    bed
}

/// A server without a ramp: new servers get their full weight at once.
pub(crate) fn steady(bed: &Bed, size: u32) -> Hsdo {
    Hsdo::server(bed)
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &size.to_string())
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10")
}

/// A group's instance ids, by address.
pub(crate) fn ids(bed: &Bed, group: &str) -> Vec<String> {
    bed.moto().instances(group).into_iter().map(|instance| instance.id).collect()
}

/// The instances of the occupied rows, by slot.
pub(crate) fn seats(bed: &Bed) -> BTreeMap<u32, String> {
    let rows = bed.moto().rows().into_iter();
    rows.filter_map(|(id, item)| Some((id, text_of(&item, "ServerName")?))).filter(|(_, name)| name != "none").collect()
}

/// Waits until exactly these instances hold these slots.
#[track_caller]
pub(crate) fn wait_seats(bed: &Bed, wanted: &[(u32, &str)]) {
    let wanted: BTreeMap<u32, String> = wanted.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
    wait_for(&format!("the seats {wanted:?}"), SOON, || {
        let found = seats(bed);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Waits until a row has these attributes, whatever the others are.
#[track_caller]
pub(crate) fn wait_row(bed: &Bed, id: u32, wanted: &[(&str, &str)]) {
    wait_for(&format!("row {id} to have {wanted:?}"), SOON, || {
        let items = bed.moto().rows();
        let found = items.get(&id).filter(|item| has(item, wanted));
        found.map(|_| ()).ok_or_else(|| format!("{:?}", items.get(&id)))
    });
}

pub(crate) fn has(item: &Item, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(name, value)| text_of(item, name).as_deref() == Some(value))
}

/// Waits for a whole turn that writes nothing, and forgets the calls before it.
pub(crate) fn settle(bed: &Bed, server: &mut Running) {
    wait_for("a turn without a write", SOON, || {
        bed.aws().forget();
        server.wait_turn();
        let writes = written(bed);
        if writes.is_empty() { Ok(()) } else { Err(format!("{writes:?}")) }
    });
    bed.aws().forget();
}

/// An update that hsdo sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) id: u32,
    /// The attributes it sets.
    pub(crate) set: BTreeMap<String, String>,
}

/// The transactions that hsdo sent, as lists of updates, refused and repeated ones too.
pub(crate) fn transactions(bed: &Bed) -> Vec<(String, Vec<Write>)> {
    let calls = bed.aws().calls().into_iter().filter(|call| call.operation == "TransactWriteItems");
    calls
        .map(|call| {
            let body: Value = serde_json::from_str(&call.body).expect("a request in JSON");
            let actions = body["TransactItems"].as_array().expect("actions");
            let token = body["ClientRequestToken"].as_str().expect("a token").to_owned();
            // Each carries the change marker on slot 1's item too: by itself, that is no write of the slot.
            let writes = actions.iter().map(|action| write(&action["Update"]));
            (token, writes.filter(|write| write.set.contains_key("IPAddress")).collect())
        })
        .collect()
}

/// Every update that hsdo sent, in order.
pub(crate) fn written(bed: &Bed) -> Vec<Write> {
    transactions(bed).into_iter().flat_map(|(_, writes)| writes).collect()
}

/// The values written to one attribute of one row, in order, without repeats.
pub(crate) fn values_written(bed: &Bed, id: u32, attribute: &str) -> Vec<String> {
    let writes = written(bed).into_iter().filter(|write| write.id == id);
    let mut values: Vec<String> = writes.filter_map(|write| write.set.get(attribute).cloned()).collect();
    values.dedup();
    values
}

fn write(update: &Value) -> Write {
    let id = update["Key"]["BackendServerID"]["N"].as_str().and_then(|text| text.parse().ok()).expect("a key");
    let expression = update["UpdateExpression"].as_str().expect("an expression");
    let sets = expression.split(" REMOVE ").next().and_then(|text| text.strip_prefix("SET ")).expect("SET comes first");
    let set = sets.split(", ").map(|pair| {
        let (name, value) = pair.split_once(" = ").expect("a name and a value");
        let name = update["ExpressionAttributeNames"][name].as_str().unwrap_or(name);
        let value = &update["ExpressionAttributeValues"][value];
        (name.to_owned(), value["S"].as_str().or(value["N"].as_str()).expect("a text or a number").to_owned())
    });
    Write { id, set: set.collect() }
}
