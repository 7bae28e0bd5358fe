//! Requests to credential endpoints: with retries, and a bounded response read whole.

use std::io::Read;
use std::time::Duration;

use crate::aws::error::Cause;
use crate::aws::random::random;
use crate::aws::transport::net::{HttpRequest, Wire, body_fault};
use crate::aws::transport::retry::backoff;

/// In bytes; a real response has 2 KB.
const LIMIT: u64 = 64 * 1024;

/// May hold a secret, so it has no `Debug`.
pub(crate) struct BoundedResponse {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// Retries failures and status 429 or 5xx, up to `attempts` in all. Returns the last response as it is.
pub(crate) fn send(wire: &dyn Wire, ask: &HttpRequest<'_>, attempts: u32) -> Result<BoundedResponse, Cause> {
    let mut failed = 0;
    loop {
        let result = send_once(wire, ask);
        failed += 1;
        let retryable = match &result {
            Ok(reply) => reply.status == 429 || reply.status >= 500,
            Err(_) => true,
        };
        if !retryable || failed >= attempts {
            return result;
        }
        let cause = result.err().unwrap_or_else(|| Cause::Unreachable(String::new()));
        std::thread::sleep(backoff(&cause, failed, random()));
    }
}

fn send_once(wire: &dyn Wire, ask: &HttpRequest<'_>) -> Result<BoundedResponse, Cause> {
    let response = wire.send(ask).map_err(|fault| fault.cause)?;
    let mut body = Vec::new();
    response.body.take(LIMIT).read_to_end(&mut body).map_err(|error| body_fault(error, ask.time).cause)?;
    Ok(BoundedResponse {
        status: response.status,
        headers: response.headers,
        body: String::from_utf8(body).map_err(|_| Cause::Unreadable("it is not text".to_string()))?,
    })
}

/// A `GET` without a proxy.
pub(crate) fn get<'a>(url: &'a str, headers: &'a [(&'a str, &'a str)], time: Duration) -> HttpRequest<'a> {
    HttpRequest { method: "GET", url, headers, body: b"", time, connect: time, direct: true }
}
