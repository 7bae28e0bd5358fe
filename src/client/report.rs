//! What a turn reports about HAProxy in the log, the metrics and `/readyz`: lasting conditions, and refusals.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::backend::ManagedBackend;
use super::placement::BackendKind;
use super::reconcile::BackendPlan;
use super::spill::STEPS;
use crate::about::About;
use crate::log::Episode;
use crate::metrics::Metrics;
use crate::ports::{Command, Subject, TurnError};
use crate::slot::SlotId;

/// The lasting conditions, each logged when it begins, changes and ends.
pub(super) struct Report {
    size: SlotId,
    metrics: Arc<Metrics>,
    backends: Episode,
    missing: Episode,
    held: Episode,
    blocked: Episode,
    contested: Episode,
    moved: Episode,
    weightless: Episode,
    deserted: Episode,
    spill: Episode,
}

impl Report {
    pub(super) fn new(size: SlotId, metrics: Arc<Metrics>) -> Self {
        Report {
            size,
            metrics,
            backends: Episode::new("backends left alone"),
            missing: Episode::new("slots missing in HAProxy"),
            held: Episode::new("servers held out of rotation"),
            blocked: Episode::new("servers blocked in HAProxy"),
            contested: Episode::new("contested weights"),
            moved: Episode::new("contested addresses"),
            weightless: Episode::new("servers that can never serve"),
            deserted: Episode::new("backends without a server"),
            spill: Episode::new("spillover"),
        }
    }

    pub(super) fn publish(&mut self, backends: &[ManagedBackend]) {
        let all = |pick: fn(&BackendPlan) -> &Vec<SlotId>| {
            let named = backends.iter().filter(|backend| !pick(&backend.plan).is_empty()).map(|backend| {
                let target = &backend.target.backend;
                format!("{}/{}{}", target.name, target.base, ranges(pick(&backend.plan)))
            });
            named.collect::<Vec<_>>().join(", ")
        };
        let count =
            |pick: fn(&BackendPlan) -> &Vec<SlotId>| backends.iter().map(|backend| pick(&backend.plan).len()).sum();
        let about = |pick: fn(&BackendPlan) -> &Vec<SlotId>| {
            let of = |about: About, backend: &ManagedBackend| match pick(&backend.plan).as_slice() {
                [] => about,
                slots => about.and(backend.about(slots)),
            };
            backends.iter().fold(About::default(), of)
        };
        let faults = faults(backends);
        self.metrics.set_missing_backends(faults.len());
        self.metrics.set_missing_slots(count(|plan| &plan.missing));
        self.metrics.set_held_slots(count(|plan| &plan.held));
        self.metrics.set_waiting_slots(count(|plan| &plan.waiting));
        let (blocked, contested): (usize, usize) = (count(|plan| &plan.blocked), count(|plan| &plan.contested));
        self.metrics.set_blocked_slots(blocked + contested + count(|plan| &plan.moved));

        let mut conditions = faults.clone();
        let faults = faults.join("; ");
        report_names(&mut self.backends, &faults, &about_faults(backends), |_| faults.clone());
        report_names(
            &mut self.missing,
            &all(|plan| &plan.missing),
            &about(|plan| &plan.missing).cause(["beyond-template"]),
            |names| {
                format!(
                    "{names}: expected by HAPROXY_BACKEND_SERVERS_LIST_SIZE ({}) or the table, but HAProxy has no such servers \
                 (`server-template` too small, or `del server`); they get no traffic here",
                    self.size
                )
            },
        );
        report_names(&mut self.held, &all(|plan| &plan.held), &about(|plan| &plan.held).cause(["held"]), |names| {
            format!(
                "{names}: set to drain or maintenance by an operator or an agent; left alone until `set server … state ready`"
            )
        });
        let mut lasting = |episode: &mut Episode, names: String, about: About, explain: &str| {
            let text = report_names(episode, &names, &about, |names| format!("{names}: {explain}"));
            conditions.extend(text);
        };
        lasting(
            &mut self.blocked,
            all(|plan| &plan.blocked),
            about(|plan| &plan.blocked).cause(["blocked"]),
            "in maintenance because of a server that they track or a name that does not resolve, or HAProxy's resolver sets their address; see \
             `show servers state`",
        );
        lasting(
            &mut self.contested,
            all(|plan| &plan.contested),
            about(|plan| &plan.contested).cause(["contested"]),
            "something else, such as an agent (`agent-check`), keeps changing their weight back; given up, retried once a minute",
        );
        lasting(
            &mut self.moved,
            all(|plan| &plan.moved),
            about(|plan| &plan.moved).cause(["contested"]),
            "something else keeps moving them to other addresses, such as a second hsdo client with another table, port or split, or a \
             script; stop it: requests fail until then",
        );
        lasting(
            &mut self.weightless,
            all(|plan| &plan.weightless),
            about(|plan| &plan.weightless).cause(["weightless"]),
            "their configured weight is 0, and the static algorithm accepts no other; give the `server-template` a weight, or \
             the backend `hash-type consistent`",
        );
        let deserted = || backends.iter().filter(|backend| backend.is_deserted()).map(ManagedBackend::name);
        lasting(
            &mut self.deserted,
            deserted().collect::<Vec<_>>().join(", "),
            About::default().backend(deserted()),
            "none of the own servers has weight here, and no others come in (CLIENT_SPILL_BELOW): requests fail, unless HAProxy sends them to \
             another backend",
        );
        conditions.extend(self.publish_spill(backends));
        self.metrics.set_condition("haproxy", (!conditions.is_empty()).then(|| conditions.join("; ")));
    }

    /// Reports which backends take in servers of others, and returns the text.
    fn publish_spill(&mut self, backends: &[ManagedBackend]) -> Option<String> {
        let defaults = || backends.iter().filter(|backend| backend.target.kind == BackendKind::Default);
        let share = |backend: &ManagedBackend| (backend.name().to_owned(), backend.spill_share().unwrap_or(0.0));
        self.metrics.set_spill(defaults().map(share).collect());
        let level = |backend: &ManagedBackend| backend.spill_level().filter(|level| *level > 0);
        let spilling: Vec<(&ManagedBackend, u8)> =
            defaults().filter_map(|backend| Some((backend, level(backend)?))).collect();
        self.metrics.set_spill_slots(spilling.iter().map(|(backend, _)| backend.spilled()).sum());
        let text = |(backend, level): &(&ManagedBackend, u8)| {
            format!(
                "backend {}: {} servers of others serve at {level}/{STEPS} of their weight; the own ones that can serve have a weight of \
                 {}, and their fair share is {}",
                backend.name(),
                backend.spilled(),
                backend.load.fit,
                backend.load.fair(),
            )
        };
        let text = spilling.iter().map(text).collect::<Vec<_>>().join("; ");
        let key: Vec<String> = spilling.iter().map(|(backend, level)| format!("{} {level}", backend.name())).collect();
        let about = About::default().backend(spilling.iter().map(|(backend, _)| backend.name())).cause(["spilled"]);
        report_names(&mut self.spill, &key.join(", "), &about, |_| text.clone())
    }
}

pub(super) fn faults(backends: &[ManagedBackend]) -> Vec<String> {
    let text = |backend: &ManagedBackend| Some(format!("backend {}: {}", backend.name(), backend.fault()?));
    backends.iter().filter_map(text).collect()
}

/// The backends that [`faults`] names.
pub(super) fn about_faults(backends: &[ManagedBackend]) -> About {
    About::default().backend(backends.iter().filter(|backend| backend.fault().is_some()).map(ManagedBackend::name))
}

/// Reports an episode with the text for these names, if there are any, and returns the text.
fn report_names(episode: &mut Episode, names: &str, about: &About, text: impl Fn(&str) -> String) -> Option<String> {
    let text = (!names.is_empty()).then(|| text(names));
    episode.report_about(text.as_ref().map(|text| (names, text.as_str())), about);
    text
}

#[derive(Default)]
pub(super) struct Refusals {
    commands: Vec<String>,
    about: About,
    replies: BTreeSet<String>,
}

impl Refusals {
    /// `about` is the server that the command is for.
    pub(super) fn add(&mut self, command: &Command, about: About, reply: String) {
        self.about = std::mem::take(&mut self.about).and(about);
        self.commands.push(format!("`{command}` was answered {reply:?}"));
        self.replies.insert(reply);
    }

    pub(super) fn error(self, left: usize) -> TurnError {
        let count = self.commands.len();
        let shown = self.commands.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        let more = if count > 3 { format!("; and {} more", count - 3) } else { String::new() };
        let text = match count {
            0 => format!("HAProxy does not show what {left} commands asked of it"),
            _ => format!("HAProxy refused {count} commands: {shown}{more}"),
        };
        TurnError {
            about: self.about,
            key: self.replies.into_iter().collect::<Vec<_>>().join("; "),
            ..TurnError::new(Subject::Turn, text)
        }
    }
}

/// Slot numbers as ranges: `[1-3,7]`.
fn ranges(ids: &[SlotId]) -> String {
    let mut runs: Vec<(SlotId, SlotId)> = Vec::new();
    for &id in ids {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == id => *end = id,
            _ => runs.push((id, id)),
        }
    }
    let runs: Vec<String> = runs
        .iter()
        .map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") })
        .collect();
    format!("[{}]", runs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_commands_and_its_key_does_not() {
        let error = |commands: &[(&str, &str)], left| {
            let mut refusals = Refusals::default();
            for (command, answer) in commands {
                refusals.commands.push(format!("`{command}` was answered {answer:?}"));
                refusals.replies.insert((*answer).to_owned());
            }
            refusals.error(left)
        };
        let one = error(&[("a", "No."), ("b", "No."), ("c", "Never."), ("d", "No.")], 4);
        let text = "HAProxy refused 4 commands: `a` was answered \"No.\"; `b` was answered \"No.\"; \
                    `c` was answered \"Never.\"; and 1 more";
        assert_eq!(one.to_string(), text);
        assert_eq!(one.key, error(&[("e", "Never."), ("f", "No.")], 2).key);
        assert_ne!(one.key, error(&[("a", "No.")], 1).key);
        let none = error(&[], 3);
        assert_eq!(none.to_string(), "HAProxy does not show what 3 commands asked of it");
        assert_eq!(none.key, error(&[], 5).key);
    }

    #[test]
    fn slot_numbers_as_ranges() {
        for (ids, text) in [(vec![4], "[4]"), (vec![1, 2, 3, 7], "[1-3,7]"), (vec![1, 3], "[1,3]")] {
            assert_eq!(ranges(&ids), text);
        }
    }
}
