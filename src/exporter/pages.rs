//! What each path shows: a pure function from a method and a path to a page. It knows nothing of HTTP's text or of connections.

use std::fmt;
use std::time::Instant;

use crate::status::{self, Status};

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// More headers. One that is not ASCII is left out.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Page {
    pub(super) fn new(content_type: &'static str, body: String) -> Self {
        Page { status: 200, content_type, headers: Vec::new(), body }
    }

    /// One line of text.
    pub(super) fn text(status: u16, line: impl fmt::Display) -> Self {
        Page { status, ..Page::new(PLAIN, format!("{line}\n")) }
    }
}

/// The page at `path`, which has no query. Nothing that is asked for here changes anything.
pub(super) fn page(status: &Status, method: &str, path: &str) -> Page {
    if !matches!(method, "GET" | "HEAD") {
        let refused = Page::text(405, "only GET and HEAD are served here");
        return Page { headers: vec![("Allow", "GET, HEAD".to_owned())], ..refused };
    }
    let metrics = status.metrics();
    let liveness = || metrics.liveness(Instant::now(), status.interval());
    let nosniff = || ("X-Content-Type-Options", "nosniff".to_owned());
    let probe = |good: bool, reason: &str| Page::text(if good { 200 } else { 503 }, reason);
    match path {
        "/" => {
            let policy = ("Content-Security-Policy", status::content_security_policy().to_owned());
            Page { headers: vec![policy, nosniff()], ..Page::new(HTML, status::render(&status.report())) }
        }
        "/status" => Page { headers: vec![nosniff()], ..Page::new(JSON, status.report().to_json()) },
        "/metrics" => Page::new(PROMETHEUS, metrics.render()),
        "/healthz" => {
            let liveness = liveness();
            probe(liveness.alive, if liveness.alive { "ok" } else { &liveness.reason })
        }
        "/readyz" => {
            let liveness = liveness();
            probe(liveness.ready, &liveness.reason)
        }
        _ => Page::text(404, "not found: there are /, /status, /metrics, /healthz and /readyz"),
    }
}
