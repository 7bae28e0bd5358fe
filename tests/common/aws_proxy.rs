//! An HTTP proxy in front of moto that records every AWS call and can spoil the answers.
//!
//! moto does not isolate transactions, so the calls to DynamoDB go to it one at a time, and a `TransactWriteItems` with a
//! `ClientRequestToken` that was seen before gets the answer it got then.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::http::{Listener, Request, Response, lock, read_request, write_response};

/// A hanging call is let go after this long, so that no thread stays for ever.
const LONGEST_HANG: Duration = Duration::from_secs(120);

/// What the proxy does with a call instead of forwarding it plainly.
#[derive(Clone)]
pub enum Fault {
    /// Forwards it after that time.
    Delay(Duration),
    /// Answers with that status and body.
    Reply(u16, String),
    /// Closes the connection without an answer.
    Close,
    /// Forwards the call, then closes the connection without an answer: the caller cannot know that it was done.
    Lose,
    /// Says nothing, until the fault is cleared.
    Hang,
    /// Answers 200 with bytes that are neither XML nor JSON.
    Garbage,
    /// Answers 200 with no body.
    Empty,
    /// Forwards the call and cuts the answer's body in half, under its whole `Content-Length`.
    Cut,
    /// Forwards the call and changes the answer's body.
    Edit(Arc<dyn Fn(String) -> String + Send + Sync>),
    /// Answers 200 with a body made from the request's, and forwards nothing: for what moto is too slow to have.
    Answer(Arc<dyn Fn(&str) -> String + Send + Sync>),
}

impl Fault {
    /// A fault that replaces one text by another in the answer, such as a lifecycle state that moto does not have.
    pub fn replace(from: &str, to: &str) -> Self {
        let (from, to) = (from.to_owned(), to.to_owned());
        Fault::Edit(Arc::new(move |body| body.replace(&from, &to)))
    }

    /// An error as DynamoDB says it, such as `ProvisionedThroughputExceededException`.
    pub fn dynamodb(status: u16, code: &str) -> Self {
        Fault::Reply(
            status,
            format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"by the test"}}"#),
        )
    }

    /// An error as EC2 says it, such as `InvalidInstanceID.NotFound`.
    pub fn ec2(status: u16, code: &str, message: &str) -> Self {
        Fault::Reply(
            status,
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
            ),
        )
    }

    /// An error as Auto Scaling says it, such as `Throttling`.
    pub fn autoscaling(status: u16, code: &str) -> Self {
        Fault::Reply(
            status,
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>by the test</Message></Error><RequestId>r</RequestId></ErrorResponse>"
            ),
        )
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Delay(_) => "Delay",
            Fault::Reply(..) => "Reply",
            Fault::Close => "Close",
            Fault::Lose => "Lose",
            Fault::Hang => "Hang",
            Fault::Garbage => "Garbage",
            Fault::Empty => "Empty",
            Fault::Cut => "Cut",
            Fault::Edit(_) => "Edit",
            Fault::Answer(_) => "Answer",
        })
    }
}

/// A call that came through.
#[derive(Clone, Debug)]
pub struct Call {
    /// `Scan`, `DescribeInstances`, …
    pub operation: String,
    /// The request's body: JSON for DynamoDB, a form for the others.
    pub body: String,
    /// The access key id that signed it; empty for a call that nobody signed.
    pub key: String,
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

#[derive(Debug)]
struct Shared {
    upstream: String,
    agent: ureq::Agent,
    calls: Mutex<Vec<Call>>,
    connections: Mutex<usize>,
    rules: Mutex<Vec<Rule>>,
    /// How often the faults were ended: a hanging call waits for the next time.
    healings: Mutex<usize>,
    healed: Condvar,
    /// Held during a DynamoDB call; the answers by `ClientRequestToken`.
    dynamodb: Mutex<BTreeMap<String, Response>>,
}

/// The proxy; dropping it closes its port and its connections.
#[derive(Debug)]
pub struct AwsProxy {
    listener: Listener,
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
            healings: Mutex::default(),
            healed: Condvar::new(),
            dynamodb: Mutex::default(),
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let for_thread = Arc::clone(&shared);
        let listener =
            Listener::start(any, move |reader| for_thread.serve(reader)).expect("some port of loopback is free");
        AwsProxy { listener, shared }
    }

    /// Its address as an AWS endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// From now on, every call of `operation` (`*`: any) meets `fault`, until [`AwsProxy::heal`].
    pub fn spoil(&self, operation: &str, fault: Fault) {
        self.spoil_times(operation, fault, usize::MAX);
    }

    /// The next `times` calls of `operation` (`*`: any) meet `fault`. Faults set earlier come first.
    pub fn spoil_times(&self, operation: &str, fault: Fault, times: usize) {
        lock(&self.shared.rules).push(Rule { operation: operation.to_owned(), fault, left: times });
    }

    /// Ends all faults; calls that hang are forwarded.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
        *lock(&self.shared.healings) += 1;
        self.shared.healed.notify_all();
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

    /// Forgets the calls recorded so far.
    pub fn forget(&self) {
        lock(&self.shared.calls).clear();
    }
}

impl Drop for AwsProxy {
    fn drop(&mut self) {
        self.heal();
    }
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
                at: Instant::now(),
            });
            let Some((response, promised)) = self.answer(&operation, &request) else { return };
            let stream = reader.get_mut();
            let sent = if promised == response.body.len() {
                write_response(stream, &response, false)
            } else {
                write_cut(stream, &response, promised)
            };
            if sent.is_err() || promised != response.body.len() {
                return;
            }
        }
    }

    /// The answer and the length it claims to have; `None` closes the connection.
    fn answer(&self, operation: &str, request: &Request) -> Option<(Response, usize)> {
        let whole = |response: Response| {
            let length = response.body.len();
            Some((response, length))
        };
        let text = |status, body: &str| {
            let headers = vec![("Content-Type".to_owned(), "text/plain".to_owned())];
            whole(Response { status, headers, body: body.into() })
        };
        match self.next_fault(operation) {
            None => whole(self.forward(operation, request)),
            Some(Fault::Delay(span)) => {
                std::thread::sleep(span);
                whole(self.forward(operation, request))
            }
            Some(Fault::Reply(status, body)) => text(status, &body),
            Some(Fault::Close) => None,
            Some(Fault::Lose) => {
                self.forward(operation, request);
                None
            }
            Some(Fault::Hang) => {
                let healings = lock(&self.healings);
                let before = *healings;
                drop(self.healed.wait_timeout_while(healings, LONGEST_HANG, |now| *now == before));
                whole(self.forward(operation, request))
            }
            Some(Fault::Answer(make)) => text(200, &make(&String::from_utf8_lossy(&request.body))),
            Some(Fault::Garbage) => text(200, "\u{0}\u{1}neither <xml nor {json"),
            Some(Fault::Empty) => text(200, ""),
            Some(Fault::Cut) => {
                let mut response = self.forward(operation, request);
                let promised = response.body.len();
                response.body.truncate(promised / 2);
                Some((response, promised))
            }
            Some(Fault::Edit(edit)) => {
                let mut response = self.forward(operation, request);
                response.body = edit(String::from_utf8_lossy(&response.body).into_owned()).into_bytes();
                // The checksum of DynamoDB's answers is that of the body before the change.
                response.headers.retain(|(name, _)| name != "x-amz-crc32");
                whole(response)
            }
        }
    }

    fn next_fault(&self, operation: &str) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        let place = rules.iter().position(|rule| rule.operation == operation || rule.operation == "*")?;
        let fault = rules[place].fault.clone();
        rules[place].left -= 1;
        if rules[place].left == 0 {
            rules.remove(place);
        }
        Some(fault)
    }

    fn forward(&self, operation: &str, request: &Request) -> Response {
        let dynamodb = request.headers.contains_key("x-amz-target");
        if !dynamodb {
            return self.send(request);
        }
        let mut answered = lock(&self.dynamodb);
        let token = serde_json::from_slice::<serde_json::Value>(&request.body)
            .ok()
            .filter(|_| operation == "TransactWriteItems")
            .and_then(|body| body["ClientRequestToken"].as_str().map(str::to_owned));
        if let Some(response) = token.as_ref().and_then(|token| answered.get(token)) {
            return response.clone();
        }
        let response = self.send(request);
        if let Some(token) = token.filter(|_| response.status == 200) {
            answered.insert(token, response.clone());
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

/// Sends less of a body than its length promises.
fn write_cut(stream: &mut TcpStream, response: &Response, promised: usize) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {} Answer\r\nContent-Length: {promised}\r\n\r\n", response.status);
    stream.write_all(head.as_bytes())?;
    stream.write_all(&response.body)?;
    stream.flush()
}
