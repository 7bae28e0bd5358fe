//! Which answer of Consul counts, and where the next blocking query starts. Pure.
//!
//! It judges status and headers; what the body says is `health`'s.

use super::error::Cause;

/// An answer as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// `X-Consul-Index`.
    pub(super) index: Option<String>,
    /// `X-Consul-KnownLeader`.
    pub(super) known_leader: Option<String>,
    /// `X-Consul-Results-Filtered-By-ACLs`.
    pub(super) filtered: Option<String>,
    /// The whole body.
    pub(super) body: Vec<u8>,
}

/// What a server without a leader answers, with status 500 (measured on 1.8.7).
const NO_LEADER: &str = "No cluster leader";

/// Gives the body away if the answer counts: Consul knew its leader, and left nothing out.
pub(super) fn whole(answer: &Answer) -> Result<&[u8], Cause> {
    if answer.status != 200 {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(match answer.status {
            403 => Cause::Denied(text),
            500 if text.contains(NO_LEADER) => Cause::NoLeader,
            status => Cause::Refused(status, text),
        });
    }
    match answer.known_leader.as_deref() {
        Some("true") => {}
        Some(_) => return Err(Cause::NoLeader),
        None => return Err(Cause::Unreadable("it has no X-Consul-KnownLeader, so it is not Consul's".to_owned())),
    }
    if answer.filtered.as_deref() == Some("true") {
        return Err(Cause::Filtered);
    }
    Ok(&answer.body)
}

/// The index of the next blocking query, `None` for one that does not block, after an answer to a query with the index
/// `asked` (Consul API documentation, "Blocking Queries", "Implementation Details").
pub(super) fn next_index(asked: Option<u64>, answer: &Answer) -> Result<Option<u64>, Cause> {
    let header = answer.index.as_deref();
    let Some(index) = header.and_then(|text| text.parse::<u64>().ok()) else {
        let found = header.map_or("no X-Consul-Index".to_owned(), |text| format!("the X-Consul-Index {text:?}"));
        return Err(Cause::Unreadable(format!("it has {found}")));
    };
    Ok(match asked {
        // It went backwards: the servers were restored from a snapshot or lost their state. To wait for the old
        // index would be to miss every change until it is reached again.
        Some(asked) if index < asked => None,
        // A query with index 0 does not block, and asking it again and again would be polling.
        _ => Some(index.max(1)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, known_leader: Option<&str>, filtered: Option<&str>, body: &str) -> Answer {
        Answer {
            status,
            index: Some("7".to_owned()),
            known_leader: known_leader.map(str::to_owned),
            filtered: filtered.map(str::to_owned),
            body: body.into(),
        }
    }

    #[test]
    fn only_a_whole_answer_counts() {
        let text = |text: &str| text.to_owned();
        #[rustfmt::skip]
        let cases = [
            ("whole", answer(200, Some("true"), None, "[]"), Ok("[]")),
            ("whole, and says so", answer(200, Some("true"), Some("false"), "[]"), Ok("[]")),
            ("no leader known", answer(200, Some("false"), None, "[]"), Err(Cause::NoLeader)),
            ("no leader, as 1.8.7 says it", answer(500, Some("false"), None, "No cluster leader"), Err(Cause::NoLeader)),
            ("no leader, as an agent passes it on", answer(500, Some("false"), None, "rpc error making call: No cluster leader"),
             Err(Cause::NoLeader)),
            ("not Consul", answer(200, None, None, "<html>"),
             Err(Cause::Unreadable(text("it has no X-Consul-KnownLeader, so it is not Consul's")))),
            ("filtered", answer(200, Some("true"), Some("true"), "[1]"), Err(Cause::Filtered)),
            ("unknown token: the header says nothing then", answer(403, Some("false"), None, "ACL not found"),
             Err(Cause::Denied(text("ACL not found")))),
            ("bad namespace", answer(400, None, None, "Bad request: Invalid query parameter"),
             Err(Cause::Refused(400, text("Bad request: Invalid query parameter")))),
            ("elsewhere", answer(301, Some("true"), None, ""), Err(Cause::Refused(301, text("")))),
            ("another 2xx", answer(204, Some("true"), None, ""), Err(Cause::Refused(204, text("")))),
            ("broken", answer(500, Some("true"), None, "rpc error"), Err(Cause::Refused(500, text("rpc error")))),
        ];
        for (name, answer, expected) in cases {
            assert_eq!(whole(&answer), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn the_index_follows_consuls_rules() {
        let index = |asked: Option<u64>, header: Option<&str>| {
            next_index(asked, &Answer { index: header.map(str::to_owned), ..Answer::default() })
        };
        for (asked, header, expected) in [
            (None, "7", Some(7)),
            (Some(7), "7", Some(7)),
            (Some(7), "8", Some(8)),
            (Some(7), "6", None),
            (Some(7), "0", None),
            (None, "0", Some(1)),
            (Some(1), "0", None),
            (None, "18446744073709551615", Some(u64::MAX)),
        ] {
            assert_eq!(index(asked, Some(header)), Ok(expected), "{asked:?} {header}");
        }
        for header in [None, Some(""), Some("x"), Some("-1"), Some("18446744073709551616")] {
            assert!(matches!(index(None, header), Err(Cause::Unreadable(_))), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn a_query_never_waits_for_zero_nor_for_a_past_that_is_gone(asked in prop::option::of(1..20_u64), got in 0..20_u64) {
            let answer = Answer { index: Some(got.to_string()), ..Answer::default() };
            match next_index(asked, &answer).expect("a number") {
                Some(next) => prop_assert!(next >= 1 && next >= got && asked.is_none_or(|asked| asked <= next)),
                None => prop_assert!(asked.is_some_and(|asked| got < asked)),
            }
        }
    }
}
