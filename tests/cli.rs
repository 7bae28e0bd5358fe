//! The command line and configuration of the built program: what it prints, where, and its exit code.

mod common;

use std::collections::BTreeSet;
use std::fs;

use hsdo::settings::{KEYS, Scope};

use common::bed::{Bed, package_dir};
use common::hsdo::{Hsdo, Outcome, json_lines};

/// Nothing listens here: a run that gets as far as its first AWS call exits 1.
const NO_AWS: &str = "http://127.0.0.1:9";

fn run(bed: &Bed, arguments: &[&str]) -> Outcome {
    arguments.iter().fold(Hsdo::bare(bed, "cli"), |hsdo, argument| hsdo.arg(argument)).run()
}

/// The standard AWS variables that every run needs, without any hsdo setting.
fn with_aws(bed: &Bed) -> Hsdo {
    Hsdo::bare(bed, "cli")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_ENDPOINT_URL", NO_AWS)
        .env("AWS_REGION", "eu-west-1")
}

fn server(bed: &Bed) -> Hsdo {
    with_aws(bed)
        .arg("--server")
        .arg("--once")
        .env("SERVER_MODE", "aws")
        .env("SERVER_ASG_NAMES", "web")
        .env("DYNAMODB_TABLE_NAME", "slots")
}

fn client(bed: &Bed) -> Hsdo {
    with_aws(bed)
        .arg("--client")
        .arg("--once")
        .env("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80")
        .env("DYNAMODB_TABLE_NAME", "slots")
}

/// The configuration was accepted: the run failed only because there is no AWS.
#[track_caller]
fn assert_accepted(outcome: &Outcome) {
    outcome.assert_code(1).assert_stderr("127.0.0.1:9");
}

/// The faults of a rejected configuration, in order, without the program's name.
#[track_caller]
fn faults(outcome: &Outcome) -> Vec<String> {
    outcome.assert_code(2);
    assert_eq!(outcome.stdout, "", "{outcome}");
    let lines = outcome.stderr.lines();
    lines
        .map(|line| line.strip_prefix("hsdo: ").unwrap_or_else(|| panic!("{line:?} in {outcome}")).to_owned())
        .collect()
}

#[test]
fn help_and_version_go_to_stdout() {
    let bed = Bed::new("help");
    for flag in ["--version", "-V"] {
        let outcome = run(&bed, &[flag]);
        outcome.assert_code(0);
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            (concat!("hsdo ", env!("CARGO_PKG_VERSION"), "\n"), "")
        );
    }
    for flags in [["--help"].as_slice(), &["-h"], &["--server", "--help"]] {
        let outcome = run(&bed, flags);
        outcome.assert_code(0);
        assert_eq!(outcome.stderr, "");
        for word in
            ["--server", "--client", "--config", "--once", "--dry-run", "--create-table", "--debug", "exit codes"]
        {
            outcome.assert_stdout(word);
        }
        for key in KEYS {
            outcome.assert_stdout(key.name);
        }
        assert!(outcome.stdout.ends_with('\n') && !outcome.stdout.ends_with("\n\n"), "{outcome}");
    }
}

#[test]
fn what_cannot_be_understood_gives_the_usage() {
    let bed = Bed::new("usage");
    for (arguments, fault) in [
        ([].as_slice(), "no role"),
        (&["--debug"], "no role"),
        (&["--once"], "no role"),
        (&["--server", "--client"], "mutually exclusive"),
        (&["-sc"], "mutually exclusive"),
        (&["--bogus"], "\"--bogus\""),
        (&["--server", "--bogus"], "\"--bogus\""),
        (&["-x"], "\"-x\""),
        (&["--server", "now"], "\"now\""),
        (&["--server", "--config"], "--config"),
        (&["--server", "--once", "--dry-run"], "mutually exclusive"),
        (&["--server", "--bad\nflag\u{1b}[2J"], "--bad\\nflag"),
    ] {
        let outcome = run(&bed, arguments);
        outcome.assert_code(2).assert_stderr(fault).assert_stderr("usage: hsdo --server|--client");
        assert_eq!(outcome.stdout, "", "{outcome}");
        assert!(!outcome.stderr.contains('\u{1b}') && !outcome.stderr.ends_with("\n\n"), "{outcome}");
    }
}

/// Start-up errors are printed, not logged, and may quote what they found.
#[test]
fn what_an_error_quotes_steers_no_terminal() {
    let bed = Bed::new("quotes");
    let path =
        bed.file("config", "[default]\nrole_arn = a\u{1b}[2J\u{202e}b\nweb_identity_token_file = /nowhere\u{1b}[2J\n");
    let outcome = Hsdo::bare(&bed, "cli")
        .arg("--client")
        .arg("--once")
        .env("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80")
        .env("DYNAMODB_TABLE_NAME", "slots")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_CONFIG_FILE", path.to_str().unwrap())
        .run();
    outcome.assert_stderr("/nowhere\\u{1b}[2J");
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
}

#[test]
fn all_faults_of_a_configuration_come_in_one_report() {
    let bed = Bed::new("faults");
    let file = bed.file(
        "hsdo.yaml",
        "# a comment\nINTERVALL: 1\nSERVER_MODE: gcp\nHAPROXY_BACKEND_SERVERS_LIST_SIZE: 1e3\n\
         SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT: 20\nCLIENT_DEDICATED_ASG: perhaps\nDEBUG: maybe\n",
    );
    let path = file.display();
    let hsdo = || {
        Hsdo::bare(&bed, "faults")
            .arg("--config")
            .arg(&path.to_string())
            .env("EXPORTER_PORT", "many")
            .env("INTERVAL", "0")
    };
    let table = format!(
        "DYNAMODB_TABLE_NAME: not set ({path}, the environment), expected the name of a DynamoDB table: 3 to 255 letters, digits and _.- only, or its ARN"
    );
    let both = [
        "INTERVAL: found \"0\" (the environment), expected seconds from 0.05 to 3600, fractions allowed".to_owned(),
        format!(
            "HAPROXY_BACKEND_SERVERS_LIST_SIZE: found \"1e3\" ({path}:4), expected a number of slots from 1 to 10000"
        ),
        table,
        "EXPORTER_PORT: found \"many\" (the environment), expected a port from 0 to 65535, 0 for no exporter"
            .to_owned(),
        format!("DEBUG: found \"maybe\" ({path}:7), expected true or false"),
    ];
    let unknown = format!("\"INTERVALL\": unknown key ({path}:2): did you mean INTERVAL?");
    let of_server = [
        format!("SERVER_MODE: found \"gcp\" ({path}:3), expected aws or consul"),
        "SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT: found \"10\" (the default), expected a weight from 20 \
         (SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT) to 256"
            .to_owned(),
    ];
    let found = faults(&hsdo().arg("--server").run());
    assert_eq!(found, [std::slice::from_ref(&unknown), of_server.as_slice(), both.as_slice()].concat());
    // The other role's keys are not checked.
    let found = faults(&hsdo().arg("--client").run());
    assert!(found.contains(&unknown) && both.iter().all(|fault| found.contains(fault)), "{found:?}");
    assert!(
        found.iter().any(|fault| fault.starts_with(&format!("CLIENT_DEDICATED_ASG: found \"perhaps\" ({path}:6)")))
    );
    assert!(found.iter().any(|fault| fault.starts_with("CLIENT_HAPROXY_BACKEND_LIST: not set")), "{found:?}");
    assert!(!found.iter().any(|fault| fault.starts_with("SERVER_")), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let bed = Bed::new("files");
    let wrong = |name: &str, text: &str| bed.file(name, text).display().to_string();
    fs::create_dir(bed.dir().join("directory.yaml")).unwrap();
    for (path, fault) in [
        ("/nowhere/env.yaml".to_owned(), "/nowhere/env.yaml"),
        (bed.dir().join("directory.yaml").display().to_string(), "directory.yaml"),
        (wrong("list.yaml", "- a\n- b\n"), "list.yaml: expected a YAML map"),
        (wrong("broken.yaml", "INTERVAL: 1\nDEBUG: [true\n"), "broken.yaml"),
        (wrong("twice.yaml", "INTERVAL: 1\nINTERVAL: 2\n"), "twice.yaml"),
    ] {
        let found = faults(&server(&bed).arg("--config").arg(&path).run());
        assert!(found.len() == 1 && found[0].contains(fault), "{fault}: {found:?}");
    }
}

#[test]
fn the_file_of_the_working_directory_is_used_and_the_environment_wins() {
    let bed = Bed::new("cwd");
    fs::create_dir(bed.dir().join("conf")).unwrap();
    let text = "SERVER_MODE: aws\nSERVER_ASG_NAMES: [web, api]\nDYNAMODB_TABLE_NAME: from-conf\n";
    bed.file("conf/env.yaml", text);
    let other = bed.file("other.yaml", &text.replace("from-conf", "from-other"));
    let server = || with_aws(&bed).arg("--server").arg("--once");
    let says_table = |outcome: Outcome, table: &str| {
        assert_accepted(&outcome);
        outcome.assert_stderr(&format!("starts as server, table {table}\n"));
    };
    says_table(server().run(), "from-conf");
    says_table(server().env("DYNAMODB_TABLE_NAME", "from-environment").run(), "from-environment");
    says_table(server().env("DYNAMODB_TABLE_NAME", "").run(), "from-conf");
    let other = other.display().to_string();
    says_table(server().arg("--config").arg(&other).run(), "from-other");
    says_table(
        server().arg("--config").arg(&other).env("DYNAMODB_TABLE_NAME", "from-environment").run(),
        "from-environment",
    );

    bed.file("conf/env.yaml", "INTERVAL: no\n");
    assert_eq!(
        faults(&server().run())[0],
        "SERVER_MODE: not set (conf/env.yaml, the environment), expected aws or consul"
    );
    fs::remove_file(bed.dir().join("conf/env.yaml")).unwrap();
    let found = faults(&server().run());
    assert!(found[0].contains("the environment, no configuration file"), "{found:?}");
}

/// Another program's `conf/`, or the directory that `docker -v` creates for a missing file.
#[test]
fn a_file_that_nobody_named_and_that_may_not_be_read_costs_a_line() {
    let bed = Bed::new("guessed");
    fs::create_dir_all(bed.dir().join("conf/env.yaml")).unwrap();
    let line = "conf/env.yaml: cannot read the configuration file: Is a directory (os error 21); skipped, since it was not \
                named with --config: make it readable, or name a file with --config";
    let outcome = server(&bed).run();
    assert_accepted(&outcome);
    assert_eq!(outcome.stderr.matches(line).count(), 1, "{outcome}");
    // The skipped file may be why a setting is missing.
    let found = faults(&server(&bed).env_remove("SERVER_ASG_NAMES").run());
    assert!(found.len() == 2 && found[0].starts_with("SERVER_ASG_NAMES: not set") && found[1] == line, "{found:?}");
    // A file that is named must be readable.
    let found = faults(&server(&bed).arg("--config").arg("conf/env.yaml").run());
    assert_eq!(found, ["conf/env.yaml: cannot read the configuration file: Is a directory (os error 21)"]);
}

/// As saved by a Windows editor, and with more of YAML's features.
#[test]
fn a_file_is_read_as_the_original_read_it() {
    let bed = Bed::new("yaml");
    fs::create_dir(bed.dir().join("conf")).unwrap();
    let text = "\u{feff}%YAML 1.1\r\n---\r\ncommon: &common\r\n  DYNAMODB_TABLE_NAME: from-common\r\n  SERVER_MODE: aws\r\n\
                <<: *common\r\nSERVER_ASG_NAMES: [web]\r\nINTERVAL: 1\r\n...\r\n";
    bed.file("conf/env.yaml", text);
    let server = || with_aws(&bed).arg("--server").arg("--once");
    let outcome = server().run();
    assert_accepted(&outcome);
    outcome.assert_stderr("starts as server, table from-common\n");
    bed.file("conf/env.yaml", &text.replace("INTERVAL: 1", "INTERVAL: never"));
    let found = faults(&server().run());
    assert!(found.len() == 1 && found[0].starts_with("INTERVAL: found \"never\" (conf/env.yaml:8)"), "{found:?}");
}

/// `docker --env-file` keeps quotes, a name may be misspelt, and Kubernetes sets variables of its own.
#[test]
fn what_will_surprise_is_said_once_at_the_start() {
    let bed = Bed::new("notes");
    let outcome = server(&bed)
        .env("SERVER_ASG_NAMES", "\"web-a,web-b\"")
        .env("SERVER_INTERVAL", "5")
        .env("CLIENT_SECRET", "hush-hush")
        .env("CLIENT_SERVICE_HOST", "10.96.3.7")
        .env("CLIENT_SERVICE_PORT", "80")
        .env("CLIENT_PORT_80_TCP", "tcp://10.96.3.7:80")
        .run();
    assert_accepted(&outcome);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(lines.len(), 2, "{outcome}");
    assert!(lines[0].contains("have no effect: CLIENT_SECRET (did you") && lines[0].contains("SERVER_INTERVAL (did"));
    assert!(lines[1].contains("SERVER_ASG_NAMES (the environment): names that start or end with a quote"), "{outcome}");
    assert!(lines[1].contains("are used as they are: `\"web-a`, `web-b\"`; remove these characters"), "{outcome}");
    assert!(!outcome.stderr.contains("hush-hush"), "{outcome}");

    let outcome = server(&bed).env("SERVER_ASG_NAMES", r#"["web-a", "web-b"]"#).run();
    assert_accepted(&outcome);
    assert!(!outcome.stderr.contains(" WARN "), "{outcome}");
}

#[test]
fn an_empty_value_is_not_set() {
    let bed = Bed::new("empty");
    let found = faults(&server(&bed).env("SERVER_ASG_NAMES", " ").run());
    assert!(found.len() == 1 && found[0].starts_with("SERVER_ASG_NAMES: not set"), "{found:?}");
    assert_accepted(&server(&bed).env("INTERVAL", "").env("EXPORTER_ADDRESS", " ").run());
}

#[test]
fn a_backend_list_may_be_spelt_in_every_form() {
    let bed = Bed::new("backends");
    for list in [
        "http-back:mywebapp:80,api-back:api:8080",
        "http-back:mywebapp",
        r#"{"http-back": {"baseName": "mywebapp", "serverPort": "80"}}"#,
        "{http-back: {baseName: mywebapp}}",
    ] {
        assert_accepted(&client(&bed).env("CLIENT_HAPROXY_BACKEND_LIST", list).run());
    }
    let file = bed
        .file("list.yaml", "CLIENT_HAPROXY_BACKEND_LIST:\n  http-back:\n    baseName: mywebapp\n    serverPort: 80\n");
    let from_file =
        || client(&bed).env("CLIENT_HAPROXY_BACKEND_LIST", "").arg("--config").arg(&file.display().to_string());
    assert_accepted(&from_file().run());
    let older = |hsdo: Hsdo| {
        hsdo.env("CLIENT_HAPROXY_BACKEND_NAME", "http-back").env("CLIENT_HAPROXY_BACKEND_BASE_NAME", "mywebapp")
    };
    assert_accepted(&older(client(&bed).env("CLIENT_HAPROXY_BACKEND_LIST", "")).run());
    for refused in
        [older(client(&bed)), older(from_file()), client(&bed).env("CLIENT_HAPROXY_BACKEND_LIST", "a b:c:80")]
    {
        assert!(!faults(&refused.run()).is_empty());
    }
}

/// Only the required settings are added; the rest of a shipped file must work as it is.
fn assert_loads(bed: &Bed, path: &str) {
    let server =
        |hsdo: Hsdo| hsdo.arg("--server").arg("--once").env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web");
    let client =
        |hsdo: Hsdo| hsdo.arg("--client").arg("--once").env("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80");
    let with_file = || with_aws(bed).arg("--config").arg(path).env("DYNAMODB_TABLE_NAME", "slots");
    assert_accepted(&server(with_file()).run());
    assert_accepted(&client(with_file()).run());
    assert_accepted(&with_file().arg("--create-table").run());
    let found = faults(&with_aws(bed).arg("--config").arg(path).arg("--server").run());
    assert!(found.iter().all(|fault| fault.contains(": not set")), "{found:?}");
}

#[test]
fn the_log_is_json_once_the_settings_say_so() {
    let bed = Bed::new("json");
    let file = bed.file("json.yaml", "LOG_FORMAT: json\n").display().to_string();
    // A warning about the settings is a line of the log; the failed turn is the error that ends the process.
    let with_warning = |hsdo: Hsdo| hsdo.env("SERVER_ASG_NAME", "web\n\"x\"").arg("--debug");
    let of_file = |hsdo: Hsdo| hsdo.arg("--config").arg(&file);
    for (outcome, role) in [
        (with_warning(server(&bed).env("LOG_FORMAT", "json")).run(), "server"),
        (with_warning(of_file(server(&bed))).run(), "server"),
        (with_warning(client(&bed).env("LOG_FORMAT", "JSON")).run(), "client"),
        (with_warning(of_file(client(&bed).env("LOG_FORMAT", ""))).run(), "client"),
    ] {
        assert_accepted(&outcome);
        let lines = json_lines(&outcome.stderr);
        let says = |text: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|all| all.contains(text)));
        assert!(says("SERVER_ASG_NAME") && says(&format!("starts as {role}, table slots")), "{outcome}");
        let last = lines.last().expect("a line");
        assert_eq!((&last["level"], &last["target"]), (&"ERROR".into(), &"hsdo".into()), "{outcome}");
        assert!(last["message"].as_str().is_some_and(|text| text.contains("127.0.0.1:9")), "{outcome}");
    }
    // The environment wins.
    let outcome = of_file(server(&bed).env("LOG_FORMAT", "text")).run();
    assert_accepted(&outcome);
    assert!(outcome.stderr.lines().all(|line| !line.starts_with('{')), "{outcome}");
    // Faults of the settings are text.
    let found = faults(&server(&bed).env("LOG_FORMAT", "xml").run());
    assert_eq!(found, ["LOG_FORMAT: found \"xml\" (the environment), expected text or json"]);
    let found = faults(&of_file(server(&bed)).env("INTERVAL", "0").run());
    assert_eq!(found.len(), 1, "{found:?}");
    let found = faults(&run(&bed, &["--create-table", "--config", &file]));
    assert!(found.iter().any(|fault| fault.starts_with("DYNAMODB_TABLE_NAME: not set")), "{found:?}");
    let usage = run(&bed, &["--server", "--bogus", "--config", &file]);
    usage.assert_code(2).assert_stderr("hsdo: unknown flag");
}

#[test]
fn the_shipped_files_load() {
    let bed = Bed::new("shipped");
    for file in ["conf/env.yaml", "conf/package/env.yaml"] {
        assert_loads(&bed, &package_dir().join(file).display().to_string());
    }
}

#[test]
fn the_file_of_the_original_loads() {
    let bed = Bed::new("original");
    let path = package_dir().join("tests/data/original-env.yaml").display().to_string();
    assert_loads(&bed, &path);
    // In its old place beside the program, it is found without a flag.
    fs::create_dir(bed.dir().join("conf")).unwrap();
    fs::copy(&path, bed.dir().join("conf/env.yaml")).unwrap();
    assert_accepted(&server(&bed).run());
}

fn document(path: &str) -> String {
    fs::read_to_string(package_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of each row of the table that begins with this header line.
fn table(path: &str, header: &str) -> Vec<Vec<String>> {
    let text = document(path);
    let lines = text.lines().skip_while(|line| *line != header).skip(2);
    let rows: Vec<Vec<String>> = lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "{path} has no table {header:?}");
    rows
}

/// The backquoted texts of a cell.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_lists_every_setting_with_its_role_and_default() {
    let rows = table("README.md", "| key | role | default | meaning |");
    let mut listed = BTreeSet::new();
    for row in &rows {
        for name in code(&row[0]) {
            assert!(listed.insert(name), "{name} is listed twice");
            let key = KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name} is no setting"));
            let role = match key.scope {
                Scope::Server => "server",
                Scope::Client => "client",
                Scope::Both => "both",
            };
            assert_eq!(row[1], role, "{name}");
            let default = row[2].trim_matches('`');
            let required = key.default.is_empty() && default.starts_with("required");
            assert!(
                required || default == key.default,
                "{name}: the README says {default:?}, the program {:?}",
                key.default
            );
        }
    }
    let known: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(listed, known);
}

/// Whether `tests/` has the test `file::test`, in `file.rs` or in the `main.rs` of a folder of that name.
fn is_a_test(reference: &str) -> bool {
    let Some((file, test)) = reference.rsplit_once("::") else { return false };
    let path = package_dir().join("tests").join(file.replace("::", "/"));
    let sources = [path.with_extension("rs"), path.join("main.rs")];
    sources.iter().filter_map(|path| fs::read_to_string(path).ok()).any(|text| {
        let mut lines = text.lines().map(str::trim);
        while lines.any(|line| line == "#[test]") {
            if lines.next().is_some_and(|line| line.starts_with(&format!("fn {test}("))) {
                return true;
            }
        }
        false
    })
}

#[test]
fn every_row_of_the_fault_table_names_tests_that_exist() {
    let rows = table("tests/README.md", "| fault | what hsdo does | what traffic sees | shown by |");
    let mut named = 0;
    for row in rows.iter().filter(|row| !row[0].starts_with("**")) {
        let references = code(&row[3]);
        assert!(!references.is_empty(), "no test shows {:?}", row[0]);
        for reference in &references {
            assert!(is_a_test(reference), "{reference} is no test, for {:?}", row[0]);
        }
        named += references.len();
    }
    assert!(named >= rows.len(), "{named} tests in {} rows", rows.len());
    for wrong in ["client::no_such_test", "nowhere::a_reload_is_repaired", "a_reload_is_repaired", "client::tapped"] {
        assert!(!is_a_test(wrong), "{wrong}");
    }
}

#[test]
fn the_terraform_module_documents_every_variable_and_output() {
    for (file, kind, header) in [
        ("variables.tf", "variable", "| variable | default | meaning |"),
        ("outputs.tf", "output", "| output | meaning |"),
    ] {
        let text = document(&format!("conf/terraform/{file}"));
        let names = text.lines().filter_map(|line| line.strip_prefix(kind)?.split('"').nth(1).map(str::to_owned));
        let rows = table("conf/terraform/README.md", header);
        let listed: Vec<String> = rows.iter().flat_map(|row| code(&row[0])).map(str::to_owned).collect();
        assert_eq!(listed.iter().collect::<BTreeSet<_>>(), names.collect::<Vec<_>>().iter().collect(), "{file}");
        assert_eq!(
            text.matches("  description = \"").count(),
            listed.len(),
            "{file}: each has a description, and is listed once"
        );
    }
}

fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut followed = 0;
    for page in ["README.md", "conf/README.md", "conf/terraform/README.md", "src/README.md", "tests/README.md"] {
        let text = document(page);
        for link in prose(&text).flat_map(|line| line.split("](").skip(1)) {
            let link = link.split(')').next().unwrap_or_default();
            if link.starts_with("https://") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                package_dir().join(page)
            } else {
                package_dir().join(page).with_file_name("").join(path)
            };
            assert!(target.exists(), "{page}: {link}");
            let target = fs::read_to_string(&target).unwrap_or_default();
            let there = |line: &str| line.starts_with('#') && anchor(line) == fragment;
            assert!(fragment.is_empty() || prose(&target).any(there), "{page}: {link}");
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed} links");
    assert_eq!(anchor("### The client's rule"), "the-clients-rule");
}

/// `hsdo --help | head -1`: the reader may close the pipe early.
#[test]
fn a_reader_that_goes_away_is_no_fault() {
    use std::process::{Command, Stdio};
    for argument in ["--help", "--version", "--nonsense"] {
        let mut child = Command::new(common::hsdo::binary())
            .arg(argument)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hsdo starts");
        drop((child.stdout.take(), child.stderr.take()));
        let code = child.wait().expect("a status").code();
        assert_eq!(code, Some(if argument == "--nonsense" { 2 } else { 0 }), "{argument}");
    }
}
