//! Which proxy a request goes through, by `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Pure.
//!
//! The spellings are those of curl and the SDKs, in upper or lower case. Every proxy is asked to CONNECT. It may hold a
//! password, so it cannot be printed.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::aws::error::Error;
use crate::environment::Environment;

/// The proxies that are configured.
#[derive(Default)]
pub(crate) struct Proxies {
    https: Option<Named>,
    http: Option<Named>,
    exceptions: Vec<Exception>,
}

/// A proxy, and the variable that it comes from.
#[derive(Clone)]
pub(crate) struct Named {
    /// The proxy.
    pub(crate) proxy: Proxy,
    /// The variable.
    pub(crate) variable: &'static str,
}

impl Named {
    /// It and its variable, for messages: `proxy.example:3128 (HTTPS_PROXY)`.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{} ({})", self.proxy.host(), self.proxy.port(), self.variable)
    }

    /// Why it did not let us through to `host`: the status that it answered, if it did.
    pub(crate) fn refusal(&self, host: &str, status: Option<u16>) -> String {
        let (shown, variable) = (self.shown(), self.variable);
        let known = self.proxy.username().is_some() || self.proxy.password().is_some();
        match status {
            Some(407) if known => {
                format!("the proxy {shown} does not take the user and password in it (status 407): correct them")
            }
            Some(407) => format!(
                "the proxy {shown} wants to know who asks (status 407): write {variable} as http://user:password@host:port"
            ),
            Some(status) => format!(
                "the proxy {shown} does not let us through to {host} (status {status}): allow it there, or name the host in NO_PROXY"
            ),
            None => {
                format!("the proxy {shown} gives no answer to CONNECT: correct {variable}, or name {host} in NO_PROXY")
            }
        }
    }
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    /// `*`
    Everything,
    /// A host and all below it, without a dot in front; and the port it is limited to.
    Host(String, Option<u16>),
    /// A network: its address and the length of its prefix.
    Network(IpAddr, u8),
}

impl Proxies {
    /// Reads the variables. Errors: a proxy that cannot be used, without its password.
    pub(crate) fn new(environment: &Environment) -> Result<Self, Error> {
        let first = |names: [&'static str; 4]| {
            names.into_iter().find_map(|name| environment.get(name).map(|url| (name, url.trim())))
        };
        let no_proxy = environment.get("NO_PROXY").or(environment.get("no_proxy")).unwrap_or_default();
        Ok(Proxies {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]).map(proxy).transpose()?,
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]).map(proxy).transpose()?,
            exceptions: no_proxy.split([',', ' ']).filter_map(exception).collect(),
        })
    }

    /// The proxy for this URL, if it goes through one.
    pub(crate) fn of(&self, url: &Uri) -> Option<&Named> {
        let https = url.scheme_str() == Some("https");
        let proxy = if https { &self.https } else { &self.http }.as_ref()?;
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        (!self.exceptions.iter().any(|exception| exception.holds(&host, port))).then_some(proxy)
    }
}

fn proxy((variable, url): (&'static str, &str)) -> Result<Named, Error> {
    let fault = |why| Error::Setup(format!("{variable} is {why}; a proxy looks like http://proxy.example:3128"));
    let proxy = Proxy::new(url).map_err(|_| fault("no URL of a proxy"))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(Named { proxy, variable }),
        _ => Err(fault("a SOCKS proxy, which hsdo cannot use")),
    }
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Exception::Everything);
    }
    let network = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        length.parse().ok().filter(|length| *length <= most).map(|length| Exception::Network(address, length))
    });
    if network.is_some() {
        return network;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text.as_str(), None),
        },
        _ => (text.as_str(), None),
    };
    let host = host.trim_start_matches('*').trim_start_matches('.').trim_start_matches('[').trim_end_matches(']');
    Some(Exception::Host(host.to_string(), port))
}

impl Exception {
    fn holds(&self, host: &str, port: u16) -> bool {
        match self {
            Exception::Everything => true,
            Exception::Host(name, only) => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && only.is_none_or(|only| only == port)
            }
            Exception::Network(network, length) => host.parse().is_ok_and(|address| within(address, *network, *length)),
        }
    }
}

fn within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let differing = bits(address) ^ bits(network);
    address.is_ipv4() == network.is_ipv4() && differing.leading_zeros() >= u32::from(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::new(&Environment::from(variables.iter().copied())).expect("proxies");
        proxies.of(&url.parse().expect("a URL")).map(|named| format!("{}:{}", named.proxy.host(), named.proxy.port()))
    }

    #[test]
    fn a_proxy_is_named_by_its_place_and_never_by_its_password() {
        let of = |variable, url| {
            let proxies = Proxies::new(&Environment::from([(variable, url)])).expect("proxies");
            proxies.of(&"https://a.test".parse().expect("a URL")).expect("a proxy").clone()
        };
        let bare = of("https_proxy", "http://p:1");
        assert_eq!(bare.shown(), "p:1 (https_proxy)");
        assert!(bare.refusal("a.test", Some(407)).ends_with("write https_proxy as http://user:password@host:port"));
        let text = bare.refusal("a.test", Some(403));
        assert!(text.contains("through to a.test (status 403)") && text.contains("NO_PROXY"), "{text}");
        assert!(bare.refusal("a.test", None).contains("no answer to CONNECT"));
        let known = of("ALL_PROXY", "http://us:hush@p:1");
        for text in [Some(407), Some(502), None].map(|status| known.refusal("a.test", status)) {
            assert!(text.contains("p:1 (ALL_PROXY)") && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let both = [("HTTPS_PROXY", "http://secure:1"), ("http_proxy", "plain:2")];
        assert_eq!(goes_through(&both, "https://ec2.eu-west-1.amazonaws.com/").as_deref(), Some("secure:1"));
        assert_eq!(goes_through(&both, "http://ec2.test/").as_deref(), Some("plain:2"));
        assert_eq!(goes_through(&both[..1], "http://ec2.test/"), None);
        assert_eq!(goes_through(&[("ALL_PROXY", "http://any:3")], "http://ec2.test/").as_deref(), Some("any:3"));
        assert_eq!(goes_through(&[], "https://ec2.test/"), None);
    }

    #[test]
    fn exceptions_go_directly() {
        for (no_proxy, host, direct) in [
            ("*", "https://a.test", true),
            ("a.test", "https://a.test", true),
            ("a.test", "https://b.a.test:8443", true),
            (".a.test", "https://b.a.test", true),
            ("*.a.test", "https://B.A.test", true),
            ("a.test", "https://aa.test", false),
            ("other.test, a.test", "https://a.test", true),
            ("a.test:8443", "https://a.test", false),
            ("a.test:443", "https://a.test", true),
            ("10.0.0.1", "https://10.0.0.1", true),
            ("10.0.0.0/8", "https://10.200.0.1:8000", true),
            ("10.0.0.0/8", "https://11.0.0.1", false),
            ("fd00::/8", "https://[fd00::1]", true),
            ("[fd00::1]", "https://[fd00::1]", true),
            ("0.0.0.0/0", "https://[fd00::1]", false),
            ("", "https://a.test", false),
        ] {
            let variables = [("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", no_proxy)];
            assert_eq!(goes_through(&variables, host).is_none(), direct, "{no_proxy:?} {host}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_named_without_its_password() {
        for bad in ["socks5://u:hush@p:1", "ftp://u:hush@p", "http://u:hush@"] {
            let error = Proxies::new(&Environment::from([("HTTPS_PROXY", bad)])).err().expect(bad).to_string();
            assert!(error.starts_with("HTTPS_PROXY is ") && !error.contains("hush"), "{error}");
        }
    }
}
