use std::sync::Mutex;

use super::*;
use crate::aws::testing::{CannedResponse, Responder, Seen, aws};

const ONE: &str = "i-00000000000000001";
const TWO: &str = "i-00000000000000002";
const CAPACITY: &str = "instance-terminated-no-capacity";

fn item(id: &str, state: &str, code: &str) -> String {
    let id = if id.is_empty() { String::new() } else { format!("<instanceId>{id}</instanceId>") };
    format!(
        "<item><spotInstanceRequestId>sir-1</spotInstanceRequestId><state>{state}</state><status><code>{code}</code>\
         <updateTime>2026-01-02T03:04:05.000Z</updateTime><message>It says code and instanceId.</message></status>\
         <launchSpecification><networkInterfaceSet><item><deviceIndex>0</deviceIndex></item></networkInterfaceSet>\
         </launchSpecification>{id}<instanceInterruptionBehavior>terminate</instanceInterruptionBehavior></item>"
    )
}

fn page(items: &str, token: &str) -> String {
    format!(
        "<DescribeSpotInstanceRequestsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
         <spotInstanceRequestSet>{items}</spotInstanceRequestSet>{token}</DescribeSpotInstanceRequestsResponse>"
    )
}

fn marks(marks: &[(&str, &'static str)]) -> SpotMarks {
    marks.iter().map(|(id, code)| ((*id).to_owned(), *code)).collect()
}

#[test]
fn only_announcing_codes_of_known_instances_are_marks_whatever_the_state() {
    for (id, state, code, expected) in [
        (ONE, "closed", CAPACITY, marks(&[(ONE, CAPACITY)])),
        (ONE, "open", CAPACITY, marks(&[(ONE, CAPACITY)])),
        (ONE, "active", "marked-for-termination", marks(&[(ONE, "marked-for-termination")])),
        (ONE, "active", "marked-for-stop", marks(&[(ONE, "marked-for-stop")])),
        (ONE, "closed", "instance-terminated-by-price", marks(&[(ONE, "instance-terminated-by-price")])),
        (ONE, "disabled", "instance-stopped-no-capacity", marks(&[(ONE, "instance-stopped-no-capacity")])),
        // What an endpoint returns that does not filter.
        (ONE, "active", "fulfilled", marks(&[])),
        (ONE, "cancelled", "request-canceled-and-instance-running", marks(&[])),
        (ONE, "closed", "instance-terminated-by-user", marks(&[])),
        (ONE, "disabled", "instance-stopped-by-user", marks(&[])),
        (ONE, "cancelled", "instance-terminated-by-service", marks(&[])),
        // A request that is open again has no instance.
        ("", "open", CAPACITY, marks(&[])),
    ] {
        let body = page(&item(id, state, code), "<nextToken></nextToken>");
        assert_eq!(parse(&mut body.as_bytes()), Ok((expected, None)), "{state} {code}");
    }
    let body = page(&[item(ONE, "closed", CAPACITY), item(TWO, "active", "marked-for-stop")].concat(), "");
    let both = marks(&[(ONE, CAPACITY), (TWO, "marked-for-stop")]);
    assert_eq!(parse(&mut body.as_bytes()), Ok((both, None)));
    assert_eq!(parse(&mut page("", "<nextToken>n</nextToken>").as_bytes()), Ok((marks(&[]), Some("n".to_owned()))));
    let empty =
        "<DescribeSpotInstanceRequestsResponse><spotInstanceRequestSet/></DescribeSpotInstanceRequestsResponse>";
    assert_eq!(parse(&mut empty.as_bytes()), Ok((marks(&[]), None)));
}

#[test]
fn a_malformed_response_is_an_error() {
    let whole = page(&item(ONE, "closed", CAPACITY), "");
    for body in [
        "",
        "<html/>",
        "<DescribeSpotInstanceRequestsResponse/>",
        &whole[..whole.len() - 10],
        &whole.replace("<code>", "<kode>").replace("</code>", "</kode>"),
        &whole.replace("spotInstanceRequestSet", "requestSet"),
    ] {
        assert!(parse(&mut body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn only_running_spot_members_are_worth_a_question() {
    let record = |id: &str, is_spot: bool, state: &str| Record {
        id: id.to_owned(),
        is_spot,
        state: state.to_owned(),
        ..Record::default()
    };
    for (found, expected) in [
        (record(ONE, true, "running"), true),
        (record(ONE, false, "running"), false),
        (record(ONE, true, "shutting-down"), false),
        (record(ONE, true, "pending"), false),
        (record(TWO, true, "running"), false),
    ] {
        let records = [record(ONE, false, "running"), found.clone()];
        assert_eq!(holds_spot(&[ONE], records.iter()), expected, "{found:?}");
    }
}

/// All pages, by the codes and never by the state.
#[test]
fn a_question_filters_by_codes_and_follows_all_pages() {
    let server = Responder::new(|seen: &Seen| {
        CannedResponse::ok(match seen.query("NextToken").as_deref() {
            None => page(&item(ONE, "closed", CAPACITY), "<nextToken>two</nextToken>"),
            Some("two") => page("", "<nextToken>three</nextToken>"),
            Some(_) => page(&item(TWO, "active", "marked-for-termination"), ""),
        })
    });
    let found = fetch_marks(&aws(&server.url).0).expect("marks");
    assert_eq!(found, marks(&[(ONE, CAPACITY), (TWO, "marked-for-termination")]));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for seen in seen {
        assert_eq!(seen.operation(), "DescribeSpotInstanceRequests");
        assert_eq!(seen.query("MaxResults").as_deref(), Some("1000"));
        assert_eq!(seen.query("Filter.1.Name").as_deref(), Some("status-code"));
        assert_eq!(seen.count("Filter.2"), 0);
        let codes: Vec<String> = (1..).map_while(|n| seen.query(&format!("Filter.1.Value.{n}"))).collect();
        assert_eq!(codes, ANNOUNCING);
    }
}

#[test]
fn pages_that_repeat_are_an_error() {
    let server = Responder::new(|_: &Seen| CannedResponse::ok(page("", "<nextToken>same</nextToken>")));
    let error = fetch_marks(&aws(&server.url).0).expect_err("a loop");
    assert!(error.to_string().contains("page tokens repeat"), "{error}");
    assert_eq!(server.seen().len(), 2);
}

/// The account's limit, and the retries that the turn's own calls may need, are left to them.
#[test]
fn a_failure_is_not_tried_again_at_once() {
    let server = Responder::new(|_: &Seen| CannedResponse { status: 503, body: String::new() });
    fetch_marks(&aws(&server.url).0).expect_err("503");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn marks_stand_until_a_whole_answer_and_a_failure_is_tried_again_10_s_later() {
    /// Second, what EC2 answers (`None`: it fails), whether it is asked, and the marks of then.
    type Case = (u64, Option<&'static str>, bool, &'static [&'static str]);
    let cases: [Case; 10] = [
        (0, Some(ONE), true, &[ONE]),
        (1, None, true, &[ONE]),
        (2, Some(TWO), false, &[ONE]),
        (10, Some(TWO), false, &[ONE]),
        (11, None, true, &[ONE]),
        (12, Some(TWO), false, &[ONE]),
        (21, Some(TWO), true, &[TWO]),
        (22, Some(ONE), true, &[ONE]),
        (23, Some(""), true, &[]),
        (24, None, true, &[]),
    ];
    let answer: Arc<Mutex<Option<&str>>> = Arc::default();
    let told = Arc::clone(&answer);
    let server = Responder::new(move |_: &Seen| match *told.lock().expect("no panic") {
        None => CannedResponse::ok("<html/>"),
        Some("") => CannedResponse::ok(page("", "")),
        Some(id) => CannedResponse::ok(page(&item(id, "closed", CAPACITY), "")),
    });
    let (aws, _) = aws(&server.url);
    let (mut notices, start, mut calls) = (Notices::default(), Instant::now(), 0);
    for (second, says, asked, expected) in cases {
        *answer.lock().expect("no panic") = says;
        let known = notices.fetch(&aws, start + Duration::from_secs(second));
        assert_eq!(known.keys().map(String::as_str).collect::<Vec<_>>(), expected, "at {second}");
        calls += usize::from(asked);
        assert_eq!(server.seen().len(), calls, "at {second}");
    }
}

#[test]
fn a_denial_names_both_remedies() {
    let denied = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized</Message>\
                  </Error></Errors><RequestID>r</RequestID></Response>";
    for (status, body, remedies) in [(403, denied, true), (500, "", false), (200, "<html/>", false)] {
        let server = Responder::new(move |_: &Seen| CannedResponse { status, body: body.to_owned() });
        let text = trouble(&fetch_marks(&aws(&server.url).0).expect_err("a failure"));
        assert_eq!(text.contains("allow ec2:DescribeSpotInstanceRequests in"), remedies, "{text}");
        assert_eq!(text.contains("or set SERVER_SPOT_NOTICE to false"), remedies, "{text}");
    }
}
