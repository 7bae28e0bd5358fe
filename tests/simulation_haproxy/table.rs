//! What the real HAProxy shows, in the columns that the model has.

use std::collections::BTreeMap;
use std::io;

use crate::common::haproxy::Haproxy;
use crate::model::Row;

/// Whether a check is under way is left out: that is another answer each time.
const UNDER_WAY: u32 = 1;

/// The rows of a backend, in the order of its slots.
pub(crate) fn rows(haproxy: &Haproxy, backend: &str) -> io::Result<Vec<Row>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let statuses = statuses(&haproxy.try_command(&format!("show stat {backend} 4 -1"))?);
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
        let ip = text("srv_addr")?.parse().map_err(|_| bad(line))?;
        let weight = |name: &str| Ok::<u16, io::Error>(number(name)? as u16);
        let name = text("srv_name")?;
        rows.push(Row {
            name: name.to_owned(),
            address: std::net::SocketAddr::new(ip, number("srv_port")? as u16),
            op: number("srv_op_state")?,
            admin: number("srv_admin_state")?,
            weight: weight("srv_uweight")?,
            configured: weight("srv_iweight")?,
            check: number("srv_check_state")? & !UNDER_WAY,
            status: statuses.get(name).cloned().ok_or_else(|| bad(name))?,
        });
    }
    Ok(rows)
}

fn statuses(reply: &str) -> BTreeMap<String, String> {
    let mut lines = reply.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let place = |name: &str| head.iter().position(|column| *column == name).expect("a column of `show stat`");
    let (name, status) = (place("svname"), place("status"));
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let rows = lines.filter(|line| !line.is_empty()).map(cells);
    rows.map(|row| (row[name].clone(), row[status].clone())).collect()
}
