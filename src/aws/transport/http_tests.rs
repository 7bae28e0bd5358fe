//! Failed calls, retries, timeouts, and endless responses.

use std::io::Write;
use std::net::TcpStream;

use super::*;
use crate::aws::calls::send;
use crate::aws::testing::{CannedResponse, Responder, Seen, aws, raw_server, read_request};
use crate::aws::{Aws, Regions};

fn request() -> Request {
    Request {
        service: Service::DynamoDb,
        operation: "Scan",
        subject: "table \"web\"".to_string(),
        headers: vec![("content-type", "text/plain".to_string())],
        body: "ask".to_string(),
    }
}

fn text(body: &mut dyn BufRead) -> Result<String, String> {
    let mut text = String::new();
    body.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn seconds(total: f64) -> Budget {
    Budget::new(Duration::from_secs_f64(total), Duration::from_secs_f64(total))
}

#[test]
fn a_call_is_signed_and_its_body_read() {
    let server = Responder::new(|_: &Seen| CannedResponse::ok("hello"));
    let (aws, results) = aws(&server.url);
    assert_eq!(send(&aws, &request(), &seconds(5.0), &text).expect("an answer"), "hello");
    let seen = server.seen();
    assert_eq!(seen[0].body, "ask");
    assert!(seen[0].header("authorization").contains("/eu-west-1/dynamodb/aws4_request"));
    assert_eq!(results.all(), ["dynamodb Scan ok"]);
}

#[test]
fn transient_failures_get_four_attempts_and_others_one() {
    for (status, body, calls) in [(503, "", 4), (400, "{\"__type\":\"x#AccessDeniedException\"}", 1), (302, "", 1)] {
        let server = Responder::new(move |_: &Seen| CannedResponse { status, body: body.to_string() });
        let (aws, results) = aws(&server.url);
        let error = send(&aws, &request(), &seconds(5.0), &text).expect_err("refused");
        assert_eq!(server.seen().len(), calls, "{error}");
        assert_eq!(results.all().len(), calls);
    }
}

/// A server that refuses the first `times` calls and then answers `late`.
fn refuses(times: usize, status: u16, header: &'static str, body: &'static str) -> String {
    let refused = std::sync::atomic::AtomicUsize::new(0);
    raw_server(move |_, mut stream| {
        while read_request(&mut stream) {
            if refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= times {
                reply(&mut stream, "late");
                continue;
            }
            let length = body.len();
            let text = format!("HTTP/1.1 {status} No\r\n{header}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).expect("sent");
        }
    })
}

#[test]
fn retry_after_is_honoured() {
    let (aws, results) = aws(&refuses(1, 503, "x-amz-retry-after: 300", ""));
    let begun = Instant::now();
    assert_eq!(send(&aws, &request(), &seconds(5.0), &text).expect("an answer"), "late");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(results.all(), ["dynamodb Scan HTTP 503", "dynamodb Scan ok"]);
}

#[test]
fn no_wait_outlasts_the_budget() {
    let throttled = "{\"__type\":\"x#ThrottlingException\"}";
    let (aws, results) = aws(&refuses(1, 400, "x-amz-retry-after: 3000", throttled));
    let begun = Instant::now();
    let error = send(&aws, &request(), &seconds(2.0), &text).expect_err("throttled");
    assert!(error.to_string().contains("ThrottlingException"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(results.all(), ["dynamodb Scan ThrottlingException"]);
}

#[test]
fn a_transaction_cancelled_for_transient_reasons_is_retried() {
    let cancelled = |reason: &str| {
        format!(
            "{{\"__type\":\"x#TransactionCanceledException\",\"CancellationReasons\":[{{\"Code\":\"None\"}},{{\"Code\":\"{reason}\"}}]}}"
        )
    };
    for (reason, calls) in [("TransactionConflict", 2), ("ConditionalCheckFailed", 1)] {
        let body = cancelled(reason);
        let mut refused = false;
        let server = Responder::new(move |_: &Seen| {
            let first = !std::mem::replace(&mut refused, true);
            if first { CannedResponse { status: 400, body: body.clone() } } else { CannedResponse::ok("late") }
        });
        let (aws, _) = aws(&server.url);
        let result = send(&aws, &request(), &seconds(5.0), &text);
        assert_eq!((result.is_ok(), server.seen().len()), (calls == 2, calls), "{reason}");
        assert!(server.seen().iter().all(|seen| seen.body == "ask"), "the same transaction, by the same token");
    }
}

#[test]
fn success_ends_the_retries() {
    let mut count = 0;
    let server = Responder::new(move |_: &Seen| {
        count += 1;
        if count < 3 { CannedResponse { status: 500, body: String::new() } } else { CannedResponse::ok("late") }
    });
    let (aws, results) = aws(&server.url);
    assert_eq!(send(&aws, &request(), &seconds(5.0), &text).expect("an answer"), "late");
    assert_eq!(results.all(), ["dynamodb Scan HTTP 500", "dynamodb Scan HTTP 500", "dynamodb Scan ok"]);
}

#[test]
fn an_unreadable_response_is_not_retried() {
    let server = Responder::new(|_: &Seen| CannedResponse::ok("hello"));
    let (aws, results) = aws(&server.url);
    let refuse = |_: &mut dyn BufRead| Err::<(), _>("not what I want".to_string());
    let error = send(&aws, &request(), &seconds(5.0), &refuse).expect_err("unreadable");
    assert!(error.to_string().ends_with("unreadable response: not what I want"), "{error}");
    assert_eq!(results.all(), ["dynamodb Scan unreadable"]);
}

#[test]
fn an_html_page_and_a_redirect_are_reported_as_such() {
    for (answer, expected) in [
        (
            "200 OK\r\ncontent-length: 54\r\n\r\n<!doctype html><title>Portal</title><p>Please log in</p>",
            "unreadable response: it is an HTML page: \"Portal Please log in\"",
        ),
        (
            "307 T\r\nlocation: https://sso.example/x?y=hush\r\ncontent-length: 0\r\n\r\n",
            "HTTP 307: \"it redirects to https://sso.example\"",
        ),
    ] {
        let url = raw_server(move |_, mut stream| {
            read_request(&mut stream);
            stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).expect("written");
        });
        let refuse = |body: &mut dyn BufRead| {
            body.read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
            Err::<(), _>("not what I want".to_string())
        };
        let error = send(&aws(&url).0, &request(), &seconds(5.0), &refuse).expect_err("no answer");
        assert!(error.to_string().ends_with(expected) && !error.needs_operator(), "{error}");
    }
}

#[test]
fn a_refused_connection_is_reported() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let (aws, results) = aws(&format!("http://{address}"));
    let error = send(&aws, &request(), &seconds(5.0), &text).expect_err("refused");
    assert!(error.to_string().contains("cannot be reached: connection refused"), "{error}");
    assert!(!error.needs_operator());
    assert_eq!(results.all().len(), 4);
}

#[test]
fn a_server_that_never_answers_takes_no_more_than_the_budget() {
    let url = raw_server(|_, mut stream| {
        read_request(&mut stream);
        let _ = stream.read(&mut [0]); // until the caller hangs up
    });
    let (aws, results) = aws(&url);
    let begun = Instant::now();
    let budget = Budget::new(Duration::from_millis(700), Duration::from_millis(300));
    let error = send(&aws, &request(), &budget, &text).expect_err("silence");
    let took = begun.elapsed();
    assert!(error.to_string().contains("timed out"), "{error}");
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    assert!(results.all().len() >= 2, "it was tried again: {:?}", results.all());
}

#[test]
fn a_stalled_body_takes_no_more_than_the_budget() {
    let url = raw_server(|_, mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").expect("sent");
        let _ = stream.read(&mut [0]);
    });
    let (aws, _) = aws(&url);
    let begun = Instant::now();
    let error = send(&aws, &request(), &seconds(0.5), &text).expect_err("half a body");
    assert!(error.to_string().contains("timed out"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_truncated_body_is_an_error() {
    let url = raw_server(|_, mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").expect("sent");
    });
    let (aws, results) = aws(&url);
    let error = send(&aws, &request(), &seconds(5.0), &text).expect_err("half a body");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert_eq!(results.all(), ["dynamodb Scan unreachable"; 4]);
}

fn reply(stream: &mut TcpStream, body: &str) {
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).expect("sent");
}

#[test]
fn connections_are_reused_and_stale_ones_replaced_silently() {
    // The first connection answers twice, and hangs up on its third request without an answer.
    let url = raw_server(|number, mut stream| {
        let answers = if number == 0 { 2 } else { 9 };
        for _ in 0..answers {
            if read_request(&mut stream) {
                reply(&mut stream, &format!("from {number}"));
            }
        }
        read_request(&mut stream);
    });
    let (aws, results) = aws(&url);
    let answers: Vec<String> =
        (0..4).map(|_| send(&aws, &request(), &seconds(5.0), &text).expect("an answer")).collect();
    assert_eq!(answers, ["from 0", "from 0", "from 1", "from 1"]);
    assert!(results.all().len() <= 5, "{:?}", results.all());
}

#[test]
fn refused_credentials_are_looked_up_again() {
    let folder = crate::aws::testing::Folder::new();
    let key = |key: &str| format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n");
    let path = folder.file("credentials", &key("OLD"));
    let server = Responder::new(|seen: &Seen| {
        if seen.header("authorization").contains("Credential=NEW/") {
            CannedResponse::ok("welcome")
        } else {
            CannedResponse { status: 400, body: "{\"__type\":\"x#ExpiredTokenException\"}".to_string() }
        }
    });
    let environment = crate::environment::Environment::from([
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", path.as_str()),
    ]);
    let results = Arc::new(crate::aws::testing::Results::default());
    let aws =
        Aws::new(Regions { named: Some("eu-west-1"), ..Regions::default() }, &environment, results).expect("set up");
    assert!(send(&aws, &request(), &seconds(5.0), &text).is_err());
    folder.file("credentials", &key("NEW"));
    assert_eq!(send(&aws, &request(), &seconds(5.0), &text).expect("an answer"), "welcome");
}

#[test]
fn a_body_is_bounded() {
    let mut body =
        BoundedBody { inner: io::repeat(b'x'), left: 1_000, time: Duration::ZERO, fault: None, prefix: Vec::new() };
    let error = body.read_to_end(&mut Vec::new()).expect_err("endless");
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn a_code_from_outside_cannot_break_a_metric() {
    let label =
        |code: &str| result_label(&Cause::Refused(refusal(400, None, format!("{{\"__type\":{code:?}}}").as_bytes())));
    assert_eq!(label("x#ThrottlingException"), "ThrottlingException");
    assert_eq!(label("evil\"} 1"), "other");
    assert_eq!(label(&"x".repeat(80)), "other");
}
