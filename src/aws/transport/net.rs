//! One HTTP exchange, bounded in time.

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Request, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

use super::proxy::{ConfiguredProxy, Proxies};
use super::tls::tls;
use crate::aws::error::{AwsError, Cause};
use crate::resolver::CachingResolver;

/// The start of the cause when DNS resolution fails.
pub(crate) const UNRESOLVED: &str = "its name cannot be resolved";

/// A request. It may carry credentials, so it has no `Debug`.
pub(crate) struct HttpRequest<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The body; ignored for `GET`.
    pub(crate) body: &'a [u8],
    /// The timeout for the whole exchange, the response body included.
    pub(crate) time: Duration,
    /// The timeout for connecting, TLS included.
    pub(crate) connect: Duration,
    /// Bypasses the proxy: for endpoints on this machine or its link.
    pub(crate) direct: bool,
}

/// A response whose body has yet to be read.
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    /// The headers, names in lower case; non-ASCII values are dropped.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as it arrives; map its errors with [`body_fault`].
    pub(crate) body: Box<dyn Read>,
}

impl HttpResponse {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An exchange that failed before the response was complete.
#[derive(Debug)]
pub(crate) struct ExchangeFault {
    pub(crate) cause: Cause,
    /// The connection closed before a response began: typical of a reused connection that the server has dropped.
    pub(crate) stale: bool,
}

/// Sends requests: the network, or a test.
pub(crate) trait Wire: Send + Sync {
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, ExchangeFault>;
}

/// The network, with a connection pool.
pub(crate) struct Net {
    agent: ureq::Agent,
    proxies: Proxies,
}

impl Net {
    /// Uses these proxies, and trusts the certificates of `bundle` (a path and the setting that names it) besides the
    /// built-in roots. Errors: an unusable bundle.
    pub(crate) fn new(proxies: Proxies, bundle: Option<(&Path, &str)>) -> Result<Self, AwsError> {
        let tls = tls(bundle)?;
        let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("hsdo/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = ureq::Agent::with_parts(settings, connector, CachingResolver::default());
        Ok(Net { agent, proxies })
    }
}

impl Net {
    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        via: Option<&ConfiguredProxy>,
        HttpRequest { time, connect, .. }: &HttpRequest<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let settings = self.agent.configure_request(request).proxy(via.map(|via| via.proxy.clone()));
        let settings = settings.timeout_global(Some(*time)).timeout_connect(Some(*connect.min(time)));
        self.agent.run(settings.build())
    }
}

impl Wire for Net {
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, ExchangeFault> {
        let bad = |error: &dyn std::fmt::Display| unreachable(error.to_string());
        let url: Uri = request.url.parse().map_err(|error| bad(&error))?;
        let via = if request.direct { None } else { self.proxies.for_url(&url) };
        let host = url.host().unwrap_or_default().to_string();
        let mut builder = Request::builder().method(request.method).uri(url);
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        let response = if request.method == "GET" {
            self.run(builder.body(()).map_err(|error| bad(&error))?, via, request)
        } else {
            self.run(builder.body(request.body).map_err(|error| bad(&error))?, via, request)
        };
        let response = response.map_err(|error| match via {
            Some(via) => proxy_fault(via, &host, error, request.time),
            None => fault(error, request.time),
        })?;
        let text = |value: &ureq::http::HeaderValue| value.to_str().ok().map(str::to_string);
        let headers = response.headers().iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
        Ok(HttpResponse {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: Box::new(response.into_body().into_reader()),
        })
    }
}

/// The fault behind an error while reading a body; `time` is the timeout of its request.
pub(crate) fn body_fault(error: io::Error, time: Duration) -> ExchangeFault {
    ExchangeFault { stale: false, ..fault(ureq::Error::from(error), time) }
}

fn unreachable(text: String) -> ExchangeFault {
    ExchangeFault { cause: Cause::Unreachable(text), stale: false }
}

fn fault(error: ureq::Error, time: Duration) -> ExchangeFault {
    let broken =
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    if is_unresolved(&error) {
        return unreachable(format!("{UNRESOLVED}: {}", error.into_io()));
    }
    match error {
        ureq::Error::Timeout(ureq::Timeout::Global) => {
            let text = format!("no complete response within {:.1} s", time.as_secs_f64());
            ExchangeFault { cause: Cause::TimedOut(text), stale: false }
        }
        ureq::Error::Timeout(step) => ExchangeFault { cause: Cause::TimedOut(step.to_string()), stale: false },
        ureq::Error::Io(error) => {
            if let Some(rustls::Error::InvalidCertificate(why)) = error.get_ref().and_then(|inner| inner.downcast_ref())
            {
                return unreachable(format!(
                    "its certificate is not accepted ({why:?}); if a private CA signed it, set AWS_CA_BUNDLE to that CA"
                ));
            }
            // OS errors are shown by kind, TLS errors by their own text.
            let text = if error.get_ref().is_some() { error.to_string() } else { error.kind().to_string() };
            ExchangeFault { stale: broken.contains(&error.kind()), cause: Cause::Unreachable(text) }
        }
        other => unreachable(other.to_string()),
    }
}

/// [`fault`] for a request sent through a proxy. Names the proxy, since it may be the cause.
fn proxy_fault(via: &ConfiguredProxy, host: &str, error: ureq::Error, time: Duration) -> ExchangeFault {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    if let ureq::Error::ConnectProxyFailed(text) = &error {
        // `proxy server responded 407/407`
        let status = text.rsplit(['/', ' ']).next().and_then(|word| word.parse().ok());
        return unreachable(via.refusal(host, status));
    }
    // Only the proxy itself is resolved and connected to from here.
    let missing = is_unresolved(&error)
        || matches!(&error, ureq::Error::Io(error)
            if [ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&error.kind()));
    let ExchangeFault { cause, stale } = fault(error, time);
    let cause = match cause {
        Cause::Unreachable(text) if missing => {
            Cause::Unreachable(format!("the proxy {via}: {text}; is it up, and is {} correct?", via.variable))
        }
        Cause::Unreachable(text) => Cause::Unreachable(format!("{text}, through the proxy {via}")),
        Cause::TimedOut(text) => Cause::TimedOut(format!("{text}, through the proxy {via}")),
        other => other,
    };
    ExchangeFault { cause, stale }
}

fn is_unresolved(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        // The standard library has no `ErrorKind` for this.
        ureq::Error::Io(error) => error.to_string().starts_with("failed to lookup address information"),
        _ => false,
    }
}
