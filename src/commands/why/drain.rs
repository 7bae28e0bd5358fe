//! What is said of a server that drains: its sessions by the reports of load balancers, and its deadline. Pure.

use super::fact::Fact;
use super::gather::Gathered;
use crate::clock::Timestamp;
use crate::commands::status::since;
use crate::settings::ServerSettings;
use crate::slot::{Occupant, SlotId};

/// What still runs on a server that drains, and until when its lifecycle hook may hold it.
pub(super) fn drain_facts(
    id: SlotId,
    occupant: &Occupant,
    server: Option<&ServerSettings>,
    found: &Gathered,
) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let (Some(drain_since), Some(server)) = (occupant.drain_since, server.filter(|server| server.hook.is_some())) {
        let until = drain_since.plus(server.drain).to_the_second();
        let text = format!("it drains since {}; at the latest it is let go at {until}", since(drain_since, found.time));
        facts.push(Fact::new("hook", text));
    }
    let read = match &found.reports {
        None => return facts,
        Some(Err(error)) => {
            facts.push(Fact::unknown("reports", format!("cannot be read: {error}")));
            return facts;
        }
        Some(Ok(read)) => read,
    };
    facts.extend(read.unreadable.iter().map(|why| Fact::unknown("reports", format!("cannot be read: {why}"))));
    facts.extend(read.items.iter().map(|item| {
        let running = match item.report.sessions.get(&id) {
            None => "has not carried out that it drains".to_owned(),
            Some(1) => "has 1 session on it".to_owned(),
            Some(count) => format!("has {count} sessions on it"),
        };
        let seen = since(Timestamp::from_millis(item.seen), found.time);
        Fact::new("reports", format!("{} {running}, seen {seen} by its own clock", item.name))
    }));
    facts
}
