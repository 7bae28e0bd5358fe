//! In which order a turn sends what its plans ask for. Pure: the loop, `--dry-run`, the properties and the fuzz targets drive it
//! alike.

use std::collections::BTreeMap;

use super::reconcile::{BackendSteps, Step};
use crate::ports::Change;
use crate::slot::SlotId;

/// How often a backend is read at most in one turn. A new server takes two stages, and one more where a static algorithm refuses
/// its weight; taking others out takes one more; each is proved by the reading after it.
pub(super) const PASSES: usize = 10;

/// What a turn does after a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It sends these steps, and reads again.
    Send(Vec<Step>),
    /// It reads again: HAProxy 3.0 and later put an address in place a moment after they said so (measured).
    Reread,
    /// It is over.
    Done,
}

/// One turn of one backend. What raises is sent first, and the backend is read again after it; what lowers is sent when nothing is
/// left to raise. A step that was sent and is asked for again is looked for once more; then it did not help, so it is not sent a
/// second time, and what lowers is not kept waiting for it.
#[derive(Clone, Debug, Default)]
pub struct Sequencer {
    sent: BTreeMap<SlotId, Vec<Vec<Change>>>,
    passes: usize,
    looked: bool,
}

impl Sequencer {
    /// What to do for a plan of the last reading.
    pub fn next(&mut self, plan: &BackendSteps) -> Next {
        self.passes += 1;
        if self.passes >= PASSES {
            return Next::Done;
        }
        let was_sent = |step: &Step| self.sent.get(&step.slot).is_some_and(|sent| sent.contains(&step.changes));
        let fresh = |steps: &[Step]| steps.iter().filter(|step| !was_sent(step)).cloned().collect::<Vec<_>>();
        let mut steps = fresh(&plan.raise);
        if steps.is_empty() {
            if !plan.raise.is_empty() && !std::mem::replace(&mut self.looked, true) {
                return Next::Reread;
            }
            steps = fresh(&plan.lower);
        }
        if steps.is_empty() {
            return Next::Done;
        }
        self.looked = false;
        for step in &steps {
            self.sent.entry(step.slot).or_default().push(step.changes.clone());
        }
        Next::Send(steps)
    }

    /// Another process answers: nothing was sent to it yet.
    pub fn start_over(&mut self) {
        self.sent.clear();
        self.looked = false;
    }

    /// How many changes the last plan still asks for: they were sent and did not help, or there was no time for them.
    pub fn left(plan: &BackendSteps) -> usize {
        plan.raise.iter().chain(&plan.lower).map(|step| step.changes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(slot: SlotId, weight: u16) -> Step {
        Step { slot, changes: vec![Change::Weight(weight)] }
    }

    fn plan(raise: &[Step], lower: &[Step]) -> BackendSteps {
        BackendSteps { raise: raise.to_vec(), lower: lower.to_vec(), ..BackendSteps::default() }
    }

    #[test]
    fn what_does_not_help_is_not_sent_again_and_keeps_nothing_waiting() {
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
            assert_eq!(turn.next(&plan(&raise, &[last()])), expected, "{name}");
        }
        assert_eq!(Sequencer::left(&plan(&[stuck()], &[last()])), 2);
    }

    #[test]
    fn another_process_is_sent_everything_and_the_turn_still_ends() {
        let mut turn = Sequencer::default();
        let fill = || plan(&[step(1, 5)], &[]);
        let sent = (1..100).take_while(|_| {
            turn.start_over();
            turn.next(&fill()) == Next::Send(vec![step(1, 5)])
        });
        assert_eq!(sent.count(), PASSES - 1);
    }

    #[test]
    fn a_turn_ends_whatever_is_asked() {
        let mut turn = Sequencer::default();
        let sent = (1..100_u16).take_while(|weight| turn.next(&plan(&[step(1, *weight)], &[])) != Next::Done);
        assert_eq!(sent.count(), PASSES - 1);
    }
}
