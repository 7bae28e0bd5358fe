//! Faults of this machine, and Consul.

use std::net::TcpListener;

use crate::common::consul::Consul;
use crate::common::hsdo::Hsdo;
use crate::common::port::Port;
use crate::fixture::{Report, Site};

#[test]
fn faults_of_consul_and_of_this_machine_are_named() {
    let site = Site::of_server("check-machine");
    consul_is_asked_for_its_services(&site);
    the_exporters_port_is_free_taken_or_held_by_hsdo(&site);
}

fn the_exporters_port_is_free_taken_or_held_by_hsdo(site: &Site) {
    let port = Port::reserve();
    let number = port.number().to_string();
    let check = || site.check("server").env("EXPORTER_PORT", &number);
    let other = TcpListener::bind(("127.0.0.1", port.number())).expect("a free port");
    let report = Report::of(check());
    report.assert_only(&["exporter's port"]);
    report.assert_says("mend", "exporter's port", &number, "EXPORTER_PORT");
    drop(other);
    let elsewhere = Report::of(check().env("EXPORTER_ADDRESS", "203.0.113.7"));
    elsewhere.assert_says("mend", "exporter's port", "203.0.113.7", "EXPORTER_ADDRESS");
    let mut server =
        Hsdo::server(&site.bed).env("EXPORTER_PORT", &number).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4").spawn();
    server.wait_log("leading the table");
    let report = Report::of(check());
    report.assert_says("ok", "exporter's port", "held by hsdo itself", "");
    report.assert_says("ok", "leader", "/", "");
    report.assert_good();
}

fn consul_is_asked_for_its_services(site: &Site) {
    let consul = Consul::start(&site.bed);
    consul.register("web", "web-1", "127.1.0.1");
    let check = |services: &str, url: &str| {
        let check = site.check("server").env("SERVER_MODE", "consul").env_remove("SERVER_ASG_NAMES");
        check.env("SERVER_CONSUL_API_URL", url).env("SERVER_CONSUL_SERVICE_NAME", services)
    };
    let report = Report::of(check("web", &consul.url()));
    report.assert_good();
    report.assert_says("ok", "service \"web\"", "1 instances", "");
    let report = Report::of(check("web,wbe", &consul.url()));
    report.assert_says("mend", "service \"wbe\"", "does not exist", "SERVER_CONSUL_SERVICE_NAME");
    let closed = Port::reserve();
    let report = Report::of(check("web", &format!("http://127.0.0.1:{}", closed.number())));
    report.assert_says("mend", "services", "cannot be reached", "SERVER_CONSUL_API_URL");
    site.assert_unchanged();
}
