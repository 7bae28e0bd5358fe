//! The JSON document by which the metadata service, a container's endpoint and a credential process give credentials.

use serde::Deserialize;

use super::Credentials;
use crate::aws::dates;
use crate::aws::error::one_line;

/// The document. It holds a secret, so it cannot be printed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: Option<u32>,
    code: Option<String>,
    message: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

/// The credentials in a document of any of them. The error says what is not as it should be, without a secret.
pub(crate) fn read(text: &str) -> Result<Credentials, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| {
        // The error's own text may quote a value.
        format!("it is not the JSON that it should be (line {}, column {})", error.line(), error.column())
    })?;
    if let Some(code) = document.code.filter(|code| code != "Success") {
        let message = document.message.unwrap_or_default();
        return Err(format!("{}: {}", one_line(&code, 100), one_line(&message, 300)));
    }
    let needed = |name: &str, value: Option<String>| {
        value.filter(|text| !text.trim().is_empty()).ok_or_else(|| format!("it has no {name}"))
    };
    let key = needed("AccessKeyId", document.access_key_id)?;
    let secret = needed("SecretAccessKey", document.secret_access_key)?;
    let mut found = Credentials::fixed(&key, &secret, document.token.as_deref())
        .map_err(|name| format!("its {name} holds characters that none has"))?;
    if let Some(text) = document.expiration.filter(|text| !text.is_empty()) {
        found.expires =
            Some(dates::document(&text).ok_or_else(|| format!("its Expiration is \"{}\"", one_line(&text, 40)))?);
    }
    Ok(found)
}

/// The same for a credential process, which must say which version of the document it writes.
pub(crate) fn read_of_process(text: &str) -> Result<Credentials, String> {
    let found = read(text)?;
    let version = serde_json::from_str::<Document>(text).ok().and_then(|document| document.version);
    if version == Some(1) { Ok(found) } else { Err("its Version is not 1".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let found = read(
            r#"{"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"hush","Token":"t","Expiration":"2026-01-01T00:00:00Z"}"#,
        )
        .expect("credentials");
        assert_eq!((found.access_key_id.as_str(), found.session_token.as_deref()), ("AK", Some("t")));
        assert!(found.expires.is_some());
        let found = read_of_process(r#"{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush","SessionToken":"t"}"#);
        assert_eq!(found.expect("credentials").session_token.as_deref(), Some("t"));
    }

    #[test]
    fn what_is_wrong_is_said_without_a_secret() {
        for (text, expected) in [
            (r#"{"Code":"Failed","Message":"no"}"#, "Failed: no"),
            (r#"{"Code":"\u001b[2J","Message":"a\nb"}"#, r"\u{1b}[2J: a\nb"),
            (r#"{"AccessKeyId":"AK"}"#, "it has no SecretAccessKey"),
            (r#"{"SecretAccessKey":"hush"}"#, "it has no AccessKeyId"),
            (r#"{"AccessKeyId":"AK","SecretAccessKey":"hush","Expiration":"soon"}"#, "its Expiration is \"soon\""),
            (r#"{"AccessKeyId":"AK","SecretAccessKey":{"hush":1}}"#, "not the JSON"),
            ("hush", "not the JSON"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        }
        assert!(read_of_process(r#"{"Version":2,"AccessKeyId":"AK","SecretAccessKey":"hush"}"#).is_err());
    }
}
