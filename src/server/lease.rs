//! The lease on slot 1's item, from one server's point of view. Pure.
//!
//! A lease is alive while its heartbeat keeps changing, by the reader's own clock; clocks of two machines are never
//! compared. That only decides when to *try*: taking the lease is a conditional update, and each write of a leader is
//! conditional on the table still naming its term. A wrong guess here costs time, never a row.

use std::fmt;
use std::time::{Duration, Instant};

use crate::marker::{self, Claim, Marker, Moment, Stamp};

/// How often a leader beats: just under a second, so that it does every turn at an interval of one second.
const BEAT: Duration = Duration::from_millis(900);
/// How long a heartbeat may stay unchanged before another server tries to take over.
const EXPIRY: Duration = Duration::from_secs(6);

/// The unique name of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TermName {
    process: String,
    number: u64,
}

impl TermName {
    /// The first term of a process. `process` must be unique among all processes, past and future.
    pub(super) fn first(process: String) -> Self {
        TermName { process, number: 1 }
    }

    pub(super) fn next(&self) -> Self {
        TermName { process: self.process.clone(), number: self.number + 1 }
    }

    fn is(&self, leader: Option<&str>) -> bool {
        leader.is_some_and(|leader| leader == self.to_string())
    }
}

impl fmt::Display for TermName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.process, self.number)
    }
}

/// The lease as seen by a standby.
#[derive(Debug)]
pub(super) struct LeaseWatch {
    /// The name of its next term.
    term: TermName,
    rival: Option<Rival>,
    /// Since when the marker of a known leader is gone whole.
    gone_since: Option<Instant>,
    /// Whether the leader said, when it was last seen, that it cannot see the instances.
    blind: bool,
}

/// The lease as last seen, and since when.
#[derive(Debug)]
struct Rival {
    leader: Option<String>,
    heartbeat: Option<u64>,
    since: Instant,
    alive: bool,
}

impl LeaseWatch {
    pub(super) fn new(term: TermName) -> Self {
        LeaseWatch { term, rival: None, gone_since: None, blind: false }
    }

    pub(super) fn term(&self) -> &TermName {
        &self.term
    }

    pub(super) fn rival(&self) -> Option<&str> {
        self.rival.as_ref().and_then(|rival| rival.leader.as_deref())
    }

    /// Whether a leader said, when the marker was last seen, that it cannot see the instances: its lease may be taken by a server that
    /// sees them.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// When the leader's heartbeat was last seen to change; `None` if it was not.
    pub(super) fn alive_since(&self) -> Option<Instant> {
        self.rival.as_ref().filter(|rival| rival.alive).map(|rival| rival.since)
    }

    /// Records a marker that was requested at `asked` and arrived at `read`. A heartbeat counts as unchanged from its first
    /// arrival to the last request, so a process that was paused in between takes no live lease. Returns whether the lease may be taken: it is free, its heartbeat has not
    /// changed for [`EXPIRY`], or it names our own next term (we took it, but the response was lost).
    ///
    /// A marker that is gone whole was deleted with slot 1's item, or put over by a hand that knows none. Its leader notices within a
    /// second and writes again what else it knows of the item, so it counts as alive for [`EXPIRY`] after the marker was first seen
    /// gone: a process that was paused has not seen the last heartbeats.
    pub(super) fn see(&mut self, marker: &Marker, asked: Instant, read: Instant) -> bool {
        let expired = |rival: &Rival| asked.saturating_duration_since(rival.since) >= EXPIRY;
        self.blind = marker.blind && marker.leader.is_some();
        if marker.is_gone() && self.rival.as_ref().is_some_and(|rival| rival.leader.is_some()) {
            return asked.saturating_duration_since(*self.gone_since.get_or_insert(read)) >= EXPIRY;
        }
        self.gone_since = None;
        let same_leader = self.rival.as_ref().is_some_and(|rival| rival.leader == marker.leader);
        let unchanged = same_leader && self.rival.as_ref().is_some_and(|rival| rival.heartbeat == marker.heartbeat);
        if !unchanged {
            let (leader, heartbeat) = (marker.leader.clone(), marker.heartbeat);
            self.rival = Some(Rival { leader, heartbeat, since: read, alive: same_leader });
        }
        marker.leader.is_none() || self.term.is(marker.leader.as_deref()) || self.rival.as_ref().is_some_and(expired)
    }

    /// The claim to the lease in `seen`. It raises the version, as rows may have changed since the last leader read them.
    pub(super) fn claim(&self, seen: &Marker, now: Moment) -> Claim {
        Claim {
            version: marker::next(seen.version, now.time),
            heartbeat: marker::next(seen.heartbeat, now.time),
            leader: self.term.to_string(),
        }
    }
}

/// The lease as seen by its holder.
#[derive(Debug)]
pub(super) struct HeldLease {
    term: TermName,
    version: Option<u64>,
    heartbeat: Option<u64>,
    last_beat: Instant,
}

impl HeldLease {
    pub(super) fn new(term: TermName, claim: &Claim, now: Instant) -> Self {
        HeldLease { term, version: Some(claim.version), heartbeat: Some(claim.heartbeat), last_beat: now }
    }

    pub(super) fn term(&self) -> &TermName {
        &self.term
    }

    /// The version of the table as this term last read or wrote it.
    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    /// Whether `marker` still names our term. If so, our counters rise above its own, whoever wrote them. They never fall back to
    /// them: in a table restored from a backup the next ones would be those of before, and say nothing to clients that saw them.
    pub(super) fn confirm(&mut self, marker: &Marker) -> bool {
        let ours = self.term.is(marker.leader.as_deref());
        if ours {
            self.version = self.version.max(marker.version);
            self.heartbeat = self.heartbeat.max(marker.heartbeat);
        }
        ours
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_beat) >= BEAT
    }

    /// The next stamp: a new heartbeat, with `raise` a new version, and whether this server is `blind`. Neither number is used twice: the
    /// response to the last one may be lost, and whoever saw it must see the next one as a change.
    pub(super) fn stamp(&mut self, raise: bool, blind: bool, now: Moment) -> Stamp {
        let heartbeat = marker::next(self.heartbeat, now.time);
        self.heartbeat = Some(heartbeat);
        let version = raise.then(|| marker::next(self.version, now.time));
        self.version = version.or(self.version);
        Stamp { version, heartbeat, leader: self.term.to_string(), blind }
    }

    pub(super) fn wrote(&mut self, stamp: &Stamp, now: Instant) {
        self.version = stamp.version.or(self.version);
        self.last_beat = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn seen(leader: &str, heartbeat: u64) -> Marker {
        let leader = (leader != "-").then(|| leader.to_owned());
        Marker { version: Some(7), heartbeat: Some(heartbeat), leader, blind: false }
    }

    fn moment(millis: i64) -> Moment {
        Moment { time: Timestamp::from_micros(millis * 1_000), clock: Instant::now() }
    }

    #[test]
    fn a_lease_may_be_taken_when_it_is_free_or_its_heartbeat_has_stopped() {
        /// Second, leader and heartbeat seen, and whether the lease may be taken then.
        type Case<'a> = (&'a str, &'a [(u64, &'a str, u64, bool)]);
        let cases: [Case<'_>; 6] = [
            ("free: at once", &[(0, "-", 1, true)]),
            ("a live leader", &[(0, "a", 1, false), (5, "a", 2, false), (10, "a", 3, false), (15, "a", 4, false)]),
            ("it died", &[(0, "a", 1, false), (1, "a", 2, false), (6, "a", 2, false), (7, "a", 2, true)]),
            ("it was released", &[(0, "a", 1, false), (1, "-", 1, true)]),
            (
                "another server took it first",
                &[(0, "a", 1, false), (6, "a", 1, true), (7, "b", 2, false), (12, "b", 2, false), (13, "b", 2, true)],
            ),
            ("our own, whose response was lost", &[(0, "me/1", 1, true)]),
        ];
        let start = Instant::now();
        for (name, steps) in cases {
            let mut watch = LeaseWatch::new(TermName::first("me".to_owned()));
            for (second, leader, heartbeat, expected) in steps {
                let now = start + Duration::from_secs(*second);
                let may = watch.see(&seen(leader, *heartbeat), now, now);
                assert_eq!(may, *expected, "{name}, at {second}");
            }
        }
    }

    #[test]
    fn a_marker_that_is_gone_belongs_to_its_leader_for_a_while() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let gone = Marker::default();
        let mut watch = LeaseWatch::new(TermName::first("me".to_owned()));
        assert!(watch.see(&gone, at(0), at(0)), "nobody is known to lead");
        assert!(!watch.see(&seen("a", 1), at(1), at(1)));
        assert!(!watch.see(&gone, at(2), at(2)) && !watch.see(&gone, at(7), at(7)));
        assert!(watch.see(&gone, at(8), at(8)), "its leader is gone too");
        assert!(watch.see(&seen("-", 1), at(9), at(9)), "a lease that was released is free at once");
        // Paused for a minute, it has not seen how the leader's heartbeat went on.
        assert!(!watch.see(&seen("a", 2), at(10), at(10)));
        assert!(!watch.see(&gone, at(70), at(70)) && !watch.see(&gone, at(75), at(75)));
        assert!(!watch.see(&seen("a", 3), at(76), at(76)), "it wrote again what was deleted");
        assert!(!watch.see(&gone, at(77), at(77)) && watch.see(&gone, at(83), at(83)));
    }

    #[test]
    fn a_leader_is_blind_while_it_says_so() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let blind = |leader: &str, heartbeat| Marker { blind: true, ..seen(leader, heartbeat) };
        let mut watch = LeaseWatch::new(TermName::first("me".to_owned()));
        assert!(!watch.see(&seen("a", 1), at(0), at(0)) && !watch.is_blind());
        assert!(
            !watch.see(&blind("a", 2), at(1), at(1)),
            "its heart beats: only a server that sees may take its lease"
        );
        assert!(watch.is_blind());
        assert!(!watch.see(&seen("a", 3), at(2), at(2)) && !watch.is_blind(), "it sees again");
        assert!(!watch.see(&blind("a", 4), at(3), at(3)) && watch.is_blind());
        let left = Marker { blind: true, ..Marker::default() };
        assert!(!watch.see(&left, at(4), at(4)), "the rest of a marker is gone like a whole one");
        assert!(!watch.is_blind() && watch.see(&left, at(10), at(10)));
        assert!(watch.see(&blind("-", 4), at(11), at(11)) && !watch.is_blind(), "nobody is blind");
    }

    /// A suspended process must look twice before it takes over.
    #[test]
    fn a_heartbeat_that_changed_between_two_looks_is_alive() {
        let start = Instant::now();
        let mut watch = LeaseWatch::new(TermName::first("me".to_owned()));
        assert!(!watch.see(&seen("a", 1), start, start));
        assert_eq!(watch.alive_since(), None, "seen once is not seen to change");
        let later = start + Duration::from_secs(100);
        assert!(!watch.see(&seen("a", 9), later, later));
        assert_eq!((watch.alive_since(), watch.rival()), (Some(later), Some("a")));
    }

    /// A process that is paused between its clock and its request sees a heartbeat that is newer than its clock says.
    #[test]
    fn a_pause_before_a_request_is_no_time_without_a_heartbeat() {
        let start = Instant::now();
        let mut watch = LeaseWatch::new(TermName::first("me".to_owned()));
        let resumed = start + Duration::from_secs(60);
        assert!(!watch.see(&seen("a", 1), start, resumed));
        assert!(!watch.see(&seen("a", 1), resumed, resumed), "it is 0 s old, not 60");
    }

    #[test]
    fn each_heartbeat_is_a_new_one_even_if_the_response_to_the_last_was_lost() {
        let watch = LeaseWatch::new(TermName::first("me".to_owned()));
        let claim = watch.claim(&seen("a", 5_000), moment(1_000));
        let mut held = HeldLease::new(watch.term().clone(), &claim, Instant::now());
        let beats = [(); 3].map(|()| held.stamp(false, false, moment(1_000)).heartbeat);
        assert_eq!(beats, [5_002, 5_003, 5_004]);
    }

    #[test]
    fn a_term_is_won_kept_and_lost() {
        let start = Instant::now();
        let watch = LeaseWatch::new(TermName::first("me".to_owned()));
        let claim = watch.claim(&seen("a", 5_000), moment(1_000));
        assert_eq!(claim, Claim { version: 1_000, heartbeat: 5_001, leader: "me/1".to_owned() });
        let mut held = HeldLease::new(watch.term().clone(), &claim, start);
        assert!(!held.is_due(start) && held.is_due(start + Duration::from_secs(1)));

        let beat = held.stamp(false, false, moment(1_000));
        assert_eq!(beat, Stamp { version: None, heartbeat: 5_002, leader: "me/1".to_owned(), blind: false });
        held.wrote(&beat, start + Duration::from_secs(1));
        assert!(!held.is_due(start + Duration::from_secs(1)));
        assert_eq!(held.stamp(true, false, moment(1_000)).version, Some(1_001), "a beat leaves the version as it was");

        assert!(held.confirm(&Marker { leader: Some("me/1".to_owned()), ..seen("-", 70_000) }));
        assert_eq!(held.stamp(true, false, moment(1_000)).heartbeat, 70_001, "above what someone else wrote");
        let restored = Marker { leader: Some("me/1".to_owned()), ..seen("-", 5_001) };
        assert!(held.confirm(&restored));
        let next = held.stamp(true, false, moment(1_000));
        assert_eq!(
            (next.version, next.heartbeat),
            (Some(1_003), 70_002),
            "above its own, whatever a restored table has"
        );
        assert!(!held.confirm(&seen("b", 1)) && !held.confirm(&seen("-", 1)));
        assert_eq!(held.term().next().to_string(), "me/2", "no two terms have one name");
    }
}
