//! Finds the groups of a selection: by their names, or by asking which names there are.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::autoscaling::{Group, Member, fetch_groups, fetch_names};
use crate::aws::calls::Aws;
use crate::aws::error::AwsError;
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::transport::http::Budget;
use crate::selection::{GroupSelection, SelectedGroups};
use crate::text;

/// How long the names that a search found are used. A group is hardly ready for traffic sooner: its first instance has to start. In
/// an account of 1,000 groups, a search for a pattern takes 10 calls; the calls of a turn stay what they are.
const PAUSE: Duration = Duration::from_secs(30);
/// The budget of a search while names are known: one that hangs must not cost the turn its instances, nor the server its lease.
const TOTAL: Duration = Duration::from_secs(4);
/// Names listed in one message.
const MAX_LISTED: usize = 10;

/// Looks for the groups of a selection, and remembers what it found.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The names that the last search found.
    found: Option<Vec<String>>,
    /// When to search again; at once if none.
    next: Option<Instant>,
    failing: bool,
}

impl Search {
    /// The groups of `selection` that exist, with their instances, and which of them are selected.
    ///
    /// # Errors
    /// A call failed, or a response was partial. A failed search alone is no error while the names of an earlier one are known:
    /// groups that came since are seen late, which is logged.
    pub(super) fn fetch(
        &mut self,
        aws: &Aws,
        selection: &GroupSelection,
        cache: &ParseCache<Vec<Member>>,
        budget: &Budget,
        now: Instant,
    ) -> Result<(Vec<Group>, SelectedGroups), AwsError> {
        let is_due = self.next.is_none_or(|next| now >= next);
        if selection.needs_search() && is_due {
            self.next = Some(now + PAUSE);
            let bounded = self.found.is_some().then(|| aws.budget(TOTAL, TOTAL));
            let names = fetch_names(aws, &selection.tags, bounded.as_ref().unwrap_or(budget));
            self.learn(names, selection)?;
        }
        let names = selection.names_to_ask(self.found.as_deref().unwrap_or_default());
        let groups = fetch_groups(aws, &names, cache, budget)?;
        let selected = selection.select(groups.iter().map(|group| group.name.as_str()));
        Ok((groups, selected))
    }

    fn learn(&mut self, names: Result<Vec<String>, AwsError>, selection: &GroupSelection) -> Result<(), AwsError> {
        let names = match names {
            Ok(names) => names,
            Err(error) if self.found.is_none() => {
                self.next = None;
                return Err(error);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!("cannot look for groups that came or went, so those known stay: {error}");
                }
                return Ok(());
            }
        };
        if std::mem::take(&mut self.failing) {
            info!("can look for groups again");
        }
        let select = |names: &[String]| selection.select(names.iter().map(String::as_str)).present;
        let selected = select(&names);
        if self.found.as_deref().map(select).as_ref() != Some(&selected) {
            let listed = text::list(selected.iter().map(|name| text::sanitized(name)), MAX_LISTED);
            info!("the patterns and tags of groups match {}: {listed}", selected.len());
        }
        self.found = Some(names);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::aws::testing::{CannedResponse, Responder, Seen, aws};
    use crate::selection::{NamePattern, TagFilter};

    /// Auto Scaling with these groups; a search fails while there are none.
    struct Account {
        groups: Mutex<Vec<&'static str>>,
    }

    impl Account {
        fn answer(&self, seen: &Seen) -> CannedResponse {
            let groups = self.groups.lock().expect("no panic");
            if seen.query("IncludeInstances").is_some() && groups.is_empty() {
                return CannedResponse::ok("<html/>".to_owned());
            }
            let asked: Vec<String> =
                (1..).map_while(|n| seen.query(&format!("AutoScalingGroupNames.member.{n}"))).collect();
            let is_wanted = |name: &&&str| asked.is_empty() || asked.iter().any(|one| one == **name);
            let member = |name: &&str| {
                format!("<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances/></member>")
            };
            let members: String = groups.iter().filter(is_wanted).map(member).collect();
            CannedResponse::ok(format!(
                "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>{members}\
                 </AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
            ))
        }
    }

    #[test]
    fn groups_are_looked_for_now_and_then_and_those_known_are_asked_about_each_time() {
        let account: &'static Account =
            Box::leak(Box::new(Account { groups: Mutex::new(vec!["web-1", "other", "api"]) }));
        let server = Responder::new(|seen: &Seen| account.answer(seen));
        let (aws, _) = aws(&server.url);
        let selection = GroupSelection::named(&["web-*", "api"]);
        let (mut search, start) = (Search::default(), Instant::now());
        let mut fetch = |seconds: u64| {
            let budget = Budget::new(Duration::from_secs(5), Duration::from_secs(2));
            let now = start + Duration::from_secs(seconds);
            let (_, selected) =
                search.fetch(&aws, &selection, &ParseCache::default(), &budget, now).expect("an answer");
            (selected.present.join(" "), selected.missing.join(" "))
        };
        let searches = || server.seen().iter().filter(|seen| seen.query("IncludeInstances").is_some()).count();
        let becomes = |groups: &[&'static str]| *account.groups.lock().expect("no panic") = groups.to_vec();
        let found = |present: &str, missing: &str| (present.to_owned(), missing.to_owned());

        assert_eq!((fetch(0), searches()), (found("web-1 api", ""), 1));
        becomes(&["web-1", "web-2", "api"]);
        assert_eq!((fetch(29), searches()), (found("web-1 api", ""), 1), "not yet");
        assert_eq!((fetch(30), searches()), (found("web-1 web-2 api", ""), 2));
        // One that is gone is seen at once, by its name.
        becomes(&["web-2"]);
        assert_eq!((fetch(31), searches()), (found("web-2", "api"), 2));
        becomes(&["api"]);
        assert_eq!((fetch(32), searches()), (found("api", "web-*"), 2));
        // A search that fails leaves those that are known, and is tried again in time.
        becomes(&["web-2", "api"]);
        assert_eq!(fetch(60), found("web-2 api", ""));
        becomes(&[]);
        assert_eq!((fetch(90), searches()), (found("", "web-* api"), 4));
        becomes(&["web-2", "web-3", "api"]);
        assert_eq!((fetch(119), searches()), (found("web-2 api", ""), 4));
        assert_eq!((fetch(120), searches()), (found("web-2 web-3 api", ""), 5));
    }

    #[test]
    fn a_failed_first_search_is_an_error_and_plain_names_need_none() {
        let server = Responder::new(|seen: &Seen| {
            assert!(seen.query("IncludeInstances").is_some(), "nothing is known to ask about");
            CannedResponse::ok("<html/>".to_owned())
        });
        let (aws, _) = aws(&server.url);
        let budget = Budget::new(Duration::from_secs(5), Duration::from_secs(2));
        let tag = TagFilter { key: "env".to_owned(), value: Some("prod & more".to_owned()) };
        let any = TagFilter { key: "hsdo".to_owned(), value: None };
        for selection in [
            GroupSelection { names: vec![NamePattern::new("web")], tags: vec![tag.clone(), any.clone()] },
            GroupSelection { names: vec![], tags: vec![tag, any] },
        ] {
            let found = Search::default().fetch(&aws, &selection, &ParseCache::default(), &budget, Instant::now());
            assert!(found.is_err());
        }
        for seen in server.seen() {
            let filter = |text: &str| seen.query(&format!("Filters.member.{text}")).unwrap_or_default();
            assert_eq!(
                (filter("1.Name"), filter("1.Values.member.1")),
                ("tag%3Aenv".to_owned(), "prod%20%26%20more".to_owned())
            );
            assert_eq!((filter("2.Name"), filter("2.Values.member.1")), ("tag-key".to_owned(), "hsdo".to_owned()));
        }
        let plain = GroupSelection::named(&["web"]);
        let served = Responder::new(|seen: &Seen| {
            assert!(seen.query("IncludeInstances").is_none());
            CannedResponse::ok(
                "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups/>\
                 </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
                    .to_owned(),
            )
        });
        let (aws, _) = crate::aws::testing::aws(&served.url);
        let (_, selected) =
            Search::default().fetch(&aws, &plain, &ParseCache::default(), &budget, Instant::now()).expect("an answer");
        assert_eq!(selected.missing, ["web"]);
    }
}
