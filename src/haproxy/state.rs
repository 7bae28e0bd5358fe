//! Reads the tables that HAProxy prints: `show stat` (management manual, section 9.1) and, where a version lacks a
//! column there, `show servers state` (section 9.3). Columns are found by name, never by position. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::columns::Columns;
use crate::error::one_line;
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

/// The column of the last check's result, and what stands before the result while another check runs.
pub(super) const CHECK: &str = "check_status";
pub(super) const UNDER_WAY: &str = "* ";

/// The columns of `show stat` that are read. The last is not there on 2.2.
pub(super) const READ: [&str; 6] = ["svname", "type", "status", CHECK, "addr", "uweight"];

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
    let places = READ.map(|name| head.iter().position(|field| *field == name));
    let columns = Columns::new(&places.into_iter().flatten().collect::<Vec<_>>(), head.len());
    let index = |column: usize| {
        let index = places[column].and_then(|place| columns.index(place));
        index.ok_or_else(|| format!("`show stat` has no column {}", READ[column]))
    };
    let (name, kind, status, check, address) = (index(0)?, index(1)?, index(2)?, index(3)?, index(4)?);
    let weight = index(5).ok();
    let mut servers = Servers::new();
    let mut fields = Vec::with_capacity(head.len());
    for line in lines {
        if !pick(line, &columns, &mut fields) {
            split_csv(line, &mut fields)?;
            if fields.len() != head.len() {
                return Err(format!("a row of `show stat` has {} fields, its head {}", fields.len(), head.len()));
            }
            let mut place = 0;
            fields.retain(|_| {
                place += 1;
                columns.index(place - 1).is_some()
            });
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
            // It becomes part of a command.
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("it shows the number {}", one_line(number, 40)));
            }
            Ok((fields[0].to_string(), number.to_string()))
        })
        .collect()
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
    let check = check.strip_prefix(UNDER_WAY).unwrap_or(check);
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
        _ => Err(format!("it shows a weight of \"{}\"", one_line(text, 40))),
    }
}

/// The wanted fields of a line of HAProxy's CSV, if it has no quotes and ends with a comma. With it a table is read in a third
/// of the time that it takes by [`split_csv`].
fn pick<'a>(line: &'a str, columns: &Columns, fields: &mut Vec<Cow<'a, str>>) -> bool {
    fields.clear();
    let mut take = |_, rest: &[u8]| {
        let length = memchr::memchr(b',', rest)?;
        fields.push(Cow::Borrowed(&line[line.len() - rest.len()..][..length]));
        Some(length + 1)
    };
    memchr::memchr(b'"', line.as_bytes()).is_none() && columns.pass(line.as_bytes(), line.len(), &mut take).is_some()
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
#[path = "state_tests.rs"]
mod tests;
