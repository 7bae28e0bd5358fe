//! Variables of the environment that begin like settings and are none: `SERVER_ASG_NAME` sets nothing, and nobody says so.
//! In the file such a key is a fault; the environment has other owners too, so here it is a note.

use super::keys::{is_known, names, nearest};
use super::shown::{LISTED, shown};
use crate::environment::Environment;

/// How the names of our settings begin; those that begin otherwise are too common to be judged by.
const OURS: [&str; 4] = ["SERVER_", "CLIENT_", "HAPROXY_BACKEND_", "DYNAMODB_"];

/// One line about all of them, each with the key that it may stand for; `None` if there are none.
pub(super) fn note(env: &Environment) -> Option<String> {
    let links = Links::of(env);
    let stray = |name: &&str| OURS.iter().any(|ours| name.starts_with(ours)) && !is_known(name) && !links.have(name);
    let strays: Vec<&str> = env.names().filter(stray).collect();
    let mut list: Vec<String> = strays.iter().take(LISTED).map(|name| described(name)).collect();
    if strays.len() > LISTED {
        list.push(format!("and {} more", strays.len() - LISTED));
    }
    (!list.is_empty())
        .then(|| format!("variables that begin like settings of hsdo, and are none, set nothing: {}", list.join(", ")))
}

fn described(name: &str) -> String {
    let near = nearest(name, names()).map(|key| format!(" (the nearest setting is {key})")).unwrap_or_default();
    format!("{}{near}", shown(name).trim_matches('"'))
}

/// The variables by which Kubernetes tells every container of a namespace where its services are. A service that is
/// called `client` gives `CLIENT_SERVICE_HOST`, `CLIENT_PORT_80_TCP` and more, which nobody has typed.
struct Links<'a>(Vec<&'a str>);

impl<'a> Links<'a> {
    /// A service has a `_SERVICE_HOST` and a `_SERVICE_PORT`, whatever else it has.
    fn of(env: &'a Environment) -> Self {
        let service = |name: &'a str| {
            let service = name.strip_suffix("_SERVICE_HOST")?;
            env.get(&format!("{service}_SERVICE_PORT")).map(|_| service)
        };
        Links(env.names().filter_map(service).collect())
    }

    /// Whether the variable is one of a service.
    fn have(&self, name: &str) -> bool {
        let kinds = |rest: &str| rest == "_PORT" || rest.starts_with("_PORT_") || rest.starts_with("_SERVICE_");
        self.0.iter().any(|service| name.strip_prefix(service).is_some_and(kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(names: &[&str]) -> Option<String> {
        note(&Environment::from(names.iter().map(|name| (*name, "secret"))))
    }

    #[test]
    fn variables_that_set_nothing_are_named_in_one_line() {
        let line = noted(&["SERVER_ASG_NAME", "PATH", "CLIENT_ID", "INTERVAL", "SERVER_MODE", "DYNAMODB_TABLE"]);
        assert_eq!(
            line.as_deref(),
            Some(
                "variables that begin like settings of hsdo, and are none, set nothing: \
                 CLIENT_ID (the nearest setting is CLIENT_STATE_FILE), \
                 DYNAMODB_TABLE (the nearest setting is DYNAMODB_TABLE_NAME), \
                 SERVER_ASG_NAME (the nearest setting is SERVER_ASG_NAMES)"
            )
        );
        for names in [&[][..], &["EXPORTER_PROT", "server_mode", "SERVERS", "CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO"]] {
            assert_eq!(noted(names), None, "{names:?}");
        }
        let many: Vec<String> = (0..13).map(|number| format!("CLIENT_{number:02}")).collect();
        let line = noted(&many.iter().map(String::as_str).collect::<Vec<_>>()).expect("a line");
        assert!(line.contains("CLIENT_09 ") && line.ends_with(", and 3 more") && !line.contains("CLIENT_10"), "{line}");
        let line = noted(&["CLIENT_\u{1b}[2J\n"]).expect("a line");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }

    #[test]
    fn services_of_kubernetes_are_nobodys_typing_errors() {
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
        assert_eq!(noted(&service), None);
        // Without its service it is a typing error.
        let line = noted(&["CLIENT_HAPROXY_BACKEND_SERVICE_PORT", "CLIENT_PORT"]).expect("a line");
        assert!(line.contains(
            "CLIENT_HAPROXY_BACKEND_SERVICE_PORT (the nearest setting is CLIENT_HAPROXY_BACKEND_SERVER_PORT)"
        ));
        assert!(line.contains("CLIENT_PORT "), "{line}");
    }
}
