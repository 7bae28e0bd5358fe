//! Finds the groups of a selection: by their names, and by asking which names there are.
//!
//! A search only adds names: whether a known group is still there, and carries the tags, is asked by its name each turn. So a search that
//! is slow, fails, or leaves a group out costs newcomers some time, and the others nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::autoscaling::{Group, Member, fetch_groups, fetch_names};
use crate::aws::calls::Aws;
use crate::aws::error::AwsError;
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::transport::http::Budget;
use crate::selection::{GroupSelection, SelectedGroups};
use crate::text;

/// From the start of a search to that of the next. A group is hardly ready for traffic sooner: its first instance has to start. In an
/// account of 1,000 groups, a search for a pattern takes 10 calls.
const PAUSE: Duration = Duration::from_secs(30);
/// The same as long as no search has succeeded.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The budget of a search, and of each of its attempts.
const TOTAL: Duration = Duration::from_secs(20);
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long a turn waits for a search when a group has vanished: another one may have taken its place.
const PATIENCE: Duration = Duration::from_secs(4);
/// Names listed in one message.
const MAX_LISTED: usize = 10;

/// The groups of a selection that exist.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) groups: Vec<Group>,
    pub(super) selected: SelectedGroups,
    /// No search has succeeded yet: entries may be missing that are there.
    pub(super) is_partial: bool,
}

/// The groups of `selection` and which of them are selected, for one question alone: whatever fails is an error.
pub(super) fn fetch_once(
    aws: &Aws,
    selection: &GroupSelection,
    budget: &Budget,
) -> Result<(Vec<Group>, SelectedGroups), AwsError> {
    let found = if selection.needs_search() { fetch_names(aws, &selection.tags, budget)? } else { vec![] };
    let names = selection.names_to_ask(found.iter().map(String::as_str));
    Ok(carrying(fetch_groups(aws, &names, &ParseCache::default(), budget)?, selection))
}

/// Those that carry the tags.
fn carrying(mut groups: Vec<Group>, selection: &GroupSelection) -> (Vec<Group>, SelectedGroups) {
    groups.retain(|group| group.carries(&selection.tags));
    let selected = selection.select(groups.iter().map(|group| group.name.as_str()));
    (groups, selected)
}

/// A search in its thread.
#[derive(Debug)]
struct Running {
    began: Instant,
    receiver: Receiver<Result<Vec<String>, AwsError>>,
}

/// Looks for the groups of a selection, in a thread of its own, and remembers what it found.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The names that searches found, without those that were gone when they were asked about.
    known: BTreeSet<String>,
    /// A search has succeeded.
    searched: bool,
    /// When the next one is due; at once if none.
    next: Option<Instant>,
    running: Option<Running>,
    failing: bool,
    /// What was last logged.
    shown: Vec<String>,
}

impl Search {
    /// Fetches the groups of `selection`, with their instances.
    ///
    /// # Errors
    /// A call failed, or a response was partial. A failed search is an error only if nothing is known without it.
    pub(super) fn fetch(
        &mut self,
        aws: &Arc<Aws>,
        selection: &GroupSelection,
        cache: &ParseCache<Vec<Member>>,
        budget: &Budget,
        now: Instant,
    ) -> Result<Found, AwsError> {
        if selection.needs_search() {
            let starts = self.next.is_none_or(|next| now >= next) && self.start(aws, selection, now);
            let patience = match self.searched {
                false if selection.has_no_plain_names() => TOTAL,
                false if starts => PATIENCE,
                _ => Duration::ZERO,
            };
            self.learn(patience, selection)?;
        }
        let names = selection.names_to_ask(self.known.iter().map(String::as_str));
        let mut groups = fetch_groups(aws, &names, cache, budget)?;
        let there: BTreeSet<String> = groups.iter().map(|group| group.name.clone()).collect();
        if !self.known.is_subset(&there) {
            self.known.retain(|name| there.contains(name));
            // The result of one that runs already may be older.
            let is_late = self.running.is_some();
            self.start(aws, selection, now);
            self.learn(PATIENCE, selection)?;
            self.next = self.next.filter(|_| !is_late);
            // Those that took their place, and those that are said to be there after all.
            let more: Vec<String> = self.known.difference(&there).cloned().collect();
            groups.extend(fetch_groups(aws, &more, &ParseCache::default(), budget)?);
        }
        let (groups, selected) = carrying(groups, selection);
        if selection.needs_search() && self.searched && self.shown != selected.present {
            let listed = text::list(selected.present.iter().map(|name| text::sanitized(name)), MAX_LISTED);
            info!("the patterns and tags of groups match {}: {listed}", selected.present.len());
            self.shown.clone_from(&selected.present);
        }
        Ok(Found { groups, selected, is_partial: selection.needs_search() && !self.searched })
    }

    /// Starts a search, unless one runs.
    fn start(&mut self, aws: &Arc<Aws>, selection: &GroupSelection, now: Instant) -> bool {
        if self.running.is_some() {
            return false;
        }
        self.next = Some(now + if self.searched { PAUSE } else { FIRST_PAUSE });
        let (sender, receiver) = channel();
        let (aws, tags) = (Arc::clone(aws), selection.tags.clone());
        let search = move || {
            let names = fetch_names(&aws, &tags, &aws.budget(TOTAL, ATTEMPT));
            // Nobody waits any more when hsdo ends.
            let _ = sender.send(names);
        };
        match thread::Builder::new().name("search".to_owned()).spawn(search) {
            Ok(_) => self.running = Some(Running { began: now, receiver }),
            Err(error) => warn!("cannot look for groups: no thread for it: {error}"),
        }
        self.running.is_some()
    }

    /// Takes in the result of a search, for which it waits that long.
    fn learn(&mut self, patience: Duration, selection: &GroupSelection) -> Result<(), AwsError> {
        let Some(Running { began, receiver }) = &self.running else { return Ok(()) };
        let began = *began;
        let names = match receiver.recv_timeout(patience) {
            Ok(names) => names,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                self.running = None;
                return Ok(());
            }
        };
        self.running = None;
        match names {
            Ok(names) => {
                if std::mem::take(&mut self.failing) {
                    info!("can look for groups again");
                }
                let selected = selection.select(names.iter().map(String::as_str)).present;
                self.known.extend(selected);
                (self.searched, self.next) = (true, self.next.max(Some(began + PAUSE)));
                Ok(())
            }
            // Without plain names, nothing is known; and what may not be asked has to be told at a start.
            Err(error) if !self.searched && (selection.has_no_plain_names() || error.is_access_denied()) => {
                self.next = None;
                Err(error)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!("cannot look for groups that came, so only those known are served: {error}");
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::aws::testing::{CannedResponse, Responder, Seen, aws};
    use crate::selection::{NamePattern, TagFilter};

    type Groups = &'static [(&'static str, &'static str)];

    /// Auto Scaling with groups and their values of the tag `env`; a search that is `None` fails.
    #[derive(Default)]
    struct Account {
        groups: Mutex<Groups>,
        search: Mutex<Option<Groups>>,
        /// So many answers by name leave `web-2` out.
        omissions: AtomicUsize,
    }

    impl Account {
        fn leaked() -> &'static Account {
            Box::leak(Box::default())
        }

        /// What the groups are, and what a search finds.
        fn becomes(&self, groups: Groups, search: Option<Groups>) {
            *self.groups.lock().expect("no panic") = groups;
            *self.search.lock().expect("no panic") = search;
        }

        fn answer(&self, seen: &Seen) -> CannedResponse {
            let is_search = seen.query("IncludeInstances").is_some();
            let omits = !is_search
                && self.omissions.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            let groups = match (is_search, *self.search.lock().expect("no panic")) {
                (true, None) => return CannedResponse::ok("<html/>".to_owned()),
                (true, Some(found)) => found,
                (false, _) => *self.groups.lock().expect("no panic"),
            };
            let asked: Vec<String> =
                (1..).map_while(|n| seen.query(&format!("AutoScalingGroupNames.member.{n}"))).collect();
            let is_wanted = |(name, _): &&(&str, &str)| asked.is_empty() || asked.iter().any(|one| one == name);
            let member = |(name, env): &(&str, &str)| {
                format!(
                    "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances/>\
                     <Tags><member><Key>env</Key><Value>{env}</Value></member></Tags></member>"
                )
            };
            let is_told = |(name, _): &&(&str, &str)| !(omits && *name == "web-2");
            let members: String = groups.iter().filter(is_wanted).filter(is_told).map(member).collect();
            CannedResponse::ok(format!(
                "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>{members}\
                 </AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"
            ))
        }
    }

    struct Bed {
        account: &'static Account,
        server: Responder,
        aws: Arc<Aws>,
        selection: GroupSelection,
        search: Search,
        start: Instant,
    }

    impl Bed {
        fn new(selection: GroupSelection) -> Self {
            let account = Account::leaked();
            let server = Responder::new(|seen: &Seen| account.answer(seen));
            let (aws, _) = aws(&server.url);
            Bed { account, server, aws, selection, search: Search::default(), start: Instant::now() }
        }

        /// The present groups and the missing entries at so many seconds, and how many searches were made up to then.
        fn fetch(&mut self, seconds: u64) -> Result<(String, String, usize), AwsError> {
            let budget = Budget::new(Duration::from_secs(5), Duration::from_secs(2));
            let now = self.start + Duration::from_secs(seconds);
            let found = self.search.fetch(&self.aws, &self.selection, &ParseCache::default(), &budget, now)?;
            // The next turn finds what this one's search found.
            self.search.learn(Duration::from_secs(5), &self.selection)?;
            let searches = self.server.seen().iter().filter(|seen| seen.query("IncludeInstances").is_some()).count();
            Ok((found.selected.present.join(" "), found.selected.missing.join(" "), searches))
        }

        #[track_caller]
        fn assert(&mut self, seconds: u64, present: &str, missing: &str, searches: usize) {
            let found = self.fetch(seconds).expect("an answer");
            assert_eq!(found, (present.to_owned(), missing.to_owned(), searches), "at {seconds}");
        }
    }

    const ONE: Groups = &[("web-1", "prod")];
    const TWO: Groups = &[("web-1", "prod"), ("web-2", "prod")];

    #[test]
    fn searches_add_groups_and_those_known_are_asked_about_by_name() {
        let mut bed = Bed::new(GroupSelection::named(&["web-*"]));
        bed.account.becomes(ONE, Some(ONE));
        bed.assert(0, "web-1", "", 1);
        bed.account.becomes(TWO, Some(TWO));
        bed.assert(29, "web-1", "", 1);
        bed.assert(30, "web-1", "", 2);
        bed.assert(31, "web-1 web-2", "", 2);
        // One answer that leaves a group out, or a search that fails, takes nothing away.
        bed.account.becomes(TWO, Some(ONE));
        bed.assert(60, "web-1 web-2", "", 3);
        bed.assert(61, "web-1 web-2", "", 3);
        bed.account.becomes(TWO, None);
        bed.assert(90, "web-1 web-2", "", 4);
        bed.assert(119, "web-1 web-2", "", 4);
        // A group that is gone is searched for at once, and so the one is found that takes its place.
        bed.account.becomes(&[("web-2", "prod"), ("web-3", "prod")], Some(&[("web-3", "prod")]));
        bed.assert(119, "web-2 web-3", "", 5);
        bed.account.becomes(&[], Some(&[]));
        bed.assert(120, "", "web-*", 6);
        bed.assert(122, "", "web-*", 6);
    }

    /// Two answers contradict each other: it is asked about once more before its servers are taken for gone.
    #[test]
    fn a_group_left_out_of_one_answer_that_a_search_still_finds_is_there() {
        let mut bed = Bed::new(GroupSelection::named(&["web-*"]));
        bed.account.becomes(TWO, Some(TWO));
        bed.assert(0, "web-1 web-2", "", 1);
        bed.account.omissions.store(1, Ordering::SeqCst);
        bed.assert(1, "web-1 web-2", "", 2);
        bed.assert(2, "web-1 web-2", "", 2);
    }

    #[test]
    fn a_group_that_loses_its_tag_is_none_at_once() {
        let tag = TagFilter { key: "env".to_owned(), value: Some("prod".to_owned()) };
        let mut bed = Bed::new(GroupSelection { names: vec![], tags: vec![tag] });
        bed.account.becomes(TWO, Some(TWO));
        bed.assert(0, "web-1 web-2", "", 1);
        bed.account.becomes(&[("web-1", "prod"), ("web-2", "test")], Some(ONE));
        bed.assert(1, "web-1", "", 1);
        bed.account.becomes(TWO, Some(ONE));
        bed.assert(2, "web-1 web-2", "", 1);
    }

    #[test]
    fn a_failed_first_search_is_an_error_unless_there_are_plain_names() {
        let mut bed = Bed::new(GroupSelection::named(&["web-*"]));
        for second in 0..3 {
            assert!(bed.fetch(second).is_err());
        }
        bed.account.becomes(ONE, Some(ONE));
        bed.assert(3, "web-1", "", 4);

        let mut mixed = Bed::new(GroupSelection::named(&["plain", "web-*"]));
        mixed.account.becomes(&[("plain", ""), ("web-1", "")], None);
        mixed.assert(0, "plain", "web-*", 1);
        mixed.assert(4, "plain", "web-*", 1);
        mixed.account.becomes(&[("plain", ""), ("web-1", "")], Some(ONE));
        mixed.assert(5, "plain web-1", "", 2);
    }

    #[test]
    fn aws_filters_by_tags_and_plain_names_need_no_search() {
        let tag = TagFilter { key: "env".to_owned(), value: Some("prod & more".to_owned()) };
        let any = TagFilter { key: "hsdo".to_owned(), value: None };
        let mut bed = Bed::new(GroupSelection { names: vec![NamePattern::new("web")], tags: vec![tag, any] });
        bed.account.becomes(&[], Some(&[]));
        bed.assert(0, "", "web", 1);
        let seen = bed.server.seen();
        let search = seen.iter().find(|seen| seen.query("IncludeInstances").is_some()).expect("a search");
        let filter = |text: &str| search.query(&format!("Filters.member.{text}")).unwrap_or_default();
        assert_eq!([filter("1.Name"), filter("1.Values.member.1")], ["tag%3Aenv", "prod%20%26%20more"]);
        assert_eq!([filter("2.Name"), filter("2.Values.member.1")], ["tag-key", "hsdo"]);
        let mut plain = Bed::new(GroupSelection::named(&["web"]));
        plain.assert(0, "", "web", 0);
    }
}
