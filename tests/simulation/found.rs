//! Schedules that broke a promise once, as small as they could be made.

use crate::journal::SECOND;
use crate::run::run;
use crate::schedule::Entry;
use crate::schedule::What::{BackedUp, Clock, Hangs, Kill, LosesAnswers, Restored, RowDisabled, Standby, Terminate};

/// A row is edited and edited back while the leader's turns fail: clients followed the edit, and were never told that it is over.
#[test]
fn an_edit_that_the_leader_never_saw_is_undone_everywhere() {
    let schedule = vec![
        Entry(60_000, Terminate { pick: 75 }),
        Entry(221_737, Hangs { service: 0, millis: 4_500, secs: 25 }),
        Entry(224_157, RowDisabled { pick: 213, secs: 20 }),
    ];
    let outcome = run(8, schedule, 252 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// The leader's clock is behind, so its versions rise by one. It frees a slot, and the table is restored to the state before that:
/// the next version must not be the one that some clients have read already.
#[test]
fn a_restored_table_does_not_repeat_a_version() {
    let schedule = vec![
        Entry(60_000, Kill { process: 0, steps: 7, restart_ms: 100 }),
        Entry(4_859_986, Clock { process: 1, secs: -7_200 }),
        Entry(4_877_278, BackedUp),
        Entry(5_567_577, Standby { pick: 254, secs: 2 }),
        Entry(5_569_248, Restored),
    ];
    let outcome = run(800_119, schedule, 5_574 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// The clocks of all servers went back an hour, and most answers of DynamoDB are lost. The leader's heartbeat goes on rising, so that
/// nobody takes its lease.
#[test]
fn a_heartbeat_rises_though_its_answer_is_lost() {
    let clocks = (0..3).map(|process| Entry(60_000, Clock { process, secs: -3_600 }));
    let lost = Entry(90_000, LosesAnswers { service: 2, percent: 80, secs: 240 });
    let outcome = run(21, clocks.chain([lost]).collect(), 345 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}
