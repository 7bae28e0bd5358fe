//! Credentials and regions from every place that the AWS SDKs know, on the built program, and the permissions it needs.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use common::aws_proxy::Fault;
use common::bed::{Bed, TABLE, package_dir};
use common::consul::Consul;
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::Hsdo;
use common::issuer::{AUTHORIZATION, Issuer, SECRET, TOKEN};
use common::moto::{Moto, element_text};
use common::port::Port;
use common::process::unshare;
use common::wait::{SOON, wait_for};

fn bed(name: &str) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    bed
}

/// A server without credentials, which uses a metadata service only if a test names one.
fn server(bed: &Bed) -> Hsdo {
    bare(Hsdo::server(bed))
}

fn bare(hsdo: Hsdo) -> Hsdo {
    hsdo.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("AWS_EC2_METADATA_DISABLED", "true")
}

fn with_metadata(hsdo: Hsdo, url: &str) -> Hsdo {
    hsdo.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
}

/// The keys that signed the calls of DynamoDB, Auto Scaling and EC2.
fn keys(bed: &Bed) -> BTreeSet<String> {
    let calls = bed.aws().calls();
    calls.into_iter().filter(|call| !call.operation.starts_with("AssumeRole")).map(|call| call.key).collect()
}

/// The features of each role's policy in `conf/terraform`: those of every table, those of reports and hooks, and those that create tables.
const BASIC: [(&str, &[&str]); 3] = [
    ("server", &["Table", "Instances", "SpotNotices"]),
    ("client", &["Table"]),
    ("operator", &["Table", "Instances", "SpotNotices"]),
];
const ENDS: [(&str, &[&str]); 3] =
    [("server", &["Reports", "LetInstancesGo", "Hooks"]), ("client", &["Report"]), ("operator", &["Reports"])];
const CREATING: &[&str] = &["CreateTable", "ExpireReports"];

fn features_of<'a>(table: &[(&str, &'a [&'a str])], role: &str) -> &'a [&'a str] {
    table.iter().find(|(name, _)| *name == role).map_or(&[], |(_, features)| features)
}

/// The actions that a policy allows by default.
fn policy(role: &str) -> Vec<String> {
    allowed(role, features_of(&BASIC, role))
}

/// The same with the report table and lifecycle hooks.
fn whole_policy(role: &str) -> Vec<String> {
    allowed(role, &[features_of(&BASIC, role), features_of(&ENDS, role)].concat())
}

/// The actions of these features of a role's policy.
fn allowed(role: &str, features: &[&str]) -> Vec<String> {
    let policy = features_in_terraform(role);
    let actions = |name: &&str| policy.get(*name).unwrap_or_else(|| panic!("{role} has no {name}: {policy:?}")).clone();
    let actions: BTreeSet<String> = features.iter().flat_map(actions).collect();
    actions.into_iter().collect()
}

/// Each feature of a role's policy with its actions, as the one table in `iam.tf` has them.
fn features_in_terraform(role: &str) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(package_dir().join("conf/terraform/iam.tf")).expect("iam.tf");
    let block = |text: &str, indent: &str, name: &str| {
        let begin = format!("\n{indent}{name} = {{\n");
        let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {name} = {{ in iam.tf"));
        rest.split_once(&format!("\n{indent}}}")).expect("its end").0.to_owned()
    };
    let role = format!("\n{}\n", block(&block(&text, "  ", "policies"), "    ", role));
    let feature = |line: &str| {
        let (name, value) =
            line.strip_prefix("      ").filter(|rest| rest.starts_with(char::is_uppercase))?.split_once('=')?;
        let name = name.trim();
        let body = match value.trim().strip_prefix("local.") {
            Some(shared) => block(&text, "  ", shared),
            None => block(&role, "      ", name),
        };
        Some((name.to_owned(), actions(&body)))
    };
    role.lines().filter_map(feature).collect()
}

/// The actions in a feature's text.
fn actions(text: &str) -> Vec<String> {
    let lists = text.split("actions").skip(1).filter_map(|rest| rest.split_once('[')?.1.split(']').next());
    let actions: Vec<String> = lists.flat_map(|list| list.split('"').skip(1).step_by(2)).map(str::to_owned).collect();
    assert!(!actions.is_empty(), "{text}");
    actions
}

/// So that none of them is left out of the tests below.
#[test]
fn every_feature_of_the_policies_is_tried() {
    for role in ["server", "client", "operator"] {
        let creating = if role == "server" { CREATING } else { &[] };
        let tried = [features_of(&BASIC, role), features_of(&ENDS, role), creating].concat();
        let tried: BTreeSet<&str> = tried.into_iter().collect();
        let there = features_in_terraform(role);
        assert_eq!(there.keys().map(String::as_str).collect::<BTreeSet<_>>(), tried, "{role}");
    }
}

fn document(actions: &[String]) -> String {
    // moto checks TransactWriteItems, which is not an IAM action: AWS checks the actions in the transaction.
    let emulated =
        actions.iter().any(|action| action == "dynamodb:UpdateItem").then_some("dynamodb:TransactWriteItems");
    let actions: Vec<&str> = actions.iter().map(String::as_str).chain(emulated).collect();
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}).to_string()
}

/// A user of moto's IAM with these permissions, and a key.
struct User {
    name: &'static str,
    key: String,
    secret: String,
}

impl User {
    fn new(moto: &Moto, name: &'static str, actions: &[String]) -> Self {
        moto.iam("CreateUser", &[("UserName", name)]);
        let answer = moto.iam("CreateAccessKey", &[("UserName", name)]);
        let user =
            User { name, key: element_text(&answer, "AccessKeyId"), secret: element_text(&answer, "SecretAccessKey") };
        user.may(moto, actions);
        user
    }

    fn may(&self, moto: &Moto, actions: &[String]) {
        let document = document(actions);
        moto.iam("PutUserPolicy", &[("UserName", self.name), ("PolicyName", "p"), ("PolicyDocument", &document)]);
    }

    /// hsdo as this user. It calls moto directly, since a proxy's edits would break the signature.
    fn runs(&self, bed: &Bed, hsdo: Hsdo) -> Hsdo {
        hsdo.env("AWS_ENDPOINT_URL", &bed.moto().url())
            .env("AWS_ACCESS_KEY_ID", &self.key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
            .arg("--debug")
    }
}

/// The end of a key, as messages show it.
fn shown(key: &str) -> String {
    format!("key ...{}", &key[key.len() - 4..])
}

#[test]
fn the_policies_of_conf_terraform_are_enough_and_each_action_is_missed_by_its_name() {
    let bed = bed("policies");
    let moto = bed.moto();
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 10)]);
    let role = |name| match name {
        "server" => Hsdo::server(&bed),
        _ => Hsdo::client(&bed),
    };
    for name in ["server", "client"] {
        let actions = policy(name);
        let user = User::new(moto, name, &actions);
        moto.check_access(true);
        let outcome = user.runs(&bed, role(name)).once();
        moto.check_access(false);
        outcome.assert_code(0);
        assert!(!outcome.stderr.contains(&user.secret), "{outcome}");

        for missing in &actions {
            // GetItem is for the change marker, DescribeTable for a better message, and only Spot instances are asked about: a turn
            // works without them.
            let useful = ["dynamodb:GetItem", "dynamodb:DescribeTable", "ec2:DescribeSpotInstanceRequests"];
            if useful.contains(&missing.as_str()) {
                continue;
            }
            let rest: Vec<String> = actions.iter().filter(|action| *action != missing).cloned().collect();
            user.may(moto, &rest);
            if missing == "dynamodb:UpdateItem" {
                // So that there is something to write.
                moto.set_desired("web", 3);
            }
            moto.check_access(true);
            let outcome = user.runs(&bed, role(name)).once();
            moto.check_access(false);
            outcome.assert_code(2).assert_stderr(&format!("allow {missing} in the IAM policy of these credentials"));
            outcome.assert_stderr(&format!("as {} (the environment)", shown(&user.key))).assert_stderr("AccessDenied");
            assert!(!outcome.stderr.contains(&user.secret) && !outcome.stderr.contains(&user.key), "{outcome}");
        }
    }
    drop(haproxy);
}

/// Each role with its report table, and the server with a hook, on exactly the policies of `conf/terraform`.
#[test]
fn the_policies_are_enough_for_reports_and_hooks() {
    let bed = bed("end-policies");
    let moto = bed.moto();
    let with_reports = |hsdo: Hsdo| hsdo.env("DYNAMODB_REPORT_TABLE_NAME", "reports").env("SERVER_LIFECYCLE_HOOK", "*");
    with_reports(Hsdo::with_aws(&bed, "create")).arg("--create-table").run().assert_code(0);
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 10)]);
    let (server, client) =
        (User::new(moto, "server", &whole_policy("server")), User::new(moto, "client", &whole_policy("client")));
    for needed in ["dynamodb:Scan", "autoscaling:CompleteLifecycleAction", "autoscaling:DescribeLifecycleHooks"] {
        assert!(whole_policy("server").iter().any(|action| action == needed), "{needed}");
    }
    let mut writers: Vec<String> = whole_policy("client");
    writers.retain(|action| ["dynamodb:UpdateItem", "dynamodb:DeleteItem"].contains(&action.as_str()));
    assert_eq!(writers.len(), 2, "{writers:?}");
    moto.check_access(true);
    let mut leader = server.runs(&bed, with_reports(Hsdo::server(&bed))).spawn();
    let mut balancer = client.runs(&bed, with_reports(Hsdo::client(&bed))).spawn();
    leader.wait_metric(r#"hsdo_balancers{state="current"}"#, |count| count == 1.0);
    assert!(balancer.terminate().success());
    leader.wait_metric(r#"hsdo_balancers{state="current"}"#, |count| count == 0.0);
    moto.check_access(false);
    for log in [leader.log(), balancer.log()] {
        assert!(!log.contains("AccessDenied"), "{log}");
    }
    drop(haproxy);
}

/// Consul tells the instances, so AWS is asked about the table alone.
#[test]
fn a_server_in_consul_mode_needs_the_table_alone() {
    let bed = Bed::new("consul-policy");
    let moto = bed.moto();
    moto.create_table();
    let consul = Consul::start(&bed);
    consul.register("web", "web-1", "127.1.0.1");
    let user = User::new(moto, "server", &allowed("server", &["Table"]));
    moto.check_access(true);
    let server = user.runs(&bed, Hsdo::server(&bed)).env("SERVER_MODE", "consul").env_remove("SERVER_ASG_NAMES");
    let outcome = server.env("SERVER_CONSUL_API_URL", &consul.url()).env("SERVER_CONSUL_SERVICE_NAME", "web").once();
    moto.check_access(false);
    outcome.assert_code(0);
    assert_eq!(moto.attribute(1, "IPAddress").as_deref(), Some("127.1.0.1"));
}

/// With `create_table = false` of the module.
#[test]
fn the_right_to_create_tables_is_enough_and_each_action_is_missed_by_its_name() {
    let bed = Bed::new("create-policy");
    let moto = bed.moto();
    let needed = allowed("server", CREATING);
    let user = User::new(moto, "server", &needed);
    let create = |table: &str| {
        moto.check_access(true);
        let create = user.runs(&bed, Hsdo::with_aws(&bed, "create")).env("DYNAMODB_TABLE_NAME", table);
        let outcome = create.env("DYNAMODB_REPORT_TABLE_NAME", &format!("{table}-reports")).arg("--create-table").run();
        moto.check_access(false);
        outcome
    };
    create("web").assert_code(0).assert_stdout("table web created").assert_stdout("its items expire");
    // The second time, what is there is looked at.
    create("web").assert_code(0).assert_stdout("table web-reports already exists");
    for missing in ["dynamodb:CreateTable", "dynamodb:DescribeTable", "dynamodb:UpdateTimeToLive"] {
        let rest: Vec<String> = needed.iter().filter(|action| *action != missing).cloned().collect();
        assert!(rest.len() < needed.len(), "the policy has {missing}");
        user.may(moto, &rest);
        create(&missing.replace(':', "-")).assert_code(2).assert_stderr(&format!("allow {missing} in the IAM policy"));
    }
}

#[test]
fn the_operators_policy_is_enough_for_orders_and_each_action_is_missed_by_its_name() {
    let bed = bed("operator");
    let moto = bed.moto();
    Hsdo::server(&bed).once().assert_code(0);
    let actions = policy("operator");
    let user = User::new(moto, "operator", &actions);
    let runs = |words: &str| {
        let hsdo = words.split_whitespace().fold(Hsdo::with_aws(&bed, "operator"), Hsdo::arg);
        let hsdo = user.runs(&bed, hsdo);
        moto.check_access(true);
        let outcome = hsdo.run();
        moto.check_access(false);
        outcome
    };
    runs("drain slot:1").assert_code(0).assert_stdout("user/operator");
    runs("status").assert_code(0).assert_stdout("slot:1");
    runs("enable slot:1").assert_code(0);
    for missing in ["dynamodb:Scan", "dynamodb:GetItem", "dynamodb:UpdateItem"] {
        let rest: Vec<String> = actions.iter().filter(|action| *action != missing).cloned().collect();
        assert!(rest.len() < actions.len(), "the policy has {missing}");
        user.may(moto, &rest);
        let outcome = runs("drain slot:1");
        outcome.assert_code(1).assert_stderr(&format!("allow {missing} in the IAM policy of these credentials"));
        assert_eq!(moto.attribute(1, "HsdoOrders"), None);
    }
}

#[test]
fn a_wrong_secret_is_refused_and_shown_nowhere() {
    let bed = bed("wrong-secret");
    let user = User::new(bed.moto(), "server", &policy("server"));
    bed.moto().check_access(true);
    let outcome = user.runs(&bed, Hsdo::server(&bed)).env("AWS_SECRET_ACCESS_KEY", "hush-hush").once();
    outcome.assert_code(2).assert_stderr("SignatureDoesNotMatch").assert_stderr("check the AWS secret access key");
    assert!(!outcome.stderr.contains("hush"), "{outcome}");
}

#[test]
fn a_profile_has_keys_and_the_region() {
    let bed = bed("profile");
    let user = User::new(bed.moto(), "server", &policy("server"));
    let keys = format!("[ops]\naws_access_key_id = {}\naws_secret_access_key = {}\n", user.key, user.secret);
    let credentials = bed.file("keys", &keys);
    let config = bed.file("config", "[profile ops]\nregion = eu-west-1\n");
    bed.moto().check_access(true);
    let outcome = server(&bed)
        .env_remove("AWS_DEFAULT_REGION")
        .env("AWS_ENDPOINT_URL", &bed.moto().url())
        .env("AWS_PROFILE", "ops")
        .env("AWS_CONFIG_FILE", &config.to_string_lossy())
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials.to_string_lossy())
        .once();
    outcome.assert_code(0).assert_stderr(&format!("{} (profile \"ops\")", shown(&user.key)));
}

/// Keys of a profile or config file, indented.
fn pair(key: &str, indent: &str, is: &str) -> String {
    format!("{indent}aws_access_key_id{is}{key}\n{indent}aws_secret_access_key{is}hush\n")
}

#[test]
fn shared_files_are_read_as_the_python_version_reads_them() {
    let bed = bed("files");
    let run = |profile: &str, config: &[u8], credentials: &str| {
        let path = bed.dir().join("config");
        std::fs::write(&path, config).expect("a file");
        let keys = bed.file("keys", credentials);
        bed.aws().forget();
        let hsdo = server(&bed)
            .env(if profile == "older" { "AWS_DEFAULT_PROFILE" } else { "AWS_PROFILE" }, profile)
            .env("AWS_CONFIG_FILE", &path.to_string_lossy())
            .env("AWS_SHARED_CREDENTIALS_FILE", &keys.to_string_lossy());
        hsdo.once()
    };
    for (profile, config, credentials) in [
        ("", format!("[default]\n{}", pair("INDENTED", "    ", " = ")), String::new()),
        ("", format!("  [default]\n{}", pair("FURTHER", "  ", " = ")), String::new()),
        ("", format!("[default]\n{}", pair("COLON", "", ": ")), String::new()),
        ("", format!("\u{feff}[default]\n{}", pair("MARKED", "", " = ")), String::new()),
        ("older", String::new(), format!("[older]\n{}", pair("OLDER", "", " = "))),
        ("my company", String::new(), format!("[my company]\n{}", pair("SPACE", "", " = "))),
        ("prod(eu)", String::new(), format!("[prod(eu)]\n{}", pair("BRACKET", "", " = "))),
        ("kunde-müller", String::new(), format!("[kunde-müller]\n{}", pair("UMLAUT", "", " = "))),
        ("acme#1", String::new(), format!("[acme#1]\n{}", pair("HASH", "", " = "))),
        ("o'brien ops", format!("[profile 'o'\"'\"'brien ops']\n{}", pair("QUOTED", "", " = ")), String::new()),
        (
            "",
            "[default]\ncredential_process = test 'a #b' && echo '{\"Version\": 1, \"AccessKeyId\": \"PROCESS\", \"SecretAccessKey\": \"s\"}' # note\n"
                .to_owned(),
            String::new(),
        ),
    ] {
        let outcome = run(profile, config.as_bytes(), &credentials);
        outcome.assert_code(0);
        let (keys, text) = (keys(&bed), format!("{config}{credentials}"));
        assert!(keys.len() == 1 && keys.iter().all(|key| text.contains(key.as_str())), "{keys:?} {text}");
    }
    let token = format!("[default]\n{}aws_security_token = the-older-name\n", pair("TOKEN", "", " = "));
    run("", b"", &token).assert_code(0);
    assert!(bed.aws().calls().iter().all(|call| call.token == "the-older-name"), "{:?}", bed.aws().calls());

    let utf_16: Vec<u8> = "\u{feff}[default]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    run("", &utf_16, "").assert_code(2).assert_stderr("config: UTF-16 or binary data: save it as UTF-8");
    let login = b"[profile person]\nlogin_session = arn:aws:iam::123456789012:user/person\n";
    run("person", login, "").assert_code(2).assert_stderr("has a login_session (aws login), which hsdo cannot use");
    run("older", b"", "").assert_code(2).assert_stderr("correct AWS_DEFAULT_PROFILE");
}

#[test]
fn the_older_name_of_the_token_counts_in_the_environment() {
    let bed = bed("older-token");
    Hsdo::server(&bed).env("AWS_SECURITY_TOKEN", "the-older-name").once().assert_code(0);
    assert!(bed.aws().calls().iter().all(|call| call.token == "the-older-name"), "{:?}", bed.aws().calls());
}

#[test]
fn the_home_of_passwd_counts_where_nothing_sets_one() {
    let bed = bed("passwd");
    std::fs::create_dir_all(bed.dir().join("home/.aws")).expect("a folder");
    bed.file("home/.aws/credentials", &format!("[default]\n{}", pair("ATHOME", "", " = ")));
    let passwd = bed.file("passwd", &format!("root:x:0:0::{}:/bin/sh\n", bed.dir().join("home").display()));
    let own = format!("mount --bind '{}' /etc/passwd && exec \"$0\" \"$@\"", passwd.display());
    let mut runner = unshare();
    runner.extend(["--mount", "sh", "-c", &own]);
    server(&bed).env_remove("HOME").under(&runner).once().assert_code(0);
    assert_eq!(keys(&bed), BTreeSet::from(["ATHOME".to_owned()]));
}

/// The first words of a command with only its user's permissions: root may read everything.
fn as_plain_user() -> Vec<&'static str> {
    match unshare()[..] {
        ["unshare"] => vec!["setpriv", "--bounding-set=-dac_override,-dac_read_search"],
        _ => vec!["env"],
    }
}

#[test]
fn a_file_that_nobody_named_and_that_cannot_be_read_is_left_out_and_a_named_one_is_a_fault() {
    let bed = bed("unreadable");
    let aws = bed.dir().join(".aws");
    std::fs::create_dir_all(aws.join("config")).expect("a folder");
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    let keys = bed.file(".aws/credentials", "[default]\naws_access_key_id = NEVER\n");
    set(&keys, 0o000);
    let run = || Hsdo::server(&bed).under(&as_plain_user());
    let outcome = run().once();
    outcome
        .assert_code(0)
        .assert_stderr("/.aws/config is left out: is a directory; AWS_CONFIG_FILE may name another file");
    outcome.assert_stderr("/.aws/credentials is left out: permission denied");
    assert_eq!(outcome.stderr.matches("is left out").count(), 2, "{outcome}");

    let alone = server(&bed).under(&as_plain_user()).once();
    alone.assert_code(2).assert_stderr("no AWS credentials").assert_stderr("/.aws/credentials (permission denied)");
    let named = run().env("AWS_SHARED_CREDENTIALS_FILE", &keys.to_string_lossy()).once();
    named.assert_code(2).assert_stderr("permission denied; make it readable or correct AWS_SHARED_CREDENTIALS_FILE");
    let named = run().env("AWS_CONFIG_FILE", &aws.to_string_lossy()).once();
    named.assert_code(2).assert_stderr("is a directory; make it readable or correct AWS_CONFIG_FILE");

    set(&aws, 0o000);
    run().once().assert_code(0).assert_stderr("/.aws/config is left out: permission denied");
    set(&aws, 0o700);
}

#[test]
fn roles_are_assumed_one_by_another() {
    let bed = bed("chain");
    let moto = bed.moto();
    let user = User::new(moto, "person", &["sts:AssumeRole".to_owned()]);
    for (name, actions) in [("first", vec!["sts:AssumeRole".to_owned()]), ("second", policy("server"))] {
        let trust = json!({"Version": "2012-10-17", "Statement":
            [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]});
        moto.iam("CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", &trust.to_string())]);
        let document = document(&actions);
        moto.iam("PutRolePolicy", &[("RoleName", name), ("PolicyName", "p"), ("PolicyDocument", &document)]);
    }
    let role = |name| format!("arn:aws:iam::123456789012:role/{name}");
    let config = format!(
        "[profile second]\nrole_arn = {}\nsource_profile = first\nexternal_id = them\nduration_seconds = 900\n\
         [profile first]\nrole_arn = {}\nsource_profile = person\nrole_session_name = us\n\
         [profile person]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        role("second"),
        role("first"),
        user.key,
        user.secret
    );
    let config = bed.file("config", &config);
    let run = |profile: &str| {
        moto.check_access(true);
        let outcome = server(&bed)
            .env("AWS_ENDPOINT_URL", &moto.url())
            .env("AWS_PROFILE", profile)
            .env("AWS_CONFIG_FILE", &config.to_string_lossy())
            .arg("--debug")
            .once();
        moto.check_access(false);
        assert!(!outcome.stderr.contains(&user.secret), "{outcome}");
        outcome
    };
    run("second").assert_code(0).assert_stderr(&format!("(role {})", role("second")));
    // The first role may assume the second and nothing else; the refusal names the caller.
    run("first").assert_code(2).assert_stderr("as key ...").assert_stderr(&format!("(role {})", role("first")));

    user.may(moto, &["sts:GetCallerIdentity".to_owned()]);
    let refused = run("second");
    refused.assert_code(2).assert_stderr("STS AssumeRole of role arn:aws:iam::123456789012:role/first");
    refused.assert_stderr("allow sts:AssumeRole in the IAM policy of these credentials");
}

#[test]
fn a_command_gives_credentials() {
    let bed = bed("process");
    let config = bed.file(
        "config",
        "[default]\ncredential_process = echo '{\"Version\": 1, \"AccessKeyId\": \"ASIAPROCESS\", \"SecretAccessKey\": \"hush\"}'\n\
         [profile broken]\ncredential_process = echo 'log in first' >&2; exit 3 # hush\n",
    );
    let run = |profile| {
        let hsdo = server(&bed).env("AWS_CONFIG_FILE", &config.to_string_lossy()).env("AWS_PROFILE", profile);
        let outcome = hsdo.arg("--debug").once();
        assert!(!outcome.stderr.contains("hush"), "{outcome}");
        outcome
    };
    run("default").assert_code(0);
    assert_eq!(keys(&bed), BTreeSet::from(["ASIAPROCESS".to_owned()]));
    run("broken")
        .assert_code(1)
        .assert_stderr("credential_process of profile \"broken\" failed (exit status: 3): log in first");
}

#[test]
fn a_web_identity_is_exchanged_for_a_role() {
    let bed = bed("web-identity");
    let token = bed.file("token", "header.hush.signature\n");
    let outcome = server(&bed)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token.to_string_lossy())
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
        .env("AWS_ROLE_SESSION_NAME", "us")
        .arg("--debug")
        .once();
    outcome.assert_code(0).assert_stderr("(role arn:aws:iam::123456789012:role/pod)");
    assert!(!outcome.stderr.contains("hush"), "{outcome}");
    let calls = bed.aws().calls();
    let exchange = calls.iter().find(|call| call.operation == "AssumeRoleWithWebIdentity").expect("the exchange");
    assert!(exchange.key.is_empty() && exchange.body.contains("RoleSessionName=us"), "{exchange:?}");
    let keys = keys(&bed);
    assert!(keys.len() == 1 && keys.iter().all(|key| key.starts_with("ASIA")), "{keys:?}");
}

#[test]
fn a_container_has_a_role() {
    let bed = bed("container");
    let issuer = Issuer::start(Duration::from_secs(3_600));
    let token = bed.file("token", AUTHORIZATION);
    let url = format!("{}/container", issuer.url());
    let run = |name: &str, value: &str| {
        let hsdo = server(&bed).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url).env(name, value).arg("--debug");
        let outcome = hsdo.once();
        for secret in [SECRET, TOKEN, AUTHORIZATION] {
            assert!(!outcome.stderr.contains(secret), "{outcome}");
        }
        outcome
    };
    run("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token.to_string_lossy()).assert_code(0);
    run("AWS_CONTAINER_AUTHORIZATION_TOKEN", AUTHORIZATION).assert_code(0);
    assert_eq!(keys(&bed), issuer.issued().into_keys().collect());
    run("AWS_CONTAINER_AUTHORIZATION_TOKEN", "someone-else").assert_code(1).assert_stderr("are refused (status 401)");
}

#[test]
fn an_instance_has_a_role_and_a_region() {
    let bed = bed("metadata");
    let issuer = Issuer::start(Duration::from_secs(3_600));
    let outcome = with_metadata(server(&bed), &issuer.url()).env_remove("AWS_DEFAULT_REGION").arg("--debug").once();
    outcome.assert_code(0).assert_stderr("(instance role the-role)");
    assert!(!outcome.stderr.contains(SECRET) && !outcome.stderr.contains(TOKEN), "{outcome}");
    assert_eq!(keys(&bed), issuer.issued().into_keys().collect());
}

/// moto's instances are in us-east-1, and its table is not.
#[test]
fn an_instance_of_moto_has_a_role_and_a_region() {
    let bed = bed("moto-metadata");
    let hsdo = || with_metadata(server(&bed), &bed.moto().url());
    hsdo().once().assert_code(0).assert_stderr("key ...-key (instance role default-role)");
    assert_eq!(keys(&bed), BTreeSet::from(["test-key".to_owned()]));
    let elsewhere = hsdo().env_remove("AWS_DEFAULT_REGION").once();
    elsewhere.assert_code(2).assert_stderr(&format!("table {TABLE:?} does not exist in us-east-1"));
}

#[test]
fn nothing_anywhere_is_said_with_all_the_places() {
    let bed = bed("nothing");
    let outcome = server(&bed).once();
    outcome.assert_code(2).assert_stderr("no AWS credentials: AWS_ACCESS_KEY_ID is not set");
    outcome.assert_stderr("AWS_WEB_IDENTITY_TOKEN_FILE").assert_stderr("AWS_EC2_METADATA_DISABLED is set");
    let outcome = server(&bed).env_remove("AWS_DEFAULT_REGION").once();
    outcome.assert_code(2).assert_stderr("no AWS region").assert_stderr("set AWS_DEFAULT_REGION");
}

/// Each call must be signed with a key that was valid when the call came.
#[track_caller]
fn assert_all_held(bed: &Bed, issuer: &Issuer) {
    let given = issuer.issued();
    for call in bed.aws().calls() {
        let end = given.get(&call.key).unwrap_or_else(|| panic!("{call:?} is signed with an unknown key"));
        assert!(call.at < *end, "{} came {:?} after the end of {}", call.operation, call.at - *end, call.key);
    }
}

#[test]
fn keys_that_last_seconds_are_replaced_without_a_failed_turn() {
    let bed = bed("rotation");
    bed.serve_instances(&["web"]);
    let issuer = Issuer::start(Duration::from_secs(3));
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 10)]);
    let mut server = with_metadata(server(&bed), &issuer.url()).spawn();
    server.wait_metric("hsdo_last_success_timestamp_seconds", |value| value > 0.0);
    let mut client = with_metadata(bare(Hsdo::client(&bed)), &issuer.url()).spawn();
    let begun = Instant::now();
    wait_for("both to use a dozen keys", Duration::from_secs(60), || {
        server.process().assert_running();
        client.process().assert_running();
        let count = keys(&bed).len();
        if count >= 12 { Ok(()) } else { Err(format!("{count} keys")) }
    });
    assert!(begun.elapsed() > Duration::from_secs(6), "each key lasts: {:?}", begun.elapsed());
    for running in [&server, &client] {
        assert_eq!(running.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", running.log());
        assert!(!running.log().contains(SECRET) && !running.log().contains("WARN"), "{}", running.log());
    }
    for name in ["mywebapp1", "mywebapp2"] {
        assert!(haproxy.server("http-back", name).takes_traffic(), "{name}");
    }
    assert_all_held(&bed, &issuer);
}

#[test]
fn an_outage_of_the_issuer_shorter_than_the_life_left_is_not_seen() {
    let bed = bed("outage");
    let issuer = Issuer::start(Duration::from_secs(10));
    let mut server = with_metadata(server(&bed), &issuer.url()).spawn();
    server.wait_metric("hsdo_last_success_timestamp_seconds", |value| value > 0.0);
    issuer.set_broken(true);
    server.wait_log("refresh failed, but the current ones are valid for another");
    let asked = issuer.requests();
    wait_for("the issuer to be asked again", SOON, || if issuer.requests() > asked { Ok(()) } else { Err(asked) });
    issuer.set_broken(false);
    server.wait_log("AWS credentials: recovered after");
    let new = issuer.issued().into_keys().next_back().expect("a key");
    wait_for("the new key to sign", SOON, || if keys(&bed).contains(&new) { Ok(()) } else { Err(keys(&bed).len()) });
    assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", server.log());
    assert_eq!(server.log().matches("refresh failed").count(), 1, "said once: {}", server.log());
    assert_all_held(&bed, &issuer);
}

/// Start-up trouble of a machine fails turns, and passes by itself.
#[test]
fn trouble_of_the_metadata_service_at_start_is_waited_for() {
    let bed = bed("early");
    const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;
    let broken = |issuer: &Issuer| issuer.set_broken(true);
    let without_role = |issuer: &Issuer| issuer.set_roles(Some((404, "")));
    let portal = |issuer: &Issuer| issuer.set_roles(Some((200, "<html><body>Welcome</body></html>")));
    type Break<'a> = &'a dyn Fn(&Issuer);
    let no_session = |issuer: &Issuer| issuer.set_session(Some((200, "<html><body>Please log in</body></html>")));
    let cases: [(&str, Break<'_>, bool, &str); 5] = [
        (
            "a page in the place of a session",
            &no_session,
            true,
            "did not start a session (status 200, without a token)",
        ),
        ("no role yet", &without_role, true, "names no role yet"),
        ("a page", &portal, true, "returned an invalid role name: \"<html>"),
        ("down", &broken, true, "did not start a session (status 503)"),
        ("down, and the region is not known", &broken, false, "no AWS region yet"),
    ];
    for (name, spoil, region, text) in cases {
        let issuer = Issuer::start(Duration::from_secs(3_600));
        let hsdo = || {
            let hsdo = with_metadata(server(&bed), &issuer.url());
            if region { hsdo } else { hsdo.env_remove("AWS_DEFAULT_REGION") }
        };
        spoil(&issuer);
        let mut running = hsdo().spawn();
        running.wait_metric(FAILED, |count| count >= 2.0);
        assert!(running.log().contains(text), "{name}: {}", running.log());
        let mut once = hsdo().arg("--once").spawn();
        once.wait_log(text);
        issuer.set_broken(false);
        issuer.set_session(None);
        issuer.set_roles(None);
        running.wait_turn();
        assert_eq!(once.process().wait_exit(SOON).code(), Some(0), "{name}: {}", once.log());
    }
}

/// Nothing listens yet, as while a machine has no network.
#[test]
fn a_metadata_service_that_comes_late_is_waited_for() {
    let bed = bed("late");
    let port = Port::reserve();
    let url = format!("http://127.0.0.1:{}", port.number());
    let mut server = with_metadata(server(&bed), &url).env_remove("AWS_DEFAULT_REGION").spawn();
    server.wait_metric(r#"hsdo_turns_total{result="failed"}"#, |count| count >= 2.0);
    assert!(server.log().contains("no AWS region yet"), "{}", server.log());
    let _issuer = Issuer::start_at(Duration::from_secs(3_600), ([127, 0, 0, 1], port.number()).into());
    server.wait_turn();
}

#[test]
fn keys_past_their_end_are_used_until_aws_refuses_them() {
    let bed = bed("past");
    let issuer = Issuer::start(Duration::from_secs(3));
    let mut server = with_metadata(server(&bed), &issuer.url()).spawn();
    server.wait_metric("hsdo_last_success_timestamp_seconds", |value| value > 0.0);
    issuer.set_broken(true);
    server.wait_log("refresh failed; using the expired ones for as long as AWS accepts them");
    let (key, end) = issuer.issued().into_iter().next_back().expect("a key");
    let asked = issuer.requests();
    for _ in 0..5 {
        server.wait_turn();
    }
    assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", server.log());
    assert!(bed.aws().calls().iter().any(|call| call.key == key && call.at > end), "nothing was signed past the end");
    // The source is not called for every request.
    assert!(issuer.requests() - asked < 30, "{} questions", issuer.requests() - asked);

    bed.aws().inject("Scan", Fault::dynamodb(400, "ExpiredTokenException"));
    server.wait_log("ExpiredTokenException");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("ExpiredTokenException")).unwrap_or_default();
    assert!(line.contains("cannot renew them: the instance's metadata service"), "{line}");
    bed.aws().heal();
    issuer.set_broken(false);
    server.wait_turn();
    let new = issuer.issued().into_keys().next_back().expect("a key");
    assert!(new != key && keys(&bed).contains(&new), "{new}");
}

#[test]
fn a_login_of_the_new_kind_is_named() {
    let bed = bed("login");
    let config = bed.file("config", "[default]\nlogin_session = arn:aws:iam::123456789012:user/me\n");
    let outcome = server(&bed).env("AWS_CONFIG_FILE", &config.to_string_lossy()).once();
    outcome.assert_code(2).assert_stderr("has a login_session (aws login), which hsdo cannot use");
}

#[test]
fn an_expired_token_is_replaced_within_the_call() {
    let bed = bed("expired");
    let issuer = Issuer::start(Duration::from_secs(3_600));
    let mut server = with_metadata(server(&bed), &issuer.url()).spawn();
    server.wait_turn();
    let before = issuer.issued().len();
    bed.aws().inject_times("Scan", Fault::dynamodb(400, "ExpiredTokenException"), 1);
    wait_for("another key", SOON, || {
        let count = issuer.issued().len();
        if count > before { Ok(()) } else { Err(count) }
    });
    server.wait_turn();
    assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", server.log());
    assert_eq!(issuer.issued().len(), before + 1);
}
