//! The address of HAProxy's Runtime API, in the syntax of HAProxy's own `bind` (configuration manual, section 4.2).

use std::fmt;
use std::path::PathBuf;

use super::parse::socket_path;

/// Length of `sun_path` without its leading zero (unix(7)).
const MAX_ABSTRACT: usize = 107;

/// The address of HAProxy's Runtime API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaproxySocket {
    /// Path of a Unix socket, at most 107 bytes.
    Path(PathBuf),
    /// An abstract socket (Linux). HAProxy pads the name of `abns@` with zeros, but not that of `abnsz@`.
    Abstract {
        /// At most 107 bytes.
        name: String,
        /// Whether the name is padded with zeros.
        padded: bool,
    },
    /// A TCP port.
    Tcp {
        /// Address or host name.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
}

impl HaproxySocket {
    /// Accepts a path, `unix@path`, `abns@name`, `ipv4@host:port`, `ipv6@[host]:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (kind, rest) = match text.split_once('@') {
            Some((kind, rest)) if !kind.contains(['/', '.']) => (kind, rest),
            _ if text.contains("://") => return None,
            _ => ("unix", text),
        };
        match kind {
            "unix" => socket_path(rest).map(HaproxySocket::Path),
            "abns" | "abnsz" if !rest.is_empty() && rest.len() <= MAX_ABSTRACT => {
                Some(HaproxySocket::Abstract { name: rest.to_owned(), padded: kind == "abns" })
            }
            "ipv4" | "ipv6" | "tcp" | "tcp4" | "tcp6" => {
                let (host, port) = rest.rsplit_once(':')?;
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
                let port = port.parse().ok().filter(|port| *port > 0)?;
                let good = !host.is_empty() && host.chars().all(plain);
                good.then(|| HaproxySocket::Tcp { host: host.to_owned(), port })
            }
            _ => None,
        }
    }
}

impl Default for HaproxySocket {
    fn default() -> Self {
        HaproxySocket::Path(PathBuf::new())
    }
}

impl fmt::Display for HaproxySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HaproxySocket::Path(path) => path.display().fmt(f),
            HaproxySocket::Abstract { name, padded } => write!(f, "{}@{name}", if *padded { "abns" } else { "abnsz" }),
            HaproxySocket::Tcp { host, port } if host.contains(':') => write!(f, "ipv6@[{host}]:{port}"),
            HaproxySocket::Tcp { host, port } => write!(f, "ipv4@{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxys_own_syntax() {
        let long = format!("abns@{}", "x".repeat(108));
        for (text, shown) in [
            ("/run/haproxy.sock", Some("/run/haproxy.sock")),
            ("run/h@x.sock", Some("run/h@x.sock")),
            ("unix@/run/haproxy.sock", Some("/run/haproxy.sock")),
            ("abns@haproxy", Some("abns@haproxy")),
            ("abnsz@haproxy", Some("abnsz@haproxy")),
            ("ipv4@127.0.0.1:9999", Some("ipv4@127.0.0.1:9999")),
            ("tcp4@localhost:9999", Some("ipv4@localhost:9999")),
            ("ipv6@[::1]:9999", Some("ipv6@[::1]:9999")),
            ("ipv6@::1:9999", Some("ipv6@[::1]:9999")),
            ("ipv4@127.0.0.1", None),
            ("ipv4@:9999", None),
            ("ipv4@127.0.0.1:0", None),
            ("ipv4@127.0.0.1:65536", None),
            ("tcp://127.0.0.1:9999", None),
            ("fd@3", None),
            ("abns@", None),
            ("unix@", None),
            ("", None),
            (&long, None),
        ] {
            assert_eq!(HaproxySocket::parse(text).map(|socket| socket.to_string()).as_deref(), shown, "{text}");
        }
    }
}
