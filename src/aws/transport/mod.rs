//! One call: connections, TLS, proxies, endpoints, signatures, clock skew and retries.
//!
//! May import `reading` and `error`. Knows neither where credentials come from nor what a response means.

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
mod steady;
mod tls;
