//! Chooses the proxy for a request, from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Pure.
//!
//! Variables are read as curl and the SDKs do, in upper or lower case. Every proxy is used with CONNECT. A proxy URL may
//! hold a password, so these types have no `Debug`.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::aws::error::AwsError;
use crate::environment::Environment;

#[derive(Default)]
pub(crate) struct Proxies {
    https: Option<ConfiguredProxy>,
    http: Option<ConfiguredProxy>,
    no_proxy: Vec<NoProxyEntry>,
}

/// A proxy and the variable that names it. Displayed as `proxy.example:3128 (HTTPS_PROXY)`.
#[derive(Clone)]
pub(crate) struct ConfiguredProxy {
    pub(crate) proxy: Proxy,
    pub(crate) variable: &'static str,
}

impl fmt::Display for ConfiguredProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({})", self.proxy.host(), self.proxy.port(), self.variable)
    }
}

impl ConfiguredProxy {
    /// Why CONNECT to `host` failed, given the status of the response, if there was one.
    pub(crate) fn refusal(&self, host: &str, status: Option<u16>) -> String {
        let variable = self.variable;
        let has_login = self.proxy.username().is_some() || self.proxy.password().is_some();
        match status {
            Some(407) if has_login => {
                format!("the proxy {self} rejects the user and password in {variable} (status 407): correct them")
            }
            Some(407) => format!(
                "the proxy {self} requires authentication (status 407): set {variable} to http://user:password@host:port"
            ),
            Some(status) => format!(
                "the proxy {self} refuses CONNECT to {host} (status {status}): allow it on the proxy, or add the host to NO_PROXY"
            ),
            None => {
                format!("the proxy {self} does not answer CONNECT: correct {variable}, or add {host} to NO_PROXY")
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum NoProxyEntry {
    Everything,
    /// A domain and its subdomains, without the leading dot; and a port, if limited to one.
    Host(String, Option<u16>),
    /// A network in CIDR notation.
    Network(IpAddr, u8),
}

impl Proxies {
    /// Reads the variables. Errors: an unusable proxy, without its password.
    pub(crate) fn new(environment: &Environment) -> Result<Self, AwsError> {
        let first = |names: [&'static str; 4]| {
            names.into_iter().find_map(|name| environment.get(name).map(|url| (name, url.trim())))
        };
        let no_proxy = environment.get("NO_PROXY").or(environment.get("no_proxy")).unwrap_or_default();
        Ok(Proxies {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]).map(proxy).transpose()?,
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]).map(proxy).transpose()?,
            no_proxy: no_proxy.split([',', ' ']).filter_map(no_proxy_entry).collect(),
        })
    }

    /// The proxy for this URL, if any.
    pub(crate) fn for_url(&self, url: &Uri) -> Option<&ConfiguredProxy> {
        let https = url.scheme_str() == Some("https");
        let proxy = if https { &self.https } else { &self.http }.as_ref()?;
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        (!self.no_proxy.iter().any(|entry| entry.matches(&host, port))).then_some(proxy)
    }
}

fn proxy((variable, url): (&'static str, &str)) -> Result<ConfiguredProxy, AwsError> {
    let fault = |why| AwsError::Setup(format!("{variable} is {why}; a proxy looks like http://proxy.example:3128"));
    let proxy = Proxy::new(url).map_err(|_| fault("not a proxy URL"))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(ConfiguredProxy { proxy, variable }),
        _ => Err(fault("a SOCKS proxy, which hsdo cannot use")),
    }
}

fn no_proxy_entry(text: &str) -> Option<NoProxyEntry> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(NoProxyEntry::Everything);
    }
    let network = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        length.parse().ok().filter(|length| *length <= most).map(|length| NoProxyEntry::Network(address, length))
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
    Some(NoProxyEntry::Host(host.to_string(), port))
}

impl NoProxyEntry {
    fn matches(&self, host: &str, port: u16) -> bool {
        match self {
            NoProxyEntry::Everything => true,
            NoProxyEntry::Host(name, port_only) => {
                let in_domain =
                    host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                in_domain && port_only.is_none_or(|only| only == port)
            }
            NoProxyEntry::Network(network, length) => {
                host.parse().is_ok_and(|address| in_network(address, *network, *length))
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, length: u8) -> bool {
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

    fn proxy_used(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::new(&Environment::from(variables.iter().copied())).expect("proxies");
        proxies
            .for_url(&url.parse().expect("a URL"))
            .map(|named| format!("{}:{}", named.proxy.host(), named.proxy.port()))
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let of = |variable, url| {
            let proxies = Proxies::new(&Environment::from([(variable, url)])).expect("proxies");
            proxies.for_url(&"https://a.test".parse().expect("a URL")).expect("a proxy").clone()
        };
        let bare = of("https_proxy", "http://p:1");
        assert_eq!(bare.to_string(), "p:1 (https_proxy)");
        assert!(bare.refusal("a.test", Some(407)).ends_with("set https_proxy to http://user:password@host:port"));
        let text = bare.refusal("a.test", Some(403));
        assert!(text.contains("refuses CONNECT to a.test (status 403)") && text.contains("NO_PROXY"), "{text}");
        assert!(bare.refusal("a.test", None).contains("does not answer CONNECT"));
        let with_login = of("ALL_PROXY", "http://us:hush@p:1");
        for text in [Some(407), Some(502), None].map(|status| with_login.refusal("a.test", status)) {
            assert!(text.contains("p:1 (ALL_PROXY)") && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let both = [("HTTPS_PROXY", "http://secure:1"), ("http_proxy", "plain:2")];
        assert_eq!(proxy_used(&both, "https://ec2.eu-west-1.amazonaws.com/").as_deref(), Some("secure:1"));
        assert_eq!(proxy_used(&both, "http://ec2.test/").as_deref(), Some("plain:2"));
        assert_eq!(proxy_used(&both[..1], "http://ec2.test/"), None);
        assert_eq!(proxy_used(&[("ALL_PROXY", "http://any:3")], "http://ec2.test/").as_deref(), Some("any:3"));
        assert_eq!(proxy_used(&[], "https://ec2.test/"), None);
    }

    #[test]
    fn no_proxy_hosts_bypass_the_proxy() {
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
            assert_eq!(proxy_used(&variables, host).is_none(), direct, "{no_proxy:?} {host}");
        }
    }

    #[test]
    fn an_unusable_proxy_is_reported_without_its_password() {
        for bad in ["socks5://u:hush@p:1", "ftp://u:hush@p", "http://u:hush@"] {
            let error = Proxies::new(&Environment::from([("HTTPS_PROXY", bad)])).err().expect(bad).to_string();
            assert!(error.starts_with("HTTPS_PROXY is ") && !error.contains("hush"), "{error}");
        }
    }
}
