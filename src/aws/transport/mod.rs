//! One call: connections, TLS and proxies, where each service is, signatures, AWS's clock, and retries.
//!
//! It may import `reading` and `error`. It knows neither where credentials come from nor what an answer means.

pub(super) mod endpoint;
pub(super) mod form;
pub(super) mod http;
pub(super) mod identity;
pub(super) mod net;
mod partition;
pub(super) mod proxy;
pub(super) mod retry;
mod sign;
pub(super) mod skew;
mod tls;
