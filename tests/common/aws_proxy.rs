//! An HTTP proxy in front of moto that records every AWS call and can spoil the answers.
//!
//! moto does not isolate transactions, so the calls to DynamoDB go to it one at a time, and a `TransactWriteItems` with a
//! `ClientRequestToken` that was seen before gets the answer it got then.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

pub use super::aws_fault::{Chance, Fault};
use super::aws_fault::{edited, with_token, write_cut, write_huge};
use super::http::{Listener, Request, Response, lock, read_request, write_response};
use super::port::Port;
use super::random::Random;
use super::wait::wait_for;

/// A hanging call is let go after this long, so that no thread stays for ever.
const LONGEST_HANG: Duration = Duration::from_secs(120);
/// How many old answers of an operation are kept for [`Fault::Stale`].
const OLD_ANSWERS: usize = 30;
/// How many answers to transactions are kept for those that ask again.
const TRANSACTIONS: usize = 1_000;

/// A call that came through.
#[derive(Clone, Debug)]
pub struct Call {
    /// `Scan`, `DescribeInstances`, …
    pub operation: String,
    /// The request's body: JSON for DynamoDB, a form for the others.
    pub body: String,
    /// The access key id that signed it; empty for a call that nobody signed.
    pub key: String,
    /// The session token that came with it; empty where there was none.
    pub token: String,
    /// When it came.
    pub at: Instant,
}

/// A fault in force: for which operation (`*` for any), and for how many more calls.
#[derive(Debug)]
struct Rule {
    operation: String,
    fault: Fault,
    left: usize,
}

/// Faults that strike by a seed, and how many calls of each operation came since they were set.
#[derive(Debug, Default)]
struct Schedule {
    seed: u64,
    chances: Vec<Chance>,
    calls: BTreeMap<String, u64>,
}

/// What answers an operation in moto's place: status and body, made from the request's body.
type Instead = Arc<dyn Fn(&str) -> (u16, String) + Send + Sync>;

struct Shared {
    upstream: String,
    agent: ureq::Agent,
    calls: Mutex<Vec<Call>>,
    connections: Mutex<usize>,
    rules: Mutex<Vec<Rule>>,
    schedule: Mutex<Schedule>,
    /// How often each fault struck.
    struck: Mutex<BTreeMap<String, u64>>,
    instead: Mutex<BTreeMap<String, Instead>>,
    /// Answers of each operation, the newest last.
    old: Mutex<BTreeMap<String, VecDeque<Response>>>,
    /// How many items a page of a scan has at most; 0 leaves that to moto.
    scan_page: Mutex<usize>,
    /// How often the faults were ended: a hanging call waits for the next time.
    healings: Mutex<usize>,
    healed: Condvar,
    /// How many calls wait for that.
    waiting: Mutex<usize>,
    /// Held during a DynamoDB call; the answers by `ClientRequestToken`.
    dynamodb: Mutex<VecDeque<(String, Response)>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// The proxy; dropping it closes its port and its connections.
#[derive(Debug)]
pub struct AwsProxy {
    port: Port,
    /// `None` while connections are refused.
    listener: Mutex<Option<Listener>>,
    shared: Arc<Shared>,
}

impl AwsProxy {
    /// Listens on a port of its own and forwards to `upstream`, an address such as `http://127.0.0.1:5000`.
    pub fn start(upstream: &str) -> Self {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(60)))
                .http_status_as_error(false)
                .proxy(None)
                .build(),
        );
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            agent,
            calls: Mutex::default(),
            connections: Mutex::default(),
            rules: Mutex::default(),
            schedule: Mutex::default(),
            struck: Mutex::default(),
            instead: Mutex::default(),
            old: Mutex::default(),
            scan_page: Mutex::default(),
            healings: Mutex::default(),
            healed: Condvar::new(),
            waiting: Mutex::default(),
            dynamodb: Mutex::default(),
        });
        let proxy = AwsProxy { port: Port::reserve(), listener: Mutex::default(), shared };
        proxy.accept();
        proxy
    }

    /// Its address as an AWS endpoint.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// From now on, every call of `operation` (`*`: any) meets `fault`, until [`AwsProxy::heal`].
    pub fn spoil(&self, operation: &str, fault: Fault) {
        self.spoil_times(operation, fault, usize::MAX);
    }

    /// The next `times` calls of `operation` (`*`: any) meet `fault`. Faults set earlier come first.
    pub fn spoil_times(&self, operation: &str, fault: Fault, times: usize) {
        lock(&self.shared.rules).push(Rule { operation: operation.to_owned(), fault, left: times });
    }

    /// From now on these faults strike by chance: the n-th call of an operation meets the same one whenever the seed is
    /// the same. Faults set by [`AwsProxy::spoil`] come first.
    pub fn schedule(&self, seed: u64, chances: Vec<Chance>) {
        *lock(&self.shared.schedule) = Schedule { seed, chances, calls: BTreeMap::new() };
    }

    /// Closes the port: connections are refused from now on, and those that are open are cut.
    pub fn refuse(&self) {
        *lock(&self.shared.struck).entry("* refused".to_owned()).or_default() += 1;
        drop(lock(&self.listener).take());
    }

    fn accept(&self) {
        let mut listener = lock(&self.listener);
        if listener.is_none() {
            let address = SocketAddr::from(([127, 0, 0, 1], self.port.number()));
            *listener = Some(wait_for("the proxy's port", Duration::from_secs(10), || {
                let shared = Arc::clone(&self.shared);
                Listener::start(address, move |reader| shared.serve(reader))
            }));
        }
    }

    /// Ends all faults; calls that hang are forwarded.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
        *lock(&self.shared.schedule) = Schedule::default();
        *lock(&self.shared.healings) += 1;
        self.shared.healed.notify_all();
        self.accept();
    }

    /// How often each fault struck since the last time this was asked.
    pub fn struck(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *lock(&self.shared.struck))
    }

    /// How many calls hang, or have their answer held back, at this moment.
    pub fn waiting(&self) -> usize {
        *lock(&self.shared.waiting)
    }

    /// From now on `answer` gives status and body of that operation in moto's place; faults strike it all the same.
    pub fn instead(&self, operation: &str, answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) {
        lock(&self.shared.instead).insert(operation.to_owned(), Arc::new(answer));
    }

    /// Scans have at most that many items on a page from now on.
    pub fn page_scans(&self, items: usize) {
        *lock(&self.shared.scan_page) = items;
    }

    /// Does something to the table while no call to DynamoDB is under way: moto would undo it with a cancelled transaction.
    pub fn with_table_still<T>(&self, act: impl FnOnce() -> T) -> T {
        let _still = lock(&self.shared.dynamodb);
        act()
    }

    /// The calls since the start, or since [`AwsProxy::forget`]. A call is recorded when it comes, before its answer.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// How many calls of that operation came.
    pub fn count(&self, operation: &str) -> usize {
        lock(&self.shared.calls).iter().filter(|call| call.operation == operation).count()
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }

    /// Forgets the calls recorded so far, and the old answers.
    pub fn forget(&self) {
        lock(&self.shared.calls).clear();
        lock(&self.shared.old).clear();
    }
}

impl Drop for AwsProxy {
    fn drop(&mut self) {
        // Calls that hang end; the port stays closed if it is.
        *lock(&self.shared.healings) += 1;
        self.shared.healed.notify_all();
    }
}

/// What is sent for a call.
enum Sent {
    Whole(Response),
    /// Less of a body than its length promises.
    Cut(Response),
    Huge(&'static str),
    Reset,
    Nothing,
}

impl Shared {
    fn serve(&self, mut reader: BufReader<TcpStream>) {
        *lock(&self.connections) += 1;
        while let Ok(Some(request)) = read_request(&mut reader) {
            let operation = operation(&request);
            lock(&self.calls).push(Call {
                operation: operation.clone(),
                body: String::from_utf8_lossy(&request.body).into_owned(),
                key: access_key(&request),
                token: request.headers.get("x-amz-security-token").cloned().unwrap_or_default(),
                at: Instant::now(),
            });
            let sent = self.answer(&operation, &request);
            let stream = reader.get_mut();
            match sent {
                Sent::Whole(response) if write_response(stream, &response, false).is_ok() => continue,
                Sent::Whole(_) | Sent::Nothing => {}
                Sent::Cut(response) => drop(write_cut(stream, &response)),
                Sent::Huge(start) => drop(write_huge(stream, start)),
                // A close that lingers for no time at all is a reset.
                Sent::Reset => drop(SockRef::from(&*stream).set_linger(Some(Duration::ZERO))),
            }
            return;
        }
    }

    fn answer(&self, operation: &str, request: &Request) -> Sent {
        let text = |status, body: &str| {
            let headers = vec![("Content-Type".to_owned(), "text/plain".to_owned())];
            Sent::Whole(Response { status, headers, body: body.into() })
        };
        let Some((fault, number)) = self.next_fault(operation) else {
            return Sent::Whole(self.forward(operation, request));
        };
        *lock(&self.struck).entry(format!("{operation} {fault:?}")).or_default() += 1;
        match fault {
            Fault::Delay(span) => {
                std::thread::sleep(span);
                Sent::Whole(self.forward(operation, request))
            }
            Fault::Reply(status, body) => text(status, &body),
            Fault::Later(span) => {
                let headers = vec![("x-amz-retry-after".to_owned(), span.as_millis().to_string())];
                Sent::Whole(Response { status: 503, headers, body: Vec::new() })
            }
            Fault::Close => Sent::Nothing,
            Fault::Reset => Sent::Reset,
            Fault::Lose => {
                self.forward(operation, request);
                Sent::Nothing
            }
            Fault::Hang => {
                self.wait_for_healing();
                Sent::Whole(self.forward(operation, request))
            }
            Fault::Hold => {
                let response = self.forward(operation, request);
                self.wait_for_healing();
                Sent::Whole(response)
            }
            Fault::Answer(make) => text(200, &make(&String::from_utf8_lossy(&request.body))),
            Fault::Garbage => text(200, "\u{0}\u{1}neither <xml nor {json"),
            Fault::Empty => text(200, ""),
            Fault::Cut => Sent::Cut(self.forward(operation, request)),
            Fault::Stale if !is_consistent(request) => {
                let old = lock(&self.old).get(operation).map(|old| old[number as usize % old.len()].clone());
                Sent::Whole(old.unwrap_or_else(|| self.forward(operation, request)))
            }
            Fault::Stale => Sent::Whole(self.forward(operation, request)),
            Fault::Endless => {
                let response = self.forward(operation, request);
                Sent::Whole(edited(response, |body| with_token(operation, &body, number)))
            }
            Fault::Huge if request.headers.contains_key("x-amz-target") => Sent::Huge(r#"{"Items":[{"x":{"S":""#),
            Fault::Huge => Sent::Huge("<a><b>"),
            Fault::Edit(edit) => Sent::Whole(edited(self.forward(operation, request), |body| edit(body))),
        }
    }

    fn wait_for_healing(&self) {
        let healings = lock(&self.healings);
        let before = *healings;
        *lock(&self.waiting) += 1;
        drop(self.healed.wait_timeout_while(healings, LONGEST_HANG, |now| *now == before));
        *lock(&self.waiting) -= 1;
    }

    /// The fault that this call meets, and a number of its own for it.
    fn next_fault(&self, operation: &str) -> Option<(Fault, u64)> {
        let mut rules = lock(&self.rules);
        if let Some(place) = rules.iter().position(|rule| rule.operation == operation || rule.operation == "*") {
            let fault = rules[place].fault.clone();
            rules[place].left -= 1;
            let left = rules[place].left;
            if left == 0 {
                rules.remove(place);
            }
            return Some((fault, left as u64));
        }
        let mut schedule = lock(&self.schedule);
        let call = schedule.calls.entry(operation.to_owned()).or_default();
        *call += 1;
        let call = *call;
        let mut random = Random::of(schedule.seed, operation, call);
        let meets = |chance: &&Chance| {
            let strikes = random.percent(chance.percent);
            strikes && (chance.operation == operation || chance.operation == "*")
        };
        let fault = schedule.chances.iter().find(meets)?.fault.clone();
        Some((fault, random.next()))
    }

    fn forward(&self, operation: &str, request: &Request) -> Response {
        let instead = lock(&self.instead).get(operation).cloned();
        let response = match instead {
            Some(answer) => {
                let (status, body) = answer(&String::from_utf8_lossy(&request.body));
                Response { status, headers: Vec::new(), body: body.into_bytes() }
            }
            None if request.headers.contains_key("x-amz-target") => self.forward_to_table(operation, request),
            None => self.send(request),
        };
        if response.status == 200 && !is_consistent(request) {
            let mut old = lock(&self.old);
            let old = old.entry(operation.to_owned()).or_default();
            old.truncate(OLD_ANSWERS - 1);
            old.push_front(response.clone());
        }
        response
    }

    fn forward_to_table(&self, operation: &str, request: &Request) -> Response {
        let mut answered = lock(&self.dynamodb);
        let page = *lock(&self.scan_page);
        if operation == "Scan"
            && page > 0
            && let Ok(mut body) = serde_json::from_slice::<Value>(&request.body)
        {
            body["Limit"] = json!(page);
            return self.send(&Request { body: body.to_string().into_bytes(), ..request.clone() });
        }
        let token = serde_json::from_slice::<Value>(&request.body)
            .ok()
            .filter(|_| operation == "TransactWriteItems")
            .and_then(|body| body["ClientRequestToken"].as_str().map(str::to_owned));
        let same = |known: &&(String, Response)| token.as_ref() == Some(&known.0);
        if let Some((_, response)) = answered.iter().find(same) {
            return response.clone();
        }
        let response = self.send(request);
        if let Some(token) = token.filter(|_| response.status == 200) {
            answered.truncate(TRANSACTIONS - 1);
            answered.push_front((token, response.clone()));
        }
        response
    }

    fn send(&self, request: &Request) -> Response {
        let mut builder = ureq::http::Request::builder()
            .method(request.method.as_str())
            .uri(format!("{}{}", self.upstream, request.target));
        for (name, value) in &request.headers {
            if name.starts_with("x-amz-") || name == "authorization" || name == "content-type" {
                builder = builder.header(name, value);
            }
        }
        let sent = builder.body(request.body.as_slice()).map_err(ureq::Error::from).and_then(|it| self.agent.run(it));
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(error) => return Response { status: 502, headers: Vec::new(), body: error.to_string().into_bytes() },
        };
        let headers = answer
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-amz") || *name == "content-type")
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap_or_default();
        Response { status: answer.status().as_u16(), headers, body }
    }
}

/// The operation's name: from the target header of the JSON services, or from the form of the others.
fn operation(request: &Request) -> String {
    if let Some(target) = request.headers.get("x-amz-target") {
        return target.rsplit('.').next().unwrap_or_default().to_owned();
    }
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let action = form.split('&').find_map(|pair| pair.strip_prefix("Action="));
    action.unwrap_or(&request.target).to_owned()
}

/// The access key id in the header of a signature.
fn access_key(request: &Request) -> String {
    let credential = request.headers.get("authorization").and_then(|text| text.split("Credential=").nth(1));
    credential.and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned()
}

/// Whether a call to DynamoDB asks for an answer that is never old; a write always is.
fn is_consistent(request: &Request) -> bool {
    let reads = ["GetItem", "Scan"].contains(&operation(request).as_str());
    let body = || serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    request.headers.contains_key("x-amz-target") && (!reads || body()["ConsistentRead"] == json!(true))
}
