//! What AWS answers, as fuzz targets: the XML of the Query APIs, DynamoDB's JSON, and refusals in either.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::BufRead;

pub use super::credentials::fuzzing::{credentials, profile_files};

use super::config::Config;
use super::dynamodb::{Attribute, Item, Maker, TableDescription, Update, answer, read_page};
use super::endpoint::Service;
use super::error::{Call, Cause, Error};
use super::http::result_label;
use super::memory::Memory;
use super::number::integer;
use super::profile_file::ProfileFiles;
use super::readiness::{ids, observe};
use super::refusal::refusal;
use super::store::cancelled;
use super::{autoscaling, dates, ec2, store, table};
use crate::clock::Timestamp;
use crate::environment::Environment;
use crate::fuzzing::{assert_message, cuts, kind, parts, text};
use crate::marker::{self, Marker};
use crate::slot::{Instance, Occupant, Row, Slot, Status};

/// `g`: DescribeAutoScalingGroups; `i`: DescribeInstances; `b`: both, for one observation; `r`: a status of three
/// digits and a refusal's body.
pub fn aws(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'g' => drop(whole(rest, &autoscaling::parse)),
        b'i' => drop(whole(rest, &ec2::parse)),
        b'b' => both(&text(rest)),
        b'r' => refused(rest),
        _ => {}
    }
}

/// A parser of a document, and what it remembers.
type Parse<'a, T, M> = &'a dyn Fn(&mut dyn BufRead, &Memory<M>) -> Result<T, String>;

/// What `parse` makes of a document, with a memory of its pieces and without. A document that was cut before its end is none.
fn whole<T: Debug + PartialEq, M>(body: &[u8], parse: Parse<'_, T, M>) -> Option<T> {
    let memory = Memory::default();
    let read = |body: &[u8]| {
        let found = parse(&mut &body[..], &Memory::default());
        memory.turn();
        assert_eq!(parse(&mut &body[..], &memory), found, "what is remembered says something else");
        found
    };
    let found = match read(body) {
        Ok(found) => found,
        Err(fault) => {
            assert_message(&call(Service::Ec2, "DescribeInstances", Cause::Unreadable(fault)), 0);
            return None;
        }
    };
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
    let groups = documents.next().and_then(|body| whole(body, &autoscaling::parse));
    let records = documents.next().and_then(|body| whole(body, &ec2::parse));
    let (Some((groups, _)), Some((records, _))) = (groups, records) else { return };
    let asked = ids(&groups);
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), asked.len(), "an id is asked for twice");
    // Configured names hold no control character, and `none` is not among them.
    let configured: Vec<String> = (groups.iter().map(|group| group.name.clone()))
        .filter(|name| name != "none" && !name.chars().any(char::is_control) && name.chars().count() <= 255)
        .collect();
    let observation = observe(&configured, &groups, records.iter().flat_map(|some| some.iter()));
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
    let mut item = table::key(slot.id);
    let names = ["IPAddress", "ServerName", "ASG", "Weight", "BackendServerStatus", "LastWeightUpdate", "HsdoLastASG"];
    for (name, value) in names.into_iter().zip(table::attributes(slot)) {
        item.extend(value.map(|value| (name.to_string(), value)));
    }
    assert_eq!(table::id(&item), Ok(slot.id));
    assert_eq!(table::row(slot.id, &item), Row::Known(slot.clone().into()));
}

fn call(service: Service, operation: &'static str, cause: Cause) -> Error {
    let (subject, host) = ("table \"web\"".to_string(), "dynamodb.eu-west-1.amazonaws.com".to_string());
    Error::Call(Box::new(Call { service, operation, subject, host, who: None, cause }))
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
            if let Err(fault) = answer::<TableDescription>(&mut &rest[..]) {
                assert_message(&call(Service::DynamoDb, "DescribeTable", Cause::Unreadable(fault)), 0);
            }
        }
        b'n' => number(&text(rest)),
        b't' => time(&text(rest)),
        _ => {}
    }
}

fn page(body: &[u8]) {
    let maker = Maker { make: &|item| item, memory: &Memory::default() };
    let items = read_page(&mut &body[..], &maker).map(|page| page.items);
    let (items, table) = match (items, store::read_page(body)) {
        (Ok(items), Ok(table)) => (items, table),
        (Err(fault), Err(same)) => {
            assert_eq!(fault, same);
            return assert_message(&call(Service::DynamoDb, "Scan", Cause::Unreadable(fault)), 0);
        }
        (items, table) => panic!("{items:?} and {table:?}"),
    };
    assert!(table.rows.len() + table.strays.len() <= items.len());
    for fault in table.faults() {
        assert_message(&fault, 0);
    }
    for slot in table.slots() {
        assert_same(slot);
        if let Some(Occupant { weight, address, .. }) = slot.occupant {
            assert!(weight <= crate::slot::MAX_WEIGHT && !address.is_unspecified(), "{slot:?}");
        }
    }
    for item in items {
        let marker = table::marker(&item);
        assert!([marker.version, marker.heartbeat].into_iter().flatten().all(|number| number <= marker::MOST));
        let raw_marker = table::raw_marker(&item);
        let next = Marker { version: Some(1), heartbeat: Some(2), leader: Some("host".to_string()) };
        let (wanted, before) = (table::attributes(&Slot::empty(1)), table::raw(Item::clone(&item)));
        assert_complete(&table::update(7, &wanted, Some(&before)));
        assert_complete(&table::mark(&next, Some((&wanted, Some(&before)))));
        assert_complete(&table::take(&next, Some(&raw_marker)));
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
    assert_eq!(table::id(&item).ok(), u32::try_from(number).ok().filter(|id| (1..=10_000).contains(id)));
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
    super::credentials::fuzzing::environment(environment, input);
}
