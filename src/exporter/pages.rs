//! What each path shows: a pure function from a method and a path to a page. It knows nothing of HTTP's text or of connections.

use std::fmt;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

const PLAIN: &str = "text/plain; charset=utf-8";
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
pub(super) fn page(metrics: &Metrics, interval: Duration, method: &str, path: &str) -> Page {
    if !matches!(method, "GET" | "HEAD") {
        let refused = Page::text(405, "only GET and HEAD are served here");
        return Page { headers: vec![("Allow", "GET, HEAD".to_owned())], ..refused };
    }
    let liveness = || metrics.liveness(Instant::now(), interval);
    let probe = |good: bool, reason: &str| Page::text(if good { 200 } else { 503 }, reason);
    match path {
        "/metrics" => Page::new(PROMETHEUS, metrics.render()),
        "/healthz" => {
            let liveness = liveness();
            probe(liveness.alive, if liveness.alive { "ok" } else { &liveness.reason })
        }
        "/readyz" => {
            let liveness = liveness();
            probe(liveness.ready, &liveness.reason)
        }
        _ => Page::text(404, "not found: there are /metrics, /healthz and /readyz"),
    }
}
