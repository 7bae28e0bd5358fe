//! `hsdo check --quick`: whether the process of this container or machine is well, in one line. It is the health check of images and
//! task definitions, which have no curl.
//!
//! The process knows best, so it is asked: by its exporter, in which `/healthz` says whether it should be restarted, and `/readyz`
//! whether it can do its work. Only the first decides. A process that cannot reach AWS keeps its HAProxy in step with what it knows,
//! and must not be replaced for that. AWS and HAProxy are not asked.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::exporter::{self, Answer};
use super::line::Line;
use super::settings::fault_line;
use crate::environment::Environment;
use crate::settings;

/// For both pages together.
const PATIENCE: Duration = Duration::from_secs(2);

/// The line, and one for each fault in the settings that matters here.
pub(super) fn lines(config: Option<&Path>, env: &Environment) -> Vec<Line> {
    let place = match settings::load_exporter(config, env) {
        Ok(place) => place,
        Err(faults) => return faults.split().0.iter().map(|fault| fault_line(fault)).collect(),
    };
    let unread =
        |fault: &String| Line::warn("settings", fault, "mend the file: the process does not start again with it");
    let mut lines: Vec<Line> = place.unread.iter().map(unread).collect();
    lines.push(match place.address {
        Some(address) => ask(address),
        None => Line::mend(
            "EXPORTER_PORT",
            format!("0 ({}), so the process cannot be asked", place.found),
            "set it to a port; with EXPORTER_ADDRESS 127.0.0.1 only this machine or task reaches it",
        ),
    });
    lines
}

fn ask(address: SocketAddr) -> Line {
    let end = Instant::now() + PATIENCE;
    let ask = |path| exporter::get(address, path, end.saturating_duration_since(Instant::now()));
    let health = ask("/healthz");
    let is_alive = health.as_ref().is_ok_and(|answer| answer.by_hsdo && answer.status == 200);
    let readiness = is_alive.then(|| ask("/readyz").ok()).flatten();
    let asked = exporter::near(address).first().copied().unwrap_or(address);
    line(asked, health, readiness)
}

/// What the two pages of the exporter at `address` mean.
fn line(address: SocketAddr, health: Result<Answer, ErrorKind>, readiness: Option<Answer>) -> Line {
    let subject = format!("hsdo on {address}");
    match health {
        Ok(answer) if !answer.by_hsdo => Line::mend(
            subject,
            "another program answers",
            "set EXPORTER_PORT to the port of the process; each one on a machine or in a task needs its own",
        ),
        Ok(answer) if answer.status == 200 => match readiness {
            Some(ready) if ready.status == 200 => Line::ok(subject, ready.line),
            Some(ready) => Line::warn(
                subject,
                format!("alive, but not ready: {}", ready.line),
                "nothing while that passes by itself; else see its log, and `hsdo check` without --quick",
            ),
            None => Line::ok(subject, "alive"),
        },
        Ok(answer) => Line::mend(subject, answer.line, "restart the process"),
        Err(ErrorKind::ConnectionRefused) => Line::mend(
            subject,
            "nobody listens",
            "start the process, or give this command its EXPORTER_PORT and EXPORTER_ADDRESS",
        ),
        Err(ErrorKind::TimedOut) => Line::mend(
            subject,
            format!("no answer within {} s", PATIENCE.as_secs()),
            "restart the process if that lasts; see its log",
        ),
        Err(ErrorKind::InvalidData) => {
            Line::mend(subject, "what listens does not speak HTTP", "set EXPORTER_PORT to the port of the process")
        }
        Err(kind) => Line::mend(
            subject,
            format!("cannot be asked: {kind}"),
            "give this command the EXPORTER_PORT and EXPORTER_ADDRESS of the process",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::line::Level;

    #[test]
    fn liveness_decides_and_readiness_is_told() {
        let says = |status, line: &str| Answer { status, by_hsdo: true, line: line.to_owned() };
        let alive = || Ok(says(200, "ok"));
        let other = Answer { by_hsdo: false, ..says(200, "ok") };
        for (health, readiness, level, text) in [
            (alive(), Some(says(200, "ok, standby: another server leads the table")), Level::Ok, "ok, standby"),
            (alive(), None, Level::Ok, "alive"),
            (alive(), Some(says(503, "the last turn failed")), Level::Warn, "not ready: the last turn failed"),
            (Ok(says(503, "the last turn ended 75 s ago")), None, Level::Mend, "75 s ago"),
            (Ok(other), Some(says(200, "ok")), Level::Mend, "another program"),
            (Err(ErrorKind::ConnectionRefused), None, Level::Mend, "nobody listens"),
            (Err(ErrorKind::TimedOut), None, Level::Mend, "no answer within 2 s"),
            (Err(ErrorKind::InvalidData), None, Level::Mend, "does not speak HTTP"),
            (Err(ErrorKind::AddrNotAvailable), None, Level::Mend, "cannot be asked: "),
        ] {
            let line = line("127.0.0.1:6789".parse().expect("an address"), health, readiness);
            assert!(line.level == level && line.text.contains(text), "{line:?}");
            assert_eq!(line.remedy.is_none(), level == Level::Ok, "{line:?}");
            assert_eq!(line.subject, "hsdo on 127.0.0.1:6789");
        }
    }
}
