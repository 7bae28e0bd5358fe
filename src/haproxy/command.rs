//! Judges the reply to a command, and joins commands into lines. Pure.

use crate::ports::{Change, Command, Verdict};

/// HAProxy's refusal to change the address of a server that has none: a name that does not resolve, `init-addr none`, a Unix socket.
const NO_FAMILY: &str = "current server address family";

/// The outcome of `command` by its reply. Success is an empty reply for a state, a weight or a health, and for an address a sentence
/// that differs between versions; the next reading has the last word.
pub(super) fn judge(command: &Command, reply: &str) -> Verdict {
    let done = match command.change() {
        Change::Address(..) => {
            ["changed", "no need to change"].iter().any(|word| reply.contains(word))
                && !["problem converting", "Invalid"].iter().any(|word| reply.contains(word))
        }
        _ => reply.is_empty(),
    };
    if done {
        return Verdict::Done;
    }
    if reply.contains("static LB algorithm") {
        return Verdict::StaticWeight;
    }
    let mut words = reply.lines().next().unwrap_or("an empty reply").to_owned();
    if reply.contains(NO_FAMILY) {
        words.push_str(": give the `server-template` a literal address such as 127.0.0.2:80 as its placeholder");
    }
    Verdict::Refused(words)
}

/// Splits `items` into runs whose texts, joined by `;` and with a line end, fit `limit` bytes. `length` is the length of an item's
/// text. An item longer than the limit gets its own run.
pub(super) fn lines<T>(items: &[T], limit: usize, length: impl Fn(&T) -> usize) -> Vec<&[T]> {
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

    /// The replies of HAProxy 2.2 to 3.4, measured.
    #[test]
    fn replies_of_all_versions() {
        let address = command(Change::Address("10.0.0.1".parse().unwrap(), Some(80)));
        for reply in [
            "IP changed from '127.0.0.2' to '127.0.0.11' by 'stats socket command'",
            "IP changed from 'A' to 'B', port changed from '1' to '2' by 'stats socket command'",
            "IP changed from 'A' to 'B', no need to change the port by 'stats socket command'",
            "no need to change the addr, no need to change the port by 'stats socket command'",
            "nothing changed",
            "no need to change the addr, port changed from '1' to '2' by 'stats socket command'",
            "port changed from '1' to '2' by 'stats socket command'",
        ] {
            assert_eq!(judge(&address, reply), Verdict::Done, "{reply}");
        }
        for reply in [
            "Invalid addr 'foo' by 'stats socket command'",
            "IP changed from 'A' to 'B', problem converting port 'abc' to an int by 'stats socket command'",
            "No such server.",
            "Permission denied",
            "",
        ] {
            assert!(matches!(judge(&address, reply), Verdict::Refused(_)), "{reply}");
        }
        for change in [Change::Ready, Change::Maintenance, Change::HealthDown, Change::Weight(3)] {
            assert_eq!(judge(&command(change), ""), Verdict::Done);
            for reply in ["No such backend.", "Proxy is disabled.", "Unknown command: 'x'\nhelp"] {
                assert!(matches!(judge(&command(change), reply), Verdict::Refused(_)), "{reply}");
            }
        }
        let refusal = "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.";
        assert_eq!(judge(&command(Change::Weight(3)), refusal), Verdict::StaticWeight);
        let refusal = "Update for the current server address family is only supported through configuration file.";
        let Verdict::Refused(words) = judge(&address, refusal) else { panic!("{refusal}") };
        assert!(words.contains("literal address"), "{words}");
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
