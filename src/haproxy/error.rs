//! What can go wrong between hsdo and HAProxy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::error::one_line;

/// How many names a message lists, and how much of each it shows.
const LISTED: usize = 20;
const SHOWN: usize = 60;

/// Why HAProxy could not be read or commanded.
#[derive(Debug)]
pub enum Error {
    /// The socket could not be reached.
    Connect {
        /// `CLIENT_HAPROXY_SOCKET_PATH`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A connected socket failed or fell silent.
    Talk {
        /// What was being asked, shortened.
        asked: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The answer is not what HAProxy's manual promises: it was cut, or it is not a Runtime API that answers.
    Answer {
        /// What was asked, shortened.
        asked: String,
        /// What is wrong with the answer.
        fault: String,
    },
    /// HAProxy has no backend of that name.
    NoBackend {
        /// The configured backend.
        backend: String,
        /// The backends that HAProxy has; empty where it did not say.
        known: Vec<String>,
    },
    /// The backend has no server of that base name.
    NoServers {
        /// The configured backend.
        backend: String,
        /// The configured base name.
        base: String,
        /// The base names that the backend has.
        known: Vec<String>,
    },
    /// The socket's level does not allow commands that change servers.
    Level {
        /// `CLIENT_HAPROXY_SOCKET_PATH`.
        path: PathBuf,
        /// The level that HAProxy reports.
        level: String,
    },
}

impl Error {
    /// Whether only a person can mend it. A socket that is missing or silent is not such a case: HAProxy may start later.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Error::Connect { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Error::Talk { .. } | Error::Answer { .. } => false,
            Error::NoBackend { .. } | Error::NoServers { .. } | Error::Level { .. } => true,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect { path, source } => {
                write!(f, "cannot reach HAProxy at {} (CLIENT_HAPROXY_SOCKET_PATH): {source}", path.display())?;
                match source.kind() {
                    io::ErrorKind::NotFound => f.write_str("; is HAProxy running, with that `stats socket`?"),
                    io::ErrorKind::ConnectionRefused => {
                        f.write_str("; the socket file is there, but no HAProxy answers")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; run hsdo as a user that may use the socket (`stats socket … user … mode …`)")
                    }
                    _ => Ok(()),
                }
            }
            Error::Talk { asked, source } => match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    write!(f, "HAProxy did not answer `{asked}` in time")
                }
                _ => write!(f, "the talk with HAProxy broke at `{asked}`: {source}"),
            },
            Error::Answer { asked, fault } => write!(f, "HAProxy's answer to `{asked}` cannot be used: {fault}"),
            Error::NoBackend { backend, known } => {
                write!(f, "HAProxy has no backend {backend}; ")?;
                list(f, "it has", known, "mend the name in CLIENT_HAPROXY_BACKEND_LIST or haproxy.cfg")
            }
            Error::NoServers { backend, base, known } => {
                write!(f, "HAProxy's backend {backend} has no server {base}<number>; ")?;
                list(f, "its base names are", known, "add `server-template` to it or mend baseName")
            }
            Error::Level { path, level } => write!(
                f,
                "HAProxy's socket {} has level {}, which may not change servers; give it `level admin` in haproxy.cfg",
                path.display(),
                one_line(level, SHOWN)
            ),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, label: &str, known: &[String], remedy: &str) -> fmt::Result {
    let shown: Vec<String> = known.iter().take(LISTED).map(|name| one_line(name, SHOWN)).collect();
    match known.len().saturating_sub(LISTED) {
        0 if known.is_empty() => {}
        0 => write!(f, "{label} {}; ", shown.join(", "))?,
        more => write!(f, "{label} {} and {more} more; ", shown.join(", "))?,
    }
    f.write_str(remedy)
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Connect { source, .. } | Error::Talk { source, .. } => Some(source),
            _ => None,
        }
    }
}
