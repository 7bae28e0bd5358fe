//! Parses error responses: JSON for DynamoDB, two shapes of XML for the Query APIs. Pure.
//!
//! Both are tried for every service, since emulators mix them. Of any other body, such as a proxy's error page, the text is
//! kept: it says what refused the call.

use serde::Deserialize;

use super::Refusal;
use crate::aws::reading::xml;

/// DynamoDB API Reference, "Error responses"; reasons come with `TransactionCanceledException`.
#[derive(Deserialize)]
struct JsonError {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message")]
    message: Option<String>,
    #[serde(rename = "CancellationReasons", default)]
    reasons: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(rename = "Code")]
    code: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
}

/// Bytes of a page that are examined.
const PAGE: usize = 16 * 1024;

/// Parses an error response; `request_id` is from the headers. A body that is not an AWS error gives the code
/// `HTTP <status>` and its visible text.
pub(crate) fn refusal(status: u16, request_id: Option<&str>, body: &[u8]) -> Refusal {
    let mut refusal = from_json(body).or_else(|| from_xml(body)).unwrap_or_else(|| blank(String::new()));
    if refusal.code.is_empty() {
        refusal.code = format!("HTTP {status}");
        if refusal.message.is_empty() {
            refusal.message = visible_text(&String::from_utf8_lossy(&body[..body.len().min(PAGE)]));
        }
    }
    refusal.status = status;
    refusal.request_id = request_id.map(str::to_string).or(refusal.request_id);
    refusal
}

fn blank(code: String) -> Refusal {
    Refusal { status: 0, code, message: String::new(), request_id: None, reasons: Vec::new() }
}

fn from_json(body: &[u8]) -> Option<Refusal> {
    let error: JsonError = serde_json::from_slice(body).ok()?;
    // `com.amazonaws.dynamodb.v20120810#ResourceNotFoundException`, and elsewhere `Code:http://...`.
    let code = error.kind.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let reasons = error
        .reasons
        .into_iter()
        .map(|reason| (reason.code.unwrap_or_else(|| "None".to_string()), reason.message.unwrap_or_default()));
    Some(Refusal { message: error.message.unwrap_or_default(), reasons: reasons.collect(), ..blank(code.to_string()) })
}

/// `ErrorResponse/Error` (Auto Scaling), `Response/Errors/Error` (EC2), and emulators' mixtures of both.
fn from_xml(body: &[u8]) -> Option<Refusal> {
    let mut found = blank(String::new());
    let mut input = body;
    // Whatever precedes a syntax error is still the best message there is.
    let _ = xml::walk(&mut input, &mut |path, text| {
        if path.ends_with("/Error/Code") {
            found.code = text.to_string();
        } else if path.ends_with("/Error/Message") {
            found.message = text.to_string();
        } else if path.ends_with("/RequestId") || path.ends_with("/RequestID") {
            found.request_id = Some(text.to_string());
        }
        Ok(())
    });
    (!found.code.is_empty()).then_some(found)
}

/// The visible text of an HTML page, given its first bytes; `None` for anything else.
pub(crate) fn html_text(prefix: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(prefix);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let starts = |with: &str| text.get(..with.len()).is_some_and(|word| word.eq_ignore_ascii_case(with));
    (starts("<!doctype html") || starts("<html")).then(|| visible_text(text))
}

/// The target of a redirect: scheme and host only, since the rest may hold a secret.
pub(crate) fn redirect_target(location: &str) -> String {
    let (scheme, rest) = location.split_once("://").unwrap_or(("", location));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { "another URL".to_string() } else { format!("{scheme}://{host}") }
}

/// The text of a page in one line, without tags, comments, scripts and styles. Plain text stays as it is.
fn visible_text(text: &str) -> String {
    let mut said = String::new();
    let mut rest = text;
    while let Some(place) = rest.find('<') {
        said.push_str(&rest[..place]);
        rest = &rest[place..];
        let name: String =
            rest[1..].chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
        let end = match name.as_str() {
            _ if rest.starts_with("<!--") => "-->",
            "script" => "</script>",
            "style" => "</style>",
            _ if name.is_empty() && !rest.starts_with("</") && !rest.starts_with("<!") && !rest.starts_with("<?") => {
                said.push('<');
                rest = &rest[1..];
                continue;
            }
            _ => ">",
        };
        said.push(' ');
        let place = if end == ">" { rest.find(end) } else { rest.to_ascii_lowercase().find(end) };
        rest = place.map_or("", |place| &rest[place + end.len()..]);
    }
    said.push_str(rest);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_format_is_parsed() {
        let cases = [
            (
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"gone"}"#,
                ("ResourceNotFoundException", "gone", None),
            ),
            (
                r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not allowed"}"#,
                ("AccessDeniedException", "not allowed", None),
            ),
            (
                "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
                 <Code>Throttling</Code><Message>Rate &gt; limit</Message></Error><RequestId>R-2</RequestId></ErrorResponse>",
                ("Throttling", "Rate > limit", Some("R-2")),
            ),
            (
                "<?xml version=\"1.0\"?><Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code>\
                 <Message>gone</Message></Error></Errors><RequestID>R-3</RequestID></Response>",
                ("InvalidInstanceID.NotFound", "gone", Some("R-3")),
            ),
            (
                "<ErrorResponse><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors></ErrorResponse>",
                ("AuthFailure", "no", None),
            ),
            ("<html><body>Bad gateway</body>", ("HTTP 502", "Bad gateway", None)),
            ("", ("HTTP 502", "", None)),
            ("{\"message\": 1}", ("HTTP 502", "{\"message\": 1}", None)),
        ];
        for (body, (code, message, id)) in cases {
            let read = refusal(502, None, body.as_bytes());
            let got = (read.code.as_str(), read.message.as_str(), read.request_id.as_deref());
            assert_eq!(got, (code, message, id), "{body}");
        }
    }

    #[test]
    fn only_visible_text_of_a_page_is_kept() {
        for (body, expected) in [
            (
                "<!DOCTYPE html>\n<html><head><title>403 Forbidden</title><style>b { color: red }</style>\
                 <SCRIPT>if (a < b) alert(1)</script></head><body><h1>Forbidden</h1>\n<!-- a < b > c -->\
                 <p>The host <b>dynamodb.eu-west-1.amazonaws.com</b>\tis not allowed.</p></body></html>",
                "403 Forbidden Forbidden The host dynamodb.eu-west-1.amazonaws.com is not allowed.",
            ),
            ("upstream  connect error\r\n", "upstream connect error"),
            ("1 < 2, and 3 <= 4", "1 < 2, and 3 <= 4"),
            ("half a <tag", "half a"),
            ("<", "<"),
            ("\u{0}<p>\u{1b}[2J", "\u{0} \u{1b}[2J"),
        ] {
            assert_eq!(visible_text(body), expected, "{body}");
        }
        let long = refusal(503, None, "é".repeat(PAGE).as_bytes());
        assert!(long.message.len() <= PAGE + 3, "{}", long.message.len());
    }

    #[test]
    fn html_is_recognised() {
        for (body, expected) in [
            ("<html><body>Log in</body></html>", Some("Log in")),
            ("\u{feff}\n<!DOCTYPE HTML PUBLIC><HTML><title>Log</title> in", Some("Log in")),
            ("<html", Some("")),
            ("<DescribeInstancesResponse>", None),
            ("<!DOCTYPE x><a/>", None),
            ("{}", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(html_text(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_redirect_target_has_no_secret() {
        for (location, expected) in [
            ("https://sso.example/login?token=hush", "https://sso.example"),
            ("http://u:hush@proxy.example:8080#x", "http://proxy.example:8080"),
            ("/login?token=hush", "another URL"),
            ("", "another URL"),
        ] {
            assert_eq!(redirect_target(location), expected);
        }
    }

    #[test]
    fn the_request_id_may_come_from_the_header() {
        assert_eq!(refusal(503, Some("H-1"), b"").request_id.as_deref(), Some("H-1"));
    }

    #[test]
    fn the_reasons_of_a_cancelled_transaction_keep_their_order() {
        let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled",
            "CancellationReasons":[{"Code":"None"},{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},{}]}"#;
        let codes: Vec<String> =
            refusal(400, None, body.as_bytes()).reasons.into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, ["None", "ConditionalCheckFailed", "None"]);
    }
}
