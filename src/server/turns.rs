//! The loop turn by turn, with a source, a table and gauges in memory. Tests only.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::fixtures::{at, limits, seen, show, table};
use super::{Gauges, Limits, Server, Snapshot, Source, Store};
use crate::error::Error;
use crate::slot::{Observation, Row, Slot, Table};

fn broken(what: &str) -> Error {
    Error::Turn(what.to_owned())
}

/// Answers in the order of the script; the last one for ever.
struct Script(VecDeque<Result<Observation, &'static str>>);

impl Source for Script {
    fn fetch(&mut self) -> Result<Observation, Error> {
        let answer = if self.0.len() > 1 { self.0.pop_front() } else { self.0.front().cloned() };
        answer.expect("a script").map_err(broken)
    }
}

#[derive(Default)]
struct Memory {
    table: Table,
    writes: Vec<Vec<u32>>,
    fail_read: bool,
    fail_write: bool,
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Memory>>);

impl Store for Shared {
    fn read(&mut self) -> Result<Table, Error> {
        let memory = self.0.borrow();
        if memory.fail_read { Err(broken("read")) } else { Ok(memory.table.clone()) }
    }

    fn write(&mut self, slots: &[Slot]) -> Result<(), Error> {
        let mut memory = self.0.borrow_mut();
        memory.writes.push(slots.iter().map(|slot| slot.id).collect());
        if memory.fail_write {
            return Err(broken("write"));
        }
        for slot in slots {
            memory.table.rows.insert(slot.id, Row::Known(slot.clone()));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Snapshot>>);

impl Gauges for Recorder {
    fn publish(&self, state: &Snapshot) {
        self.0.lock().expect("no panic").push(state.clone());
    }
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
    memory: Rc<RefCell<Memory>>,
    gauges: Arc<Recorder>,
}

impl Bed {
    fn new(limits: Limits, rows: &str, script: impl IntoIterator<Item = Result<&'static str, &'static str>>) -> Self {
        let shared = Shared::default();
        shared.0.borrow_mut().table = table(rows);
        let gauges = Arc::new(Recorder::default());
        let script = script.into_iter().map(|answer| answer.map(seen)).collect();
        let memory = Rc::clone(&shared.0);
        Bed { server: Server::new(Script(script), shared, limits, gauges.clone()), memory, gauges }
    }

    fn turn(&mut self, seconds: i64) {
        self.server.turn(at(seconds)).expect("a good turn");
    }

    fn fail(&mut self, seconds: i64, expected: &str) {
        assert_eq!(self.server.turn(at(seconds)).expect_err("a bad turn").to_string(), expected);
    }

    fn rows(&self) -> String {
        let slots: BTreeMap<_, _> = self.memory.borrow().table.slots().map(|slot| (slot.id, slot.clone())).collect();
        show(&slots)
    }

    fn writes(&self) -> Vec<Vec<u32>> {
        self.memory.borrow().writes.clone()
    }
}

#[test]
fn a_server_comes_ramps_drains_and_goes() {
    let mut bed = Bed::new(
        Limits { max: 2, ..limits(2) },
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
    assert_eq!(bed.gauges.count(), 6, "and is published all the same");
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
fn a_failed_write_shows_the_table_as_it_is_and_is_tried_again() {
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
fn a_failed_write_after_a_hand_has_edited_shows_the_edit() {
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
    bed.memory.borrow_mut().table.rows.remove(&1);
    bed.turn(101);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 1@101; 2 free", "a lost row is written again");
    bed.memory.borrow_mut().table = table("1 .1 i1 a disabled 4; 2 free");
    bed.turn(200);
    assert_eq!(bed.rows(), "1 .1 i1 a disabled 4; 2 free", "a hand's edit holds");
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
    bed.server.limits.size = 2;
    bed.turn(101);
    assert_eq!(bed.gauges.last().last_resort, 0);
    assert_eq!(bed.rows(), "1 .1 i1 a draining 0@101; 2 .2 i2 a enabled 1@101");
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
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
