//! A leader whose source fails for long, beside a standby.

use super::super::fixtures::orders;
use super::*;

const ROW: &str = "1 .1 i1 a enabled 10";

/// A leader whose source fails from second 101 on, and a standby that has seen `then` once and goes on so.
fn pair(then: &[Result<&'static str, &'static str>]) -> (Bed, Bed) {
    let mut one = Bed::new(limits(1), ROW, [Ok(".1 i1 a ready"), Err("denied")]);
    let mut two = one.rival_with(then.iter().copied());
    one.turn(100);
    two.turn(100);
    assert_eq!((one.asked().len(), two.asked().len()), (1, 1));
    (one, two)
}

/// Lets the leader's turns fail, beside turns of the standby, from second 101 up to `end`.
fn fail_until(end: i64, one: &mut Bed, two: &mut Bed) {
    for second in 101..=end {
        one.fail(second, "denied");
        two.turn(second);
        assert!(one.leads() && !two.leads(), "at {second}");
    }
}

#[test]
fn a_blind_leader_is_followed_by_a_standby_that_sees() {
    let (mut one, mut two) = pair(&[Ok(""), Ok("i1 gone")]);
    let version = one.marker().version;
    fail_until(116, &mut one, &mut two);
    assert!(!one.marker().blind, "15 seconds are over, and its next heartbeat says so");
    assert_eq!(two.asked(), Vec::<String>::new(), "a standby beside a leader asks nobody");
    one.fail(117, "denied");
    assert!(one.leads() && one.marker().blind && one.marker().version == version, "nothing for clients to read");
    assert!(two.server.pulse(two.moment(117)), "a pulse asks for the turn");
    two.turn(117);
    assert!(two.leads() && two.marker().version > version && !two.marker().blind);
    assert_eq!((two.asked(), two.rows()), (vec!["i1".to_owned()], "1 free was=a".to_owned()));

    one.asked();
    for second in 118..140 {
        one.turn(second);
        two.turn(second);
        assert!(!one.leads() && two.leads(), "at {second}");
    }
    assert_eq!((one.asked(), one.gauges.last()), (Vec::new(), Snapshot::default()), "it stands by");
}

#[test]
fn a_leader_stays_while_nobody_sees_more() {
    let (mut one, mut two) = pair(&[Ok(""), Err("denied too")]);
    let version = one.marker().version;
    fail_until(180, &mut one, &mut two);
    assert!(one.marker().blind && one.marker().version == version);
    assert_eq!(two.asked(), vec!["i1"; 5], "from 117 on every 15 seconds");
    assert!(!two.server.pulse(two.moment(180)), "nor in between");
}

#[test]
fn orders_are_carried_out_by_a_blind_leader_which_stays_blind() {
    let rows = "1 .1 i1 a enabled 10; 2 .2 i2 a enabled 10";
    let mut one = Bed::new(limits(2), rows, [Ok(".1 i1 a ready; .2 i2 a ready"), Err("denied")]);
    for second in 100..=117 {
        let _ = one.server.turn(one.moment(second));
    }
    let before = one.marker();
    one.memory.borrow_mut().orders.all = orders("slot:1");
    one.fail(117, "denied");
    assert_eq!(one.rows(), "1 .1 i1 a draining 0@117; 2 .2 i2 a enabled 10");
    assert!(before.blind && one.marker().blind && one.marker().version > before.version);
}

#[test]
fn a_leader_that_sees_again_says_so_with_its_next_heartbeat() {
    let mut one = Bed::new(limits(1), ROW, std::iter::repeat_n(Err("denied"), 20).chain([Ok(".1 i1 a ready")]));
    // It took the lease while it saw.
    one.server.context.source.0.push_front(Ok(seen(".1 i1 a ready")));
    one.turn(100);
    for second in 101..=120 {
        one.fail(second, "denied");
    }
    assert!(one.marker().blind);
    let before = one.marker();
    one.turn(121);
    one.turn(122);
    assert!(one.leads() && !one.marker().blind && one.marker().heartbeat > before.heartbeat);
    let version = one.marker().version;
    one.turn(123);
    assert_eq!(one.marker().version, version);
}

#[test]
fn a_leader_that_sees_again_while_the_standby_asks_keeps_the_lease() {
    let (mut one, mut two) = pair(&[Ok("")]);
    fail_until(116, &mut one, &mut two);
    one.fail(117, "denied");
    one.memory.borrow_mut().see_after_read = true;
    two.turn(117);
    assert!(!two.leads() && one.leads());
    assert_eq!(two.asked(), ["i1"]);
    one.memory.borrow_mut().see_after_read = false;
    two.turn(118);
    assert_eq!((two.leads(), two.asked()), (false, Vec::new()));
}

#[test]
fn a_standby_that_cannot_see_from_the_start_tells_it_beside_a_blind_leader_too() {
    let (mut one, _) = pair(&[Ok("")]);
    let mut two = one.rival_with([Err("misspelt"), Err("misspelt"), Ok("")]);
    for second in 101..=117 {
        one.fail(second, "denied");
    }
    assert!(one.marker().blind && !two.server.pulse(two.moment(117)));
    two.fail(117, "misspelt");
    two.fail(118, "misspelt");
    two.turn(119);
    assert!(!two.leads());
    two.turn(120);
    assert!(two.leads());
}

#[test]
fn a_server_that_will_not_stay_leaves_a_blind_leader_alone() {
    let (mut one, mut two) = pair(&[Ok("")]);
    two.server.leave_live_leaders();
    fail_until(120, &mut one, &mut two);
    assert!(one.marker().blind && !two.server.pulse(two.moment(120)) && two.server.sees_leader());
    for second in 121..=126 {
        two.turn(second);
    }
    assert!(two.leads(), "one that died is followed");
}

/// The instances of the groups are not all that a leader asks about: two servers that see only these would take turns.
#[test]
fn a_standby_must_see_the_occupants_of_the_table_too() {
    let unlisted = ".2 i2 a ready";
    let (mut one, mut two) = pair(&[Ok(unlisted), Err("EC2 is away"), Ok(unlisted)]);
    fail_until(131, &mut one, &mut two);
    assert_eq!(two.asked(), ["i1"]);
    one.fail(132, "denied");
    two.turn(132);
    assert!(two.leads());
}
