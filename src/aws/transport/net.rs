//! One HTTP exchange: a request out, an answer in, each bounded in time. What either means is the business of others.

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Request, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

use super::proxy::{Named, Proxies};
use super::tls::tls;
use crate::aws::error::{Cause, Error};
use crate::resolver::CachingResolver;

/// How the cause begins where the other side's name has no address.
pub(crate) const UNRESOLVED: &str = "its name cannot be resolved";

/// A request. It may carry credentials, so it cannot be printed.
pub(crate) struct Ask<'a> {
    /// `GET`, `PUT` or `POST`.
    pub(crate) method: &'static str,
    /// The whole URL.
    pub(crate) url: &'a str,
    /// Its headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Its body; a `GET` sends none.
    pub(crate) body: &'a [u8],
    /// The time for all of it, the answer's body included.
    pub(crate) time: Duration,
    /// The time for the connection to stand, TLS included.
    pub(crate) connect: Duration,
    /// Whether no proxy may be asked: for what is on this machine or its link.
    pub(crate) direct: bool,
}

/// An answer whose body has yet to be read.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers, names in lower case; a value that is not ASCII is left out.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as it arrives; its faults are those of [`fault_of`].
    pub(crate) body: Box<dyn Read>,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An exchange that brought no whole answer.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What happened.
    pub(crate) cause: Cause,
    /// The connection ended before an answer began, as a kept one does that the other side has given up.
    pub(crate) stale: bool,
}

/// Who carries requests: the network, or a test.
pub(crate) trait Wire: Send + Sync {
    /// Carries one.
    fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Fault>;
}

/// The network. Connections are kept for the next request.
pub(crate) struct Net {
    agent: ureq::Agent,
    proxies: Proxies,
}

impl Net {
    /// A network with these proxies, that trusts the certificates of `bundle` too, which comes with the setting that names
    /// it. Errors: a bundle that cannot be used.
    pub(crate) fn new(proxies: Proxies, bundle: Option<(&Path, &str)>) -> Result<Self, Error> {
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

impl Wire for Net {
    fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let bad = |error: &dyn std::fmt::Display| Fault { cause: Cause::Unreachable(error.to_string()), stale: false };
        let url: Uri = ask.url.parse().map_err(|error| bad(&error))?;
        let by = if ask.direct { None } else { self.proxies.of(&url) };
        let proxy = by.map(|named| named.proxy.clone());
        let host = url.host().unwrap_or_default().to_string();
        let mut request = Request::builder().method(ask.method).uri(url);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let connect = ask.connect.min(ask.time);
        let answer = if ask.method == "GET" {
            let request = request.body(()).map_err(|error| bad(&error))?;
            let settings = self.agent.configure_request(request).proxy(proxy).timeout_global(Some(ask.time));
            self.agent.run(settings.timeout_connect(Some(connect)).build())
        } else {
            let request = request.body(ask.body).map_err(|error| bad(&error))?;
            let settings = self.agent.configure_request(request).proxy(proxy).timeout_global(Some(ask.time));
            self.agent.run(settings.timeout_connect(Some(connect)).build())
        };
        let answer = answer.map_err(|error| match by {
            Some(by) => fault_by(by, &host, error, ask.time),
            None => fault(error, ask.time),
        })?;
        let text = |value: &ureq::http::HeaderValue| value.to_str().ok().map(str::to_string);
        let headers = answer.headers().iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: headers.collect(),
            body: Box::new(answer.into_body().into_reader()),
        })
    }
}

/// The fault behind an error of reading a body; `time` is that of its request.
pub(crate) fn fault_of(error: io::Error, time: Duration) -> Fault {
    Fault { stale: false, ..fault(ureq::Error::from(error), time) }
}

fn fault(error: ureq::Error, time: Duration) -> Fault {
    let broken =
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    let unreachable = |text| Fault { cause: Cause::Unreachable(text), stale: false };
    if is_unresolved(&error) {
        return unreachable(format!("{UNRESOLVED}: {}", error.into_io()));
    }
    match error {
        ureq::Error::Timeout(ureq::Timeout::Global) => {
            let text = format!("no whole answer in {:.1} s", time.as_secs_f64());
            Fault { cause: Cause::TimedOut(text), stale: false }
        }
        ureq::Error::Timeout(step) => Fault { cause: Cause::TimedOut(step.to_string()), stale: false },
        ureq::Error::Io(error) => {
            if let Some(rustls::Error::InvalidCertificate(why)) = error.get_ref().and_then(|inner| inner.downcast_ref())
            {
                return unreachable(format!(
                    "its certificate is not accepted ({why:?}); where a private authority signed it, name that in AWS_CA_BUNDLE"
                ));
            }
            // An error of the system is told by its kind; one of TLS has its own words.
            let text = if error.get_ref().is_some() { error.to_string() } else { error.kind().to_string() };
            Fault { stale: broken.contains(&error.kind()), cause: Cause::Unreachable(text) }
        }
        other => unreachable(other.to_string()),
    }
}

/// The same for a request by way of a proxy, which is named: it may be what is at fault.
fn fault_by(by: &Named, host: &str, error: ureq::Error, time: Duration) -> Fault {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    if let ureq::Error::ConnectProxyFailed(text) = &error {
        // `proxy server responded 407/407`
        let status = text.rsplit(['/', ' ']).next().and_then(|word| word.parse().ok());
        return Fault { cause: Cause::Unreachable(by.refusal(host, status)), stale: false };
    }
    // Only the proxy itself is looked up and connected to from here.
    let missing = is_unresolved(&error)
        || matches!(&error, ureq::Error::Io(error)
            if [ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&error.kind()));
    let Fault { cause, stale } = fault(error, time);
    let cause = match cause {
        Cause::Unreachable(text) if missing => {
            let variable = by.variable;
            Cause::Unreachable(format!("the proxy {}: {text}; is it up, and {variable} right?", by.shown()))
        }
        Cause::Unreachable(text) => Cause::Unreachable(format!("{text}, by way of the proxy {}", by.shown())),
        Cause::TimedOut(text) => Cause::TimedOut(format!("{text}, by way of the proxy {}", by.shown())),
        other => other,
    };
    Fault { cause, stale }
}

/// Whether the name of the other side could not be resolved.
fn is_unresolved(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        // The standard library gives this fault no kind of its own.
        ureq::Error::Io(error) => error.to_string().starts_with("failed to lookup address information"),
        _ => false,
    }
}
