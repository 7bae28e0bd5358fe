//! The commands that change a server, their spelling, and the meaning of their replies. Pure.
//!
//! Only typed values reach a command: an address is an [`IpAddr`], a weight and a port are numbers, and the names are
//! checked here once more, so that nothing which the table holds can become a second command.

use std::fmt;
use std::net::IpAddr;

use crate::slot::Weight;

/// A change of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Into maintenance: no traffic, no checks.
    Maintenance,
    /// Out of maintenance and drain: checks run, and traffic comes at its weight.
    Ready,
    /// Another address and port.
    Address(IpAddr, u16),
    /// A weight, 0 to 256.
    Weight(Weight),
    /// The weight of the configuration file: the only one above 0 that a static algorithm accepts.
    ConfiguredWeight,
}

/// A change of the server `backend/server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    backend: String,
    server: String,
    change: Change,
}

/// What HAProxy made of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did it.
    Done,
    /// It refused a weight, because the backend's algorithm is static.
    StaticWeight,
    /// It refused, with these words.
    Refused(String),
}

/// Whether `name` may be the name of a HAProxy backend or server: letters, digits, `-`, `_`, `.` and `:`
/// (HAProxy configuration manual, section 2.3).
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

impl Command {
    /// A change of `backend/server`; `None` if one of the two is no name that HAProxy can have.
    pub fn new(backend: &str, server: &str, change: Change) -> Option<Self> {
        (is_name(backend) && is_name(server)).then(|| Command {
            backend: backend.to_owned(),
            server: server.to_owned(),
            change,
        })
    }

    /// The change.
    pub fn change(&self) -> Change {
        self.change
    }

    /// The backend whose server it changes.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The server that it changes.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What `reply` says. The success of a state or a weight is an empty reply, that of an address a sentence which
    /// differs between versions: what counts in the end is what the next reading shows.
    pub fn judge(&self, reply: &str) -> Verdict {
        let done = match self.change {
            Change::Address(..) => {
                ["changed", "no need to change"].iter().any(|word| reply.contains(word))
                    && !["problem converting", "Invalid"].iter().any(|word| reply.contains(word))
            }
            _ => reply.is_empty(),
        };
        if done {
            Verdict::Done
        } else if reply.contains("static LB algorithm") {
            Verdict::StaticWeight
        } else {
            Verdict::Refused(reply.lines().next().unwrap_or("an empty reply").to_owned())
        }
    }
}

/// The command as HAProxy reads it (management manual, section 9.3, `set server`).
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { backend, server, change } = self;
        write!(f, "set server {backend}/{server} ")?;
        match change {
            Change::Maintenance => f.write_str("state maint"),
            Change::Ready => f.write_str("state ready"),
            Change::Address(address, port) => write!(f, "addr {address} port {port}"),
            Change::Weight(weight) => write!(f, "weight {weight}"),
            Change::ConfiguredWeight => f.write_str("weight 100%"),
        }
    }
}

/// Cuts `items` into runs whose texts, joined by `;` and ended by a line end, fit `limit` bytes; `length` tells the
/// length of an item's text. An item that alone is longer than the limit makes a run of its own.
pub fn lines<T>(items: &[T], limit: usize, length: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut lines = Vec::new();
    let (mut start, mut taken) = (0, 0);
    for (index, item) in items.iter().enumerate() {
        let more = length(item) + 1;
        if taken + more > limit && index > start {
            lines.push(&items[start..index]);
            (start, taken) = (index, 0);
        }
        taken += more;
    }
    if start < items.len() {
        lines.push(&items[start..]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(change: Change) -> Command {
        Command::new("http-back", "web3", change).unwrap()
    }

    #[test]
    fn spelling() {
        let v4 = "10.0.0.1".parse().unwrap();
        let v6 = "2001:db8::1".parse().unwrap();
        for (change, text) in [
            (Change::Maintenance, "set server http-back/web3 state maint"),
            (Change::Ready, "set server http-back/web3 state ready"),
            (Change::Address(v4, 80), "set server http-back/web3 addr 10.0.0.1 port 80"),
            (Change::Address(v6, 8080), "set server http-back/web3 addr 2001:db8::1 port 8080"),
            (Change::Weight(256), "set server http-back/web3 weight 256"),
            (Change::ConfiguredWeight, "set server http-back/web3 weight 100%"),
        ] {
            assert_eq!(command(change).to_string(), text);
        }
    }

    #[test]
    fn a_name_cannot_carry_a_second_command() {
        for bad in ["", "a b", "a;b", "a\nb", "a\rb", "a/b", "a\\b", "a#b", "é"] {
            assert_eq!(Command::new(bad, "web1", Change::Ready), None, "{bad:?}");
            assert_eq!(Command::new("back", bad, Change::Ready), None, "{bad:?}");
        }
    }

    /// The replies of HAProxy 2.2 to 3.2, measured.
    #[test]
    fn replies_of_all_versions() {
        let address = command(Change::Address("10.0.0.1".parse().unwrap(), 80));
        for reply in [
            "IP changed from '127.0.0.2' to '127.0.0.11' by 'stats socket command'",
            "IP changed from 'A' to 'B', port changed from '1' to '2' by 'stats socket command'",
            "IP changed from 'A' to 'B', no need to change the port by 'stats socket command'",
            "no need to change the addr, no need to change the port by 'stats socket command'",
            "nothing changed",
            "no need to change the addr, port changed from '1' to '2' by 'stats socket command'",
            "port changed from '1' to '2' by 'stats socket command'",
        ] {
            assert_eq!(address.judge(reply), Verdict::Done, "{reply}");
        }
        for reply in [
            "Invalid addr 'foo' by 'stats socket command'",
            "IP changed from 'A' to 'B', problem converting port 'abc' to an int by 'stats socket command'",
            "No such server.",
            "Permission denied",
            "",
        ] {
            assert!(matches!(address.judge(reply), Verdict::Refused(_)), "{reply}");
        }
        for change in [Change::Ready, Change::Maintenance, Change::Weight(3)] {
            assert_eq!(command(change).judge(""), Verdict::Done);
            for reply in ["No such backend.", "Proxy is disabled.", "Unknown command: 'x'\nhelp"] {
                assert!(matches!(command(change).judge(reply), Verdict::Refused(_)), "{reply}");
            }
        }
        let refusal = "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.";
        assert_eq!(command(Change::Weight(3)).judge(refusal), Verdict::StaticWeight);
    }

    #[test]
    fn lines_keep_order_and_limit() {
        let commands: Vec<_> = (0..1000).map(|n| command(Change::Weight(n % 257))).collect();
        let cut = lines(&commands, 8192, |command| command.to_string().len());
        assert!(cut.len() > 1);
        for line in &cut {
            let text: Vec<_> = line.iter().map(Command::to_string).collect();
            assert!(text.join(";").len() < 8192);
        }
        assert_eq!(cut.concat(), commands);
        assert!(lines(&commands[..0], 8192, |_| 1).is_empty());
        assert_eq!(lines(&commands[..1], 1, |_| 50).len(), 1, "a command longer than the limit still goes");
    }
}
