//! The fuzz target for what HAProxy sends: tables, replies, and the commands that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::command::judge;
use super::known::{is_master, level, processes};
use super::snapshot::{COLUMNS, StatSnapshot};
use super::{HaproxyError, reply, socket, state};
use crate::client::placement::{Desired, Wanted};
use crate::client::reconcile::reconcile;
use crate::client::{Next, Options, Sequencer, SlotMemory, View, model};
use crate::fuzzing::{assert_command, assert_message, cuts, kind, text};
use crate::ports::{Admin, BackendFault, Change, Command, Running, Servers, Verdict, likely_base, number_of};
use crate::settings::HaproxySocket;
use crate::slot::{MAX_WEIGHT, SlotId};

const PORT: u16 = 80;

/// `r`: a response with replies; `s`: `show stat`; `w`: `show servers state`; `i`: everything else.
pub fn haproxy(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'r' => replies(&text(rest)),
        b's' => stat(rest),
        b'w' => servers_state(&socket::text(rest)),
        b'i' => other_replies(&text(rest)),
        _ => {}
    }
}

fn assert_fault(asked: &str, fault: String, input: usize) {
    assert_message(&HaproxyError::Response { line: asked.to_owned(), fault }, input);
}

fn replies(text: &str) {
    let replies = match reply::split(text) {
        Ok(replies) => replies,
        Err(fault) => return assert_fault("show info", fault, text.len()),
    };
    // Joined again, the replies are the response.
    let mut again = String::with_capacity(text.len());
    for reply in &replies {
        again.push_str(reply);
        again.push_str(if reply.is_empty() { "\n" } else { "\n\n" });
        assert!(!reply.contains("\n\n"), "{reply:?}");
    }
    assert_eq!(again, text);
    // A truncated response gives the same first replies.
    for cut in cuts(text.len()).filter(|cut| text.is_char_boundary(*cut)) {
        if let Ok(some) = reply::split(&text[..cut]) {
            assert_eq!(some[..], replies[..some.len()], "cut at {cut}");
        }
    }
    let changes = [
        Change::Maintenance,
        Change::Ready,
        Change::HealthDown,
        Change::Address(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(PORT)),
        Change::Address(IpAddr::V4(Ipv4Addr::LOCALHOST), None),
        Change::Weight(1),
        Change::ConfiguredWeight,
    ];
    for reply in replies {
        for change in changes {
            let command = Command::new("back", "web1", change).expect("both are names");
            match judge(&command, reply) {
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

fn other_replies(text: &str) {
    for name in ["Pid", "Version"] {
        assert!(state::info_value(text, name).is_none_or(|value| !value.contains('\n')));
    }
    let _ = (is_master(text), state::has_resolver(text));
    if let Some(number) = processes(text) {
        assert_message(&HaproxyError::MultipleProcesses(number.to_owned()), text.len());
    }
    assert_message(&state::missing_backend(text), text.len());
    let level = level(text).0.to_owned();
    assert_message(&HaproxyError::Level { place: HaproxySocket::Path("/run/haproxy.sock".into()), level }, text.len());
}

/// Tables with the same snapshot have the same fields, by a plain split.
fn stat(table: &[u8]) {
    let answer = |table: &[u8]| [table, b"\n\n"].concat();
    let known = answer(table);
    let Some(snapshot) = StatSnapshot::of(&[&known], 1) else { return };
    assert!(snapshot.matches(&[&known]));
    for place in cuts(table.len()) {
        for other in [b",".as_slice(), b"\n", b"\"", b"1", b"\xe9", b""] {
            let other = [&table[..place], other, &table[place + 1..]].concat();
            if snapshot.matches(&[&answer(&other)]) {
                assert_eq!(picked(&other), picked(table), "{:?}", String::from_utf8_lossy(&other));
            }
        }
    }
}

/// The fields of a table without quotes that a snapshot holds.
pub(super) fn picked(table: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut lines = table.split(|byte| *byte == b'\n');
    let fields = |line: &[u8]| line.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let head = fields(lines.next().unwrap_or_default());
    // Of a column that is there twice, the first counts.
    let place = |column: &&str| head.iter().position(|name| name == column.as_bytes());
    let places: BTreeSet<usize> = COLUMNS.iter().filter_map(place).collect();
    let pick = |line: &[u8]| {
        let fields = fields(line).into_iter().enumerate().filter(|(place, _)| places.contains(place));
        fields.map(|(_, field)| field).collect::<Vec<_>>()
    };
    lines.map(pick).collect()
}

fn servers_state(text: &str) {
    let _ = state::is_unknown_backend(text);
    let table = match state::parse(text) {
        Ok(table) => table,
        Err(fault) => return assert_message(&BackendFault::Unreadable(fault), text.len()),
    };
    for server in &table.hosts {
        assert_message(&BackendFault::Resolved(server.clone()), text.len());
    }
    // It becomes part of the next command.
    assert!(table.number.is_none_or(|number| number.bytes().all(|byte| byte.is_ascii_digit())));
    assert!(table.servers.values().all(|server| server.weight <= MAX_WEIGHT));
    let bases: BTreeSet<&str> = table.servers.keys().take(8).map(|name| likely_base(name)).collect();
    for base in bases {
        converge(base, &table.servers);
    }
}

/// Turns end at the desired state, and no command contains another.
fn converge(base: &str, servers: &Servers) {
    let mut running: BTreeMap<SlotId, Running> = BTreeMap::new();
    for (name, server) in servers {
        running.extend(number_of(name, base).map(|id| (id, server.clone())));
    }
    let wanted = |id: SlotId| match id % 4 {
        0 => Wanted::Maintenance,
        part => Wanted::Serve {
            address: IpAddr::from(Ipv4Addr::from(0x0A00_0000 + id % 1_000)).into(),
            weight: part as u16 - 1,
        },
    };
    // Every fifth slot is unknown.
    let slots = running.keys().filter(|id| **id % 5 != 0).map(|id| (*id, wanted(*id))).collect();
    let desired = Desired { slots, max_row: SlotId::MAX, ..Desired::default() };
    let options = Options { port: Some(PORT), gate: true, static_weights: false };
    let (before, mut memory) = (running.clone(), SlotMemory::default());
    // Several turns, because some steps wait for a check.
    let mut ended = false;
    for _ in 0..6 {
        let mut turn = Sequencer::default();
        loop {
            memory.observe(&desired, &running, options, Instant::now());
            let plan = reconcile(View { desired: &desired, running: &running, memory: &memory, size: 0, options });
            let steps = match turn.next(&plan, turn.raises(&plan)) {
                Next::Send(steps) => steps,
                Next::Reread => continue,
                Next::Done => Vec::new(),
            };
            steps.iter().for_each(|step| memory.sending(step.slot, &step.changes));
            for (step, change) in steps.iter().flat_map(|step| step.changes.iter().map(move |change| (step, *change))) {
                if let Some(command) = Command::new("back", &format!("{base}{}", step.slot), change) {
                    assert_command(&command.to_string());
                }
                model::apply(running.get_mut(&step.slot).expect("a plan is for slots that run"), change);
            }
            if steps.is_empty() {
                assert_eq!(Sequencer::left(&plan), 0, "the turn does not end: {running:?}");
                ended = !plan.pending;
                break;
            }
        }
        for (_, server) in running.iter_mut().filter(|(id, _)| desired.of(**id).is_some()) {
            server.up |= server.admin == Admin::Ready;
            server.checking = false;
            // Its name is taken away.
            server.named = false;
            // The server that it tracks is opened too.
            server.inherited &= server.admin != Admin::Maintenance;
        }
    }
    assert!(ended, "something is left to do: {running:?}");
    for (id, server) in &running {
        match desired.of(*id) {
            None => assert_eq!(server, &before[id], "slot {id} is unknown and was touched"),
            Some(Wanted::Serve { address, .. }) => {
                assert_eq!(server.address, Some(SocketAddr::new(address.ip, PORT)), "slot {id}");
            }
            Some(Wanted::Maintenance) => {
                assert_eq!((server.admin, server.weight), (Admin::Maintenance, 0), "slot {id}: {server:?}");
            }
        }
    }
}
