//! What can go wrong between hsdo and HAProxy.

use std::fmt;
use std::io;

use crate::ports::{Subject, TurnError};
use crate::settings::HaproxySocket;
use crate::text::one_line;

/// How many characters of HAProxy's text a message shows.
const SHOWN: usize = 60;

/// Why HAProxy could not be read or changed.
#[derive(Debug)]
pub enum HaproxyError {
    /// Connecting to the socket failed.
    Connect {
        /// `CLIENT_HAPROXY_SOCKET_PATH`.
        place: HaproxySocket,
        /// The operating system's error.
        source: io::Error,
    },
    /// A connection failed or timed out.
    Io {
        /// The start of the line that was sent.
        line: String,
        /// The length of that line in bytes.
        length: usize,
        /// The operating system's error.
        source: io::Error,
    },
    /// The response is truncated, or is not what the Runtime API promises.
    Response {
        /// The start of the line that was sent.
        line: String,
        /// What is wrong with the response.
        fault: String,
    },
    /// A line is longer than HAProxy's buffer (`tune.bufsize`).
    LongLine {
        /// The length of that line in bytes.
        length: usize,
    },
    /// Several processes share the socket (`nbproc`, up to 2.4); how many.
    MultipleProcesses(String),
    /// The socket's level does not allow commands that change servers.
    Level {
        /// `CLIENT_HAPROXY_SOCKET_PATH`.
        place: HaproxySocket,
        /// The level that HAProxy reports.
        level: String,
    },
}

impl HaproxyError {
    /// Whether only a person can fix it. A missing or silent socket does not count: HAProxy may start later.
    pub fn needs_operator(&self) -> bool {
        match self {
            HaproxyError::Connect { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            HaproxyError::Io { .. } | HaproxyError::Response { .. } | HaproxyError::LongLine { .. } => false,
            HaproxyError::MultipleProcesses(_) | HaproxyError::Level { .. } => true,
        }
    }

    /// Whether HAProxy timed out: it is stopped, its socket is crowded, or it hangs on what was sent.
    pub fn is_timeout(&self) -> bool {
        matches!(self, HaproxyError::Connect { source, .. } | HaproxyError::Io { source, .. } if is_timeout(source))
    }

    /// Identifies the fault while it lasts, whichever command hit it.
    pub fn key(&self) -> String {
        match self {
            // A full listen queue and a missing response have the same causes.
            HaproxyError::Connect { source, .. } | HaproxyError::Io { source, .. } if is_timeout(source) => {
                "timeout".to_owned()
            }
            HaproxyError::Connect { source, .. } => format!("unreachable: {:?}", source.kind()),
            HaproxyError::Io { source, .. } => format!("broken: {:?}", source.kind()),
            HaproxyError::Response { .. } => "answer".to_owned(),
            HaproxyError::LongLine { .. } => "long line".to_owned(),
            HaproxyError::MultipleProcesses(_) | HaproxyError::Level { .. } => self.to_string(),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

const TIMEOUT_HINT: &str = "is it stopped, or are other clients using up its `stats maxconn`?";

impl fmt::Display for HaproxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HaproxyError::Connect { place, source } => {
                write!(f, "cannot reach HAProxy at {place} (CLIENT_HAPROXY_SOCKET_PATH): {source}")?;
                match source.kind() {
                    io::ErrorKind::NotFound => f.write_str("; is HAProxy running, with that `stats socket`?"),
                    io::ErrorKind::ConnectionRefused if matches!(place, HaproxySocket::Path(_)) => f.write_str(
                        "; the socket file exists, but no HAProxy listens on it (if a container mounts that file, mount its directory instead)",
                    ),
                    io::ErrorKind::ConnectionRefused => {
                        f.write_str("; is HAProxy running, with that `stats socket`?")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; run hsdo as a user with access to the socket (`stats socket … user … mode …`)")
                    }
                    _ if is_timeout(source) => write!(f, "; {TIMEOUT_HINT}"),
                    _ => Ok(()),
                }
            }
            HaproxyError::Io { line, source, .. } if is_timeout(source) => {
                write!(f, "HAProxy did not answer `{line}` in time; {TIMEOUT_HINT}")
            }
            HaproxyError::Io { line, source, .. } => {
                write!(f, "the connection to HAProxy broke during `{line}`: {source}")
            }
            HaproxyError::Response { line, fault } => write!(f, "HAProxy's answer to `{line}` is unusable: {fault}"),
            HaproxyError::LongLine { length } => {
                write!(
                    f,
                    "a line of {length} bytes does not fit HAProxy's buffer (`tune.bufsize`); retrying with shorter lines"
                )
            }
            HaproxyError::MultipleProcesses(number) => write!(
                f,
                "HAProxy runs {} processes behind this socket (`nbproc`), and each connection reaches any of them; use `nbthread`",
                one_line(number, SHOWN)
            ),
            HaproxyError::Level { place, level } => write!(
                f,
                "HAProxy's socket {place} has level {}, which cannot change servers; give it `level admin` in haproxy.cfg",
                one_line(level, SHOWN)
            ),
        }
    }
}

impl std::error::Error for HaproxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HaproxyError::Connect { source, .. } | HaproxyError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<HaproxyError> for TurnError {
    fn from(error: HaproxyError) -> Self {
        TurnError {
            key: error.key(),
            needs_operator: error.needs_operator(),
            is_disconnected: matches!(error, HaproxyError::Connect { .. }),
            // Not if its socket is full, or forbidden: it serves on.
            is_gone: matches!(
                &error,
                HaproxyError::Connect { source, .. }
                    if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
            ),
            ..TurnError::new(Subject::Haproxy, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_does_not_depend_on_the_command() {
        let connect = |kind: io::ErrorKind| HaproxyError::Connect {
            place: HaproxySocket::Path("/s".into()),
            source: kind.into(),
        };
        let io = |line: &str, kind: io::ErrorKind| HaproxyError::Io {
            line: line.to_owned(),
            length: 9,
            source: kind.into(),
        };
        let response =
            |line: &str, fault: &str| HaproxyError::Response { line: line.to_owned(), fault: fault.to_owned() };
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, NotFound, TimedOut, WouldBlock};
        for (one, other, same) in [
            (connect(WouldBlock), io("show info", TimedOut), true),
            (io("show info", WouldBlock), io("set server b/s weight 1", WouldBlock), true),
            (io("show info", BrokenPipe), io("show stat b 4 -1", BrokenPipe), true),
            (response("show info", "it was cut"), response("show stat", "3 replies to 4 commands"), true),
            (connect(NotFound), connect(ConnectionRefused), false),
            (connect(NotFound), connect(WouldBlock), false),
            (io("show info", BrokenPipe), io("show info", TimedOut), false),
            (io("show info", TimedOut), response("show info", "it was cut"), false),
        ] {
            assert_eq!(one.key() == other.key(), same, "{one}; {other}");
        }
        for (kind, is_gone) in
            [(ConnectionRefused, true), (NotFound, true), (WouldBlock, false), (io::ErrorKind::PermissionDenied, false)]
        {
            let error = TurnError::from(connect(kind));
            assert_eq!((error.is_disconnected, error.is_gone), (true, is_gone), "{kind}");
        }
        assert!(connect(WouldBlock).to_string().contains("stats maxconn"));
        assert!(io("show info", TimedOut).to_string().contains("`show info` in time; is it stopped"));
    }
}
