//! DescribeInstances: the state and the private address of instances, by their ids.
//!
//! EC2 API Reference, version 2016-11-15. An id that EC2 does not know is left out, and never fails the others.

use std::collections::HashSet;
use std::io::BufRead;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::pieces::{self, Cut};
use crate::aws::calls::{Aws, failed, send};
use crate::aws::error::{Cause, Error};
use crate::aws::reading::memory::Memory;
use crate::aws::reading::pages::Pages;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::{Budget, Request};

/// How many ids one call may carry. `MaxResults` cannot be given together with ids.
const IDS_A_CALL: usize = 1_000;

/// How many calls more than needed may be made to find the ids that EC2 does not know.
const EXTRA_CALLS: usize = 64;

/// An instance, as EC2 describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub state: String,
    /// Its primary private address, if it has one.
    pub address: Option<Ipv4Addr>,
}

/// What EC2's answer repeats: a reservation and its instances, often one.
const RESERVATION: Cut =
    Cut { from: "<reservationId>", to: "</instancesSet>", inside: "DescribeInstancesResponse/reservationSet/item" };

/// Whom EC2 is asked about, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Question<'a> {
    /// Instances that their groups list: those in service, and those that hold a slot.
    pub listed: Vec<&'a str>,
    /// Occupants that no group lists.
    pub unlisted: Vec<&'a str>,
}

/// What EC2 says of the instances that it was asked about.
#[derive(Debug, Default)]
pub struct Described<'a> {
    /// Those that it knows, in any order, in parts.
    pub batches: Vec<Arc<Vec<Record>>>,
    /// Those that it says it does not know.
    pub denied: HashSet<&'a str>,
}

impl Described<'_> {
    /// Those that EC2 knows, in any order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.batches.iter().flat_map(|some| some.iter())
    }
}

/// What EC2 says of these instances. Asking for none asks nothing: a call without ids would list the whole account.
///
/// An id that EC2 does not know, or refuses as malformed, never fails the others. Where it cannot be found out which one
/// that is, the unlisted ones are not asked about: they stand in rows that anybody may edit.
pub(crate) fn fetch_instances<'a>(
    aws: &Aws,
    question: &Question<'a>,
    memory: &Memory<Vec<Record>>,
    budget: &Budget,
) -> Result<Described<'a>, Error> {
    memory.turn();
    let mut described = Described::default();
    let mut unlisted: HashSet<&str> = question.unlisted.iter().copied().collect();
    let ids: Vec<&str> = question.listed.iter().chain(&question.unlisted).copied().collect();
    let mut rest: Vec<Vec<&str>> = ids.chunks(IDS_A_CALL).map(<[&str]>::to_vec).collect();
    let mut extra = 0;
    while let Some(mut ids) = rest.pop() {
        let error = match fetch_batch(aws, &ids, memory, budget) {
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
            rest.push(ids);
            for ids in &mut rest {
                ids.retain(|id| !unlisted.contains(id));
            }
            rest.retain(|ids| !ids.is_empty());
            (unlisted, extra) = (HashSet::new(), 0);
            continue;
        }
        let asked = ids.len();
        let message = error.refusal().map(|refusal| refusal.message.as_str()).unwrap_or_default();
        described.denied.extend(ids.extract_if(.., |id| names(message, id)));
        match asked {
            // The message names at least one of ours: ask again without it.
            _ if ids.len() < asked => rest.extend((!ids.is_empty()).then_some(ids)),
            // It names none, and there is only one that it can mean.
            1 => described.denied.extend(ids),
            // It names none: look for it in either half.
            _ => {
                let half = ids.split_off(asked / 2);
                rest.extend([half, ids]);
            }
        }
    }
    Ok(described)
}

/// Whether EC2's message names this id as a word: `The instance IDs 'i-1, i-2' do not exist`, `Invalid id: "x"`.
fn names(message: &str, id: &str) -> bool {
    message.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == id)
}

fn fetch_batch(
    aws: &Aws,
    ids: &[&str],
    memory: &Memory<Vec<Record>>,
    budget: &Budget,
) -> Result<Vec<Arc<Vec<Record>>>, Error> {
    let mut records = Vec::new();
    let mut pages = Pages::default();
    let mut token: Option<String> = None;
    loop {
        let request = request(ids, token.as_deref());
        let (page, next) = send(aws, &request, budget, &|body| parse(body, memory))?;
        records.extend(page);
        let Some(next) = next else { return Ok(records) };
        pages.follow(&next).map_err(|text| failed(aws, &request, Cause::Unreadable(text)))?;
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

/// The instances on one page, and the token of the next one.
type Page = (Vec<Arc<Vec<Record>>>, Option<String>);

/// One page.
pub(crate) fn parse(body: &mut dyn BufRead, memory: &Memory<Vec<Record>>) -> Result<Page, String> {
    parse_cut(body, &RESERVATION, memory)
}

/// One page out of which the pieces of `cut` are cut.
pub(crate) fn parse_cut(body: &mut dyn BufRead, cut: &Cut, memory: &Memory<Vec<Record>>) -> Result<Page, String> {
    const RESERVATIONS: &str = "DescribeInstancesResponse/reservationSet";
    let (mut others, mut token, mut whole) = (Reader::default(), None, false);
    let mut records = pieces::walk(body, cut, memory, &read_reservation, &mut |path, text| {
        match path.strip_prefix(RESERVATIONS) {
            Some("") => whole = true,
            Some(path) => others.element(path.strip_prefix("/item").unwrap_or_default(), text)?,
            None if path == "DescribeInstancesResponse/nextToken" && !text.is_empty() => token = Some(text.to_string()),
            None => {}
        }
        Ok(())
    })?;
    records.push(others.records.into());
    if whole { Ok((records, token)) } else { Err("it has no reservationSet".to_string()) }
}

fn read_reservation(piece: &mut dyn BufRead) -> Result<Vec<Record>, String> {
    let mut reader = Reader::default();
    xml::walk(piece, &mut |path, text| reader.element(path.strip_prefix("piece").unwrap_or_default(), text))?;
    Ok(reader.records)
}

/// Reads instances as their elements go by.
#[derive(Default)]
struct Reader {
    record: Record,
    records: Vec<Record>,
}

impl Reader {
    /// The end of an element, by its path from its reservation's item.
    fn element(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path.strip_prefix("/instancesSet/item") {
            Some("/instanceId") => self.record.id = text.to_string(),
            Some("/instanceState/name") => self.record.state = text.to_string(),
            Some("/privateIpAddress") if !text.is_empty() => {
                self.record.address = Some(text.parse().map_err(|_| format!("privateIpAddress is {text:?}"))?);
            }
            Some("") => {
                let record = std::mem::take(&mut self.record);
                if record.id.is_empty() || record.state.is_empty() {
                    return Err(format!("an instance without instanceId or state: {record:?}"));
                }
                self.records.push(record);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ec2_tests.rs"]
mod tests;
