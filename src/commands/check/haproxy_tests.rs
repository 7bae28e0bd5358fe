use super::*;
use crate::commands::check::line::Level;

const GOOD: InspectedServer = InspectedServer {
    disabled: true,
    checked: true,
    agent: false,
    inherited: false,
    named: false,
    configured: 1,
    weight: 1,
};

fn facts(algorithm: &str, slots: usize, server: InspectedServer, text: Option<BackendText>) -> HaproxyFacts {
    let servers = (1..=slots).map(|id| (format!("web{id}"), server)).collect();
    let found = InspectedBackend { algorithm: Some(algorithm.to_owned()), servers };
    HaproxyFacts {
        place: "/run/admin.sock".to_owned(),
        inspection: Ok(Inspection {
            version: "2.6.12".to_owned(),
            pid: "7".to_owned(),
            master: false,
            backends: [("back".to_owned(), Ok(found))].into(),
        }),
        closes_idle: false,
        backends: vec![Backend { name: "back".to_owned(), base: "web".to_owned(), port: Some(80) }],
        size: 4,
        health_gate: true,
        configuration: text
            .map(|text| BTreeMap::from([("back".to_owned(), text)]))
            .ok_or_else(|| "not here".to_owned()),
    }
}

/// The lines that are not `ok`.
fn bad(facts: &HaproxyFacts) -> Vec<(Level, String)> {
    let lines = lines(facts).into_iter().filter(|line| line.level != Level::Ok);
    lines.map(|line| (line.level, format!("{} {}", line.text, line.remedy.unwrap_or_default()))).collect()
}

#[test]
fn what_surprises_is_named_with_its_remedy() {
    let text = BackendText::default();
    let consistent = BackendText { consistent: true, ..BackendText::default() };
    let weighed = InspectedServer { weight: 5, ..GOOD };
    for (case, facts, expected) in [
        ("good", facts("roundrobin", 4, GOOD, Some(text.clone())), None),
        ("longer", facts("roundrobin", 9, GOOD, None), None),
        ("consistent", facts("uri", 4, GOOD, Some(consistent)), None),
        ("proven consistent", facts("uri", 4, weighed, None), None),
        ("short", facts("roundrobin", 3, GOOD, None), Some((Level::Mend, "1-4"))),
        ("no server", facts("roundrobin", 0, GOOD, None), Some((Level::Mend, "base name"))),
        (
            "no check",
            facts("random", 4, InspectedServer { checked: false, ..GOOD }, None),
            Some((Level::Warn, "add `check`")),
        ),
        (
            "not disabled",
            facts("leastconn", 4, InspectedServer { disabled: false, ..GOOD }, None),
            Some((Level::Warn, "add `disabled`")),
        ),
        (
            "agent",
            facts("roundrobin", 4, InspectedServer { agent: true, ..GOOD }, None),
            Some((Level::Warn, "agent-check")),
        ),
        (
            "track",
            facts("roundrobin", 4, InspectedServer { inherited: true, ..GOOD }, None),
            Some((Level::Warn, "`track`")),
        ),
        (
            "names",
            facts("roundrobin", 4, InspectedServer { named: true, ..GOOD }, None),
            Some((Level::Mend, "back/web1 has a host name")),
        ),
        ("static", facts("static-rr", 4, GOOD, None), Some((Level::Warn, "roundrobin"))),
        (
            "never",
            facts("static-rr", 4, InspectedServer { configured: 0, ..GOOD }, None),
            Some((Level::Mend, "weight 0")),
        ),
        ("first", facts("first", 4, GOOD, None), Some((Level::Warn, "ignores weights"))),
        ("map-based", facts("source", 4, GOOD, Some(text)), Some((Level::Warn, "hash-type consistent"))),
        ("unknown hash", facts("hdr", 4, GOOD, None), Some((Level::Warn, "does not tell"))),
        (
            "state file",
            facts("roundrobin", 4, GOOD, Some(BackendText { state_file: true, ..BackendText::default() })),
            Some((Level::Warn, "load-server-state-from-file none")),
        ),
        (
            "persist",
            facts("roundrobin", 4, GOOD, Some(BackendText { persist: true, ..BackendText::default() })),
            Some((Level::Warn, "option persist")),
        ),
        (
            "connections of their own",
            facts("roundrobin", 4, GOOD, Some(BackendText { reuse_never: true, ..BackendText::default() })),
            Some((Level::Warn, "option http-server-close")),
        ),
        (
            "connections for one request",
            facts(
                "roundrobin",
                4,
                GOOD,
                Some(BackendText { reuse_never: true, server_close: true, ..BackendText::default() }),
            ),
            None,
        ),
    ] {
        let bad = bad(&facts);
        match expected {
            None => assert_eq!(bad, [], "{case}"),
            Some((level, text)) => {
                assert!(bad.len() == 1 && bad[0].0 == level && bad[0].1.contains(text), "{case}: {bad:?}");
            }
        }
    }
}

#[test]
fn faults_of_a_backend() {
    for (fault, text) in [
        (BackendFault::Missing(vec!["api".to_owned()]), "it has api correct the name"),
        (BackendFault::Disabled, "enable it"),
        (BackendFault::Resolved("back/web1".to_owned()), "literal"),
        (BackendFault::Unreadable("odd".to_owned()), "odd"),
    ] {
        let mut facts = facts("roundrobin", 4, GOOD, None);
        facts.inspection.as_mut().expect("it answers").backends.insert("back".to_owned(), Err(fault));
        let bad = bad(&facts);
        assert!(bad.len() == 1 && bad[0].0 == Level::Mend && bad[0].1.contains(text), "{bad:?}");
    }
}

#[test]
fn a_version_with_another_ring_is_told() {
    let consistent = BackendText { consistent: true, ..BackendText::default() };
    let mut facts = facts("uri", 4, GOOD, Some(consistent.clone()));
    facts.inspection.as_mut().expect("it answers").version = "3.0.11".to_owned();
    assert!(bad(&facts)[0].1.contains("3.0.13"), "{:?}", bad(&facts));
    let by_address = BackendText { by_address: true, ..consistent };
    facts.configuration = Ok(BTreeMap::from([("back".to_owned(), by_address)]));
    assert_eq!(bad(&facts), []);
}
