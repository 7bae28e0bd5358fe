//! Whether a response of Consul is trustworthy, by status and headers, and where the next blocking query starts. Pure.

use super::error::QueryError;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConsulResponse {
    pub(super) status: u16,
    pub(super) index: Option<String>,
    pub(super) known_leader: Option<String>,
    pub(super) filtered: Option<String>,
    pub(super) body: Vec<u8>,
}

/// The body, with status 500, of a server without a leader (measured on 1.8.7).
const NO_LEADER: &str = "No cluster leader";

/// The body, if Consul knew its leader and filtered nothing out.
pub(super) fn trusted_body(response: &ConsulResponse) -> Result<&[u8], QueryError> {
    if response.status != 200 {
        let text = String::from_utf8_lossy(&response.body).into_owned();
        return Err(match response.status {
            403 => QueryError::Denied(text),
            500 if text.contains(NO_LEADER) => QueryError::NoLeader,
            status => QueryError::Refused(status, text),
        });
    }
    match response.known_leader.as_deref() {
        Some("true") => {}
        Some(_) => return Err(QueryError::NoLeader),
        None => {
            return Err(QueryError::Unreadable("no X-Consul-KnownLeader header, so it is not from Consul".to_owned()));
        }
    }
    if response.filtered.as_deref() == Some("true") {
        return Err(QueryError::Filtered);
    }
    Ok(&response.body)
}

/// The index for the next blocking query, after a response to a query with index `previous`; `None` for a query that
/// must not block (Consul API documentation, "Blocking Queries", "Implementation Details").
pub(super) fn next_index(previous: Option<u64>, response: &ConsulResponse) -> Result<Option<u64>, QueryError> {
    let header = response.index.as_deref();
    let Some(index) = header.and_then(|text| text.parse::<u64>().ok()) else {
        return Err(QueryError::Unreadable(match header {
            None => "no X-Consul-Index header".to_owned(),
            Some(text) => format!("invalid X-Consul-Index {text:?}"),
        }));
    };
    Ok(match previous {
        // The index went backwards: the servers were restored from a snapshot or lost their state. Waiting for the old
        // index would miss every change until it is reached again.
        Some(previous) if index < previous => None,
        // A query with index 0 does not block; repeating it would be polling.
        _ => Some(index.max(1)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn response(status: u16, known_leader: Option<&str>, filtered: Option<&str>, body: &str) -> ConsulResponse {
        ConsulResponse {
            status,
            index: Some("7".to_owned()),
            known_leader: known_leader.map(str::to_owned),
            filtered: filtered.map(str::to_owned),
            body: body.into(),
        }
    }

    #[test]
    fn only_a_complete_response_is_trusted() {
        let text = |text: &str| text.to_owned();
        #[rustfmt::skip]
        let cases = [
            ("complete", response(200, Some("true"), None, "[]"), Ok("[]")),
            ("complete, and says so", response(200, Some("true"), Some("false"), "[]"), Ok("[]")),
            ("no leader known", response(200, Some("false"), None, "[]"), Err(QueryError::NoLeader)),
            ("no leader, as 1.8.7 says it", response(500, Some("false"), None, "No cluster leader"), Err(QueryError::NoLeader)),
            ("no leader, relayed by an agent", response(500, Some("false"), None, "rpc error making call: No cluster leader"),
             Err(QueryError::NoLeader)),
            ("not Consul", response(200, None, None, "<html>"),
             Err(QueryError::Unreadable(text("no X-Consul-KnownLeader header, so it is not from Consul")))),
            ("filtered", response(200, Some("true"), Some("true"), "[1]"), Err(QueryError::Filtered)),
            ("unknown token: the header says nothing then", response(403, Some("false"), None, "ACL not found"),
             Err(QueryError::Denied(text("ACL not found")))),
            ("bad namespace", response(400, None, None, "Bad request: Invalid query parameter"),
             Err(QueryError::Refused(400, text("Bad request: Invalid query parameter")))),
            ("redirect", response(301, Some("true"), None, ""), Err(QueryError::Refused(301, text("")))),
            ("another 2xx", response(204, Some("true"), None, ""), Err(QueryError::Refused(204, text("")))),
            ("broken", response(500, Some("true"), None, "rpc error"), Err(QueryError::Refused(500, text("rpc error")))),
        ];
        for (name, response, expected) in cases {
            assert_eq!(trusted_body(&response), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn the_index_follows_consuls_rules() {
        let index = |previous: Option<u64>, header: Option<&str>| {
            next_index(previous, &ConsulResponse { index: header.map(str::to_owned), ..ConsulResponse::default() })
        };
        for (previous, header, expected) in [
            (None, "7", Some(7)),
            (Some(7), "7", Some(7)),
            (Some(7), "8", Some(8)),
            (Some(7), "6", None),
            (Some(7), "0", None),
            (None, "0", Some(1)),
            (Some(1), "0", None),
            (None, "18446744073709551615", Some(u64::MAX)),
        ] {
            assert_eq!(index(previous, Some(header)), Ok(expected), "{previous:?} {header}");
        }
        for header in [None, Some(""), Some("x"), Some("-1"), Some("18446744073709551616")] {
            assert!(matches!(index(None, header), Err(QueryError::Unreadable(_))), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn a_query_never_waits_for_index_zero_or_a_lost_index(previous in prop::option::of(1..20_u64), got in 0..20_u64) {
            let response = ConsulResponse { index: Some(got.to_string()), ..ConsulResponse::default() };
            match next_index(previous, &response).expect("a number") {
                Some(next) => prop_assert!(next >= 1 && next >= got && previous.is_none_or(|previous| previous <= next)),
                None => prop_assert!(previous.is_some_and(|previous| got < previous)),
            }
        }
    }
}
