//! Reads the tables that HAProxy prints: `show stat` (management manual, section 9.1) and, where a version lacks a
//! column there, `show servers state` (section 9.3). Columns are found by name, never by position. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::slot::{MAX_WEIGHT, Weight};

/// What HAProxy, or an operator by its hand, decided about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// In rotation, if it is healthy.
    Ready,
    /// Set to `drain`. hsdo never does that (it drains by weight 0), so this is an operator's or an agent's hand.
    Drain,
    /// In maintenance.
    Maintenance,
    /// In maintenance because of something that `state ready` does not lift: a tracked server, a missing resolution.
    Inherited,
}

/// What HAProxy's checks say of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Up, and its last check passed.
    Passed,
    /// It gets traffic, but it is not fully up: not checked yet, or a check failed just now.
    Shaky,
    /// No check is configured.
    Unchecked,
    /// Down, or out of new traffic for another reason.
    Down,
}

/// A server as HAProxy runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its administrative state.
    pub admin: Admin,
    /// Its health; of no meaning in maintenance.
    pub health: Health,
    /// Where its traffic goes; `None` where HAProxy shows no address (an unresolved name).
    pub address: Option<SocketAddr>,
    /// The weight that was set, whatever a slow start makes of it; `None` where this table does not show it (2.2).
    pub weight: Option<Weight>,
}

/// The servers of one backend, by name.
pub type Servers = BTreeMap<String, Running>;

/// The reply to `show stat` and `show servers state` for a backend that is not there.
pub fn is_unknown_backend(reply: &str) -> bool {
    reply.starts_with("No such proxy") || reply.starts_with("Can't find backend")
}

/// Reads the reply to `show stat <backend> 4 -1`.
///
/// # Errors
/// The reply is no such table, lacks a column, or holds a row that does not fit its head.
pub fn parse_stat(reply: &str) -> Result<Servers, String> {
    let mut lines = reply.lines();
    let head = lines.next().and_then(|head| head.strip_prefix("# ")).ok_or_else(|| unexpected(reply))?;
    let head: Vec<&str> = head.split(',').collect();
    let column = |name: &str| head.iter().position(|field| *field == name);
    let need = |name: &str| column(name).ok_or_else(|| format!("`show stat` has no column {name}"));
    let (name, kind, status, check, address) =
        (need("svname")?, need("type")?, need("status")?, need("check_status")?, need("addr")?);
    let weight = column("uweight");
    let mut servers = Servers::new();
    let mut fields = Vec::with_capacity(head.len());
    for line in lines {
        split_csv(line, &mut fields)?;
        if fields.len() != head.len() {
            return Err(format!("a row of `show stat` has {} fields, its head {}", fields.len(), head.len()));
        }
        if fields[kind] != "2" {
            continue;
        }
        let (admin, health) = parse_status(&fields[status], &fields[check]);
        let running = Running {
            admin,
            health,
            address: fields[address].parse().ok(),
            weight: weight.map(|column| parse_weight(&fields[column])).transpose()?,
        };
        servers.insert(fields[name].to_string(), running);
    }
    Ok(servers)
}

/// Whether the reply to `show stat <number> 6 -1` is about the backend of that name.
pub fn is_of_backend(reply: &str, name: &str) -> bool {
    let row = reply.lines().nth(1).unwrap_or_default();
    row.strip_prefix(name).is_some_and(|rest| rest.starts_with(','))
}

/// Reads the reply to `show stat -1 2 -1`: the number of each backend by its name.
///
/// # Errors
/// The reply is no such table, or a row does not fit its head.
pub fn parse_numbers(reply: &str) -> Result<BTreeMap<String, String>, String> {
    let mut lines = reply.lines();
    let head = lines.next().and_then(|head| head.strip_prefix("# ")).ok_or_else(|| unexpected(reply))?;
    let number = head.split(',').position(|field| field == "iid").ok_or("`show stat` has no column iid")?;
    let mut fields = Vec::new();
    lines
        .map(|line| {
            split_csv(line, &mut fields)?;
            let number = fields.get(number).ok_or("a row of `show stat` is too short")?;
            Ok((fields[0].to_string(), number.to_string()))
        })
        .collect()
}

/// Appends to `essence` what [`parse_stat`] would look at in `reply`, as it stands there: two replies with the same
/// essence read alike, however their counters differ. A tenth of the work of reading. False where it cannot tell: a
/// reply that is no such table, lacks a column, or has a field in quotes.
pub fn append_essence(reply: &str, essence: &mut Vec<u8>) -> bool {
    let Some((head, rows)) = reply.split_once('\n') else { return false };
    let Some(head) = head.strip_prefix("# ") else { return false };
    let head: Vec<&str> = head.split(',').collect();
    // In the order in which HAProxy has them, so that each row is gone through once.
    let wanted = ["svname", "status", "type", "check_status", "addr", "uweight"];
    let mut columns: Vec<usize> =
        wanted.iter().filter_map(|name| head.iter().position(|field| field == name)).collect();
    columns.sort_unstable();
    let mut rows = rows.as_bytes();
    if columns.len() != wanted.len() || memchr::memchr(b'"', rows).is_some() {
        return false;
    }
    while !rows.is_empty() {
        let end = memchr::memchr(b'\n', rows).unwrap_or(rows.len());
        let (mut rest, mut column) = (&rows[..end], 0);
        rows = rows.get(end + 1..).unwrap_or_default();
        for wanted in &columns {
            rest = after_commas(rest, wanted - column);
            let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
            let field = &rest[..end];
            // It says that a check is under way.
            essence.extend_from_slice(field.strip_prefix(b"* ").unwrap_or(field));
            essence.push(b',');
            column = *wanted;
        }
        essence.push(b'\n');
    }
    true
}

/// What follows the first `count` commas; nothing where there are fewer. Eight bytes at a time: between two fields that
/// matter lie up to forty, most of one byte, and looking for each comma takes four times as long.
fn after_commas(bytes: &[u8], mut count: usize) -> &[u8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LOW: u64 = ONES * 0x7f;
    let (eights, _) = bytes.as_chunks::<8>();
    let mut passed = 0;
    for eight in eights {
        // A bit for each byte that is a comma: its highest.
        let other = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b','));
        let commas = !(((other & LOW) + LOW) | other | LOW);
        // The sum of the eight bits, without the instruction that older processors lack.
        let here = ((commas >> 7).wrapping_mul(ONES) >> 56) as usize;
        if here >= count {
            break;
        }
        (count, passed) = (count - here, passed + 8);
    }
    let rest = &bytes[passed..];
    match count.checked_sub(1) {
        None => rest,
        Some(last) => memchr::memchr_iter(b',', rest).nth(last).map_or(&[], |place| &rest[place + 1..]),
    }
}

/// Reads the weights in the reply to `show servers state <backend>`, by server name.
///
/// # Errors
/// The reply is no such table, or a row does not fit its head.
pub fn parse_weights(reply: &str) -> Result<BTreeMap<String, Weight>, String> {
    let mut lines = reply.lines();
    if lines.next() != Some("1") {
        return Err(unexpected(reply));
    }
    let head = lines.next().and_then(|head| head.strip_prefix("# ")).ok_or_else(|| unexpected(reply))?;
    let column = |wanted: &str| {
        head.split(' ')
            .position(|field| field == wanted)
            .ok_or_else(|| format!("`show servers state` has no column {wanted}"))
    };
    let (name, weight) = (column("srv_name")?, column("srv_uweight")?);
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            match (fields.get(name), fields.get(weight)) {
                (Some(name), Some(weight)) => Ok(((*name).to_owned(), parse_weight(weight)?)),
                _ => Err(format!("a row of `show servers state` has only {} fields", fields.len())),
            }
        })
        .collect()
}

/// Reads the reply to `show backend`: the names of the backends.
pub fn parse_backends(reply: &str) -> Vec<String> {
    reply.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// The value of `name` in the reply to `show info`.
pub fn info_value<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The number of the server `name` of a `server-template` with that base name: `web12` of `web` is 12.
/// HAProxy numbers them without leading zeros, so `web012` is a server of somebody else.
pub fn number_of(name: &str, base: &str) -> Option<u32> {
    let digits = name.strip_prefix(base)?;
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// What the base name of a server may be, for a message: its name without the digits at its end.
pub fn likely_base(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// The words of the status column, by their beginning: `UP`, `UP 1/3`, `MAINT (via b/s1)`, `DRAIN 1/3`, …
fn parse_status(status: &str, check: &str) -> (Admin, Health) {
    // A `*` stands before the result of the last check while another one runs.
    let check = check.trim_start_matches("* ");
    match status {
        "MAINT" => (Admin::Maintenance, Health::Down),
        // A server that tracks another one has no check of its own; fully up is what its model's check says.
        "UP" if check.is_empty() || is_pass(check) => (Admin::Ready, Health::Passed),
        "no check" => (Admin::Ready, Health::Unchecked),
        _ if status.starts_with("MAINT") => (Admin::Inherited, Health::Down),
        _ if status.starts_with("DRAIN") => (Admin::Drain, Health::Down),
        _ if status.starts_with("UP") => (Admin::Ready, Health::Shaky),
        _ => (Admin::Ready, Health::Down),
    }
}

/// The results of a check that passed (management manual, section 9.1, `check_status`).
fn is_pass(check: &str) -> bool {
    ["L4OK", "L6OK", "L7OK", "PROCOK"].contains(&check)
}

fn parse_weight(text: &str) -> Result<Weight, String> {
    match text.parse() {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(weight),
        _ => Err(format!("HAProxy shows a weight of {text:?}")),
    }
}

/// The fields of a line of HAProxy's CSV: a field with a comma or a quote stands in quotes, a quote in it is doubled.
/// Every line ends with a comma, which ends the last field of the head and of the rows alike.
fn split_csv<'a>(line: &'a str, fields: &mut Vec<Cow<'a, str>>) -> Result<(), String> {
    fields.clear();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            fields.push(Cow::Borrowed(field));
            match after {
                Some(after) => rest = after,
                None => return Ok(()),
            }
            continue;
        };
        let mut field = String::new();
        let mut tail = quoted;
        loop {
            let (part, after) = tail.split_once('"').ok_or("a quote in `show stat` has no end")?;
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    tail = more;
                }
                None => {
                    tail = after;
                    break;
                }
            }
        }
        fields.push(Cow::Owned(field));
        match tail.strip_prefix(',') {
            Some(after) => rest = after,
            None if tail.is_empty() => return Ok(()),
            None => return Err("a quoted field of `show stat` does not end with a comma".to_owned()),
        }
    }
}

/// For a reply that is no table: its first words.
fn unexpected(reply: &str) -> String {
    let first: String = reply.lines().next().unwrap_or_default().chars().take(80).collect();
    if first.is_empty() { "it is empty".to_owned() } else { format!("it begins with {first:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HAProxy of that version prints it, but for the number of rows.
    fn recorded(version: &str) -> Servers {
        let text = match version {
            "2.6" => include_str!("../../tests/data/show-stat-2.6.csv"),
            "2.8" => include_str!("../../tests/data/show-stat-2.8.csv"),
            _ => unreachable!(),
        };
        parse_stat(text.trim_end()).unwrap()
    }

    #[test]
    fn recorded_tables_read_alike() {
        for version in ["2.6", "2.8"] {
            let servers = recorded(version);
            let ready = &servers["s1"];
            assert_eq!(ready.admin, Admin::Ready, "{version}");
            assert_eq!(ready.health, Health::Passed, "{version}");
            assert_eq!(ready.address, Some("127.0.0.1:18901".parse().unwrap()), "{version}");
            assert_eq!(ready.weight, Some(7), "{version}");
            assert_eq!(servers["s2"].admin, Admin::Maintenance, "{version}");
            assert_eq!(servers["s2"].address, Some("127.0.0.2:18900".parse().unwrap()), "{version}");
            assert_eq!(servers["s3"].admin, Admin::Drain, "{version}");
            assert_eq!((servers["s4"].admin, servers["s4"].health), (Admin::Ready, Health::Down), "{version}");
            assert_eq!(servers["s5"].address, Some("[2001:db8::1]:80".parse().unwrap()), "{version}");
        }
    }

    /// 2.2 prints the first 99 of these columns, at the same places, and not `uweight`.
    #[test]
    fn the_table_of_2_2_has_no_weight() {
        let newer = include_str!("../../tests/data/show-stat-2.6.csv");
        let older: Vec<String> =
            newer.trim_end().lines().map(|line| line.split(',').take(99).collect::<Vec<_>>().join(",") + ",").collect();
        let servers = parse_stat(&older.join("\n")).unwrap();
        assert_eq!(servers["s1"].weight, None);
        assert_eq!(servers["s1"].health, Health::Passed);
        let state = include_str!("../../tests/data/show-servers-state-2.6.txt");
        assert_eq!(parse_weights(state.trim_end()).unwrap()["s1"], 7);
    }

    #[test]
    fn the_essence_is_what_is_read_and_nothing_else() {
        let essence = |text: &str| {
            let mut essence = Vec::new();
            append_essence(text, &mut essence).then_some(essence)
        };
        for text in
            [include_str!("../../tests/data/show-stat-2.6.csv"), include_str!("../../tests/data/show-stat-2.8.csv")]
        {
            let text = text.trim_end();
            let (known, servers) = (essence(text).unwrap(), parse_stat(text).unwrap());
            let shown = String::from_utf8(known.clone()).unwrap();
            assert!(shown.lines().count() >= servers.len() && shown.contains("s1,UP,"), "{shown}");
            let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
            let read = ["svname", "type", "status", "check_status", "addr", "uweight"];
            for column in 0..rows[0].len() - 1 {
                let name = rows[0][column].trim_start_matches("# ");
                for place in 1..rows.len() {
                    let mut rows = rows.clone();
                    rows[place][column] = "other";
                    let other = rows.iter().map(|row| row.join(",")).collect::<Vec<_>>().join("\n");
                    let differs = essence(&other).unwrap() != known;
                    assert_eq!(differs, read.contains(&name), "{name} in row {place}");
                }
            }
        }
        let head = "# pxname,svname,status,type,check_status,addr,uweight,";
        assert_eq!(
            essence(&format!("{head}\nb,s1,UP,2,* L4OK,1.2.3.4:80,1,")),
            essence(&format!("{head}\nb,s1,UP,2,L4OK,1.2.3.4:80,1,"))
        );
        assert_ne!(essence(&format!("{head}\nb,s1,UP,2,")), essence(&format!("{head}\nb,s1,UP,2,L4OK,1.2.3.4:80,1,")));
        for unknown in
            ["", "No such proxy.", "# pxname,svname,\nb,s1,", &format!("{head}\nb,\"s1\",UP,2,L4OK,1.2.3.4:80,1,")]
        {
            assert_eq!(essence(unknown), None, "{unknown}");
        }
    }

    proptest::proptest! {
        #[test]
        fn commas_are_counted_alike_by_eights_and_one_by_one(text in "[,a-e\u{ac}-\u{ae}]{0,60}", count in 0_usize..20) {
            let plain = if count == 0 { Some(0) } else { text.match_indices(',').nth(count - 1).map(|(place, _)| place + 1) };
            let expected = plain.map_or(&[][..], |place| &text.as_bytes()[place..]);
            proptest::prop_assert_eq!(after_commas(text.as_bytes(), count), expected);
        }
    }

    #[test]
    fn every_status() {
        use Admin::{Drain, Inherited, Maintenance, Ready};
        use Health::{Down, Passed, Shaky, Unchecked};
        for (status, check, expected) in [
            ("UP", "L4OK", (Ready, Passed)),
            ("UP", "* L7OK", (Ready, Passed)),
            ("UP", "L6OK", (Ready, Passed)),
            ("UP", "PROCOK", (Ready, Passed)),
            ("UP", "", (Ready, Passed)),
            ("UP", "INI", (Ready, Shaky)),
            ("UP 1/3", "INI", (Ready, Shaky)),
            ("UP 2/3", "L4TOUT", (Ready, Shaky)),
            ("no check", "", (Ready, Unchecked)),
            ("DOWN", "L4CON", (Ready, Down)),
            ("DOWN 1/2", "L4OK", (Ready, Down)),
            ("DOWN (agent)", "L4OK", (Ready, Down)),
            ("NOLB", "L7OKC", (Ready, Down)),
            ("NOLB 1/2", "L7OKC", (Ready, Down)),
            ("DRAIN", "L4OK", (Drain, Down)),
            ("DRAIN 1/3", "INI", (Drain, Down)),
            ("DRAIN (agent)", "", (Drain, Down)),
            ("MAINT", "", (Maintenance, Down)),
            ("MAINT (via b/s1)", "", (Inherited, Down)),
            ("MAINT (resolution)", "", (Inherited, Down)),
        ] {
            assert_eq!(parse_status(status, check), expected, "{status} {check}");
        }
    }

    #[test]
    fn quoted_fields() {
        for (line, expected) in [
            ("a,b,", Ok(vec!["a", "b", ""])),
            (r#"a,"b,c",d"#, Ok(vec!["a", "b,c", "d"])),
            (r#""a ""quoted"" word",b"#, Ok(vec![r#"a "quoted" word"#, "b"])),
            (r#"a,"""#, Ok(vec!["a", ""])),
            (r#"a,"b"#, Err(())),
            (r#""a"b,c"#, Err(())),
        ] {
            let mut fields = Vec::new();
            let read = split_csv(line, &mut fields).map(|()| fields.iter().map(AsRef::as_ref).collect());
            assert_eq!(read.map_err(|_| ()), expected, "{line}");
        }
    }

    #[test]
    fn what_is_no_table_is_an_error() {
        let head = "# pxname,svname,status,type,check_status,addr,uweight,";
        for (name, reply) in [
            ("empty", String::new()),
            ("permission", "Permission denied".to_owned()),
            ("a column less", "# pxname,svname,status,type,addr,uweight,\n".to_owned()),
            ("a short row", format!("{head}\nb,s1,UP,2,")),
            ("a long row", format!("{head}\nb,s1,UP,2,L4OK,1.2.3.4:80,1,,")),
            ("a strange weight", format!("{head}\nb,s1,UP,2,L4OK,1.2.3.4:80,257,")),
        ] {
            assert!(parse_stat(&reply).is_err(), "{name}");
        }
        assert_eq!(parse_stat(head).unwrap(), Servers::new(), "a backend without servers");
    }

    #[test]
    fn weights_of_servers_state() {
        let reply = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
                     3 b 1 s1 127.0.0.1 2 4 7\n3 b 2 s2 127.0.0.2 0 5 1";
        let weights = parse_weights(reply).unwrap();
        assert_eq!(weights, BTreeMap::from([("s1".to_owned(), 7), ("s2".to_owned(), 1)]));
        for bad in [
            "",
            "Can't find backend.",
            "2\n# srv_name srv_uweight",
            "1\n# srv_name\ns1",
            "1\n# srv_name srv_uweight\ns1",
        ] {
            assert!(parse_weights(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbered_names() {
        for (name, base, expected) in [
            ("web1", "web", Some(1)),
            ("web-10", "web-", Some(10)),
            ("web11", "web1", Some(1)),
            ("web11", "web", Some(11)),
            ("web01", "web", None),
            ("web0", "web", None),
            ("web", "web", None),
            ("web+1", "web", None),
            ("api1", "web", None),
            ("web99999999999", "web", None),
        ] {
            assert_eq!(number_of(name, base), expected, "{name}");
        }
    }
}
