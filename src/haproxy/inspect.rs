//! What `hsdo check` wants to know of a HAProxy: more than a turn reads, in read commands only.
//!
//! The Runtime API tells neither `hash-type` nor `load-server-state-from-file`: for these, `check` reads the configuration file.

use std::collections::BTreeMap;

use super::error::HaproxyError;
use super::runtime::Runtime;
use crate::ports::BackendFault;
use crate::slot::Weight;

/// Bits of `srv_admin_state`: `disabled` in the configuration, which is never cleared; inherited maintenance or drain.
const DISABLED: u32 = 0x04;
const INHERITED: u32 = 0x02 | 0x10 | 0x20;
/// The bit of `srv_check_state` and `srv_agent_state` for one that is configured.
const CONFIGURED: u32 = 0x02;

/// A HAProxy as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its version, as it prints it.
    pub version: String,
    /// The process that serves.
    pub pid: String,
    /// Whether the socket is the master's.
    pub master: bool,
    /// The backends asked for.
    pub backends: BTreeMap<String, Result<InspectedBackend, BackendFault>>,
}

/// A backend as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectedBackend {
    /// `roundrobin`, `source`, ...; `None` if HAProxy does not tell.
    pub algorithm: Option<String>,
    /// Its servers by name.
    pub servers: BTreeMap<String, InspectedServer>,
}

/// A server as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedServer {
    /// It was `disabled` in the configuration.
    pub disabled: bool,
    /// It has a `check`.
    pub checked: bool,
    /// It has an `agent-check`.
    pub agent: bool,
    /// Its state follows that of another server, or a name that does not resolve.
    pub inherited: bool,
    /// HAProxy's resolver sets its address.
    pub named: bool,
    /// Its configured weight.
    pub configured: Weight,
    /// Its weight.
    pub weight: Weight,
}

impl Runtime {
    /// Reads these backends. One that is missing or unusable does not affect the others.
    ///
    /// # Errors
    /// HAProxy cannot be reached, or is unusable: its socket's level, several processes behind it.
    pub fn inspect(&mut self, names: &[&str]) -> Result<Inspection, HaproxyError> {
        let reading = self.read_all(names)?;
        let (master, numbers) = match &self.known {
            Some(known) => (known.dialect.master, known.numbers.clone()),
            None => (false, BTreeMap::new()),
        };
        let mut backends = BTreeMap::new();
        for (name, servers) in reading.backends {
            let inspected = match servers {
                Ok(servers) => {
                    let mut backend = self.inspect_backend(&name, numbers.get(&name))?;
                    for (name, server) in &mut backend.servers {
                        server.named = servers.get(name).is_some_and(|server| server.named);
                    }
                    Ok(backend)
                }
                Err(fault) => Err(fault),
            };
            backends.insert(name, inspected);
        }
        Ok(Inspection { version: reading.process.version, pid: reading.process.pid, master, backends })
    }

    fn inspect_backend(&mut self, name: &str, number: Option<&String>) -> Result<InspectedBackend, HaproxyError> {
        let mut commands = vec![format!("show servers state {name}")];
        // By its number: a frontend may have the same name. 2 is the backend's own row.
        commands.extend(number.map(|number| format!("show stat {number} 2 -1")));
        let replies = self.ask_all(&commands)?;
        let servers =
            parse_servers(&replies[0]).map_err(|fault| HaproxyError::Response { line: commands[0].clone(), fault })?;
        Ok(InspectedBackend { algorithm: replies.get(1).and_then(|reply| parse_algorithm(reply)), servers })
    }
}

fn parse_servers(reply: &str) -> Result<BTreeMap<String, InspectedServer>, String> {
    let mut lines = reply.lines().skip(1);
    let header = lines.next().and_then(|header| header.strip_prefix("# ")).ok_or("it is no table")?;
    let header: Vec<&str> = header.split(' ').collect();
    let mut servers = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        let field = |wanted: &str| {
            let place = header.iter().position(|column| *column == wanted);
            place.and_then(|place| fields.get(place).copied()).ok_or_else(|| format!("it has no {wanted}"))
        };
        let number = |wanted: &str| -> Result<u32, String> {
            field(wanted)?.parse().map_err(|_| format!("its {wanted} is no number"))
        };
        let weight = |wanted: &str| Ok::<_, String>(Weight::try_from(number(wanted)?).unwrap_or(Weight::MAX));
        let admin = number("srv_admin_state")?;
        let server = InspectedServer {
            disabled: admin & DISABLED != 0,
            checked: number("srv_check_state")? & CONFIGURED != 0,
            agent: number("srv_agent_state")? & CONFIGURED != 0,
            inherited: admin & INHERITED != 0,
            named: false,
            configured: weight("srv_iweight")?,
            weight: weight("srv_uweight")?,
        };
        servers.insert(field("srv_name")?.to_owned(), server);
    }
    Ok(servers)
}

/// The algorithm in the row of a backend. A quoted field could hold a comma, so a reply with one is given up.
fn parse_algorithm(reply: &str) -> Option<String> {
    let mut lines = reply.lines().filter(|line| !line.is_empty());
    let header = lines.next()?.strip_prefix("# ")?;
    let row = lines.next().filter(|row| !row.contains('"'))?;
    let place = header.split(',').position(|column| column == "algo")?;
    row.split(',').nth(place).filter(|algorithm| !algorithm.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_servers() {
        let reply = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
                     srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
                     srv_agent_state\n\
                     3 back 1 web1 127.0.0.2 0 5 1 1 7 1 0 1 14 0\n3 back 2 web2 127.0.0.2 2 2 9 0 7 1 0 1 8 14 - 80";
        let servers = parse_servers(reply).expect("a table");
        let first =
            InspectedServer { disabled: true, checked: true, configured: 1, weight: 1, ..InspectedServer::default() };
        assert_eq!(servers["web1"], first);
        let second = InspectedServer { agent: true, inherited: true, weight: 9, ..InspectedServer::default() };
        assert_eq!(servers["web2"], second);
        assert!(parse_servers("No such").is_err() && parse_servers("1\n# srv_name\nweb1").is_err());
    }

    #[test]
    fn the_row_of_a_backend() {
        assert_eq!(parse_algorithm("# pxname,svname,algo,\nback,BACKEND,uri,").as_deref(), Some("uri"));
        for reply in ["", "# pxname,svname,\nback,BACKEND,", "# pxname,algo,\nback,,", "# pxname,algo,\n\"a,b\",uri,"] {
            assert_eq!(parse_algorithm(reply), None, "{reply}");
        }
    }
}
