//! The credentials that sign a call, and what may be shown of them.

use std::fmt;

use crate::clock::Timestamp;

/// Shorter secrets, such as emulators', would match too much ordinary text; AWS's own have 40 characters and more.
const SHORTEST_SECRET: usize = 16;

/// An access key with its secret. `Debug` shows neither the secret nor the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
    /// When they expire; `None` for static ones.
    pub(crate) expires: Option<Timestamp>,
    /// Where they come from, for messages: `the environment`, `role arn:aws:iam::123456789012:role/web`.
    pub(crate) source: String,
}

impl Credentials {
    /// Static credentials. Surrounding white space is trimmed, since files and secret stores often add a newline. The error
    /// names the value that is not printable ASCII, without showing it.
    pub(crate) fn fixed(key: &str, secret: &str, token: Option<&str>) -> Result<Self, &'static str> {
        let sendable = |text: &str| text.trim().chars().all(|c| c.is_ascii_graphic());
        for (name, text) in
            [("access key id", key), ("secret access key", secret), ("session token", token.unwrap_or(""))]
        {
            if !sendable(text) {
                return Err(name);
            }
        }
        Ok(Credentials {
            access_key_id: key.trim().to_string(),
            secret_access_key: secret.trim().to_string(),
            session_token: token.map(str::trim).filter(|token| !token.is_empty()).map(str::to_string),
            expires: None,
            source: String::new(),
        })
    }

    #[must_use]
    pub(crate) fn with_source(self, source: impl Into<String>) -> Self {
        Credentials { source: source.into(), ..self }
    }

    /// What identifies them in messages: `key ...MPLE (the environment)`.
    pub(crate) fn label(&self) -> String {
        format!("key {} ({})", self.short_key(), self.source)
    }

    /// Whether these sign exactly as `other` does.
    pub(crate) fn same_key(&self, other: &Credentials) -> bool {
        self.access_key_id == other.access_key_id
            && self.secret_access_key == other.secret_access_key
            && self.session_token == other.session_token
    }

    /// The values to redact from texts.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let all = [Some(self.secret_access_key.as_str()), self.session_token.as_deref()];
        all.into_iter().flatten().filter(|secret| secret.len() >= SHORTEST_SECRET).collect()
    }

    fn short_key(&self) -> String {
        let count = self.access_key_id.chars().count();
        format!("...{}", self.access_key_id.chars().skip(count.saturating_sub(4)).collect::<String>())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.short_key())
            .field("expires", &self.expires)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_label_hide_secrets() {
        let credentials = Credentials::fixed("AKIDEXAMPLE", "hush-hush", Some("token-hush"))
            .expect("sendable")
            .with_source("the environment");
        let text = format!("{credentials:?}");
        assert!(text.contains("...MPLE") && !text.contains("hush") && !text.contains("AKID"), "{text}");
        assert_eq!(credentials.label(), "key ...MPLE (the environment)");
    }

    #[test]
    fn surrounding_white_space_is_trimmed_and_inner_rejected() {
        assert_eq!(Credentials::fixed(" AK\n", "s\n", None).expect("sendable").secret_access_key, "s");
        assert_eq!(Credentials::fixed("AK", "a\nb", None), Err("secret access key"));
        assert_eq!(Credentials::fixed("AK", "s", Some("t t")), Err("session token"));
    }
}
