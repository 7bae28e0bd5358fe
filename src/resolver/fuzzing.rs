//! The resolver as a fuzz target: the system's files, and what name servers answer.

use super::conf::{Conf, addresses_in_hosts, scope_in};
use super::message::{Answer, Kind, Name, Question};
use crate::fuzzing::{assert_message, kind, parts, text};

/// What the first byte says follows: the files, or an answer about IPv4 or IPv6.
pub fn resolver(data: &[u8]) {
    match kind(data) {
        (b'f', rest) => files(&text(rest)),
        (b'6', rest) => answer(Kind::Aaaa, rest),
        (_, rest) => answer(Kind::A, rest),
    }
}

/// `resolv.conf`, `hosts`, the interfaces and a name, with lines `---` between them.
fn files(text: &str) {
    let mut parts = parts(text);
    let mut part = || parts.next().unwrap_or_default();
    let (resolv_conf, hosts, interfaces, name) = (part(), part(), part(), part());
    let conf = Conf::parse(resolv_conf, name, &|interface| scope_in(interfaces, interface));
    assert!((1..=3).contains(&conf.servers.len()) && conf.servers.iter().all(|server| server.port() == 53), "{conf:?}");
    assert!((1..=5).contains(&conf.attempts) && (1..=30).contains(&conf.timeout.as_secs()) && conf.ndots <= 15);
    let candidates = conf.candidates(name);
    assert!(!candidates.is_empty() && candidates.len() <= 33, "{candidates:?}");
    assert!(candidates.iter().any(|candidate| candidate == name.strip_suffix('.').unwrap_or(name)));
    let _ = addresses_in_hosts(hosts, name);
    for candidate in candidates {
        if let Some(name) = Name::new(&candidate) {
            let question = Question { id: 1, name, kind: Kind::A };
            // A question is no answer, and its own answer's question is understood.
            let mut message = question.message();
            assert_eq!(question.answer(&message), None);
            message[2] |= 0x80;
            assert_eq!(question.answer(&message), Some(Answer::Failed("asks no other server for us".to_owned())));
        }
    }
}

/// An answer about `db.example`, whose number and question are put right, so that the rest of it is read.
fn answer(kind: Kind, data: &[u8]) {
    let question = Question { id: 0x1234, name: Name::new("db.example").expect("it is a name"), kind };
    let _ = question.answer(data);
    let mut message = question.message();
    if let (Some(flags), Some(counts)) = (data.get(..2), data.get(2..8)) {
        message[2..4].copy_from_slice(&[flags[0] & 0x87 | 0x80, flags[1]]);
        message[6..12].copy_from_slice(counts);
        message.extend(&data[8..]);
    }
    match question.answer(&message) {
        Some(Answer::Addresses(addresses) | Answer::Cut(addresses)) => {
            assert!(addresses.len() <= 32 && addresses.iter().all(|address| address.is_ipv6() == (kind == Kind::Aaaa)));
        }
        Some(Answer::Failed(text)) => assert_message(&text, 0),
        Some(Answer::None) | None => {}
    }
}
