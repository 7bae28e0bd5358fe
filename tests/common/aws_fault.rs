//! What can be wrong with an AWS call, and how often.

use std::fmt;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Response;

/// More than hsdo reads of any answer.
const HUGE: usize = 40 << 20;

/// What the proxy does with a call instead of forwarding it plainly.
#[derive(Clone)]
pub enum Fault {
    /// Forwards it after that time.
    Delay(Duration),
    /// Answers with that status and body.
    Reply(u16, String),
    /// Answers 503, and asks to be left alone for that time (`x-amz-retry-after`).
    Later(Duration),
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection (RST).
    Reset,
    /// Forwards the call, then closes the connection without an answer: the caller cannot know that it was done.
    Lose,
    /// Says nothing, until the fault is cleared; then forwards the call.
    Hang,
    /// Forwards the call, and holds the answer back until the fault is cleared.
    Hold,
    /// Answers 200 with bytes that are neither XML nor JSON.
    Garbage,
    /// Answers 200 with no body.
    Empty,
    /// Forwards the call and cuts the answer's body in half, under its whole `Content-Length`.
    Cut,
    /// Gives an older answer of the same operation. A strongly consistent call is forwarded: its answer is never old.
    Stale,
    /// Forwards the call and adds the token of a further page to the answer, another one each time.
    Endless,
    /// Answers 200 with a body that begins well and is larger than any real one.
    Huge,
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

    /// A cancelled transaction, with this code among its reasons.
    pub fn cancelled(reason: &str) -> Self {
        Fault::Reply(
            400,
            format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"by the test","CancellationReasons":[{{"Code":"None"}},{{"Code":"{reason}","Message":"by the test"}}]}}"#
            ),
        )
    }

    /// A denial as DynamoDB says it, in AWS's own words.
    pub fn denied(message: &str) -> Self {
        let kind = "com.amazon.coral.service#AccessDeniedException";
        Fault::Reply(400, json!({ "__type": kind, "Message": message }).to_string())
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
            Fault::Delay(_) => "delay",
            Fault::Reply(status, body) => return write!(f, "{status} {}", code_of(body)),
            Fault::Later(_) => "later",
            Fault::Close => "close",
            Fault::Reset => "reset",
            Fault::Lose => "lost answer",
            Fault::Hang => "hang",
            Fault::Hold => "held answer",
            Fault::Garbage => "garbage",
            Fault::Empty => "empty 200",
            Fault::Cut => "cut",
            Fault::Stale => "stale",
            Fault::Endless => "endless pages",
            Fault::Huge => "huge body",
            Fault::Edit(_) => "edit",
            Fault::Answer(_) => "answer",
        })
    }
}

/// The error's code in a body, for people.
fn code_of(body: &str) -> &str {
    let xml = body.split_once("<Code>").and_then(|(_, rest)| rest.split('<').next());
    let json = body.split_once('#').and_then(|(_, rest)| rest.split('"').next());
    xml.or(json).unwrap_or("without a code")
}

/// A fault that strikes some of the calls of an operation (`*`: of any): so many of a hundred, by a seed.
#[derive(Clone, Debug)]
pub struct Chance {
    /// The operation.
    pub operation: String,
    /// How many of a hundred calls.
    pub percent: u64,
    /// What happens to them.
    pub fault: Fault,
}

/// The answer with another body.
pub fn edited(mut response: Response, edit: impl FnOnce(String) -> String) -> Response {
    response.body = edit(String::from_utf8_lossy(&response.body).into_owned()).into_bytes();
    // The checksum of DynamoDB's answers is that of the body before the change.
    response.headers.retain(|(name, _)| name != "x-amz-crc32");
    response
}

/// An answer that tells of one more page, by a token that no other answer has.
pub fn with_token(operation: &str, body: &str, number: u64) -> String {
    match operation {
        "Scan" => {
            let mut page: Value = serde_json::from_str(body).unwrap_or_default();
            page["LastEvaluatedKey"] = json!({"BackendServerID": {"N": (1_000_000 + number % 1_000_000).to_string()}});
            page.to_string()
        }
        "DescribeInstances" => body.replace(
            "</DescribeInstancesResponse>",
            &format!("<nextToken>page-{number}</nextToken></DescribeInstancesResponse>"),
        ),
        _ => body.replace(
            "</DescribeAutoScalingGroupsResult>",
            &format!("<NextToken>page-{number}</NextToken></DescribeAutoScalingGroupsResult>"),
        ),
    }
}

/// Sends half of a body under the length of the whole.
pub fn write_cut(stream: &mut TcpStream, response: &Response) -> io::Result<()> {
    let (promised, half) = (response.body.len(), response.body.len() / 2);
    let head = format!("HTTP/1.1 {} Answer\r\nContent-Length: {promised}\r\n\r\n", response.status);
    stream.write_all(head.as_bytes())?;
    stream.write_all(&response.body[..half])?;
    stream.flush()
}

/// Sends more than anybody reads.
pub fn write_huge(stream: &mut TcpStream, start: &str) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 Answer\r\nContent-Length: {HUGE}\r\n\r\n{start}").as_bytes())?;
    let filling = [b'x'; 64 * 1024];
    for _ in 0..HUGE / filling.len() {
        stream.write_all(&filling)?;
    }
    stream.flush()
}
