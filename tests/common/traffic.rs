//! Real requests through HAProxy: how many each server answered, and which failed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::lock;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Names and values.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Responses by server name.
    pub answers: BTreeMap<String, u64>,
    /// One text per failed request.
    pub failures: Vec<String>,
}

impl Tally {
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    pub fn of(&self, name: &str) -> u64 {
        self.answers.get(name).copied().unwrap_or(0)
    }

    pub fn names(&self) -> Vec<&str> {
        self.answers.keys().map(String::as_str).collect()
    }

    fn add(&mut self, outcome: &Result<String, String>) {
        match outcome {
            Ok(name) => *self.answers.entry(name.clone()).or_default() += 1,
            Err(failure) => self.failures.push(failure.clone()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answers {:?}, failures {:?}", self.answers, self.failures)
    }
}

/// Sends `count` requests to HAProxy's frontend on that port, one after another, each with its own connection and path.
pub fn send(frontend: u16, count: usize) -> Tally {
    send_with(frontend, count, &[])
}

/// The same with headers, such as the cookie of a sticky client.
pub fn send_with(frontend: u16, count: usize, headers: Headers<'_>) -> Tally {
    let agent = agent();
    let mut tally = Tally::default();
    for number in 0..count {
        tally.add(&ask(&agent, &format!("http://127.0.0.1:{frontend}/{number}"), headers));
    }
    tally
}

/// The name of the server that answers.
pub fn get(frontend: u16, path: &str) -> Result<String, String> {
    ask(&agent(), &format!("http://127.0.0.1:{frontend}{path}"), &[])
}

fn agent() -> ureq::Agent {
    ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_idle_connections(0)
            .http_status_as_error(false)
            .proxy(None)
            .build(),
    )
}

fn ask(agent: &ureq::Agent, url: &str, headers: Headers<'_>) -> Result<String, String> {
    let request = headers.iter().fold(agent.get(url), |request, (name, value)| request.header(*name, *value));
    let mut answer = request.call().map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    if status == 200 { Ok(body) } else { Err(format!("status {status}")) }
}

/// One request of a [`Stream`].
#[derive(Clone, Debug)]
pub struct Exchange {
    pub from: Instant,
    pub to: Instant,
    /// The server that answered, or what went wrong.
    pub outcome: Result<String, String>,
}

/// Background requests at a steady rate, until stopped or all sent.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Exchange>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Sends `count` requests, one per `pause`, from two threads so that a slow one does not delay the next.
    pub fn start(frontend: u16, pause: Duration, count: usize) -> Self {
        Self::start_with(frontend, pause, count, &[])
    }

    /// The same with headers.
    pub fn start_with(frontend: u16, pause: Duration, count: usize, headers: Headers<'static>) -> Self {
        const THREADS: usize = 2;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let threads = (0..THREADS)
            .map(|thread| {
                let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
                std::thread::spawn(move || {
                    let agent = agent();
                    for number in (thread..count).step_by(THREADS) {
                        let due = start + pause * u32::try_from(number).unwrap_or(u32::MAX);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let from = Instant::now();
                        let outcome = ask(&agent, &format!("http://127.0.0.1:{frontend}/{number}"), headers);
                        lock(&asked).push(Exchange { from, to: Instant::now(), outcome });
                    }
                })
            })
            .collect();
        Stream { stop, asked, threads }
    }

    /// Requests that began and ended between the two moments.
    pub fn between(&self, from: Instant, to: Instant) -> Tally {
        self.tally(|asked| asked.from >= from && asked.to <= to)
    }

    /// Requests in flight at some moment between the two.
    pub fn touching(&self, from: Instant, to: Instant) -> Tally {
        self.tally(|asked| asked.to >= from && asked.from <= to)
    }

    /// Requests in flight in none of these spans.
    pub fn outside(&self, spans: &[(Instant, Instant)]) -> Tally {
        self.tally(|asked| spans.iter().all(|(from, to)| asked.to < *from || asked.from > *to))
    }

    /// The failures among them.
    pub fn failures_outside(&self, spans: &[(Instant, Instant)]) -> Vec<String> {
        let inside = |asked: &Exchange| spans.iter().any(|(from, to)| asked.to >= *from && asked.from <= *to);
        self.tally(|asked| !inside(asked)).failures
    }

    /// Takes the requests that have ended since the last call of this.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut *lock(&self.asked))
    }

    pub fn so_far(&self) -> Tally {
        self.tally(|_| true)
    }

    fn tally(&self, counts: impl Fn(&Exchange) -> bool) -> Tally {
        let mut tally = Tally::default();
        for asked in lock(&self.asked).iter().filter(|asked| counts(asked)) {
            tally.add(&asked.outcome);
        }
        tally
    }

    /// Ends the stream, after the requests in flight.
    pub fn stop(&mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.so_far()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop();
    }
}
