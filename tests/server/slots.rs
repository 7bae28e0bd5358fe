//! Slots: more instances than slots, fewer and more slots, duplicates, unreadable rows, rows that an operator edited.

use serde_json::json;

use super::fixture::{FAILED, bed, has, ids, settle, steady, wait_row, wait_seats};
use crate::common::moto::text_of;

/// The Python version dropped them silently.
#[test]
fn more_instances_than_slots_wait_in_order() {
    let bed = bed("unplaced", &[("web", 4)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    server.wait_metric("hsdo_unplaced_servers", |count| count == 2.0);
    server.wait_turn();
    let line = format!("ready servers without a slot: {}, {}; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE", web[2], web[3]);
    assert_eq!(server.log().matches(&line).count(), 1, "said once: {}", server.log());

    bed.moto().terminate_in_group(&web[0], true);
    wait_seats(&bed, &[(1, &web[2]), (2, &web[1])]);
    server.wait_metric("hsdo_unplaced_servers", |count| count == 1.0);
    server.wait_log(&format!("ready servers without a slot: {};", web[3]));
    bed.moto().terminate_in_group(&web[1], true);
    wait_seats(&bed, &[(1, &web[2]), (2, &web[3])]);
    server.wait_metric("hsdo_unplaced_servers", |count| count == 0.0);
    server.wait_log("every ready server has a slot again");
}

#[test]
fn fewer_slots_keep_whom_they_have_and_more_are_created() {
    let bed = bed("size", &[("web", 4)]);
    let web = ids(&bed, "web");
    let all = [(1, web[0].as_str()), (2, &web[1]), (3, &web[2]), (4, &web[3])];
    steady(&bed, 4).once().assert_code(0);
    wait_seats(&bed, &all);

    let before = bed.moto().rows();
    let mut server = steady(&bed, 2).spawn();
    server.wait_turn();
    assert_eq!(bed.moto().rows(), before);
    let line = "slots above HAPROXY_BACKEND_SERVERS_LIST_SIZE, now 2, hold servers until these leave: 3, 4";
    assert_eq!(server.log().matches(line).count(), 1, "{}", server.log());
    bed.moto().terminate_in_group(&web[3], true);
    wait_seats(&bed, &all[..3]);
    // A free row above the size stays free.
    wait_row(&bed, 4, &[("IPAddress", "none"), ("BackendServerStatus", "disabled"), ("Weight", "0")]);
    bed.moto().set_desired("web", 4);
    server.wait_metric("hsdo_unplaced_servers", |count| count == 1.0);
    server.wait_turn();
    wait_seats(&bed, &all[..3]);
    server.terminate();

    let new = ids(&bed, "web").into_iter().find(|id| !web.contains(id)).unwrap();
    let mut server = steady(&bed, 6).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &web[2]), (4, &new)]);
    server.wait_metric(r#"hsdo_slots{state="free"}"#, |count| count == 2.0);
    assert_eq!(bed.moto().rows().keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn of_two_rows_with_one_address_the_lowest_stays() {
    let bed = bed("double", &[("web", 2)]);
    let web = bed.moto().instances("web");
    let first = web[0].address.to_string();
    bed.moto().put_server(2, &first, &web[0].id, Some("web"), 10);
    bed.moto().put_server(3, &first, &web[0].id, Some("web"), 10);
    let mut before = bed.moto().rows()[&2].clone();
    before.insert("HsdoZone".into(), json!({"S": "eu-west-1a"}));
    let mut server = steady(&bed, 3).spawn();
    wait_seats(&bed, &[(2, &web[0].id), (3, &web[1].id)]);
    settle(&bed, &mut server);
    assert_eq!(bed.moto().rows()[&2], before);
}

#[test]
fn rows_that_cannot_be_read_are_named_counted_and_left_alone() {
    let bed = bed("unreadable", &[("web", 3)]);
    let web = ids(&bed, "web");
    for (id, edit) in [
        (1, json!({"IPAddress": {"S": "10.0.0.1; shutdown frontend fe"}})),
        (2, json!({"Weight": {"N": "300"}})),
        (4, json!({"BackendServerStatus": {"S": "perhaps"}})),
        (5, json!({"ServerName": {"N": "7"}})),
        (6, json!({"ServerName": {"S": "i-1\nevil"}})),
    ] {
        bed.moto().put_server(id, &format!("127.1.5.{id}"), "i-1", Some("web"), 10);
        bed.moto().update_item(id, &edit);
    }
    // A row that lacks an attribute the Python version's reader needs, and one beyond every slot.
    bed.moto().put_item(&json!({"BackendServerID": {"N": "7"}, "IPAddress": {"S": "127.1.5.7"}}));
    bed.moto().put_free(20_000);
    let before = bed.moto().rows();
    let mut server = steady(&bed, 9).spawn();
    wait_seats_of_readable(&bed, &[(3, &web[0]), (8, &web[1]), (9, &web[2])]);
    server.wait_metric(r#"hsdo_slots{state="unreadable"}"#, |count| count == 7.0);
    settle(&bed, &mut server);
    let after = bed.moto().rows();
    for id in [1, 2, 4, 5, 6, 7, 20_000] {
        assert_eq!(after[&id], before[&id], "row {id} was written");
    }
    let log = server.log();
    for id in [1, 2, 4, 5, 6, 7] {
        assert!(log.contains(&format!("slot {id}: ")), "slot {id} is not named: {log}");
    }
    assert!(log.contains("20000"), "{log}");
    assert_eq!(log.matches("items of the table that cannot be read").count(), 1, "said once: {log}");
    assert!(log.lines().all(|line| line.starts_with("20")), "a value of the table starts a line of its own: {log}");

    bed.moto().put_free(1);
    server.wait_metric(r#"hsdo_slots{state="unreadable"}"#, |count| count == 6.0);
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}

/// As `wait_seats`, for the readable rows.
fn wait_seats_of_readable(bed: &crate::common::bed::Bed, wanted: &[(u32, &str)]) {
    for (id, name) in wanted {
        wait_row(bed, *id, &[("ServerName", name), ("BackendServerStatus", "enabled")]);
    }
}

#[test]
fn a_row_that_an_operator_disabled_stays_disabled() {
    let bed = bed("disabled", &[("web", 2)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    bed.moto().update_item(1, &json!({"BackendServerStatus": {"S": "disabled"}}));
    server.wait_metric(r#"hsdo_slots{state="disabled"}"#, |count| count == 1.0);
    settle(&bed, &mut server);
    let rows = bed.moto().rows();
    assert!(has(&rows[&1], &[("BackendServerStatus", "disabled"), ("ServerName", &web[0])]), "{:?}", rows[&1]);

    bed.moto().update_item(1, &json!({"BackendServerStatus": {"S": "enabled"}}));
    server.wait_metric(r#"hsdo_slots{state="disabled"}"#, |count| count == 0.0);
    bed.moto().update_item(1, &json!({"BackendServerStatus": {"S": "disabled"}}));
    // The operator disabled this instance: its successor serves.
    bed.moto().terminate_in_group(&web[0], false);
    let new = ids(&bed, "web").into_iter().find(|id| !web.contains(id)).unwrap();
    wait_seats(&bed, &[(1, &new), (2, &web[1])]);
    wait_row(&bed, 1, &[("BackendServerStatus", "enabled")]);
}

/// The Python version aligned rows by their count: with row 1 lost, the last one flapped for ever.
#[test]
fn a_lost_row_is_created_again_under_its_own_number_and_nothing_flaps() {
    let bed = bed("lost-row", &[("web", 3)]);
    let web = ids(&bed, "web");
    let all = [(1, web[0].as_str()), (2, &web[1]), (3, &web[2])];
    let mut server = steady(&bed, 4).spawn();
    wait_seats(&bed, &all);
    settle(&bed, &mut server);
    for lost in [1, 2, 4] {
        let mut before = bed.moto().rows();
        assert_eq!(before.len(), 4);
        bed.moto().delete_item(lost);
        let name = text_of(&before[&lost], "ServerName").unwrap();
        wait_row(&bed, lost, &[("ServerName", &name)]);
        settle(&bed, &mut server);
        let mut after = bed.moto().rows();
        if lost == 1 {
            // The lease goes with slot 1's item, and with it the time of its server's last ramp step.
            assert!(before.remove(&lost).is_some() && after.remove(&lost).is_some());
        }
        assert_eq!(after, before, "after row {lost} was lost");
    }
    wait_seats(&bed, &all);
    server.wait_turn();
    assert_eq!(bed.aws().count("TransactWriteItems"), 0, "once it has settled, nothing is written any more");
}
