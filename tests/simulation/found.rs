//! Schedules that broke a promise once, as small as they could be made.

use crate::journal::SECOND;
use crate::orders::How::{Lapses, Lifted, LiftedEarly};
use crate::orders::Whom::{Group, Zone};
use crate::run::run;
use crate::schedule::Entry;
use crate::schedule::What::{
    BackedUp, Clock, Hangs, HaproxyReloads, Kill, Launch, Liar, LosesAnswers, Operator, Ordered, Original, Pause,
    Refresh, Refuses, Reporting, Restored, RowDeleted, RowDisabled, Slow, Standby, Stop, Tagged, Terminate, ZoneLost,
};

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

/// The same where the leader cannot read the table: clients can, now and then.
#[test]
fn an_edit_while_the_table_cannot_be_read_is_undone_everywhere() {
    for seed in [6, 15, 20] {
        let pick = (seed * 7) as u8;
        let schedule = vec![
            Entry(60_000, Refuses { service: 2, percent: 80, secs: 30 }),
            Entry(63_000 + seed * 37, RowDisabled { pick, secs: 15 }),
        ];
        let outcome = run(seed, schedule, 130 * SECOND);
        assert_eq!(outcome.failure.map(|failure| failure.text), None);
    }
}

/// A server takes the lease, and clients read what its claim announced. An edit is undone before its own first reading, which
/// cannot show that anything changed.
#[test]
fn an_edit_before_a_new_leader_has_read_the_table_is_undone_everywhere() {
    for (seed, percent, pick) in [(6, 50, 42), (30, 60, 210)] {
        let schedule = vec![
            Entry(60_000, Refuses { service: 2, percent, secs: 40 }),
            Entry(63_000 + seed * 37, RowDisabled { pick, secs: 25 }),
        ];
        let outcome = run(seed, schedule, 130 * SECOND);
        assert_eq!(outcome.failure.map(|failure| failure.text), None);
    }
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

/// A client stands still after it has read HAProxy, which is reloaded meanwhile: what it planned meets a worker whose servers are at
/// their placeholders.
#[test]
fn what_was_planned_for_one_worker_does_not_open_a_placeholder_in_the_next() {
    let schedule = vec![
        Entry(60_000, Standby { pick: 19, secs: 10 }),
        Entry(60_661, Pause { process: 5, steps: 41, millis: 15_000 }),
        Entry(85_051, HaproxyReloads { site: 2, linger: 5 }),
    ];
    let outcome = run(930_016, schedule, 86 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// While a client is away, an operator takes out a server of another zone that had come in.
#[test]
fn a_held_server_of_another_zone_stays_held_when_the_client_starts() {
    let schedule = vec![
        Entry(60_000, ZoneLost { zone: 1 }),
        Entry(642_270, Launch { group: 0, count: 2 }),
        Entry(660_841, Original { secs: 25 }),
        Entry(1_285_970, Stop { process: 7, restart_ms: 5_000 }),
        Entry(1_289_719, Operator { site: 4, pick: 254, drain: false, secs: 25 }),
    ];
    let outcome = run(930_100, schedule, 1_291 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// Slot 1's row is deleted, orders and lease and all. The server that led knows what was in it; the others must not be first.
#[test]
fn a_deleted_row_takes_no_order_with_it() {
    let schedule =
        vec![Entry(848_671, Ordered { whom: Zone(1), how: Lifted, secs: 300 }), Entry(852_120, RowDeleted { pick: 0 })];
    let outcome = run(1, schedule, 853 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// The same, while another server was paused: it has not seen the last heartbeats, which does not make it the first to write.
#[test]
fn a_server_that_was_paused_makes_no_deleted_row_again_before_its_leader() {
    let schedule = vec![
        Entry(2_252_276, Refuses { service: 1, percent: 20, secs: 300 }),
        Entry(3_092_650, Slow { service: 2, millis: 2_000, secs: 2 }),
        Entry(4_394_470, Pause { process: 2, steps: 2, millis: 5_000 }),
        Entry(4_397_402, Ordered { whom: Zone(1), how: Lapses, secs: 1_800 }),
        Entry(4_400_935, RowDeleted { pick: 0 }),
    ];
    let outcome = run(3_001_828, schedule, 4_402 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// Most clients are stopped, and their reports are gone with them: requests still run on what they served.
#[test]
fn nobody_is_let_go_because_a_client_was_stopped() {
    let terminated = [0, 5, 9].map(|pick| Entry(120_000, Terminate { pick }));
    let stopped = (4..9).map(|process| Entry(124_000, Stop { process, restart_ms: 60_000 }));
    let schedule: Vec<Entry> = [Entry(0, Reporting)].into_iter().chain(terminated).chain(stopped).collect();
    for seed in 1..=3 {
        let outcome = run(seed, schedule.clone(), 240 * SECOND);
        assert_eq!(outcome.failure.map(|failure| failure.text), None);
        assert!(outcome.let_go > 0);
    }
}

/// A load balancer that nobody knows says that sessions run on everything: the deadline holds.
#[test]
fn the_deadline_holds_whatever_is_reported() {
    let terminated = [0, 5, 9].map(|pick| Entry(120_000, Terminate { pick }));
    let schedule: Vec<Entry> =
        [Entry(0, Reporting), Entry(60_000, Liar { secs: 600 })].into_iter().chain(terminated).collect();
    let outcome = run(1, schedule, 400 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
    assert!(outcome.let_go > 0);
}

/// Everybody is ordered away, and all that serve as the last resort are replaced: the new ones are seated though orders name them.
#[test]
fn those_kept_out_serve_when_nobody_else_is_left() {
    let terminated = (0..4).map(|pick| Entry(60_000, Terminate { pick }));
    let ordered = (0..2).map(|group| Entry(200_000, Ordered { whom: Group(group), how: Lifted, secs: 1_800 }));
    let refreshed = (0..2).map(|group| Entry(220_000, Refresh { group }));
    let outcome = run(3, terminated.chain(ordered).chain(refreshed).collect(), 900 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}

/// The factors of all are 0, so that they serve as the last resort: an order takes some of them out all the same.
#[test]
fn an_order_is_obeyed_while_others_serve_whose_factor_is_0() {
    let tagged = Entry(60_000, Tagged { pick: 0, with: 1 });
    let ordered = Entry(1_925_131, Ordered { whom: Zone(1), how: LiftedEarly, secs: 20 });
    let outcome = run(920_008, vec![tagged, ordered], 1_980 * SECOND);
    assert_eq!(outcome.failure.map(|failure| failure.text), None);
}
