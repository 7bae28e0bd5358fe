//! What the real HAProxy shows, in the columns that the model has.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use crate::common::haproxy::Haproxy;
use crate::model::Row;

/// Whether a check is under way is left out: that is another answer each time.
const UNDER_WAY: u32 = 1;

/// A backend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its servers, in the order of its slots.
    pub(crate) rows: Vec<Row>,
    /// How many of them take new traffic.
    pub(crate) serving: usize,
}

pub(crate) fn shown(haproxy: &Haproxy, backend: &str) -> io::Result<Shown> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    // The backend itself, and its servers.
    let mut stat = stat(&haproxy.try_command(&format!("show stat {backend} 6 -1"))?);
    let (_, serving) = stat.remove("BACKEND").ok_or_else(|| bad(backend))?;
    let reply = haproxy.try_command(&format!("show servers state {backend}"))?;
    let mut lines = reply.lines().skip(1);
    let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(' ').collect();
    let mut rows = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(' ').collect();
        let text = |name: &str| -> io::Result<&str> {
            let place = head.iter().position(|column| *column == name).ok_or_else(|| bad(name))?;
            fields.get(place).copied().ok_or_else(|| bad(line))
        };
        let number = |name: &str| text(name)?.parse::<u32>().map_err(|_| bad(line));
        let weight = |name: &str| text(name)?.parse().map_err(|_| bad(line));
        let ip = text("srv_addr")?.parse().map_err(|_| bad(line))?;
        let port = text("srv_port")?.parse().map_err(|_| bad(line))?;
        let name = text("srv_name")?;
        rows.push(Row {
            name: name.to_owned(),
            address: SocketAddr::new(ip, port),
            op: number("srv_op_state")?,
            admin: number("srv_admin_state")?,
            weight: weight("srv_uweight")?,
            configured: weight("srv_iweight")?,
            check: number("srv_check_state")? & !UNDER_WAY,
            status: stat.remove(name).ok_or_else(|| bad(name))?.0,
        });
    }
    Ok(Shown { rows, serving: serving.parse().map_err(|_| bad(&serving))? })
}

/// The columns `status` and `act` by the name of the server.
fn stat(reply: &str) -> BTreeMap<String, (String, String)> {
    let mut lines = reply.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let place = |name: &str| head.iter().position(|column| *column == name).expect("a column of `show stat`");
    let (name, status, act) = (place("svname"), place("status"), place("act"));
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let rows = lines.filter(|line| !line.is_empty()).map(cells);
    rows.map(|row| (row[name].clone(), (row[status].clone(), row[act].clone()))).collect()
}
