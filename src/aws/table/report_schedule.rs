//! When a client's report is written: at once if something changed, at most once a second, and else every 10 s. Pure.

use std::time::{Duration, Instant};

use crate::balancer::BalancerReport;

/// The shortest time between two writings.
const CHANGED: Duration = Duration::from_secs(1);
/// The longest. A leader takes 30 s without a change for silence.
pub(super) const UNCHANGED: Duration = Duration::from_secs(10);
/// After one that failed.
const FAILED: Duration = Duration::from_secs(3);
/// How long a report stands without a word from the client's loop, besides its interval.
const PATIENCE: Duration = Duration::from_secs(20);

/// When to write what.
#[derive(Debug)]
pub struct ReportSchedule {
    /// How long a report stands without another word.
    patience: Duration,
    current: Option<(BalancerReport, Instant)>,
    /// What the item holds, if that is known.
    written: Option<BalancerReport>,
    /// When the last writing ended.
    last: Option<Instant>,
    failed: bool,
    may_exist: bool,
}

impl ReportSchedule {
    /// Nothing to write. The client takes a turn, and so says a word, every `interval`.
    pub fn new(interval: Duration) -> Self {
        let patience = interval + PATIENCE;
        ReportSchedule { patience, current: None, written: None, last: None, failed: false, may_exist: false }
    }

    /// What is so at `now`.
    pub fn report(&mut self, report: BalancerReport, now: Instant) {
        self.current = Some((report, now));
    }

    /// There is nothing to write until the next report.
    pub fn silence(&mut self) {
        self.current = None;
    }

    /// When the next writing is due.
    pub fn due(&self) -> Option<Instant> {
        let (report, told) = self.current.as_ref()?;
        let pause = match self.failed {
            true => FAILED,
            false if self.written.as_ref() == Some(report) => UNCHANGED,
            false => CHANGED,
        };
        let due = self.last.map_or(*told, |last| last + pause);
        (due <= *told + self.patience).then_some(due)
    }

    /// The report to write at `now`, if that is due.
    pub fn take(&mut self, now: Instant) -> Option<BalancerReport> {
        let report = self.due().filter(|due| *due <= now).and(self.current.as_ref()).map(|(report, _)| report.clone());
        self.may_exist |= report.is_some();
        report
    }

    /// A writing of `report` ended at `now`, if `ok` with success.
    pub fn wrote(&mut self, report: BalancerReport, ok: bool, now: Instant) {
        (self.last, self.failed) = (Some(now), !ok);
        self.written = ok.then_some(report);
    }

    /// Whether an item may be there.
    pub fn may_exist(&self) -> bool {
        self.may_exist
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_at_once_but_not_more_than_once_a_second_and_the_rest_every_ten() {
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let report = |spill| BalancerReport { spill, ..BalancerReport::default() };
        let mut schedule = ReportSchedule::new(Duration::from_secs(1));
        assert_eq!(schedule.due(), None);
        assert!(!schedule.may_exist());
        let write = |schedule: &mut ReportSchedule, tenths, ok| {
            let taken = schedule.take(at(tenths)).map(|report| {
                schedule.wrote(report.clone(), ok, at(tenths));
                report.spill
            });
            (taken, schedule.may_exist())
        };
        schedule.report(report(1), at(0));
        assert_eq!(write(&mut schedule, 0, true), (Some(1), true));
        schedule.report(report(2), at(5));
        assert_eq!(write(&mut schedule, 5, true).0, None, "too soon");
        schedule.report(report(3), at(9));
        assert_eq!(write(&mut schedule, 10, true).0, Some(3), "the newest of two");
        for tenths in 11..110 {
            schedule.report(report(3), at(tenths));
            assert_eq!(write(&mut schedule, tenths, true).0, None);
        }
        assert_eq!(write(&mut schedule, 110, true).0, Some(3), "as a sign of life");
        schedule.report(report(4), at(120));
        assert_eq!(write(&mut schedule, 120, false).0, Some(4));
        schedule.report(report(5), at(130));
        assert_eq!(write(&mut schedule, 130, true).0, None, "refused: not again at once");
        assert_eq!(write(&mut schedule, 150, true).0, Some(5));
        // The loop hangs: its last word does not stand for ever.
        assert_eq!(write(&mut schedule, 250, true).0, Some(5));
        assert_eq!((write(&mut schedule, 350, true).0, schedule.due()), (None, None));
        schedule.report(report(5), at(500));
        assert_eq!(write(&mut schedule, 500, true).0, Some(5));
        schedule.silence();
        assert_eq!((write(&mut schedule, 600, true).0, schedule.due()), (None, None));
    }
}
