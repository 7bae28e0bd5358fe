//! Start and end of the server role: exit codes, `--once`, `--dry-run`, signals, and an AWS that comes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::fixture::{FAILED, bed, ids, seats, settle, steady, wait_seats};
use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::hsdo::Hsdo;
use crate::common::wait::{SOON, wait_until};

/// The promise is one second; a busy machine may need a moment to notice the exit.
const ONE_SECOND: Duration = Duration::from_millis(1_900);

#[test]
fn once_ends_with_0_when_the_turn_is_done() {
    let bed = bed("once", &[("web", 1)]);
    let web = ids(&bed, "web");
    let outcome = steady(&bed, 2).once();
    outcome.assert_code(0).assert_stderr(&format!("slot 1: added {}", web[0]));
    assert_eq!(outcome.stdout, "");
    wait_seats(&bed, &[(1, &web[0])]);
    assert_eq!(bed.aws().count("Scan"), 1, "one turn");
}

#[test]
fn once_ends_with_1_when_aws_cannot_be_reached_or_fails() {
    let bed = bed("down", &[("web", 1)]);
    steady(&bed, 2).env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").once().assert_code(1).assert_stderr("127.0.0.1:9");
    for operation in ["DescribeTable", "DescribeAutoScalingGroups", "DescribeInstances", "Scan", "TransactWriteItems"] {
        bed.aws().inject(operation, Fault::Reply(503, String::new()));
        let outcome = steady(&bed, 2).once();
        outcome.assert_code(1).assert_stderr(operation);
        assert_eq!(outcome.stderr.lines().filter(|line| line.starts_with("hsdo: ")).count(), 1, "one line: {outcome}");
        bed.aws().heal();
    }
    assert_eq!(seats(&bed).len(), 0);
}

/// With and without `--once`.
#[test]
fn what_only_a_person_can_mend_ends_the_start_with_2() {
    let bed = Bed::new("mend");
    bed.moto().create_group("web", 0, 1);
    let check = |what: &str, server: &dyn Fn() -> Hsdo, text: &str| {
        for outcome in [server().run(), server().once(), server().arg("--dry-run").run()] {
            assert_eq!(outcome.status.code(), Some(2), "{what}: {outcome}");
            assert!(outcome.stderr.contains(text), "{what}: no {text:?} in {outcome}");
        }
    };
    check("no table", &|| steady(&bed, 2), "create it with hsdo --create-table");
    bed.moto().create_table();
    // This machine may be an EC2 instance, whose role may still appear.
    let alone = || steady(&bed, 2).env("AWS_EC2_METADATA_DISABLED", "true");
    check(
        "no credentials",
        &|| alone().env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"),
        "AWS_ACCESS_KEY_ID",
    );
    check("no region", &|| alone().env_remove("AWS_DEFAULT_REGION"), "AWS_DEFAULT_REGION");
    let zone = "\"eu-west-1a\" is a zone of the AWS region eu-west-1";
    check("a zone as region", &|| steady(&bed, 2).env("AWS_DEFAULT_REGION", "eu-west-1a"), zone);
    bed.aws().inject("Scan", Fault::dynamodb(400, "AccessDeniedException"));
    check("no right to read", &|| steady(&bed, 2), "AccessDeniedException");
    bed.aws().heal();
    bed.aws().inject("DescribeAutoScalingGroups", Fault::autoscaling(403, "AccessDenied"));
    check("no right to list groups", &|| steady(&bed, 2), "DescribeAutoScalingGroups");
    bed.aws().heal();
    bed.aws().inject("DescribeInstances", Fault::ec2(403, "UnauthorizedOperation", "You are not authorized"));
    check("no right to list instances", &|| steady(&bed, 2), "UnauthorizedOperation");
    bed.aws().heal();
    for (status, text) in [
        ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", "KMS key"),
        ("ARCHIVED", "restore it from DynamoDB's backup"),
        ("ARCHIVING", "restore it from DynamoDB's backup"),
    ] {
        bed.aws().inject("DescribeTable", Fault::replace("\"ACTIVE\"", &format!("\"{status}\"")));
        check(status, &|| steady(&bed, 2), text);
        bed.aws().heal();
    }
    // DescribeTable is not required: the Python version's policies do not have it.
    bed.aws().inject("DescribeTable", Fault::dynamodb(400, "AccessDeniedException"));
    steady(&bed, 2).once().assert_code(0);
}

/// A new key takes a moment to propagate: only one that stays unknown is wrong.
#[test]
fn a_key_that_stays_unknown_ends_the_start_with_2_and_one_that_becomes_known_does_not() {
    let bed = bed("key", &[("web", 1)]);
    // Before any of them can lead.
    bed.aws().inject("DescribeTable", Fault::dynamodb(400, "UnrecognizedClientException"));
    std::thread::scope(|scope| {
        for mode in ["--debug", "--once", "--dry-run"] {
            let bed = &bed;
            scope.spawn(move || {
                let outcome = steady(bed, 2).arg(mode).run();
                assert_eq!(outcome.status.code(), Some(2), "{mode}: {outcome}");
                assert!(outcome.stderr.contains("UnrecognizedClientException"), "{mode}: {outcome}");
            });
        }
    });
    bed.aws().heal();
    for (operation, fault) in [
        ("Scan", Fault::dynamodb(400, "UnrecognizedClientException")),
        ("DescribeAutoScalingGroups", Fault::autoscaling(403, "InvalidClientTokenId")),
        (
            "DescribeInstances",
            Fault::ec2(401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
        ),
    ] {
        for mode in ["--once", "--dry-run"] {
            bed.aws().inject_times(operation, fault.clone(), 2);
            steady(&bed, 2).arg(mode).run().assert_code(0).assert_stderr("AWS: ");
        }
        bed.aws().inject_times(operation, fault, 3);
        let mut server = steady(&bed, 2).spawn();
        server.wait_metric(FAILED, |count| count >= 2.0);
        server.wait_turn();
    }
}

/// AWS's message names the policy that denies, and so does the remedy.
#[test]
fn a_denial_is_told_with_the_remedy_of_its_reason() {
    const WHO: &str = "User: arn:aws:iam::123456789012:user/web is not authorized to perform: dynamodb:Scan on resource: \
                       arn:aws:dynamodb:eu-west-1:123456789012:table/hsdo";
    let bed = bed("denied", &[("web", 1)]);
    for (message, remedy) in [
        (format!("{WHO} with an explicit deny in a service control policy"), "ask the organization's administrators"),
        (
            format!("{WHO} because no VPC endpoint policy allows the dynamodb:Scan action"),
            "allow dynamodb:Scan in the policy of the VPC endpoint",
        ),
        (
            format!("{WHO} with an explicit deny in a resource-based policy"),
            "the resource-based policy of what was called denies dynamodb:Scan",
        ),
        (
            "KMS key access denied error: com.amazonaws.services.kms.model.AWSKMSException: The ciphertext refers to a \
             customer master key that does not exist"
                .to_owned(),
            "allow kms:Decrypt on the table's KMS key",
        ),
        (WHO.to_owned(), "allow dynamodb:Scan in the IAM policy of these credentials"),
    ] {
        bed.aws().inject("Scan", Fault::denied(&message));
        steady(&bed, 2).once().assert_code(2).assert_stderr(&message).assert_stderr(remedy);
        bed.aws().heal();
    }
}

/// A turn ends in time with 1 and the reason, whatever AWS and the table answer.
#[test]
fn once_ends_within_twenty_seconds_whatever_is_answered() {
    // A busy machine may need a moment to notice the exit.
    let limit = Duration::from_secs(22);
    let ends = |name: &str, spoil: &dyn Fn(&Bed), reason: &str| {
        let bed = bed(name, &[("web", 1)]);
        spoil(&bed);
        let mut server = steady(&bed, 2).arg("--once").spawn();
        let status = server.process().wait_exit(limit);
        let log = server.log();
        assert_eq!(status.code(), Some(1), "{name}: {log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with("hsdo: ") && last.contains(reason), "{name}: {log}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ends(
                "slow",
                &|bed| {
                    bed.aws().inject("DescribeTable", Fault::Delay(Duration::from_millis(3_500)));
                    bed.aws().inject("GetItem", Fault::Delay(Duration::from_millis(1_500)));
                    bed.aws().inject_times("DescribeAutoScalingGroups", Fault::Hang, 2);
                    bed.aws().inject("DescribeInstances", Fault::Hang);
                },
                "EC2 DescribeInstances of 1 instances",
            );
        });
        scope.spawn(|| {
            // The lease names a different server each time: it is neither alive nor dead.
            let number = AtomicUsize::new(0);
            let other = move |_: &str| {
                let number = number.fetch_add(1, Ordering::SeqCst);
                let item = json!({"BackendServerID": {"N": "1"}, "HsdoVersion": {"N": "1"},
                    "HsdoHeartbeat": {"N": number.to_string()}, "HsdoLeader": {"S": format!("server-{number}")}});
                json!({ "Item": item }).to_string()
            };
            let other = Fault::Answer(Arc::new(other));
            ends("lease", &|bed| bed.aws().inject("GetItem", other.clone()), "the table's lease is neither free nor");
        });
        scope.spawn(|| {
            ends(
                "throttled",
                &|bed| bed.aws().inject("*", Fault::dynamodb(400, "ThrottlingException")),
                "ThrottlingException",
            );
        });
    });
}

#[test]
fn an_aws_that_comes_late_is_waited_for() {
    let bed = bed("late", &[("web", 1)]);
    bed.aws().inject("*", Fault::Close);
    let mut server = steady(&bed, 2).spawn();
    server.wait_metric(FAILED, |count| count >= 2.0);
    assert_eq!(server.log().matches("AWS: ").count(), 1, "said once: {}", server.log());
    bed.aws().heal();
    wait_seats(&bed, &[(1, &ids(&bed, "web")[0])]);
    server.wait_log("AWS: recovered");
}

/// A permission revoked at run time only fails turns.
#[test]
fn after_a_good_start_nothing_outside_ends_the_process() {
    let bed = bed("revoked", &[("web", 1)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[0])]);
    settle(&bed, &mut server);
    let before = bed.moto().rows();
    bed.aws().inject("*", Fault::dynamodb(400, "UnrecognizedClientException"));
    server.wait_metric(FAILED, |count| count >= 2.0);
    bed.aws().heal();
    server.wait_turn();
    bed.moto().dynamodb("DeleteTable", &json!({"TableName": "hsdo"}));
    let failed = server.metric(FAILED).unwrap();
    server.wait_metric(FAILED, |count| count >= failed + 2.0);
    assert!(server.log().contains("--create-table"), "{}", server.log());
    bed.moto().create_table();
    for item in before.values() {
        bed.moto().put_item(&json!(item));
    }
    server.wait_turn();
    assert_eq!(bed.moto().rows(), before);
}

#[test]
fn a_dry_run_prints_and_writes_nothing() {
    let bed = bed("dry", &[("web", 2)]);
    let web = bed.moto().instances("web");
    bed.moto().put_server(1, "127.1.5.1", "i-gone", Some("web"), 10);
    let before = bed.moto().rows();
    let outcome = steady(&bed, 3).arg("--dry-run").run();
    outcome.assert_code(0);
    let expected = [
        format!(
            "slot 1: removed i-gone at 127.1.5.1 (group web); slot 1: added {} at {} (group web), weight 10",
            web[0].id, web[0].address
        ),
        format!("slot 2: added {} at {} (group web), weight 10", web[1].id, web[1].address),
        "slot 3: free".to_owned(),
    ];
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected, "{outcome}");
    assert_eq!(bed.moto().rows(), before);
    assert_eq!(bed.aws().count("TransactWriteItems"), 0);

    steady(&bed, 3).once().assert_code(0);
    steady(&bed, 3).arg("--dry-run").run().assert_code(0).assert_stdout("nothing to write");
    bed.aws().inject("Scan", Fault::Garbage);
    steady(&bed, 3).arg("--dry-run").run().assert_code(1);
}

#[test]
fn a_signal_ends_it_within_a_second_with_0() {
    let bed = bed("signals", &[("web", 1)]);
    let web = ids(&bed, "web");
    for signal in ["TERM", "INT"] {
        let mut server = steady(&bed, 2).env("INTERVAL", "3600").spawn();
        wait_seats(&bed, &[(1, &web[0])]);
        server.wait_metric(r#"hsdo_turns_total{result="ok"}"#, |count| count == 1.0);
        server.process().signal(signal);
        let status = server.process().wait_exit(ONE_SECOND);
        assert_eq!(status.code(), Some(0), "{signal}: {}", server.log());
    }
    // Also during a call that hangs or waits for a retry, at the first turn and before it.
    let later = Fault::Later(Duration::from_secs(3));
    for (operation, fault) in [
        ("DescribeTable", Fault::Hang),
        ("DescribeAutoScalingGroups", Fault::Hang),
        ("Scan", Fault::Hang),
        ("DescribeTable", later.clone()),
        ("DescribeAutoScalingGroups", later),
    ] {
        bed.aws().forget();
        bed.aws().inject(operation, fault);
        let mut server = steady(&bed, 2).spawn();
        wait_until("the call", SOON, || (bed.aws().count(operation) > 0).then_some(()));
        server.process().signal("TERM");
        let status = server.process().wait_exit(ONE_SECOND);
        assert_eq!(status.code(), Some(0), "{operation}: {}", server.log());
        bed.aws().heal();
    }
}

#[test]
fn credentials_region_and_endpoints_come_from_the_standard_places() {
    let bed = bed("profile", &[("web", 1)]);
    let config = bed.file("config", "[profile web]\nregion = eu-west-1\n");
    let keys = "[web]\naws_access_key_id = AKIDOFTHEPROFILE\naws_secret_access_key = secret\n";
    let credentials = bed.file("credentials", keys);
    let url = bed.aws().url();
    let server = || {
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"]
            .iter()
            .fold(steady(&bed, 2), |server, name| server.env_remove(name))
            .env("AWS_CONFIG_FILE", &config.to_string_lossy())
            .env("AWS_SHARED_CREDENTIALS_FILE", &credentials.to_string_lossy())
            .env("AWS_ENDPOINT_URL_DYNAMODB", &url)
            .env("AWS_ENDPOINT_URL_AUTO_SCALING", &url)
            .env("AWS_ENDPOINT_URL_EC2", &url)
    };
    server().env("AWS_PROFILE", "web").once().assert_code(0);
    wait_seats(&bed, &[(1, &ids(&bed, "web")[0])]);
    server().env("AWS_PROFILE", "other").once().assert_code(2).assert_stderr("other");
    // One service elsewhere.
    let elsewhere = server().env("AWS_PROFILE", "web").env("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9").once();
    elsewhere.assert_code(1).assert_stderr("DescribeInstances").assert_stderr("127.0.0.1:9");
}

#[test]
fn no_credential_is_logged_at_any_level() {
    const SECRETS: [&str; 3] = ["AKIDTHATNOBODYMAYSEE", "secret-that-nobody-may-see", "token-that-nobody-may-see"];
    let bed = bed("secrets", &[("web", 1)]);
    let server = || {
        steady(&bed, 2)
            .arg("--debug")
            .env("RUST_LOG", "trace")
            .env("AWS_ACCESS_KEY_ID", SECRETS[0])
            .env("AWS_SECRET_ACCESS_KEY", SECRETS[1])
            .env("AWS_SESSION_TOKEN", SECRETS[2])
    };
    let mut outcomes = vec![server().once()];
    outcomes[0].assert_code(0).assert_stderr("DEBUG");
    bed.aws().inject("Scan", Fault::dynamodb(400, "InvalidSignatureException"));
    outcomes.push(server().once());
    outcomes[1].assert_code(2);
    for (outcome, secret) in outcomes.iter().flat_map(|outcome| SECRETS.map(|secret| (outcome, secret))) {
        assert!(!outcome.stderr.contains(secret) && !outcome.stdout.contains(secret), "{secret} was logged");
    }
}
