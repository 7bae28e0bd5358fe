//! Reads what HAProxy prints of its servers: `show servers state` (management manual, section 9.3). Columns are found by
//! name, never by position. Pure.
//!
//! One table tells all that counts, coherently: the address, the weight that was set, whose hand keeps a server out, whether it
//! has a check and whether that is under way, whether a resolver sets its address. `show stat` hides half of that.

use std::net::{IpAddr, SocketAddr};

use crate::ports::{Admin, BackendFault, Running, Servers};
use crate::slot::{MAX_WEIGHT, Weight};
use crate::text::one_line;

/// Bits of `srv_admin_state` (management manual, section 9.3; `SRV_ADMF_*`): maintenance and drain of its own; those that come
/// from a tracked server, or from a name that does not resolve. Maintenance of the configuration (0x04) stays set for ever.
const MAINTENANCE: u32 = 0x01;
const DRAIN: u32 = 0x08;
const INHERITED: u32 = 0x02 | 0x10 | 0x20;
/// Values of `srv_op_state` with new traffic: starting and running; 0 is stopped, 3 takes no new sessions.
const UP: [&str; 2] = ["1", "2"];
/// Bits of `srv_check_state` (`CHK_ST_*`): a check is under way; one is configured, and not switched off.
const CHECKING: u32 = 0x01;
const CHECKED: u32 = 0x02 | 0x04;

/// One backend, as `show servers state` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The number of the backend in this process; none where it has no server.
    pub number: Option<String>,
    /// Its servers.
    pub servers: Servers,
    /// It is `disabled` in the configuration: HAProxy shows its servers and refuses every change of them.
    pub disabled: bool,
    /// A server whose address is looked up through an SRV record.
    pub by_record: Option<String>,
    /// A server that has a name in its configuration, which a resolver may look up again.
    pub by_name: Option<String>,
}

/// The reply to `show servers state` for a backend that is not there.
pub fn is_unknown_backend(reply: &str) -> bool {
    reply.starts_with("Can't find backend")
}

/// Reads the reply to `show servers state <backend>`.
///
/// # Errors
/// The reply is no such table, lacks a column, or holds a row that does not fit its head.
pub fn parse(reply: &str) -> Result<Table, String> {
    let mut lines = reply.lines();
    if lines.next() != Some("1") {
        return Err(unexpected(reply));
    }
    let head = lines.next().and_then(|head| head.strip_prefix("# ")).ok_or_else(|| unexpected(reply))?;
    let head: Vec<&str> = head.split(' ').collect();
    let column = |wanted: &str| {
        let place = head.iter().position(|field| *field == wanted);
        place.ok_or_else(|| format!("`show servers state` has no column {wanted}"))
    };
    let [number, id, name, address, port] = ["be_id", "srv_id", "srv_name", "srv_addr", "srv_port"].map(column);
    let [op, admin, weight, configured] = ["srv_op_state", "srv_admin_state", "srv_uweight", "srv_iweight"].map(column);
    let [check, agent, fqdn, record] = ["srv_check_state", "srv_agent_state", "srv_fqdn", "srvrecord"].map(column);
    let (number, id, name, address, port) = (number?, id?, name?, address?, port?);
    let (op, admin, weight, configured) = (op?, admin?, weight?, configured?);
    let (check, agent, fqdn, record) = (check?, agent?, fqdn?, record?);
    let mut table = Table::default();
    let mut fields: Vec<&str> = Vec::with_capacity(head.len());
    for line in lines {
        fields.clear();
        fields.extend(line.split(' '));
        // A row may have more fields than its head, as 2.6's has.
        if fields.len() < head.len() {
            return Err(format!("a row of `show servers state` has only {} fields", fields.len()));
        }
        if table.number.is_none() {
            // It becomes part of a command.
            let digits = fields[number].bytes().all(|byte| byte.is_ascii_digit()) && !fields[number].is_empty();
            table.number = digits.then(|| fields[number].to_owned());
        }
        // HAProxy numbers servers from 1 on, and not those of a backend that it never starts (measured, 2.2 to 3.4).
        table.disabled |= fields[id] == "0";
        let (admin, checks, agents) = (bits(fields[admin])?, bits(fields[check])?, bits(fields[agent])?);
        let ip = fields[address].parse::<IpAddr>().ok();
        let running = Running {
            admin: match admin {
                admin if admin & MAINTENANCE != 0 => Admin::Maintenance,
                admin if admin & DRAIN != 0 => Admin::Drain,
                _ => Admin::Ready,
            },
            inherited: admin & INHERITED != 0,
            up: UP.contains(&fields[op]),
            address: ip.zip(fields[port].parse().ok()).map(|(ip, port)| SocketAddr::new(ip, port)),
            weight: parse_weight(fields[weight])?,
            configured: parse_weight(fields[configured])?,
            checked: checks & CHECKED == CHECKED,
            checking: (checks | agents) & CHECKING != 0,
        };
        let named = |field: &str| (field != "-" && !field.is_empty()).then(|| fields[name].to_owned());
        table.by_record = table.by_record.or_else(|| named(fields[record]));
        // Nobody asks a name server for that one.
        table.by_name = table.by_name.or_else(|| named(fields[fqdn]).filter(|_| fields[fqdn] != "localhost"));
        table.servers.insert(fields[name].to_owned(), running);
    }
    Ok(table)
}

/// Whether HAProxy has a resolver that looks names up again and again, as the reply to `show resolvers` tells. Later versions make
/// a section `default` by themselves, for other ends; it counts where it has sent a question.
pub fn has_resolver(reply: &str) -> bool {
    let mut default = false;
    reply.lines().any(|line| {
        if let Some(section) = line.strip_prefix("Resolvers section ") {
            default = section.trim() == "default";
            return !default;
        }
        let sent = line.trim().strip_prefix("sent:").and_then(|count| count.trim().parse::<u64>().ok());
        default && sent.is_some_and(|count| count > 0)
    })
}

/// That a backend is not there, but those in the reply to `show backend`.
pub fn absence(show_backend: &str) -> BackendFault {
    BackendFault::Missing(parse_backends(show_backend))
}

/// Reads the reply to `show backend`: the names of the backends. The master's own is none of them.
fn parse_backends(reply: &str) -> Vec<String> {
    reply.lines().filter(|line| !line.starts_with('#') && *line != "MASTER").map(str::to_owned).collect()
}

/// The value of `name` in the reply to `show info`.
pub fn info_value<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn bits(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("it shows a state of \"{}\"", one_line(text, 40)))
}

fn parse_weight(text: &str) -> Result<Weight, String> {
    match text.parse() {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(weight),
        _ => Err(format!("it shows a weight of \"{}\"", one_line(text, 40))),
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
