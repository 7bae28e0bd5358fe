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

impl Error {
    /// A text that stays the same while the same fault goes on, whatever was being asked when it struck.
    pub fn key(&self) -> String {
        match self {
            // A full queue and a missing answer are one fault: HAProxy is stopped, or its socket is crowded.
            Error::Connect { source, .. } | Error::Talk { source, .. } if is_silence(source) => "silent".to_owned(),
            Error::Connect { source, .. } => format!("unreachable: {:?}", source.kind()),
            Error::Talk { source, .. } => format!("broken: {:?}", source.kind()),
            Error::Answer { .. } => "answer".to_owned(),
            Error::NoBackend { .. } | Error::NoServers { .. } | Error::Level { .. } => self.to_string(),
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What to look for where nothing comes back.
const SILENCE: &str = "is it stopped, or do others use up its `stats maxconn`?";

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
                    _ if is_silence(source) => write!(f, "; {SILENCE}"),
                    _ => Ok(()),
                }
            }
            Error::Talk { asked, source } if is_silence(source) => {
                write!(f, "HAProxy did not answer `{asked}` in time; {SILENCE}")
            }
            Error::Talk { asked, source } => write!(f, "the talk with HAProxy broke at `{asked}`: {source}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_has_one_key_whatever_was_asked() {
        let connect = |kind: io::ErrorKind| Error::Connect { path: "/s".into(), source: kind.into() };
        let talk = |asked: &str, kind: io::ErrorKind| Error::Talk { asked: asked.to_owned(), source: kind.into() };
        let answer = |asked: &str, fault: &str| Error::Answer { asked: asked.to_owned(), fault: fault.to_owned() };
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, NotFound, TimedOut, WouldBlock};
        for (one, other, same) in [
            (connect(WouldBlock), talk("show info", TimedOut), true),
            (talk("show info", WouldBlock), talk("set server b/s weight 1", WouldBlock), true),
            (talk("show info", BrokenPipe), talk("show stat b 4 -1", BrokenPipe), true),
            (answer("show info", "it was cut"), answer("show stat", "3 replies to 4 commands"), true),
            (connect(NotFound), connect(ConnectionRefused), false),
            (connect(NotFound), connect(WouldBlock), false),
            (talk("show info", BrokenPipe), talk("show info", TimedOut), false),
            (talk("show info", TimedOut), answer("show info", "it was cut"), false),
        ] {
            assert_eq!(one.key() == other.key(), same, "{one}; {other}");
        }
        assert!(connect(WouldBlock).to_string().contains("stats maxconn"));
        assert!(talk("show info", TimedOut).to_string().contains("`show info` in time; is it stopped"));
    }
}
