//! Signs a request with Signature Version 4. Pure.

use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign as sign_http};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;

use super::identity::Credentials;
use crate::clock::Timestamp;

/// The credential scope of a signature.
pub(crate) struct SigningScope<'a> {
    pub(crate) region: &'a str,
    /// The service, by its signing name.
    pub(crate) service: &'a str,
}

/// The headers to add to a `POST` of `body` to `url` with `headers`. The error never holds a secret.
pub(crate) fn sign(
    credentials: &Credentials,
    scope: &SigningScope<'_>,
    url: &str,
    headers: &[(&'static str, String)],
    body: &[u8],
    now: Timestamp,
) -> Result<Vec<(String, String)>, String> {
    let identity: Identity = aws_credential_types::Credentials::new(
        &credentials.access_key_id,
        &credentials.secret_access_key,
        credentials.session_token.clone(),
        None,
        "hsdo",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(UNIX_EPOCH + Duration::from_micros(u64::try_from(now.as_micros()).unwrap_or(0)))
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = SignableRequest::new("POST", url, headers, SignableBody::Bytes(body)).map_err(|e| e.to_string())?;
    let (instructions, _) = sign_http(request, &params).map_err(|error| error.to_string())?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_string(), value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(token: Option<&str>) -> Vec<(String, String)> {
        let credentials =
            Credentials::fixed("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token).expect("sendable");
        let headers = [
            ("content-type", "application/x-amz-json-1.0".to_string()),
            ("x-amz-target", "DynamoDB_20120810.Scan".to_string()),
        ];
        let scope = SigningScope { region: "eu-west-1", service: "dynamodb" };
        // 2015-08-30 12:36:00 UTC
        let now = Timestamp::from_micros(1_440_938_160_000_000);
        sign(&credentials, &scope, "http://127.0.0.1:5000/", &headers, b"{\"TableName\": \"web\"}", now)
            .expect("signed")
    }

    fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    // The expected signatures are those of botocore's SigV4Auth for the same request.
    #[test]
    fn the_signature_matches_botocore() {
        let headers = signed(None);
        assert_eq!(header(&headers, "x-amz-date"), Some("20150830T123600Z"));
        assert_eq!(
            header(&headers, "authorization"),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-west-1/dynamodb/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=ee41c860a8ce0e9cc78dca9ba8d641dc219632a226e61d1b3a19ed80ce1611b3"
            )
        );
        assert_eq!(header(&headers, "x-amz-security-token"), None);
    }

    #[test]
    fn a_token_is_sent_and_signed() {
        let headers = signed(Some("the-token"));
        assert_eq!(header(&headers, "x-amz-security-token"), Some("the-token"));
        let authorization = header(&headers, "authorization").expect("signed");
        assert!(
            authorization.ends_with(
                "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=674f7513b3f8b39f8773f7dbd114092aa000df67cf1a59963bc4860f9aa82e52"
            ),
            "{authorization}"
        );
    }
}
