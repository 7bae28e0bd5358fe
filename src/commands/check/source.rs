//! Where instances come from: Auto Scaling groups or Consul services. Pure.

use std::collections::BTreeMap;

use super::line::{Line, Trouble};
use crate::slot::SlotId;
use crate::text::list;

const MAX_LISTED: usize = 10;

/// What is known of the source.
#[derive(Debug)]
pub(super) struct SourceFacts {
    /// `group` or `service`.
    pub(super) kind: &'static str,
    /// The setting that names them.
    pub(super) key: &'static str,
    /// The configured names.
    pub(super) wanted: Vec<String>,
    pub(super) found: Result<BTreeMap<String, Members>, Trouble>,
    /// Instances in service without a usable address.
    pub(super) unseen: Vec<String>,
    /// Why they have none.
    pub(super) unseen_reason: &'static str,
    /// The number of slots.
    pub(super) size: SlotId,
}

/// The instances of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// All of them.
    pub(super) all: usize,
    /// Those that would be seated.
    pub(super) ready: usize,
}

pub(super) fn lines(facts: &SourceFacts) -> Vec<Line> {
    let SourceFacts { kind, key, wanted, found, unseen, unseen_reason, size } = facts;
    let slots = *size as usize;
    let found = match found {
        Ok(found) => found,
        Err(trouble) => return vec![Line::trouble(format!("{kind}s"), trouble)],
    };
    let mut lines = Vec::new();
    for name in wanted {
        let subject = format!("{kind} {name:?}");
        lines.push(match found.get(name) {
            Some(Members { all, ready }) if all == ready => Line::ok(subject, format!("{all} instances, all ready")),
            Some(Members { all, ready }) => Line::ok(subject, format!("{all} instances, {ready} of them ready")),
            None => Line::mend(
                subject,
                "does not exist here, so its servers are kept as they are and none is added",
                format!("correct {key}, create the {kind}, or use the region or agent that has it"),
            ),
        });
    }
    let ready: usize = found.values().map(|members| members.ready).sum();
    if ready == 0 {
        lines.push(Line::warn(
            "instances",
            "none is ready, so every slot stays free or is freed",
            format!("see why no instance of these {kind}s is in service"),
        ));
    } else if ready > slots {
        lines.push(Line::mend(
            "instances",
            format!("{ready} are ready, for {size} slots: {} get no traffic", ready - slots),
            "raise HAPROXY_BACKEND_SERVERS_LIST_SIZE on servers and clients, and the size of the server-templates",
        ));
    } else {
        lines.push(Line::ok("instances", format!("{ready} are ready, for {size} slots")));
    }
    if !unseen.is_empty() {
        let names = list(unseen.iter().cloned(), MAX_LISTED);
        let remedy = "give them an address, or take them out of service";
        lines.push(Line::mend("instances", format!("no traffic for {names}: {unseen_reason}"), remedy));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::line::Level;

    #[test]
    fn groups_are_found_missing_empty_or_too_large() {
        let facts = |members: &[(&str, usize, usize)], size: SlotId| SourceFacts {
            kind: "group",
            key: "SERVER_ASG_NAMES",
            wanted: vec!["web".to_owned()],
            found: Ok(members
                .iter()
                .map(|(name, all, ready)| ((*name).to_owned(), Members { all: *all, ready: *ready }))
                .collect()),
            unseen: vec![],
            unseen_reason: "",
            size,
        };
        for (members, size, levels) in [
            (&[("web", 3, 2)][..], 10, &[Level::Ok, Level::Ok][..]),
            (&[("web", 3, 0)], 10, &[Level::Ok, Level::Warn]),
            (&[], 10, &[Level::Mend, Level::Warn]),
            (&[("web", 11, 11)], 10, &[Level::Ok, Level::Mend]),
        ] {
            let lines = lines(&facts(members, size));
            assert_eq!(lines.iter().map(|line| line.level).collect::<Vec<_>>(), levels, "{lines:?}");
        }
        let unseen = SourceFacts { unseen: vec!["i-1".to_owned()], ..facts(&[("web", 1, 1)], 10) };
        assert_eq!(lines(&unseen)[2].level, Level::Mend);
    }
}
