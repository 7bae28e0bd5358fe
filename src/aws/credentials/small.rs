//! Small questions to those who give credentials: asked again when that may help, with a short answer read whole.

use std::io::Read;
use std::time::Duration;

use crate::aws::error::Cause;
use crate::aws::random::random;
use crate::aws::transport::net::{HttpRequest, Wire, body_fault};
use crate::aws::transport::retry::backoff;

/// The largest answer that is read, in bytes; a real one has two kilobytes.
const LIMIT: u64 = 64 * 1024;

/// A whole answer. It may hold a secret, so it cannot be printed.
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
}

/// Asks up to `attempts` times, while there is no answer or one with status 429 or 500 and above. The last such answer is
/// given back as it is.
pub(crate) fn ask(wire: &dyn Wire, ask: &HttpRequest<'_>, attempts: u32) -> Result<Reply, Cause> {
    let mut failed = 0;
    loop {
        let result = once(wire, ask);
        failed += 1;
        let passing = match &result {
            Ok(reply) => reply.status == 429 || reply.status >= 500,
            Err(_) => true,
        };
        if !passing || failed >= attempts {
            return result;
        }
        let cause = result.err().unwrap_or_else(|| Cause::Unreachable(String::new()));
        std::thread::sleep(backoff(&cause, failed, random()));
    }
}

fn once(wire: &dyn Wire, ask: &HttpRequest<'_>) -> Result<Reply, Cause> {
    let answer = wire.send(ask).map_err(|fault| fault.cause)?;
    let mut body = Vec::new();
    answer.body.take(LIMIT).read_to_end(&mut body).map_err(|error| body_fault(error, ask.time).cause)?;
    Ok(Reply {
        status: answer.status,
        headers: answer.headers,
        body: String::from_utf8(body).map_err(|_| Cause::Unreadable("it is not text".to_string()))?,
    })
}

/// A `GET` without a proxy.
pub(crate) fn get<'a>(url: &'a str, headers: &'a [(&'a str, &'a str)], time: Duration) -> HttpRequest<'a> {
    HttpRequest { method: "GET", url, headers, body: b"", time, connect: time, direct: true }
}
