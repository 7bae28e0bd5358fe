//! Consul's standard environment variables: token and password, TLS, namespace and datacenter.
//!
//! Tokens and passwords leave this module only as header values and are never printed.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::QueryError;
use super::tls::TlsAccess;
use crate::conf_file::without_bom;
use crate::environment::Environment;

const MAX_TOKEN_BYTES: usize = 4096;

/// What is sent with every request.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) token: Token,
    /// Credentials for a proxy in front of Consul.
    pub(super) password: Password,
    pub(super) tls: TlsAccess,
    /// Parameters of every query: `ns=...` and `dc=...`.
    pub(super) query: Vec<String>,
}

impl Access {
    pub(super) fn from(env: &Environment) -> Result<Self, QueryError> {
        let token = Token::from(env);
        // Fail at startup rather than in the first turn.
        token.read()?;
        let password = Password::from(env);
        let tls = TlsAccess::from(env)?;
        let query = [("CONSUL_NAMESPACE", "ns"), ("CONSUL_DATACENTER", "dc")]
            .iter()
            .filter_map(|(variable, parameter)| Some(format!("{parameter}={}", encode(env.get(variable)?))))
            .collect();
        Ok(Access { token, password, tls, query })
    }
}

pub(super) enum Token {
    /// None: the agent's anonymous token applies.
    None,
    Given(String),
    /// `CONSUL_HTTP_TOKEN_FILE`, read for every request, so that a rotated token takes effect at once.
    File(PathBuf),
}

impl Token {
    /// The file takes precedence, as in Consul's own tools.
    fn from(env: &Environment) -> Self {
        match (env.get("CONSUL_HTTP_TOKEN_FILE"), env.get("CONSUL_HTTP_TOKEN")) {
            (Some(path), _) => Token::File(PathBuf::from(path)),
            (None, Some(text)) => Token::Given(text.trim().to_owned()),
            (None, None) => Token::None,
        }
    }

    pub(super) fn read(&self) -> Result<Option<String>, QueryError> {
        let (variable, text) = match self {
            Token::None => return Ok(None),
            Token::Given(text) => ("CONSUL_HTTP_TOKEN".to_owned(), text.clone()),
            Token::File(path) => {
                let variable = format!("CONSUL_HTTP_TOKEN_FILE {}", path.display());
                let text = std::fs::read_to_string(path).map_err(|error| {
                    QueryError::Setup(format!(
                        "{variable}: cannot read the token: {error}: check the path and its permissions"
                    ))
                })?;
                (variable, without_bom(&text).trim().to_owned())
            }
        };
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(QueryError::Setup(format!(
                "{variable}: not a token: expected one line of printable characters"
            )));
        }
        Ok(Some(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::None => "None",
            Token::Given(_) => "Given(***)",
            Token::File(_) => "File(***)",
        })
    }
}

/// The `Authorization` header for a proxy in front of Consul, if configured. Consul itself knows only tokens.
pub(super) struct Password(pub(super) Option<String>);

impl Password {
    /// `CONSUL_HTTP_AUTH`, `user:password` or a user alone.
    fn from(env: &Environment) -> Self {
        Password(env.get("CONSUL_HTTP_AUTH").map(|text| {
            let colon = if text.contains(':') { "" } else { ":" };
            format!("Basic {}", STANDARD.encode(format!("{text}{colon}")))
        }))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Password(***)" } else { "None" })
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "11111111-2222-3333-4444-555555555555";

    fn access(env: &[(&str, &str)]) -> Result<Access, QueryError> {
        Access::from(&Environment::from(env.iter().copied()))
    }

    fn fault(env: &[(&str, &str)]) -> String {
        match access(env) {
            Err(QueryError::Setup(text)) => text,
            other => panic!("no fault: {other:?}"),
        }
    }

    /// A temporary file, removed on drop.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hsdo-consul-{}-{name}", std::process::id()));
            std::fs::write(&path, text).expect("a file");
            File(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("a plain path")
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn every_variable_is_optional() {
        let access = access(&[]).expect("an access");
        assert_eq!(access.token.read(), Ok(None));
        assert!(access.password.0.is_none() && access.tls.verifies() && access.query.is_empty());
    }

    #[test]
    fn every_query_carries_namespace_and_datacenter() {
        let access = access(&[("CONSUL_NAMESPACE", "team a&b"), ("CONSUL_DATACENTER", "dc-2")]).expect("an access");
        assert_eq!(access.query, ["ns=team%20a%26b", "dc=dc-2"]);
    }

    #[test]
    fn the_token_file_takes_precedence_and_is_reread() {
        let file = File::new("token", &format!(" {SECRET}\n"));
        let given = access(&[("CONSUL_HTTP_TOKEN", "abc")]).expect("an access");
        assert_eq!(given.token.read(), Ok(Some("abc".to_owned())));
        let both = access(&[("CONSUL_HTTP_TOKEN", "abc"), ("CONSUL_HTTP_TOKEN_FILE", file.path())]).expect("an access");
        assert_eq!(both.token.read(), Ok(Some(SECRET.to_owned())));
        std::fs::write(&file.0, "\u{feff}renewed\r\n").expect("a file");
        assert_eq!(both.token.read(), Ok(Some("renewed".to_owned())));
    }

    #[test]
    fn debug_never_shows_a_token() {
        for env in [
            [("CONSUL_HTTP_TOKEN", SECRET)],
            [("CONSUL_HTTP_TOKEN", "é\n11111111")],
            [("CONSUL_HTTP_AUTH", "11111111:11111111")],
        ] {
            let shown = format!("{:?}", access(&env));
            assert!(!shown.contains("11111111") && !shown.contains("MTEx"), "{shown}");
        }
    }

    #[test]
    fn an_unusable_token_is_reported() {
        let empty = File::new("empty", "\n");
        let large = File::new("large", &"x".repeat(5000));
        for file in [&empty, &large] {
            let text = fault(&[("CONSUL_HTTP_TOKEN_FILE", file.path())]);
            assert_eq!(
                text,
                format!(
                    "CONSUL_HTTP_TOKEN_FILE {}: not a token: expected one line of printable characters",
                    file.path()
                )
            );
        }
        let gone = fault(&[("CONSUL_HTTP_TOKEN_FILE", "/nowhere/token")]);
        assert!(
            gone.starts_with("CONSUL_HTTP_TOKEN_FILE /nowhere/token: cannot read the token: No such file"),
            "{gone}"
        );
    }

    #[test]
    fn user_and_password_become_a_header() {
        for (text, expected) in [
            ("Aladdin:open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("user", "Basic dXNlcjo="),
            ("a:b:c", "Basic YTpiOmM="),
            (":", "Basic Og=="),
        ] {
            assert_eq!(access(&[("CONSUL_HTTP_AUTH", text)]).expect("an access").password.0.as_deref(), Some(expected));
        }
    }

    #[test]
    fn reserved_characters_are_encoded() {
        for (text, expected) in
            [("web-1.x_y~z", "web-1.x_y~z"), ("a/b?c#d", "a%2Fb%3Fc%23d"), ("é ", "%C3%A9%20"), ("..", "..")]
        {
            assert_eq!(encode(text), expected);
        }
    }
}
