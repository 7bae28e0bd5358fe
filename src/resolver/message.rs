//! Questions to name servers and their answers as bytes, by RFC 1035 (and RFC 3596 for IPv6). Pure.
//!
//! An answer comes from anywhere: it counts only where number and question are those that were sent, nothing in it is
//! followed in a circle, and nothing grows beyond what a message can hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most addresses that are taken of one answer.
const MOST_ADDRESSES: usize = 32;
/// The most names that an alias may lead through.
const MOST_ALIASES: usize = 16;
/// The longest name, as it stands in a message.
const LONGEST_NAME: usize = 255;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
        }
    }
}

/// A name as messages have it, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(Vec<u8>);

impl Name {
    /// `None` for what cannot be a name: too long, or with an empty part.
    pub(super) fn new(text: &str) -> Option<Name> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            wire.push(length);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= LONGEST_NAME).then_some(Name(wire))
    }
}

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The number by which the answer is known.
    pub(super) id: u16,
    /// Whose addresses.
    pub(super) name: Name,
    /// Which ones.
    pub(super) kind: Kind,
}

/// What a name server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses, at least one.
    Addresses(Vec<IpAddr>),
    /// There is no such name, or it has no such address.
    None,
    /// The answer did not fit, and has to be asked for over TCP: these addresses did.
    Cut(Vec<IpAddr>),
    /// It cannot or will not say, in words.
    Failed(String),
}

impl Question {
    /// The message that asks it.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = self.id.to_be_bytes().to_vec();
        // Recursion desired; one question, nothing else.
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(&self.name.0);
        message.extend(self.kind.number().to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }

    /// What a message answers to the question; `None` where it is no answer to it.
    pub(super) fn answer(&self, message: &[u8]) -> Option<Answer> {
        let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let (flags, questions, answers) = (number(2)?, number(4)?, number(6)?);
        let is_response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
        if number(0)? != self.id || !is_response || message.len() < HEADER {
            return None;
        }
        let code = flags & 0x000f;
        let refused = |text: &str| Some(Answer::Failed(text.to_owned()));
        let position = match questions {
            1 => {
                let (name, after) = name_at(message, HEADER)?;
                if name != self.name || number(after)? != self.kind.number() || number(after + 2)? != CLASS_IN {
                    return None;
                }
                after + 4
            }
            // One that cannot read a question does not repeat it.
            0 if code != 0 => HEADER,
            _ => return None,
        };
        match code {
            0 => {}
            3 => return Some(Answer::None),
            1 => return refused("does not understand the question"),
            2 => return refused("fails (SERVFAIL)"),
            4 => return refused("does not answer such questions (NOTIMP)"),
            5 => return refused("refuses (REFUSED)"),
            code => return refused(&format!("fails (code {code})")),
        }
        let is_cut = flags & 0x0200 != 0;
        let Some(addresses) = self.addresses(message, position, answers).or(is_cut.then(Vec::new)) else {
            return refused("gives an answer that cannot be read");
        };
        if is_cut {
            return Some(Answer::Cut(addresses));
        }
        if !addresses.is_empty() {
            return Some(Answer::Addresses(addresses));
        }
        // It neither knows the name nor asks others: it only says whom else to ask.
        let (authoritative, recursive) = (flags & 0x0400 != 0, flags & 0x0080 != 0);
        if answers == 0 && !authoritative && !recursive && number(10)? == 0 {
            return refused("asks no other server for us");
        }
        Some(Answer::None)
    }

    /// The addresses among the records, of the name or of what it is an alias of. `None` if they cannot be read.
    fn addresses(&self, message: &[u8], mut position: usize, records: u16) -> Option<Vec<IpAddr>> {
        let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let (mut aliases, mut found) = (Vec::new(), Vec::new());
        for _ in 0..records {
            let (owner, at) = name_at(message, position)?;
            let (kind, class, length) = (number(at)?, number(at + 2)?, usize::from(number(at + 8)?));
            let data = message.get(at + 10..at + 10 + length)?;
            if class == CLASS_IN && kind == TYPE_CNAME {
                aliases.push((owner, name_at(message, at + 10)?.0));
            } else if class == CLASS_IN && kind == self.kind.number() {
                let address = match self.kind {
                    Kind::A => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
                    Kind::Aaaa => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
                };
                found.push((owner, address));
            }
            position = at + 10 + length;
        }
        let mut name = &self.name;
        for _ in 0..MOST_ALIASES {
            match aliases.iter().find(|(owner, _)| owner == name) {
                Some((_, target)) => name = target,
                None => break,
            }
        }
        Some(
            found.iter().filter(|(owner, _)| owner == name).map(|(_, address)| *address).take(MOST_ADDRESSES).collect(),
        )
    }
}

/// The name at a position, in lower case, and the position after it. `None` if there is none.
fn name_at(message: &[u8], mut position: usize) -> Option<(Name, usize)> {
    let (mut name, mut after) = (Vec::new(), None);
    loop {
        let length = *message.get(position)?;
        match length {
            0 => {
                name.push(0);
                return Some((Name(name), after.unwrap_or(position + 1)));
            }
            1..=63 => {
                let end = position + 1 + usize::from(length);
                name.push(length);
                name.extend(message.get(position + 1..end)?.iter().map(u8::to_ascii_lowercase));
                if name.len() >= LONGEST_NAME {
                    return None;
                }
                position = end;
            }
            0xc0.. => {
                let target = usize::from(length & 0x3f) << 8 | usize::from(*message.get(position + 1)?);
                after.get_or_insert(position + 2);
                // Only ever back, so that it comes to an end.
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

    fn question(name: &str, kind: Kind) -> Question {
        Question { id: 0x1234, name: Name::new(name).expect("a name"), kind }
    }

    /// A record: owner, type, data.
    pub(in crate::resolver) fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut record = Name::new(owner).expect("a name").0;
        record.extend(kind.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        record.extend(data);
        record
    }

    fn alias(owner: &str, target: &str) -> Vec<u8> {
        record(owner, TYPE_CNAME, &Name::new(target).expect("a name").0)
    }

    /// The answer to a message that asks one question: flags and code, and the records.
    pub(in crate::resolver) fn reply(asked: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = asked.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
        records.iter().for_each(|record| message.extend(record));
        message
    }

    fn addresses(list: &[&str]) -> Answer {
        Answer::Addresses(list.iter().map(|text| text.parse().expect("an address")).collect())
    }

    #[test]
    fn a_question_is_what_the_rfc_says() {
        let message = question("A.bc", Kind::Aaaa).message();
        assert_eq!(message, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01");
        for bad in ["", "a..b", ".", "a.", ".a", &"x".repeat(64), &"x.".repeat(127)] {
            assert_eq!(Name::new(bad), None, "{bad:?}");
        }
        assert!(Name::new(&format!("{}x", "x.".repeat(126))).is_some(), "253 characters");
        assert!(Name::new("_a-b.1").is_some());
    }

    #[test]
    fn what_is_answered_is_told_apart() {
        let asked = question("db.example", Kind::A);
        let message = asked.message();
        let of = |flags: u16, records: &[Vec<u8>]| asked.answer(&reply(&message, flags, records));
        let ours = record("DB.example", 1, &[10, 0, 0, 1]);
        let second = record("db.example", 1, &[10, 0, 0, 2]);
        assert_eq!(of(0, &[ours.clone(), second]), Some(addresses(&["10.0.0.1", "10.0.0.2"])));
        assert_eq!(of(3, &[]), Some(Answer::None));
        assert_eq!(of(0, &[]), Some(Answer::None), "a name without such addresses");
        assert_eq!(of(0, &[record("db.example", 28, &[0; 16])]), Some(Answer::None));
        assert_eq!(of(0, &[record("other.example", 1, &[10, 0, 0, 3])]), Some(Answer::None));
        assert_eq!(of(0x0200, std::slice::from_ref(&ours)), Some(Answer::Cut(vec!["10.0.0.1".parse().unwrap()])));
        for (code, text) in [(2, "SERVFAIL"), (5, "REFUSED"), (4, "NOTIMP"), (1, "understand"), (9, "code 9")] {
            assert!(matches!(of(code, &[]), Some(Answer::Failed(told)) if told.contains(text)), "{code}");
        }
        // A server that was left behind: it knows nothing, and says nothing of recursion.
        let mut lame = reply(&message, 0, &[]);
        lame[3] = 0;
        assert!(matches!(asked.answer(&lame), Some(Answer::Failed(text)) if text.contains("asks no other")));
        // The header alone, from one that could not read the question.
        let mut short = reply(&message, 1, &[])[..HEADER].to_vec();
        short[5] = 0;
        assert!(matches!(asked.answer(&short), Some(Answer::Failed(_))));

        let six = question("db.example", Kind::Aaaa);
        let data = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let found = six.answer(&reply(&six.message(), 0, &[record("db.example", 28, &data)]));
        assert_eq!(found, Some(addresses(&["fd00::1"])));
    }

    #[test]
    fn aliases_are_followed_in_whatever_order_they_come_and_never_in_a_circle() {
        let asked = question("a", Kind::A);
        let of = |records: &[Vec<u8>]| asked.answer(&reply(&asked.message(), 0, records));
        let end = record("c.x", 1, &[10, 0, 0, 9]);
        assert_eq!(of(&[alias("a", "b.x"), alias("B.x", "c.X"), end.clone()]), Some(addresses(&["10.0.0.9"])));
        assert_eq!(of(&[end.clone(), alias("b.x", "c.x"), alias("a", "b.x")]), Some(addresses(&["10.0.0.9"])));
        assert_eq!(of(&[alias("a", "b.x"), alias("b.x", "a"), end.clone()]), Some(Answer::None));
        assert_eq!(of(&[alias("a", "b.x")]), Some(Answer::None));
        let long: Vec<_> = (0..20).map(|n| alias(&format!("n{n}"), &format!("n{}", n + 1))).collect();
        let last = record("n20", 1, &[10, 0, 0, 9]);
        assert_eq!(of(&[vec![alias("a", "n0")], long, vec![last]].concat()), Some(Answer::None));
        // The usual form: the name of each record is a pointer to the question.
        let pointed = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07".to_vec();
        assert_eq!(of(&[pointed]), Some(addresses(&["10.0.0.7"])));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_left_aside() {
        let asked = question("db.example", Kind::A);
        let good = reply(&asked.message(), 0, &[record("db.example", 1, &[10, 0, 0, 1])]);
        assert!(asked.answer(&good).is_some());
        let changed = |at: usize, to: u8| {
            let mut message = good.clone();
            message[at] = to;
            asked.answer(&message)
        };
        assert_eq!(changed(1, 0), None, "another number");
        assert_eq!(changed(2, 0x01), None, "a question");
        assert_eq!(changed(2, 0x89), None, "another kind of message");
        assert_eq!(changed(5, 2), None, "two questions");
        assert_eq!(changed(5, 0), None, "no question, and no fault");
        assert_eq!(changed(13, b'x'), None, "another name");
        assert_eq!(changed(good.len() - 1 - 26 - 1, 28), None, "another type");
        assert_eq!(asked.answer(b""), None);
        for cut in 0..HEADER {
            assert_eq!(asked.answer(&good[..cut]), None);
        }
        for cut in HEADER + 16..good.len() {
            assert!(matches!(asked.answer(&good[..cut]), Some(Answer::Failed(_))), "{cut}");
        }
    }

    #[test]
    fn pointers_in_a_circle_end() {
        let asked = question("a", Kind::A);
        let circle = |at: usize| {
            let mut record = vec![0xc0, u8::try_from(at).expect("short")];
            record.extend(b"\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07");
            asked.answer(&reply(&asked.message(), 0, &[record]))
        };
        let start = asked.message().len();
        for at in [start, start + 1, start + 5, 255] {
            assert!(matches!(circle(at), Some(Answer::Failed(_))), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..60, to in any::<u8>()) {
            let asked = question("db.example", Kind::A);
            let _ = asked.answer(&bytes);
            let mut message = reply(&asked.message(), 0, &[alias("db.example", "b"), record("b", 1, &[10, 0, 0, 1])]);
            let at = at % message.len();
            message[at] = to;
            if let Some(Answer::Addresses(found)) = asked.answer(&message) {
                prop_assert!(found.len() <= MOST_ADDRESSES);
            }
            message.extend(bytes);
            let _ = asked.answer(&message);
        }
    }
}
