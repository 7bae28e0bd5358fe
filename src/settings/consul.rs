//! The address of Consul's API.

use std::fmt;
use std::path::PathBuf;

use ureq::http::Uri;

use super::parse::socket_path;

/// The address of Consul's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulApi {
    /// An `http` or `https` URL without user, query or trailing slash.
    Http(String),
    /// Absolute path of a Unix socket.
    Unix(PathBuf),
}

impl ConsulApi {
    /// Whether it uses TLS.
    pub fn is_https(&self) -> bool {
        matches!(self, ConsulApi::Http(url) if url.starts_with("https:"))
    }
}

impl fmt::Display for ConsulApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsulApi::Http(url) => f.write_str(url),
            ConsulApi::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Rejects a URL with a user: it would appear in the log, and Consul uses tokens, not users.
pub(super) fn consul_api(text: &str) -> Option<ConsulApi> {
    if let Some(path) = text.strip_prefix("unix://") {
        return socket_path(path).filter(|path| path.is_absolute()).map(ConsulApi::Unix);
    }
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri.authority()?;
    let port = authority.as_str().strip_prefix(authority.host())?;
    let plain = uri.query().is_none() && !text.contains('#') && !authority.host().is_empty();
    if !plain || !(port.is_empty() || authority.port_u16().is_some_and(|port| port > 0)) {
        return None;
    }
    Some(ConsulApi::Http(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_addresses_are_parsed() {
        let http = |url: &str| Some(ConsulApi::Http(url.to_owned()));
        for (text, expected) in [
            ("http://127.0.0.1:8500", http("http://127.0.0.1:8500")),
            ("http://127.0.0.1:8500/", http("http://127.0.0.1:8500")),
            ("HTTPS://consul.example", http("https://consul.example")),
            ("https://[::1]:8501", http("https://[::1]:8501")),
            ("http://proxy/consul/", http("http://proxy/consul")),
            ("unix:///run/consul.sock", Some(ConsulApi::Unix(PathBuf::from("/run/consul.sock")))),
            ("unix://run/consul.sock", None),
            ("unix://", None),
            ("127.0.0.1:8500", None),
            ("localhost", None),
            ("ftp://consul", None),
            ("http://", None),
            ("http:///v1", None),
            ("http://user:secret@consul", None),
            ("http://consul:99999", None),
            ("http://consul:0", None),
            ("http://consul:", None),
            ("http://consul?dc=x", None),
            ("http://consul#x", None),
            ("http://con sul", None),
            ("http://con\nsul", None),
            ("", None),
        ] {
            assert_eq!(consul_api(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_address_is_shown_as_configured() {
        for text in ["https://consul:8501", "unix:///run/consul.sock"] {
            let api = consul_api(text).expect("an address");
            assert_eq!(api.to_string(), text);
            assert_eq!(api.is_https(), text.starts_with("https"));
        }
    }
}
