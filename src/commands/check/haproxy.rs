//! HAProxy: its socket, version, backends and servers, and what of its configuration will surprise. Pure.

use std::collections::BTreeMap;

use super::configuration::BackendText;
use super::line::{Line, Trouble};
use crate::haproxy::{InspectedBackend, InspectedServer, Inspection, keeps_old_connections, ring_differs};
use crate::ports::BackendFault;
use crate::settings::Backend;
use crate::slot::SlotId;
use crate::text::{fact_and_remedy, list, one_line};

const MAX_LISTED: usize = 10;

/// What is known of HAProxy.
#[derive(Debug)]
pub(super) struct HaproxyFacts {
    /// `CLIENT_HAPROXY_SOCKET_PATH`.
    pub(super) place: String,
    pub(super) inspection: Result<Inspection, Trouble>,
    /// It closes an idle connection within half a second.
    pub(super) closes_idle: bool,
    /// The backends to fill, the fallback included.
    pub(super) backends: Vec<Backend>,
    /// The number of slots.
    pub(super) size: SlotId,
    pub(super) health_gate: bool,
    /// HAProxy's configuration file, or why it is not read.
    pub(super) configuration: Result<BTreeMap<String, BackendText>, String>,
}

pub(super) fn lines(facts: &HaproxyFacts) -> Vec<Line> {
    let socket = "HAProxy's socket";
    let inspection = match &facts.inspection {
        Ok(inspection) => inspection,
        Err(trouble) => return vec![Line::trouble(socket, trouble)],
    };
    let master = if inspection.master { ", of the master process" } else { "" };
    let mut lines = vec![Line::ok(socket, format!("{}, level admin{master}", facts.place))];
    lines.push(match facts.closes_idle {
        false => Line::ok("stats timeout", "more than half a second"),
        true => Line::warn(
            "stats timeout",
            "HAProxy closes an idle connection within half a second, and may cut a long reply",
            "set `stats timeout 10s` in its global section",
        ),
    });
    lines.push(Line::ok("HAProxy", format!("version {}", one_line(&inspection.version, 60))));
    lines.push(match &facts.configuration {
        Ok(_) => Line::ok("HAProxy's configuration", "read, for what the socket does not tell"),
        Err(why) => Line::ok(
            "HAProxy's configuration",
            format!("not read, so `hash-type` and `load-server-state-from-file` are not told: {why}"),
        ),
    });
    for backend in &facts.backends {
        let subject = format!("backend {}", backend.name);
        match inspection.backends.get(&backend.name) {
            Some(Ok(found)) => lines.extend(backend_lines(&subject, facts, backend, found)),
            Some(Err(fault)) => lines.push(fault_line(&subject, fault)),
            None => {}
        }
    }
    lines
}

fn fault_line(subject: &str, fault: &BackendFault) -> Line {
    if let BackendFault::Unreadable(_) = fault {
        return Line::mend(subject, fault.to_string(), "report this with HAProxy's version");
    }
    let (text, remedy) = fact_and_remedy(&fault.to_string());
    Line::mend(subject, text, remedy)
}

fn backend_lines(subject: &str, facts: &HaproxyFacts, backend: &Backend, found: &InspectedBackend) -> Vec<Line> {
    let own: Vec<&InspectedServer> =
        (1..=facts.size).map_while(|id| found.servers.get(&format!("{}{id}", backend.base))).collect();
    let mut lines = vec![size_line(subject, facts, backend, found, own.len())];
    if own.is_empty() {
        return lines;
    }
    match own.iter().filter(|server| server.named).count() {
        0 => {}
        named if named == own.len() => {
            let first = format!("{}/{}1", backend.name, backend.base);
            return vec![fault_line(subject, &BackendFault::Resolved(first))];
        }
        named => lines.push(Line::warn(
            subject,
            format!("HAProxy's resolver sets the address of {named} slots, so hsdo leaves them alone"),
            "see `set server … fqdn`, and give the `server-template` a literal address such as 127.0.0.2:80",
        )),
    }
    let text = facts.configuration.as_ref().ok().and_then(|backends| backends.get(&backend.name));
    lines.push(check_line(subject, facts.health_gate, &own));
    lines.push(disabled_line(subject, &own));
    lines.extend(balance_lines(subject, facts, found.algorithm.as_deref(), text, &own));
    if own.iter().any(|server| server.agent) {
        lines.push(Line::warn(
            subject,
            "an `agent-check` can change weights and states too, against hsdo's",
            "remove `agent-check`, or let the agent send only `up` and `down`",
        ));
    }
    if own.iter().any(|server| server.inherited) {
        lines.push(Line::warn(
            subject,
            "servers inherit maintenance from a tracked server or a name, which hsdo cannot lift",
            "remove `track` and host names from the `server-template`, unless this is meant",
        ));
    }
    match text {
        Some(text) if text.state_file => lines.push(Line::warn(
            subject,
            "`load-server-state-from-file` brings slots back after a reload, ready at the placeholder address",
            "set `load-server-state-from-file none` in it",
        )),
        Some(_) => lines.push(Line::ok(subject, "no `load-server-state-from-file`")),
        None => {}
    }
    if text.is_some_and(|text| text.persist) {
        lines.push(Line::warn(
            subject,
            "`option persist` sends sticky requests to servers that are down, new ones before their check included",
            "remove `option persist`",
        ));
    }
    if let (Some(text), Ok(inspection)) = (text, &facts.inspection)
        && text.reuse_never
        && !text.server_close
        && keeps_old_connections(&inspection.version)
    {
        lines.push(Line::warn(
            subject,
            format!(
                "`http-reuse never` in HAProxy {}: clients that keep their connection go on reaching the server that a slot had before",
                one_line(&inspection.version, 60)
            ),
            "set `option http-server-close`, remove `http-reuse never`, or update to 2.6.22, 2.8.15, 3.0.10 or 3.1.7",
        ));
    }
    lines
}

fn size_line(subject: &str, facts: &HaproxyFacts, backend: &Backend, found: &InspectedBackend, own: usize) -> Line {
    let (base, size) = (&backend.base, facts.size);
    let template = format!("`server-template {base} 1-{size} 127.0.0.2:80 check disabled`");
    if own == size as usize {
        return Line::ok(subject, format!("servers {base}1 to {base}{size}"));
    }
    if own == 0 {
        let others = list(found.servers.keys().map(|name| one_line(name, 60)), MAX_LISTED);
        let others = if others.is_empty() { "none".to_owned() } else { others };
        return Line::mend(
            subject,
            format!("it has no server {base}1; its servers: {others}"),
            format!("correct the base name in CLIENT_HAPROXY_BACKEND_LIST, or add {template}"),
        );
    }
    Line::mend(
        subject,
        format!("only servers {base}1 to {base}{own}: slots {} to {size} get no traffic here", own + 1),
        format!("use {template}, or lower HAPROXY_BACKEND_SERVERS_LIST_SIZE on servers and clients"),
    )
}

fn check_line(subject: &str, health_gate: bool, own: &[&InspectedServer]) -> Line {
    let unchecked = own.iter().filter(|server| !server.checked).count();
    if unchecked > 0 {
        return Line::warn(
            subject,
            format!(
                "{unchecked} of {} servers have no `check`: a new one gets traffic at once, a dead one keeps it",
                own.len()
            ),
            "add `check` to the `server-template`",
        );
    }
    match health_gate {
        true => Line::ok(subject, "every server has a check"),
        false => Line::warn(
            subject,
            "CLIENT_HEALTH_GATE is false: a new server gets traffic before its first check",
            "set CLIENT_HEALTH_GATE to true",
        ),
    }
}

fn disabled_line(subject: &str, own: &[&InspectedServer]) -> Line {
    if own.iter().all(|server| server.disabled) {
        return Line::ok(subject, "every server starts `disabled`");
    }
    Line::warn(
        subject,
        "servers start without `disabled`: HAProxy sends traffic to the placeholder address until hsdo has filled them",
        "add `disabled` to the `server-template`",
    )
}

/// What an algorithm means for weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    /// It takes weights.
    Dynamic,
    /// It takes only the configured weight, and 0.
    Static,
    /// As `hash-type` says.
    Hash,
    /// It ignores weights.
    First,
}

/// Configuration manual, `balance`; the names are those of `show stat`.
fn kind(algorithm: &str) -> Algorithm {
    match algorithm {
        "static-rr" => Algorithm::Static,
        "first" => Algorithm::First,
        "source" | "uri" | "url_param" | "hdr" | "rdp-cookie" | "hash" => Algorithm::Hash,
        _ => Algorithm::Dynamic,
    }
}

fn balance_lines(
    subject: &str,
    facts: &HaproxyFacts,
    algorithm: Option<&str>,
    text: Option<&BackendText>,
    own: &[&InspectedServer],
) -> Vec<Line> {
    let Some(algorithm) = algorithm else { return vec![Line::ok(subject, "HAProxy does not tell its algorithm")] };
    let shown = one_line(algorithm, 40);
    let is_static = || {
        let text =
            format!("`balance {shown}` is static: only the configured weight and 0 are accepted, so there is no ramp");
        if own.iter().all(|server| server.configured == 0) {
            let text =
                format!("`balance {shown}` is static and the configured weight is 0: nothing can ever be served");
            return Line::mend(subject, text, "remove `weight 0` from the `server-template`");
        }
        let remedy = match kind(algorithm) {
            Algorithm::Hash => "add `hash-type consistent`",
            _ => "use `balance roundrobin`, or another dynamic algorithm",
        };
        Line::warn(subject, text, remedy)
    };
    match kind(algorithm) {
        Algorithm::Dynamic => vec![Line::ok(subject, format!("`balance {shown}` takes weights"))],
        Algorithm::Static => vec![is_static()],
        Algorithm::First => vec![Line::warn(
            subject,
            "`balance first` ignores weights, so there is no ramp",
            "use `balance roundrobin`, or another algorithm that takes weights",
        )],
        Algorithm::Hash => {
            // A static algorithm would have refused any other weight than these.
            let proven = own.iter().any(|server| server.weight != 0 && server.weight != server.configured);
            let consistent = text.map(|text| text.consistent).or(proven.then_some(true));
            let mut lines = vec![match consistent {
                Some(true) => Line::ok(subject, format!("`balance {shown}` with `hash-type consistent` takes weights")),
                Some(false) => is_static(),
                None => Line::warn(
                    subject,
                    format!(
                        "`balance {shown}` takes weights only with `hash-type consistent`, which HAProxy does not tell"
                    ),
                    "see that its configuration says `hash-type consistent`",
                ),
            }];
            let by_address = text.is_some_and(|text| text.by_address);
            if consistent != Some(false) && !by_address {
                lines.extend(facts.inspection.as_ref().ok().map(|found| ring_line(subject, &found.version)));
            }
            lines
        }
    }
}

fn ring_line(subject: &str, version: &str) -> Line {
    let shown = one_line(version, 60);
    if !ring_differs(version) {
        return Line::ok(subject, format!("HAProxy {shown} places keys as 2.x and later versions do"));
    }
    Line::warn(
        subject,
        format!("HAProxy {shown} places the keys of `hash-type consistent` elsewhere than 2.x and later versions"),
        "run one version on all load balancers of a tier: update this one to 3.0.13, 3.1.10, 3.2.7 or later, or use `hash-key addr`",
    )
}

#[cfg(test)]
#[path = "haproxy_tests.rs"]
mod tests;
