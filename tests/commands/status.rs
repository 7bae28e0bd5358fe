//! `hsdo status`.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::hsdo::{Hsdo, Outcome, binary};

/// What a row may hold without being unreadable.
pub(crate) const HOSTILE: &str = "<b>\"x\"\\ \u{202e};\u{2028} {} %s";

fn status(bed: &Bed) -> Hsdo {
    Hsdo::with_aws(bed, "status").arg("status")
}

fn document(outcome: &Outcome) -> Value {
    outcome.assert_code(0);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error} in {outcome}"))
}

/// Nothing in it controls a terminal.
#[track_caller]
pub(crate) fn assert_plain(outcome: &Outcome) {
    let unsafe_char = |char: char| char != '\n' && (char.is_control() || "\u{202e}\u{2028}".contains(char));
    assert!(!outcome.stdout.contains(unsafe_char), "{outcome}");
}

#[test]
fn the_table_as_it_is() {
    let bed = Bed::new("status");
    bed.moto().create_table();
    let none = status(&bed).run();
    none.assert_code(0).assert_stdout("no server leads").assert_stdout("0 enabled");

    bed.moto().create_group("web", 0, 2);
    let mut server = Hsdo::server(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "3").spawn();
    server.wait_metric(r#"hsdo_slots{state="enabled"}"#, |count| count == 2.0);
    server.wait_turn();
    let alive = document(&status(&bed).arg("--json").run());
    assert_eq!(alive["lease"]["alive"], true, "{alive}");
    assert!(alive["version"].is_number() && alive["region"] == "eu-west-1" && alive["table"] == "hsdo", "{alive}");
    for (index, instance) in bed.moto().instances("web").iter().enumerate() {
        let slot = &alive["slots"][index];
        assert_eq!(slot["instance"], instance.id.as_str(), "{alive}");
        assert_eq!(slot["address"], instance.address.to_string(), "{alive}");
        assert_eq!((&slot["group"], &slot["state"]), (&json!("web"), &json!("enabled")), "{alive}");
        assert!(slot["weight"].is_number() && slot["since"].is_string(), "{alive}");
    }
    assert_eq!(alive["slots"][2]["state"], "free", "{alive}");
    let text = status(&bed).run();
    text.assert_code(0).assert_stdout("alive (heartbeat").assert_stdout("2 enabled, 0 draining, 0 disabled, 1 free");
    assert_eq!(text.stderr, "", "{text}");
    server.kill();
    let dead = status(&bed).run();
    dead.assert_code(0).assert_stdout("dead: its heartbeat does not change");
}

#[test]
fn a_hostile_row_stays_one_line() {
    let bed = Bed::new("status-hostile");
    bed.moto().create_table();
    bed.moto().put_server(1, "10.0.0.1", HOSTILE, Some(HOSTILE), 5);
    bed.moto().put_server(2, "10.0.0.2", "i-2", Some("a\nb"), 5);
    bed.moto().update_item(3, &json!({"IPAddress": {"S": "\u{1b}[2J\n10.0.0.3"}}));
    let before = bed.moto().items();
    let text = status(&bed).run();
    // Four lines about the table, an empty one, the header, and the rows.
    assert_eq!(text.stdout.lines().count(), 4 + 2 + 3, "{text}");
    assert_plain(&text);
    text.assert_stdout("<b>\"x\"\\ \\u{202e};\\u{2028} {} %s").assert_stdout("unreadable");
    let json = status(&bed).arg("--json").run();
    assert_plain(&json);
    let found = document(&json);
    assert_eq!((&found["slots"][0]["instance"], &found["slots"][0]["group"]), (&json!(HOSTILE), &json!(HOSTILE)));
    assert!(found["slots"][1]["fault"].as_str().is_some_and(|fault| fault.contains("ASG")), "{found}");
    assert_eq!(bed.moto().items(), before);
    let only_reads = |operation: &str| ["Scan", "GetItem"].contains(&operation);
    assert!(bed.aws().calls().iter().all(|call| only_reads(&call.operation)));
}

#[test]
fn what_cannot_be_read_is_said() {
    let bed = Bed::new("status-fails");
    let missing = status(&bed).run();
    missing.assert_code(1).assert_stderr("hsdo --create-table");
    assert_eq!(missing.stdout, "");
    bed.aws().inject("Scan", Fault::denied("no rights"));
    status(&bed).run().assert_code(1).assert_stderr("no rights");
    status(&bed).env("DYNAMODB_TABLE_NAME", "").run().assert_code(2).assert_stderr("DYNAMODB_TABLE_NAME: not set");
    status(&bed).arg("--config").arg("missing.yaml").run().assert_code(2).assert_stderr("missing.yaml");
    let help = Hsdo::bare(&bed, "help").arg("status").arg("--help").run();
    help.assert_code(0).assert_stdout("usage: hsdo status");
    Hsdo::bare(&bed, "typo").arg("statsu").run().assert_code(2).assert_stderr("did you mean status?");
}

#[test]
fn colours_are_for_a_terminal_only() {
    let bed = Bed::new("status-colours");
    bed.moto().create_table();
    bed.moto().put_server(1, "10.0.0.1", "i-1", Some("web"), 5);
    let plain = status(&bed).run();
    assert!(!plain.assert_code(0).stdout.contains('\u{1b}'), "{plain}");
    // `script` gives the program a terminal.
    let on_terminal = |no_colour: &str| {
        let mut command = Command::new("script");
        command
            .args(["-qec", &format!("{} status", binary().display()), "/dev/null"])
            .env_clear()
            .current_dir(bed.dir());
        for (key, value) in [
            ("PATH", "/usr/bin:/bin"),
            ("SHELL", "/bin/sh"),
            ("DYNAMODB_TABLE_NAME", "hsdo"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_URL", &bed.aws().url()),
            ("NO_COLOR", no_colour),
        ] {
            command.env(key, value);
        }
        let output = command.output().expect("`script` runs (package bsdutils)");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let coloured = on_terminal("");
    assert!(coloured.contains("\u{1b}[32menabled\u{1b}[0m"), "{coloured:?}");
    let plain = on_terminal("1");
    assert!(plain.contains("enabled") && !plain.contains('\u{1b}'), "{plain:?}");
}
