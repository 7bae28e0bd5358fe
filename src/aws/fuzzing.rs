//! Fuzz targets for AWS responses: the XML of the Query APIs, DynamoDB's JSON, and errors in either.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

pub use crate::aws::credentials::fuzzing::{credentials, profile_files};

use crate::about::About;
use crate::aws::config::Config;
use crate::aws::config::profile_file::ProfileFiles;
use crate::aws::error::refusal::refusal;
use crate::aws::error::{AwsError, Cause, FailedCall};
use crate::aws::query::autoscaling::Group;
use crate::aws::query::ec2::{DescribedInstances, Record};
use crate::aws::query::pieces::NOTHING;
use crate::aws::query::readiness::{instance_query, observe};
use crate::aws::query::{autoscaling, ec2, spot};
use crate::aws::reading::dates;
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::service::Service;
use crate::aws::table::codec::ParsedItem;
use crate::aws::table::dynamodb::{Attribute, Item, ItemParser, TableDescription, Update, parse_json};
use crate::aws::table::number::integer;
use crate::aws::table::store::cancelled;
use crate::aws::table::{codec, dynamodb, orders, store};
use crate::aws::transport::http::result_label;
use crate::clock::Timestamp;
use crate::environment::Environment;
use crate::fuzzing::{assert_message, cuts, kind, parts, text};
use crate::marker::{self, Claim, Stamp};
use crate::order::Order;
use crate::selection::GroupSelection;
use crate::settings::{InstanceReading, WeightBy};
use crate::slot::{Instance, MAX_WEIGHT, Occupant, Row, Slot, Status, is_server_address};

/// `g`: DescribeAutoScalingGroups; `i`: DescribeInstances; `b`: both, for one observation; `s`: DescribeSpotInstanceRequests;
/// `r`: a three-digit status and an error body.
pub fn aws(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'g' => drop(groups(rest)),
        b'i' => drop(instances(rest)),
        b's' => drop(parse_all_ways(rest, &spot::parse, &spot::parse)),
        b'b' => both(&text(rest)),
        b'r' => refused(rest),
        _ => {}
    }
}

fn groups(body: &[u8]) -> Option<Vec<Group>> {
    let cache = ParseCache::default();
    let read = |body: &mut dyn BufRead| {
        cache.next_response();
        autoscaling::parse(body, &cache)
    };
    let plain = |body: &mut dyn BufRead| autoscaling::parse_cut(body, &NOTHING, &ParseCache::default());
    parse_all_ways(body, &read, &plain).map(|(groups, _)| groups)
}

/// The same for instances, whose order depends on the cutting.
fn instances(body: &[u8]) -> Option<Vec<Record>> {
    let cache = ParseCache::default();
    let sorted = |page: (Vec<Arc<Vec<Record>>>, Option<String>)| {
        let mut records: Vec<Record> = page.0.iter().flat_map(|batch| batch.iter().cloned()).collect();
        records.sort_by_cached_key(|record| format!("{record:?}"));
        (records, page.1)
    };
    let read = |body: &mut dyn BufRead| {
        cache.next_response();
        ec2::parse(body, &cache).map(sorted)
    };
    let plain = |body: &mut dyn BufRead| ec2::parse_cut(body, &NOTHING, &ParseCache::default()).map(sorted);
    parse_all_ways(body, &read, &plain).map(|(records, _)| records)
}

type Parse<'a, T> = &'a dyn Fn(&mut dyn BufRead) -> Result<T, String>;

/// Parses a document. The result may depend neither on read sizes nor on the cache nor on cutting, which `plain` does not do;
/// a truncated document is an error.
fn parse_all_ways<T: Debug + PartialEq>(body: &[u8], parse: Parse<'_, T>, plain: Parse<'_, T>) -> Option<T> {
    let read = |mut body: &[u8]| parse(&mut body);
    let found = read(body);
    assert_eq!(parse(&mut BufReader::with_capacity(7, body)).ok().as_ref(), found.as_ref().ok());
    let found = match found {
        Ok(found) => found,
        Err(fault) => {
            assert_message(&call(Service::Ec2, "DescribeInstances", Cause::Unreadable(fault)), 0);
            return None;
        }
    };
    assert_eq!(plain(&mut &*body).as_ref(), Ok(&found));
    for cut in cuts(body.len()) {
        if let Ok(cut_found) = read(&body[..cut]) {
            let rest = body[cut..].trim_ascii_start();
            let beside = rest.is_empty() || rest.starts_with(b"<!--") || rest.starts_with(b"<?");
            assert!(beside, "cut at {cut}, it is read: {cut_found:?}");
            assert_eq!(cut_found, found);
        }
    }
    Some(found)
}

fn both(text: &str) {
    let mut documents = parts(text).map(str::as_bytes);
    let (Some(groups), Some(records)) = (documents.next().and_then(groups), documents.next().and_then(instances))
    else {
        return;
    };
    // Every second member has a slot, and so has every instance that EC2 reports.
    let mut described = DescribedInstances { batches: vec![records.into()], ..DescribedInstances::default() };
    let batches = described.batches.clone();
    let members = groups.iter().flat_map(|group| group.members.iter()).map(|member| member.id.as_str());
    let known = batches.iter().flat_map(|batch| batch.iter()).map(|record| record.id.as_str());
    let occupants: Vec<&str> = members.step_by(2).chain(known).collect();
    let query = instance_query(&groups, &occupants);
    let ids: Vec<&str> = query.listed.iter().chain(&query.unlisted).copied().collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id is queried twice");
    described.not_found.extend(query.unlisted.iter().step_by(2));
    let all = GroupSelection::named(&["*"]).select(groups.iter().map(|group| group.name.as_str()));
    let missing = all.missing.clone();
    let reading = InstanceReading { tags: true, weight_by: WeightBy::Vcpu, ..InstanceReading::default() };
    let observation = observe(all, &groups, &occupants, &described, &reading);
    assert_eq!(observation.missing_groups, missing);
    observation.instances.iter().for_each(assert_storable);
}

/// A reported instance survives being written and read back.
pub(crate) fn assert_storable(instance: &Instance) {
    let occupant = Occupant {
        address: instance.address,
        name: instance.name.clone(),
        group: Some(instance.group.clone()),
        zone: instance.zone.clone(),
        port: instance.port,
        weight: 1,
        status: Status::Enabled,
        last_step: Some(Timestamp::from_micros(1_700_000_000_000_000)),
        drain_since: None,
    };
    assert_same(&Slot {
        id: 7,
        occupant: Some(occupant),
        last_group: Some(instance.group.clone()),
        last_zone: instance.zone.clone(),
    });
}

fn assert_same(slot: &Slot) {
    let mut item = codec::key(slot.id);
    let names = [
        "IPAddress",
        "ServerName",
        "ASG",
        "Weight",
        "BackendServerStatus",
        "LastWeightUpdate",
        "HsdoLastASG",
        "HsdoZone",
        "HsdoLastZone",
    ];
    for (name, value) in names.into_iter().zip(codec::encode(slot)) {
        item.extend(value.map(|value| (name.to_string(), value)));
    }
    let ParsedItem::Slot { id, row, .. } = codec::parse_item(item) else { panic!("{slot:?} is a stray") };
    assert_eq!((id, row), (slot.id, Row::Readable(slot.clone().into())));
}

fn call(service: Service, operation: &'static str, cause: Cause) -> AwsError {
    let (subject, host) = ("table \"web\"".to_string(), "dynamodb.eu-west-1.amazonaws.com".to_string());
    AwsError::Call(Box::new(FailedCall {
        service,
        operation,
        subject,
        host,
        identity: None,
        cause,
        about: About::default(),
        renewal: None,
    }))
}

fn refused(data: &[u8]) {
    let (status, body) = data.split_at(data.len().min(3));
    let status = text(status).parse().unwrap_or(400);
    let found = refusal(status, None, body);
    let label = result_label(&Cause::Refused(found.clone()));
    assert!(label.len() <= 64 && label.chars().all(|c| c.is_ascii_alphanumeric() || "._ ".contains(c)), "{label:?}");
    let calls = [
        (Service::DynamoDb, "Scan"),
        (Service::Ec2, "DescribeInstances"),
        (Service::Sts, "AssumeRole"),
        (Service::DynamoDb, "TransactWriteItems"),
    ];
    for (service, operation) in calls {
        // A proxy's error page must not fill the log.
        assert_message(&call(service, operation, Cause::Refused(found.clone())), 0);
    }
    let slots: Vec<Slot> = (1..=found.reasons.len().clamp(1, 99) as u32).map(Slot::empty).collect();
    assert_message(&cancelled(call(Service::DynamoDb, "TransactWriteItems", Cause::Refused(found)), &slots), 0);
}

/// `p`: a page of a scan; `d`: DescribeTable; `n`: a number; `t`: a time.
pub fn dynamodb(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'p' => page(rest),
        b'd' => {
            if let Err(fault) = parse_json::<TableDescription>(&mut &rest[..]) {
                assert_message(&call(Service::DynamoDb, "DescribeTable", Cause::Unreadable(fault)), 0);
            }
        }
        b'n' => number(&text(rest)),
        b't' => time(&text(rest)),
        _ => {}
    }
}

#[derive(Deserialize)]
struct Plain {
    #[serde(rename = "Items")]
    items: Vec<Item>,
    #[serde(rename = "LastEvaluatedKey")]
    _last: Option<Item>,
    #[serde(rename = "ConsumedCapacity")]
    _consumed: Option<IgnoredAny>,
}

fn page(body: &[u8]) {
    let cache = ParseCache::default();
    let parser = ItemParser { parse: &|item| item, cache: &cache };
    let read = |body: &mut dyn BufRead| {
        cache.next_response();
        dynamodb::read_page(body, &parser).map(|page| page.items)
    };
    let items = match read(&mut &*body) {
        Ok(items) => items,
        Err(fault) => {
            assert!(store::read_page(body).is_err());
            return assert_message(&call(Service::DynamoDb, "Scan", Cause::Unreadable(fault)), 0);
        }
    };
    assert_eq!(read(&mut BufReader::with_capacity(7, body)).as_ref(), Ok(&items));
    let plain: Plain = serde_json::from_slice(body).expect("the plain parser accepts what the fast one does");
    assert!(items.iter().map(Arc::as_ref).eq(&plain.items), "{items:?}");
    let table = store::read_page(body).expect("its items were read");
    assert!(table.rows.len() + table.strays.len() <= items.len());
    for fault in table.faults() {
        assert_message(&fault, 0);
    }
    for slot in table.slots() {
        assert_same(slot);
        if let Some(Occupant { weight, address, .. }) = slot.occupant {
            assert!(weight <= MAX_WEIGHT && is_server_address(address), "{slot:?}");
        }
    }
    for item in plain.items {
        let orders = orders::read(item.get(codec::ORDERS));
        for text in orders.all.iter().map(Order::to_string).chain(orders.unreadable.into_iter().map(|one| one.reason)) {
            assert_message(&text, body.len());
        }
        let marker = codec::marker(&item);
        assert!([marker.version, marker.heartbeat].into_iter().flatten().all(|number| number <= marker::MAX_COUNTER));
        let raw_marker = codec::marker_attributes(&item);
        let leader = "host".to_string();
        assert_complete(&codec::claim_update(
            &Claim { version: 1, heartbeat: 2, leader: leader.clone() },
            Some(&raw_marker),
            &codec::encode(&Slot::empty(1)),
            None,
        ));
        let stamp = Stamp { version: Some(1), heartbeat: 2, leader, blind: marker.blind };
        let ParsedItem::Slot { id, raw, .. } = codec::parse_item(item) else { continue };
        let wanted = codec::encode(&Slot::empty(id));
        assert_complete(&codec::row_update(id, &wanted, Some(&raw)));
        assert_complete(&codec::marker_update(&stamp, Some((&wanted, Some(&raw)))));
        assert_complete(&codec::marker_slot_update(&stamp.leader, &wanted, Some(&raw)));
    }
}

/// DynamoDB rejects an update with an undefined or unused name or value.
fn assert_complete(update: &Update) {
    let expressions = format!("{} {}", update.update, update.condition);
    let words = |mark: char| -> BTreeSet<String> {
        let words = expressions.split(|c: char| !c.is_ascii_alphanumeric() && !"#:_".contains(c));
        words.filter(|word| word.starts_with(mark)).map(str::to_string).collect()
    };
    assert_eq!(words('#'), update.names.keys().cloned().collect(), "{expressions}");
    assert_eq!(words(':'), update.values.keys().cloned().collect(), "{expressions}");
}

fn number(text: &str) {
    let Some(number) = integer(text) else { return };
    assert!(number <= 1_000_000_000);
    // Doubles hold all of these exactly.
    assert_eq!(text.parse::<f64>(), Ok(number as f64), "{text:?}");
    let item = Item::from([("BackendServerID".to_string(), Attribute::N(text.to_string()))]);
    let found = match codec::parse_item(item) {
        ParsedItem::Slot { id, .. } => Some(u64::from(id)),
        ParsedItem::Stray(_) => None,
    };
    assert_eq!(found, Some(number).filter(|id| (1..=10_000).contains(id)));
}

fn time(text: &str) {
    if let Some(time) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time), "{text:?}");
    }
    for time in [dates::parse(text), dates::parse_http_date(text)].into_iter().flatten() {
        assert!(time.to_string().len() < 40, "{text:?}");
    }
}

pub(crate) fn environment(environment: &Environment, input: usize) {
    if let Err(fault) = Config::new(environment, &ProfileFiles::default()) {
        assert_message(&fault, input);
    }
    crate::aws::credentials::fuzzing::environment(environment, input);
}
