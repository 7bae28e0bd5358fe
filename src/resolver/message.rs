//! Encodes DNS queries and parses responses, by RFC 1035 (and RFC 3596 for IPv6). Pure.
//!
//! Responses may be forged: ID and question must match, pointers and aliases cannot loop, and sizes are bounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Per response.
const MAX_ADDRESSES: usize = 32;
/// The longest chain of aliases.
const MAX_ALIASES: usize = 16;
/// In wire format.
const MAX_NAME_BYTES: usize = 255;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordType {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl RecordType {
    fn number(self) -> u16 {
        match self {
            RecordType::A => 1,
            RecordType::Aaaa => 28,
        }
    }
}

/// A name in wire format, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DomainName(Vec<u8>);

impl DomainName {
    /// `None` if the name is too long or has an empty label.
    pub(super) fn new(text: &str) -> Option<DomainName> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            wire.push(length);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME_BYTES).then_some(DomainName(wire))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Matches the response to the query.
    pub(super) id: u16,
    pub(super) name: DomainName,
    pub(super) record_type: RecordType,
}

/// The result of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// At least one.
    Addresses(Vec<IpAddr>),
    /// No such name, or no address of this type.
    NotFound,
    /// Truncated, to be retried over TCP; the addresses that fit.
    Truncated(Vec<IpAddr>),
    /// Why the server has no answer.
    Failed(String),
}

impl Question {
    /// The query message.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = self.id.to_be_bytes().to_vec();
        // Recursion desired; one question, nothing else.
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(&self.name.0);
        message.extend(self.record_type.number().to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }

    /// Parses a response; `None` if it does not belong to this question.
    pub(super) fn parse_response(&self, message: &[u8]) -> Option<Resolution> {
        let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let (flags, questions, answers) = (number(2)?, number(4)?, number(6)?);
        let is_response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
        if number(0)? != self.id || !is_response || message.len() < HEADER {
            return None;
        }
        let code = flags & 0x000f;
        let refused = |text: &str| Some(Resolution::Failed(text.to_owned()));
        let position = match questions {
            1 => {
                let (name, after) = name_at(message, HEADER)?;
                if name != self.name || number(after)? != self.record_type.number() || number(after + 2)? != CLASS_IN {
                    return None;
                }
                after + 4
            }
            // An error response may omit the question.
            0 if code != 0 => HEADER,
            _ => return None,
        };
        match code {
            0 => {}
            3 => return Some(Resolution::NotFound),
            1 => return refused("does not understand the query (FORMERR)"),
            2 => return refused("fails (SERVFAIL)"),
            4 => return refused("does not support such queries (NOTIMP)"),
            5 => return refused("refuses (REFUSED)"),
            code => return refused(&format!("fails (code {code})")),
        }
        let truncated = flags & 0x0200 != 0;
        let Some(addresses) = self.addresses(message, position, answers).or(truncated.then(Vec::new)) else {
            return refused("sent an unreadable response");
        };
        if truncated {
            return Some(Resolution::Truncated(addresses));
        }
        if !addresses.is_empty() {
            return Some(Resolution::Addresses(addresses));
        }
        // A referral: neither authoritative nor recursive.
        let (authoritative, recursive) = (flags & 0x0400 != 0, flags & 0x0080 != 0);
        if answers == 0 && !authoritative && !recursive && number(10)? == 0 {
            return refused("does not offer recursion");
        }
        Some(Resolution::NotFound)
    }

    /// The addresses of the name or its alias target; `None` if malformed.
    fn addresses(&self, message: &[u8], mut position: usize, records: u16) -> Option<Vec<IpAddr>> {
        let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let (mut aliases, mut found) = (Vec::new(), Vec::new());
        for _ in 0..records {
            let (owner, at) = name_at(message, position)?;
            let (kind, class, length) = (number(at)?, number(at + 2)?, usize::from(number(at + 8)?));
            let data = message.get(at + 10..at + 10 + length)?;
            if class == CLASS_IN && kind == TYPE_CNAME {
                aliases.push((owner, name_at(message, at + 10)?.0));
            } else if class == CLASS_IN && kind == self.record_type.number() {
                let address = match self.record_type {
                    RecordType::A => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
                    RecordType::Aaaa => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
                };
                found.push((owner, address));
            }
            position = at + 10 + length;
        }
        let mut name = &self.name;
        for _ in 0..MAX_ALIASES {
            match aliases.iter().find(|(owner, _)| owner == name) {
                Some((_, target)) => name = target,
                None => break,
            }
        }
        Some(found.iter().filter(|(owner, _)| owner == name).map(|(_, address)| *address).take(MAX_ADDRESSES).collect())
    }
}

/// The name at a position, in lower case, and the position after it; `None` if malformed.
fn name_at(message: &[u8], mut position: usize) -> Option<(DomainName, usize)> {
    let (mut name, mut after) = (Vec::new(), None);
    loop {
        let length = *message.get(position)?;
        match length {
            0 => {
                name.push(0);
                return Some((DomainName(name), after.unwrap_or(position + 1)));
            }
            1..=63 => {
                let end = position + 1 + usize::from(length);
                name.push(length);
                name.extend(message.get(position + 1..end)?.iter().map(u8::to_ascii_lowercase));
                if name.len() >= MAX_NAME_BYTES {
                    return None;
                }
                position = end;
            }
            0xc0.. => {
                let target = usize::from(length & 0x3f) << 8 | usize::from(*message.get(position + 1)?);
                after.get_or_insert(position + 2);
                // Only backwards, so that it terminates.
                if target >= position {
                    return None;
                }
                position = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, record_type: RecordType) -> Question {
        Question { id: 0x1234, name: DomainName::new(name).expect("a name"), record_type }
    }

    /// A record: owner, type, data.
    pub(in crate::resolver) fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut record = DomainName::new(owner).expect("a name").0;
        record.extend(kind.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        record.extend(data);
        record
    }

    fn alias(owner: &str, target: &str) -> Vec<u8> {
        record(owner, TYPE_CNAME, &DomainName::new(target).expect("a name").0)
    }

    /// The response to a query, with these flags, code and records.
    pub(in crate::resolver) fn reply(query: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
        records.iter().for_each(|record| message.extend(record));
        message
    }

    fn addresses(list: &[&str]) -> Resolution {
        Resolution::Addresses(list.iter().map(|text| text.parse().expect("an address")).collect())
    }

    #[test]
    fn a_query_is_encoded_as_in_the_rfc() {
        let message = question("A.bc", RecordType::Aaaa).message();
        assert_eq!(message, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01");
        for bad in ["", "a..b", ".", "a.", ".a", &"x".repeat(64), &"x.".repeat(127)] {
            assert_eq!(DomainName::new(bad), None, "{bad:?}");
        }
        assert!(DomainName::new(&format!("{}x", "x.".repeat(126))).is_some(), "253 characters");
        assert!(DomainName::new("_a-b.1").is_some());
    }

    #[test]
    fn responses_are_classified() {
        let query = question("db.example", RecordType::A);
        let message = query.message();
        let of = |flags: u16, records: &[Vec<u8>]| query.parse_response(&reply(&message, flags, records));
        let ours = record("DB.example", 1, &[10, 0, 0, 1]);
        let second = record("db.example", 1, &[10, 0, 0, 2]);
        assert_eq!(of(0, &[ours.clone(), second]), Some(addresses(&["10.0.0.1", "10.0.0.2"])));
        assert_eq!(of(3, &[]), Some(Resolution::NotFound));
        assert_eq!(of(0, &[]), Some(Resolution::NotFound), "a name without such addresses");
        assert_eq!(of(0, &[record("db.example", 28, &[0; 16])]), Some(Resolution::NotFound));
        assert_eq!(of(0, &[record("other.example", 1, &[10, 0, 0, 3])]), Some(Resolution::NotFound));
        assert_eq!(
            of(0x0200, std::slice::from_ref(&ours)),
            Some(Resolution::Truncated(vec!["10.0.0.1".parse().unwrap()]))
        );
        for (code, text) in [(2, "SERVFAIL"), (5, "REFUSED"), (4, "NOTIMP"), (1, "understand"), (9, "code 9")] {
            assert!(matches!(of(code, &[]), Some(Resolution::Failed(reason)) if reason.contains(text)), "{code}");
        }
        // A lame server: knows nothing, and offers no recursion.
        let mut lame = reply(&message, 0, &[]);
        lame[3] = 0;
        assert!(matches!(query.parse_response(&lame), Some(Resolution::Failed(text)) if text.contains("recursion")));
        // The header alone, as an error.
        let mut short = reply(&message, 1, &[])[..HEADER].to_vec();
        short[5] = 0;
        assert!(matches!(query.parse_response(&short), Some(Resolution::Failed(_))));

        let six = question("db.example", RecordType::Aaaa);
        let data = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let found = six.parse_response(&reply(&six.message(), 0, &[record("db.example", 28, &data)]));
        assert_eq!(found, Some(addresses(&["fd00::1"])));
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_never_in_a_loop() {
        let query = question("a", RecordType::A);
        let of = |records: &[Vec<u8>]| query.parse_response(&reply(&query.message(), 0, records));
        let end = record("c.x", 1, &[10, 0, 0, 9]);
        assert_eq!(of(&[alias("a", "b.x"), alias("B.x", "c.X"), end.clone()]), Some(addresses(&["10.0.0.9"])));
        assert_eq!(of(&[end.clone(), alias("b.x", "c.x"), alias("a", "b.x")]), Some(addresses(&["10.0.0.9"])));
        assert_eq!(of(&[alias("a", "b.x"), alias("b.x", "a"), end.clone()]), Some(Resolution::NotFound));
        assert_eq!(of(&[alias("a", "b.x")]), Some(Resolution::NotFound));
        let long: Vec<_> = (0..20).map(|n| alias(&format!("n{n}"), &format!("n{}", n + 1))).collect();
        let last = record("n20", 1, &[10, 0, 0, 9]);
        assert_eq!(of(&[vec![alias("a", "n0")], long, vec![last]].concat()), Some(Resolution::NotFound));
        // The usual form: the name of each record is a pointer to the question.
        let pointed = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07".to_vec();
        assert_eq!(of(&[pointed]), Some(addresses(&["10.0.0.7"])));
    }

    #[test]
    fn responses_to_other_questions_are_ignored() {
        let query = question("db.example", RecordType::A);
        let good = reply(&query.message(), 0, &[record("db.example", 1, &[10, 0, 0, 1])]);
        assert!(query.parse_response(&good).is_some());
        let changed = |at: usize, to: u8| {
            let mut message = good.clone();
            message[at] = to;
            query.parse_response(&message)
        };
        assert_eq!(changed(1, 0), None, "another number");
        assert_eq!(changed(2, 0x01), None, "a question");
        assert_eq!(changed(2, 0x89), None, "another kind of message");
        assert_eq!(changed(5, 2), None, "two questions");
        assert_eq!(changed(5, 0), None, "no question, and no fault");
        assert_eq!(changed(13, b'x'), None, "another name");
        assert_eq!(changed(good.len() - 1 - 26 - 1, 28), None, "another type");
        assert_eq!(query.parse_response(b""), None);
        for cut in 0..HEADER {
            assert_eq!(query.parse_response(&good[..cut]), None);
        }
        for cut in HEADER + 16..good.len() {
            assert!(matches!(query.parse_response(&good[..cut]), Some(Resolution::Failed(_))), "{cut}");
        }
    }

    #[test]
    fn pointer_loops_terminate() {
        let query = question("a", RecordType::A);
        let circle = |at: usize| {
            let mut record = vec![0xc0, u8::try_from(at).expect("short")];
            record.extend(b"\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07");
            query.parse_response(&reply(&query.message(), 0, &[record]))
        };
        let start = query.message().len();
        for at in [start, start + 1, start + 5, 255] {
            assert!(matches!(circle(at), Some(Resolution::Failed(_))), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..60, to in any::<u8>()) {
            let query = question("db.example", RecordType::A);
            let _ = query.parse_response(&bytes);
            let mut message = reply(&query.message(), 0, &[alias("db.example", "b"), record("b", 1, &[10, 0, 0, 1])]);
            let at = at % message.len();
            message[at] = to;
            if let Some(Resolution::Addresses(found)) = query.parse_response(&message) {
                prop_assert!(found.len() <= MAX_ADDRESSES);
            }
            message.extend(bytes);
            let _ = query.parse_response(&message);
        }
    }
}
