//! The JSON credentials document of the metadata service, container endpoints and credential processes.

use serde_json::{Map, Value};

use crate::aws::reading::dates;
use crate::aws::transport::identity::Credentials;
use crate::text::one_line;

/// Parses the document of the metadata service or a container endpoint. The error holds no secret.
pub(crate) fn read(text: &str) -> Result<Credentials, String> {
    Document::parse(text)?.credentials(["Token", "SessionToken"])
}

/// Parses the document of a credential process, which must state its version and prefers `SessionToken`.
pub(crate) fn read_process(text: &str) -> Result<Credentials, String> {
    let document = Document::parse(text)?;
    match document.0.get("Version") {
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => {}
        None | Some(Value::Null) => return Err("it has no Version, expected \"Version\": 1".to_string()),
        Some(Value::Number(number)) => return Err(format!("its Version is {number}, expected 1")),
        Some(Value::String(text)) => {
            return Err(format!("its Version is the string \"{}\", expected the number 1", one_line(text, 20)));
        }
        Some(_) => return Err("its Version is not a number, expected 1".to_string()),
    }
    document.credentials(["SessionToken", "Token"])
}

/// Of duplicate keys the last one counts. Holds secrets, so it has no `Debug`.
struct Document(Map<String, Value>);

impl Document {
    fn parse(text: &str) -> Result<Self, String> {
        let fault = |place: String| {
            format!("it is not the expected JSON{place}: an object with AccessKeyId and SecretAccessKey")
        };
        match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
            Ok(Value::Object(entries)) => Ok(Document(entries)),
            Ok(_) => Err(fault(String::new())),
            // serde's message may quote a secret.
            Err(error) => Err(fault(format!(" (line {}, column {})", error.line(), error.column()))),
        }
    }

    /// A string; a blank one counts as missing.
    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.trim().is_empty())),
            Some(_) => Err(format!("its {name} is not a string")),
        }
    }

    fn credentials(&self, tokens: [&str; 2]) -> Result<Credentials, String> {
        if let Some(code) = self.text("Code")?.filter(|code| *code != "Success") {
            let message = self.text("Message")?.unwrap_or_default();
            return Err(format!("{}: {}", one_line(code, 100), one_line(message, 300)));
        }
        let needed = |name: &str| self.text(name)?.ok_or_else(|| format!("it has no {name}"));
        let (key, secret) = (needed("AccessKeyId")?, needed("SecretAccessKey")?);
        let token = match self.text(tokens[0])? {
            None => self.text(tokens[1])?,
            token => token,
        };
        let mut found =
            Credentials::fixed(key, secret, token).map_err(|name| format!("its {name} holds invalid characters"))?;
        if let Some(text) = self.text("Expiration")? {
            let expected = "expected a time with its zone, such as 2026-01-31T23:59:59Z";
            let fault = || format!("its Expiration is \"{}\", {expected}", one_line(text, 40));
            found.expires = Some(dates::parse(text).ok_or_else(fault)?);
        }
        Ok(found)
    }
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
        let found = read_process(r#"{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush","SessionToken":"t"}"#);
        assert_eq!(found.expect("credentials").session_token.as_deref(), Some("t"));
    }

    #[test]
    fn errors_hold_no_secret() {
        for (text, expected) in [
            (r#"{"Code":"Failed","Message":"no"}"#, "Failed: no"),
            (r#"{"Code":"\u001b[2J","Message":"a\nb"}"#, r"\u{1b}[2J: a\nb"),
            (r#"{"AccessKeyId":"AK"}"#, "it has no SecretAccessKey"),
            (r#"{"SecretAccessKey":"hush"}"#, "it has no AccessKeyId"),
            (r#"{"AccessKeyId":"AK","SecretAccessKey":"hush","Expiration":"soon"}"#, "its Expiration is \"soon\""),
            (
                r#"{"AccessKeyId":"AK","SecretAccessKey":"hush","Expiration":"2026-01-01 00:00:00"}"#,
                "a time with its zone",
            ),
            (
                r#"{"AccessKeyId":"AK","SecretAccessKey":"hush","Expiration":1767225901}"#,
                "its Expiration is not a string",
            ),
            (r#"{"AccessKeyId":"AK","SecretAccessKey":{"hush":1}}"#, "its SecretAccessKey is not a string"),
            (r#"{"AccessKeyId":"AK","SecretAccessKey":"hush""#, "not the expected JSON (line 1, column 44)"),
            (r#"["hush"]"#, "an object with AccessKeyId"),
            ("hush", "not the expected JSON"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        }
        for (version, expected) in [
            ("", "it has no Version"),
            (r#""Version":null,"#, "it has no Version"),
            (r#""Version":2,"#, "its Version is 2, expected 1"),
            (r#""Version":"1","#, "its Version is the string \"1\", expected the number 1"),
            (r#""Version":true,"#, "its Version is not a number"),
        ] {
            let text = format!(r#"{{{version}"AccessKeyId":"AK","SecretAccessKey":"hush"}}"#);
            let error = read_process(&text).expect_err(&text);
            assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn each_document_prefers_its_own_name_for_the_token() {
        let document = |tokens: &str| format!(r#"{{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush"{tokens}}}"#);
        for (tokens, from_process, from_others) in [
            ("", None, None),
            (r#","Token":"t""#, Some("t"), Some("t")),
            (r#","Token":"t","SessionToken":"s""#, Some("s"), Some("t")),
            (r#","Token":null,"SessionToken":"s""#, Some("s"), Some("s")),
            (r#","SessionToken":"x","SessionToken":"s""#, Some("s"), Some("s")),
        ] {
            let text = document(tokens);
            assert_eq!(read_process(&text).expect(tokens).session_token.as_deref(), from_process, "{tokens}");
            assert_eq!(read(&text).expect(tokens).session_token.as_deref(), from_others, "{tokens}");
        }
        let text = document("").replace(":1,", ":1.0,");
        assert!(read_process(&format!("\u{feff}{text}\r\n")).is_ok());
    }
}
