//! This machine: its clock, the exporter's port, the place of the state file. Pure.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::line::{Line, Trouble};

/// A skew above this shows in ramps and logs; hsdo corrects its signatures for any.
const SKEW: i64 = 30;

/// What is known of this machine.
#[derive(Debug, Default)]
pub(super) struct MachineFacts {
    /// AWS's time less ours, in microseconds; `None` if no response told.
    pub(super) ahead: Option<i64>,
    /// Where the exporter would listen; `None` if it is off or the settings are faulty.
    pub(super) exporter: Option<(SocketAddr, Port)>,
    /// The zone of this machine, if the client is to know it by itself.
    pub(super) zone: Option<Result<String, Trouble>>,
    /// `CLIENT_STATE_FILE`, and what is wrong with its directory.
    pub(super) state_file: Option<(PathBuf, Option<&'static str>)>,
}

/// The exporter's port.
#[derive(Debug)]
pub(super) enum Port {
    /// Nobody listens on it.
    Free,
    /// An hsdo serves its metrics there.
    Hsdo,
    /// It cannot be taken.
    Taken(Trouble),
}

pub(super) fn lines(facts: &MachineFacts) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(ahead) = facts.ahead {
        lines.push(clock(ahead));
    }
    match &facts.exporter {
        None => {}
        Some((address, Port::Free)) => lines.push(Line::ok("exporter's port", format!("{address}, free"))),
        Some((address, Port::Hsdo)) => {
            lines.push(Line::ok("exporter's port", format!("{address}, held by hsdo itself")));
        }
        Some((_, Port::Taken(trouble))) => lines.push(Line::trouble("exporter's port", trouble)),
    }
    match &facts.zone {
        None => {}
        Some(Ok(zone)) => lines.push(Line::ok("CLIENT_ZONE_NAMES", format!("auto: this machine is in {zone}"))),
        Some(Err(trouble)) => lines.push(Line::mend(
            "CLIENT_ZONE_NAMES",
            format!("auto, and the zone of this machine is not known: {}", trouble.text),
            "name the zones, or let this machine reach its metadata service",
        )),
    }
    match &facts.state_file {
        None => {}
        Some((path, None)) => {
            lines.push(Line::ok("CLIENT_STATE_FILE", format!("the directory of {} exists", path.display())));
        }
        Some((path, Some(fault))) => lines.push(Line::mend(
            "CLIENT_STATE_FILE",
            format!("the directory of {} {fault}", path.display()),
            "create the directory, writable for the user that hsdo runs as, or name another file",
        )),
    }
    lines
}

fn clock(ahead: i64) -> Line {
    let seconds = ahead / 1_000_000;
    if seconds.abs() < SKEW {
        return Line::ok("clock", format!("within {} s of AWS's", seconds.abs().max(1)));
    }
    let side = if seconds > 0 { "behind" } else { "ahead of" };
    Line::warn(
        "clock",
        format!(
            "{} s {side} AWS's: signatures are corrected, but times in the table and the log are off",
            seconds.abs()
        ),
        "synchronise this machine's clock (chrony or systemd-timesyncd, 169.254.169.123 on EC2)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::line::Level;

    #[test]
    fn a_skewed_clock_is_a_warning() {
        for (ahead, level, text) in [
            (0, Level::Ok, "within 1 s"),
            (-29_900_000, Level::Ok, "within 29 s"),
            (40_000_000, Level::Warn, "40 s behind"),
            (-4_000_000_000, Level::Warn, "4000 s ahead of"),
        ] {
            let line = clock(ahead);
            assert!(line.level == level && line.text.contains(text), "{line:?}");
        }
    }

    #[test]
    fn ports_and_files() {
        let address: SocketAddr = "127.0.0.1:6789".parse().expect("an address");
        let trouble = Trouble { text: "in use".to_owned(), remedy: "another".to_owned(), denied: false, table: false };
        for (port, level) in [(Port::Free, Level::Ok), (Port::Hsdo, Level::Ok), (Port::Taken(trouble), Level::Mend)] {
            let facts = MachineFacts { exporter: Some((address, port)), ..MachineFacts::default() };
            assert_eq!(lines(&facts)[0].level, level);
        }
        for (fault, level) in [(None, Level::Ok), (Some("does not exist"), Level::Mend)] {
            let facts = MachineFacts { state_file: Some(("/x/y".into(), fault)), ..MachineFacts::default() };
            assert_eq!(lines(&facts)[0].level, level);
        }
    }
}
