//! What Consul's own standard variables say: token and password, TLS, namespace and datacenter.
//!
//! It knows no request. Token and password leave it only as the values of headers, and are shown nowhere.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Cause;
use super::tls::TlsAccess;
use crate::conf_file::without_mark;
use crate::environment::Environment;

/// The largest file of a token, in bytes.
const LARGEST_TOKEN: usize = 4096;

/// What is sent with every request.
#[derive(Debug)]
pub(super) struct Access {
    /// Who asks.
    pub(super) token: Token,
    /// Who asks whatever stands before Consul.
    pub(super) password: Password,
    /// How `https` is spoken.
    pub(super) tls: TlsAccess,
    /// What stands in every query: `ns=...` and `dc=...`.
    pub(super) query: Vec<String>,
}

impl Access {
    /// Reads the variables, and the files that they name.
    pub(super) fn from(env: &Environment) -> Result<Self, Cause> {
        let token = Token::from(env);
        // Said at start rather than in the first turn.
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

/// Where the token comes from.
pub(super) enum Token {
    /// Nowhere: the anonymous token of the agent holds.
    None,
    /// `CONSUL_HTTP_TOKEN`.
    Given(String),
    /// `CONSUL_HTTP_TOKEN_FILE`, read for every request, so that a renewed token counts at once.
    File(PathBuf),
}

impl Token {
    /// The file wins over the text, as in Consul's own tools.
    fn from(env: &Environment) -> Self {
        match (env.get("CONSUL_HTTP_TOKEN_FILE"), env.get("CONSUL_HTTP_TOKEN")) {
            (Some(path), _) => Token::File(PathBuf::from(path)),
            (None, Some(text)) => Token::Given(text.trim().to_owned()),
            (None, None) => Token::None,
        }
    }

    /// The token as it is now.
    pub(super) fn read(&self) -> Result<Option<String>, Cause> {
        let (variable, text) = match self {
            Token::None => return Ok(None),
            Token::Given(text) => ("CONSUL_HTTP_TOKEN".to_owned(), text.clone()),
            Token::File(path) => {
                let variable = format!("CONSUL_HTTP_TOKEN_FILE {}", path.display());
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Cause::Setup(format!("{variable}: cannot read the token: {error}: check the path and its rights"))
                })?;
                (variable, without_mark(&text).trim().to_owned())
            }
        };
        if text.is_empty() || text.len() > LARGEST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Cause::Setup(format!("{variable}: holds no token: expected one line of visible characters")));
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

/// A user and a password for a proxy before Consul, which knows neither: the value of the header, if there is one.
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

/// A text as a part of a path or of a query can carry it: all but RFC 3986's unreserved characters as %XX.
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

    fn access(env: &[(&str, &str)]) -> Result<Access, Cause> {
        Access::from(&Environment::from(env.iter().copied()))
    }

    fn fault(env: &[(&str, &str)]) -> String {
        match access(env) {
            Err(Cause::Setup(text)) => text,
            other => panic!("no fault: {other:?}"),
        }
    }

    /// A file of its own, removed with this.
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
    fn nothing_is_needed() {
        let access = access(&[]).expect("an access");
        assert_eq!(access.token.read(), Ok(None));
        assert!(access.password.0.is_none() && access.tls.verifies() && access.query.is_empty());
    }

    #[test]
    fn namespace_and_datacenter_stand_in_every_query() {
        let access = access(&[("CONSUL_NAMESPACE", "team a&b"), ("CONSUL_DATACENTER", "dc-2")]).expect("an access");
        assert_eq!(access.query, ["ns=team%20a%26b", "dc=dc-2"]);
    }

    #[test]
    fn the_token_is_the_files_else_the_variables_and_is_read_anew() {
        let file = File::new("token", &format!(" {SECRET}\n"));
        let given = access(&[("CONSUL_HTTP_TOKEN", "abc")]).expect("an access");
        assert_eq!(given.token.read(), Ok(Some("abc".to_owned())));
        let both = access(&[("CONSUL_HTTP_TOKEN", "abc"), ("CONSUL_HTTP_TOKEN_FILE", file.path())]).expect("an access");
        assert_eq!(both.token.read(), Ok(Some(SECRET.to_owned())));
        std::fs::write(&file.0, "\u{feff}renewed\r\n").expect("a file");
        assert_eq!(both.token.read(), Ok(Some("renewed".to_owned())));
    }

    #[test]
    fn a_token_is_shown_nowhere() {
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
    fn what_cannot_be_used_is_named() {
        let empty = File::new("empty", "\n");
        let large = File::new("large", &"x".repeat(5000));
        for file in [&empty, &large] {
            let text = fault(&[("CONSUL_HTTP_TOKEN_FILE", file.path())]);
            assert_eq!(
                text,
                format!(
                    "CONSUL_HTTP_TOKEN_FILE {}: holds no token: expected one line of visible characters",
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
    fn what_a_url_would_misread_is_encoded() {
        for (text, expected) in
            [("web-1.x_y~z", "web-1.x_y~z"), ("a/b?c#d", "a%2Fb%3Fc%23d"), ("é ", "%C3%A9%20"), ("..", "..")]
        {
            assert_eq!(encode(text), expected);
        }
    }
}
