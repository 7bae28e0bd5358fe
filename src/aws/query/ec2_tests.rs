use std::time::Duration;

use super::*;
use crate::aws::testing::{CannedResponse, Responder, Seen, aws};

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

fn refusal(code: &str, message: &str) -> CannedResponse {
    let body =
        format!("<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>");
    CannedResponse { status: 400, body }
}

/// An EC2 that does not know some ids, and reports them with `spell`.
fn without(unknown: &[&str], code: &'static str, spell: fn(&[String]) -> String) -> Responder {
    let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    Responder::new(move |seen: &Seen| {
        let asked = asked(seen);
        assert!(!asked.is_empty(), "a call without ids lists the whole account");
        let bad: Vec<String> = asked.iter().filter(|id| unknown.contains(id)).cloned().collect();
        if bad.is_empty() {
            CannedResponse::ok(page(&asked.iter().map(|id| item(id)).collect::<String>(), ""))
        } else {
            refusal(code, &spell(&bad))
        }
    })
}

fn fetch<'a>(aws: &Aws, listed: &'a [String], unlisted: &'a [String]) -> Result<DescribedInstances<'a>, AwsError> {
    let [listed, unlisted] = [listed, unlisted].map(|ids| ids.iter().map(String::as_str).collect());
    fetch_instances(aws, &InstanceQuery { listed, unlisted }, &ParseCache::default(), &budget())
}

fn fetched(server: &Responder, ids: &[String]) -> Vec<String> {
    let (aws, _) = aws(&server.url);
    let answer = fetch(&aws, ids, &[]).expect("instances");
    known(&answer)
}

fn known(answer: &DescribedInstances<'_>) -> Vec<String> {
    let mut found: Vec<String> = answer.records().map(|record| record.id.clone()).collect();
    found.sort();
    found
}

fn read(text: &str) -> Result<(Vec<Record>, Option<String>), String> {
    let (records, token) = parse(&mut text.as_bytes(), &ParseCache::default())?;
    Ok((records.iter().flat_map(|some| some.iter().cloned()).collect(), token))
}

#[test]
fn records_are_parsed_by_element_path() {
    let record = |id: &str, state: &str, address: Option<Ipv4Addr>| Record {
        id: id.to_string(),
        state: state.to_string(),
        address,
        ..Record::default()
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
fn a_spot_instance_is_known_by_its_lifecycle() {
    for (lifecycle, expected) in [
        ("", false),
        ("<instanceLifecycle>spot</instanceLifecycle>", true),
        ("<instanceLifecycle>scheduled</instanceLifecycle>", false),
        ("<instanceLifecycle/>", false),
        ("<spotOptions><instanceLifecycle>spot</instanceLifecycle></spotOptions>", false),
    ] {
        // Two of them, of which the second must not take over from the first.
        let spot = item("i-1").replace("</instanceId>", &format!("</instanceId>{lifecycle}"));
        let (records, _) = read(&page(&format!("{spot}{}", item("i-2")), "")).expect("a page");
        let found: Vec<bool> = records.iter().map(|record| record.is_spot).collect();
        assert_eq!(found, [expected, false], "{lifecycle}");
    }
}

#[test]
fn a_malformed_response_is_an_error() {
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
        CannedResponse::ok(page(&asked[from..to].iter().map(|id| item(id)).collect::<String>(), &token))
    });
    let ids = ids(2_500);
    assert_eq!(fetched(&server, &ids), ids);
    let mut calls: Vec<usize> = server.seen().iter().map(|seen| seen.count("InstanceId.")).collect();
    calls.dedup();
    assert_eq!(calls, [500, 1_000]);
    assert!(server.seen().iter().all(|seen| seen.query("MaxResults").is_none()));
}

#[test]
fn no_ids_make_no_call() {
    let server = Responder::new(|_: &Seen| CannedResponse::ok(page(&item("i-of-the-whole-account"), "")));
    assert_eq!(fetched(&server, &[]), Vec::<String>::new());
    assert!(server.seen().is_empty());
}

#[test]
fn unknown_ids_are_dropped_and_the_rest_fetched() {
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
fn a_message_without_ids_is_bisected() {
    let server = without(&["i-0003", "i-0700"], "InvalidInstanceID.NotFound", |_| "Some do not exist".to_string());
    let found = fetched(&server, &ids(1_000));
    assert_eq!(found.len(), 998);
    assert!(server.seen().len() < 45, "{} calls", server.seen().len());
}

#[test]
fn refusing_every_id_ends_in_an_error() {
    let server = Responder::new(|_: &Seen| refusal("InvalidInstanceID.NotFound", "no"));
    let (aws, _) = aws(&server.url);
    let error = fetch(&aws, &ids(1_000), &[]).expect_err("refused");
    assert_eq!(error.code(), Some("InvalidInstanceID.NotFound"));
    assert_eq!(server.seen().len(), EXTRA_CALLS + 1);
}

#[test]
fn listed_and_unlisted_ids_share_calls() {
    let all = |bad: &[String]| format!("The instance IDs '{}' do not exist", bad.join(", "));
    let server = without(&["i-0001", "i-0006"], "InvalidInstanceID.NotFound", all);
    let (aws, _) = aws(&server.url);
    let ids = ids(8);
    let answer = fetch(&aws, &ids[..5], &ids[5..]).expect("instances");
    assert_eq!(known(&answer), ["i-0000", "i-0002", "i-0003", "i-0004", "i-0005", "i-0007"]);
    assert_eq!(answer.not_found, HashSet::from(["i-0001", "i-0006"]));
    assert_eq!(server.seen().iter().map(|seen| seen.count("InstanceId.")).collect::<Vec<_>>(), [8, 6]);
}

/// Rows that anybody may edit must not fail the turn.
#[test]
fn too_many_bad_unlisted_ids_are_dropped() {
    let (listed, unlisted): (Vec<_>, Vec<_>) = (ids(3), (0..200).map(|n| format!("i-bad{n:04}")).collect());
    let bad: Vec<&str> = unlisted.iter().map(String::as_str).collect();
    let server = without(&bad, "InvalidInstanceID.Malformed", |bad| format!("Invalid id: &quot;{}&quot;", bad[0]));
    let (aws, _) = aws(&server.url);
    let answer = fetch(&aws, &listed, &unlisted).expect("a turn");
    assert_eq!(known(&answer), listed);
    assert_eq!(answer.not_found.len(), EXTRA_CALLS, "those that EC2 named");
    assert_eq!(server.seen().len(), EXTRA_CALLS + 2);
}

#[test]
fn any_other_refusal_is_an_error() {
    let server = Responder::new(|_: &Seen| refusal("UnauthorizedOperation", "not you"));
    let (aws, _) = aws(&server.url);
    let error = fetch(&aws, &ids(2), &[]).expect_err("refused");
    assert!(error.needs_operator(), "{error}");
}

#[test]
fn ids_are_matched_as_whole_words() {
    assert!(mentions("The instance ID 'i-12' does not exist", "i-12"));
    assert!(!mentions("The instance ID 'i-123' does not exist", "i-12"));
    assert!(!mentions("The instance ID 'ai-12' does not exist", "i-12"));
}

#[test]
fn addresses_cpus_and_tags_are_read() {
    let interface = |index: u8, addresses: &str| {
        format!(
            "<item><attachment><deviceIndex>{index}</deviceIndex></attachment><ipv6AddressesSet>{addresses}</ipv6AddressesSet></item>"
        )
    };
    let v6 = |last: u8, primary: bool| {
        format!("<item><isPrimaryIpv6>{primary}</isPrimaryIpv6><ipv6Address>fd00::{last}</ipv6Address></item>")
    };
    let read = |inside: &str| {
        let text = format!(
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item>{inside}<instanceId>i-1</instanceId>\
             <instanceState><name>running</name></instanceState></item></instancesSet></item></reservationSet></DescribeInstancesResponse>"
        );
        let (records, _) = parse(&mut text.as_bytes(), &ParseCache::default()).expect("readable");
        records.iter().flat_map(|batch| batch.iter().cloned()).next().expect("a record")
    };
    let address = |last: u8| Some(format!("fd00::{last}").parse().expect("an address"));
    for (interfaces, expected) in [
        (interface(0, ""), None),
        (interface(0, &(v6(1, false) + &v6(2, true))), address(2)),
        (interface(0, &(v6(1, false) + &v6(2, false))), address(1)),
        (interface(1, &v6(1, true)) + &interface(0, &v6(2, false)), address(2)),
        (interface(1, &v6(1, true)), None),
    ] {
        let set = format!("<networkInterfaceSet>{interfaces}</networkInterfaceSet>");
        assert_eq!(read(&set).ipv6, expected, "{interfaces}");
        assert_eq!(
            read(&format!("{set}<ipv6Address>fd00::9</ipv6Address>")).ipv6,
            address(9),
            "the instance's own wins"
        );
        assert_eq!(read(&format!("<ipv6Address>fd00::9</ipv6Address>{set}")).ipv6, address(9));
    }
    let record = read(
        "<ipAddress>203.0.113.7</ipAddress><cpuOptions><coreCount>4</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>\
         <tagSet><item><key>Name</key><value>web</value></item><item><value>0.5</value><key>hsdo:weight</key></item>\
         <item><key>hsdo:exclude</key><value/></item></tagSet>",
    );
    let tags = [("weight", "0.5"), ("exclude", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!((record.vcpus, record.tags.as_slice()), (Some(8), &tags[..]));
    assert_eq!(record.public.map(|public| public.to_string()).as_deref(), Some("203.0.113.7"));
    // What is optional makes no answer unreadable.
    let odd =
        read("<ipAddress>x</ipAddress><ipv6Address>y</ipv6Address><cpuOptions><coreCount>-1</coreCount></cpuOptions>");
    assert_eq!((odd.public, odd.ipv6, odd.vcpus), (None, None, None));
}
