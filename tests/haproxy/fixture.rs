//! Shared by these tests: a table whose rows they write, a configuration of their own, and a client for it.

use std::collections::BTreeMap;
use std::fs;

use crate::common::bed::Bed;
use crate::common::haproxy::{Haproxy, program};
use crate::common::hsdo::{Hsdo, Running};
use crate::common::port::Port;
use crate::common::tap::Tap;
use crate::common::wait::{SOON, wait_for};

pub(crate) const BACK: &str = "http-back";
pub(crate) const OK: &str = r#"hsdo_turns_total{result="ok"}"#;
pub(crate) const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;

/// A bed with a table of `size` slots, the first `used` of them taken by instances with a web server.
pub(crate) fn bed_with_table(name: &str, size: u32, used: u32) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    for id in 1..=size {
        if id <= used { occupy(&bed, id, id) } else { bed.moto().put_free(id) }
    }
    bed
}

/// The address of the instance `i-<host>`.
pub(crate) fn address(host: u32) -> String {
    format!("127.1.2.{host}")
}

/// Starts the web server of `i-<host>`, which is in no slot yet.
pub(crate) fn boot(bed: &Bed, host: u32) -> String {
    let name = format!("i-{host}");
    bed.web().serve(&name, address(host).parse().expect("an address"));
    name
}

/// Puts the instance `i-<host>` into a slot.
pub(crate) fn seat(bed: &Bed, id: u32, host: u32) {
    bed.moto().put_server(id, &address(host), &format!("i-{host}"), Some("web"), 10);
}

/// The same, with its web server.
pub(crate) fn occupy(bed: &Bed, id: u32, host: u32) {
    boot(bed, host);
    seat(bed, id, host);
}

/// A configuration: a common head, then a test's own text. `$WEB` is the port of the web servers, `$DIR` the bed's
/// directory, and every enabled backend has its own frontend.
#[derive(Clone, Copy, Default)]
pub(crate) struct Config<'a> {
    /// What follows `level admin` in the `stats socket` line.
    pub(crate) socket: &'a str,
    /// More lines of `global`.
    pub(crate) global: &'a str,
    /// The sections after `defaults`.
    pub(crate) sections: &'a str,
    /// Arguments besides `-db`.
    pub(crate) arguments: &'static [&'static str],
}

impl<'a> Config<'a> {
    pub(crate) fn of(sections: &'a str) -> Self {
        Config { sections, ..Config::default() }
    }

    /// Starts HAProxy with it. `backends` get a port, even those that the text has only later.
    pub(crate) fn start(self, bed: &Bed, backends: &[&str]) -> Haproxy {
        let ports: BTreeMap<String, Port> = backends.iter().map(|name| ((*name).to_owned(), Port::reserve())).collect();
        let text = self.text(bed, |name| ports.get(name).map(Port::number));
        let arguments = if self.arguments.is_empty() { &["-db"] } else { self.arguments };
        Haproxy::start_with_config(bed, &text, ports, arguments)
    }

    /// Writes it for a later restart. `backends` are those in the text.
    pub(crate) fn rewrite(self, bed: &Bed, haproxy: &Haproxy, backends: &[&str]) {
        let text = self.text(bed, |name| backends.contains(&name).then(|| haproxy.frontend(name)));
        fs::write(bed.dir().join("haproxy.cfg"), text).expect("the bed's directory can be written to");
    }

    fn text(self, bed: &Bed, port: impl Fn(&str) -> Option<u16>) -> String {
        let Config { socket, global, sections, .. } = self;
        let mut text = format!(
            "global\n    stats socket {} mode 600 level admin {socket}\n    stats timeout 5s\n{global}\n\
             defaults\n    mode http\n    timeout connect 2s\n    timeout client 10s\n    timeout server 10s\n    \
             timeout queue 1s\n    timeout check 5s\n    retries 2\n    option redispatch 1\n\n{sections}\n",
            bed.socket().display()
        );
        for name in sections.lines().filter_map(|line| line.strip_prefix("backend ")) {
            if let Some(port) = port(name) {
                text.push_str(&format!("frontend to-{name}\n    bind 127.0.0.1:{port}\n    default_backend {name}\n"));
            }
        }
        text.replace("$WEB", &bed.web().port().to_string()).replace("$DIR", &bed.dir().display().to_string())
    }
}

/// A client of a table with `size` slots; in its list of backends, `$WEB` is the port of the web servers.
pub(crate) fn client(bed: &Bed, size: u32, backends: &str) -> Hsdo {
    Hsdo::client(bed)
        .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &size.to_string())
        .env("CLIENT_HAPROXY_BACKEND_LIST", &backends.replace("$WEB", &bed.web().port().to_string()))
}

/// The same through a tap.
pub(crate) fn tapped(bed: &Bed, size: u32, backends: &str) -> (Tap, Hsdo) {
    let path = bed.dir().join("tap.sock");
    let tap = Tap::start(path.clone(), &bed.socket());
    (tap, client(bed, size, backends).env("CLIENT_HAPROXY_SOCKET_PATH", &path.to_string_lossy()))
}

/// The text of `/readyz`, once its status is 200.
pub(crate) fn ready(client: &Running) -> String {
    wait_for("/readyz to be 200", SOON, || match client.get("/readyz") {
        Ok((200, text)) => Ok(text.trim().to_owned()),
        other => Err(format!("{other:?}")),
    })
}

/// A field of `show servers state` by its index: 4 is the address, 6 the administrative state.
pub(crate) fn state(haproxy: &Haproxy, backend: &str, server: &str, field: usize) -> String {
    let table = haproxy.command(&format!("show servers state {backend}"));
    let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.get(3) == Some(&server));
    row.unwrap_or_else(|| panic!("no {server} in {table}"))[field].to_owned()
}

/// Whether a server is in maintenance of its own, whatever it tracks.
pub(crate) fn in_own_maintenance(haproxy: &Haproxy, backend: &str, server: &str) -> bool {
    state(haproxy, backend, server, 6).parse::<u32>().expect("a number") & 1 == 1
}

/// Waits until a slot points to the instance `i-<host>` and is down.
#[track_caller]
pub(crate) fn wait_down(haproxy: &Haproxy, server: &str, host: u32) {
    wait_for(&format!("{server} to wait for the check of i-{host}"), SOON, || {
        let state = haproxy.server(BACK, server);
        let there = state.addr.starts_with(&format!("{}:", address(host)));
        if there && state.status.starts_with("DOWN") && state.weight == 10 { Ok(()) } else { Err(format!("{state:?}")) }
    });
}

/// Whether the HAProxy under test is of that version, such as `2.2`.
pub(crate) fn is_version(version: &str) -> bool {
    let output = std::process::Command::new(program()).arg("-v").output().expect("haproxy runs");
    String::from_utf8_lossy(&output.stdout).contains(&format!("version {version}."))
}
