//! Where the waiting threads leave what they found, and a turn finds it: a state for each service. What the states
//! amount to is decided by [`join`], which is pure; the rest is the lock around it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::Cause;
use super::health::Unaddressed;
use super::round::Seen;
use crate::slot::Observation;

/// What is known of one service.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The last round's result; `None` before the first.
    pub(super) last: Option<Result<Seen, Cause>>,
    /// By when the round under way has to be over: until then the last result is current.
    pub(super) due: Instant,
}

/// The first service about which nothing current is known, by its index, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) service: usize,
    pub(super) cause: Cause,
}

/// One whole observation at `now`, and the instances without an address; or what is unknown. `patience` is how long the
/// first answers may take.
pub(super) fn join(
    services: &[String],
    states: &[State],
    now: Instant,
    patience: Duration,
) -> Result<(Observation, Vec<Unaddressed>), Unknown> {
    let mut observation = Observation::default();
    let mut unaddressed = Vec::new();
    for (index, (service, state)) in services.iter().zip(states).enumerate() {
        let unknown = |cause| Unknown { service: index, cause };
        match &state.last {
            None => return Err(unknown(Cause::TimedOut(patience))),
            Some(Err(cause)) => return Err(unknown(cause.clone())),
            // The thread hangs where no time-out reaches it.
            Some(Ok(_)) if now > state.due => return Err(unknown(Cause::TimedOut(now - state.due))),
            Some(Ok(Seen::Missing)) => observation.missing_groups.push(service.clone()),
            Some(Ok(Seen::Known(health))) => {
                observation.instances.extend(health.instances.iter().cloned());
                observation.hidden.extend(health.unaddressed.iter().map(Unaddressed::hidden));
                unaddressed.extend(health.unaddressed.iter().cloned());
            }
        }
    }
    Ok((observation, unaddressed))
}

/// The states of all services, and whether the threads are to end.
#[derive(Debug)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    states: Vec<State>,
    stopped: bool,
}

impl Board {
    /// Nothing known of `services` services.
    pub(super) fn new(services: usize) -> Self {
        let state = State { last: None, due: Instant::now() };
        Board { inner: Mutex::new(Inner { states: vec![state; services], stopped: false }), changed: Condvar::new() }
    }

    /// A round about a service begins, and has to be over at `due`.
    pub(super) fn begin(&self, service: usize, due: Instant) {
        self.lock().states[service].due = due;
    }

    /// What a round about a service found.
    pub(super) fn put(&self, service: usize, found: Result<Seen, Cause>) {
        self.lock().states[service].last = Some(found);
        self.changed.notify_all();
    }

    /// The states as they are, waited for at most `patience` until each service has one.
    pub(super) fn states(&self, patience: Duration) -> Vec<State> {
        let unasked = |inner: &mut Inner| inner.states.iter().any(|state| state.last.is_none());
        let waited = self.changed.wait_timeout_while(self.lock(), patience, unasked);
        waited.unwrap_or_else(PoisonError::into_inner).0.states.clone()
    }

    /// Waits for `span`, or until the threads are to end: true then.
    pub(super) fn pause(&self, span: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), span, |inner| !inner.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// Asks the threads to end after their round.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// A panic elsewhere leaves states that are still whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::Health;
    use super::*;
    use crate::slot::{Instance, Readiness};

    const SECOND: Duration = Duration::from_secs(1);

    fn instance(name: &str, group: &str) -> Instance {
        Instance::new([10, 0, 0, 1].into(), name.to_owned(), group.to_owned(), Readiness::Ready)
    }

    fn known(instances: Vec<Instance>, unaddressed: Vec<Unaddressed>) -> Option<Result<Seen, Cause>> {
        Some(Ok(Seen::Known(Health { registered: 1, instances, unaddressed })))
    }

    #[test]
    fn the_services_become_one_observation_or_what_is_unknown() {
        let services = ["web".to_owned(), "api".to_owned()];
        let now = Instant::now();
        let soon = now + SECOND;
        let web = || State { last: known(vec![instance("n1", "web")], vec![]), due: soon };
        let lost = Unaddressed {
            service: "api".to_owned(),
            node: "n2".to_owned(),
            address: "x".to_owned(),
            names: vec!["n2".to_owned(), "n2/api".to_owned()],
        };
        let api = |last| State { last, due: soon };
        let joined = |states: &[State]| join(&services, states, now, SECOND);

        let both = joined(&[web(), api(known(vec![instance("n2", "api")], vec![]))]).expect("whole");
        assert_eq!(both.0.instances, [instance("n1", "web"), instance("n2", "api")]);
        assert!(both.0.missing_groups.is_empty() && both.0.hidden.is_empty() && both.1.is_empty());

        let unseen = joined(&[web(), api(known(vec![], vec![lost.clone()]))]).expect("whole");
        assert_eq!((unseen.0.hidden, unseen.1), (vec![lost.hidden()], vec![lost]));

        let missing = joined(&[web(), api(Some(Ok(Seen::Missing)))]).expect("whole");
        assert_eq!((missing.0.instances.len(), missing.0.missing_groups), (1, vec!["api".to_owned()]));

        let unknown = |service, cause| Err(Unknown { service, cause });
        assert_eq!(joined(&[web(), api(None)]), unknown(1, Cause::TimedOut(SECOND)));
        assert_eq!(joined(&[web(), api(Some(Err(Cause::NoLeader)))]), unknown(1, Cause::NoLeader));
        let late = State { due: now - SECOND, ..web() };
        assert_eq!(joined(&[late, api(Some(Err(Cause::NoLeader)))]), unknown(0, Cause::TimedOut(SECOND)));
    }

    #[test]
    fn the_first_answers_are_waited_for_and_no_longer_than_that() {
        let board = Board::new(2);
        assert!(board.states(Duration::from_millis(1)).iter().all(|state| state.last.is_none()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                board.put(1, Err(Cause::NoLeader));
                board.put(0, Ok(Seen::Missing));
            });
            assert!(board.states(60 * SECOND).iter().all(|state| state.last.is_some()));
        });
        board.begin(0, Instant::now() + SECOND);
        assert!(board.states(60 * SECOND)[0].last.is_some(), "the last result stands while a round is under way");
    }

    #[test]
    fn a_pause_ends_by_itself_or_when_the_threads_are_to_end() {
        let board = Board::new(1);
        assert!(!board.pause(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.pause(60 * SECOND));
            board.stop();
            assert!(waiting.join().expect("a thread"));
        });
    }
}
