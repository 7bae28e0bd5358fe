//! Parses `show servers state` (management manual, section 9.3), with columns found by name. Pure.
//!
//! This one table holds everything hsdo needs, consistently: address, configured and current weight, administrative state, checks in
//! flight, and whether a resolver sets the address. `show stat` lacks half of that.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::ports::{Admin, BackendFault, Running, Servers};
use crate::slot::{MAX_WEIGHT, Weight};
use crate::text::one_line;

/// Bits of `srv_admin_state` (management manual, section 9.3; `SRV_ADMF_*`): its own maintenance and drain; those inherited from a
/// tracked server or an unresolved name. The bit for `disabled` in the configuration (0x04) is never cleared.
const MAINTENANCE: u32 = 0x01;
const DRAIN: u32 = 0x08;
const INHERITED: u32 = 0x02 | 0x10 | 0x20;
/// Values of `srv_op_state` that take new traffic: starting and running. 0 is stopped, 3 takes no new sessions.
const UP: [&str; 2] = ["1", "2"];
/// Bits of `srv_check_state` (`CHK_ST_*`): a check is in flight; configured and switched on.
const CHECKING: u32 = 0x01;
const CHECKED: u32 = 0x02 | 0x04;

/// One backend in `show servers state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServersState {
    /// The backend's `be_id` in this process; none if it has no servers.
    pub number: Option<String>,
    /// Its servers.
    pub servers: Servers,
    /// It is `disabled` in the configuration: HAProxy shows its servers and refuses to change them.
    pub disabled: bool,
    /// The servers that are configured by a host name, which a resolver may look up again.
    pub hosts: BTreeSet<String>,
}

/// Whether the reply to `show servers state` says that the backend does not exist.
pub fn is_unknown_backend(reply: &str) -> bool {
    reply.starts_with("Can't find backend")
}

/// Parses the reply to `show servers state <backend>`.
///
/// # Errors
/// The reply is not such a table, lacks a column, or has a malformed row.
pub fn parse(reply: &str) -> Result<ServersState, String> {
    let mut lines = reply.lines();
    if lines.next() != Some("1") {
        return Err(unexpected(reply));
    }
    let header = lines.next().and_then(|header| header.strip_prefix("# ")).ok_or_else(|| unexpected(reply))?;
    let header: Vec<&str> = header.split(' ').collect();
    let column = |wanted: &str| {
        let place = header.iter().position(|field| *field == wanted);
        place.ok_or_else(|| format!("`show servers state` has no column {wanted}"))
    };
    let [number, id, name, address, port] = ["be_id", "srv_id", "srv_name", "srv_addr", "srv_port"].map(column);
    let [op, admin, weight, configured] = ["srv_op_state", "srv_admin_state", "srv_uweight", "srv_iweight"].map(column);
    let [check, agent, fqdn, record] = ["srv_check_state", "srv_agent_state", "srv_fqdn", "srvrecord"].map(column);
    let (number, id, name, address, port) = (number?, id?, name?, address?, port?);
    let (op, admin, weight, configured) = (op?, admin?, weight?, configured?);
    let (check, agent, fqdn, record) = (check?, agent?, fqdn?, record?);
    let mut table = ServersState::default();
    let mut fields: Vec<&str> = Vec::with_capacity(header.len());
    for line in lines {
        fields.clear();
        fields.extend(line.split(' '));
        // In 2.6 rows have more fields than the header.
        if fields.len() < header.len() {
            return Err(format!("a row of `show servers state` has only {} fields", fields.len()));
        }
        if table.number.is_none() {
            // Only digits, because it becomes part of a command.
            let digits = fields[number].bytes().all(|byte| byte.is_ascii_digit()) && !fields[number].is_empty();
            table.number = digits.then(|| fields[number].to_owned());
        }
        // HAProxy numbers servers from 1, except in a disabled backend (measured, 2.2 to 3.4).
        table.disabled |= fields[id] == "0";
        let (admin, checks, agents) = (bits(fields[admin])?, bits(fields[check])?, bits(fields[agent])?);
        let ip = fields[address].parse::<IpAddr>().ok();
        let is_set = |field: &str| field != "-" && !field.is_empty();
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
            busy: false,
            named: is_set(fields[record]),
        };
        // `localhost` never reaches a name server.
        if is_set(fields[fqdn]) && fields[fqdn] != "localhost" {
            table.hosts.insert(fields[name].to_owned());
        }
        table.servers.insert(fields[name].to_owned(), running);
    }
    Ok(table)
}

/// Whether HAProxy has a resolver that keeps looking names up, by the reply to `show resolvers`. Recent versions create a section
/// `default` for other purposes; it counts only once it has sent a query.
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

/// The fault of a backend that is not in the reply to `show backend`.
pub fn missing_backend(show_backend: &str) -> BackendFault {
    BackendFault::Missing(parse_backends(show_backend))
}

/// Parses the backend names in the reply to `show backend`, without the master's own.
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

fn unexpected(reply: &str) -> String {
    let first: String = reply.lines().next().unwrap_or_default().chars().take(80).collect();
    if first.is_empty() { "it is empty".to_owned() } else { format!("it begins with {first:?}") }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
