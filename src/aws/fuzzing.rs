//! What AWS answers, as fuzz targets: the XML of the Query APIs, DynamoDB's JSON, and refusals in either.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

pub use crate::aws::credentials::fuzzing::{credentials, profile_files};

use crate::aws::config::Config;
use crate::aws::config::profile_file::ProfileFiles;
use crate::aws::error::refusal::refusal;
use crate::aws::error::{Call, Cause, Error};
use crate::aws::query::autoscaling::Group;
use crate::aws::query::ec2::{Described, Record};
use crate::aws::query::pieces::NOTHING;
use crate::aws::query::readiness::{observe, question};
use crate::aws::query::{autoscaling, ec2};
use crate::aws::reading::dates;
use crate::aws::reading::memory::Memory;
use crate::aws::service::Service;
use crate::aws::table::codec::ParsedItem;
use crate::aws::table::dynamodb::{Attribute, Item, ItemParser, TableDescription, Update, parse_json};
use crate::aws::table::number::integer;
use crate::aws::table::store::cancelled;
use crate::aws::table::{codec, dynamodb, store};
use crate::aws::transport::http::result_label;
use crate::clock::Timestamp;
use crate::environment::Environment;
use crate::fuzzing::{assert_message, cuts, kind, parts, text};
use crate::marker::{self, Claim, Stamp};
use crate::slot::{Instance, MAX_WEIGHT, Occupant, Row, Slot, Status, is_server_address, row_name};

/// `g`: DescribeAutoScalingGroups; `i`: DescribeInstances; `b`: both, for one observation; `r`: a status of three
/// digits and a refusal's body.
pub fn aws(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'g' => drop(groups(rest)),
        b'i' => drop(instances(rest)),
        b'b' => both(&text(rest)),
        b'r' => refused(rest),
        _ => {}
    }
}

/// The groups of a document, read in each way that there is.
fn groups(body: &[u8]) -> Option<Vec<Group>> {
    let memory = Memory::default();
    let read = |body: &mut dyn BufRead| {
        memory.turn();
        autoscaling::parse(body, &memory)
    };
    let plain = |body: &mut dyn BufRead| autoscaling::parse_cut(body, &NOTHING, &Memory::default());
    whole(body, &read, &plain).map(|(groups, _)| groups)
}

/// The same for instances, which come in another order when they are cut out.
fn instances(body: &[u8]) -> Option<Vec<Record>> {
    let memory = Memory::default();
    let sorted = |page: (Vec<Arc<Vec<Record>>>, Option<String>)| {
        let mut records: Vec<Record> = page.0.iter().flat_map(|some| some.iter().cloned()).collect();
        records.sort_by_cached_key(|record| format!("{record:?}"));
        (records, page.1)
    };
    let read = |body: &mut dyn BufRead| {
        memory.turn();
        ec2::parse(body, &memory).map(sorted)
    };
    let plain = |body: &mut dyn BufRead| ec2::parse_cut(body, &NOTHING, &Memory::default()).map(sorted);
    whole(body, &read, &plain).map(|(records, _)| records)
}

type Parse<'a, T> = &'a dyn Fn(&mut dyn BufRead) -> Result<T, String>;

/// What `parse` makes of a document. One that was cut before its end is none; nor does it matter in which pieces a
/// document comes, what was remembered of it, and that parts of it are cut out, which `plain` does not do.
fn whole<T: Debug + PartialEq>(body: &[u8], parse: Parse<'_, T>, plain: Parse<'_, T>) -> Option<T> {
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
    // Every second instance has a slot, and so has whoever EC2 tells of besides.
    let mut answer = Described { batches: vec![records.into()], ..Described::default() };
    let batches = answer.batches.clone();
    let members = groups.iter().flat_map(|group| group.members.iter()).map(|member| member.id.as_str());
    let described = batches.iter().flat_map(|some| some.iter()).map(|record| record.id.as_str());
    let occupants: Vec<&str> = members.step_by(2).chain(described).collect();
    let asked = question(&groups, &occupants);
    let ids: Vec<&str> = asked.listed.iter().chain(&asked.unlisted).copied().collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id is asked for twice");
    answer.denied.extend(asked.unlisted.iter().step_by(2));
    // Configured names hold no control character, and `none` is not among them.
    let configured: Vec<String> = (groups.iter().map(|group| group.name.clone()))
        .filter(|name| name != "none" && row_name(name.clone()) == *name)
        .collect();
    let observation = observe(&configured, &groups, &occupants, &answer);
    assert!(observation.missing_groups.is_empty());
    observation.instances.iter().for_each(assert_storable);
}

/// What a source reports can be written, and is read back as it was.
pub(crate) fn assert_storable(instance: &Instance) {
    let occupant = Occupant {
        address: instance.address,
        name: instance.name.clone(),
        group: Some(instance.group.clone()),
        weight: 1,
        status: Status::Enabled,
        last_step: Some(Timestamp::from_micros(1_700_000_000_000_000)),
    };
    assert_same(&Slot { id: 7, occupant: Some(occupant), last_group: Some(instance.group.clone()) });
}

/// A slot is read as it was written.
fn assert_same(slot: &Slot) {
    let mut item = codec::key(slot.id);
    let names = ["IPAddress", "ServerName", "ASG", "Weight", "BackendServerStatus", "LastWeightUpdate", "HsdoLastASG"];
    for (name, value) in names.into_iter().zip(codec::encode(slot)) {
        item.extend(value.map(|value| (name.to_string(), value)));
    }
    let ParsedItem::Slot { id, row, .. } = codec::parse_item(item) else { panic!("{slot:?} is a stray") };
    assert_eq!((id, row), (slot.id, Row::Readable(slot.clone().into())));
}

fn call(service: Service, operation: &'static str, cause: Cause) -> Error {
    let (subject, host) = ("table \"web\"".to_string(), "dynamodb.eu-west-1.amazonaws.com".to_string());
    Error::Call(Box::new(Call { service, operation, subject, host, who: None, cause, others: None }))
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
        // A page of a proxy must not fill the log.
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

/// A page as it is without the ways to read it faster.
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
    let memory = Memory::default();
    let maker = ItemParser { parse: &|item| item, memory: &memory };
    let read = |body: &mut dyn BufRead| {
        memory.turn();
        dynamodb::read_page(body, &maker).map(|page| page.items)
    };
    let items = match read(&mut &*body) {
        Ok(items) => items,
        Err(fault) => {
            assert!(store::read_page(body).is_err());
            return assert_message(&call(Service::DynamoDb, "Scan", Cause::Unreadable(fault)), 0);
        }
    };
    assert_eq!(read(&mut BufReader::with_capacity(7, body)).as_ref(), Ok(&items));
    let plain: Plain = serde_json::from_slice(body).expect("what is read fast is read plainly");
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
        let marker = codec::marker(&item);
        assert!([marker.version, marker.heartbeat].into_iter().flatten().all(|number| number <= marker::MAX_COUNTER));
        let raw_marker = codec::marker_attributes(&item);
        let leader = "host".to_string();
        assert_complete(&codec::claim_update(
            &Claim { version: 1, heartbeat: 2, leader: leader.clone() },
            Some(&raw_marker),
        ));
        let stamp = Stamp { version: Some(1), heartbeat: 2, leader };
        let ParsedItem::Slot { id, raw, .. } = codec::parse_item(item) else { continue };
        let wanted = codec::encode(&Slot::empty(id));
        assert_complete(&codec::row_update(id, &wanted, Some(&raw)));
        assert_complete(&codec::marker_update(&stamp, Some((&wanted, Some(&raw)))));
        assert_complete(&codec::marker_slot_update(&stamp.leader, &wanted, Some(&raw)));
    }
}

/// DynamoDB refuses an update whose expressions use a name or a value that is not given, or leave one unused.
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
    for time in [dates::document(text), dates::header(text)].into_iter().flatten() {
        assert!(time.to_string().len() < 40, "{text:?}");
    }
}

/// What the variables of an environment say of AWS is understood, or refused in one line.
pub(crate) fn environment(environment: &Environment, input: usize) {
    if let Err(fault) = Config::new(environment, &ProfileFiles::default()) {
        assert_message(&fault, input);
    }
    crate::aws::credentials::fuzzing::environment(environment, input);
}
