//! The end of an instance: the report table, and whether the lifecycle hook fits `SERVER_DRAIN_SECONDS`. Pure.

use std::time::Duration;

use super::line::{Level, Line, Trouble};
use crate::aws::Hook;
use crate::balancer::BalancerItems;
use crate::settings::HookName;
use crate::text::list;

const MAX_LISTED: usize = 10;

/// What is known of the report table.
#[derive(Debug)]
pub(super) struct ReportFacts {
    pub(super) name: String,
    /// What a server reads.
    pub(super) reading: Option<Result<BalancerItems, Trouble>>,
    /// Whether a client may write.
    pub(super) writing: Option<Result<(), Trouble>>,
}

/// What is known of the hooks.
#[derive(Debug)]
pub(super) struct HookFacts {
    pub(super) wanted: HookName,
    pub(super) drain: Duration,
    pub(super) has_reports: bool,
    /// The terminating hooks of each group, by its name; or why they are not told.
    pub(super) groups: Result<Vec<(String, Vec<Hook>)>, Trouble>,
    /// Whether instances of one of the groups may be let go; none without a group.
    pub(super) completing: Option<Result<(), Trouble>>,
}

pub(super) fn lines(reports: Option<&ReportFacts>, hooks: Option<&HookFacts>) -> Vec<Line> {
    reports.into_iter().flat_map(report_lines).chain(hooks.into_iter().flat_map(hook_lines)).collect()
}

/// Neither role needs the table: each trouble is a warning.
fn report_lines(facts: &ReportFacts) -> Vec<Line> {
    let table = format!("report table {:?}", facts.name);
    let mut lines = Vec::new();
    match &facts.reading {
        Some(Ok(read)) => {
            let names = list(read.items.iter().map(|item| item.name.clone()), MAX_LISTED);
            let text = format!("{} load balancers report: {names}", read.items.len());
            lines.push(Line::ok(&table, text.trim_end_matches(": ")));
            lines.extend(
                read.unreadable.iter().map(|why| {
                    Line::warn(&table, format!("no report, as it cannot be read: {why}"), "delete the item")
                }),
            );
        }
        Some(Err(trouble)) => lines.push(as_warning(&table, trouble, "instances go at their deadline alone")),
        None => {}
    }
    match &facts.writing {
        Some(Ok(())) => lines.push(Line::ok(&table, "this load balancer may write its report")),
        Some(Err(trouble)) => {
            lines.push(as_warning(&table, trouble, "nobody sees what this load balancer has carried out"));
        }
        None => {}
    }
    lines
}

fn as_warning(subject: &str, trouble: &Trouble, without: &str) -> Line {
    Line { level: Level::Warn, ..Line::mend(subject, format!("{}; {without}", trouble.text), &trouble.remedy) }
}

fn hook_lines(facts: &HookFacts) -> Vec<Line> {
    let subject = "SERVER_LIFECYCLE_HOOK";
    let mut lines = Vec::new();
    if !facts.has_reports {
        let text = "without DYNAMODB_REPORT_TABLE_NAME nobody says when the last request has ended: every instance is held \
                    for SERVER_DRAIN_SECONDS";
        lines.push(Line::warn(subject, text, "set DYNAMODB_REPORT_TABLE_NAME for both roles"));
    }
    match &facts.completing {
        Some(Ok(())) => lines.push(Line::ok("autoscaling:CompleteLifecycleAction", "allowed")),
        Some(Err(trouble)) => lines.push(as_warning(
            "autoscaling:CompleteLifecycleAction",
            trouble,
            "every instance is held until the hook's own time-out",
        )),
        None => {}
    }
    match &facts.groups {
        Ok(groups) => lines.extend(groups.iter().flat_map(|(group, hooks)| group_lines(group, hooks, facts))),
        Err(trouble) if trouble.denied && facts.wanted != HookName::All => {
            let text = "the hooks' own time-outs are not told without autoscaling:DescribeLifecycleHooks";
            lines.push(Line::ok(subject, text));
        }
        Err(trouble) => lines.push(as_warning(subject, trouble, "the hooks are not known")),
    }
    lines
}

fn group_lines(group: &str, hooks: &[Hook], facts: &HookFacts) -> Vec<Line> {
    let subject = format!("hooks of group {group:?}");
    let is_meant = |hook: &&Hook| match &facts.wanted {
        HookName::All => true,
        HookName::Named(name) => hook.name == *name,
    };
    let meant: Vec<&Hook> = hooks.iter().filter(is_meant).collect();
    if meant.is_empty() {
        let text = match &facts.wanted {
            HookName::All => "it has no terminating lifecycle hook: its instances end at once".to_owned(),
            HookName::Named(name) => {
                format!("it has no terminating lifecycle hook {name:?}: its instances end at once")
            }
        };
        return vec![Line::warn(subject, text, "create it with `aws autoscaling put-lifecycle-hook`")];
    }
    let line = |hook: &Hook| {
        let Hook { name, timeout } = hook;
        let text = format!("{name}, time-out {} s", timeout.as_secs());
        if *timeout > facts.drain {
            return Line::ok(&subject, text);
        }
        let seconds = facts.drain.as_secs();
        let text = format!("{text}: it is over before SERVER_DRAIN_SECONDS ({seconds} s), and AWS goes on by itself");
        Line::warn(&subject, text, "raise the hook's heartbeat time-out, or lower SERVER_DRAIN_SECONDS")
    };
    meant.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{BalancerItem, BalancerReport};

    fn trouble(denied: bool) -> Trouble {
        Trouble { text: "no".to_owned(), remedy: "allow it".to_owned(), denied, table: false }
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| format!("{:?} {}: {}", line.level, line.subject, line.text)).collect()
    }

    #[test]
    fn hooks_are_compared_with_the_deadline() {
        let hook = |name: &str, seconds| Hook { name: name.to_owned(), timeout: Duration::from_secs(seconds) };
        let facts = |wanted, groups| HookFacts {
            wanted,
            drain: Duration::from_secs(300),
            has_reports: true,
            groups,
            completing: Some(Ok(())),
        };
        let named = || HookName::Named("drain".to_owned());
        let web = |hooks: &[Hook]| Ok(vec![("web".to_owned(), hooks.to_vec())]);
        for (wanted, groups, expected) in [
            (named(), web(&[hook("drain", 600), hook("logs", 60)]), "Ok hooks of group \"web\": drain, time-out 600 s"),
            (
                named(),
                web(&[hook("drain", 300)]),
                "Warn hooks of group \"web\": drain, time-out 300 s: it is over before",
            ),
            (
                named(),
                web(&[hook("logs", 600)]),
                "Warn hooks of group \"web\": it has no terminating lifecycle hook \"drain\"",
            ),
            (HookName::All, web(&[]), "Warn hooks of group \"web\": it has no terminating lifecycle hook:"),
            (named(), Err(trouble(true)), "Ok SERVER_LIFECYCLE_HOOK: the hooks' own time-outs are not told"),
            (HookName::All, Err(trouble(true)), "Warn SERVER_LIFECYCLE_HOOK: no; the hooks are not known"),
        ] {
            let found = texts(&lines(None, Some(&facts(wanted, groups))));
            assert!(found.iter().any(|line| line.starts_with(expected)), "{expected} in {found:?}");
        }
        let alone = HookFacts { has_reports: false, completing: Some(Err(trouble(true))), ..facts(named(), web(&[])) };
        let found = texts(&lines(None, Some(&alone)));
        assert!(found[0].contains("nobody says when the last request has ended"), "{found:?}");
        assert!(
            found[1].starts_with("Warn autoscaling:CompleteLifecycleAction: no; every instance is held"),
            "{found:?}"
        );
    }

    #[test]
    fn the_report_table_is_told_and_never_keeps_a_start() {
        let item = BalancerItem { name: "lb-1".to_owned(), seen: 1, report: BalancerReport::default() };
        let read = BalancerItems { items: vec![item], unreadable: vec!["\"x\": Seen is missing".to_owned()] };
        let facts = ReportFacts { name: "r".to_owned(), reading: Some(Ok(read)), writing: Some(Ok(())) };
        let found = texts(&lines(Some(&facts), None));
        assert_eq!(
            found,
            [
                "Ok report table \"r\": 1 load balancers report: lb-1",
                "Warn report table \"r\": no report, as it cannot be read: \"x\": Seen is missing",
                "Ok report table \"r\": this load balancer may write its report",
            ]
        );
        let facts = ReportFacts { reading: Some(Err(trouble(true))), writing: Some(Err(trouble(false))), ..facts };
        let levels: Vec<Level> = lines(Some(&facts), None).iter().map(|line| line.level).collect();
        assert_eq!(levels, [Level::Warn, Level::Warn]);
    }
}
