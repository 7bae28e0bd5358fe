//! The credentials that sign a call, and what of them may be shown. Where they come from is the business of `credentials`.

use std::fmt;

use crate::clock::Timestamp;

/// AWS's own secrets have 40 characters and more.
const SHORTEST_SECRET: usize = 16;

/// An access key with its secret. `Debug` shows neither the secret nor the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The public half.
    pub(crate) access_key_id: String,
    /// The secret half.
    pub(crate) secret_access_key: String,
    /// The token of temporary credentials.
    pub(crate) session_token: Option<String>,
    /// When they end; `None` for those that do not.
    pub(crate) expires: Option<Timestamp>,
    /// Where they are from, for people: `the environment`, `role arn:aws:iam::123456789012:role/web`.
    pub(crate) from: String,
}

impl Credentials {
    /// Static credentials out of texts; spaces and line ends around them are dropped, since files and secret stores
    /// often add a newline. The error says which text cannot be sent, without showing it.
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
            from: String::new(),
        })
    }

    /// The same, with where they are from.
    #[must_use]
    pub(crate) fn of(self, from: impl Into<String>) -> Self {
        Credentials { from: from.into(), ..self }
    }

    /// Who signs with them, for messages: `key ...MPLE (the environment)`.
    pub(crate) fn who(&self) -> String {
        format!("key {} ({})", self.shown(), self.from)
    }

    /// Whether these would sign as `other` does.
    pub(crate) fn same_key(&self, other: &Credentials) -> bool {
        self.access_key_id == other.access_key_id
            && self.secret_access_key == other.secret_access_key
            && self.session_token == other.session_token
    }

    /// What no text may show. (A text as short as those of emulators stands in too many others.)
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let all = [Some(self.secret_access_key.as_str()), self.session_token.as_deref()];
        all.into_iter().flatten().filter(|secret| secret.len() >= SHORTEST_SECRET).collect()
    }

    fn shown(&self) -> String {
        let count = self.access_key_id.chars().count();
        format!("...{}", self.access_key_id.chars().skip(count.saturating_sub(4)).collect::<String>())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.shown())
            .field("expires", &self.expires)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        let credentials =
            Credentials::fixed("AKIDEXAMPLE", "hush-hush", Some("token-hush")).expect("sendable").of("the environment");
        let text = format!("{credentials:?}");
        assert!(text.contains("...MPLE") && !text.contains("hush") && !text.contains("AKID"), "{text}");
        assert_eq!(credentials.who(), "key ...MPLE (the environment)");
    }

    #[test]
    fn a_newline_around_a_secret_is_dropped_and_one_inside_refused() {
        assert_eq!(Credentials::fixed(" AK\n", "s\n", None).expect("sendable").secret_access_key, "s");
        assert_eq!(Credentials::fixed("AK", "a\nb", None), Err("secret access key"));
        assert_eq!(Credentials::fixed("AK", "s", Some("t t")), Err("session token"));
    }
}
