//! What is remembered about the slots of one backend, because no reading shows it. Pure; lives as long as one HAProxy process.
//!
//! *Held servers.* HAProxy does not report who set a server to maintenance. A server that served and is now in maintenance, though
//! hsdo did not put it there, is held by an operator or agent. There are two exceptions. If its weight went to 0 as well, hsdo itself
//! took it out: the last line of a killed client may reach HAProxy while the next client is running. And if its address changed too,
//! HAProxy has just restarted, which no process id shows in a container. Drain is never hsdo's, because hsdo drains by weight 0.
//! After a restart hsdo remembers nothing, so the weight decides: hsdo leaves a server in maintenance only at weight 0, so a server
//! in maintenance at its right address with a weight is held. (The configured weight does not identify a fresh server: with a static
//! algorithm every held server has it, and so has one whose ramp went on while hsdo was down.)
//!
//! *Proven servers.* A server that has been seen taking traffic at its address, or up after it waited for its check there, skips its check
//! when it comes back from draining or from weight 0.
//!
//! *Requests from before.* A parked server with requests to the one before it is not opened until they have ended, but for a minute at
//! most: a download or a tunnel may last for hours.
//!
//! *Contested weights.* If something else, such as an agent, keeps changing a weight back, hsdo gives up after three rounds within a
//! minute and retries once a minute.
//!
//! *Contested addresses.* A server that was ready at its address, and is at another one, was moved by another hand: a second client with
//! other settings, or a script. hsdo does not give up, since the other address is wrong; after three rounds within a minute it says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::placement::{Desired, Endpoint, Wanted};
use super::stage::Options;
use crate::ports::{Admin, Change, Running};
use crate::slot::{SlotId, Weight};

/// After this many rounds within [`TRUCE`] a weight is given up.
const ROUNDS: u32 = 3;
/// How long a weight that was given up is left alone, and how long it must stay right to end the contest.
const TRUCE: Duration = Duration::from_secs(60);

/// How long a slot stays parked for the sake of requests to the server that was there before.
const PATIENCE: Duration = Duration::from_secs(60);

/// What put a slot out of rotation, or would have if it were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    New,
    /// hsdo put it into maintenance, or wanted it there.
    Ours,
    /// It was ready at this address, at weight 0 if `idle`.
    Served { address: Endpoint, idle: bool },
    /// An operator or agent holds the server at this address.
    Held(Endpoint),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contest {
    rounds: u32,
    first: Instant,
    last: Instant,
    next_try: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    owner: Owner,
    /// Where it has been seen serving.
    proven: Option<Endpoint>,
    /// The weight that was wanted and read back.
    agreed: Option<Weight>,
    contest: Option<Contest>,
    /// The same for its address.
    moved: Option<Contest>,
    paused: bool,
    /// This client opened it.
    opened: bool,
    /// Since when it has waited for its first check.
    waiting: Option<Instant>,
    /// Since when it has been parked with requests from before.
    busy: Option<Instant>,
    /// It stays parked for their sake.
    spared: bool,
}

/// What is remembered of one backend.
#[derive(Clone, Debug, Default)]
pub struct SlotMemory(BTreeMap<SlotId, Seen>);

impl SlotMemory {
    /// Learns from a reading of HAProxy.
    pub fn observe(&mut self, desired: &Desired, running: &BTreeMap<SlotId, Running>, options: Options, now: Instant) {
        for (&id, server) in running {
            let wanted = desired.of(id);
            if wanted.is_none() {
                continue;
            }
            let seen = self.0.entry(id).or_default();
            let Some(Wanted::Serve { address, weight }) = wanted else {
                *seen = Seen { owner: Owner::Ours, ..Seen::default() };
                continue;
            };
            seen.busy = server.busy.then(|| seen.busy.unwrap_or(now));
            seen.spared = seen.busy.is_some_and(|since| now.saturating_duration_since(since) < PATIENCE);
            let there = options.has_address(server.address, address);
            let was_there = matches!(seen.owner, Owner::Served { address: served, .. } if served == address);
            seen.moved = contest(seen.moved, was_there && !there, there, now);
            seen.owner = owner(seen.owner, server, address, there);
            let passed = seen.waiting.is_some() && server.admin == Admin::Ready && server.up && !server.inherited;
            if there && (server.serves() || passed) {
                seen.proven = Some(address);
            } else if !there || seen.proven != Some(address) {
                seen.proven = None;
            }
            let waits = there && seen.opened && seen.proven.is_none() && server.admin == Admin::Ready && !server.up;
            seen.waiting = waits.then(|| seen.waiting.unwrap_or(now));
            let right = options.has_weight(server, weight);
            let disputed = there && server.admin == Admin::Ready && !right && seen.agreed == Some(weight);
            seen.agreed = (there && (right || seen.paused) && server.admin == Admin::Ready).then_some(weight);
            seen.contest = contest(seen.contest, disputed && !seen.paused, right, now);
            let lasting = seen.contest.filter(|contest| contest.rounds >= ROUNDS && !right);
            seen.paused = lasting.is_some_and(|contest| now < contest.next_try);
            if let Some(contest) = seen.contest.as_mut().filter(|contest| contest.rounds >= ROUNDS && !right) {
                contest.last = now;
            }
        }
    }

    /// Records what hsdo is about to send for a slot. After maintenance a slot is a new server's.
    pub fn sending(&mut self, slot: SlotId, changes: &[Change]) {
        if changes.contains(&Change::Maintenance) {
            let seen = self.0.entry(slot).or_default();
            *seen = Seen { owner: Owner::Ours, moved: seen.moved, ..Seen::default() };
        }
        if changes.contains(&Change::Ready) {
            self.0.entry(slot).or_default().opened = true;
        }
    }

    /// Whether an operator or agent keeps the server of this slot out of rotation.
    pub fn is_held(&self, slot: SlotId) -> bool {
        self.0.get(&slot).is_some_and(|seen| matches!(seen.owner, Owner::Held(_)))
    }

    /// Whether the server of this slot has been seen serving at its address.
    pub fn is_proven(&self, slot: SlotId) -> bool {
        self.0.get(&slot).is_some_and(|seen| seen.proven.is_some())
    }

    /// Whether this slot stays parked until requests to the server that was there before have ended.
    pub fn is_spared(&self, slot: SlotId) -> bool {
        self.0.get(&slot).is_some_and(|seen| seen.spared)
    }

    /// How long the server of this slot, which this client opened, has waited for its first check; none if it does not.
    pub(super) fn waited(&self, slot: SlotId, now: Instant) -> Option<Duration> {
        let since = self.0.get(&slot).and_then(|seen| seen.waiting)?;
        Some(now.saturating_duration_since(since))
    }

    /// Whether something else keeps changing the weight of this slot back.
    pub fn is_contested(&self, slot: SlotId) -> bool {
        self.0.get(&slot).and_then(|seen| seen.contest).is_some_and(|contest| contest.rounds >= ROUNDS)
    }

    /// Whether something else keeps moving the server of this slot to another address.
    pub fn is_moved(&self, slot: SlotId) -> bool {
        self.0.get(&slot).and_then(|seen| seen.moved).is_some_and(|contest| contest.rounds >= ROUNDS)
    }

    /// Whether the weight of this slot is left alone for now.
    pub fn is_paused(&self, slot: SlotId) -> bool {
        self.0.get(&slot).is_some_and(|seen| seen.paused)
    }
}

fn owner(before: Owner, server: &Running, wanted: Endpoint, right: bool) -> Owner {
    let idle = server.weight == 0;
    match (server.admin, before) {
        (Admin::Ready, _) if right => Owner::Served { address: wanted, idle },
        (Admin::Drain | Admin::Maintenance, Owner::Held(address)) if address == wanted => Owner::Held(wanted),
        (Admin::Drain, _) if right => Owner::Held(wanted),
        (Admin::Maintenance, Owner::Served { address, idle: before })
            if right && address == wanted && (before || !idle) =>
        {
            Owner::Held(wanted)
        }
        (Admin::Maintenance, Owner::New) if right && !idle => Owner::Held(wanted),
        _ => Owner::Ours,
    }
}

/// The next state of a contest: a weight that was right is now `disputed`, or it is `right`, or there is nothing new.
fn contest(before: Option<Contest>, disputed: bool, right: bool, now: Instant) -> Option<Contest> {
    let since = |then: Instant| now.saturating_duration_since(then);
    match before {
        Some(contest) if right && since(contest.last) > TRUCE => None,
        Some(contest) if disputed => {
            let lapsed = contest.rounds < ROUNDS && since(contest.first) > TRUCE;
            let (rounds, first) = if lapsed { (1, now) } else { (contest.rounds.saturating_add(1), contest.first) };
            Some(Contest { rounds, first, last: now, next_try: now + TRUCE })
        }
        None if disputed => Some(Contest { rounds: 1, first: now, last: now, next_try: now }),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::client::fixtures::{OPTIONS, server};

    /// A reading of the slot: state, last byte of its address, weight; and the last byte of the wanted address.
    type Look = (Admin, u8, u16, Option<u8>);

    /// Whether the slot is held after each of these readings.
    fn held_after(readings: &[Look]) -> Vec<bool> {
        let mut memory = SlotMemory::default();
        let now = Instant::now();
        let look = |(admin, last, weight, wanted): &Look| {
            let running = BTreeMap::from([(1, server(*admin, *admin == Admin::Ready, *last, *weight))]);
            let serve = |last: u8| Wanted::Serve { address: IpAddr::from([10, 0, 0, last]).into(), weight: 7 };
            let slots = BTreeMap::from([(1, wanted.map_or(Wanted::Maintenance, serve))]);
            memory.observe(&Desired { slots, max_row: 1, ..Desired::default() }, &running, OPTIONS, now);
            memory.is_held(1)
        };
        readings.iter().map(look).collect()
    }

    #[test]
    fn which_servers_are_held() {
        use Admin::{Drain, Maintenance, Ready};
        #[rustfmt::skip]
        let cases: [(&str, &[Look], &[bool]); 16] = [
            ("it serves", &[(Ready, 1, 7, Some(1))], &[false]),
            ("it served, and is in maintenance", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 7, Some(1))], &[false, true]),
            ("it waited at weight 0, and is in maintenance", &[(Ready, 1, 0, Some(1)), (Maintenance, 1, 0, Some(1))], &[false, true]),
            ("it served, and another hsdo's last line takes it out", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 0, Some(1))], &[false, false]),
            ("the hand is lifted", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 7, Some(1)), (Ready, 1, 7, Some(1))], &[false, true, false]),
            ("drain is always a hand", &[(Drain, 1, 7, Some(1)), (Drain, 1, 0, Some(1))], &[true, true]),
            ("another instance is to serve there", &[(Ready, 1, 7, Some(1)), (Maintenance, 1, 7, Some(1)), (Maintenance, 1, 7, Some(2))], &[false, true, false]),
            ("its address was changed under the hand", &[(Drain, 1, 7, Some(1)), (Drain, 9, 7, Some(1)), (Maintenance, 9, 7, Some(1))], &[true, true, true]),
            ("HAProxy started anew, and nothing else tells", &[(Ready, 1, 7, Some(1)), (Maintenance, 99, 1, Some(1)), (Maintenance, 1, 0, Some(1))], &[false, false, false]),
            ("at its address while another is wanted there", &[(Ready, 2, 7, Some(1)), (Maintenance, 2, 7, Some(1))], &[false, false]),
            ("at hsdo's start, in maintenance with a weight", &[(Maintenance, 1, 7, Some(1))], &[true]),
            ("at hsdo's start, in maintenance with the configured weight", &[(Maintenance, 1, 1, Some(1))], &[true]),
            ("at hsdo's start, a stage of its own", &[(Maintenance, 1, 0, Some(1))], &[false]),
            ("at hsdo's start, a placeholder", &[(Maintenance, 99, 1, Some(1))], &[false]),
            ("emptied by another program, then in use again", &[(Maintenance, 1, 7, None), (Maintenance, 1, 7, Some(1))], &[false, false]),
            ("wanted out while it served, then wanted again", &[(Ready, 1, 7, None), (Maintenance, 1, 0, Some(1))], &[false, false]),
        ];
        for (name, readings, expected) in cases {
            assert_eq!(held_after(readings), expected, "{name}");
        }
    }

    #[test]
    fn maintenance_that_hsdo_sends_is_its_own() {
        let running = |admin| BTreeMap::from([(1, server(admin, true, 1, 7))]);
        let slots = BTreeMap::from([(1, Wanted::Serve { address: IpAddr::from([10, 0, 0, 1]).into(), weight: 7 })]);
        let (desired, now) = (Desired { slots, max_row: 1, ..Desired::default() }, Instant::now());
        let mut memory = SlotMemory::default();
        memory.observe(&desired, &running(Admin::Ready), OPTIONS, now);
        assert!(memory.is_proven(1));
        memory.sending(1, &[Change::Maintenance]);
        memory.observe(&desired, &running(Admin::Maintenance), OPTIONS, now);
        assert!(!memory.is_held(1) && !memory.is_proven(1));
    }

    #[test]
    fn a_slot_is_spared_for_a_minute_for_requests_from_before() {
        let mut memory = SlotMemory::default();
        let start = Instant::now();
        let slots = BTreeMap::from([(1, Wanted::Serve { address: IpAddr::from([10, 0, 0, 1]).into(), weight: 7 })]);
        let desired = Desired { slots, max_row: 1, ..Desired::default() };
        for (second, busy, spared) in [
            (0, true, true),
            (59, true, true),
            (60, true, false),
            (61, false, false),
            (62, true, true),
            (121, true, true),
        ] {
            let parked = Running { busy, ..server(Admin::Maintenance, true, 99, 0) };
            memory.observe(&desired, &BTreeMap::from([(1, parked)]), OPTIONS, start + Duration::from_secs(second));
            assert_eq!(memory.is_spared(1), spared, "second {second}");
        }
    }

    /// The weight that is read, seconds after the first reading, and whether it is paused and contested then.
    #[test]
    fn a_contested_weight_is_given_up_and_retried() {
        let mut memory = SlotMemory::default();
        let start = Instant::now();
        let slots = BTreeMap::from([(1, Wanted::Serve { address: IpAddr::from([10, 0, 0, 1]).into(), weight: 7 })]);
        let desired = Desired { slots, max_row: 1, ..Desired::default() };
        let (free, contested, paused) = ((false, false), (false, true), (true, true));
        for (second, weight, expected, why) in [
            (0, 7, free, "right"),
            (1, 20, free, "the first round"),
            (1, 7, free, "set right in the same turn"),
            (2, 20, free, "the second"),
            (2, 7, free, "set right"),
            (3, 20, paused, "the third"),
            (30, 20, paused, "it lasts"),
            (62, 20, paused, "59 seconds later"),
            (63, 20, contested, "tried again"),
            (63, 7, contested, "set right"),
            (64, 20, paused, "and set back"),
            (120, 20, paused, "left to it"),
            (125, 7, contested, "right by itself"),
            (150, 7, contested, "but not for long yet"),
            (186, 7, free, "for a minute"),
            (187, 20, free, "a first round again"),
            (187, 7, free, "set right"),
            (300, 20, free, "rounds that lie far apart are no contest"),
            (300, 7, free, "set right"),
            (301, 20, free, "the second round of these"),
        ] {
            let running = BTreeMap::from([(1, server(Admin::Ready, true, 1, weight))]);
            memory.observe(&desired, &running, OPTIONS, start + Duration::from_secs(second));
            assert_eq!((memory.is_paused(1), memory.is_contested(1)), expected, "second {second}: {why}");
        }
    }

    #[test]
    fn an_address_that_is_changed_again_and_again_is_told() {
        let mut memory = SlotMemory::default();
        let start = Instant::now();
        let slots = BTreeMap::from([(1, Wanted::Serve { address: IpAddr::from([10, 0, 0, 1]).into(), weight: 7 })]);
        let desired = Desired { slots, max_row: 1, ..Desired::default() };
        // The second, the last byte of the address, and whether that is told.
        for (second, last, told) in [
            (0, 9, false),
            (1, 1, false),
            (2, 9, false),
            (3, 1, false),
            (4, 8, false),
            (5, 1, false),
            (6, 9, true),
            (7, 1, true),
            (60, 1, true),
            (70, 1, false),
            (71, 9, false),
        ] {
            let running = BTreeMap::from([(1, server(Admin::Ready, true, last, 7))]);
            memory.observe(&desired, &running, OPTIONS, start + Duration::from_secs(second));
            assert_eq!(memory.is_moved(1), told, "second {second}");
            if last != 1 {
                memory.sending(1, &[Change::Maintenance]);
            }
        }
    }

    #[test]
    fn a_server_is_proven_at_weight_0_once_it_has_passed_its_check() {
        let slots = BTreeMap::from([(1, Wanted::Serve { address: IpAddr::from([10, 0, 0, 1]).into(), weight: 0 })]);
        let (desired, now) = (Desired { slots, max_row: 1, ..Desired::default() }, Instant::now());
        let mut memory = SlotMemory::default();
        memory.sending(1, &[Change::Ready]);
        for (up, proven) in [(true, false), (false, false), (true, true), (false, true)] {
            let running = BTreeMap::from([(1, server(Admin::Ready, up, 1, 0))]);
            memory.observe(&desired, &running, OPTIONS, now);
            assert_eq!(memory.is_proven(1), proven);
        }
    }
}
