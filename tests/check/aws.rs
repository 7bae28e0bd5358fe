//! Faults of credentials, rights, groups and the table.

use serde_json::json;

use crate::common::aws_proxy::Fault;
use crate::common::port::Port;
use crate::fixture::{Report, Site};

#[test]
fn faults_of_rights_access_table_and_groups_are_named() {
    let site = Site::of_server("check-aws");
    every_right_is_tried_and_a_missing_one_named(&site);
    without_credentials_region_or_network_each_is_named(&site);
    faults_of_the_table_are_named(&site);
    groups_and_rows_that_surprise_are_named(&site);
}

fn every_right_is_tried_and_a_missing_one_named(site: &Site) {
    let denied = || Fault::denied("User: arn:aws:iam::1:user/x is not authorized");
    let ec2 = || Fault::ec2(403, "UnauthorizedOperation", "You are not authorized");
    let groups = || Fault::autoscaling(403, "AccessDenied");
    let told = "not told without dynamodb:DescribeTimeToLive";
    let cases: [(&str, &str, Fault, &str, &str, &str, &str); 11] = [
        ("server", "Scan", denied(), "mend", "dynamodb:Scan", "", "allow dynamodb:Scan"),
        ("client", "Scan", denied(), "mend", "dynamodb:Scan", "", "allow dynamodb:Scan"),
        ("server", "TransactWriteItems", denied(), "mend", "dynamodb:UpdateItem", "", "allow dynamodb:UpdateItem"),
        ("server", "UpdateItem", denied(), "mend", "dynamodb:UpdateItem", "", "allow dynamodb:UpdateItem"),
        ("client", "GetItem", denied(), "warn", "dynamodb:GetItem", "costs more", "allow dynamodb:GetItem"),
        (
            "server",
            "DescribeTable",
            denied(),
            "warn",
            "dynamodb:DescribeTable",
            "works without",
            "allow dynamodb:DescribeTable",
        ),
        ("client", "DescribeTable", denied(), "ok", "dynamodb:DescribeTable", "no role needs it", ""),
        ("client", "DescribeTimeToLive", denied(), "ok", "TTL", told, ""),
        ("server", "DescribeInstances", ec2(), "mend", "ec2:DescribeInstances", "", "allow ec2:DescribeInstances"),
        (
            "server",
            "DescribeAutoScalingGroups",
            groups(),
            "mend",
            "autoscaling:DescribeAutoScalingGroups",
            "",
            "allow autoscaling",
        ),
        (
            "server",
            "GetCallerIdentity",
            Fault::ec2(403, "InvalidClientTokenId", "no"),
            "mend",
            "AWS identity",
            "",
            "check the AWS access key",
        ),
    ];
    // A client needs no HAProxy for these.
    let aws = ["HAProxy's socket"];
    for (role, operation, fault, level, subject, text, remedy) in cases {
        site.bed.aws().inject(operation, fault);
        let report = Report::of(site.check(role));
        report.assert_says(level, subject, text, remedy);
        report.assert_only(&[&aws[..], &[subject]].concat());
        site.bed.aws().heal();
    }
    site.assert_unchanged();
}

fn without_credentials_region_or_network_each_is_named(site: &Site) {
    let check = || site.check("server").env("AWS_EC2_METADATA_DISABLED", "true");
    let report = Report::of(check().env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    report.assert_says("mend", "AWS credentials", "no AWS credentials", "AWS_PROFILE");
    report.assert_says("warn", "AWS", "not checked", "check again");
    let report = Report::of(check().env_remove("AWS_DEFAULT_REGION"));
    report.assert_says("mend", "AWS credentials", "no AWS region", "set AWS_DEFAULT_REGION");
    let closed = Port::reserve();
    let report = Report::of(check().env("AWS_ENDPOINT_URL_DYNAMODB", &format!("http://127.0.0.1:{}", closed.number())));
    report.assert_says("mend", "dynamodb:Scan", "cannot be reached", "let this machine reach");
    report.assert_says("ok", "ec2:DescribeInstances", "allowed", "");
    let secret = check().env("AWS_SECRET_ACCESS_KEY", "hush-hush-hush-hush-hush");
    assert!(!Report::of(secret).stdout().contains("hush"));
    site.assert_unchanged();
}

fn faults_of_the_table_are_named(site: &Site) {
    let on_demand = json!({"BillingMode": "PAY_PER_REQUEST"});
    site.make_table("other", "Id", "S", &on_demand);
    site.make_table("expiring", "BackendServerID", "N", &on_demand);
    let expiry =
        json!({"TableName": "expiring", "TimeToLiveSpecification": {"Enabled": true, "AttributeName": "Weight"}});
    site.bed.moto().dynamodb("UpdateTimeToLive", &expiry);
    let units = json!({"ReadCapacityUnits": 1, "WriteCapacityUnits": 1});
    site.make_table("small", "BackendServerID", "N", &json!({"ProvisionedThroughput": units}));
    let cases = [
        ("server", "nowhere", "mend", "table \"nowhere\"", "does not exist in eu-west-1", "hsdo --create-table"),
        ("client", "nowhere", "mend", "table \"nowhere\"", "does not exist in eu-west-1", "hsdo --create-table"),
        ("server", "other", "mend", "table \"other\"", "is not a table of slots", "DYNAMODB_TABLE_NAME"),
        ("server", "expiring", "mend", "TTL", "\"Weight\"", "turn time to live off"),
        ("server", "small", "warn", "billing", "1 read and 1 write units", "on-demand"),
        ("client", "expiring", "warn", "rows", "no row for slots 1, 2, 3, 4", "start a server"),
    ];
    for (role, table, level, subject, text, remedy) in cases {
        let report = Report::of(site.check(role).env("DYNAMODB_TABLE_NAME", table));
        report.assert_says(level, subject, text, remedy);
    }
    // A client may not describe tables, and sees the key by reading an item.
    site.bed.aws().inject("DescribeTable", Fault::denied("no"));
    let report = Report::of(site.check("client").env("DYNAMODB_TABLE_NAME", "other"));
    report.assert_says("mend", "table \"other\"", "", "BackendServerID (number)");
    Report::of(site.check("client")).assert_says("ok", "table \"hsdo\"", "seen by GetItem", "");
    site.bed.aws().heal();
    site.assert_unchanged();
}

fn groups_and_rows_that_surprise_are_named(site: &Site) {
    site.bed.moto().create_group("none \"<b>\u{e9}", 0, 0);
    let groups = |names: &str| site.check("server").env("SERVER_ASG_NAMES", names);
    let report = Report::of(groups("web,wbe"));
    report.assert_says("mend", "group \"wbe\"", "does not exist", "correct SERVER_ASG_NAMES");
    report.assert_says("ok", "group \"web\"", "2 instances", "");
    Report::of(groups("none \"<b>\u{e9}")).assert_says("warn", "instances", "none is ready", "in service");
    let small = site.check("server").env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "1");
    let report = Report::of(small);
    report.assert_says("mend", "instances", "2 are ready, for 1 slots", "HAPROXY_BACKEND_SERVERS_LIST_SIZE");
    report.assert_says("warn", "rows", "slots 2 above", "2 or more");
    let own = site.check("client").env("CLIENT_DEDICATED_ASG", "true").env("CLIENT_ASG_NAMES", "web,wbe");
    let own =
        own.env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "f").env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", "f");
    Report::of(own).assert_says("warn", "CLIENT_ASG_NAMES", "\"wbe\"", "correct the name");
    site.assert_unchanged();
    site.bed.moto().remove_attribute(3, "Weight");
    site.bed.moto().put_item(&json!({"BackendServerID": {"N": "99999"}}));
    let report = Report::of(site.check("server"));
    report.assert_says("warn", "rows", "slot 3", "correct or delete");
    report.assert_says("warn", "rows", "99999", "correct or delete");
}
