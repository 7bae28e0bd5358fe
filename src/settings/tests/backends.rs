//! Every spelling of the client's backends, and every fault in them.

use proptest::prelude::*;

use super::*;

#[test]
fn a_list_of_backends_has_many_spellings() {
    let two = vec![backend("http-back", "mywebapp", 80), backend("api-back", "api", 8080)];
    for text in [
        "http-back:mywebapp:80,api-back:api:8080",
        " http-back : mywebapp , api-back:api:8080, ",
        "http-back:mywebapp,\n api-back:api:8080\n",
        r#"{"http-back":{"baseName":"mywebapp","serverPort":80},"api-back":{"baseName":"api","serverPort":"8080"}}"#,
        "{\n\t\"http-back\": {\n\t\t\"baseName\": \"mywebapp\"\n\t},\n\t\"api-back\": {\"baseName\": \"api\", \"serverPort\": 8080}\n}",
        "{http-back: {baseName: mywebapp}, api-back: {baseName: api, serverPort: 8080}}",
        "{http-back: {baseName: mywebapp, serverPort: }, api-back: {serverPort: 8080, baseName: api}}",
    ] {
        let env = client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", text)]).expect(text);
        assert_eq!(env.backends, two, "in the environment: {text}");
        let quoted = serde_json::to_string(text).expect("JSON");
        let yaml = format!("DYNAMODB_TABLE_NAME: slots\nCLIENT_HAPROXY_BACKEND_LIST: {quoted}\n");
        assert_eq!(client_file(&yaml, &[]).expect(text).backends, two, "in the file: {text}");
    }
    let unusual = client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", "{'a:b': {baseName: 'c.d'}, 1e3: {baseName: 007}}")]);
    let colons = "be_http:shop:web:_dynamic-pod-:80,http-back:mywebapp:0";
    let colons = client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", colons)]).expect("settings").backends;
    assert_eq!(colons, [backend("be_http:shop:web", "_dynamic-pod-", 80), backend("http-back", "mywebapp", 0)]);
    assert_eq!(unusual.expect("settings").backends, [backend("a:b", "c.d", 80), backend("1e3", "007", 80)]);
}

#[test]
fn a_fault_in_a_list_of_backends_is_reported_with_its_place() {
    let text = "\
DYNAMODB_TABLE_NAME: slots
CLIENT_HAPROXY_BACKEND_LIST:
  http-back:
    basename: mywebapp
    serverPort: x
  b/c:
    baseName: a b
  api-back: api
  empty:
";
    assert_eq!(
        faults(client_file(text, &[])),
        [
            "CLIENT_HAPROXY_BACKEND_LIST \"http-back\" \"basename\": unknown key (env.yaml:4): \
             did you mean baseName?",
            "CLIENT_HAPROXY_BACKEND_LIST \"http-back\" \"baseName\": not set (env.yaml:3), \
             expected the prefix of a server-template: letters, digits and _.:- only, at most 255",
            "CLIENT_HAPROXY_BACKEND_LIST \"http-back\" \"serverPort\": found \"x\" (env.yaml:5), \
             expected a port from 1 to 65535, or 0 to leave the port alone",
            "CLIENT_HAPROXY_BACKEND_LIST: found \"b/c\" (env.yaml:2), \
             expected the name of a HAProxy backend: letters, digits and _.:- only, at most 255",
            "CLIENT_HAPROXY_BACKEND_LIST \"b/c\" \"baseName\": found \"a b\" (env.yaml:7), \
             expected the prefix of a server-template: letters, digits and _.:- only, at most 255",
            "CLIENT_HAPROXY_BACKEND_LIST \"api-back\": found \"api\" (env.yaml:8), \
             expected a map such as {baseName: mywebapp, serverPort: 80}",
            "CLIENT_HAPROXY_BACKEND_LIST \"empty\": not set (env.yaml:9), \
             expected a map such as {baseName: mywebapp, serverPort: 80}",
        ]
    );
    let example = "backends with the base names of their servers, such as http-back:mywebapp:80,api-back:api:8080, \
                   or a map such as {http-back: {baseName: mywebapp, serverPort: 80}}";
    for (value, reason) in [
        (
            "http-back",
            "; \"http-back\" is not backend:baseName or backend:baseName:port (a backend name with colons requires the port)",
        ),
        (
            "a:b:1:x,c:d",
            "; \"a:b:1:x\" is not backend:baseName or backend:baseName:port (a backend name with colons requires the port)",
        ),
        (",", "; the list is empty"),
        ("{}", "; the list is empty"),
    ] {
        assert_eq!(
            faults(client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", value)])),
            [format!("CLIENT_HAPROXY_BACKEND_LIST: found {value:?} (the environment), expected {example}{reason}")]
        );
    }
    for broken in ["{a: {baseName: b}", "{a: {baseName: b}, a: {baseName: c}}"] {
        let faults = faults(client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", broken)]));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("; it is not valid YAML: "), "{faults:?}");
    }
    for (value, fault) in [
        ("a::80", "CLIENT_HAPROXY_BACKEND_LIST \"a\" \"baseName\": not set (the environment), expected the prefix"),
        ("a:b:x", "CLIENT_HAPROXY_BACKEND_LIST \"a\" \"serverPort\": found \"x\" (the environment), expected a port"),
        (":b:80", "CLIENT_HAPROXY_BACKEND_LIST: found \"\" (the environment), expected the name of a HAProxy backend"),
        ("a;b:c:80", "CLIENT_HAPROXY_BACKEND_LIST: found \"a;b\" (the environment), expected the name of a HAProxy"),
    ] {
        let faults = faults(client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", value)]));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(fault), "{faults:?}");
    }
    let yaml_list = "DYNAMODB_TABLE_NAME: slots\nCLIENT_HAPROXY_BACKEND_LIST: [a, b]\n";
    assert_eq!(
        faults(client_file(yaml_list, &[])),
        [format!("CLIENT_HAPROXY_BACKEND_LIST: found \"[a, b]\" (env.yaml:2), expected {example}")]
    );
}

#[test]
fn an_invalid_default_port_is_reported_once() {
    let port = [("CLIENT_HAPROXY_BACKEND_SERVER_PORT", "x"), ("CLIENT_HAPROXY_BACKEND_LIST", "a:b")];
    assert_eq!(
        faults(client_of(&port)),
        ["CLIENT_HAPROXY_BACKEND_SERVER_PORT: found \"x\" (the environment), \
          expected a port from 1 to 65535, or 0 to leave the port alone"]
    );
}

#[test]
fn the_older_pair_of_keys_is_a_list_with_one_backend() {
    let pair = [
        ("CLIENT_HAPROXY_BACKEND_NAME", "http-back"),
        ("CLIENT_HAPROXY_BACKEND_BASE_NAME", "mywebapp"),
        ("CLIENT_HAPROXY_BACKEND_SERVER_PORT", "8080"),
        ("DYNAMODB_TABLE_NAME", "slots"),
    ];
    let of = |env: &[(&str, &str)]| client(Sources::new(None, &environment(&[], env)));
    assert_eq!(of(&pair).expect("settings").backends, [backend("http-back", "mywebapp", 8080)]);
    let half = "CLIENT_HAPROXY_BACKEND_BASE_NAME: not set (the environment, no configuration file), expected the prefix of a server-template: \
                letters, digits and _.:- only, at most 255, because CLIENT_HAPROXY_BACKEND_NAME is set";
    assert_eq!(faults(of(&[pair[0], pair[3]])), [half]);
    let half = "CLIENT_HAPROXY_BACKEND_NAME: not set (the environment, no configuration file), expected the name of a HAProxy backend: \
                letters, digits and _.:- only, at most 255, because CLIENT_HAPROXY_BACKEND_BASE_NAME is set";
    assert_eq!(faults(of(&[pair[1], pair[3]])), [half]);
    let list_in_file = "DYNAMODB_TABLE_NAME: slots\nCLIENT_HAPROXY_BACKEND_LIST: {a: {baseName: b}}\n";
    let unset = "expected it to be unset because CLIENT_HAPROXY_BACKEND_LIST is set";
    assert_eq!(
        faults(client_file(list_in_file, &pair[..2])),
        [
            format!("CLIENT_HAPROXY_BACKEND_NAME: found \"http-back\" (the environment), {unset}"),
            format!("CLIENT_HAPROXY_BACKEND_BASE_NAME: found \"mywebapp\" (the environment), {unset}"),
        ]
    );
    let blank_pair = "CLIENT_HAPROXY_BACKEND_NAME: ''\nCLIENT_HAPROXY_BACKEND_BASE_NAME:\n".to_owned() + list_in_file;
    assert_eq!(client_file(&blank_pair, &[]).expect("settings").backends, [backend("a", "b", 80)]);
}

#[test]
fn the_fallback_is_required_where_it_is_used() {
    let name = ("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "back");
    let base = ("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "srv");
    let dedicated = ("CLIENT_DEDICATED_ASG", "true");
    let groups = ("CLIENT_ASG_NAMES", "one");
    let all = ("CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND", "true");
    let fallback = Some(backend("back", "srv", 80));
    for good in [vec![name, base], vec![name, base, all], vec![name, base, dedicated, groups]] {
        assert_eq!(client_of(&good).expect("settings").fallback, fallback, "{good:?}");
    }
    let unset = |env: &[(&str, &str)]| -> Vec<(String, String)> {
        faults(client_of(env))
            .iter()
            .map(|fault| {
                let (key, _) = fault
                    .split_once(": not set (the environment, no configuration file), expected ")
                    .expect("a missing key");
                let (_, because) = fault.rsplit_once(", because ").expect("a reason");
                (key.to_owned(), because.to_owned())
            })
            .collect()
    };
    let pair = |key: &str, because: &str| (key.to_owned(), because.to_owned());
    let (d, a) = ("CLIENT_DEDICATED_ASG is true", "CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND is true");
    assert_eq!(unset(&[dedicated, name, base]), [pair(groups.0, d)]);
    assert_eq!(unset(&[dedicated]), [pair(groups.0, d), pair(name.0, d), pair(base.0, d)]);
    assert_eq!(unset(&[all]), [pair(name.0, a), pair(base.0, a)]);
    assert_eq!(unset(&[all, name]), [pair(base.0, "CLIENT_HAPROXY_FALLBACK_BACKEND_NAME is set")]);
    assert_eq!(unset(&[base]), [pair(name.0, "CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME is set")]);
    assert_eq!(
        faults(client_of(&[dedicated, name, base, ("CLIENT_ASG_NAMES", ",")])),
        ["CLIENT_ASG_NAMES: found \",\" (the environment), \
          expected one or more names of Auto Scaling groups, or patterns with * and ?, separated by commas"]
    );
    assert_eq!(client_of(&[("CLIENT_ASG_NAMES", ",")]).expect("settings").groups, []);
    let bad = [dedicated, groups, base, ("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "a b")];
    assert_eq!(faults(client_of(&bad)).len(), 1, "an invalid name is not a missing one");
}

#[test]
fn base_names_of_one_backend_must_be_unambiguous() {
    let of = |list: &str, base: &str| {
        client_of(&[
            ("CLIENT_HAPROXY_BACKEND_LIST", list),
            ("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "b"),
            ("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", base),
        ])
    };
    for (list, base) in [("b:web", "back"), ("b:web", "web-"), ("b:web", "web1x"), ("c:web", "web"), ("b:web-1", "web")]
    {
        assert!(of(list, base).is_ok(), "{list} {base}");
    }
    for (list, base) in [("b:web", "web"), ("b:web", "web1"), ("b:web12", "web"), ("b:1", "12")] {
        let earlier = list.strip_prefix("b:").expect("a base name");
        assert_eq!(
            faults(of(list, base)),
            [format!(
                "CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME: found {base:?} (the environment), expected a base name \
                 that is unambiguous next to {earlier:?} in the same backend \"b\""
            )]
        );
    }
    assert!(of("c:x,c:y", "z").is_ok());
    assert_eq!(
        faults(of("c:x,c:x2", "z")),
        ["CLIENT_HAPROXY_BACKEND_LIST \"c\" \"baseName\": found \"x2\" (the environment), expected a base name \
          that is unambiguous next to \"x\" in the same backend \"c\""]
    );
}

proptest! {
    #[test]
    fn backends_survive_every_spelling(
        list in prop::collection::btree_map("[A-Za-z0-9_.-]{1,9}", ("[A-Za-z0-9_.-]{1,9}", 1u16..), 1..5),
    ) {
        let short: Vec<String> = list.iter().map(|(name, (base, port))| format!("{name}:{base}:{port}")).collect();
        let json: serde_json::Map<String, serde_json::Value> = list
            .iter()
            .map(|(name, (base, port))| (name.clone(), serde_json::json!({"baseName": base, "serverPort": port})))
            .collect();
        let json = serde_json::Value::Object(json).to_string();
        let expected: Vec<Backend> = list.iter().map(|(name, (base, port))| backend(name, base, *port)).collect();
        for text in [short.join(","), json] {
            let settings = client_of(&[("CLIENT_HAPROXY_BACKEND_LIST", &text)]);
            prop_assert_eq!(settings.expect("settings").backends, expected.clone());
        }
    }
}
