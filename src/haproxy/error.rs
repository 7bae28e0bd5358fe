//! What can go wrong between hsdo and HAProxy.

use std::fmt;
use std::io;

use crate::ports::{Subject, TurnError};
use crate::settings::HaproxySocket;
use crate::text::one_line;

/// How much of a text from outside a message shows.
const SHOWN: usize = 60;

/// Why HAProxy could not be read or commanded.
#[derive(Debug)]
pub enum Error {
    /// The socket could not be reached.
    Connect {
        /// `CLIENT_HAPROXY_SOCKET_PATH`.
        place: HaproxySocket,
        /// What the system said.
        source: io::Error,
    },
    /// A connected socket failed or fell silent.
    Talk {
        /// What was being asked, shortened.
        asked: String,
        /// How long the line was, in bytes.
        length: usize,
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
    /// A line is longer than HAProxy's buffer (`tune.bufsize`).
    LongLine {
        /// How long it was, in bytes.
        length: usize,
    },
    /// Several processes stand behind the socket (`nbproc`, up to 2.4).
    Processes(String),
    /// The socket's level does not allow commands that change servers.
    Level {
        /// `CLIENT_HAPROXY_SOCKET_PATH`.
        place: HaproxySocket,
        /// The level that HAProxy reports.
        level: String,
    },
}

impl Error {
    /// Whether only a person can mend it. A socket that is missing or silent is not such a case: HAProxy may start later.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Error::Connect { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Error::Talk { .. } | Error::Answer { .. } | Error::LongLine { .. } => false,
            Error::Processes(_) | Error::Level { .. } => true,
        }
    }
}

impl Error {
    /// Whether HAProxy was silent: it was stopped, its socket is crowded, or it does not take what was sent.
    pub fn is_silence(&self) -> bool {
        matches!(self, Error::Connect { source, .. } | Error::Talk { source, .. } if is_silence(source))
    }

    /// A text that stays the same while the same fault goes on, whatever was being asked when it struck.
    pub fn key(&self) -> String {
        match self {
            // A full queue and a missing answer are one fault: HAProxy is stopped, or its socket is crowded.
            Error::Connect { source, .. } | Error::Talk { source, .. } if is_silence(source) => "silent".to_owned(),
            Error::Connect { source, .. } => format!("unreachable: {:?}", source.kind()),
            Error::Talk { source, .. } => format!("broken: {:?}", source.kind()),
            Error::Answer { .. } => "answer".to_owned(),
            Error::LongLine { .. } => "long line".to_owned(),
            Error::Processes(_) | Error::Level { .. } => self.to_string(),
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
            Error::Connect { place, source } => {
                write!(f, "cannot reach HAProxy at {place} (CLIENT_HAPROXY_SOCKET_PATH): {source}")?;
                match source.kind() {
                    io::ErrorKind::NotFound => f.write_str("; is HAProxy running, with that `stats socket`?"),
                    io::ErrorKind::ConnectionRefused if matches!(place, HaproxySocket::Path(_)) => f.write_str(
                        "; the socket file is there, but no HAProxy answers (where a container mounts that file, mount its folder)",
                    ),
                    io::ErrorKind::ConnectionRefused => {
                        f.write_str("; is HAProxy running, with that `stats socket`?")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; run hsdo as a user that may use the socket (`stats socket … user … mode …`)")
                    }
                    _ if is_silence(source) => write!(f, "; {SILENCE}"),
                    _ => Ok(()),
                }
            }
            Error::Talk { asked, source, .. } if is_silence(source) => {
                write!(f, "HAProxy did not answer `{asked}` in time; {SILENCE}")
            }
            Error::Talk { asked, source, .. } => write!(f, "the talk with HAProxy broke at `{asked}`: {source}"),
            Error::Answer { asked, fault } => write!(f, "HAProxy's answer to `{asked}` cannot be used: {fault}"),
            Error::LongLine { length } => {
                write!(
                    f,
                    "HAProxy's buffer (`tune.bufsize`) does not hold a line of {length} bytes; a shorter one is tried"
                )
            }
            Error::Processes(number) => write!(
                f,
                "HAProxy runs {} processes behind this socket (`nbproc`), and hsdo would reach any of them; use `nbthread`",
                one_line(number, SHOWN)
            ),
            Error::Level { place, level } => write!(
                f,
                "HAProxy's socket {place} has level {}, which may not change servers; give it `level admin` in haproxy.cfg",
                one_line(level, SHOWN)
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Connect { source, .. } | Error::Talk { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<Error> for TurnError {
    fn from(error: Error) -> Self {
        TurnError {
            key: error.key(),
            needs_a_person: error.needs_a_person(),
            is_disconnected: matches!(error, Error::Connect { .. }),
            ..TurnError::new(Subject::Haproxy, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_has_one_key_whatever_was_asked() {
        let connect =
            |kind: io::ErrorKind| Error::Connect { place: HaproxySocket::Path("/s".into()), source: kind.into() };
        let talk =
            |asked: &str, kind: io::ErrorKind| Error::Talk { asked: asked.to_owned(), length: 9, source: kind.into() };
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
