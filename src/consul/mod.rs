//! Consul as a source of instances: a thread waits for each service, and a turn takes what the threads know.
//!
//! Nothing outside this folder knows that Consul speaks HTTP, and nothing in it knows the table or HAProxy.

mod access;
mod answer;
mod board;
mod client;
pub mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod round;
mod tls;
mod unix;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::access::Access;
use self::board::{Board, Unknown, join};
pub use self::client::Observer;
use self::client::{Ask, Client};
use self::error::Cause;
pub use self::error::Error;
use self::health::Unaddressed;
use self::round::{Timing, round};
use crate::environment::Environment;
use crate::log::Episode;
use crate::ports::{Source, TurnError};
use crate::settings::ConsulApi;
use crate::slot::Observation;

/// How long the first turn waits for the first answers.
const PATIENCE: Duration = Duration::from_secs(9);
/// How many instances without an address a log line names.
const NAMED: usize = 10;

/// The services of `SERVER_CONSUL_SERVICE_NAME` as a source of instances.
pub struct ServiceSource {
    api: ConsulApi,
    services: Vec<String>,
    board: Arc<Board>,
    unaddressed: Episode,
}

impl ServiceSource {
    /// Starts a waiting thread for each of `services`, whose order is that in which new instances of one turn take
    /// slots. Token, TLS, namespace and datacenter come from Consul's standard variables.
    ///
    /// # Errors
    /// A file that the variables name cannot be used, or the system refuses a thread.
    pub fn new(
        api: ConsulApi,
        services: Vec<String>,
        env: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let failed = |cause| Error { api: api.clone(), service: String::new(), cause };
        let access = Access::from(env).map_err(failed)?;
        let client = Arc::new(Client::new(&api, access, observer));
        let board = watch(&client, &services, Timing::USUAL).map_err(|error| {
            failed(Cause::Setup(format!("cannot start a thread for each service: {error}: check the process's limits")))
        })?;
        Ok(ServiceSource { api, services, board, unaddressed: Episode::new("Consul").target(module_path!()) })
    }
}

impl Source for ServiceSource {
    fn missing_remedy(&self) -> &'static str {
        "register these services in Consul, correct their configured names, or give the token service:read and node:read"
    }

    /// At once, but for the first answers, which are waited for at most nine seconds. Consul forgets an instance that
    /// ends: an occupant that it does not list is gone.
    fn fetch(&mut self, _: &[&str]) -> Result<Observation, TurnError> {
        let states = self.board.states(PATIENCE);
        match join(&self.services, &states, Instant::now(), PATIENCE) {
            Ok((observation, unaddressed)) => {
                let text = unaddressed_text(&unaddressed);
                self.unaddressed.report(text.as_deref().map(|text| (text, text)));
                Ok(observation)
            }
            Err(Unknown { service, cause }) => {
                let service = self.services.get(service).cloned().unwrap_or_default();
                Err(Error { api: self.api.clone(), service, cause }.into())
            }
        }
    }
}

impl Drop for ServiceSource {
    fn drop(&mut self) {
        self.board.stop();
    }
}

/// The line about instances that traffic cannot be sent to.
fn unaddressed_text(unaddressed: &[Unaddressed]) -> Option<String> {
    let shown = |one: &Unaddressed| format!("{:?} of service {:?} on node {:?}", one.address, one.service, one.node);
    let mut list: Vec<String> = unaddressed.iter().take(NAMED).map(shown).collect();
    if unaddressed.len() > NAMED {
        list.push(format!("and {} more", unaddressed.len() - NAMED));
    }
    (!list.is_empty()).then(|| {
        let list = list.join(", ");
        format!("no IP address: {list}: they take no slot, and keep one they have; register an address for them")
    })
}

fn watch<A: Ask + 'static>(ask: &Arc<A>, services: &[String], timing: Timing) -> std::io::Result<Arc<Board>> {
    let board = Arc::new(Board::new(services.len()));
    for (index, service) in services.iter().enumerate() {
        let (ask, service, watched) = (Arc::clone(ask), service.clone(), Arc::clone(&board));
        let wait = move || wait_for_changes(&*ask, &service, index, &watched, &timing);
        if let Err(error) = thread::Builder::new().name(format!("consul-{index}")).spawn(wait) {
            board.stop();
            return Err(error);
        }
    }
    Ok(board)
}

/// Round after round about one service, until the board is stopped.
fn wait_for_changes(ask: &dyn Ask, service: &str, number: usize, board: &Board, timing: &Timing) {
    let mut index = None;
    loop {
        let begun = Instant::now();
        board.begin(number, begun + timing.round());
        // What is left of `pace` since the round began, or a whole pause after a failure.
        let pause = match round(ask, service, index, timing) {
            Ok((seen, next)) => {
                index = next;
                board.put(number, Ok(seen));
                timing.pace.saturating_sub(begun.elapsed())
            }
            // The agent was restarted, or someone between cut a connection that was silent: no fault before it is
            // asked again.
            Err(Cause::Unreachable(_)) if index.take().is_some() => timing.reconnect,
            Err(cause) => {
                index = None;
                board.put(number, Err(cause));
                timing.retry
            }
        };
        if board.pause(pause) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::round::Seen;
    use super::round::tests::{Script, answer, one};
    use super::*;

    const TIMING: Timing = Timing {
        wait: Duration::from_secs(1),
        answer: Duration::from_secs(1),
        pace: Duration::ZERO,
        retry: Duration::from_millis(5),
        reconnect: Duration::ZERO,
    };

    /// Runs the thread's loop over the script until all of it was asked; the board's last state.
    fn play(script: &Script, rounds: usize, timing: &Timing) -> Option<Result<Seen, Cause>> {
        let board = Board::new(1);
        let deadline = Instant::now() + Duration::from_secs(20);
        thread::scope(|scope| {
            scope.spawn(|| wait_for_changes(script, "web", 0, &board, timing));
            while script.asked().len() < rounds && Instant::now() < deadline {
                board.pause(Duration::from_millis(1));
            }
            board.stop();
        });
        board.states(Duration::ZERO).remove(0).last
    }

    #[test]
    fn each_round_waits_for_what_comes_after_the_last() {
        let script = Script::new([
            answer(7, &one("passing")),
            answer(9, &one("passing")),
            answer(3, &one("passing")),
            answer(4, &one("passing")),
        ]);
        play(&script, 5, &TIMING);
        let queries: Vec<String> =
            script.asked().iter().take(5).filter_map(|asked| Some(asked.split_once('?')?.1.to_owned())).collect();
        assert_eq!(queries, ["", "index=7&wait=1000ms", "index=9&wait=1000ms", "", "index=4&wait=1000ms"]);
    }

    #[test]
    fn a_connection_that_breaks_while_it_waits_is_no_fault_yet() {
        let broken = || Err(Cause::Unreachable("unexpected end of file".to_owned()));
        let script = Script::new([answer(7, &one("passing")), broken(), answer(8, &one("passing"))]);
        // After a fault nobody would be asked again while the test runs.
        let timing = Timing { retry: Duration::from_secs(600), ..TIMING };
        let last = play(&script, 5, &timing);
        assert_eq!(script.asked()[2], "/v1/health/service/web?", "asked anew, without waiting for a change");
        // The script's end breaks the fourth question, and the fifth, which did not wait, is a fault.
        assert_eq!(last, Some(Err(Cause::Unreachable("the script is over".to_owned()))));
    }

    #[test]
    fn after_a_fault_the_first_question_does_not_wait() {
        let script = Script::new([answer(7, &one("passing")), Err(Cause::NoLeader), answer(2, &one("passing"))]);
        play(&script, 4, &TIMING);
        assert_eq!(script.asked()[2], "/v1/health/service/web?");
        assert_eq!(script.asked()[3], "/v1/health/service/web?index=2&wait=1000ms");
    }

    #[test]
    fn instances_without_an_address_are_named() {
        let lost = |node: usize| Unaddressed {
            service: "web".to_owned(),
            node: format!("n{node}"),
            address: "web.example".to_owned(),
            names: vec![],
        };
        assert_eq!(unaddressed_text(&[]), None);
        assert_eq!(
            unaddressed_text(&[lost(1)]).expect("a line"),
            "no IP address: \"web.example\" of service \"web\" on node \"n1\": they take no slot, and keep one they have; \
             register an address for them"
        );
        let many: Vec<_> = (0..12).map(lost).collect();
        assert!(unaddressed_text(&many).expect("a line").contains("on node \"n9\", and 2 more: "));
    }
}
