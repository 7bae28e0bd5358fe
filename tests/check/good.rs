//! A set-up as it should be.

use crate::common::bed::TABLE;
use crate::common::hsdo::Hsdo;
use crate::fixture::{Report, Site};

#[test]
fn a_good_set_up_has_nothing_to_mend() {
    let site = Site::set("check-good");
    each_role_is_good(&site);
    without_a_role_the_settings_decide_and_both_are_checked(&site);
    site.assert_unchanged();
    // What it asks of AWS: reads, and writes whose condition cannot hold.
    for call in site.bed.aws().calls() {
        let is_write = ["UpdateItem", "TransactWriteItems"].contains(&call.operation.as_str());
        let is_read = ["Describe", "Get", "Scan"].iter().any(|begin| call.operation.starts_with(begin));
        let cannot_hold = call.body.contains("attribute_exists(#k) AND attribute_not_exists(#k)");
        assert!(is_read || is_write && cannot_hold, "{call:?}");
    }
}

fn each_role_is_good(site: &Site) {
    for role in ["server", "client"] {
        let report = Report::of(site.check(role));
        report.assert_good();
        for (subject, text) in [
            ("role", role),
            ("DYNAMODB_TABLE_NAME", "hsdo (the environment)"),
            ("LOG_FORMAT", "text (the default)"),
            ("region of the table", "eu-west-1 (AWS_DEFAULT_REGION, the environment)"),
            ("AWS credentials", "key ...test (the environment), which do not expire"),
            ("AWS identity", "arn:aws:"),
            ("dynamodb:Scan", "allowed"),
            ("dynamodb:GetItem", "allowed"),
            ("billing", "on demand"),
            ("TTL", "off"),
            ("rows", "4 rows, 2 of them taken, for 4 slots"),
            ("leader", "none"),
            ("clock", "within"),
            ("exporter's port", "free"),
        ] {
            report.assert_says("ok", subject, text, "");
        }
        let own: &[(&str, &str)] = match role {
            "server" => &[
                ("SERVER_REMOVAL_GUARD", "30 (the default)"),
                ("dynamodb:UpdateItem", "allowed"),
                ("autoscaling:DescribeAutoScalingGroups", "allowed"),
                ("ec2:DescribeInstances", "allowed"),
                ("group \"web\"", "2 instances, all ready"),
                ("instances", "2 are ready, for 4 slots"),
            ],
            _ => &[
                ("HAProxy's socket", "level admin"),
                ("stats timeout", "more than half a second"),
                ("HAProxy", "version "),
                ("HAProxy's configuration", "read"),
                ("backend http-back", "servers mywebapp1 to mywebapp4"),
                ("backend http-back", "every server has a check"),
                ("backend http-back", "every server starts `disabled`"),
                ("backend http-back", "`balance roundrobin` takes weights"),
            ],
        };
        for (subject, text) in own {
            report.assert_says("ok", subject, text, "");
        }
    }
}

fn without_a_role_the_settings_decide_and_both_are_checked(site: &Site) {
    let both = |check: Hsdo| {
        check
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")
            .env("SERVER_MODE", "aws")
            .env("SERVER_ASG_NAMES", "web")
            .env("CLIENT_HAPROXY_SOCKET_PATH", &site.bed.socket().to_string_lossy())
            .env("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80")
    };
    let report = Report::of(both(Hsdo::with_aws(&site.bed, "check").arg("check").arg("--json")));
    report.assert_good();
    report.assert_says("ok", "role", "server and client, by the settings", "");
    // A terminal gets a table; this is none.
    let outcome = both(Hsdo::with_aws(&site.bed, "check").arg("check")).run();
    outcome.assert_code(0).assert_stdout("ok   role: server and client, by the settings\n");
    outcome.assert_stdout(&format!("ok   DYNAMODB_TABLE_NAME: {TABLE} (the environment)\n"));
    outcome.assert_stdout(" ok, 0 warn, 0 mend\n");
    assert!(!outcome.stdout.contains('\u{1b}'), "{outcome}");
}

#[test]
fn its_help_and_its_command_line() {
    let site = crate::common::bed::Bed::new("check-help");
    let help = Hsdo::bare(&site, "help").arg("check").arg("--help").run();
    help.assert_code(0).assert_stdout("usage: hsdo check [--server] [--client]").assert_stdout("--json");
    for arguments in [&["check", "--once"][..], &["check", "web"], &["chekc"], &["--client", "check"]] {
        let hsdo = arguments.iter().fold(Hsdo::bare(&site, "usage"), |hsdo, argument| hsdo.arg(argument));
        hsdo.run().assert_code(2).assert_stderr("usage: hsdo").assert_stderr("hsdo check");
    }
}
