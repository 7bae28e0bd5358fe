//! An HTTP proxy in front of moto that records every AWS call and can inject faults.
//!
//! moto does not isolate transactions, so DynamoDB calls are forwarded one at a time. A `TransactWriteItems` with a
//! `ClientRequestToken` seen before gets its first response again.

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

/// A hanging call is released after this long, so that no thread leaks.
const LONGEST_HANG: Duration = Duration::from_secs(120);
/// What a `DescribeAutoScalingGroups` counts as that looks for groups, without their instances.
pub const SEARCH: &str = "SearchAutoScalingGroups";
/// Old responses kept per operation for [`Fault::Stale`].
const OLD_ANSWERS: usize = 30;
/// Transaction responses kept for repeats.
const TRANSACTIONS: usize = 1_000;

#[derive(Clone, Debug)]
pub struct Call {
    /// `Scan`, `DescribeInstances`, …
    pub operation: String,
    /// JSON for DynamoDB, a form for the others.
    pub body: String,
    /// The access key id that signed it; empty if unsigned.
    pub key: String,
    /// Its session token; empty if none.
    pub token: String,
    pub at: Instant,
}

/// A fault in force: its operation (`*` for any), and how many more calls it strikes.
#[derive(Debug)]
struct Rule {
    operation: String,
    fault: Fault,
    left: usize,
}

/// Seeded faults, and the calls per operation since they were set.
#[derive(Debug, Default)]
struct Schedule {
    seed: u64,
    chances: Vec<Chance>,
    calls: BTreeMap<String, u64>,
}

/// A stub for an operation: status and body, made from the request body.
type Stub = Arc<dyn Fn(&str) -> (u16, String) + Send + Sync>;

struct Shared {
    upstream: String,
    agent: ureq::Agent,
    calls: Mutex<Vec<Call>>,
    connections: Mutex<usize>,
    rules: Mutex<Vec<Rule>>,
    schedule: Mutex<Schedule>,
    /// How often each fault struck.
    struck: Mutex<BTreeMap<String, u64>>,
    instead: Mutex<BTreeMap<String, Stub>>,
    /// Responses per operation, newest last.
    old: Mutex<BTreeMap<String, VecDeque<Response>>>,
    /// Items per scan page; 0 leaves that to moto.
    scan_page: Mutex<usize>,
    /// How often the faults were cleared: a hanging call waits for the next time.
    healings: Mutex<usize>,
    healed: Condvar,
    /// Calls that wait for that.
    waiting: Mutex<usize>,
    /// Held during a DynamoDB call; responses by `ClientRequestToken`.
    dynamodb: Mutex<VecDeque<(String, Response)>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// The proxy; dropping it closes its port and connections.
#[derive(Debug)]
pub struct AwsProxy {
    port: Port,
    /// `None` while connections are refused.
    listener: Mutex<Option<Listener>>,
    shared: Arc<Shared>,
}

impl AwsProxy {
    /// Forwards to `upstream`, such as `http://127.0.0.1:5000`.
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

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Injects `fault` into every call of `operation` (`*`: any) until [`AwsProxy::heal`].
    pub fn inject(&self, operation: &str, fault: Fault) {
        self.inject_times(operation, fault, usize::MAX);
    }

    /// Injects `fault` into the next `times` calls of `operation` (`*`: any). Faults set earlier come first.
    pub fn inject_times(&self, operation: &str, fault: Fault, times: usize) {
        lock(&self.shared.rules).push(Rule { operation: operation.to_owned(), fault, left: times });
    }

    /// Injects these faults by chance; a seed repeats the sequence per operation. Faults set by [`AwsProxy::inject`]
    /// come first.
    pub fn schedule(&self, seed: u64, chances: Vec<Chance>) {
        *lock(&self.shared.schedule) = Schedule { seed, chances, calls: BTreeMap::new() };
    }

    /// Closes the port and all connections: further ones are refused.
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

    /// Clears all faults; hanging calls are forwarded.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
        *lock(&self.shared.schedule) = Schedule::default();
        *lock(&self.shared.healings) += 1;
        self.shared.healed.notify_all();
        self.accept();
    }

    /// How often each fault struck since the last call of this.
    pub fn struck(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *lock(&self.shared.struck))
    }

    /// Calls that hang, or whose response is held back.
    pub fn hanging(&self) -> usize {
        *lock(&self.shared.waiting)
    }

    /// Stubs an operation: `answer` gives status and body in moto's place. Faults still apply.
    pub fn stub(&self, operation: &str, answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) {
        lock(&self.shared.instead).insert(operation.to_owned(), Arc::new(answer));
    }

    /// Limits the items of a scan's page.
    pub fn limit_scan_page(&self, items: usize) {
        *lock(&self.shared.scan_page) = items;
    }

    /// Runs `act` while no DynamoDB call is in flight: moto's rollback of a cancelled transaction would undo it.
    pub fn with_table_locked<T>(&self, act: impl FnOnce() -> T) -> T {
        let _still = lock(&self.shared.dynamodb);
        act()
    }

    /// Calls since the start, or since [`AwsProxy::forget`]. A call is recorded on arrival, before its response.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    pub fn count(&self, operation: &str) -> usize {
        lock(&self.shared.calls).iter().filter(|call| call.operation == operation).count()
    }

    pub fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }

    /// Clears the recorded calls and the old responses.
    pub fn forget(&self) {
        lock(&self.shared.calls).clear();
        lock(&self.shared.old).clear();
    }
}

impl Drop for AwsProxy {
    fn drop(&mut self) {
        // Hanging calls end; a closed port stays closed.
        *lock(&self.shared.healings) += 1;
        self.shared.healed.notify_all();
    }
}

enum Sent {
    Whole(Response),
    /// Part of a body, under the length of the whole.
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
                // A zero linger time makes the close a reset.
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
                self.wait_for_heal();
                Sent::Whole(self.forward(operation, request))
            }
            Fault::Hold => {
                let response = self.forward(operation, request);
                self.wait_for_heal();
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

    fn wait_for_heal(&self) {
        let healings = lock(&self.healings);
        let before = *healings;
        *lock(&self.waiting) += 1;
        drop(self.healed.wait_timeout_while(healings, LONGEST_HANG, |now| *now == before));
        *lock(&self.waiting) -= 1;
    }

    /// The fault for this call, and a unique number for it.
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
        let mut random = Random::stream(schedule.seed, operation, call);
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

/// From the target header of the JSON services, or from the others' form.
fn operation(request: &Request) -> String {
    if let Some(target) = request.headers.get("x-amz-target") {
        return target.rsplit('.').next().unwrap_or_default().to_owned();
    }
    let form = String::from_utf8_lossy(&request.body).into_owned();
    if form.contains("IncludeInstances=false") {
        return SEARCH.to_owned();
    }
    let action = form.split('&').find_map(|pair| pair.strip_prefix("Action="));
    action.unwrap_or(&request.target).to_owned()
}

/// From the `Authorization` header.
fn access_key(request: &Request) -> String {
    let credential = request.headers.get("authorization").and_then(|text| text.split("Credential=").nth(1));
    credential.and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned()
}

/// Whether a DynamoDB response may not be stale; a write's never is.
fn is_consistent(request: &Request) -> bool {
    let reads = ["GetItem", "Scan"].contains(&operation(request).as_str());
    let body = || serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    request.headers.contains_key("x-amz-target") && (!reads || body()["ConsistentRead"] == json!(true))
}
