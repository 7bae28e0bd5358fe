//! Decides when an instance that its terminating lifecycle hook holds back may go. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::balancer::BalancerReport;
use crate::clock::Timestamp;
use crate::ports::Holding;
use crate::slot::{Slot, Status};

/// Why an instance may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayGo {
    /// It has no slot.
    NoSlot,
    /// No load balancer has a session on it any more.
    Drained,
    /// `SERVER_DRAIN_SECONDS` have passed.
    Deadline,
}

/// What the decision about one instance depends on.
pub(super) struct Facts<'a> {
    /// Its slot, as the turn left it.
    pub(super) slot: Option<&'a Slot>,
    /// A version of the table in which it drains at weight 0; `None` if it does not yet.
    pub(super) drained_in: Option<u64>,
    /// The load balancers that count; `None` if their reports could not be read in this turn.
    pub(super) live: Option<&'a BTreeMap<&'a str, &'a BalancerReport>>,
    /// Since when it drains, or, without a slot, since when it is known to wait.
    pub(super) since: Timestamp,
    /// A row cannot be read, and may be its own.
    pub(super) may_hide: bool,
}

/// Whether the instance may go at `now`, or what holds it.
pub(super) fn decide(facts: &Facts<'_>, now: Timestamp, drain: Duration) -> Result<MayGo, Holding> {
    let is_over = now.since(facts.since).is_some_and(|waited| waited >= drain);
    match hold(facts, drain) {
        Err(_) if is_over => Ok(MayGo::Deadline),
        found => found,
    }
}

/// What holds the instance, the deadline apart.
fn hold(facts: &Facts<'_>, drain: Duration) -> Result<MayGo, Holding> {
    let mut holding = Holding { until: Some(facts.since.plus(drain)), ..Holding::default() };
    let Some(slot) = facts.slot else {
        return if facts.may_hide { Err(holding) } else { Ok(MayGo::NoSlot) };
    };
    let (Some(version), Some(live)) = (facts.drained_in, facts.live) else { return Err(holding) };
    for (name, report) in live {
        match report.sessions.get(&slot.id) {
            Some(0) if report.version >= Some(version) => {}
            Some(count) if report.version >= Some(version) => {
                holding.sessions.insert((*name).to_owned(), *count);
            }
            _ => holding.behind.push((*name).to_owned()),
        }
    }
    let is_empty = holding.sessions.is_empty() && holding.behind.is_empty();
    if is_empty && !live.is_empty() { Ok(MayGo::Drained) } else { Err(holding) }
}

/// Whether the slot's server drains and gets no new requests.
pub(super) fn is_out(slot: &Slot) -> bool {
    slot.occupant.as_ref().is_some_and(|occupant| occupant.status == Status::Draining && occupant.weight == 0)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, rows};
    use super::*;

    fn reports(text: &str) -> BTreeMap<String, BalancerReport> {
        // "name version slot=sessions ...", separated by semicolons.
        let one = |part: &str| {
            let mut words = part.split_whitespace();
            let name = words.next().expect("a name").to_owned();
            let version = words.next().and_then(|word| word.parse().ok());
            let sessions = words.map(|word| word.split_once('=').expect("a count"));
            let sessions = sessions.map(|(slot, count)| (slot.parse().unwrap(), count.parse().unwrap())).collect();
            (name, BalancerReport { version, sessions, ..BalancerReport::default() })
        };
        text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
    }

    #[test]
    fn an_instance_goes_once_no_balancer_has_a_session_on_it_or_at_the_deadline() {
        /// Name, its row, version in which it drains, the reports, seconds that it has drained of 300, what happens.
        type Case<'a> = (&'a str, &'a str, Option<u64>, Option<&'a str>, u64, &'a str);
        let row = "3 .3 i3 a draining 0";
        #[rustfmt::skip]
        let cases: [Case<'_>; 15] = [
            ("nothing runs anywhere", row, Some(5), Some("a 5 3=0; b 9 3=0"), 1, "drained"),
            ("one has two sessions", row, Some(5), Some("a 5 3=0; b 9 3=2"), 1, "b=2"),
            ("one is behind", row, Some(5), Some("a 5 3=0; b 4 3=0"), 1, "b"),
            ("one never matched", row, Some(5), Some("a - 3=0"), 1, "a"),
            ("one does not know that it drains", row, Some(5), Some("a 5"), 1, "a"),
            ("one tells of another slot", row, Some(5), Some("a 5 4=0"), 1, "a"),
            ("one tells of another slot too", row, Some(5), Some("a 5 3=0 4=7"), 1, "drained"),
            ("no balancer", row, Some(5), Some(""), 1, ""),
            ("the reports cannot be read", row, Some(5), None, 1, ""),
            ("the last resort", row, None, Some("a 5 3=0"), 1, ""),
            ("just before the deadline", row, Some(5), Some("a 5 3=1"), 299, "a=1"),
            ("the deadline", row, Some(5), Some("a 5 3=1"), 300, "deadline"),
            ("the deadline without reports", row, None, None, 300, "deadline"),
            ("no slot", "", None, None, 0, "no slot"),
            ("drained long ago", row, Some(5), Some("a 5 3=0"), 3_000, "drained"),
        ];
        for (name, row, drained_in, text, waited, expected) in cases {
            let (slots, owned) = (rows(row), text.map(reports));
            let live = owned.as_ref().map(|all| all.iter().map(|(name, report)| (name.as_str(), report)).collect());
            let slot = slots.get(&3);
            let facts = Facts { slot, drained_in, live: live.as_ref(), since: at(1_000), may_hide: false };
            let found = match decide(&facts, at(1_000).plus(Duration::from_secs(waited)), Duration::from_secs(300)) {
                Ok(MayGo::NoSlot) => "no slot".to_owned(),
                Ok(MayGo::Drained) => "drained".to_owned(),
                Ok(MayGo::Deadline) => "deadline".to_owned(),
                Err(Holding { sessions, behind, .. }) => {
                    let sessions = sessions.iter().map(|(name, count)| format!("{name}={count}"));
                    sessions.chain(behind).collect::<Vec<_>>().join(" ")
                }
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_may_be_its_own() {
        let facts = Facts { slot: None, drained_in: None, live: None, since: at(0), may_hide: true };
        assert!(decide(&facts, at(299), Duration::from_secs(300)).is_err());
        assert_eq!(decide(&facts, at(300), Duration::from_secs(300)), Ok(MayGo::Deadline));
    }

    #[test]
    fn which_slots_are_out() {
        for (row, expected) in [
            ("1 .1 i1 a draining 0", true),
            ("1 .1 i1 a draining 3", false),
            ("1 .1 i1 a enabled 0", false),
            ("1 .1 i1 a disabled 0", false),
            ("1 free", false),
        ] {
            assert_eq!(is_out(&rows(row)[&1]), expected, "{row}");
        }
    }
}
