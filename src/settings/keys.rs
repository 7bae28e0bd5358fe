//! THE table of settings: name, role, default and expected value of each.
//!
//! The loaders, the error messages and `--help` use it; `conf/env.yaml` and the README's table are tested against it.

use std::fmt;

/// Which role reads a setting. The other role accepts and ignores it, so that one file can serve both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only `hsdo --server`.
    Server,
    /// Only `hsdo --client`.
    Client,
    /// Both roles.
    Both,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scope::Server => "server",
            Scope::Client => "client",
            Scope::Both => "both",
        })
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key in the file and the name of the environment variable.
    pub name: &'static str,
    /// The role that reads it.
    pub scope: Scope,
    /// Empty for none.
    pub default: &'static str,
    /// Completes "expected ..." in an error message.
    pub expected: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

/// Defines a constant per setting, and [`KEYS`], from one list.
macro_rules! table {
    ($($name:ident, $scope:ident, default $default:literal, expected $expected:literal, help $help:literal;)*) => {
        $(pub(super) const $name: Setting = Setting {
            name: stringify!($name),
            scope: Scope::$scope,
            default: $default,
            expected: $expected,
            help: $help,
        };)*

        /// Every documented setting, in the order of `--help` and `conf/env.yaml`.
        pub const KEYS: &[Setting] = &[$($name),*];
    };
}

table! {
    SERVER_MODE, Server, default "",
        expected "aws or consul",
        help "where the instances come from: aws or consul (required)";
    SERVER_ASG_NAMES, Server, default "",
        expected "one or more names of Auto Scaling groups, or patterns with * and ?, separated by commas",
        help "names of the Auto Scaling groups, or patterns such as web-*, separated by commas or as a YAML list (required in aws mode, unless SERVER_ASG_TAGS is set)";
    SERVER_ASG_TAGS, Server, default "",
        expected "one or more tags as key=value, or key for any value, separated by commas",
        help "tags that a group must carry, all of them: key=value or key, separated by commas; with SERVER_ASG_NAMES, both must match";
    SERVER_ADDRESS, Server, default "private",
        expected "private, ipv6 or public",
        help "address of an instance: private (primary private IPv4, else primary IPv6), ipv6 or public (its public IPv4)";
    SERVER_WEIGHT_BY, Server, default "none",
        expected "none, capacity or vcpu",
        help "size of an instance, which multiplies its weights: none, capacity (WeightedCapacity of its group) or vcpu (cores times threads)";
    SERVER_WEIGHT_UNIT, Server, default "",
        expected "a number above 0 and up to 1000000, decimals allowed",
        help "capacity or vCPUs of an instance that gets the plain weights (1 for capacity and 2 for vcpu if not set)";
    SERVER_ASG_WEIGHTS, Server, default "",
        expected "groups or patterns with factors from 0 to 16, such as web-canary=0.2,web-old=0",
        help "factors for the weights of groups, such as web-canary=0.2,web-old=0; the first entry that matches counts";
    SERVER_INSTANCE_TAGS, Server, default "false",
        expected "true or false",
        help "read the tags hsdo:weight, hsdo:port and hsdo:exclude of instances";
    SERVER_SPOT_NOTICE, Server, default "true",
        expected "true or false",
        help "ask EC2 every turn which Spot instances it is about to interrupt, and drain them two minutes ahead";
    SERVER_REMOVAL_GUARD, Server, default "30",
        expected "seconds from 0 to 86400, fractions allowed; 0 for no guard",
        help "seconds to keep servers when more than half of them leave every group at once while EC2 still runs them; 0 turns it off";
    SERVER_LIFECYCLE_HOOK, Server, default "",
        expected "the name of a lifecycle hook, at most 255 characters, or * for every terminating hook of the groups",
        help "terminating lifecycle hook that hsdo completes once nothing runs on the instance any more: its name, or * for all of the groups";
    SERVER_DRAIN_SECONDS, Server, default "300",
        expected "seconds from 0 to 172800, fractions allowed",
        help "longest time that SERVER_LIFECYCLE_HOOK holds an instance after its drain began, in seconds; above the longest request";
    SERVER_CONSUL_API_URL, Server, default "",
        expected "the URL of Consul's API without a user, such as http://127.0.0.1:8500 or unix:///run/consul.sock",
        help "URL of Consul's API: http, https or unix (required in consul mode)";
    SERVER_CONSUL_SERVICE_NAME, Server, default "",
        expected "one or more names of Consul services, separated by commas",
        help "names of the Consul services, separated by commas or as a YAML list (required in consul mode)";
    SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT, Server, default "1",
        expected "a weight from 0 to 256",
        help "weight of a new server, 0 to 256";
    SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT, Server, default "10",
        expected "a weight from 0 to 256",
        help "weight at the end of the ramp, MIN_WEIGHT to 256";
    SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT, Server, default "1",
        expected "a step from 1 to 256",
        help "weight gained per step, 1 to 256";
    SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL, Server, default "30",
        expected "seconds from 0.000001 to 1000000000, fractions allowed",
        help "seconds between steps, above 0, fractions allowed";
    CLIENT_HAPROXY_SOCKET_PATH, Client, default "/var/run/haproxy/admin.sock",
        expected "a socket as HAProxy spells it: a path of at most 107 bytes, unix@path, abns@name, ipv4@host:port or ipv6@[host]:port",
        help "HAProxy's Runtime API socket, with level admin: a path, abns@name, ipv4@host:port or ipv6@[host]:port; or the master's";
    CLIENT_HAPROXY_BACKEND_LIST, Client, default "",
        expected "backends with the base names of their servers, such as http-back:mywebapp:80,api-back:api:8080, \
                  or a map such as {http-back: {baseName: mywebapp, serverPort: 80}}",
        help "backends to fill, such as http-back:mywebapp:80 or {http-back: {baseName: mywebapp, serverPort: 80}} (required)";
    CLIENT_HAPROXY_BACKEND_SERVER_PORT, Client, default "80",
        expected "a port from 1 to 65535, or 0 to leave the port alone",
        help "server port of backends that set none, and of the fallback backend, 1 to 65535; 0 leaves the port alone";
    CLIENT_HAPROXY_BACKEND_NAME, Client, default "",
        expected "the name of a HAProxy backend: letters, digits and _.:- only, at most 255",
        help "older spelling of a list with one backend: its name, instead of CLIENT_HAPROXY_BACKEND_LIST";
    CLIENT_HAPROXY_BACKEND_BASE_NAME, Client, default "",
        expected "the prefix of a server-template: letters, digits and _.:- only, at most 255",
        help "older spelling of a list with one backend: the base name of its servers";
    CLIENT_DEDICATED_ASG, Client, default "false",
        expected "true or false",
        help "put only the servers of CLIENT_ASG_NAMES in the default backends, all others in the fallback";
    CLIENT_ASG_NAMES, Client, default "",
        expected "one or more names of Auto Scaling groups, or patterns with * and ?, separated by commas",
        help "groups, or patterns such as web-*, whose servers go to the default backends (required when dedicated)";
    CLIENT_DEDICATED_ZONE, Client, default "false",
        expected "true or false",
        help "put only the servers of CLIENT_ZONE_NAMES in the default backends, all others in the fallback, if there is one";
    CLIENT_ZONE_NAMES, Client, default "auto",
        expected "auto, or one or more names of availability zones, separated by commas",
        help "zones whose servers go to the default backends, such as eu-west-1a; auto is this machine's own, asked at start";
    CLIENT_SPILL_BELOW, Client, default "0",
        expected "a percentage from 0 to 100, 0 for no spillover",
        help "take in servers of other zones or groups while the own ones have less than this percentage of their fair share; 0 is never";
    CLIENT_HAPROXY_FALLBACK_BACKEND_NAME, Client, default "",
        expected "the name of a HAProxy backend: letters, digits and _.:- only, at most 255",
        help "fallback backend (required when dedicated by group or when all servers go to the fallback)";
    CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME, Client, default "",
        expected "the prefix of a server-template: letters, digits and _.:- only, at most 255",
        help "base name of the fallback backend's servers (required with its name)";
    CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND, Client, default "false",
        expected "true or false",
        help "put the servers of the default backends in the fallback backend too";
    CLIENT_HEALTH_GATE, Client, default "true",
        expected "true or false",
        help "keep a new server down until HAProxy's check has passed `rise` times";
    CLIENT_STATE_FILE, Client, default "",
        expected "the path of a file in a directory that hsdo can write to",
        help "file that keeps the last table, so that a start fills HAProxy while AWS cannot be read";
    CLIENT_STATE_MAX_AGE, Client, default "86400",
        expected "seconds from 0 to 1000000000, fractions allowed",
        help "maximum age of the table in CLIENT_STATE_FILE, in seconds";
    INTERVAL, Both, default "1",
        expected "seconds from 0.05 to 3600, fractions allowed",
        help "seconds from the start of one turn to the start of the next, 0.05 to 3600, fractions allowed";
    HAPROXY_BACKEND_SERVERS_LIST_SIZE, Both, default "10",
        expected "a number of slots from 1 to 10000",
        help "number of slots, as in HAProxy's server-template, 1 to 10000";
    DYNAMODB_TABLE_NAME, Both, default "",
        expected "the name of a DynamoDB table: 3 to 255 letters, digits and _.- only, or its ARN",
        help "DynamoDB table that holds the slots: its name or its ARN (required)";
    DYNAMODB_REPORT_TABLE_NAME, Both, default "",
        expected "the name of a DynamoDB table in the region of DYNAMODB_TABLE_NAME: 3 to 255 letters, digits and _.- only, or its ARN",
        help "DynamoDB table where clients report what HAProxy has carried out, and which sessions are left; none if not set";
    AWS_DEFAULT_REGION, Both, default "",
        expected "the name of an AWS region, such as eu-west-1",
        help "AWS region; AWS_REGION in the environment overrides it; defaults to the profile's or the instance's own";
    EXPORTER_PORT, Both, default "6789",
        expected "a port from 0 to 65535, 0 for no exporter",
        help "port of the exporter (page, status, metrics); 0 turns it off";
    EXPORTER_ADDRESS, Both, default "0.0.0.0",
        expected "an IP address",
        help "IP address the exporter listens on; :: is all addresses, IPv4 and IPv6";
    LOG_FORMAT, Both, default "text",
        expected "text or json",
        help "log lines as text, or as one JSON object each: text or json";
    DEBUG, Both, default "false",
        expected "true or false",
        help "debug log, like --debug";
}

/// A setting of the Python version's newest release. hsdo always behaves as if it were true, so it is accepted but not
/// documented.
pub(super) const CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO: Setting = Setting {
    name: "CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO",
    scope: Scope::Client,
    default: "",
    expected: "true or unset: hsdo always manages the weights",
    help: "accepted when true",
};

/// Overrides `AWS_DEFAULT_REGION`; only in the environment, not in the file.
pub(super) const AWS_REGION: Setting = Setting { name: "AWS_REGION", ..AWS_DEFAULT_REGION };

pub(super) fn is_setting(name: &str) -> bool {
    names().any(|setting| setting == name)
}

/// The names of all settings, undocumented ones included.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().chain([&CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO]).map(|key| key.name)
}

/// The settings section of `--help`.
pub fn help() -> String {
    let mut text = String::new();
    for Setting { name, scope, default, help, .. } in KEYS {
        let default = if default.is_empty() { "none" } else { default };
        text.push_str(&format!("  {name} ({scope}, default: {default})\n      {help}\n"));
    }
    text
}

/// The candidate most similar to `name`, by edit distance relative to length, ignoring case.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(100).collect();
    candidates.min_by_key(|candidate| {
        let candidate: Vec<char> = candidate.to_lowercase().chars().collect();
        let longest = name.len().max(candidate.len()).max(1);
        edit_distance(&name, &candidate) * 10_000 / longest
    })
}

/// Levenshtein distance.
fn edit_distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_well_formed() {
        let mut seen = std::collections::BTreeSet::new();
        for key in KEYS {
            assert!(seen.insert(key.name), "duplicate {}", key.name);
            assert!(key.name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{}", key.name);
            for text in [key.expected, key.help] {
                assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{}: {text:?}", key.name);
            }
            let expected = match key.name.split('_').next() {
                Some("SERVER") => Scope::Server,
                Some("CLIENT") => Scope::Client,
                _ => Scope::Both,
            };
            assert_eq!(key.scope, expected, "{}", key.name);
        }
        assert_eq!(KEYS.len(), 43);
    }

    #[test]
    fn help_lists_every_key_with_its_default() {
        let help = help();
        for key in KEYS {
            assert!(help.contains(&format!("  {} ({}, default: ", key.name, key.scope)), "{}", key.name);
            assert!(help.contains(&format!("      {}\n", key.help)), "{}", key.name);
        }
        assert!(help.contains("  INTERVAL (both, default: 1)\n"));
        assert!(help.contains("  SERVER_MODE (server, default: none)\n"));
    }

    #[test]
    fn the_nearest_key_is_the_intended_one() {
        let cases = [
            ("INTERVALL", "INTERVAL"),
            ("interval", "INTERVAL"),
            ("SERVER_ASG_NAME", "SERVER_ASG_NAMES"),
            ("CLIENT_ASG_NAME", "CLIENT_ASG_NAMES"),
            ("DYNAMODB_TABLE", "DYNAMODB_TABLE_NAME"),
            ("AWS_REGION", "AWS_DEFAULT_REGION"),
            ("CLIENT_BACKEND_LIST", "CLIENT_HAPROXY_BACKEND_LIST"),
            ("CLIENT_FALLBACK_BACKEND_NAME", "CLIENT_HAPROXY_FALLBACK_BACKEND_NAME"),
            ("EXPORTER_ADRESS", "EXPORTER_ADDRESS"),
            ("debug", "DEBUG"),
        ];
        for (typed, meant) in cases {
            assert_eq!(nearest(typed, names()), Some(meant), "{typed}");
        }
        assert_eq!(nearest("x", std::iter::empty()), None);
        assert_eq!(nearest("", ["abc"].into_iter()), Some("abc"));
    }

    #[test]
    fn edit_distances() {
        let count = |a: &str, b: &str| edit_distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(count(a, b), expected, "{a} {b}");
            assert_eq!(count(b, a), expected, "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn a_missing_character_never_hides_a_key(index in 0..KEYS.len(), at in 0usize..60) {
            let name = KEYS[index].name;
            let mut typed = name.to_owned();
            typed.remove(at % name.len());
            prop_assert_eq!(nearest(&typed, names()), Some(name));
        }
    }
}
