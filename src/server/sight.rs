//! Whether servers see the instances, as far as the lease depends on it. Pure.
//!
//! A leader keeps its lease while its source fails, because in a general outage no other server sees more, and clients are served by
//! its heartbeat. If it fails for long, the leader says so, and a standby whose own source answers takes over. The source may be in
//! trouble because too many ask, so a standby that sees no more than the leader asks rarely.

use std::time::{Duration, Instant};

/// How long the source of a leader must have failed in every turn before the leader says that it is blind: long enough for what
/// passes, such as throttling, or a call that hangs and is made again.
const BLIND: Duration = Duration::from_secs(15);
/// How long a standby waits, after its own source failed, before it tries again to see more than a blind leader.
const RETRY: Duration = Duration::from_secs(15);

/// What a leader sees.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// When the first of the turns began in which the source has failed since it last answered.
    failing_since: Option<Instant>,
    blind: bool,
}

impl Sight {
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// The source failed in the turn that began at `turn`. Returns whether that made the leader blind: a turn that failed alone does
    /// not, however long ago it was.
    pub(super) fn failed(&mut self, turn: Instant) -> bool {
        let since = *self.failing_since.get_or_insert(turn);
        let is_new = !self.blind && turn.saturating_duration_since(since) >= BLIND;
        self.blind |= is_new;
        is_new
    }

    /// The source answered. Returns whether the leader was blind until now.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::take(self).blind
    }
}

/// The attempts of a standby to see more than a blind leader.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: Option<Instant>,
}

impl Attempts {
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.failed.is_none_or(|failed| now.saturating_duration_since(failed) >= RETRY)
    }

    /// The attempt of the turn that began at `turn` failed. Returns whether it is the first one beside this leader.
    pub(super) fn failed(&mut self, turn: Instant) -> bool {
        self.failed.replace(turn).is_none()
    }

    /// The leader sees its instances, or somebody else leads.
    pub(super) fn reset(&mut self) {
        self.failed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_blind_once_its_source_has_failed_in_every_turn_for_15_seconds() {
        /// Second of a turn, whether the source answered, and whether the leader is blind after it.
        type Case<'a> = (&'a str, &'a [(u64, bool, bool)]);
        let cases: [Case<'_>; 6] = [
            ("it answers", &[(0, true, false), (100, true, false)]),
            ("it fails for long", &[(0, false, false), (7, false, false), (14, false, false), (15, false, true)]),
            ("it answers in between", &[(0, false, false), (14, false, false), (15, true, false), (16, false, false)]),
            ("a turn that failed alone, long ago", &[(0, false, false), (3_600, true, false)]),
            ("turns that are far apart", &[(0, false, false), (3_600, false, true)]),
            (
                "it answers again, and fails again",
                &[(0, false, false), (20, false, true), (30, false, true), (31, true, false), (45, false, false)],
            ),
        ];
        let start = Instant::now();
        for (name, steps) in cases {
            let mut sight = Sight::default();
            for (second, answered, expected) in steps {
                let was_blind = sight.is_blind();
                let changed = match answered {
                    true => sight.answered(),
                    false => sight.failed(start + Duration::from_secs(*second)),
                };
                assert_eq!(sight.is_blind(), *expected, "{name}, at {second}");
                assert_eq!(changed, was_blind != *expected, "{name}, at {second}: told once");
            }
        }
    }

    #[test]
    fn a_standby_that_sees_no_more_tries_again_after_15_seconds() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut attempts = Attempts::default();
        assert!(attempts.are_due(at(0)));
        assert!(attempts.failed(at(0)), "told");
        assert!(!attempts.are_due(at(1)) && !attempts.are_due(at(14)) && attempts.are_due(at(15)));
        assert!(!attempts.failed(at(15)), "told already");
        assert!(!attempts.are_due(at(29)) && attempts.are_due(at(30)));
        attempts.reset();
        assert!(attempts.are_due(at(16)) && attempts.failed(at(16)), "another leader, or the same one blind again");
    }
}
