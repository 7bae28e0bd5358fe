//! Parses from `show stat` what people want to know of a server besides its state: its check, and its sessions. Pure.

use std::collections::BTreeMap;

/// A server's check and sessions, as HAProxy shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// `UP`, `UP 1/2`, `DOWN`, `MAINT (via b/s)`, `no check`, …
    pub status: String,
    /// The last check: `L4OK`, `L7STS`, …; empty without one. `* ` in front of it says that one is in flight.
    pub check: String,
    /// Sessions that it serves now.
    pub sessions: u64,
    /// Requests that wait for it.
    pub queued: u64,
    /// Its backend speaks HTTP.
    pub http: bool,
}

impl Traffic {
    /// Whether its last check failed. One that has not ended yet says nothing.
    pub fn check_failed(&self) -> bool {
        let check = self.check.trim_start_matches("* ");
        let passed = check.ends_with("OK") || matches!(check, "L7OKC" | "PROCOK");
        !(passed || matches!(check, "" | "UNK" | "INI"))
    }
}

/// The servers in the reply to `show stat <backend> 4 -1`, by name. Only columns before those with free text are read, and a row
/// that lacks one, or whose numbers are none, is left out.
pub(super) fn parse(reply: &str) -> BTreeMap<String, Traffic> {
    let mut lines = reply.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let column = |name: &str| header.iter().position(|title| *title == name);
    let columns = [column("svname"), column("status"), column("check_status"), column("scur"), column("qcur")];
    let [Some(name), Some(status), Some(check), Some(sessions), Some(queued)] = columns else {
        return BTreeMap::new();
    };
    // `mode` comes after free text; this one is empty unless it is HTTP.
    let responses = column("hrsp_1xx");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |place: usize| cells.get(place)?.parse().ok();
        let traffic = Traffic {
            status: (*cells.get(status)?).to_owned(),
            check: (*cells.get(check)?).to_owned(),
            sessions: number(sessions)?,
            queued: number(queued)?,
            http: responses.and_then(|place| cells.get(place)).is_some_and(|count| !count.is_empty()),
        };
        Some(((*cells.get(name)?).to_owned(), traffic))
    };
    lines.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let reply = "# pxname,svname,qcur,scur,status,check_status,hrsp_1xx,last_chk,\n\
                     back,web1,2,3,UP 1/2,* L4OK,0,\"a, b\",\nback,web2,0,0,DOWN,L7STS,,x,\nback,web3\nback,web4,,1,UP,L4OK,,x,\n\n";
        let servers = parse(reply);
        let traffic = |status: &str, check: &str, sessions, queued, http| Traffic {
            status: status.to_owned(),
            check: check.to_owned(),
            sessions,
            queued,
            http,
        };
        assert_eq!(servers.get("web1"), Some(&traffic("UP 1/2", "* L4OK", 3, 2, true)));
        assert_eq!(servers.get("web2"), Some(&traffic("DOWN", "L7STS", 0, 0, false)));
        assert_eq!(servers.len(), 2);
        for other in ["", "\n", "Unknown command", "# pxname,svname\nback,web1"] {
            assert!(parse(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn which_checks_have_failed() {
        for (check, failed) in [
            ("L4OK", false),
            ("L6OK", false),
            ("L7OK", false),
            ("L7OKC", false),
            ("* L4OK", false),
            ("PROCOK", false),
            ("INI", false),
            ("* INI", false),
            ("UNK", false),
            ("", false),
            ("L4CON", true),
            ("* L4TOUT", true),
            ("L7STS", true),
            ("SOCKERR", true),
            ("HANA", true),
        ] {
            let traffic = Traffic { check: check.to_owned(), ..Traffic::default() };
            assert_eq!(traffic.check_failed(), failed, "{check}");
        }
    }
}
