//! DescribeInstances: the state and the private address of instances, by their ids.
//!
//! EC2 API Reference, version 2016-11-15. An id that EC2 does not know is left out, and never fails the others.

use std::io::BufRead;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Aws;
use super::endpoint::Service;
use super::error::{Cause, Error};
use super::http::{Budget, Request, failed, send};
use super::memory::Memory;
use super::pages::Pages;
use super::pieces::{self, Cut};
use super::query::Query;
use super::xml;

/// How many ids one call may carry. `MaxResults` cannot be given together with ids.
const IDS_A_CALL: usize = 1_000;

/// How many calls more than needed may be made to find the ids that EC2 does not know.
const EXTRA_CALLS: usize = 64;

/// An instance, as EC2 describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its id.
    pub(crate) id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub(crate) state: String,
    /// Its primary private address, if it has one.
    pub(crate) address: Option<Ipv4Addr>,
}

/// What EC2's answer repeats: a reservation and its instances, often one.
const RESERVATION: Cut =
    Cut { from: "<reservationId>", to: "</instancesSet>", inside: "DescribeInstancesResponse/reservationSet/item" };

/// The instances of these ids that EC2 knows, in any order. Asking for no ids asks nothing: a call without ids
/// would list the whole account.
pub(crate) fn fetch_instances(
    aws: &Aws,
    ids: &[&str],
    memory: &Memory<Vec<Record>>,
    budget: &Budget,
) -> Result<Vec<Arc<Vec<Record>>>, Error> {
    memory.turn();
    let mut records = Vec::new();
    let mut rest: Vec<Vec<&str>> = ids.chunks(IDS_A_CALL).map(<[&str]>::to_vec).collect();
    let mut extra = 0;
    while let Some(mut ids) = rest.pop() {
        let error = match fetch_batch(aws, &ids, memory, budget) {
            Ok(batch) => {
                records.extend(batch);
                continue;
            }
            Err(error) => error,
        };
        extra += 1;
        let names_ids = matches!(error.code(), Some("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed"));
        if !names_ids || extra > EXTRA_CALLS {
            return Err(error);
        }
        let asked = ids.len();
        let message = error.refusal().map(|refusal| refusal.message.as_str()).unwrap_or_default();
        ids.retain(|id| !names(message, id));
        match asked {
            // The message names at least one of ours: ask again without it.
            _ if ids.len() < asked => rest.extend((!ids.is_empty()).then_some(ids)),
            // It names none, and there is only one that it can mean.
            1 => {}
            // It names none: look for it in either half.
            _ => {
                let half = ids.split_off(asked / 2);
                rest.extend([half, ids]);
            }
        }
    }
    Ok(records)
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
pub(super) fn parse(body: &mut dyn BufRead, memory: &Memory<Vec<Record>>) -> Result<Page, String> {
    parse_cut(body, &RESERVATION, memory)
}

/// One page out of which the pieces of `cut` are cut.
pub(super) fn parse_cut(body: &mut dyn BufRead, cut: &Cut, memory: &Memory<Vec<Record>>) -> Result<Page, String> {
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
mod tests {
    use std::time::Duration;

    use super::super::testing::{Answer, Responder, Seen, aws};
    use super::*;

    fn budget() -> Budget {
        Budget::new(Duration::from_secs(10), Duration::from_secs(4))
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("i-{n:04}")).collect()
    }

    fn asked(seen: &Seen) -> Vec<String> {
        (1..).map_while(|n| seen.query(&format!("InstanceId.{n}"))).collect()
    }

    fn item(id: &str) -> String {
        format!(
            "<item><instancesSet><item><instanceId>{id}</instanceId><instanceState><code>16</code><name>running</name>\
             </instanceState><privateIpAddress>10.0.0.1</privateIpAddress><networkInterfaceSet><item>\
             <privateIpAddress>10.9.9.9</privateIpAddress></item></networkInterfaceSet></item></instancesSet></item>"
        )
    }

    fn page(items: &str, token: &str) -> String {
        format!(
            "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>R</requestId>\
             <reservationSet>{items}</reservationSet>{token}</DescribeInstancesResponse>"
        )
    }

    fn refusal(code: &str, message: &str) -> Answer {
        let body = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
        );
        Answer { status: 400, body }
    }

    /// An EC2 that does not know some ids, and names them by `spell` in its refusal.
    fn without(unknown: &[&str], code: &'static str, spell: fn(&[String]) -> String) -> Responder {
        let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        Responder::new(move |seen: &Seen| {
            let asked = asked(seen);
            assert!(!asked.is_empty(), "a call without ids lists the whole account");
            let bad: Vec<String> = asked.iter().filter(|id| unknown.contains(id)).cloned().collect();
            if bad.is_empty() {
                Answer::ok(page(&asked.iter().map(|id| item(id)).collect::<String>(), ""))
            } else {
                refusal(code, &spell(&bad))
            }
        })
    }

    fn fetch(aws: &Aws, ids: &[String]) -> Result<Vec<Arc<Vec<Record>>>, Error> {
        fetch_instances(aws, &ids.iter().map(String::as_str).collect::<Vec<_>>(), &Memory::default(), &budget())
    }

    fn fetched(server: &Responder, ids: &[String]) -> Vec<String> {
        let (aws, _) = aws(&server.url);
        let records = fetch(&aws, ids).expect("instances");
        let mut found: Vec<String> =
            records.iter().flat_map(|some| some.iter()).map(|record| record.id.clone()).collect();
        found.sort();
        found
    }

    fn read(text: &str) -> Result<(Vec<Record>, Option<String>), String> {
        let (records, token) = parse(&mut text.as_bytes(), &Memory::default())?;
        Ok((records.iter().flat_map(|some| some.iter().cloned()).collect(), token))
    }

    #[test]
    fn a_record_is_read_by_the_place_of_its_elements() {
        let record = |id: &str, state: &str, address: Option<Ipv4Addr>| Record {
            id: id.to_string(),
            state: state.to_string(),
            address,
        };
        let pending = "<item><instancesSet><item><instanceId>i-2</instanceId><instanceState><name>pending</name>\
                       </instanceState><privateIpAddress/></item></instancesSet></item>";
        let text = page(&format!("{}{pending}", item("i-1")), "<nextToken>T</nextToken>");
        let (records, token) = read(&text).expect("a page");
        assert_eq!(token.as_deref(), Some("T"));
        let expected = [record("i-1", "running", Some(Ipv4Addr::new(10, 0, 0, 1))), record("i-2", "pending", None)];
        assert_eq!(records, expected);
        assert_eq!(read(&page("", "")), Ok((Vec::new(), None)));
    }

    #[test]
    fn an_answer_of_another_shape_is_no_answer() {
        let whole = page(&item("i-1"), "");
        for bad in [
            "",
            "<html/>",
            "<DescribeInstancesResponse/>",
            "<Response><reservationSet/></Response>",
            &whole[..whole.len() - 40],
            &whole.replace("10.0.0.1", "10.0.0"),
            &whole.replace("<instanceId>i-1</instanceId>", ""),
            &whole.replace("<name>running</name>", ""),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_thousand_five_hundred_instances_take_three_calls_and_pages_are_joined() {
        let server = Responder::new(|seen: &Seen| {
            let asked = asked(seen);
            let from = seen.query("NextToken").map_or(0, |token| token.parse().expect("our token"));
            let to = asked.len().min(from + 400);
            let token = if to < asked.len() { format!("<nextToken>{to}</nextToken>") } else { String::new() };
            Answer::ok(page(&asked[from..to].iter().map(|id| item(id)).collect::<String>(), &token))
        });
        let ids = ids(2_500);
        assert_eq!(fetched(&server, &ids), ids);
        let mut calls: Vec<usize> = server.seen().iter().map(|seen| seen.count("InstanceId.")).collect();
        calls.dedup();
        assert_eq!(calls, [500, 1_000]);
        assert!(server.seen().iter().all(|seen| seen.query("MaxResults").is_none()));
    }

    #[test]
    fn no_ids_ask_nothing() {
        let server = Responder::new(|_: &Seen| Answer::ok(page(&item("i-of-the-whole-account"), "")));
        assert_eq!(fetched(&server, &[]), Vec::<String>::new());
        assert!(server.seen().is_empty());
    }

    #[test]
    fn unknown_ids_are_left_out_and_the_rest_asked_again() {
        let many = |bad: &[String]| match bad {
            [id] => format!("The instance ID '{id}' does not exist"),
            more => format!("The instance IDs '{}' do not exist", more.join(", ")),
        };
        let server = without(&["i-0001", "i-0003"], "InvalidInstanceID.NotFound", many);
        assert_eq!(fetched(&server, &ids(4)), ["i-0000", "i-0002"]);
        assert_eq!(server.seen().len(), 2);
        let one = |bad: &[String]| format!("Invalid id: &quot;{}&quot; (expecting &quot;i-...&quot;)", bad[0]);
        let server = without(&["i-0001", "i-0003"], "InvalidInstanceID.Malformed", one);
        assert_eq!(fetched(&server, &ids(4)), ["i-0000", "i-0002"]);
        assert_eq!(server.seen().len(), 3);
        let server = without(&["i-0000"], "InvalidInstanceID.NotFound", many);
        assert_eq!(fetched(&server, &ids(1)), Vec::<String>::new());
    }

    #[test]
    fn a_message_that_names_nobody_is_narrowed_down() {
        let server = without(&["i-0003", "i-0700"], "InvalidInstanceID.NotFound", |_| "Some do not exist".to_string());
        let found = fetched(&server, &ids(1_000));
        assert_eq!(found.len(), 998);
        assert!(server.seen().len() < 45, "{} calls", server.seen().len());
    }

    #[test]
    fn a_service_that_refuses_everything_is_an_error_in_the_end() {
        let server = Responder::new(|_: &Seen| refusal("InvalidInstanceID.NotFound", "no"));
        let (aws, _) = aws(&server.url);
        let error = fetch(&aws, &ids(1_000)).expect_err("no end");
        assert_eq!(error.code(), Some("InvalidInstanceID.NotFound"));
        assert_eq!(server.seen().len(), EXTRA_CALLS + 1);
    }

    #[test]
    fn any_other_refusal_is_an_error() {
        let server = Responder::new(|_: &Seen| refusal("UnauthorizedOperation", "not you"));
        let (aws, _) = aws(&server.url);
        let error = fetch(&aws, &ids(2)).expect_err("refused");
        assert!(error.needs_a_person(), "{error}");
    }

    #[test]
    fn a_message_names_whole_words() {
        assert!(names("The instance ID 'i-12' does not exist", "i-12"));
        assert!(!names("The instance ID 'i-123' does not exist", "i-12"));
        assert!(!names("The instance ID 'ai-12' does not exist", "i-12"));
    }
}
