//! Reads the error that AWS answered out of its body: JSON for DynamoDB, two shapes of XML for the Query APIs. Pure.
//!
//! Both are tried for every service, since a proxy or an emulator may answer in the other one.

use serde::Deserialize;

use super::error::Refusal;
use super::xml;

/// DynamoDB API Reference, "Error responses"; the reasons are those of `TransactionCanceledException`.
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

/// The error in an answer with this status, request id (from the headers) and body. A body that says nothing
/// gives the code `HTTP <status>`.
pub(crate) fn refusal(status: u16, request_id: Option<&str>, body: &[u8]) -> Refusal {
    let mut refusal = from_json(body).or_else(|| from_xml(body)).unwrap_or_else(|| nothing(String::new()));
    if refusal.code.is_empty() {
        refusal.code = format!("HTTP {status}");
    }
    refusal.status = status;
    refusal.request_id = request_id.map(str::to_string).or(refusal.request_id);
    refusal
}

fn nothing(code: String) -> Refusal {
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
    Some(Refusal {
        message: error.message.unwrap_or_default(),
        reasons: reasons.collect(),
        ..nothing(code.to_string())
    })
}

/// `ErrorResponse/Error` (Auto Scaling), `Response/Errors/Error` (EC2), and emulators' mixtures of both.
fn from_xml(body: &[u8]) -> Option<Refusal> {
    let mut found = nothing(String::new());
    let mut input = body;
    // What could be read before a fault in the document is still the best message there is.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_an_error_is_read() {
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
                // As moto denies.
                "<ErrorResponse><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors></ErrorResponse>",
                ("AuthFailure", "no", None),
            ),
            ("<html><body>Bad gateway</body>", ("HTTP 502", "", None)),
            ("", ("HTTP 502", "", None)),
            ("{\"message\": 1}", ("HTTP 502", "", None)),
        ];
        for (body, (code, message, id)) in cases {
            let read = refusal(502, None, body.as_bytes());
            let got = (read.code.as_str(), read.message.as_str(), read.request_id.as_deref());
            assert_eq!(got, (code, message, id), "{body}");
        }
    }

    #[test]
    fn the_header_names_the_request() {
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
