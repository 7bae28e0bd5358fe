//! Where instances come from: Auto Scaling groups or Consul services. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::line::{Line, Trouble};
use crate::slot::{FaultyTag, SlotId, Weight};
use crate::text::list;
use crate::weight::Factor;

const MAX_LISTED: usize = 10;

/// What is known of the source.
#[derive(Debug)]
pub(super) struct SourceFacts {
    /// `group` or `service`.
    pub(super) kind: &'static str,
    /// The setting that names them.
    pub(super) key: &'static str,
    /// The configured names, patterns and tags.
    pub(super) wanted: Vec<Wanted>,
    pub(super) found: Result<BTreeMap<String, Members>, Trouble>,
    /// Instances in service without a usable address.
    pub(super) unseen: Vec<String>,
    /// Why they have none.
    pub(super) unseen_reason: &'static str,
    /// Groups have to carry tags too.
    pub(super) tagged: bool,
    /// Entries of `SERVER_ASG_WEIGHTS` that no group gets its factor from.
    pub(super) unused: Vec<String>,
    /// Instances whose virtual CPUs are asked for, and not told.
    pub(super) without_vcpus: Vec<String>,
    /// Tags of instances that cannot be read.
    pub(super) faulty_tags: Vec<FaultyTag>,
    /// The instances whose factor something gives, by what does.
    pub(super) factors: BTreeMap<String, SameFactor>,
    /// The number of slots.
    pub(super) size: SlotId,
}

/// An entry of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As it is spelt.
    pub(super) entry: String,
    /// A pattern or tags, which may match several groups.
    pub(super) is_search: bool,
    /// The groups that it stands for.
    pub(super) groups: Vec<String>,
}

impl Wanted {
    /// A plain name.
    pub(super) fn named(name: &str) -> Self {
        Wanted { entry: name.to_owned(), is_search: false, groups: vec![name.to_owned()] }
    }
}

/// Instances with the same factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SameFactor {
    pub(super) factor: Factor,
    /// Their full weight.
    pub(super) full: Weight,
    pub(super) instances: Vec<String>,
}

/// The instances of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// All of them.
    pub(super) all: usize,
    /// Those that would be seated.
    pub(super) ready: usize,
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Members { all: 0, .. } => f.write_str("no instances"),
            Members { all, ready } if all == ready => write!(f, "{all} instances, all ready"),
            Members { all, ready } => write!(f, "{all} instances, {ready} of them ready"),
        }
    }
}

pub(super) fn lines(facts: &SourceFacts) -> Vec<Line> {
    let SourceFacts {
        kind,
        key,
        wanted,
        found,
        unseen,
        unseen_reason,
        tagged,
        faulty_tags,
        factors,
        unused,
        without_vcpus,
        size,
    } = facts;
    let slots = *size as usize;
    let found = match found {
        Ok(found) => found,
        Err(trouble) => return vec![Line::trouble(format!("{kind}s"), trouble)],
    };
    let mut lines = Vec::new();
    for Wanted { entry, is_search, groups } in wanted {
        let subject = format!("{kind} {entry:?}");
        let known: Vec<(&String, &Members)> = groups.iter().filter_map(|name| Some((name, found.get(name)?))).collect();
        let remedy = format!("correct {key}, create the {kind}, or use the region or agent that has it");
        lines.push(match (known.as_slice(), is_search) {
            ([], true) => {
                let text = "matches no group here, so the servers that it had are kept as they are and none is added";
                Line::mend(subject, text, remedy)
            }
            ([], false) => {
                let lacks = if *tagged { "does not exist here, or lacks the tags" } else { "does not exist here" };
                Line::mend(subject, format!("{lacks}, so its servers are kept as they are and none is added"), remedy)
            }
            (known, true) => {
                let mut known = known.to_vec();
                known.sort_by_key(|(_, members)| members.all == 0);
                let names = list(known.iter().map(|(name, members)| format!("{name:?} with {members}")), MAX_LISTED);
                Line::ok(subject, format!("matches {}: {names}", known.len()))
            }
            ([(_, members), ..], false) => Line::ok(subject, members.to_string()),
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
    for (words, SameFactor { factor, full, instances }) in factors.iter().take(MAX_LISTED) {
        let names = list(instances.iter().cloned(), MAX_LISTED);
        lines.push(Line::ok("weights", format!("full weight {full} ({words}: factor {factor}) for {names}")));
    }
    if factors.len() > MAX_LISTED {
        lines.push(Line::ok("weights", format!("{} other factors", factors.len() - MAX_LISTED)));
    }
    if !unused.is_empty() {
        let names = list(unused.iter().cloned(), MAX_LISTED);
        let text = format!("no group gets its factor from {names} (SERVER_ASG_WEIGHTS)");
        lines.push(Line::warn(
            "weights",
            text,
            "correct the names; of several entries that match a group, the first counts",
        ));
    }
    if !without_vcpus.is_empty() {
        let names = list(without_vcpus.iter().cloned(), MAX_LISTED);
        lines.push(Line::warn(
            "weights",
            format!("EC2 does not tell the virtual CPUs of {names}, so they count as one unit"),
            "give them the tag hsdo:weight, with SERVER_INSTANCE_TAGS, or use another SERVER_WEIGHT_BY",
        ));
    }
    if !faulty_tags.is_empty() {
        let tag = |tag: &FaultyTag| format!("{} of {} (expected {})", tag.tag, tag.name, tag.expected);
        let tags = list(faulty_tags.iter().map(tag), MAX_LISTED);
        let text = format!("{tags}: cannot be read, so they count as absent");
        lines.push(Line::mend("tags", text, "correct or delete them"));
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
            wanted: vec![Wanted::named("web")],
            found: Ok(members
                .iter()
                .map(|(name, all, ready)| ((*name).to_owned(), Members { all: *all, ready: *ready }))
                .collect()),
            unseen: vec![],
            unseen_reason: "",
            tagged: false,
            unused: vec![],
            without_vcpus: vec![],
            faulty_tags: vec![],
            factors: BTreeMap::new(),
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
