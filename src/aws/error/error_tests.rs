//! Which errors are transient, which need an operator, and their texts.

use super::*;

fn refused(status: u16, code: &str, message: &str) -> AwsError {
    let refusal = Refusal {
        status,
        code: code.to_string(),
        message: message.to_string(),
        request_id: Some("R-1".to_string()),
        reasons: Vec::new(),
    };
    failed(Cause::Refused(refusal))
}

fn failed(cause: Cause) -> AwsError {
    AwsError::Call(Box::new(FailedCall {
        service: Service::DynamoDb,
        operation: "Scan",
        subject: "table \"web\"".to_string(),
        host: "dynamodb.eu-west-1.amazonaws.com".to_string(),
        identity: Some("key ...MPLE (profile \"ops\")".to_string()),
        cause,
        about: About::default(),
        renewal: None,
    }))
}

#[test]
fn what_only_an_operator_can_fix() {
    let cases = [
        (refused(400, "AccessDeniedException", "no"), true),
        (refused(403, "AccessDenied", "no"), true),
        (refused(403, "UnauthorizedOperation", "no"), true),
        (refused(400, "UnrecognizedClientException", "no"), true),
        (refused(403, "InvalidClientTokenId", "no"), true),
        (refused(401, "AuthFailure", "no"), true),
        (refused(403, "SignatureDoesNotMatch", "no"), true),
        (refused(400, "ExpiredTokenException", "no"), true),
        (refused(400, "ResourceNotFoundException", "no"), true),
        (refused(400, "ValidationException", "no"), true),
        (refused(400, "ThrottlingException", "no"), false),
        (refused(503, "HTTP 503", ""), false),
        (refused(400, "TransactionCanceledException", "no"), false),
        (failed(Cause::TimedOut("connect".to_string())), false),
        (failed(Cause::Unreachable("connection refused".to_string())), false),
        (failed(Cause::Unreadable("no Items".to_string())), false),
        (AwsError::Setup("no region".to_string()), true),
        (AwsError::Table("no table".to_string()), true),
        (AwsError::NotReady("CREATING".to_string()), false),
        (AwsError::Unavailable("no metadata".to_string()), false),
    ];
    for (error, expected) in cases {
        assert_eq!(error.needs_operator(), expected, "{error}");
    }
}

#[test]
fn startup_errors_are_recognised() {
    for (error, expected) in [
        (refused(400, "UnrecognizedClientException", ""), true),
        (refused(403, "InvalidClientTokenId", ""), true),
        (refused(401, "AuthFailure", ""), true),
        (refused(403, "SignatureDoesNotMatch", ""), false),
        (refused(400, "AccessDeniedException", ""), false),
        (refused(400, "ExpiredTokenException", ""), false),
        (failed(Cause::TimedOut("x".to_string())), false),
        (AwsError::Unavailable("the metadata service is down".to_string()), true),
        (AwsError::Setup("no region".to_string()), false),
        (AwsError::Table("no table".to_string()), false),
        (AwsError::NotReady("CREATING".to_string()), false),
    ] {
        assert_eq!(error.is_startup_transient(), expected, "{error}");
    }
}

#[test]
fn a_refusal_is_transient_if_the_credential_source_is_down() {
    let with = |why: Option<AwsError>| {
        let mut error = refused(400, "ExpiredTokenException", "ended");
        if let AwsError::Call(call) = &mut error {
            call.renewal = why.map(Box::new);
        }
        error
    };
    let down = with(Some(AwsError::Unavailable("the metadata service is down".to_string())));
    assert!(!down.needs_operator() && down.is_startup_transient());
    let text = down.to_string();
    assert!(text.contains("renew the AWS credentials; cannot renew them: the metadata service is down"), "{text}");
    let lapsed = with(Some(AwsError::Setup("the login has lapsed".to_string())));
    assert!(lapsed.needs_operator() && !lapsed.is_startup_transient());
    assert!(with(None).needs_operator() && !with(None).is_startup_transient());
    assert_eq!(down.key(), with(None).key());
}

#[test]
fn transient_errors_are_retryable() {
    for (status, code, expected) in [
        (400, "ProvisionedThroughputExceededException", true),
        (503, "RequestLimitExceeded", true),
        (400, "Throttling", true),
        (400, "TransactionInProgressException", true),
        (500, "InternalServerError", true),
        (400, "InternalServerError", true),
        (502, "HTTP 502", true),
        (429, "HTTP 429", true),
        (400, "AccessDeniedException", false),
        (400, "TransactionCanceledException", false),
        (301, "HTTP 301", false),
    ] {
        let error = refused(status, code, "");
        assert_eq!(error.refusal().expect("a refusal").is_retryable(), expected, "{status} {code}");
    }
}

#[test]
fn a_transaction_cancelled_for_transient_reasons_only_is_retryable() {
    for (reasons, passes, throttled) in [
        (&["TransactionConflict"][..], true, false),
        (&["None", "TransactionConflict", "None"], true, false),
        (&["ThrottlingError"], true, true),
        (&["None", "ProvisionedThroughputExceeded", "TransactionConflict"], true, true),
        (&["TransactionConflict", "ConditionalCheckFailed"], false, false),
        (&["ThrottlingError", "ValidationError"], false, true),
        (&["ItemCollectionSizeLimitExceeded"], false, false),
        (&["SomethingNew"], false, false),
        (&["None"], false, false),
        (&[], false, false),
    ] {
        let reasons = reasons.iter().map(|code| ((*code).to_string(), String::new())).collect();
        let refusal =
            Refusal { status: 400, code: CANCELLED.to_string(), message: String::new(), request_id: None, reasons };
        assert_eq!((refusal.is_retryable(), refusal.is_throttled()), (passes, throttled), "{:?}", refusal.reasons);
    }
}

#[test]
fn the_text_names_call_host_code_remedy_and_request() {
    let error = refused(400, "AccessDeniedException", "User: arn:u is not authorized to perform: dynamodb:Scan");
    assert_eq!(
        error.to_string(),
        "DynamoDB Scan of table \"web\" at dynamodb.eu-west-1.amazonaws.com as key ...MPLE (profile \"ops\"): \
         AccessDeniedException: User: arn:u is not authorized to perform: dynamodb:Scan; \
         allow dynamodb:Scan in the IAM policy of these credentials (request R-1)"
    );
    let timed_out = failed(Cause::TimedOut("connect".to_string()));
    assert_eq!(
        timed_out.to_string(),
        "DynamoDB Scan of table \"web\" at dynamodb.eu-west-1.amazonaws.com: timed out (connect)"
    );
}

#[test]
fn the_key_holds_nothing_that_varies() {
    let first = refused(400, "ThrottlingException", "rate 12.5 at 12:00");
    let mut second = refused(400, "ThrottlingException", "rate 99.1 at 12:01");
    if let AwsError::Call(call) = &mut second {
        call.subject = "table \"web\", page 4".to_string();
    }
    assert_eq!(first.key(), second.key());
    assert!(!first.key().contains("R-1"));
    assert_ne!(first.key(), refused(400, "AccessDeniedException", "").key());
    let timed_out = |text: &str| failed(Cause::TimedOut(text.to_string())).key();
    assert_eq!(timed_out("no complete response within 0.4 s"), timed_out("no complete response within 0.3 s"));
    assert_ne!(timed_out("no complete response within 0.4 s"), failed(Cause::Unreachable("x".to_string())).key());
}

#[test]
fn an_aws_message_stays_one_short_line() {
    assert_eq!(one_line("a\nb\u{1b}[31m\tc", 99), "a\\nb\\u{1b}[31m\\tc");
    assert_eq!(one_line(&"x".repeat(50), 10), format!("{}...", "x".repeat(10)));
    let denied = refused(403, "UnauthorizedOperation", "Not allowed. Encoded authorization failure message: AbC1");
    assert!(!denied.to_string().contains("AbC1"), "{denied}");
}

#[test]
fn a_page_is_quoted_briefly_and_without_secrets() {
    let page = refused(403, "HTTP 403", &"blocked ".repeat(100)).to_string();
    assert!(page.contains(&format!("HTTP 403: \"{}...\"", "blocked ".repeat(25))), "{page}");
    let mut refusal = Refusal {
        status: 403,
        code: "HTTP 403".to_string(),
        message: "asked with x-amz-security-token: hush-hush".to_string(),
        request_id: None,
        reasons: Vec::new(),
    };
    refusal.redact(&["nothing", "hush-hush"]);
    assert_eq!(refusal.to_string(), "HTTP 403: \"asked with x-amz-security-token: (hidden)\"");
}
