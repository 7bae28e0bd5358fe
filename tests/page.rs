//! `/status` and the page at `/` of both running roles: what a program reads, and what a browser makes of the page.

mod common;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use common::bed::{Bed, tool};
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, Running};
use common::wait::{SOON, wait_for};

fn chromium() -> PathBuf {
    tool(
        "HSDO_TEST_CHROMIUM",
        &["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from),
    )
}

/// The page as Chromium reads it.
fn dom(bed: &Bed, running: &Running) -> String {
    let profile = format!("--user-data-dir={}", bed.dir().join("chromium").display());
    let output = Command::new("timeout")
        .arg("60")
        .arg(chromium())
        // CI runs as root, for whom Chromium has no sandbox. The page is our own.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"])
        .args([&profile, "--dump-dom", &running.url()])
        .env("HOME", bed.dir())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}: run `make tools`", chromium().display()));
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    assert!(!log.contains("Content Security Policy"), "the page breaks its own policy: {log}");
    dom.into_owned()
}

fn status(running: &Running) -> Value {
    let (code, body) = running.get("/status").expect("an answer");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn wait_status(running: &Running, pointer: &str, wanted: &str) {
    wait_for(&format!("{pointer} to be {wanted}"), SOON, || {
        let status = status(running);
        if status.pointer(pointer) == Some(&Value::from(wanted)) { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn both_roles_show_what_they_do_and_why() {
    let bed = Bed::new("page");
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 3);
    bed.serve_instances(&["web"]);
    let server = Hsdo::server(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4").spawn();
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 4)]);
    let client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4").spawn();
    for slot in 0..3 {
        wait_status(&server, &format!("/slots/{slot}/cause"), "serving");
        wait_status(&client, &format!("/haproxy/backends/0/slots/{slot}/cause"), "serving");
    }
    let facts = status(&server);
    assert_eq!(facts["role"], "server");
    assert_eq!(facts["lease"]["leads"], true);
    assert_eq!(facts["slots"][0]["weight"], 10);
    assert_eq!(facts["slots"][3]["cause"], "free");
    let facts = status(&client);
    assert_eq!(facts["haproxy"]["up"], true);
    assert_eq!(facts["haproxy"]["backends"][0]["slots"][0]["check_state"], "up");
    assert_eq!(facts["lease"]["leader"], status(&server)["lease"]["leader"]);
    for role in [&server, &client] {
        let dom = dom(&bed, role);
        assert!(dom.contains("✓ All is well") && dom.contains("</html>"), "{dom}");
        assert_eq!(dom.matches("<progress").count(), 3, "{dom}");
    }

    // An instance of which its group says that it is unhealthy, and a hand on one HAProxy.
    let instances = bed.moto().instances("web");
    bed.moto().set_instance_health(&instances[0].id, "Unhealthy");
    haproxy.command("set server http-back/mywebapp2 state drain");
    wait_status(&server, "/slots/0/cause", "draining");
    wait_status(&server, "/slots/0/reason", "takes no new traffic: health \"Unhealthy\"");
    wait_status(&client, "/haproxy/backends/0/slots/0/cause", "draining");
    wait_status(&client, "/haproxy/backends/0/slots/1/cause", "held");
    let (server, client) = (dom(&bed, &server), dom(&bed, &client));
    assert!(server.contains("▼ draining") && server.contains("health \"Unhealthy\""), "{server}");
    assert!(client.contains("1 held: http-back/mywebapp2: an operator or agent set it to drain"), "{client}");
    assert!(client.contains("⚠ 1 thing needs attention"), "{client}");
}
