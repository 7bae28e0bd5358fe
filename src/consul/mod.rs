//! Consul as a source of instances: one thread per service runs blocking queries, and a turn takes their latest results.

mod access;
mod board;
mod client;
pub mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod response;
mod round;
mod tls;
mod unix;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::access::Access;
use self::board::{Board, UnknownService, join};
pub use self::client::ConsulObserver;
use self::client::{Agent, AgentClient};
pub use self::error::ConsulError;
use self::error::QueryError;
use self::health::Unaddressed;
use self::round::{Timing, round};
use crate::about::About;
use crate::environment::Environment;
use crate::log::Episode;
use crate::ports::{Source, TurnError};
use crate::settings::ConsulApi;
use crate::slot::Observation;
use crate::text::list;

/// How long the first turn waits for the first results.
const PATIENCE: Duration = Duration::from_secs(9);
const MAX_LISTED: usize = 10;

/// The services of `SERVER_CONSUL_SERVICE_NAME` as a source of instances.
pub struct ServiceSource {
    api: ConsulApi,
    services: Vec<String>,
    board: Arc<Board>,
    unaddressed: Episode,
}

impl ServiceSource {
    /// Starts a polling thread for each of `services`, in whose order new instances of one turn take slots. Token, TLS,
    /// namespace and datacenter come from Consul's standard variables.
    ///
    /// # Errors
    /// A variable or file that cannot be used, or a thread that cannot be started.
    pub fn new(
        api: ConsulApi,
        services: Vec<String>,
        env: &Environment,
        observer: Arc<dyn ConsulObserver>,
    ) -> Result<Self, ConsulError> {
        let failed = |cause| ConsulError { api: api.clone(), service: String::new(), cause };
        let access = Access::from(env).map_err(failed)?;
        let client = Arc::new(AgentClient::new(&api, access, observer));
        let board = start_threads(&client, &services, Timing::DEFAULT).map_err(|error| {
            failed(QueryError::Setup(format!(
                "cannot start a thread for each service: {error}: check the process limits"
            )))
        })?;
        Ok(ServiceSource { api, services, board, unaddressed: Episode::new("Consul").target(module_path!()) })
    }
}

impl Source for ServiceSource {
    fn missing_remedy(&self) -> &'static str {
        "register these services in Consul, correct their configured names, or grant the token service:read and node:read"
    }

    /// Does not block, except for up to nine seconds for the first results. Consul drops an instance that ends, so an
    /// occupant that it does not list is gone.
    fn fetch(&mut self, _: &[&str]) -> Result<Observation, TurnError> {
        let statuses = self.board.statuses(PATIENCE);
        match join(&self.services, &statuses, Instant::now(), PATIENCE) {
            Ok((observation, unaddressed)) => {
                let text = unaddressed_text(&unaddressed);
                let about = About::default()
                    .instance(unaddressed.iter().map(|one| one.node.as_str()))
                    .group(unaddressed.iter().map(|one| one.service.as_str()));
                self.unaddressed.report_about(text.as_deref().map(|text| (text, text)), &about);
                Ok(observation)
            }
            Err(UnknownService { service, cause }) => {
                let service = self.services.get(service).cloned().unwrap_or_default();
                Err(ConsulError { api: self.api.clone(), service, cause }.into())
            }
        }
    }
}

impl Drop for ServiceSource {
    fn drop(&mut self) {
        self.board.stop();
    }
}

fn unaddressed_text(unaddressed: &[Unaddressed]) -> Option<String> {
    let shown = |one: &Unaddressed| format!("{:?} of service {:?} on node {:?}", one.address, one.service, one.node);
    (!unaddressed.is_empty()).then(|| {
        let list = list(unaddressed.iter().map(shown), MAX_LISTED);
        format!("instances without an IP address: {list}: they get no slot but keep one they hold; register an address")
    })
}

fn start_threads<A: Agent + 'static>(
    agent: &Arc<A>,
    services: &[String],
    timing: Timing,
) -> std::io::Result<Arc<Board>> {
    let board = Arc::new(Board::new(services.len()));
    for (index, service) in services.iter().enumerate() {
        let (agent, service, shared) = (Arc::clone(agent), service.clone(), Arc::clone(&board));
        let poll = move || poll_service(&*agent, &service, index, &shared, &timing);
        if let Err(error) = thread::Builder::new().name(format!("consul-{index}")).spawn(poll) {
            board.stop();
            return Err(error);
        }
    }
    Ok(board)
}

fn poll_service(agent: &dyn Agent, service: &str, number: usize, board: &Board, timing: &Timing) {
    let mut index = None;
    loop {
        let started = Instant::now();
        board.begin(number, started + timing.round());
        let pause = match round(agent, service, index, timing) {
            Ok((found, next)) => {
                index = next;
                board.publish(number, Ok(found));
                timing.min_interval.saturating_sub(started.elapsed())
            }
            // The agent restarted, or a middlebox dropped an idle connection: not a fault until a retry fails too.
            Err(QueryError::Unreachable(_)) if index.take().is_some() => timing.reconnect,
            Err(cause) => {
                index = None;
                board.publish(number, Err(cause));
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
    use super::round::Lookup;
    use super::round::tests::{Script, one, response};
    use super::*;

    const TIMING: Timing = Timing {
        wait: Duration::from_secs(1),
        response: Duration::from_secs(1),
        min_interval: Duration::ZERO,
        retry: Duration::from_millis(5),
        reconnect: Duration::ZERO,
    };

    /// Runs the polling loop through the script and returns the board's last result.
    fn play(script: &Script, rounds: usize, timing: &Timing) -> Option<Result<Lookup, QueryError>> {
        let board = Board::new(1);
        let deadline = Instant::now() + Duration::from_secs(20);
        thread::scope(|scope| {
            scope.spawn(|| poll_service(script, "web", 0, &board, timing));
            while script.requests().len() < rounds && Instant::now() < deadline {
                board.pause(Duration::from_millis(1));
            }
            board.stop();
        });
        board.statuses(Duration::ZERO).remove(0).last
    }

    #[test]
    fn each_round_blocks_on_the_previous_index() {
        let script = Script::new([
            response(7, &one("passing")),
            response(9, &one("passing")),
            response(3, &one("passing")),
            response(4, &one("passing")),
        ]);
        play(&script, 5, &TIMING);
        let queries: Vec<String> = script
            .requests()
            .iter()
            .take(5)
            .filter_map(|request| Some(request.split_once('?')?.1.to_owned()))
            .collect();
        assert_eq!(queries, ["", "index=7&wait=1000ms", "index=9&wait=1000ms", "", "index=4&wait=1000ms"]);
    }

    #[test]
    fn a_connection_that_breaks_while_blocking_is_retried_first() {
        let broken = || Err(QueryError::Unreachable("unexpected end of file".to_owned()));
        let script = Script::new([response(7, &one("passing")), broken(), response(8, &one("passing"))]);
        // After a fault there is no further request while the test runs.
        let timing = Timing { retry: Duration::from_secs(600), ..TIMING };
        let last = play(&script, 5, &timing);
        assert_eq!(script.requests()[2], "/v1/health/service/web?", "retried without blocking");
        // The script's end breaks the fourth request; the fifth did not block, so it is a fault.
        assert_eq!(last, Some(Err(QueryError::Unreachable("the script is over".to_owned()))));
    }

    #[test]
    fn the_first_request_after_a_fault_does_not_block() {
        let script =
            Script::new([response(7, &one("passing")), Err(QueryError::NoLeader), response(2, &one("passing"))]);
        play(&script, 4, &TIMING);
        assert_eq!(script.requests()[2], "/v1/health/service/web?");
        assert_eq!(script.requests()[3], "/v1/health/service/web?index=2&wait=1000ms");
    }

    #[test]
    fn instances_without_an_address_are_listed() {
        let unaddressed = |node: usize| Unaddressed {
            service: "web".to_owned(),
            node: format!("n{node}"),
            address: "web.example".to_owned(),
            names: vec![],
        };
        assert_eq!(unaddressed_text(&[]), None);
        assert_eq!(
            unaddressed_text(&[unaddressed(1)]).expect("a line"),
            "instances without an IP address: \"web.example\" of service \"web\" on node \"n1\": they get no slot but keep \
             one they hold; register an address"
        );
        let many: Vec<_> = (0..12).map(unaddressed).collect();
        assert!(unaddressed_text(&many).expect("a line").contains("on node \"n9\", and 2 more: "));
    }
}
