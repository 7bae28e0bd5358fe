//! DescribeInstances: the state and private address of instances, by id.
//!
//! EC2 API Reference, version 2016-11-15.

use std::collections::{BTreeMap, HashSet};
use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::pieces::{self, Cut};
use crate::aws::calls::{Aws, call_error, send};
use crate::aws::error::{AwsError, Cause};
use crate::aws::reading::pages::PageTokens;
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::{Budget, Request};
use crate::settings::AddressKind;

/// Ids per call. `MaxResults` cannot be combined with ids.
const IDS_PER_CALL: usize = 1_000;

/// The extra calls allowed to find the ids that EC2 does not know.
const EXTRA_CALLS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
/// An instance as EC2 describes it.
pub struct Record {
    /// The instance id.
    pub id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub state: String,
    /// Its primary private IPv4 address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// Its primary IPv6 address, if it has one.
    pub ipv6: Option<Ipv6Addr>,
    /// Its public IPv4 address, if it has one.
    pub public: Option<Ipv4Addr>,
    /// Whether EC2 may interrupt it: a Spot instance.
    pub is_spot: bool,
    /// Cores times threads, if EC2 tells.
    pub vcpus: Option<u32>,
    /// Its tags `hsdo:…`, without that prefix.
    pub tags: Vec<(String, String)>,
}

impl Record {
    /// The address of this kind.
    pub fn address_of(&self, kind: AddressKind) -> Option<IpAddr> {
        let ipv6 = self.ipv6.map(IpAddr::V6);
        match kind {
            AddressKind::Private => self.address.map(IpAddr::V4).or(ipv6),
            AddressKind::Ipv6 => ipv6,
            AddressKind::Public => self.public.map(IpAddr::V4),
        }
    }

    /// Whether EC2 shows it running.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether EC2 never starts it again.
    pub fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "shutting-down" | "terminated")
    }
}

/// A piece is one reservation, often with a single instance.
const RESERVATION: Cut =
    Cut { from: "<reservationId>", to: "</instancesSet>", inside: "DescribeInstancesResponse/reservationSet/item" };

/// The instances to ask EC2 about, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InstanceQuery<'a> {
    /// Listed by a group: those in service, and occupants.
    pub listed: Vec<&'a str>,
    /// Occupants that no group lists.
    pub unlisted: Vec<&'a str>,
}

/// The Spot instances that EC2 is about to interrupt, with the status codes of their requests. Many have ended long ago: requests stay
/// listed for hours.
pub type SpotMarks = BTreeMap<String, &'static str>;

#[derive(Debug, Default)]
/// What EC2 says about the instances of an [`InstanceQuery`].
pub struct DescribedInstances<'a> {
    /// The instances it knows, in any order.
    pub batches: Vec<Arc<Vec<Record>>>,
    /// Ids that EC2 says do not exist.
    pub not_found: HashSet<&'a str>,
    /// Those that it is about to interrupt, of any group.
    pub marks: Arc<SpotMarks>,
}

impl DescribedInstances<'_> {
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.batches.iter().flat_map(|batch| batch.iter())
    }
}

/// Fetches these instances. No ids, no call: a call without ids would list the whole account.
///
/// An id that EC2 does not know, or rejects as malformed, never fails the others. If the bad ones cannot be found, the unlisted
/// ids are dropped: they come from table rows that anybody may edit.
pub(crate) fn fetch_instances<'a>(
    aws: &Aws,
    query: &InstanceQuery<'a>,
    cache: &ParseCache<Vec<Record>>,
    budget: &Budget,
) -> Result<DescribedInstances<'a>, AwsError> {
    cache.next_response();
    let mut described = DescribedInstances::default();
    let mut unlisted: HashSet<&str> = query.unlisted.iter().copied().collect();
    let ids: Vec<&str> = query.listed.iter().chain(&query.unlisted).copied().collect();
    let mut batches: Vec<Vec<&str>> = ids.chunks(IDS_PER_CALL).map(<[&str]>::to_vec).collect();
    let mut extra = 0;
    while let Some(mut ids) = batches.pop() {
        let error = match fetch_batch(aws, &ids, cache, budget) {
            Ok(batch) => {
                described.batches.extend(batch);
                continue;
            }
            Err(error) => error,
        };
        extra += 1;
        if !matches!(error.code(), Some("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed")) {
            return Err(error);
        }
        if extra > EXTRA_CALLS {
            if unlisted.is_empty() {
                return Err(error);
            }
            batches.push(ids);
            for ids in &mut batches {
                ids.retain(|id| !unlisted.contains(id));
            }
            batches.retain(|ids| !ids.is_empty());
            (unlisted, extra) = (HashSet::new(), 0);
            continue;
        }
        let asked = ids.len();
        let message = error.refusal().map(|refusal| refusal.message.as_str()).unwrap_or_default();
        described.not_found.extend(ids.extract_if(.., |id| mentions(message, id)));
        match asked {
            // The message names some of ours: retry without them.
            _ if ids.len() < asked => batches.extend((!ids.is_empty()).then_some(ids)),
            // It names none, but can only mean this one.
            1 => described.not_found.extend(ids),
            // It names none: bisect.
            _ => {
                let half = ids.split_off(asked / 2);
                batches.extend([half, ids]);
            }
        }
    }
    Ok(described)
}

/// Whether EC2's message contains this id as a word: `The instance IDs 'i-1, i-2' do not exist`, `Invalid id: "x"`.
fn mentions(message: &str, id: &str) -> bool {
    message.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == id)
}

fn fetch_batch(
    aws: &Aws,
    ids: &[&str],
    cache: &ParseCache<Vec<Record>>,
    budget: &Budget,
) -> Result<Vec<Arc<Vec<Record>>>, AwsError> {
    let mut records = Vec::new();
    let mut pages = PageTokens::default();
    let mut token: Option<String> = None;
    loop {
        let request = request(ids, token.as_deref());
        let (page, next) = send(aws, &request, budget, &|body| parse(body, cache))?;
        records.extend(page);
        let Some(next) = next else { return Ok(records) };
        pages.follow(&next).map_err(|text| call_error(aws, &request, Cause::Unreadable(text)))?;
        token = Some(next);
    }
}

fn request(ids: &[&str], token: Option<&str>) -> Request {
    let mut query = Query::new("DescribeInstances", "2016-11-15");
    query.add_list("InstanceId", ids);
    if let Some(token) = token {
        query.add("NextToken", token);
    }
    query.request(Service::Ec2, "DescribeInstances", format!("{} instances", ids.len()))
}

type RecordPage = (Vec<Arc<Vec<Record>>>, Option<String>);

pub(crate) fn parse(body: &mut dyn BufRead, cache: &ParseCache<Vec<Record>>) -> Result<RecordPage, String> {
    parse_cut(body, &RESERVATION, cache)
}

/// Parses one page, cut into pieces by `cut`.
pub(crate) fn parse_cut(
    body: &mut dyn BufRead,
    cut: &Cut,
    cache: &ParseCache<Vec<Record>>,
) -> Result<RecordPage, String> {
    const RESERVATIONS: &str = "DescribeInstancesResponse/reservationSet";
    let (mut uncut, mut token, mut complete) = (RecordReader::default(), None, false);
    let mut records = pieces::walk(body, cut, cache, &read_reservation, &mut |path, text| {
        match path.strip_prefix(RESERVATIONS) {
            Some("") => complete = true,
            Some(path) => uncut.element(path.strip_prefix("/item").unwrap_or_default(), text)?,
            None if path == "DescribeInstancesResponse/nextToken" && !text.is_empty() => token = Some(text.to_string()),
            None => {}
        }
        Ok(())
    })?;
    records.push(uncut.records.into());
    if complete { Ok((records, token)) } else { Err("it has no reservationSet".to_string()) }
}

fn read_reservation(piece: &mut dyn BufRead) -> Result<Vec<Record>, String> {
    let mut reader = RecordReader::default();
    xml::walk(piece, &mut |path, text| reader.element(path.strip_prefix("piece").unwrap_or_default(), text))?;
    Ok(reader.records)
}

/// The prefix of the tags that hsdo reads.
const TAG_PREFIX: &str = "hsdo:";

#[derive(Default)]
struct RecordReader {
    record: Record,
    cores: Option<u32>,
    threads: Option<u32>,
    tag: (String, String),
    interface: Interface,
    records: Vec<Record>,
}

/// A network interface of the record being read.
#[derive(Default)]
struct Interface {
    /// 0 for the instance's first one.
    index: Option<String>,
    address: Option<Ipv6Addr>,
    is_primary: bool,
    /// The primary one, else the first.
    chosen: Option<(bool, Ipv6Addr)>,
}

impl RecordReader {
    /// Handles the end of an element; `path` is relative to the reservation.
    fn element(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path.strip_prefix("/instancesSet/item") {
            Some("/instanceId") => self.record.id = text.to_string(),
            Some("/instanceState/name") => self.record.state = text.to_string(),
            Some("/privateIpAddress") if !text.is_empty() => {
                self.record.address = Some(text.parse().map_err(|_| format!("privateIpAddress is {text:?}"))?);
            }
            Some("/instanceLifecycle") => self.record.is_spot = text == "spot",
            Some("/ipAddress") => self.record.public = text.parse().ok(),
            Some("/ipv6Address") => self.record.ipv6 = text.parse().ok(),
            Some("/cpuOptions/coreCount") => self.cores = text.parse().ok(),
            Some("/cpuOptions/threadsPerCore") => self.threads = text.parse().ok(),
            Some("/tagSet/item/key") => self.tag.0 = text.to_string(),
            Some("/tagSet/item/value") => self.tag.1 = text.to_string(),
            Some("/tagSet/item") => {
                let (key, value) = std::mem::take(&mut self.tag);
                self.record.tags.extend(key.strip_prefix(TAG_PREFIX).map(|key| (key.to_owned(), value)));
            }
            Some(path) if path.starts_with("/networkInterfaceSet/item") => self.interface(path, text),
            Some("") => {
                let mut record = std::mem::take(&mut self.record);
                record.vcpus =
                    self.cores.take().zip(self.threads.take()).map(|(cores, threads)| cores.saturating_mul(threads));
                if record.id.is_empty() || record.state.is_empty() {
                    return Err(format!("an instance without instanceId or state: {record:?}"));
                }
                self.records.push(record);
            }
            _ => {}
        }
        Ok(())
    }

    /// Not every response has the instance's own `ipv6Address`; its first interface lists all of them.
    fn interface(&mut self, path: &str, text: &str) {
        let interface = &mut self.interface;
        match path.strip_prefix("/networkInterfaceSet/item").unwrap_or_default() {
            "/attachment/deviceIndex" => interface.index = Some(text.to_string()),
            "/ipv6AddressesSet/item/ipv6Address" => interface.address = text.parse().ok(),
            "/ipv6AddressesSet/item/isPrimaryIpv6" => interface.is_primary = text == "true",
            "/ipv6AddressesSet/item" => {
                let found = interface.address.take().map(|address| (interface.is_primary, address));
                interface.is_primary = false;
                let is_better = |(primary, _): &(bool, Ipv6Addr)| match interface.chosen {
                    Some((chosen, _)) => *primary && !chosen,
                    None => true,
                };
                if let Some(found) = found.filter(is_better) {
                    interface.chosen = Some(found);
                }
            }
            "" => {
                let Interface { index, chosen, .. } = std::mem::take(interface);
                if index.as_deref() == Some("0") && self.record.ipv6.is_none() {
                    self.record.ipv6 = chosen.map(|(_, address)| address);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "ec2_tests.rs"]
mod tests;
