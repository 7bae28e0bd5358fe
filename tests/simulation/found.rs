//! Schedules that broke a promise once, as small as they could be made.

use crate::journal::SECOND;
use crate::run::run;
use crate::schedule::Entry;
use crate::schedule::What::{Hangs, RowDisabled, Terminate};

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
