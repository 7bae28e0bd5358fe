//! Environment variables that look like misspelt settings, such as `SERVER_ASG_NAME`. An unknown key in the file is a fault,
//! but the environment belongs to others too, so here it is only a warning.

use super::keys::{is_setting, names, nearest};
use super::quote::{MAX_LISTED, quoted};
use crate::environment::Environment;
use crate::text::list;

/// Prefixes of our settings. The other settings' prefixes are too common to judge by.
const PREFIXES: [&str; 4] = ["SERVER_", "CLIENT_", "HAPROXY_BACKEND_", "DYNAMODB_"];

/// One line that lists them all, each with the most similar setting; `None` if there are none.
pub(super) fn warning(env: &Environment) -> Option<String> {
    let links = ServiceLinks::of(env);
    let stray = |name: &&str| {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !is_setting(name) && !links.contain(name)
    };
    let strays: Vec<&str> = env.names().filter(stray).collect();
    (!strays.is_empty()).then(|| {
        let list = list(strays.iter().map(|name| described(name)), MAX_LISTED);
        format!("environment variables that look like hsdo settings but have no effect: {list}")
    })
}

fn described(name: &str) -> String {
    let near = nearest(name, names()).map(|key| format!(" (did you mean {key}?)")).unwrap_or_default();
    format!("{}{near}", quoted(name).trim_matches('"'))
}

/// Services for which Kubernetes sets service link variables. A service called `client` yields `CLIENT_SERVICE_HOST`,
/// `CLIENT_PORT_80_TCP` and more, none of them a typing error.
struct ServiceLinks<'a>(Vec<&'a str>);

impl<'a> ServiceLinks<'a> {
    /// Every service has both a `_SERVICE_HOST` and a `_SERVICE_PORT`.
    fn of(env: &'a Environment) -> Self {
        let service = |name: &'a str| {
            let service = name.strip_suffix("_SERVICE_HOST")?;
            env.get(&format!("{service}_SERVICE_PORT")).map(|_| service)
        };
        ServiceLinks(env.names().filter_map(service).collect())
    }

    fn contain(&self, name: &str) -> bool {
        let is_link = |rest: &str| rest == "_PORT" || rest.starts_with("_PORT_") || rest.starts_with("_SERVICE_");
        self.0.iter().any(|service| name.strip_prefix(service).is_some_and(is_link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(names: &[&str]) -> Option<String> {
        warning(&Environment::from(names.iter().map(|name| (*name, "secret"))))
    }

    #[test]
    fn stray_variables_are_listed_in_one_line() {
        let line = warned(&["SERVER_ASG_NAME", "PATH", "CLIENT_ID", "INTERVAL", "SERVER_MODE", "DYNAMODB_TABLE"]);
        assert_eq!(
            line.as_deref(),
            Some(
                "environment variables that look like hsdo settings but have no effect: \
                 CLIENT_ID (did you mean CLIENT_STATE_FILE?), \
                 DYNAMODB_TABLE (did you mean DYNAMODB_TABLE_NAME?), \
                 SERVER_ASG_NAME (did you mean SERVER_ASG_NAMES?)"
            )
        );
        for names in [&[][..], &["EXPORTER_PROT", "server_mode", "SERVERS", "CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO"]] {
            assert_eq!(warned(names), None, "{names:?}");
        }
        let many: Vec<String> = (0..13).map(|number| format!("CLIENT_{number:02}")).collect();
        let line = warned(&many.iter().map(String::as_str).collect::<Vec<_>>()).expect("a line");
        assert!(line.contains("CLIENT_09 ") && line.ends_with(", and 3 more") && !line.contains("CLIENT_10"), "{line}");
        let line = warned(&["CLIENT_\u{1b}[2J\n"]).expect("a line");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }

    #[test]
    fn kubernetes_service_links_are_not_stray() {
        let service = [
            "CLIENT_PORT",
            "CLIENT_PORT_80_TCP",
            "CLIENT_PORT_80_TCP_ADDR",
            "CLIENT_PORT_80_TCP_PORT",
            "CLIENT_PORT_80_TCP_PROTO",
            "CLIENT_SERVICE_HOST",
            "CLIENT_SERVICE_PORT",
            "CLIENT_SERVICE_PORT_HTTP",
            "SERVER_WEB_SERVICE_HOST",
            "SERVER_WEB_SERVICE_PORT",
            "SERVER_WEB_PORT_443_TCP",
        ];
        assert_eq!(warned(&service), None);
        // Without a matching service they are stray.
        let line = warned(&["CLIENT_HAPROXY_BACKEND_SERVICE_PORT", "CLIENT_PORT"]).expect("a line");
        assert!(
            line.contains("CLIENT_HAPROXY_BACKEND_SERVICE_PORT (did you mean CLIENT_HAPROXY_BACKEND_SERVER_PORT?)")
        );
        assert!(line.contains("CLIENT_PORT "), "{line}");
    }
}
