//! The order in which a turn sends its steps. Pure, and shared by the loop, `--dry-run`, the property tests and the fuzz targets.

use std::collections::BTreeMap;

use super::reconcile::{BackendPlan, Step};
use crate::ports::Change;
use crate::slot::SlotId;

/// The most readings of a backend in one turn. A new server takes two steps, and a third if a static algorithm refuses its weight;
/// taking others out takes one more; each is followed by a reading.
pub(super) const PASSES: usize = 10;

/// In how many readings steps that lower wait for other backends: one that never gets done must not keep a dead server in another.
const PATIENCE: usize = 5;

/// What to do after a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send these steps, and read again.
    Send(Vec<Step>),
    /// Read again: HAProxy 3.0 and later change an address a moment after they confirm it (measured).
    Reread,
    /// End the turn.
    Done,
}

/// One turn of one backend. Steps that raise are sent first, and the backend is read again; steps that lower follow when nothing is
/// left to raise, in any backend: a server may be on its way from one backend to another, and perhaps all of them. If a step that was sent is still needed after one more reading, it had no effect: it is not sent again, and the
/// steps that lower do not wait for it.
#[derive(Clone, Debug, Default)]
pub struct Sequencer {
    sent: BTreeMap<SlotId, Vec<Vec<Change>>>,
    passes: usize,
    reread: bool,
}

impl Sequencer {
    /// What to do, by the steps that the last reading needs. `raises` is whether any backend
    /// [raises](Sequencer::raises) now.
    pub fn next(&mut self, needed: &BackendPlan, raises: bool) -> Next {
        self.passes += 1;
        if self.passes >= PASSES {
            return Next::Done;
        }
        let mut steps = self.fresh(&needed.raise);
        if steps.is_empty() {
            if self.raises(needed) || raises && self.passes <= PATIENCE {
                self.reread = true;
                return Next::Reread;
            }
            steps = self.fresh(&needed.lower);
        }
        if steps.is_empty() {
            return Next::Done;
        }
        self.reread = false;
        for step in &steps {
            self.sent.entry(step.slot).or_default().push(step.changes.clone());
        }
        Next::Send(steps)
    }

    /// Whether steps that raise are to be sent, or may still take effect.
    pub fn raises(&self, needed: &BackendPlan) -> bool {
        !self.fresh(&needed.raise).is_empty() || !needed.raise.is_empty() && !self.reread
    }

    /// The steps that were not sent yet.
    fn fresh(&self, steps: &[Step]) -> Vec<Step> {
        let was_sent = |step: &Step| self.sent.get(&step.slot).is_some_and(|sent| sent.contains(&step.changes));
        steps.iter().filter(|step| !was_sent(step)).cloned().collect()
    }

    /// Forgets what was sent, because another process answers.
    pub fn reset(&mut self) {
        self.sent.clear();
        self.reread = false;
    }

    /// How many changes are still needed: they had no effect, or the turn ended before them.
    pub fn left(needed: &BackendPlan) -> usize {
        needed.raise.iter().chain(&needed.lower).map(|step| step.changes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(slot: SlotId, weight: u16) -> Step {
        Step { slot, changes: vec![Change::Weight(weight)] }
    }

    fn plan(raise: &[Step], lower: &[Step]) -> BackendPlan {
        BackendPlan { raise: raise.to_vec(), lower: lower.to_vec(), ..BackendPlan::default() }
    }

    fn next_alone(turn: &mut Sequencer, needed: &BackendPlan) -> Next {
        let raises = turn.raises(needed);
        turn.next(needed, raises)
    }

    #[test]
    fn what_lowers_waits_until_no_backend_raises() {
        let mut turn = Sequencer::default();
        let needed = plan(&[], &[step(1, 0)]);
        assert_eq!(turn.next(&needed, true), Next::Reread);
        assert_eq!(turn.next(&needed, true), Next::Reread);
        assert_eq!(turn.next(&needed, false), Next::Send(vec![step(1, 0)]));
        assert_eq!(turn.next(&needed, false), Next::Done);
        let mut turn = Sequencer::default();
        let waits = (1..100).take_while(|_| turn.next(&needed, true) == Next::Reread);
        assert_eq!(waits.count(), PATIENCE, "one that never gets done");
    }

    #[test]
    fn a_step_without_effect_is_not_repeated_and_blocks_nothing() {
        let mut turn = Sequencer::default();
        let (stuck, good, next, last) = (|| step(1, 5), || step(2, 5), || step(2, 6), || step(3, 0));
        for (name, raise, expected) in [
            ("both are raised", vec![stuck(), good()], Next::Send(vec![stuck(), good()])),
            ("one is done, its next stage comes", vec![stuck(), next()], Next::Send(vec![next()])),
            ("only the stuck one is left to raise: it may be late", vec![stuck()], Next::Reread),
            ("it is not late", vec![stuck()], Next::Send(vec![last()])),
            ("that may be late too", vec![stuck()], Next::Reread),
            ("it did not help either", vec![stuck()], Next::Done),
        ] {
            assert_eq!(next_alone(&mut turn, &plan(&raise, &[last()])), expected, "{name}");
        }
        assert_eq!(Sequencer::left(&plan(&[stuck()], &[last()])), 2);
    }

    #[test]
    fn another_process_is_sent_everything_and_the_turn_still_ends() {
        let mut turn = Sequencer::default();
        let fill = || plan(&[step(1, 5)], &[]);
        let sent = (1..100).take_while(|_| {
            turn.reset();
            next_alone(&mut turn, &fill()) == Next::Send(vec![step(1, 5)])
        });
        assert_eq!(sent.count(), PASSES - 1);
    }

    #[test]
    fn a_turn_always_ends() {
        let mut turn = Sequencer::default();
        let sent =
            (1..100_u16).take_while(|weight| next_alone(&mut turn, &plan(&[step(1, *weight)], &[])) != Next::Done);
        assert_eq!(sent.count(), PASSES - 1);
    }
}
