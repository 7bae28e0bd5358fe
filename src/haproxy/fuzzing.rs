//! What HAProxy sends, as a fuzz target: its tables, its replies, and the commands that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::command::Verdict;
use super::essence::Essence;
use super::state::{self, Servers};
use super::{Admin, Change, Command, Error, Health, Running, reply};
use crate::client::model;
use crate::client::placement::{Desired, Wanted};
use crate::client::reconcile::{self, Options};
use crate::fuzzing::{assert_command, assert_message, cuts, kind, text};
use crate::slot::{MAX_WEIGHT, SlotId};

const PORT: u16 = 80;
/// The most readings that two turns take (`client::repair`), one before the checks of the new servers have passed, one after.
const PASSES: usize = 2 * 8;

/// `r`: an answer with replies; `s`: `show stat`; `w`: `show servers state`; `i`: everything that is read beside them.
pub fn haproxy(data: &[u8]) {
    let (kind, rest) = kind(data);
    let text = text(rest);
    match kind {
        b'r' => replies(&text),
        b's' => stat(&text),
        b'w' => match state::parse_weights(&text) {
            Ok(weights) => assert!(weights.values().all(|weight| *weight <= MAX_WEIGHT)),
            Err(fault) => assert_fault("show servers state back", fault, text.len()),
        },
        b'i' => beside(&text),
        _ => {}
    }
}

fn assert_fault(asked: &str, fault: String, input: usize) {
    assert_message(&Error::Answer { asked: asked.to_owned(), fault }, input);
}

fn replies(text: &str) {
    let replies = match reply::split(text) {
        Ok(replies) => replies,
        Err(fault) => return assert_fault("show info", fault, text.len()),
    };
    // Nothing is lost, nothing is invented.
    let mut again = String::with_capacity(text.len());
    for reply in &replies {
        again.push_str(reply);
        again.push_str(if reply.is_empty() { "\n" } else { "\n\n" });
        assert!(!reply.contains("\n\n"), "{reply:?}");
    }
    assert_eq!(again, text);
    // What a cut answer still gives is what the whole one gave.
    for cut in cuts(text.len()).filter(|cut| text.is_char_boundary(*cut)) {
        if let Ok(some) = reply::split(&text[..cut]) {
            assert_eq!(some[..], replies[..some.len()], "cut at {cut}");
        }
    }
    let changes = [
        Change::Maintenance,
        Change::Ready,
        Change::Address(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
        Change::Weight(1),
        Change::ConfiguredWeight,
    ];
    for reply in replies {
        for change in changes {
            let command = Command::new("back", "web1", change).expect("both are names");
            match command.judge(reply) {
                Verdict::Done => assert!(matches!(change, Change::Address(..)) || reply.is_empty(), "{reply:?}"),
                Verdict::StaticWeight => assert!(!reply.is_empty()),
                Verdict::Refused(words) => {
                    assert_message(&format!("{words:?}"), reply.len());
                    assert!(!words.contains('\n'), "{words:?}");
                }
            }
        }
    }
}

fn beside(text: &str) {
    for name in ["Pid", "Version"] {
        assert!(state::info_value(text, name).is_none_or(|value| !value.contains('\n')));
    }
    match state::parse_numbers(text) {
        // A number goes into the next command.
        Ok(numbers) => numbers.values().for_each(|number| assert!(number.bytes().all(|byte| byte.is_ascii_digit()))),
        Err(fault) => assert_fault("show stat -1 2 -1", fault, text.len()),
    }
    let known = state::parse_backends(text);
    let bases = known.iter().map(|name| state::likely_base(name).to_owned()).collect();
    assert_message(&Error::NoBackend { backend: "back".to_owned(), known }, text.len());
    assert_message(&Error::NoServers { backend: "back".to_owned(), base: "web".to_owned(), known: bases }, text.len());
    assert_message(&Error::Level { path: "/run/haproxy.sock".into(), level: text.to_owned() }, text.len());
}

fn stat(text: &str) {
    let _ = (state::is_unknown_backend(text), state::is_of_backend(text, "back"));
    let servers = match state::parse_stat(text) {
        Ok(servers) => servers,
        Err(fault) => return assert_fault("show stat back 4 -1", fault, text.len()),
    };
    assert!(servers.values().all(|server| server.weight.is_none_or(|weight| weight <= MAX_WEIGHT)));
    alike(text, &servers);
    let bases: BTreeSet<&str> = servers.keys().take(8).map(|name| state::likely_base(name)).collect();
    for base in bases {
        converge(base, &servers);
    }
}

/// What has the essence of `text`, whose servers these are, reads like it.
fn alike(text: &str, servers: &Servers) {
    let info = "Version: 1\nPid: 1\n\n";
    let known = format!("{info}{text}\n\n");
    let Some(essence) = Essence::of(&[known.as_bytes()], 1) else { return };
    assert!(essence.is_that_of(&[known.as_bytes()]));
    for place in cuts(text.len()).filter(|place| text.is_char_boundary(*place)) {
        for other in [",", "\n", "\"", "* ", "1", ""] {
            let after = text[place..].char_indices().nth(1).map_or(text.len(), |(length, _)| place + length);
            let other = format!("{}{other}{}", &text[..place], &text[after..]);
            if essence.is_that_of(&[format!("{info}{other}\n\n").as_bytes()]) {
                assert_eq!(state::parse_stat(&other).as_ref(), Ok(servers), "{other:?}");
            }
        }
    }
}

/// Plans for these servers end, at the wanted addresses, and by commands that are one each.
fn converge(base: &str, servers: &Servers) {
    let mut running: BTreeMap<SlotId, Running> = BTreeMap::new();
    for (name, server) in servers {
        running.extend(state::number_of(name, base).map(|id| (id, server.clone())));
    }
    let wanted = |id: SlotId| match id % 4 {
        0 => Wanted::Maintenance,
        part => Wanted::Serve { address: Ipv4Addr::from(0x0A00_0000 + id % 1_000).into(), weight: part as u16 - 1 },
    };
    // Of every fifth slot nothing is known.
    let slots = running.keys().filter(|id| **id % 5 != 0).map(|id| (*id, wanted(*id))).collect();
    let desired = Desired { slots, known: SlotId::MAX };
    let options = Options { port: PORT, gate: true, static_weights: false };
    let before = running.clone();
    let mut ended = false;
    for _ in 0..PASSES {
        let plan = reconcile::plan(&desired, &running, &BTreeSet::new(), 0, options);
        let steps = if plan.raise.is_empty() { plan.lower } else { plan.raise };
        if steps.is_empty() {
            // Whoever waits for a check waits no longer.
            let known = running.iter_mut().filter(|(id, _)| desired.of(**id).is_some()).map(|(_, server)| server);
            let waits = |server: &&mut Running| server.admin == Admin::Ready && server.health == Health::Shaky;
            ended = known.filter(waits).map(|server| server.health = Health::Passed).count() == 0;
            if ended {
                break;
            }
        }
        for (step, change) in steps.iter().flat_map(|step| step.changes.iter().map(move |change| (step, *change))) {
            if let Some(command) = Command::new("back", &format!("{base}{}", step.slot), change) {
                assert_command(&command.to_string());
            }
            model::apply(running.get_mut(&step.slot).expect("a plan is for slots that run"), change, 1, true);
        }
    }
    assert!(ended, "the plans do not end: {running:?}");
    for (id, server) in &running {
        match desired.of(*id) {
            None => assert_eq!(server, &before[id], "slot {id} is unknown and was touched"),
            Some(Wanted::Serve { address, .. }) => {
                assert_eq!(server.address, Some(SocketAddr::new(address, PORT)), "slot {id}");
            }
            Some(Wanted::Maintenance) => {
                assert!(matches!(server.admin, Admin::Maintenance | Admin::Inherited), "slot {id}: {server:?}");
            }
        }
    }
}
