//! The report and the page of both roles, in peace and in trouble. `HSDO_TEST_PAGES=dir` writes the pages there, to be looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::cause::{Cause, Hand, Keep, Leaving, LeftOut, Wait};
use crate::ports::{Admin, BackendSlot, BackendState, Process, Reason, Running};
use crate::slot::{self, Occupant, Row, Slot};

const HOSTILE: &str = "<script>alert('1')</script>\"&\n\u{202e}x";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros((1_767_323_045 + seconds) * 1_000_000)
}

fn status(role: &'static str, size: SlotId) -> Arc<Status> {
    let facts = Facts {
        role,
        host: "lb-1".to_owned(),
        table: "hsdo-web".to_owned(),
        region: Some("eu-west-1".to_owned()),
        interval: Duration::from_secs(1),
        size,
        socket: (role == "client").then(|| "/run/haproxy/admin.sock".to_owned()),
        started: at(0),
        start: Instant::now(),
    };
    Status::new(facts, Metrics::new(role))
}

fn turn(status: &Status, errors: &[&str]) {
    status.metrics().turn(errors.is_empty(), Duration::from_micros(1_234));
    status.turn(Duration::from_micros(1_234), errors.iter().map(|error| (*error).to_owned()).collect());
}

fn occupant(id: SlotId, weight: u16, status: slot::Status) -> Occupant {
    Occupant {
        address: [10, 0, (id / 250) as u8, (id % 250) as u8].into(),
        name: format!("i-{id:017x}"),
        group: Some(if id.is_multiple_of(3) { "checkout-api-green" } else { "web-frontend" }.to_owned()),
        zone: Some(format!("eu-west-1{}", ["a", "b", "c"][id as usize % 3])),
        port: None,
        weight,
        status,
        last_step: Some(at(-60)),
        drain_since: None,
    }
}

fn taken(id: SlotId, weight: u16, status: slot::Status) -> Slot {
    Slot { occupant: Some(occupant(id, weight, status)), ..Slot::empty(id) }
}

/// Of ten slots in peace seven serve, one ramps, and two are free.
fn server(size: SlotId, trouble: bool) -> Arc<Status> {
    use slot::Status::{Disabled, Draining, Enabled};
    let status = status("server", size);
    let mut state = Snapshot::default();
    for id in 1..=size {
        let word = |word: &str| Some(word.to_owned());
        let ramping = Cause::Ramping { next: at(12), until: at(200) };
        let terminating = Leaving::Source("lifecycle state \"Terminating:Wait\"".to_owned());
        let (slot, cause) = match (trouble, id % 10) {
            (_, 9) => (taken(id, 4, Enabled), ramping),
            (_, 0) | (false, 8) => (Slot::empty(id), Cause::Free { last_group: word("web-frontend") }),
            (true, 1) => (taken(id, 0, Draining), Cause::Draining(terminating)),
            (true, 2) => (taken(id, 7, Enabled), Cause::Kept(Keep::Guarded { until: at(25) })),
            (true, 3) => (taken(id, 7, Disabled), Cause::Disabled),
            (true, 4) => (taken(id, 7, Enabled), Cause::Kept(Keep::MissingGroup { group: word(HOSTILE) })),
            _ => (taken(id, 10, Enabled), Cause::Serving),
        };
        state.slots.insert(id, slot);
        state.reasons.insert(id, Reason { cause, full: Some(10), factor: None });
    }
    if trouble {
        state.slots.remove(&5);
        state.reasons.insert(
            5,
            Reason { cause: Cause::Unreadable { reason: "no Weight".to_owned() }, full: Some(10), factor: None },
        );
        state.left_out.push(LeftOut { instance: HOSTILE.to_owned(), group: None, cause: Cause::NoFreeSlot });
    }
    Gauges::leads(&*status, true);
    status.leader(Some("lb-1/17/0123456789abcdef/3"), trouble);
    Gauges::heartbeat(&*status, Instant::now());
    Gauges::publish(&*status, &state);
    turn(&status, if trouble { &["EC2 DescribeInstances: request timed out (connect)"] } else { &[] });
    status
}

/// Two backends, the second one the fallback.
fn client(size: SlotId, trouble: bool) -> Arc<Status> {
    use slot::Status::Enabled;
    let status = status("client", size);
    let now = Instant::now();
    let mut state = ClientState::default();
    let running = |id: SlotId, admin, up, weight| Running {
        admin,
        inherited: false,
        up,
        address: Some((occupant(id, weight, Enabled).address, 80).into()),
        weight,
        configured: 1,
        checked: true,
        checking: false,
        busy: false,
        named: false,
    };
    let mut slots: [Vec<BackendSlot>; 2] = [vec![], vec![]];
    for id in 1..=size {
        let free = matches!((trouble, id % 10), (_, 0) | (false, 8));
        let row = if free { Slot::empty(id) } else { taken(id, 10, Enabled) };
        state.table.rows.insert(id, Row::Readable(Arc::new(row)));
        let (cause, admin, up) = match (trouble, id % 10) {
            _ if free => (Cause::Free { last_group: None }, Admin::Maintenance, false),
            (_, 9) => (Cause::Waiting(Wait::Check), Admin::Ready, false),
            (true, 1) => (Cause::Held(Hand::Drain), Admin::Drain, true),
            (true, 2) => (Cause::Down, Admin::Ready, false),
            (true, 3) => (Cause::Contested { wanted: 10 }, Admin::Ready, true),
            (true, 4) => (Cause::Draining(Leaving::Row), Admin::Ready, true),
            _ => (Cause::Serving, Admin::Ready, true),
        };
        let wanted = (!free).then_some(10);
        let weight = if free { 0 } else { 10 };
        slots[0].push(BackendSlot { slot: id, wanted, running: Some(running(id, admin, up, weight)), cause });
        let elsewhere = Cause::Elsewhere { group: Some("web-frontend".to_owned()), zone: None };
        let cause = if free { Cause::Free { last_group: None } } else { elsewhere };
        let out = running(id, Admin::Maintenance, false, 0);
        slots[1].push(BackendSlot { slot: id, wanted: None, running: Some(out), cause });
    }
    let [first, second] = slots;
    let backend = |name: &str, fallback, slots| BackendState {
        name: name.to_owned(),
        base: "web".to_owned(),
        fallback,
        spill_share: None,
        fault: None,
        slots,
    };
    state.backends = vec![backend("http-back", false, first), backend("fallback-back", true, second)];
    let (pid, version) = ("4711".to_owned(), "2.6.12-1+deb12u2".to_owned());
    state.process =
        Some(Process { pid, version, started: None, uptime: Duration::from_secs(9), asked: now, answered: now });
    status.metrics().set_haproxy_up(!trouble);
    status.metrics().set_heartbeat(Some(now));
    if trouble {
        status.metrics().set_condition("split", Some(format!("CLIENT_ASG_NAMES: no row carries {HOSTILE:?}")));
    }
    status.confirmed(Some("lb-1/17/0123456789abcdef/3"), trouble, now);
    Board::publish(&*status, state);
    turn(&status, if trouble { &["HAProxy: cannot connect to /run/haproxy/admin.sock"] } else { &[] });
    status
}

fn page(status: &Status) -> String {
    render(&status.report())
}

#[test]
fn a_page_says_first_whether_all_is_well() {
    for peace in [server(10, false), client(10, false)] {
        let page = page(&peace);
        assert!(page.contains("✓ All is well") && !page.contains('⚠'), "{page}");
    }
    for (trouble, texts) in [
        (
            server(10, true),
            [
                "⚠ 7 things need attention",
                "<li>EC2 DescribeInstances: request timed out (connect)",
                "<li>1 unreadable: slot 5: its row cannot be read, so it is left alone: no Weight; correct or delete it",
            ],
        ),
        (
            client(10, true),
            [
                "⚠ 6 things need attention",
                "<li>HAProxy does not answer: what follows is what it ran last",
                "<li>1 held: http-back/web1: an operator or agent set it to drain",
            ],
        ),
    ] {
        let page = page(&trouble);
        let verdict = &page[..page.find("</ul></div>").expect("a verdict with a list")];
        for text in texts {
            assert!(verdict.contains(text), "{text} in {verdict}");
        }
    }
}

#[test]
fn names_stay_text() {
    for page in [page(&server(10, true)), page(&client(10, true))] {
        assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)"), "{page}");
    }
    let json: Value = serde_json::from_str(&server(10, true).report().to_json()).expect("JSON");
    assert_eq!(json["left_out"][0]["instance"], HOSTILE);
}

#[test]
fn every_field_is_there_from_the_start() {
    let fields = |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    for (role, full) in [("server", server(10, true)), ("client", client(10, true))] {
        let empty: Value = serde_json::from_str(&status(role, 10).report().to_json()).expect("JSON");
        let full: Value = serde_json::from_str(&full.report().to_json()).expect("JSON");
        assert_eq!(fields(&empty), fields(&full));
        for part in ["table", "last_turn", "lease", "summary"] {
            assert_eq!(fields(&empty[part]), fields(&full[part]), "{part}");
        }
        assert_eq!(empty["haproxy"].is_null(), role == "server");
        let slots = full["slots"].as_array().expect("slots");
        assert!(slots.iter().all(|slot| fields(slot) == fields(&slots[0])));
        assert_eq!(empty["last_turn"]["ended"], Value::Null);
        render(&status(role, 10).report());
    }
}

#[test]
fn a_slot_tells_its_story() {
    let report: Value = serde_json::from_str(&server(10, true).report().to_json()).expect("JSON");
    assert_eq!(
        report["slots"][8],
        json!({
            "number": 9, "instance": "i-00000000000000009", "address": "10.0.0.9", "port": null, "group": "checkout-api-green",
            "zone": "eu-west-1a", "status": "enabled", "weight": 4, "full_weight": 10, "factor": 1.0, "factor_from": null, "next_step": "2026-01-02T03:04:17.000Z",
            "since": "2026-01-02T03:03:05.000Z", "cause": "ramping",
            "reason": "its weight moves by steps, next at 2026-01-02T03:04:17Z, until 2026-01-02T03:07:25Z",
        })
    );
    assert_eq!(report["slots"][4]["cause"], "unreadable");
    assert_eq!(report["summary"]["ramping"], 1);
    assert_eq!(report["lease"]["term"], 3);
    let report: Value = serde_json::from_str(&client(10, true).report().to_json()).expect("JSON");
    assert_eq!(
        report["haproxy"]["backends"][0]["slots"][0],
        json!({
            "number": 1, "server": "web1", "wanted_state": "ready", "wanted_weight": 10, "address": "10.0.0.1:80",
            "weight": 10, "admin_state": "drain", "check_state": "up", "serves": false, "cause": "held",
            "reason": "an operator or agent set it to drain; left alone until `set server … state ready`",
        })
    );
    assert_eq!(report["slots"][0]["cause"], "held", "not elsewhere");
    assert_eq!(report["haproxy"]["up"], false);
}

#[test]
fn a_thousand_slots_are_below_a_megabyte() {
    let dir = std::env::var_os("HSDO_TEST_PAGES").map(std::path::PathBuf::from);
    for size in [10, 100, 1_000] {
        for (name, trouble) in [("peace", false), ("trouble", true)] {
            for (role, status) in [("server", server(size, trouble)), ("client", client(size, trouble))] {
                let start = Instant::now();
                let page = page(&status);
                let (took, json) = (start.elapsed(), status.report().to_json());
                assert!(page.len() < 1_000_000, "{role} {name}: {}", page.len());
                println!("{role} {name} {size}: {} bytes in {took:?}, JSON {}", page.len(), json.len());
                if let Some(dir) = &dir {
                    std::fs::write(dir.join(format!("{role}-{name}-{size}.html")), page).expect("a page");
                }
            }
        }
    }
}

#[test]
fn the_policy_is_of_this_style() {
    let policy = content_security_policy();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = page(&server(10, true));
    for banned in [" style=", "<script", "<img", "<form", "http://", "https://", "url("] {
        assert!(!page.contains(banned), "{banned}");
    }
}
