//! Configurations as operators write them, and every fault reported for them.

mod backends;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use std::path::PathBuf;

use super::*;
use crate::conf_file::ConfFile;
use crate::log::Format;
use crate::selection::TagFilter;

/// The minimum configuration of each role.
const SERVER: [(&str, &str); 3] =
    [("SERVER_MODE", "aws"), ("SERVER_ASG_NAMES", "web"), ("DYNAMODB_TABLE_NAME", "slots")];
const CLIENT: [(&str, &str); 2] =
    [("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80"), ("DYNAMODB_TABLE_NAME", "slots")];

/// Groups by plain names, with nothing read of their instances but the address.
fn named(names: &[&str]) -> SourceSettings {
    SourceSettings::Aws { groups: GroupSelection::named(names), reading: InstanceReading::default() }
}

fn environment(base: &[(&str, &str)], more: &[(&str, &str)]) -> Environment {
    Environment::from(base.iter().chain(more).copied())
}

fn faults<T: std::fmt::Debug>(result: Result<T, Faults>) -> Vec<String> {
    match result {
        Err(Faults(faults, _)) => faults,
        other => panic!("no faults of a configuration: {other:?}"),
    }
}

fn file(text: &str) -> ConfFile {
    ConfFile::from_text(Path::new("env.yaml"), text.to_owned()).expect("a YAML map")
}

fn server_of(env: &[(&str, &str)]) -> Result<ServerSettings, Faults> {
    server(Sources::new(None, &environment(&SERVER, env)))
}

fn client_of(env: &[(&str, &str)]) -> Result<ClientSettings, Faults> {
    client(Sources::new(None, &environment(&CLIENT, env)))
}

fn server_file(text: &str, env: &[(&str, &str)]) -> Result<ServerSettings, Faults> {
    server(Sources::new(Some(file(text)), &environment(&[], env)))
}

fn client_file(text: &str, env: &[(&str, &str)]) -> Result<ClientSettings, Faults> {
    client(Sources::new(Some(file(text)), &environment(&[], env)))
}

fn backend(name: &str, base: &str, port: u16) -> Backend {
    Backend { name: name.to_owned(), base: base.to_owned(), port: Some(port).filter(|port| *port > 0) }
}

fn addr(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

/// A temporary directory, removed on drop.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hsdo-settings-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }

    fn file(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn defaults_apply_where_nothing_is_set() {
    let common = Common {
        interval: Duration::from_secs(1),
        list_size: 10,
        table: "slots".to_owned(),
        table_region: None,
        report_table: None,
        region: None,
        exporter: addr("0.0.0.0:6789"),
        log_format: Format::Text,
        debug: false,
        warnings: vec![],
    };
    assert_eq!(
        server_of(&[]).expect("settings"),
        ServerSettings {
            common: common.clone(),
            source: named(&["web"]),
            ramp: RampSettings { min: 1, max: 10, step: 1, interval: Duration::from_secs(30) },
            weighting: Weighting::default(),
            removal_guard: Duration::from_secs(30),
            hook: None,
            drain: Duration::from_secs(300),
        }
    );
    assert_eq!(
        client_of(&[]).expect("settings"),
        ClientSettings {
            common,
            socket: HaproxySocket::Path(PathBuf::from("/var/run/haproxy/admin.sock")),
            backends: vec![backend("http-back", "mywebapp", 80)],
            dedicated: false,
            zones: None,
            spill_below: 0,
            groups: vec![],
            fallback: None,
            all_in_fallback: false,
            health_gate: true,
            state_file: None,
        }
    );
}

#[test]
fn every_server_key_is_read() {
    let settings = server_of(&[
        ("SERVER_MODE", "AWS"),
        ("SERVER_ASG_NAMES", "b, a,,b"),
        ("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "0"),
        ("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", "256"),
        ("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "256"),
        ("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "0.5"),
        ("SERVER_REMOVAL_GUARD", "0"),
        ("SERVER_LIFECYCLE_HOOK", "drain/web"),
        ("SERVER_DRAIN_SECONDS", "90"),
        ("DYNAMODB_REPORT_TABLE_NAME", "reports"),
        ("INTERVAL", " 0.05 "),
        ("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "10000"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("EXPORTER_PORT", "9000"),
        ("EXPORTER_ADDRESS", "::1"),
        ("LOG_FORMAT", "JSON"),
        ("DEBUG", "Yes"),
    ]);
    assert_eq!(
        settings.expect("settings"),
        ServerSettings {
            common: Common {
                interval: Duration::from_millis(50),
                list_size: 10_000,
                table: "slots".to_owned(),
                table_region: None,
                report_table: Some("reports".to_owned()),
                region: Some("eu-west-1".to_owned()),
                exporter: addr("[::1]:9000"),
                log_format: Format::Json,
                debug: true,
                warnings: vec![],
            },
            source: named(&["b", "a"]),
            ramp: RampSettings { min: 0, max: 256, step: 256, interval: Duration::from_millis(500) },
            weighting: Weighting::default(),
            removal_guard: Duration::ZERO,
            hook: Some(HookName::Named("drain/web".to_owned())),
            drain: Duration::from_secs(90),
        }
    );
}

#[test]
fn a_hook_is_named_or_all_are_meant() {
    let hook = |text: &str| server_of(&[("SERVER_LIFECYCLE_HOOK", text)]).map(|settings| settings.hook);
    assert_eq!(hook("*").expect("settings"), Some(HookName::All));
    assert_eq!(hook("Drain_2/x-y").expect("settings"), Some(HookName::Named("Drain_2/x-y".to_owned())));
    for bad in ["web-*", "a b", "é", &"x".repeat(256)] {
        let text = hook(bad).expect_err(bad).to_string();
        assert!(text.contains("SERVER_LIFECYCLE_HOOK") && text.contains("or * for every terminating hook"), "{text}");
    }
    let consul = [
        ("SERVER_MODE", "consul"),
        ("SERVER_CONSUL_API_URL", "http://127.0.0.1:8500"),
        ("SERVER_CONSUL_SERVICE_NAME", "web"),
        ("SERVER_LIFECYCLE_HOOK", "drain"),
    ];
    let settings = server_of(&consul).expect("settings");
    assert_eq!(settings.hook, None);
    assert!(settings.common.warnings.concat().contains("no effect unless SERVER_MODE is aws"), "{settings:?}");
}

#[test]
fn the_table_of_reports_is_another_one_in_the_same_region() {
    let table = |region: &str, name: &str| format!("arn:aws:dynamodb:{region}:123456789012:table/{name}");
    for (slots, reports, expected) in [
        ("slots".to_owned(), "reports".to_owned(), None),
        (table("eu-west-1", "slots"), table("eu-west-1", "reports"), None),
        (table("eu-west-1", "slots"), "reports".to_owned(), None),
        ("slots".to_owned(), "slots".to_owned(), Some("another table than DYNAMODB_TABLE_NAME")),
        (table("eu-west-1", "slots"), table("us-east-1", "reports"), Some("in the region of DYNAMODB_TABLE_NAME")),
        ("slots".to_owned(), table("us-east-1", "reports"), Some("in the region of DYNAMODB_TABLE_NAME")),
        ("slots".to_owned(), "a b".to_owned(), Some("3 to 255 letters")),
    ] {
        let found = server_of(&[("DYNAMODB_TABLE_NAME", &slots), ("DYNAMODB_REPORT_TABLE_NAME", &reports)]);
        match expected {
            None => assert_eq!(found.expect("settings").common.report_table, Some(reports)),
            Some(expected) => {
                let text = found.expect_err(&reports).to_string();
                assert!(text.contains("DYNAMODB_REPORT_TABLE_NAME") && text.contains(expected), "{text}");
            }
        }
    }
}

#[test]
fn consul_mode_needs_the_api_and_the_services() {
    let consul = |more: &[(&str, &str)]| {
        let base = [("SERVER_MODE", "Consul"), ("DYNAMODB_TABLE_NAME", "slots")];
        server(Sources::new(None, &environment(&base, more)))
    };
    let url = ("SERVER_CONSUL_API_URL", "http://127.0.0.1:8500/");
    let settings = consul(&[url, ("SERVER_CONSUL_SERVICE_NAME", "web, api,web"), ("SERVER_ASG_NAMES", "ignored")]);
    assert_eq!(
        settings.expect("settings").source,
        SourceSettings::Consul {
            api: ConsulApi::Http("http://127.0.0.1:8500".to_owned()),
            services: vec!["web".to_owned(), "api".to_owned()],
        }
    );
    let nothing = "not set (the environment, no configuration file), expected";
    let api = "the URL of Consul's API without a user, such as http://127.0.0.1:8500 or unix:///run/consul.sock";
    let services = "one or more names of Consul services, separated by commas";
    assert_eq!(
        faults(consul(&[])),
        [
            format!("SERVER_CONSUL_API_URL: {nothing} {api}"),
            format!("SERVER_CONSUL_SERVICE_NAME: {nothing} {services}"),
        ]
    );
    assert_eq!(
        faults(consul(&[("SERVER_CONSUL_API_URL", "127.0.0.1:8500"), ("SERVER_CONSUL_SERVICE_NAME", ",")])),
        [
            format!("SERVER_CONSUL_API_URL: found \"127.0.0.1:8500\" (the environment), expected {api}"),
            format!("SERVER_CONSUL_SERVICE_NAME: found \",\" (the environment), expected {services}"),
        ]
    );
}

#[test]
fn every_client_key_is_read_from_a_file() {
    let text = "
CLIENT_HAPROXY_SOCKET_PATH: /run/h.sock
CLIENT_HAPROXY_BACKEND_LIST:
  http-back: {baseName: mywebapp, serverPort: '81'}
  api-back:
    baseName: api
CLIENT_HAPROXY_BACKEND_SERVER_PORT: 8080
CLIENT_DEDICATED_ASG: 'TRUE'
CLIENT_ASG_NAMES: [one, ' two ', one]
CLIENT_HAPROXY_FALLBACK_BACKEND_NAME: back
CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME: srv
CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND: 1
CLIENT_HEALTH_GATE: no
CLIENT_STATE_FILE: /var/lib/hsdo/table.json
CLIENT_STATE_MAX_AGE: '3600'
INTERVAL: 3600
HAPROXY_BACKEND_SERVERS_LIST_SIZE: '20'
DYNAMODB_TABLE_NAME: t.a-b_c
AWS_DEFAULT_REGION: us-gov-west-1
EXPORTER_PORT: 0
LOG_FORMAT: json
DEBUG: true
";
    assert_eq!(
        client_file(text, &[]).expect("settings"),
        ClientSettings {
            common: Common {
                interval: Duration::from_secs(3600),
                list_size: 20,
                table: "t.a-b_c".to_owned(),
                table_region: None,
                report_table: None,
                region: Some("us-gov-west-1".to_owned()),
                exporter: None,
                log_format: Format::Json,
                debug: true,
                warnings: vec![],
            },
            socket: HaproxySocket::Path(PathBuf::from("/run/h.sock")),
            backends: vec![backend("http-back", "mywebapp", 81), backend("api-back", "api", 8080)],
            dedicated: true,
            zones: None,
            spill_below: 0,
            groups: ["one", "two"].map(NamePattern::new).to_vec(),
            fallback: Some(backend("back", "srv", 8080)),
            all_in_fallback: true,
            health_gate: false,
            state_file: Some(StateFile {
                path: PathBuf::from("/var/lib/hsdo/table.json"),
                max_age: Duration::from_secs(3600),
            }),
        }
    );
}

#[test]
fn the_environment_takes_precedence_and_blank_is_unset() {
    let text = "DYNAMODB_TABLE_NAME: from-file\nINTERVAL: 5\nEXPORTER_PORT: ''\nDEBUG:\nSERVER_MODE: aws\n\
                SERVER_ASG_NAMES: [web]\n";
    let interval = |env: &[(&str, &str)]| {
        let common = server_file(text, env).expect("settings").common;
        (common.interval.as_secs(), common.table, common.exporter, common.debug)
    };
    let at = addr("0.0.0.0:6789");
    assert_eq!(interval(&[]), (5, "from-file".to_owned(), at, false));
    assert_eq!(interval(&[("INTERVAL", "7"), ("DEBUG", "1")]), (7, "from-file".to_owned(), at, true));
    assert_eq!(interval(&[("INTERVAL", ""), ("DYNAMODB_TABLE_NAME", " ")]), (5, "from-file".to_owned(), at, false));
    assert_eq!(interval(&[("DYNAMODB_TABLE_NAME", "from-env")]).1, "from-env");
}

#[test]
fn the_region_with_the_highest_precedence_is_used() {
    let with_file = "AWS_DEFAULT_REGION: file-1\nDYNAMODB_TABLE_NAME: slots\n";
    let region = |env: &[(&str, &str)]| {
        let env = environment(&[], env);
        let mut sources = Sources::new(Some(file(with_file)), &env);
        common(&mut sources).region
    };
    assert_eq!(region(&[]).as_deref(), Some("file-1"));
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "env-1")]).as_deref(), Some("env-1"));
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "env-1"), ("AWS_REGION", "env-2")]).as_deref(), Some("env-2"));
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "env-1"), ("AWS_REGION", "")]).as_deref(), Some("env-1"));
    assert_eq!(
        faults(server_of(&[("AWS_REGION", "eu.west")])),
        ["AWS_REGION: found \"eu.west\" (the environment), expected the name of an AWS region, such as eu-west-1"]
    );
}

#[test]
fn groups_are_selected_by_name_pattern_and_tag() {
    let selected = |names: &[&str], tags: &[(&str, Option<&str>)]| SourceSettings::Aws {
        groups: GroupSelection {
            tags: tags
                .iter()
                .map(|(key, value)| TagFilter { key: (*key).to_owned(), value: value.map(str::to_owned) })
                .collect(),
            ..GroupSelection::named(names)
        },
        reading: InstanceReading::default(),
    };
    for (more, expected) in [
        (&[("SERVER_ASG_NAMES", "web-*, api")][..], selected(&["web-*", "api"], &[])),
        (
            &[("SERVER_ASG_NAMES", ""), ("SERVER_ASG_TAGS", "env=prod, hsdo")],
            selected(&[], &[("env", Some("prod")), ("hsdo", None)]),
        ),
        (
            &[("SERVER_ASG_TAGS", "[\"team=a,b\", url=x=y]")],
            selected(&["web"], &[("team", Some("a,b")), ("url", Some("x=y"))]),
        ),
    ] {
        assert_eq!(server_of(more).expect("settings").source, expected, "{more:?}");
    }
    let all = server_of(&[("SERVER_ASG_NAMES", "*")]).expect("settings").common.warnings;
    assert_eq!(all, ["SERVER_ASG_NAMES (the environment): * is every Auto Scaling group of this account and region"]);
    let none = faults(server_of(&[("SERVER_ASG_NAMES", "")]));
    assert!(none[0].starts_with("SERVER_ASG_NAMES: not set"), "{none:?}");
}

#[test]
fn weights_follow_sizes_groups_and_tags() {
    let read = |more: &[(&str, &str)]| {
        let settings = server_of(more).expect("settings");
        let SourceSettings::Aws { reading, .. } = settings.source else { panic!("aws mode") };
        (reading, settings.weighting)
    };
    let factor = |text| Factor::parse(text).expect("a factor");
    for (by, unit, expected) in [
        (WeightBy::None, "", "1"),
        (WeightBy::Capacity, "", "1"),
        (WeightBy::Vcpu, "", "2"),
        (WeightBy::Vcpu, "8", "8"),
        (WeightBy::Capacity, "0.5", "0.5"),
    ] {
        let word = format!("{by:?}").to_lowercase();
        let (reading, weighting) = read(&[("SERVER_WEIGHT_BY", &word), ("SERVER_WEIGHT_UNIT", unit)]);
        assert_eq!((reading.weight_by, weighting.unit), (by, factor(expected)), "{by:?} {unit}");
    }
    for text in ["web-*=0.2,*=0", "[web-*=0.2, '*=0']", "{web-*: 0.2, '*': 0}"] {
        let (_, weighting) = read(&[("SERVER_ASG_WEIGHTS", text)]);
        let expected = [("web-*", "0.2"), ("*", "0")].map(|(name, by)| (NamePattern::new(name), factor(by)));
        assert_eq!(weighting.groups, expected, "{text}");
        assert_eq!(["web-1", "x"].map(|group| weighting.of_group(group)), [factor("0.2"), Factor::ZERO]);
    }
    let (reading, _) =
        read(&[("SERVER_ADDRESS", "IPv6"), ("SERVER_INSTANCE_TAGS", "yes"), ("SERVER_SPOT_NOTICE", "no")]);
    let weight_by = WeightBy::None;
    assert_eq!(reading, InstanceReading { address: AddressKind::Ipv6, weight_by, tags: true, spot_notice: false });
    for (key, value) in [("SERVER_WEIGHT_UNIT", "4"), ("SERVER_ASG_WEIGHTS", "*=0")] {
        assert_eq!(server_of(&[(key, value)]).expect("settings").common.warnings.len(), 1, "{key}={value}");
    }
}

#[test]
fn an_invalid_value_is_reported_with_its_place_and_what_was_expected() {
    let seconds = "seconds from 0.05 to 3600, fractions allowed";
    let cases = [
        ("INTERVAL", "0.04", seconds),
        ("INTERVAL", "3601", seconds),
        ("INTERVAL", "NaN", seconds),
        ("INTERVAL", "inf", seconds),
        ("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "0", "a number of slots from 1 to 10000"),
        ("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "10001", "a number of slots from 1 to 10000"),
        ("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "1e3", "a number of slots from 1 to 10000"),
        ("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4294967297", "a number of slots from 1 to 10000"),
        ("EXPORTER_PORT", "65536", "a port from 0 to 65535, 0 for no exporter"),
        ("EXPORTER_PORT", "-1", "a port from 0 to 65535, 0 for no exporter"),
        ("EXPORTER_ADDRESS", "localhost", "an IP address"),
        ("EXPORTER_ADDRESS", "127.0.0.1:80", "an IP address"),
        ("DEBUG", "maybe", "true or false"),
        (
            "DYNAMODB_TABLE_NAME",
            "a b",
            "the name of a DynamoDB table: 3 to 255 letters, digits and _.- only, or its ARN",
        ),
        ("SERVER_MODE", "gcp", "aws or consul"),
        (
            "SERVER_ASG_NAMES",
            " , ",
            "one or more names of Auto Scaling groups, or patterns with * and ?, separated by commas",
        ),
        (
            "SERVER_ASG_NAMES",
            "web,none",
            "one or more names of Auto Scaling groups, or patterns with * and ?, separated by commas",
        ),
        ("SERVER_ASG_TAGS", "env=", "one or more tags as key=value, or key for any value, separated by commas"),
        ("SERVER_ASG_TAGS", "=prod", "one or more tags as key=value, or key for any value, separated by commas"),
        ("SERVER_ASG_TAGS", "env=a,env=b", "one or more tags as key=value, or key for any value, separated by commas"),
        ("SERVER_ADDRESS", "ipv4", "private, ipv6 or public"),
        ("SERVER_WEIGHT_BY", "cores", "none, capacity or vcpu"),
        ("SERVER_WEIGHT_UNIT", "0", "a number above 0 and up to 1000000, decimals allowed"),
        ("SERVER_WEIGHT_UNIT", "-2", "a number above 0 and up to 1000000, decimals allowed"),
        ("SERVER_ASG_WEIGHTS", "web", "groups or patterns with factors from 0 to 16, such as web-canary=0.2,web-old=0"),
        (
            "SERVER_ASG_WEIGHTS",
            "web=17",
            "groups or patterns with factors from 0 to 16, such as web-canary=0.2,web-old=0",
        ),
        (
            "SERVER_ASG_WEIGHTS",
            "web=-1",
            "groups or patterns with factors from 0 to 16, such as web-canary=0.2,web-old=0",
        ),
        (
            "SERVER_ASG_WEIGHTS",
            "a=1,a=2",
            "groups or patterns with factors from 0 to 16, such as web-canary=0.2,web-old=0",
        ),
        ("SERVER_INSTANCE_TAGS", "hsdo", "true or false"),
        ("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "257", "a weight from 0 to 256"),
        ("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "-1", "a weight from 0 to 256"),
        ("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "1.5", "a weight from 0 to 256"),
        ("SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT", "257", "a weight from 0 to 256"),
        (
            "SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT",
            "0",
            "a weight from 1 (SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT) to 256",
        ),
        ("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT", "0", "a step from 1 to 256"),
        (
            "SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL",
            "0",
            "seconds from 0.000001 to 1000000000, fractions allowed",
        ),
    ];
    for (key, value, expected) in cases {
        assert_eq!(
            faults(server_of(&[(key, value)])),
            [format!("{key}: found {:?} (the environment), expected {expected}", value.trim_start_matches(' ').trim())],
            "{key}={value}"
        );
    }
    for (key, value, expected) in [
        ("CLIENT_HAPROXY_BACKEND_SERVER_PORT", "65536", "a port from 1 to 65535, or 0 to leave the port alone"),
        ("CLIENT_DEDICATED_ASG", "2", "true or false"),
        ("CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND", "on", "true or false"),
        ("CLIENT_HEALTH_GATE", "off", "true or false"),
        ("CLIENT_STATE_FILE", "/var/lib/hsdo/", "the path of a file in a directory that hsdo can write to"),
        ("CLIENT_STATE_MAX_AGE", "1d", "seconds from 0 to 1000000000, fractions allowed"),
        ("CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO", "false", "true or unset: hsdo always manages the weights"),
    ] {
        assert_eq!(
            faults(client_of(&[(key, value)])),
            [format!("{key}: found {value:?} (the environment), expected {expected}")],
            "{key}={value}"
        );
    }
    let long = "x".repeat(108);
    assert_eq!(
        faults(client_of(&[("CLIENT_HAPROXY_SOCKET_PATH", &long)])),
        [format!(
            "CLIENT_HAPROXY_SOCKET_PATH: found \"{}\"... (the environment), \
             expected a socket as HAProxy spells it: a path of at most 107 bytes, unix@path, abns@name, ipv4@host:port \
             or ipv6@[host]:port",
            "x".repeat(100)
        )]
    );
}

#[test]
fn all_faults_are_reported_together() {
    let text = "\
INTERVALL: 1
SERVER_MODE: aws
SERVER_ASG_NAMES:
SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT: 20
HAPROXY_BACKEND_SERVERS_LIST_SIZE: 1e3
EXPORTER_ADDRESS: [a, b]
DEBUG: {a: !x y}
DEBG: 1
";
    assert_eq!(
        faults(server_file(text, &[("EXPORTER_PORT", "many")])),
        [
            "\"INTERVALL\": unknown key (env.yaml:1): did you mean INTERVAL?",
            "\"DEBG\": unknown key (env.yaml:8): did you mean DEBUG?",
            "SERVER_ASG_NAMES: not set (env.yaml, the environment), expected one or more names of Auto Scaling groups, or patterns with * and ?, separated by commas, or set SERVER_ASG_TAGS",
            "SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT: found \"10\" (the default), \
             expected a weight from 20 (SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT) to 256",
            "HAPROXY_BACKEND_SERVERS_LIST_SIZE: found \"1e3\" (env.yaml:5), expected a number of slots from 1 to 10000",
            "DYNAMODB_TABLE_NAME: not set (env.yaml, the environment), \
             expected the name of a DynamoDB table: 3 to 255 letters, digits and _.- only, or its ARN",
            "EXPORTER_PORT: found \"many\" (the environment), expected a port from 0 to 65535, 0 for no exporter",
            "EXPORTER_ADDRESS: found \"[a, b]\" (env.yaml:6), expected an IP address",
            "DEBUG: found \"{a: a value with a YAML tag}\" (env.yaml:7), expected true or false",
        ]
    );
}

#[test]
fn required_settings_are_reported_when_unset() {
    let none = Environment::default();
    let table = "DYNAMODB_TABLE_NAME: not set (the environment, no configuration file), \
                 expected the name of a DynamoDB table: 3 to 255 letters, digits and _.- only, or its ARN";
    assert_eq!(
        faults(server(Sources::new(None, &none))),
        ["SERVER_MODE: not set (the environment, no configuration file), expected aws or consul", table]
    );
    let list = format!(
        "CLIENT_HAPROXY_BACKEND_LIST: not set (the environment, no configuration file), expected {}",
        "backends with the base names of their servers, such as http-back:mywebapp:80,api-back:api:8080, \
         or a map such as {http-back: {baseName: mywebapp, serverPort: 80}}"
    );
    assert_eq!(faults(client(Sources::new(None, &none))), [list.as_str(), table]);
    let mut sources = Sources::new(None, &none);
    let settings = common(&mut sources);
    assert_eq!(faults(sources.finish(settings)), [table]);
}

#[test]
fn a_setting_of_the_other_role_is_ignored_even_if_invalid() {
    let settings = server_of(&[
        ("CLIENT_HAPROXY_BACKEND_LIST", "{"),
        ("CLIENT_DEDICATED_ASG", "perhaps"),
        ("CLIENT_HAPROXY_BACKEND_SERVER_PORT", "0"),
        ("CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO", "false"),
    ]);
    assert_eq!(settings.expect("settings"), server_of(&[]).expect("settings"));
    let text = "SERVER_MODE: {a: b}\nSERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT: -5\nSERVER_CONSUL_API_URL: 3\n\
                CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO: 'true'\n";
    let settings = client(Sources::new(Some(file(text)), &environment(&CLIENT, &[])));
    assert_eq!(settings.expect("settings"), client_of(&[]).expect("settings"));
    let env = environment(&SERVER, &[("SERVER_MODE", "gcp"), ("CLIENT_HEALTH_GATE", "x")]);
    let mut sources = Sources::new(Some(file(text)), &env);
    let settings = common(&mut sources);
    assert_eq!(sources.finish(settings).expect("settings").table, "slots");
}

#[test]
fn the_shipped_file_lists_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/env.yaml");
    let mut expected = String::from(
        "# All settings of hsdo with their defaults. The environment wins over this file; \"\" means unset.\n",
    );
    for key in KEYS {
        let default = if key.default.is_empty() { "\"\"" } else { key.default };
        expected.push_str(&format!("\n# {}\n{}: {default}\n", key.help, key.name));
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the shipped file"), expected);

    let env = environment(&SERVER, &[]);
    assert_eq!(load_server(Some(&path), &env).expect("settings"), server_of(&[]).expect("settings"));
    let env = environment(&CLIENT, &[]);
    assert_eq!(load_client(Some(&path), &env).expect("settings"), client_of(&[]).expect("settings"));
    assert_eq!(load_common(Some(&path), &env).expect("settings"), client_of(&[]).expect("settings").common);
}

#[test]
fn the_named_file_is_read_or_else_the_first_that_exists() {
    let dir = Dir::new("which");
    let first = dir.file("first.yaml", b"DYNAMODB_TABLE_NAME: first\n");
    let second = dir.file("second.yaml", b"DYNAMODB_TABLE_NAME: second\n");
    let gone = dir.0.join("gone/env.yaml");
    let below_a_file = first.join("env.yaml");
    let table = |config: Option<&Path>, usual: &[&Path]| {
        let env = Environment::default();
        let mut sources = Sources::open(config, usual, &env)?;
        let common = common(&mut sources);
        sources.finish(common).map(|common| common.table)
    };
    assert_eq!(table(Some(&second), &[&first]).expect("a table"), "second");
    assert_eq!(table(None, &[&first, &second]).expect("a table"), "first");
    assert_eq!(table(None, &[&gone, &below_a_file, &second]).expect("a table"), "second");
    assert_eq!(faults(table(None, &[&gone])).len(), 1, "a missing file is no fault, a missing table is");

    let named = faults(table(Some(&gone), &[&first]));
    let path = gone.display();
    assert_eq!(named, [format!("{path}: cannot read the configuration file: No such file or directory (os error 2)")]);
    let named = faults(table(Some(&dir.0), &[&first]));
    let path = dir.0.display();
    assert_eq!(named, [format!("{path}: cannot read the configuration file: Is a directory (os error 21)")]);
}

/// Another program's `conf/`, or the directory that `docker -v` creates for a missing file.
#[test]
fn an_unreadable_default_file_is_skipped() {
    let dir = Dir::new("left-out");
    let second = dir.file("second.yaml", b"DYNAMODB_TABLE_NAME: second\n");
    let latin = dir.file("latin.yaml", b"# \xe9\nDYNAMODB_TABLE_NAME: latin\n");
    let none = Environment::default();
    let load = |usual: &[&Path]| {
        let mut sources = Sources::open(None, usual, &none)?;
        let common = common(&mut sources);
        sources.finish(common).map(|common| (common.table, common.warnings))
    };
    let warning = format!(
        "{}: cannot read the configuration file: Is a directory (os error 21); skipped, since it was not named \
         with --config: make it readable, or name a file with --config",
        dir.0.display()
    );
    assert_eq!(load(&[&dir.0, &second]).expect("a table"), ("second".to_owned(), vec![warning.clone()]));
    // It is reported with the faults that it may have caused.
    let faults_of = faults(load(&[&dir.0]));
    assert!(faults_of.len() == 2 && faults_of[0].starts_with("DYNAMODB_TABLE_NAME: not set"), "{faults_of:?}");
    assert_eq!(faults_of[1], warning);
    // A readable but broken file is an error.
    let broken = faults(load(&[&latin, &second]));
    assert!(
        broken.len() == 1
            && broken[0].ends_with("cannot read the configuration file: not valid UTF-8: save it as UTF-8")
    );
}

/// It would indent the first line by a column.
#[test]
fn a_byte_order_mark_is_ignored() {
    for start in ["", "# a comment\n", "---\n", "%YAML 1.1\n---\n"] {
        let text = format!("\u{feff}{start}DEBUG: true\nINTERVAL: 2\nDYNAMODB_TABLE_NAME: slots\n...\n");
        let common = client_file(&text, &CLIENT).expect("settings").common;
        assert_eq!((common.debug, common.interval.as_secs(), common.warnings), (true, 2, vec![]), "{start:?}");
        let fault = &faults(client_file(&text.replace("true", "maybe"), &CLIENT))[0];
        let line = start.lines().count() + 1;
        assert_eq!(*fault, format!("DEBUG: found \"maybe\" (env.yaml:{line}), expected true or false"));
    }
}

#[test]
fn a_map_used_for_merging_is_not_an_unknown_key() {
    let text = "\
common: &common
  DYNAMODB_TABLE_NAME: from-common
  INTERVAL: 3
bases:
  - &web {baseName: web, serverPort: 81}
<<: *common
INTERVAL: 2
CLIENT_HAPROXY_BACKEND_LIST:
  one: *web
  two: {<<: *web, baseName: api}
";
    let settings = client_file(text, &[]).expect("settings");
    assert_eq!((settings.common.table.as_str(), settings.common.interval.as_secs()), ("from-common", 2));
    assert_eq!(settings.backends, [backend("one", "web", 81), backend("two", "api", 81)]);

    let unknown = |text: &str| faults(client_file(text, &CLIENT));
    let hint = "did you mean INTERVAL?";
    assert_eq!(unknown("INTERVALL: {a: 1}\n"), [format!("\"INTERVALL\": unknown key (env.yaml:1): {hint}")]);
    let of_merged = unknown("base: &base {INTERVALL: 1}\n<<: *base\n");
    assert_eq!(of_merged, [format!("\"INTERVALL\": unknown key (env.yaml): {hint}")]);
    let broken = faults(ConfFile::from_text(Path::new("env.yaml"), "<<: 1\n".to_owned()).map_err(Faults::from));
    assert_eq!(broken, ["env.yaml:1: not valid YAML: <<: expected a map or a list of maps to merge"]);
}

#[test]
fn every_list_may_be_written_as_json_or_yaml() {
    let want = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for text in ["web-a,web-b", r#"["web-a","web-b"]"#, "[web-a, 'web-b']", " [ web-a , web-b, ] "] {
        let groups = named(&["web-a", "web-b"]);
        assert_eq!(server_of(&[("SERVER_ASG_NAMES", text)]).expect("settings").source, groups, "{text}");
        assert_eq!(
            client_of(&[("CLIENT_ASG_NAMES", text)]).expect("settings").groups,
            ["web-a", "web-b"].map(NamePattern::new)
        );
        let consul =
            [("SERVER_MODE", "consul"), ("SERVER_CONSUL_API_URL", "http://c"), ("SERVER_CONSUL_SERVICE_NAME", text)];
        let SourceSettings::Consul { services, .. } = server_of(&consul).expect("settings").source else { panic!() };
        assert_eq!(services, want(&["web-a", "web-b"]), "{text}");
    }
    let empty = faults(server_of(&[("SERVER_ASG_NAMES", "[]")]));
    assert!(
        empty[0].starts_with("SERVER_ASG_NAMES: found \"[]\" (the environment), expected one or more"),
        "{empty:?}"
    );
}

#[test]
fn names_with_stray_quotes_or_brackets_cause_a_warning() {
    let advice = "; remove these characters unless they belong to the names";
    let warning = |key: &str, place: &str, names: &str| {
        format!(
            "{key} ({place}): names that start or end with a quote or bracket, or contain `;`, are used as they are: \
             {names}{advice}"
        )
    };
    let warnings = |env: &[(&str, &str)]| server_of(env).expect("settings").common.warnings;
    assert_eq!(warnings(&[("SERVER_ASG_NAMES", "web-a,web b (blue)")]), Vec::<String>::new());
    let key = "SERVER_ASG_NAMES";
    assert_eq!(warnings(&[(key, "\"web-a\",web-b")]), [warning(key, "the environment", "`\"web-a\"`")]);
    assert_eq!(warnings(&[(key, "'web-a,web-b'")]), [warning(key, "the environment", "`'web-a`, `web-b'`")]);
    assert_eq!(warnings(&[(key, "[web-a")]), [warning(key, "the environment", "`[web-a`")]);
    let key = "CLIENT_ASG_NAMES";
    let from_file = client_file("CLIENT_ASG_NAMES: ['web-a;web-b']\n", &CLIENT).expect("settings").common.warnings;
    assert_eq!(from_file, [warning(key, "env.yaml:1", "`web-a;web-b`")]);
    let key = "SERVER_CONSUL_SERVICE_NAME";
    let consul = [("SERVER_MODE", "consul"), ("SERVER_CONSUL_API_URL", "http://c"), (key, "{web}")];
    assert_eq!(warnings(&consul), [warning(key, "the environment", "`{web}`")]);
    let many: Vec<String> = (0..12).map(|number| format!("'{number}")).collect();
    assert!(warnings(&[("SERVER_ASG_NAMES", &many.join(","))])[0].contains("`'9`, and 2 more; remove"));
}

#[test]
fn stray_variables_cause_a_warning_and_are_reported_with_the_faults() {
    let warnings =
        client_of(&[("CLIENT_HELTH_GATE", "false"), ("CLIENT_SECRET", "hush")]).expect("settings").common.warnings;
    assert_eq!(
        warnings,
        ["environment variables that look like hsdo settings but have no effect: \
          CLIENT_HELTH_GATE (did you mean CLIENT_HEALTH_GATE?), \
          CLIENT_SECRET (did you mean CLIENT_ASG_NAMES?)"]
    );
    let env = environment(&[], &[("DYNAMODB_TABLE", "slots")]);
    let mut sources = Sources::new(None, &env);
    let settings = common(&mut sources);
    let faults = faults(sources.finish(settings));
    assert!(faults.len() == 2 && faults[0].starts_with("DYNAMODB_TABLE_NAME: not set"), "{faults:?}");
    assert!(faults[1].ends_with("DYNAMODB_TABLE (did you mean DYNAMODB_TABLE_NAME?)"), "{faults:?}");
}

#[test]
fn a_table_may_be_named_by_its_arn() {
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/web";
    let common = server_of(&[("DYNAMODB_TABLE_NAME", arn), ("AWS_REGION", "us-east-1")]).expect("settings").common;
    assert_eq!((common.table.as_str(), common.table_region.as_deref()), (arn, Some("eu-west-1")));
    assert_eq!(common.region.as_deref(), Some("us-east-1"));
    let told = "the table is in eu-west-1, but groups are looked for in us-east-1: set AWS_REGION to eu-west-1";
    assert!(common.warnings.iter().any(|warning| warning.starts_with(told)), "{:?}", common.warnings);
    let here = server_of(&[("DYNAMODB_TABLE_NAME", arn), ("AWS_REGION", "eu-west-1")]).expect("settings").common;
    assert_eq!(here.warnings, Vec::<String>::new());
    // It names an account and a region, but the table is created in ours.
    let create = faults(load_common(None, &environment(&[], &[("DYNAMODB_TABLE_NAME", arn)])));
    assert_eq!(
        create,
        [format!(
            "DYNAMODB_TABLE_NAME: found {arn:?} (the environment), expected a plain name: a table is created in the \
             account of the credentials and in AWS_DEFAULT_REGION"
        )]
    );
}

#[test]
fn a_file_that_is_not_a_configuration_is_reported() {
    let dir = Dir::new("broken");
    let env = Environment::default();
    let fault = |name: &str, content: &[u8]| {
        let path = dir.file(name, content);
        let faults = faults(load_common(Some(&path), &env));
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].strip_prefix(&path.display().to_string()).expect("the path comes first").to_owned()
    };
    assert_eq!(fault("list.yaml", b"- a\n"), ": expected a YAML map of keys and values");
    assert_eq!(fault("text.yaml", b"hello\n"), ": expected a YAML map of keys and values");
    let broken = fault("broken.yaml", b"INTERVAL: 1\nDEBUG: [1\nEXPORTER_PORT: 0\n");
    assert!(broken.starts_with(":3: not valid YAML: ") || broken.starts_with(":2: not valid YAML: "), "{broken}");
    assert!(fault("twice.yaml", b"INTERVAL: 1\nINTERVAL: 2\n").contains("not valid YAML: duplicate entry"));
    for (name, bytes, why) in [
        ("latin.yaml", &b"DEBUG: \xe9\n"[..], "not valid UTF-8: save it as UTF-8"),
        ("utf-16.yaml", b"\xff\xfeD\0:\0 \x001\0", "UTF-16 or binary data: save it as UTF-8"),
    ] {
        assert_eq!(fault(name, bytes), format!(": cannot read the configuration file: {why}"));
    }
    let large = [b"# ".as_slice(), &vec![b'x'; 1 << 20]].concat();
    assert_eq!(fault("large.yaml", &large), ": cannot read the configuration file: larger than 1048576 bytes");
}

proptest! {
    #[test]
    fn no_configuration_panics_or_prints_control_characters(
        values in prop::collection::vec((0..KEYS.len(), "(?s:.{0,20})"), 0..6),
        text in "([A-Z_]{0,8}: ?[\\[{'\"]?(?s:.{0,8})\n){0,3}",
    ) {
        let env = Environment::from(values.iter().map(|(index, value)| (KEYS[*index].name, value.as_str())));
        let read = || match ConfFile::from_text(Path::new("a\u{1b}.yaml"), text.clone()) {
            Ok(file) => Ok(Sources::new(Some(file), &env)),
            Err(error) => Err(Faults::from(error)),
        };
        let results = [read().and_then(server).map(|_| ()), read().and_then(client).map(|_| ())];
        for result in results {
            if let Err(Faults(faults, _)) = result {
                for fault in faults {
                    prop_assert!(!fault.chars().any(char::is_control), "{fault:?}");
                }
            }
        }
    }
}
