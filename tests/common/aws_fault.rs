//! Faults of AWS calls, and how often they strike.

use std::fmt;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Response;

/// More than hsdo reads of any response.
const HUGE: usize = 40 << 20;

/// What the proxy does with a call instead of just forwarding it.
#[derive(Clone)]
pub enum Fault {
    /// Forwards after a delay.
    Delay(Duration),
    /// Responds with that status and body.
    Reply(u16, String),
    /// Responds 503 with that pause in `x-amz-retry-after`.
    Later(Duration),
    /// Closes the connection without a response.
    Close,
    Reset,
    /// Forwards, then closes the connection: the caller cannot know that the call took effect.
    Lose,
    /// Hangs until the fault is cleared, then forwards.
    Hang,
    /// Forwards, and holds the response back until the fault is cleared.
    Hold,
    /// 200 with bytes that are neither XML nor JSON.
    Garbage,
    /// 200 with no body.
    Empty,
    /// Forwards, and cuts the response body in half, with the `Content-Length` of the whole.
    Cut,
    /// Replays an older response of the operation. Strongly consistent calls are forwarded, since theirs is never
    /// stale.
    Stale,
    /// Forwards, and adds a next-page token to the response, a new one each time.
    Endless,
    /// 200 with a body that begins well and is larger than any real one.
    Huge,
    /// Forwards, and edits the response body.
    Edit(Arc<dyn Fn(String) -> String + Send + Sync>),
    /// 200 with a body made from the request's, for what moto is too slow to hold.
    Answer(Arc<dyn Fn(&str) -> String + Send + Sync>),
}

impl Fault {
    /// Replaces a text in the response, such as a lifecycle state that moto does not have.
    pub fn replace(from: &str, to: &str) -> Self {
        let (from, to) = (from.to_owned(), to.to_owned());
        Fault::Edit(Arc::new(move |body| body.replace(&from, &to)))
    }

    /// A DynamoDB error, such as `ProvisionedThroughputExceededException`.
    pub fn dynamodb(status: u16, code: &str) -> Self {
        Fault::Reply(
            status,
            format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"by the test"}}"#),
        )
    }

    /// A cancelled transaction with this code among its reasons.
    pub fn cancelled(reason: &str) -> Self {
        Fault::Reply(
            400,
            format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"by the test","CancellationReasons":[{{"Code":"None"}},{{"Code":"{reason}","Message":"by the test"}}]}}"#
            ),
        )
    }

    /// DynamoDB's `AccessDeniedException` with that message.
    pub fn denied(message: &str) -> Self {
        let kind = "com.amazon.coral.service#AccessDeniedException";
        Fault::Reply(400, json!({ "__type": kind, "Message": message }).to_string())
    }

    /// An EC2 error, such as `InvalidInstanceID.NotFound`.
    pub fn ec2(status: u16, code: &str, message: &str) -> Self {
        Fault::Reply(
            status,
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
            ),
        )
    }

    /// An Auto Scaling error, such as `Throttling`.
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

/// The error code in a body.
fn code_of(body: &str) -> &str {
    let xml = body.split_once("<Code>").and_then(|(_, rest)| rest.split('<').next());
    let json = body.split_once('#').and_then(|(_, rest)| rest.split('"').next());
    xml.or(json).unwrap_or("without a code")
}

/// A fault that strikes a percentage of an operation's calls (`*`: any operation), by a seed.
#[derive(Clone, Debug)]
pub struct Chance {
    pub operation: String,
    pub percent: u64,
    pub fault: Fault,
}

pub fn edited(mut response: Response, edit: impl FnOnce(String) -> String) -> Response {
    response.body = edit(String::from_utf8_lossy(&response.body).into_owned()).into_bytes();
    // DynamoDB's checksum is of the body before the edit.
    response.headers.retain(|(name, _)| name != "x-amz-crc32");
    response
}

/// The response with a next-page token that no other response has.
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

pub fn write_huge(stream: &mut TcpStream, start: &str) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 Answer\r\nContent-Length: {HUGE}\r\n\r\n{start}").as_bytes())?;
    let filling = [b'x'; 64 * 1024];
    for _ in 0..HUGE / filling.len() {
        stream.write_all(&filling)?;
    }
    stream.flush()
}
