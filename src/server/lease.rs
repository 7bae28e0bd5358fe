//! Who may write: the lease on slot 1's item, as one server sees it. Pure; the table is asked by `server`.
//!
//! A lease is held while its heartbeat keeps changing, as seen on the reader's own clock; two machines' clocks are never
//! compared. That only decides when to *try*: taking it is a conditional update, and every write of a leader carries the
//! condition that the table still names its term. So a wrong guess here costs time and never a row.

use std::time::{Duration, Instant};

use crate::marker::{self, Claim, Marker, Moment, Stamp};

/// How often a leader shows that it lives: less than a second, so that turns of a second each do so.
const BEAT: Duration = Duration::from_millis(900);
/// How long a heartbeat may stand still before another server tries to take over.
const EXPIRY: Duration = Duration::from_secs(6);

/// The lease as this process sees it.
#[derive(Debug)]
pub(super) struct Lease {
    process: String,
    term: u64,
    held: Option<Held>,
    rival: Option<Rival>,
}

/// A term of our own.
#[derive(Debug)]
struct Held {
    version: Option<u64>,
    heartbeat: Option<u64>,
    beat: Instant,
}

/// What another one's lease showed last, and since when it shows that.
#[derive(Debug)]
struct Rival {
    leader: Option<String>,
    heartbeat: Option<u64>,
    since: Instant,
    /// Whether its heartbeat was seen to change.
    alive: bool,
}

impl Lease {
    /// For a process by a name that no other has, now or later.
    pub(super) fn new(process: String) -> Self {
        Lease { process, term: 1, held: None, rival: None }
    }

    /// The name of our term: the one we hold, or the next one.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.process, self.term)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Who holds it as far as we saw; `None` where we do, where nobody does, or where we did not look yet.
    pub(super) fn rival(&self) -> Option<&str> {
        self.rival.as_ref().and_then(|rival| rival.leader.as_deref())
    }

    /// Since when the other one's lease shows what it shows.
    pub(super) fn rival_since(&self) -> Option<Instant> {
        self.rival.as_ref().map(|rival| rival.since)
    }

    /// Whether the other one's heartbeat was seen to change.
    pub(super) fn rival_is_alive(&self) -> bool {
        self.rival.as_ref().is_some_and(|rival| rival.alive)
    }

    /// Notes what the marker shows, read after `now`, and tells whether the lease may be taken: nobody has it, its
    /// heartbeat stood still for [`EXPIRY`], or it names our own next term (the answer to our taking it was lost).
    pub(super) fn watch(&mut self, seen: &Marker, now: Instant) -> bool {
        let same_leader = self.rival.as_ref().is_some_and(|rival| rival.leader == seen.leader);
        let unchanged = same_leader && self.rival.as_ref().is_some_and(|rival| rival.heartbeat == seen.heartbeat);
        if !unchanged {
            let (leader, heartbeat) = (seen.leader.clone(), seen.heartbeat);
            self.rival = Some(Rival { leader, heartbeat, since: now, alive: same_leader });
        }
        let stands = |rival: &Rival| now.saturating_duration_since(rival.since) >= EXPIRY;
        seen.leader.is_none() || seen.leader == Some(self.name()) || self.rival.as_ref().is_some_and(stands)
    }

    /// What to write to take the lease from `seen`. The version rises: rows may have changed since its last leader looked.
    pub(super) fn claim(&self, seen: &Marker, now: Moment) -> Claim {
        Claim {
            version: marker::next(seen.version, now.time),
            heartbeat: marker::next(seen.heartbeat, now.time),
            leader: self.name(),
        }
    }

    /// `written` was accepted: we hold the lease.
    pub(super) fn won(&mut self, written: &Claim, now: Instant) {
        self.held = Some(Held { version: Some(written.version), heartbeat: Some(written.heartbeat), beat: now });
        self.rival = None;
    }

    /// Another one holds it, or nobody: our next term has another name.
    pub(super) fn lost(&mut self) {
        if self.held.take().is_some() {
            self.term += 1;
        }
    }

    /// Whether a marker that was read names our term. If so its numbers are noted: ours rise above them.
    pub(super) fn confirm(&mut self, seen: &Marker) -> bool {
        let ours = seen.leader == Some(self.name());
        if let (Some(held), true) = (&mut self.held, ours) {
            (held.version, held.heartbeat) = (seen.version, seen.heartbeat);
        }
        ours
    }

    /// Whether the heartbeat is to be written.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.held.as_ref().is_some_and(|held| now.saturating_duration_since(held.beat) >= BEAT)
    }

    /// The next heartbeat, and with `raise` the next version too.
    pub(super) fn next(&self, raise: bool, now: Moment) -> Stamp {
        let (version, heartbeat) = self.held.as_ref().map_or((None, None), |held| (held.version, held.heartbeat));
        Stamp {
            version: raise.then(|| marker::next(version, now.time)),
            heartbeat: marker::next(heartbeat, now.time),
            leader: self.name(),
        }
    }

    /// `written` was accepted, and is what the table shows now.
    pub(super) fn wrote(&mut self, written: &Stamp, now: Instant) {
        if let Some(held) = &mut self.held {
            held.version = written.version.or(held.version);
            held.heartbeat = Some(written.heartbeat);
            held.beat = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn seen(leader: &str, heartbeat: u64) -> Marker {
        let leader = (leader != "-").then(|| leader.to_owned());
        Marker { version: Some(7), heartbeat: Some(heartbeat), leader }
    }

    fn moment(millis: i64) -> Moment {
        Moment { time: Timestamp::from_micros(millis * 1_000), clock: Instant::now() }
    }

    #[test]
    fn a_lease_may_be_taken_when_nobody_has_it_or_its_heartbeat_stands_still() {
        /// What is seen at which second, and whether the lease may be taken then.
        type Case<'a> = (&'a str, &'a [(u64, &'a str, u64, bool)]);
        let cases: [Case<'_>; 6] = [
            ("nobody has it: at once", &[(0, "-", 1, true)]),
            ("a live leader", &[(0, "a", 1, false), (5, "a", 2, false), (10, "a", 3, false), (15, "a", 4, false)]),
            ("it died", &[(0, "a", 1, false), (1, "a", 2, false), (6, "a", 2, false), (7, "a", 2, true)]),
            ("it let go", &[(0, "a", 1, false), (1, "-", 1, true)]),
            (
                "another one was quicker",
                &[(0, "a", 1, false), (6, "a", 1, true), (7, "b", 2, false), (12, "b", 2, false), (13, "b", 2, true)],
            ),
            ("our own, of which we never heard", &[(0, "me/1", 1, true)]),
        ];
        let start = Instant::now();
        for (name, steps) in cases {
            let mut lease = Lease::new("me".to_owned());
            for (second, leader, heartbeat, expected) in steps {
                let may = lease.watch(&seen(leader, *heartbeat), start + Duration::from_secs(*second));
                assert_eq!(may, *expected, "{name}, at {second}");
            }
        }
    }

    /// A stopped process that wakes up has a long time behind it, and must look before it judges.
    #[test]
    fn a_heartbeat_that_changed_while_nobody_looked_is_alive() {
        let start = Instant::now();
        let mut lease = Lease::new("me".to_owned());
        assert!(!lease.watch(&seen("a", 1), start));
        assert!(!lease.rival_is_alive(), "seen once is not seen to change");
        assert!(!lease.watch(&seen("a", 9), start + Duration::from_secs(100)));
        assert!(lease.rival_is_alive());
        assert_eq!(lease.rival(), Some("a"));
    }

    #[test]
    fn a_term_is_won_kept_and_lost() {
        let start = Instant::now();
        let mut lease = Lease::new("me".to_owned());
        let claim = lease.claim(&seen("a", 5_000), moment(1_000));
        assert_eq!(claim, Claim { version: 1_000, heartbeat: 5_001, leader: "me/1".to_owned() });
        assert!(!lease.is_held() && !lease.is_due(start));
        lease.won(&claim, start);
        assert!(lease.is_held() && !lease.is_due(start) && lease.is_due(start + Duration::from_secs(1)));

        let beat = lease.next(false, moment(1_000));
        assert_eq!(beat, Stamp { version: None, heartbeat: 5_002, leader: "me/1".to_owned() });
        lease.wrote(&beat, start + Duration::from_secs(1));
        assert!(!lease.is_due(start + Duration::from_secs(1)));
        assert_eq!(lease.next(true, moment(1_000)).version, Some(1_001), "a beat leaves the version as it was");

        assert!(lease.confirm(&Marker { leader: Some("me/1".to_owned()), ..seen("-", 70_000) }));
        assert_eq!(lease.next(true, moment(1_000)).heartbeat, 70_001, "above what another hand wrote");
        assert!(!lease.confirm(&seen("b", 1)) && !lease.confirm(&seen("-", 1)));
        lease.lost();
        assert!(!lease.is_held());
        assert_eq!(lease.name(), "me/2", "no two terms have one name");
        lease.lost();
        assert_eq!(lease.name(), "me/2");
    }
}
