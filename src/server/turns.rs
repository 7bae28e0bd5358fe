//! The server turn by turn, with source, table and gauges in memory. Tests only.

mod blind;
mod orders;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fixtures::{at, limits, seen, show, table};
use super::{Server, SlotLimits};
use crate::marker::{Claim, Marker, Moment, Stamp};
use crate::order::{Order, Orders};
use crate::ports::{Gauges, Sighting, SlotStore, Snapshot, Source, Subject, TableReading, TurnError};
use crate::slot::{Observation, Row, Slot, Table};

fn broken(what: &str) -> TurnError {
    TurnError::new(Subject::Turn, what.to_owned())
}

/// Returns the scripted answers in order, repeating the last one, and records the occupants of each call.
struct Script(VecDeque<Result<Observation, &'static str>>, Rc<RefCell<Vec<String>>>);

impl Source for Script {
    fn fetch(&mut self, occupants: &[&str]) -> Result<Observation, TurnError> {
        self.1.borrow_mut().push(occupants.join(" "));
        let answer = if self.0.len() > 1 { self.0.pop_front() } else { self.0.front().cloned() };
        answer.expect("a script").map_err(broken)
    }
}

#[derive(Default)]
struct MemoryTable {
    table: Table,
    marker: Marker,
    orders: Orders,
    /// AWS's time, in the notation of the fixtures.
    time: i64,
    /// Writes of the marker without rows.
    beats: usize,
    writes: Vec<Vec<u32>>,
    fail_read: bool,
    fail_write: bool,
    lose_responses: bool,
    /// Another server takes the lease right after the table was read.
    lose_after_read: bool,
    /// The leader sees the instances again, and says so, right after the table was read.
    see_after_read: bool,
    /// The moment of the turn that runs.
    now: Option<Instant>,
}

/// One server's view of the table: the rows as it last knew them.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<MemoryTable>>, Rc<RefCell<Option<Table>>>);

impl MemoryTable {
    fn set(&mut self, stamp: &Stamp) {
        let Stamp { version, heartbeat, leader, blind } = stamp.clone();
        let version = version.or(self.marker.version);
        self.marker = Marker { version, heartbeat: Some(heartbeat), leader: Some(leader), blind };
    }

    fn is_led_by(&self, leader: &str) -> bool {
        self.marker.leader.as_deref() == Some(leader)
    }
}

impl SlotStore for Shared {
    type Raw = ();

    fn read_marker(&mut self) -> Result<Sighting<()>, TurnError> {
        Ok(Sighting {
            marker: self.0.borrow().marker.clone(),
            raw: (),
            read_at: self.0.borrow().now.expect("a turn is run"),
        })
    }

    fn read(&mut self) -> Result<TableReading, TurnError> {
        let mut memory = self.0.borrow_mut();
        if memory.fail_read {
            return Err(broken("read"));
        }
        let (table, marker) = (memory.table.clone(), memory.marker.clone());
        if memory.lose_after_read {
            memory.marker.leader = Some("two/1".to_owned());
        }
        if memory.see_after_read {
            let heartbeat = memory.marker.heartbeat.map(|beat| beat + 1);
            memory.marker = Marker { heartbeat, blind: false, ..memory.marker.clone() };
        }
        let changed = self.1.replace(Some(table.clone())).is_some_and(|known| known != table);
        let (orders, time) = (memory.orders.clone(), at(memory.time));
        Ok(TableReading { table, marker, changed, orders, time })
    }

    fn take(&mut self, seen: &Sighting<()>, claim: &Claim) -> Result<bool, TurnError> {
        let mut memory = self.0.borrow_mut();
        self.1.replace(None);
        let fits = memory.marker == seen.marker;
        if fits {
            let Claim { version, heartbeat, leader } = claim.clone();
            memory.set(&Stamp { version: Some(version), heartbeat, leader, blind: false });
        }
        if memory.lose_responses { Err(broken("lost")) } else { Ok(fits) }
    }

    fn beat(&mut self, stamp: &Stamp) -> Result<bool, TurnError> {
        let mut memory = self.0.borrow_mut();
        let fits = memory.is_led_by(&stamp.leader);
        if fits {
            memory.set(stamp);
            memory.beats += 1;
        }
        Ok(fits)
    }

    fn write(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, TurnError> {
        let mut memory = self.0.borrow_mut();
        memory.writes.push(slots.iter().map(|slot| slot.id).collect());
        if memory.fail_write || !memory.is_led_by(&stamp.leader) {
            return Err(broken("write"));
        }
        memory.set(stamp);
        for slot in slots {
            memory.table.rows.insert(slot.id, Row::Readable(slot.clone().into()));
        }
        self.1.replace(Some(memory.table.clone()));
        Ok(stamp.clone())
    }

    fn remove_orders(&mut self, over: &[Order], leader: &str) -> Result<bool, TurnError> {
        let mut memory = self.0.borrow_mut();
        let fits = memory.is_led_by(leader);
        if fits {
            memory.orders.all.retain(|order| !over.contains(order));
        }
        Ok(fits)
    }

    fn release(&mut self, leader: &str) -> Result<(), TurnError> {
        let mut memory = self.0.borrow_mut();
        if memory.is_led_by(leader) {
            memory.marker.leader = None;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Snapshot>>, Mutex<Option<bool>>);

impl Gauges for Recorder {
    fn publish(&self, state: &Snapshot) {
        self.0.lock().expect("no panic").push(state.clone());
    }

    fn leads(&self, leads: bool) {
        *self.1.lock().expect("no panic") = Some(leads);
    }

    fn heartbeat(&self, _: Instant) {}
}

impl Recorder {
    fn last(&self) -> Snapshot {
        self.0.lock().expect("no panic").last().cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

struct Bed {
    server: Server<Script, Shared>,
    memory: Rc<RefCell<MemoryTable>>,
    gauges: Arc<Recorder>,
    /// The occupants passed with each call to the source.
    asked: Rc<RefCell<Vec<String>>>,
    start: Instant,
}

impl Bed {
    fn new(
        limits: SlotLimits,
        rows: &str,
        script: impl IntoIterator<Item = Result<&'static str, &'static str>>,
    ) -> Self {
        let shared = Shared::default();
        shared.0.borrow_mut().table = table(rows);
        let gauges = Arc::new(Recorder::default());
        let script = script.into_iter().map(|answer| answer.map(seen)).collect();
        let (memory, asked) = (Rc::clone(&shared.0), Rc::default());
        let server = Server::new(Script(script, Rc::clone(&asked)), shared, limits, gauges.clone(), "one".to_owned());
        Bed { server, memory, gauges, asked, start: Instant::now() }
    }

    /// Another server on the same table, with its own source.
    fn rival(&self, script: &'static str) -> Bed {
        self.rival_with([Ok(script)])
    }

    fn rival_with(&self, script: impl IntoIterator<Item = Result<&'static str, &'static str>>) -> Bed {
        let shared = Shared(Rc::clone(&self.memory), Rc::default());
        let gauges = Arc::new(Recorder::default());
        let asked = Rc::default();
        let script = script.into_iter().map(|answer| answer.map(seen)).collect();
        let script = Script(script, Rc::clone(&asked));
        let server = Server::new(script, shared, self.server.context.limits.clone(), gauges.clone(), "two".to_owned());
        Bed { server, memory: Rc::clone(&self.memory), gauges, asked, start: self.start }
    }

    fn moment(&self, seconds: i64) -> Moment {
        let clock = self.start + Duration::from_secs(seconds.unsigned_abs());
        self.memory.borrow_mut().now = Some(clock);
        Moment { time: at(seconds), clock }
    }

    fn turn(&mut self, seconds: i64) {
        self.server.turn(self.moment(seconds)).expect("a good turn");
    }

    fn fail(&mut self, seconds: i64, expected: &str) {
        assert_eq!(self.server.turn(self.moment(seconds)).expect_err("a bad turn").to_string(), expected);
    }

    fn leads(&self) -> bool {
        assert_eq!(*self.gauges.1.lock().expect("no panic"), Some(self.server.leads()), "the gauge agrees");
        self.server.leads()
    }

    fn marker(&self) -> Marker {
        self.memory.borrow().marker.clone()
    }

    fn rows(&self) -> String {
        let slots: BTreeMap<_, _> = self.memory.borrow().table.slots().map(|slot| (slot.id, slot.clone())).collect();
        show(&slots)
    }

    /// The calls since the last time.
    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }

    fn writes(&self) -> Vec<Vec<u32>> {
        self.memory.borrow().writes.clone()
    }
}

#[test]
fn a_server_is_added_ramps_drains_and_is_removed() {
    let mut bed = Bed::new(
        SlotLimits { max: 2, ..limits(2) },
        "",
        [
            Ok(".1 i1 a ready"),
            Ok(".1 i1 a ready"),
            Ok(".1 i1 a ready; .2 i2 a ready"),
            Ok(".1 i1 a draining; .2 i2 a ready"),
            Ok(".2 i2 a ready"),
        ],
    );
    for (seconds, expected) in [
        (100, "1 .1 i1 a enabled 1@100; 2 free"),
        (110, "1 .1 i1 a enabled 1@100; 2 free"),
        (130, "1 .1 i1 a enabled 2@130; 2 .2 i2 a enabled 1@130"),
        (140, "1 .1 i1 a draining 0@140; 2 .2 i2 a enabled 1@130"),
        (165, "1 free was=a; 2 .2 i2 a enabled 2@160"),
        (300, "1 free was=a; 2 .2 i2 a enabled 2@160"),
    ] {
        bed.turn(seconds);
        assert_eq!(bed.rows(), expected, "at {seconds}");
        assert_eq!(show(&bed.gauges.last().slots), expected, "the gauges follow the table, at {seconds}");
    }
    assert_eq!(bed.writes(), [vec![1, 2], vec![1, 2], vec![1], vec![1, 2]], "a steady turn writes nothing");
    assert_eq!(bed.gauges.count(), 4, "and what did not change is not published again");
}

#[test]
fn a_failed_fetch_writes_nothing_and_leaves_the_gauges() {
    let mut bed = Bed::new(
        limits(2),
        "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 10",
        [Ok("missing a; .2 i2 b ready"), Err("throttled"), Ok("")],
    );
    bed.turn(100);
    let before = bed.gauges.last();
    assert_eq!(before.missing_groups, 1);
    bed.fail(101, "throttled");
    assert_eq!(bed.gauges.count(), 1);
    assert_eq!(bed.writes(), [[0; 0]; 0]);
    bed.turn(102);
    assert_eq!(bed.rows(), "1 free was=a; 2 free was=b", "a whole answer may be empty");
}

#[test]
fn a_failed_read_writes_nothing_and_leaves_the_gauges() {
    let mut bed = Bed::new(limits(1), "1 .1 i1 a enabled 10", [Ok("")]);
    bed.memory.borrow_mut().fail_read = true;
    bed.fail(100, "read");
    assert_eq!(bed.gauges.count(), 0);
    assert_eq!(bed.writes(), [[0; 0]; 0]);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 10");
}

#[test]
fn a_failed_write_shows_the_table_as_read_and_is_retried() {
    let mut bed = Bed::new(
        limits(2),
        "1 .1 i1 a enabled 10; 2 unreadable",
        [Ok(".1 i1 a ready; .2 i2 a ready; missing b"), Ok(".2 i2 a ready")],
    );
    bed.turn(100);
    assert_eq!((bed.gauges.last().unplaced, bed.gauges.last().unreadable), (1, 1));

    bed.memory.borrow_mut().fail_write = true;
    bed.fail(101, "write");
    let shown = bed.gauges.last();
    assert_eq!(show(&shown.slots), "1 .1 i1 a enabled 10", "not what the plan wanted");
    assert_eq!((shown.unplaced, shown.missing_groups, shown.unreadable), (1, 1, 1), "the rest stays");

    bed.memory.borrow_mut().fail_write = false;
    bed.turn(102);
    assert_eq!(bed.rows(), "1 .2 i2 a enabled 1@102 was=a");
    assert_eq!(bed.writes(), [[1], [1]]);
    assert_eq!((bed.gauges.last().unplaced, bed.gauges.last().missing_groups), (0, 0));
}

#[test]
fn a_failed_write_after_an_edit_shows_the_edit() {
    let mut bed = Bed::new(limits(1), "1 .1 i1 a enabled 10", [Ok(".1 i1 a ready"), Ok("")]);
    bed.turn(100);
    bed.memory.borrow_mut().table = table("1 .1 i1 a disabled 10");
    bed.memory.borrow_mut().fail_write = true;
    bed.fail(101, "write");
    assert_eq!(show(&bed.gauges.last().slots), "1 .1 i1 a disabled 10");
}

#[test]
fn every_turn_decides_on_the_table_as_it_is_now() {
    let mut bed = Bed::new(limits(2), "", [Ok(".1 i1 a ready")]);
    bed.turn(100);
    bed.turn(130);
    bed.memory.borrow_mut().table.rows.remove(&1);
    bed.turn(131);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 2@130; 2 free", "a lost row is written again");
    bed.memory.borrow_mut().table = table("1 .1 i1 a disabled 4; 2 free");
    bed.turn(200);
    assert_eq!(bed.rows(), "1 .1 i1 a disabled 4; 2 free", "an edit by hand stays");
}

#[test]
fn more_instances_than_slots_wait_and_are_counted() {
    let mut bed = Bed::new(limits(1), "", [Ok(".1 i1 a ready; .2 i2 a ready; .3 i3 a ready"), Ok(".2 i2 a ready")]);
    bed.turn(100);
    assert_eq!(bed.gauges.last().unplaced, 2);
    bed.turn(101);
    assert_eq!(bed.rows(), "1 .2 i2 a enabled 1@101 was=a");
    assert_eq!(bed.gauges.last().unplaced, 0);
}

#[test]
fn the_last_resort_is_counted_while_it_lasts() {
    let mut bed = Bed::new(
        limits(1),
        "1 .1 i1 a enabled 10; 2 free",
        [Ok(".1 i1 a draining"), Ok(".1 i1 a draining; .2 i2 a ready")],
    );
    bed.turn(100);
    assert_eq!(bed.gauges.last().last_resort, 1);
    bed.server.context.limits.size = 2;
    bed.turn(101);
    assert_eq!(bed.gauges.last().last_resort, 0);
    assert_eq!(bed.rows(), "1 .1 i1 a draining 0@101; 2 .2 i2 a enabled 1@101");
}

#[test]
fn a_dry_run_previews_and_changes_nothing() {
    let mut bed =
        Bed::new(limits(2), "1 .1 i1 a enabled 10", [Ok(".2 i2 a ready"), Ok(".1 i1 a ready"), Err("throttled")]);
    let before = bed.rows();
    assert_eq!(
        bed.server.dry_run(at(100)).expect("a preview"),
        "slot 1: removed i1 at 10.0.0.1 (group a); slot 1: added i2 at 10.0.0.2 (group a), weight 1\nslot 2: free"
    );
    assert_eq!((bed.rows(), bed.writes(), bed.gauges.count()), (before, vec![], 0));
    bed.turn(101);
    bed.fail(102, "throttled");
    assert_eq!(bed.server.dry_run(at(103)).expect_err("no preview").to_string(), "throttled");
}

#[test]
fn a_steady_table_has_nothing_to_write() {
    let mut bed = Bed::new(limits(2), "1 .1 i1 a enabled 10; 2 free", [Ok(".1 i1 a ready")]);
    assert_eq!(bed.server.dry_run(at(100)).expect("a preview"), "nothing to write");
}

#[test]
fn a_row_deleted_while_its_instance_is_unknown_is_restored() {
    let (all, missing) = (".1 i1 a ready; .2 i2 b ready", ".2 i2 b ready; missing a");
    let mut bed = Bed::new(limits(2), "", [Ok(all), Ok(missing), Ok(missing), Ok(all)]);
    bed.turn(100);
    bed.memory.borrow_mut().table.rows.remove(&1);
    bed.turn(101);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 1@100; 2 .2 i2 b enabled 1@100", "its group is missing");
    bed.memory.borrow_mut().table = table("3 .1 i1 a enabled 5@100; 2 .2 i2 b enabled 1@100");
    bed.turn(102);
    assert_eq!(bed.rows(), "2 .2 i2 b enabled 1@100; 3 .1 i1 a enabled 5@100", "it was moved by hand");
    bed.memory.borrow_mut().table = Table::default();
    bed.turn(103);
    assert_eq!(bed.rows(), "1 free; 2 .2 i2 b enabled 1@100; 3 .1 i1 a enabled 5@100", "the table is emptied");
}

#[test]
fn a_steady_table_is_still_checked_every_turn() {
    let (one, two) = (".1 i1 a ready", ".1 i1 a ready; .2 i2 a ready");
    let mut bed = Bed::new(limits(2), "1 .1 i1 a enabled 10; 2 free", [Ok(one), Ok(one), Ok(one), Ok(one), Ok(two)]);
    for second in 0..3 {
        bed.turn(second);
    }
    assert_eq!((bed.writes(), bed.gauges.count()), (vec![], 1));
    bed.memory.borrow_mut().table = table("1 .1 i1 a enabled 11; 2 free");
    bed.turn(3);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 10@3; 2 free", "a weight is edited by hand");
    bed.turn(4);
    bed.turn(5);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 10@3; 2 .2 i2 a enabled 1@4", "an instance comes");
    bed.turn(33);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 10@3; 2 .2 i2 a enabled 1@4", "its step is not due");
    bed.turn(34);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 10@3; 2 .2 i2 a enabled 2@34", "its step is due");
    bed.turn(35);
    bed.turn(20);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 10@3; 2 .2 i2 a enabled 2@20", "the clock goes back");
}

#[test]
fn a_server_alone_leads_in_its_first_turn_and_beats_once_a_second() {
    let mut bed = Bed::new(limits(1), "1 .1 i1 a enabled 10", [Ok(".1 i1 a ready")]);
    assert!(!bed.leads());
    bed.turn(100);
    assert!(bed.leads());
    let first = bed.marker();
    assert_eq!(first.leader.as_deref(), Some("one/1"));
    bed.turn(100);
    assert_eq!(bed.marker(), first, "not so soon");
    bed.turn(101);
    let second = bed.marker();
    assert!(second.heartbeat > first.heartbeat && second.version == first.version, "{second:?}");
    assert!(!bed.server.pulse(bed.moment(102)));
    assert!(bed.marker().heartbeat > second.heartbeat, "also between two turns that are far apart");
    assert_eq!(bed.memory.borrow().beats, 2);
}

#[test]
fn every_write_and_every_outside_edit_raises_the_version() {
    let mut bed = Bed::new(limits(2), "", [Ok(".1 i1 a ready"), Ok(".1 i1 a ready; .2 i2 a ready")]);
    let mut last = None;
    let mut raised = |bed: &Bed| std::mem::replace(&mut last, bed.marker().version) < bed.marker().version;
    bed.turn(100);
    assert!(raised(&bed), "a new leader");
    bed.turn(101);
    assert!(raised(&bed), "an instance came");
    bed.turn(102);
    assert!(!raised(&bed), "nothing changed");
    bed.memory.borrow_mut().table = table("1 .1 i1 a disabled 4; 2 .2 i2 a enabled 1@101");
    bed.turn(103);
    assert!(raised(&bed), "an edit that stays");
    bed.turn(104);
    assert!(!raised(&bed), "once");
    bed.memory.borrow_mut().table.rows.remove(&2);
    bed.turn(105);
    assert!(raised(&bed), "an edit that is undone");
    assert_eq!(bed.rows(), "1 .1 i1 a disabled 4; 2 .2 i2 a enabled 1@101");
}

#[test]
fn what_a_leader_could_not_see_for_seconds_counts_as_edited() {
    let ready = || Ok(".1 i1 a ready");
    let failed = || Err("AWS is away");
    let script = [ready(), ready(), failed(), ready(), failed(), failed(), failed(), ready(), ready()];
    let mut bed = Bed::new(limits(1), "1 .1 i1 a enabled 10", script);
    let mut last = None;
    let mut raised = |bed: &Bed| std::mem::replace(&mut last, bed.marker().version) < bed.marker().version;
    bed.turn(100);
    assert!(raised(&bed), "a new leader");
    bed.turn(101);
    assert!(!raised(&bed), "nothing changed");
    bed.fail(102, "AWS is away");
    bed.turn(107);
    assert!(!raised(&bed), "five seconds");
    // A client that follows the table meanwhile may have seen an edit that is undone by now.
    for second in [108, 111, 113] {
        bed.fail(second, "AWS is away");
        assert!(!raised(&bed), "its heartbeat goes on");
    }
    bed.turn(114);
    assert!(raised(&bed), "longer");
    bed.turn(115);
    assert!(!raised(&bed), "once");
}

#[test]
fn what_is_edited_before_a_new_leader_has_read_the_table_is_announced() {
    let mut bed = Bed::new(limits(1), "1 .1 i1 a enabled 10", [Ok(".1 i1 a ready")]);
    bed.memory.borrow_mut().fail_read = true;
    bed.fail(100, "read");
    // Clients read at the version of the claim; a row may have been edited since.
    let mut last = bed.marker().version;
    let mut raised = |bed: &Bed| std::mem::replace(&mut last, bed.marker().version) < bed.marker().version;
    bed.memory.borrow_mut().fail_read = false;
    bed.turn(101);
    assert!(bed.leads() && raised(&bed));
    bed.turn(102);
    assert!(!raised(&bed), "once");
}

#[test]
fn a_standby_writes_nothing_and_takes_over_when_the_leader_is_silent() {
    let mut one = Bed::new(limits(1), "", [Ok(".1 i1 a ready")]);
    let mut two = one.rival("");
    one.turn(100);
    for second in 101..110 {
        one.turn(second);
        two.turn(second);
        assert!(one.leads() && !two.leads());
    }
    assert!(two.server.sees_leader());
    assert_eq!((one.rows(), two.gauges.count()), ("1 .1 i1 a enabled 1@100".to_owned(), 0));
    let version = one.marker().version;
    for second in 110..115 {
        two.turn(second);
        assert!(!two.leads(), "at {second}");
    }
    assert!(!two.server.pulse(two.moment(114)) && two.server.pulse(two.moment(115)), "a pulse asks for the turn");
    two.turn(115);
    assert!(two.leads() && two.marker().version > version);
    assert_eq!(two.rows(), "1 free was=a");

    // Suspended until now, it notices that it no longer leads.
    one.turn(116);
    assert!(!one.leads());
    assert_eq!((one.rows(), one.gauges.last()), ("1 free was=a".to_owned(), Snapshot::default()));
}

#[test]
fn a_leader_suspended_in_the_middle_of_its_turn_writes_nothing() {
    let mut one = Bed::new(limits(1), "", [Ok(".1 i1 a ready"), Ok("")]);
    one.turn(100);
    one.memory.borrow_mut().marker.leader = Some("two/1".to_owned());
    // No heartbeat is due, so the read shows it.
    one.turn(100);
    assert!(!one.leads());
    assert_eq!(one.rows(), "1 .1 i1 a enabled 1@100");
    assert_eq!(one.writes().len(), 1);
}

/// The read still shows our term; the lease is lost before the version is raised.
#[test]
fn a_leader_that_loses_the_lease_while_raising_the_version_clears_its_gauges() {
    let mut one = Bed::new(limits(1), "", [Ok(".1 i1 a ready")]);
    one.turn(100);
    one.memory.borrow_mut().table = table("1 .1 i1 a disabled 1@100");
    one.memory.borrow_mut().lose_after_read = true;
    one.turn(100);
    assert!(!one.leads());
    assert_eq!((one.gauges.last(), one.gauges.count()), (Snapshot::default(), 2));
}

#[test]
fn a_leader_that_stops_is_followed_at_once() {
    let mut one = Bed::new(limits(1), "", [Ok("")]);
    let mut two = one.rival("");
    one.turn(100);
    two.turn(100);
    one.server.release().expect("released");
    assert!(!one.server.leads());
    two.turn(101);
    assert!(two.leads());
    one.server.release().expect("nothing to release");
    assert!(two.marker().leader.is_some());
}

#[test]
fn a_server_that_cannot_see_the_instances_does_not_take_the_lease() {
    let mut bed = Bed::new(limits(1), "", [Err("denied"), Ok("")]);
    bed.fail(100, "denied");
    assert_eq!(bed.marker(), Marker::default());
    bed.turn(101);
    assert!(bed.leads());

    let mut one = Bed::new(limits(1), "", [Ok(""), Err("throttled")]);
    one.turn(100);
    let before = one.marker().heartbeat;
    one.fail(101, "throttled");
    assert!(one.leads() && one.marker().heartbeat > before, "a leader that cannot see them still leads");
}

#[test]
fn a_standby_shows_a_misconfiguration_at_start() {
    let one = Bed::new(limits(1), "", [Err("denied")]);
    one.memory.borrow_mut().marker.leader = Some("two/1".to_owned());
    let mut one = one;
    one.fail(100, "denied");
}

#[test]
fn a_lease_whose_response_was_lost_is_ours_in_the_next_turn() {
    let mut bed = Bed::new(limits(1), "", [Ok("")]);
    bed.memory.borrow_mut().lose_responses = true;
    bed.fail(100, "lost");
    assert!(!bed.leads() && bed.marker().leader.as_deref() == Some("one/1"));
    bed.memory.borrow_mut().lose_responses = false;
    bed.turn(101);
    assert!(bed.leads());
}

#[test]
fn a_deleted_marker_is_recreated() {
    let mut bed = Bed::new(limits(1), "", [Ok(".1 i1 a ready")]);
    bed.turn(100);
    bed.memory.borrow_mut().marker = Marker::default();
    bed.turn(101);
    assert!(bed.leads());
    assert_eq!(bed.marker().leader.as_deref(), Some("one/2"), "another term, as others may have written meanwhile");
}

/// The source is asked before the table is read, about the occupants of the previous turn; a second time only if that
/// misses an occupant.
#[test]
fn the_source_is_asked_once_a_turn_about_every_occupant() {
    let two = ".1 i1 a ready; .2 i2 a ready; i0 gone";
    let detached = ".2 i2 a ready; i1 unconfirmed; i9 unconfirmed";
    let mut bed = Bed::new(
        limits(3),
        "1 .1 i1 a enabled 10",
        [Ok(two), Ok(two), Ok(two), Err("throttled"), Ok(two), Ok(detached), Ok(detached)],
    );
    bed.turn(100);
    assert_eq!(bed.asked(), [""], "the table is unknown, but the answer covers its occupants");
    bed.turn(101);
    bed.turn(102);
    bed.fail(103, "throttled");
    assert_eq!(bed.asked(), ["i1 i2", "i1 i2", "i1 i2"]);
    bed.memory.borrow_mut().table = table("1 .1 i1 a enabled 10; 2 .2 i2 a enabled 1@100; 3 .9 i9 a enabled 5");
    bed.turn(104);
    assert_eq!(bed.asked(), ["i1 i2", "i1 i2 i1 i2 i9"], "a row was written by hand meanwhile");
    assert_eq!(bed.rows(), "1 free was=a; 2 .2 i2 a enabled 1@100; 3 free was=a");
    bed.turn(105);
    assert_eq!(bed.asked(), ["i2"]);
}

#[test]
fn a_new_leader_asks_about_unlisted_occupants_before_it_judges_them() {
    let rows = "1 .1 i1 c enabled 10; 2 .2 i2 a enabled 10";
    let mut bed =
        Bed::new(limits(2), rows, [Ok(".2 i2 a ready; i0 gone; missing c"), Ok(".2 i2 a ready; i1 gone; missing c")]);
    bed.turn(100);
    assert_eq!(bed.asked(), ["", "i1 i2"]);
    assert_eq!(bed.rows(), "1 free was=c; 2 .2 i2 a enabled 10");
}

#[test]
fn an_edit_seen_in_a_failed_turn_raises_the_version_in_the_next() {
    let (before, after) = (".1 i1 a ready; i0 gone", ".1 i1 a ready; .7 i7 a unknown; i0 gone");
    let answers = [Ok(before), Ok(before), Err("throttled"), Ok(after)];
    let mut bed = Bed::new(limits(2), "1 .1 i1 a enabled 10; 2 free", answers);
    bed.turn(100);
    let version = bed.marker().version;
    bed.memory.borrow_mut().table = table("1 .7 i7 a disabled 10; 2 .1 i1 a enabled 10");
    bed.fail(101, "throttled");
    assert_eq!(bed.marker().version, version);
    bed.turn(102);
    assert!(bed.marker().version > version);
    assert_eq!(bed.rows(), "1 .7 i7 a disabled 10; 2 .1 i1 a enabled 10");
    let version = bed.marker().version;
    bed.turn(103);
    assert_eq!(bed.marker().version, version, "once");
}

const FOUR: &str = "1 .1 i1 a enabled 10; 2 .2 i2 a enabled 10; 3 .3 i3 a enabled 10; 4 .4 i4 a enabled 10; 5 free";
const GONE_ASTRAY: &str = ".4 i4 a ready; i1 unconfirmed; i2 unconfirmed; i3 unconfirmed";
const FREED: &str = "1 free was=a; 2 free was=a; 3 free was=a; 4 .4 i4 a enabled 10; 5 free";

#[test]
fn many_servers_that_vanish_at_once_are_kept_for_the_grace_period() {
    let mut bed = Bed::new(limits(5), FOUR, [Ok(GONE_ASTRAY)]);
    for seconds in 100..130 {
        bed.turn(seconds);
        assert_eq!((bed.rows(), bed.gauges.last().guarded), (FOUR.to_owned(), 3), "at {seconds}");
    }
    bed.turn(130);
    assert_eq!((bed.rows(), bed.gauges.last().guarded), (FREED.to_owned(), 0));
    bed.turn(131);
    assert_eq!(bed.rows(), FREED);
}

#[test]
fn servers_that_return_reset_the_guard() {
    let whole = ".1 i1 a ready; .2 i2 a ready; .3 i3 a ready; .4 i4 a ready";
    let mut bed = Bed::new(limits(5), FOUR, [Ok(GONE_ASTRAY), Ok(GONE_ASTRAY), Ok(whole), Ok(GONE_ASTRAY)]);
    for (seconds, guarded) in [(100, 3), (115, 3), (116, 0), (117, 3), (146, 3)] {
        bed.turn(seconds);
        assert_eq!((bed.rows(), bed.gauges.last().guarded), (FOUR.to_owned(), guarded), "at {seconds}");
    }
    bed.turn(147);
    assert_eq!(bed.rows(), FREED);
}

#[test]
fn a_failed_turn_neither_counts_for_nor_resets_the_guard() {
    let answers = [Ok(GONE_ASTRAY), Ok(GONE_ASTRAY), Err("throttled"), Err("throttled"), Ok(GONE_ASTRAY)];
    let mut bed = Bed::new(limits(5), FOUR, answers);
    bed.turn(100);
    bed.turn(110);
    bed.fail(111, "throttled");
    bed.fail(200, "throttled");
    for seconds in [201, 215, 219] {
        bed.turn(seconds);
        assert_eq!(bed.rows(), FOUR, "at {seconds}");
    }
    bed.turn(220);
    assert_eq!(bed.rows(), FREED, "10 seconds, and 20");
}

#[test]
fn a_failed_write_does_not_reset_the_guard() {
    let mut bed = Bed::new(limits(5), FOUR, [Ok(GONE_ASTRAY)]);
    bed.turn(100);
    bed.memory.borrow_mut().fail_write = true;
    bed.fail(130, "write");
    bed.memory.borrow_mut().fail_write = false;
    assert_eq!(bed.rows(), FOUR);
    bed.turn(131);
    assert_eq!(bed.rows(), FREED);
}

/// A leader's state ends with its term, so the next one waits the full grace period.
#[test]
fn another_leader_starts_the_guard_from_scratch() {
    let mut one = Bed::new(limits(5), FOUR, [Ok(GONE_ASTRAY)]);
    let mut two = one.rival(GONE_ASTRAY);
    one.turn(100);
    one.turn(120);
    one.server.release().expect("released");
    for seconds in [121, 150] {
        two.turn(seconds);
        assert_eq!((two.rows(), two.gauges.last().guarded), (FOUR.to_owned(), 3), "at {seconds}");
    }
    two.turn(151);
    assert_eq!(two.rows(), FREED);
}

#[test]
fn unseen_and_unknown_instances_are_counted() {
    let answer = "unseen i1; unseen i2; hidden i3 draining; .4 i4 a ready; unknown i5";
    let mut bed = Bed::new(limits(3), "1 .1 i1 a enabled 10", [Ok(answer)]);
    bed.turn(100);
    let shown = bed.gauges.last();
    assert_eq!((shown.unseen, shown.unknown_states, shown.guarded), (2, 1, 0));
}

/// A single turn cannot confirm that they vanished, so it keeps them.
#[test]
fn a_dry_run_shows_what_one_turn_would_do() {
    let mut bed = Bed::new(limits(5), FOUR, [Ok(GONE_ASTRAY)]);
    assert_eq!(bed.server.dry_run(at(100)).expect("a preview"), "nothing to write");
    assert_eq!(bed.asked(), ["i1 i2 i3 i4"]);
}
