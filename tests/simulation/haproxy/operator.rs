//! The Runtime API as a person uses it: commands as text, and HAProxy's replies to them.

use std::net::IpAddr;

use hsdo::slot::MAX_WEIGHT;

use super::host::{Host, NO_CHECK, STATIC};
use super::server::{Order, Refusal};

/// Runs commands joined by `;`; gives their replies one after another, each with the empty line that ends it.
pub(super) fn run(host: &mut Host, line: &str) -> String {
    line.split(';').map(|command| reply(command_reply(host, command.trim()))).collect()
}

fn reply(text: Result<String, String>) -> String {
    match text {
        Ok(text) | Err(text) if text.is_empty() => "\n".to_owned(),
        Ok(text) | Err(text) => format!("{text}\n\n"),
    }
}

fn command_reply(host: &mut Host, command: &str) -> Result<String, String> {
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    let (place, order) = match words.as_slice() {
        ["set", "server", place, rest @ ..] => (*place, parse(rest)),
        ["set", "weight", place, weight] => (*place, parse_weight(weight)),
        ["enable", "server", place] => (*place, Ok(Order::Ready)),
        ["disable", "server", place] => (*place, Ok(Order::Maintenance)),
        ["enable", "health", place] => (*place, Ok(Order::EnableHealth)),
        ["disable", "health", place] => (*place, Ok(Order::DisableHealth)),
        _ => panic!("the model does not know the command {command:?}"),
    };
    let late = host.version.late_address;
    let lag = if late { host.lag } else { 0 };
    let worker = host.worker.as_mut().ok_or("it is gone")?;
    let (backend, server) = place.split_once('/').ok_or("Require 'backend/server'.")?;
    let backend = worker.backend(backend).ok_or("No such backend.")?;
    let server = worker.backends[backend].find(server).ok_or("No such server.")?;
    let order = order?;
    let before = worker.backends[backend].servers[server].address();
    match worker.obey(backend, server, order, lag) {
        Ok(()) => {}
        Err(Refusal::StaticWeight) => return Err(STATIC.to_owned()),
        Err(Refusal::Unchecked) => return Err(NO_CHECK.to_owned()),
    }
    match order {
        Order::Address(ip, port) => Ok(moved((before.ip(), before.port()), (ip, port), late)),
        _ => Ok(String::new()),
    }
}

fn parse(words: &[&str]) -> Result<Order, String> {
    match *words {
        ["state", "ready"] => Ok(Order::Ready),
        ["state", "drain"] => Ok(Order::Drain),
        ["state", "maint"] => Ok(Order::Maintenance),
        ["health", "up"] => Ok(Order::HealthUp),
        ["health", "stopping"] => Ok(Order::HealthStopping),
        ["health", "down"] => Ok(Order::HealthDown),
        ["weight", weight] => parse_weight(weight),
        ["addr", ip] => Ok(Order::Address(ip.parse().map_err(|_| format!("Invalid addr '{ip}'"))?, None)),
        ["addr", ip, "port", port] => {
            let ip = ip.parse().map_err(|_| format!("Invalid addr '{ip}'"))?;
            Ok(Order::Address(
                ip,
                Some(port.parse().map_err(|_| format!("problem converting port '{port}' to an int"))?),
            ))
        }
        _ => panic!("the model does not know the change {words:?}"),
    }
}

fn parse_weight(text: &str) -> Result<Order, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().map_err(|_| "Trailing garbage in weight string".to_owned())?;
        return Ok(Order::Percent(percent));
    }
    let weight: i64 = text.parse().map_err(|_| "Trailing garbage in weight string".to_owned())?;
    match u16::try_from(weight) {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(Order::Weight(weight)),
        _ => Err("Absolute weight can only be between 0 and 256 inclusive.".to_owned()),
    }
}

/// How HAProxy words that an address changed.
fn moved(before: (IpAddr, u16), (ip, port): (IpAddr, Option<u16>), is_late_version: bool) -> String {
    let mut parts = Vec::new();
    if before.0 != ip {
        parts.push(format!("IP changed from '{}' to '{ip}'", before.0));
    } else if !is_late_version {
        parts.push("no need to change the addr".to_owned());
    }
    match port {
        Some(port) if port != before.1 => parts.push(format!("port changed from '{}' to '{port}'", before.1)),
        Some(_) if !is_late_version => parts.push("no need to change the port".to_owned()),
        _ => {}
    }
    match parts.is_empty() {
        true => "nothing changed".to_owned(),
        false => format!("{} by 'stats socket command'", parts.join(", ")),
    }
}
