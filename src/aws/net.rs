//! One HTTP exchange: a request out, an answer in, each bounded in time. What either means is the business of others.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use ureq::http::{Request, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

use super::config::Config;
use super::error::{Cause, Error};
use super::proxy::Proxies;
use super::tls::tls;
use crate::resolver::Names;

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
    /// A network with the proxies and the certificate bundle of `config`. Errors: a bundle that cannot be used.
    pub(crate) fn new(config: &mut Config) -> Result<Self, Error> {
        let tls = tls(config.ca_bundle.as_ref().map(|(path, place)| (path.as_path(), place.as_str())))?;
        let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("hsdo/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = ureq::Agent::with_parts(settings, connector, Names::default());
        Ok(Net { agent, proxies: std::mem::take(&mut config.proxies) })
    }
}

impl Wire for Net {
    fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let bad = |error: &dyn std::fmt::Display| Fault { cause: Cause::Unreachable(error.to_string()), stale: false };
        let url: Uri = ask.url.parse().map_err(|error| bad(&error))?;
        let proxy = if ask.direct { None } else { self.proxies.of(&url).cloned() };
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
        let answer = answer.map_err(|error| fault(error, ask.time))?;
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
        ureq::Error::ConnectProxyFailed(text) => {
            unreachable(format!("{text}; see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"))
        }
        other => unreachable(other.to_string()),
    }
}
