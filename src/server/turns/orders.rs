//! Orders, turn by turn.

use super::super::fixtures::orders;
use super::*;

const TWO: &str = "1 .1 i1 a enabled 10; 2 .2 i2 a enabled 10";
const TWO_READY: &str = ".1 i1 a ready; .2 i2 a ready";

/// The machine's clock says nothing about it.
#[test]
fn an_order_stands_until_it_lapses_by_the_tables_clock() {
    let mut bed = Bed::new(limits(2), TWO, [Ok(TWO_READY)]);
    bed.turn(100);
    let order = orders("slot:1 until=500");
    (bed.memory.borrow_mut().orders.all, bed.memory.borrow_mut().time) = (order.clone(), 400);
    bed.turn(101);
    let drained = "1 .1 i1 a draining 0@101; 2 .2 i2 a enabled 10";
    assert_eq!(bed.rows(), drained);
    assert_eq!(bed.gauges.last().orders, [(order[0].clone(), vec![1])]);
    bed.memory.borrow_mut().time = 499;
    bed.turn(900);
    assert_eq!(bed.rows(), drained);
    bed.memory.borrow_mut().time = 500;
    bed.turn(901);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 1@901; 2 .2 i2 a enabled 10");
    assert_eq!((bed.memory.borrow().orders.all.len(), bed.gauges.last().orders.len()), (0, 0), "it is removed");
    assert_eq!(bed.server.dry_run(at(902)).expect("a preview"), "nothing to write");
}

#[test]
fn an_order_that_is_lifted_or_changed_counts_in_the_next_turn() {
    let mut bed = Bed::new(limits(2), TWO, [Ok(TWO_READY)]);
    bed.memory.borrow_mut().orders.all = orders("zone:z9; i1");
    bed.turn(100);
    assert_eq!(bed.rows(), "1 .1 i1 a draining 0@100; 2 .2 i2 a enabled 10");
    bed.turn(101);
    assert_eq!(bed.writes().len(), 1, "a steady turn under orders writes nothing");
    bed.memory.borrow_mut().orders.all = orders(".2");
    bed.turn(102);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 1@102; 2 .2 i2 a draining 0@102");
}

#[test]
fn an_order_about_an_instance_ends_with_it_and_the_source_is_asked_about_it() {
    let answers = [
        Ok(TWO_READY),
        Ok(TWO_READY),
        Ok(".2 i2 a ready; i1 gone; i9 unconfirmed"),
        Ok(".2 i2 a ready; i1 notfound; i9 notfound; missing c"),
        Ok(".2 i2 a ready; i1 ended; i9 notfound"),
    ];
    let mut bed = Bed::new(limits(2), TWO, answers);
    (bed.memory.borrow_mut().orders.all, bed.memory.borrow_mut().time) = (orders("i1; i9"), 3_599);
    let left = |bed: &Bed| bed.memory.borrow().orders.all.iter().map(|one| one.target.to_string()).collect::<Vec<_>>();
    bed.turn(100);
    bed.turn(101);
    assert_eq!(bed.asked(), ["", "i1 i2 i1 i9"]);
    bed.turn(102);
    assert_eq!(
        (bed.rows().as_str(), left(&bed)),
        ("1 free was=a; 2 .2 i2 a enabled 10", vec!["i1".into(), "i9".into()]),
        "it stands by"
    );
    bed.turn(103);
    assert_eq!(left(&bed), ["i1", "i9"], "while a group is missing, this may be another account");
    bed.turn(104);
    assert_eq!(left(&bed), ["i9"], "EC2 may not know an instance for a moment");
    bed.memory.borrow_mut().time = 3_600;
    bed.turn(105);
    assert_eq!(left(&bed), [""; 0], "it forgets a terminated one after an hour");
}

/// While a zone or AWS is in trouble, an order is what an operator has left.
#[test]
fn an_order_is_carried_out_and_lifted_while_the_source_says_nothing() {
    let away = || Err("AWS is away");
    let mut bed = Bed::new(
        limits(3),
        "1 .1 i1 a enabled 10; 2 .2 i2 a enabled 10",
        [Ok(TWO_READY), away(), away(), away(), away(), Ok(TWO_READY)],
    );
    bed.turn(100);
    let rows = |bed: &Bed| bed.rows();
    bed.fail(101, "AWS is away");
    assert_eq!(rows(&bed), "1 .1 i1 a enabled 10; 2 .2 i2 a enabled 10; 3 free");
    bed.memory.borrow_mut().orders.all = orders("slot:1");
    bed.fail(102, "AWS is away");
    assert_eq!(rows(&bed), "1 .1 i1 a draining 0@102; 2 .2 i2 a enabled 10; 3 free");
    assert_eq!(bed.gauges.last().orders.len(), 1);
    let writes = bed.writes().len();
    bed.fail(103, "AWS is away");
    assert_eq!(bed.writes().len(), writes, "nothing more to do");
    bed.memory.borrow_mut().orders.all = vec![];
    bed.memory.borrow_mut().table.rows.remove(&3);
    bed.fail(104, "AWS is away");
    assert_eq!(rows(&bed), "1 .1 i1 a enabled 1@104; 2 .2 i2 a enabled 10", "a missing row is left for later");
    bed.turn(105);
    assert_eq!(rows(&bed), "1 .1 i1 a enabled 1@104; 2 .2 i2 a enabled 10; 3 free");
}

/// A copy of a row would count as another server that serves.
#[test]
fn a_copied_row_goes_with_an_order_though_the_source_says_nothing() {
    let mut bed = Bed::new(limits(2), "1 .1 i1 a enabled 10; 2 free", [Ok(".1 i1 a ready"), Err("AWS is away")]);
    bed.turn(100);
    bed.memory.borrow_mut().table = table("1 .1 i1 a enabled 10; 2 .1 i1 a enabled 10");
    bed.memory.borrow_mut().orders.all = orders("group:a");
    bed.fail(101, "AWS is away");
    assert_eq!(bed.rows(), "1 .1 i1 a draining 10; 2 free was=a", "the last one serves on");
}

/// Its group is missing: nothing is known of it, before, meanwhile and after.
#[test]
fn an_order_on_an_unknown_server_ends_too() {
    let seen = ".2 i2 b ready; missing a; i1 unconfirmed";
    let mut bed = Bed::new(limits(2), "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 10", [Ok(seen)]);
    bed.memory.borrow_mut().orders.all = orders("group:a");
    bed.turn(100);
    assert_eq!(bed.rows(), "1 .1 i1 a draining 0@100; 2 .2 i2 b enabled 10");
    bed.memory.borrow_mut().orders.all = vec![];
    bed.turn(101);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 1@101; 2 .2 i2 b enabled 10");
    bed.turn(200);
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 1@101; 2 .2 i2 b enabled 10", "as it is");
}

#[test]
fn an_order_that_lapses_while_the_source_says_nothing_gives_no_weight_against_max() {
    let answers = [Ok(TWO_READY), Err("AWS is away")];
    let mut bed =
        Bed::new(SlotLimits { min: 0, max: 0, ..limits(2) }, "1 .1 i1 a enabled 0; 2 .2 i2 a enabled 0", answers);
    (bed.memory.borrow_mut().orders.all, bed.memory.borrow_mut().time) = (orders("slot:1 until=500"), 400);
    bed.turn(100);
    bed.memory.borrow_mut().time = 500;
    bed.fail(101, "AWS is away");
    assert_eq!(bed.rows(), "1 .1 i1 a enabled 0@101; 2 .2 i2 a enabled 0");
}
