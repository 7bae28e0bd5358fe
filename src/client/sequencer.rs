//! In which order a turn sends what its plans ask for. Pure: the loop, `--dry-run`, the properties and the fuzz targets drive it
//! alike.

use std::collections::BTreeMap;

use super::reconcile::{Plan, Step};
use crate::ports::Change;
use crate::slot::SlotId;

/// How often a backend is read at most in one turn. A new server takes two stages, and one more where a static algorithm refuses
/// its weight; taking others out takes one more; each is proved by the reading after it.
pub(super) const PASSES: usize = 8;

/// One turn of one backend. What raises is sent first, and the backend is read again after it; what lowers is sent when nothing is
/// left to raise. A step that was sent and is asked for again did not help, so it is not sent a second time, and what lowers is not
/// kept waiting for it.
#[derive(Clone, Debug, Default)]
pub struct Sequencer {
    sent: BTreeMap<SlotId, Vec<Vec<Change>>>,
    passes: usize,
}

impl Sequencer {
    /// The steps to send now for a plan of the last reading; none when the turn is over.
    pub fn next(&mut self, plan: &Plan) -> Vec<Step> {
        self.passes += 1;
        if self.passes >= PASSES {
            return Vec::new();
        }
        let was_sent = |step: &Step| self.sent.get(&step.slot).is_some_and(|sent| sent.contains(&step.changes));
        let fresh = |steps: &[Step]| steps.iter().filter(|step| !was_sent(step)).cloned().collect::<Vec<_>>();
        let mut steps = fresh(&plan.raise);
        if steps.is_empty() {
            steps = fresh(&plan.lower);
        }
        for step in &steps {
            self.sent.entry(step.slot).or_default().push(step.changes.clone());
        }
        steps
    }

    /// How many changes the last plan still asks for: they were sent and did not help, or there was no time for them.
    pub fn left(plan: &Plan) -> usize {
        plan.raise.iter().chain(&plan.lower).map(|step| step.changes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(slot: SlotId, weight: u16) -> Step {
        Step { slot, changes: vec![Change::Weight(weight)] }
    }

    fn plan(raise: &[Step], lower: &[Step]) -> Plan {
        Plan { raise: raise.to_vec(), lower: lower.to_vec(), ..Plan::default() }
    }

    #[test]
    fn what_does_not_help_is_not_sent_again_and_keeps_nothing_waiting() {
        let mut turn = Sequencer::default();
        let (stuck, good, next, last) = (|| step(1, 5), || step(2, 5), || step(2, 6), || step(3, 0));
        for (name, raise, sent) in [
            ("both are raised", vec![stuck(), good()], vec![stuck(), good()]),
            ("one is done, its next stage comes", vec![stuck(), next()], vec![next()]),
            ("only the stuck one is left to raise", vec![stuck()], vec![last()]),
            ("that did not help either", vec![stuck()], vec![]),
        ] {
            assert_eq!(turn.next(&plan(&raise, &[last()])), sent, "{name}");
        }
        assert_eq!(Sequencer::left(&plan(&[stuck()], &[last()])), 2);
    }

    #[test]
    fn a_turn_ends_whatever_is_asked() {
        let mut turn = Sequencer::default();
        let sent = (1..100_u16).take_while(|weight| !turn.next(&plan(&[step(1, *weight)], &[])).is_empty());
        assert_eq!(sent.count(), PASSES - 1);
    }
}
