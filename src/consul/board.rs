//! Where the polling threads publish their latest result for each service, and a turn reads it. [`join`], which is pure,
//! combines the results; the rest is the lock around them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::QueryError;
use super::health::Unaddressed;
use super::round::Lookup;
use crate::slot::Observation;

#[derive(Clone, Debug)]
pub(super) struct ServiceStatus {
    /// The last round's result; `None` before the first.
    pub(super) last: Option<Result<Lookup, QueryError>>,
    /// Deadline of the round in flight; until then the last result is current.
    pub(super) deadline: Instant,
}

/// The first service without a current result, by index, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownService {
    pub(super) service: usize,
    pub(super) cause: QueryError,
}

/// Combines the results at `now` into one observation and the instances without an address. `patience` is how long the
/// first results were waited for, for the message.
pub(super) fn join(
    services: &[String],
    statuses: &[ServiceStatus],
    now: Instant,
    patience: Duration,
) -> Result<(Observation, Vec<Unaddressed>), UnknownService> {
    let mut observation = Observation::default();
    let mut unaddressed = Vec::new();
    for (index, (service, status)) in services.iter().zip(statuses).enumerate() {
        let failed = |cause| UnknownService { service: index, cause };
        match &status.last {
            None => return Err(failed(QueryError::TimedOut(patience))),
            Some(Err(cause)) => return Err(failed(cause.clone())),
            // The thread hangs where no timeout applies.
            Some(Ok(_)) if now > status.deadline => return Err(failed(QueryError::TimedOut(now - status.deadline))),
            Some(Ok(Lookup::Missing)) => observation.missing_groups.push(service.clone()),
            Some(Ok(Lookup::Registered(health))) => {
                observation.groups.push(service.clone());
                observation.instances.extend(health.instances.iter().cloned());
                observation.said.extend(health.said());
                observation.hidden.extend(health.unaddressed.iter().map(Unaddressed::hidden));
                unaddressed.extend(health.unaddressed.iter().cloned());
            }
        }
    }
    Ok((observation, unaddressed))
}

/// The status of every service, and the threads' stop flag.
#[derive(Debug)]
pub(super) struct Board {
    inner: Mutex<BoardState>,
    changed: Condvar,
}

#[derive(Debug)]
struct BoardState {
    statuses: Vec<ServiceStatus>,
    stopped: bool,
}

impl Board {
    pub(super) fn new(services: usize) -> Self {
        let status = ServiceStatus { last: None, deadline: Instant::now() };
        Board {
            inner: Mutex::new(BoardState { statuses: vec![status; services], stopped: false }),
            changed: Condvar::new(),
        }
    }

    /// Marks the start of a round that must end by `deadline`.
    pub(super) fn begin(&self, service: usize, deadline: Instant) {
        self.lock().statuses[service].deadline = deadline;
    }

    pub(super) fn publish(&self, service: usize, result: Result<Lookup, QueryError>) {
        self.lock().statuses[service].last = Some(result);
        self.changed.notify_all();
    }

    /// All statuses, once every service has a result or after `patience`.
    pub(super) fn statuses(&self, patience: Duration) -> Vec<ServiceStatus> {
        let pending = |inner: &mut BoardState| inner.statuses.iter().any(|status| status.last.is_none());
        let waited = self.changed.wait_timeout_while(self.lock(), patience, pending);
        waited.unwrap_or_else(PoisonError::into_inner).0.statuses.clone()
    }

    /// Waits for `span`; true as soon as the board is stopped.
    pub(super) fn pause(&self, span: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), span, |inner| !inner.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// A panic elsewhere cannot leave a half-written status, so a poisoned lock is fine.
    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::ServiceHealth;
    use super::*;
    use crate::slot::{Instance, Readiness};

    const SECOND: Duration = Duration::from_secs(1);

    fn instance(name: &str, group: &str) -> Instance {
        Instance::new([10, 0, 0, 1].into(), name.to_owned(), group.to_owned(), Readiness::Ready)
    }

    fn found(instances: Vec<Instance>, unaddressed: Vec<Unaddressed>) -> Option<Result<Lookup, QueryError>> {
        Some(Ok(Lookup::Registered(ServiceHealth { registered: 1, instances, unaddressed })))
    }

    #[test]
    fn results_join_into_one_observation_or_a_failure() {
        let services = ["web".to_owned(), "api".to_owned()];
        let now = Instant::now();
        let soon = now + SECOND;
        let web = || ServiceStatus { last: found(vec![instance("n1", "web")], vec![]), deadline: soon };
        let lost = Unaddressed {
            service: "api".to_owned(),
            node: "n2".to_owned(),
            address: "x".to_owned(),
            names: vec!["n2".to_owned(), "n2/api".to_owned()],
        };
        let api = |last| ServiceStatus { last, deadline: soon };
        let joined = |statuses: &[ServiceStatus]| join(&services, statuses, now, SECOND);

        let both = joined(&[web(), api(found(vec![instance("n2", "api")], vec![]))]).expect("an observation");
        assert_eq!(both.0.instances, [instance("n1", "web"), instance("n2", "api")]);
        assert!(both.0.missing_groups.is_empty() && both.0.hidden.is_empty() && both.1.is_empty());

        let unseen = joined(&[web(), api(found(vec![], vec![lost.clone()]))]).expect("an observation");
        assert_eq!((unseen.0.hidden, unseen.1), (vec![lost.hidden()], vec![lost]));

        let missing = joined(&[web(), api(Some(Ok(Lookup::Missing)))]).expect("an observation");
        assert_eq!((missing.0.instances.len(), missing.0.missing_groups), (1, vec!["api".to_owned()]));

        let failed = |service, cause| Err(UnknownService { service, cause });
        assert_eq!(joined(&[web(), api(None)]), failed(1, QueryError::TimedOut(SECOND)));
        assert_eq!(joined(&[web(), api(Some(Err(QueryError::NoLeader)))]), failed(1, QueryError::NoLeader));
        let late = ServiceStatus { deadline: now - SECOND, ..web() };
        assert_eq!(joined(&[late, api(Some(Err(QueryError::NoLeader)))]), failed(0, QueryError::TimedOut(SECOND)));
    }

    #[test]
    fn the_first_results_are_waited_for_up_to_the_limit() {
        let board = Board::new(2);
        assert!(board.statuses(Duration::from_millis(1)).iter().all(|status| status.last.is_none()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                board.publish(1, Err(QueryError::NoLeader));
                board.publish(0, Ok(Lookup::Missing));
            });
            assert!(board.statuses(60 * SECOND).iter().all(|status| status.last.is_some()));
        });
        board.begin(0, Instant::now() + SECOND);
        assert!(board.statuses(60 * SECOND)[0].last.is_some(), "the last result stands while a round is under way");
    }

    #[test]
    fn a_pause_ends_after_its_span_or_on_stop() {
        let board = Board::new(1);
        assert!(!board.pause(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.pause(60 * SECOND));
            board.stop();
            assert!(waiting.join().expect("a thread"));
        });
    }
}
