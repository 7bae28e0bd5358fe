//! Fuzz targets of the resolver: the system's files, and responses of name servers.

use super::conf::{ResolvConf, hosts_addresses, interface_index};
use super::message::{DomainName, Question, RecordType, Resolution};
use crate::fuzzing::{assert_message, kind, parts, text};

/// The first byte selects: `f`: the files; `6`: a response to AAAA; else one to A.
pub fn resolver(data: &[u8]) {
    match kind(data) {
        (b'f', rest) => files(&text(rest)),
        (b'6', rest) => response(RecordType::Aaaa, rest),
        (_, rest) => response(RecordType::A, rest),
    }
}

/// `resolv.conf`, `hosts`, the interfaces and a name, with lines `---` between them.
fn files(text: &str) {
    let mut parts = parts(text);
    let mut part = || parts.next().unwrap_or_default();
    let (resolv_conf, hosts, interfaces, name) = (part(), part(), part(), part());
    let conf = ResolvConf::parse(resolv_conf, name, &|interface| interface_index(interfaces, interface));
    assert!((1..=3).contains(&conf.servers.len()) && conf.servers.iter().all(|server| server.port() == 53), "{conf:?}");
    assert!((1..=5).contains(&conf.attempts) && (1..=30).contains(&conf.timeout.as_secs()) && conf.ndots <= 15);
    let candidates = conf.candidates(name);
    assert!(!candidates.is_empty() && candidates.len() <= 33, "{candidates:?}");
    assert!(candidates.iter().any(|candidate| candidate == name.strip_suffix('.').unwrap_or(name)));
    let _ = hosts_addresses(hosts, name);
    for candidate in candidates {
        if let Some(name) = DomainName::new(&candidate) {
            let question = Question { id: 1, name, record_type: RecordType::A };
            // A query is not a response; with the response flag, its question matches.
            let mut message = question.message();
            assert_eq!(question.parse_response(&message), None);
            message[2] |= 0x80;
            assert_eq!(
                question.parse_response(&message),
                Some(Resolution::Failed("does not offer recursion".to_owned()))
            );
        }
    }
}

/// A response about `db.example`, with ID and question corrected so that the rest is parsed.
fn response(kind: RecordType, data: &[u8]) {
    let question =
        Question { id: 0x1234, name: DomainName::new("db.example").expect("it is a name"), record_type: kind };
    let _ = question.parse_response(data);
    let mut message = question.message();
    if let (Some(flags), Some(counts)) = (data.get(..2), data.get(2..8)) {
        message[2..4].copy_from_slice(&[flags[0] & 0x87 | 0x80, flags[1]]);
        message[6..12].copy_from_slice(counts);
        message.extend(&data[8..]);
    }
    match question.parse_response(&message) {
        Some(Resolution::Addresses(addresses) | Resolution::Truncated(addresses)) => {
            assert!(
                addresses.len() <= 32
                    && addresses.iter().all(|address| address.is_ipv6() == (kind == RecordType::Aaaa))
            );
        }
        Some(Resolution::Failed(text)) => assert_message(&text, 0),
        Some(Resolution::NotFound) | None => {}
    }
}
