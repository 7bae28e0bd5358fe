//! `hsdo check --quick`, the health check of containers, beside real processes of both roles.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::common::aws_proxy::Fault;
use crate::common::bed::TABLE;
use crate::common::hsdo::{Hsdo, Outcome};
use crate::common::port::Port;
use crate::common::wait::{SOON, wait_for};
use crate::fixture::{Report, Site};

/// With the settings of a container and nothing else: no credentials, and an AWS that nobody serves.
fn quick(site: &Site, port: &Port) -> Hsdo {
    let check = Hsdo::bare(&site.bed, "quick").arg("check").arg("--quick");
    check.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").env("EXPORTER_PORT", &port.number().to_string())
}

/// Its one line.
#[track_caller]
fn line(outcome: &Outcome, code: i32, begin: &str) -> String {
    outcome.assert_code(code);
    assert!(outcome.stderr.is_empty(), "{outcome}");
    assert!(outcome.stdout.starts_with(begin) && outcome.stdout.matches('\n').count() == 1, "{outcome}");
    outcome.stdout.clone()
}

#[test]
fn a_process_of_either_role_is_asked_whether_it_is_alive() {
    let site = Site::set("check-quick");
    let ports = [Port::reserve(), Port::reserve()];
    let numbers = ports.each_ref().map(|port| port.number().to_string());
    for port in &ports {
        let said = line(&quick(&site, port).run(), 1, "mend hsdo on 127.0.0.1:");
        assert!(said.contains("nobody listens; remedy: start the process"), "{said}");
    }
    let mut server = Hsdo::server(&site.bed).env("EXPORTER_PORT", &numbers[0]).spawn();
    let mut client = Hsdo::client(&site.bed).env("EXPORTER_PORT", &numbers[1]).spawn();
    server.wait_log("leading the table");
    for port in &ports {
        let ready = || {
            let outcome = quick(&site, port).run();
            if outcome.stdout.starts_with("ok   hsdo on 127.0.0.1:") { Ok(outcome) } else { Err(outcome) }
        };
        line(&wait_for("a process that is ready", SOON, ready), 0, "ok ");
    }
    settings_other_than_the_exporters_do_not_matter(&site, &ports[0]);
    a_file_and_json_do_as_elsewhere(&site, &numbers[0]);

    // Without AWS the client goes on with what it knows: no reason to replace it, and its HAProxy.
    site.bed.aws().inject("*", Fault::Reply(503, String::new()));
    let away = || {
        let outcome = quick(&site, &ports[1]).run();
        if outcome.stdout.starts_with("warn ") { Ok(outcome) } else { Err(outcome) }
    };
    let said = line(&wait_for("a client that is not ready", SOON, away), 0, "warn hsdo on 127.0.0.1:");
    assert!(said.contains("alive, but not ready: ") && said.contains("; remedy: "), "{said}");

    client.process().signal("STOP");
    let said = line(&quick(&site, &ports[1]).run(), 1, "mend hsdo on 127.0.0.1:");
    assert!(said.contains("no answer within 2 s; remedy: restart"), "{said}");
    client.process().signal("CONT");
    quick(&site, &ports[1]).run().assert_code(0);
    assert!(client.terminate().success());
    quick(&site, &ports[1]).run().assert_code(1).assert_stdout("nobody listens");
}

/// A fault that an editor left in the file must not end a process that is well.
fn settings_other_than_the_exporters_do_not_matter(site: &Site, port: &Port) {
    let check = quick(site, port).env("INTERVAL", "never").env("SERVER_MODE", "both").env("DYNAMODB_TABLE_NAME", "?");
    line(&check.run(), 0, "ok ");
    // What listens on all addresses is asked on loopback.
    line(&quick(site, port).env("EXPORTER_ADDRESS", "0.0.0.0").run(), 0, "ok ");
}

fn a_file_and_json_do_as_elsewhere(site: &Site, number: &str) {
    let text = format!("DYNAMODB_TABLE_NAME: {TABLE}\nUNKNOWN: 1\nEXPORTER_PORT: {number}\n");
    let file = site.bed.file("quick.yaml", &text);
    let check = || {
        let check = Hsdo::bare(&site.bed, "quick").arg("check").arg("--quick");
        check.arg("--config").arg(&file.to_string_lossy())
    };
    line(&check().run(), 0, "ok ");
    // An edit that breaks the whole file is not the fault of the process, either; the environment says where it is.
    let broken = site.bed.file("broken.yaml", "INTERVAL: 1\nINTERVAL: [\n");
    for file in [broken.to_string_lossy().as_ref(), "missing.yaml"] {
        let check = Hsdo::bare(&site.bed, "quick").arg("check").arg("--quick").arg("--config").arg(file);
        let outcome = check.env("EXPORTER_PORT", number).run();
        outcome.assert_code(0).assert_stdout("mend the file: the process does not start again with it");
        assert!(
            outcome.stdout.starts_with("warn settings: ") && outcome.stdout.contains("\nok   hsdo on "),
            "{outcome}"
        );
    }
    let report = Report::of(check().arg("--json"));
    report.assert_good();
    report.assert_says("ok", &format!("hsdo on 127.0.0.1:{number}"), "ok", "");
}

#[test]
fn bad_input_and_other_programs_are_named_with_a_remedy() {
    let site = Site::of_server("check-quick-bad");
    let port = Port::reserve();
    let check = || quick(&site, &port);

    let said = line(&check().env("EXPORTER_PORT", "0").run(), 1, "mend EXPORTER_PORT: 0 (the environment)");
    assert!(said.contains("cannot be asked; remedy: set it to a port; with EXPORTER_ADDRESS 127.0.0.1"), "{said}");
    let said = line(&check().env("EXPORTER_PORT", "tcp://10.96.3.7:9100").run(), 1, "mend EXPORTER_PORT: ");
    assert!(said.contains("found \"tcp://10.96.3.7:9100\"") && said.contains("remedy: set it to a port"), "{said}");
    line(&check().env("EXPORTER_ADDRESS", "here").run(), 1, "mend EXPORTER_ADDRESS: ");
    line(&check().env("EXPORTER_ADDRESS", "127.0.0.3").run(), 1, "mend hsdo on 127.0.0.3:");
    check().arg("--server").run().assert_code(2).assert_stderr("leave out --server and --client");

    let other = TcpListener::bind(("127.0.0.1", port.number())).expect("a free port");
    let said = line(&check().run(), 1, "mend ");
    assert!(said.contains("no answer within 2 s"), "{said}");
    let serves = std::thread::spawn(move || {
        for answer in ["HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 3\r\n\r\nok\n", "SSH-2.0-x\r\n"] {
            // The connection before is still in the queue the first time.
            let streams = if answer.starts_with("HTTP") { 2 } else { 1 };
            for _ in 0..streams {
                let (mut stream, _) = other.accept().expect("a connection");
                // Closing with a request unread would reset the connection.
                let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                assert!(request.count() > 1);
                let _ = stream.write_all(answer.as_bytes());
            }
        }
        other
    });
    let said = line(&check().run(), 1, "mend ");
    assert!(said.contains("another program answers; remedy: set EXPORTER_PORT"), "{said}");
    let said = line(&check().run(), 1, "mend ");
    assert!(said.contains("does not speak HTTP"), "{said}");
    drop(serves.join().expect("no panic"));
}
