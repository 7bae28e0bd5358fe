//! Instances that leave, become unhealthy, go to standby and come back.

use super::fixture::{FAILED, bed, has, ids, steady, wait_row, wait_seats};
use crate::common::aws_proxy::Fault;
use crate::common::lifecycles::Lifecycles;

#[test]
fn a_leaving_instance_drains_in_its_slot_until_it_is_gone() {
    let bed = bed("drain", &[("web", 2)]);
    let web = bed.moto().instances("web");
    let states = Lifecycles::install(&bed);
    // A ramp without a step here: back from draining starts at MIN.
    let mut server = steady(&bed, 2)
        .env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "4")
        .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "1000")
        .spawn();
    let address = web[0].address.to_string();
    let (drained, back) =
        ([("BackendServerStatus", "draining"), ("Weight", "0")], [("BackendServerStatus", "enabled"), ("Weight", "4")]);
    let check = |what: &str, server: &mut crate::common::hsdo::Running| {
        wait_row(&bed, 1, &drained);
        server.wait_turn();
        let rows = bed.moto().rows();
        let same = [("ServerName", web[0].id.as_str()), ("IPAddress", &address), ("ASG", "web")];
        assert!(has(&rows[&1], &same) && has(&rows[&1], &drained), "{what}: {:?}", rows[&1]);
        assert!(has(&rows[&2], &back), "{what}: the other one serves on: {:?}", rows[&2]);
    };
    wait_row(&bed, 1, &back);
    let leaving = ["Terminating", "Terminating:Wait", "Terminating:Proceed", "Detaching", "EnteringStandby"];
    for state in leaving.into_iter().chain(["Pending", "Pending:Wait", "Pending:Proceed"]) {
        states.set(&web[0].id, state);
        check(state, &mut server);
        states.clear();
        wait_row(&bed, 1, &back);
    }
    bed.moto().set_instance_health(&web[0].id, "Unhealthy");
    check("Unhealthy", &mut server);
    assert_eq!(server.metric(r#"hsdo_slots{state="draining"}"#), Some(1.0));
    let line = format!("slot 1: drained {} at {address} (group web), weight 0", web[0].id);
    assert!(server.log().contains(&line), "{}", server.log());
    bed.moto().set_instance_health(&web[0].id, "Healthy");
    wait_row(&bed, 1, &back);

    states.set(&web[0].id, "Terminating:Wait");
    wait_row(&bed, 1, &drained);
    bed.moto().terminate_in_group(&web[0].id, true);
    wait_seats(&bed, &[(2, &web[1].id)]);
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}

#[test]
fn an_instance_that_is_not_in_service_takes_no_new_slot() {
    let bed = bed("late-leave", &[("web", 2)]);
    let web = ids(&bed, "web");
    let states = Lifecycles::install(&bed);
    states.set(&web[0], "Terminating:Wait");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[1])]);
    for state in ["Terminating:Wait", "Pending", "Pending:Wait", "RootVolumeReplaced", "Dreaming"] {
        states.set(&web[0], state);
        server.wait_turn();
        wait_seats(&bed, &[(1, &web[1])]);
    }
}

/// Its machine goes down meanwhile, and is the same server when it is back.
#[test]
fn instances_whose_root_volumes_are_replaced_keep_their_slots() {
    let bed = bed("root-volume", &[("web", 4)]);
    let web = ids(&bed, "web");
    let all = [(1, web[0].as_str()), (2, &web[1]), (3, &web[2]), (4, &web[3])];
    let states = Lifecycles::install(&bed);
    let mut server = steady(&bed, 6).spawn();
    wait_seats(&bed, &all);
    let drained = [("BackendServerStatus", "draining"), ("Weight", "0")];
    for state in
        ["ReplacingRootVolume", "ReplacingRootVolume:Wait", "ReplacingRootVolume:Proceed", "RootVolumeReplaced"]
    {
        for id in &web[..3] {
            states.set(id, state);
        }
        (1..=3).for_each(|slot| wait_row(&bed, slot, &drained));
        // Whatever EC2 says meanwhile: the second is stopped, the third is missing.
        bed.moto().ec2("StopInstances", &[("InstanceId.1", &web[1])]);
        let gone = Fault::replace(&format!("<instanceId>{}<", web[2]), "<instanceId>i-0fedcba9876543210<");
        bed.aws().inject("DescribeInstances", gone);
        server.wait_turn();
        server.wait_turn();
        wait_seats(&bed, &all);
        (1..=3).for_each(|slot| wait_row(&bed, slot, &drained));
        bed.moto().ec2("StartInstances", &[("InstanceId.1", &web[1])]);
        bed.aws().heal();
        bed.aws().inject("DescribeAutoScalingGroups", states.fault());
    }
    bed.moto().set_desired("web", 5);
    let fifth = ids(&bed, "web").into_iter().find(|id| !web.contains(id)).expect("a fifth one");
    // They come back in another order than they left.
    for id in [&web[2], &web[0], &web[1]] {
        states.set(id, "Pending:Wait");
        server.wait_turn();
        states.set(id, "InService");
        server.wait_turn();
    }
    wait_seats(&bed, &[all[0], all[1], all[2], all[3], (5, &fifth)]);
    (1..=5).for_each(|slot| wait_row(&bed, slot, &[("BackendServerStatus", "enabled"), ("Weight", "10")]));
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
    assert!(!server.log().contains(": removed "), "{}", server.log());
}

/// AWS adds states now and then, and so do its imitations.
#[test]
fn a_word_that_hsdo_does_not_know_keeps_a_server_as_it_is_and_is_told_once() {
    let bed = bed("unknown-word", &[("web", 3)]);
    let web = ids(&bed, "web");
    let states = Lifecycles::install(&bed);
    let mut server = steady(&bed, 4).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1]), (3, &web[2])]);
    bed.moto().set_instance_health(&web[2], "Unhealthy");
    wait_row(&bed, 3, &[("BackendServerStatus", "draining")]);
    let before = bed.moto().rows();
    for state in ["Dreaming", "Terminating:Something", "Dreaming"] {
        web.iter().for_each(|id| states.set(id, state));
        server.wait_metric("hsdo_unknown_state_instances", |count| count == 3.0);
        server.wait_turn();
        assert_eq!(bed.moto().rows(), before, "{state}");
        states.clear();
        server.wait_metric("hsdo_unknown_state_instances", |count| count == 0.0);
    }
    for state in ["Dreaming", "Terminating:Something"] {
        let line = format!("lifecycle state {state:?} of {} in group web is not known", web[0]);
        assert_eq!(server.log().matches(&line).count(), 1, "said once: {}", server.log());
    }
    let lines = server.log().matches("is not known to this version of hsdo").count();
    assert_eq!(lines, 2, "one line per state: {}", server.log());

    bed.aws().heal();
    bed.aws().inject("DescribeAutoScalingGroups", Fault::replace(">Healthy<", ">Pondering<"));
    server.wait_log("health \"Pondering\" of");
    server.wait_turn();
    assert_eq!(bed.moto().rows(), before, "a health that is not known");
    assert_eq!(server.metric(FAILED), Some(0.0), "{}", server.log());
}

#[test]
fn when_all_are_leaving_the_last_ones_serve_on() {
    let bed = bed("last-resort", &[("web", 2)]);
    let web = ids(&bed, "web");
    let mut server = steady(&bed, 2).spawn();
    wait_seats(&bed, &[(1, &web[0]), (2, &web[1])]);
    bed.moto().set_instance_health(&web[0], "Unhealthy");
    wait_row(&bed, 1, &[("BackendServerStatus", "draining"), ("Weight", "0")]);
    bed.moto().set_instance_health(&web[1], "Unhealthy");
    wait_row(&bed, 2, &[("BackendServerStatus", "draining"), ("Weight", "10")]);
    server.wait_metric("hsdo_last_resort_servers", |count| count > 0.0);
    server.wait_turn();
    wait_row(&bed, 2, &[("BackendServerStatus", "draining"), ("Weight", "10")]);
    assert_eq!(server.log().matches("draining servers serve on").count(), 1, "said once: {}", server.log());

    bed.moto().set_instance_health(&web[0], "Healthy");
    wait_row(&bed, 1, &[("BackendServerStatus", "enabled"), ("Weight", "10")]);
    wait_row(&bed, 2, &[("BackendServerStatus", "draining"), ("Weight", "0")]);
    server.wait_metric("hsdo_last_resort_servers", |count| count == 0.0);
    server.wait_log("draining servers no longer serve as the last resort");
}

/// In dedicated mode another group's slot is in another backend: a returning instance must get its group's slot.
#[test]
fn instances_back_from_standby_get_the_slots_of_their_own_groups() {
    let bed = bed("standby", &[("web", 2), ("other", 2)]);
    let (web, other) = (ids(&bed, "web"), ids(&bed, "other"));
    let _server = steady(&bed, 6).env("SERVER_ASG_NAMES", "web,other").spawn();
    let all = [(1, web[0].as_str()), (2, &web[1]), (3, &other[0]), (4, &other[1])];
    wait_seats(&bed, &all);
    bed.moto().enter_standby("web", &web[0]);
    bed.moto().enter_standby("other", &other[0]);
    wait_seats(&bed, &[(2, &web[1]), (4, &other[1])]);
    wait_row(&bed, 1, &[("HsdoLastASG", "web"), ("ASG", "none"), ("BackendServerStatus", "disabled")]);
    wait_row(&bed, 3, &[("HsdoLastASG", "other"), ("ASG", "none"), ("BackendServerStatus", "disabled")]);

    // The lower slot is free too, but it was the other group's.
    bed.moto().exit_standby("other", &other[0]);
    wait_seats(&bed, &[(2, &web[1]), (3, &other[0]), (4, &other[1])]);
    bed.moto().exit_standby("web", &web[0]);
    wait_seats(&bed, &all);

    // Both groups change at once: each new instance gets a slot of its own group.
    bed.moto().terminate_in_group(&web[1], false);
    bed.moto().terminate_in_group(&other[1], false);
    let new = |group: &str, old: &[String]| ids(&bed, group).into_iter().find(|id| !old.contains(id)).unwrap();
    let (new_web, new_other) = (new("web", &web), new("other", &other));
    wait_seats(&bed, &[(1, &web[0]), (2, &new_web), (3, &other[0]), (4, &new_other)]);
    wait_row(&bed, 2, &[("ASG", "web")]);
    wait_row(&bed, 4, &[("ASG", "other")]);
}
