//! `hsdo why`.

use serde_json::Value;

use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::hsdo::{Hsdo, Outcome};
use crate::status::{HOSTILE, assert_plain};
use crate::why_scene::{BY_HAND, Scene};

/// The document of an answer with this exit code.
#[track_caller]
fn document(outcome: &Outcome, code: i32) -> Value {
    outcome.assert_code(code);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error} in {outcome}"))
}

/// The facts of a source.
fn facts<'a>(document: &'a Value, source: &str) -> Vec<&'a Value> {
    let facts = document["facts"].as_array().expect("facts").iter();
    facts.filter(|fact| fact["source"].as_str().is_some_and(|found| found.starts_with(source))).collect()
}

/// One set of processes for all of it: they cost seconds.
#[test]
fn every_reason_has_its_word() {
    let scene = Scene::set();
    let before = scene.bed.moto().items();
    scene.tap.forget();
    every_cause_is_named(&scene);
    what_is_not_seated_is_explained(&scene);
    one_fact_a_line(&scene);
    each_role_alone_tells_what_it_knows(&scene);
    what_nobody_knows_is_said(&scene);
    what_one_source_cannot_tell_costs_the_others_nothing(&scene);
    assert_eq!(scene.bed.moto().items(), before, "nothing is written");
    let reads = ["Scan", "GetItem", "DescribeAutoScalingGroups", "DescribeInstances"];
    for call in scene.bed.aws().calls() {
        assert!(reads.contains(&call.operation.as_str()), "{}", call.operation);
    }
    let commands = scene.tap.commands();
    assert!(!commands.is_empty() && commands.iter().all(|command| command.starts_with("show ")), "{commands:?}");
    a_hostile_row_stays_one_line(&scene);
}

fn every_cause_is_named(scene: &Scene) {
    let dedicated = [
        ("CLIENT_DEDICATED_ASG", "true"),
        ("CLIENT_ASG_NAMES", "web"),
        ("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "http-fallback"),
        ("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "fallback"),
    ];
    let empty = [("SERVER_ASG_NAMES", "empty")];
    let slot = |number: u32| format!("slot:{number}");
    /// Target, settings, the word, and part of the sentence.
    type Case<'a> = (String, &'a [(&'a str, &'a str)], &'a str, &'a str);
    #[rustfmt::skip]
    let cases: [Case<'_>; 19] = [
        (slot(1), &[], "serving", "serves"),
        (scene.address(1), &[], "serving", "serves"),
        (scene.instance(2), &[], "ramping", "its weight moves by steps, next at "),
        (slot(3), &[], "draining", "lifecycle state \"Terminating:Wait\""),
        (slot(4), &[], "kept", "a configured group does not exist"),
        (BY_HAND.to_owned(), &[], "kept", "a configured group does not exist"),
        (slot(5), &[], "kept", "EC2 does not list it"),
        (slot(1), &empty, "kept", "SERVER_REMOVAL_GUARD keeps it until "),
        (slot(13), &[], "kept", "lifecycle state \"Dreaming\""),
        (slot(6), &[], "waiting", "in http-back/mywebapp6: waits for HAProxy's check"),
        (slot(7), &[], "held", "in http-back/mywebapp7: an operator or agent set it to drain"),
        (slot(8), &[], "down", "in http-back/mywebapp8: HAProxy's check fails"),
        (scene.instance(9), &dedicated, "elsewhere", "group web-b is served by other backends"),
        (scene.instance(9), &[], "serving", "serves"),
        (slot(10), &[], "unreadable", "Weight is not a number"),
        ("127.1.9.10".to_owned(), &[], "unreadable", "Weight is not a number"),
        (slot(11), &[], "disabled", "an operator disabled its row"),
        (slot(12), &[], "free", "free"),
        (scene.instance(14), &[], "beyond-template", "in http-back/mywebapp14: HAProxy has no such server"),
    ];
    for (target, settings, word, sentence) in cases {
        let outcome = scene.ask(&target, settings, &["--json"]);
        let found = document(&outcome, 0);
        assert_eq!(found["cause"], word, "{target}: {outcome}");
        let conclusion = found["reason"].as_str().unwrap_or_default();
        assert!(conclusion.contains(sentence), "{target}: {sentence:?} is not in {conclusion:?}");
        assert!(found["facts"].as_array().is_some_and(|facts| facts.iter().all(|fact| fact["known"] == true)));
    }
}

fn what_is_not_seated_is_explained(scene: &Scene) {
    let new = scene.unseated();
    for (settings, word, sentence) in [
        ([("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "11")], "no-free-slot", "raise HAPROXY_BACKEND_SERVERS_LIST_SIZE"),
        ([("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "14")], "newcomer", "seats it in slot 12"),
        ([("SERVER_ASG_NAMES", "empty")], "not-ready", "no configured group lists it"),
    ] {
        let found = document(&scene.ask(&new, &settings, &["--json"]), 0);
        assert_eq!(found["cause"], word, "{found:#}");
        assert!(found["reason"].as_str().is_some_and(|text| text.contains(sentence)), "{found:#}");
        assert_eq!(found["slot"], Value::Null, "{found:#}");
        assert_eq!(facts(&found, "EC2")[0]["known"], true, "{found:#}");
    }
}

fn one_fact_a_line(scene: &Scene) {
    let outcome = scene.ask("slot:8", &[], &[]);
    outcome.assert_code(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let sources = ["SOURCE", "table", "Auto Scaling", "EC2", "HAProxy http-back/mywebapp8", "conclusion"];
    assert_eq!(lines.len(), sources.len(), "{outcome}");
    for (line, source) in lines.iter().zip(sources) {
        assert!(line.starts_with(source), "{source}: {outcome}");
    }
    let id = scene.instance(8);
    assert!(lines[1].contains(&format!("slot 8: {id} at {}, group web, enabled, weight 10 of 10", scene.address(8))));
    assert!(lines[2].contains("group web lists it: InService, Healthy"), "{outcome}");
    assert!(lines[3].contains(&format!("running, {}", scene.address(8))), "{outcome}");
    assert!(lines[4].contains("weight 10, ready, DOWN, check L7STS, 0 sessions, 0 queued"), "{outcome}");
    assert!(lines[5].contains("down: in http-back/mywebapp8: HAProxy's check fails"), "{outcome}");
    assert!(!outcome.stdout.contains('\u{1b}') && outcome.stderr.is_empty(), "{outcome}");
}

fn each_role_alone_tells_what_it_knows(scene: &Scene) {
    let no_server = [("SERVER_MODE", "")];
    let found = document(&scene.ask("slot:8", &no_server, &["--json"]), 0);
    assert_eq!(found["cause"], "down", "{found:#}");
    // The group that its row names is asked about.
    assert_eq!(facts(&found, "Auto Scaling")[0]["fact"], "group web lists it: InService, Healthy", "{found:#}");
    let found = document(&scene.ask("slot:3", &no_server, &["--json"]), 0);
    assert_eq!(found["reason"], "takes no new traffic: lifecycle state \"Terminating:Wait\"", "{found:#}");
    let no_client = [("CLIENT_HAPROXY_BACKEND_LIST", "")];
    let found = document(&scene.ask("slot:8", &no_client, &["--json"]), 0);
    assert_eq!((&found["cause"], facts(&found, "HAProxy").len()), (&Value::from("serving"), 0), "{found:#}");
}

fn what_nobody_knows_is_said(scene: &Scene) {
    for target in ["i-0000000000000ffff", "127.1.200.200", "slot:99", "no-such-node"] {
        let outcome = scene.ask(target, &[], &[]);
        outcome.assert_code(1).assert_stdout(&format!("unknown: nobody knows {target}"));
    }
    for (target, fault) in [("slot:x", "not a slot number"), ("10.0.0", "not an address"), ("zone:a", "one server")] {
        scene.ask(target, &[], &[]).assert_code(2).assert_stderr(fault).assert_stderr("usage: ");
    }
    scene.ask("slot:1", &[], &["slot:2"]).assert_code(2).assert_stderr("several targets");
}

fn what_one_source_cannot_tell_costs_the_others_nothing(scene: &Scene) {
    let denied = |code: &str| {
        let error = format!("<Error><Code>{code}</Code><Message>not for you</Message></Error>");
        let body = format!("<ErrorResponse><Errors>{error}</Errors>{error}</ErrorResponse>");
        Fault::Reply(403, body)
    };
    let socket = [("CLIENT_HAPROXY_SOCKET_PATH", "/nowhere/admin.sock")];
    for (operation, source, code) in [
        ("DescribeInstances", "EC2", "UnauthorizedOperation"),
        ("DescribeAutoScalingGroups", "Auto Scaling", "AccessDenied"),
        ("", "HAProxy", ""),
    ] {
        scene.bed.aws().heal();
        if !operation.is_empty() {
            scene.bed.aws().inject(operation, denied(code));
        }
        let settings: &[(&str, &str)] = if operation.is_empty() { &socket } else { &[] };
        let found = document(&scene.ask("slot:1", settings, &["--json"]), 0);
        assert_eq!(found["cause"], "serving", "{found:#}");
        for fact in found["facts"].as_array().expect("facts") {
            assert_eq!(fact["known"], fact["source"] != source, "{found:#}");
        }
        let text = facts(&found, source)[0]["fact"].as_str().unwrap_or_default();
        assert!(text.contains("not for you") || text.contains("/nowhere/admin.sock"), "{found:#}");
    }
    scene.bed.aws().heal();
    scene.bed.aws().inject("DescribeInstances", denied("UnauthorizedOperation"));
    let outcome = scene.ask("i-0000000000000ffff", &[], &[]);
    outcome.assert_code(1).assert_stdout("nobody that could tell knows i-0000000000000ffff; EC2 could not");
    scene.bed.aws().inject("Scan", Fault::denied("no rights"));
    let outcome = scene.ask("slot:1", &[], &[]);
    outcome.assert_code(1).assert_stderr("no rights");
    assert_eq!(outcome.stdout, "");
    scene.bed.aws().heal();
}

fn a_hostile_row_stays_one_line(scene: &Scene) {
    scene.bed.moto().put_server(12, "127.1.9.12", HOSTILE, Some(HOSTILE), 5);
    for target in ["slot:12", HOSTILE] {
        let outcome = scene.ask(target, &[("SERVER_ASG_NAMES", HOSTILE)], &[]);
        outcome.assert_code(0).assert_stdout("<b>\"x\"\\ \\u{202e}");
        assert_eq!(outcome.stdout.lines().count(), 6, "{outcome}");
        assert_plain(&outcome);
        let json = scene.ask(target, &[], &["--json"]);
        assert_plain(&json);
        assert_eq!(document(&json, 0)["instance"], HOSTILE, "{json}");
    }
}

#[test]
fn the_help_and_the_settings() {
    let bed = Bed::new("why-help");
    let help = Hsdo::bare(&bed, "help").arg("why").arg("--help").run();
    help.assert_code(0).assert_stdout("usage: hsdo why TARGET").assert_stdout("exit codes:");
    Hsdo::bare(&bed, "bare").arg("why").run().assert_code(2).assert_stderr("no target: name slot:3");
    let outcome = Hsdo::bare(&bed, "bare").arg("why").arg("slot:1").env("SERVER_MODE", "aws").run();
    outcome.assert_code(2).assert_stderr("SERVER_ASG_NAMES: not set").assert_stderr("DYNAMODB_TABLE_NAME: not set");
    assert_eq!(outcome.stdout, "");
}
