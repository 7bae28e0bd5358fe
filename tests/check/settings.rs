//! Faults of the settings.

use crate::common::bed::Bed;
use crate::common::hsdo::Hsdo;
use crate::fixture::Report;

/// Variables with their values.
type Settings = &'static [(&'static str, &'static str)];

/// A setting that makes it a client.
const CLIENT: (&str, &str) = ("CLIENT_HAPROXY_BACKEND_LIST", "a:b:80");

fn check(bed: &Bed, settings: &[(&str, &str)]) -> Hsdo {
    let check = Hsdo::bare(bed, "check").arg("check").arg("--json").env("AWS_EC2_METADATA_DISABLED", "true");
    settings.iter().fold(check, |check, (key, value)| check.env(key, value))
}

#[test]
fn each_fault_of_the_settings_is_named_with_what_is_expected() {
    let bed = Bed::new("check-settings");
    let cases: [(Settings, &str, &str, &str); 7] = [
        (&[("SERVER_MODE", "azure")], "SERVER_MODE", "found \"azure\" (the environment)", "aws or consul"),
        (&[("SERVER_MODE", "aws")], "SERVER_ASG_NAMES", "not set", "names of Auto Scaling groups"),
        (&[CLIENT], "DYNAMODB_TABLE_NAME", "not set", "the name of a DynamoDB table"),
        (&[CLIENT, ("INTERVAL", "0")], "INTERVAL", "found \"0\"", "seconds from 0.05"),
        (
            &[("CLIENT_HAPROXY_BACKEND_LIST", "a")],
            "CLIENT_HAPROXY_BACKEND_LIST",
            "\"a\"",
            "backends with the base names",
        ),
        (&[], "role", "sets nothing of the server", "SERVER_MODE or CLIENT_HAPROXY_BACKEND_LIST"),
        (
            &[("SERVER_MODE", "consul"), ("SERVER_CONSUL_API_URL", "http://ops:hush@consul:8500")],
            "SERVER_CONSUL_API_URL",
            "http://(hidden)@consul:8500",
            "without a user",
        ),
    ];
    for (settings, subject, text, remedy) in cases {
        let report = Report::of(check(&bed, settings));
        report.assert_says("mend", subject, text, remedy);
        assert!(!report.stdout().contains("hush"), "{settings:?}");
    }
}

#[test]
fn a_file_that_cannot_be_used_and_its_unknown_keys_are_named() {
    let bed = Bed::new("check-file");
    let file = bed.file("env.yaml", "INTERVALL: 2\nCLIENT_HAPROXY_BACKEND_LIST: a:b:80\nDYNAMODB_TABLE_NAME: web\n");
    let report = Report::of(check(&bed, &[("CLIENT_ASG_NAME", "x")]).arg("--config").arg(&file.to_string_lossy()));
    report.assert_says("mend", "settings", "env.yaml:1", "INTERVAL");
    report.assert_says("warn", "settings", "CLIENT_ASG_NAME", "correct these names");
    report.assert_says("ok", "DYNAMODB_TABLE_NAME", "env.yaml:3", "");
    let report = Report::of(check(&bed, &[]).arg("--client").arg("--config").arg("/nowhere/env.yaml"));
    report.assert_says("mend", "settings", "/nowhere/env.yaml", "");
}
